//! `cargo xtask peer NAME PORT`: one peer in the foreground.

use std::os::unix::process::CommandExt;

use anyhow::Context;

use crate::workspace::Workspace;
use crate::{Verdict, peers};

/// Build a peer and become it, so that signals reach it
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which peer: see peers/README.md
    #[arg(value_name = "NAME", env = "XTASK_PEER")]
    name: String,
    /// Where it listens, on 127.0.0.1
    #[arg(value_name = "PORT", env = "XTASK_PORT")]
    port: u16,
}

/// Replaces this process by the peer; returns only when that failed.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<Verdict> {
    let mut command = peers::command(workspace, &arguments.name, arguments.port)?;
    let cause = command.exec();
    Err(cause).with_context(|| format!("could not start peer {}", arguments.name))
}
