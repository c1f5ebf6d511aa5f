//! `cargo xtask peers`: does every peer keep the contract of `peers/README.md`?
//!
//! Says nothing about how well a peer stops under load: that is what the measurements are for.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::http::{Connection, Response};
use super::process::Process;
use super::{PEERS, Peer, Probes, Stop};
use crate::Verdict;
use crate::workspace::Workspace;

const MIB: usize = 1 << 20;

/// How long a peer may take to listen, and to be gone after SIGTERM: as long as a JVM on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Build the peers this machine can build and check that each keeps the contract
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only these peers; without a name, all of them
    #[arg(value_name = "NAME", env = "XTASK_PEERS", value_delimiter = ',')]
    names: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
}

/// What came of checking the peers, as `--json` prints it.
#[derive(Serialize)]
struct Report {
    schema: u32,
    peers: Vec<Row>,
}

/// What came of checking one peer.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    framework: &'static str,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Serialize)]
#[serde(tag = "outcome", rename_all = "lowercase")]
enum Outcome {
    Kept { exit: String, exit_ms: u128 },
    Broken { why: String },
    Skipped { why: String },
}

/// Checks the peers one after the other.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let chosen: Vec<&Peer> = match arguments.names.as_slice() {
        [] => PEERS.iter().collect(),
        names => names
            .iter()
            .map(|name| super::find(name))
            .collect::<Result<_, _>>()?,
    };
    let row = |peer: &&Peer| Row {
        name: peer.name,
        framework: peer.framework,
        outcome: examine(workspace, peer),
    };
    let report = Report {
        schema: 1,
        peers: chosen.iter().map(row).collect(),
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print_table(&report);
    }
    let broken = report
        .peers
        .iter()
        .any(|row| matches!(row.outcome, Outcome::Broken { .. }));
    Ok(if broken {
        Verdict::Broken
    } else {
        Verdict::Holds
    })
}

fn examine(workspace: &Workspace, peer: &Peer) -> Outcome {
    if let Some(why) = peer.missing_toolchain() {
        return Outcome::Skipped { why };
    }
    eprintln!("{}: building and checking", peer.name);
    match peer
        .build(workspace)
        .and_then(|()| keeps_contract(workspace, peer))
    {
        Ok((status, took)) => Outcome::Kept {
            exit: status.to_string(),
            exit_ms: took.as_millis(),
        },
        Err(error) => Outcome::Broken {
            why: format!("{error:#}"),
        },
    }
}

/// Starts the peer, checks every line of the contract on one connection and stops it.
fn keeps_contract(workspace: &Workspace, peer: &Peer) -> anyhow::Result<(ExitStatus, Duration)> {
    let port = free_port()?;
    let mut process =
        Process::start(&mut peer.command(workspace, port)).context("could not start")?;
    let mut connection = connect(&mut process, port)?;
    answers(&mut connection)?;
    if let Some(Probes { ready, live }) = peer.probes {
        for path in [ready, live] {
            let answer = connection.get(path).with_context(|| path.to_owned())?;
            ensure!(answer.status == 200, "{path}: status {}", answer.status);
        }
    }
    if peer.paced {
        let path = "/events?gap=20&count=3";
        let events = b"data: more\n\n".repeat(3);
        expect(path, connection.get(path), &events)?;
    }
    stops(peer, &mut process, connection)
}

fn answers(connection: &mut Connection) -> anyhow::Result<()> {
    expect("GET /", connection.get("/"), b"ok")?;
    expect("GET /fast", connection.get("/fast"), b"ok")?;

    let asked = Instant::now();
    expect("GET /slow", connection.get("/slow?ms=200"), b"ok")?;
    let took = asked.elapsed();
    ensure!(
        took >= Duration::from_millis(200),
        "GET /slow: answered after {took:?} instead of 200ms"
    );

    expect(
        "GET /big",
        connection.get("/big?mib=3"),
        &vec![b'x'; 3 * MIB],
    )?;
    let body = vec![b'y'; 64 * MIB];
    expect(
        "POST /upload",
        connection.post("/upload", &body),
        format!("got {}", body.len()).as_bytes(),
    )?;
    expect(
        "POST /upload, empty",
        connection.post("/upload", &[]),
        b"got 0",
    )
}

/// Terminates the peer while a request is in flight.
fn stops(
    peer: &Peer,
    process: &mut Process,
    mut connection: Connection,
) -> anyhow::Result<(ExitStatus, Duration)> {
    connection.start_get("/slow?ms=600")?;
    ensure!(
        connection.is_silent_for(Duration::from_millis(150))?,
        "GET /slow: answered before its time"
    );
    let asked = Instant::now();
    process.terminate()?;
    if peer.stop != Stop::ByKernel {
        expect(
            "SIGTERM: the request in flight",
            connection.receive(),
            b"ok",
        )?;
    }
    drop(connection);
    let Some(status) = process.exit_within(PATIENCE)? else {
        bail!("SIGTERM: still running after {PATIENCE:?}")
    };
    let took = asked.elapsed();
    let as_said = match peer.stop {
        Stop::Graceful => status.success(),
        Stop::GracefulByCode => status.code() == Some(128 + libc::SIGTERM),
        Stop::GracefulBySignal | Stop::ByKernel => status.signal() == Some(libc::SIGTERM),
    };
    ensure!(as_said, "SIGTERM: ended with {status}");
    Ok((status, took))
}

fn expect(what: &str, found: anyhow::Result<Response>, body: &[u8]) -> anyhow::Result<()> {
    let found = found.with_context(|| what.to_owned())?;
    ensure!(
        found.status == 200,
        "{what}: status {} instead of 200",
        found.status
    );
    let shown = |bytes: &[u8]| match bytes.len() {
        0..=80 => format!("{:?}", String::from_utf8_lossy(bytes)),
        length => format!("{length} bytes"),
    };
    ensure!(
        found.body == body,
        "{what}: {} instead of {}",
        shown(&found.body),
        shown(body)
    );
    Ok(())
}

/// Connects as soon as the peer listens.
fn connect(process: &mut Process, port: u16) -> anyhow::Result<Connection> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Connection::open(port) {
            Ok(connection) => return Ok(connection),
            Err(cause) if Instant::now() > deadline => {
                return Err(cause).with_context(|| format!("does not listen within {PATIENCE:?}"));
            }
            Err(_) => {}
        }
        if let Some(status) = process.exit_within(Duration::from_millis(10))? {
            bail!("ended before it listened: {status}");
        }
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn print_table(report: &Report) {
    println!(
        "{:<14} {:<21} {:<8} how it ended",
        "peer", "framework", "contract"
    );
    for Row {
        name,
        framework,
        outcome,
    } in &report.peers
    {
        let (word, detail) = match outcome {
            Outcome::Kept { exit, exit_ms } => {
                ("kept", format!("{exit}, {exit_ms} ms after SIGTERM"))
            }
            Outcome::Broken { why } => ("broken", why.clone()),
            Outcome::Skipped { why } => ("skipped", why.clone()),
        };
        println!("{name:<14} {framework:<21} {word:<8} {detail}");
    }
}
