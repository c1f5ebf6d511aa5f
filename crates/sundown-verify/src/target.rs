//! What is told to stop: a command that is started for it, or something that runs already.
//!
//! The promise: tells what each kind of target can show, and whether it can be had again, so that a
//! check which needs more is left out with its reason. Does nothing to a target: see
//! [`attach`](crate::attach) for how one is found.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::pidfd::Pidfd;

/// Says what is told to stop.
#[derive(Debug, Clone)]
pub enum Target {
    /// A command that is started anew for every stop; `{port}` in an argument stands for the port
    /// that is chosen.
    Command(Vec<OsString>),
    /// A process that runs, and of which we are not the parent. It is stopped once.
    Pid(Attached),
    /// A unit of systemd, which stops and starts it.
    Unit(Unit),
    /// Something that is known by its address only: a container, a pod.
    Url(Reached),
}

/// Is a process that runs.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Its number.
    pub pid: u32,
    /// Its name, as ps(1) tells it.
    pub name: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// The process group it is in.
    pub group: libc::pid_t,
    pub(crate) fd: Arc<Pidfd>,
    pub(crate) look: Look,
}

/// Is a unit of systemd that runs.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its main process when it was found.
    pub pid: u32,
    /// That process's name.
    pub process: String,
    /// Where it is reached.
    pub address: SocketAddr,
    /// Whether the address was given, and so holds for every start.
    pub given: bool,
    /// The signal by which systemd stops it (`KillSignal`, systemd.kill(5)).
    pub kill_signal: i32,
}

/// Is something that is known by its address only.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Where it is reached.
    pub address: SocketAddr,
    /// The command that stops it.
    pub stop: Vec<OsString>,
    /// The command that starts it again.
    pub again: Option<Vec<OsString>>,
}

/// Says how it is seen whether somebody listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// In the kernel's table, which no server notices.
    Table,
    /// By connecting, where the table is another machine's or another namespace's.
    Connect,
}

impl Target {
    /// Tells whether it can be started again for another stop.
    pub fn starts_again(&self) -> bool {
        match self {
            Self::Command(_) | Self::Unit(_) => true,
            Self::Pid(_) => false,
            Self::Url(reached) => reached.again.is_some(),
        }
    }

    /// Tells whether there is a process to signal, to freeze and to watch.
    pub fn has_process(&self) -> bool {
        !matches!(self, Self::Url(_))
    }

    /// Tells whether its exit status is seen: by its parent, or from its parent.
    pub fn shows_status(&self) -> bool {
        matches!(self, Self::Command(_) | Self::Unit(_))
    }

    /// Tells whether the signal is ours, and so its moment known. systemd and a command send theirs some
    /// time after they were asked to.
    pub fn is_signalled_by_us(&self) -> bool {
        matches!(self, Self::Command(_) | Self::Pid(_))
    }

    /// Tells whether it is a command, which can be started in other ways, too, and whose processes
    /// are all known.
    pub fn is_command(&self) -> bool {
        matches!(self, Self::Command(_))
    }

    /// The flag by which it was given.
    pub fn flag(&self) -> &'static str {
        match self {
            Self::Command(_) => "--",
            Self::Pid(_) => "--pid",
            Self::Unit(_) => "--unit",
            Self::Url(_) => "--url",
        }
    }

    /// What to give for a target that can be started again.
    pub fn advice_to_start_again(&self) -> &'static str {
        match self {
            Self::Url(_) => "say how to start it again, by --again CMD",
            _ => "give the command instead of --pid",
        }
    }
}
