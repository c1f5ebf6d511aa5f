//! The services of the shop, as chores start them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use sundown_verify::plan::{Plan, Request, Requests};
use sundown_verify::process::{Process, Spawn};
use sundown_verify::{Kind, Load};

use crate::workspace::Workspace;

/// How long one may take to listen.
const PATIENCE: Duration = Duration::from_secs(40);

/// How a service is started on a free port, with its database in a folder.
pub(crate) fn service(workspace: &Workspace, folder: &Path, name: &str) -> Spawn {
    let database = format!("sqlite:{}", folder.join(format!("{name}.db")).display());
    Spawn::new(workspace.shop())
        .args([name, "--listen", "127.0.0.1:0"])
        .args(["--database", &database])
}

/// Starts it; returns where it listens.
pub(crate) async fn started(spawn: Spawn) -> anyhow::Result<(Process, SocketAddr)> {
    let mut process = spawn.start()?;
    let address = process.wait_line("ready, http on ", PATIENCE).await?;
    Ok((process, address.parse()?))
}

/// Places orders until it is dropped.
pub(crate) fn place_orders(front: SocketAddr) -> Load {
    let mut plan = Plan::against(front).with(Kind::KeepAlive, 8);
    plan.requests = Requests::every(|tag| {
        let body = format!(r#"{{"id":"order-{tag}","item":"tea","quantity":1}}"#);
        let json = HeaderValue::from_static("application/json");
        Request::post("/orders", body).header(CONTENT_TYPE, json)
    });
    Load::start(plan)
}
