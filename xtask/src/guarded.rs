//! `cargo xtask guarded`: what clients notice when servers of many kinds are stopped, restarted and killed
//! under `sundown run`.
//!
//! Every client connects for each request, with bytes of its own and no second try. Beside each server the
//! same is measured without a guard: its plain stop, a stop and a start in the place of a restart, and, where a
//! server has one, its own reload. Such a server's restarts are measured with clients that keep their connections,
//! too, both ways.

pub(crate) mod rights;
mod row;
pub(crate) mod server;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use sundown_verify::http1::{Connection, Letter};
use sundown_verify::outcome::{Outcome, judge};
use sundown_verify::process::{Ended, Spawn, free_port};
use sundown_verify::tcp::Window;
use sundown_verify::{Kind, Load, Plan, Process, Request, Requests};

use crate::folder::Folder;
use crate::patience::cut_off;
use crate::workspace::Workspace;
use crate::{Verdict, progress};
use rights::Rights;
use row::{Noticed, Row, Times};
use server::Server;

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
    /// Servers to guard: names of peers/README.md, nginx, nginx-reuseport, haproxy; with -passed behind it, one that
    /// takes the socket that the guard passes
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "gin-default,beego-default,node-default,uvicorn,gunicorn,gunicorn-sync,python-threads,nginx,nginx-reuseport,haproxy,go-net-http-passed,gunicorn-passed,spring",
        env = "XTASK_SERVERS"
    )]
    servers: Vec<String>,
    #[command(flatten)]
    rights: Rights,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How many clients ask for what is answered at once, and for what takes a while, each on a connection of
/// its own.
const CLIENTS: [usize; 2] = [8, 4];

