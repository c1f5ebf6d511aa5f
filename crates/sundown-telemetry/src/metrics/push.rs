//! Hands metrics to a collector, again and again.
//!
//! Values are sums since the start: of an export that fails the next one has all. Only the last of a process can be
//! missed, and is told of.

use std::io;
use std::time::{Duration, SystemTime};

use opentelemetry::Context;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::messages::{self, Times, attribute};
use crate::otlp::{Answer, Endpoint, Exporter};

/// How often, unless it is said otherwise.
const EVERY: Duration = Duration::from_secs(10);

type Text = Box<dyn Fn() -> String + Send>;
type Told = oneshot::Sender<Result<(), String>>;

/// Metrics that are handed to a collector, before they are.
///
/// ```no_run
/// use std::time::Duration;
/// use sundown_telemetry::{Endpoint, Metrics, MetricsPush};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let metrics = Metrics::new();
/// let collector = Endpoint::grpc("http://localhost:4317")?;
/// let pushing = MetricsPush::to(collector, "shop").start(move || metrics.text())?;
///
/// pushing.flush(Duration::from_secs(1)).await?; // in a stop, the last values
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is sent until `start`"]
pub struct MetricsPush {
    endpoint: Endpoint,
    service: String,
    every: Duration,
}

impl MetricsPush {
    /// Hands those of a service to a collector every 10 s.
    pub fn to(collector: Endpoint, service: impl Into<String>) -> Self {
        Self {
            endpoint: collector,
            service: service.into(),
            every: EVERY,
        }
    }

    /// Does so this often, and not more often than every 100 ms.
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.max(Duration::from_millis(100));
        self
    }

    /// Starts it, on a thread of its own. `text` gives the metrics in OpenMetrics' format, each time.
    ///
    /// # Errors
    /// If the system gives no thread, or has no certificates to know a collector by.
    pub fn start(self, text: impl Fn() -> String + Send + 'static) -> io::Result<PushingMetrics> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let exporter = {
            let _inside = runtime.enter();
            Exporter::new(self.endpoint)?
        };
        let (flushes, asked) = mpsc::channel(8);
        let pusher = Pusher {
            exporter,
            service: self.service,
            text: Box::new(text),
            start: nanos(),
            is_away: false,
        };
        let push = move || {
            let _quiet = Context::enter_telemetry_suppressed_scope();
            runtime.block_on(pusher.push_all(self.every, asked));
        };
        std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(push)?;
        Ok(PushingMetrics { flushes })
    }
}

/// Metrics that are handed to a collector until this and its clones are dropped.
#[derive(Clone)]
pub struct PushingMetrics {
    flushes: mpsc::Sender<Told>,
}

impl PushingMetrics {
    /// Hands the values of now over, within this time.
    ///
    /// # Errors
    /// If the collector has not taken them by then.
    pub async fn flush(&self, within: Duration) -> Result<(), NotPushed> {
        let (tell, told) = oneshot::channel();
        let asked = async {
            self.flushes.send(tell).await.ok()?;
            told.await.ok()
        };
        match timeout(within, asked).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(why))) => Err(NotPushed(why)),
            Ok(None) | Err(_) => Err(NotPushed(format!("no answer within {within:?}"))),
        }
    }
}

struct Pusher {
    exporter: Exporter,
    service: String,
    text: Text,
    start: u64,
    is_away: bool,
}

impl Pusher {
    async fn push_all(mut self, every: Duration, mut asked: mpsc::Receiver<Told>) {
        let mut due = interval_at(Instant::now() + every, every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = due.tick() => {
                    // It has told of it, if it was not taken.
                    let _ = self.push().await;
                }
                flush = asked.recv() => {
                    let Some(flush) = flush else { return };
                    // Whoever asked may have gone.
                    let _ = flush.send(self.push().await);
                }
            }
        }
    }

    async fn push(&mut self) -> Result<(), String> {
        let times = Times {
            start: self.start,
            now: nanos(),
        };
        let resource = [attribute("service.name", &self.service)];
        let message = messages::of(&(self.text)(), &resource, times);
        let answer = timeout(self.exporter.timeout(), self.exporter.metrics(message)).await;
        let result = match answer {
            Ok(Answer::Taken { rejected: 0, .. }) => Ok(()),
            Ok(Answer::Taken { rejected, why }) => Err(format!("{rejected} values refused: {why}")),
            Ok(Answer::Again { why, .. } | Answer::Refused { why }) => Err(why),
            Err(_) => Err(format!("no answer within {:?}", self.exporter.timeout())),
        };
        let was_away = std::mem::replace(&mut self.is_away, result.is_err());
        if let (false, Err(why)) = (was_away, &result) {
            tracing::warn!(
                why,
                "the collector takes no metrics: the next have all again"
            );
        }
        result
    }
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// The last values are not with the collector.
#[derive(Debug, thiserror::Error)]
#[error("the last metrics could not be sent: {0}")]
pub struct NotPushed(String);
