//! Tells handlers, workers and tasks how much time they have.
//!
//! A context never stops anything by itself: it says `draining` (you may finish), a deadline, and
//! `cancelled` (time is up, or the client is gone). What ignores it is cut off when mercy ends.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::lifecycle::Phase;
use crate::open::Tracked;
use crate::report::{CutOff, Work};

/// The header that carries the time left from one service to the next: whole milliseconds, as
/// decimal digits. A relative time, because clocks of different machines differ; the network's
/// share is lost, never gained. A value that is not a number is ignored.
pub const DEADLINE_HEADER: HeaderName = HeaderName::from_static(DEADLINE_NAME);

const DEADLINE_NAME: &str = "x-request-timeout-ms";

/// What a handler, a worker or a task may know about the time it has.
///
/// With the `axum` feature it is an extractor; elsewhere a handler asks for
/// [`Context::current`].
///
/// ```
/// use sundown::Context;
///
/// async fn report(ctx: Context) -> &'static str {
///     tokio::select! {
///         rows = async { "42 rows" } => rows,
///         why = ctx.cancelled() => { eprintln!("gave up: {why}"); "too late" }
///     }
/// }
/// # let _ = report;
/// ```
#[derive(Clone)]
pub struct Context(Arc<Node>);

struct Node {
    core: Arc<Core>,
    parent: Option<Context>,
    of_request: bool,
    deadline: Option<Instant>,
    /// Made when somebody first asks, so that a request that never asks pays nothing.
    token: OnceLock<CancellationToken>,
    ended_early: AtomicBool,
}

/// Why a context was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Cancelled {
    /// The context's own deadline has passed.
    #[error("the deadline has passed")]
    Deadline,
    /// The service stops and the time for draining is used up.
    #[error("the service is stopping and the time to finish is over")]
    Stopping,
    /// The client closed its connection or reset its stream.
    #[error("the client is gone")]
    ClientGone,
    /// [`Context::cancel`] was called on it or on one it came from.
    #[error("cancelled by hand")]
    ByHand,
}

impl Context {
    pub(crate) fn of_service(core: Arc<Core>) -> Self {
        Self::new(core, None, false, None)
    }

    pub(crate) fn of_request(core: Arc<Core>, deadline: Option<Instant>) -> Self {
        Self::new(core, None, true, deadline)
    }

    fn new(
        core: Arc<Core>,
        parent: Option<Self>,
        of_request: bool,
        deadline: Option<Instant>,
    ) -> Self {
        let (token, ended_early) = (OnceLock::new(), AtomicBool::new(false));
        Self(Arc::new(Node {
            core,
            parent,
            of_request,
            deadline,
            token,
            ended_early,
        }))
    }

    /// The context of the request that is being handled, for whatever a service's `call` and its
    /// future run: a handler, a middleware, a function deep below. `None` elsewhere, and in a task
    /// of its own that a handler or a middleware spawned: give it a clone.
    ///
    /// ```
    /// use sundown::Context;
    ///
    /// fn still_worth_it() -> bool {
    ///     Context::current().is_none_or(|ctx| ctx.is_cancelled().is_none())
    /// }
    /// # assert!(still_worth_it());
    /// ```
    pub fn current() -> Option<Self> {
        crate::serve::current_context()
    }

    /// The instant by which this must be done: the context's own, its parent's or the drain's,
    /// whichever comes first. `None` while the service is not stopping and nobody set one.
    pub fn deadline(&self) -> Option<Instant> {
        let stop = self.0.core.stop_times().map(|times| times.schedule.cancel);
        [self.own_deadline(), stop].into_iter().flatten().min()
    }

    /// The time left until [`deadline`](Self::deadline); zero once it has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline()
            .map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// True once the service drains: finish what you have, begin nothing new.
    pub fn is_draining(&self) -> bool {
        self.0.core.phase() >= Phase::Draining
    }

