//! `b3`, and `X-B3-TraceId` with its kin: the B3 propagation of Zipkin (openzipkin/b3-propagation).
//!
//! Traces of 64 bits are read as such whose upper half is zero, and are always written with 128. A parent's id, which
//! B3 sends beside the span's, is not looked at.

use http::HeaderMap;

use super::digits::lower_hex;
use super::headers::{self, Reader, Refusal};
use super::{Parent, Sampling, SpanContext, SpanId, TraceId};

const SINGLE: &str = "b3";

const TRACE_ID: &str = "x-b3-traceid";
const SPAN_ID: &str = "x-b3-spanid";
const PARENT_ID: &str = "x-b3-parentspanid";
const SAMPLED: &str = "x-b3-sampled";
const FLAGS: &str = "x-b3-flags";

pub(super) fn extract_single(reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
    let Some(text) = reader.first(SINGLE)? else {
        return Ok(None);
    };
    read(text).map(Some).ok_or(Refusal::Garbage)
}

/// Reads `trace-span[-sampling][-parent]`, or a decision alone.
fn read(text: &str) -> Option<Parent> {
    let mut fields = text.split('-').peekable();
    let first = fields.next()?;
    if fields.peek().is_none() {
        return decision(first).map(Parent::Decision);
    }
    let ids = ids(first, fields.next()?)?;
    let sampling = match fields.peek() {
        Some(field) if field.len() == 1 => decision(fields.next()?)?,
        _ => Sampling::Defer,
    };
    if let Some(parent) = fields.next() {
        lower_hex(parent, 16)?;
    }
    fields.next().is_none().then(|| span(ids, sampling))
}

fn decision(text: &str) -> Option<Sampling> {
    match text {
        "0" => Some(Sampling::Reject),
        "1" => Some(Sampling::Accept),
        "d" => Some(Sampling::Debug),
        _ => None,
    }
}

fn ids(trace: &str, span: &str) -> Option<(TraceId, SpanId)> {
    let trace_id = lower_hex(trace, 32).or_else(|| lower_hex(trace, 16))?;
    let span_id = lower_hex(span, 16)? as u64;
    Some((TraceId::new(trace_id)?, SpanId::new(span_id)?))
}

fn span((trace_id, span_id): (TraceId, SpanId), sampling: Sampling) -> Parent {
    Parent::Span(SpanContext::remote(trace_id, span_id, sampling))
}

pub(super) fn inject_single(context: &SpanContext, headers: &mut HeaderMap) {
    let decision = match context.sampling {
        Sampling::Accept => "-1",
        Sampling::Reject => "-0",
        Sampling::Debug => "-d",
        Sampling::Defer => "",
    };
    let (trace_id, span_id) = (context.trace_id, context.span_id);
    headers::put(headers, SINGLE, format!("{trace_id}-{span_id}{decision}"));
}

pub(super) fn extract_multi(reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
    let debug = reader.first(FLAGS)? == Some("1");
    let sampling = match reader.first(SAMPLED)? {
        _ if debug => Sampling::Debug,
        None => Sampling::Defer,
        // The words were written before there was a specification.
        Some("1" | "true") => Sampling::Accept,
        Some("0" | "false") => Sampling::Reject,
        Some(_) => return Err(Refusal::Garbage),
    };
    match (reader.first(TRACE_ID)?, reader.first(SPAN_ID)?) {
        (None, None) if sampling == Sampling::Defer => Ok(None),
        (None, None) => Ok(Some(Parent::Decision(sampling))),
        (Some(trace), Some(span_id)) => {
            let ids = ids(trace, span_id).ok_or(Refusal::Garbage)?;
            Ok(Some(span(ids, sampling)))
        }
        _ => Err(Refusal::Garbage),
    }
}

