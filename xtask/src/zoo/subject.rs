//! The servers of the zoo: how each is built, started and stopped, and what it may be asked.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use sundown_verify::process::SignalTo;
use sundown_verify::service::Declared;
use sundown_verify::service::{ID, Ledger};
use sundown_verify::{Offers, Service, Target};

use crate::peers::{PEERS, Peer};
use crate::workspace::Workspace;

/// As long as Kubernetes lets a stop take by default, and so long that everybody's own limit fits.
const GRACE: Duration = Duration::from_secs(30);

/// Stands for the port in a command.
const PORT: &str = "{port}";

pub(super) struct Subject {
    pub(super) name: String,
    pub(super) framework: &'static str,
    pub(super) service: Service,
    kind: Kind,
    guarded: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Peer(&'static Peer),
    Nginx,
    Shop,
}

/// Returns the subjects of these names, or all.
pub(super) fn chosen(
    workspace: &Workspace,
    folder: &Path,
    names: &[String],
) -> anyhow::Result<Vec<Subject>> {
    let all = all(workspace, folder);
    for name in names {
        if !all.iter().any(|subject| subject.name == *name) {
            let known: Vec<_> = all.iter().map(|subject| subject.name.as_str()).collect();
            bail!(
                "nobody is called {name:?}: take some of {}",
                known.join(", ")
            );
        }
    }
    let wanted = |subject: &Subject| names.is_empty() || names.contains(&subject.name);
    Ok(all.into_iter().filter(wanted).collect())
}

/// Each of these and, behind it, the same under `sundown run`.
pub(super) fn beside_guarded(subjects: Vec<Subject>, sundown: &[OsString]) -> Vec<Subject> {
    let twin = |subject: Subject| {
        let guarded = subject.guarded(sundown);
        [subject, guarded]
    };
    subjects.into_iter().flat_map(twin).collect()
}

fn all(workspace: &Workspace, folder: &Path) -> Vec<Subject> {
    let ours = |peer: &&Peer| peer.name == "sundown";
    let (ours, others): (Vec<&Peer>, Vec<_>) = PEERS.iter().partition(ours);
    let peer = |peer: &'static Peer| Subject::of_peer(workspace, peer);
    let nginx =
        |(name, framework, signal)| Subject::of_nginx(workspace, folder, name, framework, signal);
    let two = [
        ("nginx-term", "nginx, SIGTERM", libc::SIGTERM),
        ("nginx-quit", "nginx, SIGQUIT", libc::SIGQUIT),
    ];
    let first = ours
        .into_iter()
        .map(peer)
        .chain([Subject::of_shop(workspace, folder)]);
    first
        .chain(others.into_iter().map(peer))
        .chain(two.into_iter().map(nginx))
        .collect()
}

impl Subject {
    fn of_peer(workspace: &Workspace, peer: &'static Peer) -> Self {
        let offers = Offers {
            fast: "/fast".to_owned(),
            slow: Some("/slow?ms=300".to_owned()),
            big: Some("/big?mib=16".to_owned()),
            upload: Some("/upload".to_owned()),
            endless: Some("/slow?ms=600000".to_owned()),
            stream: Some("/events".to_owned()),
            sse: Some("/events".to_owned()),
            ws: peer.ws.then(|| "/ws".to_owned()),
            grpc: peer.grpc.map(str::to_owned),
            ready: peer.probes.as_ref().map(|probes| probes.ready.to_owned()),
            live: peer.probes.as_ref().map(|probes| probes.live.to_owned()),
            http2: peer.http2,
            ..Offers::default()
        };
        Self {
            name: peer.name.to_owned(),
            framework: peer.framework,
            service: service(peer.words(workspace, PORT), offers, libc::SIGTERM),
            kind: Kind::Peer(peer),
            guarded: false,
        }
    }

    fn of_nginx(
        workspace: &Workspace,
        folder: &Path,
        name: &'static str,
        framework: &'static str,
        signal: i32,
    ) -> Self {
        let script = workspace.root.join("peers/nginx/serve.sh");
        let command = vec![script.into(), PORT.into(), folder.join(name).into()];
        let offers = Offers {
            fast: "/fast".to_owned(),
            big: Some("/big/16".to_owned()),
            ..Offers::default()
        };
        Self {
            name: name.to_owned(),
            framework,
            service: service(command, offers, signal),
            kind: Kind::Nginx,
            guarded: false,
        }
    }

