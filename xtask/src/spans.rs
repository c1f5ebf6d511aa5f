//! `cargo xtask spans`: whether each request that a server has answered is with a collector when the process has
//! ended, and whether each span that is not is counted.
//!
//! The shop's order service is stopped by SIGTERM at a random instant under load, before an OpenTelemetry Collector
//! that takes what comes, also over TLS, one that is frozen and comes back, one that is frozen for good, and none. Each
//! request names a trace of its own; of those that were answered, the collector's file must have the span.

use std::collections::HashSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use serde::Serialize;
use serde_json::Value;
use sundown_verify::plan::{Plan, Request, Requests};
use sundown_verify::{Kind, Load};

use crate::collector::{Collector, Place, Wire};
use crate::folder::Folder;
use crate::workspace::Workspace;
use crate::{Verdict, progress, shop};

/// Stop a server that traces each request, under load, and look for the spans of those that it has answered
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many stops before a collector that takes what comes; a tenth of it before each of the others
    #[arg(long, value_name = "N", default_value_t = 100, env = "XTASK_STOPS")]
    stops: u32,
    /// Print JSON instead of a table
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
}

/// How long a process may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// The time that the shop gives its last spans, and what a machine that is busy may add.
const LAST_SPANS: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_millis(500);

/// Spans of a stop: itself, three phases, and two hooks.
const OF_THE_STOP: u64 = 6;

/// What a collector does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Mood {
    /// It takes what comes.
    Up,
    /// It takes what comes, by gRPC over TLS.
    UpGrpcOverTls,
    /// It takes what comes, by HTTP/1.1 over TLS.
    UpHttpOverTls,
    /// It is frozen, and goes on when the signal comes.
    Late,
    /// It is frozen: the kernel takes connections for it, and nobody answers.
    Frozen,
    /// It is not there.
    Down,
}

impl Mood {
    const ALL: [Self; 6] = [
        Self::Up,
        Self::UpGrpcOverTls,
        Self::UpHttpOverTls,
        Self::Late,
        Self::Frozen,
        Self::Down,
    ];

    fn wire(self) -> Wire {
        match self {
            Self::UpGrpcOverTls => Wire::GrpcOverTls,
            Self::UpHttpOverTls => Wire::HttpOverTls,
            Self::Up | Self::Late | Self::Frozen | Self::Down => Wire::Grpc,
        }
    }

    /// Whether what is sent to it arrives.
    fn takes(self) -> bool {
        !matches!(self, Self::Frozen | Self::Down)
    }
}

