//! A plain stop: newcomers are refused, what has arrived is served, and then the application is told.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

use netlink_packet_sock_diag::inet::StateFlags;
use tokio::time::{Instant, sleep};

use crate::connections::rests;
use crate::generation::Listener;
use crate::sockets::{self, Seen};
use crate::sys;

/// How often is looked.
const STEP: Duration = Duration::from_millis(5);

/// How long a handshake under way is waited for; a client that is gone never ends it.
const HANDSHAKES: Duration = Duration::from_secs(1);

/// How long after that the queue is looked at once more: an acknowledgement may be on its way.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// What holds a stop up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// Connections that the application has not accepted.
    Queue(u32),
    /// Connections on which something is under way.
    Connections(Vec<Open>),
}

/// A connection on which something is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// Refuses newcomers; tells what could not be made to.
pub(crate) fn refuse_newcomers(listeners: &[Listener]) -> Vec<String> {
    let deaf = |listener: &Listener| {
        let refused = sys::make_deaf(listener.socket.as_fd()).err()?;
        Some(format!(
            "{}: newcomers cannot be refused ({refused}); those of the last instant may be reset",
            listener.address
        ))
    };
    listeners.iter().filter_map(deaf).collect()
}

/// The ports on which connections are the application's.
pub(crate) fn ports(listeners: &[Listener]) -> HashSet<u16> {
    listeners.iter().map(|open| open.address.port()).collect()
}

/// Waits until the queues are empty and every connection rests; `tell` hears of what holds it up.
///
/// # Errors
/// If the kernel does not tell of its sockets.
pub(crate) async fn quiesce(
    ports: HashSet<u16>,
    quiet: Duration,
    mut tell: impl FnMut(Held),
) -> io::Result<()> {
    let began = Instant::now();
    loop {
        let held = look(&ports, quiet, began.elapsed())?;
        match held {
            Some(held) => tell(held),
            None => return Ok(()),
        }
        sleep(STEP).await;
    }
}

fn look(ports: &HashSet<u16>, quiet: Duration, since: Duration) -> io::Result<Option<Held>> {
    let ours = |states| -> io::Result<Vec<Seen>> {
        let mut seen = sockets::list(states)?;
        seen.retain(|seen| ports.contains(&seen.local.port()));
        Ok(seen)
    };
    // In this order: a handshake ends in the queue, and who is in the queue becomes a connection.
    let shaking = ours(StateFlags::SYN_RECV)?.len() as u32;
    let queued: u32 = ours(StateFlags::LISTEN)?
        .iter()
        .map(|seen| seen.unread)
        .sum();
    if queued > 0 || since < ROUND_TRIP || (shaking > 0 && since < HANDSHAKES) {
        return Ok(Some(Held::Queue(queued + shaking)));
    }
    // What the application has closed the kernel delivers by itself.
    let open = ours(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT)?;
    let busy: Vec<Open> = open
        .iter()
        .filter(|seen| !rests(seen, quiet))
        .map(|&Seen { local, peer, .. }| Open { local, peer })
        .collect();
    Ok((!busy.is_empty()).then_some(Held::Connections(busy)))
}
