//! `x-datadog-trace-id` with its kin: what Datadog's tracers tell each other (docs.datadoghq.com, "Trace context
//! propagation"; DataDog/system-tests, which all of them pass).
//!
//! Ids are decimal and have 64 bits; the upper half of a trace's is the tag `_dd.p.tid`. One that is malformed is
//! left out, and the rest is valid. Priority 2, which is a person's wish, is a trace to debug. A parent that is zero is
//! none, and the span that stands for all of the trace takes its place. Other tags, and `x-datadog-origin`, are neither
//! looked at nor handed on.

use http::HeaderMap;

use super::digits::{decimal, lower_hex};
use super::headers::{self, Reader, Refusal};
use super::{Parent, Sampling, SpanContext, SpanId, TraceId};

const TRACE_ID: &str = "x-datadog-trace-id";
const PARENT_ID: &str = "x-datadog-parent-id";
const PRIORITY: &str = "x-datadog-sampling-priority";
const TAGS: &str = "x-datadog-tags";
const ORIGIN: &str = "x-datadog-origin";

/// The tag of a trace's upper half: 16 hexadecimal digits.
const UPPER_HALF: &str = "_dd.p.tid";

pub(super) fn extract(reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
    let (trace, parent) = match (reader.first(TRACE_ID)?, reader.first(PARENT_ID)?) {
        (None, None) => return Ok(None),
        (Some(trace), Some(parent)) => (trace, parent),
        _ => return Err(Refusal::Garbage),
    };
    let sampling = match reader.first(PRIORITY)? {
        None => Sampling::Defer,
        Some("2") => Sampling::Debug,
        Some("1") => Sampling::Accept,
        Some("0" | "-1") => Sampling::Reject,
        Some(_) => return Err(Refusal::Garbage),
    };
    let low = id(trace).filter(|low| *low != 0).ok_or(Refusal::Garbage)?;
    let high = upper_half(reader);
    let trace_id =
        TraceId::new(u128::from(high) << 64 | u128::from(low)).ok_or(Refusal::Garbage)?;
    let parent = id(parent).ok_or(Refusal::Garbage)?;
    let span_id = SpanId::new(parent).unwrap_or(SpanId::of_root(trace_id));
    let context = SpanContext::remote(trace_id, span_id, sampling);
    Ok(Some(Parent::Span(context)))
}

fn id(text: &str) -> Option<u64> {
    decimal(text)?.try_into().ok()
}

fn upper_half(reader: &mut Reader<'_>) -> u64 {
    let tags = reader.first(TAGS).map(Option::unwrap_or_default);
    let half = tags.and_then(|tags| {
        let mut tags = tags.split(',').filter_map(|tag| tag.split_once('='));
        let half = tags.find_map(|(key, value)| (key.trim() == UPPER_HALF).then_some(value));
        half.map_or(Ok(0), |half| lower_hex(half, 16).ok_or(Refusal::Garbage))
    });
    half.unwrap_or_else(|refusal| {
        reader.refuse(refusal);
        0
    }) as u64
}

pub(super) fn inject(context: &SpanContext, headers: &mut HeaderMap) {
    for name in [TRACE_ID, PARENT_ID, PRIORITY, TAGS, ORIGIN] {
        headers.remove(name);
    }
    let (low, high) = (context.trace_id.low(), context.trace_id.high());
    if low == 0 {
        // Datadog takes it for no trace at all.
        return;
    }
    headers::put(headers, TRACE_ID, low.to_string());
    headers::put(headers, PARENT_ID, context.span_id.get().to_string());
    let priority = match context.sampling {
        Sampling::Debug => Some('2'),
        Sampling::Accept => Some('1'),
        Sampling::Reject => Some('0'),
        Sampling::Defer => None,
    };
    if let Some(priority) = priority {
        headers::put(headers, PRIORITY, priority.to_string());
    }
    if high != 0 {
        headers::put(headers, TAGS, format!("{UPPER_HALF}={high:016x}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::{extracted, headers_of};

    #[test]
    fn ids_are_decimal_and_the_upper_half_is_a_tag() {
        let low = 1_234_567_890_123_456_789;
        let table = [
            ("", low, 0),
            (
                "_dd.p.tid=640cfd8d00000000",
                0x640c_fd8d_0000_0000 << 64 | low,
                0,
            ),
            (
                "_dd.p.dm=-4,_dd.p.tid=640cfd8d00000000",
                0x640c_fd8d_0000_0000 << 64 | low,
                0,
            ),
            ("_dd.p.tid=1234567890abcdef1", low, 1),
            ("_dd.p.tid=1234567890abcde", low, 1),
            ("_dd.p.tid=1234567890abcdeX", low, 1),
            ("garbage", low, 0),
        ];
        for (tags, expected, garbage) in table {
            let headers = headers_of(&[
                (TRACE_ID, "1234567890123456789"),
                (PARENT_ID, "987654321"),
                (TAGS, tags),
            ]);
            let (context, rejected) = extracted(extract, &headers);
            let context = context.unwrap();
            assert_eq!(context.trace_id.get(), expected, "{tags:?}");
            assert_eq!(context.span_id.get(), 987_654_321);
            assert_eq!(context.sampling, Sampling::Defer);
            assert_eq!(rejected.garbage, garbage, "{tags:?}");
        }
    }

    #[test]
    fn headers_are_whole_or_garbage() {
        type Found = Result<Option<(u64, Sampling)>, Refusal>;
        let table: [(&[&str], Found); 13] = [
            (&[], Ok(None)),
            (&["7", "9", "2"], Ok(Some((9, Sampling::Debug)))),
            (&["7", "9", "1"], Ok(Some((9, Sampling::Accept)))),
            (&["7", "9", "0"], Ok(Some((9, Sampling::Reject)))),
            (&["7", "9", "-1"], Ok(Some((9, Sampling::Reject)))),
            (&["7", "0"], Ok(Some((7, Sampling::Defer)))),
            (&["7", "9", "3"], Err(Refusal::Garbage)),
            (&["7", "9", "x"], Err(Refusal::Garbage)),
            (&["7"], Err(Refusal::Garbage)),
            (&["0", "9"], Err(Refusal::Garbage)),
            (&["7", "-9"], Err(Refusal::Garbage)),
            (&["a", "9"], Err(Refusal::Garbage)),
            (&["18446744073709551616", "9"], Err(Refusal::Garbage)),
        ];
        for (values, expected) in table {
            let names = [TRACE_ID, PARENT_ID, PRIORITY].into_iter();
            let headers = headers_of(&names.zip(values.iter().copied()).collect::<Vec<_>>());
            let found = extract(&mut Reader::new(&headers)).map(|parent| match parent {
                Some(Parent::Span(context)) => Some((context.span_id.get(), context.sampling)),
                _ => None,
            });
            assert_eq!(found, expected, "{values:?}");
        }
    }

    #[test]
    fn a_trace_whose_lower_half_is_zero_is_not_written_and_nothing_old_stays() {
        let mut headers = headers_of(&[(TRACE_ID, "1"), (TAGS, "_dd.p.dm=-4"), (ORIGIN, "rum")]);
        let trace_id = TraceId::new(1 << 64).unwrap();
        let context = SpanContext::local(trace_id, SpanId::new(1).unwrap(), Sampling::Accept);
        inject(&context, &mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
