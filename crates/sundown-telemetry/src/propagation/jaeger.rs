//! `uber-trace-id` and `uberctx-…`: the propagation format of Jaeger's own clients (jaegertracing.io, client libraries).
//!
//! Ids have as many digits as they need. A parent's id, which the format sends beside the span's, is not looked at and
//! is written as zero. Baggage is a header for each key, in which keys lose their upper case.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use super::digits::hex;
use super::headers::{self, Reader, Refusal};
use super::{Baggage, NotTaken, Parent, Sampling, SpanContext, SpanId, TraceId, baggage};

const TRACE_ID: &str = "uber-trace-id";
const BAGGAGE: &str = "uberctx-";

const SAMPLED: u8 = 1;
const DEBUG: u8 = 2;

pub(super) fn extract(reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
    reader.span(TRACE_ID, read)
}

/// Reads `trace:span:parent:flags`.
fn read(text: &str) -> Option<SpanContext> {
    // Some clients escape all of the value, as they do with baggage.
    let text: Cow<'_, str> = match text.contains(':') {
        true => text.into(),
        false => percent_decode_str(text).decode_utf8().ok()?,
    };
    let mut fields = text.split(':');
    let trace_id = TraceId::new(hex(fields.next()?, 1..=32)?)?;
    let span_id = SpanId::new(hex(fields.next()?, 1..=16)? as u64)?;
    let _parent = fields.next()?;
    let flags = hex(fields.next()?, 1..=2)? as u8;
    let sampling = match (flags & DEBUG, flags & SAMPLED) {
        (0, 0) => Sampling::Reject,
        (0, _) => Sampling::Accept,
        _ => Sampling::Debug,
    };
    let context = SpanContext::remote(trace_id, span_id, sampling);
    fields.next().is_none().then_some(context)
}

/// Reads what the `uberctx-` headers of a request say; of two values of a key the later.
pub(super) fn extract_baggage(reader: &mut Reader<'_>) -> Baggage {
    let mut baggage = Baggage::default();
    for (key, value) in reader.beginning_with(BAGGAGE) {
        let taken = value.map(|value| {
            // Some clients write a space as forms do.
            let value = value.replace('+', " ");
            baggage.insert(key, &percent_decode_str(&value).decode_utf8_lossy())
        });
        match taken {
            Ok(Ok(())) => {}
            Ok(Err(NotTaken::Key)) => reader.refuse(Refusal::Garbage),
            Ok(Err(NotTaken::Full)) => reader.refuse(Refusal::TooLong),
            Err(refusal) => reader.refuse(refusal),
        }
    }
    baggage
}

pub(super) fn inject(context: &SpanContext, baggage: &Baggage, headers: &mut HeaderMap) {
    let flags = match context.sampling {
        Sampling::Accept => SAMPLED,
        Sampling::Debug => SAMPLED | DEBUG,
        Sampling::Reject | Sampling::Defer => 0,
    };
    let (trace_id, span_id) = (context.trace_id, context.span_id);
    headers::put(
        headers,
        TRACE_ID,
        format!("{trace_id}:{span_id}:0:{flags:x}"),
    );
    headers::remove_beginning_with(headers, BAGGAGE);
    for (key, value) in baggage.iter() {
        let name = HeaderName::try_from(format!("{BAGGAGE}{key}"));
        let value = baggage::escaped(value)
            .collect::<String>()
            .replace('+', "%2B");
        headers::put(headers, name.expect("a key of baggage is a token"), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::Rejected;
    use crate::propagation::tests::headers_of;

    #[test]
    fn ids_have_as_many_digits_as_they_need() {
        let table = [
            ("1:2:0:1", Some((1, 2, Sampling::Accept))),
            ("1:2:0:0", Some((1, 2, Sampling::Reject))),
            ("1:2:0:03", Some((1, 2, Sampling::Debug))),
            ("1:2:0:2", Some((1, 2, Sampling::Debug))),
            ("1:2:0:9", Some((1, 2, Sampling::Accept))),
            ("1:2::1", Some((1, 2, Sampling::Accept))),
            ("1%3A2%3a0%3A1", Some((1, 2, Sampling::Accept))),
            ("Ab:0000000000000002:f:1", Some((0xab, 2, Sampling::Accept))),
            ("0:2:0:1", None),
            ("1:0:0:1", None),
            ("1:2:0", None),
            ("1:2:0:1:", None),
            ("1:2:0:", None),
            ("1:2:0:100", None),
            ("1:2:0:g", None),
            ("1:00000000000000002:0:1", None),
            (":2:0:1", None),
            ("", None),
            ("%FF", None),
        ];
        for (value, expected) in table {
            let context = read(value).map(|context| {
                (
                    context.trace_id.get(),
                    context.span_id.get(),
                    context.sampling,
                )
            });
            assert_eq!(context, expected, "{value:?}");
        }
        let long = format!("{}:1:0:1", "1".repeat(33));
        assert_eq!(read(&long), None);
    }

    #[test]
    fn baggage_is_a_header_for_each_key_and_none_of_old_ones_stays() {
        let mut headers = headers_of(&[
            ("uberctx-user-id", "a+b%2Bc%20d"),
            ("uberctx-", "of no key"),
        ]);
        let mut reader = Reader::new(&headers);
        let baggage = extract_baggage(&mut reader);
        assert_eq!(baggage.get("user-id"), Some("a b+c d"));
        assert_eq!(
            reader.rejected,
            Rejected {
                garbage: 1,
                too_long: 0
            }
        );
        let one = SpanContext::local(
            TraceId::new(1).unwrap(),
            SpanId::new(2).unwrap(),
            Sampling::Debug,
        );
        headers.insert("uberctx-old", "1".parse().unwrap());
        inject(&one, &baggage, &mut headers);
        let expected = headers_of(&[
            ("uber-trace-id", &format!("{:032x}:{:016x}:0:3", 1, 2)),
            ("uberctx-user-id", "a%20b%2Bc%20d"),
        ]);
        assert_eq!(headers, expected);
    }
}
