//! Who descends from a process, as /proc tells it (proc_pid_task(5)).

use std::collections::HashSet;
use std::fs;
use std::io;

/// How often descendants are looked for once more, at the most: some fork and end without a pause.
const MORE_WALKS: u32 = 3;

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
    let mut found = walk(pid);
    // Whose parent has ended meanwhile is found at another place.
    for _ in 0..MORE_WALKS {
        let mut others = walk(pid);
        others.retain(|pid| !found.contains(pid));
        if others.is_empty() {
            break;
        }
        found.append(&mut others);
    }
    found
}

fn walk(pid: i32) -> Vec<i32> {
    let mut found = children(pid);
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(children(parent));
        at += 1;
    }
    found
}

/// Whether a process descends from another.
pub(crate) fn descends_from(mut pid: i32, ancestor: i32) -> bool {
    while pid > 1 {
        match parent(pid) {
            Some(parent) if parent == ancestor => return true,
            Some(parent) => pid = parent,
            None => return false,
        }
    }
    false
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before them may have parentheses, too (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// The inodes of all sockets that the descendants of a process have open; `None` where that may not be seen.
pub(crate) fn open_sockets(ancestor: i32) -> Option<HashSet<u64>> {
    let kin = descendants(ancestor);
    kin.iter()
        .all(|pid| may_be_seen(*pid))
        .then(|| kin.into_iter().flat_map(inodes).collect())
}

/// Whether it may be seen what a process has open: the list of it and each of its entries are asked for apart.
fn may_be_seen(pid: i32) -> bool {
    let first = fs::read_dir(format!("/proc/{pid}/fd")).and_then(|mut open| match open.next() {
        Some(first) => fs::read_link(first?.path()).map(drop),
        None => Ok(()),
    });
    // Whoever has ended meanwhile has nothing open.
    !first.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// Lists the sockets that a process has open, by their descriptors and inodes; none where that may not be seen.
pub(crate) fn sockets(pid: i32) -> Vec<(i32, u64)> {
    let sockets = open(pid).filter_map(|(number, link)| Some((number, socket(&link)?)));
    sockets.collect()
}

/// Lists the inodes of the same, and of those that it has in its rings and not as descriptors.
pub(crate) fn inodes(pid: i32) -> Vec<u64> {
    let mut inodes = Vec::new();
    for (number, link) in open(pid) {
        if link == "anon_inode:[io_uring]" {
            let fdinfo = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            inodes.extend(in_ring(&fdinfo.unwrap_or_default()));
        }
        inodes.extend(socket(&link));
    }
    inodes
}

/// Whether a process has anything open: if not, it ends, and what it had is closed by that.
pub(crate) fn has_files(pid: i32) -> bool {
    open(pid).next().is_some()
}

/// Whether any descendant of a process has anything open, or may have, where that may not be seen: if not, all of them
/// end.
pub(crate) fn have_files(ancestor: i32) -> bool {
    let mut kin = descendants(ancestor).into_iter();
    kin.any(|pid| has_files(pid) || !may_be_seen(pid))
}

/// What a process has open: the descriptors, and what the kernel calls them.
fn open(pid: i32) -> impl Iterator<Item = (i32, String)> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    open.into_iter().flatten().flatten().filter_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        Some((number, link.to_str()?.to_owned()))
    })
}

/// The inode of a socket, by what the kernel calls it.
fn socket(name: &str) -> Option<u64> {
    let inode = name.strip_prefix("socket:[")?.strip_suffix(']')?;
    inode.parse().ok()
}

/// The sockets that are registered with a ring, and so may have no descriptor (io_uring_register(2)): the kernel
/// lists them in the ring's fdinfo, behind `UserFiles`, as `    0: socket:[4711]`.
fn in_ring(fdinfo: &str) -> impl Iterator<Item = u64> {
    let lines = fdinfo.lines();
    let files = lines.skip_while(|line| !line.starts_with("UserFiles:"));
    files.filter_map(|line| socket(line.split_once(": ")?.1))
}

/// What /proc tells of a descriptor (proc_pid_fdinfo(5)).
pub(crate) fn descriptor(pid: i32, number: i32) -> Option<Descriptor> {
    let text = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
    Some(Descriptor {
        nonblocking: flags & libc::O_NONBLOCK != 0,
        closes_on_exec: flags & libc::O_CLOEXEC != 0,
        watched: watched(pid, number),
    })
}

/// How a process has a descriptor open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) nonblocking: bool,
    pub(crate) closes_on_exec: bool,
    /// An epoll of the process waits for it already.
    pub(crate) watched: bool,
}

fn watched(pid: i32, number: i32) -> bool {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return false;
    };
    open.flatten().any(|entry| {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let of_epoll = |line: &str| {
            let mut words = line.strip_prefix("tfd:")?.split_whitespace();
            words.next()?.parse::<i32>().ok()
        };
        text.lines()
            .filter_map(of_epoll)
            .any(|target| target == number)
    })
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
    fn sockets_in_a_ring_are_read_from_what_the_kernel_writes() {
        let fdinfo = "flags:\t02000002\nSqMask:\t0x3\nUserFiles:\t3\n    0: socket:[4711]\n    1: /dev/null\n    \
                      12: socket:[4712]\nUserBufs:\t0\n";
        assert_eq!(in_ring(fdinfo).collect::<Vec<_>>(), [4711, 4712]);
        assert_eq!(in_ring("flags:\t02\n").count(), 0);
    }

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
