//! Where the application's sockets may not be opened (pidfd_getfd(2) is denied, as in most containers): a socket
//! of the keeper's takes the place of the application's before it is bound, and the keeper has a duplicate.
//!
//! What was set on the application's socket before is lost, but for O_NONBLOCK, FD_CLOEXEC and the options of
//! listeners that are heard of as they are set; SO_REUSEADDR is always set. Never replaces a socket that somebody
//! else has, too, that an epoll waits for, or whose port the kernel is to choose: that is a client's. Never keeps
//! one alive that does not listen soon: it would look open to whoever it was connected to.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::{kin, sys};

/// How long a socket may be bound without that it listens.
const LONGEST: Duration = Duration::from_secs(10);

/// How often those are looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How many options are remembered.
const REMEMBERED: usize = 64;

/// Sockets of ours in an application that do not listen yet.
#[derive(Default)]
pub(super) struct Swap {
    pending: Vec<Pending>,
    /// What was set on sockets that may be replaced later, the latest at the end.
    options: VecDeque<SetOption>,
    /// Whether a socket could not be opened yet.
    needed: bool,
}

struct Pending {
    socket: OwnedFd,
    inode: u64,
    until: Instant,
}

/// An option that an application has set, on the socket of this inode.
pub(super) struct SetOption {
    pub(super) inode: u64,
    pub(super) level: i32,
    pub(super) name: i32,
    pub(super) value: i32,
}

/// Why the sockets of a process may not be opened, if that is so.
pub(super) fn is_needed(pid: i32) -> Option<String> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let denied = pidfd_getfd(&process, 0, PidfdGetfdFlags::empty()).err()?;
    is_denied(denied).then(|| {
        format!(
            "its descriptors may not be opened here (pidfd_getfd: {}): its listeners are replaced as they are \
             bound, with the options of listeners and no other",
            io::Error::from(denied)
        )
    })
}

/// Whether the sockets of a process that is yet to be started may turn out not to be opened.
pub(super) fn may_be_needed() -> bool {
    // One may always look at oneself, but for what a filter denies; Yama (ptrace(2)) is asked apart.
    let denied = is_needed(rustix::process::getpid().as_raw_nonzero().get()).is_some();
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    denied || scope.trim().parse().is_ok_and(|scope: u32| scope >= 2)
}

/// Whether it is the call that is not allowed, or not there.
pub(super) fn is_denied(error: rustix::io::Errno) -> bool {
    matches!(error, rustix::io::Errno::PERM | rustix::io::Errno::NOSYS)
}

/// Reads another process's memory by whichever of the two ways is allowed.
pub(super) fn read_memory(pid: i32, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
    match sys::read_memory(pid, address, bytes) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            let memory = File::open(format!("/proc/{pid}/mem"));
            let read = memory.and_then(|memory| memory.read_at(bytes, address));
            read.map_err(|also| {
                let text = format!("process_vm_readv says {error}, and /proc/{pid}/mem {also}");
                io::Error::other(text)
            })
        }
        other => other,
    }
}

impl Swap {
    /// Remembers what is set on a socket that may be replaced.
    pub(super) fn remember(&mut self, set: SetOption) {
        if self.options.len() == REMEMBERED {
            self.options.pop_front();
        }
        self.options.push_back(set);
    }

