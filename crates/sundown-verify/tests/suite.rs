//! The suite, measured by a server whose faults are known.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sundown_testkit::bin_path;
use sundown_verify::process::SignalTo;
use sundown_verify::service::{Declared, Ledger};
use sundown_verify::suite::Judgement;
use sundown_verify::{Offers, Service, Suite, Target, Verdict, checks};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

fn service(fault: &str, lame_duck: Duration, store: &Path, tls: bool) -> Service {
    let planted = bin_path("examples/planted");
    let mut command = vec![planted.into(), "{port}".into(), fault.into(), store.into()];
    command.extend(tls.then(|| "tls".into()));
    Service {
        target: Target::Command(command),
        offers: Offers {
            fast: "/fast".to_owned(),
            slow: Some("/slow".to_owned()),
            big: Some("/big".to_owned()),
            upload: Some("/upload".to_owned()),
            endless: Some("/endless".to_owned()),
            stream: Some("/stream".to_owned()),
            sse: Some("/sse".to_owned()),
            ws: Some("/ws".to_owned()),
            ready: Some("/ready".to_owned()),
            live: Some("/live".to_owned()),
            lame_duck,
            ledger: Some(Ledger {
                post: "/ledger/{id}".to_owned(),
                body: String::new(),
                read: Some("/ledger/{id}".to_owned()),
                invariant: None,
            }),
            restart: Some(["kill", "-HUP", "{pid}"].map(Into::into).to_vec()),
            grpc: Some("/planted.Streams/Watch".to_owned()),
            http2: true,
            no_http1: false,
            tls,
        },
        signal: libc::SIGTERM,
        signal_to: SignalTo::Leader,
        declared: Declared::default(),
        grace: Duration::from_secs(4),
        start_limit: Duration::from_secs(30),
    }
}

/// Plays all checks on the server with this fault.
async fn judged(fault: &str, lame_duck: Duration, tls: bool) -> Vec<Judgement> {
    let folder = tempfile::tempdir().unwrap();
    let service = service(fault, lame_duck, &folder.path().join("entries"), tls);
    let suite = Suite::new(service, checks::all().collect(), 1);
    suite.run(|_| {}).await.unwrap().judgements
}

/// Each waits more than it works.
const AT_A_TIME: usize = 4;

/// The checks whose clients come shortly before the signal. Where a busy machine has not let the server
/// accept them by then, a server that takes nobody out of its queue any more loses them.
const QUEUED_AT_THE_SIGNAL: &[&str] = &[
    "listener/1",
    "http1/3",
    "http1/8",
    "http1/10",
    "http1/11",
    "ready/1",
    "tls/2",
];

