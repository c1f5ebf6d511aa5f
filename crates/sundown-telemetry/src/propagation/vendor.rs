//! Headers that are some vendor's, or one's own: a trace's id in one, and maybe a span's in another.

use http::{HeaderMap, HeaderName};

use super::digits::{decimal, hex, uuid};
use super::headers::{self, Reader, Refusal};
use super::{Parent, Sampling, SpanContext, SpanId, TraceId};

/// How ids are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// Hexadecimal: up to 32 digits for a trace, 16 for a span. All of them are written, in lower case.
    Hex,
    /// A trace is a UUID, with dashes (RFC 9562); a span is hexadecimal.
    Uuid,
    /// Decimal.
    Decimal,
}

/// Headers that are some vendor's, or one's own. They say nothing of sampling.
///
/// Where no header of a span is named, or a request has none, the span that stands for all of the trace is the parent.
///
/// ```
/// use http::{HeaderMap, HeaderName};
/// use sundown_telemetry::propagation::{Format, Ids, Propagation, Vendor};
///
/// let request_id = Vendor::new(HeaderName::from_static("x-request-id"), Ids::Uuid);
/// let propagation = Propagation::new([Format::W3c, Format::Vendor(request_id)]);
///
/// let mut request = HeaderMap::new();
/// request.insert("x-request-id", "5759e988-bd86-4e3f-a1be-46a994272793".parse()?);
/// let extracted = propagation.extract(&request);
/// let trace_id = extracted.context().map(|context| context.trace_id.to_string());
/// assert_eq!(trace_id.as_deref(), Some("5759e988bd864e3fa1be46a994272793"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vendor {
    trace_id: HeaderName,
    span_id: Option<HeaderName>,
    ids: Ids,
}

impl Vendor {
    /// Names the header of a trace's id.
    pub fn new(trace_id: HeaderName, ids: Ids) -> Self {
        Self {
            trace_id,
            span_id: None,
            ids,
        }
    }

    /// Names the header of a span's id.
    #[must_use]
    pub fn span_id(mut self, span_id: HeaderName) -> Self {
        self.span_id = Some(span_id);
        self
    }

    pub(super) fn extract(&self, reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
        let Some(trace) = reader.first(&self.trace_id)? else {
            return Ok(None);
        };
        let number = match self.ids {
            Ids::Hex => hex(trace, 1..=32),
            Ids::Uuid => uuid(trace),
            Ids::Decimal => decimal(trace),
        };
        let trace_id = number.and_then(TraceId::new).ok_or(Refusal::Garbage)?;
        let span = self.span_id.as_ref().map(|name| reader.first(name));
        let span_id = match span.transpose()?.flatten() {
            None => SpanId::of_root(trace_id),
            Some(span) => self.read_span(span).ok_or(Refusal::Garbage)?,
        };
        let context = SpanContext::remote(trace_id, span_id, Sampling::Defer);
        Ok(Some(Parent::Span(context)))
    }

    fn read_span(&self, text: &str) -> Option<SpanId> {
        let number = match self.ids {
            Ids::Hex | Ids::Uuid => hex(text, 1..=16),
            Ids::Decimal => decimal(text),
        };
        SpanId::new(number?.try_into().ok()?)
    }

    pub(super) fn inject(&self, context: &SpanContext, headers: &mut HeaderMap) {
        let trace_id = context.trace_id.to_string();
        let trace_id = match self.ids {
            Ids::Hex => trace_id,
            Ids::Decimal => context.trace_id.get().to_string(),
            Ids::Uuid => {
                let groups = [0..8, 8..12, 12..16, 16..20, 20..32];
                groups.map(|digits| &trace_id[digits]).join("-")
            }
        };
        headers::put(headers, self.trace_id.clone(), trace_id);
        if let Some(name) = &self.span_id {
            let span_id = match self.ids {
                Ids::Hex | Ids::Uuid => context.span_id.to_string(),
                Ids::Decimal => context.span_id.get().to_string(),
            };
            headers::put(headers, name.clone(), span_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::headers_of;

    #[test]
    fn ids_are_of_the_kind_that_was_chosen() {
        let uuid = "5759e988-bd86-4e3f-a1be-46a994272793";
        let number = 0x5759_e988_bd86_4e3f_a1be_46a9_9427_2793;
        let table = [
            (Ids::Uuid, uuid, None, Some((number, number as u64))),
            (Ids::Uuid, uuid, Some("b"), Some((number, 11))),
            (Ids::Uuid, "5759e988bd864e3fa1be46a994272793", None, None),
            (Ids::Hex, "aB", Some("C"), Some((0xab, 12))),
            (Ids::Hex, "ab", Some("12345678901234567"), None),
            (Ids::Hex, "0", Some("1"), None),
            (Ids::Hex, uuid, Some("1"), None),
            (Ids::Decimal, "10", Some("11"), Some((10, 11))),
            (Ids::Decimal, "10", Some("18446744073709551616"), None),
            (Ids::Decimal, "a", None, None),
            (Ids::Decimal, "10", Some("0"), None),
        ];
        for (ids, trace, span, expected) in table {
            let names = ["x-trace", "x-span"].map(HeaderName::from_static);
            let [trace_name, span_name] = names;
            let vendor = Vendor::new(trace_name, ids).span_id(span_name);
            let mut headers = headers_of(&[("x-trace", trace)]);
            if let Some(span) = span {
                headers.insert("x-span", span.parse().unwrap());
            }
            let found = vendor.extract(&mut Reader::new(&headers));
            let found = found.ok().flatten().map(|parent| match parent {
                Parent::Span(context) => (context.trace_id.get(), context.span_id.get()),
                other => panic!("{other:?}"),
            });
            assert_eq!(found, expected, "{ids:?} {trace:?} {span:?}");
        }
    }
}
