//! What one service tells another of a trace, whatever the headers are called.
//!
//! Ids have the widths of OpenTelemetry's: a trace has 128 bits, a span 64, and neither is zero.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use super::trace_state::TraceState;
use super::w3c;

/// Names a trace. Displayed as 32 hexadecimal digits, in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// Makes an id of a number; zero is none.
    pub fn new(number: u128) -> Option<Self> {
        NonZeroU128::new(number).map(Self)
    }

    /// The number that it is.
    pub fn get(self) -> u128 {
        self.0.get()
    }

    /// The half that systems know which have 64 bits for a trace.
    pub(super) fn low(self) -> u64 {
        self.get() as u64
    }

    /// The other half.
    pub(super) fn high(self) -> u64 {
        (self.get() >> 64) as u64
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// Names a span of a trace. Displayed as 16 hexadecimal digits, in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl SpanId {
    /// Makes an id of a number; zero is none.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number that it is.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The span that stands for all of a trace, where a header names a trace and no span in it.
    ///
    /// It is the trace's lower half, as Zipkin, Jaeger and Datadog number the first span of a trace, or the upper half
    /// where the lower one is zero.
    pub(super) fn of_root(trace_id: TraceId) -> Self {
        let low = NonZeroU64::new(trace_id.low());
        let half = low.or_else(|| NonZeroU64::new(trace_id.high()));
        Self(half.expect("a trace's id has a half that is not zero"))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// Whether a trace is recorded, as far as who calls has decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sampling {
    /// It is.
    Accept,
    /// It is not.
    Reject,
    /// Nobody has decided. Formats that cannot say so are told that it is not recorded, as W3C Trace Context wishes.
    Defer,
    /// It is because a person demands it: whatever the rates are, keep it.
    Debug,
}

impl Sampling {
    /// Whether the decision is to record.
    pub fn is_sampled(self) -> bool {
        matches!(self, Self::Accept | Self::Debug)
    }
}

/// Which span calls, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span in it.
    pub span_id: SpanId,
    /// Whether the trace is recorded.
    pub sampling: Sampling,
    /// Whether at least the lower 56 bits of the trace's id are random, so that one may sample by them (W3C Trace
    /// Context Level 2, random-trace-id flag).
    pub random: bool,
    /// What tracing systems tell each other of the trace.
    pub trace_state: TraceState,
    /// Whether the span is of another process. What is extracted is; what is made here is not.
    pub is_remote: bool,
}

impl SpanContext {
    /// Makes the context of a span of this process that begins a trace.
    pub fn local(trace_id: TraceId, span_id: SpanId, sampling: Sampling) -> Self {
        Self {
            trace_id,
            span_id,
            sampling,
            random: false,
            trace_state: TraceState::default(),
            is_remote: false,
        }
    }

    /// Makes the context of a span of this process beneath this one: it is in the same trace, and is not remote.
    #[must_use]
    pub fn child(&self, span_id: SpanId) -> Self {
        Self {
            span_id,
            is_remote: false,
            ..self.clone()
        }
    }

    /// Reads the value of a `traceparent`, such as a message carries one: the context of a span of another process.
    ///
    /// ```
    /// use sundown_telemetry::propagation::SpanContext;
    ///
    /// let text = "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01";
    /// let context = SpanContext::from_traceparent(text).ok_or("no traceparent")?;
    /// assert_eq!(context.to_traceparent(), text);
    /// # Ok::<(), &str>(())
    /// ```
    pub fn from_traceparent(text: &str) -> Option<Self> {
        w3c::read(text)
    }

    /// Writes it as the value of a `traceparent`, for a message. Its trace state stays behind.
    pub fn to_traceparent(&self) -> String {
        w3c::write(self)
    }

    /// The context of a span of another process.
    pub(super) fn remote(trace_id: TraceId, span_id: SpanId, sampling: Sampling) -> Self {
        Self {
            is_remote: true,
            ..Self::local(trace_id, span_id, sampling)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_never_zero_and_are_written_in_full() {
        assert_eq!(TraceId::new(0), None);
        assert_eq!(SpanId::new(0), None);
        let trace_id = TraceId::new(0xABC).unwrap();
        assert_eq!(trace_id.to_string(), "00000000000000000000000000000abc");
        assert_eq!(SpanId::new(0xABC).unwrap().to_string(), "0000000000000abc");
    }

    #[test]
    fn a_span_of_this_process_is_not_remote_though_its_parent_is() {
        let (trace_id, span_id) = (TraceId::new(1).unwrap(), SpanId::new(2).unwrap());
        let parent = SpanContext::remote(trace_id, span_id, Sampling::Debug);
        let child = parent.child(SpanId::new(3).unwrap());
        assert!(parent.is_remote && !child.is_remote);
        assert_eq!(child.trace_id, trace_id);
        assert_eq!(child.sampling, Sampling::Debug);
        assert!(!SpanContext::local(trace_id, span_id, Sampling::Accept).is_remote);
    }

    #[test]
    fn a_trace_without_a_span_stands_for_its_root() {
        for (trace, root) in [(7, 7), (7 << 64, 7), ((1 << 64) | 7, 7)] {
            let trace_id = TraceId::new(trace).unwrap();
            assert_eq!(SpanId::of_root(trace_id).get(), root);
        }
    }
}
