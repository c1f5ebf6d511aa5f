//! Whole loads against servers that lose nothing, and against one that loses all it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sundown_testkit::Step::*;
use sundown_testkit::{Contract, Scripted, Unaccepted};
use sundown_verify::tally::Counts;
use sundown_verify::{Declined, Kind, Load, Loss, Plan, Requests, Tally};
use tokio::net::TcpListener;

const HTTP1: [Kind; 8] = [
    Kind::KeepAlive,
    Kind::NewConnection,
    Kind::Pipelined,
    Kind::Silent,
    Kind::HalfHead,
    Kind::SlowReader,
    Kind::SlowUpload,
    Kind::Slow,
];

/// Lets the clients go on: their counts can only be looked at.
async fn between_two_looks() {
    tokio::time::sleep(Duration::from_millis(5)).await; // tidy: every loop around it waits for an event that it looks for
}

/// Waits until every one of these kinds has had an answer.
async fn all_answered(load: &Load, kinds: &[Kind]) {
    while kinds
        .iter()
        .any(|kind| load.tally().of(*kind).answered == 0)
    {
        between_two_looks().await;
    }
}

#[track_caller]
fn assert_nothing_lost(tally: &Tally) {
    let Counts {
        sent,
        answered,
        lost,
        local_errors,
        ..
    } = tally.total;
    assert_eq!((lost, local_errors), (0, 0), "{:#?}", tally.examples);
    assert_eq!(sent, answered, "{:#?}", tally.total);
}

#[tokio::test]
async fn a_server_that_never_loses_is_never_blamed() {
    let server = Contract::start();
    let plan = HTTP1
        .into_iter()
        .fold(Plan::against(server.addr()), |plan, kind| {
            plan.with(kind, 2)
        });
    let load = Load::start(plan);
    all_answered(&load, &HTTP1).await;

    let tally = load.finish().await;
    assert_nothing_lost(&tally);
}

#[tokio::test]
async fn an_http2_server_that_never_loses_is_never_blamed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_http2(stream));
        }
    });
    let load = Load::start(Plan::against(target).with(Kind::Http2, 4));
    while load.tally().of(Kind::Http2).answered < 100 {
        between_two_looks().await;
    }

    assert_nothing_lost(&load.finish().await);
}

/// Answers five streams on each connection, then says goodbye as RFC 9113 §6.8 asks.
async fn serve_http2(stream: tokio::net::TcpStream) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut served = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let mut body = respond
            .send_response(http::Response::new(()), false)
            .unwrap();
        body.send_data(Bytes::from_static(b"ok"), true).unwrap();
        served += 1;
        if served == 5 {
            connection.graceful_shutdown();
        }
    }
}

#[tokio::test]
async fn every_answer_is_handed_over_with_its_request() {
    let server = Contract::start();
    let bytes = Arc::new(AtomicU64::new(0));
    let mut plan = Plan::against(server.addr()).with(Kind::KeepAlive, 4);
    plan.on_answer = Some(Arc::new({
        let bytes = Arc::clone(&bytes);
        move |request, status, body| {
            assert_eq!(
                (request.path.as_str(), status, body),
                ("/fast", 200, &b"ok"[..])
            );
            bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        }
    }));
    let load = Load::start(plan);
    all_answered(&load, &[Kind::KeepAlive]).await;

    let tally = load.finish().await;
    assert_eq!(bytes.load(Ordering::Relaxed), tally.total.answered * 2);
}

#[tokio::test]
async fn requests_in_flight_are_seen_and_are_lost_with_their_server() {
    let server = Contract::start();
    let mut plan = Plan::against(server.addr()).with(Kind::Slow, 8);
    plan.requests = Requests::every(|_| sundown_verify::Request::get("/slow?ms=600000"));
    let mut load = Load::start(plan);
    while load.in_flight() < 8 {
        between_two_looks().await;
    }

    // Joins threads, so it must not hold up the clients.
    let gone = tokio::task::spawn_blocking(move || drop(server));
    load.ended().await;
    gone.await.unwrap();

    let tally = load.finish().await;
    assert_eq!(tally.total.lost_as(Loss::Eof), 8, "{:#?}", tally.total);
    assert_eq!(tally.examples.len(), 8);
}

#[tokio::test]
async fn a_client_that_is_refused_counts_it_once_and_stops() {
    let listener = Unaccepted::listen();
    let target = listener.addr();
    drop(listener);
    let plan = Kind::ALL
        .into_iter()
        .fold(Plan::against(target), |plan, kind| plan.with(kind, 3));

    let mut load = Load::start(plan);
    load.ended().await;

    let tally = load.finish().await;
    assert_eq!(tally.total.sent, 27);
    assert_eq!(tally.total.declined_as(Declined::Refused), 27);
}

#[tokio::test]
async fn a_client_whose_connection_is_closed_after_each_answer_reconnects() {
    let server = Scripted::always([ReadHead, AnswerAndClose, Close]);
    let load = Load::start(Plan::against(server.addr()).with(Kind::KeepAlive, 2));
    while load.tally().total.answered < 10 {
        between_two_looks().await;
    }

    let tally = load.finish().await;
    assert_nothing_lost(&tally);
    assert_eq!(server.accepted() as u64, tally.total.sent);
}

#[tokio::test]
async fn a_load_that_is_finished_waits_for_the_answers_under_way() {
    let server = Contract::start();
    let load = Load::start(Plan::against(server.addr()).with(Kind::Slow, 4));
    while load.in_flight() < 4 {
        between_two_looks().await;
    }

    let tally = load.finish().await;
    assert_nothing_lost(&tally);
    assert!(tally.total.answered >= 4);
}

#[tokio::test]
async fn what_our_own_side_cannot_send_is_neither_sent_nor_lost() {
    // No TCP connection leads to the broadcast address: the kernel refuses before any packet.
    let target: std::net::SocketAddr = "255.255.255.255:1".parse().unwrap();
    let load = Load::start(
        Plan::against(target)
            .with(Kind::KeepAlive, 1)
            .with(Kind::Http2, 1),
    );
    while load.tally().total.local_errors < 5 {
        between_two_looks().await;
    }

    let tally = load.finish().await;
    assert_eq!(
        (tally.total.sent, tally.total.lost),
        (0, 0),
        "{:#?}",
        tally.total
    );
}
