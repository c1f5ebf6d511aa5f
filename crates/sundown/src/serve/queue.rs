//! A listener's queue: how connections are taken from it, and how nobody is let in any more while those in
//! it are.
//!
//! Each way was measured: a TCP listener on an interface that does not exist, or behind a filter for SYNs; a
//! Unix socket that is shut for reading, which refuses connects and still gives out its queue.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::bind::Open;
use super::socket::Socket;
use super::unix::UnixFile;
use crate::report::ListenerStop;
use crate::sys;

/// What a service accepts from.
pub(crate) enum Queue {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// What it has made, if that is ours.
        file: Option<UnixFile>,
    },
}

/// A connection, and who it comes from, where that has an address.
pub(super) type Taken = (Socket, Option<SocketAddr>);

impl Queue {
    pub(super) fn of(open: Open) -> io::Result<Self> {
        Ok(match open {
            Open::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            Open::Unix(listener, file) => Self::Unix {
                listener: UnixListener::from_std(listener)?,
                file,
            },
        })
    }

    /// Waits for a connection.
    ///
    /// # Cancel safety
    /// Safe: what was not taken stays in the queue.
    pub(super) async fn accept(&self) -> io::Result<Taken> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok(tcp(stream, Some(peer)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }

    /// Takes what is there. Not tokio's accept, whose idea of readiness may be older than the queue.
    pub(super) fn accept_now(&self) -> io::Result<Taken> {
        let (socket, peer) = SockRef::from(self).accept()?;
        socket.set_nonblocking(true)?;
        let socket = OwnedFd::from(socket);
        Ok(match self {
            Self::Tcp(_) => tcp(TcpStream::from_std(socket.into())?, peer.as_socket()),
            Self::Unix { .. } => (Socket::Unix(UnixStream::from_std(socket.into())?), None),
        })
    }

    /// Keeps new connections out while the queue lives on.
    pub(super) fn shut(&self) -> ListenerStop {
        let shut = match self {
            Self::Tcp(_) => sys::make_deaf(self.as_fd()),
            Self::Unix { .. } => SockRef::from(self).shutdown(Shutdown::Read),
        };
        if shut.is_ok() {
            ListenerStop::Deaf
        } else if matches!(self, Self::Tcp(_)) && sys::fence(self.as_fd()).is_ok() {
            ListenerStop::Fence
        } else {
            ListenerStop::Unguarded
        }
    }

    /// Whether the file of a Unix socket is ours.
    pub(crate) fn has_file(&self) -> bool {
        matches!(self, Self::Unix { file: Some(_), .. })
    }

    /// Leaves that file to a successor.
    pub(crate) fn leave_file(&self) {
        if let Self::Unix {
            file: Some(file), ..
        } = self
        {
            file.leave();
        }
    }

    /// Whether nobody is known to wait.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Tcp(_) => sys::accept_queue(self.as_fd()).is_ok_and(|queued| queued == 0),
            // Nothing comes once it is shut, and what was there is taken.
            Self::Unix { .. } => true,
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

fn tcp(stream: TcpStream, peer: Option<SocketAddr>) -> Taken {
    let _ = stream.set_nodelay(true);
    (Socket::Plain(stream), peer)
}
