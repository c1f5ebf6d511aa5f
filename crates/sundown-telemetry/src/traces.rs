//! What can be set of traces, and what is asked of them while they run.
//!
//! Spans are those of `tracing`, and leave by OpenTelemetry's protocol. Whoever ends one puts it into a bounded buffer
//! and goes on; a thread hands it to a collector. What is lost is counted: nothing is lost in silence.

mod clean;
mod context;
mod sampler;
mod sending;
mod spans;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::span::{Attributes, Id};
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use self::clean::Cleaner;
pub use self::context::{SpanExt, trace_context};
pub(crate) use self::context::{continue_request, to_hand_on};
use self::sampler::Sampler;
use self::sending::Sender;
pub use self::spans::SpanCounts;
use self::spans::{Spans, Wanted};
use crate::logs::{BadLevels, Logs, parse_levels};
use crate::otlp::Endpoint;
use crate::redact::Redaction;

/// How many bytes of spans are held at the most, unless it is said otherwise.
const CAPACITY: usize = 32 << 20;

/// How long the end of a process may take that still has spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// By these a stop of a service is known that is a `sundown::App`.
const STOP: (&str, &str) = ("sundown", "stop");

/// Traces before they run.
///
/// ```no_run
/// use std::time::Duration;
/// use sundown_telemetry::{Endpoint, Logs, Traces};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Endpoint::grpc("http://localhost:4317")?;
/// let tracer = Traces::of("shop").send_to(collector).ratio(0.1).start()?;
/// let log = Logs::of("shop").traces(&tracer).init()?; // lines have trace ids
///
/// let span = tracing::info_span!("work");
/// span.in_scope(|| tracing::info!("working"));
/// drop(span);
///
/// tracer.flush(Duration::from_secs(3)).await?; // in a stop, once everything has drained
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is traced until `start`"]
pub struct Traces {
    service: String,
    endpoint: Option<Endpoint>,
    attributes: Vec<KeyValue>,
    ratio: f64,
    follows: bool,
    errors: bool,
    stops: bool,
    levels: Targets,
    redaction: Redaction,
    capacity: usize,
}

impl Traces {
    /// Begins with what most services want: whoever calls decides whether a trace is sampled, and all that begin here
    /// are; spans of INFO and above. Card numbers and credentials are taken out. 32 MiB of spans are held at the
    /// most, and what comes then is dropped and counted.
    ///
    /// Nothing is sent until it is said where to. Lines have trace ids all the same, and traces go on to others.
    pub fn of(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            endpoint: None,
            attributes: Vec::new(),
            ratio: 1.0,
            follows: true,
            errors: true,
            stops: true,
            levels: Targets::new().with_default(Level::INFO),
            redaction: Redaction::default(),
            capacity: CAPACITY,
        }
    }

    /// Hands spans to this collector.
    pub fn send_to(mut self, collector: Endpoint) -> Self {
        self.endpoint = Some(collector);
        self
    }

    /// Says something of the service with each export: `deployment.environment.name`, `service.version`. What
    /// `OTEL_RESOURCE_ATTRIBUTES` says is sent as well.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value): (String, String) = (name.into(), value.into());
        self.attributes.push(KeyValue::new(name, value));
        self
    }

    /// Samples this share of the traces that begin here, or whose callers have not decided: from 0 to 1.
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio.clamp(0.0, 1.0);
        self
    }

    /// Does not ask who calls whether a trace is sampled: for services that anybody may call.
    pub fn ignore_callers(mut self) -> Self {
        self.follows = false;
        self
    }

    /// Whether a trace that nobody samples is sent all the same if one of its spans here is an error. Default yes: all
    /// spans are recorded then, and thrown away later.
    pub fn errors(mut self, always: bool) -> Self {
        self.errors = always;
        self
    }

    /// Whether what was under way when a stop began, and what begins during it, is sampled whatever the ratio is.
    /// Default yes: all spans are recorded then, and thrown away later.
    pub fn stops(mut self, always: bool) -> Self {
        self.stops = always;
        self
    }

    /// Makes spans of what is at least as severe as this, by target: `info,sqlx=warn`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn levels(mut self, levels: &str) -> Result<Self, BadLevels> {
        self.levels = parse_levels(levels)?;
        Ok(self)
    }

    /// Takes these secrets out of what spans say.
    pub fn redaction(mut self, redaction: Redaction) -> Self {
        self.redaction = redaction;
        self
    }

    /// Holds no more than this many bytes of spans, as far as they can be told.
    pub fn capacity(mut self, bytes: usize) -> Self {
        self.capacity = bytes;
        self
    }

    /// Starts them; the collector need not be there yet.
    ///
    /// # Errors
    /// If the system gives no thread, or has no certificates to know a collector by.
    pub fn start(self) -> Result<Tracer, NotTraced> {
        let stopping = Arc::new(AtomicBool::new(false));
        let resource = Resource::builder()
            .with_attributes(self.attributes)
            .with_service_name(self.service)
            .build();
        let cleaner = Cleaner(self.redaction);
        let wanted = Wanted {
            errors: self.errors,
            stops: self.stops,
        };
        let start = |endpoint| {
            Sender::start(
                Spans::new(self.capacity, wanted),
                endpoint,
                &resource,
                cleaner,
                stopping.clone(),
            )
        };
        let sender = self.endpoint.map(start).transpose().map_err(NotTraced)?;
        let sampler = Sampler {
            ratio: self.ratio,
            follows: self.follows,
            watches: self.errors || self.stops,
            stopping: stopping.clone(),
            all_of_stops: self.stops,
        };
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource.clone())
            .with_sampler(sampler);
        if let Some((sender, _)) = &sender {
            provider = provider.with_span_processor(sender.clone());
        }
        Ok(Tracer {
            sender,
            provider: provider.build(),
            levels: self.levels,
            stopping,
        })
    }
}

