//! The trace state: what tracing systems tell each other of a trace (W3C Trace Context Level 2, section 3.3).

use std::fmt;
use std::str::FromStr;

use super::headers::{LONGEST, Refusal};

/// How many members there may be.
const MEMBERS: usize = 32;

/// How long a key may be, and a value.
const LONGEST_PART: usize = 256;

/// Longer members go first where all of them are too many bytes.
const LONG_MEMBER: usize = 128;

/// What tracing systems tell each other of a trace: at most 32 members `key=value`, the latest first.
///
/// Displayed as the header is written. Holds at most 8192 bytes; the specification demands 512.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceState(String);

impl TraceState {
    /// What a system says.
    pub fn get(&self, key: &str) -> Option<&str> {
        let member = self.members().find(|member| name_of(member) == key)?;
        member.split_once('=').map(|(_, value)| value)
    }

    /// Whether nobody says anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the values of all its headers as one; counts members that find no room.
    pub(super) fn read<'a>(
        values: impl Iterator<Item = Result<&'a str, Refusal>>,
    ) -> Result<(Self, usize), Refusal> {
        let mut members: Vec<&str> = Vec::new();
        for value in values {
            for member in value?.split(',') {
                let member = member.trim_matches([' ', '\t']);
                if member.is_empty() {
                    continue;
                }
                let key = key_of(member).ok_or(Refusal::Garbage)?;
                let is_again = |other: &&str| name_of(other) == key;
                if members.len() == MEMBERS || members.iter().any(is_again) {
                    return Err(Refusal::Garbage);
                }
                members.push(member);
            }
        }
        let dropped = shorten(&mut members);
        Ok((Self(members.join(",")), dropped))
    }

    /// Says something of a system, before all others; the last of too many goes.
    pub(super) fn with(&self, key: &str, value: &str) -> Self {
        let member = format!("{key}={value}");
        debug_assert_eq!(key_of(&member), Some(key));
        let others = self.members().filter(|other| name_of(other) != key);
        let mut members = vec![member.as_str()];
        members.extend(others.take(MEMBERS - 1));
        shorten(&mut members);
        Self(members.join(","))
    }

    fn members(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').filter(|member| !member.is_empty())
    }
}

/// Leaves out whole members until the others are short enough; returns how many.
fn shorten(members: &mut Vec<&str>) -> usize {
    let before = members.len();
    while members.iter().map(|member| member.len() + 1).sum::<usize>() > LONGEST + 1 {
        let long = members
            .iter()
            .rposition(|member| member.len() > LONG_MEMBER);
        members.remove(long.unwrap_or(members.len() - 1));
    }
    before - members.len()
}

/// The key of what is known to be a member.
fn name_of(member: &str) -> &str {
    member.split('=').next().unwrap_or_default()
}

/// The key of a member, if it is one.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let begins =
        key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    let is_key =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_value = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=' && byte != b',';
    let fits = |part: &str| (1..=LONGEST_PART).contains(&part.len());
    let is_member = begins
        && fits(key)
        && key.bytes().all(is_key)
        && fits(value)
        && value.bytes().all(is_value)
        && !value.ends_with(' ');
    is_member.then_some(key)
}

impl fmt::Display for TraceState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for TraceState {
    type Err = BadTraceState;

    fn from_str(text: &str) -> Result<Self, BadTraceState> {
        let (state, dropped) = Self::read(std::iter::once(Ok(text))).map_err(|_| BadTraceState)?;
        match dropped {
            0 => Ok(state),
            _ => Err(BadTraceState),
        }
    }
}

/// A text is no trace state.
#[derive(Debug, thiserror::Error)]
#[error("a trace state is at most 32 members key=value, each key once, in 8192 bytes")]
#[non_exhaustive]
pub struct BadTraceState;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&str]) -> Result<String, Refusal> {
        let values = values.iter().map(|value| Ok(*value));
        TraceState::read(values).map(|(state, _)| state.to_string())
    }

    fn numbered(count: usize, length: usize) -> Vec<String> {
        let members = (0..count).map(|number| format!("k{number}={}", "v".repeat(length)));
        members.collect()
    }

    #[test]
    fn members_are_kept_in_order_and_headers_are_one() {
        let table: [(&[&str], &str); 6] = [
            (&["foo=1"], "foo=1"),
            (&["foo=1,bar=2", "rojo=1"], "foo=1,bar=2,rojo=1"),
            (&["foo=1 \t , \t bar=2", "", "\t"], "foo=1,bar=2"),
            (&["", "foo=1", ",,"], "foo=1"),
            (&["1a@b*c/d-e_f=  !~ x"], "1a@b*c/d-e_f=  !~ x"),
            (&[], ""),
        ];
        for (values, expected) in table {
            assert_eq!(read(values).as_deref(), Ok(expected), "{values:?}");
        }
    }

    #[test]
    fn one_bad_member_is_a_bad_state() {
        let long_key = format!("{}=1", "z".repeat(257));
        let long_value = format!("z={}", "1".repeat(257));
        let too_many = numbered(33, 1).join(",");
        for text in [
            "foo",
            "foo=",
            "=1",
            "FOO=1",
            "foo =1",
            "foo.bar=1",
            "@foo=1",
            "foo=bar=baz",
            "foo=1,foo=2",
            "foo=a\tb",
            &long_key,
            &long_value,
            &too_many,
        ] {
            assert_eq!(read(&[text]), Err(Refusal::Garbage), "{text:?}");
        }
        assert!(read(&[&numbered(32, 1).join(",")]).is_ok());
        assert!(read(&[&format!("{}=1", "z".repeat(256))]).is_ok());
    }

    #[test]
    fn where_bytes_are_too_many_whole_members_go_and_long_ones_first() {
        let mut members = numbered(32, 250);
        members[31] = "last=1".to_owned();
        let (state, dropped) =
            TraceState::read(members.iter().map(|member| Ok(member.as_str()))).unwrap();
        assert_eq!(dropped, 0);
        assert_eq!(state.get("last"), Some("1"));
        for (place, member) in members.iter_mut().enumerate().take(31) {
            *member = format!("k{place:0>200}={}", "v".repeat(200));
        }
        let (state, dropped) =
            TraceState::read(members.iter().map(|member| Ok(member.as_str()))).unwrap();
        assert!(dropped > 0 && state.to_string().len() <= LONGEST);
        assert_eq!(state.get("last"), Some("1"));
    }

    #[test]
    fn what_is_said_last_stands_first() {
        let state: TraceState = "a=1,b=2".parse().unwrap();
        assert_eq!(state.with("b", "3").to_string(), "b=3,a=1");
        assert_eq!(state.with("c", "3").get("a"), Some("1"));
        let full: TraceState = numbered(32, 1).join(",").parse().unwrap();
        let state = full.with("new", "1");
        assert_eq!((state.get("new"), state.get("k31")), (Some("1"), None));
        assert!("no".parse::<TraceState>().is_err());
    }
}
