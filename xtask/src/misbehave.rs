//! `cargo xtask misbehave`: a stop among clients of which none does its part.
//!
//! Whoever is still there when the time to drain is over is cut off, and the report must name each:
//! what it was at, who it was, and for how long. Shows no other server beside: none promises this.

mod client;
mod report;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use sundown_verify::process::{Ended, Exit, Spawn, free_port};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bench::findings::{Bound, Claim};
use crate::folder::Folder;
use crate::peers;
use crate::workspace::Workspace;
use crate::{Verdict, certificate, open_files, progress};
use client::{Client, Door, MANNERS, Manner};
use report::Named;

/// Stop the service while many clients of each kind misbehave, and say whom its report names
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many clients of each kind
    #[arg(long, value_name = "N", default_value_t = 1000, env = "XTASK_EACH")]
    each: usize,
    /// Print JSON instead of a table
    #[arg(long, env = "XTASK_JSON")]
    json: bool,
}

const GRACE: Duration = Duration::from_secs(5);

/// Of grace. What is open when only this is left is cut off.
const RELEASE: Duration = Duration::from_secs(1);

/// What says that work was cut off.
const CUT_OFF: i32 = 4;

/// How long the server may take to listen, and to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the server is left with them before it is stopped: until it has filled the buffers of those
/// that do not read.
const SETTLE: Duration = Duration::from_secs(1);

/// What became of the clients of one kind.
#[derive(Serialize)]
struct Row {
    client: &'static str,
    opened: usize,
    /// Open at the cut, and named in the report for what they were.
    named: usize,
    /// Ended by the server before.
    ended: usize,
    /// Open at the cut, and not named.
    unnamed: usize,
}

/// What came of the stop.
struct Stop {
    rows: Vec<Row>,
    /// How many clients the report names.
    in_report: usize,
    exit: Exit,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    open_files::allow((MANNERS.len() * arguments.each) as u64 + 100)?;
    peers::find("sundown")?.build(workspace)?;
    let folder = Folder::new("misbehave")?;
    certificate::write(folder.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stop = runtime.block_on(stop(workspace, folder.path(), arguments.each))?;
    let claims = claims(&stop);
    if arguments.json {
        let document = serde_json::json!({"schema": 1, "rows": stop.rows, "claims": claims});
        println!("{document}");
    } else {
        print(&stop.rows, &claims);
    }
    Ok(match claims.iter().all(|claim| claim.holds) {
        true => Verdict::Holds,
        false => Verdict::Broken,
    })
}

/// Lets all clients in, stops the server, and sees who was named and who was not.
async fn stop(workspace: &Workspace, folder: &Path, each: usize) -> anyhow::Result<Stop> {
    let report = folder.join("report.json");
    let (plain, tls) = (free_port()?, free_port()?);
    let command = peers::find("sundown")?.command(workspace, plain.port());
    let spawn = Spawn::new(command.get_program())
        .args(command.get_args())
        .arg(tls.port().to_string())
        .arg(folder)
        .env("SUNDOWN_GRACE", format!("{}s", GRACE.as_secs()))
        .env("SUNDOWN_RELEASE", format!("{}s", RELEASE.as_secs()))
        .env("SUNDOWN_REPORT", &report);
    let mut server = spawn.start()?;
    server.wait_listening(plain, PATIENCE).await?;
    server.wait_listening(tls, PATIENCE).await?;

    let (gone, is_gone) = watch::channel(false);
    let mut clients = Vec::new();
    for (manner, source) in MANNERS.iter().zip(sources()) {
        progress::line(&format!("{each} of: {}", manner.name));
        let target = match manner.door {
            Door::Plain => plain,
            Door::Tls => tls,
        };
        clients.push(open(manner, source, target, each, &is_gone).await?);
    }
    progress::line("stopping");
    tokio::time::sleep(SETTLE).await;

    // The server hears it later, and cuts off no earlier than this.
    let cut = Instant::now() + GRACE - RELEASE;
    server.signal(libc::SIGTERM)?;
    let exit = server.wait_exit(PATIENCE).await?;
    gone.send(true)?;
    let named = Named::read(&fs::read(&report).context("there is no report")?)?;
    let mut rows = Vec::new();
    for (manner, clients) in MANNERS.iter().zip(clients) {
        rows.push(count(manner, clients, &named, cut).await?);
    }
    progress::clear();
    Ok(Stop {
        rows,
        in_report: named.len(),
        exit,
    })
}

/// Every kind has an address of its own, which has ports enough for tens of thousands.
fn sources() -> impl Iterator<Item = Ipv4Addr> {
    (1..).map(|number| Ipv4Addr::new(127, 3, 0, number))
}

async fn open(
    manner: &'static Manner,
    source: Ipv4Addr,
    target: SocketAddr,
    each: usize,
    gone: &watch::Receiver<bool>,
) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(each);
    for number in 1..=each {
        let client = manner.begin(source, target, gone.clone()).await;
        clients.push(client.with_context(|| format!("{} {number} of {each}", manner.name))?);
    }
    Ok(clients)
}

