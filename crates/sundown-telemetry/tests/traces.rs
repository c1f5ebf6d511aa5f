//! What becomes of spans: those that a collector takes, and those that it does not.

use std::time::Duration;

use sundown_telemetry::{
    Endpoint, Logs, Protocol, SpanCounts, SpanExt as _, Tracer, Traces, trace_context,
};
use sundown_testkit::{Collector, Memory, Mood};
use tracing::subscriber::with_default;
use tracing_subscriber::layer::SubscriberExt as _;

/// For what is certain to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// For what is certain not to.
const MOMENT: Duration = Duration::from_millis(200);

fn endpoint(collector: &Collector) -> Endpoint {
    Endpoint::grpc(&collector.url()).unwrap()
}

fn shop(endpoint: Endpoint) -> Traces {
    Traces::of("shop").send_to(endpoint)
}

/// Does something that is traced.
fn traced<T>(tracer: &Tracer, work: impl FnOnce() -> T) -> T {
    with_default(tracing_subscriber::registry().with(tracer.layer()), work)
}

fn make_spans(spans: usize) {
    for n in 0..spans {
        drop(tracing::info_span!("work", n));
    }
}

fn counts(sent: u64, dropped: u64, refused: u64) -> SpanCounts {
    let mut counts = SpanCounts::default();
    (counts.sent, counts.dropped, counts.refused) = (sent, dropped, refused);
    counts
}

#[test]
fn spans_arrive_over_grpc_and_over_http() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let collector = Collector::start(Mood::Takes);
        let endpoint = match protocol {
            Protocol::Grpc => Endpoint::grpc(&collector.url()),
            Protocol::Http => Endpoint::http(&collector.url()),
        };
        let tracer = shop(endpoint.unwrap()).start().unwrap();
        let ids = traced(&tracer, || {
            let outer = tracing::info_span!("outer", route = "/orders", n = 1);
            let _outer = outer.enter();
            tracing::info_span!("inner").in_scope(|| tracing::error!("it went wrong"));
            trace_context().unwrap()
        });
        tracer.blocking_flush(PATIENCE).unwrap();
        let received = collector.received();
        let [inner, outer] = &received[..] else {
            panic!("{protocol:?}: {received:?}");
        };
        assert_eq!(outer.trace_id(), ids.trace_id.to_string());
        assert_eq!(outer.span_id(), ids.span_id.to_string());
        assert_eq!(
            (outer.service.as_str(), outer.parent_id().as_str()),
            ("shop", "")
        );
        assert_eq!(outer.attribute("route").as_deref(), Some("/orders"));
        assert_eq!(outer.attribute("n").as_deref(), Some("1"));
        assert_eq!(inner.parent_id(), outer.span_id());
        assert_eq!(inner.span.status.as_ref().unwrap().code, 2, "an error");
        assert_eq!(tracer.counts(), counts(2, 0, 0));
    }
}

#[test]
fn a_span_continues_what_came_in_a_message_and_points_to_where_it_comes_from() {
    let collector = Collector::start(Mood::Takes);
    let tracer = shop(endpoint(&collector)).start().unwrap();
    let (sent, linked) = traced(&tracer, || {
        let (sends, other) = (tracing::info_span!("sends"), tracing::info_span!("other"));
        let (sent, linked) = (
            sends.trace_context().unwrap(),
            other.trace_context().unwrap(),
        );
        let takes = tracing::info_span!("takes");
        takes.continue_from(&sent);
        takes.link_to(&linked);
        (sent, linked)
    });
    tracer.blocking_flush(PATIENCE).unwrap();
    let received = collector.received();
    let takes = received.iter().find(|it| it.span.name == "takes").unwrap();
    assert_eq!(takes.trace_id(), sent.trace_id.to_string());
    assert_eq!(takes.parent_id(), sent.span_id.to_string());
    assert_eq!(
        takes.span.links[0].span_id,
        linked.span_id.get().to_be_bytes()
    );
}

