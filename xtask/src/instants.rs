//! `cargo xtask instants`: a clean exit, at whatever instant of a start SIGTERM comes.
//!
//! The instants begin where a signal can first be heard: when the handlers stand, or at exec for a
//! service whose parent had blocked SIGTERM; each way also as PID 1, to which the kernel delivers
//! nothing by default. Never counts what the service could not have heard, and has no clients.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use sundown_verify::Process;
use sundown_verify::process::{Ended, ProcessError, Spawn};

use crate::peers;
use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Stop the service at many instants of its start, also as PID 1, and count the clean exits
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many instants, of each way to start
    #[arg(long, value_name = "N", default_value_t = 50, env = "XTASK_INSTANTS")]
    instants: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// How long after the first instant the last one comes.
const SPAN: Duration = Duration::from_millis(500);

/// How long the service may take to get to the first instant, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The timer's resolution: what is closer is waited for by looking at the clock.
const CLOSE: Duration = Duration::from_millis(2);

/// The ways to get PID 1, the second for those who are not root.
const UNSHARES: [&[&str]; 2] = [
    &["--pid", "--fork", "--kill-child"],
    &["--user", "--pid", "--fork", "--kill-child"],
];

/// A way to start the service.
#[derive(Clone, Copy)]
struct Variant {
    first: First,
    place: Place,
}

/// The first instant.
#[derive(Clone, Copy)]
enum First {
    /// SIGTERM is caught: `SigCgt` in proc_pid_status(5).
    Handlers,
    /// The program runs, and its parent had blocked SIGTERM.
    Exec,
}

/// What the service is to the kernel.
#[derive(Clone, Copy)]
enum Place {
    Child,
    /// The first of a PID namespace, made by these arguments of `unshare`.
    Pid1(&'static [&'static str]),
}

/// How the service ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    Clean,
    Code(i32),
    Killed(i32),
    Hung,
}

/// One stop.
struct Stop {
    fate: Fate,
    took: Duration,
    said: String,
}

