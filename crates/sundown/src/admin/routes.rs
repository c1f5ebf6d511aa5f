//! Answers the admin listener's requests.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::sync::watch;

use super::access::{Access, Refused};
use super::metrics::{self, plain};
use crate::core::Core;
use crate::lifecycle::{Event, Reason};
use crate::serve::{Body, HttpService};
use crate::status::Status;

const PAGE: &str = include_str!("page.html");

/// The page is whole in itself, and shown in no frame.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How often those who watch are told what no phase tells: ages, counts, hooks.
const STEP: Duration = Duration::from_millis(250);

/// How much of a reason is told.
const REASON: usize = 200;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Serves one service's admin listener.
pub(super) fn service(
    core: Arc<Core>,
    access: Arc<Access>,
    over: Arc<watch::Sender<bool>>,
) -> impl HttpService + Sync {
    tower::service_fn(move |request: Request<Body>| {
        let (parts, _) = request.into_parts();
        let answer = answer(&core, &access, &over, &parts);
        std::future::ready(Ok::<_, Infallible>(answer))
    })
}

fn answer(
    core: &Arc<Core>,
    access: &Access,
    over: &watch::Sender<bool>,
    request: &Parts,
) -> Answer {
    let allowed = access.check(request);
    let get = matches!(request.method, Method::GET | Method::HEAD);
    match (request.uri.path(), &allowed) {
        ("/" | "/livez" | "/readyz", _) if !get => not_allowed("GET, HEAD"),
        ("/", _) => page(),
        ("/livez", _) => text(StatusCode::OK, "alive"),
        ("/readyz", may) => readyz(core, may.is_ok()),
        (_, Err(refused)) => refuse(*refused),
        ("/shutdown", Ok(())) if request.method == Method::POST => shutdown(core, request),
        ("/shutdown", Ok(())) => not_allowed("POST"),
        ("/metrics" | "/lifecycle", Ok(())) if !get => not_allowed("GET, HEAD"),
        ("/metrics", Ok(())) if accepts(request, "application/openmetrics-text") => {
            of_type(metrics::CONTENT_TYPE, metrics::text(core))
        }
        ("/metrics", Ok(())) => of_type(plain::CONTENT_TYPE, plain::of(&metrics::text(core))),
        ("/lifecycle", Ok(())) if accepts(request, "text/event-stream") => {
            events(core.clone(), over.subscribe())
        }
        ("/lifecycle", Ok(())) => of_type("application/json", json(core)),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz, /metrics, /lifecycle, /shutdown and /",
        ),
    }
}

fn readyz(core: &Core, in_detail: bool) -> Answer {
    let readiness = core.readiness();
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let told = if in_detail {
        readiness.in_detail()
    } else {
        readiness.in_short()
    };
    text(status, &told)
}

fn shutdown(core: &Core, request: &Parts) -> Answer {
    let reason = match reason(request.uri.query().unwrap_or_default()) {
        Some(reason) => format!("POST /shutdown: {reason}"),
        None => "POST /shutdown".to_owned(),
    };
    core.link.send(Event::Stop(Reason::Handle(reason)));
    text(StatusCode::ACCEPTED, "stopping")
}

/// The reason of a query, on one line and not too long.
fn reason(query: &str) -> Option<String> {
    let (_, reason) =
        form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "reason")?;
    let plain: String = reason
        .chars()
        .filter(|char| !char.is_control())
        .take(REASON)
        .collect();
    (!plain.trim().is_empty()).then(|| plain.trim().to_owned())
}

fn accepts(request: &Parts, content_type: &str) -> bool {
    let accepted = request.headers.get_all(ACCEPT).into_iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(content_type))
}

fn json(core: &Core) -> String {
    serde_json::to_string(&Status::of(core, Instant::now()))
        .expect("a status has only string keys and plain values")
}

/// The status, and again whenever there is something new, until the service has ended.
fn events(core: Arc<Core>, over: watch::Receiver<bool>) -> Answer {
    let body = StreamBody::new(statuses(core, over));
    let mut answer = Response::new(body.boxed_unsync());
    set(&mut answer, CONTENT_TYPE, "text/event-stream");
    set(&mut answer, CACHE_CONTROL, "no-store");
    answer
}

fn statuses(
    core: Arc<Core>,
    over: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let phases = core.link.phase.subscribe();
    let next = |(core, mut phases, mut over, begun): (
        Arc<Core>,
        watch::Receiver<_>,
        watch::Receiver<bool>,
        bool,
    )| async move {
        if *over.borrow_and_update() && begun {
            return None;
        }
        if begun {
            tokio::select! {
                _ = phases.changed() => {}
                _ = over.changed() => {}
                () = tokio::time::sleep(STEP) => {}
            }
        }
        let event = format!("data: {}\n\n", json(&core));
        let frame = Frame::data(Bytes::from(event));
        Some((Ok(frame), (core, phases, over, true)))
    };
    stream::unfold((core, phases, over, false), next)
}

fn page() -> Answer {
    let mut answer = of_type("text/html; charset=utf-8", PAGE.to_owned());
    set(&mut answer, CONTENT_SECURITY_POLICY, PAGE_POLICY);
    answer
}

fn refuse(refused: Refused) -> Answer {
    match refused {
        Refused::Token => {
            let mut answer = text(
                StatusCode::UNAUTHORIZED,
                "give the token: Authorization: Bearer TOKEN",
            );
            set(&mut answer, WWW_AUTHENTICATE, "Bearer");
            answer
        }
        Refused::Page => text(
            StatusCode::FORBIDDEN,
            "ask by IP address or as localhost, and not from another site's page",
        ),
    }
}

fn not_allowed(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, allowed);
    set(&mut answer, ALLOW, allowed);
    answer
}

fn text(status: StatusCode, line: &str) -> Answer {
    let mut answer = of_type("text/plain; charset=utf-8", format!("{line}\n"));
    *answer.status_mut() = status;
    answer
}

fn of_type(content_type: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    set(&mut answer, CONTENT_TYPE, content_type);
    set(&mut answer, CACHE_CONTROL, "no-store");
    answer
}

fn set(answer: &mut Answer, name: HeaderName, value: &'static str) {
    answer
        .headers_mut()
        .insert(name, http::HeaderValue::from_static(value));
}

/// See `crate::fuzzing`.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    if let Some(reason) = reason(&String::from_utf8_lossy(bytes)) {
        assert!(reason.chars().count() <= REASON);
        assert!(!reason.contains(char::is_control));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_not_too_long() {
        let table = [
            ("", None),
            ("reason=", None),
            ("reason=%20%0a", None),
            ("other=x", None),
            ("reason=deploy+42", Some("deploy 42")),
            ("a=b&reason=caf%C3%A9", Some("café")),
            ("reason=one%0Atwo%1b[2J", Some("onetwo[2J")),
            ("reason=%ff", Some("\u{fffd}")),
        ];
        for (query, expected) in table {
            assert_eq!(reason(query).as_deref(), expected, "{query}");
        }
        let long = reason(&format!("reason={}", "x".repeat(10_000))).unwrap();
        assert_eq!(long.len(), REASON);
    }
}
