//! What a guard that is measured may do.

use std::ffi::OsString;

use anyhow::Context as _;
use sundown_verify::Refuse;

use crate::folder::Folder;
use crate::postgres::is_root;
use crate::workspace::Workspace;

/// By default what whoever measures may.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Rights {
    /// Guard as an ordinary user without capabilities, if this runs as root
    #[arg(long, env = "XTASK_ORDINARY_USER", conflicts_with = "deny_descriptors")]
    pub(crate) ordinary_user: bool,
    /// Deny pidfd_getfd to the guard, as most containers do
    #[arg(long, env = "XTASK_DENY_DESCRIPTORS")]
    pub(crate) deny_descriptors: bool,
}

/// A user and a group without any rights.
const NOBODY: u32 = 65534;

impl Rights {
    /// The command `sundown`, with these rights but for what is [refused](Self::refused).
    pub(crate) fn sundown(self, workspace: &Workspace) -> Vec<OsString> {
        self.with(workspace.target.join("release/sundown"))
    }

    /// Any program, with the same.
    pub(crate) fn with(self, program: impl Into<OsString>) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if self.changes_user() {
            let user = ["--reuid", "--regid"].map(|option| format!("{option}={NOBODY}"));
            words.push("setpriv".into());
            words.extend(user.map(OsString::from));
            words.extend(["--clear-groups", "--"].map(OsString::from));
        }
        words.push(program.into());
        words
    }

    /// What the kernel is to refuse it.
    pub(crate) fn refused(self) -> Refuse {
        match self.deny_descriptors {
            true => Refuse::Descriptors,
            false => Refuse::Nothing,
        }
    }

    /// Whether it may load BPF.
    pub(crate) fn may_load_bpf(self) -> bool {
        is_root() && !self.ordinary_user
    }

    /// Lets the guard, and what it guards, write into a folder, and everybody read it: the workers of a server may
    /// have become another user.
    ///
    /// # Errors
    /// When the folder cannot be given away.
    pub(crate) fn open(self, folder: &Folder) -> anyhow::Result<()> {
        folder.open()?;
        if self.changes_user() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY))
                .context("could not give the folder to an ordinary user")?;
        }
        Ok(())
    }

    fn changes_user(self) -> bool {
        self.ordinary_user && is_root()
    }
}
