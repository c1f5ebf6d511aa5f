//! A side of a comparison: a peer, started afresh for every round.
//!
//! Fresh, so that a lucky layout of one process's memory is not a side's luck for all rounds.
//! Never starts a server through a shell: `taskset` execs it, so that the PID is the server's.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use rand::seq::SliceRandom;
use sundown_verify::Process;
use sundown_verify::process::{Spawn, free_port};

use crate::certificate::Trust;
use crate::guarded::rights::Rights;
use crate::peers::{self, Peer, Stop};
use crate::progress;
use crate::workspace::Workspace;

/// How long a server may take to listen, and to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What is compared.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) label: String,
    peer: &'static Peer,
    /// What is started instead of what the peer's sources give now.
    earlier: Option<PathBuf>,
    tls: Option<Tls>,
    /// How it is guarded, if it is.
    guard: Option<Guarding>,
    /// What and where it logs, if it is asked to.
    log: Option<Log>,
}

/// What a server is to do of its log, and the file for it.
#[derive(Debug)]
struct Log {
    mode: &'static str,
    file: PathBuf,
}

/// Where a guard has its socket, and what it may.
#[derive(Debug)]
pub(super) struct Guarding {
    pub(super) run_dir: PathBuf,
    pub(super) rights: Rights,
}

/// What a side under TLS is given: the folder of its certificate, and to its clients whom to trust.
#[derive(Clone, Debug)]
struct Tls {
    folder: PathBuf,
    trust: Trust,
}

/// Says where a server runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Where the kernel puts it, as its users would.
    Anywhere,
    /// On this core.
    Core(usize),
}

/// A server that listens.
pub(super) struct Server {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    /// The process that serves.
    pub(super) pid: u32,
    /// Those that guard it.
    pub(super) guard: Vec<u32>,
}

impl Server {
    /// Ends it; what is guarded would outlive its guard for a moment.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        if !self.guard.is_empty() {
            self.process.signal(libc::SIGTERM)?;
            self.process.wait_exit(PATIENCE).await?;
        }
        Ok(())
    }
}

/// A guarded server is stopped soon after it was measured.
const GUARD_OPTIONS: [&str; 2] = ["--quiet", "200ms"];

/// The index of the side that all are compared with.
pub(super) const BASELINE: usize = 0;
/// The index of the baseline's double: what differs between the two is noise.
pub(super) const CONTROL: usize = 1;
/// The index of Sundown's side.
pub(super) const OURS: usize = 2;

/// Lists a baseline, its double, Sundown, and then the others that can be built, once each.
pub(super) fn against(baseline: &str, others: &[String]) -> anyhow::Result<Vec<Side>> {
    let baseline = peers::find(baseline)?;
    let double = Side {
        label: format!("{} again (A/A)", baseline.framework),
        ..Side::of(baseline)
    };
    beside(vec![Side::of(baseline), double, Side::ours()?], others)
}

/// Lists a peer, its double, and the same under a guard.
pub(super) fn guarded(peer: &'static Peer, guarding: Guarding) -> [Side; 3] {
    let double = Side {
        label: format!("{} again (A/A)", peer.framework),
        ..Side::of(peer)
    };
    let guarded = Side {
        label: format!("{}, guarded", peer.framework),
        guard: Some(guarding),
        ..Side::of(peer)
    };
    [Side::of(peer), double, guarded]
}

