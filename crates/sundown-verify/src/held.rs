//! Makes the accept-queue race certain: the server is frozen while requests pile up in its queue,
//! and learns of them together with the signal to stop.
//!
//! The promise: every request counted was wholly written, to a connection the kernel had
//! accepted, before the signal was sent; under TLS its ClientHello was. A connection that did not fit into the queue is counted
//! as a local error, because no byte of it was sent. Of a process that leads a group the whole group
//! is frozen, and the leader goes on first: where workers accept, they find the requests and the
//! leader's word together. Never leaves a process frozen.

use std::io;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::channel::Endpoint;
use crate::http1::{Connection, Exchange, Letter, Unmade};
use crate::http2::{Begun, Session};
use crate::load::ledger::{Ledger, Report, words};
use crate::outcome::{End, Persistence};
use crate::plan::{Kind, Plan, Request};
use crate::process::{self, SignalTo};
use crate::tally::Tally;
use crate::tcp::Window;

/// Says which requests to hold in front of which process.
#[derive(Debug, Clone)]
pub struct Held {
    /// Where to connect and what to ask; its clients are not started. Requests are those of
    /// [`Kind::KeepAlive`], [`Kind::NewConnection`] and [`Kind::Http2`], and are counted under these.
    pub plan: Plan,
    /// The process that listens.
    pub pid: u32,
    /// How many HTTP/1.1 connections to hold that were answered once before. They are counted under
    /// [`Kind::KeepAlive`].
    pub reused: usize,
    /// How many new HTTP/1.1 connections to hold. Keep the sum below the listener's backlog.
    pub http1: usize,
    /// How many HTTP/2 connections to hold, with one stream each.
    pub http2: usize,
    /// The signal that asks the server to stop.
    pub stop: i32,
    /// Who gets it.
    pub stop_to: SignalTo,
}

/// Means that the process could not be frozen or signalled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeldError {
    /// A signal could not be sent.
    #[error("could not send signal {signal} to process {pid}")]
    Signal {
        /// The signal.
        signal: i32,
        /// The process.
        pid: u32,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The process did not stop.
    #[error("process {pid} was not frozen {:?} after SIGSTOP", FREEZE_LIMIT)]
    NotFrozen {
        /// The process.
        pid: u32,
    },
}

const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// How long the leader of a group has to pass the signal on before the others go on.
const HEAD_START: Duration = Duration::from_millis(50);
/// Loopback completes a handshake at once, unless the queue is full.
const QUEUE_LIMIT: Duration = Duration::from_millis(500);

impl Held {
    /// Freezes the process, queues the requests, sends the signal, thaws, and counts.
    ///
    /// # Errors
    /// If the process cannot be frozen or signalled.
    pub async fn run(&self) -> Result<Tally, HeldError> {
        self.run_noting(|| {}).await
    }

    /// The same; says when the signal was sent, before the process goes on.
    pub(crate) async fn run_noting(&self, sent: impl FnOnce()) -> Result<Tally, HeldError> {
        let mut queue = Queue {
            ledger: Ledger::new(self.plan.clone()),
            clients: 0,
            http1: Vec::new(),
            http2: Vec::new(),
        };
        let kept = queue.keep(self).await;
        let frozen = Frozen::freeze(self.pid).await?;
        queue.fill(self, kept).await;
        signal(self.pid, self.stop)?;
        if self.stop_to == SignalTo::Group {
            for other in &frozen.others {
                signal(*other, self.stop)?;
            }
        }
        sent();
        frozen.thaw().await;
        Ok(queue.judge().await)
    }
}

/// Is a frozen process and its group, if it leads one; thaws when dropped.
struct Frozen {
    leader: u32,
    others: Vec<u32>,
}

impl Frozen {
    async fn freeze(pid: u32) -> Result<Self, HeldError> {
        let mut frozen = Self {
            leader: pid,
            others: Vec::new(),
        };
        let deadline = Instant::now() + FREEZE_LIMIT;
        freeze_one(pid, deadline).await?;
        // From here on the leader starts no more of them.
        frozen.others = process::members(pid);
        frozen.others.retain(|member| *member != pid);
        for other in &frozen.others {
            freeze_one(*other, deadline).await?;
        }
        Ok(frozen)
    }

    async fn thaw(self) {
        if !self.others.is_empty() {
            let _ = signal(self.leader, libc::SIGCONT);
            sleep(HEAD_START).await;
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pid in self.others.iter().chain([&self.leader]) {
            // A process that is gone needs no thawing.
            let _ = signal(*pid, libc::SIGCONT);
        }
    }
}

async fn freeze_one(pid: u32, deadline: Instant) -> Result<(), HeldError> {
    signal(pid, libc::SIGSTOP)?;
    while !every_thread_is_stopped(pid) {
        if Instant::now() > deadline {
            return Err(HeldError::NotFrozen { pid });
        }
        // The kernel reports the stop of a process to its parent only, and that may be another.
        sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Tells whether every thread is in state T (proc_pid_stat(5)).
fn every_thread_is_stopped(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        std::fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| state_of(&stat) == 'T')
    })
}

/// Returns the state from a line of /proc/PID/stat; the name before it may contain anything.
fn state_of(stat: &str) -> char {
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.chars().next().unwrap_or('?')
}

fn signal(pid: u32, signal: i32) -> Result<(), HeldError> {
    // SAFETY: kill(2) takes no pointers.
    match unsafe { libc::kill(pid as libc::pid_t, signal) } {
        0 => Ok(()),
        _ => Err(HeldError::Signal {
            signal,
            pid,
            source: io::Error::last_os_error(),
        }),
    }
}

