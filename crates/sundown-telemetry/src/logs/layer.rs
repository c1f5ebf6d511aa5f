//! Hears spans and events, and puts their lines into the buffer.

use std::cell::Cell;
use std::sync::Arc;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::line::{Fields, Ids, Scratch, Style};
use super::writer::Writer;

/// Longer ones are not kept for the next line.
const LONGEST_KEPT: usize = 64 << 10;

/// The target of the spans that the layers of tower make of requests. What they say of a request is not in its lines:
/// these name the span.
pub(crate) const REQUESTS: &str = "sundown_telemetry::requests";

thread_local! {
    /// Taken while it is in use: what is logged by a `Debug` of a field gets another.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// A log as a layer of a subscriber.
pub struct LogLayer {
    style: Arc<Style>,
    writer: Writer,
}

/// The fields of a span, rendered once.
struct OfSpan(Fields);

impl LogLayer {
    pub(super) fn new(style: Arc<Style>, writer: Writer) -> Self {
        Self { style, writer }
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if attributes.metadata().target() == REQUESTS {
            return;
        }
        let mut fields = Fields::default();
        self.style
            .add(&mut fields, |visitor| attributes.record(visitor));
        span.extensions_mut().insert(OfSpan(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(OfSpan(fields)) = extensions.get_mut() {
            self.style.add(fields, |visitor| values.record(visitor));
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut scratch = SCRATCH.take().unwrap_or_default();
        let normalized = tracing_log::NormalizeEvent::normalized_metadata(event);
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        self.style.render(
            &mut scratch,
            metadata,
            Ids::current(),
            |visitor| event.record(visitor),
            |append| {
                for span in ctx.event_scope(event).into_iter().flatten() {
                    if let Some(OfSpan(fields)) = span.extensions().get() {
                        append(fields);
                    }
                }
            },
        );
        self.writer.push(&scratch.line);
        if scratch.line.capacity() <= LONGEST_KEPT {
            SCRATCH.set(Some(scratch));
        }
    }
}
