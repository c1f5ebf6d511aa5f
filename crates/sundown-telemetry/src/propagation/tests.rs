use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::headers::LONGEST;
use super::*;

pub(super) fn headers_of(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// What one format says.
pub(super) fn extracted(
    extract: impl FnOnce(&mut Reader<'_>) -> Result<Option<Parent>, Refusal>,
    headers: &HeaderMap,
) -> (Option<SpanContext>, Rejected) {
    let mut reader = Reader::new(headers);
    let context = match extract(&mut reader) {
        Ok(Some(Parent::Span(context))) => Some(context),
        _ => None,
    };
    (context, reader.rejected)
}

fn request_id() -> Format {
    let name = HeaderName::from_static("x-request-id");
    Format::Vendor(Vendor::new(name, Ids::Uuid))
}

fn account() -> Format {
    let [trace, span] = ["x-acme-trace", "x-acme-span"].map(HeaderName::from_static);
    Format::Vendor(Vendor::new(trace, Ids::Decimal).span_id(span))
}

fn all() -> Vec<Format> {
    let mut formats = ORDER.to_vec();
    formats.extend([request_id(), account()]);
    formats
}

/// A request of a migration, and the one that is sent on for it.
struct Situation {
    what: &'static str,
    request: &'static [(&'static str, &'static str)],
    /// Which format wins.
    format: Option<Format>,
    /// The trace, the span and the decision that it finds.
    span: Option<(u128, u64, Sampling)>,
    /// A decision without a span.
    decision: Option<Sampling>,
    garbage: usize,
    /// What is sent on by a span 0xabc, which is beneath the one that called or begins a trace 0xdef, and in which
    /// formats.
    writing: Vec<Format>,
    onward: &'static [(&'static str, &'static str)],
}

const TRACE: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
const SPAN: u64 = 0xe457_b5a2_e4d8_6bd1;

const PARENT_01: (&str, &str) = (
    "traceparent",
    "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01",
);
const ONWARD_01: (&str, &str) = (
    "traceparent",
    "00-80f198ee56343ba864fe8b2a57d3eff7-0000000000000abc-01",
);

fn situations() -> Vec<Situation> {
    let accepted = Some((TRACE, SPAN, Sampling::Accept));
    vec![
        Situation {
            what: "new services alone",
            request: &[
                PARENT_01,
                ("tracestate", "congo=t61rcWkgMzE"),
                ("baggage", "tenant=7"),
            ],
            format: Some(Format::W3c),
            span: accepted,
            decision: None,
            garbage: 0,
            writing: vec![Format::W3c],
            onward: &[
                ONWARD_01,
                ("tracestate", "congo=t61rcWkgMzE"),
                ("baggage", "tenant=7"),
            ],
        },
        Situation {
            what: "a gateway that sends old and new headers, which agree",
            request: &[
                PARENT_01,
                ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
            ],
            format: Some(Format::W3c),
            span: accepted,
            decision: None,
            garbage: 0,
            writing: vec![Format::W3c, Format::B3Single],
            onward: &[
                ONWARD_01,
                ("b3", "80f198ee56343ba864fe8b2a57d3eff7-0000000000000abc-1"),
            ],
        },
        Situation {
            what: "a proxy that breaks the new header, before an old service",
            request: &[
                (
                    "traceparent",
                    "00-80F198EE56343BA864FE8B2A57D3EFF7-e457b5a2e4d86bd1-01",
                ),
                ("tracestate", "lost=1"),
                ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d"),
            ],
            format: Some(Format::B3Single),
            span: Some((TRACE, SPAN, Sampling::Debug)),
            decision: None,
            garbage: 1,
            writing: vec![Format::W3c, Format::B3Multi],
            onward: &[
                ONWARD_01,
                ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
                ("x-b3-spanid", "0000000000000abc"),
                ("x-b3-flags", "1"),
            ],
        },
        Situation {
            what: "an old service with many headers and ids of 64 bits",
            request: &[
                ("X-B3-TraceId", "64fe8b2a57d3eff7"),
                ("X-B3-SpanId", "e457b5a2e4d86bd1"),
                ("X-B3-ParentSpanId", "05e3ac9a4f6e3b90"),
                ("X-B3-Sampled", "0"),
            ],
            format: Some(Format::B3Multi),
            span: Some((0x64fe_8b2a_57d3_eff7, SPAN, Sampling::Reject)),
            decision: None,
            garbage: 0,
            writing: vec![Format::B3Multi],
            onward: &[
                ("x-b3-traceid", "000000000000000064fe8b2a57d3eff7"),
                ("x-b3-spanid", "0000000000000abc"),
                ("x-b3-sampled", "0"),
            ],
        },
        Situation {
            what: "a health check that an old proxy wants nowhere",
            request: &[("b3", "0"), ("uber-trace-id", "1:2:0:1")],
            format: Some(Format::B3Single),
            span: None,
            decision: Some(Sampling::Reject),
            garbage: 0,
            writing: vec![Format::B3Single],
            onward: &[("b3", "00000000000000000000000000000def-0000000000000abc-0")],
        },
        Situation {
            what: "an old gateway that escapes colons, with baggage",
            request: &[
                (
                    "uber-trace-id",
                    "80f198ee56343ba864fe8b2a57d3eff7%3Ae457b5a2e4d86bd1%3A0%3A1",
                ),
                ("uberctx-tenant", "Blaue+K%C3%BChe"),
            ],
            format: Some(Format::Jaeger),
            span: accepted,
            decision: None,
            garbage: 0,
            writing: vec![Format::W3c, Format::Jaeger],
            onward: &[
                ONWARD_01,
                ("baggage", "tenant=Blaue%20K%C3%BChe"),
                (
                    "uber-trace-id",
                    "80f198ee56343ba864fe8b2a57d3eff7:0000000000000abc:0:1",
                ),
                ("uberctx-tenant", "Blaue%20K%C3%BChe"),
            ],
        },
        Situation {
            what: "a load balancer that names a trace and no span",
            request: &[(
                "X-Amzn-Trace-Id",
                "Self=1-67891234-12456789abcdef012345678;Root=1-80f198ee-56343ba864fe8b2a57d3eff7",
            )],
            format: Some(Format::XRay),
            span: Some((TRACE, TRACE as u64, Sampling::Defer)),
            decision: None,
            garbage: 0,
            writing: vec![Format::XRay],
            onward: &[(
                "x-amzn-trace-id",
                "Root=1-80f198ee-56343ba864fe8b2a57d3eff7;Parent=0000000000000abc;Sampled=?",
            )],
        },
        Situation {
            what: "a tracer of Datadog's with ids of 128 bits",
            request: &[
                ("x-datadog-trace-id", "7277407061855694839"),
                ("x-datadog-parent-id", "16453819474850114513"),
                ("x-datadog-sampling-priority", "1"),
                ("x-datadog-tags", "_dd.p.dm=-4,_dd.p.tid=80f198ee56343ba8"),
            ],
            format: Some(Format::Datadog),
            span: accepted,
            decision: None,
            garbage: 0,
            writing: vec![Format::Datadog, Format::W3c],
            onward: &[
                ("x-datadog-trace-id", "7277407061855694839"),
                ("x-datadog-parent-id", "2748"),
                ("x-datadog-sampling-priority", "1"),
                ("x-datadog-tags", "_dd.p.tid=80f198ee56343ba8"),
                ONWARD_01,
            ],
        },
        Situation {
            what: "a Java agent of SkyWalking's, whose traces have names that are not hexadecimal",
            request: &[(
                "sw8",
                concat!(
                    "1-YTRlYzZmYzhjY2FiNGJiNGI2ODIwNjQ2OThjYzk3ZTYuNzQuMTYyMTgzODExMDQ1NTAwMDk=",
                    "-YTRlYzZmYzhjY2FiNGJiNGI2ODIwNjQ2OThjYzk3ZTYuNzQuMTYyMTgzODExMDQ1NTAwMDg=",
                    "-2-c2hvcA==-c2hvcEAxLjIuMy40-L2NhcnQ=-MTI3LjAuMC4xOjgw",
                ),
            )],
            format: Some(Format::SkyWalking),
            span: Some((
                0xa4ec_6fc8_86ab_4bb4_cf12_975a_1052_aee6,
                0x68fe_f892_96f9_e552,
                Sampling::Accept,
            )),
            decision: None,
            garbage: 0,
            writing: vec![Format::SkyWalking, Format::W3c],
            onward: &[
                (
                    "sw8",
                    concat!(
                        "1-YTRlYzZmYzhjY2FiNGJiNGI2ODIwNjQ2OThjYzk3ZTYuNzQuMTYyMTgzODExMDQ1NTAwMDk=",
                        "-MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDBhYmM=",
                        "-0-dGlsbA==-dGlsbA==-LQ==-LQ==",
                    ),
                ),
                (
                    "traceparent",
                    "00-a4ec6fc886ab4bb4cf12975a1052aee6-0000000000000abc-01",
                ),
                (
                    "tracestate",
                    "sw8=YTRlYzZmYzhjY2FiNGJiNGI2ODIwNjQ2OThjYzk3ZTYuNzQuMTYyMTgzODExMDQ1NTAwMDk",
                ),
            ],
        },
        Situation {
            what: "a vendor's header, which is a UUID",
            request: &[
                ("X-Request-Id", "80f198ee-5634-3ba8-64fe-8b2a57d3eff7"),
                ("b3", "?"),
            ],
            format: Some(request_id()),
            span: Some((TRACE, TRACE as u64, Sampling::Defer)),
            decision: None,
            garbage: 1,
            writing: vec![request_id(), account()],
            onward: &[
                ("x-request-id", "80f198ee-5634-3ba8-64fe-8b2a57d3eff7"),
                ("x-acme-trace", "171395628812617415352188477958425669623"),
                ("x-acme-span", "2748"),
            ],
        },
        Situation {
            what: "nothing but baggage",
            request: &[("baggage", "tenant=7")],
            format: None,
            span: None,
            decision: None,
            garbage: 0,
            writing: vec![Format::W3c],
            onward: &[
                (
                    "traceparent",
                    "00-00000000000000000000000000000def-0000000000000abc-01",
                ),
                ("baggage", "tenant=7"),
            ],
        },
        Situation {
            what: "garbage everywhere",
            request: &[
                ("traceparent", "x"),
                ("b3", "x"),
                ("x-b3-traceid", "x"),
                ("uber-trace-id", "x"),
                ("x-amzn-trace-id", "x"),
                ("x-datadog-trace-id", "x"),
                ("sw8", "x"),
                ("x-request-id", "x"),
                ("x-acme-trace", "x"),
                ("baggage", "x"),
            ],
            format: None,
            span: None,
            decision: None,
            garbage: 10,
            writing: vec![Format::W3c],
            onward: &[(
                "traceparent",
                "00-00000000000000000000000000000def-0000000000000abc-01",
            )],
        },
    ]
}

#[test]
fn every_situation_of_a_migration_is_understood_and_sent_on() {
    for situation in situations() {
        let what = situation.what;
        let propagation = Propagation::new(all())
            .writing(situation.writing)
            .service("till");
        let request = headers_of(situation.request);

        let found = propagation.extract(&request);

        let span = found.context().map(|context| {
            assert!(context.is_remote, "{what}");
            (
                context.trace_id.get(),
                context.span_id.get(),
                context.sampling,
            )
        });
        let decision = match found.parent {
            Parent::Decision(sampling) => Some(sampling),
            _ => None,
        };
        assert_eq!(
            (&found.format, span),
            (&situation.format, situation.span),
            "{what}"
        );
        assert_eq!(decision, situation.decision, "{what}");
        let garbage = situation.garbage;
        assert_eq!(
            found.rejected,
            Rejected {
                garbage,
                too_long: 0
            },
            "{what}"
        );

        let span_id = SpanId::new(0xABC).unwrap();
        let span = match &found.parent {
            Parent::Span(parent) => parent.child(span_id),
            Parent::Decision(sampling) => begin(span_id, *sampling),
            Parent::Nobody => begin(span_id, Sampling::Accept),
        };
        // A proxy sends on what it got, so that all of it would be stale.
        let mut onward = request.clone();
        propagation.inject(&span, &found.baggage, &mut onward);
        let names: Vec<HeaderName> = onward.keys().cloned().collect();
        let is_written =
            |name: &HeaderName| propagation.writing.iter().any(|format| format.has(name));
        for name in names.into_iter().filter(|name| !is_written(name)) {
            onward.remove(name);
        }
        let expected = headers_of(situation.onward);
        assert_eq!(onward, expected, "{what}");
    }
}

/// A trace that begins here.
fn begin(span_id: SpanId, sampling: Sampling) -> SpanContext {
    SpanContext::local(TraceId::new(0xDEF).unwrap(), span_id, sampling)
}

impl Format {
    /// Whether a header is one of this format.
    fn has(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        match self {
            Self::W3c => matches!(name, "traceparent" | "tracestate" | "baggage"),
            Self::B3Single => name == "b3",
            Self::B3Multi => name.starts_with("x-b3-"),
            Self::Jaeger => name.starts_with("uber"),
            Self::XRay => name == "x-amzn-trace-id",
            Self::Datadog => name.starts_with("x-datadog-"),
            Self::SkyWalking => name == "sw8",
            Self::Vendor(_) => name == "x-request-id" || name.starts_with("x-acme-"),
        }
    }
}

#[test]
fn the_first_in_the_order_wins_whatever_the_order_is() {
    let headers = headers_of(&[PARENT_01, ("b3", "64fe8b2a57d3eff7-e457b5a2e4d86bd1-0")]);
    for (order, expected) in [
        ([Format::W3c, Format::B3Single], (TRACE, Sampling::Accept)),
        (
            [Format::B3Single, Format::W3c],
            (TRACE & u128::from(u64::MAX), Sampling::Reject),
        ),
    ] {
        let found = Propagation::new(order.clone()).extract(&headers);
        let context = found.context().unwrap();
        assert_eq!((context.trace_id.get(), context.sampling), expected);
        assert_eq!(found.format.as_ref(), Some(&order[0]));
        assert_eq!(found.rejected, Rejected::default());
    }
}

#[test]
fn baggage_is_read_of_every_format_and_the_earlier_one_wins_a_key() {
    let headers = headers_of(&[
        ("uberctx-a", "1"),
        ("uberctx-b", "2"),
        ("baggage", "b=3,c=4"),
    ]);
    let found = Propagation::default().extract(&headers);
    let mut said: Vec<_> = found.baggage.iter().collect();
    said.sort_unstable();
    assert_eq!(said, [("a", "1"), ("b", "3"), ("c", "4")]);
    let found = Propagation::new([Format::Jaeger, Format::W3c]).extract(&headers);
    assert_eq!(found.baggage.get("b"), Some("2"));
}

#[test]
fn what_is_too_long_or_no_text_is_counted_and_the_next_is_read() {
    let mebibyte = HeaderValue::from_bytes(&vec![b'a'; 1 << 20]).unwrap();
    let mut headers = HeaderMap::new();
    for name in ["traceparent", "b3", "baggage", "uberctx-key"] {
        headers.insert(name, mebibyte.clone());
    }
    headers.insert(
        "x-b3-traceid",
        HeaderValue::from_bytes(b"\xFF\xFE").unwrap(),
    );
    headers.insert("uber-trace-id", HeaderValue::from_static("1:2:0:1"));
    headers.insert("sw8", mebibyte);
    let found = Propagation::default().extract(&headers);
    assert_eq!(found.format, Some(Format::Jaeger));
    assert!(found.baggage.is_empty());
    assert_eq!(
        found.rejected,
        Rejected {
            garbage: 1,
            too_long: 4
        }
    );
}

#[test]
fn a_trace_state_that_is_too_long_leaves_its_parent_valid() {
    let long = "v".repeat(LONGEST + 1);
    let headers = headers_of(&[PARENT_01, ("tracestate", &long)]);
    let found = Propagation::default().extract(&headers);
    assert!(
        found
            .context()
            .is_some_and(|context| context.trace_state.is_empty())
    );
    assert_eq!(
        found.rejected,
        Rejected {
            garbage: 0,
            too_long: 1
        }
    );
}

/// Names that some format reads.
const NAMES: [&str; 20] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
    "uberctx-key",
    "x-amzn-trace-id",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "x-datadog-tags",
    "sw8",
    "x-request-id",
    "x-acme-trace",
    "x-acme-span",
];

fn any_context() -> impl Strategy<Value = SpanContext> {
    let sampling = prop::sample::select(vec![
        Sampling::Accept,
        Sampling::Reject,
        Sampling::Defer,
        Sampling::Debug,
    ]);
    let ids = (any::<u128>(), any::<u64>(), any::<bool>());
    (ids, sampling).prop_filter_map("ids are not zero", |((trace, span, narrow), sampling)| {
        let trace = if narrow {
            trace & u128::from(u64::MAX)
        } else {
            trace
        };
        let context = SpanContext::local(TraceId::new(trace)?, SpanId::new(span)?, sampling);
        (context.trace_id.low() != 0).then_some(context)
    })
}

fn any_format() -> impl Strategy<Value = Format> {
    prop::sample::select(all())
}

/// Bytes that a header may have: any, or what looks like one of the formats.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let like =
        "[01dcf]{0,2}[-:;=,.%]?[0-9a-fA-F]{0,33}[-:;=,.%]{0,2}[0-9a-f]{0,17}[-:;,]?[0-9d]{0,2}";
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80),
        like.prop_map(String::into_bytes),
        "((Root|Parent|Sampled|k)=[ -~]{0,40}[;,]?){0,4}".prop_map(String::into_bytes),
    ]
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let header = (prop::sample::select(NAMES.to_vec()), any_value());
    prop::collection::vec(header, 0..8).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.append(name, value);
            }
        }
        headers
    })
}

