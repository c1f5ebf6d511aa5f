//! The body of a request, with an end to how long it may be.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{Full, Limited};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::judge::Protocol;
use super::registry::Registered;
use crate::error::BoxError;

pin_project! {
    /// The body of a request.
    ///
    /// Read it with an axum extractor, or as any [`http_body::Body`]. Its error is a
    /// `http_body_util::LengthLimitError` when it is longer than the listener allows, which axum's
    /// extractors answer with 413, and a `hyper::Error` when the client ends it early.
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
        Incoming { #[pin] incoming: Limited<Incoming>, reading: Option<Reading> },
        Full { #[pin] full: Full<Bytes> },
    }
}

impl Body {
    pub(super) fn incoming(incoming: Incoming, limit: u64, connection: &Arc<Registered>) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let streams = connection.protocol() == Protocol::Http2;
        let reading = (!streams && !incoming.is_end_stream()).then(|| Reading::begin(connection));
        Self {
            kind: Kind::Incoming {
                incoming: Limited::new(incoming, limit),
                reading,
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

/// Holds an HTTP/1 connection busy until the body is read, however long after the response: its
/// bytes are no request.
struct Reading {
    connection: Arc<Registered>,
    whole: bool,
}

impl Reading {
    fn begin(connection: &Arc<Registered>) -> Self {
        connection.body_begins();
        Self {
            connection: connection.clone(),
            whole: false,
        }
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("whole", &self.whole)
            .finish_non_exhaustive()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.connection.body_ends(self.whole);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.project().kind.project() {
            KindProjection::Incoming {
                mut incoming,
                reading,
            } => {
                let frame = ready!(incoming.as_mut().poll_frame(cx));
                if frame.is_none() || incoming.is_end_stream() {
                    if let Some(reading) = reading {
                        reading.whole = true;
                    }
                    *reading = None;
                }
                Poll::Ready(frame)
            }
            KindProjection::Full { full } => full
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
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
