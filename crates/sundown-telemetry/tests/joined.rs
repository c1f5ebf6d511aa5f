//! A log and traces of one process, each with levels of its own.

use std::time::Duration;

use sundown_telemetry::{Endpoint, Logs, Traces, trace_context};
use sundown_testkit::{Collector, Mood};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_log_of_warnings_alone_hides_no_span_and_its_lines_have_the_ids_of_spans_that_it_hides() {
    let collector = Collector::start(Mood::Takes);
    let endpoint = Endpoint::grpc(&collector.url()).unwrap();
    let traces = Traces::of("shop")
        .send_to(endpoint)
        .levels("info,noise=warn");
    let tracer = traces.unwrap().start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let log = Logs::of("shop")
        .file(&path)
        .unwrap()
        .levels("warn")
        .unwrap();
    let log = log.traces(&tracer).init().unwrap();

    let ids = tracing::info_span!("request", hidden = 1).in_scope(|| {
        tracing::info!("nobody reads it");
        tracing::info_span!(target: "noise", "nobody looks at it").in_scope(|| {
            tracing::warn!("careful");
        });
        trace_context().unwrap()
    });
    log.set_levels("info").unwrap();
    tracing::info!("outside");

    tracer.blocking_flush(PATIENCE).unwrap();
    log.flush(PATIENCE).unwrap();
    let received = collector.received();
    let names: Vec<&str> = received.iter().map(|it| it.span.name.as_str()).collect();
    assert_eq!(names, ["request"]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [careful, outside] = &lines[..] else {
        panic!("{text}")
    };
    assert_eq!(careful["traceId"], ids.trace_id.to_string());
    assert_eq!(careful["spanId"], received[0].span_id());
    assert_eq!(
        (&outside["message"], outside.get("traceId")),
        (&"outside".into(), None)
    );
}
