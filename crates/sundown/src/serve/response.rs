//! The body of a response: it tells when it ends and whether it was whole, and a stop may end it between
//! two records.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::exchange::Exchange;
use super::judge::Protocol;
use super::parting::{Course, Parting};
use super::registry::Outcome;
use crate::error::BoxError;

pin_project! {
    /// A response body that tells when it ends, and whether it was whole.
    pub(super) struct Tracked<B> {
        #[pin]
        body: Option<B>,
        parting: Option<Parting>,
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
        let whole = self.whole || self.exchange.bodiless || self.declared == Some(0);
        if whole && self.exchange.outcome == Outcome::Open {
            self.exchange.outcome = Outcome::Finished;
        }
    }
}

impl<B: HttpBody<Data = Bytes>> Tracked<B> {
    pub(super) fn new(body: Option<B>, exchange: Exchange) -> Self {
        let whole = body.as_ref().is_none_or(HttpBody::is_end_stream);
        let declared = body.as_ref().and_then(|body| body.size_hint().exact());
        Self {
            body,
            parting: None,
            end: End {
                exchange,
                whole,
                declared,
            },
        }
    }
}

/// What comes after the head of a response.
pub(super) enum Follows {
    /// A body that ends by itself.
    Body,
    /// Nothing, whatever the head declares.
    Nothing,
    /// A body that a stop may have to end.
    Stream(Parting),
    /// Another protocol.
    Upgrade { websocket: bool },
}

impl<B> Tracked<B> {
    /// Says what comes after this head.
    pub(super) fn follows(&self, status: StatusCode, headers: &HeaderMap) -> Follows {
        let End {
            exchange,
            whole,
            declared,
        } = &self.end;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let upgrade = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
            let websocket = upgrade.is_some_and(|to| to.eq_ignore_ascii_case(b"websocket"));
            return Follows::Upgrade { websocket };
        }
        if exchange.connects && status.is_success() {
            return Follows::Upgrade { websocket: false };
        }
        if status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Follows::Nothing;
        }
        if *whole
            || declared.is_some()
            || exchange.bodiless
            || headers.contains_key(header::CONTENT_LENGTH)
        {
            return Follows::Body;
        }
        Follows::Stream(Parting::of(headers))
    }

    pub(super) fn note(&mut self, follows: Follows) {
        let exchange = &mut self.end.exchange;
        match follows {
            Follows::Body => {}
            Follows::Nothing => exchange.bodiless = true,
            Follows::Stream(parting) => self.parting = Some(parting),
            Follows::Upgrade { websocket } => {
                exchange.bodiless = true;
                exchange.upgraded = true;
                if exchange.connection.protocol() == Protocol::Http2 {
                    exchange.connection.has_tunnel();
                } else if websocket {
                    exchange.connection.becomes_websocket();
                }
            }
        }
    }
}

impl<B> HttpBody for Tracked<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let frame = loop {
            let Some(body) = this.body.as_mut().as_pin_mut() else {
                return Poll::Ready(None);
            };
            let (exchange, parting) = (&mut this.end.exchange, this.parting.as_mut());
            match parting.map_or(Course::On, |parting| parting.course(&exchange.connection)) {
                Course::On => {}
                Course::Ends(last) => {
                    // Whoever makes it hears of its end by that.
                    this.body.set(None);
                    exchange.outcome = Outcome::EndedEarly;
                    return Poll::Ready(last.map(Ok));
                }
                Course::Breaks => {
                    this.body.set(None);
                    exchange.outcome = Outcome::Broken;
                    return Poll::Ready(Some(Err(BROKEN.into())));
                }
            }
            match (body.poll_frame(cx), &this.parting) {
                (Poll::Ready(frame), _) => break frame,
                (Poll::Pending, Some(parting))
                    if parting.wait(&exchange.connection, exchange.ticket, cx) => {}
                (Poll::Pending, _) => return Poll::Pending,
            }
        };
        let Some(Ok(mut frame)) = frame else {
            this.end.whole |= frame.is_none();
            return Poll::Ready(frame.map(|failed| failed.map_err(Into::into)));
        };
        if let (Some(parting), Some(data)) = (this.parting, frame.data_mut()) {
            parting.pass(data);
        }
        let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        this.end.declared = this.end.declared.map(|left| left.saturating_sub(length));
        let over = this
            .body
            .as_ref()
            .as_pin_ref()
            .is_none_or(|body| body.is_end_stream());
        this.end.whole = over || frame.is_trailers();
        Poll::Ready(Some(Ok(frame)))
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

/// What hyper is told of a body that may stay no longer.
const BROKEN: &str = "the service is stopping and the time of this stream is over";
