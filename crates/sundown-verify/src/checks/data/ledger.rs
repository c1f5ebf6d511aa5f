//! What was acknowledged, and what is stored.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONTENT_TYPE, HeaderValue};
use rand::Rng as _;
use tokio::time::{sleep, timeout};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::{STEP, WARM_UP, plan};
use crate::http1::{Connection, Letter};
use crate::load::Load;
use crate::plan::{Kind, OnAnswer, Plan, Request, Requests};
use crate::process::{Ended, Spawn};
use crate::service::{ID, Ledger, Service};
use crate::stop::Stage;
use crate::tcp::Window;

pub(super) const CHECK: Check = Check {
    id: "data/1",
    level: Level::Must,
    promise: "what was acknowledged is stored",
    method: "sixteen clients post entries with ids of their own over the signal; afterwards each entry that was acknowledged is read back, or a command judges",
    criterion: "each entry that was acknowledged by a 2xx is found; the command, if one is given, exits with 0",
    source: "RFC 9110 §15.3: a 2xx says that the request was accepted",
    advice: "Answer after the commit; flush what is buffered before the process ends; release the database last",
    needs: &[Need::Http1, Need::Ledger, Need::Command],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;

/// How many acknowledged entries show something.
const LEAST: usize = 32;

/// Ids, in the order of their acknowledgement.
type Ids = Arc<Mutex<Vec<String>>>;

async fn play(mut stage: Stage) -> Finding {
    let Some(ledger) = stage.service().offers.ledger.clone() else {
        return Finding::inconclusive("there is no ledger");
    };
    let acknowledged = Ids::default();
    let load = Load::start(posts(&stage, &ledger, acknowledged.clone()));
    let count = || lock(&acknowledged).len();
    let warm = async {
        while count() < LEAST {
            sleep(STEP).await;
        }
    };
    let warmed = timeout(WARM_UP, warm).await.is_ok();
    stage.send(stage.service().signal);
    stage.ended().await;
    load.finish().await;
    let ids = lock(&acknowledged).clone();
    if !warmed {
        return Finding::inconclusive(format!("only {} posts were acknowledged", ids.len()));
    }
    match missing(&stage, &ledger, &ids).await {
        Err(what) => Finding::inconclusive(what),
        Ok(missing) if missing.is_empty() => {
            Finding::pass(ids.len() as u64, format!("all {} are there", ids.len()))
        }
        Ok(missing) => Finding::fail(
            ids.len() as u64,
            format!("{} of {} are missing or wrong", missing.len(), ids.len()),
        )
        .with_evidence(missing.into_iter().take(20)),
    }
}

fn lock(ids: &Ids) -> std::sync::MutexGuard<'_, Vec<String>> {
    ids.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A load that posts entries, each with an id that no other run has, and notes what is acknowledged.
fn posts(stage: &Stage, ledger: &Ledger, acknowledged: Ids) -> Plan {
    let run: u64 = rand::rng().random();
    let id = move |tag: u64| format!("{run:x}-{tag}");
    let on_answer: OnAnswer = Arc::new(move |request, status, _| {
        if (200..300).contains(&status) {
            lock(&acknowledged).push(id(request.tag));
        }
    });
    let ledger = ledger.clone();
    let build = move |tag| {
        let fill = |text: &str| text.replace(ID, &id(tag));
        Request::post(fill(&ledger.post), fill(&ledger.body))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .tagged(tag)
    };
    let mut plan = plan(stage)
        .with(Kind::KeepAlive, CLIENTS)
        .with(Kind::NewConnection, CLIENTS);
    plan.requests = Requests::every(build);
    plan.on_answer = Some(on_answer);
    plan
}

/// What is wrong, by both ways that were given; an error where it could not be asked.
async fn missing(stage: &Stage, ledger: &Ledger, ids: &[String]) -> Result<Vec<String>, String> {
    let mut missing = Vec::new();
    if let Some(command) = &ledger.invariant {
        missing.extend(judged_by(command, stage.service(), ids).await?);
    }
    if let Some(read) = &ledger.read {
        missing.extend(unread(read, stage.service(), ids).await?);
    }
    Ok(missing)
}

/// Lets the command judge: the ids are in a file, one a line, which it finds by a variable.
async fn judged_by(
    command: &[OsString],
    service: &Service,
    ids: &[String],
) -> Result<Vec<String>, String> {
    let mut file = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
    let written = file.write_all(lines.as_bytes());
    written.map_err(|error| error.to_string())?;
    let (program, arguments) = command
        .split_first()
        .ok_or("the invariant has no command")?;
    let started = Spawn::new(program)
        .args(arguments)
        .env("SUNDOWN_ACKNOWLEDGED", file.path())
        .own_group()
        .start();
    let mut process = started.map_err(|error| error.to_string())?;
    let limit = service.start_limit + service.grace;
    let exit = process.wait_exit(limit).await;
    match exit.map_err(|error| error.to_string())?.ended {
        Ended::Code(0) => Ok(Vec::new()),
        ended => {
            let words = process.stdout() + &process.stderr();
            let first = format!("the invariant's command ended with {ended}");
            Ok(std::iter::once(first)
                .chain(words.lines().map(str::to_owned))
                .collect())
        }
    }
}

/// Starts the service again, and asks for each entry.
async fn unread(read: &str, service: &Service, ids: &[String]) -> Result<Vec<String>, String> {
    let started = service.start().await;
    let mut running = started.map_err(|error| format!("it could not be started again: {error}"))?;
    let target = service.endpoint(running.address);
    let mut absent = BTreeSet::new();
    let mut kept = None;
    for id in ids {
        let letter = Letter::new(&[Request::get(read.replace(ID, id))], target);
        let connection = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(target, Window::Usual, Plan::HANG_LIMIT).await,
        };
        let mut connection = connection.map_err(|unmade| unmade.error.to_string())?;
        let exchange = connection.exchange(&letter, Plan::HANG_LIMIT).await;
        match exchange.responses() {
            [answer] if (200..300).contains(&answer.status) => {}
            [answer] => drop(absent.insert(format!("{id}: answered {}", answer.status))),
            _ => drop(absent.insert(format!("{id}: not answered"))),
        }
        if exchange.persistence() == crate::outcome::Persistence::KeepAlive {
            kept = Some(connection);
        }
    }
    drop(kept);
    let asked = running.process.signal_to(service.signal_to, service.signal);
    asked.map_err(|error| error.to_string())?;
    // Whether it ends in time is not what is asked here.
    let _ = running.process.wait_exit(service.grace).await;
    Ok(absent.into_iter().collect())
}
