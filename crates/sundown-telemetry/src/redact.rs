//! Takes secrets out of what is written: card numbers, credentials, and what else is wished.
//!
//! Works on text: messages and the fields that are strings. Numbers are never looked at.

mod cards;
mod credentials;

use std::borrow::Cow;
use std::ops::Range;

use regex::Regex;

use self::credentials::Credentials;

/// What stands in the place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// An e-mail address, as people write it (RFC 5321, section 4.1.2, without quoted parts).
const EMAIL: &str =
    r"[A-Za-z0-9][A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+";

/// What is taken out of logs. The default is card numbers and credentials.
///
/// Card numbers are told by their issuer's prefix, their length and their check digit, also when they are split by
/// spaces and dashes; credentials by the names of headers, parameters and fields. Each becomes `[redacted]`.
///
/// ```
/// use sundown_telemetry::Redaction;
///
/// let redaction = Redaction::default().emails().pattern(r"\bIBAN [A-Z0-9 ]+")?;
/// assert_eq!(
///     redaction.redact("ann@example.com paid by 4111 1111 1111 1111, IBAN DE02 1203"),
///     "[redacted] paid by [redacted], [redacted]",
/// );
/// # Ok::<(), sundown_telemetry::BadPattern>(())
/// ```
#[derive(Debug)]
pub struct Redaction {
    cards: bool,
    credentials: Option<Credentials>,
    patterns: Vec<Regex>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self {
            cards: true,
            credentials: Some(Credentials::new()),
            patterns: Vec::new(),
        }
    }
}

impl Redaction {
    /// Takes nothing out.
    pub fn none() -> Self {
        Self {
            cards: false,
            credentials: None,
            patterns: Vec::new(),
        }
    }

    /// Takes e-mail addresses out, too.
    #[must_use]
    pub fn emails(self) -> Self {
        self.pattern(EMAIL)
            .expect("the expression for addresses is one")
    }

    /// Takes out whatever matches a regular expression, too.
    ///
    /// # Errors
    /// If it is none.
    pub fn pattern(mut self, expression: &str) -> Result<Self, BadPattern> {
        let pattern = Regex::new(expression).map_err(|cause| BadPattern {
            pattern: expression.to_owned(),
            cause: Box::new(cause),
        })?;
        self.patterns.push(pattern);
        Ok(self)
    }

    /// Writes `[redacted]` in the place of each secret in a text.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = self.find(text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = String::with_capacity(text.len());
        let mut at = 0;
        for secret in found {
            // Where two overlap, the second is in the place of the first.
            if secret.start >= at {
                clean.push_str(&text[at..secret.start]);
                clean.push_str(REDACTED);
            }
            at = at.max(secret.end);
        }
        clean.push_str(&text[at..]);
        Cow::Owned(clean)
    }

    /// Whether all of a field is a secret, by its name.
    pub(crate) fn hides(&self, field: &str) -> bool {
        self.credentials.is_some() && credentials::is_secret(field)
    }

    /// Finds what is secret, by where it begins.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        if self.cards {
            cards::find(text.as_bytes(), &mut found);
        }
        if let Some(credentials) = &self.credentials {
            credentials.find(text.as_bytes(), &mut found);
        }
        for pattern in &self.patterns {
            found.extend(pattern.find_iter(text).map(|secret| secret.range()));
        }
        found.sort_unstable_by_key(|secret| secret.start);
        found
    }
}

/// A pattern is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("{pattern:?} is no regular expression")]
pub struct BadPattern {
    pattern: String,
    #[source]
    cause: Box<dyn std::error::Error + Send + Sync>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_overlap_are_one() {
        let text = "token=4111111111111111; x";
        assert_eq!(Redaction::default().redact(text), "token=[redacted]; x");
    }

    #[test]
    fn what_is_clean_is_not_copied() {
        let clean = Redaction::default().redact("nothing of interest in 2026");
        assert!(matches!(clean, Cow::Borrowed(_)));
    }

    #[test]
    fn addresses_are_taken_out_by_option() {
        let text = "mail to ann.b+c@mail.example.com.";
        assert_eq!(Redaction::default().redact(text), text);
        let clean = Redaction::none().emails().redact(text).into_owned();
        assert_eq!(clean, "mail to [redacted].");
    }

    #[test]
    fn what_is_no_expression_is_named() {
        let error = Redaction::none().pattern("(").unwrap_err();
        assert_eq!(error.to_string(), "\"(\" is no regular expression");
    }
}
