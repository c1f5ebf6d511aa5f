//! The thread that decides: it receives signals and events, asks the lifecycle, and enforces grace.
//!
//! It needs neither the runtime nor any of its threads: when every worker spins and every hook
//! hangs, it still ends the process in time and says what was open. Never waits for a lock that is
//! held across anything slower than a few memory accesses.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::core::{Core, StopTimes};
use crate::error::Error;
use crate::exit::ExitStatus;
use crate::lifecycle::{Event, Lifecycle, Phase, Reason, Step};
use crate::report::{REPORT_SCHEMA, Report, progress_line};
use crate::signals::{self, Requests, Signals};
use crate::status::{Status, lasted};
use crate::systemd::Said;
use crate::trail::Trail;
use crate::{stderr, sys};

/// How often a terminal's progress line is renewed.
const LIVE: Duration = Duration::from_millis(200);

/// How often progress is told where it makes a new line each time.
const LINES: Duration = Duration::from_secs(1);

/// Whether the process ends with the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// `main` returns our exit code: signals stay caught until the very end.
    Us,
    /// Somebody else's program goes on: the handlers that stood before are put back.
    Embedder,
}

/// Installs the signal handlers and starts the thread. The report arrives on the channel; where
/// the process had to be ended, nothing does.
pub(crate) fn start(
    core: Arc<Core>,
    inbox: mpsc::Receiver<Event>,
    owner: Owner,
    report_to: Option<PathBuf>,
    requests: Requests,
) -> Result<oneshot::Receiver<Report>, Error> {
    let setup = |what| move |source| Error::Setup { what, source };
    let signals = Signals::install(requests).map_err(setup("the signal handlers"))?;
    core.link
        .set_waker(signals.waker().map_err(setup("the signal pipe"))?);
    let (tell, told) = oneshot::channel();
    let began = Instant::now();
    core.findings().phases.push((Phase::Starting, began));
    let lifecycle = Lifecycle::new(core.budget);
    let control = Control {
        core,
        lifecycle,
        report_to,
        signals_seen: 0,
        live_line: false,
        next_progress: None,
        trail: Trail::default(),
    };
    thread::Builder::new()
        .name("sundown-control".into())
        .spawn(move || control.run(signals, &inbox, owner, tell))
        .map_err(setup("the control thread"))?;
    Ok(told)
}

struct Control {
    core: Arc<Core>,
    lifecycle: Lifecycle,
    report_to: Option<PathBuf>,
    signals_seen: u32,
    live_line: bool,
    next_progress: Option<Instant>,
    trail: Trail,
}

impl Control {
    fn run(
        mut self,
        mut signals: Signals,
        inbox: &mpsc::Receiver<Event>,
        owner: Owner,
        tell: oneshot::Sender<Report>,
    ) {
        let report = loop {
            let caught = signals.wait(self.timeout());
            let (stops, requests): (Vec<i32>, Vec<i32>) = caught
                .into_iter()
                .partition(|signal| signals::TERMINATION.contains(signal));
            for signal in requests {
                self.do_as_asked(signal);
            }
            let mut events: Vec<Event> = stops.into_iter().map(Event::Signal).collect();
            events.extend(inbox.try_iter());
            events.push(Event::Tick);
            let ended = events.into_iter().find_map(|event| self.take_in(event));
            if let Some(report) = ended {
                break report;
            }
            self.show_progress();
        };
        match owner {
            Owner::Us => signals.keep(),
            Owner::Embedder => drop(signals),
        }
        let _ = tell.send(report);
    }

    /// For the signals that stop nothing.
    fn do_as_asked(&mut self, signal: i32) {
        match signal {
            libc::SIGHUP => {
                self.core.manager.tell(Said::Reloading);
                self.core.link.hangups.send_modify(|count| *count += 1);
                self.say("SIGHUP: files are read again; nothing stops");
                if self.core.phase() == Phase::Ready {
                    self.tell_ready();
                }
            }
            libc::SIGUSR1 => {
                self.end_live_line();
                stderr::lines(&Status::of(&self.core, Instant::now()).to_string());
            }
            _ => self.core.link.restarts.send_modify(|count| *count += 1),
        }
    }

    fn tell_ready(&self) {
        if self.core.checks.readying() {
            return;
        }
        self.core.manager.tell(Said::Ready {
            status: "ready".to_owned(),
        });
    }

