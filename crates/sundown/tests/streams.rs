//! Bodies that never end over a stop: those made of records end behind one, any other is seen to be cut.

mod trial;

use std::time::Duration;

use http::Request;
use trial::{Client, LIMIT, Trial, spawn};

const TERM: i32 = libc::SIGTERM;
const RETRY: &str = "retry: 1500\n\n";

/// What a chunked body was, and whether its last chunk came.
#[derive(Debug, PartialEq)]
struct Chunked {
    body: String,
    whole: bool,
}

fn dechunk(response: &str) -> Chunked {
    let (head, mut rest) = response.split_once("\r\n\r\n").expect("a head");
    assert!(head.to_lowercase().contains("transfer-encoding: chunked"));
    let mut body = String::new();
    while let Some((length, data)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        if length == 0 {
            assert_eq!(data, "\r\n", "nothing follows the last chunk");
            return Chunked { body, whole: true };
        }
        let Some(chunk) = data.get(..length) else {
            break;
        };
        body.push_str(chunk);
        rest = data.get(length + 2..).unwrap_or_default();
    }
    Chunked { body, whole: false }
}

/// Reads a stream for a while, stops the service, and reads to the end.
async fn over_a_stop(trial: &mut Trial, path: &str) -> Chunked {
    let mut client = trial.ask(path).await;
    let begun = read_some(&mut client, 200).await;
    trial.signal(TERM);
    dechunk(&(begun + &client.rest().await.unwrap()))
}

async fn read_some(client: &mut Client, least: usize) -> String {
    use tokio::io::AsyncReadExt as _;
    let mut seen = Vec::new();
    while seen.len() < least {
        let count = client.stream.read_buf(&mut seen).await.unwrap();
        assert!(count > 0, "ended before the stop");
    }
    String::from_utf8(seen).unwrap()
}

#[tokio::test]
async fn events_end_behind_an_event_and_say_when_to_come_back() {
    let mut trial = Trial::start().await;
    let seen = over_a_stop(&mut trial, "/events").await;
    assert!(seen.whole);
    let events = seen.body.strip_suffix(RETRY).expect("a hint at the end");
    assert!(events.ends_with("\n\n"), "{events:?}");
    let (status, said) = trial.exit().await;
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("streams ended in order: 1"), "{said}");
}

#[tokio::test]
async fn events_that_do_not_come_are_not_waited_for() {
    let mut trial = Trial::start().await;
    let mut client = trial.ask("/events/quiet").await;
    let mut begun = String::new();
    while !begun.contains("data: first\n\n") {
        begun += &read_some(&mut client, 1).await;
    }
    trial.signal(TERM);
    let seen = dechunk(&(begun + &client.rest().await.unwrap()));
    assert_eq!(seen.body, format!("data: first\n\n{RETRY}"));
    assert!(seen.whole);
    assert_eq!(trial.exit().await.0, 0);
}

#[tokio::test]
async fn lines_end_behind_a_line() {
    let mut trial = Trial::start().await;
    let seen = over_a_stop(&mut trial, "/lines").await;
    assert!(seen.whole);
    assert!(seen.body.ends_with("}\n"), "{:?}", seen.body);
    assert_eq!(trial.exit().await.0, 0);
}

#[tokio::test]
async fn a_body_without_records_stays_to_the_end_of_the_drain_and_is_seen_to_be_cut() {
    let mut trial = Trial::of(spawn("").env("SUNDOWN_GRACE", "1s")).await;
    let seen = over_a_stop(&mut trial, "/drip").await;
    assert!(!seen.whole);
    let (status, said) = trial.exit().await;
    assert_eq!(status, 4, "{said}");
    assert!(said.contains("cut off: request GET /drip"), "{said}");
}

#[tokio::test]
async fn a_body_whose_time_is_over_before_is_cut_on_its_own_by_name() {
    // Grace is longer than the test has.
    let mut trial = Trial::of(spawn("stays").env("SUNDOWN_GRACE", "1h")).await;
    let seen = over_a_stop(&mut trial, "/drip").await;
    assert!(!seen.whole);
    let (status, said) = trial.exit().await;
    assert_eq!(status, 4, "{said}");
    assert!(said.contains("cut off: request GET /drip"), "{said}");
}

#[tokio::test]
async fn events_that_may_stay_end_in_order_when_the_drain_does() {
    let mut trial = Trial::of(spawn("stays").env("SUNDOWN_GRACE", "1s")).await;
    let seen = over_a_stop(&mut trial, "/events").await;
    assert!(seen.whole);
    assert!(seen.body.ends_with(RETRY));
    assert_eq!(trial.exit().await.0, 0);
}

#[tokio::test]
async fn on_http2_events_end_behind_an_event_and_other_bodies_by_a_reset() {
    let mut trial = Trial::of(spawn("").env("SUNDOWN_GRACE", "1s")).await;
    let stream = trial.connect().await.stream;
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let mut ask = |path: &str| {
        let request = Request::get(format!("http://trial{path}"))
            .body(())
            .unwrap();
        send.send_request(request, true).unwrap().0
    };
    let (events, drip) = (ask("/events"), ask("/drip"));
    let (mut events, mut drip) = (
        events.await.unwrap().into_body(),
        drip.await.unwrap().into_body(),
    );
    for body in [&mut events, &mut drip] {
        body.data().await.unwrap().unwrap();
    }
    trial.signal(TERM);
    let read = async |body: &mut h2::RecvStream| {
        let mut seen = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len()).unwrap();
            seen.extend(data);
        }
        Ok::<_, h2::Error>(String::from_utf8(seen).unwrap())
    };
    let (events, drip) = tokio::time::timeout(LIMIT, async {
        tokio::join!(read(&mut events), read(&mut drip))
    })
    .await
    .unwrap();
    assert!(events.unwrap().ends_with(&format!("\n\n{RETRY}")));
    let cut = drip.unwrap_err();
    assert!(cut.is_reset(), "{cut:?}");
    let (status, said) = trial.exit().await;
    assert_eq!(status, 4, "{said}");
    let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
}
