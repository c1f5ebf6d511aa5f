//! What is traced of requests that are served and made.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, Request, Response, StatusCode};
use sundown_telemetry::propagation::{Baggage, Format, Propagation};
use sundown_telemetry::{
    ClientLayer, Endpoint, Metrics, ServerLayer, Tracer, Traces, trace_context,
};
use sundown_testkit::{Collector, Mood, Received};
use tower::{ServiceBuilder, ServiceExt as _};
use tracing::instrument::WithSubscriber as _;
use tracing_subscriber::layer::SubscriberExt as _;

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";

fn router() -> Router {
    Router::new()
        .route("/orders/{id}", get(async |Path(id): Path<String>| id))
        .route("/fails", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/hangs", get(std::future::pending::<()>))
        .route("/calls", get(call))
        .layer(ServerLayer::new(Propagation::default()))
}

/// Answers with the headers of a request that it makes.
async fn call(Extension(baggage): Extension<Baggage>) -> String {
    let echo = tower::service_fn(async |request: Request<String>| {
        Ok::<_, Infallible>(Response::new(request.headers().clone()))
    });
    let old_and_new = Propagation::default().writing([Format::W3c, Format::B3Single]);
    let client = ServiceBuilder::new()
        .layer(ClientLayer::new(old_and_new))
        .service(echo);
    let request = Request::get("http://stock:8081/reservations?token=secret");
    let answer = client
        .oneshot(request.body(String::new()).unwrap())
        .await
        .unwrap();
    let headers: HeaderMap = answer.into_body();
    let text = |name| headers[name].to_str().unwrap();
    assert_eq!(baggage.get("tenant"), Some("7"));
    format!("{} {} {}", text("traceparent"), text("b3"), text("baggage"))
}

/// Does it with requests that are traced, and gives what a collector gets.
async fn traced(ratio: f64, work: impl AsyncFnOnce(Router, &Tracer)) -> Vec<Received> {
    let collector = Collector::start(Mood::Takes);
    let endpoint = Endpoint::http(&collector.url()).unwrap();
    let tracer = Traces::of("shop")
        .send_to(endpoint)
        .ratio(ratio)
        .start()
        .unwrap();
    let subscriber = tracing_subscriber::registry().with(tracer.layer());
    work(router(), &tracer).with_subscriber(subscriber).await;
    tracer.flush(PATIENCE).await.unwrap();
    collector.received()
}

async fn text(
    response: Response<
        impl http_body::Body<Data = axum::body::Bytes, Error: std::error::Error + Send + Sync>
        + Send
        + 'static,
    >,
) -> String {
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1 << 20).await;
    String::from_utf8(body.unwrap().to_vec()).unwrap()
}

fn get_of(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "shop:8080")
}

