//! What a stop promises, each against a real process.

mod trial;

use std::time::Duration;

use serde_json::Value;
use sundown_verify::process::{Refuse, SignalTo};
use sundown_verify::{Held, Plan};
use tokio::io::AsyncWriteExt as _;
use trial::{Trial, get, refusing, run, spawn};

const TERM: i32 = libc::SIGTERM;

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_process_exits() {
    let mut trial = Trial::start().await;
    let mut client = trial.ask("/slow?ms=300").await;
    trial.says("slow began").await;
    trial.signal(TERM);
    let (head, body) = client.answer().await;
    assert!(
        head.starts_with("http/1.1 200") && head.contains("connection: close"),
        "{head}"
    );
    assert_eq!(body, "ok");
    let (code, said) = trial.exit().await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("1 finished, 1 of them during the stop"),
        "{said}"
    );
}

#[tokio::test]
async fn an_idle_connection_is_answered_once_more_during_the_linger() {
    let mut trial = Trial::of(spawn("").env("SUNDOWN_LINGER", "5s")).await;
    let mut client = trial.ask("/").await;
    client.answer().await;
    trial.signal(TERM);
    trial.says("SIGTERM").await;
    client.send(&get("/")).await;
    let (head, _) = client.answer().await;
    assert!(head.contains("connection: close"), "{head}");
    assert_eq!(client.rest().await, Ok(String::new()));
    assert_eq!(trial.exit().await.0, 0);
}

#[tokio::test]
async fn an_idle_connection_ends_with_fin_after_the_linger() {
    let trial = Trial::of(spawn("").env("SUNDOWN_LINGER", "50ms")).await;
    let mut silent = trial.connect().await;
    let mut idle = trial.ask("/").await;
    idle.answer().await;
    let (stopped, silent, idle) = tokio::join!(trial.stop(), silent.rest(), idle.rest());
    assert_eq!((silent, idle), (Ok(String::new()), Ok(String::new())));
    assert_eq!(stopped.0, 0, "{}", stopped.1);
}

#[tokio::test]
async fn half_a_head_is_waited_for_also_behind_a_request_that_was_answered() {
    let mut trial = Trial::of(spawn("").env("SUNDOWN_LINGER", "10ms")).await;
    let mut first = trial.connect().await;
    first.send("GET / HTTP/1.1\r\nhost:").await;
    // In one segment: its half lies in the parser's buffer and not in the kernel's.
    let mut behind = trial.connect().await;
    behind.send(&(get("/") + "GET / HTTP/1.1\r\nhost:")).await;
    behind.answer().await;
    let mut mark = trial.ask("/slow?ms=150").await;
    trial.says("slow began").await;
    trial.signal(TERM);
    mark.answer().await;
    for mut client in [first, behind] {
        client.send(" trial\r\n\r\n").await;
        assert_eq!(client.answer().await.1, "ok");
    }
    assert_eq!(trial.exit().await.0, 0);
}

#[tokio::test]
async fn half_a_head_that_never_ends_gets_408_and_holds_nothing_up() {
    let trial = Trial::start().await;
    let mut client = trial.connect().await;
    client.send("GET / HTTP/1.1\r\nhost:").await;
    let (stopped, answer) = tokio::join!(trial.stop(), client.answer());
    assert!(answer.0.starts_with("http/1.1 408"), "{}", answer.0);
    assert_eq!(stopped.0, 0, "{}", stopped.1);
}

async fn everyone_in_the_queue_is_answered(refuse: Refuse, closed_by: &str) {
    let mut trial = Trial::of(refusing(refuse).env("SUNDOWN_REPORT", "-")).await;
    let requests = sundown_verify::Requests::every(|_| sundown_verify::Request::get("/"));
    let held = Held {
        plan: Plan {
            requests,
            ..Plan::against(trial.address)
        },
        pid: trial.process.id(),
        reused: 0,
        http1: 48,
        http2: 16,
        stop: TERM,
        stop_to: SignalTo::default(),
    };
    let tally = held.run().await.unwrap();
    let (code, said) = trial.exit().await;
    assert_eq!(
        (tally.total.answered, tally.total.lost),
        (64, 0),
        "{tally:?}\n{said}"
    );
    assert_eq!(code, 0);
    let report: Value = serde_json::from_str(&trial.process.stdout()).unwrap();
    assert_eq!(report["listeners"][0]["closed_by"], closed_by);
}

