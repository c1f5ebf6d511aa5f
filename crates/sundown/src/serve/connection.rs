//! Drives one connection: finds its protocol, lets hyper speak it, and carries out orders.
//!
//! hyper's own graceful shutdown of HTTP/1 is never used: it closes an idle connection without
//! looking at the socket. Here hyper is taken apart instead, and a connection in which anything
//! was found is put together again.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::exchange::{Exchanges, HttpService};
use super::io::Io;
use super::judge::{Order, Protocol};
use super::registry::{Connection, Fate};

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEAD_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves a connection to its end.
pub(super) async fn serve<S: HttpService>(io: Io, exchanges: Exchanges<S>) {
    let connection = io.connection().clone();
    let mut conversation = pin!(converse(io, exchanges));
    poll_fn(|cx| {
        // First of all: a conversation that is always ready must not outlive the cut.
        if connection.is_cut() {
            connection.set_fate(Fate::CutOff);
            return Poll::Ready(());
        }
        conversation.as_mut().poll(cx)
    })
    .await;
}

async fn converse<S: HttpService>(mut io: Io, exchanges: Exchanges<S>) {
    let connection = io.connection().clone();
    loop {
        let heard = {
            let mut first = pin!(io.begins_with(PREFACE));
            until_ordered(first.as_mut(), &connection).await
        };
        match heard {
            Heard::Done(Ok(Some(true))) => {
                connection.set_protocol(Protocol::Http2);
                // Boxed: a connection that speaks HTTP/1 must not carry HTTP/2's state.
                return Box::pin(http2(io, exchanges, &connection)).await;
            }
            Heard::Done(Ok(Some(false))) => {
                connection.set_protocol(Protocol::Http1);
                return http1(io, exchanges, &connection).await;
            }
            Heard::Done(Ok(None)) => return io.close().await,
            Heard::Done(Err(_)) => return connection.set_fate(Fate::Failed),
            Heard::Order(Order::Close) if io.is_quiet() => {
                connection.set_fate(Fate::ClosedIdle);
                return io.close().await;
            }
            Heard::Order(Order::HeadTimeout) if connection.is_in_head() => {
                connection.set_fate(Fate::HeadTimeout);
                return io.close().await;
            }
            Heard::Order(_) => {}
        }
    }
}

async fn http1<S: HttpService>(mut io: Io, exchanges: Exchanges<S>, connection: &Arc<Connection>) {
    loop {
        let mut hyper = http1::Builder::new()
            .header_read_timeout(None)
            .serve_connection(io, exchanges.clone())
            .with_upgrades();
        let order = loop {
            match until_ordered(Pin::new(&mut hyper), connection).await {
                Heard::Done(result) => {
                    let upgraded = result.is_ok() && hyper.into_parts().is_none();
                    return if upgraded {
                        connection.upgrades()
                    } else {
                        note(connection, result)
                    };
                }
                Heard::Order(order) if applies(order, connection) => break order,
                Heard::Order(_) => {}
            }
        };
        let Some(parts) = hyper.into_parts() else {
            return;
        };
        match end(parts.io, parts.read_buf, order, connection).await {
            Some(again) => io = again,
            None => return,
        }
    }
}

/// An order that was overtaken by a request is void.
fn applies(order: Order, connection: &Connection) -> bool {
    match order {
        Order::Close => connection.is_idle(),
        Order::HeadTimeout => connection.is_in_head(),
        Order::GoAway | Order::Cut => false,
    }
}

/// Ends an HTTP/1 connection, or gives it back because something of a request is there.
async fn end(mut io: Io, unparsed: Bytes, order: Order, connection: &Connection) -> Option<Io> {
    match order {
        Order::HeadTimeout => {
            connection.set_fate(Fate::HeadTimeout);
            io.say(HEAD_TIMEOUT);
        }
        _ if unparsed.is_empty() && io.is_quiet() => connection.set_fate(Fate::ClosedIdle),
        _ => {
            if !unparsed.is_empty() {
                connection.head_begins();
            }
            io.rewind(unparsed);
            return Some(io);
        }
    }
    io.close().await;
    None
}

async fn http2<S: HttpService>(io: Io, exchanges: Exchanges<S>, connection: &Arc<Connection>) {
    let mut hyper = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .serve_connection(io, exchanges)
    );
    loop {
        match until_ordered(hyper.as_mut(), connection).await {
            Heard::Done(result) => return note(connection, result),
            Heard::Order(Order::GoAway) => hyper.as_mut().graceful_shutdown(),
            // It was told to go away, has no stream, and did not answer.
            Heard::Order(Order::Close | Order::HeadTimeout) if connection.has_no_request() => {
                return connection.set_fate(Fate::ClosedIdle);
            }
            Heard::Order(_) => {}
        }
    }
}

fn note(connection: &Connection, result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(target: "sundown", peer = %connection.peer, %error, "connection failed");
        connection.set_fate(Fate::Failed);
    }
}

enum Heard<T> {
    Done(T),
    Order(Order),
}

/// Polls until the future is done or an order has come; what has arrived goes before the order.
async fn until_ordered<F: Future>(
    mut future: Pin<&mut F>,
    connection: &Connection,
) -> Heard<F::Output> {
    poll_fn(|cx| {
        connection.register(cx.waker());
        if let Poll::Ready(done) = future.as_mut().poll(cx) {
            return Poll::Ready(Heard::Done(done));
        }
        match connection.take_order() {
            // `serve` sees this one.
            Some(Order::Cut) | None => Poll::Pending,
            Some(order) => Poll::Ready(Heard::Order(order)),
        }
    })
    .await
}
