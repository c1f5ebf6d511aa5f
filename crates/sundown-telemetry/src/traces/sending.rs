//! The thread that hands spans to a collector.
//!
//! Tries again for as long as the collector may come back, and for as long holds the spans: what finds no room
//! meanwhile is counted. Says once that the collector is away, and once that it is back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io, thread};

use opentelemetry::Context;
use opentelemetry::trace::{Span as _, TraceContextExt as _};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::{Notify, watch};

use super::clean::Cleaner;
use super::spans::{SpanCounts, Spans};
use crate::otlp::{Answer, Endpoint, Exporter};

/// How long a span waits for others; a process that is killed loses those of this time.
const GATHER: Duration = Duration::from_secs(1);

/// How long to wait before trying again: at first, doubled up to the last; and while somebody waits for the end.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
const HURRIED_PAUSE: Duration = Duration::from_millis(50);

/// Spans on their way to a collector.
#[derive(Clone)]
pub(super) struct Sender(Arc<Shared>);

struct Shared {
    spans: Mutex<Spans>,
    stopping: Arc<AtomicBool>,
    wake: Notify,
    /// The thread does not look until it is woken.
    sleeps: AtomicBool,
    /// How many wait for the end.
    hurries: AtomicUsize,
    closed: AtomicBool,
    progress: watch::Sender<Progress>,
}

/// How far the thread has come.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// How many spans are sent or lost.
    done: u64,
    /// What is in the way.
    trouble: Option<String>,
}

impl Sender {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives none, or the collector cannot be spoken to whatever it does.
    pub(super) fn start(
        spans: Spans,
        endpoint: Endpoint,
        resource: &Resource,
        cleaner: Cleaner,
        stopping: Arc<AtomicBool>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            spans: Mutex::new(spans),
            stopping,
            wake: Notify::new(),
            sleeps: AtomicBool::new(false),
            hurries: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            progress: watch::Sender::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let exporter = {
            let _inside = runtime.enter();
            Exporter::new(endpoint)?
        };
        let resource = ResourceAttributesWithSchema::from(resource);
        let sends = shared.clone();
        let send = move || {
            // Else what sends spans would make more of them.
            let _quiet = Context::enter_telemetry_suppressed_scope();
            runtime.block_on(sends.send_all(&exporter, &resource, &cleaner));
        };
        let thread = thread::Builder::new()
            .name("spans".to_owned())
            .spawn(send)?;
        Ok((Self(shared), thread))
    }

    /// Waits until all spans that ended before are with the collector, but not for longer than this; returns how many
    /// are not, and what is in the way.
    pub(super) async fn flush(&self, within: Duration) -> (u64, Option<String>) {
        let shared = &self.0;
        let until = tokio::time::Instant::now() + within;
        let (taken, lost) = {
            let spans = shared.lock();
            (spans.taken(), spans.counts().lost())
        };
        let _hurry = Hurry::new(shared);
        let mut progress = shared.progress.subscribe();
        let all = progress.wait_for(|progress| progress.done >= taken);
        let _ = tokio::time::timeout_at(until, all).await;
        let Progress { done, trouble } = shared.progress.borrow().clone();
        let refused = shared.lock().counts().lost() - lost;
        (taken.saturating_sub(done) + refused, trouble)
    }

    /// Whether the collector did not take what it was given last, and may yet.
    pub(super) fn is_in_trouble(&self) -> bool {
        self.0.progress.borrow().trouble.is_some()
    }

    /// Sends what there is, and then no more.
    pub(super) fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.wake.notify_one();
    }

    pub(super) fn counts(&self) -> SpanCounts {
        self.0.lock().counts()
    }
}

/// While somebody waits for the end.
struct Hurry<'a>(&'a Shared);

