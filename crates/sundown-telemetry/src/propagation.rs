//! Propagation: trace context that crosses the borders between old services and new ones.
//!
//! Reads the headers of a request in a stated order, and the first format wins whose headers are valid; garbage falls
//! back to the next. Writes what is chosen. No byte is copied of a value above 8192 bytes, and what is refused is
//! counted. Never panics, whatever the headers are; never makes an id up; knows no clock and no network.
//!
//! ```
//! use http::HeaderMap;
//! use sundown_telemetry::propagation::{Baggage, Format, Propagation, Sampling, SpanId};
//!
//! let propagation = Propagation::default().writing([Format::W3c, Format::B3Multi]);
//!
//! let mut request = HeaderMap::new();
//! request.insert("traceparent", "00-garbage".parse()?);
//! request.insert("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1".parse()?);
//! let extracted = propagation.extract(&request);
//! assert_eq!(extracted.format, Some(Format::B3Single));
//! assert_eq!(extracted.rejected.garbage, 1);
//!
//! let parent = extracted.context().ok_or("nobody calls")?;
//! assert!(parent.is_remote && parent.sampling == Sampling::Accept);
//! let span = parent.child(SpanId::new(0xABC).ok_or("zero")?);
//! let mut onward = HeaderMap::new();
//! propagation.inject(&span, &extracted.baggage, &mut onward);
//! assert_eq!(onward["traceparent"], "00-80f198ee56343ba864fe8b2a57d3eff7-0000000000000abc-01");
//! assert_eq!(onward["x-b3-spanid"], "0000000000000abc");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! OpenTelemetry's composite propagator lets the last of its formats win, also where an earlier one was valid: whoever
//! moves an order from there turns it round.

mod context;
mod trace_state;

mod baggage;
mod w3c;

mod b3;
mod datadog;
mod jaeger;
mod skywalking;
mod vendor;
mod xray;

mod digits;
mod headers;

use http::HeaderMap;

pub use self::baggage::{Baggage, NotTaken};
pub use self::context::{Sampling, SpanContext, SpanId, TraceId};
use self::headers::{Reader, Refusal};
pub use self::trace_state::{BadTraceState, TraceState};
pub use self::vendor::{Ids, Vendor};

/// Headers that carry trace context.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// W3C Trace Context and W3C Baggage: `traceparent`, `tracestate`, `baggage`.
    W3c,
    /// B3 in a single header: `b3`.
    B3Single,
    /// B3 in many headers: `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled`, `X-B3-Flags`.
    B3Multi,
    /// Jaeger: `uber-trace-id`, and `uberctx-…` for baggage.
    Jaeger,
    /// AWS X-Ray: `X-Amzn-Trace-Id`.
    XRay,
    /// Datadog: `x-datadog-trace-id`, `x-datadog-parent-id`, `x-datadog-sampling-priority`, `x-datadog-tags`.
    Datadog,
    /// Apache SkyWalking: `sw8`.
    SkyWalking,
    /// Some vendor's, or one's own.
    Vendor(Vendor),
}

/// The order in which requests are read, unless it is said otherwise.
const ORDER: [Format; 7] = [
    Format::W3c,
    Format::B3Single,
    Format::B3Multi,
    Format::Jaeger,
    Format::XRay,
    Format::Datadog,
    Format::SkyWalking,
];

/// Which formats are read, in which order, and which are written.
///
/// The default reads W3C, B3 in one header, B3 in many, Jaeger, X-Ray, Datadog and SkyWalking, and writes W3C.
#[derive(Debug, Clone)]
pub struct Propagation {
    reading: Vec<Format>,
    writing: Vec<Format>,
    service: String,
}

/// What a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Who calls.
    pub parent: Parent,
    /// Which format says so.
    pub format: Option<Format>,
    /// What all formats that are read say of the request; of two values of a key that of the earlier format.
    pub baggage: Baggage,
    /// What was refused on the way to it. Formats after the one that won are not looked at.
    pub rejected: Rejected,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// Nobody who can be named: a trace begins here.
    Nobody,
    /// Nobody, and yet it is decided whether the trace that begins here is recorded (B3).
    Decision(Sampling),
    /// A span.
    Span(SpanContext),
}

/// How much of a request's headers was refused: trace contexts, trace states, headers and members of baggage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rejected {
    /// What is not of its format.
    pub garbage: usize,
    /// What is longer, or more, than is taken.
    pub too_long: usize,
}

impl Default for Propagation {
    fn default() -> Self {
        Self::new(ORDER)
    }
}