/// What a format can say of a decision.
fn told(format: &Format, sampling: Sampling) -> Sampling {
    match (format, sampling) {
        (Format::Vendor(_), _) => Sampling::Defer,
        (Format::W3c | Format::Jaeger | Format::SkyWalking, Sampling::Defer) => Sampling::Reject,
        (Format::W3c | Format::XRay | Format::SkyWalking, Sampling::Debug) => Sampling::Accept,
        _ => sampling,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_written_is_read(context in any_context(), format in any_format(), stale in any_headers()) {
        let propagation = Propagation::new([format.clone()]).writing([format.clone()]);
        let mut headers = stale;
        propagation.inject(&context, &Baggage::default(), &mut headers);
        let found = propagation.extract(&headers);
        let names_its_span = format != request_id();
        let expected = SpanContext {
            sampling: told(&format, context.sampling),
            is_remote: true,
            span_id: match names_its_span {
                true => context.span_id,
                false => SpanId::of_root(context.trace_id),
            },
            ..context
        };
        prop_assert_eq!(found.parent, Parent::Span(expected));
        prop_assert_eq!(found.rejected, Rejected::default());
        prop_assert!(found.baggage.is_empty());
    }

    #[test]
    fn baggage_that_is_written_is_read(
        pairs in prop::collection::btree_map("[a-z0-9!#$&'*+.^_`|~-]{1,20}", any::<String>(), 0..8),
        format in prop::sample::select(vec![Format::W3c, Format::Jaeger]),
        context in any_context(),
    ) {
        let mut baggage = Baggage::default();
        for (key, value) in &pairs {
            baggage.insert(key, value)?;
        }
        let propagation = Propagation::new([format.clone()]).writing([format]);
        let mut headers = HeaderMap::new();
        propagation.inject(&context, &baggage, &mut headers);
        let found = propagation.extract(&headers).baggage;
        for (key, value) in &pairs {
            prop_assert_eq!(found.get(key), Some(value.as_str()));
        }
        prop_assert_eq!(found.iter().count(), pairs.len());
    }

    #[test]
    fn anything_is_read_or_refused(headers in any_headers()) {
        for order in [all(), all().into_iter().rev().collect()] {
            let propagation = Propagation::new(order).writing(all());
            let found = propagation.extract(&headers);
            prop_assert_eq!(found.format.is_some(), found.parent != Parent::Nobody);
            if let Some(context) = found.context() {
                prop_assert!(context.is_remote);
                propagation.inject(context, &found.baggage, &mut headers.clone());
            }
        }
    }

    #[test]
    fn garbage_in_front_never_hides_what_is_valid_behind_it(
        garbage in any_headers(),
        context in any_context(),
        front in any_format(),
        behind in any_format(),
    ) {
        let mut headers = garbage;
        Propagation::default().writing([behind.clone()]).inject(&context, &Baggage::default(), &mut headers);
        let alone = |format: &Format| Propagation::new([format.clone()]).extract(&headers);
        let (first, second) = (alone(&front), alone(&behind));
        let found = Propagation::new([front, behind]).extract(&headers);
        let winner = match first.parent {
            Parent::Nobody => second,
            _ => first,
        };
        prop_assert!(winner.context().is_some() || matches!(winner.parent, Parent::Decision(_)));
        prop_assert_eq!((found.parent, found.format), (winner.parent, winner.format));
    }
}
