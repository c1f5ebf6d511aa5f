//! Every way to lose or decline an HTTP/2 stream, produced on purpose by a scripted server.

use std::time::Duration;

use sundown_testkit::Step::*;
use sundown_testkit::{Scripted, Step, frames};
use sundown_verify::http2::{Session, Standing};
use sundown_verify::outcome::{Outcome, judge};
use sundown_verify::{Declined, Loss, Request};

const LIMIT: Duration = Duration::from_secs(10);
const OK: Outcome = Outcome::Answered { status: 200 };
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;

async fn ask(session: &Session) -> Outcome {
    judge(
        &session
            .exchange(&Request::get("/fast"), LIMIT)
            .await
            .evidence(),
    )
}

/// Opens two streams at once on a server that follows the script once it has read both.
async fn ask_twice(script: impl Into<Vec<Step>>) -> (Outcome, Outcome) {
    let mut steps = vec![ReadStreams(2)];
    steps.extend(script.into());
    let server = Scripted::always(steps);
    let session = Session::open(server.addr(), LIMIT).await.unwrap();
    tokio::join!(ask(&session), ask(&session))
}

#[tokio::test]
async fn answered_streams_are_answered() {
    let both = [Write(frames::ok(1)), Write(frames::ok(3)), Hold];
    assert_eq!(ask_twice(both).await, (OK, OK));
}

#[tokio::test]
async fn a_stream_above_goaway_is_declined_and_one_below_is_owed_an_answer() {
    let unprocessed = Outcome::Declined(Declined::Unprocessed);
    let both = [Write(frames::goaway(1)), Write(frames::ok(1)), Close];
    assert_eq!(ask_twice(both).await, (OK, unprocessed));
    let neither = [Write(frames::goaway(1)), Close];
    assert_eq!(
        ask_twice(neither).await,
        (Outcome::Lost(Loss::Eof), unprocessed)
    );
}

#[tokio::test]
async fn a_refused_stream_is_declined_and_a_cancelled_one_is_lost() {
    let script = [
        Write(frames::reset(1, REFUSED_STREAM)),
        Write(frames::reset(3, CANCEL)),
        Hold,
    ];
    let expected = (
        Outcome::Declined(Declined::Unprocessed),
        Outcome::Lost(Loss::Reset),
    );
    assert_eq!(ask_twice(script).await, expected);
}

#[tokio::test]
async fn a_connection_closed_without_goaway_loses_its_streams() {
    let lost = Outcome::Lost(Loss::Eof);
    assert_eq!(ask_twice([Close]).await, (lost, lost));
}

#[tokio::test]
async fn a_connection_reset_loses_its_streams() {
    let lost = Outcome::Lost(Loss::Reset);
    assert_eq!(ask_twice([Reset]).await, (lost, lost));
}

#[tokio::test]
async fn a_cut_body_is_a_loss() {
    let script = [Write(frames::ok(1)), Write(frames::ok_head(3)), Close];
    assert_eq!(
        ask_twice(script).await,
        (OK, Outcome::Lost(Loss::Truncated))
    );
}

#[tokio::test]
async fn a_reset_after_an_answer_is_a_loss_on_a_reused_connection() {
    let server = Scripted::always([ReadStreams(1), Write(frames::ok(1)), Peek, Reset]);
    let session = Session::open(server.addr(), LIMIT).await.unwrap();

    assert_eq!(ask(&session).await, OK);
    // The acknowledgement of SETTINGS, or the second request, is what the server peeks at.
    let second = ask(&session).await;
    assert!(
        matches!(
            second,
            Outcome::Lost(Loss::Reset) | Outcome::Declined(Declined::IdleClosed)
        ),
        "{second:?}"
    );
}

#[tokio::test]
async fn an_answer_in_http1_is_a_loss() {
    let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n".to_vec();
    for end in [Fin, Hold] {
        let server = Scripted::always([Peek, Write(answer.clone()), end, Hold]);
        let session = Session::open(server.addr(), LIMIT).await.unwrap();
        assert_eq!(ask(&session).await, Outcome::Lost(Loss::Garbled));
    }
}

#[tokio::test]
async fn silence_is_a_loss_after_the_limit() {
    let server = Scripted::always([ReadStreams(1), Hold]);
    let session = Session::open(server.addr(), LIMIT).await.unwrap();
    let limit = Duration::from_millis(50);
    let exchange = session.exchange(&Request::get("/fast"), limit).await;
    assert_eq!(judge(&exchange.evidence()), Outcome::Lost(Loss::Hung));
}

#[tokio::test]
async fn a_session_knows_that_it_was_told_to_go() {
    let script = [
        ReadStreams(1),
        Write(frames::goaway(1)),
        Write(frames::ok(1)),
        Hold,
    ];
    let server = Scripted::always(script);
    let session = Session::open(server.addr(), LIMIT).await.unwrap();
    assert_eq!(session.standing(), Standing::Open);

    assert_eq!(ask(&session).await, OK);
    assert_eq!(session.standing(), Standing::GoingAway);
    assert_eq!(
        ask(&session).await,
        Outcome::Declined(Declined::Unprocessed)
    );
}
