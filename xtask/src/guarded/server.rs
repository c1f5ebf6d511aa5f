//! What can be put under `sundown run` here: the peers, and nginx and HAProxy, which answer what they can.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use sundown_verify::process::Spawn;

use super::rights::Rights;
use crate::peers::{self, Peer};
use crate::workspace::Workspace;

/// A server, and where it may write.
pub(crate) struct Server<'a> {
    pub(crate) framework: &'static str,
    kind: Kind,
    workspace: &'a Workspace,
    folder: &'a Path,
    pub(crate) rights: Rights,
}

#[derive(Clone, Copy)]
enum Kind {
    Peer(&'static Peer),
    /// One that takes the socket that the guard passes.
    Passed(&'static Peer),
    /// What follows `listen` in its configuration.
    Nginx(Option<&'static str>),
    HaProxy,
}

const NGINX: [(&str, &str, Option<&str>); 2] = [
    ("nginx", "nginx", None),
    ("nginx-reuseport", "nginx, reuseport", Some("reuseport")),
];

/// The name of HAProxy here.
const HAPROXY: &str = "haproxy";

/// Behind the name of a peer that takes sockets.
const PASSED: &str = "-passed";

impl<'a> Server<'a> {
    /// Finds and builds servers by their names; says on stderr which this machine cannot have.
    ///
    /// # Errors
    /// When there is none of a name, or it cannot be built.
    pub(crate) fn choose(
        workspace: &'a Workspace,
        folder: &'a Path,
        names: &[String],
        rights: Rights,
    ) -> anyhow::Result<Vec<Self>> {
        let mut chosen = Vec::new();
        for name in names {
            let server = Self {
                rights,
                ..Self::find(workspace, folder, name)?
            };
            match server.missing() {
                Some(missing) => eprintln!("skipped: {missing}"),
                None => {
                    if let Kind::Peer(peer) | Kind::Passed(peer) = server.kind {
                        peer.build(workspace)?;
                    }
                    chosen.push(server);
                }
            }
        }
        Ok(chosen)
    }

    fn find(workspace: &'a Workspace, folder: &'a Path, name: &str) -> anyhow::Result<Self> {
        let nginx = NGINX.into_iter().find(|(known, ..)| *known == name);
        let (framework, kind) = match nginx {
            Some((_, framework, listen)) => (framework, Kind::Nginx(listen)),
            None if name == HAPROXY => ("HAProxy", Kind::HaProxy),
            None => match name.strip_suffix(PASSED) {
                Some(name) => {
                    let peer = peers::find(name)?;
                    (peer.framework, Kind::Passed(peer))
                }
                None => {
                    let peer = peers::find(name)?;
                    (peer.framework, Kind::Peer(peer))
                }
            },
        };
        Ok(Self {
            framework,
            kind,
            workspace,
            folder,
            rights: Rights::default(),
        })
    }

    fn missing(&self) -> Option<String> {
        match self.kind {
            Kind::Peer(peer) | Kind::Passed(peer) => peer.missing_toolchain(),
            Kind::Nginx(_) => missing("nginx", "nginx-light"),
            Kind::HaProxy => missing("haproxy", "haproxy"),
        }
    }

    /// The signal at which the process that was started replaces its workers by itself, if it does.
    pub(crate) fn reloads_at(&self) -> Option<i32> {
        match self.kind {
            Kind::Peer(peer) | Kind::Passed(peer) => peer.reloads_at(),
            Kind::Nginx(_) => Some(libc::SIGHUP),
            Kind::HaProxy => Some(libc::SIGUSR2),
        }
    }

    /// The signal at which it ends in order, by name.
    pub(crate) fn ends_at(&self) -> &'static str {
        match self.kind {
            Kind::Peer(_) | Kind::Passed(_) => "SIGTERM",
            Kind::Nginx(_) => "SIGQUIT",
            Kind::HaProxy => "SIGUSR1",
        }
    }

    /// A path that takes it some 150 ms.
    pub(crate) fn slow(&self) -> &'static str {
        match self.kind {
            Kind::Peer(_) | Kind::Passed(_) => "/slow?ms=150",
            Kind::Nginx(_) | Kind::HaProxy => "/slow",
        }
    }

    /// Whether it keeps the whole contract of the peers.
    pub(crate) fn is_peer(&self) -> bool {
        matches!(self.kind, Kind::Peer(_) | Kind::Passed(_))
    }

    /// Whether it has events with a gap and a count.
    pub(crate) fn is_paced(&self) -> bool {
        matches!(self.kind, Kind::Peer(peer) | Kind::Passed(peer) if peer.paced)
    }

    /// As it is by itself.
    pub(crate) fn plain(&self, port: u16) -> Spawn {
        alone(&self.words(port))
    }

    /// As it is by itself where it is to reload.
    pub(crate) fn reloading(&self, port: u16) -> Spawn {
        let mut words = self.words(port);
        if let Kind::HaProxy = self.kind {
            words.push("-W".into());
        }
        alone(&words)
    }

    /// Under the guard, with these options, whose socket is in `run_dir`.
    pub(crate) fn guarded(&self, port: u16, run_dir: &Path, options: &[&str]) -> Spawn {
        let sundown = self.rights.sundown(self.workspace);
        Spawn::new(&sundown[0])
            .args(&sundown[1..])
            .refuse(self.rights.refused())
            .env("SUNDOWN_RUN_DIR", run_dir)
            .arg("run")
            .args(options)
            .args(self.passes(port))
            .arg("--")
            .args(self.words(port))
    }

    /// The process that takes what connects, by the word of the guard whose socket is in `run_dir`.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn current(&self, run_dir: &Path) -> anyhow::Result<i32> {
        let status = self.status(run_dir)?;
        let generations = status["generations"].as_array();
        let current = generations
            .into_iter()
            .flatten()
            .find(|generation| generation["state"] == "current");
        let pid = current.and_then(|current| current["pid"].as_i64());
        Ok(i32::try_from(
            pid.context("no process takes what connects")?,
        )?)
    }

