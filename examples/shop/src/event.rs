//! What orders tells inventory, and what inventory answers: the contract between the two.
//!
//! An event may arrive more than once; its id says so. Events of one order arrive in order.

use serde::de::IntoDeserializer as _;
use serde::{Deserialize, Serialize};

/// Something that happened to an order and concerns its stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The idempotency key: the same event has the same id whenever it is sent.
    pub(crate) event_id: String,
    pub(crate) kind: Kind,
    pub(crate) order: String,
    pub(crate) item: String,
    pub(crate) quantity: i64,
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
        }
    }
}
