//! `cargo xtask restarts`: what clients notice of a program that is restarted in place, again and again.
//!
//! Three servers, one after another: successors that are of no use, restarts under mixed load, and clients that
//! think for a long time between two requests on one connection.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::Rng;
use serde::Serialize;
use sundown_verify::http1::{Connection, Letter};
use sundown_verify::outcome::{Declined, Persistence, Seen};
use sundown_verify::process::{Spawn, free_port};
use sundown_verify::tally::Counts;
use sundown_verify::tcp::Window;
use sundown_verify::{Endpoint, Kind, Load, Plan, Process, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::folder::Folder;
use crate::workspace::Workspace;
use crate::{Verdict, certificate, peers, progress};

/// Restart a server in place under load, and count what its clients notice
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many restarts under mixed load
    #[arg(long, value_name = "N", default_value_t = 100, env = "XTASK_RESTARTS")]
    restarts: u32,
    /// How many clients keep their connection over restarts
    #[arg(long, value_name = "N", default_value_t = 200, env = "XTASK_THINKERS")]
    thinkers: usize,
    /// How long they think at the most
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = seconds, env = "XTASK_THINK")]
    think: Duration,
    /// Over how many restarts
    #[arg(long, value_name = "N", default_value_t = 10, env = "XTASK_KEPT")]
    kept: u32,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let seconds: u64 = digits.parse().map_err(|_| "write seconds, such as 30s")?;
    Ok(Duration::from_secs(seconds))
}

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a successor that hangs is waited for.
const WITHIN: &str = "2s";

/// How often the server is asked who it is.
const STEP: Duration = Duration::from_millis(5);

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// Successors that were of no use, by what they did.
    useless: Vec<Useless>,
    restarts: u32,
    plain: Tried,
    tls: Tried,
    /// From the signal until the successor answers.
    takes_ms: Vec<u64>,
    thinkers: Thinkers,
}

#[derive(Debug, Serialize)]
struct Useless {
    what: &'static str,
    /// The process before served on.
    served_on: bool,
    tried: Tried,
}

/// Requests, and what became of them.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Tried {
    requests: u64,
    lost: u64,
    refused: u64,
    declined: u64,
}

impl Tried {
    fn of(counts: &Counts) -> Self {
        let refused = counts.declined_as.get(&Declined::Refused);
        Self {
            requests: counts.sent,
            lost: counts.lost,
            refused: refused.copied().unwrap_or(0),
            declined: counts.declined,
        }
    }

    fn holds(self) -> bool {
        self.requests > 0 && self.lost == 0 && self.refused == 0
    }
}

#[derive(Debug, Default, Serialize)]
struct Thinkers {
    clients: usize,
    restarts: u32,
    answers: u64,
    /// Clients whose connection was closed, or told to end, or did not answer.
    lost: usize,
}

impl Found {
    fn holds(&self) -> bool {
        let useless = self.useless.iter();
        useless
            .clone()
            .all(|useless| useless.served_on && useless.tried.holds())
            && self.plain.holds()
            && self.tls.holds()
            && self.thinkers.lost == 0
            && self.thinkers.answers > 0
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let peer = peers::find("sundown")?;
    peer.build(workspace)?;
    let built = peer.command(workspace, 0);
    let folder = Folder::new("restarts")?;
    certificate::write(folder.path())?;
    // A copy: what it is restarted from is another program at times.
    let program = folder.path().join("server");
    fs::copy(built.get_program(), &program).context("could not copy the server")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let mut found = Found::default();
        try_useless(&program, &mut found).await?;
        restart_under_load(&program, arguments, &mut found).await?;
        restart_under_thinkers(&program, arguments, &mut found).await?;
        anyhow::Ok(found)
    })?;
    progress::clear();
    match arguments.json {
        true => println!("{}", serde_json::to_string(&found)?),
        false => print(&found),
    }
    Ok(match found.holds() {
        true => Verdict::Holds,
        false => Verdict::Broken,
    })
}

/// A server, whose process is another after each restart.
struct Server {
    /// The first, with all that it has started.
    process: Process,
    plain: Endpoint,
    tls: Endpoint,
    admin: SocketAddr,
}

impl Server {
    async fn start(program: &Path) -> anyhow::Result<Self> {
        let (plain, tls, admin) = (free_port()?, free_port()?, free_port()?);
        let mut process = Spawn::new(program)
            .arg(plain.port().to_string())
            .arg(tls.port().to_string())
            .arg(program.parent().expect("it lies in a folder"))
            .env("SUNDOWN_ADMIN", admin.to_string())
            .env("SUNDOWN_RESTART_WITHIN", WITHIN)
            .whole()
            .start()?;
        process.wait_listening(plain, LIMIT).await?;
        Ok(Self {
            process,
            plain: plain.into(),
            tls: Endpoint {
                address: tls,
                tls: true,
            },
            admin,
        })
    }

