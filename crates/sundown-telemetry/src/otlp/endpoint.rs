//! Where a collector is.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

/// How long an export may take, unless it is said otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, by convention on port 4317.
    Grpc,
    /// Protobuf over HTTP/1.1, by convention on port 4318.
    Http,
}

/// Where a collector is, and how it is spoken to.
///
/// ```
/// use sundown_telemetry::{Endpoint, Protocol};
///
/// let endpoint = Endpoint::grpc("http://collector:4317")?.header("x-tenant", "shop")?;
/// assert_eq!(endpoint.protocol(), Protocol::Grpc);
/// // Messages go to /otlp/v1/traces.
/// let endpoint = Endpoint::http("https://collector.example.com/otlp")?;
/// # Ok::<(), sundown_telemetry::BadEndpoint>(())
/// ```
#[derive(Debug, Clone)]
pub struct Endpoint {
    base: Uri,
    protocol: Protocol,
    headers: HeaderMap,
    timeout: Duration,
}

impl Endpoint {
    /// Speaks gRPC with `http://HOST:PORT`, or `https`.
    ///
    /// # Errors
    /// If it is no such URL.
    pub fn grpc(url: &str) -> Result<Self, BadEndpoint> {
        Self::new(url, Protocol::Grpc)
    }

    /// Speaks HTTP with `http://HOST:PORT/PATH`, or `https`. Spans go to `PATH/v1/traces`.
    ///
    /// # Errors
    /// If it is no such URL.
    pub fn http(url: &str) -> Result<Self, BadEndpoint> {
        Self::new(url, Protocol::Http)
    }

    fn new(url: &str, protocol: Protocol) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint::Url(url.to_owned());
        let base = Uri::from_str(url).map_err(|_| bad())?;
        let is_http = matches!(base.scheme_str(), Some("http" | "https"));
        if !is_http || base.host().is_none_or(str::is_empty) || base.query().is_some() {
            return Err(bad());
        }
        Ok(Self {
            base,
            protocol,
            headers: HeaderMap::new(),
            timeout: TIMEOUT,
        })
    }

    /// What the environment says, by OpenTelemetry's names: `OTEL_EXPORTER_OTLP_ENDPOINT`,
    /// `OTEL_EXPORTER_OTLP_PROTOCOL` (`grpc`, `http/protobuf`), `OTEL_EXPORTER_OTLP_HEADERS` (`key=value,…`) and
    /// `OTEL_EXPORTER_OTLP_TIMEOUT` (milliseconds). `None` where it names no endpoint.
    ///
    /// # Errors
    /// If something of it cannot be read.
    pub fn from_env() -> Result<Option<Self>, BadEndpoint> {
        let variables = ["ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT"].into_iter();
        let variables = variables.filter_map(|name| {
            let value = std::env::var(format!("OTEL_EXPORTER_OTLP_{name}")).ok()?;
            (!value.is_empty()).then_some((name, value))
        });
        Self::of_variables(&variables.collect())
    }

    fn of_variables(variables: &HashMap<&str, String>) -> Result<Option<Self>, BadEndpoint> {
        let Some(url) = variables.get("ENDPOINT") else {
            return Ok(None);
        };
        let mut endpoint = match variables.get("PROTOCOL").map(String::as_str) {
            None | Some("http/protobuf") => Self::http(url)?,
            Some("grpc") => Self::grpc(url)?,
            Some(other) => return Err(BadEndpoint::Protocol(other.to_owned())),
        };
        for pair in variables
            .get("HEADERS")
            .into_iter()
            .flat_map(|all| all.split(','))
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value.trim()).decode_utf8_lossy();
            endpoint = endpoint.header(name.trim(), &value)?;
        }
        if let Some(text) = variables.get("TIMEOUT") {
            let millis = text
                .parse()
                .map_err(|_| BadEndpoint::Timeout(text.clone()))?;
            endpoint = endpoint.timeout(Duration::from_millis(millis));
        }
        Ok(Some(endpoint))
    }

    /// Sends a header with each export, as metadata over gRPC. It is never logged.
    ///
    /// # Errors
    /// If it is none.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint::Header(name.to_owned());
        let key = HeaderName::from_str(name).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
        value.set_sensitive(true);
        self.headers.insert(key, value);
        Ok(self)
    }

    /// How long an export may take, from the first byte to the last of the answer. Default 10 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How it is spoken to.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn base(&self) -> &Uri {
        &self.base
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    pub(super) fn is_tls(&self) -> bool {
        self.base.scheme_str() == Some("https")
    }

    pub(super) fn time_for_one(&self) -> Duration {
        self.timeout
    }

    /// Where messages of a kind go over HTTP.
    pub(super) fn at(&self, path: &str) -> Uri {
        let mut parts = self.base.clone().into_parts();
        let path = format!("{}/{path}", self.base.path().trim_end_matches('/'));
        parts.path_and_query = Some(PathAndQuery::try_from(path).expect("a path and a path"));
        Uri::from_parts(parts).expect("only the path is another")
    }
}

