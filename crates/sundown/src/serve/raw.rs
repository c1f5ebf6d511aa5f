//! Connections whose bytes are the application's own: tracked, told by their context, awaited, and cut off
//! by name.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::accept::Take;
use super::io::Io;
use super::registry::{Connection as Entry, Fate, Registered};
use crate::context::Context;
use crate::error::BoxError;

/// A connection of a [`Listener::tcp`](crate::Listener::tcp).
///
/// Shutting its writing side down waits, in order that nothing that was written is lost, until the peer has
/// closed as well, or has taken everything and been quiet for a while; 5 s at the longest for one that takes
/// nothing. To drop it closes at once.
pub struct Connection(TokioIo<Io>);

impl Connection {
    /// The client's address; none on a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.inner().connection().peer()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection(from {:?})", self.peer())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Gives each connection to a handler, in a task of its own.
pub(super) struct Raw<H> {
    /// The listener's, which the report calls them by.
    name: String,
    handler: Arc<H>,
}

impl<H> Raw<H> {
    pub(super) fn new(name: &str, handler: H) -> Self {
        Self {
            name: name.to_owned(),
            handler: Arc::new(handler),
        }
    }
}

impl<H, F> Take for Raw<H>
where
    H: Fn(Connection, Context) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    /// Its bytes mean something to its handler alone.
    const TRAVELS: bool = false;

    /// Nothing waits.
    type End = ();

    fn take(&self, mut io: Io) {
        let (name, handler) = (self.name.clone(), self.handler.clone());
        let entry = io.connection().clone();
        tokio::spawn(async move {
            if !open(&mut io, &entry).await {
                return;
            }
            entry.becomes_raw(name);
            let context = Context::of_service(entry.core.clone());
            let cut = entry.core.cut.clone();
            let handled = handler(Connection(TokioIo::new(io)), context);
            match cut.run_until_cancelled(handled).await {
                Some(Ok(())) => {}
                Some(Err(error)) => entry.fail(&*error),
                None => entry.set_fate(Fate::CutOff),
            }
        });
    }

    fn end(&self) {}
}

/// Shakes hands where that is due, unless the connection is told to end meanwhile.
async fn open(io: &mut Io, entry: &Arc<Registered>) -> bool {
    let entry: &Entry = entry;
    poll_fn(|cx| {
        if let Poll::Ready(opened) = io.poll_open(cx) {
            if opened.is_err() {
                entry.set_fate(Fate::Failed);
            }
            return Poll::Ready(opened.unwrap_or(false));
        }
        entry.wake_for_orders(cx.waker().clone());
        match entry.take_order() {
            Some(_) => Poll::Ready(false),
            None => Poll::Pending,
        }
    })
    .await
}
