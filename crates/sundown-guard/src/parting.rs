//! The end of connections on which data is in flight: what the application closes lives on in a duplicate until
//! that has arrived.
//!
//! The close of a socket with bytes unread resets it, and with it goes what was written and is not delivered yet.
//! While a duplicate is open the kernel sends nothing of a close. So there is one only while both are so: of any
//! other connection the client hears at once that it is closed. Nothing is done to a socket that a process of the
//! application still has.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::time::sleep;

use crate::sockets::Seen;
use crate::{kin, sys};

/// How often is looked for data in flight, and for what the application has closed.
pub(crate) const STEP: Duration = Duration::from_millis(10);

/// How many are kept at the most; the others end as the application ends them.
const MOST: usize = 512;

/// Connections of a generation that is told to stop.
pub(crate) struct Parting {
    /// Whose descendants have them.
    keeper: i32,
    kept: Vec<Connection>,
}

struct Connection {
    socket: OwnedFd,
    inode: u64,
    local: SocketAddr,
    peer: SocketAddr,
    /// That the application has closed it.
    left: bool,
}

/// A connection on which something came that nobody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Parting {
    pub(crate) fn of(keeper: i32) -> Self {
        Self {
            keeper,
            kept: Vec::new(),
        }
    }

    /// Keeps those on which data is in flight, as far as that is allowed, and ends those that the application has
    /// closed once none is any more; tells on which of them something was unread.
    pub(crate) fn look(&mut self, open: &[Seen]) -> Vec<Late> {
        let in_flight = open
            .iter()
            .filter(|seen| seen.unread > 0 && seen.unsent > 0);
        let in_flight: Vec<&Seen> = in_flight.collect();
        if in_flight.is_empty() && self.kept.is_empty() {
            return Vec::new();
        }
        self.end_those_left();
        let is_in_flight = |inode| in_flight.iter().any(|seen| u64::from(seen.inode) == inode);
        let mut late = Vec::new();
        self.kept.retain(|connection| {
            if !connection.left {
                return is_in_flight(connection.inode);
            }
            let discarded = connection.discard();
            late.extend(discarded.then_some(Late {
                local: connection.local,
                peer: connection.peer,
            }));
            sys::unsent(connection.socket.as_fd()).is_ok_and(|unsent| unsent > 0)
        });
        self.keep(&in_flight);
        late
    }

    /// Waits until nothing is in flight on any.
    pub(crate) async fn end(mut self) -> Vec<Late> {
        let mut late = self.look(&[]);
        while !self.kept.is_empty() {
            sleep(STEP).await;
            late.extend(self.look(&[]));
        }
        late
    }

    /// Says to the clients of those that no process has any more that nothing follows what was written.
    fn end_those_left(&mut self) {
        if self.kept.iter().all(|connection| connection.left) {
            return;
        }
        let Some(open) = kin::open_sockets(self.keeper) else {
            return;
        };
        let left =
            |connection: &&mut Connection| !connection.left && !open.contains(&connection.inode);
        for connection in self.kept.iter_mut().filter(left) {
            connection.left = true;
            let _ = shutdown(&connection.socket, Shutdown::Write);
        }
    }

    /// Takes duplicates of those that are not kept yet.
    fn keep(&mut self, in_flight: &[&Seen]) {
        let is_kept = |seen: &&&Seen| {
            let mut kept = self.kept.iter();
            kept.any(|connection| connection.inode == u64::from(seen.inode))
        };
        let mut wanted: Vec<&Seen> = in_flight
            .iter()
            .filter(|seen| !is_kept(seen))
            .copied()
            .collect();
        if wanted.is_empty() {
            return;
        }
        for pid in kin::descendants(self.keeper) {
            for (number, inode) in kin::sockets(pid) {
                let found = wanted
                    .iter()
                    .position(|seen| u64::from(seen.inode) == inode);
                let Some(found) = found.filter(|_| self.kept.len() < MOST) else {
                    continue;
                };
                if let Some(socket) = duplicate(pid, number, inode) {
                    let Seen { local, peer, .. } = *wanted.swap_remove(found);
                    self.kept.push(Connection {
                        socket,
                        inode,
                        local,
                        peer,
                        left: false,
                    });
                }
            }
        }
    }
}

/// Another descriptor of a process's socket, if it is still the one with this inode.
fn duplicate(pid: i32, number: i32, inode: u64) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
    let is_it = rustix::fs::fstat(&socket).is_ok_and(|stat| stat.st_ino == inode);
    is_it.then_some(socket)
}

impl Connection {
    /// Reads what nobody will; tells whether there was anything.
    fn discard(&self) -> bool {
        let mut bytes = [0; 16 << 10];
        let mut any = false;
        while let Ok((_, 1..)) = recv(&self.socket, &mut bytes, RecvFlags::DONTWAIT) {
            any = true;
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command};

    use netlink_packet_sock_diag::inet::StateFlags;

    use super::*;
    use crate::sockets;

    /// A process that has a connection open, its client, and what was written before that client has read.
    fn left_open() -> (Child, TcpStream, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = server.write(&[b'x'; 64 << 10]) {
            written += count;
        }
        client.write_all(b"nobody reads it").unwrap();
        let child = Command::new("sleep")
            .arg("60")
            .stdin(OwnedFd::from(server))
            .spawn()
            .unwrap();
        (child, client, written)
    }

    #[test]
    fn a_process_that_ends_with_bytes_unread_loses_none_that_it_wrote() {
        for kept in [false, true] {
            let (mut child, mut client, written) = left_open();
            let open = sockets::list(StateFlags::ESTABLISHED).unwrap();
            // This process is the keeper of its children.
            let own = i32::try_from(std::process::id()).unwrap();
            let peer = client.local_addr().unwrap();
            let open: Vec<_> = open.into_iter().filter(|seen| seen.peer == peer).collect();
            let mut parting = Parting::of(own);
            assert_eq!(parting.look(&open), [], "the process has it");
            assert_eq!(parting.kept.len(), 1);
            child.kill().unwrap();
            child.wait().unwrap();
            let late = Late {
                local: client.peer_addr().unwrap(),
                peer,
            };
            if kept {
                assert_eq!(parting.look(&[]), [late]);
                assert_eq!(parting.kept.len(), 1, "the client has not read it");
            } else {
                parting.kept.clear();
            }
            let mut heard = Vec::new();
            let end = client.read_to_end(&mut heard);
            assert_eq!(end.is_ok() && heard.len() == written, kept, "{end:?}");
            // Its last acknowledgement may be delayed.
            while !parting.kept.is_empty() {
                assert_eq!(parting.look(&[]), []);
                std::thread::yield_now();
            }
        }
    }
}