/// What is said of a collector cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadEndpoint {
    /// It is no URL of a collector.
    #[error("{0:?} is no collector: say for instance http://localhost:4317")]
    Url(String),
    /// A protocol is not known.
    #[error("{0:?} is no protocol that is spoken: say grpc or http/protobuf")]
    Protocol(String),
    /// A header is none. Its value is not told, as it may be a secret.
    #[error("the header {0:?} cannot be sent")]
    Header(String),
    /// A time is none.
    #[error("{0:?} is no number of milliseconds")]
    Timeout(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_beneath_the_path_of_the_endpoint() {
        let table = [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("http://[::1]:1/a/b/", "http://[::1]:1/a/b/v1/traces"),
        ];
        for (base, expected) in table {
            let endpoint = Endpoint::http(base).unwrap();
            assert_eq!(endpoint.at("v1/traces").to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_collector_is_refused() {
        for url in [
            "",
            "collector:4317",
            "/v1",
            "ftp://c",
            "unix:/x",
            "http://c/?a=1",
            "http://",
        ] {
            let expected = BadEndpoint::Url(url.to_owned());
            assert_eq!(Endpoint::grpc(url).unwrap_err(), expected);
        }
    }

    #[test]
    fn the_environment_is_read_by_open_telemetrys_names() {
        let read = |variables: &[(&'static str, &str)]| {
            let variables = variables
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()));
            Endpoint::of_variables(&variables.collect())
        };
        assert!(read(&[("PROTOCOL", "grpc")]).unwrap().is_none());
        let endpoint = read(&[("ENDPOINT", "http://c:4318")]).unwrap().unwrap();
        assert_eq!(endpoint.protocol(), Protocol::Http);
        let all = [
            ("ENDPOINT", "http://c:4317"),
            ("PROTOCOL", "grpc"),
            ("HEADERS", "authorization=Basic%20abc, x-tenant=shop"),
            ("TIMEOUT", "1500"),
        ];
        let endpoint = read(&all).unwrap().unwrap();
        assert_eq!(endpoint.protocol(), Protocol::Grpc);
        assert_eq!(endpoint.headers["authorization"], "Basic abc");
        assert_eq!(endpoint.headers["x-tenant"], "shop");
        assert_eq!(endpoint.timeout, Duration::from_millis(1500));
        assert!(!format!("{endpoint:?}").contains("Basic"));
        let bad = [
            (
                [("ENDPOINT", "c"), ("PROTOCOL", "grpc")],
                BadEndpoint::Url("c".into()),
            ),
            (
                [("ENDPOINT", "http://c"), ("PROTOCOL", "http/json")],
                BadEndpoint::Protocol("http/json".into()),
            ),
            (
                [("ENDPOINT", "http://c"), ("HEADERS", "a b=c")],
                BadEndpoint::Header("a b".into()),
            ),
            (
                [("ENDPOINT", "http://c"), ("TIMEOUT", "1s")],
                BadEndpoint::Timeout("1s".into()),
            ),
        ];
        for (variables, expected) in bad {
            assert_eq!(read(&variables).unwrap_err(), expected);
        }
    }
}
