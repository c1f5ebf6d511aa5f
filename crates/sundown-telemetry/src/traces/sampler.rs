//! *Decides* which traces are sampled, when they begin here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{
    Sampler as ByRatio, SamplingDecision, SamplingResult, ShouldSample,
};

use super::context::Caller;
use crate::propagation::Sampling;

/// Follows whoever calls, else a ratio; in a stop, everything is sampled.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    /// Of the traces that begin here.
    pub(super) ratio: f64,
    /// Whether whoever calls decides.
    pub(super) follows: bool,
    /// Whether spans are recorded that nobody samples, as their trace may turn out to be of interest.
    pub(super) watches: bool,
    pub(super) stopping: Arc<AtomicBool>,
    /// Whether everything is sampled then.
    pub(super) all_of_stops: bool,
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent.cloned().unwrap_or_default();
        let span = parent.span();
        let caller = span.span_context();
        let is_here = caller.is_valid() && !caller.is_remote();
        let said = match parent.get::<Caller>() {
            _ if is_here => Some(caller.is_sampled()),
            _ if !self.follows => None,
            Some(caller) => caller.decision(),
            // Read by another's propagator.
            None => caller.is_valid().then(|| caller.is_sampled()),
        };
        let in_a_stop = || !is_here && self.all_of_stops && self.stopping.load(Ordering::Relaxed);
        let by_ratio = || {
            let ratio = ByRatio::TraceIdRatioBased(self.ratio);
            let result = ratio.should_sample(None, trace, name, kind, attributes, links);
            result.decision == SamplingDecision::RecordAndSample
        };
        let decision = match said.unwrap_or_else(by_ratio) || in_a_stop() {
            true => SamplingDecision::RecordAndSample,
            false if self.watches => SamplingDecision::RecordOnly,
            false => SamplingDecision::Drop,
        };
        SamplingResult {
            decision,
            attributes: Vec::new(),
            trace_state: caller.trace_state().clone(),
        }
    }
}

impl Caller {
    fn decision(&self) -> Option<bool> {
        match self.sampling {
            Sampling::Defer => None,
            decided => Some(decided.is_sampled()),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::SamplingDecision::{Drop, RecordAndSample, RecordOnly};

    use super::*;

    fn sampler(ratio: f64) -> Sampler {
        Sampler {
            ratio,
            follows: true,
            watches: true,
            stopping: Arc::default(),
            all_of_stops: true,
        }
    }

    fn span(is_remote: bool, is_sampled: bool) -> Context {
        let (trace, span) = (TraceId::from(1_u128), SpanId::from(2_u64));
        let flags = TraceFlags::default().with_sampled(is_sampled);
        let span = SpanContext::new(trace, span, flags, is_remote, TraceState::default());
        Context::new().with_remote_span_context(span)
    }

    fn called(sampling: Sampling) -> Context {
        span(true, sampling.is_sampled()).with_value(Caller::saying(sampling))
    }

    fn decide(sampler: &Sampler, parent: &Context) -> SamplingDecision {
        let trace = TraceId::from(u128::MAX);
        let kind = SpanKind::Server;
        let result = sampler.should_sample(Some(parent), trace, "GET", &kind, &[], &[]);
        result.decision
    }

    #[test]
    fn whoever_calls_decides_and_where_nobody_has_the_ratio_does() {
        let (all, none) = (sampler(1.0), sampler(0.0));
        let nobody = Context::new();
        let only_a_decision = nobody.with_value(Caller::saying(Sampling::Reject));
        let table = [
            (called(Sampling::Accept), RecordAndSample, RecordAndSample),
            (called(Sampling::Debug), RecordAndSample, RecordAndSample),
            (called(Sampling::Reject), RecordOnly, RecordOnly),
            (only_a_decision, RecordOnly, RecordOnly),
            (called(Sampling::Defer), RecordOnly, RecordAndSample),
            (nobody, RecordOnly, RecordAndSample),
            (span(true, true), RecordAndSample, RecordAndSample),
            (span(false, false), RecordOnly, RecordOnly),
            (span(false, true), RecordAndSample, RecordAndSample),
        ];
        for (parent, of_none, of_all) in table {
            assert_eq!(decide(&none, &parent), of_none, "{parent:?}");
            assert_eq!(decide(&all, &parent), of_all, "{parent:?}");
        }
        let deaf = Sampler {
            follows: false,
            ..none
        };
        assert_eq!(decide(&deaf, &called(Sampling::Accept)), RecordOnly);
        assert_eq!(
            decide(&deaf, &span(false, true)),
            RecordAndSample,
            "its own"
        );
    }

    #[test]
    fn what_begins_in_a_stop_is_sampled_and_what_is_beneath_it_follows() {
        let stopping = sampler(0.0);
        stopping.stopping.store(true, Ordering::Relaxed);
        assert_eq!(
            decide(&stopping, &called(Sampling::Reject)),
            RecordAndSample
        );
        assert_eq!(decide(&stopping, &Context::new()), RecordAndSample);
        assert_eq!(decide(&stopping, &span(false, false)), RecordOnly);
        let blind = Sampler {
            watches: false,
            all_of_stops: false,
            ..stopping
        };
        assert_eq!(decide(&blind, &Context::new()), Drop);
    }
}
