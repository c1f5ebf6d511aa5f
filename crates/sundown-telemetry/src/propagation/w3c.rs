//! `traceparent` and `tracestate`: W3C Trace Context Level 2, sections 3.2 and 3.3.
//!
//! A trace state that is none leaves its parent valid. Several parents are none.

use http::HeaderMap;

use super::digits::lower_hex;
use super::headers::{self, Reader, Refusal};
use super::{Parent, Sampling, SpanContext, SpanId, TraceId, TraceState};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// How long version 00 is; later ones may be longer.
const LENGTH: usize = 55;

pub(super) fn extract(reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
    let mut values = reader.all(TRACEPARENT);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::Garbage);
    }
    let mut context = read(value?).ok_or(Refusal::Garbage)?;
    match TraceState::read(reader.all(TRACESTATE)) {
        Ok((state, dropped)) => {
            context.trace_state = state;
            reader.rejected.too_long += dropped;
        }
        Err(refusal) => reader.refuse(refusal),
    }
    Ok(Some(Parent::Span(context)))
}

/// Reads `version-trace-parent-flags`, of this version or one to come.
pub(super) fn read(text: &str) -> Option<SpanContext> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let mut fields = known.split('-');
    let version = lower_hex(fields.next()?, 2)?;
    let trace_id = TraceId::new(lower_hex(fields.next()?, 32)?)?;
    let span_id = SpanId::new(lower_hex(fields.next()?, 16)? as u64)?;
    let flags = lower_hex(fields.next()?, 2)? as u8;
    let is_version = match version {
        0 => rest.is_empty(),
        0xFF => false,
        _ => rest.is_empty() || rest.starts_with('-'),
    };
    if !is_version || fields.next().is_some() {
        return None;
    }
    let sampling = match flags & SAMPLED {
        0 => Sampling::Reject,
        _ => Sampling::Accept,
    };
    let mut context = SpanContext::remote(trace_id, span_id, sampling);
    context.random = flags & RANDOM != 0;
    Some(context)
}

/// Writes `version-trace-parent-flags`.
pub(super) fn write(context: &SpanContext) -> String {
    let sampled = if context.sampling.is_sampled() {
        SAMPLED
    } else {
        0
    };
    let random = if context.random { RANDOM } else { 0 };
    let (trace_id, span_id, flags) = (context.trace_id, context.span_id, sampled | random);
    format!("00-{trace_id}-{span_id}-{flags:02x}")
}

pub(super) fn inject(context: &SpanContext, headers: &mut HeaderMap) {
    headers::put(headers, TRACEPARENT, write(context));
    headers.remove(TRACESTATE);
    if !context.trace_state.is_empty() {
        headers::put(headers, TRACESTATE, context.trace_state.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::{extracted, headers_of};

    const IDS: &str = "12345678901234567890123456789012-1234567890123456";

    #[test]
    fn a_parent_is_of_this_version_or_of_one_to_come() {
        let table = [
            ("00-{}-00", Some(Sampling::Reject)),
            ("00-{}-01", Some(Sampling::Accept)),
            ("00-{}-fe", Some(Sampling::Reject)),
            ("cc-{}-01", Some(Sampling::Accept)),
            (
                "cc-{}-01-what-the-future-will-be-like",
                Some(Sampling::Accept),
            ),
            ("cc-{}-01.what-the-future-will-be-like", None),
            ("cc-{}-0", None),
            ("00-{}-01-", None),
            ("00-{}-01.", None),
            ("ff-{}-01", None),
            ("0-{}-01", None),
            ("000-{}-01", None),
            (".0-{}-01", None),
            ("0A-{}-01", None),
            ("00-{}-0A", None),
            ("00-{}0-01", None),
            ("00-{}-.0", None),
            ("00_{}_01", None),
            ("", None),
        ];
        for (value, expected) in table {
            let context = read(&value.replace("{}", IDS));
            assert_eq!(
                context.map(|context| context.sampling),
                expected,
                "{value:?}"
            );
        }
    }

    #[test]
    fn ids_are_in_lower_case_and_not_zero() {
        for value in [
            "00-00000000000000000000000000000000-1234567890123456-01",
            "00-12345678901234567890123456789012-0000000000000000-01",
            "00-1234567890123456789012345678901A-1234567890123456-01",
            "00-12345678901234567890123456789012-123456789012345A-01",
            "00-1234567890123456789012345678901.-1234567890123456-01",
            "00-123456789012345678901234567890123-123456789012345-01",
            "00-12345678901234567890123456789012-123456789-123456-01",
            "00-1234567890123456789012345678901\u{e9}-1234567890123456-01",
        ] {
            assert_eq!(read(value), None, "{value:?}");
        }
    }

    #[test]
    fn flags_that_are_known_are_handed_on_and_others_are_zero() {
        for (flags, expected) in [("00", "00"), ("02", "02"), ("ff", "03"), ("fc", "00")] {
            let context = read(&format!("01-{IDS}-{flags}-more")).unwrap();
            let mut headers = headers_of(&[(TRACESTATE, "stale=1")]);
            inject(&context, &mut headers);
            let parent = format!("00-{IDS}-{expected}");
            assert_eq!(headers, headers_of(&[(TRACEPARENT, &parent)]));
        }
    }

    #[test]
    fn a_state_that_is_none_leaves_its_parent_valid_and_several_parents_are_none() {
        let parent = format!("00-{IDS}-03");
        let one = headers_of(&[("traceparent", &parent), ("tracestate", "FOO")]);
        let (context, rejected) = extracted(extract, &one);
        let context = context.unwrap();
        assert!(context.random && context.is_remote && context.trace_state.is_empty());
        assert_eq!(rejected.garbage, 1);
        let two = headers_of(&[("traceparent", &parent), ("traceparent", &parent)]);
        assert_eq!(extract(&mut Reader::new(&two)), Err(Refusal::Garbage));
    }
}
