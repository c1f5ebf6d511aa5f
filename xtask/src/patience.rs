//! `cargo xtask patience`: whether what takes its time is finished when a server is stopped or restarted under
//! `sundown run`.
//!
//! Connections that are kept, requests that take longer than the guard's quiet, a queue that nobody accepts
//! from, handshakes that are not over: each on real servers, by clients with bytes of their own and no second try.

mod kept;
mod long;
mod sockets;
mod waiting;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use sundown_verify::Process;
use sundown_verify::process::{Ended, free_port};

use crate::folder::Folder;
use crate::guarded::build_command;
use crate::guarded::rights::Rights;
use crate::guarded::server::Server;
use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Restart and stop servers under `sundown run` with connections kept, long requests, and clients that wait
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many restarts of each server with clients that rest, and as many with clients that never do
    #[arg(long, value_name = "N", default_value_t = 20, env = "XTASK_RESTARTS")]
    restarts: u32,
    /// How many clients keep a connection and rest; where they are many, they seldom rest all at once
    #[arg(long, value_name = "N", default_value_t = 8, env = "XTASK_RESTING")]
    resting: usize,
    /// How many long requests of each kind, all at once
    #[arg(long, value_name = "N", default_value_t = 20, env = "XTASK_EACH")]
    each: usize,
    /// How many connections wait in the accept queue
    #[arg(long, value_name = "N", default_value_t = 50, env = "XTASK_HELD")]
    held: usize,
    /// How many handshakes are under way
    #[arg(long, value_name = "N", default_value_t = 20, env = "XTASK_HANDSHAKES")]
    handshakes: usize,
    /// The guard's --quiet for long requests, in seconds: they take up to four times that
    #[arg(long, value_name = "SECONDS", default_value_t = 5, env = "XTASK_QUIET", value_parser = clap::value_parser!(u16).range(1..=60))]
    quiet: u16,
    /// Servers to guard: names of peers/README.md, nginx, nginx-reuseport, haproxy; what one does not have is left out
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "gin-default,node-default,uvicorn,gunicorn",
        env = "XTASK_SERVERS"
    )]
    servers: Vec<String>,
    #[command(flatten)]
    rights: Rights,
    /// Print JSON instead of a table
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
}

/// How long anything may take that has no time of its own.
const LIMIT: Duration = Duration::from_secs(60);

/// How a server's clients fared.
#[derive(Serialize)]
struct Row {
    server: String,
    resting: kept::Resting,
    busy: kept::Busy,
    classes: Vec<Class>,
}

/// So many of a class were answered to the end, of all.
#[derive(Serialize)]
struct Class {
    what: String,
    during: &'static str,
    whole: usize,
    all: usize,
    /// What became of the others, each once.
    otherwise: Vec<String>,
}

impl Class {
    /// Counts what clients tell: nothing, where all was well.
    fn of(what: impl Into<String>, during: During, told: Vec<Result<(), String>>) -> Self {
        let all = told.len();
        let mut otherwise: Vec<_> = told.into_iter().filter_map(Result::err).collect();
        let whole = all - otherwise.len();
        otherwise.sort();
        otherwise.dedup();
        Self {
            what: what.into(),
            during: during.name(),
            whole,
            all,
            otherwise,
        }
    }
}

/// What the server is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum During {
    Restart,
    Stop,
}

impl During {
    const BOTH: [Self; 2] = [Self::Restart, Self::Stop];

    fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

impl Row {
    fn holds(&self) -> bool {
        let classes = &self.classes;
        self.resting.holds()
            && self.busy.holds()
            && classes.iter().all(|class| class.whole == class.all)
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    build_command(workspace)?;
    let folder = Folder::new("patience")?;
    arguments.rights.open(&folder)?;
    let (names, rights) = (&arguments.servers, arguments.rights);
    let servers = Server::choose(workspace, folder.path(), names, rights)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let run_dir = folder.path().join("guards");
    let mut rows = Vec::new();
    for server in &servers {
        let row = runtime.block_on(row(server, &run_dir, arguments));
        rows.push(row.with_context(|| server.framework)?);
    }
    progress::clear();
    if arguments.json {
        let document = serde_json::json!({"schema": 1, "rows": rows});
        println!("{}", serde_json::to_string(&document)?);
    } else {
        rows.iter().for_each(print);
    }
    Ok(match rows.iter().all(Row::holds) {
        true => Verdict::Holds,
        false => Verdict::Broken,
    })
}

async fn row(server: &Server<'_>, run_dir: &Path, arguments: &Arguments) -> anyhow::Result<Row> {
    let ground = Ground { server, run_dir };
    let resting = kept::resting(&ground, arguments.restarts, arguments.resting).await?;
    let busy = kept::busy(&ground, arguments.restarts).await?;
    let quiet = Duration::from_secs(arguments.quiet.into());
    let mut classes = long::measure(&ground, arguments.each, quiet).await?;
    for during in During::BOTH {
        classes.push(waiting::in_the_queue(&ground, arguments.held, during).await?);
        classes.push(waiting::shaking_hands(&ground, arguments.handshakes, during).await?);
    }
    Ok(Row {
        server: server.framework.to_owned(),
        resting,
        busy,
        classes,
    })
}

/// Where a server is guarded.
struct Ground<'a> {
    server: &'a Server<'a>,
    run_dir: &'a Path,
}

/// A server under a guard.
struct Guarded {
    guard: Process,
    address: std::net::SocketAddr,
    /// The generation that takes what connects.
    generation: u32,
}

impl Ground<'_> {
    fn progress(&self, what: &str) {
        progress::line(&format!("{}: {what}", self.server.framework));
    }

