//! `cargo xtask guarded`: what clients notice when servers of many kinds are stopped, restarted and killed
//! under `sundown run`.
//!
//! Every client connects for each request, with bytes of its own and no second try. Beside each server the
//! same is measured without a guard: its plain stop, and a stop and a start in the place of a restart.

pub(crate) mod server;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use serde::Serialize;
use sundown_verify::process::{Ended, Spawn, free_port};
use sundown_verify::{Declined, Kind, Load, Plan, Process, Request, Requests};

use crate::folder::Folder;
use crate::workspace::Workspace;
use crate::{Verdict, progress};
use server::{NOBODY, Rights, Server};

/// Stop, restart and kill servers under `sundown run`, and count what their clients notice
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many stops of each server, under load
    #[arg(long, value_name = "N", default_value_t = 20, env = "XTASK_STOPS")]
    stops: u32,
    /// How many restarts of each server, under load
    #[arg(long, value_name = "N", default_value_t = 20, env = "XTASK_RESTARTS")]
    restarts: u32,
    /// How many SIGKILLs of each server, under load
    #[arg(long, value_name = "N", default_value_t = 10, env = "XTASK_KILLS")]
    kills: u32,
    /// Servers to guard: names of peers/README.md, nginx, nginx-reuseport; with -passed behind it, one that takes
    /// the socket that the guard passes
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "gin-default,beego-default,node-default,uvicorn,gunicorn,gunicorn-sync,python-threads,nginx,nginx-reuseport,go-net-http-passed,gunicorn-passed,spring",
        env = "XTASK_SERVERS"
    )]
    servers: Vec<String>,
    /// Guard as an ordinary user without capabilities, if this runs as root
    #[arg(long, env = "XTASK_ORDINARY_USER", conflicts_with = "deny_descriptors")]
    ordinary_user: bool,
    /// Deny pidfd_getfd to the guard, as most containers do
    #[arg(long, env = "XTASK_DENY_DESCRIPTORS")]
    deny_descriptors: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    fn rights(&self) -> Rights {
        match (self.ordinary_user, self.deny_descriptors) {
            (true, _) => Rights::OrdinaryUser,
            (_, true) => Rights::NoDescriptors,
            _ => Rights::Ours,
        }
    }
}

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How many clients ask for what is answered at once, and for what takes a while, each on a connection of
/// its own.
const CLIENTS: [usize; 2] = [8, 4];

type Loads = [Load; CLIENTS.len()];

/// What a server's clients noticed.
#[derive(Default, Serialize)]
struct Row {
    server: String,
    stops: Noticed,
    restarts: Noticed,
    kills: Noticed,
    /// The same without a guard; a stop and a start in the place of a restart.
    plain_stops: Noticed,
    plain_restarts: Noticed,
    plain_kills: Noticed,
    /// Milliseconds from SIGHUP until the generation before has ended.
    restart_ms: Vec<u64>,
    exits_nonzero: u32,
}

/// Requests, and what became of those that were not answered.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Noticed {
    requests: u64,
    lost: u64,
    refused: u64,
}

impl Noticed {
    /// Ends loads, and adds what they were answered.
    async fn add(&mut self, loads: Loads) {
        for load in loads {
            let counts = load.finish().await.total;
            self.requests += counts.sent;
            self.lost += counts.lost;
            let refused = counts.declined_as.get(&Declined::Refused);
            self.refused += refused.copied().unwrap_or(0);
        }
    }
}

impl Row {
    /// Who is refused after a stop began was told so; a killed process takes with it what was in flight.
    fn holds(&self, kills: u32) -> bool {
        let in_flight: usize = CLIENTS.iter().sum();
        self.stops.lost == 0
            && self.restarts.lost + self.restarts.refused == 0
            && self.kills.refused == 0
            && self.kills.lost <= u64::from(kills) * in_flight as u64
            && self.exits_nonzero == 0
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    build_command(workspace)?;
    let folder = Folder::new("guarded")?;
    folder.open()?;
    let rights = arguments.rights();
    let servers = Server::choose(workspace, folder.path(), &arguments.servers, rights)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let run_dir = folder.path().join("guards");
    if let Rights::OrdinaryUser = rights {
        std::fs::DirBuilder::new().mode(0o700).create(&run_dir)?;
        std::os::unix::fs::chown(&run_dir, Some(NOBODY), Some(NOBODY))?;
    }
    let mut rows = Vec::new();
    for server in &servers {
        let measuring = Measuring {
            arguments,
            server,
            run_dir: &run_dir,
        };
        let row = runtime.block_on(measuring.row());
        rows.push(row.with_context(|| server.framework)?);
    }
    progress::clear();
    match arguments.json {
        true => println!("{}", serde_json::to_string(&rows)?),
        false => print(&rows),
    }
    Ok(match rows.iter().all(|row| row.holds(arguments.kills)) {
        true => Verdict::Holds,
        false => Verdict::Broken,
    })
}

/// Builds the command whose guard is measured.
///
/// # Errors
/// When it does not build.
pub(crate) fn build_command(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "sundown-cli"]);
    anyhow::ensure!(cargo.status()?.success(), "the command could not be built");
    Ok(())
}

struct Measuring<'a> {
    arguments: &'a Arguments,
    server: &'a Server<'a>,
    /// Where the guard has its socket.
    run_dir: &'a Path,
}

