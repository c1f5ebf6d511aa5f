//! Every way to lose or decline an HTTP/1.1 request, produced on purpose by a scripted server.

use std::time::Duration;

use sundown_testkit::Step::*;
use sundown_testkit::{Gate, Scripted, Step, Unaccepted};
use sundown_verify::http1::{Connection, Exchange, Letter, Pace};
use sundown_verify::outcome::{Outcome, Sent, judge};
use sundown_verify::tcp::{TcpState, Window};
use sundown_verify::{Declined, Loss, Request};

const LIMIT: Duration = Duration::from_secs(10);
const OK: Outcome = Outcome::Answered { status: 200 };

async fn open(server: &Scripted) -> Connection {
    Connection::open(server.addr(), Window::Usual, LIMIT)
        .await
        .unwrap()
}

fn letter(server: &Scripted, requests: usize) -> Letter {
    Letter::new(&vec![Request::get("/fast"); requests], server.addr())
}

/// Judges every request of an exchange.
fn outcomes(exchange: &Exchange, requests: usize) -> Vec<Outcome> {
    (0..requests)
        .map(|index| judge(&exchange.evidence(index)))
        .collect()
}

/// Sends one request on a new connection and judges it.
async fn ask(script: impl Into<Vec<Step>>) -> Outcome {
    let server = Scripted::always(script);
    let exchange = open(&server)
        .await
        .exchange(&letter(&server, 1), LIMIT)
        .await;
    judge(&exchange.evidence(0))
}

/// Sends one request that is answered, then another, and judges the second.
async fn ask_again(script: impl Into<Vec<Step>>) -> Outcome {
    let server = Scripted::always(script);
    let mut connection = open(&server).await;
    let first = connection.exchange(&letter(&server, 1), LIMIT).await;
    assert_eq!(judge(&first.evidence(0)), OK);
    let second = connection.exchange(&letter(&server, 1), LIMIT).await;
    judge(&second.evidence(0))
}

fn raw(text: &str) -> Step {
    Write(text.as_bytes().to_vec())
}

#[tokio::test]
async fn an_answered_request_is_answered() {
    assert_eq!(ask([ReadHead, Answer, Hold]).await, OK);
    assert_eq!(ask([ReadHead, AnswerAndClose, Close]).await, OK);
    assert_eq!(ask_again([Serve]).await, OK);
}

