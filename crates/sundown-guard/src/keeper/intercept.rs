//! The calls that wait: a `bind` of an address that is taken by ours, every `listen`, which is carried out
//! on a duplicate of the caller's socket, and `io_uring_setup` and `setsockopt`, which are taken note of.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::rings::{self, Rings};
use super::swap::{self, SetOption, Swap};
use crate::kin;
use crate::sys::{self, Answer, Call, Notification};

/// The least queue: what waits there is not lost while an application is busy.
const LEAST_BACKLOG: i32 = 1024;

/// Where the calls of a generation arrive, and what is known of its sockets.
pub(super) struct Calls {
    listener: OwnedFd,
    /// Addresses on which the generation before listens.
    shared: HashSet<SocketAddr>,
    /// Listeners that are to be used again.
    inherited: Vec<(SocketAddr, OwnedFd)>,
    /// What this generation has bound or listens on, by inode.
    known: Vec<(SocketAddr, u64)>,
    /// The inodes of those whose port was named, and not chosen by the system.
    named: HashSet<u64>,
    /// What is done where the caller's sockets may not be opened.
    swap: Swap,
    /// What is known of its rings.
    rings: Rings,
}

/// What comes of a call beside its answer.
pub(super) enum Outcome {
    Nothing,
    /// A socket listens since.
    Listens {
        socket: OwnedFd,
        inode: u64,
        /// Whether the application named its port.
        named: bool,
    },
    /// The call waits for the guard's duplicate of this socket, which nobody else has any more.
    Closed {
        inode: u64,
        waiting: Waiting,
    },
    /// Whoever runs the guard should know.
    Note(String),
}

/// A `bind` of an address that the guard still has a listener for.
pub(super) struct Waiting {
    call: u64,
    pid: i32,
    number: RawFd,
    address: SocketAddr,
    /// Whether that listener can take the place of the caller's socket.
    pub(super) wanted: bool,
}

/// A caller's socket.
struct Caller {
    pid: i32,
    number: RawFd,
    socket: OwnedFd,
    inode: u64,
}

