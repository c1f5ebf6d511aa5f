//! `cargo xtask shipped`: whether lines of the log get to where people look for them, by what `deploy/` has for it.
//!
//! Lines are those of both services of the shop, under load and through their stop, and such as are hard to index: one
//! name for values of every type, the longest texts, the greatest numbers. Each becomes the document that Filebeat
//! makes of it, or Filebeat and Logstash (by models of them: the programs are not run) and is created in a real
//! Elasticsearch under the index template. None may be rejected, and the lines of an order are found by its trace id,
//! those of both services. What Alloy would tell Loki is found by a model, too, of each line.

mod alloy;
mod elasticsearch;
mod filebeat;
mod logstash;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sundown_telemetry::Logs;
use sundown_verify::process::{Ended, Process};
use tracing_subscriber::layer::SubscriberExt as _;

use self::alloy::Alloy;
use self::elasticsearch::Elasticsearch;
use self::filebeat::Filebeat;
use self::logstash::Logstash;
use crate::folder::Folder;
use crate::peers::ELASTICSEARCH;
use crate::workspace::Workspace;
use crate::{Verdict, progress, shop};

/// Index log lines in a real Elasticsearch as deploy/ says, and find them
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// How long a service may take to do its part and to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long the shop is under load.
const UNDER_LOAD: Duration = Duration::from_secs(2);

/// What orders and inventory log of an order.
const PLACED: &str = "order placed";
const APPLIED: &str = "event applied";

const INDICES: &str = "sundown-logs-*";

/// One for each level of each of three services.
const MOST_STREAMS: usize = 15;

/// How many of those that were rejected are told.
const EXAMPLES: usize = 5;

/// What Elasticsearch has of all lines.
struct Found {
    shippers: &'static str,
    lines: usize,
    /// Why those were rejected that were.
    rejected: Vec<String>,
    indexed: usize,
    /// The services that have lines of one order's trace.
    services: BTreeSet<String>,
    /// The times of that order's lines, as found and as logged.
    times: [Vec<String>; 2],
    /// Lines that are found by words of their message, and those that have them.
    placed: [usize; 2],
}

/// What Loki would be told of all lines.
struct Told {
    lines: usize,
    /// Those that it could not take, and why.
    not_taken: Vec<String>,
    streams: usize,
}

