//! A guard for a process that cannot be changed: it stops without losing what was sent.
//!
//! [`Guard::run`] starts a command beneath a keeper, a tiny process that hears by seccomp(2) of each TCP socket
//! that begins to listen and keeps a duplicate of it. Told to stop, the guard lets new connects be refused while
//! the application still accepts who waits in the queue, waits until its connections rest, and only then
//! signals it. The data path is the application's own.
//!
//! The guard is a [`sundown::App`]: signals, the deadline and the report are the library's.

mod connections;
mod control;
mod drain;
mod filter;
mod generation;
mod groups;
mod guard;
mod keeper;
mod kin;
mod letters;
mod retiring;
mod sockets;
mod status;
mod steering;
mod supervision;
mod sys;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use control::{Answer, AskError, Verb, ask, is_name, is_running, name_of};
pub use keeper::keep;
pub use status::{GenerationStatus, State, Status};

/// What becomes of the application if the guard is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OnGuardDeath {
    /// It is told to stop, and killed ten seconds later.
    #[default]
    Stop,
    /// It runs on; nobody guards it any more.
    Keep,
}

impl OnGuardDeath {
    /// By the name that [`name`](Self::name) gives.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Stop, Self::Keep]
            .into_iter()
            .find(|setting| setting.name() == name)
    }

    /// `stop` or `keep`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Keep => "keep",
        }
    }
}

/// When an application that ends by itself is started again. One that has never listened never is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Never.
    No,
    /// If it ends with another exit code than 0, or by a signal.
    #[default]
    OnFailure,
    /// However it ends.
    Always,
}

/// A command, and how it is guarded.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// How this process starts a keeper: a program and its first arguments, to which are added the number of a
    /// socket, [`OnGuardDeath::name`], `stop_signal` and the command. That program calls [`keep`].
    pub keeper: Vec<OsString>,
    /// What the service is called: in the log, the report, and by [`ask`]; see [`is_name`].
    pub name: String,
    /// How long a stop may take until what is left is killed.
    pub drain: Duration,
    /// How long the next generation may take until it listens where the one before does.
    pub ready_within: Duration,
    /// When it is started again.
    pub restart: Restart,
    /// How long a connection has to be silent to be at rest.
    pub quiet: Duration,
    /// What tells the application to stop.
    pub stop_signal: i32,
    /// What becomes of it without the guard.
    pub on_guard_death: OnGuardDeath,
}

impl Guard {
    /// Runs the command until it has ended. SIGHUP starts the next generation of it, which takes what connects
    /// once it listens, while the one before finishes what it has.
    ///
    /// The exit code is the command's if it ends by itself (128 and the signal's number if by one), 127 or 126
    /// if it is missing or cannot be executed; of a stop that was asked for it is the library's: 0 if everything
    /// ended in order, 4 if work was cut off.
    pub fn run(self) -> ExitCode {
        guard::run(self)
    }
}
