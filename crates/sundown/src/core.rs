//! What every part of a running service shares.
//!
//! Data flows one way: `control` decides and writes here; listeners, connections, workers, tasks
//! and hooks watch it, and tell what happened by sending an [`Event`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::budget::{Budget, Schedule};
use crate::checks::Checks;
use crate::exit::ExitStatus;
use crate::figures::Figures;
use crate::hooks::When;
use crate::in_flight::InFlight;
use crate::last_words::LastWords;
use crate::lifecycle::{Event, Phase, Reason};
use crate::open::Tasks;
use crate::report::{CutOff, HookReport, ListenerReport};
use crate::restart::Succession;
use crate::serve::Connections;
use crate::signals::Waker;
use crate::sys;
use crate::systemd::Manager;

/// What exists from the first line of `main`: how to reach the control thread, and the phase.
pub(crate) struct Link {
    events: mpsc::Sender<Event>,
    waker: OnceLock<Waker>,
    pub(crate) phase: watch::Sender<Phase>,
    /// How often SIGHUP has come.
    pub(crate) hangups: watch::Sender<u64>,
    /// How often a restart was asked for.
    pub(crate) restarts: watch::Sender<u64>,
    pub(crate) addresses: Mutex<Vec<(String, SocketAddr)>>,
    pub(crate) last_words: LastWords,
    /// The service itself, once it is begun.
    pub(crate) core: OnceLock<Weak<Core>>,
}

impl Link {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Event>) {
        Self::hearing(watch::Sender::new(0))
    }

    fn hearing(hangups: watch::Sender<u64>) -> (Arc<Self>, mpsc::Receiver<Event>) {
        let (events, inbox) = mpsc::channel();
        let (phase, _) = watch::channel(Phase::Starting);
        let link = Self {
            events,
            waker: OnceLock::new(),
            phase,
            hangups,
            restarts: watch::Sender::new(0),
            addresses: Mutex::default(),
            last_words: LastWords::default(),
            core: OnceLock::new(),
        };
        (Arc::new(link), inbox)
    }

    /// Tells the control thread. An event sent before it runs is waiting for it.
    pub(crate) fn send(&self, event: Event) {
        // After the end there is nobody to tell, and nothing left to do.
        let _ = self.events.send(event);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    pub(crate) fn set_waker(&self, waker: Waker) {
        let _ = self.waker.set(waker);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// The shared state of one running service.
pub(crate) struct Core {
    pub(crate) name: String,
    pub(crate) budget: Budget,
    pub(crate) link: Arc<Link>,
    pub(crate) clock: Clock,
    /// Responses say `Connection: close`.
    pub(crate) closing: AtomicBool,
    /// Starting is given up.
    pub(crate) abandon: CancellationToken,
    /// Contexts say `cancelled`.
    pub(crate) hard: CancellationToken,
    /// What is still open is dropped.
    pub(crate) cut: CancellationToken,
    /// What holds the drain open.
    pub(crate) in_flight: InFlight,
    pub(crate) connections: Connections,
    pub(crate) tasks: Tasks,
    pub(crate) checks: Checks,
    /// Known once the parts are.
    pub(crate) figures: OnceLock<Figures>,
    pub(crate) succession: Arc<Succession>,
    pub(crate) manager: Manager,
    stop: Mutex<Option<StopTimes>>,
    pub(crate) findings: Mutex<Findings>,
}

/// Time stamps that fit into an atomic: microseconds since the service began.
///
/// Up to a timer tick (4 ms) behind `Instant`, which no timeout of ours is finer than, and never
/// ahead of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
    coarse_zero: u64,
}

impl Clock {
    fn start() -> Self {
        // `Instant` and the coarse clock are the same clock, read at different times. In this order
        // a pause between two of the readings sets zero back, never forward.
        let coarse_zero = sys::coarse_micros();
        let now = Instant::now();
        let lag = Duration::from_micros(sys::monotonic_micros() - coarse_zero);
        Self {
            zero: now.checked_sub(lag).unwrap_or(now),
            coarse_zero,
        }
    }

    pub(crate) fn micros(&self) -> u64 {
        sys::coarse_micros().saturating_sub(self.coarse_zero)
    }

    pub(crate) fn instant(&self, micros: u64) -> Instant {
        self.zero + Duration::from_micros(micros)
    }
}

/// When the stop began and what it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StopTimes {
    pub(crate) closing_since: Instant,
    pub(crate) schedule: Schedule,
}

/// What the report will tell beside the numbers.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) phases: Vec<(Phase, Instant)>,
    /// That of the phase, while it stops.
    pub(crate) span: Option<Span>,
    /// Why it stops.
    pub(crate) reason: Option<Reason>,
    pub(crate) cut_off: Vec<CutOff>,
    /// What was cut off on its own before that.
    pub(crate) broken: Vec<CutOff>,
    pub(crate) hooks: Vec<HookReport>,
    pub(crate) hook: Option<RunningHook>,
    pub(crate) listeners: Vec<ListenerReport>,
    /// What failed and was not a hook: it makes the exit code tell of a failure.
    pub(crate) failures: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// The exit status where starting failed.
    pub(crate) start_failure: Option<ExitStatus>,
}

/// The hook that runs at this moment.
pub(crate) struct RunningHook {
    pub(crate) name: String,
    pub(crate) when: When,
    pub(crate) since: Instant,
}

impl Core {
    pub(crate) fn new(name: String, budget: Budget, link: Arc<Link>) -> Arc<Self> {
        let manager = Manager::from_environment();
        let core = Self::make(name, budget, link, manager, Arc::default());
        let link = core.link.clone();
        let _ = link.core.set(Arc::downgrade(&core));
        core.in_flight.on_empty(move || link.send(Event::Drained));
        core
    }

    /// A core of what is served beside a service. Nobody controls it but its owner; it is released once it
    /// has drained.
    pub(crate) fn beside(service: &Self, budget: Budget) -> Arc<Self> {
        let (link, _) = Link::hearing(service.link.hangups.clone());
        let succession = service.succession.clone();
        let name = service.name.clone();
        let core = Self::make(name, budget, link, Manager::none(), succession);
        let link = core.link.clone();
        core.in_flight.on_empty(move || {
            link.phase.send_replace(Phase::Releasing);
        });
        core
    }

    fn make(
        name: String,
        budget: Budget,
        link: Arc<Link>,
        manager: Manager,
        succession: Arc<Succession>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name,
            budget,
            link,
            clock: Clock::start(),
            closing: AtomicBool::new(false),
            abandon: CancellationToken::new(),
            hard: CancellationToken::new(),
            cut: CancellationToken::new(),
            in_flight: InFlight::new(),
            connections: Connections::default(),
            tasks: Tasks::default(),
            checks: Checks::default(),
            figures: OnceLock::new(),
            succession,
            manager,
            stop: Mutex::new(None),
            findings: Mutex::default(),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.link.phase.borrow()
    }

    /// Waits until this phase, or a later one, has begun.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut phases = self.link.phase.subscribe();
        // The sender lives in `link`, which `self` keeps.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_stop(&self, times: StopTimes) {
        *lock(&self.stop) = Some(times);
    }

    pub(crate) fn stop_times(&self) -> Option<StopTimes> {
        *lock(&self.stop)
    }

    pub(crate) fn findings(&self) -> MutexGuard<'_, Findings> {
        lock(&self.findings)
    }
}

/// Locks, also after a panic elsewhere: the data behind our locks is valid after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
