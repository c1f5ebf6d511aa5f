//! Runs hooks by name, each with its own time; a panic, an error or a timeout is reported and the
//! next one runs.
//!
//! Never skips a hook because another failed. The order of releases is decided by a pure function.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::core::{Findings, RunningHook, lock};
use crate::error::{BoxError, Error};
use crate::report::{HookOutcome, HookReport};

pub(crate) type HookFuture = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum When {
    /// Before anything is served, in the order given. A failure ends the service.
    Start,
    /// When the stop begins, while connections are still accepted, in the order given.
    PreShutdown,
    /// After everything has drained, newest first, or as `after` says.
    PostCleanup,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "on_start",
            Self::PreShutdown => "pre_shutdown",
            Self::PostCleanup => "post_cleanup",
        })
    }
}

/// What a hook may return: nothing, or a result.
pub trait HookResult {
    /// Turns it into a result.
    fn into_result(self) -> Result<(), BoxError>;
}

impl HookResult for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError>> HookResult for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A named step of starting or stopping.
///
/// ```
/// use std::time::Duration;
/// use sundown::{App, Hook};
///
/// let app = App::new("shop")
///     .hook(Hook::post_cleanup("cache", || async { /* write it out */ }))
///     .hook(
///         Hook::post_cleanup("metrics", || async { Ok::<(), std::io::Error>(()) })
///             .timeout(Duration::from_secs(2))
///             .after("cache"),
///     );
/// # let _ = app;
/// ```
#[must_use = "a hook does nothing until it is given to an App"]
pub struct Hook {
    pub(crate) name: String,
    pub(crate) when: When,
    timeout: Option<Duration>,
    after: Vec<String>,
    run: Box<dyn FnOnce() -> HookFuture + Send>,
}

impl Hook {
    /// Runs before anything is served. When it fails, what had started is released and the
    /// service ends with code 1.
    pub fn on_start<F, Fut>(name: impl Into<String>, run: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        Self::new(When::Start, name.into(), run)
    }

    /// Runs when the stop begins, while requests are still served: deregister, tell others. Not in a
    /// [restart](crate::Handle::restart): the service does not go away.
    pub fn pre_shutdown<F, Fut>(name: impl Into<String>, run: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        Self::new(When::PreShutdown, name.into(), run)
    }

    /// Runs after everything has drained: close pools, flush, commit. A release whose name is also
    /// that of a start hook runs only if that start hook succeeded.
    pub fn post_cleanup<F, Fut>(name: impl Into<String>, run: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        Self::new(When::PostCleanup, name.into(), run)
    }

    fn new<F, Fut>(when: When, name: String, run: F) -> Self
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        let run = Box::new(move || {
            let future = run();
            Box::pin(async move { future.await.into_result() }) as HookFuture
        });
        Self {
            name,
            when,
            timeout: None,
            after: Vec::new(),
            run,
        }
    }

    /// The longest this hook may take. Without it, an equal share of the time that is left for
    /// the hooks of its kind; a start hook then has no limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Runs this release after the one named `other`, instead of newest first.
    pub fn after(mut self, other: impl Into<String>) -> Self {
        self.after.push(other.into());
        self
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({} {})", self.when, self.name)
    }
}

/// The hooks of a service, sorted by when they run and in the order in which they will.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) start: Vec<Hook>,
    pub(crate) pre_shutdown: Vec<Hook>,
    pub(crate) post_cleanup: Vec<Hook>,
}

impl Hooks {
    /// Sorts hooks and checks their names.
    ///
    /// # Errors
    /// A name is used twice, `after` names nothing, or the order has a circle.
    pub(crate) fn arrange(hooks: Vec<Hook>) -> Result<Self, Error> {
        let mut arranged = Self::default();
        let mut names = HashSet::new();
        for hook in hooks {
            if !names.insert((hook.when as u8, hook.name.clone())) {
                return Err(Error::Names(format!(
                    "two {} hooks are named {}",
                    hook.when, hook.name
                )));
            }
            match hook.when {
                When::Start => arranged.start.push(hook),
                When::PreShutdown => arranged.pre_shutdown.push(hook),
                When::PostCleanup => arranged.post_cleanup.push(hook),
            }
        }
        let wanted: Vec<_> = arranged
            .post_cleanup
            .iter()
            .map(|hook| (hook.name.as_str(), hook.after.as_slice()))
            .collect();
        let order = release_order(&wanted).map_err(Error::Names)?;
        let mut hooks: Vec<_> = arranged.post_cleanup.into_iter().map(Some).collect();
        arranged.post_cleanup = order
            .into_iter()
            .map(|index| hooks[index].take().expect("an order names each once"))
            .collect();
        Ok(arranged)
    }
}

