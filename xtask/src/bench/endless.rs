//! What a stop does about work that never ends: the process is gone within grace, by the code for
//! it, and the report names the work.
//!
//! The server is the example `trial`, whose routes are the ways to never end. Shows no other server
//! beside it: none promises this.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use sundown_verify::Process;
use sundown_verify::process::{Ended, Exit, Spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Bench;
use super::findings::{Bound, Claim, Figure, Findings, Row};
use super::side::PATIENCE;
use super::statistics::{median, most};
use crate::folder::Folder;
use crate::progress;

/// At most so many: a round lasts as long as grace.
const ROUNDS: usize = 5;

const GRACE: &str = "2s";

const WITHIN_GRACE_MS: Bound = Bound::AtMost(2000.0);

/// The third signal waits for nothing, and for the same core.
const AT_ONCE_MS: Bound = Bound::Below(50.0);

const NONE: Bound = Bound::AtMost(0.0);

/// A way to never end, and what is to come of it.
struct Case {
    name: &'static str,
    work: Work,
    /// How often SIGTERM is sent, each as soon as the one before was heard.
    signals: usize,
    code: i32,
    within: Bound,
    /// The kind and the name by which the report tells of the work.
    named: (&'static str, &'static str),
    /// What the report notes beside.
    noted: Option<&'static str>,
}

/// How the work begins.
#[derive(Clone, Copy)]
enum Work {
    /// By these requests on one connection, the first of which is answered. They are one segment, so
    /// that who has read the answer knows that the server has them all.
    Requests(&'static [&'static str]),
    /// By a request on every worker of the runtime, none of which is answered.
    OnEveryWorker(&'static str),
}

#[rustfmt::skip] // A table reads best with a row a line.
const CASES: [Case; 4] = [
    Case { name: "a request never ends", work: Work::Requests(&["/", "/never"]), signals: 1, code: 4, within: WITHIN_GRACE_MS, named: ("request", "GET /never"), noted: None },
    Case { name: "every worker spins", work: Work::OnEveryWorker("/spin"), signals: 1, code: 4, within: WITHIN_GRACE_MS, named: ("request", "GET /spin"), noted: Some("grace is over") },
    Case { name: "a spawn_blocking never ends", work: Work::Requests(&["/block"]), signals: 1, code: 4, within: WITHIN_GRACE_MS, named: ("blocking", "endless computation"), noted: None },
    Case { name: "every worker spins, third SIGTERM", work: Work::OnEveryWorker("/spin"), signals: 3, code: 128 + libc::SIGTERM, within: AT_ONCE_MS, named: ("request", "GET /spin"), noted: None },
];

/// What the server says when it has heard a signal and may get the next.
const HEARD: [&str; 2] = ["again to hurry", "a third ends"];

/// What the route `/spin` says.
const SPINS: &str = "spin began\n";

/// How long all workers may take to spin, and how often the server is started for it.
const SPIN_UP: Duration = Duration::from_secs(2);
const STARTS: usize = 20;

/// One case's stops.
#[derive(Default)]
struct Measured {
    milliseconds: Vec<f64>,
    other_codes: u32,
    /// Reports without what they must tell.
    silent: u32,
    /// The least that a report named of the work.
    named: Option<usize>,
}

/// Builds the server and measures all cases.
pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Findings> {
    let server = build(bench)?;
    let folder = Folder::new("bench-endless")?;
    let trial = Trial {
        program: &server,
        report: folder.path().join("report.json"),
        workers: available_parallelism()?.get(),
    };
    let rounds = ROUNDS.min(bench.pairs);
    let mut measured = CASES.map(|_| Measured::default());
    for round in 1..=rounds {
        for (case, own) in CASES.iter().zip(&mut measured) {
            progress::line(&format!(
                "endless: round {round} of {rounds}: {}",
                case.name
            ));
            let stopped = trial.stop(case).await;
            let (exit, report) = stopped.with_context(|| case.name.to_owned())?;
            own.count(case, exit, &report, trial.least(case));
        }
    }
    let program = bench.workspace.relative(&server).display();
    Ok(Findings {
        subject: "endless",
        how: format!("SIGTERM to exit under work that never ends, grace {GRACE}, {rounds} times"),
        commands: vec![format!("SUNDOWN_GRACE={GRACE} {program}")],
        rows: CASES.iter().zip(&measured).map(row).collect(),
        claims: claims(&measured),
    })
}

fn build(bench: &Bench<'_>) -> anyhow::Result<PathBuf> {
    let mut build = bench.workspace.cargo();
    build.args(["build", "--quiet", "--release"]);
    build.args(["--package", "sundown", "--example", "trial"]);
    ensure!(build.status()?.success(), "could not build trial");
    Ok(bench.workspace.target.join("release/examples/trial"))
}

/// How the server is started, and where its report goes.
struct Trial<'a> {
    program: &'a Path,
    report: PathBuf,
    workers: usize,
}

/// A server with work under way. The connections stay open, or the work would be abandoned.
struct Busy {
    process: Process,
    _connections: Vec<TcpStream>,
}