#[test]
fn lines_have_the_ids_of_their_span() {
    let collector = Collector::start(Mood::Takes);
    let tracer = shop(endpoint(&collector)).start().unwrap();
    let memory = Memory::default();
    let (layer, log) = Logs::of("shop").writer(memory.clone()).layer().unwrap();
    let subscriber = tracing_subscriber::registry()
        .with(layer)
        .with(tracer.layer());
    let ids = with_default(subscriber, || {
        let outer = tracing::info_span!("outer", traceId = "another's");
        let _outer = outer.enter();
        let inner = tracing::info_span!("inner");
        let _inner = inner.enter();
        tracing::info!("hello");
        inner.trace_context().unwrap()
    });
    log.flush(PATIENCE).unwrap();
    let line = memory.text();
    let (trace, span) = (ids.trace_id, ids.span_id);
    let expected = format!(
        "\"service\":\"shop\",\"traceId\":\"{trace}\",\"spanId\":\"{span}\",\"target\":\"traces\",\"message\":\"hello\"}}\n"
    );
    assert!(line.ends_with(&expected), "{line}");
}

#[test]
fn of_traces_that_nobody_samples_those_with_an_error_and_those_of_a_stop_are_sent() {
    let collector = Collector::start(Mood::Takes);
    let tracer = shop(endpoint(&collector)).ratio(0.0).start().unwrap();
    traced(&tracer, || {
        make_spans(3);
        tracing::info_span!("fails").in_scope(|| {
            make_spans(2);
            tracing::error!("no");
        });
        let under_way = tracing::info_span!("under_way");
        let under_way = under_way.entered();
        // As a `sundown::App` does.
        let stop = tracing::info_span!(target: "sundown", parent: None, "stop");
        drop(under_way);
        tracing::info_span!("begins").in_scope(|| make_spans(1));
        drop(stop);
    });
    tracer.blocking_flush(PATIENCE).unwrap();
    let received = collector.received();
    let names: Vec<&str> = received.iter().map(|it| it.span.name.as_str()).collect();
    let expected = [
        "work",
        "work",
        "fails",
        "under_way",
        "work",
        "begins",
        "stop",
    ];
    assert_eq!(names, expected);
    assert_eq!(tracer.counts().lost(), 0);
}

#[test]
fn of_traces_that_nobody_samples_only_those_are_sent_that_are_wished() {
    for (errors, stops, expected) in [
        (false, false, &[][..]),
        (true, false, &["fails", "fails late"]),
        (false, true, &["fails late", "work"]),
    ] {
        let collector = Collector::start(Mood::Takes);
        let traces = shop(endpoint(&collector)).ratio(0.0);
        let tracer = traces.errors(errors).stops(stops).start().unwrap();
        traced(&tracer, || {
            tracing::info_span!("fails").in_scope(|| tracing::error!("no"));
            tracer.stopping();
            tracing::info_span!("fails late").in_scope(|| tracing::error!("no"));
            make_spans(1);
        });
        tracer.blocking_flush(PATIENCE).unwrap();
        let received = collector.received();
        let names: Vec<&str> = received.iter().map(|it| it.span.name.as_str()).collect();
        assert_eq!(names, expected, "errors {errors}, stops {stops}");
    }
}

#[test]
fn what_waits_when_a_tracer_is_dropped_is_sent() {
    let collector = Collector::start(Mood::Takes);
    let tracer = shop(endpoint(&collector)).start().unwrap();
    traced(&tracer, || make_spans(3));
    drop(tracer);
    assert_eq!(collector.received().len(), 3);
}