#[derive(Serialize)]
struct Row {
    collector: Mood,
    stops: u32,
    /// Requests whose answers arrived in full.
    answered: u64,
    /// Spans of requests that the collector has.
    spans: u64,
    /// Those that the service has told not to be sent.
    told: u64,
    /// Answered requests that the collector has no span of, and that the service has not told of.
    lost: u64,
    /// Stops of which the collector has no span, though it was there.
    untraced: u32,
    /// The longest that the last spans took.
    longest_ms: f64,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    progress::line("building an OpenTelemetry Collector, and the shop");
    Collector::build(workspace)?;
    workspace.build_shop()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut rows = Vec::new();
    for collector in Mood::ALL {
        let stops = match collector {
            Mood::Up => arguments.stops,
            _ => arguments.stops.div_ceil(10),
        };
        let mut row = Row::of(collector);
        for stop in 1..=stops {
            progress::line(&format!("collector {collector:?}: stop {stop} of {stops}"));
            runtime.block_on(one(workspace, &mut row))?;
        }
        rows.push(row);
    }
    progress::clear();
    if arguments.json {
        println!("{}", serde_json::json!({"schema": 1, "rows": rows}));
    } else {
        rows.iter().for_each(Row::print);
    }
    let holds = rows.iter().all(Row::holds);
    Ok(if holds {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

impl Row {
    fn of(collector: Mood) -> Self {
        Self {
            collector,
            stops: 0,
            answered: 0,
            spans: 0,
            told: 0,
            lost: 0,
            untraced: 0,
            longest_ms: 0.0,
        }
    }

    fn print(&self) {
        let name = match self.collector {
            Mood::Up => "up",
            Mood::UpGrpcOverTls => "up, gRPC over TLS",
            Mood::UpHttpOverTls => "up, HTTP over TLS",
            Mood::Late => "late",
            Mood::Frozen => "frozen",
            Mood::Down => "down",
        };
        println!(
            "collector {name}: {} stops: {} requests answered, {} spans of requests there, {} told to be unsent, {} lost; \
             {} stops without a trace; the last spans took {:.0} ms at the most",
            self.stops,
            self.answered,
            self.spans,
            self.told,
            self.lost,
            self.untraced,
            self.longest_ms
        );
    }

    fn holds(&self) -> bool {
        let limit = (LAST_SPANS + BUSY).as_secs_f64() * 1000.0;
        // Who saw nothing answered has shown nothing.
        self.answered > 0
            && self.lost == 0
            && self.untraced == 0
            && self.longest_ms <= limit
            && (!self.collector.takes() || self.told == 0)
    }
}

async fn one(workspace: &Workspace, row: &mut Row) -> anyhow::Result<()> {
    let folder = Folder::new("spans")?;
    let place = Place::free(folder.path(), row.collector.wire())?;
    let mut collector = match row.collector {
        Mood::Down => None,
        _ => Some(Collector::start(workspace, &place).await?),
    };
    if let (Some(collector), Mood::Late | Mood::Frozen) = (&mut collector, row.collector) {
        collector.signal(libc::SIGSTOP)?;
    }
    let report = folder.path().join("report.json");
    let spawn = shop::service(workspace, folder.path(), "orders");
    let spawn = place.export_from(spawn.env("SUNDOWN_REPORT", &report));
    let (mut orders, target) = shop::started(spawn).await?;
    let answered = Answered::default();
    let load = Load::start(plan(target, &answered));
    let instant = rand::rng().random_range(50..300);
    tokio::time::sleep(Duration::from_millis(instant)).await;
    orders.signal(libc::SIGTERM)?;
    if let (Some(collector), Mood::Late) = (&mut collector, row.collector) {
        collector.signal(libc::SIGCONT)?;
    }
    orders.wait_exit(PATIENCE).await?;
    load.finish().await;
    let spans = match collector {
        Some(collector) => collector.end().await?,
        None => Vec::new(),
    };
    let told = Told::read(&report, &orders.stderr())?;
    let answered = answered.traces();
    let of_requests = spans.iter().map(|span| &span.trace);
    let of_requests: HashSet<&String> = of_requests.filter(|trace| is_ours(trace)).collect();
    let missing = answered.iter().filter(|trace| !of_requests.contains(trace));
    let missing = missing.count() as u64;
    let is_traced = spans.iter().any(|span| span.name == "stop");
    row.stops += 1;
    row.answered += answered.len() as u64;
    row.spans += of_requests.len() as u64;
    row.told += told.unsent;
    row.longest_ms = row.longest_ms.max(told.took_ms);
    row.untraced += u32::from(row.collector != Mood::Down && !is_traced && told.unsent == 0);
    row.lost += match row.collector.takes() {
        true => missing,
        // Nothing has arrived, or it is not known to have: all that was made is told.
        false => (told.served + OF_THE_STOP).abs_diff(told.unsent),
    };
    Ok(())
}

/// The traces of requests that were answered in full.
#[derive(Clone, Default)]
struct Answered(Arc<Mutex<HashSet<String>>>);

impl Answered {
    fn traces(&self) -> HashSet<String> {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

fn plan(target: SocketAddr, answered: &Answered) -> Plan {
    let mut plan = Plan::against(target)
        .with(Kind::KeepAlive, 16)
        .with(Kind::NewConnection, 8);
    plan.requests = Requests::every(|tag| {
        let parent = format!("00-{}-00000000000000aa-01", trace(tag));
        let parent = parent.parse().expect("digits and dashes");
        let name = http::HeaderName::from_static("traceparent");
        Request::get("/fast").header(name, parent).tagged(tag)
    });
    let answered = answered.clone();
    plan.on_answer = Some(Arc::new(move |request, _, _| {
        let mut traces = answered.0.lock().expect("nobody panics with it");
        traces.insert(trace(request.tag));
    }));
    plan
}

/// A trace for each request.
fn trace(tag: u64) -> String {
    format!("5d{:030x}", u128::from(tag) + 1)
}

/// Whether it is such a one, and not of the service's own making.
fn is_ours(trace: &str) -> bool {
    trace.starts_with("5d00")
}

/// What a service tells of its end.
struct Told {
    /// How many requests it has served, however they ended.
    served: u64,
    /// How many spans it could not send.
    unsent: u64,
    /// How long it tried to.
    took_ms: f64,
}

impl Told {
    fn read(report: &Path, stderr: &str) -> anyhow::Result<Self> {
        let text = fs::read_to_string(report).context("the report cannot be read")?;
        let report: Value = serde_json::from_str(&text)?;
        let hooks = report["hooks"].as_array().context("it has no hooks")?;
        let hook = hooks.iter().find(|hook| hook["name"] == "telemetry");
        let hook = hook.context("it does not tell of spans")?;
        // The last word, which counts the spans of the stop as well.
        let mut lines = stderr.lines().rev();
        let unsent = lines.find_map(|line| {
            let said = line.strip_prefix("warning: ")?;
            let (number, _) = said.split_once(" spans could not be sent")?;
            number.parse().ok()
        });
        let requests = report["requests"]
            .as_object()
            .context("it has no requests")?;
        let outcomes = ["finished", "ended_early", "abandoned_by_client", "cut_off"];
        let served = outcomes
            .iter()
            .filter_map(|outcome| requests.get(*outcome)?.as_u64());
        Ok(Self {
            served: served.sum(),
            unsent: unsent.unwrap_or(0),
            took_ms: hook["ms"].as_f64().context("it does not tell how long")?,
        })
    }
}
