//! *Decides* what became of an export, from what the collector said (OTLP 1.9, "OTLP/gRPC Response", "OTLP/HTTP
//! Response").

use std::error::Error;
use std::time::Duration;

use http::{StatusCode, header, response};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What became of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was taken, but for some that the collector will never take.
    Taken {
        /// How many.
        rejected: u64,
        /// Why.
        why: String,
    },
    /// It was not, and may be the next time.
    Again {
        /// When the collector wishes to be asked again.
        after: Option<Duration>,
        /// What is in the way.
        why: String,
    },
    /// It will never be.
    Refused {
        /// What the collector says.
        why: String,
    },
}

pub(super) fn of_spans(response: ExportTraceServiceResponse) -> Answer {
    let partial = response.partial_success.unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
        why: partial.error_message,
    }
}

pub(super) fn of_metrics(response: ExportMetricsServiceResponse) -> Answer {
    let partial = response.partial_success.unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
        why: partial.error_message,
    }
}

pub(super) fn of_status(status: &Status) -> Answer {
    let after = status
        .get_details_retry_info()
        .and_then(|info| info.retry_delay);
    // What comes of the way and not of the collector has a source.
    let is_local = status.source().is_some();
    let again = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => after.is_some(),
        _ => is_local,
    };
    let why = match status.source() {
        Some(source) => chain(source),
        None => format!("{:?}: {}", status.code(), status.message()),
    };
    match again {
        true => Answer::Again { after, why },
        false => Answer::Refused { why },
    }
}

/// Of an answer over HTTP that is no success.
pub(super) fn of_head(head: &response::Parts) -> Answer {
    let why = format!("the collector answers {}", head.status);
    let seconds = head.headers.get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
    match head.status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Again {
            after: seconds.map(Duration::from_secs),
            why,
        },
        _ => Answer::Refused { why },
    }
}

/// An error and what is behind it.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    use tonic_types::ErrorDetails;

    use super::*;

    fn head(status: u16, retry_after: Option<&str>) -> response::Parts {
        let mut response = http::Response::builder().status(status);
        if let Some(seconds) = retry_after {
            response = response.header("retry-after", seconds);
        }
        response.body(()).unwrap().into_parts().0
    }

    fn is_again(answer: &Answer) -> Option<Option<Duration>> {
        match answer {
            Answer::Again { after, .. } => Some(*after),
            Answer::Taken { .. } | Answer::Refused { .. } => None,
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let second = Some(Duration::from_secs(1));
        let table = [
            (429, Some("1"), Some(second)),
            (503, Some("soon"), Some(None)),
            (502, None, Some(None)),
            (504, None, Some(None)),
            (500, None, None),
            (400, None, None),
            (401, Some("1"), None),
            (301, None, None),
        ];
        for (status, retry_after, expected) in table {
            assert_eq!(
                is_again(&of_head(&head(status, retry_after))),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn a_collector_that_is_exhausted_is_asked_again_only_where_it_says_when() {
        let unavailable = Status::unavailable("starts");
        assert_eq!(is_again(&of_status(&unavailable)), Some(None));
        let exhausted = Status::resource_exhausted("message of 5 MiB");
        assert_eq!(is_again(&of_status(&exhausted)), None);
        let delay = Some(Duration::from_millis(1500));
        let details = ErrorDetails::with_retry_info(delay);
        let soon = Status::with_error_details(Code::ResourceExhausted, "busy", details);
        assert_eq!(is_again(&of_status(&soon)), Some(delay));
        let unknown = Status::unauthenticated("no token");
        let refused = Answer::Refused {
            why: "Unauthenticated: no token".to_owned(),
        };
        assert_eq!(of_status(&unknown), refused);
        let lost = Status::from_error(Box::new(std::io::Error::other("the line is cut")));
        let again = Answer::Again {
            after: None,
            why: "the line is cut".to_owned(),
        };
        assert_eq!(of_status(&lost), again);
    }

    #[test]
    fn what_is_taken_in_part_says_how_much_is_not() {
        let partial = ExportTracePartialSuccess {
            rejected_spans: 3,
            error_message: "too old".to_owned(),
        };
        let response = ExportTraceServiceResponse {
            partial_success: Some(partial),
        };
        let expected = Answer::Taken {
            rejected: 3,
            why: "too old".to_owned(),
        };
        assert_eq!(of_spans(response), expected);
    }
}