/// Traces that run. When it is dropped, what waits is sent, for two seconds at the most, unless the collector is known
/// to be away; later spans are lost.
pub struct Tracer {
    sender: Option<(Sender, JoinHandle<()>)>,
    provider: SdkTracerProvider,
    levels: Targets,
    stopping: Arc<AtomicBool>,
}

impl Tracer {
    /// A layer for a subscriber of one's own. Events are left to the log, which has their trace ids, but for those at
    /// ERROR: they make their span one that has failed.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let levels = self.levels.clone();
        let traced = move |metadata: &Metadata<'_>| {
            let is_error = metadata.is_event() && *metadata.level() == Level::ERROR;
            is_error
                || metadata.is_span() && levels.would_enable(metadata.target(), metadata.level())
        };
        let deepest = self.levels.iter().map(|(_, level)| level);
        let deepest = deepest.chain(self.levels.default_level()).max();
        let traced =
            FilterFn::new(traced).with_max_level_hint(deepest.unwrap_or(LevelFilter::ERROR));
        let spans = tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(env!("CARGO_PKG_NAME")))
            .with_location(false)
            .with_threads(false)
            .with_target(true)
            .with_tracked_inactivity(false);
        let is_stop = |metadata: &Metadata<'_>| {
            metadata.is_span() && (metadata.target(), metadata.name()) == STOP
        };
        let stops = StopWatch(self.stopping.clone());
        spans
            .with_filter(traced)
            .and_then(stops.with_filter(filter_fn(is_stop)))
    }

    /// Says that the service stops. What is under way now, and what begins now, is sampled. A `sundown::App` that stops
    /// in the same process is seen to do so.
    pub fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits until all spans that ended before are with the collector, but not for longer than this.
    ///
    /// # Errors
    /// If some are not, or will never be.
    pub async fn flush(&self, within: Duration) -> Result<(), Unsent> {
        let Some((sender, _)) = &self.sender else {
            return Ok(());
        };
        match sender.flush(within).await {
            (0, _) => Ok(()),
            (spans, why) => Err(Unsent { spans, why }),
        }
    }

    /// The same outside of a runtime. Blocks the thread.
    ///
    /// # Errors
    /// If some are not, or will never be, or it is not known.
    pub fn blocking_flush(&self, within: Duration) -> Result<(), Unsent> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|error| Unsent {
                spans: 0,
                why: Some(error.to_string()),
            })?;
        runtime.block_on(self.flush(within))
    }

    /// How many spans there were.
    pub fn counts(&self) -> SpanCounts {
        let sender = self.sender.as_ref();
        sender
            .map(|(sender, _)| sender.counts())
            .unwrap_or_default()
    }

    /// Reads the same without it.
    pub(crate) fn counter(&self) -> impl Fn() -> SpanCounts + Send + Sync + use<> {
        let sender = self.sender.as_ref().map(|(sender, _)| sender.clone());
        move || sender.as_ref().map(Sender::counts).unwrap_or_default()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let Some((sender, thread)) = self.sender.take() else {
            return;
        };
        sender.close();
        if sender.is_in_trouble() {
            return;
        }
        let (tell, ended) = std::sync::mpsc::channel();
        let wait = std::thread::Builder::new().spawn(move || {
            let _ = tell.send(thread.join());
        });
        if wait.is_ok() {
            let _ = ended.recv_timeout(LAST_SPANS);
        }
    }
}

impl Logs {
    /// Traces beside it: lines have the ids of the span that they come of, and levels of the log filter no spans.
    pub fn traces(self, tracer: &Tracer) -> Self {
        self.beside(Box::new(tracer.layer()))
    }
}

/// Sees a stop begin.
struct StopWatch(Arc<AtomicBool>);

impl<S: Subscriber> Layer<S> for StopWatch {
    fn on_new_span(&self, _attributes: &Attributes<'_>, _id: &Id, _context: Context<'_, S>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Traces cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be started")]
pub struct NotTraced(#[source] io::Error);

/// Spans are not with the collector.
#[derive(Debug, thiserror::Error)]
#[error("{spans} spans could not be sent in time{}", because(.why.as_deref()))]
pub struct Unsent {
    /// How many.
    pub spans: u64,
    /// What is in the way, if it is known.
    pub why: Option<String>,
}

fn because(why: Option<&str>) -> String {
    why.map_or_else(String::new, |why| format!(": {why}"))
}