/// Newest first, except that each comes after those it names.
fn release_order(hooks: &[(&str, &[String])]) -> Result<Vec<usize>, String> {
    for (name, after) in hooks {
        if let Some(missing) = after
            .iter()
            .find(|other| !hooks.iter().any(|(name, _)| name == other))
        {
            return Err(format!(
                "post_cleanup hook {name} waits for {missing}, which is not there"
            ));
        }
    }
    let mut order: Vec<usize> = Vec::with_capacity(hooks.len());
    while order.len() < hooks.len() {
        let is_done = |other: &String| order.iter().any(|index| hooks[*index].0 == other);
        let next = (0..hooks.len())
            .rev()
            .find(|index| !order.contains(index) && hooks[*index].1.iter().all(is_done));
        match next {
            Some(index) => order.push(index),
            None => {
                let (name, _) = hooks
                    .iter()
                    .enumerate()
                    .find_map(|(index, hook)| (!order.contains(&index)).then_some(hook))
                    .expect("some hook is not in the order yet");
                return Err(format!(
                    "post_cleanup hook {name} waits for itself in a circle of `after`"
                ));
            }
        }
    }
    Ok(order)
}

/// What a hook still gets once the stop is hurried.
const HURRIED: Duration = Duration::from_millis(50);

/// Runs hooks one after another until `by`, which each shares with those behind it. Once `hurry`
/// is cancelled each that is left gets [`HURRIED`]: none is skipped. Each is told in the findings.
pub(crate) async fn run_all(
    hooks: Vec<Hook>,
    by: Instant,
    hurry: &CancellationToken,
    findings: &Mutex<Findings>,
) {
    let mut left = hooks.len();
    for hook in hooks {
        let remaining = by.saturating_duration_since(Instant::now());
        let share = remaining / u32::try_from(left).unwrap_or(u32::MAX);
        // A hook with a timeout of its own may use what is left, but never more.
        let limit = hook.timeout.map_or(share, |own| own.min(remaining));
        let over = async {
            tokio::select! {
                () = tokio::time::sleep(limit) => {}
                () = hurry.cancelled() => tokio::time::sleep(HURRIED.min(limit)).await,
            }
        };
        run(hook, over, findings).await;
        left -= 1;
    }
}

/// Runs a start hook within its own timeout, if it has one.
pub(crate) async fn run_start(hook: Hook, findings: &Mutex<Findings>) -> HookOutcome {
    match hook.timeout {
        Some(limit) => run(hook, tokio::time::sleep(limit), findings).await,
        None => run(hook, std::future::pending(), findings).await,
    }
}

async fn run(
    hook: Hook,
    over: impl Future<Output = ()>,
    findings: &Mutex<Findings>,
) -> HookOutcome {
    let began = Instant::now();
    let Hook {
        name, when, run, ..
    } = hook;
    tracing::debug!(target: "sundown", hook = %name, %when, "hook begins");
    let phase = {
        let mut findings = lock(findings);
        findings.hook = Some(RunningHook {
            name: name.clone(),
            when,
            since: began,
        });
        findings.span.clone()
    };
    let span = phase.map_or_else(Span::none, |phase| {
        tracing::info_span!(target: "sundown", parent: &phase, "hook", hook = %name, %when, outcome = Empty)
    });
    // A task of its own: its panic is a value here, and dropping the handle ends it.
    let task = async move { run().await }.instrument(span.clone());
    let task = AbortOnDropHandle::new(tokio::spawn(task));
    let outcome = tokio::select! {
        biased;
        ended = task => match ended {
            Ok(Ok(())) => HookOutcome::Done,
            Ok(Err(error)) => HookOutcome::Failed(error.to_string()),
            Err(join) => HookOutcome::Panicked(panic_text(join)),
        },
        () = over => HookOutcome::TimedOut,
    };
    let took = began.elapsed();
    span.record("outcome", outcome.name());
    if outcome.is_failure() {
        span.in_scope(|| {
            tracing::error!(target: "sundown", hook = %name, %when, ?outcome, "hook failed");
        });
    }
    drop(span);
    let mut findings = lock(findings);
    findings.hook = None;
    findings.hooks.push(HookReport {
        name,
        when,
        outcome: outcome.clone(),
        took,
    });
    outcome
}

