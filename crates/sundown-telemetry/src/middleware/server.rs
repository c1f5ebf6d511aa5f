//! Spans of requests that are served.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Extensions, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;
use tracing::field::Empty;

use super::attributes::{self, cut, header_text};
use super::body::TracedBody;
use super::open::Open;
use super::route;
use crate::logs::REQUESTS;
use crate::metrics::{Metrics, Requests, Side};
use crate::propagation::Propagation;
use crate::traces;

type Routes = Arc<dyn Fn(&Extensions) -> Option<String> + Send + Sync>;

/// Makes a span of each request that is served, from its head to the last byte of its response.
///
/// A request that says who calls continues that trace. What it says by baggage is in its extensions, as
/// [`Baggage`](crate::propagation::Baggage), and goes on with the requests that a [`ClientLayer`](super::ClientLayer)
/// makes of it. An answer of 500 and above makes the span one that has failed. In axum it is given to `Router::layer`,
/// so that the route is known.
///
/// ```
/// use axum::{Router, routing::get};
/// use sundown_telemetry::ServerLayer;
/// use sundown_telemetry::propagation::Propagation;
///
/// let router: Router = Router::new()
///     .route("/orders/{id}", get(|| async { "tea" }))
///     .layer(ServerLayer::new(Propagation::default()));
/// ```
#[derive(Clone)]
pub struct ServerLayer {
    propagation: Arc<Propagation>,
    routes: Routes,
    requests: Option<Requests>,
}

impl ServerLayer {
    /// Reads who calls in this way.
    pub fn new(propagation: Propagation) -> Self {
        Self {
            propagation: Arc::new(propagation),
            routes: Arc::new(route::of),
            requests: None,
        }
    }

    /// Measures requests, too.
    #[must_use]
    pub fn measured(mut self, metrics: &Metrics) -> Self {
        self.requests = Some(metrics.requests(Side::Server));
        self
    }

    /// Asks this for the route of a request, such as `/orders/{id}`. It must be one of few: it names the span.
    #[must_use]
    pub fn route_by(
        mut self,
        route: impl Fn(&Extensions) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.routes = Arc::new(route);
        self
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = ServerService<S>;

    fn layer(&self, inner: S) -> ServerService<S> {
        ServerService {
            inner,
            layer: self.clone(),
        }
    }
}

/// What a [`ServerLayer`] makes of a service.
#[derive(Clone)]
pub struct ServerService<S> {
    inner: S,
    layer: ServerLayer,
}

impl<S, B, R> Service<Request<B>> for ServerService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body,
{
    type Response = Response<TracedBody<R>>;
    type Error = S::Error;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let open = self.layer.open(&mut request);
        let inner = open.span().in_scope(|| self.inner.call(request));
        ServerFuture {
            inner,
            open: Some(open),
        }
    }
}

impl ServerLayer {
    fn open<B>(&self, request: &mut Request<B>) -> Open {
        let method = attributes::method(request.method());
        let route = (self.routes)(request.extensions());
        let span = self.span(request, method, route.as_deref());
        let requests = self.requests.as_ref();
        let measured = requests.map(|requests| requests.begin(method, route));
        Open::new(span, measured)
    }

    fn span<B>(&self, request: &mut Request<B>, method: &str, route: Option<&str>) -> Span {
        let (uri, headers) = (request.uri(), request.headers());
        let name = route.map(|route| format!("{method} {route}"));
        let (address, port) = attributes::server(uri, headers);
        let span = tracing::info_span!(
            target: REQUESTS,
            "request",
            otel.name = name.as_deref().unwrap_or(method),
            otel.kind = "server",
            otel.status_code = Empty,
            error.type = Empty,
            http.request.method = method,
            http.route = route,
            http.response.status_code = Empty,
            network.protocol.version = attributes::version(request.version()),
            server.address = address,
            server.port = port,
            url.path = cut(uri.path()),
            url.query = uri.query().map(cut),
            url.scheme = uri.scheme_str().unwrap_or("http"),
            user_agent.original = header_text(headers, header::USER_AGENT),
        );
        let extracted = self.propagation.extract(headers);
        request.extensions_mut().insert(extracted.baggage.clone());
        if !span.is_disabled() {
            traces::continue_request(&span, extracted);
        }
        span
    }
}

pin_project! {
    /// Answers a request, and then writes down how.
    pub struct ServerFuture<F> {
        #[pin]
        inner: F,
        open: Option<Open>,
    }
}

impl<F, R, E> Future for ServerFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<TracedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let open = this.open.as_ref().expect("it is not polled after its end");
        let answer = {
            let _inside = open.span().enter();
            ready!(this.inner.poll(cx))
        };
        let mut open = this.open.take().expect("it was there a line ago");
        match answer {
            Ok(response) => {
                let is_error = |status: StatusCode| status.is_server_error();
                open.answered(response.status(), is_error);
                Poll::Ready(Ok(response.map(|body| TracedBody::new(body, open))))
            }
            Err(error) => {
                open.failed("service");
                Poll::Ready(Err(error))
            }
        }
    }
}
