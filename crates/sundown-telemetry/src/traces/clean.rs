//! Shortens what is too long in a span, and takes its secrets out.

use std::borrow::Cow;

use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

use crate::redact::{REDACTED, Redaction};

/// Bytes of a text that are kept.
const LONGEST_TEXT: usize = 8 << 10;

/// Takes secrets out of spans.
pub(super) struct Cleaner(pub(super) Redaction);

impl Cleaner {
    pub(super) fn clean(&self, span: &mut SpanData) {
        self.name(&mut span.name);
        self.attributes(&mut span.attributes);
        for event in &mut span.events.events {
            self.name(&mut event.name);
            self.attributes(&mut event.attributes);
        }
        for link in &mut span.links.links {
            self.attributes(&mut link.attributes);
        }
        if let opentelemetry::trace::Status::Error { description } = &mut span.status {
            self.name(description);
        }
    }

    fn name(&self, name: &mut Cow<'static, str>) {
        if let Cow::Owned(clean) = self.0.redact(name) {
            *name = clean.into();
        }
    }

    fn attributes(&self, attributes: &mut [KeyValue]) {
        for KeyValue { key, value, .. } in attributes {
            let hides = self.0.hides(key.as_str());
            match value {
                Value::String(_) | Value::Array(Array::String(_)) if hides => {
                    *value = REDACTED.into();
                }
                Value::String(text) => self.text(text),
                Value::Array(Array::String(texts)) => {
                    texts.iter_mut().for_each(|text| self.text(text));
                }
                _ => {}
            }
        }
    }

    fn text(&self, text: &mut StringValue) {
        if let Cow::Owned(clean) = self.0.redact(text.as_str()) {
            *text = clean.into();
        }
    }
}

/// Cuts texts that are longer than a span may have.
pub(super) fn shorten(span: &mut SpanData) {
    let attributes = span.attributes.iter_mut();
    let of_events = span.events.events.iter_mut();
    let of_events = of_events.flat_map(|event| event.attributes.iter_mut());
    for attribute in attributes.chain(of_events) {
        if let Value::String(text) = &mut attribute.value
            && text.as_str().len() > LONGEST_TEXT
        {
            let end = text.as_str().floor_char_boundary(LONGEST_TEXT);
            let more = text.as_str().len() - end;
            let kept = format!("{} [{more} bytes more]", &text.as_str()[..end]);
            *text = kept.into();
        }
    }
}
