//! Asks, for as long as a service is ready, whether what it depends on is there: a check that fails turns
//! readiness off, and one that holds again turns it on.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::sync::Notify;

use crate::core::{Core, lock};
use crate::hooks::{HookFuture, HookResult};
use crate::lifecycle::{Phase, Reason};
use crate::stderr;
use crate::systemd::Said;

/// Something that a service cannot do without, and how to see that it is there.
///
/// While it fails, `/readyz` of the [`Admin`](crate::Admin) listener says 503, and the service goes on
/// serving whoever comes. It is asked once the start hooks are done, and not any more once a stop has begun;
/// until the first answer the service does not count as ready, and in a restart its successor takes nothing over
/// before every check holds.
///
/// ```
/// use std::time::Duration;
/// use sundown::{App, Check};
/// use tokio::net::TcpStream;
///
/// let broker = Check::new("broker", || async {
///     TcpStream::connect("127.0.0.1:5672").await.map(drop)
/// });
/// let app = App::new("shop").check(broker.every(Duration::from_secs(2)));
/// # let _ = app;
/// ```
#[must_use = "a check does nothing until it is given to an App"]
pub struct Check {
    pub(crate) name: String,
    every: Duration,
    timeout: Duration,
    ask: Box<dyn FnMut() -> HookFuture + Send>,
}

impl Check {
    /// Asks by this; an error, a panic and no answer in time all fail.
    pub fn new<F, Fut>(name: impl Into<String>, mut ask: F) -> Self
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output: HookResult> + Send + 'static,
    {
        Self {
            name: name.into(),
            every: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            ask: Box::new(move || {
                let answer = ask();
                Box::pin(async move { answer.await.into_result() })
            }),
        }
    }

    /// How long after one answer it is asked again. Default 5 s.
    pub fn every(mut self, period: Duration) -> Self {
        self.every = period;
        self
    }

    /// How long an answer may take. Default 1 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn asked(&mut self) -> (Standing, String) {
        // The panic of a check is its failure, not ours.
        let answer = std::panic::AssertUnwindSafe((self.ask)()).catch_unwind();
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(Ok(()))) => (Standing::Up, String::new()),
            Ok(Ok(Err(error))) => (Standing::Down, error.to_string()),
            Ok(Err(_)) => (Standing::Down, "it panicked".to_owned()),
            Err(_) => {
                let limit = humantime::format_duration(self.timeout);
                (Standing::Down, format!("no answer within {limit}"))
            }
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Check({})", self.name)
    }
}

/// What a service waits for once, until it counts as ready.
pub(crate) struct Readying {
    pub(crate) name: String,
    pub(crate) future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What a check has last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Unknown,
    Up,
    Down,
}

/// What is known of each check.
#[derive(Default)]
pub(crate) struct Checks {
    list: Mutex<Vec<CheckStatus>>,
    changed: Notify,
    readying: AtomicBool,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct CheckStatus {
    pub(crate) name: String,
    pub(crate) standing: Standing,
    /// Why it is down.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
    #[serde(skip)]
    since: Option<Instant>,
}

impl CheckStatus {
    fn is_up(&self) -> bool {
        self.standing == Standing::Up
    }
}

impl Checks {
    pub(crate) fn list(&self) -> Vec<CheckStatus> {
        lock(&self.list).clone()
    }

    /// Waits until every check holds.
    pub(crate) async fn all_up(&self) {
        loop {
            let changed = self.changed.notified();
            if self.list().iter().all(CheckStatus::is_up) {
                return;
            }
            changed.await;
        }
    }

    /// Whether something is waited for until the manager hears that the service is ready.
    pub(crate) fn readying(&self) -> bool {
        self.readying.load(Ordering::Acquire)
    }

    fn add(&self, name: &str) -> usize {
        let mut checks = lock(&self.list);
        checks.push(CheckStatus {
            name: name.to_owned(),
            standing: Standing::Unknown,
            detail: String::new(),
            since: None,
        });
        checks.len() - 1
    }

    /// Takes in an answer; true when it is not what stood before.
    fn set(&self, index: usize, standing: Standing, detail: String) -> bool {
        let check = &mut lock(&self.list)[index];
        let differs = check.standing != standing;
        if differs {
            check.since = Some(Instant::now());
        }
        check.standing = standing;
        check.detail = detail;
        self.changed.notify_waiters();
        differs
    }
}

/// Begins to ask.
pub(crate) fn watch(core: &Arc<Core>, checks: Vec<Check>) {
    for check in checks {
        let index = core.checks.add(&check.name);
        let core = core.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = core.reached(Phase::LameDuck) => {}
                () = keep_asking(&core, index, check) => {}
            }
        });
    }
}

