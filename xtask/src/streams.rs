//! `cargo xtask streams`: how what a server holds open ends when it is told to stop.
//!
//! WebSockets, server-sent events, gRPC calls, HTTP/2 and TLS at a time, over many stops. What another
//! server has none of is left out of its row.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, TE};
use rand::Rng;
use serde::Serialize;
use sundown_verify::http1::{self, Letter};
use sundown_verify::http2::Session;
use sundown_verify::outcome::Seen;
use sundown_verify::process::{Ended, Spawn, free_port};
use sundown_verify::tcp::Window;
use sundown_verify::websocket::{End, WebSocket};
use sundown_verify::{Endpoint, Kind, Load, Outcome, Plan, Process, Request, outcome};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::folder::Folder;
use crate::peers::{self, Peer};
use crate::workspace::Workspace;
use crate::{Verdict, certificate, progress};

/// Stop servers with WebSockets, event streams, gRPC calls and TLS open, and say how each ended
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many stops of ours; of the others a tenth, since they may have to be killed
    #[arg(long, value_name = "N", default_value_t = 100, env = "XTASK_STOPS")]
    stops: u32,
    /// How many WebSockets, every second of which talks; and how many event streams
    #[arg(long, value_name = "N", default_value_t = 200, env = "XTASK_OPEN")]
    open: usize,
    /// How many gRPC calls that go on
    #[arg(long, value_name = "N", default_value_t = 50, env = "XTASK_CALLS")]
    calls: usize,
    /// Servers to compare with: names of peers/README.md; none where it is empty
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "axum"
    )]
    against: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// How long a client waits for anything; longer than any stop.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a server may take to listen, or to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Ours is given this: calls that go on for ever may stay to the end of the drain.
const BUDGET: [(&str, &str); 2] = [("SUNDOWN_GRACE", "3s"), ("SUNDOWN_RELEASE", "500ms")];

/// How often a WebSocket that talks does.
const TALK: Duration = Duration::from_millis(20);

/// How many unary calls and how many connections under TLS ask again and again.
const ASKING: usize = 8;

/// gRPC's statuses for a call that was finished, and for one that another server can answer.
const IN_ORDER: [&str; 2] = ["0", "14"];

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// So many of a class ended as they should, of all.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Ends {
    in_order: usize,
    all: usize,
}

impl Ends {
    fn note(&mut self, in_order: bool) {
        self.in_order += usize::from(in_order);
        self.all += 1;
    }

    fn holds(self) -> bool {
        self.in_order == self.all
    }
}

/// How one server's stops went.
#[derive(Debug, Default, Serialize)]
struct Row {
    server: String,
    stops: u32,
    /// Told close with 1001.
    websockets: Ends,
    /// Ended by the last chunk, behind an event.
    events: Ends,
    /// Ended with OK or UNAVAILABLE.
    calls: Ends,
    /// Unary calls, again and again until the end.
    unary: Ends,
    /// HTTP/2 connections that were told twice to go away.
    sessions: Ends,
    /// Requests under TLS that were not lost.
    tls: Ends,
    /// Ended by itself, with 0.
    exits: Ends,
    exit_ms: Vec<u64>,
}

