//! The report in words.

use std::fmt;
use std::time::Duration;

use super::{CutOff, Report};
use crate::exit::ExitStatus;

/// How many open pieces of work a progress line names.
const NAMED: usize = 3;

/// How many the final report names; the JSON document names all.
const LISTED: usize = 20;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.exit_status() {
            ExitStatus::Drained => "drained, nothing was lost".to_owned(),
            ExitStatus::CutOff => format!("{} cut off", self.cut_off.len()),
            ExitStatus::Killed(_) => "ended at once by the third signal".to_owned(),
            ExitStatus::Failed | ExitStatus::BadSetting => "failed".to_owned(),
        };
        let took = duration(self.took);
        write!(
            f,
            "{}: stopped in {took}: {verdict} (exit code {})",
            self.name, self.exit_code
        )?;
        if self.connections.accepted > 0 {
            let requests = &self.requests;
            write!(
                f,
                "\n  requests: {} finished, {} of them during the stop; {} abandoned by their client",
                requests.finished, requests.finished_during_stop, requests.abandoned_by_client
            )?;
            if requests.ended_early > 0 {
                write!(f, "; streams ended in order: {}", requests.ended_early)?;
            }
        }
        let phases: Vec<String> = self
            .phases
            .iter()
            .map(|phase| format!("{} {}", phase.phase, duration(phase.lasted)))
            .collect();
        write!(f, "\n  phases: {}", phases.join(", "))?;
        for open in self.cut_off.iter().take(LISTED) {
            write!(f, "\n  cut off: {open}")?;
        }
        if self.cut_off.len() > LISTED {
            write!(f, "\n  cut off: and {} more", self.cut_off.len() - LISTED)?;
        }
        for hook in self.hooks.iter().filter(|hook| hook.outcome.is_failure()) {
            write!(
                f,
                "\n  {} {}: {:?} after {}",
                hook.when,
                hook.name,
                hook.outcome,
                duration(hook.took)
            )?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        Ok(())
    }
}

/// One line about what a drain waits for.
pub(crate) fn progress_line(connections: usize, open: &[CutOff], left: Duration) -> String {
    let time = if left.is_zero() {
        "time is up".to_owned()
    } else {
        format!("{} left", duration(left))
    };
    let plural = if connections == 1 { "" } else { "s" };
    let mut line = format!("draining, {time}: {connections} connection{plural}");
    if !open.is_empty() {
        line.push_str(&format!(", {} at work: ", open.len()));
        let named: Vec<String> = open.iter().take(NAMED).map(CutOff::to_string).collect();
        line.push_str(&named.join(", "));
        if open.len() > NAMED {
            line.push_str(&format!(" and {} more", open.len() - NAMED));
        }
    }
    line
}

/// A duration as people say it: `850 µs`, `12 ms`, `3.4 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
