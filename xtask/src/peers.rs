//! How each peer is built and started: the one table of it, for every chore that needs peers.
//!
//! Never installs a toolchain: a peer whose toolchain is missing is unavailable, with the reason.

pub(crate) mod contract;
mod http;
mod process;
mod version;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::workspace::Workspace;

/// A server of `peers/` and how to get it running.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) framework: &'static str,
    language: Language,
    pub(crate) stop: Stop,
    /// Whether it speaks HTTP/2 without TLS as its documentation sets it up.
    pub(crate) http2: bool,
    /// Whether `/events` has a gap and a count.
    pub(crate) paced: bool,
    /// Whether it answers `/ws`.
    pub(crate) ws: bool,
    /// A gRPC call that it streams, if it has one.
    pub(crate) grpc: Option<&'static str>,
    /// Whether it serves TLS on a second port, with the certificate in a folder.
    pub(crate) tls: bool,
    /// Where it tells its state, if it does.
    pub(crate) probes: Option<Probes>,
}

/// The paths that a supervisor asks.
#[derive(Debug)]
pub(crate) struct Probes {
    /// Whether it wants more work.
    pub(crate) ready: &'static str,
    /// Whether it is alive.
    pub(crate) live: &'static str,
}

/// What builds and starts a peer.
#[derive(Clone, Copy, Debug)]
enum Language {
    /// A binary `peer-NAME` of the crate `peers`.
    Rust,
    /// A Go module in `peers/` of this name; a peer of another name is the same program, which gets
    /// the word `default` behind the port.
    Go(&'static str),
    /// A script `peers/NAME/server.mjs`.
    Node,
    /// The same with packages: npm installs them into the target folder, and the script is copied
    /// beside them, because Node looks for packages from the script's folder upwards. A peer of another name
    /// than this folder's is the same program, which gets the word `default` behind the port.
    Npm(&'static str),
    /// A Maven project, which makes one jar.
    Maven,
    /// A package in an environment of its own, with these arguments and then those that name the port and
    /// the application in `peers/PACKAGE/server.py`; peers of one package share both.
    Python(&'static str, &'static [&'static str]),
    /// A script `peers/NAME/server.py` that needs nothing but Python.
    Script,
}

/// What a peer does at SIGTERM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stop {
    /// It finishes what is in flight and exits 0.
    Graceful,
    /// It finishes what is in flight and then lets the signal end it.
    GracefulBySignal,
    /// It finishes what is in flight and exits with 128 and the signal's number, as a JVM does.
    GracefulByCode,
    /// It has no handler, so that the kernel ends it.
    ByKernel,
}

/// Every peer.
#[rustfmt::skip] // A table reads best with a row a line.
pub(crate) const PEERS: &[Peer] = &[
    Peer { name: "axum", framework: "axum", language: Language::Rust, stop: Stop::Graceful, http2: true, paced: false, ws: true, grpc: None, tls: false, probes: None },
    Peer { name: "axum-server", framework: "axum-server", language: Language::Rust, stop: Stop::Graceful, http2: true, paced: false, ws: true, grpc: None, tls: true, probes: None },
    Peer { name: "actix", framework: "actix-web", language: Language::Rust, stop: Stop::Graceful, http2: false, paced: false, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "hyper", framework: "hyper", language: Language::Rust, stop: Stop::ByKernel, http2: false, paced: false, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "sundown", framework: "sundown", language: Language::Rust, stop: Stop::Graceful, http2: true, paced: false, ws: true, grpc: Some("/grpc.health.v1.Health/Watch"), tls: true, probes: None },
    Peer { name: "go-net-http", framework: "Go net/http", language: Language::Go("go-net-http"), stop: Stop::Graceful, http2: false, paced: false, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "gin", framework: "Gin", language: Language::Go("gin"), stop: Stop::Graceful, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "gin-default", framework: "Gin, Run", language: Language::Go("gin"), stop: Stop::ByKernel, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "beego", framework: "Beego", language: Language::Go("beego"), stop: Stop::Graceful, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "beego-default", framework: "Beego, its defaults", language: Language::Go("beego"), stop: Stop::ByKernel, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "node", framework: "node:http", language: Language::Node, stop: Stop::Graceful, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "node-default", framework: "node:http, no handler", language: Language::Node, stop: Stop::ByKernel, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "express", framework: "Express", language: Language::Npm("express"), stop: Stop::Graceful, http2: false, paced: false, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "express-default", framework: "Express, no handler", language: Language::Npm("express"), stop: Stop::ByKernel, http2: false, paced: false, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "spring", framework: "Spring Boot", language: Language::Maven, stop: Stop::GracefulByCode, http2: false, paced: false, ws: false, grpc: None, tls: false, probes: Some(ACTUATOR) },
    Peer { name: "uvicorn", framework: "uvicorn", language: Language::Python("uvicorn", &["--host=127.0.0.1", "--log-level=warning", "--app-dir"]), stop: Stop::GracefulBySignal, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "gunicorn", framework: "gunicorn", language: Language::Python("gunicorn", &["--workers=2", "--threads=32", "--log-level=warning", "--chdir"]), stop: Stop::Graceful, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "gunicorn-sync", framework: "gunicorn, sync", language: Language::Python("gunicorn", &["--workers=4", "--log-level=warning", "--chdir"]), stop: Stop::Graceful, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "python-threads", framework: "Python http.server", language: Language::Script, stop: Stop::ByKernel, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
    Peer { name: "flask", framework: "Flask, its own server", language: Language::Python("flask", &["--app"]), stop: Stop::ByKernel, http2: false, paced: true, ws: false, grpc: None, tls: false, probes: None },
];

/// One that logs each request as it is told to; not for comparison with other frameworks.
pub(crate) static LOGS: Peer = Peer {
    name: "logs",
    framework: "sundown, logging",
    language: Language::Rust,
    stop: Stop::Graceful,
    http2: true,
    paced: false,
    ws: true,
    grpc: None,
    tls: false,
    probes: None,
};

/// An OpenTelemetry Collector. It is started with settings in a file.
pub(crate) static OTELCOL: Peer = no_server(
    "otelcol",
    "OpenTelemetry Collector",
    Language::Go("otelcol"),
);

/// A relay that traces. It is told whom it relays to.
pub(crate) static RELAY: Peer =
    no_server("relay", "Go net/http, OpenTelemetry", Language::Go("relay"));

/// An Elasticsearch of one node. It is told its folder, too.
pub(crate) static ELASTICSEARCH: Peer =
    no_server("elasticsearch", "Elasticsearch", Language::Maven);

/// One that others are tried with; what a server offers is not asked of it.
const fn no_server(name: &'static str, framework: &'static str, language: Language) -> Peer {
    Peer {
        name,
        framework,
        language,
        stop: Stop::Graceful,
        http2: false,
        paced: false,
        ws: false,
        grpc: None,
        tls: false,
        probes: None,
    }
}

/// The probes of Spring Boot's actuator.
const ACTUATOR: Probes = Probes {
    ready: "/actuator/health/readiness",
    live: "/actuator/health/liveness",
};

/// Builds the peer called `name` if that is needed, and returns the command that serves on `port`.
///
/// # Errors
/// When there is no such peer, its toolchain is missing, or it does not build.
pub(crate) fn command(workspace: &Workspace, name: &str, port: u16) -> anyhow::Result<Command> {
    let peer = find(name)?;
    if let Some(missing) = peer.missing_toolchain() {
        bail!("{missing}");
    }
    peer.build(workspace)?;
    Ok(peer.command(workspace, port))
}

/// Finds a peer by its name.
///
/// # Errors
/// When there is none: the error lists those there are.
pub(crate) fn find(name: &str) -> anyhow::Result<&'static Peer> {
    PEERS
        .iter()
        .find(|peer| peer.name == name)
        .with_context(|| {
            let names: Vec<&str> = PEERS.iter().map(|peer| peer.name).collect();
            format!(
                "there is no peer {name:?}: take one of {}",
                names.join(", ")
            )
        })
}

impl Peer {
    /// The signal at which it replaces its workers by itself, if its documentation has one.
    pub(crate) fn reloads_at(&self) -> Option<i32> {
        match self.language {
            Language::Python("gunicorn", _) => Some(libc::SIGHUP),
            _ => None,
        }
    }

    /// Says what to install when this machine cannot build or run the peer.
    pub(crate) fn missing_toolchain(&self) -> Option<String> {
        let (programs, arguments, install): (&[_], &[_], _) = match self.language {
            Language::Rust => return None,
            Language::Go(_) => (&["go"], &["version"], "install Go 1.25 or newer"),
            Language::Node => (&["node"], &["--version"], "install Node.js 20 or newer"),
            Language::Npm(_) => (
                &["node", "npm"],
                &["--version"],
                "install Node.js 20 or newer, with npm",
            ),
            // Maven runs on a Java that cannot compile.
            Language::Maven => (
                &["javac", "mvn"],
                &["--version"],
                "install a JDK 17 or newer, and Maven",
            ),
            Language::Python(..) => (
                &["python3"],
                &["-c", "import ensurepip, venv"],
                "install Python 3.10 or newer, with venv",
            ),
            Language::Script => (&["python3"], &["--version"], "install Python 3.10 or newer"),
        };
        let is_missing = |program: &&&str| {
            let answer = Command::new(program).args(arguments).output();
            !answer.is_ok_and(|output| output.status.success())
        };
        let missing = programs.iter().find(is_missing)?;
        Some(format!("peer {} needs `{missing}`: {install}", self.name))
    }

    /// Builds the peer as its users would: optimised, into the target folder.
    ///
    /// # Errors
    /// When the build fails; its own messages are on stderr.
    pub(crate) fn build(&self, workspace: &Workspace) -> anyhow::Result<()> {
        fs::create_dir_all(workspace.target.join("peers"))?;
        if let Language::Npm(_) = self.language {
            self.copy_sources(workspace)?;
        }
        for mut step in self.build_commands(workspace) {
            let status = step
                .status()
                .with_context(|| format!("could not build peer {}", self.name))?;
            if !status.success() {
                bail!("could not build peer {}: {status}", self.name);
            }
        }
        Ok(())
    }

    /// Returns the command that serves on `port`. The peer must have been built.
    pub(crate) fn command(&self, workspace: &Workspace, port: u16) -> Command {
        let words = self.words(workspace, &port.to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Returns the same as words, with whatever stands for the port.
    pub(crate) fn words(&self, workspace: &Workspace, port: &str) -> Vec<OsString> {
        let Workspace { root, target } = workspace;
        let name = self.name;
        let folder = root.join("peers").join(name);
        match self.language {
            Language::Rust => vec![
                target.join(format!("release/peer-{name}")).into(),
                port.into(),
            ],
            Language::Go(module) => {
                let mut words = vec![target.join("peers").join(module).into(), port.into()];
                words.extend((module != name).then(|| "default".into()));
                words
            }
            Language::Node => vec!["node".into(), folder.join("server.mjs").into(), port.into()],
            Language::Npm(folder) => {
                let script = self.installation(workspace).join("server.mjs");
                let mut words = vec!["node".into(), script.into(), port.into()];
                words.extend((folder != name).then(|| "default".into()));
                words
            }
            Language::Maven => vec![
                "java".into(),
                "-jar".into(),
                self.installation(workspace)
                    .join(name)
                    .with_extension("jar")
                    .into(),
                format!("--server.port={port}").into(),
            ],
            Language::Python(package, arguments) => {
                let program = self.installation(workspace).join("bin").join(package);
                let mut words = vec![program.into()];
                words.extend(arguments.iter().map(OsString::from));
                let folder = root.join("peers").join(package);
                let bind = ["--bind".into(), format!("127.0.0.1:{port}").into()];
                let port = ["--port".into(), port.into()];
                match package {
                    "flask" => {
                        words.extend([folder.join("server.py").into(), "run".into()]);
                        words.extend(port);
                    }
                    "gunicorn" => {
                        words.push(folder.into());
                        words.extend(bind);
                        words.push("server:app".into());
                    }
                    _ => {
                        words.push(folder.into());
                        words.extend(port);
                        words.push("server:app".into());
                    }
                }
                words
            }
            Language::Script => vec![
                "python3".into(),
                folder.join("server.py").into(),
                port.into(),
            ],
        }
    }

    /// Where a peer is built or its packages are installed.
    fn installation(&self, workspace: &Workspace) -> PathBuf {
        let name = match self.language {
            Language::Python(folder, _) | Language::Npm(folder) => folder,
            _ => self.name,
        };
        workspace.target.join("peers").join(name)
    }

    /// Copies the files of the peer's folder to where its packages are installed.
    fn copy_sources(&self, workspace: &Workspace) -> anyhow::Result<()> {
        let installation = self.installation(workspace);
        fs::create_dir_all(&installation)?;
        let name = installation.file_name().expect("it is a folder's");
        let folder = workspace.root.join("peers").join(name);
        for file in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let file = file?;
            fs::copy(file.path(), installation.join(file.file_name()))
                .with_context(|| file.path().display().to_string())?;
        }
        Ok(())
    }

    fn build_commands(&self, workspace: &Workspace) -> Vec<Command> {
        let peers = workspace.root.join("peers");
        let folder = peers.join(self.name);
        match self.language {
            Language::Rust => {
                let mut cargo = workspace.cargo();
                cargo.args(["build", "--quiet", "--release", "--package", "peers"]);
                cargo.arg("--bin").arg(format!("peer-{}", self.name));
                vec![cargo]
            }
            Language::Go(module) => {
                let mut go = Command::new("go");
                go.args(["build", "-trimpath", "-o"])
                    .arg(workspace.target.join("peers").join(module))
                    .arg(".");
                // An older Go says so, rather than download another one.
                go.env("GOTOOLCHAIN", "local")
                    .current_dir(peers.join(module));
                vec![go]
            }
            Language::Node | Language::Script => Vec::new(),
            Language::Npm(_) => {
                let mut npm = Command::new("npm");
                npm.args(["ci", "--no-audit", "--no-fund", "--prefer-offline"])
                    .args(["--loglevel", "error"]);
                // What it did is no answer: that of a chore has stdout for itself.
                npm.stdout(Stdio::null())
                    .current_dir(self.installation(workspace));
                vec![npm]
            }
            Language::Maven => {
                let mut mvn = Command::new("mvn");
                mvn.args(["--quiet", "--batch-mode", "package"]);
                let mut target = OsString::from("-Dpeer.target=");
                target.push(self.installation(workspace));
                // It tells errors on stdout, which a chore has for its own answer.
                mvn.arg(target).stdout(io::stderr()).current_dir(folder);
                vec![mvn]
            }
            Language::Python(package, _) => {
                let environment = self.installation(workspace);
                let mut venv = Command::new("python3");
                venv.args(["-m", "venv"]).arg(&environment);
                let mut pip = Command::new(environment.join("bin/pip"));
                pip.args(["install", "--quiet", "--disable-pip-version-check"]);
                pip.arg("--requirement")
                    .arg(peers.join(package).join("requirements.txt"));
                vec![venv, pip]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_names_there_are() {
        let error = find("apache").expect_err("there is no such peer");
        assert_eq!(
            error.to_string(),
            r#"there is no peer "apache": take one of axum, axum-server, actix, hyper, sundown, go-net-http, gin, gin-default, beego, beego-default, node, node-default, express, express-default, spring, uvicorn, gunicorn, gunicorn-sync, python-threads, flask"#
        );
    }

    #[test]
    fn every_peer_is_in_the_readme() {
        let readme = include_str!("../../peers/README.md");
        for peer in PEERS {
            assert!(
                readme.contains(&format!("| `{}` |", peer.name)),
                "{} is missing",
                peer.name
            );
        }
    }
}
