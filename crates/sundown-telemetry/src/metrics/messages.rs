//! *Decides* how metrics look in OpenTelemetry's protocol: under the names that Prometheus has for them.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::open_metrics::{self, Family, Kind, Sample};

/// When values are of, in nanoseconds since 1970: from when they count, and now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// All metrics of a text, as one message.
pub(super) fn of(text: &str, resource: &[KeyValue], times: Times) -> ExportMetricsServiceRequest {
    let families = open_metrics::read(text).into_iter();
    let metrics = families.map(|family| metric(family, times)).collect();
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: resource.to_vec(),
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn metric(family: Family, times: Times) -> Metric {
    let Family {
        name,
        help,
        kind,
        samples,
    } = family;
    let numbers = |start| {
        samples
            .iter()
            .map(|sample| number(sample, start, times.now))
            .collect()
    };
    let data = match kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points: numbers(times.start),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        Kind::Gauge => metric::Data::Gauge(Gauge {
            data_points: numbers(0),
        }),
        Kind::Histogram => metric::Data::Histogram(Histogram {
            data_points: histograms(&name, &samples, times),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
    };
    let unit = match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "",
    };
    Metric {
        name,
        description: help,
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(sample: &Sample, start: u64, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    }
}

/// Puts the lines of each histogram together: they have the same labels, but for `le`.
fn histograms(name: &str, samples: &[Sample], times: Times) -> Vec<HistogramDataPoint> {
    let mut points: Vec<HistogramDataPoint> = Vec::new();
    for sample in samples {
        let attributes = attributes(sample);
        let known = points
            .iter()
            .position(|point| point.attributes == attributes);
        let place = known.unwrap_or_else(|| {
            points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                ..HistogramDataPoint::default()
            });
            points.len() - 1
        });
        add(
            &mut points[place],
            sample,
            &sample.name[name.len().min(sample.name.len())..],
            times.now,
        );
    }
    points
}

fn add(point: &mut HistogramDataPoint, sample: &Sample, part: &str, now: u64) {
    match part {
        "_sum" => point.sum = Some(sample.value),
        "_count" => point.count = sample.value as u64,
        "_bucket" => {
            // In the text each bucket has all below it, too.
            let below: u64 = point.bucket_counts.iter().sum();
            point
                .bucket_counts
                .push((sample.value as u64).saturating_sub(below));
            let limit = sample
                .label("le")
                .and_then(|limit| limit.parse::<f64>().ok());
            point
                .explicit_bounds
                .extend(limit.filter(|limit| limit.is_finite()));
            point.exemplars.extend(exemplar_of(sample, now));
        }
        _ => {}
    }
}

fn exemplar_of(sample: &Sample, now: u64) -> Option<Exemplar> {
    let found = sample.exemplar.as_ref()?;
    let (_, trace) = found.labels.iter().find(|(name, _)| name == "trace_id")?;
    let trace = u128::from_str_radix(trace, 16).ok()?;
    Some(Exemplar {
        time_unix_nano: now,
        trace_id: trace.to_be_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(found.value)),
        ..Exemplar::default()
    })
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    let labels = sample.labels.iter().filter(|(name, _)| name != "le");
    labels.map(|(name, value)| attribute(name, value)).collect()
}

/// A text by its name.
pub(super) fn attribute(name: &str, value: &str) -> KeyValue {
    let value = any_value::Value::StringValue(value.to_owned());
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_what_open_telemetry_has_for_it() {
        let text = "# HELP took_seconds How long.\n# TYPE took_seconds histogram\n\
                    took_seconds_sum{to=\"a\"} 0.5\ntook_seconds_count{to=\"a\"} 3\n\
                    took_seconds_bucket{le=\"0.1\",to=\"a\"} 1 # {trace_id=\"5d\"} 0.05 1.0\n\
                    took_seconds_bucket{le=\"+Inf\",to=\"a\"} 3\n\
                    took_seconds_sum{to=\"b\"} 0\n\
                    # TYPE sold counter\nsold_total 7\n# TYPE open gauge\nopen 2\n# EOF\n";
        let times = Times { start: 1, now: 2 };
        let request = of(text, &[attribute("service.name", "shop")], times);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let [took, sold, open] = &metrics[..] else {
            panic!("{metrics:?}")
        };
        assert_eq!(
            (took.unit.as_str(), took.description.as_str()),
            ("s", "How long.")
        );
        let Some(metric::Data::Histogram(took)) = &took.data else {
            panic!("{took:?}")
        };
        let a = &took.data_points[0];
        assert_eq!((a.count, a.sum, a.start_time_unix_nano), (3, Some(0.5), 1));
        assert_eq!(
            (&a.bucket_counts[..], &a.explicit_bounds[..]),
            (&[1, 2][..], &[0.1][..])
        );
        assert_eq!(a.exemplars[0].trace_id.last(), Some(&0x5d));
        assert_eq!(took.data_points.len(), 2);
        let Some(metric::Data::Sum(sum)) = &sold.data else {
            panic!("{sold:?}")
        };
        assert!(sum.is_monotonic);
        assert!(matches!(&open.data, Some(metric::Data::Gauge(_))));
    }
}
