//! The body of a response, whose end is that of the span.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::open::Open;

pin_project! {
    /// The body of a response that is traced: its span ends with it.
    pub struct TracedBody<B> {
        #[pin]
        inner: B,
        open: Open,
    }
}

impl<B: Body> TracedBody<B> {
    pub(super) fn new(inner: B, mut open: Open) -> Self {
        if inner.is_end_stream() {
            open.over();
        }
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
            let _inside = this.open.span().enter();
            this.inner.as_mut().poll_frame(cx)
        };
        match &polled {
            Poll::Ready(None) => this.open.over(),
            Poll::Ready(Some(Err(_))) => {
                this.open.failed("body");
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
