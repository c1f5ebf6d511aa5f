//! What a generation has under way, and the wait for its end.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_sock_diag::inet::StateFlags;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::connections::rests;
use crate::generation::Generation;
use crate::listeners::Listener;
use crate::sequences::Visitor;
use crate::sockets::{self, Seen};
use crate::{filter, kin, sys};

/// How often is looked: the longer it takes, the more rarely, as each look goes through all sockets of the system.
const STEP: Duration = Duration::from_millis(10);
const LONGEST_STEP: Duration = Duration::from_millis(50);

/// How long a handshake under way is waited for: the kernel repeats its part after a second, should a packet be
/// lost. A client that is gone never ends it.
const HANDSHAKES: Duration = Duration::from_millis(1500);

/// How long is looked at the least: an acknowledgement may be on its way.
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
    pub(crate) inode: u64,
    /// How long ago its client last said something.
    pub(crate) age: Duration,
}

/// Refuses newcomers; tells where that has to wait until the listener is closed, and what becomes of them.
pub(crate) fn refuse_newcomers<'a>(
    listeners: impl IntoIterator<Item = &'a Listener>,
) -> Vec<String> {
    let shut = |listener: &'a Listener| {
        let Listener {
            address, socket, ..
        } = listener;
        let refused = sys::make_deaf(socket.as_fd()).err()?;
        Some(match sys::filter(socket.as_fd(), &filter::fence()) {
            Ok(()) => format!(
                "{address}: newcomers cannot be refused yet ({refused}): their attempts are dropped until the \
                 service has ended"
            ),
            Err(also) => format!(
                "{address}: newcomers cannot be refused ({refused}), nor their attempts be dropped ({also}): those \
                 of the last instant may be reset"
            ),
        })
    };
    listeners.into_iter().filter_map(shut).collect()
}

/// The sockets that are looked at.
pub(crate) struct Scope {
    /// Duplicates of listeners; those that this process may not open are not looked at.
    queues: Vec<OwnedFd>,
    ports: HashSet<u16>,
    /// Whose descendants have the connections, where others have some on these ports, too.
    keeper: Option<i32>,
    rest: Rest,
    since: Instant,
}

/// By what a connection counts as at rest.
#[derive(Clone)]
pub(crate) struct Rest {
    /// How long it has to be silent.
    quiet: Duration,
    /// Tells what times do not, where that is allowed; loaded when it is first needed, as that takes a while.
    visitor: Arc<OnceCell<Option<Visitor>>>,
}

impl Rest {
    pub(crate) fn after(quiet: Duration) -> Self {
        Self {
            quiet,
            visitor: Arc::default(),
        }
    }

    async fn load(&self) {
        let load = || async {
            let loaded = spawn_blocking(|| Visitor::load().ok()).await;
            loaded.unwrap_or_default()
        };
        self.visitor.get_or_init(load).await;
    }

    /// Those on which something is under way.
    fn busy<'a>(&self, open: &'a [Seen]) -> Vec<&'a Seen> {
        let may_rest = |seen| rests(seen, None, self.quiet);
        let exact = match self.visitor.get() {
            Some(Some(visitor)) if open.iter().any(may_rest) => visitor.look(),
            _ => Ok(HashMap::new()),
        };
        let exact = exact.unwrap_or_default();
        let is_busy = |seen: &&Seen| !rests(seen, exact.get(&seen.cookie), self.quiet);
        open.iter().filter(is_busy).collect()
    }
}

impl Scope {
    /// Everything on the ports of a generation that is alone.
    pub(crate) fn alone(generation: &Generation, rest: Rest) -> Self {
        let listeners = generation.listeners();
        let open = generation.keeper().and_then(kin::open_sockets);
        // Nobody would ever accept from the others.
        let is_open = |own: &&Listener| {
            let seen = open.as_ref().is_none_or(|open| open.contains(&own.inode));
            seen || !generation.may_be_closed(own)
        };
        let queues = listeners.iter().filter(is_open);
        let queues = queues.map(|own| own.socket.try_clone());
        Self {
            queues: queues.filter_map(Result::ok).collect(),
            ports: listeners.iter().map(|own| own.address.port()).collect(),
            keeper: None,
            rest,
            since: Instant::now(),
        }
    }

    /// What a generation has that is beside another.
    pub(crate) fn beside(generation: &Generation, rest: Rest) -> Self {
        Self {
            keeper: generation.keeper(),
            ..Self::alone(generation, rest)
        }
    }

    /// Waits until the queues are empty and every connection rests; `tell` hears at each look what is not so.
    ///
    /// # Errors
    /// If the kernel does not tell of its sockets.
    pub(crate) async fn quiesce(&self, mut tell: impl FnMut(Option<Held>)) -> io::Result<()> {
        self.rest.load().await;
        loop {
            let held = self.look()?;
            let over = held.is_none() && self.since.elapsed() >= ROUND_TRIP;
            tell(held);
            if over {
                return Ok(());
            }
            sleep((self.since.elapsed() / 50).clamp(STEP, LONGEST_STEP)).await;
        }
    }

    /// What is under way now.
    ///
    /// # Errors
    /// If the kernel does not tell of its sockets.
    pub(crate) fn look(&self) -> io::Result<Option<Held>> {
        // In this order: a handshake ends in the queue, and who is in the queue becomes a connection.
        let shaking = self.on_our_ports(StateFlags::SYN_RECV)?.len() as u32;
        let queued = self
            .queues
            .iter()
            .map(|queue| sys::accept_queue(queue.as_fd()));
        let queued: u32 = queued.sum::<io::Result<_>>()?;
        let waiting = match self.since.elapsed() < HANDSHAKES {
            true => queued + shaking,
            false => queued,
        };
        if waiting > 0 {
            return Ok(Some(Held::Queue(waiting)));
        }
        let open = self.connections()?;
        let mut busy = self.rest.busy(&open);
        if let Some(keeper) = self.keeper.filter(|_| !busy.is_empty()) {
            let kin = kin::descendants(keeper);
            let own: HashSet<u64> = kin.into_iter().flat_map(kin::inodes).collect();
            busy.retain(|seen| own.contains(&seen.inode.into()));
        }
        let busy = busy.into_iter().map(|seen| Open {
            local: seen.local,
            peer: seen.peer,
            inode: seen.inode.into(),
            age: Duration::from_millis(seen.received_ago.into()),
        });
        let busy: Vec<_> = busy.collect();
        Ok((!busy.is_empty()).then_some(Held::Connections(busy)))
    }

    /// The connections on these ports. What the application has closed the kernel delivers by itself.
    ///
    /// # Errors
    /// If the kernel does not tell of its sockets.
    pub(crate) fn connections(&self) -> io::Result<Vec<Seen>> {
        self.on_our_ports(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT)
    }

    fn on_our_ports(&self, states: StateFlags) -> io::Result<Vec<Seen>> {
        let mut seen = sockets::list(states)?;
        seen.retain(|seen| self.ports.contains(&seen.local.port()));
        Ok(seen)
    }
}
