//! Connections that are kept over restarts: by clients that rest longer than the guard's quiet, and by such
//! that never do.
//!
//! A client that rests finds its connection closed and makes another; that is no failure. One that is busy is
//! served by the generation that it has, until the guard's drain is over.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::header::CONNECTION;
use rand::Rng as _;
use serde::Serialize;
use sundown_verify::http1::{Connection, Letter};
use sundown_verify::outcome::{self, Persistence};
use sundown_verify::tcp::Window;
use sundown_verify::{Declined, Outcome, Request};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Ground, LIMIT};

const QUIET: &str = "300ms";
const QUIET_TIME: Duration = Duration::from_millis(300);

/// So long that some moment comes at which all of a few clients rest: a generation ends only then, or when its
/// time is over, with whoever speaks at that instant.
const DRAIN_OF_RESTING: &str = "10s";
const DRAIN_OF_BUSY: &str = "2s";

/// Beyond quiet, so that a connection rests between any two requests, and within the two seconds for which
/// gunicorn keeps a connection.
const REST: RangeInclusive<u64> = 1_300..=1_800;
/// Well within quiet.
const BUSY: RangeInclusive<u64> = 20..=80;

const CLOSING: usize = 8;
const BUSY_CLIENTS: usize = 10;

/// What became of the requests of clients that rest, or close.
#[derive(Debug, Default, Serialize)]
pub(super) struct Resting {
    restarts: u32,
    requests: u64,
    failed: u64,
    refused: u64,
    /// Crossed the server's FIN, as HTTP/1.1 allows; the client knows that nobody acted on it.
    crossed: u64,
    /// Found their connection closed, before they wrote anything.
    closed_at_rest: u64,
    /// Restarts that lasted to the end of the drain, since somebody always spoke.
    to_the_end: u32,
    /// Connections that the guard says it cut then: of those who had spoken last.
    cut: usize,
    /// How requests failed.
    failures: Vec<String>,
}

/// What became of connections that were never at rest.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Busy {
    restarts: u32,
    requests: u64,
    /// Connections that the guard says it cut.
    said: usize,
    /// Connections of which it says that the application has ended them itself.
    by_itself: usize,
    /// Connections that their clients saw end.
    seen: u64,
    /// Those of them that a busy machine had let rest when they were seen to have ended.
    rested: u64,
    /// Restarts after which the guard told of at least as many as had lost a request.
    agreed: u32,
    /// Requests that were under way on them.
    failed: u64,
    refused: u64,
}

impl Resting {
    pub(super) fn holds(&self) -> bool {
        self.failed + self.refused == 0
    }
}

impl Busy {
    /// A connection has one request under way at the most.
    pub(super) fn holds(&self) -> bool {
        self.agreed == self.restarts && self.failed <= self.seen && self.refused == 0
    }
}

impl fmt::Display for Resting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            restarts,
            requests,
            failed,
            refused,
            crossed,
            closed_at_rest,
            to_the_end,
            cut,
            failures,
        } = self;
        write!(
            f,
            "close or rest: {restarts} restarts, {requests} requests, {failed} failed, {refused} refused; \
             {closed_at_rest} found a closed connection, {crossed} crossed its end; \
             {to_the_end} restarts took all of the drain, {cut} connections cut off"
        )?;
        failures
            .iter()
            .try_for_each(|failure| write!(f, "\n        failed: {failure}"))
    }
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            restarts,
            requests,
            said,
            by_itself,
            seen,
            rested,
            agreed,
            failed,
            refused,
        } = self;
        write!(
            f,
            "always busy: {restarts} restarts, {requests} requests; cut off {said} by the guard's word, and {by_itself} \
             ended by the application, {seen} by their clients' ({rested} at rest; {agreed} restarts agree), {failed} of them with a request under way, {refused} refused"
        )
    }
}

/// Restarts with clients that close after each answer, or rest between two.
pub(super) async fn resting(
    ground: &Ground<'_>,
    restarts: u32,
    resting: usize,
) -> anyhow::Result<Resting> {
    let options = ["--quiet", QUIET, "--drain", DRAIN_OF_RESTING];
    let mut server = ground.start(&options).await?;
    let clients = Clients::default();
    let mut tasks = JoinSet::new();
    for _ in 0..CLOSING {
        tasks.spawn(clients.clone().run(server.address, BUSY, Keep::Never));
    }
    for _ in 0..resting {
        tasks.spawn(clients.clone().run(server.address, REST, Keep::Alive));
    }
    let (mut row, mut ends) = (Resting::default(), Vec::new());
    for number in 1..=restarts {
        ground.progress(&format!("restart {number} with clients that rest"));
        // So long that everybody has come to the current generation.
        sleep(Duration::from_millis(*REST.end())).await;
        server.restart().await?;
        row.restarts += 1;
        let (cut, by_itself) = server.before_has_ended(LIMIT).await?;
        let cut = cut + by_itself;
        row.to_the_end += u32::from(cut > 0);
        row.cut += cut;
        if cut > 0 {
            ends.push(Instant::now());
        }
    }
    sleep(Duration::from_millis(*REST.end())).await;
    clients.over.store(true, Relaxed);
    tasks.join_all().await;
    let counts = &clients.counts;
    row.requests = counts.requests.load(Relaxed);
    row.failures = counts.failures(&ends);
    row.failed = counts.failed.load(Relaxed);
    row.refused = counts.refused.load(Relaxed);
    row.crossed = counts.crossed.load(Relaxed);
    row.closed_at_rest = counts.closed_at_rest.load(Relaxed);
    Ok(row)
}

