//! What orders tells inventory, and what inventory answers: the contract between the two.
//!
//! An event may arrive more than once; its id says so. Events of one order arrive in order.

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};
use sundown_telemetry::propagation::SpanContext;
use sundown_telemetry::{SpanExt as _, trace_context};
use tracing::Span;

/// Something that happened to an order and concerns its stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The idempotency key: the same event has the same id whenever it is sent.
    pub(crate) event_id: String,
    pub(crate) kind: Kind,
    pub(crate) order: String,
    pub(crate) item: String,
    pub(crate) quantity: i64,
    /// The span that it comes of, as a `traceparent`; events of old have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Reserve,
    Release,
}

/// What inventory says to an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) order: String,
    pub(crate) stock: Stock,
}

/// What an order has of the stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stock {
    Reserved,
    /// There was not enough.
    Refused,
    Released,
    /// The order is not known here.
    None,
}

impl TryFrom<String> for Stock {
    type Error = serde::de::value::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::deserialize(text.into_deserializer())
    }
}

impl Event {
    /// Each order is reserved once and released once, so that its id and the kind name the event.
    pub(crate) fn new(kind: Kind, order: &str, item: &str, quantity: i64) -> Self {
        let what = match kind {
            Kind::Reserve => "reserve",
            Kind::Release => "release",
        };
        Self {
            event_id: format!("{order}:{what}"),
            kind,
            order: order.to_owned(),
            item: item.to_owned(),
            quantity,
            trace: trace_context().map(|span| span.to_traceparent()),
        }
    }

    /// Has a span continue the trace that the event comes of.
    pub(crate) fn continued_by(&self, span: Span) -> Span {
        let trace = self.trace.as_deref();
        if let Some(context) = trace.and_then(SpanContext::from_traceparent) {
            span.continue_from(&context);
        }
        span
    }
}