impl Measuring<'_> {
    async fn row(&self) -> anyhow::Result<Row> {
        let mut row = Row {
            server: self.server.framework.to_owned(),
            ..Row::default()
        };
        for number in 0..self.arguments.stops {
            self.progress("stop", number);
            self.stop(true, &mut row).await?;
            self.stop(false, &mut row).await?;
        }
        self.restart(&mut row).await?;
        self.kill(&mut row).await?;
        for number in 0..self.arguments.restarts {
            self.progress("plain restart", number);
            self.restart_plainly(libc::SIGTERM, &mut row.plain_restarts)
                .await?;
        }
        for number in 0..self.arguments.kills {
            self.progress("plain kill", number);
            self.restart_plainly(libc::SIGKILL, &mut row.plain_kills)
                .await?;
        }
        Ok(row)
    }

    fn progress(&self, what: &str, number: u32) {
        progress::line(&format!("{}: {what} {}", self.server.framework, number + 1));
    }

    async fn stop(&self, guarded: bool, row: &mut Row) -> anyhow::Result<()> {
        let (mut server, loads, _) = self.start(guarded).await?;
        pause().await;
        server.signal(libc::SIGTERM)?;
        let exit = server.wait_exit(LIMIT).await?;
        if guarded {
            row.stops.add(loads).await;
            row.exits_nonzero += u32::from(exit.ended != Ended::Code(0));
        } else {
            row.plain_stops.add(loads).await;
        }
        Ok(())
    }

    async fn restart(&self, row: &mut Row) -> anyhow::Result<()> {
        let (mut server, loads, _) = self.start(true).await?;
        for number in 1..=self.arguments.restarts {
            self.progress("restart", number);
            pause().await;
            let began = std::time::Instant::now();
            server.signal(libc::SIGHUP)?;
            let over = format!("generation {number} has ended after ");
            let said = server.wait_line(&over, LIMIT).await?;
            row.restart_ms.push(began.elapsed().as_millis() as u64);
            anyhow::ensure!(said.ends_with("nothing was cut off"), "{said}");
        }
        row.restarts.add(loads).await;
        server.signal(libc::SIGTERM)?;
        server.wait_exit(LIMIT).await?;
        Ok(())
    }

    async fn kill(&self, row: &mut Row) -> anyhow::Result<()> {
        let (mut server, loads, _) = self.start(true).await?;
        for number in 0..self.arguments.kills {
            self.progress("kill", number);
            pause().await;
            let before = self.server.current(self.run_dir)?;
            // SAFETY: it sends a signal; the guard, which has named the process, reaps it.
            unsafe { libc::kill(before, libc::SIGKILL) };
            let began = std::time::Instant::now();
            let current = || self.server.current(self.run_dir);
            while !current().is_ok_and(|now| now != before) {
                anyhow::ensure!(began.elapsed() < LIMIT, "nothing takes its place");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        row.kills.add(loads).await;
        server.signal(libc::SIGTERM)?;
        server.wait_exit(LIMIT).await?;
        Ok(())
    }

    /// What is done where nothing guards: it ends, and is started again at once.
    async fn restart_plainly(&self, signal: i32, noticed: &mut Noticed) -> anyhow::Result<()> {
        let (mut server, loads, port) = self.start(false).await?;
        pause().await;
        server.signal(signal)?;
        server.wait_exit(LIMIT).await?;
        let next = self.spawn(false, port).start()?;
        pause().await;
        noticed.add(loads).await;
        drop(next);
        Ok(())
    }

    /// Starts a server, and the load on its port.
    async fn start(&self, guarded: bool) -> anyhow::Result<(Process, Loads, u16)> {
        let target = free_port()?;
        let mut server = self.spawn(guarded, target.port()).start()?;
        server.wait_listening(target, LIMIT).await?;
        let load = |path: &'static str, clients| {
            let plan = Plan::against(target).with(Kind::NewConnection, clients);
            let requests = Requests::every(move |_| Request::get(path));
            Load::start(Plan { requests, ..plan })
        };
        let [at_once, slow] = CLIENTS;
        let loads = [load("/fast", at_once), load(self.server.slow(), slow)];
        Ok((server, loads, target.port()))
    }

    fn spawn(&self, guarded: bool, port: u16) -> Spawn {
        match guarded {
            true => self
                .server
                .guarded(port, self.run_dir, &["--quiet", "300ms"]),
            false => self.server.plain(port),
        }
    }
}

async fn pause() {
    let pause = rand::rng().random_range(100..400);
    tokio::time::sleep(Duration::from_millis(pause)).await;
}

fn print(rows: &[Row]) {
    println!(
        "{:24} {:>10} {:>6} {:>8}   without: {:>10} {:>6} {:>8}",
        "server", "requests", "lost", "refused", "requests", "lost", "refused"
    );
    for row in rows {
        println!("{}", row.server);
        for (what, guarded, plain) in [
            ("stops", row.stops, row.plain_stops),
            ("restarts", row.restarts, row.plain_restarts),
            ("kills", row.kills, row.plain_kills),
        ] {
            println!(
                "    {what:20} {:>10} {:>6} {:>8}            {:>10} {:>6} {:>8}",
                guarded.requests,
                guarded.lost,
                guarded.refused,
                plain.requests,
                plain.lost,
                plain.refused
            );
        }
        let mut took = row.restart_ms.clone();
        took.sort_unstable();
        let (median, slowest) = (took.get(took.len() / 2), took.last());
        println!(
            "    a restart until the generation before has ended: p50 {} ms, slowest {} ms; exits other than 0: {}",
            median.unwrap_or(&0),
            slowest.unwrap_or(&0),
            row.exits_nonzero
        );
    }
}
