//! Whoever holds up a stop is named, and where its work was begun; SIGUSR1 tells the same before.

mod trial;

use serde_json::Value;
use trial::{Trial, spawn};

/// Where this call stands in the trial, as `FILE:LINE:COLUMN`.
fn place(call: &str) -> String {
    let source = include_str!("../examples/trial.rs");
    let lines = source.lines().enumerate();
    let mut found = lines.filter_map(|(line, text)| Some((line + 1, text.find(call)?)));
    let (line, column) = found.next().unwrap();
    // Of a method it is the name's.
    let column = column + call.find('.').map_or(0, |dot| dot + 1) + 1;
    format!("crates/sundown/examples/trial.rs:{line}:{column}")
}

#[tokio::test]
async fn sigusr1_tells_what_is_open_and_stops_nothing() {
    let mut trial = Trial::start().await;
    let mut slow = trial.ask("/slow?ms=2000").await;
    trial.says("slow began").await;
    trial.ask("/task").await.answer().await;
    trial.signal(libc::SIGUSR1);
    trial.says("trial: ready for ").await;
    trial
        .says(&format!(
            "begun at {})",
            place("ctx.spawn(\"afterthought\"")
        ))
        .await;
    let told = trial.process.stderr();
    let peer = slow.stream.local_addr().unwrap();
    let told_of = |words: &str| assert!(told.contains(words), "{words} in {told}");
    told_of("\n  request GET /slow");
    told_of(&format!(" from {peer} ("));
    told_of("\n  task afterthought (");
    assert_eq!(slow.answer().await.1, "ok");

    let _never = trial.ask("/never").await;
    trial.signal(libc::SIGTERM);
    trial.says("SIGTERM: stopping").await;
    trial.says("draining").await;
    trial.signal(libc::SIGUSR1);
    trial.says("trial: draining for ").await;
    trial.says("(SIGTERM, ").await;
    trial.signal(libc::SIGTERM);
    assert_eq!(trial.exit().await.0, 4);
}

#[tokio::test]
async fn the_report_tells_where_what_was_cut_off_had_been_begun() {
    let spawn = spawn("worker-never-ends")
        .env("SUNDOWN_GRACE", "1s")
        .env("SUNDOWN_REPORT", "-");
    let mut trial = Trial::of(spawn).await;
    for path in ["/block", "/guard"] {
        assert_eq!(trial.ask(path).await.answer().await.1, "ok");
    }
    trial.signal(libc::SIGTERM);
    let (code, told) = trial.exit().await;
    assert_eq!(code, 4);
    let report: Value = serde_json::from_str(trial.process.stdout().trim()).unwrap();
    let mut cut_off: Vec<(String, String)> = report["cut_off"]
        .as_array()
        .unwrap()
        .iter()
        .map(|work| {
            let text = |key: &str| work[key].as_str().unwrap().to_owned();
            (text("work"), text("begun_at"))
        })
        .collect();
    cut_off.sort();
    let expected = [
        ("blocking", "ctx.spawn_blocking(\"endless"),
        ("guard", "ctx.guard(\"import\")"),
        ("worker", "app.worker(\"endless\""),
    ];
    let expected = expected.map(|(work, call)| (work.to_owned(), place(call)));
    assert_eq!(cut_off, expected);
    for (_, place) in expected {
        assert!(told.contains(&format!("begun at {place})")), "{told}");
    }
}
