//! Plays checks on a service, as often as asked, and gives verdicts.
//!
//! The promise: checks that can share a stop do; what was inconclusive is tried again, at most
//! [`TRIES`] times; a verdict that differs from run to run is flaky, whatever it was last.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::check::{Check, Finding, Stop, Verdict};
use crate::checks;
use crate::counters::Counted;
use crate::service::{Service, StartError};
use crate::stop::{self, Moments};
use crate::timeline::{Selection, Timeline};

/// How often a check is played before it stays inconclusive.
pub const TRIES: usize = 3;

/// Checks to play on a service.
#[derive(Debug)]
pub struct Suite {
    service: Arc<Service>,
    checks: Vec<&'static Check>,
    runs: usize,
    in_private_net: bool,
}

/// A check and what came of it, over all runs.
#[derive(Debug)]
pub struct Judgement {
    /// The check.
    pub check: &'static Check,
    /// The verdict.
    pub verdict: Verdict,
    /// How many cases could have shown the fault, in all runs.
    pub exposed: u64,
    /// How many requests of these were lost, where requests are what it counts.
    pub lost: Option<u64>,
    /// What was seen, in a few words.
    pub seen: String,
    /// Single cases, in words.
    pub evidence: Vec<String>,
    /// Why it failed, as far as what was seen says so.
    pub cause: Option<String>,
}

/// When what happened in a stop, in milliseconds after the signal.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// When nobody listened any more.
    pub closed: u64,
    /// When the last answer had arrived, if any did.
    pub answered: Option<u64>,
    /// When the process had ended.
    pub ended: u64,
    /// Whether it had to be killed.
    pub killed: bool,
    /// How it ended, in words, as far as that is seen.
    pub exit: String,
    /// What the kernel counted from the signal until all clients were done, where that is known to be of
    /// this service.
    pub kernel: Option<Counted>,
}

/// What a suite found.
#[derive(Debug)]
pub struct Judged {
    /// Each check, in the order of the list.
    pub judgements: Vec<Judgement>,
    /// The stops under load, which most checks share.
    pub stops: Vec<Times>,
    /// The child that listens, where the process that was started does not: a shell, npm, `go run`.
    pub wrapped: Option<String>,
    /// What clients did: in each stop in which a check failed for the first time; where none of those
    /// that share a stop did, in the last.
    pub timelines: Vec<Timeline>,
    /// Whether it outstayed its grace in some stop and was left alone, because it is not ours to kill.
    pub stayed: bool,
}

/// What happens while a suite runs.
#[derive(Debug)]
pub enum Told<'a> {
    /// A stop begins, for these checks.
    Stop {
        /// The stop's number, from one.
        number: usize,
        /// The checks.
        checks: &'a [&'static Check],
    },
    /// A check has its verdict.
    Judged(&'a Judgement),
}

impl Suite {
    /// Makes a suite of checks; those that need what the service does not offer, or its target does
    /// not show, are told as skipped.
    pub fn new(service: Service, checks: Vec<&'static Check>, runs: usize) -> Self {
        let as_declared = |check| checks::as_declared(check, &service.declared);
        let checks = checks.into_iter().map(as_declared).collect();
        Self {
            service: Arc::new(service),
            checks,
            runs,
            in_private_net: false,
        }
    }

    /// Says that the network namespace is this service's alone, so that what the kernel counts in it is
    /// told: see [`private_net`](crate::private_net).
    pub fn in_private_net(mut self) -> Self {
        self.in_private_net = true;
        self
    }

