//! Who descends from a process, as /proc tells it (proc_pid_task(5)).

use std::fs;

/// Lists the children of a process, whichever of its threads has them.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let of_thread = |thread: fs::DirEntry| {
        let list = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        list.split_whitespace()
            .filter_map(|child| child.parse().ok())
            .collect::<Vec<_>>()
    };
    threads.flatten().flat_map(of_thread).collect()
}

/// Lists all descendants, parents first.
pub(crate) fn descendants(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(children(parent));
        at += 1;
    }
    found
}

/// The process that a thread belongs to.
pub(crate) fn process_of(thread: u32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn children_and_threads_are_found() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(children(own).contains(&pid));
        assert!(descendants(own).contains(&pid));
        // SAFETY: gettid has no preconditions.
        let thread = unsafe { libc::gettid() };
        assert_eq!(process_of(thread as u32), Some(own));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
