//! Exchanges requests and responses over one HTTP/2 connection, with prior knowledge.
//!
//! The promise: each stream ends with [`Evidence`] taken from the frames on the wire: above
//! GOAWAY or refused means declined, anything else that goes unanswered is lost. Never retries a
//! stream and never opens a second connection behind the caller's back.

mod frames;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::HeaderMap;
use tokio::time::{Instant, timeout};

use crate::channel::{Channel, Endpoint};
use crate::dial::{self, Unmade};
use crate::http1::message::{KEPT, Response};
use crate::outcome::{End, Evidence, Persistence, Protocol, Reuse, Seen, Sent};
use crate::plan::Request;
use crate::tcp::{TcpState, Window};
use crate::timeline::Span;
use wire::{Ear, Wire};

/// Is an HTTP/2 connection from the client's side; clones share it.
#[derive(Clone)]
pub struct Session {
    send: SendRequest<Bytes>,
    wire: Arc<Wire>,
    target: Endpoint,
}

impl Session {
    /// Connects, and under TLS shakes hands, for at most `limit`, and sends the preface; does not wait
    /// for the server's.
    ///
    /// # Errors
    /// [`Unmade`], which carries the evidence for the request that was to be sent.
    pub async fn open(target: impl Into<Endpoint>, limit: Duration) -> Result<Self, Unmade> {
        let (from, target) = (Instant::now(), target.into());
        let channel = dial::open(target, Window::Usual, limit, Protocol::Http2).await?;
        Self::over(channel, target, from).await
    }

    /// Connects, for at most `limit`, and waits for nothing: for a server that does not answer yet.
    pub(crate) async fn dial(target: Endpoint, limit: Duration) -> Result<Self, Unmade> {
        let from = Instant::now();
        let channel = dial::dial(target, Window::Usual, limit, Protocol::Http2).await?;
        Self::over(channel, target, from).await
    }

