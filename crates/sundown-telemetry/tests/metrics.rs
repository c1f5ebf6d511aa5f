//! What a service counts, and that each of it is documented.

use sundown_telemetry::{Endpoint, Logs, Metrics, Traces};

/// Each metric by name, kind and help, as OpenMetrics tells them; a counter by its name in whole.
fn families(text: &str) -> Vec<[String; 3]> {
    let mut families = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(help) = line.strip_prefix("# HELP ") else {
            continue;
        };
        let (name, help) = help.split_once(' ').unwrap();
        let kind = lines.next().unwrap().rsplit(' ').next().unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        families.push([&format!("{name}{suffix}"), kind, help].map(str::to_owned));
    }
    families.sort();
    families
}

/// The same by the rows of the sections of the page that documents them.
fn documented() -> Vec<[String; 3]> {
    let page = include_str!("../../../docs/metrics.md");
    let (_, rest) = page.split_once("\n## Requests\n").unwrap();
    let mut families: Vec<_> = rest
        .lines()
        .filter_map(|row| {
            let cells: Vec<&str> = row.strip_prefix("| `")?.split('|').map(str::trim).collect();
            let [name, kind, _labels, help, ""] = cells[..] else {
                panic!("{row}");
            };
            Some([name.trim_end_matches('`'), kind, help].map(str::to_owned))
        })
        .collect();
    families.sort();
    families
}

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
    assert_eq!(families(&text), documented(), "{text}");
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
