//! How many files, and so sockets, this process and its children may have open.

use std::io;

use anyhow::{Context, ensure};

/// Raises the limit to the most that is allowed; children inherit it (getrlimit(2)).
///
/// # Errors
/// When fewer than `needed` are allowed.
pub(crate) fn allow(needed: u64) -> anyhow::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes to one valid rlimit.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads one valid rlimit.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    ensure!(
        limit.rlim_cur >= needed,
        "{needed} open files are needed and {} allowed: raise `ulimit -Hn`",
        limit.rlim_cur
    );
    Ok(())
}

fn checked(answer: libc::c_int) -> anyhow::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error()).context("the limit of open files");
    }
    Ok(())
}