    /// The service.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Plays them all.
    ///
    /// # Errors
    /// If the service cannot be started or watched.
    pub async fn run(&self, mut tell: impl FnMut(Told<'_>)) -> Result<Judged, StartError> {
        let mut judgements = Vec::new();
        let mut stops = 0;
        let mut shared = Vec::new();
        let mut wrapped = None;
        let mut timelines = Vec::new();
        let mut stayed = false;
        for group in self.groups() {
            let mut found: Vec<Vec<Finding>> = vec![Vec::new(); group.len()];
            let mut selection = Selection::default();
            for _ in 0..self.runs {
                let mut open: Vec<usize> = (0..group.len()).collect();
                for _ in 0..self.tries() {
                    let checks: Vec<&'static Check> = open.iter().map(|at| group[*at]).collect();
                    stops += 1;
                    tell(Told::Stop {
                        number: stops,
                        checks: &checks,
                    });
                    let played = stop::play(&self.service, &checks).await?;
                    // One that is tried again for some of its checks has less to do.
                    if group[0].stop == Stop::Shared && checks.len() == group.len() {
                        let times = times(&played.moments, &played.timeline);
                        let counted = played.counted.filter(|_| self.in_private_net);
                        shared.extend(times.map(|times| Times {
                            kernel: counted,
                            ..times
                        }));
                    }
                    selection.offer(
                        named(played.timeline, stops, &checks, &played.findings),
                        group.len(),
                    );
                    wrapped = wrapped.or(played.wrapped);
                    stayed |= played.moments.stayed;
                    for (at, finding) in open.iter().zip(played.findings) {
                        found[*at].push(finding);
                    }
                    open.retain(|at| last_is_inconclusive(&found[*at]));
                    if open.is_empty() {
                        break;
                    }
                }
            }
            timelines.extend(selection.shown());
            for (check, findings) in group.iter().zip(found) {
                let judgement = merge(check, findings);
                tell(Told::Judged(&judgement));
                judgements.push(judgement);
            }
        }
        for check in &self.checks {
            if let Some(missing) = self.missing(check) {
                judgements.push(skipped(check, missing));
            }
        }
        judgements.sort_by_key(|judgement| self.place(judgement.check));
        Ok(Judged {
            judgements,
            stops: shared,
            wrapped,
            timelines,
            stayed,
        })
    }

    /// The stops of one run: first those that are shared, and one for each check that needs its own.
    fn groups(&self) -> Vec<Vec<&'static Check>> {
        let playable = self
            .checks
            .iter()
            .filter(|check| self.missing(check).is_none());
        let mut groups: Vec<Vec<&'static Check>> = Vec::new();
        for check in playable {
            let shared =
                |group: &&mut Vec<&Check>| check.stop != Stop::Own && group[0].stop == check.stop;
            match groups.iter_mut().find(shared) {
                Some(group) => group.push(check),
                None => groups.push(vec![check]),
            }
        }
        groups.sort_by_key(|group| group[0].stop != Stop::Shared);
        groups
    }

    /// What cannot be started again is stopped once, whatever was seen.
    fn tries(&self) -> usize {
        match self.service.target.starts_again() {
            true => TRIES,
            false => 1,
        }
    }

    /// Why a check is left out: what can be mended by a flag comes last.
    fn missing(&self, check: &Check) -> Option<String> {
        let target = &self.service.target;
        let unmet = || {
            let needs = check.needs.iter().copied();
            needs.filter(|need| !need.met_by(&self.service))
        };
        if let Some(need) = unmet().find(|need| need.is_of_target()) {
            return Some(need.missing_from(target));
        }
        if check.stop != Stop::Shared && !target.starts_again() {
            let advice = target.advice_to_start_again();
            return Some(format!("needs a start of its own: {advice}"));
        }
        unmet().next().map(|need| need.missing_from(target))
    }

    fn place(&self, check: &Check) -> usize {
        let ids = self.checks.iter().map(|check| check.id);
        ids.take_while(|id| *id != check.id).count()
    }
}

fn last_is_inconclusive(findings: &[Finding]) -> bool {
    let last = findings.last();
    last.is_some_and(|finding| finding.verdict == Verdict::Inconclusive)
}

