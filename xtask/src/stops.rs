//! `cargo xtask stops`: how many requests each server loses when it is told to stop.
//!
//! Every contender is stopped in turn, round after round, so that whatever else the machine does
//! falls on all of them. What is refused to the server (the ways to shut a listener) is refused by
//! the kernel, not by a switch in the server.

use std::time::Duration;

use anyhow::Context;
use rand::Rng;
use serde::Serialize;
use sundown_verify::process::{Ended, SignalTo, Spawn, free_port};
use sundown_verify::{Declined, Held, Kind, Load, Loss, Plan, Refuse, Tally};

use crate::peers::{self, Peer};
use crate::workspace::Workspace;
use crate::{Verdict, progress};

/// Stop servers under a mixed load, again and again, and count what is lost
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many stops under load, of each server
    #[arg(long, value_name = "N", default_value_t = 200, env = "XTASK_STOPS")]
    stops: u32,
    /// How many stops with a frozen server and a full queue, of each server
    #[arg(long, value_name = "N", default_value_t = 50, env = "XTASK_HELD")]
    held: u32,
    /// Servers to compare with: names of peers/README.md
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "axum,gin"
    )]
    against: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// How long a server may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a server is and what is refused to it.
struct Contender {
    label: String,
    peer: &'static Peer,
    refuse: Refuse,
    loss_is_breach: bool,
}

#[derive(Serialize)]
struct Row {
    server: String,
    load: Tally,
    held: Tally,
    exits_nonzero: u32,
    exit_ms: Vec<u64>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let contenders = contenders(arguments)?;
    for contender in &contenders {
        contender.peer.build(workspace)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(measure(workspace, arguments, &contenders))?;
    if arguments.json {
        println!(
            "{}",
            serde_json::to_string(&serde_json::json!({"schema": 1, "rows": rows}))?
        );
    } else {
        print_table(&rows);
    }
    let broken = contenders
        .iter()
        .zip(&rows)
        .any(|(contender, row)| breaks_promise(contender, row));
    Ok(if broken {
        Verdict::Broken
    } else {
        Verdict::Holds
    })
}

/// With both ways refused, resets in the backlog are stated and not promised away.
fn breaks_promise(contender: &Contender, row: &Row) -> bool {
    if !contender.loss_is_breach {
        return false;
    }
    let forgiven = match contender.refuse {
        Refuse::DeafAndFence => {
            row.load.total.lost_as(Loss::BacklogReset) + row.held.total.lost_as(Loss::BacklogReset)
        }
        _ => 0,
    };
    row.load.total.lost + row.held.total.lost > forgiven || row.exits_nonzero > 0
}

fn contenders(arguments: &Arguments) -> anyhow::Result<Vec<Contender>> {
    let ours = peers::find("sundown")?;
    let mut all: Vec<Contender> = [
        ("sundown, deaf listener", Refuse::Nothing),
        ("sundown, fence (deafness refused)", Refuse::Deaf),
        ("sundown, both refused", Refuse::DeafAndFence),
    ]
    .into_iter()
    .map(|(label, refuse)| Contender {
        label: label.to_owned(),
        peer: ours,
        refuse,
        loss_is_breach: true,
    })
    .collect();
    for name in &arguments.against {
        let peer = peers::find(name)?;
        match peer.missing_toolchain() {
            Some(missing) => eprintln!("skipped: {missing}"),
            None => all.push(Contender {
                label: peer.framework.to_owned(),
                peer,
                refuse: Refuse::Nothing,
                loss_is_breach: false,
            }),
        }
    }
    Ok(all)
}

async fn measure(
    workspace: &Workspace,
    arguments: &Arguments,
    contenders: &[Contender],
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|contender| Row {
            server: contender.label.clone(),
            load: Tally::default(),
            held: Tally::default(),
            exits_nonzero: 0,
            exit_ms: Vec::new(),
        })
        .collect();
    for round in 0..arguments.stops.max(arguments.held) {
        progress::line(&format!(
            "round {} of {}",
            round + 1,
            arguments.stops.max(arguments.held)
        ));
        for (contender, row) in contenders.iter().zip(&mut rows) {
            if round < arguments.stops {
                stop_under_load(workspace, contender, row, u64::from(round)).await?;
            }
            if round < arguments.held {
                stop_held(workspace, contender, row).await?;
            }
        }
    }
    progress::clear();
    Ok(rows)
}

