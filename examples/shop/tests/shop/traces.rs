//! What a collector has got when the services have ended.

use std::collections::HashMap;

use sundown_testkit::{Collector, Mood, Received};
use sundown_verify::process::Ended;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Databases, Service};

const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";

/// Orders as an old client does: it names its trace by a header of the shop's own.
async fn order_as_of_old(orders: &Service) {
    let body = r#"{"id":"my-first","item":"tea","quantity":1}"#;
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\nx-shop-trace: {TRACE}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = tokio::net::TcpStream::connect(orders.addr).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test]
async fn one_trace_goes_from_an_old_client_through_both_services_to_spans_and_lines() {
    let collector = Collector::start(Mood::Takes);
    let databases = Databases::new("traces");
    let [mut orders, mut inventory] = Service::both_traced(&databases, &collector.url()).await;
    order_as_of_old(&orders).await;
    orders.outbox_is_empty().await;
    for service in [&mut orders, &mut inventory] {
        service.signal(libc::SIGTERM);
        service.ended(Ended::Code(0)).await;
    }

    let metrics = collector.metrics();
    for name in [
        "sundown_ready",
        "http_server_request_duration_seconds",
        "tokio_workers",
    ] {
        assert!(metrics.iter().any(|metric| metric.name == name), "{name}");
    }
    let received = collector.received();
    let of_trace = |it: &&Received| it.trace_id() == TRACE;
    let spans: Vec<&Received> = received.iter().filter(of_trace).collect();
    let by_id: HashMap<String, &Received> = spans.iter().map(|it| (it.span_id(), *it)).collect();
    let way = |it: &Received| {
        let mut way = Vec::new();
        let mut next = Some(it);
        while let Some(span) = next {
            way.push(format!("{} {}", span.service, span.span.name));
            next = by_id.get(&span.parent_id()).copied();
        }
        way
    };
    let last = |name: &str| *spans.iter().find(|it| it.span.name == name).unwrap();
    let ordered = ["orders carry", "orders POST /orders"];
    assert_eq!(
        way(last("apply")),
        [&["inventory apply"], &ordered[..]].concat()
    );
    let called = ["inventory POST /events", "orders POST"];
    assert_eq!(way(last("POST /events")), [&called[..], &ordered].concat());

    for (service, message) in [(&orders, "order placed"), (&inventory, "event applied")] {
        let log = service.log();
        let line = log.iter().find(|line| line["message"] == message).unwrap();
        assert_eq!(line["traceId"], TRACE, "{line}");
        assert!(
            by_id.contains_key(line["spanId"].as_str().unwrap()),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_stop_is_a_trace_and_its_last_lines_belong_to_it() {
    let collector = Collector::start(Mood::Takes);
    let databases = Databases::new("trace-of-a-stop");
    let [mut orders, inventory] = Service::both_traced(&databases, &collector.url()).await;
    orders.signal(libc::SIGTERM);
    orders.ended(Ended::Code(0)).await;
    let received = collector.received();
    let stop = received.iter().find(|it| it.span.name == "stop").unwrap();
    let of_stop: Vec<&Received> = received
        .iter()
        .filter(|it| it.trace_id() == stop.trace_id())
        .collect();
    let beneath = |parent: &Received| -> Vec<String> {
        let parent = parent.span_id();
        let spans = of_stop.iter().filter(|it| it.parent_id() == parent);
        let names = spans.map(|it| it.attribute("hook").unwrap_or(it.span.name.clone()));
        names.collect()
    };
    assert_eq!(beneath(stop), ["lame_duck", "drain", "release"]);
    let release = of_stop.iter().find(|it| it.span.name == "release").unwrap();
    assert_eq!(beneath(release), ["orders-db", "telemetry"]);
    assert_eq!(stop.attribute("reason").as_deref(), Some("SIGTERM"));
    assert_eq!(stop.attribute("exit_code").as_deref(), Some("0"));
    let last = orders.log().pop().unwrap();
    assert_eq!(
        (&last["message"], &last["traceId"]),
        (&"stopped".into(), &stop.trace_id().into())
    );
    inventory.stop().await;
}

#[tokio::test]
async fn what_no_collector_has_taken_is_in_the_report() {
    // It takes connections and never answers.
    let collector = Collector::start(Mood::Silent);
    let databases = Databases::new("traces-lost");
    let [mut orders, mut inventory] = Service::both_traced(&databases, &collector.url()).await;
    order_as_of_old(&orders).await;
    for service in [&mut orders, &mut inventory] {
        service.signal(libc::SIGTERM);
        service.ended(Ended::Code(1)).await;
    }
    let says = orders.says();
    assert!(says.contains("spans could not be sent in time"), "{says}");
}
