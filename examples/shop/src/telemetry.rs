//! The shop's log, traces and metrics.
//!
//! Lines go to stderr, for people on a terminal and as JSON elsewhere, or to a file, and are whole when the process
//! ends. Spans and metrics go to a collector, if the environment names one; lines have trace ids either way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use sundown::{App, BoxError, Hook};
use sundown_telemetry::propagation::{Format, Ids, Propagation, Vendor};
use sundown_telemetry::{
    BadEndpoint, BadLevels, ClientLayer, Endpoint, Log, Logs, Metrics, MetricsPush, NotStarted,
    NotTraced, PushingMetrics, ServerLayer, Tracer, Traces,
};
use thiserror::Error;

/// How long spans and metrics may take to leave once everything else is over.
const LAST: Duration = Duration::from_secs(2);

/// The log, the traces and the metrics of a service; no log and no traces of its own where whoever embeds the shop has
/// some.
#[derive(Clone)]
pub(crate) struct Telemetry {
    log: Option<Arc<Log>>,
    tracer: Option<Arc<Tracer>>,
    metrics: Metrics,
    collector: Option<Endpoint>,
}

impl Telemetry {
    /// Starts them.
    ///
    /// # Errors
    /// If these are no levels, the file cannot be opened, or the environment names a collector that is none.
    pub(crate) fn start(service: &str, levels: &str, file: Option<&Path>) -> Result<Self, Mistake> {
        let collector = Endpoint::from_env()?;
        let mut traces = Traces::of(service);
        if let Some(collector) = &collector {
            traces = traces.send_to(collector.clone());
        }
        let tracer = traces.start()?;
        let mut log = Logs::of(service).levels(levels)?;
        if let Some(file) = file {
            log = log.file(file).map_err(Mistake::Log)?;
        }
        let (log, tracer) = match log.traces(&tracer).init() {
            Ok(log) => (Some(Arc::new(log)), Some(Arc::new(tracer))),
            Err(NotStarted::Taken(_)) => (None, None),
            Err(error) => return Err(Mistake::Log(error)),
        };
        let metrics = Metrics::new();
        if let Some(log) = &log {
            metrics.log(log);
        }
        if let Some(tracer) = &tracer {
            metrics.tracer(tracer);
        }
        Ok(Self {
            log,
            tracer,
            metrics,
            collector,
        })
    }

    /// Shows how the runtime is that this is called on.
    pub(crate) fn on_this_runtime(&self) {
        self.metrics.runtime(&tokio::runtime::Handle::current());
    }

    /// Makes spans of the requests that a router serves, and measures them.
    pub(crate) fn of_requests(&self, router: Router) -> Router {
        router.layer(ServerLayer::new(propagation()).measured(&self.metrics))
    }

    /// Makes spans of the requests that are made, and measures them.
    pub(crate) fn of_calls(&self) -> ClientLayer {
        ClientLayer::new(propagation()).measured(&self.metrics)
    }

    /// Begins a service whose spans and metrics are sent once it has released all else, and whose last line is written
    /// before its process ends, however that does.
    pub(crate) fn app(self, name: &str) -> App {
        let metrics = self.metrics.clone();
        let mut app = App::new(name).metrics(move || metrics.text());
        let pushing = self.push(name, &app);
        if let Some(tracer) = self.tracer {
            let last = tracer.clone();
            app = app
                .hook(Hook::post_cleanup("telemetry", || send(tracer, pushing)))
                .last_words(move |within| {
                    // The spans of the stop itself, which have ended by now.
                    if let Err(unsent) = last.blocking_flush(within) {
                        eprintln!("warning: {unsent}");
                    }
                });
        }
        if let Some(log) = self.log {
            app = app.last_words(move |within| {
                // What is not written is counted by the log itself, and there is nobody left to tell.
                let _ = log.flush(within);
            });
        }
        app
    }

    /// Hands the metrics of a service to the collector, if there is one.
    fn push(&self, name: &str, app: &App) -> Option<PushingMetrics> {
        let (collector, handle) = (self.collector.clone()?, app.handle());
        let pushing = MetricsPush::to(collector, name);
        let started = pushing.start(move || handle.metrics().unwrap_or_default());
        if let Err(error) = &started {
            eprintln!("warning: metrics are not sent: {error}");
        }
        started.ok()
    }
}

/// Sends what is left of both; one that fails does not keep the other from trying.
async fn send(tracer: Arc<Tracer>, pushing: Option<PushingMetrics>) -> Result<(), BoxError> {
    let values = async {
        match pushing {
            Some(pushing) => pushing.flush(LAST).await,
            None => Ok(()),
        }
    };
    let (spans, values) = tokio::join!(tracer.flush(LAST), values);
    spans?;
    Ok(values?)
}

/// How trace ids come and go: all that is read by default, and then the header of the shop's oldest clients.
fn propagation() -> Propagation {
    let old = Vendor::new(OLD_HEADER, Ids::Hex);
    Propagation::default().also_reading([Format::Vendor(old)])
}

/// By which the shop's oldest clients name a trace.
const OLD_HEADER: axum::http::HeaderName = axum::http::HeaderName::from_static("x-shop-trace");

/// Something of the log or the traces cannot be as it was asked for.
#[derive(Debug, Error)]
pub(crate) enum Mistake {
    #[error("--log cannot be obeyed")]
    Levels(#[from] BadLevels),
    #[error("OTEL_EXPORTER_OTLP_* cannot be obeyed")]
    Endpoint(#[from] BadEndpoint),
    #[error(transparent)]
    Log(NotStarted),
    #[error(transparent)]
    Traces(#[from] NotTraced),
}