impl Propagation {
    /// Reads formats in an order, and writes W3C.
    pub fn new(order: impl IntoIterator<Item = Format>) -> Self {
        Self {
            reading: order.into_iter().collect(),
            writing: vec![Format::W3c],
            service: String::from("unknown"),
        }
    }

    /// Reads these formats, too, where none before them is valid.
    #[must_use]
    pub fn also_reading(mut self, formats: impl IntoIterator<Item = Format>) -> Self {
        self.reading.extend(formats);
        self
    }

    /// Writes these formats, and no others.
    #[must_use]
    pub fn writing(mut self, formats: impl IntoIterator<Item = Format>) -> Self {
        self.writing = formats.into_iter().collect();
        self
    }

    /// Names this service, which is a part of what SkyWalking's format says.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = name.into();
        self
    }

    /// Reads who calls.
    pub fn extract(&self, headers: &HeaderMap) -> Extracted {
        let mut reader = Reader::new(headers);
        let (mut parent, mut winner) = (Parent::Nobody, None);
        for format in &self.reading {
            match format.extract(&mut reader) {
                Ok(Some(found)) => {
                    (parent, winner) = (found, Some(format.clone()));
                    break;
                }
                Ok(None) => {}
                Err(refusal) => reader.refuse(refusal),
            }
        }
        let mut baggage = Baggage::default();
        for format in &self.reading {
            let more = format.extract_baggage(&mut reader);
            baggage.complete(more, &mut reader);
        }
        Extracted {
            parent,
            format: winner,
            baggage,
            rejected: reader.rejected,
        }
    }

    /// Writes who calls, in the place of what headers of the same formats said before.
    pub fn inject(&self, context: &SpanContext, baggage: &Baggage, headers: &mut HeaderMap) {
        for format in &self.writing {
            match format {
                Format::W3c => {
                    w3c::inject(context, headers);
                    baggage::inject(baggage, headers);
                }
                Format::B3Single => b3::inject_single(context, headers),
                Format::B3Multi => b3::inject_multi(context, headers),
                Format::Jaeger => jaeger::inject(context, baggage, headers),
                Format::XRay => xray::inject(context, headers),
                Format::Datadog => datadog::inject(context, headers),
                Format::SkyWalking => skywalking::inject(context, &self.service, headers),
                Format::Vendor(vendor) => vendor.inject(context, headers),
            }
        }
    }
}

impl Format {
    /// Reads who calls, if its headers are there.
    fn extract(&self, reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
        match self {
            Self::W3c => w3c::extract(reader),
            Self::B3Single => b3::extract_single(reader),
            Self::B3Multi => b3::extract_multi(reader),
            Self::Jaeger => jaeger::extract(reader),
            Self::XRay => xray::extract(reader),
            Self::Datadog => datadog::extract(reader),
            Self::SkyWalking => skywalking::extract(reader),
            Self::Vendor(vendor) => vendor.extract(reader),
        }
    }

    fn extract_baggage(&self, reader: &mut Reader<'_>) -> Baggage {
        match self {
            Self::W3c => baggage::extract(reader),
            Self::Jaeger => jaeger::extract_baggage(reader),
            _ => Baggage::default(),
        }
    }
}

impl Extracted {
    /// The span that calls, if one does.
    pub fn context(&self) -> Option<&SpanContext> {
        match &self.parent {
            Parent::Span(context) => Some(context),
            Parent::Nobody | Parent::Decision(_) => None,
        }
    }
}

/// See `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    use http::{HeaderName, HeaderValue};

    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let [name, trace, span] =
        ["x-request-id", "x-acme-trace", "x-acme-span"].map(HeaderName::from_static);
    let mut formats = ORDER.to_vec();
    formats.push(Format::Vendor(Vendor::new(name, Ids::Uuid)));
    formats.push(Format::Vendor(
        Vendor::new(trace, Ids::Decimal).span_id(span),
    ));
    for format in formats {
        let propagation = Propagation::new([format.clone()]).writing([format.clone()]);
        let found = propagation.extract(&headers);
        // Formats in front that are garbage hide nothing.
        let behind = Propagation::new([Format::XRay, format]).extract(&headers);
        assert!(found.format.is_none() || behind.format.is_some());
        let Some(context) = found.context() else {
            continue;
        };
        propagation.inject(context, &found.baggage, &mut headers);
        let again = propagation.extract(&headers);
        let is_same = again.context().is_some_and(|again| {
            again.trace_id == context.trace_id && again.trace_state == context.trace_state
        });
        assert!(is_same, "{context:?} became {:?}", again.parent);
        assert_eq!(again.baggage.iter().count(), found.baggage.iter().count());
        assert_eq!(again.rejected, Rejected::default());
    }
}

#[cfg(test)]
mod tests;
