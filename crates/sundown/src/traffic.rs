//! *Decides* how long each class of what a service holds open may stay once it drains.

use std::time::Duration;

/// A class of what clients hold open, by how it ends in a stop. The library tells the class by the
/// protocol and the head of the response; [`Listener::stay`](crate::Listener::stay) says how long it may
/// stay.
///
/// | class | it is told | stays | is ended by |
/// |---|---|---|---|
/// | a plain request, a long poll | [`Context::draining`](crate::Context::draining) | to the end of the drain | `Context::cancelled`; after mercy it is cut off |
/// | [`Records`](Self::Records) | the same | not at all | the end of the body, behind a whole record |
/// | [`Stream`](Self::Stream) | the same | to the end of the drain | an error: no last chunk (HTTP/1), RST_STREAM (HTTP/2) |
/// | [`Grpc`](Self::Grpc) | the same, GOAWAY to its client | to the end of the drain | status UNAVAILABLE, behind a whole message |
/// | [`WebSocket`](Self::WebSocket) | close (1001), to its client | not at all | the client's close; after mercy it is cut off |
/// | a connection of [`Listener::tcp`](crate::Listener::tcp), CONNECT (over HTTP/2: a WebSocket too), another upgrade | `Context::draining` | to the end of the drain | `Context::cancelled`; after mercy it is cut off |
/// | a task, a worker | `Context::draining` | to the end of the drain | `Context::cancelled`; after mercy it is cut off |
///
/// The end of the drain is grace less the share for releases and mercy; what is not at a boundary then has
/// half of mercy to come to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Traffic {
    /// Server-sent events, and what its `Content-Type` declares to be a record a line
    /// (`application/x-ndjson`, `application/jsonl`, `application/json-seq`).
    Records,
    /// Any other body without a declared length.
    Stream,
    /// A call answered with `application/grpc`, one message or many.
    Grpc,
    /// A WebSocket over HTTP/1.1, from the upgrade on.
    WebSocket,
}

/// How long each class may stay once the service drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stays {
    records: Duration,
    stream: Duration,
    grpc: Duration,
    websocket: Duration,
}

/// To the end of the drain.
const ALL: Duration = Duration::MAX;

impl Default for Stays {
    fn default() -> Self {
        Self {
            records: Duration::ZERO,
            stream: ALL,
            grpc: ALL,
            websocket: Duration::ZERO,
        }
    }
}

impl Stays {
    pub(crate) fn of(&self, traffic: Traffic) -> Duration {
        match traffic {
            Traffic::Records => self.records,
            Traffic::Stream => self.stream,
            Traffic::Grpc => self.grpc,
            Traffic::WebSocket => self.websocket,
        }
    }

    pub(crate) fn set(&mut self, traffic: Traffic, stay: Duration) {
        *match traffic {
            Traffic::Records => &mut self.records,
            Traffic::Stream => &mut self.stream,
            Traffic::Grpc => &mut self.grpc,
            Traffic::WebSocket => &mut self.websocket,
        } = stay;
    }
}