#[tokio::test(flavor = "multi_thread")]
async fn each_planted_fault_fails_the_checks_declared_for_it_and_no_other() {
    // The fault, what must fail, and what may: races that natural load meets or does not. Those of TLS
    // are played over TLS.
    let table: &'static [(&str, &[&'static str], &[&'static str])] = &[
        ("none", &[], &[]),
        (
            "stays",
            &[
                "signal/1", "signal/2", "signal/3", "signal/6", "signal/7", "signal/8", "http1/9",
                "budget/1", "budget/2", "repeat/1",
            ],
            &[],
        ),
        ("status", &["signal/2", "signal/3"], &[]),
        ("interrupt", &["signal/3"], &[]),
        (
            "backlog",
            &["listener/2", "listener/5", "ready/1"],
            QUEUED_AT_THE_SIGNAL,
        ),
        (
            "zombie",
            &["listener/2", "listener/3", "listener/5"],
            QUEUED_AT_THE_SIGNAL,
        ),
        // Whose clients ask again on the connection that they have: what they send may cross its end.
        ("blind-idle", &["http1/2"], &["http1/1", "http1/15"]),
        (
            "untold",
            &["listener/5", "http1/3", "http1/8", "http1/14"],
            &[],
        ),
        (
            "impatient",
            &[
                "listener/5",
                "http1/1",
                "http1/4",
                "http1/5",
                "http1/8",
                "http1/10",
                "http1/11",
                "http2/1",
                "stream/3",
                "proc/3",
            ],
            // Who has just been accepted is cut, too.
            &[
                "listener/1",
                "listener/2",
                "http1/6",
                "http1/7",
                "http1/15",
                "ready/1",
            ],
        ),
        ("half-head", &["http1/6"], &[]),
        ("early", &["http1/7"], &["listener/1"]),
        ("waits-for-idle", &["http1/9"], &[]),
        ("boundless", &["budget/1"], &[]),
        ("first", &["signal/7"], &[]),
        ("busy", &["signal/8"], &[]),
        ("orphan", &["proc/1"], &[]),
        ("leak", &["proc/1", "proc/2"], &[]),
        ("lame-untold", &["listener/5"], &[]),
        ("ready", &["ready/1"], &[]),
        ("dead", &["ready/2"], &[]),
        ("whole", &["http1/13"], &[]),
        ("streams", &["budget/2"], &[]),
        ("event", &["stream/2"], &[]),
        ("wordless", &["stream/1"], &[]),
        ("unread", &["proc/3"], &[]),
        ("forgets", &["data/1"], &[]),
        ("reload", &["restart/1"], &[]),
        ("unstable", &["signal/2", "signal/3", "repeat/1"], &[]),
        ("reopens", &["listener/4"], &[]),
        ("cuts-streams", &["http2/1", "stream/3"], &[]),
        ("one-step", &["http2/2"], &[]),
        ("statusless", &["stream/3"], &[]),
        ("tls: none", &[], &[]),
        (
            "tls: zombie",
            &["listener/2", "listener/3", "listener/5"],
            QUEUED_AT_THE_SIGNAL,
        ),
        ("tls: unnotified", &["tls/1"], &[]),
        (
            "tls: half-hello",
            &["tls/2"],
            // Whose handshake was not over at the signal.
            &["listener/1", "http1/3", "http1/8", "http1/10"],
        ),
    ];
    let permits = Arc::new(Semaphore::new(AT_A_TIME));
    let mut playing = JoinSet::new();
    for (fault, must, may) in table {
        let permits = permits.clone();
        playing.spawn(async move {
            let _permit = permits.acquire_owned().await.unwrap();
            let tls = fault.strip_prefix("tls: ");
            // Where the window is what shows it, a busy machine must not take it up whole.
            let lame_duck = if must.contains(&"listener/5") {
                Duration::from_millis(1_200)
            } else {
                Duration::from_millis(400)
            };
            let judged = judged(tls.unwrap_or(fault), lame_duck, tls.is_some()).await;
            wrong(fault, must, may, &judged)
        });
    }
    let wrong: Vec<String> = playing.join_all().await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What of the failures was not declared, and what was and is missing, each with what was seen.
fn wrong(
    fault: &str,
    must: &[&'static str],
    may: &[&'static str],
    judged: &[Judgement],
) -> Option<String> {
    let failed: BTreeSet<_> = judged
        .iter()
        .filter(|judgement| matches!(judgement.verdict, Verdict::Fail | Verdict::Flaky))
        .map(|judgement| judgement.check.id)
        .collect();
    let must: BTreeSet<_> = must.iter().copied().collect();
    let may: BTreeSet<_> = may.iter().copied().chain(must.clone()).collect();
    let missing = told(judged, must.difference(&failed));
    let other = told(judged, failed.difference(&may));
    (!missing.is_empty() || !other.is_empty())
        .then(|| format!("{fault:?}: not failed: {missing:#?}; failed beside: {other:#?}"))
}

fn told<'a>(judged: &[Judgement], ids: impl Iterator<Item = &'a &'static str>) -> Vec<String> {
    let verdict = |id: &&str| {
        let judgement = judged.iter().find(|judgement| judgement.check.id == *id)?;
        Some(format!("{id}: {:?}, {}", judgement.verdict, judgement.seen))
    };
    ids.map(|id| verdict(id).unwrap_or_else(|| format!("{id}: not judged")))
        .collect()
}
