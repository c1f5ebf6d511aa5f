//! A child process that is certainly gone at the end.
//!
//! Never signals by name and never sleeps: it waits on the child's pidfd.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running child; dropping it kills and reaps it.
pub(super) struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Process {
    /// Starts the command with nothing on stdin and stdout thrown away.
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        match pidfd_open(&child) {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(cause) => {
                child.kill()?;
                child.wait()?;
                Err(cause)
            }
        }
    }

    /// Asks the process to stop.
    pub(super) fn terminate(&self) -> io::Result<()> {
        let pid = self.child.id().cast_signed();
        // SAFETY: kill takes two integers; the child is not reaped yet, so the PID is its own.
        let answer = unsafe { libc::kill(pid, libc::SIGTERM) };
        if answer == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Waits for the exit, at most for `limit`; `None` says that the process still runs.
    pub(super) fn exit_within(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.poll(left)?;
        }
    }

    /// Blocks until the process has ended, `limit` has passed or a signal came.
    fn poll(&self, limit: Duration) -> io::Result<()> {
        let mut entry = libc::pollfd {
            fd: self.pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: `entry` is one valid pollfd, borrowed for the length of the call.
        let answer = unsafe { libc::poll(&raw mut entry, 1, milliseconds) };
        match io::Error::last_os_error() {
            cause if answer < 0 && cause.kind() != io::ErrorKind::Interrupted => Err(cause),
            _ => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child has been reaped, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pidfd_open(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
    match i32::try_from(answer) {
        // SAFETY: the kernel has just returned this descriptor, and nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_process_that_runs_is_not_gone_and_a_terminated_one_is() {
        let mut process = Process::start(Command::new("sleep").arg("60")).expect("sleep starts");

        assert_eq!(
            process
                .exit_within(Duration::from_millis(1))
                .expect("it can be waited for"),
            None
        );
        process.terminate().expect("it can be signalled");

        let status = process
            .exit_within(Duration::from_secs(10))
            .expect("it can be waited for");
        assert_eq!(
            status.and_then(|status| status.signal()),
            Some(libc::SIGTERM)
        );
    }
}
