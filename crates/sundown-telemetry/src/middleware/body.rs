//! The body of a response, whose end is that of the span.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tracing::Span;

use super::attributes;

pin_project! {
    /// The body of a response that is traced: its span ends with it.
    #[derive(Debug)]
    pub struct TracedBody<B> {
        #[pin]
        inner: B,
        open: Open,
    }
}

/// A request that is not answered in full yet.
#[derive(Debug)]
pub(super) struct Open {
    span: Span,
    is_over: bool,
}

impl Open {
    pub(super) fn new(span: Span) -> Self {
        Self {
            span,
            is_over: false,
        }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// What comes now is not for want of an answer.
    pub(super) fn over(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.is_over {
            // The client has gone, or time was up. Who is to blame is not known here.
            self.span.record("error.type", "cancelled");
        }
    }
}

impl<B: Body> TracedBody<B> {
    pub(super) fn new(inner: B, mut open: Open) -> Self {
        open.is_over |= inner.is_end_stream();
        Self { inner, open }
    }
}

impl<B: Body> Body for TracedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let polled = {
            let _inside = this.open.span.enter();
            this.inner.as_mut().poll_frame(cx)
        };
        match &polled {
            Poll::Ready(None) => this.open.over(),
            Poll::Ready(Some(Err(_))) => {
                attributes::failed(&this.open.span, "body");
                this.open.over();
            }
            Poll::Ready(Some(Ok(_))) if this.inner.is_end_stream() => this.open.over(),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: Default> Default for TracedBody<B> {
    /// One that belongs to no request.
    fn default() -> Self {
        let mut open = Open::new(Span::none());
        open.over();
        Self {
            inner: B::default(),
            open,
        }
    }
}
