//! `X-Amzn-Trace-Id`: the tracing header of AWS X-Ray, and of Amazon's load balancers (AWS X-Ray Developer Guide,
//! "Tracing header"; Elastic Load Balancing, "Request tracing").
//!
//! A load balancer names a trace and no span; the span that stands for all of the trace is then the parent. Fields
//! that are not `Root`, `Parent` or `Sampled` are neither looked at nor handed on.

use http::HeaderMap;

use super::digits::hex;
use super::headers::{self, Reader, Refusal};
use super::{Parent, Sampling, SpanContext, SpanId, TraceId};

const TRACE_ID: &str = "x-amzn-trace-id";

pub(super) fn extract(reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
    reader.span(TRACE_ID, read)
}

/// Reads `Root=1-time-id;Parent=span;Sampled=decision`, in any order.
fn read(text: &str) -> Option<SpanContext> {
    let field = |name: &str| {
        let mut fields = text.split(';').filter_map(|field| field.split_once('='));
        fields.find_map(|(key, value)| (key.trim() == name).then_some(value.trim()))
    };
    let (time, id) = field("Root")?.strip_prefix("1-")?.split_once('-')?;
    let trace_id = TraceId::new(hex(time, 8..=8)? << 96 | hex(id, 24..=24)?)?;
    let span_id = match field("Parent") {
        None => SpanId::of_root(trace_id),
        Some(parent) => SpanId::new(hex(parent, 16..=16)? as u64)?,
    };
    let sampling = match field("Sampled") {
        Some("1") => Sampling::Accept,
        Some("0") => Sampling::Reject,
        Some("?") | None => Sampling::Defer,
        Some(_) => return None,
    };
    Some(SpanContext::remote(trace_id, span_id, sampling))
}

pub(super) fn inject(context: &SpanContext, headers: &mut HeaderMap) {
    let sampled = match context.sampling {
        Sampling::Accept | Sampling::Debug => '1',
        Sampling::Reject => '0',
        Sampling::Defer => '?',
    };
    let trace_id = context.trace_id.to_string();
    let (time, id) = trace_id.split_at(8);
    let span_id = context.span_id;
    let value = format!("Root=1-{time}-{id};Parent={span_id};Sampled={sampled}");
    headers::put(headers, TRACE_ID, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_any_order_and_others_are_kept_out() {
        let trace = 0x5759_e988_bd86_2e3f_e1be_46a9_9427_2793;
        let span = 0x5399_5c3f_42cd_8ad8;
        let table = [
            ("R;P;Sampled=1", Some((span, Sampling::Accept))),
            ("Sampled=0;P;R", Some((span, Sampling::Reject))),
            ("R;P;Sampled=?", Some((span, Sampling::Defer))),
            ("R;P", Some((span, Sampling::Defer))),
            (" R ; P;;Sampled = 1", Some((span, Sampling::Accept))),
            (
                "Self=1-67891234-12456789abcdef012345678;R;CalledFrom=app",
                Some((trace as u64, Sampling::Defer)),
            ),
            (
                "R;P;Sampled=1;Lineage=a87bd80c:1|68fd508a:5",
                Some((span, Sampling::Accept)),
            ),
            ("P;Sampled=1", None),
            ("R;P;Sampled=2", None),
            ("R;Parent=0000000000000000", None),
            ("R;Parent=53995c3f42cd8ad", None),
            ("Root=2-5759e988-bd862e3fe1be46a994272793", None),
            ("Root=1-5759e988bd862e3fe1be46a994272793", None),
            ("Root=1-00000000-000000000000000000000000;P", None),
            ("", None),
        ];
        for (value, expected) in table {
            let value = value
                .replacen(
                    'R',
                    "Root=1-5759e988-bd862e3fe1be46a994272793",
                    usize::from(!value.contains("Root")),
                )
                .replacen(
                    'P',
                    "Parent=53995c3f42cd8ad8",
                    usize::from(!value.contains("Parent")),
                );
            let context = read(&value);
            let found = context.map(|context| {
                assert_eq!(context.trace_id.get(), trace);
                (context.span_id.get(), context.sampling)
            });
            assert_eq!(found, expected, "{value:?}");
        }
    }
}
