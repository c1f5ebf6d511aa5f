//! What a stop did: for people on stderr, for machines as JSON.
//!
//! Never prints by itself: `control` decides when and where.

mod human;

use std::fmt;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::exit::ExitStatus;
use crate::hooks::When;
use crate::lifecycle::{Phase, Reason};
use crate::serve::LocalAddress;

pub(crate) use human::{duration, progress_line};

/// The version of the JSON document; it changes when a reader would have to.
pub const REPORT_SCHEMA: u32 = 1;

/// What a stop did.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// [`REPORT_SCHEMA`].
    pub schema: u32,
    /// The service's name.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// Why it stopped; `None` only if it never ran.
    pub reason: Option<Reason>,
    /// The exit code, see [`ExitStatus`].
    pub exit_code: u8,
    /// From the beginning of the stop to the report.
    #[serde(rename = "stop_ms", serialize_with = "millis")]
    pub took: Duration,
    /// Each phase and how long it lasted.
    pub phases: Vec<PhaseReport>,
    /// What was cut off, oldest first.
    pub cut_off: Vec<CutOff>,
    /// Requests by outcome.
    pub requests: RequestCounts,
    /// Connections by fate.
    pub connections: ConnectionCounts,
    /// How each listener was closed.
    pub listeners: Vec<ListenerReport>,
    /// Every hook that ran.
    pub hooks: Vec<HookReport>,
    /// What else went wrong, a line each.
    pub notes: Vec<String>,
}

/// How long a phase lasted.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct PhaseReport {
    /// The phase.
    pub phase: Phase,
    /// Its duration.
    #[serde(rename = "ms", serialize_with = "millis")]
    pub lasted: Duration,
}

/// Requests by outcome, over the life of the service.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[non_exhaustive]
pub struct RequestCounts {
    /// Answered in full.
    pub finished: u64,
    /// Of these, answered after the stop began.
    pub finished_during_stop: u64,
    /// Streams that would have gone on, and were ended by the stop behind a whole record or with a status.
    pub ended_early: u64,
    /// Ended by their client before they were answered in full.
    pub abandoned_by_client: u64,
    /// Cut off by the end of grace or the second signal.
    pub cut_off: u64,
}

impl AddAssign for RequestCounts {
    fn add_assign(&mut self, more: Self) {
        self.finished += more.finished;
        self.finished_during_stop += more.finished_during_stop;
        self.ended_early += more.ended_early;
        self.abandoned_by_client += more.abandoned_by_client;
        self.cut_off += more.cut_off;
    }
}

/// Connections by fate, over the life of the service.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Accepted in all.
    pub accepted: u64,
    /// Ended by the client, or by a response that said close.
    pub ended: u64,
    /// Closed while idle: the keep-alive time or the linger was over.
    pub closed_idle: u64,
    /// Closed because a request head did not arrive in time.
    pub head_timeout: u64,
    /// Gone on in a successor of this process.
    pub handed_over: u64,
    /// Ended by an error of the protocol or the network.
    pub failed: u64,
    /// Cut off.
    pub cut_off: u64,
}

/// What kind of work was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Work {
    /// An HTTP request.
    Request,
    /// A request head that has not arrived in full.
    RequestHead,
    /// A TLS handshake, or a proxy's header before it.
    Handshake,
    /// A connection that was upgraded.
    Upgraded,
    /// A connection of `Listener::tcp`.
    Connection,
    /// A worker.
    Worker,
    /// A task started by [`Context::spawn`](crate::Context::spawn).
    Task,
    /// Work of its own kind, for which a [`Guard`](crate::Guard) was taken.
    Guard,
    /// A thread started by [`Context::spawn_blocking`](crate::Context::spawn_blocking).
    Blocking,
    /// Another process, which this one runs.
    Process,
}

impl Work {
    /// Whether it came over a connection.
    pub(crate) fn is_of_a_client(self) -> bool {
        match self {
            Self::Request
            | Self::RequestHead
            | Self::Handshake
            | Self::Upgraded
            | Self::Connection => true,
            Self::Worker | Self::Task | Self::Guard | Self::Blocking | Self::Process => false,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::RequestHead => "request head",
            Self::Handshake => "handshake",
            Self::Upgraded => "upgraded connection",
            Self::Connection => "connection",
            Self::Worker => "worker",
            Self::Task => "task",
            Self::Guard => "guard",
            Self::Blocking => "blocking task",
            Self::Process => "process",
        })
    }
}

/// A piece of work that was still open.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CutOff {
    /// What kind of work.
    pub work: Work,
    /// Method and path without the query, or the name it was given.
    pub name: String,
    /// The client, for what came over a connection.
    pub peer: Option<SocketAddr>,
    /// How long it had been under way.
    #[serde(rename = "age_ms", serialize_with = "millis")]
    pub age: Duration,
    /// The line of code that began it, as `FILE:LINE:COLUMN`, for a task, a guard or a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<String>,
}

impl CutOff {
    pub(crate) fn new(work: Work, name: String, peer: Option<SocketAddr>, age: Duration) -> Self {
        Self {
            work,
            name,
            peer,
            age,
            begun_at: None,
        }
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.work, self.name)?;
        if let Some(peer) = self.peer {
            write!(f, " from {peer}")?;
        }
        write!(f, " ({}", human::duration(self.age))?;
        if let Some(place) = &self.begun_at {
            write!(f, ", begun at {place}")?;
        }
        f.write_str(")")
    }
}

/// How a listener was closed.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ListenerReport {
    /// The listener's name.
    pub name: String,
    /// Its address.
    pub address: LocalAddress,
    /// What kept new connections out while the queue was served.
    pub closed_by: ListenerStop,
    /// Connections that were taken out of the queue after it was shut.
    pub swept: usize,
}

/// What kept new connections out while a listener's queue was served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ListenerStop {
    /// The listener was made deaf: connects are refused at once.
    Deaf,
    /// A filter drops SYNs: connects are refused after a retry.
    Fence,
    /// Both were refused by the system: a connect in the last instant can be reset.
    Unguarded,
    /// Nothing: a successor of this process has it.
    HandedOver,
    /// The socket is shared with whoever passed it on: its queue stays with its owner.
    Shared,
}

/// A hook that ran.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct HookReport {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub when: When,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: HookOutcome,
    /// How long it took.
    #[serde(rename = "ms", serialize_with = "millis")]
    pub took: Duration,
}

/// How a hook ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
#[non_exhaustive]
pub enum HookOutcome {
    /// It completed.
    Done,
    /// It returned this error.
    Failed(String),
    /// It panicked with this message.
    Panicked(String),
    /// Its time was over.
    TimedOut,
}

impl HookOutcome {
    /// The name that the JSON report has for it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed(_) => "failed",
            Self::Panicked(_) => "panicked",
            Self::TimedOut => "timed_out",
        }
    }

    /// True unless it completed.
    pub fn is_failure(&self) -> bool {
        *self != Self::Done
    }
}

impl Report {
    /// The exit status of the process.
    pub fn exit_status(&self) -> ExitStatus {
        match self.exit_code {
            0 => ExitStatus::Drained,
            2 => ExitStatus::BadSetting,
            4 => ExitStatus::CutOff,
            code if code > 128 => ExitStatus::Killed(i32::from(code) - 128),
            _ => ExitStatus::Failed,
        }
    }

    /// The report as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a report has only string keys and plain values")
    }
}

pub(crate) fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Three decimals: an idle stop takes less than a millisecond.
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}
