//! Decides what a service does next: the state machine of its life.
//!
//! Every legal order of events leads to `Stopped`, each step is ordered once, releases follow the
//! drain, and the budget is never exceeded. Never reads the clock (each call takes `now`), never
//! touches a socket, a signal or a runtime: `control` does what is decided here.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::budget::{Budget, Schedule};

/// Where a service is in its life. Phases only ever move down this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Phase {
    /// Signals are handled and start hooks run; nothing is served.
    Starting,
    /// Every listener is open and every worker runs.
    Ready,
    /// Readiness is false, pre-shutdown hooks run, connections are still accepted; every HTTP/1
    /// response says `Connection: close`.
    LameDuck,
    /// Listeners close without losing what is queued; work in flight finishes.
    Draining,
    /// Post-cleanup hooks release what the service held.
    Releasing,
    /// The report is written.
    Stopped,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::LameDuck => "lame duck",
            Self::Draining => "draining",
            Self::Releasing => "releasing",
            Self::Stopped => "stopped",
        })
    }
}

/// Why a service stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "detail")]
#[non_exhaustive]
pub enum Reason {
    /// A signal arrived; the number is the system's (15 is SIGTERM).
    Signal(i32),
    /// [`Handle::shutdown`](crate::Handle::shutdown) was called with this reason.
    Handle(String),
    /// The future given to [`App::stop_when`](crate::App::stop_when) completed.
    Future,
    /// Every worker of a service without listeners completed.
    WorkDone,
    /// A worker whose policy is to stop the service died.
    WorkerDied(String),
    /// A start hook or a listener failed; the text says which and why.
    StartFailed(String),
    /// It was restarted in place: the process of this number serves on.
    Restart(u32),
}

impl Reason {
    /// True where the service stops because something went wrong.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::WorkerDied(_) | Self::StartFailed(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => f.write_str(crate::signals::name(*signal)),
            Self::Handle(reason) => f.write_str(reason),
            Self::Future => f.write_str("the stop future completed"),
            Self::Restart(pid) => write!(f, "restarted as PID {pid}"),
            Self::WorkDone => f.write_str("every worker completed"),
            Self::WorkerDied(what) | Self::StartFailed(what) => f.write_str(what),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Start hooks are done, listeners are open.
    Started,
    /// Starting failed, or gave up because it was told to; what had started wants its release.
    NotStarted(Option<Reason>),
    /// A stop is asked for, from within.
    Stop(Reason),
    /// A termination signal.
    Signal(i32),
    /// Pre-shutdown hooks are done.
    Prepared,
    /// Nothing is in flight and no listener is open.
    Drained,
    /// Post-cleanup hooks are done.
    Released,
    /// Time has passed.
    Tick,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make this phase known: everything that watches it acts on it.
    Enter(Phase),
    /// Give up starting.
    AbandonStart,
    /// Contexts say `cancelled`.
    Cancel,
    /// Note what is still open, and cut it off.
    Cut,
    /// Every release is done: end in order.
    Finish,
    /// Grace is over and something did not end: end the process regardless.
    GiveUp,
    /// The third signal: end the process now.
    Kill(i32),
}

/// The state machine. One per service.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    budget: Budget,
    phase: Phase,
    started_once: bool,
    signals: u32,
    stop: Option<Stop>,
}

#[derive(Debug)]
struct Stop {
    reason: Reason,
    schedule: Schedule,
    prepared: bool,
    hurried: bool,
    cancelled: bool,
    cut: bool,
}

impl Lifecycle {
    pub(crate) fn new(budget: Budget) -> Self {
        Self {
            budget,
            phase: Phase::Starting,
            started_once: false,
            signals: 0,
            stop: None,
        }
    }