impl<'a> Hurry<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.hurries.fetch_add(1, Ordering::AcqRel);
        shared.wake.notify_one();
        Self(shared)
    }
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurries.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_hurried(&self) -> bool {
        self.hurries.load(Ordering::Acquire) > 0 || self.closed.load(Ordering::Acquire)
    }

    /// Sends until it is closed and empty, or closed and in vain.
    async fn send_all(
        &self,
        exporter: &Exporter,
        resource: &ResourceAttributesWithSchema,
        cleaner: &Cleaner,
    ) {
        while let Some(mut batch) = self.gather().await {
            batch.iter_mut().for_each(|span| cleaner.clean(span));
            let resource_spans = group_spans_by_resource_and_scope(batch, resource);
            let request = ExportTraceServiceRequest { resource_spans };
            if !self.deliver(exporter, &request).await {
                break;
            }
        }
    }

    /// Waits for spans, and a little longer for more; `None` once there will be none.
    async fn gather(&self) -> Option<Vec<SpanData>> {
        let mut until = None;
        loop {
            let (is_empty, is_urgent) = {
                let spans = self.lock();
                // What has found no room is done, too.
                self.tell(&spans, None);
                (spans.is_empty(), spans.is_urgent())
            };
            if is_empty && self.closed.load(Ordering::Acquire) {
                return None;
            }
            let is_late = until.is_some_and(|until| Instant::now() >= until);
            if !is_empty && (is_urgent || is_late || self.is_hurried()) {
                return Some(self.lock().next_batch());
            }
            if !is_empty && until.is_none() {
                until = Some(Instant::now() + GATHER);
            }
            self.sleeps.store(is_empty, Ordering::Release);
            if is_empty && !self.lock().is_empty() {
                continue;
            }
            match until {
                None => self.wake.notified().await,
                Some(until) => {
                    let woken = self.wake.notified();
                    let _ = tokio::time::timeout_at(until.into(), woken).await;
                }
            }
        }
    }

    /// Hands a batch over, or knows that it will never be taken; false if there is no time to find out.
    async fn deliver(&self, exporter: &Exporter, request: &ExportTraceServiceRequest) -> bool {
        let mut pause = PAUSES.0;
        loop {
            let answer = exporter.spans(request.clone());
            let answer = tokio::time::timeout(exporter.timeout(), answer).await;
            let answer = answer.unwrap_or_else(|_| Answer::Again {
                after: None,
                why: format!("no answer within {:?}", exporter.timeout()),
            });
            let (after, why) = match answer {
                Answer::Taken { rejected, why } => {
                    self.note(&why, |spans| spans.sent(rejected));
                    return true;
                }
                Answer::Refused { why } => {
                    self.note(&why, Spans::refused);
                    return true;
                }
                Answer::Again { after, why } => (after, why),
            };
            self.begin_trouble(why);
            if self.closed.load(Ordering::Acquire) {
                return false;
            }
            self.pause(after.unwrap_or(pause)).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Waits before the next attempt; less long while somebody waits for the end.
    async fn pause(&self, pause: Duration) {
        let until = tokio::time::Instant::now() + pause;
        if !self.is_hurried() {
            loop {
                let woken = tokio::time::timeout_at(until, self.wake.notified()).await;
                if woken.is_err() {
                    return;
                }
                if self.is_hurried() {
                    break;
                }
            }
        }
        let soon = tokio::time::Instant::now() + HURRIED_PAUSE;
        tokio::time::sleep_until(until.min(soon)).await;
    }

    /// Writes down what became of a batch.
    fn note(&self, why: &str, became: impl FnOnce(&mut Spans)) {
        self.end_trouble();
        let refused = {
            let mut spans = self.lock();
            let before = spans.counts().refused;
            became(&mut spans);
            self.tell(&spans, None);
            spans.counts().refused - before
        };
        if refused > 0 {
            tracing::warn!(
                refused,
                why,
                "the collector will not take spans: they are lost"
            );
        }
    }

    fn begin_trouble(&self, why: String) {
        let was_fine = self.progress.borrow().trouble.is_none();
        if was_fine {
            tracing::warn!(
                why,
                "the collector takes no spans: they wait for it as long as there is room"
            );
        }
        self.tell(&self.lock(), Some(why));
    }

    fn end_trouble(&self) {
        if self.progress.borrow().trouble.is_some() {
            let lost = self.lock().counts().lost();
            tracing::info!(lost, "the collector takes spans again");
        }
    }

    /// Tells those who wait.
    fn tell(&self, spans: &Spans, trouble: Option<String>) {
        let done = spans.done();
        self.progress.send_if_modified(|progress| {
            let is_news = progress.done != done || progress.trouble != trouble;
            *progress = Progress { done, trouble };
            is_news
        });
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sender")
    }
}

impl SpanProcessor for Sender {
    fn on_start(&self, span: &mut Span, parent: &Context) {
        let span = span.span_context();
        if span.is_sampled() {
            return;
        }
        let parent = parent.span();
        let parent = parent.span_context();
        if !parent.is_valid() || parent.is_remote() {
            self.0.lock().begin_undecided(span.trace_id());
        }
    }

    fn on_end(&self, mut span: SpanData) {
        super::clean::shorten(&mut span);
        let shared = &self.0;
        let during_a_stop = shared.stopping.load(Ordering::Relaxed);
        let is_urgent = {
            let mut spans = shared.lock();
            spans.end(span, during_a_stop);
            spans.is_urgent()
        };
        if shared.sleeps.load(Ordering::Acquire) || is_urgent {
            shared.sleeps.store(false, Ordering::Release);
            shared.wake.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Err(OTelSdkError::InternalFailure(
            "spans are flushed by Tracer::flush".to_owned(),
        ))
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