impl Calls {
    pub(super) fn new(
        listener: OwnedFd,
        shared: Vec<SocketAddr>,
        inherited: Vec<(SocketAddr, OwnedFd)>,
    ) -> Self {
        Self {
            listener,
            shared: shared.into_iter().collect(),
            inherited,
            known: Vec::new(),
            named: HashSet::new(),
            swap: Swap::default(),
            rings: Rings::default(),
        }
    }

    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.listener
    }

    /// Answers the next call.
    ///
    /// # Errors
    /// `ENOENT` if the caller is gone; anything else after the call was let through.
    pub(super) fn next(&mut self) -> io::Result<Outcome> {
        let call = sys::receive_notification(self.listener.as_fd())?;
        let (answer, outcome) = match self.decide(&call) {
            Ok((Some(answer), outcome)) => (answer, Ok(outcome)),
            Ok((None, outcome)) => return Ok(outcome),
            Err(error) => (Answer::Continue, Err(error)),
        };
        sys::answer(self.listener.as_fd(), call.id, answer)?;
        outcome
    }

    /// Lets a call that waited go on, with the socket that it waited for if there is one.
    pub(super) fn go_on(&mut self, waiting: &Waiting, socket: Option<OwnedFd>) {
        let how = kin::descriptor(waiting.pid, waiting.number);
        let replaced = socket.zip(how).map(|(socket, how)| {
            let Waiting {
                call,
                number,
                address,
                ..
            } = *waiting;
            self.replace(call, number, address, &socket, how)
        });
        let answer = match replaced {
            Some(Ok(())) => Answer::Done,
            _ => Answer::Continue,
        };
        // Whoever is gone needs no answer.
        let _ = sys::answer(self.listener.as_fd(), waiting.call, answer);
    }

    /// Carries a call out, or not; without an answer it goes on waiting.
    fn decide(&mut self, call: &Notification) -> io::Result<(Option<Answer>, Outcome)> {
        let passes = Ok((Some(Answer::Continue), Outcome::Nothing));
        let pid = kin::process_of(call.thread).ok_or(io::ErrorKind::NotFound)?;
        match call.call {
            Call::Ring => {
                self.rings.set_up(Instant::now());
                passes
            }
            Call::Option => {
                // What cannot be read is lost where the socket is replaced.
                let _ = self.option(call, pid);
                passes
            }
            Call::Listen => match self.caller(call, pid)? {
                Some(caller) => Ok(self.listen(caller, call.arguments[1] as i32)),
                None => passes,
            },
            Call::Bind => {
                let Some(address) = self.address(call, pid)? else {
                    return passes;
                };
                match self.caller(call, pid)? {
                    Some(caller) => {
                        self.named.insert(caller.inode);
                        self.bind(call, &caller, address)
                    }
                    None => passes,
                }
            }
        }
    }

    /// The caller's socket, if it is one that we care for.
    fn caller(&mut self, call: &Notification, pid: i32) -> io::Result<Option<Caller>> {
        let process = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(process, PidfdFlags::empty())?;
        let number = call.arguments[0] as RawFd;
        let socket = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
            // The kernel will say so itself.
            Err(rustix::io::Errno::BADF) => return Ok(None),
            Err(error) if swap::is_denied(error) => match self.swapped(call, pid, number)? {
                Some(socket) => socket,
                None => return Ok(None),
            },
            other => other?,
        };
        self.check(call)?;
        let internet = matches!(
            sockopt::socket_domain(&socket),
            Ok(AddressFamily::INET | AddressFamily::INET6)
        );
        if !internet || sockopt::socket_type(&socket)? != SocketType::STREAM {
            return Ok(None);
        }
        Ok(Some(Caller {
            pid,
            number,
            inode: rustix::fs::fstat(&socket)?.st_ino,
            socket,
        }))
    }

    /// A socket of ours that the caller has in the place of its own: from its `bind` on, as it may not be opened
    /// later.
    fn swapped(
        &mut self,
        call: &Notification,
        pid: i32,
        number: RawFd,
    ) -> io::Result<Option<OwnedFd>> {
        if call.call == Call::Bind {
            let calls = self.listener.as_fd();
            return self.swap.replace(calls, call.id, pid, number);
        }
        if let Some(ours) = self.swap.take(pid, number) {
            return Ok(Some(ours));
        }
        let inode = swap::inode_at(pid, number)?;
        let listens = self.known.iter().any(|(_, own)| Some(*own) == inode);
        match !listens && swap::kind_of(pid, number).is_some() {
            true => Err(io::Error::other("it was not replaced when it was bound")),
            false => Ok(None),
        }
    }

    /// What was looked up of a caller was its own if it waits still.
    fn check(&self, call: &Notification) -> io::Result<()> {
        match sys::still_waits(self.listener.as_fd(), call.id) {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// The address that a `bind` names, unless it is another kind of address or the kernel is to choose a port.
    fn address(&self, call: &Notification, pid: i32) -> io::Result<Option<SocketAddr>> {
        let mut bytes = [0; 28];
        let length = (call.arguments[2] as usize).min(bytes.len());
        let length = swap::read_memory(pid, call.arguments[1], &mut bytes[..length])?;
        self.check(call)?;
        Ok(address_in(&bytes[..length]).filter(|address| address.port() != 0))
    }

    /// Takes note of an option that is set to a number.
    fn option(&mut self, call: &Notification, pid: i32) -> io::Result<()> {
        let [socket, level, name, value, length, _] = call.arguments;
        let mut bytes = [0; 4];
        if length < 4 || swap::read_memory(pid, value, &mut bytes)? < 4 {
            return Ok(());
        }
        let inode = swap::inode_at(pid, socket as RawFd)?;
        self.check(call)?;
        if let Some(inode) = inode {
            self.swap.remember(SetOption {
                inode,
                level: level as i32,
                name: name as i32,
                value: i32::from_ne_bytes(bytes),
            });
        }
        Ok(())
    }

    /// How long until [`tick`](Self::tick) is to be called, if it is.
    pub(super) fn wait(&self) -> Option<Duration> {
        let swap = self.swap.waits().then_some(swap::TICK);
        let rings = self.rings.wait(Instant::now());
        swap.into_iter().chain(rings).min()
    }

    /// Parts with what need not be kept; returns what is to be told of listeners that came past.
    pub(super) fn tick(&mut self) -> Option<String> {
        self.swap.tick();
        let known = &self.known;
        let is_known = |inode| known.iter().any(|(_, own)| *own == inode);
        self.rings.look(Instant::now(), || rings::unknown(is_known))
    }

    fn bind(
        &mut self,
        call: &Notification,
        caller: &Caller,
        address: SocketAddr,
    ) -> io::Result<(Option<Answer>, Outcome)> {
        if let Some(at) = self.inherited.iter().position(|(of, _)| *of == address) {
            let how = kin::descriptor(caller.pid, caller.number).ok_or(io::ErrorKind::NotFound)?;
            if !how.watched {
                let (_, socket) = self.inherited.swap_remove(at);
                self.replace(call.id, caller.number, address, &socket, how)?;
                return Ok((Some(Answer::Done), Outcome::Nothing));
            }
            // Its epoll would go on waiting for the socket that it has now.
            sockopt::set_socket_reuseport(&caller.socket, true)?;
            self.inherited.swap_remove(at);
            let text = format!(
                "{address}: the application waits for its listener before it is bound; who was in \
                 the queue at the crash is lost"
            );
            return Ok((Some(Answer::Continue), Outcome::Note(text)));
        }
        let here = self.known.iter().filter(|(of, _)| *of == address);
        let here: Vec<u64> = here.map(|(_, inode)| *inode).collect();
        let shares = sockopt::socket_reuseport(&caller.socket)?;
        if !here.is_empty() {
            let open = open_sockets();
            let is_open = |inode| open.as_ref().is_none_or(|open| open.contains(inode));
            // Where several share the address, that of a worker which is gone may be the last one.
            if let Some(&inode) = here.iter().find(|inode| !is_open(inode)) {
                self.known.retain(|(_, known)| *known != inode);
                let how = kin::descriptor(caller.pid, caller.number);
                let waiting = Waiting {
                    call: call.id,
                    pid: caller.pid,
                    number: caller.number,
                    address,
                    wanted: how.is_some_and(|how| !how.watched),
                };
                return Ok((None, Outcome::Closed { inode, waiting }));
            }
            if !shares && self.shared.contains(&address) {
                return Ok((Some(Answer::Fails(libc::EADDRINUSE)), Outcome::Nothing));
            }
        }
        if self.shared.contains(&address) {
            sockopt::set_socket_reuseport(&caller.socket, true)?;
            self.known.push((address, caller.inode));
        }
        Ok((Some(Answer::Continue), Outcome::Nothing))
    }

    /// Puts a listener that there is already in the place of the caller's socket.
    fn replace(
        &mut self,
        call: u64,
        number: RawFd,
        address: SocketAddr,
        socket: &OwnedFd,
        how: kin::Descriptor,
    ) -> io::Result<()> {
        // None of its processes has it any more.
        rustix::io::ioctl_fionbio(socket, how.nonblocking)?;
        sys::replace_descriptor(
            self.listener.as_fd(),
            call,
            socket.as_fd(),
            number,
            how.closes_on_exec,
        )?;
        let inode = rustix::fs::fstat(socket)?.st_ino;
        self.known.push((address, inode));
        self.named.insert(inode);
        self.swap.expect(socket)
    }

    fn listen(&mut self, caller: Caller, backlog: i32) -> (Option<Answer>, Outcome) {
        let Caller { socket, inode, .. } = caller;
        if !sockopt::socket_acceptconn(&socket).unwrap_or(false) {
            // From here on a later generation can join it; the port was taken without.
            let _ = sockopt::set_socket_reuseport(&socket, true);
        }
        // To the kernel it has no sign.
        let backlog = if backlog < 0 { i32::MAX } else { backlog };
        if let Err(error) = rustix::net::listen(&socket, backlog.max(LEAST_BACKLOG)) {
            let error = Answer::Fails(error.raw_os_error());
            return (Some(error), Outcome::Nothing);
        }
        if let Ok(Ok(address)) = rustix::net::getsockname(&socket).map(SocketAddr::try_from)
            && self.known.iter().all(|(_, known)| *known != inode)
        {
            self.known.push((address, inode));
        }
        let named = self.named.contains(&inode);
        let outcome = Outcome::Listens {
            socket,
            inode,
            named,
        };
        (Some(Answer::Done), outcome)
    }
}

/// The sockets that any process of this generation has, if that may be seen.
fn open_sockets() -> Option<HashSet<u64>> {
    kin::open_sockets(rustix::process::getpid().as_raw_nonzero().get())
}

/// Reads a `sockaddr_in` or a `sockaddr_in6` (ip(7), ipv6(7)).
fn address_in(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match libc::c_int::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(octets).into(), port))
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            // It may be left out (RFC 2133 has none).
            let scope = bytes.get(24..28).and_then(|scope| scope.try_into().ok());
            let scope = scope.map_or(0, u32::from_ne_bytes);
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_from_a_callers_bytes() {
        let family = |family: i32| (family as u16).to_ne_bytes();
        let mut four = family(libc::AF_INET).to_vec();
        four.extend([0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(address_in(&four), Some("127.0.0.1:8080".parse().unwrap()));
        let mut six = family(libc::AF_INET6).to_vec();
        six.extend([0, 80, 0, 0, 0, 0]);
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend([0; 4]);
        assert_eq!(address_in(&six), Some("[::1]:80".parse().unwrap()));
        let last = six.len() - 4;
        six[last..].copy_from_slice(&7_u32.to_ne_bytes());
        let scoped = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 7);
        assert_eq!(address_in(&six), Some(scoped.into()));
        assert_eq!(address_in(&six[..20]), None);
        assert_eq!(address_in(&family(libc::AF_UNIX)), None);
        assert_eq!(address_in(&[]), None);
    }
}
