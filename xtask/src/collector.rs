//! A real OpenTelemetry Collector, and what it has got.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sundown_verify::process::{Process, Spawn, free_port};

use crate::certificate;
use crate::peers::OTELCOL;
use crate::workspace::Workspace;

/// How long it may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Grpc,
    GrpcOverTls,
    HttpOverTls,
}

impl Wire {
    fn protocol(self) -> &'static str {
        match self {
            Self::Grpc | Self::GrpcOverTls => "grpc",
            Self::HttpOverTls => "http",
        }
    }
}

/// Where a collector is, or would be, with a folder for what it gets.
pub(crate) struct Place {
    wire: Wire,
    address: SocketAddr,
    folder: PathBuf,
}

/// A collector that writes what it gets to files.
pub(crate) struct Collector {
    process: Process,
    file: PathBuf,
}

/// A span that a collector has got.
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
}

impl Place {
    /// A free one.
    pub(crate) fn free(folder: &Path, wire: Wire) -> anyhow::Result<Self> {
        Ok(Self {
            wire,
            address: free_port()?,
            folder: folder.to_owned(),
        })
    }

    /// Has a process export its telemetry there.
    pub(crate) fn export_from(&self, spawn: Spawn) -> Spawn {
        let protocol = match self.wire.protocol() {
            "http" => "http/protobuf",
            other => other,
        };
        let spawn = spawn.env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let url = match self.wire {
            Wire::Grpc => format!("http://{}", self.address),
            // As the certificate calls it.
            _ => format!("https://localhost:{}", self.address.port()),
        };
        // Where there is no such file it is not asked for.
        spawn
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            .env("SSL_CERT_FILE", self.folder.join("cert.pem"))
    }
}

impl Collector {
    /// Builds it, if that is needed.
    ///
    /// # Errors
    /// When Go is missing, or it does not build.
    pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<()> {
        if let Some(missing) = OTELCOL.missing_toolchain() {
            bail!("{missing}");
        }
        OTELCOL.build(workspace)
    }

    /// Starts it at a place.
    pub(crate) async fn start(workspace: &Workspace, place: &Place) -> anyhow::Result<Self> {
        let Place {
            wire,
            address,
            folder,
        } = place;
        let mut server = json!({"endpoint": address.to_string()});
        if *wire != Wire::Grpc {
            certificate::write(folder)?;
            server["tls"] = json!({
                "cert_file": folder.join("cert.pem"),
                "key_file": folder.join("key.pem"),
            });
        }
        let file = folder.join("traces.json");
        let metrics = folder.join("metrics.json");
        let settings = json!({
            "receivers": {"otlp": {"protocols": {wire.protocol(): server}}},
            "exporters": {"file": {"path": file}, "file/metrics": {"path": metrics}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {
                    "traces": {"receivers": ["otlp"], "exporters": ["file"]},
                    "metrics": {"receivers": ["otlp"], "exporters": ["file/metrics"]},
                },
            },
        });
        // JSON is YAML.
        let config = folder.join("collector.yaml");
        fs::write(&config, settings.to_string())?;
        let program = OTELCOL.command(workspace, 0);
        let spawn = Spawn::new(program.get_program()).arg("--config");
        let mut process = spawn.arg(&config).start()?;
        let listens = process.wait_listening(*address, PATIENCE).await;
        listens.with_context(|| process.stderr())?;
        Ok(Self { process, file })
    }

    pub(crate) fn signal(&mut self, signal: i32) -> anyhow::Result<()> {
        Ok(self.process.signal(signal)?)
    }

    /// Ends it, also where it is frozen; what it has got.
    pub(crate) async fn end(mut self) -> anyhow::Result<Vec<Span>> {
        self.signal(libc::SIGCONT)?;
        self.signal(libc::SIGTERM)?;
        self.process.wait_exit(PATIENCE).await?;
        read(&fs::read_to_string(&self.file).unwrap_or_default())
    }
}

/// Reads exports, one a line.
fn read(text: &str) -> anyhow::Result<Vec<Span>> {
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for line in text.lines() {
        let export: Value = serde_json::from_str(line).context("a line of the collector's")?;
        for of_resource in list(&export, "resourceSpans") {
            let attributes = list(&of_resource["resource"], "attributes");
            let service = attributes.iter().find(|one| one["key"] == "service.name");
            let service = service.map(|one| word(&one["value"]["stringValue"]));
            let scopes = list(&of_resource, "scopeSpans").into_iter();
            all.extend(
                scopes
                    .flat_map(|scope| list(&scope, "spans"))
                    .map(|span| Span {
                        service: service.clone().unwrap_or_default(),
                        name: word(&span["name"]),
                        trace: word(&span["traceId"]),
                        id: word(&span["spanId"]),
                        parent: word(&span["parentSpanId"]),
                    }),
            );
        }
    }
    Ok(all)
}
