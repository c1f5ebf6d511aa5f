//! `cargo xtask dashboards`: whether what `deploy/` has for Prometheus and Grafana fits what services show.
//!
//! promtool checks and tries the alert rules, and checks what both services of the shop show at `/metrics`. A
//! Prometheus of our own asks them, with the rules, while they are under load; then every query of the dashboard must
//! have an answer, and every alert must be one that Prometheus can evaluate.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use sundown_verify::process::{Process, Spawn, free_port};

use crate::ask::get;
use crate::folder::Folder;
use crate::shop::place_orders;
use crate::workspace::Workspace;
use crate::{Verdict, progress, shop};

/// Ask a real Prometheus what the dashboard asks, and check the alert rules and `/metrics` with promtool
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// How long a process may take to listen, and Prometheus to know what it is asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often Prometheus asks, and a query is tried again.
const OFTEN: Duration = Duration::from_millis(500);

/// For what is asked over a range, where Grafana says which.
const RANGE: &str = "10s";

const ADVICE: &str = "install the package prometheus, which has promtool, too";

pub(crate) fn run(workspace: &Workspace, _: &Arguments) -> anyhow::Result<Verdict> {
    let deploy = workspace.root.join("deploy");
    let rules = deploy.join("prometheus/alerts.yml");
    promtool(&["check", "rules"], &rules)?;
    promtool(
        &["test", "rules"],
        &deploy.join("prometheus/alerts.test.yml"),
    )?;
    workspace.build_shop()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let dashboard = fs::read_to_string(deploy.join("grafana/sundown.json"))?;
    let queries = queries(&serde_json::from_str(&dashboard)?)?;
    let unanswered = runtime.block_on(ask(workspace, &rules, &queries))?;
    progress::clear();
    for query in &unanswered {
        println!("no data: {query}");
    }
    println!(
        "{} of {} queries of the dashboard have data; promtool has no complaint",
        queries.len() - unanswered.len(),
        queries.len()
    );
    Ok(if unanswered.is_empty() {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

fn promtool(words: &[&str], file: &Path) -> anyhow::Result<()> {
    let status = Command::new("promtool")
        .args(words)
        .arg(file)
        .stdout(Stdio::null())
        .status();
    let status = status.with_context(|| format!("promtool cannot be run: {ADVICE}"))?;
    ensure!(
        status.success(),
        "promtool {} {}",
        words.join(" "),
        file.display()
    );
    Ok(())
}

/// All that the dashboard asks, with what Grafana puts into it.
fn queries(dashboard: &Value) -> anyhow::Result<Vec<String>> {
    let panels = dashboard["panels"].as_array().context("it has no panels")?;
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let annotations = dashboard["annotations"]["list"].as_array();
    let asked = targets.chain(annotations).flatten();
    let queries = asked.filter_map(|target| target["expr"].as_str());
    let queries = queries.map(|query| {
        let query = query.replace("$instance", ".*");
        let query = query.replace("$__rate_interval", RANGE);
        query.replace("$__range", RANGE)
    });
    // A stop is an annotation that is rightly not there while none is.
    Ok(queries
        .filter(|query| !query.contains("lame_duck|"))
        .collect())
}

/// Has Prometheus ask a shop under load, and returns the queries that have no answer.
async fn ask(
    workspace: &Workspace,
    rules: &Path,
    queries: &[String],
) -> anyhow::Result<Vec<String>> {
    let folder = Folder::new("dashboards")?;
    let service = |name: &str| shop::service(workspace, folder.path(), name);
    let inventory = Service::start(service("inventory")).await?;
    let url = format!("http://{}", inventory.address);
    let orders = Service::start(service("orders").args(["--inventory", &url])).await?;
    let load = place_orders(orders.address);
    let targets = [orders.admin, inventory.admin];
    for target in targets {
        check_metrics(&get(target, "/metrics").await?.body)?;
    }
    let prometheus = Prometheus::start(folder.path(), rules, &targets).await?;
    let mut unanswered: Vec<String> = queries.to_vec();
    let began = Instant::now();
    while !unanswered.is_empty() && began.elapsed() < PATIENCE {
        progress::line(&format!("{} queries have no data yet", unanswered.len()));
        let mut still = Vec::new();
        for query in unanswered {
            if !prometheus.answers(&query).await? {
                still.push(query);
            }
        }
        unanswered = still;
        tokio::time::sleep(OFTEN).await;
    }
    prometheus.check_rules().await?;
    drop(load);
    Ok(unanswered)
}

/// Pipes what a service shows through promtool.
fn check_metrics(text: &str) -> anyhow::Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("promtool cannot be run: {ADVICE}"))?;
    let mut input = promtool.stdin.take().context("it was asked for")?;
    input.write_all(text.as_bytes())?;
    drop(input);
    let output = promtool.wait_with_output()?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.success() && complaint.is_empty(),
        "promtool check metrics: {complaint}"
    );
    Ok(())
}

/// A service of the shop. It is killed when it is dropped.
struct Service {
    _process: Process,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Service {
    async fn start(spawn: Spawn) -> anyhow::Result<Self> {
        let spawn = spawn.env("SUNDOWN_ADMIN", "127.0.0.1:0");
        let (mut process, address) = shop::started(spawn).await?;
        let admin = process.wait_line("admin on ", PATIENCE).await?;
        Ok(Self {
            _process: process,
            address,
            admin: admin.parse()?,
        })
    }
}

struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    async fn start(folder: &Path, rules: &Path, targets: &[SocketAddr]) -> anyhow::Result<Self> {
        let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
        let often = format!("{}ms", OFTEN.as_millis());
        let settings = json!({
            "global": {"scrape_interval": often, "evaluation_interval": often},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": "shop", "static_configs": [{"targets": targets}]}],
        });
        // JSON is YAML.
        let config = folder.join("prometheus.yml");
        fs::write(&config, settings.to_string())?;
        let address = free_port()?;
        let mut process = Spawn::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .args(["--enable-feature=exemplar-storage", "--log.level=warn"])
            .start()
            .with_context(|| format!("prometheus cannot be run: {ADVICE}"))?;
        let listens = process.wait_listening(address, PATIENCE).await;
        listens.with_context(|| process.stderr())?;
        Ok(Self {
            _process: process,
            address,
        })
    }

    /// Whether a query has any data.
    async fn answers(&self, query: &str) -> anyhow::Result<bool> {
        let query = percent(query);
        let answer = get(self.address, &format!("/api/v1/query?query={query}")).await?;
        let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let result = &answer["data"]["result"];
        let has_number = |sample: &Value| sample["value"][1] != "NaN";
        Ok(result
            .as_array()
            .is_some_and(|all| all.iter().any(has_number)))
    }

    /// Whether all rules can be evaluated.
    async fn check_rules(&self) -> anyhow::Result<()> {
        let answer = get(self.address, "/api/v1/rules").await?;
        let answer: Value = serde_json::from_str(&answer.body)?;
        let groups = answer["data"]["groups"]
            .as_array()
            .context("there are no rules")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        for rule in rules.flatten() {
            if rule["health"] != "ok" {
                bail!(
                    "the alert {} cannot be evaluated: {}",
                    rule["name"],
                    rule["lastError"]
                );
            }
        }
        Ok(())
    }
}

fn percent(text: &str) -> String {
    let hex = |byte: u8| format!("%{byte:02X}");
    text.bytes().map(hex).collect()
}