async fn count(
    manner: &'static Manner,
    clients: Vec<Client>,
    named: &Named,
    cut: Instant,
) -> anyhow::Result<Row> {
    let mut row = Row {
        client: manner.name,
        opened: clients.len(),
        named: 0,
        ended: 0,
        unnamed: 0,
    };
    for client in clients {
        let address = client.address;
        let ended = client.ended().await?;
        // All were there before the signal.
        if named.names(manner, address, GRACE - RELEASE) {
            row.named += 1;
        } else if manner.was_ended(&ended, cut) {
            row.ended += 1;
        } else {
            row.unnamed += 1;
        }
    }
    Ok(row)
}

fn claims(stop: &Stop) -> Vec<Claim> {
    const NONE: Bound = Bound::AtMost(0.0);
    let sum = |count: fn(&Row) -> usize| stop.rows.iter().map(count).sum::<usize>();
    let milliseconds = |time: Duration| 1000.0 * time.as_secs_f64();
    let named = sum(|row| row.named);
    // Where everybody was ended in time, nothing was cut off.
    let code = if named > 0 { CUT_OFF } else { 0 };
    let other_code = stop.exit.ended != Ended::Code(code);
    vec![
        Claim::plain(
            "signal to exit",
            milliseconds(stop.exit.after),
            "ms",
            Bound::AtMost(milliseconds(GRACE)),
        ),
        Claim::plain(
            "open at the cut and not named",
            sum(|row| row.unnamed) as f64,
            "",
            NONE,
        ),
        Claim::plain(
            "named, but not for what they were",
            stop.in_report.abs_diff(named) as f64,
            "",
            NONE,
        ),
        Claim::plain(
            format!("exits by another code than {code}"),
            f64::from(u8::from(other_code)),
            "",
            NONE,
        ),
    ]
}

fn print(rows: &[Row], claims: &[Claim]) {
    println!(
        "{:36} {:>8} {:>8} {:>14} {:>8}",
        "client", "opened", "named", "ended before", "unnamed"
    );
    for row in rows {
        println!(
            "{:36} {:>8} {:>8} {:>14} {:>8}",
            row.client, row.opened, row.named, row.ended, row.unnamed
        );
    }
    for claim in claims {
        println!("{}", claim.line(true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(named: usize, unnamed: usize, in_report: usize, exit: (i32, u64), broken: &[&str]) {
        let (code, seconds) = exit;
        let stop = Stop {
            rows: vec![Row {
                client: "one",
                opened: 10,
                named,
                ended: 10 - named - unnamed,
                unnamed,
            }],
            in_report,
            exit: Exit {
                ended: Ended::Code(code),
                after: Duration::from_secs(seconds),
            },
        };
        let claims = claims(&stop);
        let lines: Vec<String> = claims.iter().map(|claim| claim.line(true)).collect();
        let found: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("broken"))
            .collect();
        assert_eq!(found.len(), broken.len(), "{found:?}");
        for (line, what) in found.iter().zip(broken) {
            assert!(line.contains(what), "{line}");
        }
    }

    #[test]
    fn whoever_was_cut_off_must_be_named_in_time_and_by_the_code_for_it() {
        check(4, 0, 4, (4, 5), &[]);
        check(0, 0, 0, (0, 1), &[]);
        check(4, 1, 4, (4, 5), &["open at the cut"]);
        check(4, 0, 5, (4, 5), &["not for what"]);
        check(4, 0, 4, (0, 6), &["to exit", "another code than 4"]);
    }
}