#[tokio::test]
async fn everyone_in_the_queue_is_answered_by_a_deaf_listener() {
    everyone_in_the_queue_is_answered(Refuse::Nothing, "deaf").await;
}

#[tokio::test]
async fn everyone_in_the_queue_is_answered_behind_a_fence() {
    let closed_by = match sundown_testkit::may_attach_filters() {
        true => "fence",
        false => "unguarded",
    };
    everyone_in_the_queue_is_answered(Refuse::Deaf, closed_by).await;
}

#[tokio::test]
async fn everyone_in_the_queue_is_answered_where_nothing_is_allowed() {
    everyone_in_the_queue_is_answered(Refuse::DeafAndFence, "unguarded").await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_within_grace_and_named() {
    let mut trial = Trial::of(
        spawn("")
            .env("SUNDOWN_GRACE", "1s")
            .env("SUNDOWN_REPORT", "-"),
    )
    .await;
    let mut client = trial.ask("/never?secret=1").await;
    let mut patient = trial.ask("/patient").await;
    trial.says("patient began").await;
    trial.signal(TERM);
    let (head, body) = patient.answer().await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert!(body.contains("stopping"), "{body}");
    let (code, said) = trial.exit().await;
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("cut off: request GET /never from 127.0.0.1:"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
    // Cut off, not answered: whatever the end looks like, no response came.
    assert_eq!(client.rest().await.unwrap_or_default(), "");
    let report: Value = serde_json::from_str(&trial.process.stdout()).unwrap();
    assert_eq!(report["schema"], 1);
    assert_eq!(report["exit_code"], 4);
    assert_eq!(report["cut_off"][0]["name"], "GET /never");
}

#[tokio::test]
async fn spinning_workers_cannot_keep_the_process_past_grace() {
    let mut trial = Trial::of(spawn("").env("SUNDOWN_GRACE", "500ms")).await;
    let spinners = std::thread::available_parallelism().unwrap().get() + 1;
    let mut clients = Vec::new();
    for _ in 0..spinners {
        clients.push(trial.ask("/spin").await);
    }
    trial.says("spin began").await;
    trial.signal(TERM);
    let (code, said) = trial.exit().await;
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("request GET /spin"), "{said}");
}

#[tokio::test]
async fn a_blocking_task_that_never_ends_is_named_and_ends_with_the_process() {
    let mut trial = Trial::of(spawn("").env("SUNDOWN_GRACE", "500ms")).await;
    let mut client = trial.ask("/block").await;
    client.answer().await;
    trial.signal(TERM);
    let (code, said) = trial.exit().await;
    assert_eq!(code, 4, "{said}");
    assert!(
        said.contains("cut off: blocking task endless computation"),
        "{said}"
    );
}

#[tokio::test]
async fn a_tracked_task_is_waited_for() {
    let trial = Trial::start().await;
    trial.ask("/task").await.answer().await;
    let (code, said) = trial.stop().await;
    assert_eq!(code, 0);
    assert!(said.contains("afterthought finished"), "{said}");
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_context() {
    let mut trial = Trial::start().await;
    let client = trial.ask("/patient").await;
    trial.says("patient began").await;
    drop(client);
    // The handler is dropped with its connection: what it says shows in the report.
    let (code, said) = trial.stop().await;
    assert_eq!(code, 0);
    assert!(said.contains("1 abandoned by their client"), "{said}");
}

#[tokio::test]
async fn the_rest_of_a_body_that_nobody_read_is_no_request() {
    let mut trial = Trial::start().await;
    let rest = get("/left");
    let mut client = trial.connect().await;
    client
        .send(&format!(
            "POST / HTTP/1.1\r\nhost: trial\r\ncontent-length: {}\r\n\r\n",
            rest.len()
        ))
        .await;
    assert!(client.answer().await.0.starts_with("http/1.1 405"));
    trial.signal(TERM);
    trial.says("SIGTERM").await;
    // The connection may be closed by now: then both fail, and there is no answer either.
    let _ = client.stream.write_all(rest.as_bytes()).await;
    assert_eq!(client.rest().await.unwrap_or_default(), "");
    let (code, said) = trial.exit().await;
    assert_eq!(code, 0);
    assert!(said.contains("requests: 1 finished"), "{said}");
}

#[tokio::test]
async fn a_listener_refuses_at_once_what_comes_too_late() {
    let mut trial = Trial::start().await;
    let mut client = trial.ask("/slow?ms=500").await;
    trial.says("slow began").await;
    trial.signal(TERM);
    trial.says("SIGTERM").await;
    let late = loop {
        match tokio::net::TcpStream::connect(trial.address).await {
            Ok(early) => drop(early),
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(late, std::io::ErrorKind::ConnectionRefused);
    client.answer().await;
    assert_eq!(trial.exit().await.0, 0);
}

#[tokio::test]
async fn releases_run_in_order_and_a_panic_among_them_is_told() {
    let trial = Trial::of(spawn("releases")).await;
    let (code, said) = trial.stop().await;
    assert_eq!(code, 1, "{said}");
    let at = |text: &str| {
        said.find(text)
            .unwrap_or_else(|| panic!("no {text:?} in {said}"))
    };
    assert!(at("deregistered") < at("released oldest"));
    assert!(at("released oldest") < at("released last"));
    assert!(
        said.contains("post_cleanup panics: Panicked(\"released badly\")"),
        "{said}"
    );
}

#[tokio::test]
async fn a_start_that_fails_releases_what_had_started() {
    let (code, said) = run(spawn("fails-to-start")).await;
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("error: start hook second failed: no second"),
        "{said}"
    );
    assert!(
        said.contains("released first") && !said.contains("released second"),
        "{said}"
    );
    assert!(!said.contains("ready"), "{said}");
}

#[tokio::test]
async fn a_worker_dies_restarts_or_ends_the_service_as_its_policy_says() {
    let (code, said) = run(spawn("worker-dies")).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("worker mortal died: out of luck"), "{said}");

    let mut trial = Trial::of(spawn("worker-restarts")).await;
    trial.says("life 2").await;
    assert_eq!(trial.stop().await.0, 0);

    let (code, said) = Trial::of(spawn("worker-never-ends").env("SUNDOWN_GRACE", "300ms"))
        .await
        .stop()
        .await;
    assert_eq!(code, 4);
    assert!(said.contains("cut off: worker endless"), "{said}");

    let (code, said) = run(spawn("workers-only")).await;
    assert_eq!(code, 0, "{said}");
    assert!(
        said.contains("one is done") && said.contains("two is done"),
        "{said}"
    );

    let (code, said) = run(spawn("stops-itself")).await;
    assert_eq!(code, 0);
    assert!(said.contains("enough: stopping"), "{said}");
}

#[tokio::test]
async fn progress_names_what_holds_the_stop_up() {
    let mut trial = Trial::of(spawn("").env("SUNDOWN_GRACE", "3s")).await;
    let _client = trial.ask("/never").await;
    let _patient = trial.ask("/patient").await;
    trial.says("patient began").await;
    trial.signal(TERM);
    tokio::time::timeout(Duration::from_secs(60), trial.says("draining, "))
        .await
        .unwrap();
    let (_, said) = trial.exit().await;
    assert!(said.contains("2 at work: "), "{said}");
}
