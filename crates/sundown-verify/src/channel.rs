//! A connection to a service, in plain or under TLS: bytes in order, and whether their end was
//! announced.
//!
//! The promise: a handshake that was not finished, and an end that TLS did not announce, can be told
//! from others. Certificates are not verified: who a service is, is not the question here. Never
//! resumes a session and never connects.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::outcome::Protocol;

/// Where a service is reached, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Where.
    pub address: SocketAddr,
    /// Whether it speaks TLS there.
    pub tls: bool,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            tls: false,
        }
    }
}

/// Is a connection, whoever speaks over it.
#[derive(Debug)]
pub(crate) struct Channel {
    tcp: Arc<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    end: Option<Farewell>,
}

/// How the other side ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// With close_notify, so that nothing can have been cut off behind it (RFC 8446 §6.1).
    Announced,
    /// With a FIN alone, as it is usual without TLS.
    Fin,
}

impl Channel {
    /// Takes over a connection; under TLS the handshake begins with the first read or write.
    pub(crate) fn over(tcp: TcpStream, endpoint: Endpoint, protocol: Protocol) -> Self {
        Self {
            tcp: Arc::new(tcp),
            tls: endpoint.tls.then(|| Box::new(client(endpoint, protocol))),
            end: None,
        }
    }

    /// Shares the socket, to look at.
    pub(crate) fn socket(&self) -> Arc<TcpStream> {
        Arc::clone(&self.tcp)
    }

    /// Tells whether it is under TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Tells whether TLS is not agreed upon yet.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Tells how the other side has ended the connection, once that has been read.
    pub(crate) fn farewell(&self) -> Option<Farewell> {
        self.end
    }

    /// Sends the first flight of the handshake and waits for nothing.
    pub(crate) async fn greet(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Returns the first flight, for whoever sends it in pieces; nothing without TLS.
    pub(crate) fn take_greeting(&mut self) -> Vec<u8> {
        let mut flight = Vec::new();
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                let written = tls.write_tls(&mut flight);
                written.expect("memory takes all that is written");
            }
        }
        flight
    }

    /// Writes past TLS.
    pub(crate) async fn write_beneath(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.tcp.writable().await?;
            match self.tcp.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Brings the handshake to its end.
    ///
    /// # Errors
    /// `UnexpectedEof` and what the system says, where the other side ends it; `InvalidData` where it does
    /// not speak TLS; [`REFUSED`] where the two do not agree.
    pub(crate) async fn shake_hands(&mut self, protocol: Protocol) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_handshake(cx)).await?;
        let agreed = self.tls.as_ref().and_then(|tls| tls.alpn_protocol());
        match (&self.tls, protocol, agreed) {
            (Some(_), Protocol::Http2, agreed) if agreed != Some(H2) => {
                Err(io::Error::new(REFUSED, "it does not agree to h2 by ALPN"))
            }
            _ => Ok(()),
        }
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.is_handshaking() {
            // What cannot be sent now is sent when there is room; the socket wakes us.
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            if !self.is_handshaking() {
                break;
            }
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.poll_send(cx)
    }

    /// Sends what TLS has to send.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &mut self.tls else {
            return Poll::Ready(Ok(()));
        };
        while tls.wants_write() {
            ready!(self.tcp.poll_write_ready(cx))?;
            match tls.write_tls(&mut Socket(&self.tcp)) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                _ => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Receives some of what TLS has been sent; returns how many bytes.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(tls) = &mut self.tls else {
            return Poll::Ready(Ok(0));
        };
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match tls.read_tls(&mut Socket(&self.tcp)) {
                Ok(read) => {
                    tls.process_new_packets().map_err(in_words)?;
                    return Poll::Ready(Ok(read));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_read_tls(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            // What is still to be sent, such as the end of a handshake, may be what an answer waits for.
            let _ = self.poll_send(cx);
            let Some(tls) = &mut self.tls else {
                return Poll::Ready(Ok(()));
            };
            match tls.reader().read(buf.initialize_unfilled()) {
                Ok(read) => {
                    if read == 0 {
                        self.end = Some(Farewell::Announced);
                    }
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.end = Some(Farewell::Fin);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                Err(_) => {}
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    fn poll_read_tcp(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read(buf.initialize_unfilled()) {
                Ok(read) => {
                    if read == 0 {
                        self.end = Some(Farewell::Fin);
                    }
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.tls {
            Some(_) => this.poll_read_tls(cx, buf),
            None => this.poll_read_tcp(cx, buf),
        }
    }
}

impl AsyncWrite for Channel {
    /// Under TLS, while hands are shaken, any number of bytes is taken and kept.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.is_handshaking() {
            // What is left of the last write goes first, so that a slow reader holds us up.
            ready!(this.poll_send(cx))?;
        }
        if let Some(tls) = &mut this.tls {
            let written = tls.writer().write(bytes)?;
            return match this.poll_send(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(written)),
            };
        }
        loop {
            ready!(this.tcp.poll_write_ready(cx))?;
            match this.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(tls) = &mut this.tls {
            tls.send_close_notify();
            ready!(this.poll_send(cx))?;
        }
        Poll::Ready(socket2::SockRef::from(&*this.tcp).shutdown(Shutdown::Write))
    }
}

/// Means that TLS is spoken, and not agreed upon.
pub(crate) const REFUSED: io::ErrorKind = io::ErrorKind::ConnectionAborted;

fn in_words(error: rustls::Error) -> io::Error {
    let kind = match error {
        rustls::Error::InvalidMessage(_) => io::ErrorKind::InvalidData,
        _ => REFUSED,
    };
    io::Error::new(kind, error)
}

/// Lets TLS read and write a socket that does not block.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(into)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Begins a TLS client; a name is not sent, as an address has none.
fn client(endpoint: Endpoint, protocol: Protocol) -> ClientConnection {
    static CONFIGS: LazyLock<[Arc<ClientConfig>; 2]> =
        LazyLock::new(|| [HTTP1, H2].map(|protocol| Arc::new(config(protocol))));
    let config = match protocol {
        Protocol::Http1 => &CONFIGS[0],
        Protocol::Http2 => &CONFIGS[1],
    };
    let name = ServerName::from(endpoint.address.ip());
    let client = ClientConnection::new(Arc::clone(config), name);
    let mut client = client.expect("the provider has all that the configuration names");
    client.set_buffer_limit(None);
    client
}

fn config(protocol: &[u8]) -> ClientConfig {
    let provider = Arc::new(ring::default_provider());
    let verifier = Anybody(Arc::clone(&provider));
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.expect("the provider has the usual versions");
    let builder = builder.dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// Takes anybody for who they say they are.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