#[test]
fn secrets_are_taken_out_and_long_texts_cut() {
    let collector = Collector::start(Mood::Takes);
    let tracer = shop(endpoint(&collector)).start().unwrap();
    let long = "x".repeat(1 << 20);
    traced(&tracer, || {
        let span = tracing::info_span!(
            "pays",
            otel.name = "pays by 4111111111111111",
            card = "4111 1111 1111 1111",
            url.query = "token=abc&a=1",
            authorization = "whatever",
            number = 4_111_111_111_111_111_i64,
            long,
        );
        span.in_scope(|| tracing::error!("refused 5500005555555559"));
    });
    tracer.blocking_flush(PATIENCE).unwrap();
    let received = collector.received();
    let span = &received[0];
    assert_eq!(span.span.name, "pays by [redacted]");
    let attribute = |name| span.attribute(name).unwrap();
    assert_eq!(attribute("card"), "[redacted]");
    assert_eq!(attribute("url.query"), "token=[redacted]&a=1");
    assert_eq!(attribute("authorization"), "[redacted]");
    assert_eq!(attribute("number"), "4111111111111111");
    assert!(attribute("long").len() < 10_000);
    assert!(!format!("{received:?}").contains("5500005555555559"));
}

#[test]
fn what_waits_for_a_collector_that_is_away_is_sent_once_it_is_back() {
    let collector = Collector::start(Mood::Unavailable);
    let tracer = shop(endpoint(&collector)).start().unwrap();
    traced(&tracer, || make_spans(1000));
    let unsent = tracer.blocking_flush(MOMENT).unwrap_err();
    assert_eq!(unsent.spans, 1000);
    assert!(unsent.to_string().contains("not now"), "{unsent}");
    let address = collector.address();
    drop(collector);
    let unsent = tracer.blocking_flush(MOMENT).unwrap_err();
    assert_eq!((unsent.spans, tracer.counts().lost()), (1000, 0));
    let collector = Collector::start_at(address, Mood::Takes);
    tracer.blocking_flush(PATIENCE).unwrap();
    assert_eq!(collector.received().len(), 1000);
    assert_eq!(tracer.counts(), counts(1000, 0, 0));
}

#[test]
fn a_collector_that_never_answers_is_waited_for_no_longer_than_wished() {
    let collector = Collector::start(Mood::Silent);
    let quick = endpoint(&collector).timeout(Duration::from_millis(50));
    let tracer = shop(quick).start().unwrap();
    traced(&tracer, || make_spans(3));
    let unsent = tracer.blocking_flush(MOMENT * 5).unwrap_err();
    assert_eq!(unsent.spans, 3);
    assert!(
        unsent.to_string().contains("no answer within 50ms"),
        "{unsent}"
    );
    collector.set_mood(Mood::Takes);
    tracer.blocking_flush(PATIENCE).unwrap();
    assert_eq!(tracer.counts(), counts(3, 0, 0));
}

#[test]
fn what_a_collector_will_never_take_is_counted() {
    for (mood, expected) in [
        (Mood::Refuses, counts(0, 0, 3)),
        (Mood::TakesAllBut(2), counts(1, 0, 2)),
    ] {
        let collector = Collector::start(mood);
        let tracer = shop(endpoint(&collector)).start().unwrap();
        traced(&tracer, || make_spans(3));
        let unsent = tracer.blocking_flush(PATIENCE).unwrap_err();
        assert_eq!(unsent.spans, expected.refused);
        assert_eq!(tracer.counts(), expected);
    }
}

#[test]
fn ten_thousand_spans_in_one_trace_take_no_more_room_than_there_is() {
    for (ratio, mood) in [(1.0, Mood::Unavailable), (0.0, Mood::Takes)] {
        let collector = Collector::start(mood);
        let traces = shop(endpoint(&collector)).ratio(ratio).capacity(1 << 20);
        let tracer = traces.start().unwrap();
        traced(&tracer, || {
            tracing::info_span!("request").in_scope(|| {
                make_spans(10_000);
                tracing::error!("too much");
            });
        });
        collector.set_mood(Mood::Takes);
        tracer.blocking_flush(PATIENCE).unwrap();
        let counts = tracer.counts();
        assert_eq!(counts.sent + counts.dropped, 10_001, "ratio {ratio}");
        assert!(counts.dropped > 5000, "{counts:?}");
        assert_eq!(collector.received().len() as u64, counts.sent);
    }
}
