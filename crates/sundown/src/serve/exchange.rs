//! One request, up to the head of its response: named, counted, limited, and told when its client is gone.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::body::Body;
use super::parting::unavailable;
use super::records::Format;
use super::registry::{Outcome, Registered};
use super::requests::{Named, Target, Ticket};
use super::response::{Follows, Tracked};
use crate::context::{Context, deadline_in};
use crate::error::BoxError;
use crate::traffic::Traffic;

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
    service: S,
    connection: Arc<Registered>,
}

impl<S> Exchanges<S> {
    pub(super) fn new(service: S, connection: Arc<Registered>) -> Self {
        Self {
            service,
            connection,
        }
    }

    pub(super) fn connection(&self) -> &Arc<Registered> {
        &self.connection
    }
}

impl<S: HttpService> hyper::service::Service<Request<Incoming>> for Exchanges<S> {
    type Response = Response<Tracked<S::ResponseBody>>;
    type Error = std::convert::Infallible;
    type Future = Responding<S>;

    fn call(&self, request: Request<Incoming>) -> Responding<S> {
        let limits = &self.connection.limits;
        let declared = request.body().size_hint().exact();
        Responding {
            version: request.version(),
            is_grpc: request.version() == Version::HTTP_2
                && Format::declared(request.headers()) == Some(Format::Grpc),
            exchange: Some(Exchange::begin(self.connection.clone(), &request)),
            call: if declared.is_some_and(|length| length > limits.body) {
                self.connection.body_ends(false);
                Call::Refused
            } else {
                Call::Asked {
                    service: self.service.clone(),
                    request: Some(self.prepare(request)),
                }
            },
        }
    }
}

impl<S> Exchanges<S> {
    /// Gives the request its limited body, and what the listener adds.
    #[inline]
    fn prepare(&self, request: Request<Incoming>) -> Request<Body> {
        let limits = &self.connection.limits;
        #[cfg_attr(not(any(feature = "axum", feature = "tls")), expect(unused_mut))]
        let mut request = request.map(|body| Body::incoming(body, limits.body, &self.connection));
        #[cfg(feature = "axum")]
        if limits.connect_info
            && let Some(peer) = self.connection.peer()
        {
            let peer = axum::extract::ConnectInfo(peer);
            request.extensions_mut().insert(peer);
        }
        #[cfg(feature = "tls")]
        if let Some(certificates) = self.connection.certificates.get() {
            request.extensions_mut().insert(certificates.clone());
        }
        request
    }
}

/// A request under way: holds its entry until its response is written. A response that is dropped
/// before its end means that the client is gone.
pub(super) struct Exchange {
    pub(super) connection: Arc<Registered>,
    pub(super) ticket: Ticket,
    /// What the client allows, by [`DEADLINE_HEADER`](crate::DEADLINE_HEADER).
    deadline: Option<Instant>,
    /// Made when somebody first asks.
    context: Option<Context>,
    pub(super) bodiless: bool,
    /// Whether a success leads elsewhere (RFC 9110 §9.3.6).
    pub(super) connects: bool,
    /// Whether it goes on as another protocol.
    pub(super) upgraded: bool,
    pub(super) outcome: Outcome,
}

impl Exchange {
    fn begin<B>(connection: Arc<Registered>, request: &Request<B>) -> Self {
        let since = connection.request_begins();
        let ticket = connection.add_request(Named {
            method: request.method().clone(),
            target: Target::of(request.uri()),
            since,
        });
        Self {
            deadline: deadline_in(request.headers(), || connection.core.clock.instant(since)),
            connection,
            ticket,
            context: None,
            bodiless: request.method() == Method::HEAD,
            connects: request.method() == Method::CONNECT,
            upgraded: false,
            outcome: Outcome::Open,
        }
    }

    fn context(&mut self) -> Context {
        let core = &self.connection.core;
        let context = self
            .context
            .get_or_insert_with(|| Context::of_request(core.clone(), self.deadline));
        context.clone()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.outcome == Outcome::Open
            && let Some(context) = &self.context
        {
            context.cancel();
        }
        if self.upgraded {
            self.connection.keep_name(self.ticket);
        }
        self.connection.request_ends(self.ticket, self.outcome);
    }
}

