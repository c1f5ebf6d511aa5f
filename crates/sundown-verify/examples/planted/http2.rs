//! HTTP/2 and gRPC, by `h2`.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{self, Runtime};
use tokio::time::{sleep, timeout};

use crate::fault::Fault;
use crate::{STEP, STOPPING, STREAMS, note_slow};

/// The method that a gRPC client may call.
const GRPC: &str = "/planted.Streams/Watch";

/// How long streams that are to be cut live after GOAWAY.
const CUT: Duration = Duration::from_millis(50);

/// Serves one connection to its end.
pub(crate) fn serve(stream: TcpStream, fault: Fault) -> io::Result<()> {
    runtime()?.block_on(async {
        stream.set_nonblocking(true)?;
        run(tokio::net::TcpStream::from_std(stream)?, fault).await;
        Ok(())
    })
}

/// Waits for the signal.
pub(crate) async fn stopping() {
    while !STOPPING.load(Ordering::Relaxed) {
        sleep(STEP).await;
    }
}

/// For one connection.
pub(crate) fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}

/// Serves one connection to its end. A client that is gone is no error of ours.
pub(crate) async fn run(stream: impl AsyncRead + AsyncWrite + Unpin, fault: Fault) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let open = Arc::new(());
    tokio::select! {
        () = accept_all(&mut connection, &open, fault) => return,
        () = stopping() => {}
    }
    if fault == Fault::OneStep {
        while Arc::strong_count(&open) > 1 {
            if timeout(STEP, accept_all(&mut connection, &open, fault))
                .await
                .is_ok()
            {
                return;
            }
        }
        connection.abrupt_shutdown(Reason::NO_ERROR);
    } else {
        connection.graceful_shutdown();
    }
    let rest = accept_all(&mut connection, &open, fault);
    match fault {
        Fault::CutsStreams => drop(timeout(CUT, rest).await),
        _ => rest.await,
    }
}

/// Answers streams until the connection ends; each holds `open` for as long as it is.
async fn accept_all<T>(connection: &mut Connection<T, Bytes>, open: &Arc<()>, fault: Fault)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok((request, respond))) = connection.accept().await {
        let open = open.clone();
        tokio::spawn(async move {
            let _ = answer(request, respond, fault).await;
            drop(open);
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    fault: Fault,
) -> Result<(), h2::Error> {
    let path = request.uri().path();
    if path == GRPC {
        return call(respond, fault).await;
    }
    let slow = path == "/slow";
    note_slow(slow);
    if slow {
        sleep(Duration::from_millis(300)).await;
    }
    let mut body = respond.send_response(Response::new(()), false)?;
    body.send_data(Bytes::from_static(b"ok"), true)
}

/// A gRPC call that streams nothing until a while after the signal, and then is unavailable.
async fn call(mut respond: SendResponse<Bytes>, fault: Fault) -> Result<(), h2::Error> {
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).expect("it is a header");
    let mut body = respond.send_response(head, false)?;
    stopping().await;
    sleep(STREAMS).await;
    if fault == Fault::Statusless {
        return body.send_data(Bytes::new(), true);
    }
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from_static("14"));
    body.send_trailers(status)
}
