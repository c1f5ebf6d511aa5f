//! Who calls, as OpenTelemetry knows it, and back.

use opentelemetry::trace as otel;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, SpanId as OtelSpanId, TraceFlags, TraceId as OtelTraceId};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::propagation::{
    Baggage, Extracted, Parent, Sampling, SpanContext, SpanId, TraceId, TraceState,
};

/// The flag of a trace whose id is random (W3C Trace Context Level 2, section 3.2.2.4).
const RANDOM: u8 = 2;

/// What whoever calls says beyond what OpenTelemetry has a place for.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) sampling: Sampling,
    baggage: Baggage,
}

impl Caller {
    pub(super) fn saying(sampling: Sampling) -> Self {
        Self {
            sampling,
            baggage: Baggage::default(),
        }
    }
}

/// What a span of `tracing` knows of the trace that it is in.
pub trait SpanExt {
    /// Has it continue a trace that came from elsewhere, such as in the text of a message. Only before it is first
    /// entered.
    fn continue_from(&self, context: &SpanContext);

    /// Has it point to a span that it comes of, and that is not its parent: of many messages of one batch, each.
    fn link_to(&self, context: &SpanContext);

    /// The context by which another process can continue its trace; `None` where nobody traces.
    fn trace_context(&self) -> Option<SpanContext>;
}

impl SpanExt for Span {
    fn continue_from(&self, context: &SpanContext) {
        set_parent(
            self,
            of_span(context).with_value(Caller::saying(context.sampling)),
        );
    }

    fn link_to(&self, context: &SpanContext) {
        self.add_link(to_otel(context));
    }

    fn trace_context(&self) -> Option<SpanContext> {
        of_otel(&self.context())
    }
}

/// The context of the span that is entered, by which another process can continue its trace; `None` where nobody
/// traces.
pub fn trace_context() -> Option<SpanContext> {
    Context::map_current(of_otel)
}

/// Has a span continue what a request says.
pub(crate) fn continue_request(span: &Span, extracted: Extracted) {
    let (context, sampling) = match &extracted.parent {
        Parent::Nobody => (Context::new(), Sampling::Defer),
        Parent::Decision(sampling) => (Context::new(), *sampling),
        Parent::Span(context) => (of_span(context), context.sampling),
    };
    let caller = Caller {
        sampling,
        baggage: extracted.baggage,
    };
    set_parent(span, context.with_value(caller));
}

/// The context of a span, and the baggage of the request that it serves.
pub(crate) fn to_hand_on(span: &Span) -> Option<(SpanContext, Baggage)> {
    let context = match span.is_disabled() {
        true => Context::current(),
        false => span.context(),
    };
    let baggage = context.get::<Caller>().map(|caller| caller.baggage.clone());
    Some((of_otel(&context)?, baggage.unwrap_or_default()))
}

fn set_parent(span: &Span, parent: Context) {
    // Where nobody traces there is nothing to be set.
    let _ = span.set_parent(parent);
}

fn of_span(context: &SpanContext) -> Context {
    Context::new().with_remote_span_context(to_otel(context))
}

fn to_otel(context: &SpanContext) -> otel::SpanContext {
    let random = if context.random { RANDOM } else { 0 };
    let flags = TraceFlags::new(random).with_sampled(context.sampling.is_sampled());
    // A trace state that OpenTelemetry will not have is not worth the trace.
    let state = context.trace_state.to_string().parse().unwrap_or_default();
    otel::SpanContext::new(
        OtelTraceId::from(context.trace_id.get()),
        OtelSpanId::from(context.span_id.get()),
        flags,
        context.is_remote,
        state,
    )
}

fn of_otel(context: &Context) -> Option<SpanContext> {
    let span = context.span();
    let span = span.span_context();
    let trace_id = TraceId::new(u128::from_be_bytes(span.trace_id().to_bytes()))?;
    let span_id = SpanId::new(u64::from_be_bytes(span.span_id().to_bytes()))?;
    let caller = context.get::<Caller>().map(|caller| caller.sampling);
    let sampling = match (span.is_sampled(), caller) {
        (true, Some(Sampling::Debug)) => Sampling::Debug,
        (true, _) => Sampling::Accept,
        (false, _) => Sampling::Reject,
    };
    let state: Result<TraceState, _> = span.trace_state().header().parse();
    Some(SpanContext {
        random: span.trace_flags().to_u8() & RANDOM != 0,
        trace_state: state.unwrap_or_default(),
        is_remote: span.is_remote(),
        ..SpanContext::local(trace_id, span_id, sampling)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_handed_to_open_telemetry_comes_back() {
        let (trace_id, span_id) = (
            TraceId::new(u128::MAX - 1).unwrap(),
            SpanId::new(7).unwrap(),
        );
        for sampling in [Sampling::Accept, Sampling::Reject, Sampling::Debug] {
            for random in [true, false] {
                let context = SpanContext {
                    random,
                    trace_state: "a=1,b@c=x:y".parse().unwrap(),
                    is_remote: true,
                    ..SpanContext::local(trace_id, span_id, sampling)
                };
                let there = of_span(&context).with_value(Caller::saying(sampling));
                assert_eq!(of_otel(&there), Some(context));
            }
        }
        assert_eq!(of_otel(&Context::new()), None);
    }
}
