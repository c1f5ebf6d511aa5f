//! The bytes of a connection: as the kernel has them, or under TLS.
//!
//! Under TLS a connection is quiet only when nothing of a record is anywhere: in the kernel's queue, in a
//! record that has arrived in part, or decrypted and unread.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpStream as StdTcpStream};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::{Domain, SockRef};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::sys;

/// A connection's socket, and what is spoken on it below HTTP.
pub(super) enum Socket {
    Plain(TcpStream),
    Unix(UnixStream),
    /// Boxed: a plain connection must not carry a session's state.
    #[cfg(feature = "tls")]
    Tls(Box<Tls>),
}

/// A socket that can be taken from whoever is dropped with it.
pub(super) struct Held(Option<Socket>);

const HELD: &str = "only the last to use it takes it";

impl Held {
    pub(super) fn new(socket: Socket) -> Self {
        Self(Some(socket))
    }

    pub(super) fn take(&mut self) -> Option<Socket> {
        self.0.take()
    }
}

impl Deref for Held {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.0.as_ref().expect(HELD)
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Socket {
        self.0.as_mut().expect(HELD)
    }
}

impl Socket {
    /// Makes the connection ready for its first byte of HTTP; false when the peer's FIN came before one of
    /// TLS.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables))]
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self {
            Self::Plain(_) | Self::Unix(_) => Poll::Ready(Ok(true)),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.poll_open(cx),
        }
    }

    /// Ends it in both directions, also for whoever waits for the other one.
    pub(super) fn abort(&self) {
        if let Some(socket) = self.fd() {
            let _ = SockRef::from(&socket).shutdown(Shutdown::Both);
        }
    }

    /// How many bytes were written that the peer has not taken.
    pub(super) fn unsent_bytes(&self) -> usize {
        let bytes = self.fd().map(sys::unsent_bytes);
        bytes.and_then(Result::ok).unwrap_or(0)
    }

    /// How many bytes have arrived that we have not taken from the kernel.
    fn unread_bytes(&self) -> usize {
        let bytes = self.fd().map(sys::unread_bytes);
        bytes.and_then(Result::ok).unwrap_or(0)
    }

    /// `None` once a handshake has failed.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Plain(stream) => Some(stream.as_fd()),
            Self::Unix(stream) => Some(stream.as_fd()),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.tcp().map(AsFd::as_fd),
        }
    }

    /// Reads without taking away what is spoken in plain, where that is spoken: `None` under TLS.
    pub(super) fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Option<Poll<io::Result<usize>>> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(_) => None,
            plain => Some(plain.poll_peek_raw(cx, buffer)),
        }
    }

    /// Reads without taking away what has arrived, whatever it is.
    pub(super) fn poll_peek_raw(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.poll_peek(cx, buffer),
            Self::Unix(stream) => poll_peek_unix(stream, cx, buffer),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => match tls.tcp() {
                Some(stream) => stream.poll_peek(cx, buffer),
                None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            },
        }
    }

    /// True when nothing has arrived that was not read.
    pub(super) fn is_quiet(&mut self) -> bool {
        let unread = self.unread_bytes();
        match self {
            Self::Plain(_) | Self::Unix(_) => unread == 0,
            #[cfg(feature = "tls")]
            Self::Tls(tls) => unread == 0 && tls.is_quiet(),
        }
    }

    /// The socket alone, out of the runtime's driver.
    ///
    /// # Errors
    /// What the system says; what cannot rest has no place elsewhere.
    pub(super) fn into_std(self) -> io::Result<StdTcpStream> {
        match self {
            Self::Plain(stream) => stream.into_std(),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The socket alone, as `into_std` gives it, also of Unix.
    ///
    /// # Errors
    /// What the system says; under TLS there is more to a connection.
    pub(super) fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Plain(stream) => stream.into_std().map(Into::into),
            Self::Unix(stream) => stream.into_std().map(Into::into),
            #[cfg(feature = "tls")]
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// A socket of TCP or Unix that another process, or nobody, had.
    pub(super) fn of(socket: OwnedFd) -> io::Result<Self> {
        let any = SockRef::from(&socket);
        any.set_nonblocking(true)?;
        Ok(match any.domain()? {
            Domain::UNIX => Self::Unix(UnixStream::from_std(socket.into())?),
            _ => Self::Plain(TcpStream::from_std(socket.into())?),
        })
    }

    /// The other end's address, where it has one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Plain(stream) => stream.peer_addr().ok(),
            _ => None,
        }
    }

    /// Whether nothing belongs to it but what the kernel has.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::Unix(_))
    }

    /// Whether it can wait out of the runtime: there is nothing to it but a socket of TCP.
    pub(super) fn can_rest(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Writes what fits into the kernel's buffer at once, and asks nobody to be woken.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        let _ = match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.say(bytes),
        };
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.poll_read(cx, buffer),
        }
    }

    /// Reads what nobody will understand any more.
    pub(super) fn poll_read_raw(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.poll_read_raw(cx, buffer),
            plain => plain.poll_read(cx, buffer),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.poll_write_vectored(cx, slices),
        }
    }

    /// Completes when the kernel has all that was written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.poll_flush(cx),
        }
    }

    /// Says that nothing follows: close_notify where there is one, and FIN.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.poll_shutdown(cx),
        }
    }
}

/// What tokio has for TCP only.
fn poll_peek_unix(
    stream: &UnixStream,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        // SAFETY: only bytes that `peek` has filled are declared as initialised.
        let space = unsafe { buffer.unfilled_mut() };
        match stream.try_io(Interest::READABLE, || SockRef::from(stream).peek(space)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
            Ok(count) => {
                // SAFETY: `count` bytes were filled just now.
                unsafe { buffer.assume_init(count) };
                buffer.advance(count);
                return Poll::Ready(Ok(count));
            }
        }
    }
}
