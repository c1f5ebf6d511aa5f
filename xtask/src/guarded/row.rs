//! What a server's clients noticed: a row of the answer, and its part of the table.

use std::fmt;

use serde::Serialize;
use sundown_verify::Declined;

use super::Loads;

/// What a server's clients noticed.
#[derive(Default, Serialize)]
pub(super) struct Row {
    pub(super) server: String,
    pub(super) stops: Noticed,
    pub(super) restarts: Noticed,
    pub(super) kills: Noticed,
    /// The same without a guard; a stop and a start in the place of a restart.
    pub(super) plain_stops: Noticed,
    pub(super) plain_restarts: Noticed,
    pub(super) plain_kills: Noticed,
    /// Restarts by the server itself, without a guard, if it has them.
    pub(super) own_reloads: Option<Noticed>,
    /// The same by clients that keep their connections and are always busy, and beside it what they notice of
    /// restarts under the guard, which cuts them off at the end of its drain.
    pub(super) own_reloads_kept: Option<Noticed>,
    pub(super) restarts_kept: Option<Noticed>,
    /// Connections that the guard says it cut off then.
    pub(super) kept_cut_off: usize,
    /// Milliseconds from SIGHUP until the generation before has ended.
    pub(super) restart_ms: Vec<u64>,
    pub(super) exits_nonzero: u32,
}

/// Requests, and what became of those that were not answered.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Noticed {
    requests: u64,
    lost: u64,
    refused: u64,
    /// Passed the server's end of a kept connection: the server did not get them, but all that most clients can
    /// tell is that no answer came.
    crossed: u64,
}

impl Noticed {
    /// Ends loads, and adds what they were answered.
    pub(super) async fn add(&mut self, loads: Loads) {
        for load in loads {
            let counts = load.finish().await.total;
            self.requests += counts.sent;
            self.lost += counts.lost;
            self.refused += counts.declined_as(Declined::Refused);
            self.crossed += counts.declined_as(Declined::Crossed);
        }
    }
}

/// How many times each was done.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) restarts: u32,
    pub(super) kills: u32,
}

impl Row {
    /// Who is refused after a stop began was told so; a killed process takes with it what was in flight, and so
    /// does a generation whose drain is over.
    pub(super) fn holds(&self, times: Times, in_flight: u64) -> bool {
        let kept = self.restarts_kept.unwrap_or_default();
        self.stops.lost == 0
            && self.restarts.lost + self.restarts.refused == 0
            && self.kills.refused == 0
            && self.kills.lost <= u64::from(times.kills) * in_flight
            && kept.refused == 0
            && kept.lost <= u64::from(times.restarts) * in_flight
            && self.exits_nonzero == 0
    }
}

/// Prints what stands above the columns.
pub(super) fn print_heading() {
    let counts = Columns("requests", "lost", "refused");
    println!("{:34}{counts}   without:{counts}", "server");
}

/// Three columns.
struct Columns<T>(T, T, T);

impl<T: fmt::Display> fmt::Display for Columns<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(requests, lost, refused) = self;
        write!(f, " {requests:>10} {lost:>6} {refused:>8}")
    }
}

impl fmt::Display for Noticed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Columns(self.requests, self.lost, self.refused).fmt(f)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.server)?;
        for (what, guarded, plain) in [
            ("stops", Some(self.stops), Some(self.plain_stops)),
            ("restarts", Some(self.restarts), Some(self.plain_restarts)),
            ("kills", Some(self.kills), Some(self.plain_kills)),
            ("own reloads", None, self.own_reloads),
            ("restarts, kept connections", self.restarts_kept, None),
            ("own reloads, kept connections", None, self.own_reloads_kept),
        ] {
            if guarded.or(plain).is_some() {
                writeln!(f, "{}", line(what, guarded, plain))?;
            }
        }
        if let (Some(guarded), Some(plain)) = (self.restarts_kept, self.own_reloads_kept) {
            writeln!(
                f,
                "    of kept connections the guard cut {} off as its drain was over; requests that crossed their end: \
                 {} at restarts, {} at own reloads",
                self.kept_cut_off, guarded.crossed, plain.crossed
            )?;
        }
        let mut took = self.restart_ms.clone();
        took.sort_unstable();
        let (median, slowest) = (took.get(took.len() / 2), took.last());
        write!(
            f,
            "    a restart until the generation before has ended: p50 {} ms, slowest {} ms; exits other than 0: {}",
            median.unwrap_or(&0),
            slowest.unwrap_or(&0),
            self.exits_nonzero
        )
    }
}

/// A line of the table; what was not measured leaves its columns empty.
fn line(what: &str, guarded: Option<Noticed>, plain: Option<Noticed>) -> String {
    let columns = |noticed: Option<Noticed>| match noticed {
        Some(noticed) => noticed.to_string(),
        None => Columns("", "", "").to_string(),
    };
    let line = format!(
        "    {what:30}{}           {}",
        columns(guarded),
        columns(plain)
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_one_way_only_stands_below_its_own_columns() {
        let noticed = Some(Noticed {
            requests: 70,
            lost: 8,
            refused: 9,
            crossed: 0,
        });
        let both = line("kills", noticed, noticed);
        let guarded = line("restarts, kept connections", noticed, None);
        let plain = line("own reloads", None, noticed);

        assert_eq!(both.matches("70").count(), 2, "{both}");
        assert_eq!(guarded.matches("70").count(), 1, "{guarded}");
        assert_eq!(guarded.find("70"), both.find("70"));
        assert_eq!(plain.matches("70").count(), 1, "{plain}");
        assert_eq!(plain.rfind("70"), both.rfind("70"));
    }

    #[test]
    fn kept_connections_may_be_cut_off_once_a_restart_and_nobody_may_be_refused() {
        let holds = |lost, refused| {
            let row = Row {
                restarts_kept: Some(Noticed {
                    lost,
                    refused,
                    ..Noticed::default()
                }),
                ..Row::default()
            };
            row.holds(
                Times {
                    restarts: 2,
                    kills: 0,
                },
                12,
            )
        };
        assert!(holds(24, 0));
        assert!(!holds(25, 0));
        assert!(!holds(0, 1));
    }
}