/// The message of a panic, as far as it is text.
pub(crate) fn panic_text(join: tokio::task::JoinError) -> String {
    match join.try_into_panic() {
        Ok(payload) => payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panicked".to_owned()),
        Err(_) => "was aborted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic_now() {
        panic!("boom")
    }

    fn order(hooks: &[(&str, &[&str])]) -> Result<Vec<usize>, String> {
        let after: Vec<Vec<String>> = hooks
            .iter()
            .map(|(_, after)| after.iter().map(|name| (*name).to_owned()).collect())
            .collect();
        let wanted: Vec<_> = hooks
            .iter()
            .zip(&after)
            .map(|((name, _), after)| (*name, after.as_slice()))
            .collect();
        release_order(&wanted)
    }

    #[test]
    fn releases_run_newest_first_unless_they_wait_for_another() {
        assert_eq!(order(&[]), Ok(vec![]));
        assert_eq!(
            order(&[("a", &[]), ("b", &[]), ("c", &[])]),
            Ok(vec![2, 1, 0])
        );
        assert_eq!(
            order(&[("a", &[]), ("b", &[]), ("c", &["a"])]),
            Ok(vec![1, 0, 2])
        );
        assert_eq!(
            order(&[("a", &["b"]), ("b", &["c"]), ("c", &[])]),
            Ok(vec![2, 1, 0])
        );
    }

    #[test]
    fn a_circle_and_an_unknown_name_are_errors() {
        assert!(
            order(&[("a", &["b"]), ("b", &["a"])])
                .unwrap_err()
                .contains("circle")
        );
        assert!(order(&[("a", &["a"])]).unwrap_err().contains("circle"));
        assert!(order(&[("a", &["pool"])]).unwrap_err().contains("pool"));
    }

    async fn outcomes(
        hooks: Vec<Hook>,
        by: Instant,
        hurry: &CancellationToken,
    ) -> Vec<HookOutcome> {
        let findings = Mutex::default();
        run_all(hooks, by, hurry, &findings).await;
        let reports = findings.into_inner().unwrap().hooks;
        reports.into_iter().map(|report| report.outcome).collect()
    }

    #[tokio::test]
    async fn a_hook_that_panics_fails_or_hangs_does_not_keep_the_next_from_running() {
        let hooks = vec![
            Hook::post_cleanup("panics", || async { panic_now() }),
            Hook::post_cleanup("fails", || async { Err::<(), _>("no disk") }),
            Hook::post_cleanup("hangs", std::future::pending::<()>)
                .timeout(Duration::from_millis(5)),
            Hook::post_cleanup("works", || async {}),
        ];
        let (by, hurry) = (
            Instant::now() + Duration::from_secs(60),
            CancellationToken::new(),
        );
        assert_eq!(
            outcomes(hooks, by, &hurry).await,
            [
                HookOutcome::Panicked("boom".into()),
                HookOutcome::Failed("no disk".into()),
                HookOutcome::TimedOut,
                HookOutcome::Done
            ]
        );
    }

    #[tokio::test]
    async fn a_hurried_stop_ends_a_hook_that_hangs_and_still_runs_the_next() {
        let hooks = vec![
            Hook::pre_shutdown("hangs", std::future::pending::<()>),
            Hook::pre_shutdown("works", || async {}),
        ];
        let hurry = CancellationToken::new();
        hurry.cancel();
        let by = Instant::now() + Duration::from_secs(3600);
        assert_eq!(
            outcomes(hooks, by, &hurry).await,
            [HookOutcome::TimedOut, HookOutcome::Done]
        );
    }
}
