//! The server that is right in every respect, or has one fault planted: here without.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use sundown_verify::process::SignalTo;
use sundown_verify::service::{Declared, Ledger};
use sundown_verify::{Offers, Service, Target};

use crate::workspace::Workspace;

/// Builds the server, for speed.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "sundown-verify",
    ]);
    cargo.args(["--example", "planted"]);
    ensure!(cargo.status()?.success(), "the server could not be built");
    Ok(())
}

/// The server without a fault, and all that it may be asked.
pub(crate) fn service(workspace: &Workspace, store: &Path, tls: bool) -> Service {
    let planted = workspace.target.join("release/examples/planted");
    let mut command = vec![planted.into(), "{port}".into(), "none".into(), store.into()];
    command.extend(tls.then(|| "tls".into()));
    Service {
        target: Target::Command(command),
        offers: Offers {
            fast: "/fast".to_owned(),
            slow: Some("/slow".to_owned()),
            big: Some("/big".to_owned()),
            upload: Some("/upload".to_owned()),
            endless: Some("/endless".to_owned()),
            stream: Some("/stream".to_owned()),
            sse: Some("/sse".to_owned()),
            ws: Some("/ws".to_owned()),
            ready: Some("/ready".to_owned()),
            live: Some("/live".to_owned()),
            lame_duck: Duration::from_millis(400),
            restart: Some(["kill", "-HUP", "{pid}"].map(Into::into).to_vec()),
            ledger: Some(Ledger {
                post: "/ledger/{id}".to_owned(),
                body: String::new(),
                read: Some("/ledger/{id}".to_owned()),
                invariant: None,
            }),
            grpc: Some("/planted.Streams/Watch".to_owned()),
            http2: true,
            no_http1: false,
            tls,
        },
        signal: libc::SIGTERM,
        signal_to: SignalTo::Leader,
        declared: Declared::default(),
        grace: Duration::from_secs(5),
        start_limit: Duration::from_secs(30),
    }
}
