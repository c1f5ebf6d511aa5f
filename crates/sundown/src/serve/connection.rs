//! Drives one connection: finds its protocol, lets hyper speak it, and carries out orders.
//!
//! hyper's own graceful shutdown of HTTP/1 is never used: it closes an idle connection without
//! looking at the socket. Here hyper is taken apart instead, and a connection in which anything
//! was found is put together again.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::exchange::{Exchanges, HttpService};
use super::io::Io;
use super::judge::{Order, Protocol};
use super::registry::{Connection, Fate, Registered};
use super::rest::Door;
use super::travel;

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves a connection to its end. A task of its own polls it, and no other.
///
/// Not an `async fn`: ten thousand idle connections would each carry the places of all that was
/// ever moved from one stage to the next.
pub(super) struct Serving<S: HttpService> {
    connection: Arc<Registered>,
    /// Where it may rest.
    door: Door<S>,
    /// Whether orders wake the task already.
    hears: bool,
    stage: Stage<S>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all connections spend nearly all their time in the large one"
)]
enum Stage<S: HttpService> {
    /// Nothing of hyper exists before the first byte.
    Opening(Io, Exchanges<S>),
    Http1(http1::UpgradeableConnection<Io, Exchanges<S>>),
    /// Boxed: a connection that speaks HTTP/1 must not carry HTTP/2's state.
    Http2(Pin<Box<dyn Future<Output = ()> + Send>>),
    Closing(Io),
    Over,
}

impl<S: HttpService> Serving<S> {
    pub(super) fn new(io: Io, exchanges: Exchanges<S>, door: Door<S>) -> Self {
        Self {
            connection: io.connection().clone(),
            door,
            hears: false,
            stage: Stage::Opening(io, exchanges),
        }
    }

    /// Only ends it.
    pub(super) fn closing(io: Io, door: Door<S>) -> Self {
        Self {
            connection: io.connection().clone(),
            door,
            hears: false,
            stage: Stage::Closing(io),
        }
    }
}

// Nothing in it is pinned in place: HTTP/2's future has a box of its own.
impl<S: HttpService> Unpin for Serving<S> {}

