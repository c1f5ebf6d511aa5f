//! `sw8`: Apache SkyWalking's cross process propagation headers, version 3.
//!
//! SkyWalking names traces and segments by texts, and spans by a number within a segment. What they are here:
//!
//! - A trace whose name is a UUID, or 32 hexadecimal digits, is that number. `digits.thread.sequence`, as the Java agent
//!   has it, is the number with thread and sequence folded in by exclusive or, byte by byte from the lowest. A span is
//!   its segment's number of that kind with the span's index folded in, of which the halves are folded into one. It is
//!   what the OpenTelemetry Collector makes of SkyWalking's segments, so that both are one trace.
//! - Any other name is its FNV-1a hash (draft-eastlake-fnv), of 128 bits for a trace, folded into 64 for a span.
//!
//! A name that is not the trace's hexadecimal digits is kept in the trace state as the member `sw8`, in Base64. So it
//! outlives services that speak W3C Trace Context alone, and is handed on to the next one that speaks `sw8`. There it is
//! taken only if it names that trace.
//!
//! A span of this process is written as span 0 of a segment of its own, which is the span's number in 32 digits.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

use super::digits::{hex, uuid};
use super::headers::{self, Reader, Refusal};
use super::{Parent, Sampling, SpanContext, SpanId, TraceId, TraceState};

const SW8: &str = "sw8";

/// How long its value may be, in bytes.
const LONGEST: usize = 2048;

/// How long the name of a trace may be, in bytes: as long as a trace state can hold in Base64.
const LONGEST_NAME: usize = 192;

/// How long the name of a service may be, in characters.
const LONGEST_SERVICE: usize = 50;

/// What a field says of which nothing is known; SkyWalking takes none that is empty.
const UNKNOWN: &str = "-";

/// Base64 (RFC 4648, section 4). Agents write padding, the trace state cannot.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) fn extract(reader: &mut Reader<'_>) -> Result<Option<Parent>, Refusal> {
    let Some(text) = reader.first(SW8)? else {
        return Ok(None);
    };
    if text.len() >= LONGEST {
        return Err(Refusal::TooLong);
    }
    let context = read(text).ok_or(Refusal::Garbage)?;
    Ok(Some(Parent::Span(context)))
}

/// Reads `sample-trace-segment-span-service-instance-endpoint-peer`.
fn read(text: &str) -> Option<SpanContext> {
    let fields: [&str; 8] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
    let [sample, trace, segment, span, texts @ ..] = fields;
    let sampling = match sample {
        "1" => Sampling::Accept,
        "0" => Sampling::Reject,
        _ => return None,
    };
    let name = decode(trace).filter(|name| name.len() <= LONGEST_NAME)?;
    let trace_id = trace_of(&name)?;
    let is_index = span.bytes().all(|byte| byte.is_ascii_digit());
    let index = is_index.then(|| span.parse().ok()).flatten()?;
    let span_id = span_of(&decode(segment)?, index)?;
    if texts.iter().any(|text| BASE64.decode(text).is_err()) {
        return None;
    }
    let mut context = SpanContext::remote(trace_id, span_id, sampling);
    if name != trace_id.to_string() {
        let kept = trace.trim_end_matches('=');
        context.trace_state = TraceState::default().with(SW8, kept);
    }
    Some(context)
}

/// The text of a field that has one.
fn decode(field: &str) -> Option<String> {
    let text = String::from_utf8(BASE64.decode(field).ok()?).ok()?;
    (!text.is_empty()).then_some(text)
}

/// The trace of a name.
fn trace_of(name: &str) -> Option<TraceId> {
    let number = uuid(name).or_else(|| number_of(name, 0));
    let trace_id = number.and_then(TraceId::new);
    trace_id.or_else(|| TraceId::new(hash(name.bytes())))
}

/// The span of a segment.
fn span_of(segment: &str, index: u32) -> Option<SpanId> {
    let fold = |number: u128| SpanId::new((number >> 64) as u64 ^ number as u64);
    let span_id = number_of(segment, index).and_then(fold);
    span_id.or_else(|| fold(hash(segment.bytes().chain(index.to_be_bytes()))))
}

/// The number of 32 hexadecimal digits, which a dot, a thread, a dot and a sequence may follow; with an index folded in.
fn number_of(name: &str, index: u32) -> Option<u128> {
    let (digits, rest) = name.split_at_checked(32)?;
    let (thread, sequence) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_once('.')?,
        None if rest.is_empty() => ("0", "0"),
        None => return None,
    };
    let (thread, sequence): (i64, i64) = (thread.parse().ok()?, sequence.parse().ok()?);
    // The lowest byte of each stands first; of a thread, which is a Java `long`, four are left.
    let index = u128::from(index.swap_bytes()) << 96;
    let thread = u128::from((thread as u32).swap_bytes()) << 64;
    let sequence = u128::from((sequence as u64).swap_bytes());
    Some(hex(digits, 32..=32)? ^ index ^ thread ^ sequence)
}

/// FNV-1a of 128 bits.
fn hash(bytes: impl Iterator<Item = u8>) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    })
}