/// Names what one stop showed by its number, and by who failed in it.
fn named(
    timeline: Timeline,
    stop: usize,
    checks: &[&'static Check],
    findings: &[Finding],
) -> Timeline {
    let found = checks.iter().zip(findings);
    let failed = found.filter(|(_, finding)| finding.verdict == Verdict::Fail);
    Timeline {
        stop,
        failed: failed.map(|(check, _)| check.id).collect(),
        ..timeline
    }
}

fn times(moments: &Moments, timeline: &Timeline) -> Option<Times> {
    let millis = |after: Duration| after.as_millis() as u64;
    let (at, ended) = moments.ended?;
    Some(Times {
        closed: millis(moments.after_signal(moments.closed)?),
        answered: timeline.last_answer.map(millis),
        ended: millis(moments.after_signal(Some(at))?),
        killed: moments.killed,
        exit: ended.map_or_else(|| "status not seen".to_owned(), |ended| ended.to_string()),
        kernel: None,
    })
}

fn skipped(check: &'static Check, missing: String) -> Judgement {
    Judgement {
        check,
        verdict: Verdict::Skipped,
        exposed: 0,
        lost: None,
        seen: missing,
        evidence: Vec::new(),
        cause: None,
    }
}

/// Makes one judgement of all that was found; tries that showed nothing count only if all did.
fn merge(check: &'static Check, findings: Vec<Finding>) -> Judgement {
    let mut told: Vec<Finding> = findings.clone();
    told.retain(|finding| finding.verdict != Verdict::Inconclusive);
    if told.is_empty() {
        told = findings;
    }
    let exposed = told.iter().map(|finding| finding.exposed).sum();
    let lost = told.iter().map(|finding| finding.lost).sum();
    let failed = told
        .iter()
        .filter(|finding| finding.verdict == Verdict::Fail)
        .count();
    let verdict = match told.first() {
        Some(first) if told.iter().all(|finding| finding.verdict == first.verdict) => first.verdict,
        _ => Verdict::Flaky,
    };
    let runs = told.len();
    let worst = told
        .iter()
        .position(|finding| finding.verdict == Verdict::Fail);
    let worst = told.swap_remove(worst.unwrap_or(runs - 1));
    let seen = match verdict {
        Verdict::Flaky => format!("failed {failed} of {runs} runs: {}", worst.seen),
        Verdict::Inconclusive => worst.seen,
        _ if runs > 1 => format!("{} ({runs} runs)", worst.seen),
        _ => worst.seen,
    };
    Judgement {
        check,
        verdict,
        exposed,
        lost,
        seen,
        evidence: worst.evidence,
        cause: worst.cause,
    }
}

impl Judged {
    /// How many requests were at stake, and how many of them were lost, in all checks that count
    /// requests.
    pub fn losses(&self) -> (u64, u64) {
        let counting = self
            .judgements
            .iter()
            .filter_map(|one| Some((one.exposed, one.lost?)));
        counting.fold((0, 0), |sum, (exposed, lost)| {
            (sum.0 + exposed, sum.1 + lost)
        })
    }

    /// The median time from the signal to the end, under load, in milliseconds.
    pub fn median_stop(&self) -> Option<u64> {
        let mut ended: Vec<u64> = self.stops.iter().map(|stop| stop.ended).collect();
        ended.sort_unstable();
        ended.get(ended.len() / 2).copied()
    }
}

impl Judgement {
    /// The greatest rate of the fault that fits what was seen, at 95 %, where nothing was (the rule
    /// of three).
    pub fn bound(&self) -> Option<f64> {
        let counts = self.verdict == Verdict::Pass && self.exposed > 1;
        counts.then(|| (3.0 / self.exposed as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(findings: &[Finding]) -> (Verdict, u64) {
        let check = crate::checks::all().next().unwrap();
        let judgement = merge(check, findings.to_vec());
        (judgement.verdict, judgement.exposed)
    }

    #[test]
    fn runs_that_differ_are_flaky_and_those_that_show_nothing_do_not_count() {
        let pass = Finding::pass(10, "");
        let fail = Finding::fail(10, "");
        let nothing = Finding::inconclusive("");
        let table = [
            (vec![pass.clone()], Verdict::Pass, 10),
            (vec![pass.clone(), pass.clone()], Verdict::Pass, 20),
            (vec![pass.clone(), fail.clone()], Verdict::Flaky, 20),
            (vec![fail.clone(), fail], Verdict::Fail, 20),
            (vec![nothing.clone(), pass], Verdict::Pass, 10),
            (vec![nothing.clone(), nothing], Verdict::Inconclusive, 0),
        ];
        for (findings, verdict, exposed) in table {
            assert_eq!(merged(&findings), (verdict, exposed), "{findings:?}");
        }
    }

    #[test]
    fn no_two_checks_have_one_id_and_each_says_all_there_is_to_say() {
        let mut ids = std::collections::HashSet::new();
        for check in crate::checks::all() {
            assert!(ids.insert(check.id), "{}", check.id);
            let words = [
                check.promise,
                check.method,
                check.criterion,
                check.source,
                check.advice,
            ];
            assert!(words.iter().all(|words| !words.is_empty()), "{}", check.id);
        }
    }
}
