//! What a service counts of its requests, its process and its runtime, in Prometheus' text format (OpenMetrics 1.0).
//!
//! Never holds more series than it is told to, however many values a label has: what comes then is counted together.
//! What the system knows anyway is read each time that somebody asks, and costs nothing between.

mod process;
mod read;
mod requests;
mod runtime;

mod messages;
mod open_metrics;
mod push;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

pub use self::push::{MetricsPush, NotPushed, PushingMetrics};
use self::read::Read;
pub(crate) use self::requests::{Measured, Requests, Side};
use crate::logs::Log;
use crate::traces::Tracer;

/// How many series each family may have, unless it is said otherwise.
const SERIES: usize = 1000;

/// What a service counts. Clones count together.
///
/// ```
/// use axum::{Router, routing::get};
/// use sundown_telemetry::propagation::Propagation;
/// use sundown_telemetry::{Metrics, ServerLayer};
///
/// let metrics = Metrics::new();
/// let router: Router = Router::new()
///     .route("/orders/{id}", get(|| async { "tea" }))
///     .layer(ServerLayer::new(Propagation::default()).measured(&metrics));
/// metrics.counter("orders_cancelled", "Orders that were cancelled", || 7);
///
/// let text = metrics.text();
/// assert!(text.contains("\norders_cancelled_total 7\n"), "{text}");
/// assert!(text.ends_with("# EOF\n"));
/// # let _ = router;
/// ```
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    of_server: Requests,
    of_client: Requests,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Begins with the process, and with requests once layers measure them; no family has more than 1,000 series.
    pub fn new() -> Self {
        Self::with_series(SERIES)
    }

    /// The same, and each family has no more than this many series.
    pub fn with_series(most: usize) -> Self {
        let mut registry = Registry::default();
        let of_server = Requests::register(&mut registry, Side::Server, most);
        let of_client = Requests::register(&mut registry, Side::Client, most);
        registry.register_collector(Box::new(process::Process));
        Self(Arc::new(Inner {
            registry: Mutex::new(registry),
            of_server,
            of_client,
        }))
    }

    /// Shows how a runtime of tokio is, too.
    pub fn runtime(&self, runtime: &tokio::runtime::Handle) {
        self.add(|registry| registry.register_collector(Box::new(runtime::Runtime::of(runtime))));
    }

    /// Shows how many lines a log has written and lost, too.
    pub fn log(&self, log: &Log) {
        let counts = log.counter();
        self.add(|registry| read::register_log(registry, counts));
    }

    /// Shows how many spans were sent and lost, too.
    pub fn tracer(&self, tracer: &Tracer) {
        let counts = tracer.counter();
        self.add(|registry| read::register_tracer(registry, counts));
    }

    /// Shows a number that only goes up, and is read each time that somebody asks. Its name is made of a to z, 0 to 9
    /// and `_`, and ends with `_total` in the text.
    pub fn counter(&self, name: &str, help: &str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        let number = Read::counter(name, help, read);
        self.add(|registry| registry.register_collector(Box::new(number)));
    }

    /// Shows a number that goes up and down, and is read each time that somebody asks.
    pub fn gauge(&self, name: &str, help: &str, read: impl Fn() -> f64 + Send + Sync + 'static) {
        let number = Read::gauge(name, help, read);
        self.add(|registry| registry.register_collector(Box::new(number)));
    }

    /// All of it, as OpenMetrics has it: `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.add(|registry| encode(&mut text, registry).expect("a String takes everything"));
        text
    }

    pub(crate) fn requests(&self, side: Side) -> Requests {
        match side {
            Side::Server => self.0.of_server.clone(),
            Side::Client => self.0.of_client.clone(),
        }
    }

    fn add<T>(&self, work: impl FnOnce(&mut Registry) -> T) -> T {
        let registry = self.0.registry.lock();
        work(&mut registry.unwrap_or_else(PoisonError::into_inner))
    }
}
