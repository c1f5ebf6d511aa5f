//! What a service counts, and that each of it is documented.

use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use sundown_telemetry::{Endpoint, Logs, Metrics, MetricsPush, Traces};
use sundown_testkit::metrics::{documented, families};
use sundown_testkit::{Collector, Mood};

#[tokio::test]
async fn every_metric_is_documented() {
    let metrics = Metrics::new();
    let (_, log) = Logs::of("shop").writer(std::io::sink()).layer().unwrap();
    let nowhere = Endpoint::grpc("http://127.0.0.1:9").unwrap();
    let tracer = Traces::of("shop").send_to(nowhere).start().unwrap();
    metrics.log(&log);
    metrics.tracer(&tracer);
    metrics.runtime(&tokio::runtime::Handle::current());
    measure_one(&metrics);
    let text = metrics.text();
    let page = include_str!("../../../docs/metrics.md");
    let (_, of_telemetry) = page.split_once("\n## Requests\n").unwrap();
    assert_eq!(families(&text), documented(of_telemetry), "{text}");
}

/// Measures a request of each side.
fn measure_one(metrics: &Metrics) {
    use sundown_telemetry::propagation::Propagation;
    use sundown_telemetry::{ClientLayer, ServerLayer};
    use tower::Layer as _;

    let echo = tower::service_fn(async |_: http::Request<String>| {
        Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
    });
    let served = ServerLayer::new(Propagation::default()).measured(metrics);
    let made = ClientLayer::new(Propagation::default()).measured(metrics);
    let request = || http::Request::new(String::new());
    let mut served = served.layer(echo);
    let mut made = made.layer(echo);
    drop(tower::Service::call(&mut served, request()));
    drop(tower::Service::call(&mut made, request()));
}

#[tokio::test]
async fn a_collector_gets_the_same_over_grpc_and_over_http() {
    for by_grpc in [true, false] {
        let collector = Collector::start(Mood::Takes);
        let endpoint = match by_grpc {
            true => Endpoint::grpc(&collector.url()),
            false => Endpoint::http(&collector.url()),
        };
        let metrics = Metrics::new();
        measure_one(&metrics);
        metrics.counter("sold", "Items sold.", || 7);
        let pushing = MetricsPush::to(endpoint.unwrap(), "shop");
        let pushing = pushing.start(move || metrics.text()).unwrap();
        pushing.flush(Duration::from_secs(60)).await.unwrap();
        let received = collector.metrics();
        let found = |name: &str| {
            let metric = received.iter().find(|metric| metric.name == name);
            metric.unwrap().data.clone().unwrap()
        };
        let metric::Data::Sum(sold) = found("sold") else {
            panic!("it counts")
        };
        let seven = number_data_point::Value::AsDouble(7.0);
        assert_eq!(sold.data_points[0].value, Some(seven));
        let metric::Data::Histogram(served) = found("http_server_request_duration_seconds") else {
            panic!("it has buckets")
        };
        let point = &served.data_points[0];
        assert_eq!(
            (point.count, point.bucket_counts.iter().sum::<u64>()),
            (1, 1)
        );
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    }
}

#[tokio::test]
async fn whoever_flushes_hears_that_the_last_values_were_not_taken() {
    for (mood, why) in [
        (Mood::Unavailable, "not now"),
        (Mood::Silent, "no answer within"),
    ] {
        let collector = Collector::start(mood);
        let endpoint = Endpoint::grpc(&collector.url()).unwrap();
        let pushing = MetricsPush::to(endpoint, "shop")
            .start(String::new)
            .unwrap();
        let missed = pushing.flush(Duration::from_millis(300)).await.unwrap_err();
        assert!(missed.to_string().contains(why), "{missed}");
    }
}
