//! How a service is at this moment: for `/lifecycle` and the page, for metrics, and for SIGUSR1.
//!
//! Reads what the service knows anyway, and keeps nothing.

mod human;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::checks::CheckStatus;
use crate::core::{Core, RunningHook};
use crate::figures::FigureStatus;
use crate::hooks::When;
use crate::lifecycle::Phase;
use crate::report::{
    ConnectionCounts, CutOff, HookReport, PhaseReport, RequestCounts, Work, millis,
};

/// The version of the JSON document; it changes when a reader would have to.
const SCHEMA: u32 = 1;

/// How many of those that are open on a route are told one by one.
const ONE_BY_ONE: usize = 10;

/// How a service is.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    schema: u32,
    pub(crate) name: String,
    pid: u32,
    pub(crate) phase: Phase,
    /// Whether new traffic is wanted.
    pub(crate) ready: bool,
    /// Why it stops.
    reason: Option<String>,
    pub(crate) budget: BudgetStatus,
    /// Each phase and how long it has lasted, this one included.
    pub(crate) phases: Vec<PhaseReport>,
    /// What is under way, the oldest route first.
    pub(crate) open: Vec<OpenRoute>,
    pub(crate) open_connections: usize,
    pub(crate) requests: RequestCounts,
    pub(crate) connections: ConnectionCounts,
    /// The hooks that have run.
    pub(crate) hooks: Vec<HookReport>,
    running_hook: Option<HookStatus>,
    pub(crate) checks: Vec<CheckStatus>,
    /// The service's own.
    figures: Vec<FigureStatus>,
}

#[derive(Debug, Serialize)]
pub(crate) struct BudgetStatus {
    #[serde(rename = "grace_ms", serialize_with = "millis")]
    grace: Duration,
    /// All of it before a stop.
    #[serde(rename = "left_ms", serialize_with = "millis")]
    pub(crate) left: Duration,
}

#[derive(Debug, Serialize)]
struct HookStatus {
    name: String,
    when: When,
    #[serde(rename = "ms", serialize_with = "millis")]
    since: Duration,
}

/// What is open under one name.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct OpenRoute {
    pub(crate) work: Work,
    name: String,
    pub(crate) count: u64,
    /// The oldest of them, at most ten.
    oldest: Vec<OpenWork>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct OpenWork {
    peer: Option<SocketAddr>,
    #[serde(rename = "age_ms", serialize_with = "millis")]
    age: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    begun_at: Option<String>,
}

impl Status {
    pub(crate) fn of(core: &Core, now: Instant) -> Self {
        let open = by_route(core.whats_open(now));
        let readiness = core.readiness();
        let requests = core.request_counts();
        let findings = core.findings();
        let grace = core.budget.grace;
        let left = core.stop_times().map_or(grace, |times| {
            times.schedule.end.saturating_duration_since(now)
        });
        let running = |hook: &RunningHook| HookStatus {
            name: hook.name.clone(),
            when: hook.when,
            since: now.saturating_duration_since(hook.since),
        };
        Self {
            schema: SCHEMA,
            name: core.name.clone(),
            pid: std::process::id(),
            phase: core.phase(),
            ready: readiness.is_ready(),
            reason: findings.reason.as_ref().map(ToString::to_string),
            budget: BudgetStatus { grace, left },
            phases: lasted(&findings.phases, now),
            open,
            open_connections: core.connections.len(),
            requests,
            connections: core.connections.counts(),
            hooks: findings.hooks.clone(),
            running_hook: findings.hook.as_ref().map(running),
            checks: core.checks.list(),
            figures: core
                .figures
                .get()
                .map(|own| &own.numbers)
                .into_iter()
                .flatten()
                .map(Into::into)
                .collect(),
        }
    }

    /// How long a phase has lasted, if it has begun.
    pub(crate) fn lasted(&self, phase: Phase) -> Option<Duration> {
        let report = self.phases.iter().find(|report| report.phase == phase);
        report.map(|report| report.lasted)
    }
}

/// Each phase and how long it lasted; the last one until now.
pub(crate) fn lasted(phases: &[(Phase, Instant)], now: Instant) -> Vec<PhaseReport> {
    let ends = phases.iter().skip(1).map(|(_, began)| *began).chain([now]);
    let lasted = |((phase, began), end): (&(Phase, Instant), Instant)| PhaseReport {
        phase: *phase,
        lasted: end.saturating_duration_since(*began),
    };
    phases.iter().zip(ends).map(lasted).collect()
}

/// Gathers what is open, which comes oldest first, under its names.
fn by_route(open: Vec<CutOff>) -> Vec<OpenRoute> {
    let mut places: BTreeMap<(Work, String), usize> = BTreeMap::new();
    let mut routes: Vec<OpenRoute> = Vec::new();
    for CutOff {
        work,
        name,
        peer,
        age,
        begun_at,
    } in open
    {
        let place = *places.entry((work, name.clone())).or_insert(routes.len());
        if place == routes.len() {
            routes.push(OpenRoute {
                work,
                name,
                count: 0,
                oldest: Vec::new(),
            });
        }
        let route = &mut routes[place];
        route.count += 1;
        if route.oldest.len() < ONE_BY_ONE {
            route.oldest.push(OpenWork {
                peer,
                age,
                begun_at,
            });
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(work: Work, name: &str, seconds: u64) -> CutOff {
        CutOff::new(work, name.to_owned(), None, Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_open_is_told_by_route_and_the_oldest_one_by_one() {
        let mut open = vec![work(Work::Task, "mail", 99)];
        open.extend((0..50).map(|age| work(Work::Request, "GET /slow", 60 - age)));
        open.push(work(Work::Request, "GET /fast", 1));
        let routes = by_route(open);
        let told: Vec<_> = routes
            .iter()
            .map(|route| (&*route.name, route.count, route.oldest.len()))
            .collect();
        assert_eq!(
            told,
            [("mail", 1, 1), ("GET /slow", 50, 10), ("GET /fast", 1, 1)]
        );
        assert_eq!(routes[1].oldest[0].age, Duration::from_secs(60));
    }

    #[test]
    fn the_last_phase_lasts_until_now() {
        let began = Instant::now();
        let second = Duration::from_secs(1);
        let phases = [(Phase::Starting, began), (Phase::Ready, began + second)];
        let told: Vec<_> = lasted(&phases, began + 4 * second)
            .into_iter()
            .map(|report| (report.phase, report.lasted))
            .collect();
        assert_eq!(
            told,
            [(Phase::Starting, second), (Phase::Ready, 3 * second)]
        );
    }
}
