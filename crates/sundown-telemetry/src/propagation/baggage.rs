//! Baggage: what a caller says of a request to all that work on it (W3C Baggage, section 3).
//!
//! Holds at most 64 members and, as they are written, 8192 bytes, which is what everybody has to hand on.

use http::HeaderMap;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::headers::{self, LONGEST, Reader, Refusal};

const BAGGAGE: &str = "baggage";

/// How many members there may be.
const MEMBERS: usize = 64;

/// What is not written as it is: all but `baggage-octet`, and the sign of an escape itself.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b',')
    .add(b';')
    .add(b'\\')
    .add(b'%');

/// What a caller says of a request: at most 64 keys with a value each, in 8192 bytes.
///
/// Values are any text; keys are tokens, as the names of headers are (RFC 9110, section 5.6.2). What a header says of a
/// value behind a semicolon is handed on with it.
///
/// ```
/// use sundown_telemetry::propagation::Baggage;
///
/// let mut baggage = Baggage::default();
/// baggage.insert("tenant", "Blaue Kühe, GmbH")?;
/// assert_eq!(baggage.get("tenant"), Some("Blaue Kühe, GmbH"));
/// assert!(baggage.insert("a key", "").is_err());
/// # Ok::<(), sundown_telemetry::propagation::NotTaken>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Baggage(Vec<Member>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Member {
    key: String,
    value: String,
    /// As they are written, with a semicolon before each.
    properties: String,
    /// How many bytes all of it has as it is written.
    length: usize,
}

impl Baggage {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let member = self.0.iter().find(|member| member.key == key);
        member.map(|member| member.value.as_str())
    }

    /// Every key and its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let members = self.0.iter();
        members.map(|member| (member.key.as_str(), member.value.as_str()))
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// If the key is no token, or there is no room.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), NotTaken> {
        if !is_token(key) {
            return Err(NotTaken::Key);
        }
        self.put(Member::new(key, value.to_owned(), String::new()))
    }

    fn put(&mut self, member: Member) -> Result<(), NotTaken> {
        let place = self.0.iter().position(|other| other.key == member.key);
        let others = self.0.iter().filter(|other| other.key != member.key);
        let bytes: usize = others.map(|other| other.length + 1).sum();
        if bytes + member.length > LONGEST || place.is_none() && self.0.len() == MEMBERS {
            return Err(NotTaken::Full);
        }
        match place {
            Some(place) => self.0[place] = member,
            None => self.0.push(member),
        }
        Ok(())
    }

    /// Takes what another says of keys that are not here yet.
    pub(super) fn complete(&mut self, other: Self, reader: &mut Reader<'_>) {
        for member in other.0 {
            if self.get(&member.key).is_none() && self.put(member).is_err() {
                reader.refuse(Refusal::TooLong);
            }
        }
    }
}

impl Member {
    fn new(key: &str, value: String, properties: String) -> Self {
        let written: usize = escaped(&value).map(str::len).sum();
        Self {
            length: key.len() + 1 + written + properties.len(),
            key: key.to_owned(),
            value,
            properties,
        }
    }

    /// Reads a member as its header has it.
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(trim);
        let (key, value) = parts
            .next()?
            .split_once('=')
            .map(|(key, value)| (trim(key), trim(value)))?;
        if !is_token(key) || !is_value(value) {
            return None;
        }
        let mut properties = String::new();
        for property in parts {
            let (name, value) = property.split_once('=').unwrap_or((property, ""));
            if !is_token(trim(name)) || !is_value(trim(value)) {
                return None;
            }
            properties.push(';');
            properties.push_str(property);
        }
        let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
        Some(Self::new(key, value, properties))
    }
}

/// Reads what the `baggage` headers of a request say; of two values of a key the later.
pub(super) fn extract(reader: &mut Reader<'_>) -> Baggage {
    let mut baggage = Baggage::default();
    for value in reader.all(BAGGAGE) {
        let text = match value {
            Ok(text) => text,
            Err(refusal) => {
                reader.refuse(refusal);
                continue;
            }
        };
        for text in text.split(',').map(trim).filter(|text| !text.is_empty()) {
            match Member::read(text).map(|member| baggage.put(member)) {
                Some(Ok(())) => {}
                Some(Err(_)) => reader.refuse(Refusal::TooLong),
                None => reader.refuse(Refusal::Garbage),
            }
        }
    }
    baggage
}