    /// Completes when the service begins to drain.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn draining(&self) {
        self.0.core.reached(Phase::Draining).await;
    }

    /// Why this context is cancelled, if it is.
    pub fn is_cancelled(&self) -> Option<Cancelled> {
        if self.ended_early() {
            return Some(self.early_cause());
        }
        if self.0.core.hard.is_cancelled() {
            return Some(Cancelled::Stopping);
        }
        let passed = self.own_deadline().is_some_and(|at| at <= Instant::now());
        passed.then_some(Cancelled::Deadline)
    }

    /// Completes when time is up, the client is gone, or somebody cancelled; says which.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn cancelled(&self) -> Cancelled {
        let token = self.token();
        match self.own_deadline() {
            None => token.cancelled().await,
            Some(at) => {
                let _ = tokio::time::timeout_at(at.into(), token.cancelled()).await;
            }
        }
        self.is_cancelled().unwrap_or(Cancelled::ByHand)
    }

    /// Runs a future until it completes or this context is cancelled, which drops it.
    ///
    /// # Errors
    /// Says why it was cancelled.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Cancelled> {
        tokio::select! {
            biased;
            why = self.cancelled() => Err(why),
            done = work => Ok(done),
        }
    }

    /// A child that is cancelled with this context, or by its own [`cancel`](Self::cancel).
    pub fn child(&self) -> Self {
        self.derive(None)
    }

    /// A child that is also cancelled after `timeout`.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.derive(Instant::now().checked_add(timeout))
    }

    /// A child that is also cancelled at `deadline`.
    pub fn with_deadline(&self, deadline: Instant) -> Self {
        self.derive(Some(deadline))
    }

    /// Cancels this context and its children, not its parent.
    pub fn cancel(&self) {
        self.0.ended_early.store(true, Ordering::Release);
        if let Some(token) = self.0.token.get() {
            token.cancel();
        }
    }

    /// Writes the time left into the headers of an outgoing request ([`DEADLINE_HEADER`]).
    /// Without a deadline the headers stay as they are.
    pub fn propagate(&self, headers: &mut HeaderMap) {
        if let Some(left) = self.remaining() {
            let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            headers.insert(DEADLINE_HEADER, HeaderValue::from(millis));
        }
    }

    /// Starts a task that the drain waits for. It is dropped when what is left is cut off, and
    /// named in the report, with the line that began it. Does nothing when the drain is already over.
    #[track_caller]
    pub fn spawn(
        &self,
        name: impl Into<Arc<str>>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let tracked = Tracked::begin(&self.0.core, Work::Task, name, Location::caller());
        let cut = self.0.core.cut.clone();
        tokio::spawn(async move {
            if let Some(_tracked) = tracked {
                cut.run_until_cancelled(task).await;
            }
        })
    }

    /// Runs blocking code on a thread that the drain waits for. A thread cannot be cut off: when
    /// it outlives the drain it is named in the report, and ends with the process.
    #[track_caller]
    pub fn spawn_blocking<T: Send + 'static>(
        &self,
        name: impl Into<Arc<str>>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let tracked = Tracked::begin(&self.0.core, Work::Blocking, name, Location::caller());
        tokio::task::spawn_blocking(move || {
            let _tracked = tracked;
            work()
        })
    }

    /// Lets the drain wait for work that was begun in another way, until the guard is dropped. Work that
    /// is late is named in the report, with the line that took the guard, and nothing ends it.
    ///
    /// ```
    /// # fn begin(ctx: &sundown::Context) {
    /// let guard = ctx.guard("import");
    /// std::thread::spawn(move || {
    ///     // read, convert, store
    ///     drop(guard);
    /// });
    /// # }
    /// ```
    #[track_caller]
    pub fn guard(&self, name: impl Into<Arc<str>>) -> Guard {
        let place = Location::caller();
        Guard {
            _tracked: Tracked::begin(&self.0.core, Work::Guard, name, place),
        }
    }

    /// Puts into the report what was cut off of a process that this one runs: a connection of its own
    /// ([`Work::Connection`], by its local address and its client), or itself ([`Work::Process`]). The exit code
    /// says so, too.
    pub fn cut_off(&self, work: Work, name: String, peer: Option<SocketAddr>, age: Duration) {
        let cut_off = CutOff::new(work, name, peer, age);
        self.0.core.findings().broken.push(cut_off);
    }

    fn derive(&self, deadline: Option<Instant>) -> Self {
        let earliest = [self.own_deadline(), deadline].into_iter().flatten().min();
        Self::new(self.0.core.clone(), Some(self.clone()), false, earliest)
    }

    fn own_deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    fn token(&self) -> &CancellationToken {
        let node = &self.0;
        let token = node.token.get_or_init(|| match &node.parent {
            Some(parent) => parent.token().child_token(),
            None => node.core.hard.child_token(),
        });
        // Ended between the last look and the making of the token: it has to hear of it too.
        if node.ended_early.load(Ordering::Acquire) {
            token.cancel();
        }
        token
    }

    fn ended_early(&self) -> bool {
        self.0.ended_early.load(Ordering::Acquire)
            || self.0.parent.as_ref().is_some_and(Self::ended_early)
    }

    /// A request's context is ended early only by its client; the others only by hand.
    fn early_cause(&self) -> Cancelled {
        let own = self.0.ended_early.load(Ordering::Acquire);
        match (&self.0.parent, own, self.0.of_request) {
            (_, true, true) => Cancelled::ClientGone,
            (Some(parent), false, _) => parent.early_cause(),
            _ => Cancelled::ByHand,
        }
    }
}

