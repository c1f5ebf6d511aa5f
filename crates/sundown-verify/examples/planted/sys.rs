//! What the system does for the server: signals, readiness, a listener without ears.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::{RELOADING, STOPPING};

extern "C" fn on_signal(signal: libc::c_int) {
    let told = if signal == libc::SIGHUP {
        &RELOADING
    } else {
        &STOPPING
    };
    told.store(true, Ordering::Relaxed);
}

pub(crate) fn handle(signal: i32) {
    // SAFETY: the handler does nothing but store to an atomic.
    unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
}

/// Lets no more connects in (`SO_BINDTOIFINDEX` to an interface that no system has, socket(7)).
pub(crate) fn make_deaf(listener: &TcpListener) {
    const SO_BINDTOIFINDEX: i32 = 62;
    let nowhere = libc::c_int::MAX;
    // SAFETY: the pointer and the length describe `nowhere`, which outlives the call.
    unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_BINDTOIFINDEX,
            (&raw const nowhere).cast(),
            size_of_val(&nowhere) as libc::socklen_t,
        );
    }
}

pub(crate) fn wait_readable(fd: RawFd, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd is passed, and it outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as libc::c_int) > 0 }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a server that is slow on purpose"
)]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}
