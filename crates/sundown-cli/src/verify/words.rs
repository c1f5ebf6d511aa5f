//! Puts checks and verdicts into words for people.

use std::ffi::OsString;
use std::fmt::Write as _;

use sundown_verify::counters::{COUNTERS, Counted, Counter};
use sundown_verify::private_net::Refused;
use sundown_verify::process::SignalTo;
use sundown_verify::suite::{Judged, Judgement, Times};
use sundown_verify::{Check, Level, Service, Target, Verdict, checks, name_of_signal};

use super::needs;
use super::paint::Paint;

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

/// What is going to be done to what runs already.
pub(super) fn before(service: &Service) -> Option<String> {
    let again =
        |how: &str| format!("and started again{how}, as often as checks need; it is left running");
    let done = match &service.target {
        Target::Command(_) => return None,
        Target::Pid(process) => {
            let (pid, name, address) = (process.pid, &process.name, process.address);
            let whom = match service.signal_to {
                SignalTo::Leader => String::new(),
                SignalTo::Group => format!(" and its group {}", process.group),
            };
            let signal = name_of_signal(service.signal);
            format!(
                "process {pid} ({name}) on {address}{whom} is to get {signal}, and is not started again"
            )
        }
        Target::Unit(unit) => format!(
            "unit {} (process {}, {}) on {} is to be stopped {}",
            unit.name,
            unit.pid,
            unit.process,
            unit.address,
            again("")
        ),
        Target::Url(reached) => {
            let afterwards = match &reached.again {
                None => "and is not started again".to_owned(),
                Some(command) => again(&format!(" by `{}`", command_line(command))),
            };
            let (address, stop) = (reached.address, command_line(&reached.stop));
            format!(
                "what listens on {address} is to be stopped by `{stop}`, {afterwards}; when its signal \
                 comes is not seen: times count from the command"
            )
        }
    };
    Some(format!("note: {done}"))
}

/// What becomes of the target when we are interrupted.
pub(super) fn left(target: &Target) -> String {
    match target {
        Target::Command(_) => "the service was ended".to_owned(),
        Target::Pid(process) => format!("process {} was left as it is", process.pid),
        Target::Unit(unit) => format!("unit {} was left running", unit.name),
        Target::Url(reached) if reached.again.is_some() => {
            "the service was left running".to_owned()
        }
        Target::Url(_) => "the service was left as it is".to_owned(),
    }
}

/// What to do about something that stays and is not ours to kill.
pub(super) fn stayed(target: &Target) -> String {
    let who = match target {
        Target::Pid(process) => format!("process {}", process.pid),
        _ => "the service".to_owned(),
    };
    format!("note: {who} outstayed its grace and was left alone; it may be there still")
}

fn command_line(words: &[OsString]) -> String {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    shlex::try_join(words.iter().map(AsRef::as_ref)).unwrap_or_else(|_| words.join(" "))
}

/// A check and its verdict.
pub(super) fn line(judgement: &Judgement, paint: Paint) -> String {
    let check = judgement.check;
    let bound = judgement.bound().map(percent);
    let bound = bound.map_or_else(String::new, |bound| format!(" (at most {bound})"));
    // Padded first: a terminal counts no colour, but a format does.
    let name = format!("{:12}", name(judgement.verdict));
    format!(
        "  {} {:12} {:6} {}: {}{bound}",
        paint.verdict(judgement.verdict, &name),
        check.id,
        level(check),
        check.promise,
        judgement.seen
    )
}

/// The tree, the failures again with what to do about them, and the sum.
pub(super) fn report(judged: &Judged, paint: Paint) -> String {
    let mut text = String::new();
    let mut last = "";
    for judgement in &judged.judgements {
        if section(judgement.check) != last {
            last = section(judgement.check);
            let _ = writeln!(text, "{last}");
        }
        let _ = writeln!(text, "{}", line(judgement, paint));
    }
    if let Some(times) = judged.stops.last() {
        let _ = writeln!(text, "\n{}", axis(times));
        if let Some(counted) = &times.kernel {
            let _ = writeln!(text, "{}", kernel(counted));
        }
    }
    let failed = judged
        .judgements
        .iter()
        .filter(|judgement| matches!(judgement.verdict, Verdict::Fail | Verdict::Flaky));
    for judgement in failed {
        text.push_str(&failure(judgement, paint));
    }
    let _ = writeln!(text, "\n{}", sum(judged, paint));
    text
}

pub(super) fn failure(judgement: &Judgement, paint: Paint) -> String {
    let check = judgement.check;
    let mut text = format!(
        "\n{} {} {}\n  expected  {}\n  seen      {}\n",
        check.id,
        paint.verdict(judgement.verdict, name(judgement.verdict)),
        check.promise,
        check.criterion,
        judgement.seen
    );
    for case in judgement.evidence.iter().take(3) {
        let _ = writeln!(text, "            {case}");
    }
    if let Some(cause) = &judgement.cause {
        let _ = writeln!(text, "  cause     {cause}");
    }
    let _ = writeln!(text, "  advice    {}", check.advice);
    text
}

/// One stop as a line.
fn axis(times: &Times) -> String {
    let end = if times.killed { "killed" } else { "exit" };
    let mut moments = vec![(times.closed, "listener closed"), (times.ended, end)];
    moments.extend(times.answered.map(|at| (at, "last answer")));
    moments.sort_by_key(|(at, _)| *at);
    let moments = moments
        .iter()
        .map(|(at, what)| format!(" ── {what} {at} ms"));
    moments.fold("signal 0 ms".to_owned(), |axis, moment| axis + &moment)
}

/// What the kernel counted during that, and what of it cannot be seen.
fn kernel(counted: &Counted) -> String {
    let value = |counter: &Counter| counted.get(counter.name);
    let names = |wanted: &dyn Fn(Option<u64>) -> bool| -> Vec<&str> {
        let found = COUNTERS.iter().filter(|counter| wanted(value(counter)));
        found.map(|counter| counter.name).collect()
    };
    let some = COUNTERS.iter().filter_map(|counter| {
        let value = value(counter).filter(|value| *value > 0)?;
        Some(format!("{value} {} ({})", counter.meaning, counter.name))
    });
    let mut words: Vec<String> = some.collect();
    let none = names(&|value| value == Some(0));
    if !none.is_empty() {
        words.push(format!("no {}", none.join(", ")));
    }
    let unseen = names(&|value| value.is_none());
    if !unseen.is_empty() {
        words.push(format!("not to be seen here: {}", unseen.join(", ")));
    }
    format!("kernel counted, of both ends: {}", words.join(", "))
}

/// What to do where the system refuses a network namespace.
pub(super) fn no_private_net(refused: Refused) -> String {
    format!(
        "--private-net: {:#}; run it as root, allow user namespaces (sysctl user.max_user_namespaces, \
         user.max_net_namespaces, kernel.unprivileged_userns_clone, \
         kernel.apparmor_restrict_unprivileged_userns), or leave it out",
        anyhow::Error::from(refused)
    )
}

fn sum(judged: &Judged, paint: Paint) -> String {
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
        .map(|(kind, count)| paint.verdict(kind, &format!("{count} {}", name(kind))))
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