    async fn start(&self, options: &[&str]) -> anyhow::Result<Guarded> {
        let address = free_port()?;
        let spawn = self.server.guarded(address.port(), self.run_dir, options);
        let mut guard = spawn.start()?;
        guard.wait_listening(address, LIMIT).await?;
        // The guard hears of it a moment later.
        guard.wait_output("generation 1 listens on", LIMIT).await?;
        Ok(Guarded {
            guard,
            address,
            generation: 1,
        })
    }
}

impl Guarded {
    /// Starts the next generation; returns when new connections go to it.
    async fn restart(&mut self) -> anyhow::Result<()> {
        self.guard.signal(libc::SIGHUP)?;
        self.generation += 1;
        let takes = format!("generation {} takes what connects", self.generation);
        self.guard.wait_line(&takes, LIMIT).await?;
        Ok(())
    }

    /// Waits until the generation before has ended; returns how many connections the guard says it cut, and how many
    /// that were under way the application has ended itself.
    async fn before_has_ended(&mut self, limit: Duration) -> anyhow::Result<(usize, usize)> {
        let ended = format!("generation {} has ended after ", self.generation - 1);
        let said = self.guard.wait_line(&ended, limit).await?;
        Ok((cut_off(&said)?, by_itself(&said)?))
    }

    /// Waits until everything has ended; with 0, if nothing was cut off.
    async fn has_ended(&mut self, limit: Duration) -> anyhow::Result<()> {
        let exit = self.guard.wait_exit(limit).await?;
        let words = self.guard.stderr();
        ensure!(exit.ended == Ended::Code(0), "{}: {words}", exit.ended);
        Ok(())
    }
}

/// How many connections were cut off, by the guard's word.
///
/// Reads `5.2s: nothing was cut off` or `30s: 2 cut off: connection …`.
pub(crate) fn cut_off(said: &str) -> anyhow::Result<usize> {
    let (_, cut) = said.split_once(": ").context("no time")?;
    if cut.starts_with("nothing was cut off") {
        return Ok(0);
    }
    let count = cut.split_once(" cut off: ").map(|(count, _)| count.parse());
    Ok(count.with_context(|| said.to_owned())??)
}

/// How many that were under way the application has ended itself, by the guard's word.
fn by_itself(said: &str) -> anyhow::Result<usize> {
    let ended = said.strip_suffix(" that were under way the application ended itself");
    let ended = ended.and_then(|said| said.rsplit_once("; "));
    Ok(ended.map_or(Ok(0), |(_, count)| count.parse())?)
}

fn print(row: &Row) {
    let (resting, busy) = (&row.resting, &row.busy);
    println!("{}", row.server);
    println!("    {resting}");
    println!("    {busy}");
    for class in &row.classes {
        let (what, during) = (&class.what, class.during);
        let (whole, all) = (class.whole, class.all);
        println!("    {what:52} {during:8} {whole:>4} of {all:>4}");
        for otherwise in &class.otherwise {
            println!("        otherwise: {otherwise}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guard_says_is_read() {
        let table = [
            ("1s 20ms: nothing was cut off", Some(0), 0),
            (
                "2s: 12 cut off: connection 127.0.0.1:80 from 127.0.0.1:4000",
                Some(12),
                0,
            ),
            (
                "2s: 1 cut off: connection 127.0.0.1:80 from 127.0.0.1:4000; 9 that were under way the application \
                 ended itself",
                Some(1),
                9,
            ),
            ("2s: some cut off: connection", None, 0),
            ("2s", None, 0),
        ];
        for (said, cut, ended) in table {
            assert_eq!(cut_off(said).ok(), cut, "{said}");
            assert_eq!(by_itself(said).ok(), Some(ended), "{said}");
        }
    }
}
