//! Serves HTTP/1.1 and HTTP/2 on TCP, and ends every listener and connection without losing what
//! reached it.
//!
//! The way of a request: `bind` opens the socket, `accept` takes connections, `connection` finds
//! the protocol and drives hyper over an `Io`, `exchange` tracks each request. The way of a stop:
//! `accept` shuts the listener (`diag` says when nothing is on its way), `reaper` asks `judge`
//! which connections are to end, `connection` ends them or lets them `rest` until then, `io` lingers on
//! the socket.

mod accept;
mod bind;
mod body;
mod connection;
mod diag;
mod exchange;
mod io;
mod judge;
mod parting;
mod proxy;
mod queue;
mod raw;
mod reaper;
mod records;
mod registry;
mod requests;
mod response;
mod rest;
mod socket;
#[cfg(feature = "tls")]
mod tls;
mod travel;
mod unix;
mod websocket;

use std::time::Duration;

use crate::traffic::Stays;

pub use bind::{Address, LocalAddress};
pub use body::Body;
pub use exchange::HttpService;

pub use raw::Connection;

pub(crate) use accept::{Listening, Serve, start, start_raw};
#[cfg(fuzzing)]
pub(crate) use bind::fuzz as fuzz_names;
pub(crate) use bind::{Bound, Passed, bind};
pub(crate) use exchange::current_context;
#[cfg(fuzzing)]
pub(crate) use proxy::fuzz as fuzz_proxy;
pub(crate) use queue::Queue;
pub(crate) use reaper::reap;
pub(crate) use registry::Connections;

/// What a listener gives its clients, and no more; the defaults stop neither honest clients nor a
/// stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// From a request head's first byte to its last.
    pub(crate) head_timeout: Duration,
    /// How long an idle connection is kept.
    pub(crate) keep_alive: Duration,
    /// The longest request body, in bytes.
    pub(crate) body: u64,
    /// How many connections are served at a time; more wait in the kernel's queue.
    pub(crate) connections: usize,
    /// Whether requests carry axum's `ConnectInfo`.
    pub(crate) connect_info: bool,
    /// Whether WebSockets may be opened over HTTP/2 (RFC 8441).
    pub(crate) http2_websockets: bool,
    /// Whether a proxy says first whose connection it is.
    pub(crate) proxy_protocol: bool,
    /// How long each class of traffic may stay once the service drains.
    pub(crate) stays: Stays,
    /// When a client of server-sent events is to come back.
    pub(crate) event_retry: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body: 64 << 20,
            connections: 65_536,
            connect_info: false,
            http2_websockets: false,
            proxy_protocol: false,
            stays: Stays::default(),
            event_retry: None,
        }
    }
}