/// Begins to wait; the manager is told by this, and not before.
pub(crate) fn wait_for(core: &Arc<Core>, Readying { name, future }: Readying) {
    core.checks.readying.store(true, Ordering::Release);
    let index = core.checks.add(&name);
    let core = core.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = core.reached(Phase::LameDuck) => {}
            () = future => {
                core.checks.set(index, Standing::Up, String::new());
                core.reached(Phase::Ready).await;
                core.checks.readying.store(false, Ordering::Release);
                if core.phase() == Phase::Ready {
                    stderr::lines(&format!("{}: ready", core.name));
                    core.manager.tell(Said::Ready { status: "ready".to_owned() });
                }
            }
        }
    });
}

async fn keep_asking(core: &Core, index: usize, mut check: Check) {
    let mut asked_before = false;
    loop {
        let (standing, detail) = check.asked().await;
        if core.checks.set(index, standing, detail.clone()) {
            tell(core, &check.name, standing, &detail, asked_before);
        }
        asked_before = true;
        tokio::time::sleep(check.every).await;
    }
}

fn tell(core: &Core, check: &str, standing: Standing, detail: &str, asked_before: bool) {
    match standing {
        Standing::Down => stderr::lines(&format!("{}: not ready: {check}: {detail}", core.name)),
        Standing::Up if asked_before => {
            stderr::lines(&format!("{}: {check} is there again", core.name));
        }
        _ => {}
    }
    tracing::info!(target: "sundown", check, ?standing, detail, "check");
}

/// Whether new traffic is wanted, and if not, why.
pub(crate) struct Readiness {
    phase: Phase,
    checks: Vec<CheckStatus>,
}

impl Core {
    pub(crate) fn readiness(&self) -> Readiness {
        let phase = match self.findings().reason {
            // The service goes on, in another process.
            Some(Reason::Restart(_)) => Phase::Ready,
            _ => self.phase(),
        };
        Readiness {
            phase,
            checks: self.checks.list(),
        }
    }
}

impl Readiness {
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && self.checks.iter().all(CheckStatus::is_up)
    }

    /// A line that names nobody.
    pub(crate) fn in_short(&self) -> String {
        match self.phase {
            Phase::Ready if self.is_ready() => "ready".to_owned(),
            Phase::Ready => "not ready".to_owned(),
            phase => format!("not ready: {phase}"),
        }
    }

    /// The same, and each check in a line of its own.
    pub(crate) fn in_detail(&self) -> String {
        let mut text = self.in_short();
        for CheckStatus {
            name,
            standing,
            detail,
            since,
        } in &self.checks
        {
            let since = since.map_or(Duration::ZERO, |since| since.elapsed());
            let since = humantime::format_duration(Duration::from_secs(since.as_secs()));
            text.push_str(&match standing {
                Standing::Up => format!("\n{name}: up for {since}"),
                Standing::Down => format!("\n{name}: down for {since}: {detail}"),
                Standing::Unknown => format!("\n{name}: not asked yet"),
            });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_error_a_panic_and_no_answer_are_failures_with_their_reasons() {
        let asked = |check: Check| async {
            let mut check = check;
            check.asked().await
        };
        let up = Check::new("up", || async {});
        assert_eq!(asked(up).await, (Standing::Up, String::new()));
        let failed = Check::new("fails", || async { Err::<(), _>("refused") });
        assert_eq!(asked(failed).await, (Standing::Down, "refused".into()));
        let panics = Check::new("panics", || async { panic_now() });
        assert_eq!(asked(panics).await, (Standing::Down, "it panicked".into()));
        let hangs = Check::new("hangs", std::future::pending::<()>);
        let (standing, detail) = asked(hangs).await;
        assert_eq!(
            (standing, &*detail),
            (Standing::Down, "no answer within 1s")
        );
    }

    fn panic_now() {
        panic!("boom")
    }

    #[test]
    fn ready_is_who_is_in_that_phase_and_has_everything() {
        let check = |standing| CheckStatus {
            name: "db".into(),
            standing,
            detail: "refused".into(),
            since: None,
        };
        let readiness = |phase, standings: &[Standing]| Readiness {
            phase,
            checks: standings.iter().copied().map(check).collect(),
        };
        assert!(readiness(Phase::Ready, &[]).is_ready());
        assert!(readiness(Phase::Ready, &[Standing::Up]).is_ready());
        assert!(!readiness(Phase::Ready, &[Standing::Up, Standing::Down]).is_ready());
        assert!(!readiness(Phase::Ready, &[Standing::Unknown]).is_ready());
        assert!(!readiness(Phase::LameDuck, &[Standing::Up]).is_ready());
        let down = readiness(Phase::Ready, &[Standing::Down]);
        assert!(!down.in_short().contains("db"), "{}", down.in_short());
        assert!(down.in_detail().contains("db: down for 0s: refused"));
    }
}