    fn of_shop(workspace: &Workspace, folder: &Path) -> Self {
        let shop = workspace.shop();
        let database = format!("sqlite:{}", folder.join("orders.sqlite").display());
        let mut command = vec![shop.into(), "orders".into()];
        command.extend(["--listen".into(), format!("127.0.0.1:{PORT}").into()]);
        command.extend(["--database".into(), database.into()]);
        // Orders alone are judged: what inventory would be told waits in the outbox, since nobody
        // listens on this port.
        command.extend(["--inventory".into(), "http://127.0.0.1:1".into()]);
        let ledger = Ledger {
            post: "/orders".to_owned(),
            body: format!(r#"{{"id":"{ID}","item":"tea","quantity":1}}"#),
            read: Some(format!("/orders/{ID}")),
            invariant: None,
        };
        let offers = Offers {
            fast: "/fast".to_owned(),
            slow: Some("/report?ms=300".to_owned()),
            upload: Some("/images".to_owned()),
            endless: Some("/report?ms=600000".to_owned()),
            ledger: Some(ledger),
            http2: true,
            ..Offers::default()
        };
        Self {
            name: "shop".to_owned(),
            framework: "the shop's orders, on sundown",
            service: service(command, offers, libc::SIGTERM),
            kind: Kind::Shop,
            guarded: false,
        }
    }

    fn guarded(&self, sundown: &[OsString]) -> Self {
        let mut words = sundown.to_vec();
        words.extend(["run", "--quiet", "500ms", "--"].map(Into::into));
        let mut service = self.service.clone();
        if let Target::Command(command) = &mut service.target {
            words.append(command);
            *command = words;
        }
        Self {
            name: format!("{}, guarded", self.name),
            framework: self.framework,
            service,
            kind: self.kind,
            guarded: true,
        }
    }

    pub(super) fn is_ours(&self) -> bool {
        self.guarded || matches!(self.kind, Kind::Shop) || self.name == "sundown"
    }

    /// What this machine lacks for it.
    pub(super) fn missing(&self) -> Option<String> {
        match self.kind {
            Kind::Peer(peer) => peer.missing_toolchain(),
            Kind::Shop => None,
            Kind::Nginx => {
                let there = Command::new("nginx").arg("-v").output().is_ok();
                (!there)
                    .then(|| "nginx is missing: install Debian's package nginx-light".to_owned())
            }
        }
    }

    /// Builds it; returns its version.
    pub(super) fn prepare(&self, workspace: &Workspace) -> anyhow::Result<String> {
        match self.kind {
            Kind::Peer(peer) => {
                peer.build(workspace)?;
                peer.version(workspace)
            }
            Kind::Shop => {
                workspace.build_shop()?;
                Ok(env!("CARGO_PKG_VERSION").to_owned())
            }
            Kind::Nginx => {
                let said = Command::new("nginx")
                    .arg("-v")
                    .output()
                    .context("nginx -v")?;
                let said = String::from_utf8_lossy(&said.stderr).into_owned();
                Ok(said
                    .trim()
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .to_owned())
            }
        }
    }

    /// The command as a reader would type it, in the repository's root.
    pub(super) fn command(&self, root: &Path, folder: &Path) -> String {
        let root = format!("{}/", root.display());
        let folder = folder.display().to_string();
        let Target::Command(command) = &self.service.target else {
            unreachable!("every subject is started by a command");
        };
        let words = command.iter().map(|word| word.to_string_lossy());
        let words: Vec<String> = words
            .map(|word| word.replace(&root, "").replace(&folder, "FOLDER"))
            .collect();
        words.join(" ")
    }
}

fn service(command: Vec<OsString>, offers: Offers, signal: i32) -> Service {
    Service {
        target: Target::Command(command),
        offers,
        signal,
        signal_to: SignalTo::default(),
        declared: Declared::default(),
        grace: GRACE,
        start_limit: GRACE,
    }
}
