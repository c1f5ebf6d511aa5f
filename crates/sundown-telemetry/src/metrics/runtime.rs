//! What tokio knows of a runtime.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use tokio::runtime::{Handle, RuntimeMetrics};

use super::read::write_gauge;

/// Is read when somebody asks.
pub(super) struct Runtime(RuntimeMetrics);

impl Runtime {
    pub(super) fn of(runtime: &Handle) -> Self {
        Self(runtime.metrics())
    }
}

impl Collector for Runtime {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let runtime = &self.0;
        let workers = runtime.num_workers();
        let gauges = [
            ("tokio_workers", "Threads that run tasks.", workers),
            (
                "tokio_alive_tasks",
                "Tasks that have not ended.",
                runtime.num_alive_tasks(),
            ),
            (
                "tokio_global_queue_depth",
                "Tasks that wait for a thread in the queue of all threads.",
                runtime.global_queue_depth(),
            ),
        ];
        for (name, help, value) in gauges {
            write_gauge(&mut encoder, name, help, value as f64)?;
        }
        let busy = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker));
        let busy = ConstCounter::new(busy.sum::<Duration>().as_secs_f64());
        let help = "Time in which threads ran tasks, of all threads together, in seconds.";
        busy.encode(encoder.encode_descriptor(
            "tokio_busy_seconds",
            help,
            None,
            busy.metric_type(),
        )?)
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Runtime")
    }
}
