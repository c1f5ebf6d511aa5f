//! Numbers that are read when somebody asks.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::logs::Counts;
use crate::traces::SpanCounts;

/// A number that is read when somebody asks.
pub(super) struct Read {
    name: String,
    help: String,
    how: How,
}

enum How {
    Counter(Box<dyn Fn() -> u64 + Send + Sync>),
    Gauge(Box<dyn Fn() -> f64 + Send + Sync>),
}

impl Read {
    pub(super) fn counter(
        name: &str,
        help: &str,
        read: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            help: help.to_owned(),
            how: How::Counter(Box::new(read)),
        }
    }

    pub(super) fn gauge(
        name: &str,
        help: &str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.to_owned(),
            help: help.to_owned(),
            how: How::Gauge(Box::new(read)),
        }
    }
}

impl Collector for Read {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        match &self.how {
            How::Counter(read) => write_counter(&mut encoder, &self.name, &self.help, read()),
            How::Gauge(read) => write_gauge(&mut encoder, &self.name, &self.help, read()),
        }
    }
}

impl fmt::Debug for Read {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Read({})", self.name)
    }
}

pub(super) fn write_counter(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

pub(super) fn write_gauge(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    value: f64,
) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

type Numbers<T> = [(&'static str, &'static str, fn(&T) -> u64); 3];

const OF_LOG: Numbers<Counts> = [
    (
        "log_lines_written",
        "Log lines that the system has taken.",
        |counts| counts.written,
    ),
    (
        "log_lines_dropped",
        "Log lines that found the buffer full.",
        |counts| counts.dropped,
    ),
    (
        "log_lines_failed",
        "Log lines that could not be written.",
        |counts| counts.failed,
    ),
];

const OF_TRACER: Numbers<SpanCounts> = [
    (
        "spans_sent",
        "Spans that a collector has taken.",
        |counts| counts.sent,
    ),
    ("spans_dropped", "Spans that found no room.", |counts| {
        counts.dropped
    }),
    (
        "spans_refused",
        "Spans that a collector will not take.",
        |counts| counts.refused,
    ),
];

/// Shows the counts of a log.
pub(super) fn register_log(
    registry: &mut Registry,
    counts: impl Fn() -> Counts + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Several {
        numbers: &OF_LOG,
        counts,
    }));
}

/// Shows the counts of a tracer.
pub(super) fn register_tracer(
    registry: &mut Registry,
    counts: impl Fn() -> SpanCounts + Send + Sync + 'static,
) {
    registry.register_collector(Box::new(Several {
        numbers: &OF_TRACER,
        counts,
    }));
}

/// Counts that belong together, and are read at once.
struct Several<T: 'static, F> {
    numbers: &'static Numbers<T>,
    counts: F,
}

impl<T: 'static, F: Fn() -> T + Send + Sync + 'static> Collector for Several<T, F> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let counts = (self.counts)();
        for (name, help, read) in self.numbers {
            write_counter(&mut encoder, name, help, read(&counts))?;
        }
        Ok(())
    }
}

impl<T: 'static, F> fmt::Debug for Several<T, F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Several({})", self.numbers[0].0)
    }
}