/// Lists the peer that logs: one that is not asked to, its double, and these ways, each with a file in this folder.
pub(super) fn logs(folder: &Path, modes: [&'static str; 3]) -> Vec<Side> {
    let of = |label: &str, mode| Side {
        label: label.to_owned(),
        log: Some(Log {
            mode,
            file: folder.join(mode),
        }),
        ..Side::of(&peers::LOGS)
    };
    let mut sides = vec![of("none", "none"), of("none again (A/A)", "none")];
    sides.extend(modes.map(|mode| of(mode, mode)));
    sides
}

/// Adds the others that can be built, those that are there already left out.
pub(super) fn beside(mut sides: Vec<Side>, others: &[String]) -> anyhow::Result<Vec<Side>> {
    for name in others {
        let peer = peers::find(name)?;
        if sides.iter().any(|side| side.peer.name == peer.name) {
            continue;
        }
        match peer.missing_toolchain() {
            Some(missing) => eprintln!("skipped: {missing}"),
            None => sides.push(Side::of(peer)),
        }
    }
    Ok(sides)
}

/// Keeps those sides that serve TLS, and lets them be asked under it.
pub(super) fn under_tls(mut sides: Vec<Side>, folder: &Path, trust: &Trust) -> Vec<Side> {
    sides.retain(|side| side.peer.tls);
    for side in &mut sides {
        side.tls = Some(Tls {
            folder: folder.to_owned(),
            trust: trust.clone(),
        });
    }
    sides
}

impl Side {
    fn of(peer: &'static Peer) -> Self {
        Self {
            label: peer.framework.to_owned(),
            peer,
            earlier: None,
            tls: None,
            guard: None,
            log: None,
        }
    }

    /// Sundown's side.
    pub(super) fn ours() -> anyhow::Result<Self> {
        Ok(Self::of(peers::find("sundown")?))
    }

    /// Sundown's side as it was: a build of its peer from other sources.
    pub(super) fn earlier(program: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            label: "sundown, earlier".to_owned(),
            earlier: Some(program.to_owned()),
            ..Self::ours()?
        })
    }

    /// The server that clients are measured against.
    pub(super) fn axum() -> anyhow::Result<Self> {
        Ok(Self::of(peers::find("axum")?))
    }

    /// Tells whether SIGTERM lets it finish what it is doing.
    pub(super) fn stops_gracefully(&self) -> bool {
        self.peer.stop == Stop::Graceful
    }

    /// Whom its clients trust, where it is asked under TLS.
    pub(super) fn tls(&self) -> Option<&Trust> {
        self.tls.as_ref().map(|tls| &tls.trust)
    }

    /// Builds its peer.
    pub(super) fn build(&self, workspace: &Workspace) -> anyhow::Result<()> {
        self.peer.build(workspace)
    }

    /// Says how its server is started.
    pub(super) fn command(&self, workspace: &Workspace, place: Place) -> String {
        let command = self.spawned(workspace, 0);
        let program = workspace.relative(command.get_program().as_ref()).display();
        let program = match self.guard {
            None => program.to_string(),
            Some(_) => format!("sundown run {} -- {program}", GUARD_OPTIONS.join(" ")),
        };
        let arguments = match self.tls {
            None => "PORT",
            Some(_) => "PORT TLS-PORT FOLDER",
        };
        let arguments = match &self.log {
            None => arguments.to_owned(),
            Some(log) => format!("{arguments} {} FILE", log.mode),
        };
        match place {
            Place::Anywhere => format!("{program} {arguments}"),
            Place::Core(core) => format!("taskset -c {core} {program} {arguments}"),
        }
    }

    fn spawned(&self, workspace: &Workspace, port: u16) -> Command {
        let mut command = self.peer.command(workspace, port);
        if let Some(log) = &self.log {
            command.arg(log.mode).arg(&log.file);
        }
        let Some(program) = &self.earlier else {
            return command;
        };
        let mut earlier = Command::new(program);
        earlier.args(command.get_args());
        earlier
    }

    /// Starts its server, and waits until it listens where it is asked.
    pub(super) async fn start(
        &self,
        workspace: &Workspace,
        place: Place,
    ) -> anyhow::Result<Server> {
        let plain = free_port()?;
        let command = self.spawned(workspace, plain.port());
        let mut words: Vec<OsString> = Vec::new();
        if let Place::Core(core) = place {
            words.extend(["taskset", "-c", &core.to_string()].map(OsString::from));
        }
        if let Some(guarding) = &self.guard {
            words.extend(guarding.rights.sundown(workspace));
            words.push("run".into());
            words.extend(GUARD_OPTIONS.map(OsString::from));
            words.push("--".into());
        }
        words.push(command.get_program().into());
        words.extend(command.get_args().map(OsString::from));
        let mut spawn = Spawn::new(&words[0]).args(&words[1..]);
        if let Some(guarding) = &self.guard {
            spawn = spawn.env("SUNDOWN_RUN_DIR", &guarding.run_dir);
        }
        let (spawn, address) = match &self.tls {
            None => (spawn, plain),
            Some(tls) => {
                let address = free_port()?;
                let spawn = spawn.arg(address.port().to_string()).arg(&tls.folder);
                (spawn, address)
            }
        };
        let mut process = spawn.start()?;
        process.wait_listening(address, PATIENCE).await?;
        let (mut pid, mut guard) = (process.id(), Vec::new());
        if self.guard.is_some() {
            guard.push(pid);
            pid = process
                .wait_line("generation 1 is PID ", PATIENCE)
                .await?
                .parse()?;
            guard.push(parent_of(pid)?);
        }
        Ok(Server {
            process,
            address,
            pid,
            guard,
        })
    }
}

fn parent_of(pid: u32) -> anyhow::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(line.context("a process has a parent")?.trim().parse()?)
}

/// Lists every side of every round: the rounds in order, the sides of each in random order.
pub(super) fn interleave(rounds: usize, sides: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rounds).flat_map(move |round| {
        let mut order: Vec<usize> = (0..sides).collect();
        order.shuffle(&mut rand::rng());
        order.into_iter().map(move |side| (round, side))
    })
}

/// Shows on a terminal what is measured now.
pub(super) fn show_progress(subject: &str, round: usize, rounds: usize, side: &Side) {
    progress::line(&format!(
        "{subject}: round {} of {rounds}: {}",
        round + 1,
        side.label
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate;
    use crate::folder::Folder;

    #[test]
    fn a_baseline_has_its_double_and_no_side_stands_twice() {
        let others = ["axum", "hyper", "sundown", "hyper"].map(str::to_owned);
        let labels: Vec<String> = against("axum", &others)
            .unwrap()
            .into_iter()
            .map(|side| side.label)
            .collect();
        assert_eq!(labels, ["axum", "axum again (A/A)", "sundown", "hyper"]);
    }

    #[test]
    fn under_tls_only_those_stay_that_serve_it() {
        let folder = Folder::new("side-test").unwrap();
        let trust = certificate::write(folder.path()).unwrap();
        let others = ["axum", "hyper"].map(str::to_owned);
        let sides = against("axum-server", &others).unwrap();
        let sides = under_tls(sides, folder.path(), &trust);
        let labels: Vec<&str> = sides.iter().map(|side| side.label.as_str()).collect();
        assert_eq!(
            labels,
            ["axum-server", "axum-server again (A/A)", "sundown"]
        );
        assert!(sides.iter().all(|side| side.tls().is_some()));
    }

    #[test]
    fn every_round_has_every_side_once() {
        let mut all: Vec<_> = interleave(3, 2).collect();
        assert!(all.is_sorted_by_key(|&(round, _)| round));
        all.sort_unstable();
        assert_eq!(all, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
    }
}
