//! How lines look, and what is taken out of them.

use std::time::Duration;

use serde_json::{Value, json};
use sundown_telemetry::{Format, Logs, Redaction};
use sundown_testkit::Memory;
use tracing_subscriber::layer::SubscriberExt as _;

/// What is written of what `log` logs.
fn written(logs: Logs, log: impl FnOnce()) -> String {
    let memory = Memory::default();
    let (layer, running) = logs.writer(memory.clone()).layer().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, log);
    running.flush(Duration::from_secs(60)).unwrap();
    memory.text()
}

/// The same as JSON, the time left out.
fn objects(logs: Logs, log: impl FnOnce()) -> Vec<Value> {
    let lines = written(logs, log);
    let object = |line: &str| {
        let mut object: Value = serde_json::from_str(line).unwrap();
        let time = object.as_object_mut().unwrap().remove("@timestamp");
        let time = time.unwrap().as_str().unwrap().to_owned();
        assert!(humantime::parse_rfc3339(&time).is_ok(), "{time}");
        object
    };
    lines.lines().map(object).collect()
}

#[test]
fn a_line_is_a_flat_object_with_the_fields_of_the_spans_around_it() {
    let lines = objects(Logs::of("shop"), || {
        let outer = tracing::info_span!(
            "outer",
            traceId = "4111111111111111",
            route = "/",
            late = tracing::field::Empty
        );
        let _outer = outer.enter();
        let inner = tracing::info_span!("inner", route = "/orders", n = 1);
        let _inner = inner.enter();
        outer.record("late", 2.5);
        inner.record("n", 2);
        tracing::info!(target: "shop::orders", ok = true, service = "x", nan = f64::NAN, "it \"went\"\n{}", "well");
    });
    let expected = json!({
        "level": "INFO", "service": "shop", "target": "shop::orders", "message": "it \"went\"\nwell",
        "ok": true, "field.service": "x", "nan": "NaN", "route": "/orders", "n": 2,
        "traceId": "4111111111111111", "late": 2.5,
    });
    assert_eq!(lines, [expected]);
}

#[test]
fn the_fields_that_every_line_has_come_first() {
    let line = written(Logs::of("shop"), || tracing::warn!(a = 1, "hello"));
    let (_, after_time) = line.split_once("Z\",").unwrap();
    let expected = "\"level\":\"WARN\",\"service\":\"shop\",\"target\":\"lines\",\"message\":\"hello\",\"a\":1}\n";
    assert_eq!(after_time, expected);
}

#[test]
fn elastics_names_are_an_option() {
    let lines = objects(Logs::of("shop").format(Format::Ecs), || {
        let span = tracing::info_span!(
            "s",
            trace_id = "0af7651916cd43dd8448eb211c80319c",
            spanId = "b7ad6b7169203331"
        );
        span.in_scope(|| tracing::error!("hello"));
    });
    let expected = json!({
        "log.level": "error", "service.name": "shop", "log.logger": "lines", "ecs.version": "8.11.0",
        "message": "hello", "trace.id": "0af7651916cd43dd8448eb211c80319c", "span.id": "b7ad6b7169203331",
    });
    assert_eq!(lines, [expected]);
}

#[test]
fn people_read_lines_that_no_text_can_forge() {
    let line = written(Logs::of("shop").format(Format::Human), || {
        tracing::info!(user = "a b\x1b[2J", "one\ntwo");
    });
    let (_, line) = line.split_once("Z ").unwrap();
    assert_eq!(line, " INFO shop lines: one\\ntwo user=\"a b\\u{1b}[2J\"\n");
}

#[test]
fn secrets_are_taken_out_and_numbers_are_not() {
    let lines = objects(Logs::of("shop"), || {
        tracing::info!(
            pan = "4111-1111-1111-1111",
            password = "x",
            headers = ?[("cookie", "a=b")],
            number = 4111111111111111_u64,
            "GET /?token=abc&card=4111111111111111"
        );
    });
    let line = &lines[0];
    for (field, expected) in [
        ("pan", json!("[redacted]")),
        ("password", json!("[redacted]")),
        ("headers", json!("[(\"cookie\", \"[redacted]\")]")),
        ("number", json!(4111111111111111_u64)),
        ("message", json!("GET /?token=[redacted]&card=[redacted]")),
    ] {
        assert_eq!(line[field], expected, "{field}");
    }
}

#[test]
fn nothing_is_taken_out_where_that_is_wished() {
    let logs = Logs::of("shop").redaction(Redaction::none());
    let lines = objects(logs, || tracing::info!(password = "x", "4111111111111111"));
    assert_eq!(lines[0]["password"], "x");
    assert_eq!(lines[0]["message"], "4111111111111111");
}

#[test]
fn a_line_has_an_end_however_much_there_is_to_say() {
    let long = "x".repeat(1 << 20);
    let lines = objects(Logs::of("shop"), || {
        tracing::info!(long, debug = ?long.as_bytes(), "{long}");
        let spans: Vec<_> = (0..10_000)
            .map(|n| tracing::info_span!("deep", n, long = &long[..1 << 10]).entered())
            .collect();
        tracing::info!("deep");
        // The innermost first.
        spans.into_iter().rev().for_each(drop);
    });
    for field in ["long", "debug", "message"] {
        let text = lines[0][field].as_str().unwrap();
        assert!(
            text.len() <= 32 << 10 | 64 && text.ends_with(" bytes more]"),
            "{field}"
        );
    }
    assert_eq!(
        (&lines[1]["n"], &lines[1]["truncated"]),
        (&json!(9_999), &Value::Null)
    );
}

#[test]
fn a_line_with_too_many_fields_says_that_it_is_cut() {
    let text = "x".repeat(32 << 10);
    let lines = objects(Logs::of("shop"), || {
        tracing::info!(a = text, b = text, c = text, d = text, e = text, "long");
    });
    assert_eq!(lines[0]["truncated"], true);
    assert_eq!(
        (lines[0].get("a").is_some(), lines[0].get("e")),
        (true, None)
    );
}

#[test]
fn a_field_that_logs_while_it_is_rendered_disturbs_nothing() {
    struct Chatty;
    impl std::fmt::Debug for Chatty {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            tracing::info!("inner");
            f.write_str("chatty")
        }
    }
    let lines = objects(Logs::of("shop"), || tracing::info!(who = ?Chatty, "outer"));
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["message"], &last["who"]),
        (&json!("outer"), &json!("chatty"))
    );
}
