//! Sockets: ends in ways the standard library has no name for, and what may be done to them.

use std::mem::size_of_val;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};

/// Closes a connection by RST, and throws away what was not yet delivered.
///
/// # Panics
/// If the socket refuses to linger.
pub fn close_with_reset(stream: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: `stream` is open, and the pointer and length describe `linger`.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "SO_LINGER is always accepted");
}

/// Waits until a socket has something to read or to accept.
pub(crate) fn wait_readable(socket: &impl AsFd) {
    let mut poll = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the pointer describes one `pollfd`, whose descriptor is borrowed and hence open. An
    // interrupted wait is repeated.
    while unsafe { libc::poll(&raw mut poll, 1, -1) } != 1 {}
}

/// Whether this process may attach a filter to a socket of TCP: Linux 6.18 asks for CAP_NET_ADMIN
/// (capabilities(7)).
pub fn may_attach_filters() -> bool {
    const NET_ADMIN: u32 = 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|effective| u64::from_str_radix(effective.trim(), 16).ok());
    effective.unwrap_or(0) & (1 << NET_ADMIN) != 0
}
