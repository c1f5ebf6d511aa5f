//! One stop of a service, and the checks that look at it.
//!
//! The promise: the signal goes out once every check is set, and each learns when that was, when
//! the listener was closed, and when and how the process ended. A process that outstays its grace
//! is killed if it is ours to kill. Decides nothing about what was seen: the checks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use crate::cause;
use crate::channel::Endpoint;
use crate::check::{Check, Finding, Stop, Verdict};
use crate::counters::Counted;
use crate::disposition::{self, Disposition};
use crate::process::{Descendant, Ended, ProcessError, SignalTo};
use crate::service::{Service, StartError};
use crate::subject::Subject;
use crate::timeline::{Recorder, Timeline};

/// How long checks may take to be set.
const SET_LIMIT: Duration = Duration::from_secs(20);

/// How long a check with a stop of its own may take until it gives the signal: some start the service
/// twenty times before, and there are services that start slowly.
const OWN_LIMIT: Duration = Duration::from_secs(600);

/// How long before the signal it is announced: time to send what is to be in flight at it.
const NOTICE: Duration = Duration::from_millis(100);

/// How long before the signal nothing new is begun by clients that are to be in flight at it.
const LAST: Duration = Duration::from_millis(10);

/// How long a process may take beyond its grace before it is killed, and a check beyond the end.
const SLACK: Duration = Duration::from_secs(2);

/// How late our own tasks may be before a request that hung says nothing of the service.
pub const LAG_LIMIT: Duration = Duration::from_millis(500);

/// How long it may take until all of a process knows what its signal handler does.
const HEARSAY: Duration = Duration::from_millis(50);

/// How often our own lateness is measured.
const TICK: Duration = Duration::from_millis(20);

/// How often the kernel is asked whether somebody listens.
const LOOK: Duration = Duration::from_millis(2);

/// What happened, as far as it has.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    /// How near the signal is.
    pub nearness: Nearness,
    /// When the signal was sent, or ordered: it came no earlier.
    pub signalled: Option<Instant>,
    /// When the signal had been delivered: it came no later. The kernel tells that of what we send
    /// ourselves, and systemd of what it sends; a command that stops something does not, so that it is
    /// seen by the listener.
    pub delivered: Option<Instant>,
    /// The first signal that was sent.
    pub signal: Option<i32>,
    /// What the process did with that signal when it was sent, where its process is known.
    pub disposition: Option<Disposition>,
    /// When nobody listened any more.
    pub closed: Option<Instant>,
    /// When the process ended, and how, where that can be seen.
    pub ended: Option<(Instant, Option<Ended>)>,
    /// Whether it had to be killed.
    pub killed: bool,
    /// Whether it outstayed its grace and was left alone, because it is not ours to kill.
    pub stayed: bool,
    /// Processes that it had started, directly or not, and that were there after its end.
    pub orphans: Vec<Descendant>,
    /// Whether somebody listened after its end.
    pub leaked: bool,
}

/// How near the signal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// Some check is not set.
    #[default]
    Unknown,
    /// A tenth of a second.
    Announced,
    /// A hundredth.
    Imminent,
}

impl Moments {
    /// How long after the signal something was.
    pub fn after_signal(&self, at: Option<Instant>) -> Option<Duration> {
        Some(at?.saturating_duration_since(self.signalled?))
    }
}

/// What one stop showed.
#[derive(Debug)]
pub struct Played {
    /// What happened.
    pub moments: Moments,
    /// What each check found, in their order.
    pub findings: Vec<Finding>,
    /// The child that listens, where the process that was started does not.
    pub wrapped: Option<String>,
    /// What the checks' clients did.
    pub timeline: Timeline,
    /// What the kernel counted in the network namespace from the signal until the checks were done, where
    /// that is a stop that they share.
    pub counted: Option<Counted>,
}

/// What a check sees of a stop.
#[derive(Debug)]
pub struct Stage {
    service: Arc<Service>,
    address: SocketAddr,
    pid: Option<u32>,
    moments: watch::Receiver<Moments>,
    lag: Arc<Lag>,
    recorder: Recorder,
    orders: mpsc::UnboundedSender<Order>,
    /// Dropped when the check is set.
    unset: Option<mpsc::Sender<()>>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Send(i32),
    /// The check has sent the signal itself, to a process that did this with it.
    Sent(Option<Disposition>),
}

