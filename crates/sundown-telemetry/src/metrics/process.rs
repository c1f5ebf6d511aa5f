//! What the kernel knows of the process (proc(5)), by the names that Prometheus' own clients have for it.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;

use super::read::write_gauge;

/// Is read when somebody asks; what the kernel does not show is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(stat) = Stat::read(&stat) {
            let cpu = ConstCounter::new(stat.cpu_seconds);
            let help = "User and system CPU time spent, in seconds.";
            cpu.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                help,
                None,
                cpu.metric_type(),
            )?)?;
            let gauges = [
                ("process_threads", "Threads of the process.", stat.threads),
                (
                    "process_virtual_memory_bytes",
                    "Virtual memory size, in bytes.",
                    stat.virtual_bytes,
                ),
                (
                    "process_resident_memory_bytes",
                    "Resident memory size, in bytes.",
                    stat.resident_bytes,
                ),
            ];
            for (name, help, value) in gauges {
                write_gauge(&mut encoder, name, help, value)?;
            }
            if let Some(boot) = boot_time() {
                let help = "When the process started, in seconds since 1970.";
                let started = boot + stat.started_seconds;
                write_gauge(&mut encoder, "process_start_time_seconds", help, started)?;
            }
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            // One of them is that of the folder.
            let open = descriptors.count().saturating_sub(1) as f64;
            write_gauge(
                &mut encoder,
                "process_open_fds",
                "Open file descriptors.",
                open,
            )?;
        }
        if let Some(most) = most_descriptors() {
            let help = "How many file descriptors may be open.";
            write_gauge(&mut encoder, "process_max_fds", help, most)?;
        }
        Ok(())
    }
}

/// Ticks of a second in /proc, whatever the kernel's own are (time(7): USER_HZ).
const TICKS: f64 = 100.0;

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: f64,
    /// Since the system started.
    started_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn read(text: &str) -> Option<Self> {
        // The name of the command may have spaces and parentheses; what follows the last one has none.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<f64> = rest
            .split(' ')
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        // By their numbers in proc_pid_stat(5), where the state is 3.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            threads: field(20)?,
            started_seconds: field(22)? / TICKS,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * rustix::param::page_size() as f64,
        })
    }
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.parse().ok()
}

fn most_descriptors() -> Option<f64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map(|most| most as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_moves_no_field() {
        let text = "7 (a) (b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 3 0 1000 8192 2 18446744073709551615 1";
        let stat = Stat::read(text).unwrap();
        assert_eq!(
            (stat.cpu_seconds, stat.threads, stat.started_seconds),
            (2.0, 3.0, 10.0)
        );
        assert_eq!(stat.virtual_bytes, 8192.0);
        assert_eq!(stat.resident_bytes, 2.0 * rustix::param::page_size() as f64);
        assert_eq!(Stat::read("7 (a"), None);
    }
}
