//! Which processes belong together, as the kernel tells it (proc_pid_stat(5)).
//!
//! Never tells of a process that has ended and only waits to be reaped.

use std::collections::HashSet;
use std::fmt;
use std::fs;

/// Is a process that somebody started, directly or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descendant {
    /// Its number.
    pub pid: u32,
    /// Its command line, or its name where it has none.
    pub command: String,
}

impl fmt::Display for Descendant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {} ({})", self.pid, self.command)
    }
}

/// Is a line of the kernel's table of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    pid: u32,
    parent: u32,
    group: u32,
}

/// Lists the processes of a group.
pub(crate) fn members(group: u32) -> Vec<u32> {
    let of_group = table().into_iter().filter(|entry| entry.group == group);
    of_group.map(|entry| entry.pid).collect()
}

/// Lists the children of a process, their children, and so on.
pub(super) fn descendants(ancestor: u32) -> Vec<u32> {
    below(ancestor, &table())
}

/// Names a process; `None` if it is gone.
pub(super) fn named(pid: u32) -> Option<Descendant> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    let command = match line.trim() {
        "" => fs::read_to_string(format!("/proc/{pid}/comm")).ok()?,
        line => line.chars().take(COMMAND_LENGTH).collect(),
    };
    let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Descendant { pid, command })
}

/// How much of a command line is told: enough to know it, and one row.
const COMMAND_LENGTH: usize = 100;

fn below(ancestor: u32, table: &[Entry]) -> Vec<u32> {
    let mut found = vec![ancestor];
    // A table that is read while processes come and go may hold a circle.
    let mut known = HashSet::from([ancestor]);
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = table.iter().filter(|entry| entry.parent == parent);
        found.extend(
            children
                .map(|child| child.pid)
                .filter(|pid| known.insert(*pid)),
        );
        next += 1;
    }
    found.split_off(1)
}

fn table() -> Vec<Entry> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| entry(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect()
}

/// Reads what follows the name, which may contain anything: state, parent, group.
fn entry(pid: u32, stat: &str) -> Option<Entry> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let has_ended = matches!(fields.next()?, "Z" | "X");
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    (!has_ended).then_some(Entry { pid, parent, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_the_end_of_a_name_misleads_nobody() {
        let read = |rest: &str| entry(7, &format!("7 (a) Z 1 1) {rest}"));
        let found = Entry {
            pid: 7,
            parent: 3,
            group: 5,
        };
        assert_eq!(read("S 3 5 5 0"), Some(found));
        assert_eq!(read("Z 3 5 5 0"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn descendants_are_found_at_any_depth_whatever_their_group() {
        let line = |pid, parent| Entry {
            pid,
            parent,
            group: pid,
        };
        let table = [
            line(9, 8),
            line(2, 1),
            line(3, 2),
            line(8, 3),
            line(4, 1),
            line(5, 4),
        ];
        assert_eq!(below(2, &table), [3, 8, 9]);
        assert_eq!(below(9, &table), [0; 0]);
        let circle = [line(2, 3), line(3, 2)];
        assert_eq!(below(2, &circle), [3]);
    }
}