/// Restarts with clients that never rest.
pub(super) async fn busy(ground: &Ground<'_>, restarts: u32) -> anyhow::Result<Busy> {
    let options = ["--quiet", QUIET, "--drain", DRAIN_OF_BUSY];
    let mut server = ground.start(&options).await?;
    let clients = Clients::default();
    let mut tasks = JoinSet::new();
    for _ in 0..BUSY_CLIENTS {
        tasks.spawn(clients.clone().run(server.address, BUSY, Keep::Alive));
    }
    let mut row = Busy::default();
    let counts = &clients.counts;
    for number in 1..=restarts {
        ground.progress(&format!("restart {number} with clients that never rest"));
        // So long that everybody has found its connection cut, and has made another.
        sleep(Duration::from_millis(*BUSY.end() * 5)).await;
        let (before, rested_before) = (counts.ends(), counts.rested.load(Relaxed));
        let failed_before = counts.failed.load(Relaxed);
        server.restart().await?;
        let (said, by_itself) = server.before_has_ended(LIMIT).await?;
        sleep(Duration::from_millis(*BUSY.end() * 5)).await;
        let seen = counts.ends() - before;
        row.restarts += 1;
        let rested = counts.rested.load(Relaxed) - rested_before;
        let failed = counts.failed.load(Relaxed) - failed_before;
        row.agreed += u32::from(failed <= (said + by_itself) as u64);
        row.by_itself += by_itself;
        row.rested += rested;
        row.said += said;
        row.seen += seen;
    }
    clients.over.store(true, Relaxed);
    tasks.join_all().await;
    row.requests = counts.requests.load(Relaxed);
    row.failed = counts.failed.load(Relaxed);
    row.refused = counts.refused.load(Relaxed);
    Ok(row)
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    crossed: AtomicU64,
    closed_at_rest: AtomicU64,
    /// Of those, they that had been silent for longer than quiet.
    rested: AtomicU64,
    failures: Mutex<Vec<(Instant, String)>>,
}

impl Counts {
    fn fails(&self, what: String) {
        self.failed.fetch_add(1, Relaxed);
        let failures = self.failures.lock();
        let mut failures = failures.unwrap_or_else(PoisonError::into_inner);
        failures.push((Instant::now(), what));
    }

    /// Tells each failure, and how far it was from an instant at which connections were cut off.
    fn failures(&self, ends: &[Instant]) -> Vec<String> {
        let failures = self.failures.lock();
        let failures = failures.unwrap_or_else(PoisonError::into_inner);
        let told = failures.iter().map(|(at, what)| {
            let apart = |end: &Instant| {
                at.saturating_duration_since(*end) + end.saturating_duration_since(*at)
            };
            match ends.iter().map(apart).min() {
                Some(apart) => format!("{what}, {apart:?} from the end of a drain"),
                None => what.clone(),
            }
        });
        told.collect()
    }

    /// How many kept connections were ended by the server.
    fn ends(&self) -> u64 {
        let ends = [&self.failed, &self.crossed, &self.closed_at_rest];
        ends.map(|count| count.load(Relaxed)).iter().sum()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Alive,
    /// It asks for the close itself.
    Never,
}

#[derive(Clone, Default)]
struct Clients {
    counts: Arc<Counts>,
    over: Arc<AtomicBool>,
}

impl Clients {
    /// Thinks, asks, and thinks again, until it is over.
    async fn run(self, address: SocketAddr, think: RangeInclusive<u64>, keep: Keep) {
        let mut request = Request::get("/fast");
        if keep == Keep::Never {
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        let letter = Letter::new(&[request], address);
        let mut kept = None;
        let mut answered = Instant::now();
        while !self.over.load(Relaxed) {
            let pause = rand::rng().random_range(think.clone());
            sleep(Duration::from_millis(pause)).await;
            let silent = answered.elapsed();
            kept = self.ask(address, &letter, kept.take(), silent).await;
            // Some servers close without a word of it, as they were asked to.
            kept = kept.filter(|_| keep == Keep::Alive);
            answered = Instant::now();
        }
    }

    /// Asks once, after so long a silence; returns the connection if it goes on.
    async fn ask(
        &self,
        address: SocketAddr,
        letter: &Letter,
        kept: Option<Connection>,
        silent: Duration,
    ) -> Option<Connection> {
        let counts = &self.counts;
        counts.requests.fetch_add(1, Relaxed);
        let mut connection = match kept {
            Some(kept) => kept,
            None => match Connection::open(address, Window::Usual, LIMIT).await {
                Ok(made) => made,
                Err(unmade) => {
                    match outcome::judge(&unmade.evidence) {
                        Outcome::Declined(Declined::Refused) => {
                            counts.refused.fetch_add(1, Relaxed);
                        }
                        other => counts.fails(format!("{other:?}")),
                    }
                    return None;
                }
            },
        };
        let exchange = connection.exchange(letter, LIMIT).await;
        match outcome::judge(&exchange.evidence(0)) {
            Outcome::Answered { .. } => {
                let keeps = exchange.persistence() == Persistence::KeepAlive;
                return keeps.then_some(connection);
            }
            Outcome::Declined(Declined::IdleClosed) => {
                counts.closed_at_rest.fetch_add(1, Relaxed);
                counts
                    .rested
                    .fetch_add(u64::from(silent > QUIET_TIME), Relaxed);
            }
            Outcome::Declined(Declined::Crossed) => {
                counts.crossed.fetch_add(1, Relaxed);
            }
            other => counts.fails(format!("{other:?}")),
        }
        None
    }
}
