//! Restarts the program in place: a successor gets the listening sockets, says that it is ready, and then the
//! idle connections, one by one.
//!
//! Both speak over a pair of Unix sockets that the successor inherits; a message is a [`Letter`], with
//! descriptors beside it (SCM_RIGHTS). Until the successor is told to go it accepts nothing, so that one which
//! fails, hangs or is killed has nothing to lose; this process serves on then. After that the queue of each
//! listener is the successor's, and this process drains: a plaintext connection of HTTP/1 travels once its
//! answer is flushed, and is kept here until the successor has said that it has it.

mod letters;
mod passage;
mod predecessor;
mod successor;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub(crate) use passage::{Arrival, Owner, Passage, Succession, Traveller};
pub(crate) use predecessor::Predecessor;
pub(crate) use successor::watch;

/// Which descriptor leads to the predecessor, and which process that is: `FD:PID`.
const VARIABLE: &str = "SUNDOWN_HANDOVER";

/// What the two tell each other, in this order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Letter {
    /// To the successor, with a socket for each.
    Listeners(Vec<GivenListener>),
    /// From the successor: everything has started, and it wants these listeners.
    Ready(Vec<String>),
    /// To the successor: it may accept.
    Go,
    /// To the successor, with its socket, and what was read of it behind the letter.
    Connection(GivenConnection),
    /// From the successor: it has this connection, or cannot take it.
    Taken(u64),
    Refused(u64),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GivenListener {
    name: String,
    /// Whether somebody before us has a share in it.
    shared: bool,
    /// Whether the file of a Unix socket goes with it.
    file: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GivenConnection {
    number: u64,
    listener: String,
    /// Whether a proxy has said whose it is, and whom it said.
    announced: bool,
    peer: Option<SocketAddr>,
}

/// See `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some((descriptor, _)) = predecessor::way(text)
    {
        assert!(descriptor > 2);
    }
    if let Ok(received) = letters::read(bytes, Vec::new()) {
        let again = serde_json::to_vec(&received.letter).expect("it was one");
        let again = letters::read(&[&again[..], b"\n"].concat(), Vec::new());
        assert_eq!(again.expect("it is one").letter, received.letter);
    }
}
