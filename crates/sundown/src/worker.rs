//! Runs named background work: loops, periodic jobs and consumers.
//!
//! A worker is told `draining` by its context, finishes what it has, and ends. One that dies early
//! follows its policy. Never lets a worker's panic reach anything else.

mod acknowledge;
mod consumer;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;
use crate::core::Core;
use crate::error::BoxError;
use crate::hooks::panic_text;
use crate::lifecycle::{Event, Phase, Reason};
use crate::open::Tracked;
use crate::report::Work;

pub use acknowledge::Acknowledge;
pub use consumer::{Consumer, Delivery, Pulled, Source};

type WorkerFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// What becomes of a worker that returns an error or panics while the service is not stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDeath {
    /// It is started again, after a pause that doubles from `first` to `most`. A run that lasted
    /// longer than `most` starts over with `first`.
    Restart {
        /// The first pause.
        first: Duration,
        /// The longest pause.
        most: Duration,
    },
    /// The service stops, with exit code 1.
    StopService,
}

impl Default for OnDeath {
    /// Restarts after 100 ms, 200 ms, … 30 s.
    fn default() -> Self {
        Self::Restart {
            first: Duration::from_millis(100),
            most: Duration::from_secs(30),
        }
    }
}

/// A named piece of background work.
///
/// ```
/// use std::time::Duration;
/// use sundown::{App, OnDeath, Worker};
///
/// let app = App::new("mailer")
///     .worker("outbox", |ctx| async move {
///         while !ctx.is_draining() {
///             // take one, send it
///             # break;
///         }
///         Ok(())
///     })
///     .add_worker(
///         Worker::every("cleanup", Duration::from_secs(60), |_ctx| async { Ok(()) })
///             .on_death(OnDeath::StopService),
///     );
/// # let _ = app;
/// ```
#[must_use = "a worker does nothing until it is given to an App"]
pub struct Worker {
    pub(crate) name: Arc<str>,
    place: &'static Location<'static>,
    policy: OnDeath,
    run: Box<dyn FnMut(Context) -> WorkerFuture + Send>,
}

impl Worker {
    /// A loop that runs until its context says `draining`. Returning `Ok` ends it for good.
    #[track_caller]
    pub fn new<F, Fut>(name: impl Into<Arc<str>>, mut run: F) -> Self
    where
        F: FnMut(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let run = Box::new(move |ctx| Box::pin(run(ctx)) as WorkerFuture);
        Self {
            name: name.into(),
            place: Location::caller(),
            policy: OnDeath::default(),
            run,
        }
    }

    /// A job that runs right away and then once every `period`, never twice at a time. A period
    /// that is over before the job is, is skipped.
    #[track_caller]
    pub fn every<F, Fut>(name: impl Into<Arc<str>>, period: Duration, job: F) -> Self
    where
        F: FnMut(Context) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let job = Arc::new(tokio::sync::Mutex::new(job));
        Self::new(name, move |ctx| {
            let job = job.clone();
            async move {
                let mut ticks = tokio::time::interval(period.max(Duration::from_millis(1)));
                ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
                loop {
                    tokio::select! {
                        biased;
                        () = ctx.draining() => return Ok(()),
                        _ = ticks.tick() => {}
                    }
                    // A name of its own: the future must not borrow the lock's guard for `job`.
                    let run = (*job.lock().await)(ctx.clone());
                    run.await?;
                }
            }
        })
    }

    /// Pulls items, handles them and acknowledges them; see [`Consumer`].
    #[track_caller]
    pub fn consumer<S: Source>(name: impl Into<Arc<str>>, consumer: Consumer<S>) -> Self {
        let consumer = Arc::new(tokio::sync::Mutex::new(consumer));
        Self::new(name, move |ctx| {
            let consumer = consumer.clone();
            async move { consumer.lock().await.run(&ctx).await }
        })
    }

    /// What becomes of it when it dies; by default it is started again.
    pub fn on_death(mut self, policy: OnDeath) -> Self {
        self.policy = policy;
        self
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("name", &self.name)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Starts every worker; when all have completed and nothing else is served, the service stops.
pub(crate) fn start_all(core: &Arc<Core>, workers: Vec<Worker>, nothing_else: bool) {
    let mut tasks = tokio::task::JoinSet::new();
    for worker in workers {
        // Taken here and not in the task: the drain must wait for it from the first instant.
        let tracked = Tracked::begin(
            &core.clone(),
            Work::Worker,
            worker.name.clone(),
            worker.place,
        );
        let core = core.clone();
        tasks.spawn(async move {
            let _tracked = tracked;
            let cut = core.cut.clone();
            cut.run_until_cancelled(supervise(&core, worker)).await;
        });
    }
    let core = core.clone();
    tokio::spawn(async move {
        while tasks.join_next().await.is_some() {}
        if nothing_else {
            core.link.send(Event::Stop(Reason::WorkDone));
        }
    });
}

async fn supervise(core: &Arc<Core>, mut worker: Worker) {
    let ctx = Context::of_service(core.clone());
    let mut pause = None;
    loop {
        let began = Instant::now();
        let Err(error) = run_once(&mut worker, ctx.clone()).await else {
            tracing::debug!(target: "sundown", worker = %worker.name, "worker ended");
            return;
        };
        tracing::error!(target: "sundown", worker = %worker.name, error, "worker died");
        let died = format!("worker {} died: {error}", worker.name);
        if core.phase() >= Phase::Draining {
            core.findings().failures.push(died);
            return;
        }
        let OnDeath::Restart { first, most } = worker.policy else {
            core.findings().failures.push(died.clone());
            core.link.send(Event::Stop(Reason::WorkerDied(died)));
            return;
        };
        let next = next_pause(pause, began.elapsed(), first, most);
        pause = Some(next);
        tokio::select! {
            biased;
            () = ctx.draining() => return,
            () = tokio::time::sleep(next) => {}
        }
    }
}

async fn run_once(worker: &mut Worker, ctx: Context) -> Result<(), String> {
    // A panic while the future is made counts like one while it runs.
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (worker.run)(ctx)));
    let future = made.map_err(|_| "panicked before its first await".to_owned())?;
    match AbortOnDropHandle::new(tokio::spawn(future)).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(join) => Err(panic_text(join)),
    }
}

/// The pause before the next start: doubled each time, begun anew after a run that went well.
fn next_pause(
    before: Option<Duration>,
    ran: Duration,
    first: Duration,
    most: Duration,
) -> Duration {
    match before {
        Some(before) if ran < most => (before * 2).min(most),
        _ => first.min(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_longest_and_starts_over_after_a_good_run() {
        let (first, most) = (Duration::from_millis(100), Duration::from_millis(350));
        let short = Duration::ZERO;
        let mut pause = None;
        let mut seen = Vec::new();
        for _ in 0..4 {
            pause = Some(next_pause(pause, short, first, most));
            seen.push(pause.unwrap().as_millis());
        }
        assert_eq!(seen, [100, 200, 350, 350]);
        assert_eq!(next_pause(pause, most, first, most), first);
    }
}
