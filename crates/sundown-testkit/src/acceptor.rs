//! Accepts connections, a thread for each, and ends them all when dropped.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::gate::Gate;

/// Is a listener and its threads.
#[derive(Debug)]
pub(crate) struct Acceptor {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Asks the acceptor to close the listener.
    closing: Gate,
    /// Tells that it has.
    closed: Gate,
    /// Asks the connections to end.
    stopping: Gate,
    accepted: AtomicUsize,
}

impl Acceptor {
    /// Serves each connection until `serve` returns; its error means that the client left.
    pub(crate) fn start(
        serve: impl Fn(usize, Connection<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let addr = listener
            .local_addr()
            .expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(listener, &shared, &serve)
        });
        Self {
            addr,
            shared,
            thread: Some(thread),
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.shared.closing.open();
        // Wakes the acceptor; if it has gone already there is nobody to wake.
        let _ = TcpStream::connect(self.addr);
        // The listener goes first: a client that is cut off finds nobody to reconnect to.
        self.shared.closed.wait();
        self.shared.stopping.open();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(
    listener: TcpListener,
    shared: &Shared,
    serve: &(dyn Fn(usize, Connection<'_>) -> io::Result<()> + Sync),
) {
    thread::scope(|scope| {
        while let Ok((stream, _)) = listener.accept() {
            if shared.closing.is_open() {
                break;
            }
            let index = shared.accepted.fetch_add(1, Ordering::SeqCst);
            scope.spawn(move || {
                let connection = Connection::new(stream, &shared.stopping);
                let _ = connection.and_then(|connection| serve(index, connection));
            });
        }
        drop(listener);
        shared.closed.open();
    });
}

/// Is one accepted connection; every read ends with an error when the server is dropped.
pub(crate) struct Connection<'a> {
    stream: TcpStream,
    unread: Vec<u8>,
    stopping: &'a Gate,
}

impl<'a> Connection<'a> {
    fn new(stream: TcpStream, stopping: &'a Gate) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self {
            stream,
            unread: Vec::new(),
            stopping,
        })
    }

    pub(crate) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Tells whether the server is being dropped.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.is_open()
    }

    /// Reads one request head, up to and with its empty line.
    pub(crate) fn head(&mut self) -> io::Result<String> {
        const END: &[u8] = b"\r\n\r\n";
        loop {
            if let Some(at) = self
                .unread
                .windows(END.len())
                .position(|bytes| bytes == END)
            {
                let head = self.unread.drain(..at + END.len()).collect();
                return String::from_utf8(head).map_err(io::Error::other);
            }
            self.more()?;
        }
    }

    /// Reads exactly so many bytes.
    pub(crate) fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < length {
            self.more()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    /// Waits for bytes and leaves them in the kernel.
    pub(crate) fn peek(&mut self) -> io::Result<()> {
        self.patiently(|stream| stream.peek(&mut [0])).map(drop)
    }

    /// Stays idle for so long.
    pub(crate) fn pause(&self, pause: Duration) -> io::Result<()> {
        match self.stopping.wait_at_most(pause) {
            true => Err(io::ErrorKind::ConnectionAborted.into()),
            false => Ok(()),
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let read = self.patiently(|stream| stream.read(&mut buffer))?;
        self.unread.extend_from_slice(&buffer[..read]);
        Ok(())
    }

    fn patiently(
        &mut self,
        mut read: impl FnMut(&mut TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            match read(&mut self.stream) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.stopping() => {}
                other => return other,
            }
        }
    }
}
