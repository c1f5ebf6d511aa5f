//! `cargo xtask postgres`: the shop's stops on a real Postgres, in a cluster of its own.
//!
//! The cluster listens on no port, only on a socket in its own folder, and both are gone at the end,
//! whatever failed. Never touches a cluster that is here already.

use std::env;
use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use sundown_verify::Process;
use sundown_verify::process::{Ended, Spawn};

use crate::Verdict;
use crate::folder::Folder;
use crate::workspace::Workspace;

/// Stop the shop under load on a Postgres that is started for it, and audit its books
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// The shop's test that needs a Postgres.
const TEST: &str = "on_postgres_a_sigterm_and_a_sigkill_lose_no_order_and_no_stock";

/// The databases, and the variables by which the test learns of them.
const DATABASES: [(&str, &str); 2] = [
    ("SHOP_TEST_ORDERS", "orders"),
    ("SHOP_TEST_INVENTORY", "inventory"),
];

/// Where Debian puts the programs, in a folder for each version: not on `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// What has to be there. `pg_ctl` is not needed: the server is our own child.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "createdb"];

/// The user of the server where we are root, whom Postgres refuses; the packages make it.
const USER: &str = "postgres";

/// How long the server may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(workspace: &Workspace, _: &Arguments) -> anyhow::Result<Verdict> {
    let Some(programs) = programs() else {
        eprintln!("skipped: no Postgres here: install Debian's package postgresql");
        return Ok(Verdict::Holds);
    };
    // One thread: the server dies with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let folder = Folder::new("postgres")?;
    let cluster = Cluster {
        folder: folder.path(),
        programs: &programs,
    };
    runtime.block_on(cluster.test(workspace))
}

/// Finds the folder of the programs: Debian's newest, or one of `PATH`.
fn programs() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let complete = |folder: &PathBuf| PROGRAMS.iter().all(|name| folder.join(name).is_file());
    debian(Path::new(DEBIAN))
        .into_iter()
        .chain(env::split_paths(&path))
        .find(complete)
}

/// Lists the folders of a tree like Debian's, the newest version first.
fn debian(tree: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(tree).into_iter().flatten().flatten();
    let mut versions: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let bin = |version: u32| tree.join(version.to_string()).join("bin");
    versions.into_iter().map(bin).collect()
}

/// A cluster that nobody else knows of.
struct Cluster<'a> {
    folder: &'a Path,
    programs: &'a Path,
}

impl Cluster<'_> {
    async fn test(&self, workspace: &Workspace) -> anyhow::Result<Verdict> {
        self.create().await?;
        let mut server = self.serve()?;
        let verdict = self.test_on(&mut server, workspace).await;
        // The fast way: it sends its clients away and leaves nothing to recover.
        server.signal(libc::SIGINT)?;
        server.wait_exit(PATIENCE).await?;
        verdict
    }

    async fn create(&self) -> anyhow::Result<()> {
        if is_root() {
            run_to_end(Command::new("chown").arg(USER).arg(self.folder))?;
        }
        let initdb = self.program("initdb");
        let initdb = initdb.args(["--auth=trust", "--username", USER]);
        let initdb = initdb.args(["--no-locale", "--encoding=UTF8", "--no-sync"]);
        let mut initdb = initdb.arg("--pgdata").arg(self.folder).start()?;
        let exit = initdb.wait_exit(PATIENCE).await?;
        let said = initdb.stderr();
        ensure!(exit.ended == Ended::Code(0), "initdb: {}", said.trim());
        Ok(())
    }

    fn serve(&self) -> anyhow::Result<Process> {
        let server = self.program("postgres");
        let server = server.arg("-D").arg(self.folder).arg("-k").arg(self.folder);
        // Nobody but us, and no disk: the machine's end is not what is tested.
        let server = server.args(["-c", "listen_addresses=", "-c", "fsync=off"]);
        Ok(server.start()?)
    }

    async fn test_on(
        &self,
        server: &mut Process,
        workspace: &Workspace,
    ) -> anyhow::Result<Verdict> {
        let ready = server
            .wait_output("ready to accept connections", PATIENCE)
            .await;
        ready.with_context(|| format!("Postgres did not start: {}", server.stderr().trim()))?;
        for (_, database) in DATABASES {
            let mut createdb = Command::new(self.programs.join("createdb"));
            createdb.arg("--host").arg(self.folder);
            run_to_end(createdb.args(["--username", USER, database]))?;
        }
        let variables = DATABASES.map(|(name, database)| (name, self.url(database)));
        let mut cargo = workspace.cargo();
        cargo.args(["test", "--package", "shop", "--test", "shop", "--"]);
        cargo.args(["--ignored", "--nocapture", TEST]);
        let status = cargo.envs(variables).status()?;
        Ok(if status.success() {
            Verdict::Holds
        } else {
            Verdict::Broken
        })
    }

    /// Describes one of Postgres's own programs, run by somebody whom it does not refuse, and ended
    /// with us. `setpriv` execs it, so that the PID is the program's.
    fn program(&self, name: &str) -> Spawn {
        let spawn = Spawn::new("setpriv").args(["--pdeathsig", "INT"]);
        let user = ["--reuid", USER, "--regid", USER, "--clear-groups"];
        let user = is_root().then_some(user);
        spawn
            .args(user.into_iter().flatten())
            .args(iter::once(self.programs.join(name)))
    }

    fn url(&self, database: &str) -> String {
        let folder = self.folder.display();
        format!("postgres://{USER}@localhost/{database}?host={folder}")
    }
}

/// Whether nothing is denied to us.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing, and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn run_to_end(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_owned();
    let program = Path::new(&program).display();
    let output = command
        .output()
        .with_context(|| format!("could not run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}", said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first() {
        let tree = Folder::new("postgres-versions").unwrap();
        for name in ["9", "15", "16", "common"] {
            fs::create_dir(tree.path().join(name)).unwrap();
        }
        let versions = ["16", "15", "9"].map(|name| tree.path().join(name).join("bin"));
        assert_eq!(debian(tree.path()), versions);
        assert!(debian(&tree.path().join("none")).is_empty());
    }

    #[test]
    fn the_test_is_there_by_its_name_and_reads_the_variables() {
        let tests = include_str!("../../examples/shop/tests/shop/stops.rs");
        assert!(tests.contains(&format!("async fn {TEST}()")));
        for (variable, _) in DATABASES {
            assert!(
                tests.contains(&format!("var(\"{variable}\")")),
                "{variable}"
            );
        }
    }
}
