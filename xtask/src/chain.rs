//! `cargo xtask chain`: whether one trace goes through services old and new, of two languages, with all they say of it.
//!
//! A client of old, which knows a header of the shop's own and no other, places an order. The order service (Rust)
//! carries it through its outbox to a relay (Go, by OpenTelemetry's own SDK), and that to inventory (Rust), which
//! applies it. Every span that a collector gets of this, and every line that each of them logs of it, must have the
//! client's trace id.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use sundown_verify::process::{Spawn, free_port};

use crate::ask::ask;
use crate::collector::{Collector, Place, Span, Wire};
use crate::folder::Folder;
use crate::peers::RELAY;
use crate::workspace::Workspace;
use crate::{Verdict, progress, shop};

/// Follow the trace of a legacy client through a Rust service, a Go service and a Rust worker
#[derive(clap::Args)]
pub(crate) struct Arguments {}

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";

/// How long a process may take to listen, to do its part, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) fn run(workspace: &Workspace, _: &Arguments) -> anyhow::Result<Verdict> {
    progress::line("building an OpenTelemetry Collector, a relay, and the shop");
    Collector::build(workspace)?;
    RELAY.build(workspace)?;
    workspace.build_shop()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (spans, lines) = runtime.block_on(follow(workspace))?;
    progress::clear();
    judge(&spans, &lines)
}

/// What each service logs, by its name.
type Lines = BTreeMap<&'static str, Vec<Value>>;

async fn follow(workspace: &Workspace) -> anyhow::Result<(Vec<Span>, Lines)> {
    let folder = Folder::new("chain")?;
    let place = Place::free(folder.path(), Wire::Grpc)?;
    let collector = Collector::start(workspace, &place).await?;
    let traced = |spawn: Spawn| place.export_from(spawn.env("OTEL_SERVICE_NAME", "relay"));
    let service = |name: &str| {
        let spawn = shop::service(workspace, folder.path(), name);
        traced(spawn.args(["--log", "warn,shop=info"]))
    };
    let (mut inventory, stock) = shop::started(service("inventory")).await?;
    let relay_at = free_port()?;
    let command = RELAY.command(workspace, relay_at.port());
    let relay = Spawn::new(command.get_program()).args(command.get_args());
    let mut relay = traced(relay.arg(format!("http://{stock}"))).start()?;
    relay.wait_listening(relay_at, PATIENCE).await?;
    let url = format!("http://{relay_at}");
    let (mut orders, front) = shop::started(service("orders").args(["--inventory", &url])).await?;
    order(front).await?;
    let applied = inventory.wait_line("event applied", PATIENCE).await;
    applied.with_context(|| orders.stderr())?;
    let mut lines = Lines::new();
    for (name, process) in [
        ("orders", &mut orders),
        ("relay", &mut relay),
        ("inventory", &mut inventory),
    ] {
        process.signal(libc::SIGTERM)?;
        process.wait_exit(PATIENCE).await?;
        let said = process.stderr();
        let objects = said
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.insert(name, objects.collect());
    }
    Ok((collector.end().await?, lines))
}

/// Places an order as the shop's oldest clients do.
async fn order(front: SocketAddr) -> anyhow::Result<()> {
    let body = r#"{"id":"of-old","item":"tea","quantity":1}"#;
    let headers = [
        ("content-type", "application/json"),
        ("x-shop-trace", TRACE),
    ];
    let answer = ask(front, "POST /orders", &headers, body).await?;
    ensure!(
        answer.status == 201,
        "the order was not taken: {}",
        answer.body
    );
    Ok(())
}

fn judge(spans: &[Span], lines: &Lines) -> anyhow::Result<Verdict> {
    // Each stop is a trace of its own.
    let stops = spans.iter().filter(|span| span.name == "stop");
    let stops: HashSet<&str> = stops.map(|span| span.trace.as_str()).collect();
    let of_chain: Vec<&Span> = spans
        .iter()
        .filter(|span| !stops.contains(span.trace.as_str()))
        .collect();
    let ids: HashSet<&str> = of_chain.iter().map(|span| span.id.as_str()).collect();
    let root = &TRACE[16..];
    let mut holds = true;
    for span in &of_chain {
        let is_told = span.trace == TRACE;
        let is_beneath = span.parent == root || ids.contains(span.parent.as_str());
        holds &= is_told && is_beneath;
        let fault = if is_told && is_beneath {
            ""
        } else {
            "  astray"
        };
        println!(
            "span  {:9} {:14} {}{fault}",
            span.service, span.name, span.trace
        );
    }
    for (service, lines) in lines {
        let of_chain = lines.iter().filter(|line| line.get("traceId").is_some());
        let of_chain: Vec<&Value> = of_chain.collect();
        holds &= !of_chain.is_empty() && of_chain.iter().all(|line| line["traceId"] == TRACE);
        holds &= of_chain.len() == lines.len();
        for line in lines {
            let message = line["message"].as_str().or(line["msg"].as_str());
            let trace = line["traceId"].as_str().unwrap_or("  without a trace");
            println!(
                "line  {service:9} {:14} {trace}",
                message.unwrap_or_default()
            );
        }
    }
    let services: HashSet<&str> = of_chain.iter().map(|span| span.service.as_str()).collect();
    holds &= ["orders", "relay", "inventory"]
        .iter()
        .all(|name| services.contains(name));
    println!(
        "{} spans and {} lines",
        of_chain.len(),
        lines.values().map(Vec::len).sum::<usize>()
    );
    Ok(if holds {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}
