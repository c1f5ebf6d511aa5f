//! Spans of requests that are made.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Span;
use tracing::field::Empty;

use super::attributes::{self, cut};
use super::open::Open;
use crate::logs::REQUESTS;
use crate::metrics::{Metrics, Requests, Side};
use crate::propagation::Propagation;
use crate::traces;

/// Makes a span of each request that is made, up to the head of its response, and tells whoever serves it which.
///
/// A failure, and an answer of 400 and above, makes the span one that has failed.
///
/// ```
/// use sundown_telemetry::ClientLayer;
/// use sundown_telemetry::propagation::{Format, Propagation};
/// use tower::ServiceBuilder;
///
/// # let client = tower::service_fn(|_: http::Request<String>| async {
/// #     Ok::<_, std::io::Error>(http::Response::new(String::new()))
/// # });
/// // To old services and new ones alike.
/// let propagation = Propagation::default().writing([Format::W3c, Format::B3Single]);
/// let client = ServiceBuilder::new().layer(ClientLayer::new(propagation)).service(client);
/// # let _ = client;
/// ```
#[derive(Clone)]
pub struct ClientLayer {
    propagation: Arc<Propagation>,
    requests: Option<Requests>,
}

impl ClientLayer {
    /// Tells whoever serves in this way.
    pub fn new(propagation: Propagation) -> Self {
        Self {
            propagation: Arc::new(propagation),
            requests: None,
        }
    }

    /// Measures requests, too.
    #[must_use]
    pub fn measured(mut self, metrics: &Metrics) -> Self {
        self.requests = Some(metrics.requests(Side::Client));
        self
    }

    fn open<B>(&self, request: &mut Request<B>) -> Open {
        let method = attributes::method(request.method());
        let (address, port) = attributes::server(request.uri(), request.headers());
        let span = self.span(request, method, (address.as_deref(), port));
        let requests = self.requests.as_ref();
        let measured = requests.map(|requests| requests.begin(method, address));
        Open::new(span, measured)
    }

    fn span<B>(
        &self,
        request: &mut Request<B>,
        method: &str,
        (address, port): (Option<&str>, Option<u16>),
    ) -> Span {
        let uri = request.uri();
        let span = tracing::info_span!(
            target: REQUESTS,
            "call",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty,
            http.request.method = method,
            http.response.status_code = Empty,
            server.address = address,
            server.port = port,
            url.full = cut(&uri.to_string()),
        );
        if let Some((context, baggage)) = traces::to_hand_on(&span) {
            self.propagation
                .inject(&context, &baggage, request.headers_mut());
        }
        span
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = ClientService<S>;

    fn layer(&self, inner: S) -> ClientService<S> {
        ClientService {
            inner,
            layer: self.clone(),
        }
    }
}

/// What a [`ClientLayer`] makes of a service.
#[derive(Clone)]
pub struct ClientService<S> {
    inner: S,
    layer: ClientLayer,
}

impl<S, B, R> Service<Request<B>> for ClientService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ClientFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let open = self.layer.open(&mut request);
        let inner = open.span().in_scope(|| self.inner.call(request));
        ClientFuture { inner, open }
    }
}

pin_project! {
    /// Waits for the head of a response, and then writes down which it is.
    pub struct ClientFuture<F> {
        #[pin]
        inner: F,
        open: Open,
    }
}

impl<F, R, E> Future for ClientFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = {
            let _inside = this.open.span().enter();
            ready!(this.inner.poll(cx))
        };
        let is_error = |status: StatusCode| status.as_u16() >= 400;
        match &answer {
            Ok(response) => this.open.answered(response.status(), is_error),
            Err(_) => this.open.failed("connection"),
        }
        this.open.over();
        Poll::Ready(answer)
    }
}
