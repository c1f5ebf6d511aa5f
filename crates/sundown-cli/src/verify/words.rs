//! Puts checks and verdicts into words for people.

use std::fmt::Write as _;

use sundown_verify::suite::{Judged, Judgement, Times};
use sundown_verify::{Check, Level, Verdict, checks};

use super::needs;

pub(super) fn section(check: &Check) -> &'static str {
    check
        .id
        .split_once('/')
        .map_or(check.id, |(section, _)| section)
}

/// All checks, by section.
pub(super) fn list() -> String {
    let mut text = String::new();
    let mut last = "";
    for check in checks::all() {
        if section(check) != last {
            last = section(check);
            let _ = writeln!(text, "{last}");
        }
        let _ = writeln!(
            text,
            "  {:12} {:6} {}",
            check.id,
            level(check),
            check.promise
        );
    }
    text
}

pub(super) fn explain(check: &Check) -> String {
    let needs = match needs(check).join(", ") {
        none if none.is_empty() => "nothing".to_owned(),
        some => some,
    };
    format!(
        "{} ({})\n  promise  {}\n  method   {}\n  passes   {}\n  needs    {}\n  source   {}\n  advice   {}\n",
        check.id,
        level(check),
        check.promise,
        check.method,
        check.criterion,
        needs,
        check.source,
        check.advice,
    )
}

pub(super) fn under_way(number: usize, checks: &[&'static Check]) -> String {
    match checks {
        [one] => format!("stop {number}: {}, {}", one.id, one.promise),
        many => format!("stop {number}: {} checks at once", many.len()),
    }
}

/// What to do about a shell between us and the service.
pub(super) fn wrapped(child: &str) -> String {
    format!(
        "note: what listens is {child}, a child of the command that was started, which gets the \
         signal: start {child} itself, put exec before it, or give --signal-to group"
    )
}

/// A check and its verdict.
pub(super) fn line(judgement: &Judgement) -> String {
    let check = judgement.check;
    let bound = judgement.bound().map(percent);
    let bound = bound.map_or_else(String::new, |bound| format!(" (at most {bound})"));
    format!(
        "  {:12} {:12} {:6} {}: {}{bound}",
        name(judgement.verdict),
        check.id,
        level(check),
        check.promise,
        judgement.seen
    )
}

/// The tree, the failures again with what to do about them, and the sum.
pub(super) fn report(judged: &Judged) -> String {
    let mut text = String::new();
    let mut last = "";
    for judgement in &judged.judgements {
        if section(judgement.check) != last {
            last = section(judgement.check);
            let _ = writeln!(text, "{last}");
        }
        let _ = writeln!(text, "{}", line(judgement));
    }
    if let Some(times) = judged.stops.last() {
        let _ = writeln!(text, "\n{}", axis(times));
    }
    let failed = judged
        .judgements
        .iter()
        .filter(|judgement| matches!(judgement.verdict, Verdict::Fail | Verdict::Flaky));
    for judgement in failed {
        text.push_str(&failure(judgement));
    }
    let _ = writeln!(text, "\n{}", sum(judged));
    text
}

pub(super) fn failure(judgement: &Judgement) -> String {
    let check = judgement.check;
    let mut text = format!(
        "\n{} {} {}\n  expected  {}\n  seen      {}\n",
        check.id,
        name(judgement.verdict),
        check.promise,
        check.criterion,
        judgement.seen
    );
    for case in judgement.evidence.iter().take(3) {
        let _ = writeln!(text, "            {case}");
    }
    let _ = writeln!(text, "  advice    {}", check.advice);
    text
}

/// One stop as a line.
fn axis(times: &Times) -> String {
    let end = if times.killed { "killed" } else { "exit" };
    format!(
        "signal 0 ms ── listener closed {} ms ── {end} {} ms",
        times.closed, times.ended
    )
}

fn sum(judged: &Judged) -> String {
    let kinds = [
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Flaky,
        Verdict::Inconclusive,
        Verdict::Skipped,
    ];
    let count = |kind: Verdict| {
        judged
            .judgements
            .iter()
            .filter(|one| one.verdict == kind)
            .count()
    };
    let words: Vec<String> = kinds
        .into_iter()
        .map(|kind| (kind, count(kind)))
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} {}", name(kind)))
        .collect();
    words.join(", ")
}

pub(super) fn percent(rate: f64) -> String {
    format!("{:.1} % at 95 %", rate * 100.0)
}

pub(super) fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "FAIL",
        Verdict::Inconclusive => "INCONCLUSIVE",
        Verdict::Flaky => "FLAKY",
        Verdict::Skipped => "skipped",
    }
}

pub(super) fn level(check: &Check) -> &'static str {
    match check.level {
        Level::Must => "MUST",
        Level::Should => "SHOULD",
        Level::Info => "INFO",
    }
}
