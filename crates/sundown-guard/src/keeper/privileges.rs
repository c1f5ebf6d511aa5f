//! *Tells* of privileges that a command does not gain because it is guarded: without CAP_SYS_ADMIN the kernel
//! lets a filter in only under no_new_privs (seccomp(2)), and that makes set-ID bits and file capabilities void.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// What a command would have gained by its file, if no_new_privs was set for it and not before.
pub(super) fn lost(command: &OsStr, pid: i32) -> Option<String> {
    if no_new_privs("self") || !no_new_privs(&pid.to_string()) {
        return None;
    }
    let file = file_of(command)?;
    let what = gained_by(&file)?;
    Some(format!(
        "{} {what}, which it does not gain here: without CAP_SYS_ADMIN it can be guarded only under no_new_privs",
        file.display()
    ))
}

fn no_new_privs(process: &str) -> bool {
    // One that has ended has gained nothing, and says so still until it is reaped.
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mut lines = status.lines();
    lines.any(|line| line.strip_prefix("NoNewPrivs:").map(str::trim) == Some("1"))
}

/// The file that is executed, as execvp(3) finds it.
fn file_of(command: &OsStr) -> Option<PathBuf> {
    if command.as_bytes().contains(&b'/') {
        return Some(command.into());
    }
    let folders = env::var_os("PATH")?;
    let mut files = env::split_paths(&folders).map(|folder| folder.join(command));
    files.find(|file| {
        let can = fs::metadata(file).map(|file| file.is_file() && file.mode() & 0o111 != 0);
        can.unwrap_or(false)
    })
}

fn gained_by(file: &PathBuf) -> Option<&'static str> {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2010;
    let known = fs::metadata(file).ok()?;
    let mode = known.mode();
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    if mode & SETUID != 0 && known.uid() != user {
        return Some("is setuid to another user");
    }
    // Without the right to execute, the bit means something else (inode(7)).
    if mode & SETGID == SETGID && known.gid() != group {
        return Some("is setgid to another group");
    }
    let capabilities = rustix::fs::getxattr(file, "security.capability", &mut [0; 64]);
    capabilities
        .is_ok_and(|length| length > 0)
        .then_some("has file capabilities")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_as_it_is_executed() {
        assert_eq!(file_of(OsStr::new("./here")), Some("./here".into()));
        let shell = file_of(OsStr::new("sh")).unwrap();
        assert!(shell.is_absolute() && shell.ends_with("sh"), "{shell:?}");
        assert_eq!(file_of(OsStr::new("no-such-program")), None);
        assert_eq!(gained_by(&shell), None);
    }
}
