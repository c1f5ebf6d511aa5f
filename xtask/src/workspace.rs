//! What cargo knows about this workspace: its folders, its packages and theirs.
//!
//! Never guesses a path from the current directory: `cargo metadata` is asked once.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The workspace that this `xtask` belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where builds go: `CARGO_TARGET_DIR`, or `target` in the root.
    pub(crate) target: PathBuf,
}

/// The part of `cargo metadata`'s answer that the chores read.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: HashSet<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

/// One package of the dependency graph, ours or not.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// One line of a package's `[dependencies]`.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal dependency, as opposed to `dev` and `build`.
    pub(crate) kind: Option<String>,
}

impl Workspace {
    /// Asks cargo for the workspace.
    ///
    /// # Errors
    /// When cargo cannot be run or cannot read the manifests.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let metadata = metadata(&["--no-deps"])?;
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
        })
    }

    /// Prepares a cargo command that runs in the root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root);
        command
    }

    /// Builds the shop as it is measured.
    ///
    /// # Errors
    /// When it does not build; cargo's own messages are on stderr.
    pub(crate) fn build_shop(&self) -> anyhow::Result<()> {
        let mut build = self.cargo();
        build.args(["build", "--quiet", "--release", "--package", "shop"]);
        let status = build.status().context("could not run cargo")?;
        ensure!(status.success(), "could not build the shop: {status}");
        Ok(())
    }

    /// Where its program is then.
    pub(crate) fn shop(&self) -> PathBuf {
        self.target.join("release/shop")
    }

    /// Returns the path as a person would write it: from the root on.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

impl Metadata {
    /// Reads the whole graph, every platform's dependencies included.
    ///
    /// # Errors
    /// When cargo cannot be run, or cannot resolve the dependencies.
    pub(crate) fn read() -> anyhow::Result<Self> {
        metadata(&[])
    }

    /// Lists the packages of this workspace.
    pub(crate) fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Lists the packages that others wrote.
    pub(crate) fn theirs(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| !self.workspace_members.contains(&package.id))
    }
}

fn metadata(arguments: &[&str]) -> anyhow::Result<Metadata> {
    let output = Command::new(cargo())
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(manifest())
        .args(arguments)
        .output()
        .context("could not run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("could not read cargo metadata's answer")
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The manifest of this package: as `cargo run` names it, or as it was when this was built.
fn manifest() -> PathBuf {
    let folder =
        env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&folder).join("Cargo.toml")
}