    /// Whether a generation has been ready yet, by the word of the same guard.
    pub(crate) fn is_ready(&self, run_dir: &Path) -> bool {
        let status = self.status(run_dir);
        status.is_ok_and(|status| status["ready"] == true)
    }

    fn status(&self, run_dir: &Path) -> anyhow::Result<serde_json::Value> {
        let sundown = self.rights.sundown(self.workspace);
        let output = Command::new(&sundown[0])
            .args(&sundown[1..])
            .args(["status", "--json"])
            .env("SUNDOWN_RUN_DIR", run_dir)
            .output()?;
        let mut answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(answer["status"].take())
    }

    fn passes(&self, port: u16) -> Vec<String> {
        match self.kind {
            Kind::Passed(_) => vec!["--listen".to_owned(), format!("127.0.0.1:{port}")],
            Kind::Peer(_) | Kind::Nginx(_) | Kind::HaProxy => Vec::new(),
        }
    }

    fn words(&self, port: u16) -> Vec<OsString> {
        let port = port.to_string();
        match self.kind {
            // What it is told of a port counts only where nothing is passed.
            Kind::Peer(peer) | Kind::Passed(peer) => peer.words(self.workspace, &port),
            Kind::Nginx(listen) => {
                let mut words = self.script("peers/nginx/serve.sh", port);
                words.extend(listen.map(OsString::from));
                words
            }
            Kind::HaProxy => self.script("peers/haproxy/serve.sh", port),
        }
    }

    fn script(&self, path: &str, port: String) -> Vec<OsString> {
        let script = self.workspace.root.join(path);
        vec![script.into(), port.into(), self.folder.into()]
    }
}

fn alone(words: &[OsString]) -> Spawn {
    Spawn::new(&words[0]).args(&words[1..]).own_group()
}

/// Says which package of Debian's has a program that this machine lacks.
fn missing(program: &str, package: &str) -> Option<String> {
    let there = Command::new(program).arg("-v").output().is_ok();
    (!there).then(|| format!("{program} is missing: install Debian's package {package}"))
}
