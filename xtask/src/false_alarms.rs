//! `cargo xtask false-alarms`: does the suite blame a server that is right in every respect?
//!
//! Both sides share a machine whose cores are all kept busy by something else, as on a build server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use sundown_verify::process::{SignalTo, Spawn};
use sundown_verify::service::Ledger;
use sundown_verify::suite::Told;
use sundown_verify::{Offers, Process, Service, Suite, Target, Verdict as Found, checks};

use crate::folder::Folder;
use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Play the suite on a server without a fault, on a busy machine, and count what it blames
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often the whole suite is played
    #[arg(long, value_name = "N", default_value_t = 200, env = "XTASK_RUNS")]
    runs: u32,
    /// How many processes keep the machine busy [default: one a core]
    #[arg(long, value_name = "N", env = "XTASK_BUSY")]
    busy: Option<usize>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    build(workspace)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let busy = arguments.busy.unwrap_or(cores);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(count(workspace, arguments.runs, busy))
}

/// Builds the server, for speed.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "sundown-verify",
    ]);
    cargo.args(["--example", "planted"]);
    ensure!(cargo.status()?.success(), "the server could not be built");
    Ok(())
}

async fn count(workspace: &Workspace, runs: u32, busy: usize) -> anyhow::Result<Verdict> {
    let _burners = burners(busy)?;
    let folder = Folder::new("false-alarms")?;
    let mut clean = 0;
    let mut blamed: Vec<String> = Vec::new();
    let mut unclear: BTreeMap<&str, u32> = BTreeMap::new();
    for run in 1..=runs {
        let store = folder.path().join(format!("entries-{run}"));
        let suite = Suite::new(service(workspace, &store), checks::all().collect(), 1);
        let judged = suite.run(|told| {
            if let Told::Stop { number, .. } = told {
                progress::line(&format!("run {run} of {runs}: stop {number}"));
            }
        });
        let judged = judged.await.with_context(|| format!("run {run}"))?;
        let failed = judged
            .judgements
            .iter()
            .filter(|judgement| matches!(judgement.verdict, Found::Fail | Found::Flaky));
        let before = blamed.len();
        blamed.extend(failed.map(|one| format!("run {run}: {}: {}", one.check.id, one.seen)));
        clean += u32::from(blamed.len() == before);
        for judgement in &judged.judgements {
            if judgement.verdict == Found::Inconclusive {
                *unclear.entry(judgement.check.id).or_default() += 1;
            }
        }
    }
    progress::clear();
    println!("{clean} of {runs} runs blamed nobody, with {busy} busy processes");
    for (id, times) in &unclear {
        println!("    {id} saw too little in {times}");
    }
    for line in &blamed {
        println!("    {line}");
    }
    Ok(match blamed.is_empty() {
        true => Verdict::Holds,
        false => Verdict::Broken,
    })
}

/// Starts processes that take all they are given; dropped, they are gone.
fn burners(count: usize) -> anyhow::Result<Vec<Process>> {
    let burner = Spawn::new("sh").args(["-c", "while :; do :; done"]);
    let burners = (0..count).map(|_| burner.start());
    Ok(burners.collect::<Result<_, _>>()?)
}

/// The server without a fault, and all that it may be asked.
pub(crate) fn service(workspace: &Workspace, store: &Path) -> Service {
    let planted = workspace.target.join("release/examples/planted");
    Service {
        target: Target::Command(vec![
            planted.into(),
            "{port}".into(),
            "none".into(),
            store.into(),
        ]),
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
            lame_duck: Duration::from_millis(200),
            restart: Some(["kill", "-HUP", "{pid}"].map(Into::into).to_vec()),
            ledger: Some(Ledger {
                post: "/ledger/{id}".to_owned(),
                body: String::new(),
                read: Some("/ledger/{id}".to_owned()),
                invariant: None,
            }),
            http2: false,
        },
        signal: libc::SIGTERM,
        signal_to: SignalTo::Leader,
        grace: Duration::from_secs(5),
        start_limit: Duration::from_secs(30),
    }
}
