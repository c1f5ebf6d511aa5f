//! One run of the command: its keeper, the sockets that it listens on, and what is heard of it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::letters::{self, Order, To, Word};
use crate::{Guard, sys};

/// A command that was started, seen from the guard.
pub(crate) struct Generation {
    keeper: Child,
    letters: AsyncFd<OwnedFd>,
    listeners: Vec<Listener>,
    /// The status with which the process that the command became has ended.
    ended: Option<i32>,
}

/// A socket on which the application listens, and our duplicate of it.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) socket: OwnedFd,
}

/// What is heard of a generation.
#[derive(Debug)]
pub(crate) enum News {
    /// The command runs; if its listeners cannot be heard of, why.
    Started { pid: i32, unheard: Option<String> },
    /// It could not be started.
    Failed(io::Error),
    /// It listens here.
    Listens(SocketAddr),
    /// Something to tell.
    Note(String),
    /// The process that the command became has ended, with this status (waitpid(2)).
    Ended(i32),
    /// No process of it is left.
    Gone,
}

impl Generation {
    /// Starts a keeper, which starts the command.
    pub(crate) fn start(guard: &Guard) -> io::Result<Self> {
        let (ours, theirs) = letters::pair()?;
        let mut words = guard.keeper.iter();
        let mut keeper = Command::new(words.next().ok_or(io::ErrorKind::InvalidInput)?);
        keeper
            .args(words)
            .arg(theirs.as_raw_fd().to_string())
            .arg(guard.on_guard_death.name())
            .arg(guard.stop_signal.to_string())
            .args(&guard.command)
            // What a terminal sends is for the guard.
            .process_group(0);
        sys::inherit(&mut keeper, theirs);
        let keeper = keeper.spawn()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let letters = sys::watch(ours)?;
        Ok(Self {
            keeper,
            letters,
            listeners: Vec::new(),
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
            Ok(Some((Word::Started { pid, unheard }, _))) => News::Started { pid, unheard },
            Ok(Some((Word::Failed { error }, _))) => {
                News::Failed(io::Error::from_raw_os_error(error))
            }
            Ok(Some((Word::Listens, Some(socket)))) => self.listens(socket),
            Ok(Some((Word::Listens, None))) => News::Note("a listener is not known".to_owned()),
            Ok(Some((Word::Note { text }, _))) => News::Note(text),
            Ok(Some((Word::Ended { status }, _))) => {
                self.ended = Some(status);
                News::Ended(status)
            }
            Ok(None) | Err(_) => {
                let _ = self.keeper.wait();
                News::Gone
            }
        }
    }

    fn listens(&mut self, socket: OwnedFd) -> News {
        let address = rustix::net::getsockname(&socket).map(SocketAddr::try_from);
        let Ok(Ok(address)) = address else {
            return News::Note("a listener has no address".to_owned());
        };
        // A second `listen` changes the backlog of the first.
        if self.listeners.iter().all(|known| known.address != address) {
            self.listeners.push(Listener { address, socket });
        }
        News::Listens(address)
    }

    /// Sends a signal; whoever is gone does not hear it.
    pub(crate) fn signal(&self, signal: i32, to: To) {
        let _ = letters::send(self.letters.get_ref(), &Order::Signal { signal, to }, None);
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