impl Stage {
    /// The service.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, and what it speaks there.
    pub fn endpoint(&self) -> Endpoint {
        self.service.endpoint(self.address)
    }

    /// The process that is stopped.
    ///
    /// # Panics
    /// If it is not known: a check that asks must need [`Process`](crate::check::Need::Process).
    pub fn pid(&self) -> u32 {
        self.pid.expect("the check needs a process")
    }

    /// What has happened so far.
    pub fn moments(&self) -> Moments {
        self.moments.borrow().clone()
    }

    /// The longest that our own tasks were late during this stop.
    pub fn lag(&self) -> Duration {
        self.lag.longest()
    }

    /// Notes what the check's clients do.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Says that this check is set, and waits until the signal is this near.
    pub async fn near(&mut self, nearness: Nearness) {
        self.unset = None;
        let _ = self.moments.wait_for(|now| now.nearness >= nearness).await;
    }

    /// Says that this check is set, and waits until the signal was sent; returns when.
    pub async fn signalled(&mut self) -> Instant {
        self.unset = None;
        let reached = self.moments.wait_for(|now| now.signalled.is_some()).await;
        reached.map_or_else(|_| Instant::now(), |now| now.signalled.expect("waited for"))
    }

    /// Says that this check is set, and waits until the signal was delivered; returns when that was
    /// certain.
    pub async fn delivered(&mut self) -> Instant {
        self.unset = None;
        let reached = self.moments.wait_for(|now| now.delivered.is_some()).await;
        reached.map_or_else(|_| Instant::now(), |now| now.delivered.expect("waited for"))
    }

    /// Says that this check is set, and waits until each thread of the process could know of the signal, on a machine that is as busy as
    /// ours is; returns when that was. What is heard from the process later was said after that.
    pub async fn heard(&mut self) -> Instant {
        let delivered = self.delivered().await;
        loop {
            // Its threads may be as late as our own tasks, and so may we when we hear of it.
            let heard = delivered + HEARSAY + 2 * self.lag.since_signal();
            if heard <= Instant::now() {
                return heard;
            }
            sleep_until(heard).await;
        }
    }

    /// Sends a signal to the process; the first counts as the one that asks it to stop.
    pub fn send(&self, signal: i32) {
        let _ = self.orders.send(Order::Send(signal));
    }

    /// Says that this check has sent the signal itself; before it the process did this with it.
    pub fn sent(&self, disposition: Option<Disposition>) {
        let _ = self.orders.send(Order::Sent(disposition));
    }

    /// Waits until nobody listens any more, or the process has ended or stayed; returns when.
    pub async fn closed(&mut self) -> Instant {
        let reached = self.moments.wait_for(|now| now.closed.is_some()).await;
        reached.map_or_else(|_| Instant::now(), |now| now.closed.expect("waited for"))
    }

    /// Waits for the end of the process, or until it has stayed too long; returns all that happened.
    pub async fn ended(&mut self) -> Moments {
        let over = |now: &Moments| now.ended.is_some() || now.stayed;
        let _ = self.moments.wait_for(over).await;
        self.moments()
    }
}