/// Holds the drain open until it is dropped; see [`Context::guard`].
#[must_use = "the drain waits only for as long as this is kept"]
pub struct Guard {
    _tracked: Option<Tracked>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("deadline", &self.deadline())
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "axum")]
impl<S: Sync> axum_core::extract::FromRequestParts<S> for Context {
    type Rejection = (http::StatusCode, &'static str);

    /// # Errors
    /// 500 where there is no [`current`](Self::current) one: the handler is not served by an
    /// [`App`](crate::App), or a middleware has moved it to a task of its own.
    async fn from_request_parts(
        _parts: &mut http::request::Parts,
        _state: &S,
    ) -> Result<Self, Self::Rejection> {
        const MISSING: &str =
            "no sundown::Context here: serve the router by an App, and spawn no task around it";
        Self::current().ok_or((http::StatusCode::INTERNAL_SERVER_ERROR, MISSING))
    }
}

/// Reads the time that a client allows; it counts from when the request began.
pub(crate) fn deadline_in(headers: &HeaderMap, began: impl FnOnce() -> Instant) -> Option<Instant> {
    // Not `get`: to hash this name takes longer than to compare it with the few there are.
    let (_, value) = headers
        .iter()
        .find(|(name, _)| name.as_str() == DEADLINE_NAME)?;
    began().checked_add(parse_millis(value)?)
}

fn parse_millis(value: &HeaderValue) -> Option<Duration> {
    let digits = value.to_str().ok()?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain
        .then(|| digits.parse().ok())
        .flatten()
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Wishes;
    use crate::core::Link;

    fn context() -> Context {
        let budget = Wishes::default().settle().unwrap();
        Context::of_service(Core::new("test".into(), budget, Link::new().0))
    }

    fn request(context: &Context, headers: &HeaderMap) -> Context {
        let deadline = deadline_in(headers, Instant::now);
        Context::of_request(context.0.core.clone(), deadline)
    }

    #[tokio::test(start_paused = true)]
    async fn each_cause_is_told_apart() {
        let service = context();
        let none = HeaderMap::new();

        let by_hand = service.child();
        let grandchild = by_hand.child();
        by_hand.cancel();
        assert_eq!(grandchild.cancelled().await, Cancelled::ByHand);
        assert_eq!(service.is_cancelled(), None);

        let gone = request(&service, &none);
        let task = gone.child();
        gone.cancel();
        assert_eq!(task.cancelled().await, Cancelled::ClientGone);

        let timed = service.with_timeout(Duration::from_millis(5));
        tokio_test_wait(&timed).await;
        assert_eq!(timed.is_cancelled(), Some(Cancelled::Deadline));

        let waiting = service.child();
        service.0.core.hard.cancel();
        assert_eq!(waiting.cancelled().await, Cancelled::Stopping);
    }

    /// The context's clock is the real one: wait on it rather than on paused time.
    async fn tokio_test_wait(context: &Context) {
        while context.is_cancelled().is_none() {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_child_never_outlives_its_parents_deadline() {
        let parent = context().with_timeout(Duration::from_secs(1));
        let child = parent.with_timeout(Duration::from_secs(60));
        assert_eq!(child.deadline(), parent.deadline());
    }

    #[test]
    fn the_header_carries_the_time_left_and_garbage_is_ignored() {
        let service = context();
        let table = [
            ("1500", true),
            ("0", true),
            ("", false),
            ("-1", false),
            ("1.5", false),
            ("+7", false),
            ("soon", false),
            ("99999999999999999999999", false),
        ];
        for (value, understood) in table {
            let mut headers = HeaderMap::new();
            headers.insert(DEADLINE_HEADER, HeaderValue::from_static(value));
            let context = request(&service, &headers);
            assert_eq!(context.deadline().is_some(), understood, "{value:?}");
        }
        let mut outgoing = HeaderMap::new();
        service.propagate(&mut outgoing);
        assert!(outgoing.is_empty());
        service
            .with_timeout(Duration::from_secs(9))
            .propagate(&mut outgoing);
        let millis: u64 = outgoing[DEADLINE_HEADER].to_str().unwrap().parse().unwrap();
        assert!((8_000..=9_000).contains(&millis), "{millis}");
    }
}
