//! Plays one side: starts the shop, puts it under load, stops it, counts and audits.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use indicatif::ProgressBar;
use sundown_verify::plan::{Plan, Request, Requests};
use sundown_verify::process::{Ended, Process, Spawn};
use sundown_verify::{Kind, Load};

use super::outcome::Outcome;
use super::witness::{self, Orders, order_id, trace_id};

/// How long a service may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(40);

/// How often the progress line is renewed.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Write, answer, call; `axum::serve` with its graceful shutdown.
    Plain,
    Sundown,
}

impl Side {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sundown => "sundown",
        }
    }
}

/// A folder of its own for the databases; gone when dropped.
pub(super) struct Workshop(PathBuf);

impl Workshop {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("sundown-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self(folder))
    }

    fn database(&self, side: Side, service: &str) -> String {
        format!(
            "sqlite:{}",
            self.0
                .join(format!("{}-{service}.db", side.label()))
                .display()
        )
    }

    fn log(&self, side: Side, service: &str) -> PathBuf {
        self.0.join(format!("{}-{service}.log", side.label()))
    }

    fn report(&self, side: Side) -> PathBuf {
        self.0.join(format!("{}-report.json", side.label()))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // A folder that stays is untidy, not wrong.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The two services of one side.
struct Shop {
    orders: Process,
    inventory: Process,
    address: SocketAddr,
}

pub(super) async fn play(
    workshop: &Workshop,
    side: Side,
    load: Duration,
    progress: &ProgressBar,
) -> anyhow::Result<Outcome> {
    let mut shop = open(workshop, side).await?;
    let orders_of_clients = Orders::default();
    let running = Load::start(plan(shop.address, &orders_of_clients));
    watch(&running, load, progress).await;
    progress.set_message("SIGTERM to both services");
    let in_flight_at_signal = running.in_flight();
    let (under_way, signalled) = (orders_of_clients.under_way(), SystemTime::now());
    shop.orders.signal(libc::SIGTERM)?;
    shop.inventory.signal(libc::SIGTERM)?;
    let (orders, inventory) = tokio::join!(
        shop.orders.wait_exit(PATIENCE),
        shop.inventory.wait_exit(PATIENCE)
    );
    let (orders, inventory) = (orders?, inventory?);
    let tally = running.finish().await;
    let audit = shop::audit(
        &workshop.database(side, "orders"),
        &workshop.database(side, "inventory"),
    )
    .await?;
    let acknowledged = orders_of_clients.acknowledged();
    let ids: Vec<String> = acknowledged.iter().copied().map(order_id).collect();
    let answered_after = acknowledged
        .into_iter()
        .filter(|tag| under_way.contains(tag));
    let logs = ["orders", "inventory"].map(|service| workshop.log(side, service));
    let logs = [logs[0].as_path(), logs[1].as_path()];
    Ok(Outcome {
        tally,
        in_flight_at_signal,
        under_way: witness::find(answered_after, &logs, signalled),
        acknowledged: ids.len(),
        acknowledged_missing: audit
            .missing_acknowledged(ids.iter().map(String::as_str))
            .len(),
        orders_without_stock: audit.orders_without_stock,
        stock_without_order: audit.stock_without_order,
        orders_waiting_in_outbox: audit.orders_awaiting_stock,
        exit_code: worse(code(orders.ended), code(inventory.ended)),
        exit: orders.after.max(inventory.after),
        phases: phases(&workshop.report(side)),
    })
}

async fn open(workshop: &Workshop, side: Side) -> anyhow::Result<Shop> {
    let (inventory, stock) = start(workshop, side, "inventory", &[]).await?;
    let url = format!("http://{stock}");
    let (orders, address) = start(workshop, side, "orders", &["--inventory", &url]).await?;
    Ok(Shop {
        orders,
        inventory,
        address,
    })
}

/// Starts a service from this same file and waits until it says where it listens.
async fn start(
    workshop: &Workshop,
    side: Side,
    service: &str,
    more: &[&str],
) -> anyhow::Result<(Process, SocketAddr)> {
    let database = workshop.database(side, service);
    let mut spawn = Spawn::new(std::env::current_exe()?)
        .args([
            "__shop",
            service,
            "--listen",
            "127.0.0.1:0",
            "--database",
            &database,
        ])
        .args(more);
    if side == Side::Plain {
        spawn = spawn.arg("--naive");
    } else {
        let log = workshop.log(side, service);
        spawn = spawn
            .args(["--log", "warn,shop=info", "--log-file"])
            .arg(log);
    }
    if service == "orders" {
        spawn = spawn.env("SUNDOWN_REPORT", workshop.report(side));
    }
    let mut process = spawn.start()?;
    let said = process.wait_line("http on ", PATIENCE).await;
    let said = said.with_context(|| format!("{service} did not start: {}", process.stderr()))?;
    let address = said
        .parse()
        .with_context(|| format!("{service} did not say where it listens: {said}"))?;
    Ok((process, address))
}

fn plan(target: SocketAddr, orders: &Orders) -> Plan {
    let image = vec![0x89_u8; 96 << 10];
    let begun = orders.clone();
    let begin = move |tag| {
        begun.begin(tag);
        order(tag)
    };
    let requests = Requests::every(begin)
        .with(Kind::Slow, |tag| Request::get("/report?ms=300").tagged(tag))
        .with(Kind::SlowUpload, move |tag| {
            Request::post("/images", image.clone()).tagged(tag)
        });
    let orders = orders.clone();
    let mut plan = Plan::against(target)
        .with(Kind::KeepAlive, 24)
        .with(Kind::NewConnection, 24)
        .with(Kind::HalfHead, 6)
        .with(Kind::Slow, 6)
        .with(Kind::SlowUpload, 6);
    plan.requests = requests;
    plan.hang_limit = Duration::from_secs(10);
    plan.on_answer = Some(Arc::new(move |request, status, _| {
        if request.path == "/orders" {
            orders.end(request.tag, status);
        }
    }));
    plan
}

fn order(tag: u64) -> Request {
    let body = format!(r#"{{"id":"{}","item":"tea","quantity":1}}"#, order_id(tag));
    let json = http::HeaderValue::from_static("application/json");
    let parent = format!("00-{}-00000000000000c1-01", trace_id(tag));
    let parent = parent.parse().expect("digits and dashes");
    Request::post("/orders", body)
        .header(http::header::CONTENT_TYPE, json)
        .header(http::HeaderName::from_static("traceparent"), parent)
        .tagged(tag)
}

async fn watch(running: &Load, load: Duration, progress: &ProgressBar) {
    let began = tokio::time::Instant::now();
    while began.elapsed() < load {
        tokio::time::sleep(TICK).await;
        let tally = running.tally();
        progress.set_position(began.elapsed().as_millis() as u64);
        progress.set_message(format!(
            "{} requests answered, {} in flight",
            tally.total.answered,
            running.in_flight()
        ));
    }
}

/// The phases of the stop that the report tells; a service without a report has none.
fn phases(report: &Path) -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(report).unwrap_or_default();
    let Ok(report) = serde_json::from_str::<serde_json::Value>(&text) else {
        return Vec::new();
    };
    let phases = report["phases"].as_array().cloned().unwrap_or_default();
    phases
        .iter()
        .filter_map(|phase| {
            Some((
                phase["phase"].as_str()?.replace('_', " "),
                phase["ms"].as_f64()?,
            ))
        })
        .filter(|(phase, _)| phase != "starting" && phase != "ready")
        .collect()
}

/// As a shell says it: 128 + n for a process that signal n killed.
fn code(ended: Ended) -> i32 {
    match ended {
        Ended::Code(code) => code,
        Ended::Signal(signal) => 128 + signal,
    }
}

fn worse(one: i32, other: i32) -> i32 {
    if one == 0 { other } else { one }
}
