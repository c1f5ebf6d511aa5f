//! The suite, measured by a server whose faults are known.

use std::collections::BTreeSet;
use std::time::Duration;

use sundown_testkit::bin_path;
use sundown_verify::process::SignalTo;
use sundown_verify::{Offers, Service, Suite, Target, Verdict, checks};

fn service(fault: &str) -> Service {
    let mut command = vec![bin_path("examples/planted").into(), "{port}".into()];
    command.extend((!fault.is_empty()).then(|| fault.into()));
    Service {
        target: Target::Command(command),
        offers: Offers {
            fast: "/fast".to_owned(),
            slow: Some("/slow".to_owned()),
            big: Some("/big".to_owned()),
            upload: Some("/upload".to_owned()),
            endless: Some("/endless".to_owned()),
            http2: false,
        },
        signal: libc::SIGTERM,
        signal_to: SignalTo::Leader,
        grace: Duration::from_secs(3),
        start_limit: Duration::from_secs(30),
    }
}

/// Plays all checks on the server with this fault, and returns those that fail, with what was seen.
async fn failed(fault: &str) -> Vec<(&'static str, String)> {
    let suite = Suite::new(service(fault), checks::all().collect(), 1);
    let judged = suite.run(|_| {}).await.unwrap();
    let failed = judged
        .judgements
        .into_iter()
        .filter(|judgement| matches!(judgement.verdict, Verdict::Fail | Verdict::Flaky));
    failed
        .map(|judgement| (judgement.check.id, judgement.seen))
        .collect()
}

/// One after the other: each loads the machine.
#[tokio::test(flavor = "multi_thread")]
async fn each_planted_fault_fails_the_checks_declared_for_it_and_no_other() {
    // The fault, what must fail, and what may: races that natural load meets or does not.
    let table: &[(&str, &[&str], &[&str])] = &[
        ("", &[], &[]),
        (
            "stays",
            &[
                "signal/1", "signal/2", "signal/3", "signal/6", "signal/7", "signal/8", "http1/9",
                "budget/1",
            ],
            &[],
        ),
        ("status", &["signal/2", "signal/3"], &[]),
        ("interrupt", &["signal/3"], &[]),
        ("backlog", &["listener/2"], &["listener/1"]),
        ("zombie", &["listener/2", "listener/3"], &["listener/1"]),
        ("blind-idle", &["http1/2"], &["http1/15"]),
        ("untold", &["http1/3", "http1/8", "http1/14"], &[]),
        (
            "impatient",
            &[
                "http1/1", "http1/4", "http1/5", "http1/8", "http1/10", "http1/11",
            ],
            &["http1/6", "http1/7", "http1/15"],
        ),
        ("half-head", &["http1/6"], &[]),
        ("early", &["http1/7"], &["listener/1"]),
        ("waits-for-idle", &["http1/9"], &[]),
        ("boundless", &["budget/1"], &[]),
        ("first", &["signal/7"], &[]),
        ("busy", &["signal/8"], &[]),
        ("orphan", &["proc/1"], &[]),
        ("leak", &["proc/1", "proc/2"], &[]),
    ];
    for (fault, must, may) in table {
        let failed = failed(fault).await;
        let ids: BTreeSet<_> = failed.iter().map(|(id, _)| *id).collect();
        let missing: Vec<_> = must.iter().filter(|id| !ids.contains(**id)).collect();
        let other: Vec<_> = failed
            .iter()
            .filter(|(id, _)| !must.contains(id) && !may.contains(id))
            .collect();
        assert!(
            missing.is_empty() && other.is_empty(),
            "{fault:?}: not failed: {missing:?}; failed beside: {other:?}"
        );
    }
}