thread_local! {
    /// The exchange whose service is polled on this thread just now. Nothing is left in it, so it
    /// needs no drop, and each access no look whether the thread is ending.
    static CURRENT: Cell<ManuallyDrop<Option<Exchange>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

fn replace_current(exchange: Option<Exchange>) -> Option<Exchange> {
    ManuallyDrop::into_inner(CURRENT.replace(ManuallyDrop::new(exchange)))
}

/// The context of the request whose service is polled on this thread just now.
///
/// Most handlers never ask; so it is not put into every request's extensions, which would cost
/// each of them some 3 % of a trivial request's CPU time.
pub(crate) fn current_context() -> Option<Context> {
    let mut current = replace_current(None);
    let context = current.as_mut().map(Exchange::context);
    replace_current(current);
    context
}

/// Makes an exchange the current one while `poll` runs.
fn within<T>(exchange: &mut Option<Exchange>, poll: impl FnOnce() -> T) -> T {
    let outer = replace_current(exchange.take());
    let _entered = Entered { exchange, outer };
    poll()
}

/// Puts things back, also when what is polled unwinds.
struct Entered<'a> {
    exchange: &'a mut Option<Exchange>,
    outer: Option<Exchange>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        *self.exchange = replace_current(self.outer.take());
    }
}

pin_project! {
    /// A request on its way to the service, and the service's answer.
    pub(super) struct Responding<S: HttpService> {
        #[pin]
        call: Call<S>,
        exchange: Option<Exchange>,
        version: Version,
        is_grpc: bool,
    }
}

pin_project! {
    #[project = CallProjection]
    enum Call<S: HttpService> {
        /// Until the service is ready, which an axum router always is.
        Asked { service: S, request: Option<Request<Body>> },
        Answering { #[pin] future: S::ServiceFuture },
        /// The body is declared to be too long.
        Refused,
    }
}

impl<S: HttpService> Call<S> {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Response<S::ResponseBody>, StatusCode>> {
        if matches!(*self, Self::Refused) {
            return Poll::Ready(Err(StatusCode::PAYLOAD_TOO_LARGE));
        }
        // By reference, and no part of it: a request is large, and each closure would copy it.
        let polled = unwinding(|| {
            if let CallProjection::Asked { service, request } = self.as_mut().project() {
                if service.poll_ready(cx)?.is_pending() {
                    return Ok(None);
                }
                let request = request.take().expect("a service is called once");
                let future = service.call(request);
                self.set(Call::Answering { future });
            }
            match self.as_mut().project() {
                CallProjection::Answering { future } => match future.poll(cx) {
                    Poll::Ready(answer) => answer.map(Some),
                    Poll::Pending => Ok(None),
                },
                _ => unreachable!("the call was begun above"),
            }
        });
        polled.transpose().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<S: HttpService> Future for Responding<S> {
    type Output = Result<Response<Tracked<S::ResponseBody>>, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match within(this.exchange, || this.call.poll(cx)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending if *this.is_grpc && is_given_up(this.exchange, cx) => None,
            Poll::Pending => return Poll::Pending,
        };
        let exchange = this.exchange.take().expect("a response is made once");
        let Some(answer) = answer else {
            return Poll::Ready(Ok(without_answer(exchange)));
        };
        let connection = &exchange.connection;
        let closing = connection.core.is_closing() && !connection.travels();
        let mut response = match answer {
            Ok(response) => response.map(|body| Tracked::new(Some(body), exchange)),
            Err(status) => {
                let mut response = Response::new(Tracked::new(None, exchange));
                *response.status_mut() = status;
                response
            }
        };
        let status = response.status();
        let follows = response.body().follows(status, response.headers());
        let upgrades = matches!(follows, Follows::Upgrade { .. });
        response.body_mut().note(follows);
        if closing && *this.version < Version::HTTP_2 && !upgrades {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

/// Whether a gRPC call may wait for its answer no longer; if not, it is woken when that is so.
fn is_given_up(exchange: &Option<Exchange>, cx: &TaskContext<'_>) -> bool {
    exchange.as_ref().is_some_and(|exchange| {
        let connection = &exchange.connection;
        connection.waits_to_leave(exchange.ticket, Traffic::Grpc, cx.waker())
    })
}

/// The answer to a gRPC call whose service has none in time (Trailers-Only).
fn without_answer<B: HttpBody<Data = Bytes>>(mut exchange: Exchange) -> Response<Tracked<B>> {
    exchange.outcome = Outcome::EndedEarly;
    let mut response = Response::new(Tracked::new(None, exchange));
    *response.headers_mut() = unavailable();
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// Asks the service; an error or a panic becomes 500, because the client is still there and waits
/// for an answer.
fn unwinding<T, E: Into<BoxError>>(ask: impl FnOnce() -> Result<T, E>) -> Result<T, StatusCode> {
    match catch_unwind(AssertUnwindSafe(ask)) {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => {
            tracing::error!(target: "sundown", error = error.into(), "the service failed");
        }
        Err(panic) => {
            tracing::error!(target: "sundown", panic = text_of(&*panic), "a handler panicked");
        }
    }
    Err(StatusCode::INTERNAL_SERVER_ERROR)
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
