//! Logs and traces that survive a stop and give no secret away, and metrics.
//!
//! One JSON object a line, for machines; lines for people on a terminal. Whoever logs copies a line into a bounded
//! buffer and goes on; a thread writes it out. Nothing is lost in silence: what found the buffer full is counted and
//! told of, and a stop writes everything before the process ends. Card numbers and credentials are taken out.
//!
//! ```
//! use std::time::Duration;
//! use sundown_telemetry::{Format, Logs};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.log");
//! let log = Logs::of("shop").format(Format::Json).file(&path)?.levels("info,hyper=warn")?.init()?;
//! tracing::info!(order = 7, card = "4111 1111 1111 1111", "paid");
//!
//! log.set_levels("debug")?; // while it runs
//! log.flush(Duration::from_secs(1))?; // in a stop, once nothing more is expected
//! let line = std::fs::read_to_string(&path)?;
//! assert!(line.ends_with("\"message\":\"paid\",\"order\":7,\"card\":\"[redacted]\"}\n"), "{line}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is still in the buffer when the [`Log`] that [`Logs::init`] gives is dropped is written then: hold it in `main`.
//!
//! Spans go to a collector ([`Traces`]), made of requests by layers of tower ([`ServerLayer`], [`ClientLayer`]), which
//! measure them, too ([`Metrics`]). None is lost in silence either.
//!
//! Traces go on across the border of old services and new ones: [`propagation`] reads W3C Trace Context, B3, Jaeger,
//! X-Ray, Datadog and SkyWalking, in this order unless another is stated. The first that is valid wins; garbage falls
//! back to the next and is counted.

mod foreign;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod logs;
#[cfg(feature = "otel")]
mod metrics;
#[cfg(feature = "otel")]
mod middleware;
#[cfg(feature = "otel")]
mod otlp;
pub mod propagation;
mod redact;
#[cfg(feature = "otel")]
mod traces;

pub use foreign::Foreign;
pub use logs::{BadLevels, Counts, Format, Log, LogLayer, Logs, NotStarted, Unwritten, WhenFull};
#[cfg(feature = "otel")]
pub use metrics::{Metrics, MetricsPush, NotPushed, PushingMetrics};
#[cfg(feature = "otel")]
pub use middleware::{ClientLayer, ClientService, ServerLayer, ServerService, TracedBody};
#[cfg(feature = "otel")]
pub use otlp::{BadEndpoint, Endpoint, Protocol};
pub use redact::{BadPattern, Redaction};
#[cfg(feature = "otel")]
pub use traces::{NotTraced, SpanCounts, SpanExt, Tracer, Traces, Unsent, trace_context};