/// Is what waits in front of a frozen server.
struct Queue {
    ledger: Ledger,
    /// How many there are so far; each request has a client of its own.
    clients: usize,
    http1: Vec<Waiting>,
    http2: Vec<(usize, Request, Begun)>,
}

struct Waiting {
    kind: Kind,
    number: usize,
    request: Request,
    letter: Letter,
    connection: Connection,
    exchange: Exchange,
}

impl Waiting {
    async fn read(mut self, deadline: Instant) -> Self {
        let (letter, exchange) = (&self.letter, &mut self.exchange);
        self.connection.read(letter, exchange, deadline).await;
        self
    }
}

impl Queue {
    /// Opens the connections that are used once before.
    async fn keep(&self, held: &Held) -> Vec<Connection> {
        let plan = self.ledger.plan();
        let mut kept = Vec::new();
        for _ in 0..held.reused {
            let request = plan.requests.build(Kind::KeepAlive, u64::MAX);
            let letter = Letter::new(&[request], plan.target);
            let opened = Connection::open(plan.target, Window::Usual, plan.hang_limit).await;
            if let Ok(mut connection) = opened {
                let exchange = connection.exchange(&letter, plan.hang_limit).await;
                if exchange.persistence() == Persistence::KeepAlive {
                    kept.push(connection);
                }
            }
        }
        kept
    }

    async fn fill(&mut self, held: &Held, kept: Vec<Connection>) {
        for connection in kept {
            let request = self.ledger.request(Kind::KeepAlive);
            self.hold(Kind::KeepAlive, request, connection).await;
        }
        for _ in 0..held.http1 {
            self.hold_http1(held.plan.target).await;
        }
        for _ in 0..held.http2 {
            self.hold_http2(held.plan.target).await;
        }
    }

    async fn hold_http1(&mut self, target: Endpoint) {
        let request = self.ledger.request(Kind::NewConnection);
        match Connection::dial(target, Window::Usual, QUEUE_LIMIT).await {
            Ok(connection) => self.hold(Kind::NewConnection, request, connection).await,
            Err(unmade) => {
                let number = self.next_client();
                self.count_unmade(Kind::NewConnection, number, &request, unmade);
            }
        }
    }

    async fn hold(&mut self, kind: Kind, request: Request, mut connection: Connection) {
        let letter = Letter::new(std::slice::from_ref(&request), self.ledger.plan().target);
        let mut exchange = Exchange::new(&mut connection, &letter);
        // What does not fit into the kernel's buffers is written after the thaw, if at all.
        let _ = timeout(QUEUE_LIMIT, connection.write(&letter, &mut exchange)).await;
        let number = self.next_client();
        self.http1.push(Waiting {
            kind,
            number,
            request,
            letter,
            connection,
            exchange,
        });
    }

    async fn hold_http2(&mut self, target: Endpoint) {
        let number = self.next_client();
        let request = self.ledger.request(Kind::Http2);
        let session = match Session::dial(target, QUEUE_LIMIT).await {
            Ok(session) => session,
            Err(unmade) => return self.count_unmade(Kind::Http2, number, &request, unmade),
        };
        match session.begin(&request).await {
            Ok(begun) => {
                // If the connection breaks instead, the answer will tell.
                let _ = timeout(QUEUE_LIMIT, session.headers_written(1)).await;
                self.http2.push((number, request, begun));
            }
            Err(exchange) => self.count_http2(number, &request, &exchange),
        }
    }

    async fn judge(mut self) -> Tally {
        let limit = self.ledger.plan().hang_limit;
        let deadline = Instant::now() + limit;
        // All at once: when each ended is evidence, too.
        let mut reading = JoinSet::new();
        for waiting in std::mem::take(&mut self.http1) {
            reading.spawn(waiting.read(deadline));
        }
        let mut read = reading.join_all().await;
        read.sort_by_key(|waiting| waiting.number);
        for waiting in read {
            let evidence = waiting.exchange.evidence(0);
            self.ledger.count(Report {
                kind: waiting.kind,
                number: waiting.number,
                request: &waiting.request,
                span: waiting.exchange.span(0),
                evidence,
                response: waiting.exchange.responses().first(),
                error: &|| words(&waiting.exchange, &evidence),
            });
        }
        for (number, request, begun) in std::mem::take(&mut self.http2) {
            let left = deadline.saturating_duration_since(Instant::now());
            let exchange = begun.finish(left).await;
            self.count_http2(number, &request, &exchange);
        }
        self.ledger.tally()
    }

    fn count_http2(&self, number: usize, request: &Request, exchange: &crate::http2::Exchange) {
        self.ledger.count(Report {
            kind: Kind::Http2,
            number,
            request,
            span: exchange.span(),
            evidence: exchange.evidence(),
            response: exchange.response(),
            error: &|| exchange.error().unwrap_or_default().to_owned(),
        });
    }

    fn next_client(&mut self) -> usize {
        self.clients += 1;
        self.clients
    }

    fn count_unmade(&self, kind: Kind, number: usize, request: &Request, mut unmade: Unmade) {
        // A full queue drops the handshake: nothing of the request was sent.
        if unmade.evidence.end == End::Hung {
            unmade.evidence.end = End::Local;
        }
        self.ledger.count_unmade(kind, number, request, &unmade);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_found_behind_any_name() {
        assert_eq!(state_of("12 (server) T 1 2"), 'T');
        assert_eq!(state_of("12 (a) R (b) S 1 2"), 'S');
        assert_eq!(state_of(""), '?');
    }
}