/// Starts the service, plays the checks on it, and stops it.
///
/// # Errors
/// If it cannot be started, signalled or watched.
pub async fn play(service: &Arc<Service>, checks: &[&Check]) -> Result<Played, StartError> {
    let subject = Subject::start(service).await?;
    let wrapped = subject.wrapped();
    let (unset, mut all_set) = mpsc::channel(1);
    let (orders, inbox) = mpsc::unbounded_channel();
    let (moments, _) = watch::channel(Moments::default());
    let lag = Arc::new(Lag::default());
    let _ticking = AbortOnDrop(tokio::spawn(lag.clone().measure()));
    let recorder = |check: &&Check| Recorder::new(check.id, moments.subscribe());
    let recorders: Vec<Recorder> = checks.iter().map(recorder).collect();
    let mut playing = JoinSet::new();
    for (index, check) in checks.iter().enumerate() {
        let stage = Stage {
            service: service.clone(),
            address: subject.address(),
            pid: subject.pid(),
            moments: moments.subscribe(),
            lag: lag.clone(),
            recorder: recorders[index].clone(),
            orders: orders.clone(),
            unset: Some(unset.clone()),
        };
        let play = (check.play)(stage);
        playing.spawn(async move { (index, play.await) });
    }
    drop((unset, orders));
    let mut conductor = Conductor {
        subject,
        inbox,
        moments,
        lag: lag.clone(),
        signal: service.signal,
        signal_to: service.signal_to,
        limit: service.grace + SLACK,
    };
    let mut before = None;
    if checks.iter().any(|check| check.stop != Stop::Own) {
        let _ = timeout(SET_LIMIT, all_set.recv()).await;
        conductor.comes_near(Nearness::Announced);
        sleep(NOTICE - LAST).await;
        conductor.comes_near(Nearness::Imminent);
        sleep(LAST).await;
        before = Some(Counted::now());
        conductor.stop().await?;
    }
    conductor.watch().await?;
    let moments = conductor.moments.borrow().clone();
    let mut findings = findings(playing, checks.len()).await;
    for (finding, recorder) in findings.iter_mut().zip(&recorders) {
        blame(finding, &moments, recorder, lag.longest());
    }
    Ok(Played {
        timeline: Timeline::of(&moments, &recorders),
        counted: before.map(|before| Counted::now().since(&before)),
        moments,
        findings,
        wrapped,
    })
}

async fn findings(mut playing: JoinSet<(usize, Finding)>, count: usize) -> Vec<Finding> {
    let mut findings = vec![Finding::inconclusive("it did not come to an end"); count];
    let deadline = Instant::now() + SLACK;
    while let Ok(Some(played)) = tokio::time::timeout_at(deadline, playing.join_next()).await {
        let (index, finding) = played.expect("a check neither panics nor is aborted");
        findings[index] = finding;
    }
    findings
}

/// Says why requests were lost, once all that happened is known, unless the check knows better.
fn blame(finding: &mut Finding, moments: &Moments, recorder: &Recorder, lag: Duration) {
    let lost = finding.verdict == Verdict::Fail && finding.lost.is_some_and(|lost| lost > 0);
    if lost && finding.cause.is_none() {
        finding.cause = cause::of_losses(&recorder.losses(), moments, lag);
    }
}

/// How late our own tasks are: a machine that is busy with something else makes any service look
/// slow.
#[derive(Debug, Default)]
struct Lag {
    /// Microseconds.
    longest: AtomicU64,
    since_signal: AtomicU64,
}

