//! Hands telemetry to a collector by the OpenTelemetry Protocol (OTLP 1.9): over gRPC, or as protobuf over HTTP.
//!
//! Tries once for each call, and says what became of it: whether to try again is decided by whoever calls.

mod answer;
mod endpoint;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::builderstates::WantsProtocols1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tonic::body::Body;
use tonic::metadata::MetadataMap;

pub(crate) use self::answer::Answer;
pub use self::endpoint::{BadEndpoint, Endpoint, Protocol};

/// Bytes that are read of an answer; a longer one is none.
const LONGEST_ANSWER: usize = 64 << 10;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection without requests is kept.
const IDLE: Duration = Duration::from_secs(60);

type HttpClient = Client<HttpsConnector<HttpConnector>, Body>;

/// A way to a collector.
pub(crate) struct Exporter {
    endpoint: Endpoint,
    client: HttpClient,
}

impl Exporter {
    /// Prepares the way; nothing is sent yet.
    ///
    /// # Errors
    /// If the system has no certificates to know a collector by.
    pub(crate) fn new(endpoint: Endpoint) -> io::Result<Self> {
        let connector = connector(endpoint.is_tls())?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
        let client = match endpoint.protocol() {
            Protocol::Grpc => client
                .http2_only(true)
                .build(connector.enable_http2().wrap_connector(tcp)),
            Protocol::Http => client.build(connector.enable_http1().wrap_connector(tcp)),
        };
        Ok(Self { endpoint, client })
    }

    /// How long one export may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.endpoint.time_for_one()
    }

    /// Hands spans over.
    pub(crate) async fn spans(&self, spans: ExportTraceServiceRequest) -> Answer {
        match self.endpoint.protocol() {
            Protocol::Grpc => {
                let origin = self.endpoint.base().clone();
                let mut client = TraceServiceClient::with_origin(self.client.clone(), origin);
                let result = client.export(self.with_headers(spans)).await;
                by_grpc(result, answer::of_spans)
            }
            Protocol::Http => self.post("v1/traces", &spans, answer::of_spans).await,
        }
    }

    /// Hands metrics over.
    pub(crate) async fn metrics(&self, metrics: ExportMetricsServiceRequest) -> Answer {
        match self.endpoint.protocol() {
            Protocol::Grpc => {
                let origin = self.endpoint.base().clone();
                let mut client = MetricsServiceClient::with_origin(self.client.clone(), origin);
                let result = client.export(self.with_headers(metrics)).await;
                by_grpc(result, answer::of_metrics)
            }
            Protocol::Http => {
                let answer = self.post("v1/metrics", &metrics, answer::of_metrics);
                answer.await
            }
        }
    }

    fn with_headers<M>(&self, message: M) -> tonic::Request<M> {
        let metadata = MetadataMap::from_headers(self.endpoint.headers().clone());
        tonic::Request::from_parts(metadata, tonic::Extensions::default(), message)
    }

    /// Posts a message; `of` reads what is answered to it.
    async fn post<R: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
        of: fn(R) -> Answer,
    ) -> Answer {
        let mut request = Request::post(self.endpoint.at(path));
        let headers = request.headers_mut().expect("an endpoint is a URI");
        headers.clone_from(self.endpoint.headers());
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(header::CONTENT_TYPE, protobuf);
        let message = Bytes::from(message.encode_to_vec());
        let request = request
            .body(Body::new(Full::new(message)))
            .expect("an endpoint is a URI");
        let (head, body) = match self.client.request(request).await {
            Ok(response) => response.into_parts(),
            Err(error) => return again(&error),
        };
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        if !head.status.is_success() {
            return answer::of_head(&head);
        }
        match body {
            Ok(body) => R::decode(body.to_bytes()).map_or_else(|error| again(&error), of),
            Err(error) => again(&*error),
        }
    }
}

fn by_grpc<R>(result: Result<tonic::Response<R>, tonic::Status>, of: fn(R) -> Answer) -> Answer {
    match result {
        Ok(response) => of(response.into_inner()),
        Err(status) => answer::of_status(&status),
    }
}

fn again(error: &dyn Error) -> Answer {
    Answer::Again {
        after: None,
        why: answer::chain(error),
    }
}

fn connector(is_tls: bool) -> io::Result<HttpsConnectorBuilder<WantsProtocols1>> {
    // The process's own choice of cryptography is not asked for, and not made.
    let provider = Arc::new(ring::default_provider());
    let builder = HttpsConnectorBuilder::new();
    if is_tls {
        let builder = builder.with_provider_and_native_roots(provider)?;
        return Ok(builder.https_only());
    }
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Ok(builder.with_tls_config(config).https_or_http())
}
