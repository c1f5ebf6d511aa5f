//! `cargo xtask bench`: what Sundown costs beside the servers it is built on.
//!
//! Every figure is a comparison within one run: the sides of a round are measured in random order,
//! so that whatever else the machine does falls on all of them, and the baseline is measured twice,
//! so that the noise has a number of its own. Never compares with a figure of another run.

mod client;
mod endless;
mod epoll;
pub(crate) mod findings;
mod guard;
mod idle;
mod latency;
mod logs;
mod machine;
mod memory;
mod own_client;
mod side;
mod statistics;
mod stop;
mod stream;
mod suite;
mod throughput;
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::guarded::rights::Rights;
use crate::workspace::Workspace;
use crate::{Verdict, open_files, progress};

use findings::Findings;
use machine::Machine;
use side::{Place, Side};

/// Measure throughput, also under TLS, latency, the time of a stop and memory against other servers
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds; each measures every side once, so that each is a pair with the baseline
    #[arg(long, value_name = "N", default_value_t = 21, env = "XTASK_PAIRS")]
    pairs: usize,
    /// How long each side is measured in a round, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1.5", value_parser = seconds, env = "XTASK_SECONDS")]
    seconds: Duration,
    /// Measure nothing but this
    #[arg(long, value_name = "SUBJECT", env = "XTASK_ONLY")]
    only: Option<Subject>,
    /// Servers to show beside: names of peers/README.md
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "axum,hyper,gin",
        env = "XTASK_AGAINST"
    )]
    against: Vec<String>,
    /// An earlier build of peer-sundown, whose throughput is compared with the present one's
    #[arg(long, value_name = "FILE", value_parser = program)]
    earlier: Option<PathBuf>,
    /// Guard as an ordinary user without capabilities, if this runs as root: --only guard
    #[arg(long, env = "XTASK_ORDINARY_USER")]
    ordinary_user: bool,
    /// Print JSON instead of tables
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
    /// See whether it works, in little time: two short rounds, 500 connections, nothing judged
    #[arg(long, env = "XTASK_SHORT", conflicts_with_all = ["pairs", "seconds"])]
    short: bool,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Subject {
    Throughput,
    /// Throughput under TLS.
    Tls,
    /// Throughput of a server that is guarded, beside the same without.
    Guard,
    /// Throughput of a server that logs each request, beside the same without.
    Logs,
    Latency,
    Stop,
    Memory,
    /// The client of `sundown verify`, beside wrk.
    Client,
    /// How long `sundown verify` takes.
    Suite,
}

/// What every subject is told.
struct Bench<'a> {
    workspace: &'a Workspace,
    against: &'a [String],
    earlier: Option<&'a Path>,
    /// Of a guard.
    rights: Rights,
    machine: Machine,
    /// Rounds of what is cheap to repeat.
    pairs: usize,
    /// Rounds of what opens `connections`.
    rounds: usize,
    length: Duration,
    connections: usize,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let bench = Bench::new(workspace, arguments)?;
    open_files::allow(bench.connections as u64 + 100)?;
    // The suite has a server of its own.
    if arguments.only != Some(Subject::Suite) {
        for side in side::against("axum", &with_baselines(&bench))? {
            side.build(workspace)?;
        }
    }
    // One thread, so that nothing of ours wakes up beside the client while it measures.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if !arguments.json {
        println!("{}", bench.machine);
    }
    let found = runtime.block_on(bench.measure(arguments))?;
    if arguments.json {
        let document = serde_json::json!({
            "schema": 1,
            "machine": bench.machine,
            "judged": !arguments.short,
            "findings": found,
        });
        println!("{document}");
    }
    let broken = found
        .iter()
        .flat_map(|findings| &findings.claims)
        .any(|claim| !claim.holds);
    Ok(if broken && !arguments.short {
        Verdict::Broken
    } else {
        Verdict::Holds
    })
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(length) if length >= Duration::from_millis(100) => Ok(length),
        _ => Err("must be 0.1 or more".to_owned()),
    }
}

