//! A folder of its own for a chore that needs files; gone when dropped.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A new folder among the machine's temporary ones.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes a folder that nobody else uses, named after the chore.
    ///
    /// # Errors
    /// When it cannot be made, or is there already.
    pub(crate) fn new(chore: &str) -> anyhow::Result<Self> {
        let folder = env::temp_dir().join(format!("sundown-{chore}-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("could not make {}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Lets everybody read it: the workers of a server may have become another user.
    ///
    /// # Errors
    /// When its mode cannot be changed.
    pub(crate) fn open(&self) -> anyhow::Result<()> {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&self.0, open).context("could not open the folder to others")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays is untidy, not wrong.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_folder_is_gone_with_what_lay_in_it() {
        let folder = Folder::new("folder-test").unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "").unwrap();
        assert!(Folder::new("folder-test").is_err(), "it is taken");

        drop(folder);
        assert!(!path.exists());
    }
}
