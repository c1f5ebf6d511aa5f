//! *Decides* what becomes of spans that have ended: which are sent, which are kept until their trace is known to be of
//! interest, and which find no room.
//!
//! Knows no clock, no thread and no network. Holds no more than its capacity, and loses nothing without counting it.

use std::collections::{HashMap, VecDeque};

use opentelemetry::trace::{SpanContext, Status, TraceId};
use opentelemetry::{KeyValue, SpanId, Value};
use opentelemetry_sdk::trace::SpanData;

/// Spans of one export, and their bytes; collectors take 4 MiB unless told otherwise.
const MOST_SPANS: usize = 512;
const MOST_BYTES: usize = 2 << 20;

/// How many spans there were.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SpanCounts {
    /// Those that a collector has taken.
    pub sent: u64,
    /// Those that found no room.
    pub dropped: u64,
    /// Those that a collector will not take.
    pub refused: u64,
}

impl SpanCounts {
    /// Those that nobody can look at.
    pub fn lost(self) -> u64 {
        self.dropped + self.refused
    }
}

/// Of which traces that nobody samples the spans are sent all the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Those with an error in them.
    pub(super) errors: bool,
    /// Those with a span that ends during a stop.
    pub(super) stops: bool,
}

/// Spans that have ended and are not with a collector yet.
pub(super) struct Spans {
    wanted: Wanted,
    /// In bytes, as far as they can be told.
    capacity: usize,
    held: usize,
    waiting: VecDeque<Held>,
    /// Of traces that nobody samples, until they are known to be of interest or not.
    undecided: HashMap<TraceId, Undecided>,
    /// Those that are being sent.
    leaving: Vec<usize>,
    counts: SpanCounts,
    /// How many were to be sent since the beginning, and how many of those are sent or lost.
    taken: u64,
}

struct Held {
    span: SpanData,
    bytes: usize,
}

#[derive(Default)]
struct Undecided {
    /// How many of its spans are open whose parents are not of this process.
    roots: usize,
    wanted: bool,
    spans: Vec<Held>,
    /// How many found no room; they are missed only if the trace is wanted.
    dropped: u64,
}

impl Spans {
    pub(super) fn new(capacity: usize, wanted: Wanted) -> Self {
        Self {
            wanted,
            capacity,
            held: 0,
            waiting: VecDeque::new(),
            undecided: HashMap::new(),
            leaving: Vec::new(),
            counts: SpanCounts::default(),
            taken: 0,
        }
    }

    /// Hears that a span begins which nobody samples, beneath none of this process.
    pub(super) fn begin_undecided(&mut self, trace: TraceId) {
        self.undecided.entry(trace).or_default().roots += 1;
    }

    /// Takes a span that has ended. One of a trace that nobody samples is kept until the last of its roots has ended,
    /// and is sent if the trace is wanted by then: for one of its spans that is an error, or ends `during_a_stop`.
    pub(super) fn end(&mut self, span: SpanData, during_a_stop: bool) {
        let bytes = size_of_span(&span);
        let context = &span.span_context;
        if context.is_sampled() {
            self.send(Held { span, bytes });
            return;
        }
        let is_error = matches!(span.status, Status::Error { .. });
        let wanted = self.wanted.stops && during_a_stop || self.wanted.errors && is_error;
        let is_root = span.parent_span_id == SpanId::INVALID || span.parent_span_is_remote;
        let trace = context.trace_id();
        let held = Held { span, bytes };
        let Some(undecided) = self.undecided.get_mut(&trace) else {
            // Its roots have ended before it.
            if wanted {
                self.send(held);
            }
            return;
        };
        undecided.wanted |= wanted;
        if is_root {
            undecided.roots = undecided.roots.saturating_sub(1);
        }
        let is_over = undecided.roots == 0;
        if undecided.wanted {
            let kept = std::mem::take(&mut undecided.spans);
            let dropped = std::mem::take(&mut undecided.dropped);
            self.counts.dropped += dropped;
            self.taken += dropped;
            for kept in kept {
                self.held -= kept.bytes;
                self.send(kept);
            }
            self.send(held);
        } else if !is_over && self.held + bytes <= self.capacity {
            self.held += bytes;
            undecided.spans.push(held);
        } else {
            undecided.dropped += 1;
        }
        if is_over && let Some(over) = self.undecided.remove(&trace) {
            self.held -= over.spans.iter().map(|kept| kept.bytes).sum::<usize>();
        }
    }