#[tokio::test]
async fn a_span_says_what_the_conventions_want() {
    let spans = traced(1.0, async |router, _| {
        let request = get_of("/orders/7?card=4111111111111111").header("user-agent", "curl");
        let response = router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(text(response).await, "7");
    })
    .await;
    let [span] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(span.span.name, "GET /orders/{id}");
    assert_eq!(span.span.kind, 2, "a server's");
    let expected = [
        ("http.request.method", "GET"),
        ("http.route", "/orders/{id}"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("server.address", "shop"),
        ("server.port", "8080"),
        ("url.path", "/orders/7"),
        ("url.query", "card=[redacted]"),
        ("url.scheme", "http"),
        ("user_agent.original", "curl"),
    ];
    for (name, value) in expected {
        assert_eq!(span.attribute(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(span.attribute("error.type"), None);
}

#[tokio::test]
async fn an_error_and_a_request_that_was_given_up_are_told_from_the_others() {
    let spans = traced(0.0, async |router, tracer| {
        let fails = get_of("/fails").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(fails).await.unwrap();
        assert_eq!(text(response).await, "");
        let nowhere = get_of("/nowhere").body(Body::empty()).unwrap();
        text(router.clone().oneshot(nowhere).await.unwrap()).await;
        let hangs = get_of("/hangs").body(Body::empty()).unwrap();
        let mut hangs = Box::pin(router.oneshot(hangs));
        assert!(futures_poll(&mut hangs).await);
        // In a stop, all are of interest.
        tracer.stopping();
        drop(hangs);
    })
    .await;
    let told: Vec<_> = spans
        .iter()
        .map(|it| {
            (
                it.attribute("http.route"),
                it.attribute("error.type"),
                it.span.status.as_ref().unwrap().code,
            )
        })
        .collect();
    let is = |route: &str, error: &str, status| (Some(route.into()), Some(error.into()), status);
    assert_eq!(told, [is("/fails", "500", 2), is("/hangs", "cancelled", 0)]);
}

/// Polls once; whether it has not ended.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
    })
    .await
}

#[tokio::test]
async fn a_trace_that_an_old_service_began_goes_on_to_old_and_new() {
    let mut answer = String::new();
    let spans = traced(0.0, async |router, _| {
        let request = get_of("/calls")
            .header("traceparent", "00-garbage")
            .header("b3", format!("{TRACE}-e457b5a2e4d86bd1-1"))
            .header("baggage", "tenant=7");
        let response = router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        answer = text(response).await;
    })
    .await;
    let [call, served] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(
        (served.trace_id().as_str(), served.parent_id().as_str()),
        (TRACE, "e457b5a2e4d86bd1")
    );
    assert_eq!(
        (call.trace_id().as_str(), call.parent_id()),
        (TRACE, served.span_id())
    );
    assert_eq!((call.span.name.as_str(), call.span.kind), ("GET", 3));
    let id = call.span_id();
    assert_eq!(
        answer,
        format!("00-{TRACE}-{id}-01 {TRACE}-{id}-1 tenant=7")
    );
    let url = call.attribute("url.full").unwrap();
    assert_eq!(url, "http://stock:8081/reservations?token=[redacted]");
    assert_eq!(call.attribute("server.port").as_deref(), Some("8081"));
}

#[tokio::test]
async fn headers_that_are_no_text_or_too_long_leave_a_span_small() {
    let spans = traced(1.0, async |router, _| {
        let long = format!("/orders/{}", "x".repeat(20_000));
        let request = get_of(&long)
            .header("user-agent", "y".repeat(1 << 20))
            .header("traceparent", &b"00-\xff\xfe"[..])
            .header("b3", "z".repeat(1 << 20))
            .method("BREW");
        let response = router
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        text(response).await;
    })
    .await;
    assert_eq!(spans[0].span.name, "_OTHER /orders/{id}");
    assert_eq!(
        spans[0].attribute("user_agent.original").unwrap().len(),
        1024
    );
    assert!(format!("{spans:?}").len() < 10_000);
}

#[tokio::test]
async fn where_nobody_traces_requests_are_served_and_made_as_ever() {
    let router = Router::new()
        .route("/", get(async || format!("{:?}", trace_context())))
        .layer(ServerLayer::new(Propagation::default()));
    let response = router
        .oneshot(get_of("/").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(text(response).await, "None");
}

#[tokio::test]
async fn requests_are_measured_by_route_and_a_sampled_trace_is_their_exemplar() {
    let metrics = Metrics::new();
    let mut trace = String::new();
    let measured = metrics.clone();
    traced(1.0, async |_, _| {
        let layer = ServerLayer::new(Propagation::default()).measured(&measured);
        let router: Router = Router::new()
            .route(
                "/orders/{id}",
                get(async || trace_context().unwrap().trace_id.to_string()),
            )
            .layer(layer);
        for id in 0..3 {
            let request = get_of(&format!("/orders/{id}"))
                .body(Body::empty())
                .unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert!(measured.text().contains("http_server_active_requests 1\n"));
            trace = text(response).await;
        }
    })
    .await;
    let text = metrics.text();
    let labels =
        "http_request_method=\"GET\",http_route=\"/orders/{id}\",http_response_status_code=\"200\"";
    for line in [
        format!("http_server_request_duration_seconds_count{{{labels}}} 3"),
        format!("http_server_request_duration_seconds_bucket{{le=\"10.0\",{labels}}} 3"),
        "http_server_active_requests 0".to_owned(),
    ] {
        assert!(text.lines().any(|told| told == line), "{line} in {text}");
    }
    assert!(
        text.contains(&format!(" # {{trace_id=\"{trace}\"}} ")),
        "{text}"
    );
}