#[tokio::test]
async fn an_answer_whose_end_is_the_connections_is_whole() {
    let response = raw("HTTP/1.1 200 OK\r\n\r\nto the end");
    assert_eq!(ask([ReadHead, response.clone(), Close]).await, OK);
    assert_eq!(
        ask([ReadHead, response, Reset]).await,
        Outcome::Lost(Loss::Truncated)
    );
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_loss() {
    assert_eq!(ask([ReadHead, Close]).await, Outcome::Lost(Loss::Eof));
    assert_eq!(ask([ReadHead, Fin, Hold]).await, Outcome::Lost(Loss::Eof));
    let again = ask_again([ReadHead, Answer, ReadHead, Close]).await;
    assert_eq!(again, Outcome::Lost(Loss::Eof));
}

#[tokio::test]
async fn a_connection_closed_with_the_request_unread_is_a_loss() {
    assert_eq!(ask([Peek, Close]).await, Outcome::Lost(Loss::BacklogReset));
    let again = ask_again([ReadHead, Answer, Peek, Close]).await;
    assert_eq!(again, Outcome::Lost(Loss::Reset));
    let again = ask_again([ReadHead, Answer, ReadHead, Reset]).await;
    assert_eq!(again, Outcome::Lost(Loss::Reset));
}

#[tokio::test]
async fn a_listener_closed_over_its_queue_loses_what_is_in_it() {
    let listener = Unaccepted::listen();
    let target = listener.addr();
    let mut connection = Connection::open(target, Window::Usual, LIMIT)
        .await
        .unwrap();
    let letter = Letter::new(&[Request::get("/fast")], target);

    let asking = tokio::spawn(async move { connection.exchange(&letter, LIMIT).await });
    tokio::task::yield_now().await;
    tokio::task::spawn_blocking(move || {
        listener.wait();
        drop(listener);
    })
    .await
    .unwrap();

    let exchange = asking.await.unwrap();
    assert_eq!(
        judge(&exchange.evidence(0)),
        Outcome::Lost(Loss::BacklogReset)
    );
}

#[tokio::test]
async fn a_connection_reset_before_it_spoke_is_a_loss_only_if_it_was_made_to_speak_at_once() {
    for (preconnected, expected) in [
        (false, Outcome::Lost(Loss::BacklogReset)),
        (true, Outcome::Declined(Declined::IdleClosed)),
    ] {
        let listener = Unaccepted::listen();
        let target = listener.addr();
        let mut connection = Connection::open(target, Window::Usual, LIMIT)
            .await
            .unwrap();
        drop(listener);
        if preconnected {
            connection = connection.preconnected();
        }

        let letter = Letter::new(&[Request::get("/fast")], target);
        let exchange = connection.exchange(&letter, LIMIT).await;
        assert_eq!(judge(&exchange.evidence(0)), expected);
    }
}

#[tokio::test]
async fn a_refused_connect_is_declined() {
    let listener = Unaccepted::listen();
    let target = listener.addr();
    drop(listener);

    let unmade = Connection::open(target, Window::Usual, LIMIT)
        .await
        .unwrap_err();
    assert_eq!(
        judge(&unmade.evidence),
        Outcome::Declined(Declined::Refused)
    );
}

#[tokio::test]
async fn a_request_on_a_connection_that_was_closed_while_idle_is_declined() {
    for end in [Close, Reset] {
        let idle = Gate::new();
        let server = Scripted::always([ReadHead, Answer, Wait(idle.clone()), end]);
        let mut connection = open(&server).await;
        let first = connection.exchange(&letter(&server, 1), LIMIT).await;
        assert_eq!(judge(&first.evidence(0)), OK);

        idle.open();
        connection.closed_by_peer().await;
        let second = connection.exchange(&letter(&server, 1), LIMIT).await;

        assert_eq!(
            judge(&second.evidence(0)),
            Outcome::Declined(Declined::IdleClosed)
        );
        assert!(
            second
                .evidence(0)
                .before
                .is_some_and(TcpState::peer_has_closed)
        );
    }
}

#[tokio::test]
async fn a_cut_answer_is_a_loss() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n";
    let body = Write(vec![b'x'; 8 << 20]);
    let lost = Outcome::Lost(Loss::Truncated);
    assert_eq!(ask([ReadHead, raw(head), body.clone(), Close]).await, lost);
    assert_eq!(ask([ReadHead, raw(head), body, Reset]).await, lost);
    assert_eq!(ask([ReadHead, raw("HTTP/1.1 200 O"), Close]).await, lost);
}

#[tokio::test]
async fn a_server_error_is_a_loss_unless_it_is_a_plain_refusal() {
    let error = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        ask([ReadHead, raw(error), Hold]).await,
        Outcome::Lost(Loss::ServerError)
    );
    let busy = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        ask([ReadHead, raw(busy), Hold]).await,
        Outcome::Lost(Loss::ServerError)
    );
    let refusal = "HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let declined = Outcome::Declined(Declined::Unavailable);
    assert_eq!(ask([ReadHead, raw(refusal), Close]).await, declined);
}

#[tokio::test]
async fn what_is_not_http_is_a_loss() {
    assert_eq!(
        ask([ReadHead, raw("220 mail\r\n"), Hold]).await,
        Outcome::Lost(Loss::Garbled)
    );
}