fn program(text: &str) -> Result<PathBuf, String> {
    let program = PathBuf::from(text);
    match program.is_file() {
        true => Ok(program),
        false => Err("no such file: build peer-sundown from an earlier commit first".to_owned()),
    }
}

/// hyper is memory's baseline and axum-server that of TLS, whether or not they are to be shown elsewhere.
fn with_baselines(bench: &Bench<'_>) -> Vec<String> {
    let baselines = ["hyper", tls::BASELINE].map(str::to_owned);
    bench.against.iter().cloned().chain(baselines).collect()
}

impl<'a> Bench<'a> {
    fn new(workspace: &'a Workspace, arguments: &'a Arguments) -> anyhow::Result<Self> {
        ensure!(arguments.pairs > 0, "--pairs must be 1 or more");
        let full = Self {
            workspace,
            against: &arguments.against,
            earlier: arguments.earlier.as_deref(),
            rights: Rights {
                ordinary_user: arguments.ordinary_user,
                ..Rights::default()
            },
            machine: Machine::describe()?,
            pairs: arguments.pairs,
            rounds: 3,
            length: arguments.seconds,
            connections: 10_000,
        };
        if !arguments.short {
            return Ok(full);
        }
        Ok(Self {
            pairs: 2,
            rounds: 1,
            length: Duration::from_millis(300),
            connections: 500,
            ..full
        })
    }

    /// Measures what is asked for, and prints each table as soon as it is there.
    async fn measure(&self, arguments: &Arguments) -> anyhow::Result<Vec<Findings>> {
        let mut found = Vec::new();
        let mut keep = |findings: Findings| {
            progress::clear();
            if !arguments.json {
                findings.print(!arguments.short);
            }
            found.push(findings);
        };
        let wanted = |subject| arguments.only.is_none_or(|only| only == subject);
        let mut saturation = None;
        if wanted(Subject::Throughput) {
            let (findings, rate) = throughput::run(self).await?;
            saturation = Some(rate);
            keep(findings);
        }
        if wanted(Subject::Tls) {
            keep(tls::run(self).await?);
        }
        if wanted(Subject::Guard)
            && let Some(findings) = guard::run(self).await?
        {
            keep(findings);
        }
        if wanted(Subject::Logs) {
            keep(logs::run(self).await?);
        }
        if wanted(Subject::Latency) {
            let rate = match saturation {
                Some(rate) => rate,
                None => throughput::saturation(self).await?,
            };
            keep(latency::run(self, rate).await?);
        }
        if wanted(Subject::Client)
            && let Some(findings) = own_client::run(self).await?
        {
            keep(findings);
        }
        // Before memory, which leaves the kernel tens of thousands of sockets in TIME_WAIT to look
        // through when a stop asks it for handshakes.
        if wanted(Subject::Stop) {
            keep(stop::run(self).await?);
            keep(endless::run(self).await?);
        }
        // It takes a minute however short the others are.
        if wanted(Subject::Suite) && (!arguments.short || arguments.only.is_some()) {
            keep(suite::run(self).await?);
        }
        if wanted(Subject::Memory) {
            keep(memory::run(self).await?);
        }
        Ok(found)
    }

    fn server_core(&self) -> Place {
        Place::Core(self.machine.server_core)
    }

    fn commands(&self, sides: &[Side], place: Place) -> Vec<String> {
        let mut commands: Vec<String> = sides
            .iter()
            .map(|side| side.command(self.workspace, place))
            .collect();
        // The baseline's double is started like the baseline.
        commands.dedup();
        commands
    }
}

/// Runs a job that blocks on a thread that stays on one core, and awaits it.
async fn on_core<T: Send + 'static>(
    core: usize,
    job: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let pinned = move || {
        machine::pin_thread(core).with_context(|| format!("could not use core {core}"))?;
        job()
    };
    tokio::task::spawn_blocking(pinned)
        .await
        .context("the client panicked")?
}
