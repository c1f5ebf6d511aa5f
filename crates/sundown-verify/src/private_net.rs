//! Moves the process into a network namespace of its own (network_namespaces(7)), in which there is
//! the loopback interface and nothing else.
//!
//! The promise: afterwards everything that this process starts or connects to is in there, so that the
//! kernel's [counters](crate::counters) count that alone. Where it is refused, the process is to end:
//! half of it may be done.

use std::fs;
use std::io;
use std::mem;

/// Means that there is no network namespace to be had.
#[derive(Debug, thiserror::Error)]
#[error("this system refuses a network namespace of one's own ({step})")]
pub struct Refused {
    step: &'static str,
    #[source]
    cause: io::Error,
}

/// Enters a new network namespace: as whoever may do so, or else in a user namespace in which the user
/// and the group are what they were (user_namespaces(7)).
///
/// To be called before the process has a second thread: only the calling thread enters a network
/// namespace, and no process of several threads a user namespace.
///
/// # Errors
/// If the system refuses.
pub fn enter() -> Result<(), Refused> {
    if unshare(libc::CLONE_NEWNET).is_err() {
        // SAFETY: both only return a number.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET).map_err(refused("unshare(2)"))?;
        write_maps(user, group).map_err(refused("the map of the user namespace"))?;
    }
    raise_loopback().map_err(refused("its loopback interface"))
}

fn refused(step: &'static str) -> impl FnOnce(io::Error) -> Refused {
    move |cause| Refused { step, cause }
}

fn unshare(what: i32) -> io::Result<()> {
    // SAFETY: unshare(2) takes a number.
    match unsafe { libc::unshare(what) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn write_maps(user: libc::uid_t, group: libc::gid_t) -> io::Result<()> {
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    // Without it the kernel takes no map of groups from the unprivileged.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Sets the loopback interface up (netdevice(7)), by which the kernel gives it 127.0.0.1 and ::1.
fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the request is all zero but for the name, which ends with a zero, and the flags, which
    // the kernel reads and writes; it outlives both calls.
    unsafe {
        let mut request = mem::zeroed::<libc::ifreq>();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
        if libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        match libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw mut request) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