impl<S: HttpService> Future for Serving<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            connection,
            door,
            hears,
            stage,
        } = &mut *self;
        if !*hears {
            connection.wake_for_orders(cx.waker().clone());
            *hears = true;
        }
        loop {
            // First of all: a conversation that is always ready must not outlive the cut.
            if connection.is_cut() {
                connection.set_fate(Fate::CutOff);
                *stage = Stage::Over;
                return Poll::Ready(());
            }
            // What has arrived goes before an order.
            *stage = match stage.poll(cx, connection) {
                Poll::Ready(next) => next,
                // It takes its orders itself.
                Poll::Pending if matches!(stage, Stage::Http2(_)) => return Poll::Pending,
                Poll::Pending => match connection.take_order() {
                    Some(order) => stage.take().interrupted(order, connection, door),
                    None => return Poll::Pending,
                },
            };
            if matches!(stage, Stage::Over) {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: HttpService> Stage<S> {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Over)
    }

    /// Goes on until the next stage.
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Arc<Registered>) -> Poll<Self> {
        match self {
            Self::Opening(io, _) => {
                let heard = ready!(io.poll_begins_with(cx, PREFACE));
                Poll::Ready(self.take().opened(heard, connection))
            }
            Self::Http1(hyper) => {
                let result = ready!(Pin::new(hyper).poll(cx));
                Poll::Ready(self.take().spoken(result, connection))
            }
            Self::Http2(conversation) => conversation.as_mut().poll(cx).map(|()| Self::Over),
            Self::Closing(io) => io.poll_close(cx).map(|_| Self::Over),
            Self::Over => Poll::Ready(Self::Over),
        }
    }

    /// Chooses the protocol by how the connection begins; `None` is the peer's FIN.
    fn opened(self, heard: io::Result<Option<bool>>, connection: &Arc<Registered>) -> Self {
        let Self::Opening(io, exchanges) = self else {
            return self;
        };
        match heard {
            Ok(Some(true)) => {
                connection.set_protocol(Protocol::Http2);
                Self::Http2(Box::pin(http2(io, exchanges, connection.clone())))
            }
            Ok(Some(false)) => {
                connection.set_protocol(Protocol::Http1);
                Self::http1(io, exchanges)
            }
            Ok(None) => Self::Closing(io),
            Err(_) => {
                connection.set_fate(Fate::Failed);
                Self::Over
            }
        }
    }

    fn http1(io: Io, exchanges: Exchanges<S>) -> Self {
        let hyper = http1::Builder::new()
            .header_read_timeout(None)
            .serve_connection(io, exchanges)
            .with_upgrades();
        Self::Http1(hyper)
    }

    /// HTTP/1 has come to its end; only after an upgrade is there nothing to take apart.
    fn spoken(self, result: hyper::Result<()>, connection: &Connection) -> Self {
        if let Self::Http1(hyper) = self {
            if result.is_ok() && hyper.into_parts().is_none() {
                connection.upgrades();
            } else {
                note(connection, result);
            }
        }
        Self::Over
    }

    /// Carries out an order.
    fn interrupted(self, order: Order, connection: &Connection, door: &Door<S>) -> Self {
        match (self, order) {
            (Self::Opening(mut io, exchanges), Order::Close) => {
                if !io.is_quiet() {
                    return Self::Opening(io, exchanges);
                }
                connection.set_fate(Fate::ClosedIdle);
                Self::Closing(io)
            }
            (Self::Opening(io, exchanges), Order::Travel) => {
                Self::travel(io, Bytes::new(), exchanges, connection, door)
            }
            (Self::Opening(io, _), Order::HeadTimeout) => {
                connection.set_fate(Fate::HeadTimeout);
                Self::Closing(io)
            }
            // hyper has yet to read to the end of a body, or to find that it need not.
            (hyper @ Self::Http1(_), Order::Rest | Order::Travel)
                if connection.has_unread_body() =>
            {
                hyper
            }
            (
                Self::Http1(hyper),
                Order::Rest | Order::Travel | Order::Close | Order::HeadTimeout,
            ) => match hyper.into_parts() {
                Some(parts) => Self::end_http1(parts, order, connection, door),
                None => Self::Over,
            },
            (other, _) => other,
        }
    }

    /// Goes on with what hyper had read.
    fn stays(mut io: Io, unparsed: Bytes, exchanges: Exchanges<S>) -> Self {
        if unparsed.is_empty() {
            return Self::Opening(io, exchanges);
        }
        io.rewind(unparsed);
        Self::http1(io, exchanges)
    }

    /// Lets a connection go to the successor, if the way is still open.
    fn travel(
        io: Io,
        unparsed: Bytes,
        exchanges: Exchanges<S>,
        connection: &Connection,
        door: &Door<S>,
    ) -> Self {
        let Some(passage) = connection.passage() else {
            return Self::stays(io, unparsed, exchanges);
        };
        connection.set_protocol(Protocol::Unknown);
        travel::send(passage, io, unparsed, exchanges, door);
        Self::Over
    }

    /// Ends an HTTP/1 connection or lets it rest or travel, or puts it together again because something of a
    /// request is there.
    fn end_http1(
        parts: http1::Parts<Io, Exchanges<S>>,
        order: Order,
        connection: &Connection,
        door: &Door<S>,
    ) -> Self {
        let (mut io, unparsed) = (parts.io, parts.read_buf);
        match order {
            Order::Travel => {
                return Self::travel(io, unparsed, parts.service, connection, door);
            }
            Order::HeadTimeout => {
                connection.set_fate(Fate::HeadTimeout);
                io.say(HEAD_TIMEOUT);
                return Self::Closing(io);
            }
            // What the kernel's queue holds wakes it at once.
            Order::Rest if unparsed.is_empty() && io.can_rest() => {
                connection.set_protocol(Protocol::Unknown);
                return match door.enter(io, parts.service) {
                    Ok(()) => Self::Over,
                    Err(refused) => {
                        let (io, exchanges) = *refused;
                        Self::Opening(io, exchanges)
                    }
                };
            }
            // The rest of a body that nobody reads is no request.
            _ if connection.has_unread_body() || (unparsed.is_empty() && io.is_quiet()) => {
                connection.set_fate(Fate::ClosedIdle);
                return Self::Closing(io);
            }
            _ => {}
        }
        if !unparsed.is_empty() {
            connection.head_begins();
        }
        io.rewind(unparsed);
        Self::http1(io, parts.service)
    }
}

async fn http2<S: HttpService>(io: Io, exchanges: Exchanges<S>, connection: Arc<Registered>) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new());
    if connection.limits.http2_websockets {
        builder.enable_connect_protocol();
    }
    let mut hyper = pin!(builder.serve_connection(io, exchanges));
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = hyper.as_mut().poll(cx) {
                note(&connection, result);
                return Poll::Ready(());
            }
            match connection.take_order() {
                Some(Order::GoAway) => hyper.as_mut().graceful_shutdown(),
                // It was told to go away, has no stream, and did not answer.
                Some(Order::Close | Order::HeadTimeout) if connection.has_no_request() => {
                    connection.set_fate(Fate::ClosedIdle);
                    return Poll::Ready(());
                }
                // `Serving` sees the cut.
                None | Some(Order::Cut) => return Poll::Pending,
                Some(_) => {}
            }
        }
    })
    .await;
}

fn note(connection: &Connection, result: hyper::Result<()>) {
    if let Err(error) = result {
        connection.fail(&error);
    }
}
