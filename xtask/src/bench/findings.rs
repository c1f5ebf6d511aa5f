//! What a subject found: a table of figures, and claims that hold or are broken.
//!
//! Never judges by itself: the subjects do, each by its own bound.

use serde::Serialize;

use super::statistics::Estimate;

/// One subject's result.
#[derive(Debug, Serialize)]
pub(super) struct Findings {
    pub(super) subject: &'static str,
    /// How it was measured, in a sentence.
    pub(super) how: String,
    /// How the servers were started.
    pub(super) commands: Vec<String>,
    pub(super) rows: Vec<Row>,
    pub(super) claims: Vec<Claim>,
}

/// One server's figures.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) server: String,
    pub(super) figures: Vec<Figure>,
}

/// A median of all rounds, or a ratio to the baseline with its interval.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) value: f64,
    /// The 95 % interval, where one is known.
    pub(super) interval: Option<(f64, f64)>,
}

/// What the project promises, and what was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    pub(super) what: String,
    pub(super) measured: f64,
    pub(super) unit: &'static str,
    pub(super) interval: Option<(f64, f64)>,
    pub(super) bound: Bound,
    pub(crate) holds: bool,
}

/// The side on which a figure must be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Bound {
    fn allows(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(bound) => measured >= bound,
            Self::AtMost(bound) => measured <= bound,
            Self::Below(bound) => measured < bound,
        }
    }
}

impl Claim {
    /// Judges an estimated ratio by its median; its interval is told beside it.
    pub(super) fn ratio(what: impl Into<String>, measured: Estimate, bound: Bound) -> Self {
        Self {
            interval: Some((measured.low, measured.high)),
            ..Self::plain(what, measured.median, "", bound)
        }
    }

    /// Judges one number.
    pub(crate) fn plain(
        what: impl Into<String>,
        measured: f64,
        unit: &'static str,
        bound: Bound,
    ) -> Self {
        Self {
            what: what.into(),
            measured,
            unit,
            interval: None,
            bound,
            holds: bound.allows(measured),
        }
    }
}

impl Figure {
    /// A plain number.
    pub(super) fn plain(name: &'static str, unit: &'static str, value: f64) -> Self {
        Self {
            name,
            unit,
            value,
            interval: None,
        }
    }

    /// A ratio to the baseline.
    pub(super) fn ratio(name: &'static str, estimate: Estimate) -> Self {
        Self {
            interval: Some((estimate.low, estimate.high)),
            ..Self::plain(name, "", estimate.median)
        }
    }
}

impl Findings {
    /// Prints the table and a line for each claim.
    pub(super) fn print(&self, judged: bool) {
        println!("\n{}: {}", self.subject, self.how);
        for command in &self.commands {
            println!("    {command}");
        }
        print_table(&self.rows);
        for claim in &self.claims {
            println!("  {}", claim.line(judged));
        }
    }
}

fn print_table(rows: &[Row]) {
    let Some(first) = rows.first() else {
        return;
    };
    let cells: Vec<Vec<String>> = std::iter::once(heads(first))
        .chain(rows.iter().map(cells))
        .collect();
    let width = |column: usize| {
        let lengths = cells.iter().filter_map(|row| row.get(column));
        lengths.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..cells[0].len()).map(width).collect();
    for row in &cells {
        print!("  {:<width$}", row[0], width = widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            print!("  {cell:>width$}");
        }
        println!();
    }
}

fn heads(row: &Row) -> Vec<String> {
    let names = row.figures.iter().map(|figure| figure.name.to_owned());
    std::iter::once("server".to_owned()).chain(names).collect()
}

fn cells(row: &Row) -> Vec<String> {
    let values = row
        .figures
        .iter()
        .map(|figure| number(figure.value, figure.unit, figure.interval));
    std::iter::once(row.server.clone()).chain(values).collect()
}

/// Writes a number with as many digits as mean something, its unit, and its interval.
fn number(value: f64, unit: &str, interval: Option<(f64, f64)>) -> String {
    let digits = match value.abs() {
        size if size.fract() == 0.0 && interval.is_none() => 0,
        size if unit.is_empty() && size < 100.0 => 3,
        size if size < 10.0 => 2,
        size if size < 1000.0 => 1,
        _ => 0,
    };
    let gap = if unit.is_empty() { "" } else { " " };
    let range = interval
        .map(|(low, high)| format!(" [{low:.digits$}, {high:.digits$}]"))
        .unwrap_or_default();
    format!("{value:.digits$}{gap}{unit}{range}")
}

impl Claim {
    /// Says whether it holds, what was measured and what had to be.
    pub(crate) fn line(&self, judged: bool) -> String {
        let verdict = match (judged, self.holds) {
            (false, _) => "not judged",
            (true, true) => "holds",
            (true, false) => "broken",
        };
        let (must_be, bound) = match self.bound {
            Bound::AtLeast(bound) => ("at least", bound),
            Bound::AtMost(bound) => ("at most", bound),
            Bound::Below(bound) => ("below", bound),
        };
        format!(
            "{verdict}: {}: {}, must be {must_be} {}",
            self.what,
            number(self.measured, self.unit, self.interval),
            number(bound, self.unit, None),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_says_what_was_measured_and_what_had_to_be() {
        let measured = Estimate {
            median: 0.95,
            low: 0.9,
            high: 1.0,
        };
        let claim = Claim::ratio("throughput", measured, Bound::AtLeast(0.97));
        assert_eq!(
            claim.line(true),
            "broken: throughput: 0.950 [0.900, 1.000], must be at least 0.970"
        );
        let claim = Claim::plain("exit", 9.5, "ms", Bound::Below(10.0));
        assert_eq!(
            claim.line(true),
            "holds: exit: 9.50 ms, must be below 10 ms"
        );
        assert!(claim.line(false).starts_with("not judged: "));
    }

    #[test]
    fn a_bound_may_be_touched_unless_it_says_below() {
        assert!(Bound::AtLeast(1.0).allows(1.0));
        assert!(Bound::AtMost(1.0).allows(1.0));
        assert!(!Bound::Below(1.0).allows(1.0));
    }
}
