//! A connection's TLS: its handshake, and what of a record is where.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::records::Messages;
use super::registry::Registered;
use crate::tls::ClientCertificates;

/// A connection on which TLS is spoken. Says close_notify when whoever had it lets go of it, unless it is
/// cut off, which must not look like an end.
pub(super) struct Tls {
    state: State,
    connection: Arc<Registered>,
}

enum State {
    /// Nothing of rustls exists before the first byte.
    Silent(Tapped, Arc<ServerConfig>),
    Handshake(Accept<Tapped>),
    Session(TlsStream<Tapped>),
    /// The handshake failed.
    Failed,
}

impl Tls {
    pub(super) fn new(
        stream: TcpStream,
        config: Arc<ServerConfig>,
        connection: Arc<Registered>,
    ) -> Self {
        let place = Messages::of_tls();
        Self {
            state: State::Silent(Tapped { stream, place }, config),
            connection,
        }
    }

    /// Shakes hands; false when the peer's FIN came instead of a first byte.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            match &mut self.state {
                State::Silent(tapped, _) => {
                    let mut first = [0; 1];
                    let mut first = ReadBuf::new(&mut first);
                    if ready!(tapped.stream.poll_peek(cx, &mut first))? == 0 {
                        return Poll::Ready(Ok(false));
                    }
                    self.connection.handshake_begins();
                    if let State::Silent(tapped, config) = self.take() {
                        let accept = TlsAcceptor::from(config).accept(tapped);
                        self.state = State::Handshake(accept);
                    }
                }
                State::Handshake(accept) => {
                    let shaken = ready!(Pin::new(accept).poll(cx));
                    self.take();
                    let stream = shaken?;
                    let certificates = stream.get_ref().1.peer_certificates();
                    let certificates = certificates.and_then(ClientCertificates::of);
                    if let Some(certificates) = certificates {
                        let _ = self.connection.certificates.set(certificates);
                    }
                    self.connection.handshake_ends();
                    self.state = State::Session(stream);
                }
                State::Session(_) => return Poll::Ready(Ok(true)),
                State::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
    }

    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Failed)
    }

    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        let tapped = match &self.state {
            State::Silent(tapped, _) => Some(tapped),
            State::Handshake(accept) => accept.get_ref(),
            State::Session(stream) => Some(stream.get_ref().0),
            State::Failed => None,
        };
        tapped.map(|tapped| &tapped.stream)
    }

    fn tcp_mut(&mut self) -> io::Result<&mut TcpStream> {
        let tapped = match &mut self.state {
            State::Silent(tapped, _) => Some(tapped),
            State::Handshake(accept) => accept.get_mut(),
            State::Session(stream) => Some(stream.get_mut().0),
            State::Failed => None,
        };
        let tapped = tapped.ok_or(io::ErrorKind::NotConnected)?;
        Ok(&mut tapped.stream)
    }

    fn session(&mut self) -> io::Result<Pin<&mut TlsStream<Tapped>>> {
        match &mut self.state {
            State::Session(stream) => Ok(Pin::new(stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// True when no record has arrived in part, and none was decrypted and not read.
    pub(super) fn is_quiet(&mut self) -> bool {
        match &mut self.state {
            State::Silent(..) => true,
            State::Handshake(_) => false,
            State::Session(stream) => {
                let (tapped, session) = stream.get_mut();
                let unread = session.process_new_packets();
                tapped.place.is_at_boundary()
                    && unread.is_ok_and(|state| state.plaintext_bytes_to_read() == 0)
            }
            State::Failed => true,
        }
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.session()?.poll_read(cx, buffer)
    }

    /// Reads what nobody will understand any more.
    pub(super) fn poll_read_raw(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(self.tcp_mut()?).poll_read(cx, buffer)
    }

    /// Writes what fits at once.
    pub(super) fn say(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut nobody = Context::from_waker(Waker::noop());
        match self.poll_write(&mut nobody, bytes) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.session()?.poll_write(cx, bytes)
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.session()?.poll_write_vectored(cx, slices)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session()?.poll_flush(cx)
    }

    /// Says close_notify, where hands were shaken, and FIN.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Session(stream) => Pin::new(stream).poll_shutdown(cx),
            _ => Pin::new(self.tcp_mut()?).poll_shutdown(cx),
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        if !self.connection.is_cut() {
            let mut nobody = Context::from_waker(Waker::noop());
            let _ = self.poll_shutdown(&mut nobody);
        }
    }
}

/// A socket that knows whether a whole number of records has been read from it: rustls keeps what has
/// arrived of a record to itself.
struct Tapped {
    stream: TcpStream,
    place: Messages,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.place.pass(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