pub(crate) fn run(workspace: &Workspace, _: &Arguments) -> anyhow::Result<Verdict> {
    if let Some(missing) = ELASTICSEARCH.missing_toolchain() {
        anyhow::bail!("{missing}");
    }
    progress::line("building an Elasticsearch and the shop");
    ELASTICSEARCH.build(workspace)?;
    workspace.build_shop()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let (found, told) = runtime.block_on(ship(workspace))?;
    progress::clear();
    found.iter().for_each(Found::print);
    told.print();
    let holds = found.iter().all(Found::holds) && told.holds();
    Ok(if holds {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

async fn ship(workspace: &Workspace) -> anyhow::Result<(Vec<Found>, Told)> {
    let deploy = workspace.root.join("deploy");
    let read = |file: &str| fs::read_to_string(deploy.join(file)).with_context(|| file.to_owned());
    let filebeat = Filebeat::read(&read("filebeat/filebeat.yml")?)?;
    let logstash = Logstash::read(&read("logstash/sundown.conf")?)?;
    let alloy = Alloy::read(&read("alloy/sundown.alloy")?)?;
    let template = read("elasticsearch/sundown-logs.json")?;

    let folder = Folder::new("shipped")?;
    progress::line("starting an Elasticsearch");
    let elasticsearch = Elasticsearch::start(workspace, folder.path()).await?;
    elasticsearch
        .put_template("sundown-logs", &template)
        .await?;
    progress::line("logging");
    let mut files = log_a_shop(workspace, folder.path()).await?;
    files.push(log_what_is_hard(folder.path())?);

    // A torn line, and the first of its day: what it is indexed as is what the others must fit.
    let torn = filebeat.document("{\"level\":\"INFO\",\"mess", Path::new("torn.log"), 0);
    let (mut documents, mut lines) = (vec![torn], Vec::new());
    for file in files {
        let text = fs::read_to_string(&file)?;
        let mut offset = 0;
        for line in text.lines() {
            documents.push(filebeat.document(line, &file, offset));
            offset += line.len() + 1;
            let line = serde_json::from_str(line).with_context(|| line.to_owned())?;
            lines.push(line);
        }
    }
    let passed = documents.iter().map(|document| logstash.pass(document));
    let passed: Vec<_> = passed.collect();
    let ways = [("Filebeat", documents), ("Filebeat and Logstash", passed)];
    let mut found = Vec::new();
    for (shippers, documents) in ways {
        progress::line(&format!("indexing {} lines", lines.len()));
        let rejected = elasticsearch.create(&documents).await?;
        found.push(find(&elasticsearch, shippers, rejected, &lines).await?);
        elasticsearch.delete(INDICES).await?;
    }
    Ok((found, tell(&alloy, &lines)))
}

/// Looks for what people look for.
async fn find(
    elasticsearch: &Elasticsearch,
    shippers: &'static str,
    rejected: Vec<String>,
    lines: &[Value],
) -> anyhow::Result<Found> {
    let applied = |line: &&Value| line["message"] == APPLIED;
    let applied = lines
        .iter()
        .rfind(applied)
        .context("no order was applied")?;
    let of_order = json!({"term": {"traceId": applied["traceId"]}});
    let of_order = elasticsearch.find(INDICES, of_order).await?;
    let service = |line: &Value| Some(line["service"].as_str()?.to_owned());
    let times = lines.iter().filter_map(|line| line["@timestamp"].as_str());
    let first = times.min().context("there are no lines")?;
    // Filebeat knows no less than a millisecond.
    let since = json!({"range": {"@timestamp": {"gte": format!("{}Z", &first[..19])}}});
    let placed = json!({"match_phrase": {"message": PLACED}});
    let of_trace = lines
        .iter()
        .filter(|line| line["traceId"] == applied["traceId"]);
    let mut logged = of_trace.map(to_the_millisecond).collect::<Vec<_>>();
    logged.sort();
    let found: Vec<_> = of_order.iter().map(to_the_millisecond).collect();
    let were_placed = lines.iter().filter(|line| line["message"] == PLACED);
    Ok(Found {
        shippers,
        // And the torn one.
        lines: lines.len() + 1,
        rejected,
        indexed: elasticsearch.count(INDICES, since).await?,
        services: of_order.iter().filter_map(service).collect(),
        times: [found, logged],
        placed: [
            elasticsearch.count(INDICES, placed).await?,
            were_placed.count(),
        ],
    })
}

fn to_the_millisecond(line: &Value) -> String {
    let time = line["@timestamp"].as_str().unwrap_or_default();
    time.get(..23).unwrap_or(time).to_owned()
}

/// Finds what Loki would be told.
fn tell(alloy: &Alloy, lines: &[Value]) -> Told {
    let (mut streams, mut not_taken) = (BTreeSet::new(), Vec::new());
    for line in lines {
        let entry = match alloy.entry(line) {
            Ok(entry) => entry,
            Err(error) => {
                not_taken.push(format!("{error}: {line}"));
                continue;
            }
        };
        if line.get("traceId").is_some() != entry.metadata.contains_key("trace_id") {
            not_taken.push(format!("without its trace id: {line}"));
        }
        streams.insert(entry.labels);
    }
    Told {
        lines: lines.len(),
        not_taken,
        streams: streams.len(),
    }
}

impl Found {
    fn holds(&self) -> bool {
        let in_both = ["orders", "inventory"].map(|name| self.services.contains(name));
        self.indexed == self.lines
            && self.rejected.is_empty()
            && in_both == [true; 2]
            && self.times[0] == self.times[1]
            && self.placed[0] == self.placed[1]
    }

    fn print(&self) {
        for reason in self.rejected.iter().take(EXAMPLES) {
            println!("rejected: {reason}");
        }
        if self.times[0] != self.times[1] {
            println!(
                "found at {:?}, logged at {:?}",
                self.times[0], self.times[1]
            );
        }
        let services: Vec<&str> = self.services.iter().map(String::as_str).collect();
        println!(
            "Elasticsearch, behind models of {}: {} of {} lines indexed, {} rejected; {} of {} orders found; one has lines of {}",
            self.shippers,
            self.indexed,
            self.lines,
            self.rejected.len(),
            self.placed[0],
            self.placed[1],
            services.join(" and ")
        );
    }
}

impl Told {
    fn holds(&self) -> bool {
        self.not_taken.is_empty() && self.streams <= MOST_STREAMS
    }

    fn print(&self) {
        for reason in self.not_taken.iter().take(EXAMPLES) {
            println!("not for Loki: {reason}");
        }
        println!(
            "Loki, by a model of Alloy: {} of {} lines in {} streams",
            self.lines - self.not_taken.len(),
            self.lines,
            self.streams
        );
    }
}

/// Has both services of a shop log to files, under load and until they have ended.
async fn log_a_shop(workspace: &Workspace, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let file = |name: &str| folder.join(format!("{name}.log"));
    let service = |name: &str| {
        shop::service(workspace, folder, name)
            .args(["--log", "warn,shop=info", "--log-file"])
            .arg(file(name))
    };
    let (inventory, stock) = shop::started(service("inventory")).await?;
    let url = format!("http://{stock}");
    let (orders, front) = shop::started(service("orders").args(["--inventory", &url])).await?;
    let load = shop::place_orders(front);
    tokio::time::sleep(UNDER_LOAD).await;
    let is_applied =
        || fs::read_to_string(file("inventory")).is_ok_and(|log| log.contains(APPLIED));
    let began = Instant::now();
    while !is_applied() {
        ensure!(began.elapsed() < PATIENCE, "no order was applied");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    end(orders).await?;
    end(inventory).await?;
    drop(load);
    Ok(vec![file("orders"), file("inventory")])
}

async fn end(mut process: Process) -> anyhow::Result<()> {
    process.signal(libc::SIGTERM)?;
    let exit = process.wait_exit(PATIENCE).await?;
    ensure!(exit.ended == Ended::Code(0), "it ended by {}", exit.ended);
    Ok(())
}

/// Logs what indices take badly.
fn log_what_is_hard(folder: &Path) -> anyhow::Result<PathBuf> {
    let file = folder.join("hard.log");
    let (layer, log) = Logs::of("hard").levels("trace")?.file(&file)?.layer()?;
    let text = "é".repeat(1 << 15);
    let logging = || {
        tracing::info!(number_first = 1, "one name, values of many types");
        tracing::info!(number_first = "a text");
        tracing::info!(number_first = true);
        tracing::info!(number_first = 1.5);
        tracing::info!(number_first = u64::MAX);
        tracing::info!(number_first = i64::MIN);
        tracing::info!(number_first = u128::MAX);
        tracing::info!(text_first = "a text");
        tracing::info!(text_first = 1);
        tracing::info!(text_first = false);
        tracing::info!(truth_first = true);
        tracing::info!(truth_first = "neither");
        tracing::info!(truth_first = 3);
        tracing::info!(fraction_first = 0.5);
        tracing::info!(fraction_first = "half");
        tracing::info!(fraction_first = f64::NAN);
        tracing::info!(fraction_first = f64::INFINITY);
        tracing::info!(fraction_first = f64::MAX);
        tracing::info!(greatest_first = u64::MAX);
        tracing::info!(greatest_first = 1);
        tracing::info!(day_first = "2026-01-02");
        tracing::info!(day_first = "tomorrow");
        tracing::info!(debugged = ?Some(vec![1, 2]));
        tracing::info!(long = text, "a long text");
        tracing::info!("{text}");
        tracing::info!(r#type = 7, "a type that is no text");
        tracing::info!(host = "a.example", target = "t", "names that others have");
        tracing::info!(level = 3, service = 7, "names that every line has");
        tracing::info!(http.method = "GET", http.status = 200, "names with dots");
        tracing::error!(
            error = "\u{0}\u{1b}[31m\"\\\u{2028}",
            "letters that are none"
        );
    };
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, logging);
    log.flush(PATIENCE)?;
    Ok(file)
}
