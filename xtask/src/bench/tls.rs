//! How many trivial requests a core answers in a second under TLS: throughput's load, beside axum-server.
//!
//! Hands are shaken before anything is measured: what counts are records, not handshakes. The client decrypts
//! and encrypts what the server does, with the same library, on the other core.

use super::Bench;
use super::findings::Findings;
use super::side::{self, against};
use super::throughput::{how, measure, rows, throughput_claim};
use crate::certificate;
use crate::folder::Folder;

/// Which server is the baseline.
pub(super) const BASELINE: &str = "axum-server";

/// Measures all sides that serve TLS.
pub(super) async fn run(bench: &Bench<'_>) -> anyhow::Result<Findings> {
    let folder = Folder::new("bench-tls")?;
    let trust = certificate::write(folder.path())?;
    let sides = against(BASELINE, bench.against)?;
    let sides = side::under_tls(sides, folder.path(), &trust);
    let measured = measure(bench, "tls", &sides).await?;
    Ok(Findings {
        subject: "tls",
        how: how(bench, "kept-alive connections under TLS"),
        commands: bench.commands(&sides, bench.server_core()),
        rows: rows(&sides, &measured),
        claims: vec![throughput_claim(
            "throughput under TLS, sundown / axum-server, of the A/A control",
            &measured,
        )],
    })
}
