//! What a process does with a signal, and whether it has come, as the kernel tells it (SigBlk, SigIgn,
//! SigCgt and ShdPnd in proc_pid_status(5)).
//!
//! Never asks the process itself.

/// What happens to a signal when it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Nobody handles it: the kernel does what is usual, which mostly is to end the process.
    Default,
    /// A handler stands.
    Caught,
    /// It is thrown away.
    Ignored,
    /// It waits in every thread until somebody asks for it: signalfd(2), sigwait(3).
    Blocked,
}

impl Disposition {
    /// Asks the kernel; `None` where there is no such process.
    pub fn of(pid: u32, signal: i32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        match read(&status, signal)? {
            Self::Blocked if somebody_takes(pid, signal) => Some(Self::Default),
            other => Some(other),
        }
    }
}

/// Tells whether a signal that was sent to a process is still to be delivered: none of its threads has
/// run since, or each blocks it. `None` where there is no such process.
pub(crate) fn is_pending(pid: u32, signal: i32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    holds(&status, "ShdPnd:", signal)
}

/// Tells whether some thread does not block it: one that starts another blocks all for a moment.
fn somebody_takes(pid: u32, signal: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let statuses =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let mut read = statuses.filter_map(|status| read(&status, signal));
    read.any(|one| one != Disposition::Blocked)
}

fn read(status: &str, signal: i32) -> Option<Disposition> {
    let holds = |name| holds(status, name, signal);
    Some(
        match (holds("SigIgn:")?, holds("SigBlk:")?, holds("SigCgt:")?) {
            (true, _, _) => Disposition::Ignored,
            // Its first thread alone may block it, in order that another takes it.
            (false, true, false) => Disposition::Blocked,
            (false, _, true) => Disposition::Caught,
            (false, false, false) => Disposition::Default,
        },
    )
}

/// Tells whether a set of signals has this one.
fn holds(status: &str, set: &str, signal: i32) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix(set))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
}

/// Names a signal as signal(7) does.
pub fn name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGTERM => "SIGTERM",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mask_says_what_becomes_of_a_signal() {
        const TERM: u64 = 1 << (libc::SIGTERM - 1);
        const INT: u64 = 1 << (libc::SIGINT - 1);
        let table = [
            (0, 0, 0, Disposition::Default),
            (0, 0, TERM, Disposition::Caught),
            (TERM, 0, TERM, Disposition::Caught),
            (TERM, 0, 0, Disposition::Blocked),
            (TERM, TERM, 0, Disposition::Ignored),
            (INT, INT, INT, Disposition::Default),
        ];
        for (blocked, ignored, caught, expected) in table {
            let status = format!(
                "Name:\ta\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
            );
            assert_eq!(read(&status, libc::SIGTERM), Some(expected), "{status}");
        }
        assert_eq!(read("Name:\ta\n", libc::SIGTERM), None);
    }

    #[test]
    fn of_this_process_the_kernel_knows() {
        let pid = std::process::id();
        assert_ne!(Disposition::of(pid, libc::SIGUSR2), None);
    }

    #[test]
    fn a_signal_to_a_frozen_process_is_pending() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id() as libc::pid_t;
        // SAFETY: kill(2) takes no pointers, and waitpid(2) takes a null one.
        let stopped = unsafe {
            libc::kill(pid, libc::SIGSTOP);
            libc::waitpid(pid, std::ptr::null_mut(), libc::WUNTRACED)
        };
        assert_eq!(stopped, pid);
        assert_eq!(is_pending(child.id(), libc::SIGTERM), Some(false));
        // SAFETY: kill(2) takes no pointers.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        assert_eq!(is_pending(child.id(), libc::SIGTERM), Some(true));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(is_pending(child.id(), libc::SIGTERM), None);
    }
}