impl Trial<'_> {
    async fn stop(&self, case: &Case) -> anyhow::Result<(Exit, Value)> {
        let mut busy = match case.work {
            Work::Requests(paths) => self.asked(paths).await?,
            Work::OnEveryWorker(path) => self.spinning(path).await?,
        };
        for heard in &HEARD[..case.signals - 1] {
            busy.process.signal(libc::SIGTERM)?;
            busy.process.wait_output(heard, PATIENCE).await?;
        }
        busy.process.signal(libc::SIGTERM)?;
        let exit = busy.process.wait_exit(PATIENCE).await?;
        let report = fs::read(&self.report).context("there is no report")?;
        fs::remove_file(&self.report)?;
        Ok((exit, serde_json::from_slice(&report)?))
    }

    async fn start(&self) -> anyhow::Result<(Process, SocketAddr)> {
        let spawn = Spawn::new(self.program)
            .env("SUNDOWN_GRACE", GRACE)
            .env("SUNDOWN_REPORT", &self.report);
        let mut process = spawn.start()?;
        let address = process.wait_line("http on ", PATIENCE).await?;
        Ok((process, address.parse()?))
    }

    async fn asked(&self, paths: &[&str]) -> anyhow::Result<Busy> {
        let (process, address) = self.start().await?;
        let mut connection = TcpStream::connect(address).await?;
        let requests: String = paths.iter().map(|path| get(path)).collect();
        connection.write_all(requests.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            let count = connection.read_buf(&mut answer).await?;
            ensure!(count > 0, "the connection ended before the answer");
        }
        Ok(Busy {
            process,
            _connections: vec![connection],
        })
    }

    /// Starts it until every worker spins. A worker that spins alone may leave the others asleep:
    /// then nobody waits for the network any more, and none of them ever gets a request.
    async fn spinning(&self, path: &str) -> anyhow::Result<Busy> {
        for _ in 0..STARTS {
            let (mut process, address) = self.start().await?;
            // It sees all requests at once, and so wakes every worker.
            process.signal(libc::SIGSTOP)?;
            let mut connections = Vec::new();
            for _ in 0..2 * self.workers {
                let mut connection = TcpStream::connect(address).await?;
                connection.write_all(get(path).as_bytes()).await?;
                connections.push(connection);
            }
            process.signal(libc::SIGCONT)?;
            let all = SPINS.repeat(self.workers);
            if process.wait_output(&all, SPIN_UP).await.is_ok() {
                return Ok(Busy {
                    process,
                    _connections: connections,
                });
            }
        }
        bail!("in {STARTS} starts there was none in which every worker spun")
    }

    /// How much of its work a report must name.
    fn least(&self, case: &Case) -> usize {
        match case.work {
            Work::Requests(_) => 1,
            Work::OnEveryWorker(_) => self.workers,
        }
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: trial\r\n\r\n")
}

impl Measured {
    fn count(&mut self, case: &Case, exit: Exit, report: &Value, least: usize) {
        self.milliseconds.push(1000.0 * exit.after.as_secs_f64());
        self.other_codes += u32::from(exit.ended != Ended::Code(case.code));
        let named = named(report, case.named);
        let told = named >= least && case.noted.is_none_or(|note| is_noted(report, note));
        self.silent += u32::from(!told);
        self.named = Some(self.named.map_or(named, |before| before.min(named)));
    }
}

/// Counts the pieces of work of this kind and name that a report says were cut off.
fn named(report: &Value, (work, name): (&str, &str)) -> usize {
    let cut_off = report["cut_off"].as_array().into_iter().flatten();
    cut_off
        .filter(|cut| cut["work"] == work && cut["name"] == name)
        .count()
}

fn is_noted(report: &Value, text: &str) -> bool {
    let mut notes = report["notes"].as_array().into_iter().flatten();
    notes.any(|note| note.as_str().is_some_and(|note| note.contains(text)))
}

fn row((case, own): (&Case, &Measured)) -> Row {
    Row {
        server: case.name.to_owned(),
        figures: vec![
            Figure::plain("to exit, median", "ms", median(&own.milliseconds)),
            Figure::plain("to exit, most", "ms", most(&own.milliseconds)),
            Figure::plain("exit code", "", case.code.into()),
            Figure::plain("other codes", "", own.other_codes.into()),
            Figure::plain("work named, least", "", own.named.unwrap_or(0) as f64),
        ],
    }
}

fn claims(measured: &[Measured]) -> Vec<Claim> {
    let sum = |count: fn(&Measured) -> u32| measured.iter().map(count).sum::<u32>().into();
    let slowest = |(case, own): (&Case, &Measured)| {
        let what = format!("{}: the slowest exit", case.name);
        Claim::plain(what, most(&own.milliseconds), "ms", case.within)
    };
    let mut claims: Vec<Claim> = CASES.iter().zip(measured).map(slowest).collect();
    claims.extend([
        Claim::plain("exits by other codes", sum(|own| own.other_codes), "", NONE),
        Claim::plain(
            "reports that name too little",
            sum(|own| own.silent),
            "",
            NONE,
        ),
    ]);
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ended: Ended, report: Value, expected: (u32, u32)) {
        let spins = &CASES[1];
        let exit = Exit {
            ended,
            after: Duration::ZERO,
        };
        let mut measured = Measured::default();
        measured.count(spins, exit, &report, 2);
        let found = (measured.other_codes, measured.silent);
        assert_eq!(found, expected, "{report}");
    }

    #[test]
    fn a_report_must_name_all_the_work_and_say_that_grace_is_over() {
        let spin = serde_json::json!({"work": "request", "name": "GET /spin"});
        let other = serde_json::json!({"work": "worker", "name": "GET /spin"});
        let note = "grace is over and something did not end";
        let report = |cut_off: [&Value; 2], notes: &[&str]| serde_json::json!({"cut_off": cut_off, "notes": notes});

        check(Ended::Code(4), report([&spin, &spin], &[note]), (0, 0));
        check(Ended::Code(4), report([&spin, &other], &[note]), (0, 1));
        check(Ended::Code(4), report([&spin, &spin], &[]), (0, 1));
        check(Ended::Code(0), Value::Null, (1, 1));
        check(Ended::Signal(15), report([&spin, &spin], &[note]), (1, 0));
    }
}