    async fn over(channel: Channel, target: Endpoint, from: Instant) -> Result<Self, Unmade> {
        let wire = Wire::on(&channel);
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(1024 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .handshake(Ear::on(channel, Arc::clone(&wire)))
            .await;
        match handshake {
            Ok((send, connection)) => {
                tokio::spawn(connection);
                Ok(Self { send, wire, target })
            }
            Err(error) => Err(unmade(&wire, from, error)),
        }
    }

    /// Tells what the connection is good for, as a careful client would before it asks.
    pub fn standing(&self) -> Standing {
        if self.wire.going_away() {
            Standing::GoingAway
        } else if self.wire.has_ended() || self.wire.state().peer_has_closed() {
            Standing::Closed
        } else {
            Standing::Open
        }
    }

    /// Tells whether a GOAWAY came that declines no stream, as the first of two does.
    pub fn was_warned(&self) -> bool {
        self.wire.warned()
    }

    /// Returns the highest stream that the server will still answer, once it has said so by GOAWAY.
    pub fn last_stream(&self) -> Option<u32> {
        self.wire.last_stream()
    }

    /// Tells whether the server has said anything in HTTP/2.
    pub(crate) fn is_understood(&self) -> bool {
        self.wire.speaks_http2()
    }

    /// Sends one request and reads the answer, for at most `limit`.
    pub async fn exchange(&self, request: &Request, limit: Duration) -> Exchange {
        let mut exchange = self.exchange_begun();
        let asked = timeout(limit, self.ask(request, &mut exchange)).await;
        self.finish(exchange, asked.map_err(|_| Failed::Hung).flatten())
    }

    /// Sends one request without waiting for the answer.
    pub(crate) async fn begin(&self, request: &Request) -> Result<Begun, Box<Exchange>> {
        let exchange = self.exchange_begun();
        match self.submit(request).await {
            Ok(response) => Ok(Begun {
                session: self.clone(),
                exchange,
                response,
            }),
            Err(error) => Err(Box::new(self.finish(exchange, Err(error)))),
        }
    }

    /// Waits until HEADERS were written on this many streams in all.
    pub(crate) async fn headers_written(&self, streams: usize) {
        self.wire.headers_written(streams).await;
    }

    fn exchange_begun(&self) -> Exchange {
        let before = self.wire.state();
        let evidence = Evidence {
            before: Some(before),
            ..Evidence::of_nothing(Protocol::Http2, End::Hung)
        };
        let now = Instant::now();
        Exchange {
            evidence,
            span: Span { from: now, to: now },
            response: None,
            fields: HeaderMap::new(),
            error: None,
            stream: None,
        }
    }

    async fn ask(&self, request: &Request, exchange: &mut Exchange) -> Result<Response, Failed> {
        let response = self.submit(request).await?;
        exchange.stream = Some(response.stream_id().as_u32());
        self.answer(response, exchange).await
    }

    async fn submit(&self, request: &Request) -> Result<ResponseFuture, Failed> {
        let head = self.head(request).ok_or(Failed::Unfit)?;
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(head, request.body.is_empty())?;
        if !request.body.is_empty() {
            body.send_data(request.body.clone(), true)?;
        }
        Ok(response)
    }

    fn head(&self, request: &Request) -> Option<http::Request<()>> {
        let Endpoint { address, tls } = self.target;
        let scheme = if tls { "https" } else { "http" };
        let uri = format!("{scheme}://{address}{}", request.path);
        let builder = http::Request::builder().method(&request.method).uri(uri);
        let mut head = builder.version(http::Version::HTTP_2).body(()).ok()?;
        *head.headers_mut() = request.headers.clone();
        Some(head)
    }

    async fn answer(
        &self,
        response: ResponseFuture,
        exchange: &mut Exchange,
    ) -> Result<Response, Failed> {
        let (head, mut incoming) = response.await?.into_parts();
        exchange.fields = head.headers;
        exchange.evidence.seen = Seen::Part;
        let mut body = Vec::new();
        while let Some(data) = incoming.data().await {
            let data = data?;
            let kept = data.len().min(KEPT - body.len());
            body.extend_from_slice(&data[..kept]);
            incoming.flow_control().release_capacity(data.len())?;
        }
        // The end of the stream may lie in trailers.
        exchange
            .fields
            .extend(incoming.trailers().await?.unwrap_or_default());
        // HTTP/2 has no `Connection: close`; GOAWAY says the same of the connection.
        let persistence = match self.wire.going_away() {
            true => Persistence::Close,
            false => Persistence::KeepAlive,
        };
        let content_type = exchange.fields.get(http::header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        Ok(Response {
            status: head.status.as_u16(),
            persistence,
            content_type: content_type.unwrap_or_default().to_ascii_lowercase(),
            body,
        })
    }

    fn finish(&self, mut exchange: Exchange, asked: Result<Response, Failed>) -> Exchange {
        exchange.span.to = Instant::now();
        let evidence = &mut exchange.evidence;
        evidence.finally = Some(self.wire.state());
        if self.wire.spoken() {
            evidence.reuse = Reuse::Reused;
        }
        evidence.after = exchange
            .stream
            .and_then(|stream| self.wire.after_headers(stream));
        if evidence.after.is_some() {
            evidence.sent = Sent::All;
        }
        match asked {
            Ok(response) => {
                let Response {
                    status,
                    persistence,
                    ..
                } = response;
                evidence.seen = Seen::Whole {
                    status,
                    persistence,
                };
                evidence.end = End::Answer;
                exchange.response = Some(response);
            }
            Err(failed) => self.explain(&mut exchange, failed),
        }
        if let Some(stream) = exchange.stream {
            self.wire.forget(stream);
        }
        exchange
    }

    /// Turns a failure into evidence; what was overheard on the wire goes before `h2`'s summary.
    fn explain(&self, exchange: &mut Exchange, failed: Failed) {
        // A stream the library would not even open after GOAWAY has no number; it is above any.
        let stream = exchange.stream.unwrap_or(u32::MAX);
        exchange.evidence.disclaimed = self.wire.disclaimed(stream);
        let (end, error) = match failed {
            Failed::Hung => (End::Hung, "no answer within the limit".into()),
            Failed::Unfit => (End::Local, "the request cannot be sent over HTTP/2".into()),
            // What we could not understand is no end of the server's making.
            Failed::Protocol(error) if error.is_library() => (End::Garbled, error.to_string()),
            Failed::Protocol(error) => {
                let end = self.wire.end(stream);
                end.unwrap_or_else(|| (End::Reset, error.to_string()))
            }
        };
        exchange.evidence.end = end;
        exchange.error = Some(error);
    }
}

/// Says what an HTTP/2 connection is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes requests.
    Open,
    /// The server said GOAWAY: the next request belongs on another connection.
    GoingAway,
    /// The server closed it, and did not say GOAWAY.
    Closed,
}

/// Is a request that was sent, and whose answer is awaited.
pub(crate) struct Begun {
    session: Session,
    exchange: Exchange,
    response: ResponseFuture,
}

impl Begun {
    /// Reads the answer, for at most `limit`.
    pub(crate) async fn finish(self, limit: Duration) -> Exchange {
        let Begun {
            session,
            mut exchange,
            response,
        } = self;
        exchange.stream = Some(response.stream_id().as_u32());
        let asked = timeout(limit, session.answer(response, &mut exchange)).await;
        session.finish(exchange, asked.map_err(|_| Failed::Hung).flatten())
    }
}

/// Records what became of one stream.
#[derive(Debug)]
pub struct Exchange {
    evidence: Evidence,
    span: Span,
    response: Option<Response>,
    /// The headers of the answer, and the trailers.
    fields: HeaderMap,
    error: Option<String>,
    stream: Option<u32>,
}

impl Exchange {
    /// Returns what to judge the request by.
    pub fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// Returns when it began and when it was over.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Returns the answer, if it is whole.
    pub fn response(&self) -> Option<&Response> {
        self.response.as_ref()
    }

    /// Returns a header of the answer, or a trailer.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }

    /// Returns what went wrong, if anything did.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

enum Failed {
    Hung,
    Unfit,
    Protocol(h2::Error),
}

impl From<h2::Error> for Failed {
    fn from(error: h2::Error) -> Self {
        Failed::Protocol(error)
    }
}

fn unmade(wire: &Wire, from: Instant, error: h2::Error) -> Unmade {
    let state = Some(wire.state());
    let error = std::io::Error::other(error);
    Unmade::new(
        from,
        error,
        Evidence {
            before: Some(TcpState::Established),
            after: state,
            finally: state,
            ..Evidence::of_nothing(Protocol::Http2, End::Reset)
        },
    )
}
