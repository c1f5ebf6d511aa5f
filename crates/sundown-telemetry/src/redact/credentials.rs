//! *Decides* where in a text credentials are: in headers, query strings, JSON, settings and URLs.
//!
//! Reads what people and programs print, so it goes by names and by what usually ends a value, and rather takes a
//! word too many than leaves half of a secret.

use std::ops::Range;

use aho_corasick::AhoCorasick;

/// Something that tells that a secret follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// A header of which all is secret.
    Header,
    /// A name whose value is secret.
    Name,
    /// A name that people use in sentences, too: `unexpected token: foo`.
    Word,
    /// A scheme of the Authorization header.
    Scheme,
    /// The user's part of a URL may follow.
    Url,
}

const SIGNS: [(&str, Sign); 24] = [
    ("authorization", Sign::Header),
    ("cookie", Sign::Header),
    ("password", Sign::Name),
    ("passwd", Sign::Name),
    ("passphrase", Sign::Name),
    ("pwd", Sign::Name),
    ("api_key", Sign::Name),
    ("api-key", Sign::Name),
    ("apikey", Sign::Name),
    ("access_key", Sign::Name),
    ("access-key", Sign::Name),
    ("accesskey", Sign::Name),
    ("private_key", Sign::Name),
    ("private-key", Sign::Name),
    ("session_id", Sign::Name),
    ("session-id", Sign::Name),
    ("sessionid", Sign::Name),
    ("token", Sign::Word),
    ("secret", Sign::Word),
    ("signature", Sign::Word),
    ("credential", Sign::Word),
    ("bearer ", Sign::Scheme),
    ("basic ", Sign::Scheme),
    ("://", Sign::Url),
];

/// Where credentials are, and which fields are such.
#[derive(Debug)]
pub(super) struct Credentials {
    signs: AhoCorasick,
}

impl Credentials {
    pub(super) fn new() -> Self {
        let signs = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .build(SIGNS.map(|(sign, _)| sign));
        Self {
            signs: signs.expect("these few are no more than it takes"),
        }
    }

    /// Finds all values that are secret, in no order.
    pub(super) fn find(&self, text: &[u8], found: &mut Vec<Range<usize>>) {
        // Most values of fields are a word: nothing follows a name there.
        if !text.iter().any(|byte| b":=, %".contains(byte)) {
            return;
        }
        for sign in self.signs.find_iter(text) {
            let value = match SIGNS[sign.pattern().as_usize()].1 {
                Sign::Header => value_of(text, sign.range(), false).map(header_value),
                Sign::Name => value_of(text, sign.range(), false).map(plain_value),
                Sign::Word => value_of(text, sign.range(), true).map(plain_value),
                Sign::Scheme => credentials_of(text, sign.end()),
                Sign::Url => password_of(text, sign.end()),
            };
            found.extend(value.filter(|value| !value.is_empty()));
        }
    }
}

/// Whether a field of this name is secret as a whole.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.as_bytes();
    let ends_with = |end: &str| {
        let start = name.len().checked_sub(end.len());
        start.is_some_and(|start| name[start..].eq_ignore_ascii_case(end.as_bytes()))
    };
    let last = name.last().map(u8::to_ascii_lowercase);
    // Of most names this is all that is looked at.
    let mut signs = SIGNS
        .iter()
        .filter(|(sign, _)| sign.as_bytes().last().copied() == last);
    signs.any(|(sign, kind)| match kind {
        Sign::Header | Sign::Name | Sign::Word => ends_with(sign),
        Sign::Scheme | Sign::Url => false,
    })
}

/// A value: where it begins in a text, and the quote around it.
struct Value<'a> {
    text: &'a [u8],
    start: usize,
    quote: Option<Quote>,
}

/// What a value stands between.
#[derive(Clone, Copy)]
struct Quote {
    mark: u8,
    /// Within another string: `\"`.
    escaped: bool,
}

/// The value that follows a name, if the name ends there and something is set or said to be by it. What may be a word
/// of a sentence counts as a name where `=` or quotes say so, or as the end of a longer one.
fn value_of<'a>(text: &'a [u8], name: Range<usize>, is_word: bool) -> Option<Value<'a>> {
    let mut at = name.end;
    let quoted = skip_quote(text, &mut at).is_some();
    skip_spaces(text, &mut at);
    let equals = match text.get(at..)? {
        [b'=', b'>', ..] => 2,
        [b'=', ..] => 1,
        [b':', ..] => 0,
        // Pairs, as Rust's Debug has them: `("cookie", "a=b")`.
        [b',', ..] if quoted => 0,
        [b'%', b'3', b'D' | b'd', ..] => 3,
        _ => return None,
    };
    let is_pair = text[at] == b',';
    at += equals.max(1);
    skip_spaces(text, &mut at);
    let quote = skip_quote(text, &mut at);
    if is_pair && quote.is_none() {
        return None;
    }
    let is_longer = matches!(text[..name.start].last(), Some(b'-' | b'_' | b'.'));
    let is_name = !is_word || quoted || quote.is_some() || equals > 0 || is_longer;
    is_name.then_some(Value {
        text,
        start: at,
        quote,
    })
}

fn skip_spaces(text: &[u8], at: &mut usize) {
    while let Some(b' ' | b'\t') = text.get(*at) {
        *at += 1;
    }
}

