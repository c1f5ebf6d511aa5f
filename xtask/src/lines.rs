//! `cargo xtask lines`: whether each request that a server has answered is in its log when the process has ended.
//!
//! The server logs a line for each request, and is stopped by SIGTERM at a random instant under load. What it says in
//! its report that it has served is compared with the lines in its file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rand::Rng as _;
use serde::Serialize;
use sundown_verify::process::{Ended, Spawn, free_port};
use sundown_verify::{Kind, Load, Plan};

use crate::folder::Folder;
use crate::peers::LOGS;
use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Stop a server that logs each request, under load, and look for the lines of those that it has served
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many stops
    #[arg(long, value_name = "N", default_value_t = 100, env = "XTASK_STOPS")]
    stops: u32,
    /// Print JSON instead of a table
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
}

/// How long the server may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Default, Serialize)]
struct Row {
    log: &'static str,
    stops: u32,
    /// How many requests were answered in full, as the server's reports tell.
    answered: u64,
    /// How many lines of requests its files have.
    lines: u64,
    /// How many of those that were answered have none.
    lost: u64,
    /// In how many the last line is not that of the end.
    unfinished: u32,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    LOGS.build(workspace)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut rows = ["sundown", "tracing-subscriber"].map(|log| Row {
        log,
        ..Row::default()
    });
    for stop in 1..=arguments.stops {
        progress::line(&format!("stop {stop} of {}", arguments.stops));
        for row in &mut rows {
            runtime.block_on(one(workspace, row))?;
        }
    }
    progress::clear();
    if arguments.json {
        let document = serde_json::json!({"schema": 1, "rows": rows});
        println!("{document}");
    } else {
        rows.iter().for_each(print);
    }
    let [ours, _] = &rows;
    Ok(match ours.lost + u64::from(ours.unfinished) {
        0 => Verdict::Holds,
        _ => Verdict::Broken,
    })
}

fn print(row: &Row) {
    println!(
        "{:20} {} stops: {} requests answered, {} lines, {} lost; {} stops without the line of the end",
        row.log, row.stops, row.answered, row.lines, row.lost, row.unfinished
    );
}

async fn one(workspace: &Workspace, row: &mut Row) -> anyhow::Result<()> {
    let folder = Folder::new("lines")?;
    let (log, report) = (folder.path().join("log"), folder.path().join("report"));
    let target = free_port()?;
    let command = LOGS.command(workspace, target.port());
    let mut server = Spawn::new(command.get_program())
        .args(command.get_args())
        .arg(row.log)
        .arg(&log)
        .env("SUNDOWN_REPORT", &report)
        .start()?;
    server.wait_listening(target, PATIENCE).await?;
    let plan = Plan::against(target);
    let load = Load::start(plan.with(Kind::KeepAlive, 16).with(Kind::NewConnection, 8));
    let instant = rand::rng().random_range(50..300);
    tokio::time::sleep(Duration::from_millis(instant)).await;
    server.signal(libc::SIGTERM)?;
    let exit = server.wait_exit(PATIENCE).await?;
    load.finish().await;
    ensure!(
        exit.ended == Ended::Code(0),
        "the server ended by {:?}",
        exit.ended
    );
    let (lines, ends) = read(&log)?;
    let answered = answered(&report)?;
    row.stops += 1;
    row.answered += answered;
    row.lines += lines;
    // Some have a line and no client that has heard the answer.
    row.lost += answered.saturating_sub(lines);
    row.unfinished += u32::from(!ends);
    Ok(())
}

/// How many requests a log tells of, and whether its last line tells of the end.
fn read(log: &Path) -> anyhow::Result<(u64, bool)> {
    let text = fs::read_to_string(log).context("the log cannot be read")?;
    let (mut requests, mut last) = (0, String::new());
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).context("a line is no JSON")?;
        last = line["message"].as_str().unwrap_or_default().to_owned();
        requests += u64::from(last == "request");
    }
    Ok((requests, last == "stopped"))
}

/// How many requests were answered in full, by a report.
fn answered(report: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(report).context("the report cannot be read")?;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let finished = report["requests"]["finished"].as_u64();
    finished.context("the report does not count requests")
}
