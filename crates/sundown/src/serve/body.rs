//! The body of a request, with an end to how long it may be.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::{Full, LengthLimitError};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use thiserror::Error;

/// Why a request body cannot be read to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BodyError {
    /// It is longer than the listener allows. axum's extractors answer 413.
    #[error("the request body is longer than allowed")]
    TooLong(#[source] LengthLimitError),
    /// The client or the network ended it early, or it is not valid HTTP.
    #[error("the request body ended early")]
    Connection(#[source] hyper::Error),
}

pin_project! {
    /// The body of a request.
    ///
    /// Read it with an axum extractor, or as any [`http_body::Body`].
    #[derive(Debug)]
    pub struct Body {
        #[pin]
        kind: Kind,
    }
}

pin_project! {
    #[project = KindProjection]
    #[derive(Debug)]
    enum Kind {
        Incoming { #[pin] incoming: Incoming, left: u64 },
        Full { #[pin] full: Full<Bytes> },
    }
}

impl Body {
    pub(super) fn incoming(incoming: Incoming, limit: u64) -> Self {
        Self {
            kind: Kind::Incoming {
                incoming,
                left: limit,
            },
        }
    }

    /// A body of known bytes, for calling a service without a connection.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self {
            kind: Kind::Full {
                full: Full::new(bytes.into()),
            },
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.project().kind.project() {
            KindProjection::Full { full } => full
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            KindProjection::Incoming { incoming, left } => {
                let Some(frame) = ready!(incoming.poll_frame(cx)) else {
                    return Poll::Ready(None);
                };
                let frame = frame.map_err(BodyError::Connection)?;
                let length = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                match left.checked_sub(length) {
                    Some(rest) => *left = rest,
                    None => return Poll::Ready(Some(Err(too_long()))),
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Incoming { incoming, .. } => incoming.is_end_stream(),
            Kind::Full { full } => full.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Incoming { incoming, .. } => incoming.size_hint(),
            Kind::Full { full } => full.size_hint(),
        }
    }
}

/// `LengthLimitError` cannot be made from outside, and axum knows it by its type: let its own
/// crate make one.
fn too_long() -> BodyError {
    use http_body_util::{BodyExt as _, Limited};
    let over = Limited::new(Full::new(Bytes::from_static(b"x")), 0).collect();
    let error = futures_util::FutureExt::now_or_never(over)
        .and_then(Result::err)
        .and_then(|error| error.downcast::<LengthLimitError>().ok())
        .expect("one byte is over a limit of none, and is there at once");
    BodyError::TooLong(*error)
}