impl Row {
    fn classes(&self) -> [(&'static str, Ends); 7] {
        [
            ("WebSockets told 1001", self.websockets),
            ("events ended behind one", self.events),
            ("gRPC streams with a status", self.calls),
            ("unary gRPC calls answered", self.unary),
            ("HTTP/2 told twice", self.sessions),
            ("TLS requests not lost", self.tls),
            ("exits with 0", self.exits),
        ]
    }
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let others = arguments.against.iter().map(String::as_str);
    let names = ["sundown"]
        .into_iter()
        .chain(others.filter(|name| !name.is_empty()));
    let all: Vec<&'static Peer> = names.map(peers::find).collect::<anyhow::Result<_>>()?;
    for peer in &all {
        peer.build(workspace)?;
    }
    let folder = Folder::new("streams")?;
    certificate::write(folder.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(measure(workspace, folder.path(), arguments, &all))?;
    if arguments.json {
        let document = serde_json::json!({"schema": 1, "rows": rows});
        println!("{}", serde_json::to_string(&document)?);
    } else {
        rows.iter().for_each(print);
    }
    let ours = rows.first().expect("ours is the first");
    Ok(if ours.classes().iter().all(|(_, ends)| ends.holds()) {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

async fn measure(
    workspace: &Workspace,
    folder: &Path,
    arguments: &Arguments,
    all: &[&'static Peer],
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = all.iter().map(|peer| Row::of(peer)).collect();
    for round in 0..arguments.stops {
        progress::line(&format!("stop {} of {}", round + 1, arguments.stops));
        for (peer, row) in all.iter().zip(&mut rows) {
            if peer.name == "sundown" || round % 10 == 0 {
                stop(workspace, folder, arguments, peer, row)
                    .await
                    .context(peer.framework)?;
            }
        }
    }
    progress::clear();
    Ok(rows)
}

impl Row {
    fn of(peer: &Peer) -> Self {
        Self {
            server: peer.framework.to_owned(),
            ..Self::default()
        }
    }
}

/// Opens everything, stops the server, and waits for all ends.
async fn stop(
    workspace: &Workspace,
    folder: &Path,
    arguments: &Arguments,
    peer: &Peer,
    row: &mut Row,
) -> anyhow::Result<()> {
    let plain = free_port()?;
    let tls = peer.tls.then(free_port).transpose()?;
    let command = peer.command(workspace, plain.port());
    let mut spawn = Spawn::new(command.get_program()).args(command.get_args());
    for (name, value) in BUDGET {
        spawn = spawn.env(name, value);
    }
    if let Some(tls) = tls {
        spawn = spawn.arg(tls.port().to_string()).arg(folder);
    }
    let mut server = spawn.start()?;
    server.wait_listening(plain, PATIENCE).await?;

    let mut websockets = JoinSet::new();
    for number in 0..arguments.open {
        let websocket = WebSocket::open(plain.into(), "/ws", LIMIT).await;
        let websocket = websocket.map_err(anyhow::Error::msg)?;
        websockets.spawn(async move {
            match number % 2 {
                0 => websocket.talk_to_end(TALK).await,
                _ => websocket.read_to_end().await,
            }
        });
    }
    let mut events = JoinSet::new();
    for _ in 0..arguments.open {
        events.spawn(read_events(plain.into()));
    }
    let (stopping, stopped) = watch::channel(false);
    let mut calls = JoinSet::new();
    let mut unary = JoinSet::new();
    if let Some(method) = peer.grpc {
        for _ in 0..arguments.calls {
            calls.spawn(call(plain.into(), method));
        }
        for _ in 0..ASKING {
            unary.spawn(call_again(plain.into(), method, stopped.clone()));
        }
    }
    let under_tls = tls.map(|address| {
        let endpoint = Endpoint { address, tls: true };
        Load::start(Plan::against(endpoint).with(Kind::KeepAlive, ASKING))
    });
    let instant = rand::rng().random_range(200..500);
    tokio::time::sleep(Duration::from_millis(instant)).await;

    server.signal(libc::SIGTERM)?;
    let _ = stopping.send(true);
    end(&mut server, row).await?;
    row.stops += 1;
    for end in websockets.join_all().await {
        row.websockets.note(end == End::Close(1001));
    }
    for in_order in events.join_all().await {
        row.events.note(in_order);
    }
    for called in calls.join_all().await {
        let (in_order, told_twice) = called?;
        row.calls.note(in_order);
        row.sessions.note(told_twice);
    }
    for called in unary.join_all().await {
        let (ends, told_twice) = called?;
        row.unary.in_order += ends.in_order;
        row.unary.all += ends.all;
        row.sessions.note(told_twice);
    }
    if let Some(load) = under_tls {
        let total = load.finish().await.total;
        row.tls.in_order += (total.answered + total.declined) as usize;
        row.tls.all += (total.answered + total.declined + total.lost) as usize;
    }
    Ok(())
}

/// Waits for the end, and brings it about as a supervisor does.
async fn end(server: &mut Process, row: &mut Row) -> anyhow::Result<()> {
    let Ok(exit) = server.wait_exit(PATIENCE).await else {
        server.signal(libc::SIGKILL)?;
        server.wait_exit(PATIENCE).await?;
        row.exits.note(false);
        return Ok(());
    };
    row.exits.note(exit.ended == Ended::Code(0));
    row.exit_ms.push(exit.after.as_millis() as u64);
    Ok(())
}

/// Reads events to their end; true when that is where they may end.
async fn read_events(target: Endpoint) -> bool {
    let letter = Letter::new(&[Request::get("/events")], target);
    let Ok(mut connection) = http1::Connection::open(target, Window::Usual, LIMIT).await else {
        return false;
    };
    let exchange = connection.exchange(&letter, LIMIT).await;
    let whole = matches!(exchange.evidence(0).seen, Seen::Whole { .. });
    whole && exchange.last_bytes().ends_with(b"\n\n")
}

fn request(method: &str) -> Request {
    // An empty message: not compressed, of no length.
    Request::post(method, vec![0; 5])
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
}

/// Calls what goes on for ever; tells whether it ended with a status, and its connection was told twice.
async fn call(target: Endpoint, method: &str) -> anyhow::Result<(bool, bool)> {
    let session = open(target).await?;
    let exchange = session.exchange(&request(method), LIMIT).await;
    let status = exchange.field("grpc-status");
    let in_order = status.is_some_and(|status| IN_ORDER.contains(&status));
    Ok((in_order, was_told_twice(&session)))
}

/// Calls again and again until the server says that it goes away, beside a call that goes on: without that
/// the client would leave at the first word, and not hear the second.
async fn call_again(
    target: Endpoint,
    method: &str,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<(Ends, bool)> {
    let session = open(target).await?;
    let goes_on = request(method);
    let asking = async {
        let mut ends = Ends::default();
        while session.last_stream().is_none() {
            let exchange = session.exchange(&request(CHECK), LIMIT).await;
            let answered = exchange.field("grpc-status") == Some("0");
            let declined = matches!(outcome::judge(&exchange.evidence()), Outcome::Declined(_));
            ends.note(answered || (declined && *stopped.borrow()));
        }
        ends
    };
    let (ends, _) = tokio::join!(asking, session.exchange(&goes_on, LIMIT));
    Ok((ends, was_told_twice(&session)))
}

async fn open(target: Endpoint) -> anyhow::Result<Session> {
    let opened = Session::open(target, LIMIT).await;
    opened.map_err(|unmade| unmade.error.into())
}

/// First a GOAWAY that declines nothing, then the one that says where it ends.
fn was_told_twice(session: &Session) -> bool {
    const HIGHEST: u32 = 0x7fff_ffff;
    session.was_warned() && session.last_stream().is_some_and(|last| last < HIGHEST)
}

fn print(row: &Row) {
    let mut exits = row.exit_ms.clone();
    exits.sort_unstable();
    let median = exits.get(exits.len() / 2);
    let median = median.map_or_else(|| "never".to_owned(), |median| format!("{median} ms"));
    println!("{}, {} stops, exit p50 {median}", row.server, row.stops);
    for (what, ends) in row.classes().into_iter().filter(|(_, ends)| ends.all > 0) {
        println!("    {what:28} {:>8} of {:>8}", ends.in_order, ends.all);
    }
}