pub(super) fn inject_multi(context: &SpanContext, headers: &mut HeaderMap) {
    for name in [PARENT_ID, SAMPLED, FLAGS] {
        headers.remove(name);
    }
    headers::put(headers, TRACE_ID, context.trace_id.to_string());
    headers::put(headers, SPAN_ID, context.span_id.to_string());
    let decision = match context.sampling {
        Sampling::Accept => (SAMPLED, "1"),
        Sampling::Reject => (SAMPLED, "0"),
        Sampling::Debug => (FLAGS, "1"),
        Sampling::Defer => return,
    };
    headers::put(headers, decision.0, decision.1.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::headers_of;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn parent(trace_id: u128, sampling: Sampling) -> Option<Parent> {
        let span_id = SpanId::new(0xe457_b5a2_e4d8_6bd1)?;
        Some(span((TraceId::new(trace_id)?, span_id), sampling))
    }

    #[test]
    fn a_single_header_has_two_to_four_fields_or_a_decision() {
        let trace_id = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
        let table = [
            ("T-S-1-05e3ac9a4f6e3b90", parent(trace_id, Sampling::Accept)),
            ("T-S-0", parent(trace_id, Sampling::Reject)),
            ("T-S-d", parent(trace_id, Sampling::Debug)),
            ("T-S", parent(trace_id, Sampling::Defer)),
            ("T-S-05e3ac9a4f6e3b90", parent(trace_id, Sampling::Defer)),
            (
                "64fe8b2a57d3eff7-S-1",
                parent(0x64fe_8b2a_57d3_eff7, Sampling::Accept),
            ),
            ("0", Some(Parent::Decision(Sampling::Reject))),
            ("1", Some(Parent::Decision(Sampling::Accept))),
            ("d", Some(Parent::Decision(Sampling::Debug))),
            ("2", None),
            ("", None),
            ("T", None),
            ("T-", None),
            ("T-S-", None),
            ("T-S-2", None),
            ("T-S-1-", None),
            ("T-S-1-05e3ac9a4f6e3b9", None),
            ("T-S-1-05e3ac9a4f6e3b90-x", None),
            ("T-0000000000000000-1", None),
            ("00000000000000000000000000000000-S-1", None),
            ("64fe8b2a57d3eff-S-1", None),
            ("64FE8B2A57D3EFF7-S-1", None),
        ];
        for (value, expected) in table {
            let value = value.replace('T', TRACE).replace('S', SPAN);
            assert_eq!(read(&value), expected, "{value:?}");
        }
    }

    #[test]
    fn many_headers_are_whole_or_garbage() {
        let trace_id = 0x64fe_8b2a_57d3_eff7;
        let ids = [(TRACE_ID, "64fe8b2a57d3eff7"), (SPAN_ID, SPAN)];
        type Case<'a> = (
            &'a [(&'a str, &'a str)],
            bool,
            Result<Option<Parent>, Refusal>,
        );
        let table: [Case<'_>; 11] = [
            (&[], true, Ok(parent(trace_id, Sampling::Defer))),
            (
                &[(SAMPLED, "1")],
                true,
                Ok(parent(trace_id, Sampling::Accept)),
            ),
            (
                &[(SAMPLED, "true")],
                true,
                Ok(parent(trace_id, Sampling::Accept)),
            ),
            (
                &[(SAMPLED, "false")],
                true,
                Ok(parent(trace_id, Sampling::Reject)),
            ),
            (
                &[(FLAGS, "1"), (SAMPLED, "0")],
                true,
                Ok(parent(trace_id, Sampling::Debug)),
            ),
            (&[(FLAGS, "0")], true, Ok(parent(trace_id, Sampling::Defer))),
            (&[(SAMPLED, "maybe")], true, Err(Refusal::Garbage)),
            (
                &[(SAMPLED, "0")],
                false,
                Ok(Some(Parent::Decision(Sampling::Reject))),
            ),
            (&[(PARENT_ID, SPAN)], false, Ok(None)),
            (&[(TRACE_ID, TRACE)], false, Err(Refusal::Garbage)),
            (&[(SPAN_ID, SPAN)], false, Err(Refusal::Garbage)),
        ];
        for (others, with_ids, expected) in table {
            let ids = if with_ids { &ids[..] } else { &[] };
            let headers = headers_of(&[ids, others].concat());
            assert_eq!(
                extract_multi(&mut Reader::new(&headers)),
                expected,
                "{others:?}"
            );
        }
    }
}