    fn send(&mut self, mut held: Held) {
        self.taken += 1;
        if self.held + held.bytes > self.capacity {
            self.counts.dropped += 1;
            return;
        }
        self.held += held.bytes;
        let context = &held.span.span_context;
        if !context.is_sampled() {
            // Whoever gets it is to keep it.
            held.span.span_context = SpanContext::new(
                context.trace_id(),
                context.span_id(),
                context.trace_flags().with_sampled(true),
                context.is_remote(),
                context.trace_state().clone(),
            );
        }
        self.waiting.push_back(held);
    }

    /// Gives out those that are sent next; they take up room until it is said what became of them.
    pub(super) fn next_batch(&mut self) -> Vec<SpanData> {
        debug_assert!(self.leaving.is_empty(), "one batch at a time");
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            if batch.len() == MOST_SPANS || bytes > 0 && bytes + next.bytes > MOST_BYTES {
                break;
            }
            bytes += next.bytes;
            self.leaving.push(next.bytes);
            batch.extend(self.waiting.pop_front().map(|held| held.span));
        }
        batch
    }

    /// Hears that the batch is with a collector, but for some that it will never take.
    pub(super) fn sent(&mut self, rejected: u64) {
        let all = self.leaving.len() as u64;
        let rejected = rejected.min(all);
        self.counts.sent += all - rejected;
        self.counts.refused += rejected;
        self.held -= self.leaving.drain(..).sum::<usize>();
    }

    /// Hears that no collector will ever take the batch.
    pub(super) fn refused(&mut self) {
        self.sent(u64::MAX);
    }

    /// Whether there is enough for a whole batch, or little room.
    pub(super) fn is_urgent(&self) -> bool {
        self.waiting.len() >= MOST_SPANS || self.held > self.capacity / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn counts(&self) -> SpanCounts {
        self.counts
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many of those that were taken are sent or lost.
    pub(super) fn done(&self) -> u64 {
        self.counts.sent + self.counts.lost()
    }
}

/// How many bytes a span takes up, more or less.
fn size_of_span(span: &SpanData) -> usize {
    let attributes = |all: &[KeyValue]| all.iter().map(size_of_attribute).sum::<usize>();
    let events = span.events.iter();
    let events =
        events.map(|event| size_of_val(event) + event.name.len() + attributes(&event.attributes));
    let links = span.links.iter();
    let links = links.map(|link| size_of_val(link) + attributes(&link.attributes));
    size_of_val(span)
        + span.name.len()
        + attributes(&span.attributes)
        + events.sum::<usize>()
        + links.sum::<usize>()
}

fn size_of_attribute(attribute: &KeyValue) -> usize {
    let value = match &attribute.value {
        Value::String(text) => text.as_str().len(),
        Value::Array(array) => array.to_string().len(),
        _ => 0,
    };
    size_of::<KeyValue>() + attribute.key.as_str().len() + value
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::trace::{SpanKind, TraceFlags, TraceState};

    use super::*;

    const SAMPLED: bool = true;

    const ALL: Wanted = Wanted {
        errors: true,
        stops: true,
    };

    fn span(trace: u128, sampled: bool) -> SpanData {
        let flags = TraceFlags::default().with_sampled(sampled);
        let (trace, id) = (TraceId::from(trace), SpanId::from(7_u64));
        SpanData {
            span_context: SpanContext::new(trace, id, flags, false, TraceState::default()),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "work".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: Default::default(),
        }
    }

    fn child(trace: u128) -> SpanData {
        SpanData {
            parent_span_id: SpanId::from(9_u64),
            ..span(trace, !SAMPLED)
        }
    }

    fn error(span: SpanData) -> SpanData {
        SpanData {
            status: Status::error("no"),
            ..span
        }
    }

    fn room_for(spans: usize) -> Spans {
        Spans::new(spans * size_of_span(&span(1, SAMPLED)), ALL)
    }

    #[test]
    fn what_finds_no_room_is_counted_and_room_comes_back() {
        let mut spans = room_for(2);
        for _ in 0..3 {
            spans.end(span(1, SAMPLED), false);
        }
        assert_eq!(spans.next_batch().len(), 2);
        spans.end(span(1, SAMPLED), false);
        assert_eq!(
            (spans.counts().dropped, spans.done(), spans.taken()),
            (2, 2, 4)
        );
        spans.sent(1);
        assert_eq!((spans.counts().sent, spans.counts().refused), (1, 1));
        spans.end(span(1, SAMPLED), false);
        spans.next_batch();
        spans.refused();
        assert_eq!(spans.counts().lost(), 4);
        assert_eq!((spans.held, spans.done()), (0, spans.taken()));
    }

    #[test]
    fn a_trace_that_nobody_samples_is_sent_if_something_of_it_is_an_error() {
        let mut spans = room_for(10);
        for (trace, last) in [(1, span(1, !SAMPLED)), (2, error(span(2, !SAMPLED)))] {
            spans.begin_undecided(TraceId::from(trace));
            spans.end(child(trace), false);
            spans.end(last, false);
        }
        let batch = spans.next_batch();
        let is_second = |span: &SpanData| span.span_context.trace_id() == TraceId::from(2_u128);
        assert_eq!(batch.len(), 2);
        assert!(
            batch
                .iter()
                .all(|span| is_second(span) && span.span_context.is_sampled())
        );
        spans.sent(0);
        assert_eq!(spans.held, 0);
        assert!(spans.undecided.is_empty());
        assert_eq!(spans.counts().lost(), 0, "what nobody wants is not lost");
    }

    #[test]
    fn what_was_under_way_when_a_stop_began_is_sent() {
        let mut spans = room_for(10);
        spans.begin_undecided(TraceId::from(1_u128));
        spans.end(child(1), false);
        spans.end(span(1, !SAMPLED), true);
        assert_eq!(spans.next_batch().len(), 2);
    }

    #[test]
    fn a_trace_with_two_roots_here_waits_for_both() {
        let mut spans = room_for(10);
        spans.begin_undecided(TraceId::from(1_u128));
        spans.begin_undecided(TraceId::from(1_u128));
        spans.end(span(1, !SAMPLED), false);
        assert!(spans.is_empty());
        spans.end(error(span(1, !SAMPLED)), false);
        assert_eq!(spans.next_batch().len(), 2);
        // One that outlives its root.
        spans.end(child(1), false);
        assert!(spans.is_empty());
        spans.end(error(child(1)), false);
        assert_eq!(spans.waiting.len(), 1);
    }

    #[test]
    fn of_a_trace_of_many_spans_what_found_no_room_is_missed_only_if_it_is_wanted() {
        for (last, dropped) in [(span(1, !SAMPLED), 0), (error(span(1, !SAMPLED)), 9_998)] {
            let mut spans = room_for(3);
            spans.begin_undecided(TraceId::from(1_u128));
            for _ in 0..10_000 {
                spans.end(child(1), false);
            }
            assert!(spans.held <= spans.capacity);
            spans.end(last, false);
            assert_eq!(spans.counts().dropped, dropped);
        }
    }

    #[test]
    fn a_batch_is_no_larger_than_collectors_take() {
        let mut spans = Spans::new(usize::MAX, ALL);
        let mut long = span(1, SAMPLED);
        let text = "x".repeat(3 << 20);
        long.attributes.push(KeyValue::new("text", text));
        for span in [span(1, SAMPLED), long.clone(), long, span(1, SAMPLED)] {
            spans.end(span, false);
        }
        let mut lengths = Vec::new();
        while !spans.is_empty() {
            lengths.push(spans.next_batch().len());
            spans.sent(0);
        }
        assert_eq!(lengths, [1, 1, 1, 1]);
        for _ in 0..MOST_SPANS + 1 {
            spans.end(span(1, SAMPLED), false);
        }
        assert!(spans.is_urgent());
        assert_eq!(spans.next_batch().len(), MOST_SPANS);
    }
}