    fn timeout(&self) -> Option<Duration> {
        let wake_at = [self.lifecycle.wake_at(), self.next_progress]
            .into_iter()
            .flatten()
            .min();
        wake_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Asks the lifecycle and does what it says; the report, once the service has ended in order.
    fn take_in(&mut self, event: Event) -> Option<Report> {
        let now = Instant::now();
        if let Event::Signal(signal) = event {
            self.signals_seen += 1;
            self.say_signal(signal);
        }
        let steps = self.lifecycle.next(now, event);
        if let Some(reason) = self.lifecycle.reason() {
            let mut findings = self.core.findings();
            findings.reason.get_or_insert_with(|| reason.clone());
        }
        if let Some(schedule) = self.lifecycle.schedule() {
            let closing_since = self
                .core
                .stop_times()
                .map_or(now, |times| times.closing_since);
            self.core.set_stop(StopTimes {
                closing_since,
                schedule,
            });
        }
        steps.into_iter().find_map(|step| self.perform(now, step))
    }

    fn perform(&mut self, now: Instant, step: Step) -> Option<Report> {
        match step {
            Step::Enter(phase) => self.enter(now, phase),
            Step::AbandonStart => self.core.abandon.cancel(),
            Step::Cancel => {
                self.say("no time is left to drain: contexts are cancelled");
                self.core.hard.cancel();
                self.core.connections.look_again();
            }
            Step::Cut => self.cut(now),
            Step::Finish => return Some(self.finish()),
            Step::GiveUp => {
                self.note_whats_open(now);
                self.note(
                    "grace is over and something did not end: the process is ended regardless",
                );
                self.end_process(None);
            }
            Step::Kill(signal) => {
                self.note_whats_open(now);
                self.end_process(Some(ExitStatus::Killed(signal)));
            }
        }
        None
    }

    fn enter(&mut self, now: Instant, phase: Phase) {
        self.core.findings().phases.push((phase, now));
        if phase >= Phase::LameDuck {
            self.core.closing.store(true, Ordering::Relaxed);
        }
        self.leave_trail(now, phase);
        match phase {
            Phase::Ready => self.tell_ready(),
            Phase::LameDuck => self.say_stopping(),
            _ => {}
        }
        self.next_progress = (phase == Phase::Draining).then(|| now + self.progress_interval());
        self.end_live_line();
        self.core.link.phase.send_replace(phase);
        self.core.connections.look_again();
    }

    /// The phase's span, and its line.
    fn leave_trail(&mut self, now: Instant, phase: Phase) {
        let reason = self.lifecycle.reason().map(Reason::to_string);
        let open = match phase {
            Phase::LameDuck => self.core.whats_open(now).len(),
            _ => 0,
        };
        let name = self.core.name.clone();
        let span = self
            .trail
            .enter(phase, &name, reason.as_deref().unwrap_or_default(), open);
        let inside = span.as_ref().map(tracing::Span::enter);
        tracing::info!(target: "sundown", service = %name, %phase, "phase");
        drop(inside);
        let before = std::mem::replace(&mut self.core.findings().span, span);
        drop(before);
    }

    fn cut(&mut self, now: Instant) {
        self.note_whats_open(now);
        self.core.cut.cancel();
        self.core.connections.cut_all();
    }

    fn note_whats_open(&self, now: Instant) {
        let open = self.core.whats_open(now);
        let mut findings = self.core.findings();
        if findings.cut_off.is_empty() {
            findings.cut_off = open;
        }
    }

    fn finish(&mut self) -> Report {
        let report = self.report(None);
        self.publish(&report);
        report
    }

    /// Ends the process without asking anybody: the runtime may be stuck.
    fn end_process(&mut self, status: Option<ExitStatus>) -> ! {
        let report = self.report(status);
        self.publish(&report);
        sys::exit_now(report.exit_code)
    }

    fn publish(&mut self, report: &Report) {
        self.end_live_line();
        if report
            .reason
            .as_ref()
            .is_none_or(|reason| !matches!(reason, Reason::StartFailed(_)))
        {
            stderr::lines(&report.to_string());
        }
        let span = self.core.findings().span.take();
        drop(span);
        self.trail.end(report, || {
            let stop_ms = report.took.as_millis() as u64;
            tracing::info!(target: "sundown", exit_code = report.exit_code, stop_ms, "stopped");
        });
        if let Some(path) = &self.report_to
            && let Err(error) = write_report(path, report)
        {
            self.say(&format!(
                "could not write the report to {}: {error}",
                path.display()
            ));
        }
        self.core.link.last_words.say();
    }

    fn report(&self, status: Option<ExitStatus>) -> Report {
        let core = &self.core;
        let requests = core.request_counts();
        let findings = core.findings();
        let reason = self.lifecycle.reason().cloned();
        let failed = !findings.failures.is_empty()
            || findings.hooks.iter().any(|hook| hook.outcome.is_failure());
        let cut_off = [findings.broken.as_slice(), &findings.cut_off].concat();
        let status = status
            .or(findings.start_failure)
            .unwrap_or_else(|| ExitStatus::of(!cut_off.is_empty(), reason.as_ref(), failed));
        let began = core.stop_times().map(|times| times.closing_since);
        // The last one has no end.
        let mut phases = lasted(&findings.phases, Instant::now());
        phases.pop();
        Report {
            schema: REPORT_SCHEMA,
            name: core.name.clone(),
            pid: std::process::id(),
            reason,
            exit_code: status.code(),
            took: began.map_or(Duration::ZERO, |began| began.elapsed()),
            phases,
            requests,
            cut_off,
            connections: core.connections.counts(),
            listeners: findings.listeners.clone(),
            hooks: findings.hooks.clone(),
            notes: [findings.failures.as_slice(), &findings.notes].concat(),
        }
    }

    fn note(&self, note: &str) {
        self.core.findings().notes.push(note.to_owned());
    }

    /// To systemd a service that was restarted goes on.
    fn tell_stopping(&self, status: String, within: Duration) {
        if !matches!(self.lifecycle.reason(), Some(Reason::Restart(_))) {
            self.core.manager.tell(Said::Stopping { status, within });
        }
    }

    fn say_stopping(&mut self) {
        let reason = self
            .lifecycle
            .reason()
            .map(Reason::to_string)
            .unwrap_or_default();
        let grace = humantime::format_duration(self.core.budget.grace);
        self.tell_stopping(format!("stopping: {reason}"), self.core.budget.grace);
        self.say(&format!(
            "{reason}: stopping, within {grace}; again to hurry"
        ));
    }

    fn say_signal(&mut self, signal: i32) {
        let name = signals::name(signal);
        match (self.signals_seen, self.lifecycle.reason()) {
            (1, Some(_)) => self.say(&format!("{name}: already stopping; again to hurry")),
            (1, None) => {}
            (2, _) => {
                self.say(&format!("{name} again: cutting off what is in flight, then releasing; a third ends the process at once"));
            }
            _ => self.say(&format!("{name} for the third time: ending at once")),
        }
    }

    fn say(&mut self, text: &str) {
        self.end_live_line();
        stderr::lines(&format!("{}: {text}", self.core.name));
    }

    fn progress_interval(&self) -> Duration {
        if io::stderr().is_terminal() {
            LIVE
        } else {
            LINES
        }
    }

    fn show_progress(&mut self) {
        let now = Instant::now();
        if self.next_progress.is_none_or(|at| now < at) {
            return;
        }
        self.next_progress = Some(now + self.progress_interval());
        let schedule = self.lifecycle.schedule();
        let until =
            |at: Option<Instant>| at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let left = until(schedule.map(|schedule| schedule.cancel));
        let line = progress_line(
            self.core.connections.len(),
            &self.core.whats_open(now),
            left,
        );
        let within = until(schedule.map(|schedule| schedule.end));
        self.tell_stopping(line.clone(), within);
        let line = format!("{}: {line}", self.core.name);
        if io::stderr().is_terminal() {
            stderr::renew_line(&line);
            self.live_line = true;
        } else {
            stderr::lines(&line);
        }
    }

    fn end_live_line(&mut self) {
        if std::mem::take(&mut self.live_line) {
            stderr::lines("");
        }
    }
}

fn write_report(path: &Path, report: &Report) -> io::Result<()> {
    let json = report.to_json() + "\n";
    if path == Path::new("-") {
        return io::Write::write_all(&mut io::stdout(), json.as_bytes());
    }
    std::fs::write(path, json)
}
