//! The kernel's readiness queue, bare: epoll(7), level-triggered.
//!
//! Used because a client must cost less than the server that it measures. Never owns the sockets.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

const BATCH: usize = 256;

/// A set of sockets, each under a number of the caller's.
pub(super) struct Epoll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// Makes an empty set.
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: epoll_create1(2) takes a number.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            // SAFETY: the descriptor is new, and nobody else knows of it.
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; BATCH],
        })
    }

    /// Watches a socket for what there is to read, its end included. Closing it removes it.
    pub(super) fn add(&self, socket: &impl AsRawFd, number: usize) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLRDHUP).cast_unsigned(),
            u64: number as u64,
        };
        // SAFETY: both descriptors are open for the length of the call, which copies the event.
        let answer = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                socket.as_raw_fd(),
                &raw mut event,
            )
        };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits for at most `limit`, and returns the numbers of the sockets that are ready.
    pub(super) fn wait(
        &mut self,
        limit: Duration,
    ) -> io::Result<impl Iterator<Item = usize> + use<'_>> {
        let milliseconds = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most BATCH events to a vector of that length.
        let ready = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                BATCH as i32,
                milliseconds,
            )
        };
        let ready = match usize::try_from(ready) {
            Ok(ready) => ready,
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => 0,
                error => return Err(error),
            },
        };
        Ok(self.events[..ready].iter().map(|event| event.u64 as usize))
    }
}
