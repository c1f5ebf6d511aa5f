//! Reads headers within bounds and replaces them.
//!
//! Never copies a value that is too long, and never gives out one that is not ASCII.

use http::header::{AsHeaderName, HeaderMap, HeaderName, HeaderValue, IntoHeaderName};

use super::{Parent, Rejected, SpanContext};

/// How long the value of a header may be, in bytes: as much as W3C Baggage demands to be handed on.
pub(super) const LONGEST: usize = 8192;

/// Why something in a header is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is not of its format.
    Garbage,
    /// There is more than anybody has to take.
    TooLong,
}

/// Headers of a request; counts what of them is refused.
pub(super) struct Reader<'a> {
    headers: &'a HeaderMap,
    pub(super) rejected: Rejected,
}

impl<'a> Reader<'a> {
    pub(super) fn new(headers: &'a HeaderMap) -> Self {
        Self {
            headers,
            rejected: Rejected::default(),
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Garbage => self.rejected.garbage += 1,
            Refusal::TooLong => self.rejected.too_long += 1,
        }
    }

    /// The value of a header; of several the first.
    pub(super) fn first(&self, name: impl AsHeaderName) -> Result<Option<&'a str>, Refusal> {
        self.headers.get(name).map(text).transpose()
    }

    /// The span that the value of a header names as a whole.
    pub(super) fn span(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Option<SpanContext>,
    ) -> Result<Option<Parent>, Refusal> {
        let Some(text) = self.first(name)? else {
            return Ok(None);
        };
        let context = read(text).ok_or(Refusal::Garbage)?;
        Ok(Some(Parent::Span(context)))
    }

    /// All values of a header, in order.
    pub(super) fn all(
        &self,
        name: &str,
    ) -> impl Iterator<Item = Result<&'a str, Refusal>> + use<'a> {
        self.headers.get_all(name).into_iter().map(text)
    }

    /// The headers whose names begin with something, by what follows it.
    pub(super) fn beginning_with(
        &self,
        prefix: &'static str,
    ) -> impl Iterator<Item = (&'a str, Result<&'a str, Refusal>)> + use<'a> {
        self.headers.iter().filter_map(move |(name, value)| {
            let rest = name.as_str().strip_prefix(prefix)?;
            Some((rest, text(value)))
        })
    }
}

/// A value without the white space around it (RFC 9110, section 5.5).
fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    if value.len() > LONGEST {
        return Err(Refusal::TooLong);
    }
    let text = value.to_str().map_err(|_| Refusal::Garbage)?;
    Ok(text.trim_matches([' ', '\t']))
}

/// Writes a header in the place of all that have its name.
pub(super) fn put(headers: &mut HeaderMap, name: impl IntoHeaderName, value: String) {
    let value = HeaderValue::try_from(value).expect("ids and encoded text are visible ASCII");
    // Only a map of more headers than any server takes has no room, and then nothing of it is sent.
    let _ = headers.try_insert(name, value);
}

/// Removes all headers whose names begin with something.
pub(super) fn remove_beginning_with(headers: &mut HeaderMap, prefix: &str) {
    let names = headers
        .keys()
        .filter(|name| name.as_str().starts_with(prefix));
    let names: Vec<HeaderName> = names.cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
