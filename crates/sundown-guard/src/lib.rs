//! A guard for a process that cannot be changed: it stops without losing what was sent.
//!
//! [`Guard::run`] starts a command beneath a keeper, a tiny process that hears by seccomp(2) of each TCP socket
//! that begins to listen and keeps a duplicate of it. Told to stop, the guard lets new connects be refused while
//! the application still accepts who waits in the queue, waits until its connections rest, and only then
//! signals it. The data path is the application's own.
//!
//! The guard is a [`sundown::App`]: signals, the deadline and the report are the library's.

mod btf;
mod connections;
mod control;
mod drain;
mod environment;
mod filter;
mod generation;
mod groups;
mod guard;
mod hooks;
mod hush;
mod keeper;
mod kin;
mod letters;
mod listeners;
mod notices;
mod orphans;
mod output;
mod parting;
mod readiness;
mod retiring;
mod sequences;
mod settings;
mod signals;
mod sockets;
mod status;
mod steering;
mod supervision;
mod sys;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

pub use control::{Answer, AskError, Verb, ask, is_name, name_of};
pub use keeper::keep;
pub use settings::{
    CommandHook, HookWhen, Mode, OnGuardDeath, Output, Passed, Ready, Restart, Surroundings, Url,
};
pub use status::{Counts, GenerationStatus, State, Status};

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
    /// Whether it must be called so; else the guard's PID is put behind the name where another has it.
    pub name_is_given: bool,
    /// How it is started.
    pub surroundings: Surroundings,
    /// How the guard gets hold of its listeners.
    pub mode: Mode,
    /// When a generation counts as ready.
    pub ready: Ready,
    /// How long the next generation may take until it is.
    pub ready_within: Duration,
    /// Whether the next generation is started beside the one before; if not, that ends first, and who connects
    /// waits.
    pub overlap: bool,
    /// How long a stop may take until what is left is killed; so may the end of a generation that is followed
    /// by another.
    pub drain: Duration,
    /// When it is started again.
    pub restart: Restart,
    /// How long a connection has to be silent to be at rest.
    pub quiet: Duration,
    /// What tells the application to stop.
    pub stop_signal: i32,
    /// What becomes of it without the guard.
    pub on_guard_death: OnGuardDeath,
    /// What becomes of what it prints.
    pub output: Output,
    /// Commands that are run when the service stops.
    pub hooks: Vec<CommandHook>,
    /// Where those who run the service are told how it is; see [`sundown::Admin`].
    pub admin: Option<String>,
}

impl Guard {
    /// Runs the command until it has ended. SIGHUP starts the next generation of it, which takes what connects
    /// once it is ready, while the one before finishes what it has. Every other signal that stops nothing is
    /// the command's.
    ///
    /// The exit code is the command's if it ends by itself (128 and the signal's number if by one), 127 or 126
    /// if it is missing or cannot be executed; of a stop that was asked for it is the library's: 0 if everything
    /// ended in order, 4 if work was cut off.
    pub fn run(self) -> ExitCode {
        guard::run(self)
    }
}
