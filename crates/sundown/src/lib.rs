//! Stops a network service without losing a request.
//!
//! ```
//! use std::process::ExitCode;
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use sundown::App;
//!
//! fn main() -> ExitCode {
//!     let router = Router::new().route("/", get(|| async { "ok" }));
//!     App::new("hello")
//!         .grace(Duration::from_secs(25))
//!         .http("127.0.0.1:0", router) // port 0: any free one; it is told on stderr
//!         .worker("mailer", |ctx| async move {
//!             ctx.draining().await; // a loop that sends what is due, until then
//!             Ok(())
//!         })
//!         .post_cleanup("cache", || async { /* write it out */ })
//! #       .stop_when(async {})
//!         .run()
//! }
//! ```
//!
//! On SIGTERM, SIGINT or SIGQUIT that service finishes what it has accepted, lets no connection in
//! its queue be reset, releases what it held, says what it did and exits with a code that tells
//! whether anything was cut off. A second signal hurries, a third ends the process at once.
//!
//! What would go on for ever is ended where its client can tell what became of it: server-sent events
//! behind an event, lines behind a line, a gRPC call with UNAVAILABLE, a WebSocket by a close with 1001
//! between two messages, whose handler sees the client's answer and ends. [`Traffic`] has each class, and
//! [`Listener::stay`] how long it may stay.
//!
//! SIGHUP stops nothing, as when a terminal closes: it lets certificates be read again. SIGUSR1 prints what
//! is open: by route with age and peer, and where tasks, guards and workers were begun. SIGUSR2 restarts the
//! program in place, see [`Handle::restart`].
//!
//! # Phases
//! [`Phase`] tells where a service is; [`Handle::phases`] is a channel of them. What is true in
//! each is written there.
//!
//! # Budget
//! One `grace` bounds the whole stop; see [`Budget`] for its parts.
//!
//! # Environment
//! Operators outrank the code:
//!
//! | variable | example | sets |
//! |---|---|---|
//! | `SUNDOWN_GRACE` | `25s` | the longest a stop may take |
//! | `SUNDOWN_LAME_DUCK` | `5s` | how long new connections are still served |
//! | `SUNDOWN_LINGER` | `500ms` | how long idle connections stay open |
//! | `SUNDOWN_RELEASE` | `5s` | the share kept for releasing |
//! | `SUNDOWN_MERCY` | `500ms` | the time between cancelling and cutting off |
//! | `SUNDOWN_ADMIN` | `:9090` | where the [`Admin`] listener is |
//! | `SUNDOWN_ADMIN_TOKEN` | | what it wants from whoever asks |
//! | `SUNDOWN_RESTART_WITHIN` | `60s` | how long a successor may take to be ready |
//! | `SUNDOWN_REPORT` | `stop.json` | where the JSON report goes (`-` is stdout) |
//!
//! Sockets passed by `LISTEN_FDS` (systemd) are used for the listeners whose names they bear. With
//! `Type=notify` systemd is told READY, STATUS and STOPPING, asked to wait for as long as the stop may take,
//! and with `WatchdogSec=` told that the runtime lives.
//!
//! # Exit codes
//! | code | meaning |
//! |---|---|
//! | 0 | everything that was accepted was finished |
//! | 1 | a start hook, a worker or a release failed |
//! | 2 | a setting is wrong; nothing was started |
//! | 4 | work was cut off; the report names it |
//! | 128 + n | the third signal, number n |
//!
//! # Features
//! `axum` (default): [`Context`] is an extractor, and [`Listener::connect_info`] gives handlers
//! `axum::extract::ConnectInfo<SocketAddr>`. `sqlx`: pools can be given to [`App::release`].
//! `tonic-health`: `App::grpc_health` lets gRPC's health service follow the service's life.
//! `tls`: `Listener::tls`, by rustls with ring.

#[cfg(not(target_os = "linux"))]
compile_error!("sundown supports Linux: its lossless stop rests on Linux's sockets");

mod app;
mod release;

mod admin;
mod checks;
mod status;

mod budget;
mod error;
mod exit;
mod figures;
mod last_words;
mod lifecycle;
mod settings;
#[cfg(feature = "tls")]
mod tls;
mod traffic;

mod control;
mod core;
mod restart;
mod shell;
mod signals;

mod context;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "tonic-health")]
mod grpc;
mod hooks;
mod in_flight;
mod open;
mod worker;

mod serve;

mod report;
mod stderr;
mod sys;
mod systemd;
mod trail;

/// The atomics of `in_flight`, which loom replaces by its own.
mod atomic {
    pub(crate) use std::sync::atomic::{AtomicUsize, Ordering};
}

pub use admin::Admin;
pub use app::{App, Handle, Listener};
pub use budget::{Budget, BudgetError};
pub use checks::Check;
pub use context::{Cancelled, Context, DEADLINE_HEADER, Guard};
pub use error::{BoxError, Error};
pub use exit::ExitStatus;
pub use figures::Figure;
pub use hooks::{Hook, HookResult, When};
pub use lifecycle::{Phase, Reason};
pub use release::Release;
pub use report::{
    ConnectionCounts, CutOff, HookOutcome, HookReport, ListenerReport, ListenerStop, PhaseReport,
    REPORT_SCHEMA, Report, RequestCounts, Work,
};
pub use serve::{Address, Body, Connection, HttpService, LocalAddress};
#[cfg(feature = "tls")]
pub use tls::{ClientCertificates, Tls};
pub use traffic::Traffic;
pub use worker::{Acknowledge, Consumer, Delivery, OnDeath, Pulled, Source, Worker};