/// Writes baggage in the place of what is there.
pub(super) fn inject(baggage: &Baggage, headers: &mut HeaderMap) {
    headers.remove(BAGGAGE);
    if baggage.is_empty() {
        return;
    }
    let mut text = String::new();
    for (place, member) in baggage.0.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&member.key);
        text.push('=');
        text.extend(escaped(&member.value));
        text.push_str(&member.properties);
    }
    headers::put(headers, BAGGAGE, text);
}

/// A value as it is written: in pieces.
pub(super) fn escaped(value: &str) -> impl Iterator<Item = &str> {
    utf8_percent_encode(value, ESCAPED)
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Whether a text is a token (RFC 9110, section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// Whether a text is made of what values and those of properties may have.
fn is_value(text: &str) -> bool {
    let is_octet = |byte: u8| matches!(byte, b'!'..=b'~') && !b"\",;\\".contains(&byte);
    text.bytes().all(is_octet)
}

/// Baggage does not take a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// The key is not of the characters that the name of a header may have.
    #[error("a key of baggage is made of what names of headers are made of")]
    Key,
    /// There is no room for it.
    #[error("baggage has at most 64 members in 8192 bytes")]
    Full,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::propagation::Rejected;

    fn read(values: &[&str]) -> (Baggage, Rejected) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(BAGGAGE, HeaderValue::from_str(value).unwrap());
        }
        let mut reader = Reader::new(&headers);
        let baggage = extract(&mut reader);
        (baggage, reader.rejected)
    }

    fn written(baggage: &Baggage) -> String {
        let mut headers = HeaderMap::new();
        inject(baggage, &mut headers);
        headers
            .get(BAGGAGE)
            .map_or("", |value| value.to_str().unwrap())
            .to_owned()
    }

    #[test]
    fn what_is_read_is_written_again() {
        let table: [(&[&str], &str); 8] = [
            (
                &["userId=alice,serverNode=DF%2028"],
                "userId=alice,serverNode=DF%2028",
            ),
            (&["userId =  alice \t", "flag = 1"], "userId=alice,flag=1"),
            (
                &["k=v1;p1;p2=x, k2 = v2 ; p3 = y"],
                "k=v1;p1;p2=x,k2=v2;p3 = y",
            ),
            (&["k=a=b==", "q=%22%25"], "k=a=b==,q=%22%25"),
            (&["k=%C3%A9%2c"], "k=%C3%A9%2C"),
            (&["k=,,"], "k="),
            (&["k=1,other=2,k=3"], "k=3,other=2"),
            (&["k=%zz"], "k=%25zz"),
        ];
        for (values, expected) in table {
            let (baggage, rejected) = read(values);
            assert_eq!(written(&baggage), expected, "{values:?}");
            assert_eq!(rejected, Rejected::default(), "{values:?}");
        }
    }

    #[test]
    fn a_value_is_any_text_and_bytes_that_are_none_are_replaced() {
        assert_eq!(read(&["k=Caf%C3%A9"]).0.get("k"), Some("Café"));
        assert_eq!(read(&["k=%FF"]).0.get("k"), Some("\u{fffd}"));
        let mut baggage = Baggage::default();
        baggage.insert("k", "a \"b\", c;d\\e\r\n%41").unwrap();
        assert_eq!(read(&[&written(&baggage)]).0, baggage);
    }

    #[test]
    fn a_bad_member_is_left_out_and_counted() {
        let (baggage, rejected) = read(&["no value,a b=1,k=\"q\",k=1;=,good=1"]);
        assert_eq!(written(&baggage), "good=1");
        assert_eq!(rejected.garbage, 4);
    }

    #[test]
    fn as_much_is_held_as_everybody_has_to_hand_on() {
        let members: Vec<String> = (0..70).map(|number| format!("k{number}=v")).collect();
        let (baggage, rejected) = read(&[&members.join(",")]);
        assert_eq!((baggage.iter().count(), rejected.too_long), (64, 6));
        let whole = format!("k={}", "v".repeat(LONGEST - 2));
        let (baggage, rejected) = read(&[&whole, "next=1"]);
        assert_eq!(written(&baggage), whole);
        assert_eq!(rejected.too_long, 1);
        // It is a byte here, and three as it is written.
        let mut baggage = Baggage::default();
        assert_eq!(baggage.insert("k", &" ".repeat(2731)), Err(NotTaken::Full));
        assert_eq!(baggage.insert("k", &" ".repeat(2730)), Ok(()));
    }
}
