//! A connection, in plain or over TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio_rustls::TlsAcceptor;

use crate::fault::Fault;
use crate::sys::wait_readable;
use crate::{STOPPING, http1, http2};

static TLS: OnceLock<Arc<ServerConfig>> = OnceLock::new();

/// Makes every connection speak TLS, with a certificate that nobody knows.
pub(crate) fn offer_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
    let made = made.expect("a certificate can be made");
    let key = made.signing_key.serialize_der().try_into();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.into()], key.expect("it is a key"));
    let mut config = config.expect("the key is the certificate's");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TLS.set(Arc::new(config)).expect("it is set once");
}

/// Serves one connection to its end.
pub(crate) fn serve(stream: TcpStream, fault: Fault) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(config) = TLS.get() else {
        stream.set_nonblocking(false)?;
        return http1::serve(Io::Plain(stream), fault);
    };
    let cuts = fault == Fault::HalfHello && !STOPPING.load(Ordering::Relaxed);
    let secured = http2::runtime()?.block_on(async {
        stream.set_nonblocking(true)?;
        let stream = tokio::net::TcpStream::from_std(stream)?;
        let acceptor = TlsAcceptor::from(config.clone());
        let stream = tokio::select! {
            accepted = acceptor.accept(stream) => accepted?,
            () = http2::stopping(), if cuts => return Ok(None),
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            http2::run(stream, fault).await;
            return Ok(None);
        }
        let (stream, connection) = stream.into_inner();
        io::Result::Ok(Some((stream.into_std()?, connection)))
    })?;
    let Some((stream, connection)) = secured else {
        return Ok(());
    };
    stream.set_nonblocking(false)?;
    let stream = StreamOwned::new(connection, stream);
    http1::serve(Io::Tls(Box::new(stream)), fault)
}

pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Io {
    /// Tells whether there is something to read within some time.
    pub(crate) fn has_bytes(&mut self, limit: Duration) -> bool {
        if let Self::Tls(stream) = self {
            let state = stream.conn.process_new_packets();
            if state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0) {
                return true;
            }
        }
        wait_readable(self.socket().as_raw_fd(), limit)
    }

    /// Tells whether what came first is the preface of HTTP/2.
    pub(crate) fn speaks_http2(&self) -> io::Result<bool> {
        let mut first = [0; 3];
        Ok(match self {
            Self::Plain(stream) => stream.peek(&mut first)? == 3 && &first == b"PRI",
            Self::Tls(_) => false,
        })
    }

    pub(crate) fn into_plain(self) -> TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(_) => unreachable!("only what is plain has its preface looked at"),
        }
    }

    /// Sends FIN, and reads until the client's.
    pub(crate) fn end(mut self, fault: Fault) -> io::Result<()> {
        if let Self::Tls(stream) = &mut self
            && fault != Fault::Unnotified
        {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        let mut socket = self.socket();
        socket.shutdown(Shutdown::Write)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        while socket.read(&mut [0; 4096])? > 0 {}
        Ok(())
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }
}

impl Read for Io {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Io {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
