//! A process by a descriptor that never comes to mean another (pidfd_open(2)).
//!
//! The promise: a signal reaches the process that was opened or nobody, even when its PID has been
//! given away since. Never reaps: that is the parent's.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Holds a process, whoever started it.
#[derive(Debug)]
pub(crate) struct Pidfd(AsyncFd<OwnedFd>);

impl Pidfd {
    /// Opens a process.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open(2) takes two numbers.
        let fd = match unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) } {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: the descriptor is new, and nobody else knows of it.
            fd => unsafe { OwnedFd::from_raw_fd(fd as i32) },
        };
        Self::watch(fd)
    }

    /// Takes over a descriptor of a process.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn watch(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: an `OwnedFd` keeps its descriptor open, and the same, for as long as it lives.
        let watched = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self(watched))
    }

    /// Sends a signal (pidfd_send_signal(2)); 0 only asks whether one could be sent.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        let no_info = ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open for as long as `self` lives, and no pointer is given.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until the process has ended, with all its threads.
    ///
    /// # Cancel safety
    /// Safe: call it again.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        self.0.readable().await?.retain_ready();
        Ok(())
    }

    /// Tells whether it has ended already, reaped or not.
    pub(crate) fn has_ended(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: the pointer is to one `pollfd`, which the kernel writes to before it returns.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }
}
