//! One run of the command: its keeper, the sockets that it listens on, and what is heard of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::letters::{self, Order, To, Word};
use crate::{Guard, OnGuardDeath, kin, sys};

/// A command that was started, seen from the guard.
pub(crate) struct Generation {
    number: u32,
    keeper: Child,
    letters: AsyncFd<OwnedFd>,
    listeners: Vec<Listener>,
    /// The process that the command became.
    leader: Option<i32>,
    /// The status with which the process that the command became has ended.
    ended: Option<i32>,
}

/// A socket on which the application listens, and our duplicate of it.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) inode: u64,
    pub(crate) socket: OwnedFd,
}

/// What a generation has to do with the one before.
#[derive(Default)]
pub(crate) struct Before {
    /// Addresses on which that goes on listening.
    pub(crate) shared: Vec<SocketAddr>,
    /// Listeners that it has left.
    pub(crate) left: Vec<Listener>,
}

/// What is heard of a generation.
#[derive(Debug)]
pub(crate) enum News {
    /// The command runs; if its listeners cannot be heard of, why.
    Started { pid: i32, unheard: Option<String> },
    /// It could not be started.
    Failed(io::Error),
    /// It listens here, by this socket.
    Listens(SocketAddr, u64),
    /// It had closed this socket, listens on its address again, and goes on without it once our duplicate is
    /// [dropped](Generation::drop_listener).
    Closed(u64),
    /// Something to tell.
    Note(String),
    /// The process that the command became has ended, with this status (waitpid(2)).
    Ended(i32),
    /// No process of it is left.
    Gone,
}

impl Generation {
    /// Starts a keeper, which starts the command.
    pub(crate) fn start(guard: &Guard, number: u32, before: Before) -> io::Result<Self> {
        let (ours, theirs) = letters::pair()?;
        let mut words = guard.keeper.iter();
        let mut keeper = Command::new(words.next().ok_or(io::ErrorKind::InvalidInput)?);
        keeper
            .args(words)
            .arg(theirs.as_raw_fd().to_string())
            .arg(guard.on_guard_death.name())
            .arg(guard.stop_signal.to_string())
            .args(&guard.command)
            // What a terminal sends is for the guard, and what systemd wants to hear is the guard's to say.
            .process_group(0)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        sys::inherit(&mut keeper, theirs);
        let spawned = keeper.spawn();
        // Its copy of the other end would keep the conversation open.
        drop(keeper);
        let keeper = spawned?;
        for Listener {
            address, socket, ..
        } in before.left
        {
            letters::send(&ours, &Order::Inherit { address }, Some(socket.as_fd()))?;
        }
        let shared = before.shared;
        letters::send(&ours, &Order::Start { shared }, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let letters = sys::watch(ours)?;
        Ok(Self {
            number,
            keeper,
            letters,
            listeners: Vec::new(),
            leader: None,
            ended: None,
        })
    }

    /// The next that is heard of it; after [`News::Gone`] nothing is.
    ///
    /// # Cancel safety
    /// Safe: news are taken whole, in one step.
    pub(crate) async fn news(&mut self) -> News {
        let received = self
            .letters
            .async_io(Interest::READABLE, |socket| {
                letters::receive::<Word>(socket)
            })
            .await;
        match received {
            Ok(Some((Word::Started { pid, unheard }, _))) => {
                self.leader = Some(pid);
                News::Started { pid, unheard }
            }
            Ok(Some((Word::Failed { error }, _))) => {
                News::Failed(io::Error::from_raw_os_error(error))
            }
            Ok(Some((Word::Listens { inode }, Some(socket)))) => self.listens(inode, socket),
            Ok(Some((Word::Listens { .. }, None))) => News::Note(
                "a listener is not known: this process may open no more files".to_owned(),
            ),
            Ok(Some((Word::Closed { inode, wanted }, _))) => self.closed(inode, wanted),
            Ok(Some((Word::Note { text }, _))) => News::Note(text),
            Ok(Some((Word::Ended { status }, _))) => {
                self.ended = Some(status);
                self.leader = None;
                News::Ended(status)
            }
            Ok(None) | Err(_) => {
                let _ = self.keeper.wait();
                News::Gone
            }
        }
    }

    fn listens(&mut self, inode: u64, socket: OwnedFd) -> News {
        let address = rustix::net::getsockname(&socket).map(SocketAddr::try_from);
        let Ok(Ok(address)) = address else {
            return News::Note("a listener has no address".to_owned());
        };
        // A second `listen` changes the backlog of the first.
        if self.listeners.iter().all(|known| known.inode != inode) {
            self.listeners.push(Listener {
                address,
                inode,
                socket,
            });
        }
        News::Listens(address, inode)
    }

    /// Gives it back a socket that it had closed, with whoever waits there, if it can have it.
    fn closed(&self, inode: u64, wanted: bool) -> News {
        let own = self.listeners.iter().find(|own| own.inode == inode);
        match own.filter(|_| wanted) {
            Some(own) => {
                let socket = own.socket.as_fd();
                let _ = letters::send(self.letters.get_ref(), &Order::Closed, Some(socket));
                News::Note(format!(
                    "{} is opened again: its queue was kept",
                    own.address
                ))
            }
            None => News::Closed(inode),
        }
    }

    /// Closes our duplicate of a socket that the application has closed.
    pub(crate) fn drop_listener(&mut self, inode: u64) {
        self.listeners.retain(|listener| listener.inode != inode);
        let _ = letters::send(self.letters.get_ref(), &Order::Closed, None);
    }

    /// Closes our duplicates of listeners that the application itself has made deaf, as it does to stop: nobody
    /// could use them again. Returns their inodes.
    pub(crate) fn drop_deaf(&mut self) -> Vec<u64> {
        let is_deaf = |listener: &mut Listener| sys::is_deaf(listener.socket.as_fd());
        let deaf = self.listeners.extract_if(.., is_deaf);
        deaf.map(|listener| listener.inode).collect()
    }

    /// Gives away its listeners, for those that come after it.
    pub(crate) fn take_listeners(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.listeners)
    }