#[tokio::test]
async fn silence_is_a_loss_after_the_limit() {
    let server = Scripted::always([ReadHead, Hold]);
    let limit = Duration::from_millis(50);
    let exchange = open(&server)
        .await
        .exchange(&letter(&server, 1), limit)
        .await;
    assert_eq!(judge(&exchange.evidence(0)), Outcome::Lost(Loss::Hung));
}

#[tokio::test]
async fn pipelined_requests_behind_a_close_are_declined() {
    for end in [Close, Reset, Hold] {
        let server = Scripted::always([ReadHead, Answer, ReadHead, AnswerAndClose, end]);
        let exchange = open(&server)
            .await
            .exchange(&letter(&server, 4), LIMIT)
            .await;

        let unprocessed = Outcome::Declined(Declined::Unprocessed);
        assert_eq!(outcomes(&exchange, 4), [OK, OK, unprocessed, unprocessed]);
    }
}

#[tokio::test]
async fn pipelined_requests_behind_a_promise_to_go_on_are_lost() {
    let server = Scripted::always([ReadHead, Answer, ReadHead, ReadHead, Close]);
    let exchange = open(&server)
        .await
        .exchange(&letter(&server, 3), LIMIT)
        .await;

    let lost = Outcome::Lost(Loss::Eof);
    assert_eq!(outcomes(&exchange, 3), [OK, lost, lost]);
}

#[tokio::test]
async fn half_a_head_that_is_hung_up_on_is_a_loss() {
    let server = Scripted::always([Read(8), Fin, Hold]);
    let halves = letter(&server, 1).halved(LIMIT);
    let exchange = open(&server).await.exchange(&halves, LIMIT * 2).await;

    assert_eq!(exchange.evidence(0).sent, Sent::PartOfHead);
    assert_eq!(judge(&exchange.evidence(0)), Outcome::Lost(Loss::Eof));
}

#[tokio::test]
async fn half_a_head_that_is_waited_for_is_answered() {
    let server = Scripted::always([Serve]);
    let halves = letter(&server, 1).halved(Duration::from_millis(5));
    let exchange = open(&server).await.exchange(&halves, LIMIT).await;
    assert_eq!(judge(&exchange.evidence(0)), OK);
}

#[tokio::test]
async fn an_upload_that_is_cut_is_a_loss() {
    for end in [Close, Reset] {
        let server = Scripted::always([ReadHead, Read(10), end]);
        let request = Request::post("/upload", vec![b'u'; 1000]);
        let slowly = Letter::new(&[request], server.addr()).trickled(100, Duration::from_millis(5));
        let exchange = open(&server).await.exchange(&slowly, LIMIT).await;
        assert_eq!(judge(&exchange.evidence(0)), Outcome::Lost(Loss::UploadCut));
    }
}

#[tokio::test]
async fn an_upload_that_is_answered_early_is_answered() {
    let refusal = raw("HTTP/1.1 413 Big\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let server = Scripted::always([ReadHead, refusal, Hold]);
    let request = Request::post("/upload", vec![b'u'; 1000]);
    let slowly = Letter::new(&[request], server.addr()).trickled(3, LIMIT);
    let exchange = open(&server).await.exchange(&slowly, LIMIT * 3).await;
    assert_eq!(
        judge(&exchange.evidence(0)),
        Outcome::Answered { status: 413 }
    );
}

#[tokio::test]
async fn a_big_answer_is_read_slowly_and_to_its_end() {
    let head = raw("HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n");
    let server = Scripted::always([ReadHead, head, Write(vec![b'x'; 16 << 20]), Hold]);
    let mut connection = Connection::open(server.addr(), Window::Small, LIMIT)
        .await
        .unwrap();
    let slowly = letter(&server, 1).read_at(Pace::Slow);
    let start = tokio::time::Instant::now();
    let exchange = connection.exchange(&slowly, LIMIT).await;

    assert_eq!(judge(&exchange.evidence(0)), OK);
    assert!(
        start.elapsed() > Duration::from_secs(1),
        "it was read in {:?}",
        start.elapsed()
    );
}