    /// Which process answers.
    async fn pid(&self) -> anyhow::Result<i32> {
        let mut connection = TcpStream::connect(self.admin).await?;
        let request = "GET /lifecycle HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await?;
        let mut status = String::new();
        connection.read_to_string(&mut status).await?;
        let pid = status.split("\"pid\":").nth(1);
        let pid = pid.and_then(|rest| rest.split(',').next()?.parse().ok());
        pid.with_context(|| format!("nobody says who answers: {status}"))
    }

    /// Restarts it; returns the process that answers now, and how long that took.
    async fn restart(&self, before: i32) -> anyhow::Result<(i32, Duration)> {
        let began = Instant::now();
        signal(before, libc::SIGUSR2).with_context(|| self.last_words())?;
        while began.elapsed() < LIMIT {
            let pid = self.pid().await?;
            if pid != before {
                return Ok((pid, began.elapsed()));
            }
            tokio::time::sleep(STEP).await;
        }
        bail!("no successor within {LIMIT:?}: {}", self.last_words())
    }

    /// What it said last.
    fn last_words(&self) -> String {
        let said = self.process.stderr();
        let lines: Vec<&str> = said.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Stops it; what is left of it ends when this is dropped.
    async fn stop(self) -> anyhow::Result<()> {
        signal(self.pid().await?, libc::SIGTERM)?;
        let began = Instant::now();
        while began.elapsed() < LIMIT && !self.process.descendants().is_empty() {
            tokio::time::sleep(STEP).await;
        }
        Ok(())
    }
}

fn signal(pid: i32, signal: i32) -> anyhow::Result<()> {
    // SAFETY: it sends a signal; the process is one that our own server has started.
    let sent = unsafe { libc::kill(pid, signal) };
    anyhow::ensure!(sent == 0, "process {pid} is gone");
    Ok(())
}

fn load(server: &Server) -> [Load; 2] {
    let plain = [
        (Kind::KeepAlive, 16),
        (Kind::NewConnection, 8),
        (Kind::Pipelined, 4),
        (Kind::HalfHead, 4),
        (Kind::Slow, 4),
        (Kind::Http2, 4),
    ];
    let tls = [
        (Kind::KeepAlive, 8),
        (Kind::NewConnection, 2),
        (Kind::Http2, 2),
    ];
    let with = |target: Endpoint, kinds: &[(Kind, usize)]| {
        let plan = Plan::against(target);
        let plan = kinds
            .iter()
            .fold(plan, |plan, (kind, n)| plan.with(*kind, *n));
        Load::start(plan)
    };
    [with(server.plain, &plain), with(server.tls, &tls)]
}

/// Restarts from programs that never become ready; the process before is to serve on.
async fn try_useless(program: &Path, found: &mut Found) -> anyhow::Result<()> {
    let kept = program.with_extension("kept");
    fs::copy(program, &kept)?;
    for what in ["exits with 1", "hangs", "is killed before it is ready"] {
        progress::line(&format!("a successor that {what}"));
        let server = Server::start(program).await?;
        let loads = load(&server);
        let before = server.pid().await?;
        let script = match what {
            "exits with 1" => "#!/bin/sh\nexit 1\n",
            _ => "#!/bin/sh\nexec sleep 600\n",
        };
        replace(program, script.as_bytes())?;
        signal(before, libc::SIGUSR2)?;
        let told = useless_is_told(&server, what).await;
        replace(program, &fs::read(&kept)?)?;
        let served_on = told && server.pid().await? == before;
        let mut tried = Tried::default();
        for load in loads {
            let more = Tried::of(&load.finish().await.total);
            tried.requests += more.requests;
            tried.lost += more.lost;
            tried.refused += more.refused;
            tried.declined += more.declined;
        }
        found.useless.push(Useless {
            what,
            served_on,
            tried,
        });
        server.stop().await?;
    }
    Ok(())
}

/// Another file under the name, as a deployment does it: the one that runs cannot be written to.
fn replace(program: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new: PathBuf = program.with_extension("new");
    fs::write(&new, content)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    fs::rename(&new, program)?;
    Ok(())
}

/// Waits until the server says that it serves on; kills its successor before, where that is to happen.
async fn useless_is_told(server: &Server, what: &str) -> bool {
    let began = Instant::now();
    let mut killed = false;
    while began.elapsed() < LIMIT {
        let told = server.process.stderr();
        if told.contains("restart failed: ") {
            return true;
        }
        let started = told.split("restart: PID ").nth(1);
        let successor = started.and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let (Some(successor), "is killed before it is ready", false) = (successor, what, killed)
        {
            killed = signal(successor, libc::SIGKILL).is_ok();
        }
        tokio::time::sleep(STEP).await;
    }
    false
}

async fn restart_under_load(
    program: &Path,
    arguments: &Arguments,
    found: &mut Found,
) -> anyhow::Result<()> {
    let server = Server::start(program).await?;
    let [plain, tls] = load(&server);
    let mut pid = server.pid().await?;
    for number in 0..arguments.restarts {
        progress::line(&format!("restart {} of {}", number + 1, arguments.restarts));
        let pause = rand::rng().random_range(50..300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let (successor, took) = server.restart(pid).await?;
        pid = successor;
        found.restarts += 1;
        found.takes_ms.push(took.as_millis() as u64);
    }
    found.plain = Tried::of(&plain.finish().await.total);
    found.tls = Tried::of(&tls.finish().await.total);
    server.stop().await
}

async fn restart_under_thinkers(
    program: &Path,
    arguments: &Arguments,
    found: &mut Found,
) -> anyhow::Result<()> {
    let server = Server::start(program).await?;
    let (over, ends) = watch::channel(false);
    let mut clients = JoinSet::new();
    for _ in 0..arguments.thinkers {
        clients.spawn(think(server.plain, arguments.think, ends.clone()));
    }
    let mut pid = server.pid().await?;
    // So that each thinks over some of them.
    let pause = arguments.think / 4;
    for number in 0..arguments.kept {
        progress::line(&format!(
            "restart {} of {} while {} clients think",
            number + 1,
            arguments.kept,
            arguments.thinkers
        ));
        tokio::time::sleep(pause).await;
        pid = server.restart(pid).await?.0;
    }
    over.send_replace(true);
    let thinkers = &mut found.thinkers;
    thinkers.clients = arguments.thinkers;
    thinkers.restarts = arguments.kept;
    for answers in clients.join_all().await {
        match answers {
            Ok(answers) => thinkers.answers += answers,
            Err(_) => thinkers.lost += 1,
        }
    }
    server.stop().await
}

/// Asks on one connection, thinks, and asks again, once more at the end; returns how often it was answered.
async fn think(
    target: Endpoint,
    longest: Duration,
    mut over: watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let letter = Letter::new(&[Request::get("/fast")], target);
    let mut connection = Connection::open(target, Window::Usual, LIMIT).await?;
    let mut answers = 0;
    loop {
        let last = *over.borrow();
        let exchange = connection.exchange(&letter, LIMIT).await;
        let whole = matches!(exchange.evidence(0).seen, Seen::Whole { .. });
        let kept = exchange
            .responses()
            .iter()
            .all(|response| response.persistence == Persistence::KeepAlive);
        anyhow::ensure!(
            whole && kept,
            "the connection is lost after {answers} answers"
        );
        answers += 1;
        if last {
            return Ok(answers);
        }
        let think = longest.mul_f64(rand::rng().random_range(0.0..1.0));
        let _ = tokio::time::timeout(think, over.changed()).await;
    }
}

fn print(found: &Found) {
    let tried = |what: &str, tried: Tried| {
        println!(
            "{what:44} {:>9} requests, {} lost, {} refused, {} declined in order",
            tried.requests,
            tried.lost,
            tried.refused,
            tried.declined - tried.refused
        );
    };
    for useless in &found.useless {
        let served_on = match useless.served_on {
            true => "",
            false => " (THE ONE BEFORE DID NOT SERVE ON)",
        };
        tried(
            &format!("a successor that {}{served_on}", useless.what),
            useless.tried,
        );
    }
    tried(
        &format!("{} restarts, mixed load", found.restarts),
        found.plain,
    );
    tried(&format!("{} restarts, TLS", found.restarts), found.tls);
    let mut takes = found.takes_ms.clone();
    takes.sort_unstable();
    if let (Some(median), Some(slowest)) = (takes.get(takes.len() / 2), takes.last()) {
        println!(
            "from the signal to the successor's answer: p50 {median} ms, slowest {slowest} ms"
        );
    }
    let thinkers = &found.thinkers;
    println!(
        "{} clients that think, {} restarts: {} answers, {} of {} lost their connection",
        thinkers.clients, thinkers.restarts, thinkers.answers, thinkers.lost, thinkers.clients
    );
}
