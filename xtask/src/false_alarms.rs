//! `cargo xtask false-alarms`: does the suite blame a server that is right in every respect?
//!
//! Both sides share a machine whose cores are all kept busy by something else, as on a build server.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use sundown_verify::{Process, Service, Spawn, Suite, Verdict as Found, checks};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::folder::Folder;
use crate::workspace::Workspace;
use crate::{Verdict, planted, progress};

/// Play the suite on a server without a fault, on a busy machine, and count what it blames
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often the whole suite is played
    #[arg(long, value_name = "N", default_value_t = 200, env = "XTASK_RUNS")]
    runs: u32,
    /// How many runs are played at a time: each waits more than it works
    #[arg(long, value_name = "N", default_value_t = 4, env = "XTASK_AT_A_TIME")]
    at_a_time: usize,
    /// How many processes keep the machine busy [default: one a core]
    #[arg(long, value_name = "N", env = "XTASK_BUSY")]
    busy: Option<usize>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    planted::build(workspace)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let busy = arguments.busy.unwrap_or(cores);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(count(workspace, arguments, busy))
}

async fn count(
    workspace: &Workspace,
    arguments: &Arguments,
    busy: usize,
) -> anyhow::Result<Verdict> {
    let _burners = burners(busy)?;
    let folder = Folder::new("false-alarms")?;
    let permits = Arc::new(Semaphore::new(arguments.at_a_time));
    let mut playing = JoinSet::new();
    for run in 1..=arguments.runs {
        let store = folder.path().join(format!("entries-{run}"));
        let service = planted::service(workspace, &store, run % 2 == 0);
        let permits = permits.clone();
        playing.spawn(async move {
            let _permit = permits.acquire_owned().await?;
            play(service, run).await
        });
    }
    let mut clean = 0;
    let mut blamed: Vec<String> = Vec::new();
    let mut unclear: BTreeMap<&str, u32> = BTreeMap::new();
    let mut ended = 0;
    while let Some(played) = playing.join_next().await {
        let played = played??;
        clean += u32::from(played.blamed.is_empty());
        blamed.extend(played.blamed);
        for id in played.unclear {
            *unclear.entry(id).or_default() += 1;
        }
        ended += 1;
        let runs = arguments.runs;
        progress::line(&format!(
            "{ended} of {runs} runs, {clean} of them blamed nobody"
        ));
    }
    progress::clear();
    println!(
        "{clean} of {} runs blamed nobody, every second over TLS, {} at a time beside {busy} busy processes",
        arguments.runs, arguments.at_a_time
    );
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

/// What one run of the suite said.
struct Played {
    /// What it blamed, in words.
    blamed: Vec<String>,
    /// The checks that saw too little.
    unclear: Vec<&'static str>,
}

async fn play(service: Service, run: u32) -> anyhow::Result<Played> {
    let suite = Suite::new(service, checks::all().collect(), 1);
    let judged = suite.run(|_| {}).await;
    let judged = judged.with_context(|| format!("run {run}"))?;
    let with = |verdicts: &'static [Found]| {
        let all = judged.judgements.iter();
        all.filter(move |one| verdicts.contains(&one.verdict))
    };
    Ok(Played {
        blamed: with(&[Found::Fail, Found::Flaky])
            .map(|one| format!("run {run}: {}: {}", one.check.id, one.seen))
            .collect(),
        unclear: with(&[Found::Inconclusive])
            .map(|one| one.check.id)
            .collect(),
    })
}

/// Starts processes that take all they are given; dropped, they are gone.
fn burners(count: usize) -> anyhow::Result<Vec<Process>> {
    let burner = Spawn::new("sh").args(["-c", "while :; do :; done"]).whole();
    let burners = (0..count).map(|_| burner.start());
    Ok(burners.collect::<Result<_, _>>()?)
}
