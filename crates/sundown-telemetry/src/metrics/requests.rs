//! Requests by route: how many, how many of them failed, how long they took (RED), and how many are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Limits of the buckets, in seconds: those that the semantic conventions of HTTP wish.
const BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// What stands for a route where there is no more room for one.
const OTHER: &str = "_other";

type Labels = Vec<(&'static str, String)>;
type Exemplar = Vec<(&'static str, String)>;
type Durations =
    Family<Labels, HistogramWithExemplars<Exemplar>, fn() -> HistogramWithExemplars<Exemplar>>;

/// Whether requests are served or made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// The families of one side.
#[derive(Clone)]
pub(crate) struct Requests {
    durations: Durations,
    active: Gauge<i64, AtomicI64>,
    overflow: Counter<u64, AtomicU64>,
    side: Side,
    /// How many series there are, but for that of the others.
    series: Arc<AtomicUsize>,
    most: usize,
}

impl Requests {
    pub(super) fn register(registry: &mut Registry, side: Side, most: usize) -> Self {
        let histogram: fn() -> _ = || HistogramWithExemplars::new(BUCKETS.into_iter());
        let requests = Self {
            durations: Family::new_with_constructor(histogram),
            active: Gauge::default(),
            overflow: Counter::default(),
            side,
            series: Arc::default(),
            most,
        };
        let (what, name) = match side {
            Side::Server => ("are served", "server"),
            Side::Client => ("are made", "client"),
        };
        registry.register(
            format!("http_{name}_request_duration_seconds"),
            format!("How long requests take that {what}, in seconds"),
            requests.durations.clone(),
        );
        registry.register(
            format!("http_{name}_active_requests"),
            format!("Requests under way that {what}"),
            requests.active.clone(),
        );
        registry.register(
            format!("http_{name}_series_overflow"),
            format!(
                "Requests that {what} and are counted as _other, as there were too many series"
            ),
            requests.overflow.clone(),
        );
        requests
    }

    /// Begins to measure a request: by its route, where it is served, and by whom it is for, where it is made.
    pub(crate) fn begin(&self, method: &'static str, place: Option<String>) -> Measured {
        self.active.inc();
        Measured {
            requests: self.clone(),
            method,
            place,
            status: None,
            began: Instant::now(),
            exemplar: None,
        }
    }

    fn observe(&self, measured: &mut Measured) {
        let place = measured.place.take().unwrap_or_default();
        let status = measured
            .status
            .map_or_else(|| "none".to_owned(), |status| status.to_string());
        let mut labels = self.labels(measured.method, place, &status);
        if !self.has_room_for(&labels) {
            self.overflow.inc();
            labels = self.labels("_OTHER", OTHER.to_owned(), OTHER);
        }
        let exemplar = measured.exemplar.take();
        let exemplar = exemplar.map(|trace| vec![("trace_id", trace)]);
        let took = measured.began.elapsed().as_secs_f64();
        let durations = self.durations.get_or_create(&labels);
        durations.observe(took, exemplar, None);
    }

    /// Whether there is such a series, or there may be one more.
    fn has_room_for(&self, labels: &Labels) -> bool {
        if self.durations.get(labels).is_some() {
            return true;
        }
        // Two that come at once with the same new labels take the room of two.
        let one_more = |series: usize| (series < self.most).then_some(series + 1);
        let series = &self.series;
        series
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    fn labels(&self, method: &str, place: String, status: &str) -> Labels {
        let by = match self.side {
            Side::Server => "http_route",
            Side::Client => "server_address",
        };
        vec![
            ("http_request_method", method.to_owned()),
            (by, place),
            ("http_response_status_code", status.to_owned()),
        ]
    }
}

/// A request that is measured until it is dropped.
pub(crate) struct Measured {
    requests: Requests,
    method: &'static str,
    place: Option<String>,
    status: Option<u16>,
    began: Instant,
    exemplar: Option<String>,
}

impl Measured {
    /// How it was answered; of one that is not the status is `none`.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// The trace by which somebody may look at it, if it is sampled.
    pub(crate) fn trace(&mut self, trace_id: Option<String>) {
        self.exemplar = trace_id;
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let requests = self.requests.clone();
        requests.active.dec();
        requests.observe(self);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_million_values_of_a_label_are_no_more_series_than_wished() {
        let mut registry = Registry::default();
        let requests = Requests::register(&mut registry, Side::Server, 100);
        for n in 0..1_000_000 {
            let mut measured = requests.begin("GET", Some(format!("/orders/{n}")));
            measured.answered(200);
        }
        assert_eq!(requests.overflow.get(), 999_900);
        assert_eq!(requests.active.get(), 0);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let counts = text.lines().filter(|line| line.contains("_count{"));
        assert_eq!(counts.count(), 101);
        let others = "http_route=\"_other\",http_response_status_code=\"_other\"} 999900\n";
        assert!(text.contains(others), "{text}");
    }
}