pub(super) fn inject(context: &SpanContext, service: &str, headers: &mut HeaderMap) {
    let sample = u8::from(context.sampling.is_sampled());
    let kept = context.trace_state.get(SW8).and_then(decode);
    let kept = kept.filter(|name| trace_of(name) == Some(context.trace_id));
    let trace = BASE64.encode(kept.unwrap_or_else(|| context.trace_id.to_string()));
    let segment = BASE64.encode(format!("{:032x}", context.span_id.get()));
    let service: String = service.chars().take(LONGEST_SERVICE).collect();
    let (service, unknown) = (BASE64.encode(service), BASE64.encode(UNKNOWN));
    let value = format!("{sample}-{trace}-{segment}-0-{service}-{service}-{unknown}-{unknown}");
    headers::put(headers, SW8, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of these texts.
    fn header(sample: &str, trace: &str, segment: &str, span: &str) -> String {
        let (trace, segment) = (BASE64.encode(trace), BASE64.encode(segment));
        let rest = ["shop", "shop@1.2.3.4", "/cart", "pay:80"].map(|text| BASE64.encode(text));
        format!("{sample}-{trace}-{segment}-{span}-{}", rest.join("-"))
    }

    fn written(context: &SpanContext) -> String {
        let mut headers = HeaderMap::new();
        inject(context, "till", &mut headers);
        headers[SW8].to_str().unwrap().to_owned()
    }

    #[test]
    fn names_are_numbers_where_the_collector_makes_them_so() {
        let digits = "56a5e1c519ae4c76a2b8b11d92cead7f";
        let number = 0x56a5_e1c5_19ae_4c76_a2b8_b11d_92ce_ad7f;
        // Thread 12 is 0x0c; 0x0102 has its lower byte first.
        let folded = number ^ (0x0c00_0000 << 64) ^ 0x0201_0000_0000_0000;
        let table = [
            (digits.to_owned(), number),
            ("56a5e1c5-19ae-4c76-a2b8-b11d92cead7f".to_owned(), number),
            (format!("{digits}.12.258"), folded),
        ];
        for (name, expected) in table {
            assert_eq!(
                trace_of(&name).map(TraceId::get),
                Some(expected),
                "{name:?}"
            );
        }
        let halves = (number >> 64) as u64 ^ number as u64;
        assert_eq!(span_of(digits, 0).map(SpanId::get), Some(halves));
        let third = halves ^ 0x0300_0000_0000_0000;
        assert_eq!(span_of(digits, 3).map(SpanId::get), Some(third));
    }

    #[test]
    fn other_names_are_hashed_and_stay_what_they_are() {
        // Values from draft-eastlake-fnv: of nothing, and of "foobar".
        assert_eq!(
            hash([].into_iter()),
            0x6c62_272e_07bb_0142_62b8_2175_6295_c58d
        );
        assert_eq!(
            hash("foobar".bytes()),
            0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18
        );
        assert_eq!(
            trace_of("foobar").map(TraceId::get),
            Some(hash("foobar".bytes()))
        );
        assert_ne!(span_of("foobar", 0), span_of("foobar", 1));
    }

    #[test]
    fn a_name_is_handed_on_also_by_services_that_speak_w3c_alone() {
        let name = "order 7/no hex";
        let context = read(&header("1", name, "segment", "3")).unwrap();
        assert_eq!(context.sampling, Sampling::Accept);
        let state: TraceState = context.trace_state.to_string().parse().unwrap();
        let child = SpanContext {
            trace_state: state,
            ..context.child(SpanId::new(0xAB).unwrap())
        };
        let text = written(&child);
        let fields: Vec<&str> = text.split('-').collect();
        assert_eq!(decode(fields[1]).as_deref(), Some(name));
        assert_eq!(decode(fields[2]), Some(format!("{:032x}", 0xAB)));
        assert_eq!((fields[0], fields[3]), ("1", "0"));
        assert_eq!(decode(fields[4]).as_deref(), Some("till"));
        let again = read(&text).unwrap();
        assert_eq!(
            (again.trace_id, again.span_id),
            (child.trace_id, child.span_id)
        );
    }

    #[test]
    fn a_kept_name_of_another_trace_is_not_taken() {
        let mut context = read(&header("1", "one", "segment", "0")).unwrap();
        context.trace_id = TraceId::new(7).unwrap();
        let text = written(&context);
        let name = decode(text.split('-').nth(1).unwrap());
        assert_eq!(name, Some(format!("{:032x}", 7)));
    }

    #[test]
    fn eight_fields_are_whole_or_garbage() {
        let whole = header("0", "t", "s", "0");
        assert_eq!(
            read(&whole).map(|context| context.sampling),
            Some(Sampling::Reject)
        );
        assert!(read(&whole.replace('=', "")).is_some());
        let long = "n".repeat(LONGEST_NAME + 1);
        for value in [
            header("2", "t", "s", "0"),
            header("1", "", "s", "0"),
            header("1", "t", "", "0"),
            header("1", "t", "s", "-1"),
            header("1", "t", "s", "+1"),
            header("1", "t", "s", ""),
            header("1", "t", "s", "4294967296"),
            header("1", &long, "s", "0"),
            format!("{whole}-"),
            whole.replace("-0-", "-"),
            whole.replace("c2hvcA", "c2hvc!"),
            String::new(),
        ] {
            assert_eq!(read(&value), None, "{value:?}");
        }
        let longest = header("1", &"n".repeat(LONGEST_NAME), "s", "0");
        assert!(read(&longest).is_some_and(|context| !context.trace_state.is_empty()));
    }
}
