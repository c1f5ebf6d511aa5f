//! Which version of what a peer is, read where its build reads it.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use super::{Language, Peer};
use crate::workspace::Workspace;

/// The part of `Cargo.lock` that is read.
#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
}

/// The part of npm's `package-lock.json` that is read: packages by the folder they are installed in.
#[derive(Deserialize)]
struct PackageLock {
    packages: HashMap<String, Installed>,
}

#[derive(Deserialize)]
struct Installed {
    /// The root, which is the peer itself, has none.
    version: Option<String>,
}

impl Peer {
    /// Names the framework's version, and the toolchain's where the framework comes with it.
    ///
    /// # Errors
    /// When what the build reads cannot be read.
    pub(crate) fn version(&self, workspace: &Workspace) -> anyhow::Result<String> {
        let read = |path: &str| {
            let path = workspace.root.join(path);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let name = self.name;
        match self.language {
            Language::Rust => Ok(locked(&read("Cargo.lock")?, self.framework)?),
            Language::Go(module) => {
                let module = read(&format!("peers/{module}/go.mod"))?;
                let go = said(Command::new("go").arg("version"))?;
                let go = go.split(' ').nth(2).unwrap_or(&go);
                Ok(match required(&module) {
                    Some(version) => format!("{version}, {go}"),
                    None => go.to_owned(),
                })
            }
            Language::Node => said(Command::new("node").arg("--version")),
            Language::Npm(folder) => {
                let lock = read(&format!("peers/{folder}/package-lock.json"))?;
                let node = said(Command::new("node").arg("--version"))?;
                Ok(format!("{}, Node.js {node}", installed(&lock, folder)?))
            }
            Language::Maven => {
                let project = read(&format!("peers/{name}/pom.xml"))?;
                let version = parent(&project).context("pom.xml has no parent of a version")?;
                let java = said(Command::new("java").arg("--version"))?;
                let java = java.split(' ').nth(1).unwrap_or(&java);
                Ok(format!("{version}, Java {java}"))
            }
            Language::Python(package, _) => {
                let requirements = read(&format!("peers/{package}/requirements.txt"))?;
                let version = requirements.trim().rsplit("==").next().unwrap_or_default();
                let python = said(Command::new("python3").arg("--version"))?;
                Ok(format!("{version}, {python}"))
            }
            Language::Script => said(Command::new("python3").arg("--version")),
        }
    }
}

fn locked(lock: &str, name: &str) -> anyhow::Result<String> {
    let lock: Lock = toml::from_str(lock).context("Cargo.lock")?;
    let package = lock
        .package
        .into_iter()
        .find(|package| package.name == name);
    let package = package.with_context(|| format!("Cargo.lock has no package {name}"))?;
    Ok(package.version)
}

/// The version of a package that npm installs by its lock file.
fn installed(lock: &str, name: &str) -> anyhow::Result<String> {
    let lock: PackageLock = serde_json::from_str(lock).context("package-lock.json")?;
    let installed = lock.packages.get(&format!("node_modules/{name}"));
    let version = installed.and_then(|package| package.version.clone());
    version.with_context(|| format!("package-lock.json has no package {name}"))
}

/// The version of a Maven project's parent.
fn parent(project: &str) -> Option<&str> {
    let (_, parent) = project.split_once("<parent>")?;
    let (_, version) = parent.split_once("<version>")?;
    Some(version.split_once("</version>")?.0)
}

/// The version of the framework that a Go module requires first.
fn required(module: &str) -> Option<String> {
    let words = module
        .lines()
        .find_map(|line| line.strip_prefix("require "))?;
    Some(words.split(' ').nth(1)?.to_owned())
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().context("a toolchain's version")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_where_builds_read_them() {
        let lock = "[[package]]\nname = \"axum\"\nversion = \"0.8.9\"\n";
        assert_eq!(locked(lock, "axum").unwrap(), "0.8.9");
        assert!(locked(lock, "warp").is_err());
        let lock = r#"{"packages":{"":{},"node_modules/express":{"version":"5.3.0"}}}"#;
        assert_eq!(installed(lock, "express").unwrap(), "5.3.0");
        assert!(installed(lock, "koa").is_err());
        let project = "<project><parent><version>3.5.16</version></parent></project>";
        assert_eq!(parent(project), Some("3.5.16"));
        assert_eq!(parent("<project><version>1</version></project>"), None);
        assert_eq!(
            required("module peer\n\nrequire github.com/gin-gonic/gin v1.12.0\n").as_deref(),
            Some("v1.12.0")
        );
        assert_eq!(required("module peer\n\nrequire (\n)\n"), None);
    }
}
