//! Known vulnerabilities among the dependencies, where cargo-deny and its database are at hand.
//!
//! Never fetches the database: where it is missing, one line says that nothing was checked.

use std::env;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::Context;

use crate::Verdict;
use crate::workspace::Workspace;

/// Runs `cargo deny check advisories`, or says that it did not.
pub(super) fn check(workspace: &Workspace) -> anyhow::Result<Verdict> {
    let installed = workspace
        .cargo()
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        eprintln!("tidy: advisories were not checked: cargo-deny is not installed");
        return Ok(Verdict::Holds);
    }
    if !has_database() {
        eprintln!(
            "tidy: advisories were not checked: cargo-deny has no database; help: cargo deny fetch"
        );
        return Ok(Verdict::Holds);
    }
    let mut deny = workspace.cargo();
    let status = deny
        .args(["deny", "check", "--disable-fetch", "advisories"])
        .status();
    let status = status.context("could not run cargo deny")?;
    Ok(if status.success() {
        Verdict::Holds
    } else {
        Verdict::Broken
    })
}

/// Returns whether cargo-deny has a database in its usual place, `$CARGO_HOME/advisory-dbs`.
fn has_database() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let databases = home.and_then(|home| home.join("advisory-dbs").read_dir().ok());
    databases.is_some_and(|mut databases| databases.next().is_some())
}
