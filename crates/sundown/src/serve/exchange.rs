//! One request and its response: named, counted, limited, and told when its client is gone.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use super::body::Body;
use super::registry::Connection;
use crate::context::{Context, RequestInfo};
use crate::core::Core;
use crate::error::BoxError;

/// What a listener serves: every tower service of HTTP requests that can be cloned, such as an
/// `axum::Router`. Implemented for all of them; nobody needs to implement it.
pub trait HttpService:
    tower::Service<
        Request<Body>,
        Response = Response<Self::ResponseBody>,
        Error = Self::ServiceError,
        Future = Self::ServiceFuture,
    > + Clone
    + Send
    + 'static
{
    /// The body it answers with.
    type ResponseBody: HttpBody<Data = Bytes, Error = Self::BodyError> + Send + 'static;
    /// That body's error.
    type BodyError: Into<BoxError>;
    /// Its error; the client gets 500.
    type ServiceError: Into<BoxError>;
    /// Its future.
    type ServiceFuture: Future<Output = Result<Response<Self::ResponseBody>, Self::ServiceError>>
        + Send
        + 'static;
}

impl<S, B> HttpService for S
where
    S: tower::Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type ResponseBody = B;
    type BodyError = B::Error;
    type ServiceError = S::Error;
    type ServiceFuture = S::Future;
}

/// Turns a connection's requests into calls of the service.
pub(super) struct Exchanges<S> {
    pub(super) service: S,
    pub(super) core: Arc<Core>,
    pub(super) connection: Arc<Connection>,
    pub(super) body_limit: u64,
    pub(super) connect_info: bool,
}

impl<S: Clone> Clone for Exchanges<S> {
    fn clone(&self) -> Self {
        Self {
            service: self.service.clone(),
            core: self.core.clone(),
            connection: self.connection.clone(),
            body_limit: self.body_limit,
            connect_info: self.connect_info,
        }
    }
}

impl<S: HttpService> hyper::service::Service<Request<Incoming>> for Exchanges<S> {
    type Response = Response<Tracked<S::ResponseBody>>;
    type Error = std::convert::Infallible;
    type Future = Responding<S>;

    fn call(&self, request: Request<Incoming>) -> Responding<S> {
        let since = self.connection.request_begins();
        let info = RequestInfo {
            method: request.method().clone(),
            target: request.uri().path_and_query().cloned(),
            since,
        };
        let context = Context::of_request(self.core.clone(), info, request.headers());
        self.connection.add_request(context.clone());
        let exchange = Exchange {
            context: context.clone(),
            connection: self.connection.clone(),
            bodiless: request.method() == Method::HEAD,
            finished: false,
        };
        let version = request.version();
        let call = if declared_length(&request).is_some_and(|length| length > self.body_limit) {
            Call::Refused {
                status: StatusCode::PAYLOAD_TOO_LARGE,
            }
        } else {
            let mut request = request.map(|incoming| Body::incoming(incoming, self.body_limit));
            #[cfg(feature = "axum")]
            if self.connect_info {
                let peer = axum::extract::ConnectInfo(self.connection.peer);
                request.extensions_mut().insert(peer);
            }
            request.extensions_mut().insert(context);
            self.begin(request)
        };
        Responding {
            call,
            exchange: Some(exchange),
            version,
        }
    }
}

impl<S: HttpService> Exchanges<S> {
    /// Calls the service at once where it is ready, which an axum router always is.
    fn begin(&self, request: Request<Body>) -> Call<S> {
        let mut service = self.service.clone();
        let mut nobody = TaskContext::from_waker(Waker::noop());
        match service.poll_ready(&mut nobody) {
            Poll::Ready(Ok(())) => Call::Served {
                future: service.call(request),
            },
            Poll::Ready(Err(_)) => Call::Refused {
                status: StatusCode::INTERNAL_SERVER_ERROR,
            },
            // Asked again with a waker. Boxed, so that the others do not carry the request.
            Poll::Pending => Call::Waiting {
                future: Box::pin(service.oneshot(request)),
            },
        }
    }
}

