//! A receiver of traces and metrics by OpenTelemetry's protocol, over gRPC and HTTP on one port, as moody as it is told to be.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::sync::oneshot;
use tonic::{Request, Status};

/// How a collector takes what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It does.
    Takes,
    /// All but this many of each export.
    TakesAllBut(i64),
    /// It says that it cannot at the moment.
    Unavailable,
    /// It says that it never will.
    Refuses,
    /// It never answers.
    Silent,
}

/// A span, and which service sent it.
#[derive(Debug, Clone)]
pub struct Received {
    /// By `service.name`.
    pub service: String,
    /// The span.
    pub span: Span,
}

impl Received {
    /// The trace that it is of, as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Its id, as 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// That of its parent; empty if it has none.
    pub fn parent_id(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// An attribute, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.span.attributes, name)
    }
}

/// An attribute of many, as text.
pub fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(truth) => truth.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A receiver that runs until it is dropped.
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    mood: Mutex<Mood>,
    received: Mutex<Vec<Received>>,
    /// Those of the last export.
    metrics: Mutex<Vec<Metric>>,
}

impl Collector {
    /// Starts one on a free port.
    pub fn start(mood: Mood) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), mood)
    }

    /// Starts one at an address.
    pub fn start_at(address: SocketAddr, mood: Mood) -> Self {
        let listener = TcpListener::bind(address).expect("a loopback address can be had");
        let address = listener.local_addr().expect("it is bound");
        listener
            .set_nonblocking(true)
            .expect("a socket can be told");
        let shared = Arc::new(Shared {
            mood: Mutex::new(mood),
            received: Mutex::default(),
            metrics: Mutex::default(),
        });
        let (end, ended) = oneshot::channel();
        let serves = shared.clone();
        let thread = std::thread::spawn(move || serve(listener, serves, ended));
        Self {
            address,
            shared,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes how it takes what it is given.
    pub fn set_mood(&self, mood: Mood) {
        *self.shared.mood.lock().expect("nobody panics with it") = mood;
    }

    /// The metrics that it has taken last.
    pub fn metrics(&self) -> Vec<Metric> {
        let metrics = self.shared.metrics.lock();
        metrics.expect("nobody panics with it").clone()
    }

    /// What it has taken so far.
    pub fn received(&self) -> Vec<Received> {
        self.shared
            .received
            .lock()
            .expect("nobody panics with it")
            .clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>, ended: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("it does not block");
        let grpc = TraceServiceServer::new(Receiver(shared.clone()));
        let of_metrics = MetricsServiceServer::new(Receiver(shared.clone()));
        let http = axum::Router::new()
            .route("/v1/traces", post(by_http))
            .route("/v1/metrics", post(metrics_by_http))
            .with_state(shared);
        let router = tonic::service::Routes::new(grpc)
            .add_service(of_metrics)
            .into_axum_router()
            .merge(http);
        tokio::select! {
            _ = axum::serve(listener, router) => {}
            _ = ended => {}
        }
    });
    runtime.shutdown_background();
}

struct Receiver(Arc<Shared>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let answer = self.0.take(request.into_inner()).await;
        answer.map(tonic::Response::new)
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        let answer = self.0.take_metrics(request.into_inner()).await;
        answer.map(tonic::Response::new)
    }
}

async fn metrics_by_http(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let Ok(request) = ExportMetricsServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match shared.take_metrics(request).await {
        Ok(response) => response.encode_to_vec().into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn by_http(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    match shared.take(request).await {
        Ok(response) => response.encode_to_vec().into_response(),
        Err(status) if status.code() == tonic::Code::Unavailable => {
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

impl Shared {
    /// How much of what it is given it leaves, if it takes any.
    async fn leaves(&self) -> Result<i64, Status> {
        let mood = *self.mood.lock().expect("nobody panics with it");
        match mood {
            Mood::Takes => Ok(0),
            Mood::TakesAllBut(spans) => Ok(spans),
            Mood::Unavailable => Err(Status::unavailable("not now")),
            Mood::Refuses => Err(Status::invalid_argument("never")),
            Mood::Silent => std::future::pending().await,
        }
    }

    async fn take_metrics(
        &self,
        request: ExportMetricsServiceRequest,
    ) -> Result<ExportMetricsServiceResponse, Status> {
        self.leaves().await?;
        let of_resources = request.resource_metrics.into_iter();
        let of_scopes = of_resources.flat_map(|resource| resource.scope_metrics);
        let metrics = of_scopes.flat_map(|scope| scope.metrics).collect();
        *self.metrics.lock().expect("nobody panics with it") = metrics;
        Ok(ExportMetricsServiceResponse::default())
    }

    async fn take(
        &self,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Status> {
        let leaves = self.leaves().await?;
        let mut spans = spans_of(request);
        spans.truncate(
            spans
                .len()
                .saturating_sub(usize::try_from(leaves).unwrap_or(0)),
        );
        let mut received = self.received.lock().expect("nobody panics with it");
        received.append(&mut spans);
        Ok(ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans: leaves,
                error_message: String::new(),
            }),
        })
    }
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Received> {
    let mut all = Vec::new();
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.unwrap_or_default().attributes;
        let service = attribute(&attributes, "service.name").unwrap_or_default();
        let spans = of_resource.scope_spans.into_iter();
        all.extend(spans.flat_map(|scope| scope.spans).map(|span| Received {
            service: service.clone(),
            span,
        }));
    }
    all
}
