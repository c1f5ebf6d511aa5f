//! The accept-queue race made certain, against a child that dies and one that drains its queue.
//!
//! The child is this test binary again, told by its environment which part to play.

use std::time::Duration;

use bytes::Bytes;
use sundown_verify::process::{Ended, SignalTo, Spawn, free_port};
use sundown_verify::{Held, Kind, Loss, Plan, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

const LIMIT: Duration = Duration::from_secs(20);
const PART: &str = "SUNDOWN_TEST_PART";

/// Plays the part the environment asks for; as an ordinary test it does nothing.
#[test]
fn the_child_plays_its_part() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    match std::env::var(PART).as_deref() {
        Ok("drain") => runtime().block_on(serve(Stop::Drain)),
        Ok("die") => runtime().block_on(serve(Stop::Die)),
        _ => {}
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Die,
    Drain,
}

/// Serves until SIGTERM; then empties the queue and answers what is in it, or is killed by it.
async fn serve(stop: Stop) {
    let listener = TcpListener::bind(std::env::var("ADDR").unwrap())
        .await
        .unwrap();
    let mut connections = JoinSet::new();
    if stop == Stop::Die {
        std::future::pending::<()>().await;
    }
    signal(SignalKind::terminate()).unwrap().recv().await;
    while let Some(stream) = accept_now(&listener) {
        connections.spawn(answer_one(stream));
    }
    connections.join_all().await;
}

fn accept_now(listener: &TcpListener) -> Option<TcpStream> {
    let listener = socket2::SockRef::from(listener);
    let (stream, _) = listener.accept().ok()?;
    stream.set_nonblocking(true).unwrap();
    Some(TcpStream::from_std(stream.into()).unwrap())
}

async fn answer_one(mut stream: TcpStream) {
    let mut first = [0; 3];
    stream.peek(&mut first).await.unwrap();
    if &first == b"PRI" {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
        connection.graceful_shutdown();
        while let Some(Ok(_)) = connection.accept().await {}
    } else {
        let _ = stream.read(&mut [0; 1024]).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    }
}

async fn held(part: &str) -> (Held, Process) {
    let addr = free_port().unwrap();
    let mut process = Spawn::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_plays_its_part", "--nocapture"])
        .env(PART, part)
        .env("ADDR", addr.to_string())
        .start()
        .unwrap();
    process.wait_listening(addr, LIMIT).await.unwrap();
    let plan = Plan::against(addr);
    let held = Held {
        plan,
        pid: process.id(),
        reused: 0,
        http1: 20,
        http2: 5,
        stop: libc::SIGTERM,
        stop_to: SignalTo::default(),
    };
    (held, process)
}

#[tokio::test]
async fn a_server_that_dies_loses_its_whole_queue() {
    let (held, mut process) = held("die").await;
    let tally = held.run().await.unwrap();

    assert_eq!(tally.total.sent, 25, "{tally:#?}");
    assert_eq!(tally.total.lost_as(Loss::BacklogReset), 25, "{tally:#?}");
    let exit = process.wait_exit(LIMIT).await.unwrap();
    assert_eq!(exit.ended, Ended::Signal(libc::SIGTERM));
}

#[tokio::test]
async fn a_server_that_empties_its_queue_loses_nothing() {
    let (held, mut process) = held("drain").await;
    let tally = held.run().await.unwrap();

    assert_eq!(tally.of(Kind::NewConnection).answered, 20, "{tally:#?}");
    assert_eq!(tally.of(Kind::Http2).answered, 5, "{tally:#?}");
    assert_eq!(
        process.wait_exit(LIMIT).await.unwrap().ended,
        Ended::Code(0)
    );
}

#[tokio::test]
async fn a_process_that_does_not_exist_cannot_be_frozen() {
    let (mut held, process) = held("die").await;
    drop(process);
    held.http1 = 0;
    assert!(held.run().await.is_err());
}
