//! What a service counts, in Prometheus' text format (OpenMetrics 1.0).
//!
//! Nothing is counted for it: each request for it reads what the service knows anyway.

pub(super) mod plain;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::checks::Standing;
use crate::core::Core;
use crate::figures::{Figure, Read};
use crate::lifecycle::Phase;
use crate::status::Status;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter>;

/// The last line.
const END: &str = "# EOF\n";

const PHASES: [Phase; 6] = [
    Phase::Starting,
    Phase::Ready,
    Phase::LameDuck,
    Phase::Draining,
    Phase::Releasing,
    Phase::Stopped,
];

pub(crate) fn text(core: &Core) -> String {
    let status = Status::of(core, Instant::now());
    let mut registry = Registry::with_prefix("sundown");
    register_life(&mut registry, &status);
    register_traffic(&mut registry, &status);
    register_parts(&mut registry, &status);
    let own = core.figures.get();
    register_own(&mut registry, own.into_iter().flat_map(|own| &own.numbers));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a String takes everything");
    for more in own.into_iter().flat_map(|own| &own.texts) {
        text.truncate(text.trim_end_matches(END).len());
        text.push_str(&more());
    }
    if !text.ends_with(END) {
        text.push_str(END);
    }
    text
}

fn register_life(registry: &mut Registry, status: &Status) {
    let ready = gauge(f64::from(u8::from(status.ready)));
    registry.register(
        "ready",
        "Whether new traffic is wanted (1) or not (0)",
        ready,
    );
    let phases = PHASES.map(|phase| {
        let now = f64::from(u8::from(phase == status.phase));
        (vec![("phase", name(phase))], now)
    });
    let help = "The phase that the service is in (1)";
    registry.register("phase", help, gauges(phases));
    let lasted = status.phases.iter();
    let lasted = lasted.map(|report| {
        (
            vec![("phase", name(report.phase))],
            report.lasted.as_secs_f64(),
        )
    });
    let help = "How long each phase has lasted so far";
    registry.register("phase_seconds", help, gauges(lasted));
    let draining = status.lasted(Phase::Draining).unwrap_or(Duration::ZERO);
    let help = "How long the service has drained so far; 0 before";
    registry.register("drain_seconds", help, gauge(draining.as_secs_f64()));
    let help = "What is left of grace; all of it before a stop";
    let left = gauge(status.budget.left.as_secs_f64());
    registry.register("budget_left_seconds", help, left);
}

fn register_traffic(registry: &mut Registry, status: &Status) {
    let mut open: BTreeMap<String, u64> = BTreeMap::new();
    for route in &status.open {
        *open.entry(name(route.work)).or_default() += route.count;
    }
    let open = open
        .into_iter()
        .map(|(work, count)| (vec![("work", work)], count as f64));
    registry.register("in_flight", "What is open, by kind of work", gauges(open));
    let help = "Connections that are open";
    registry.register(
        "open_connections",
        help,
        gauge(status.open_connections as f64),
    );
    let requests = status.requests;
    let by_outcome = counters([
        ("outcome", "finished", requests.finished),
        ("outcome", "ended_early", requests.ended_early),
        (
            "outcome",
            "abandoned_by_client",
            requests.abandoned_by_client,
        ),
        ("outcome", "cut_off", requests.cut_off),
    ]);
    registry.register("requests", "Requests by outcome", by_outcome);
    let finished = Counter::<u64>::default();
    finished.inc_by(requests.finished_during_stop);
    let help = "Requests answered in full after the stop began";
    registry.register("requests_finished_during_stop", help, finished);
    let connections = status.connections;
    let accepted = Counter::<u64>::default();
    accepted.inc_by(connections.accepted);
    registry.register("connections_accepted", "Connections accepted", accepted);
    let by_fate = counters([
        ("fate", "ended", connections.ended),
        ("fate", "closed_idle", connections.closed_idle),
        ("fate", "head_timeout", connections.head_timeout),
        ("fate", "handed_over", connections.handed_over),
        ("fate", "failed", connections.failed),
        ("fate", "cut_off", connections.cut_off),
    ]);
    let help = "Connections that have ended, by fate";
    registry.register("connections", help, by_fate);
}

fn register_parts(registry: &mut Registry, status: &Status) {
    let hooks = status.hooks.iter().map(|hook| {
        let labels = vec![
            ("hook", hook.name.clone()),
            ("when", name(hook.when)),
            ("outcome", hook.outcome.name().to_owned()),
        ];
        (labels, hook.took.as_secs_f64())
    });
    let help = "How long each hook that has run took";
    registry.register("hook_seconds", help, gauges(hooks));
    let checks = status.checks.iter().map(|check| {
        let up = f64::from(u8::from(check.standing == Standing::Up));
        (vec![("check", check.name.clone())], up)
    });
    let help = "Whether each check of readiness holds (1) or not (0)";
    registry.register("check_up", help, gauges(checks));
}

fn register_own<'a>(registry: &mut Registry, figures: impl Iterator<Item = &'a Figure>) {
    for figure in figures {
        let (name, help) = (figure.name.as_str(), figure.help.as_str());
        match &figure.read {
            Read::Gauge(read) => registry.register(name, help, gauge(read())),
            Read::Counter(read) => {
                let counter = Counter::<u64>::default();
                counter.inc_by(read());
                registry.register(name, help, counter);
            }
        }
    }
}

fn gauge(value: f64) -> Gauge<f64, AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}

fn gauges(values: impl IntoIterator<Item = (Labels, f64)>) -> Gauges {
    let family = Gauges::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value);
    }
    family
}

fn counters<const N: usize>(values: [(&'static str, &str, u64); N]) -> Counters {
    let family = Counters::default();
    for (label, value, count) in values {
        family
            .get_or_create(&vec![(label, value.to_owned())])
            .inc_by(count);
    }
    family
}

/// The name that JSON has for it too.
fn name(value: impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}