    /// Puts a socket of ours in the place of one that is to be bound; returns a duplicate.
    ///
    /// # Errors
    /// In words for whoever runs the guard; nothing has changed then.
    pub(super) fn replace(
        &mut self,
        calls: BorrowedFd<'_>,
        call: u64,
        pid: i32,
        number: RawFd,
    ) -> io::Result<Option<OwnedFd>> {
        self.needed = true;
        let Some(inode) = inode_at(pid, number)? else {
            return Ok(None);
        };
        if let Some(known) = self.pending.iter().find(|known| known.inode == inode) {
            // Bound before, or in vain.
            return known.socket.try_clone().map(Some);
        }
        let Some((family, protocol)) = kind_of(pid, number) else {
            return Ok(None);
        };
        let how = kin::descriptor(pid, number).ok_or(io::ErrorKind::NotFound)?;
        if how.watched {
            return Err(unreplaced("the application waits for it already"));
        }
        if is_shared(inode) {
            return Err(unreplaced("it has another descriptor, too"));
        }
        if fs::read_link(format!("/proc/{pid}/ns/net"))? != fs::read_link("/proc/self/ns/net")? {
            return Err(unreplaced("it is in another network namespace"));
        }
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(protocol))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        for set in self.options.iter().filter(|set| set.inode == inode) {
            // Where its own took it not either, the application was told so.
            let _ = sys::set_number(socket.as_fd(), set.level, set.name, set.value);
        }
        self.options.retain(|set| set.inode != inode);
        rustix::io::ioctl_fionbio(&socket, how.nonblocking)?;
        sys::replace_descriptor(calls, call, socket.as_fd(), number, how.closes_on_exec)?;
        self.expect(&socket)?;
        Ok(Some(socket))
    }

    /// An application has this socket of ours now, and is to listen on it.
    pub(super) fn expect(&mut self, socket: &OwnedFd) -> io::Result<()> {
        if self.needed {
            self.pending.push(Pending {
                socket: socket.try_clone()?,
                inode: rustix::fs::fstat(socket)?.st_ino,
                until: Instant::now() + LONGEST,
            });
        }
        Ok(())
    }

    /// Our duplicate of a socket that is to listen, if it is ours.
    pub(super) fn take(&mut self, pid: i32, number: RawFd) -> Option<OwnedFd> {
        let inode = inode_at(pid, number).ok()??;
        let at = self.pending.iter().position(|known| known.inode == inode)?;
        Some(self.pending.swap_remove(at).socket)
    }

    /// Whether [`tick`](Self::tick) is to be called in a while.
    pub(super) fn waits(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Parts with what became a connection, was closed, or does not listen for too long.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        self.pending.retain(|known| {
            let connects = rustix::net::getpeername(&known.socket).is_ok();
            now < known.until && !connects && is_open(known.inode)
        });
    }
}

fn unreplaced(why: &str) -> io::Error {
    io::Error::other(format!("it cannot be replaced: {why}"))
}

/// The number by which the kernel knows the socket at a descriptor, if it is one.
///
/// # Errors
/// Where what the process has open may not be seen.
pub(super) fn inode_at(pid: i32, number: RawFd) -> io::Result<Option<u64>> {
    let link = match fs::read_link(format!("/proc/{pid}/fd/{number}")) {
        // The kernel will say so itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreplaced(&format!("/proc/{pid}/fd says {error}"))),
        Ok(link) => link,
    };
    let socket = link.to_str().and_then(|link| link.strip_prefix("socket:["));
    Ok(socket.and_then(|inode| inode.trim_end_matches(']').parse().ok()))
}

/// What a stream socket of the internet was made as, by the name of its protocol, which sockets have as an
/// extended attribute (`sockfs_xattr_get` in the kernel's net/socket.c).
pub(super) fn kind_of(pid: i32, number: RawFd) -> Option<(AddressFamily, Protocol)> {
    let mut name = [0; 32];
    let path = format!("/proc/{pid}/fd/{number}");
    let length = rustix::fs::getxattr(&path, "system.sockprotoname", &mut name).ok()?;
    // With the zero at its end.
    match name.get(..length.saturating_sub(1))? {
        b"TCP" => Some((AddressFamily::INET, ipproto::TCP)),
        b"TCPv6" => Some((AddressFamily::INET6, ipproto::TCP)),
        b"MPTCP" => Some((AddressFamily::INET, ipproto::MPTCP)),
        b"MPTCPv6" => Some((AddressFamily::INET6, ipproto::MPTCP)),
        _ => None,
    }
}

fn is_open(inode: u64) -> bool {
    descriptors_of(inode) > 0
}

fn is_shared(inode: u64) -> bool {
    descriptors_of(inode) > 1
}

/// How often the processes of this generation have a socket open.
fn descriptors_of(inode: u64) -> usize {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let open = kin::descendants(own).into_iter().flat_map(kin::inodes);
    open.filter(|other| *other == inode).count()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_socket_is_known_by_its_protocol_from_outside() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let four = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let six = rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
        let datagrams = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let tcp = ipproto::TCP;
        let table = [
            (four, Some((AddressFamily::INET, tcp))),
            (six, Some((AddressFamily::INET6, tcp))),
            (datagrams, None),
        ];
        for (socket, kind) in table {
            let number = socket.as_raw_fd();
            assert_eq!(kind_of(own, number), kind);
            let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
            assert_eq!(inode_at(own, number).unwrap(), Some(inode));
        }
    }

    #[test]
    fn memory_is_read_by_either_way() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let secret = *b"what is here";
        let mut seen = [0; 12];
        let address = secret.as_ptr() as u64;
        assert_eq!(read_memory(own, address, &mut seen).unwrap(), 12);
        assert_eq!(seen, secret);
        let mut seen = [0; 12];
        let memory = File::open(format!("/proc/{own}/mem")).unwrap();
        memory.read_exact_at(&mut seen, address).unwrap();
        assert_eq!(seen, secret);
    }
}
