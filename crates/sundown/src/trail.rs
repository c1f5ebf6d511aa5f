//! A stop as spans of `tracing`: `stop` for the whole, beneath it one for each phase, beneath these one for each hook.
//! Whoever collects traces can look at a stop as one.
//!
//! Never made while a lock is held: a subscriber may take its time.

use tracing::Span;
use tracing::field::Empty;

use crate::lifecycle::Phase;
use crate::report::Report;

/// The spans of a stop so far.
#[derive(Default)]
pub(crate) struct Trail {
    stop: Option<Span>,
    phase: Option<Span>,
}

impl Trail {
    /// Ends the span of the phase before, and begins that of a phase of a stop, if it is one; `open` says how many
    /// things are under way. What is done in the phase belongs to the span.
    pub(crate) fn enter(
        &mut self,
        phase: Phase,
        service: &str,
        reason: &str,
        open: usize,
    ) -> Option<Span> {
        self.phase = None;
        if phase < Phase::LameDuck || phase == Phase::Stopped {
            return self.stop.clone();
        }
        let stop = self.stop.get_or_insert_with(|| {
            tracing::info_span!(
                target: "sundown", parent: None, "stop",
                app = service, reason, in_flight = open, cut_off = Empty, exit_code = Empty
            )
        });
        let span = match phase {
            Phase::LameDuck => tracing::info_span!(target: "sundown", parent: &*stop, "lame_duck"),
            Phase::Draining => tracing::info_span!(target: "sundown", parent: &*stop, "drain"),
            _ => tracing::info_span!(target: "sundown", parent: &*stop, "release"),
        };
        self.phase = Some(span);
        self.phase.clone()
    }

    /// Writes down how it ended, has the last line belong to it, and ends its span.
    pub(crate) fn end(&mut self, report: &Report, last_line: impl FnOnce()) {
        self.phase = None;
        // A service that could not be started has none.
        let stop = self.stop.take().unwrap_or_else(Span::none);
        stop.record("cut_off", report.cut_off.len());
        stop.record("exit_code", report.exit_code);
        stop.in_scope(last_line);
    }
}