fn declared_length<B>(request: &Request<B>) -> Option<u64> {
    request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// Holds a request's entry until its response is written; a response that is dropped before its
/// end means that the client is gone.
struct Exchange {
    context: Context,
    connection: Arc<Connection>,
    bodiless: bool,
    finished: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let core = self.context.core();
        let counters = &core.counters;
        if self.finished {
            counters.requests_finished.fetch_add(1, Ordering::Relaxed);
            if core.is_closing() {
                counters
                    .requests_during_stop
                    .fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.context.cancel();
            if !self.connection.is_cut() {
                counters.requests_abandoned.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.connection.remove_request(&self.context) {
            self.connection.response_ends();
        }
    }
}

pin_project! {
    /// A call of the service that is under way.
    pub(super) struct Responding<S: HttpService> {
        #[pin]
        call: Call<S>,
        exchange: Option<Exchange>,
        version: Version,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<S: HttpService> {
        Served { #[pin] future: S::ServiceFuture },
        Waiting { future: Pin<Box<Oneshot<S, Request<Body>>>> },
        Refused { status: StatusCode },
    }
}

impl<S: HttpService> Future for Responding<S> {
    type Output = Result<Response<Tracked<S::ResponseBody>>, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.call.project() {
            CallProjection::Refused { status } => Err(*status),
            CallProjection::Served { future } => ready!(poll_unwinding(future, cx)),
            CallProjection::Waiting { future } => ready!(poll_unwinding(future.as_mut(), cx)),
        };
        let exchange = this.exchange.take().expect("a response is made once");
        let closing = exchange.context.core().is_closing();
        let mut response = match answer {
            Ok(response) => response.map(|body| Tracked::new(Some(body), exchange)),
            Err(status) => {
                let mut response = Response::new(Tracked::new(None, exchange));
                *response.status_mut() = status;
                response
            }
        };
        let status = response.status();
        response.body_mut().note_status(status);
        if closing && *this.version < Version::HTTP_2 && status != StatusCode::SWITCHING_PROTOCOLS {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

/// Polls the service; an error or a panic becomes 500, because the client is still there and
/// waits for an answer.
fn poll_unwinding<F, B, E>(
    future: Pin<&mut F>,
    cx: &mut TaskContext<'_>,
) -> Poll<Result<Response<B>, StatusCode>>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Ok(response)),
        Ok(Poll::Ready(Err(error))) => {
            let error = error.into();
            tracing::error!(target: "sundown", error, "the service failed");
            Poll::Ready(Err(StatusCode::INTERNAL_SERVER_ERROR))
        }
        Err(panic) => {
            tracing::error!(target: "sundown", panic = text_of(&*panic), "a handler panicked");
            Poll::Ready(Err(StatusCode::INTERNAL_SERVER_ERROR))
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

pin_project! {
    /// A response body that tells when it ends, and whether it was whole.
    pub(super) struct Tracked<B> {
        #[pin]
        body: Option<B>,
        end: End,
    }
}

/// Apart from the body, so that it is dropped with it wherever hyper drops it.
struct End {
    exchange: Exchange,
    whole: bool,
    /// How many bytes are still to come, where that was declared.
    declared: Option<u64>,
}

impl Drop for End {
    fn drop(&mut self) {
        // hyper drops a body of declared length after its last byte, without asking for the end.
        self.exchange.finished = self.whole || self.exchange.bodiless || self.declared == Some(0);
    }
}

impl<B: HttpBody<Data = Bytes>> Tracked<B> {
    fn new(body: Option<B>, exchange: Exchange) -> Self {
        let whole = body.as_ref().is_none_or(HttpBody::is_end_stream);
        let declared = body.as_ref().and_then(|body| body.size_hint().exact());
        Self {
            body,
            end: End {
                exchange,
                whole,
                declared,
            },
        }
    }
}

impl<B> Tracked<B> {
    fn note_status(&mut self, status: StatusCode) {
        let bodiless = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.end.exchange.bodiless |= bodiless;
    }
}

impl<B> HttpBody for Tracked<B>
where
    B: HttpBody<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let Some(mut body) = this.body.as_pin_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(body.as_mut().poll_frame(cx));
        match &frame {
            None => this.end.whole = true,
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                this.end.declared = this.end.declared.map(|left| left.saturating_sub(length));
                this.end.whole = body.is_end_stream() || frame.is_trailers();
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}