fn skip_quote(text: &[u8], at: &mut usize) -> Option<Quote> {
    let (mark, escaped) = match text.get(*at..)? {
        [b'\\', mark @ (b'"' | b'\''), ..] => (*mark, true),
        [mark @ (b'"' | b'\''), ..] => (*mark, false),
        _ => return None,
    };
    *at += 1 + usize::from(escaped);
    Some(Quote { mark, escaped })
}

/// Up to the closing quote, or where there is none, as far as a header's value goes.
fn header_value(value: Value<'_>) -> Range<usize> {
    let Value { text, start, quote } = value;
    if let Some(quote) = quote {
        return start..closing(text, start, quote);
    }
    let mut at = start;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\r' | b'\n' | b'\\' | b'\'' | b'}' => break,
            // A parameter of its own: `response="..."`.
            b'"' if text[..at].last() == Some(&b'=') => {
                let (mark, escaped) = (b'"', false);
                at = closing(text, at + 1, Quote { mark, escaped });
            }
            b'"' => break,
            _ => {}
        }
        at += 1;
    }
    start..at.min(text.len())
}

/// Up to the closing quote, or where there is none, as far as a word goes.
fn plain_value(value: Value<'_>) -> Range<usize> {
    let Value { text, start, quote } = value;
    if let Some(quote) = quote {
        return start..closing(text, start, quote);
    }
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"&;,\"'<>)}]\\#".contains(byte);
    let length = text[start..].iter().position(ends);
    start..length.map_or(text.len(), |length| start + length)
}

/// Where the quote is closed that was opened before `start`.
fn closing(text: &[u8], start: usize, quote: Quote) -> usize {
    let mut at = start;
    while let Some(&byte) = text.get(at) {
        match byte {
            // An escaped character within, or the end of a quote that is escaped itself.
            b'\\' if quote.escaped && text.get(at + 1) == Some(&quote.mark) => break,
            b'\\' => at += 1,
            _ if byte == quote.mark && !quote.escaped => break,
            _ => {}
        }
        at += 1;
    }
    at.min(text.len())
}

/// What follows the name of a scheme, if it looks like credentials and not like a word.
fn credentials_of(text: &[u8], start: usize) -> Option<Range<usize>> {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    let length = text[start..].iter().take_while(is_part).count();
    let token = &text[start..start + length];
    let is_odd = |byte: &u8| !byte.is_ascii_lowercase() && !b"-.".contains(byte);
    let looks_so = length >= 20 || length >= 6 && token.iter().any(is_odd);
    looks_so.then_some(start..start + length)
}

/// The password in the part of a URL before its host.
fn password_of(text: &[u8], start: usize) -> Option<Range<usize>> {
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"/?#\"'<>,".contains(byte);
    let length = text[start..].iter().position(ends);
    let authority = &text[start..length.map_or(text.len(), |length| start + length)];
    let at = authority.iter().rposition(|&byte| byte == b'@')?;
    let colon = authority[..at].iter().position(|&byte| byte == b':')?;
    Some(start + colon + 1..start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let mut found = Vec::new();
        Credentials::new().find(text.as_bytes(), &mut found);
        // A header's value may be seen twice, by its name and by its scheme.
        found.dedup_by(|second, first| second.end <= first.end);
        found.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn credentials_are_found_where_they_are_named() {
        let table = [
            ("Authorization: Bearer abc.def", "Bearer abc.def"),
            (
                "authorization: Digest username=\"bob\", response=\"66\"\r\nHost: x",
                "Digest username=\"bob\", response=\"66\"",
            ),
            (
                r#"{"authorization": "Basic Zm9vOmJhcg==", "host": "x"}"#,
                "Basic Zm9vOmJhcg==",
            ),
            (r#""{\"cookie\":\"a=b; c=d\",\"x\":1}""#, "a=b; c=d"),
            ("-H 'Cookie: a=b; c=d' https://x", "a=b; c=d"),
            ("set-cookie: id=7; Path=/\nx: y", "id=7; Path=/"),
            ("GET /x?access_token=abc&y=1", "abc"),
            ("GET /x?y=1&password=hunter2 HTTP/1.1", "hunter2"),
            ("url=/x%3Fapi_key%3Dabc", "abc"),
            ("password: hunter2", "hunter2"),
            (r#"token: "abc", x: 1"#, "abc"),
            ("X-Auth-Token: abc", "abc"),
            ("client_secret=s3", "s3"),
            (
                "sent Bearer eyJhbGciOiJIUzI1NiJ9.e30.x",
                "eyJhbGciOiJIUzI1NiJ9.e30.x",
            ),
            ("postgres://shop:hunter2@db/shop", "hunter2"),
            ("PASSWORD=x", "x"),
        ];
        for (text, secret) in table {
            assert_eq!(found(text), [secret], "{text}");
        }
    }

    #[test]
    fn words_of_a_sentence_are_none() {
        let table = [
            "unexpected token: end of input",
            "the cookie was refused, authorization failed",
            "basic authentication is off",
            "a bearer of news",
            "https://example.com/a@b?c:d",
            "max_tokens=100",
            "password=",
        ];
        for text in table {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn fields_are_secret_by_the_end_of_their_names() {
        for name in [
            "authorization",
            "http.request.header.Cookie",
            "x-api-key",
            "accessToken",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["tokens", "cookies_seen", "card", "key", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
