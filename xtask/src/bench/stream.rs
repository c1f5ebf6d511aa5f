//! A client's connection, in plain or under TLS: bytes in, bytes out.
//!
//! Reads as much as there is room for: nothing of an answer stays behind in TLS, where epoll would not see it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::Connection;

use crate::certificate::Trust;

/// A connection of either kind.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Tls),
}

/// What is spoken over a socket. Not a `rustls::StreamOwned`, whose generic code would be built with this
/// crate, which is not built for speed.
pub(super) struct Tls {
    socket: TcpStream,
    session: Box<Connection>,
}

impl Stream {
    /// Connects, and shakes hands with whom it trusts; blocks for so long at a time.
    pub(super) fn connect(
        target: SocketAddr,
        tls: Option<&Trust>,
        limit: Duration,
    ) -> anyhow::Result<Self> {
        let mut socket = TcpStream::connect(target)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(limit))?;
        let Some(trust) = tls else {
            return Ok(Self::Plain(socket));
        };
        let mut session: Box<Connection> = Box::new(trust.client()?.into());
        session.complete_io(&mut socket)?;
        Ok(Self::Tls(Tls { socket, session }))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) | Self::Tls(Tls { socket, .. }) => socket,
        }
    }
}

impl Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            self.session.read_tls(&mut self.socket)?;
            let received = self.session.process_new_packets();
            received.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.session.writer().write(bytes)?;
        self.flush()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