    /// Takes in an event and says what to do now, in order.
    pub(crate) fn next(&mut self, now: Instant, event: Event) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.phase == Phase::Stopped {
            return steps;
        }
        match event {
            Event::Started => self.on_started(&mut steps),
            Event::NotStarted(failure) => self.on_not_started(now, failure, &mut steps),
            Event::Stop(reason) => self.begin_stop(now, reason, &mut steps),
            Event::Signal(signal) => self.on_signal(now, signal, &mut steps),
            Event::Prepared => {
                if let Some(stop) = &mut self.stop {
                    stop.prepared = true;
                }
            }
            Event::Drained => {
                if self.phase == Phase::Draining {
                    self.enter(Phase::Releasing, &mut steps);
                }
            }
            Event::Released => {
                if self.phase == Phase::Releasing {
                    self.end(Step::Finish, &mut steps);
                }
            }
            Event::Tick => {}
        }
        self.let_time_pass(now, &mut steps);
        steps
    }

    /// When `next` wants to be called again, if nothing happens before.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let stop = self.stop.as_ref()?;
        let Schedule {
            lame_duck_over,
            cancel,
            cut,
            end,
        } = stop.schedule;
        match self.phase {
            Phase::LameDuck if stop.prepared => Some(lame_duck_over.min(cancel)),
            Phase::Starting | Phase::LameDuck | Phase::Draining if !stop.cancelled => Some(cancel),
            Phase::Starting | Phase::LameDuck | Phase::Draining if !stop.cut => Some(cut),
            Phase::Draining => Some(self.cut_settled(stop)),
            Phase::Stopped => None,
            _ => Some(end),
        }
    }

    /// The reason of the stop under way.
    pub(crate) fn reason(&self) -> Option<&Reason> {
        self.stop.as_ref().map(|stop| &stop.reason)
    }

    /// The instants of the stop under way.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        self.stop.as_ref().map(|stop| stop.schedule)
    }

    fn on_started(&mut self, steps: &mut Vec<Step>) {
        if self.phase != Phase::Starting || self.started_once {
            return;
        }
        self.started_once = true;
        // Told to stop while the last start step was ending: it is served as a stop from Ready,
        // so that what was started is drained and not merely released.
        self.enter(Phase::Ready, steps);
        if self.stop.is_some() {
            self.enter(Phase::LameDuck, steps);
        }
    }

    fn on_not_started(&mut self, now: Instant, failure: Option<Reason>, steps: &mut Vec<Step>) {
        if self.phase != Phase::Starting {
            return;
        }
        let reason = failure.unwrap_or_else(|| Reason::StartFailed("starting was given up".into()));
        self.stop
            .get_or_insert_with(|| Stop::new(reason, self.budget.schedule(now)));
        self.enter(Phase::Releasing, steps);
    }

    fn on_signal(&mut self, now: Instant, signal: i32, steps: &mut Vec<Step>) {
        self.signals += 1;
        match (self.signals, &mut self.stop) {
            (1, _) => self.begin_stop(now, Reason::Signal(signal), steps),
            (2, Some(stop)) => {
                stop.hurried = true;
                stop.schedule.hurry(now, &self.budget);
            }
            _ => self.end(Step::Kill(signal), steps),
        }
    }

    fn begin_stop(&mut self, now: Instant, reason: Reason, steps: &mut Vec<Step>) {
        if self.stop.is_some() {
            return;
        }
        let mut stop = Stop::new(reason, self.budget.schedule(now));
        if let Reason::Restart(_) = stop.reason {
            // To everybody else the service goes on: nothing is to be announced.
            stop.prepared = true;
            stop.schedule.lame_duck_over = now;
        }
        self.stop = Some(stop);
        match self.phase {
            Phase::Starting => steps.push(Step::AbandonStart),
            _ => self.enter(Phase::LameDuck, steps),
        }
    }

    fn let_time_pass(&mut self, now: Instant, steps: &mut Vec<Step>) {
        let Some(stop) = &self.stop else { return };
        let schedule = stop.schedule;
        if self.phase == Phase::LameDuck {
            let over = (stop.prepared || stop.hurried) && now >= schedule.lame_duck_over;
            if over || now >= schedule.cancel {
                self.enter(Phase::Draining, steps);
            }
        }
        if matches!(self.phase, Phase::Starting | Phase::Draining) {
            self.cancel_and_cut(now, steps);
        }
        if now >= schedule.end {
            self.end(Step::GiveUp, steps);
        }
    }

    fn cancel_and_cut(&mut self, now: Instant, steps: &mut Vec<Step>) {
        let Some(stop) = &mut self.stop else { return };
        if !stop.cancelled && now >= stop.schedule.cancel {
            stop.cancelled = true;
            steps.push(Step::Cancel);
        }
        if !stop.cut && now >= stop.schedule.cut {
            stop.cut = true;
            steps.push(Step::Cut);
        }
        // What was cut off normally ends at once; a blocking call cannot be cut off, and must not
        // eat the share of those that have something to release.
        let settled = self
            .stop
            .as_ref()
            .is_some_and(|stop| stop.cut && now >= self.cut_settled(stop));
        if settled && self.phase == Phase::Draining {
            self.enter(Phase::Releasing, steps);
        }
    }

    fn cut_settled(&self, stop: &Stop) -> Instant {
        let patience = (self.budget.release / 4).min(Duration::from_millis(500));
        stop.schedule.cut + patience
    }

    fn enter(&mut self, phase: Phase, steps: &mut Vec<Step>) {
        self.phase = phase;
        steps.push(Step::Enter(phase));
    }

    fn end(&mut self, step: Step, steps: &mut Vec<Step>) {
        if self.phase != Phase::Stopped {
            self.enter(Phase::Stopped, steps);
            steps.push(step);
        }
    }
}

impl Stop {
    fn new(reason: Reason, schedule: Schedule) -> Self {
        Self {
            reason,
            schedule,
            prepared: false,
            hurried: false,
            cancelled: false,
            cut: false,
        }
    }
}

#[cfg(test)]
mod tests;
