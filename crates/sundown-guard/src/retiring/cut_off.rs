//! What was under way when there was no more time, by name.

use std::fmt;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use sundown::Work;

use crate::drain::{Held, Open};
use crate::generation::Generation;
use crate::parting::Late;
use crate::sys;

/// Something that was under way.
pub(crate) struct CutOff {
    pub(crate) work: Work,
    pub(crate) name: String,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) age: Duration,
}

impl From<Late> for CutOff {
    fn from(late: Late) -> Self {
        Self {
            work: Work::Connection,
            name: format!(
                "{} (what came when the application had closed it)",
                late.local
            ),
            peer: Some(late.peer),
            age: Duration::ZERO,
        }
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.work, self.name)?;
        match self.peer {
            Some(peer) => write!(f, " from {peer}"),
            None => Ok(()),
        }
    }
}

/// Who waits in the queues of a generation that does not run.
pub(crate) fn unserved(generation: &Generation) -> Option<CutOff> {
    let queues = generation.listeners().iter();
    let waiting = queues.map(|own| sys::accept_queue(own.socket.as_fd()).unwrap_or(0));
    let waiting: u32 = waiting.sum();
    named(Some(&Held::Queue(waiting)))
        .pop()
        .filter(|_| waiting > 0)
}

/// What is under way, by name.
pub(super) fn named(held: Option<&Held>) -> Vec<CutOff> {
    match held {
        None => Vec::new(),
        Some(Held::Queue(count)) => vec![CutOff {
            work: Work::Process,
            name: format!("({count} connections in its queue)"),
            peer: None,
            age: Duration::ZERO,
        }],
        Some(Held::Connections(open)) => open
            .iter()
            .map(
                |&Open {
                     local, peer, age, ..
                 }| CutOff {
                    work: Work::Connection,
                    name: local.to_string(),
                    peer: Some(peer),
                    age,
                },
            )
            .collect(),
    }
}