#[derive(Default, Serialize)]
struct Row {
    start: String,
    instants: u32,
    clean: u32,
    /// Stops that came before the service was ready.
    before_ready: u32,
    slowest_exit_ms: u64,
    not_clean: BTreeMap<String, u32>,
    examples: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    peers::find("sundown")?.build(workspace)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(measure(workspace, arguments.instants))?;
    if arguments.json {
        println!(
            "{}",
            serde_json::to_string(&serde_json::json!({"schema": 1, "rows": rows}))?
        );
    } else {
        print_table(&rows);
    }
    Ok(if rows.iter().all(|row| row.clean == row.instants) {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

async fn measure(workspace: &Workspace, instants: u32) -> anyhow::Result<Vec<Row>> {
    let variants = variants();
    let mut rows: Vec<Row> = variants.iter().map(Row::of).collect();
    for index in 0..instants {
        progress::line(&format!("instant {} of {instants}", index + 1));
        for (variant, row) in variants.iter().zip(&mut rows) {
            let after = instant(index, instants);
            let stop = stop_at(workspace, *variant, after)
                .await
                .with_context(|| format!("{variant}, {after:?}"))?;
            row.count(after, stop);
        }
    }
    progress::clear();
    Ok(rows)
}

/// Lists the ways to start that this machine permits, and says which it does not.
fn variants() -> Vec<Variant> {
    let mut places = vec![Place::Child];
    match UNSHARES.into_iter().find(|unshare| permitted(unshare)) {
        Some(unshare) => places.push(Place::Pid1(unshare)),
        None => eprintln!("skipped: as PID 1: `unshare --pid --fork` is missing or not permitted"),
    }
    let firsts = |place| [First::Handlers, First::Exec].map(|first| Variant { first, place });
    places.into_iter().flat_map(firsts).collect()
}

fn permitted(unshare: &[&str]) -> bool {
    let mut command = std::process::Command::new("unshare");
    let answer = command.args(unshare).arg("true").output();
    answer.is_ok_and(|output| output.status.success())
}

/// Returns when to signal. The instants are dense at first: a start takes a few milliseconds.
fn instant(index: u32, instants: u32) -> Duration {
    let share = f64::from(index) / f64::from(instants.saturating_sub(1).max(1));
    SPAN.mul_f64(share.powi(3))
}

async fn stop_at(workspace: &Workspace, variant: Variant, after: Duration) -> anyhow::Result<Stop> {
    // Any free port: nobody connects.
    let service = peers::find("sundown")?.command(workspace, 0);
    let mut process = variant.spawn(&service).start()?;
    let pid = match variant.place {
        Place::Child => process.id(),
        Place::Pid1(_) => only_child(&process)?,
    };
    match variant.first {
        First::Handlers => until("catch SIGTERM", || catches_sigterm(pid))?,
        First::Exec => until("be started", || runs(pid, service.get_program().as_ref()))?,
    }
    wait_until(Instant::now() + after).await;
    let signalled = Instant::now();
    terminate(pid)?;
    let fate = Fate::of(process.wait_exit(PATIENCE).await)?;
    Ok(Stop {
        fate,
        took: signalled.elapsed(),
        said: process.stderr(),
    })
}

impl Variant {
    fn spawn(self, service: &std::process::Command) -> Spawn {
        let spawn = match self.place {
            Place::Child => Spawn::new(service.get_program()),
            Place::Pid1(unshare) => Spawn::new("unshare")
                .args(unshare)
                .arg(service.get_program()),
        };
        let spawn = spawn.args(service.get_args());
        match self.first {
            First::Handlers => spawn,
            First::Exec => spawn.blocked_signals([libc::SIGTERM]),
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.first {
            First::Handlers => "from when the handlers stand",
            First::Exec => "from exec on, SIGTERM blocked",
        })?;
        match self.place {
            Place::Child => Ok(()),
            Place::Pid1(_) => formatter.write_str(", as PID 1"),
        }
    }
}

/// Waits for the process that `unshare` becomes the parent of.
fn only_child(unshare: &Process) -> anyhow::Result<u32> {
    let path = format!("/proc/{0}/task/{0}/children", unshare.id());
    let mut children = String::new();
    until("appear below unshare", || {
        children = fs::read_to_string(&path)?;
        Ok(!children.trim().is_empty())
    })?;
    children
        .trim()
        .parse()
        .with_context(|| format!("unshare has not one child but {children:?}"))
}

fn catches_sigterm(pid: u32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(mask.is_some_and(|mask| mask & (1 << (libc::SIGTERM - 1)) != 0))
}

fn runs(pid: u32, program: &Path) -> io::Result<bool> {
    Ok(fs::read_link(format!("/proc/{pid}/exe"))? == program)
}

/// Asks again and again, at once: the kernel tells nobody, and a wait would miss the instant.
fn until(what: &str, mut holds: impl FnMut() -> io::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds().with_context(|| format!("the service ended before it could {what}"))? {
        ensure!(
            Instant::now() < deadline,
            "the service did not {what} within {PATIENCE:?}"
        );
        std::thread::yield_now();
    }
    Ok(())
}

async fn wait_until(instant: Instant) {
    if let Some(early) = instant.checked_sub(CLOSE) {
        tokio::time::sleep_until(early.into()).await;
    }
    while Instant::now() < instant {
        std::thread::yield_now();
    }
}

/// Sends SIGTERM. The process is ours or `unshare`'s child and has not been told to end, so that
/// the PID is its own.
fn terminate(pid: u32) -> anyhow::Result<()> {
    // SAFETY: kill(2) takes two numbers.
    match unsafe { libc::kill(pid.cast_signed(), libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("the service ended before it was told to"),
    }
}

impl Fate {
    /// Reads what waiting for the end has told. `unshare` ends as its child did.
    fn of(exit: Result<sundown_verify::process::Exit, ProcessError>) -> anyhow::Result<Self> {
        match exit {
            Ok(exit) => Ok(match exit.ended {
                Ended::Code(0) => Self::Clean,
                Ended::Code(code) => Self::Code(code),
                Ended::Signal(signal) => Self::Killed(signal),
            }),
            Err(ProcessError::TooSlow { .. }) => Ok(Self::Hung),
            Err(error) => bail!(error),
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => formatter.write_str("clean"),
            Self::Code(code) => write!(formatter, "code {code}"),
            Self::Killed(signal) => write!(formatter, "killed by signal {signal}"),
            Self::Hung => formatter.write_str("hung"),
        }
    }
}

impl Row {
    /// Bounds the list of examples.
    const MAX_EXAMPLES: usize = 5;

    fn of(variant: &Variant) -> Self {
        Self {
            start: variant.to_string(),
            ..Self::default()
        }
    }

    fn count(&mut self, after: Duration, stop: Stop) {
        let Stop { fate, took, said } = stop;
        self.instants += 1;
        self.before_ready += u32::from(!said.contains(READY));
        self.slowest_exit_ms = self.slowest_exit_ms.max(took.as_millis() as u64);
        if fate == Fate::Clean {
            self.clean += 1;
            return;
        }
        *self.not_clean.entry(fate.to_string()).or_default() += 1;
        if self.examples.len() < Self::MAX_EXAMPLES {
            let words = said.trim();
            self.examples
                .push(format!("{fate}, after {after:?}: {words}"));
        }
    }
}

/// What the service says when it is ready.
const READY: &str = ": ready";

fn print_table(rows: &[Row]) {
    println!(
        "{:42} {:>8} {:>6} {:>13} {:>13}  not clean",
        "SIGTERM", "instants", "clean", "before ready", "slowest exit"
    );
    for row in rows {
        let not_clean: Vec<String> = row
            .not_clean
            .iter()
            .map(|(fate, count)| format!("{count} {fate}"))
            .collect();
        println!(
            "{:42} {:>8} {:>6} {:>13} {:>10} ms  {}",
            row.start,
            row.instants,
            row.clean,
            row.before_ready,
            row.slowest_exit_ms,
            if not_clean.is_empty() {
                "none".to_owned()
            } else {
                not_clean.join(", ")
            }
        );
        for example in &row.examples {
            println!("    e.g. {example}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instants_begin_at_once_and_end_with_the_span() {
        assert_eq!(instant(0, 50), Duration::ZERO);
        assert_eq!(instant(49, 50), SPAN);
        assert_eq!(instant(0, 1), Duration::ZERO);
        assert!((1..50).all(|index| instant(index - 1, 50) < instant(index, 50)));
    }

    #[test]
    fn only_code_0_is_clean() {
        let ended = |ended| {
            let after = Duration::ZERO;
            Fate::of(Ok(sundown_verify::process::Exit { ended, after })).unwrap()
        };
        assert_eq!(ended(Ended::Code(0)), Fate::Clean);
        assert_eq!(ended(Ended::Code(4)), Fate::Code(4));
        assert_eq!(ended(Ended::Signal(15)), Fate::Killed(15));
        let hung = ProcessError::TooSlow {
            what: "exit".into(),
            limit: PATIENCE,
        };
        assert_eq!(Fate::of(Err(hung)).unwrap(), Fate::Hung);
    }

    #[test]
    fn a_process_that_catches_nothing_is_told_from_one_that_does() {
        let plain = std::process::Command::new("sleep").arg("60").spawn();
        let mut plain = plain.unwrap();
        let caught = catches_sigterm(plain.id()).unwrap();
        plain.kill().unwrap();
        plain.wait().unwrap();
        assert!(!caught);
    }
}