async fn stop_under_load(
    workspace: &Workspace,
    contender: &Contender,
    row: &mut Row,
    seed: u64,
) -> anyhow::Result<()> {
    let target = free_port()?;
    let mut server = start(workspace, contender, target.port())?;
    server.wait_listening(target, PATIENCE).await?;
    let load = Load::start(Plan {
        seed,
        ..mixed(Plan::against(target), contender.peer.http2)
    });
    let instant = rand::rng().random_range(100..400);
    tokio::time::sleep(Duration::from_millis(instant)).await;
    server.signal(libc::SIGTERM)?;
    let exit = server
        .wait_exit(PATIENCE)
        .await
        .context(contender.label.clone())?;
    row.load.merge(load.finish().await);
    row.exit_ms.push(exit.after.as_millis() as u64);
    row.exits_nonzero += u32::from(exit.ended != Ended::Code(0));
    Ok(())
}

/// The mixed load that the project's promise is about.
fn mixed(plan: Plan, http2: bool) -> Plan {
    let plan = plan
        .with(Kind::KeepAlive, 16)
        .with(Kind::NewConnection, 8)
        .with(Kind::Pipelined, 4)
        .with(Kind::Silent, 8)
        .with(Kind::HalfHead, 4)
        .with(Kind::SlowReader, 2)
        .with(Kind::SlowUpload, 4)
        .with(Kind::Slow, 4);
    if http2 {
        plan.with(Kind::Http2, 4)
    } else {
        plan
    }
}

async fn stop_held(
    workspace: &Workspace,
    contender: &Contender,
    row: &mut Row,
) -> anyhow::Result<()> {
    let target = free_port()?;
    let mut server = start(workspace, contender, target.port())?;
    server.wait_listening(target, PATIENCE).await?;
    let held = Held {
        plan: Plan::against(target),
        pid: server.id(),
        reused: 0,
        http1: 48,
        http2: if contender.peer.http2 { 16 } else { 0 },
        stop: libc::SIGTERM,
        stop_to: SignalTo::default(),
    };
    row.held.merge(held.run().await?);
    let exit = server
        .wait_exit(PATIENCE)
        .await
        .context(contender.label.clone())?;
    row.exits_nonzero += u32::from(exit.ended != Ended::Code(0));
    Ok(())
}

fn start(
    workspace: &Workspace,
    contender: &Contender,
    port: u16,
) -> anyhow::Result<sundown_verify::Process> {
    let command = contender.peer.command(workspace, port);
    let spawn = Spawn::new(command.get_program())
        .args(command.get_args())
        .refuse(contender.refuse);
    Ok(spawn.start()?)
}

fn print_table(rows: &[Row]) {
    println!(
        "{:34} {:>8} {:>9} {:>9} {:>6} {:>9} | {:>6} {:>6} | {:>8} {:>8}",
        "server",
        "sent",
        "answered",
        "declined",
        "lost",
        "crossed",
        "held",
        "lost",
        "exit p50",
        "not 0"
    );
    for row in rows {
        let (load, held) = (&row.load.total, &row.held.total);
        let mut exits = row.exit_ms.clone();
        exits.sort_unstable();
        println!(
            "{:34} {:>8} {:>9} {:>9} {:>6} {:>9} | {:>6} {:>6} | {:>5} ms {:>8}",
            row.server,
            load.sent,
            load.answered,
            load.declined,
            load.lost,
            load.declined_as(Declined::Crossed),
            held.sent,
            held.lost,
            exits.get(exits.len() / 2).copied().unwrap_or(0),
            row.exits_nonzero
        );
        print_losses(row);
    }
}

fn print_losses(row: &Row) {
    for (what, tally) in [("under load", &row.load), ("held", &row.held)] {
        if tally.total.lost > 0 {
            let (lost, sent) = (&tally.total.lost_as, tally.total.sent);
            println!("    {what}: {lost:?} of {sent}");
        } else if tally.total.sent > 0 {
            let bound = 300.0 / tally.total.sent as f64;
            println!(
                "    {what}: 0 of {}: the rate is below {bound:.4} % (95 %)",
                tally.total.sent
            );
        }
    }
    for example in row.load.examples.iter().chain(&row.held.examples).take(5) {
        println!(
            "    e.g. {:?} {} #{}: {:?} {} {}",
            example.kind, example.request, example.tag, example.loss, example.phase, example.error
        );
    }
}