impl Lag {
    async fn measure(self: Arc<Self>) {
        loop {
            let due = Instant::now() + TICK;
            sleep_until(due).await;
            let late = due.elapsed().as_micros() as u64;
            self.longest.fetch_max(late, Ordering::Relaxed);
            self.since_signal.fetch_max(late, Ordering::Relaxed);
        }
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    fn since_signal(&self) -> Duration {
        Duration::from_micros(self.since_signal.load(Ordering::Relaxed))
    }

    fn note_signal(&self) {
        self.since_signal.store(0, Ordering::Relaxed);
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Owns the process while it stops.
struct Conductor {
    subject: Subject,
    inbox: mpsc::UnboundedReceiver<Order>,
    moments: watch::Sender<Moments>,
    lag: Arc<Lag>,
    signal: i32,
    signal_to: SignalTo,
    limit: Duration,
}

impl Conductor {
    fn comes_near(&self, nearness: Nearness) {
        self.moments
            .send_modify(|moments| moments.nearness = nearness);
    }

    async fn stop(&mut self) -> Result<(), StartError> {
        // Noted before: what a check sees after the signal is never earlier than it.
        self.note_signal(self.signal, self.disposition(self.signal));
        self.subject.stop(self.signal_to, self.signal).await?;
        self.look_at_delivery();
        Ok(())
    }

    async fn send(&mut self, signal: i32) -> Result<(), StartError> {
        self.note_signal(signal, self.disposition(signal));
        self.subject.signal(self.signal_to, signal).await?;
        self.look_at_delivery();
        Ok(())
    }

    /// Sends what a check orders. The process may be gone already, which its end will tell.
    async fn obey(&mut self, signal: i32) -> Result<(), StartError> {
        match self.send(signal).await {
            Err(error @ StartError::Process(ProcessError::Spawn { .. })) => Err(error),
            _ => Ok(()),
        }
    }

    /// The first counts.
    fn note_signal(&self, signal: i32, disposition: Option<Disposition>) {
        if self.moments.borrow().signalled.is_some() {
            return;
        }
        self.lag.note_signal();
        self.moments.send_modify(|moments| {
            moments.signal = Some(signal);
            moments.disposition = disposition;
            moments.signalled = Some(Instant::now());
        });
    }

    /// Asked before: a handler may set the signal back to its default.
    fn disposition(&self, signal: i32) -> Option<Disposition> {
        Disposition::of(self.subject.pid()?, signal)
    }

    /// Notes that the signal was delivered, if it was.
    fn look_at_delivery(&self) {
        let (signal, delivered) = {
            let moments = self.moments.borrow();
            (moments.signal, moments.delivered)
        };
        let Some(signal) = signal.filter(|_| delivered.is_none()) else {
            return;
        };
        let pending = |pid| disposition::is_pending(pid, signal).unwrap_or(false);
        if self.subject.tells_of_delivery() && !self.subject.pid().is_some_and(pending) {
            self.moments
                .send_modify(|moments| moments.delivered = Some(Instant::now()));
        }
    }

    /// Watches until the end, which it brings about when that takes too long and it may.
    async fn watch(&mut self) -> Result<(), StartError> {
        let begun = Instant::now();
        let mut look = interval(LOOK);
        loop {
            let since = self.moments.borrow().signalled.unwrap_or(begun + OWN_LIMIT);
            tokio::select! {
                gone = self.subject.gone() => {
                    gone?;
                    return self.note_end().await;
                }
                Some(order) = self.inbox.recv() => match order {
                    Order::Send(signal) => self.obey(signal).await?,
                    Order::Sent(disposition) => {
                        self.note_signal(self.signal, disposition);
                        self.look_at_delivery();
                    }
                },
                _ = look.tick() => {
                    self.look_at_delivery();
                    self.look_at_listener()?;
                }
                () = sleep_until(since + self.limit) => return self.end_it().await,
            }
        }
    }

    /// Kills what has stayed, if that is ours to do.
    async fn end_it(&mut self) -> Result<(), StartError> {
        // A check that gave up may have told it nothing; then it has outstayed nothing, either.
        let told = self.moments.borrow().signalled.is_some();
        if !told && !self.subject.is_our_child() {
            return Ok(());
        }
        // It may have ended in this very moment.
        let Some(killed) = self.subject.kill().await else {
            self.note_stay();
            return Ok(());
        };
        self.moments.send_modify(|moments| moments.killed = killed);
        let too_slow = |_| ProcessError::TooSlow {
            what: "end after SIGKILL".to_owned(),
            limit: SLACK,
        };
        let gone = timeout(SLACK, self.subject.gone()).await;
        gone.map_err(too_slow)??;
        self.note_end().await
    }

    fn look_at_listener(&mut self) -> Result<(), StartError> {
        let moments = self.moments.borrow();
        if moments.signalled.is_none() || moments.closed.is_some() {
            return Ok(());
        }
        drop(moments);
        let listening = self.subject.somebody_listens();
        if !listening.map_err(ProcessError::Observe)? {
            let now = Instant::now();
            self.moments.send_modify(|moments| {
                moments.closed = Some(now);
                moments.delivered.get_or_insert(now);
            });
        }
        Ok(())
    }

    async fn note_end(&mut self) -> Result<(), StartError> {
        let now = Instant::now();
        let leaked = self.subject.is_leaked().await;
        let leaked = leaked.map_err(ProcessError::Observe)?;
        let orphans = self.subject.orphans();
        let departure = self.subject.departure().await?;
        self.moments.send_modify(|moments| {
            moments.ended = Some((now, departure.status));
            moments.killed |= departure.killed;
            moments.closed.get_or_insert(now);
            moments.delivered.get_or_insert(now);
            moments.leaked = leaked;
            moments.orphans = orphans;
        });
        Ok(())
    }

    fn note_stay(&self) {
        let now = Instant::now();
        self.moments.send_modify(|moments| {
            moments.stayed = true;
            moments.closed.get_or_insert(now);
            moments.delivered.get_or_insert(now);
        });
    }
}