    /// Has these from the start.
    pub(crate) fn adopt(&mut self, listeners: Vec<Listener>) {
        self.listeners = listeners;
    }

    /// Duplicates of its listeners; without those that this process may not open.
    pub(crate) fn share_listeners(&self) -> Vec<Listener> {
        let share = |own: &Listener| {
            Some(Listener {
                socket: own.socket.try_clone().ok()?,
                ..*own
            })
        };
        self.listeners.iter().filter_map(share).collect()
    }

    /// The first is number 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The process that the command became, while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.leader
    }

    /// Whether any process of it is left.
    pub(crate) fn has_processes(&self) -> bool {
        !kin::descendants(self.keeper()).is_empty()
    }

    /// The process whose descendants are its.
    pub(crate) fn keeper(&self) -> i32 {
        i32::try_from(self.keeper.id()).expect("a PID is positive")
    }

    /// Whether it listens on all of these.
    pub(crate) fn listens_on(&self, addresses: &[SocketAddr]) -> bool {
        let listens =
            |address: &SocketAddr| self.listeners.iter().any(|own| own.address == *address);
        addresses.iter().all(listens)
    }

    /// Where it listens, each address once.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.listeners.iter().map(|own| own.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Sends a signal; whoever is gone does not hear it.
    pub(crate) fn signal(&self, signal: i32, to: To) {
        let _ = letters::send(self.letters.get_ref(), &Order::Signal { signal, to }, None);
    }

    /// Says what becomes of it from now on if this process is killed.
    pub(crate) fn outlives(&self, setting: OnGuardDeath) {
        let _ = letters::send(self.letters.get_ref(), &Order::Outlives(setting), None);
    }

    /// Lets nothing of it outlive this process, even if that is killed now.
    pub(crate) fn ends_with_us(&self) {
        let _ = letters::send(self.letters.get_ref(), &Order::Stops, None);
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The status of the process that the command became, once it has ended.
    pub(crate) fn status(&self) -> Option<i32> {
        self.ended
    }
}

impl Drop for Generation {
    /// Without its guard a keeper does as it was told to; where nobody is left, it is gone.
    fn drop(&mut self) {
        let _ = self.keeper.try_wait();
    }
}