type Loads = [Load; CLIENTS.len()];

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    build_command(workspace)?;
    let folder = Folder::new("guarded")?;
    arguments.rights.open(&folder)?;
    let (names, rights) = (&arguments.servers, arguments.rights);
    let servers = Server::choose(workspace, folder.path(), names, rights)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let run_dir = folder.path().join("guards");
    if !arguments.json {
        row::print_heading();
    }
    let mut rows = Vec::new();
    for server in &servers {
        let measuring = Measuring {
            arguments,
            server,
            run_dir: &run_dir,
        };
        let row = runtime.block_on(measuring.row());
        let row = row.with_context(|| server.framework)?;
        progress::clear();
        if !arguments.json {
            println!("{row}");
        }
        rows.push(row);
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&rows)?);
    }
    let times = Times {
        restarts: arguments.restarts,
        kills: arguments.kills,
    };
    let in_flight = CLIENTS.iter().sum::<usize>() as u64;
    Ok(match rows.iter().all(|row| row.holds(times, in_flight)) {
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
        self.without_guard(&mut row).await?;
        if let Some(signal) = self.server.reloads_at() {
            row.own_reloads = Some(self.reload(signal, Kind::NewConnection).await?);
            self.restart_kept(&mut row).await?;
            row.own_reloads_kept = Some(self.reload(signal, Kind::KeepAlive).await?);
        }
        Ok(row)
    }

    async fn without_guard(&self, row: &mut Row) -> anyhow::Result<()> {
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
        Ok(())
    }

    fn progress(&self, what: &str, number: u32) {
        progress::line(&format!("{}: {what} {}", self.server.framework, number + 1));
    }

    async fn stop(&self, guarded: bool, row: &mut Row) -> anyhow::Result<()> {
        let how = if guarded { How::Guarded } else { How::Plain };
        let (mut server, loads, _) = self.start(how, Kind::NewConnection).await?;
        pause().await;
        server.signal(libc::SIGTERM)?;
        let exit = server.wait_exit(LIMIT).await?;
        if guarded {
            row.stops.add(loads).await;
            if exit.ended != Ended::Code(0) {
                row.exits_nonzero += 1;
                progress::clear();
                let words = server.stderr();
                eprintln!(
                    "{}: the guard ended with {}: {words}",
                    row.server, exit.ended
                );
            }
        } else {
            row.plain_stops.add(loads).await;
        }
        Ok(())
    }

    async fn restart(&self, row: &mut Row) -> anyhow::Result<()> {
        let (mut server, loads, _) = self.start(How::Guarded, Kind::NewConnection).await?;
        for number in 1..=self.arguments.restarts {
            self.progress("restart", number - 1);
            pause().await;
            let began = std::time::Instant::now();
            let said = next_generation(&mut server, number).await?;
            row.restart_ms.push(began.elapsed().as_millis() as u64);
            anyhow::ensure!(said.ends_with("nothing was cut off"), "{said}");
        }
        row.restarts.add(loads).await;
        end(server).await
    }

    /// Restarts with clients that keep their connections and are always busy, so that each takes all of the drain.
    async fn restart_kept(&self, row: &mut Row) -> anyhow::Result<()> {
        let (mut server, loads, _) = self.start(How::GuardedBriefly, Kind::KeepAlive).await?;
        for number in 1..=self.arguments.restarts {
            self.progress("restart with kept connections", number - 1);
            pause().await;
            let said = next_generation(&mut server, number).await?;
            row.kept_cut_off += cut_off(&said)?;
        }
        let noticed = row.restarts_kept.insert(Noticed::default());
        noticed.add(loads).await;
        end(server).await
    }

    async fn kill(&self, row: &mut Row) -> anyhow::Result<()> {
        let (server, loads, _) = self.start(How::Guarded, Kind::NewConnection).await?;
        // A command that ends before it was ever of use is not started again.
        while !self.server.is_ready(self.run_dir) {
            anyhow::ensure!(!server.has_ended(), "it has ended: {}", server.stderr());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for number in 0..self.arguments.kills {
            self.progress("kill", number);
            pause().await;
            let before = self.server.current(self.run_dir)?;
            // SAFETY: it sends a signal; the guard, which has named the process, reaps it.
            unsafe { libc::kill(before, libc::SIGKILL) };
            let began = std::time::Instant::now();
            let current = || self.server.current(self.run_dir);
            while !current().is_ok_and(|now| now != before) {
                let words = server.stderr();
                anyhow::ensure!(began.elapsed() < LIMIT, "nothing takes its place: {words}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        row.kills.add(loads).await;
        end(server).await
    }

    /// What is done where nothing guards: it ends, and is started again at once.
    async fn restart_plainly(&self, signal: i32, noticed: &mut Noticed) -> anyhow::Result<()> {
        let (mut server, loads, target) = self.start(How::Plain, Kind::NewConnection).await?;
        pause().await;
        server.signal(signal)?;
        server.wait_exit(LIMIT).await?;
        let next = self.spawn(How::Plain, target.port()).start()?;
        pause().await;
        noticed.add(loads).await;
        drop(next);
        Ok(())
    }

    /// What the server does where nothing guards: it replaces its workers, again and again under one load.
    async fn reload(&self, signal: i32, kind: Kind) -> anyhow::Result<Noticed> {
        let (mut server, loads, target) = self.start(How::Reloading, kind).await?;
        // Before it has workers it may not hear the signal yet, which then ends it.
        replaced(&server, target, &[]).await?;
        for number in 0..self.arguments.restarts {
            self.progress("own reload", number);
            pause().await;
            let before = workers(&server);
            server.signal(signal)?;
            replaced(&server, target, &before).await?;
        }
        let mut noticed = Noticed::default();
        noticed.add(loads).await;
        Ok(noticed)
    }

    /// Starts a server, and a load of clients of this kind on its port.
    async fn start(&self, how: How, kind: Kind) -> anyhow::Result<(Process, Loads, SocketAddr)> {
        let target = free_port()?;
        let mut server = self.spawn(how, target.port()).start()?;
        server.wait_listening(target, LIMIT).await?;
        let load = |path: &'static str, clients| {
            let plan = Plan::against(target).with(kind, clients);
            let requests = Requests::every(move |_| Request::get(path));
            Load::start(Plan { requests, ..plan })
        };
        let [at_once, slow] = CLIENTS;
        let loads = [load("/fast", at_once), load(self.server.slow(), slow)];
        Ok((server, loads, target))
    }

    fn spawn(&self, how: How, port: u16) -> Spawn {
        match how {
            How::Guarded => self
                .server
                .guarded(port, self.run_dir, &["--quiet", "300ms"]),
            How::GuardedBriefly => {
                let ends_at = self.server.ends_at();
                let options = [
                    "--quiet",
                    "300ms",
                    "--drain",
                    "3s",
                    "--stop-signal",
                    ends_at,
                ];
                self.server.guarded(port, self.run_dir, &options)
            }
            How::Plain => self.server.plain(port),
            How::Reloading => self.server.reloading(port),
        }
    }
}

/// How a server is run.
#[derive(Clone, Copy)]
enum How {
    Guarded,
    /// Guarded, with a short drain, and told to stop as it wishes.
    GuardedBriefly,
    Plain,
    /// So that it can reload by itself.
    Reloading,
}

/// Has the guard start a generation; returns what it says when the one with this number has ended.
async fn next_generation(guard: &mut Process, number: u32) -> anyhow::Result<String> {
    guard.signal(libc::SIGHUP)?;
    let over = format!("generation {number} has ended after ");
    Ok(guard.wait_line(&over, LIMIT).await?)
}

async fn end(mut guard: Process) -> anyhow::Result<()> {
    guard.signal(libc::SIGTERM)?;
    guard.wait_exit(LIMIT).await?;
    Ok(())
}

/// The processes that a server has started.
fn workers(server: &Process) -> Vec<u32> {
    let mut workers = server.group_members();
    workers.retain(|pid| *pid != server.id());
    workers
}

/// Waits until none of the workers before is left, others are there, and somebody answers.
async fn replaced(server: &Process, target: SocketAddr, before: &[u32]) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    loop {
        let now = workers(server);
        let replaced = !now.is_empty() && now.iter().all(|worker| !before.contains(worker));
        if replaced && answers(target).await {
            return Ok(());
        }
        anyhow::ensure!(!server.has_ended(), "it has ended: {}", server.stderr());
        let words = server.stderr();
        anyhow::ensure!(began.elapsed() < LIMIT, "its workers stay: {words}");
        // The kernel tells nobody that another's child has ended.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn answers(target: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(target, Window::Usual, LIMIT).await else {
        return false;
    };
    let letter = Letter::new(&[Request::get("/fast")], target);
    let exchange = connection.exchange(&letter, LIMIT).await;
    matches!(judge(&exchange.evidence(0)), Outcome::Answered { .. })
}

async fn pause() {
    let pause = rand::rng().random_range(100..400);
    tokio::time::sleep(Duration::from_millis(pause)).await;
}
