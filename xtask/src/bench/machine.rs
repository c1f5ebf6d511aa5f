//! The machine that a figure was measured on, and the few things that are asked of it.
//!
//! Never changes anything but this process: its threads' cores.

use std::io;
use std::mem::{size_of, zeroed};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

/// What a figure depends on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    cpu: String,
    kernel: String,
    /// The cores that this process may use.
    cores: usize,
    pub(super) server_core: usize,
    pub(super) client_core: usize,
}

impl Machine {
    /// Describes this machine, and gives the server its first core and the client its last.
    pub(super) fn describe() -> anyhow::Result<Self> {
        let cores = allowed_cores().context("could not ask for the cores")?;
        let (Some(&first), Some(&last)) = (cores.first(), cores.last()) else {
            anyhow::bail!("this process may use no core");
        };
        Ok(Self {
            cpu: cpu_model(),
            kernel: read_line("/proc/sys/kernel/osrelease"),
            cores: cores.len(),
            server_core: first,
            client_core: last,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            cpu,
            kernel,
            cores,
            server_core,
            client_core,
        } = self;
        write!(
            f,
            "{cpu}, {cores} cores, Linux {kernel}; server on core {server_core}, client on core {client_core}"
        )
    }
}

fn cpu_model() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    };
    info.lines()
        .find_map(named)
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn read_line(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

fn allowed_cores() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is an empty set, and the call writes at most its size to it.
    let (answer, set) = unsafe {
        let mut set = zeroed::<libc::cpu_set_t>();
        let answer = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set);
        (answer, set)
    };
    checked(answer)?;
    let size = usize::try_from(libc::CPU_SETSIZE).expect("it is positive");
    // SAFETY: every core asked for is below the size of the set.
    Ok((0..size)
        .filter(|&core| unsafe { libc::CPU_ISSET(core, &set) })
        .collect())
}

/// Keeps the calling thread on one core.
pub(super) fn pin_thread(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is an empty set; CPU_SET checks the core against its size; the
    // call reads the set only.
    checked(unsafe {
        let mut set = zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    })
}

/// Reads the CPU time of a process, user and system, its ended threads included
/// (clock_getcpuclockid(3)).
pub(super) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: the call writes one clock id to a valid place.
    match unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) } {
        0 => read_clock(clock),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Reads the CPU time of the calling thread.
pub(super) fn thread_cpu_time() -> io::Result<Duration> {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn read_clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes to one valid timespec.
    checked(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(
        time.tv_sec.cast_unsigned(),
        u32::try_from(time.tv_nsec).expect("below a second"),
    ))
}

/// Reads the bytes of memory that a process holds (proc_pid_smaps_rollup(5): exact, unlike the
/// counters in its status).
pub(super) fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"))
        .with_context(|| format!("{path} has no Rss"))?;
    Ok(kib.parse::<u64>()? * 1024)
}

fn checked(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_holds_memory_and_has_used_cpu_time() {
        let pid = std::process::id();
        assert!(resident(pid).unwrap() > 100 * 1024);
        let before = cpu_time(pid).unwrap();
        let thread = thread_cpu_time().unwrap();
        let used = || thread_cpu_time().unwrap() - thread;
        while used() < Duration::from_millis(5) {}
        assert!(cpu_time(pid).unwrap() - before >= Duration::from_millis(5));
    }

    #[test]
    fn a_pinned_thread_is_on_its_core() {
        let core = *allowed_cores().unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin_thread(core).unwrap();
            assert_eq!(allowed_cores().unwrap(), [core]);
        })
        .join()
        .unwrap();
    }
}
