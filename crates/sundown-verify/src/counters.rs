//! What the kernel counts of TCP in a network namespace (proc_net_snmp(5), and the kernel's
//! Documentation/networking/snmp_counter.rst).
//!
//! The counters are a namespace's and no process's: they tell of a service only where it has the
//! namespace to itself ([`private_net`](crate::private_net)), and of our clients together with it.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

/// Is a counter that tells how a server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter {
    /// The table it is in.
    table: &'static str,
    /// Its name in the kernel.
    pub name: &'static str,
    /// What it counts.
    pub meaning: &'static str,
}

/// The counters that are read.
pub const COUNTERS: [Counter; 9] = [
    counter("Tcp", "OutRsts", "resets sent"),
    counter("Tcp", "AttemptFails", "connects failed"),
    counter("Tcp", "EstabResets", "ends of connections reset"),
    counter(
        "TcpExt",
        "ListenOverflows",
        "handshakes at a full accept queue",
    ),
    counter(
        "TcpExt",
        "ListenDrops",
        "handshakes dropped by the listener",
    ),
    counter(
        "TcpExt",
        "TCPReqQFullDrop",
        "connects dropped at a full SYN queue",
    ),
    counter("TcpExt", "TCPAbortOnClose", "closed with bytes unread"),
    counter(
        "TcpExt",
        "TCPAbortOnData",
        "aborted with bytes on their way",
    ),
    counter(
        "TcpExt",
        "TCPRcvQDrop",
        "segments dropped at a full receive queue",
    ),
];

const fn counter(table: &'static str, name: &'static str, meaning: &'static str) -> Counter {
    Counter {
        table,
        name,
        meaning,
    }
}

/// Holds what was counted, by the counter's name; a counter that this kernel does not have is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Counted(BTreeMap<&'static str, u64>);

impl Counted {
    /// Reads what was counted since the namespace was made; nothing, where that cannot be read.
    pub(crate) fn now() -> Self {
        let mut counted = Self::default();
        for file in ["/proc/net/snmp", "/proc/net/netstat"] {
            counted.add(&fs::read_to_string(file).unwrap_or_default());
        }
        counted
    }

    /// Returns what was counted after `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (name, value) in &mut self.0 {
            *value = value.saturating_sub(before.get(name).unwrap_or(0));
        }
        self
    }

    /// Returns a counter's value, if the kernel has it.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// Reads pairs of lines: the names of a table, and their values in the same order.
    fn add(&mut self, text: &str) {
        let lines: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .collect();
        for pair in lines.chunks_exact(2) {
            let [(table, names), (_, values)] = pair else {
                continue;
            };
            let values = values.split(' ').map(str::parse);
            for (name, value) in names.split(' ').zip(values) {
                let known = COUNTERS
                    .iter()
                    .find(|one| one.table == *table && one.name == name);
                if let (Some(known), Ok(value)) = (known, value) {
                    self.0.insert(known.name, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_counters_are_read_by_table_and_name_and_others_passed_over() {
        let text = "Ip: Forwarding OutRsts\nIp: 1 77\n\
                    Tcp: MaxConn OutRsts New\nTcp: -1 5 9\n\
                    TcpExt: ListenDrops\nTcpExt: 3\nTcpExt: TCPAbortOnData";
        let mut counted = Counted::default();
        counted.add(text);
        assert_eq!(counted.get("OutRsts"), Some(5));
        assert_eq!(counted.get("ListenDrops"), Some(3));
        assert_eq!(counted.0.len(), 2, "{counted:?}");

        let mut later = Counted::default();
        later.add("Tcp: OutRsts AttemptFails\nTcp: 12 4\n");
        let between = later.since(&counted);
        assert_eq!(between.get("OutRsts"), Some(7));
        assert_eq!(between.get("AttemptFails"), Some(4));
        assert_eq!(between.get("ListenDrops"), None);
    }

    #[test]
    fn this_kernel_counts_resets() {
        assert!(Counted::now().get("OutRsts").is_some());
    }
}
