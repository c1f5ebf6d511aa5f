//! A request that is not answered in full yet: its span, and its measure.

use http::StatusCode;
use tracing::Span;

use super::attributes;
use crate::metrics::Measured;
use crate::traces::SpanExt as _;

/// A request that is not answered in full yet.
pub(super) struct Open {
    span: Span,
    measured: Option<Measured>,
    is_over: bool,
}

impl Open {
    pub(super) fn new(span: Span, measured: Option<Measured>) -> Self {
        Self {
            span,
            measured,
            is_over: false,
        }
    }

    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Writes down how it was answered; `is_error` says which answers are errors.
    pub(super) fn answered(
        &mut self,
        status: StatusCode,
        is_error: impl FnOnce(StatusCode) -> bool,
    ) {
        self.span
            .record("http.response.status_code", status.as_u16());
        if is_error(status) {
            attributes::failed(&self.span, status.as_str());
        }
        if let Some(measured) = &mut self.measured {
            let context = self.span.trace_context();
            let sampled = context.filter(|context| context.sampling.is_sampled());
            measured.answered(status.as_u16());
            measured.trace(sampled.map(|context| context.trace_id.to_string()));
        }
    }

    /// Writes down that it has failed, and by which kind of failure.
    pub(super) fn failed(&mut self, kind: &str) {
        attributes::failed(&self.span, kind);
        self.over();
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
