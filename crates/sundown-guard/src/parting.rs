//! The end of connections: what the application has closed lives on in a duplicate until nothing is in flight.
//!
//! The close of a socket with bytes unread resets it, and with it goes what was written and is not delivered yet.
//! While a duplicate is open the kernel sends nothing of a close. Nothing is done to a socket that a process of the
//! application still has.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::time::sleep;

use crate::sockets::Seen;
use crate::{kin, sys};

/// How often is looked whether the application has closed one: all of its descriptors are gone through.
pub(crate) const STEP: Duration = Duration::from_millis(50);

/// How many are kept at the most; the others end as the application ends them.
const MOST: usize = 512;

/// Connections of a generation that is told to stop.
pub(crate) struct Parting {
    /// Whose descendants have them.
    keeper: i32,
    connections: Vec<Connection>,
}

struct Connection {
    socket: OwnedFd,
    inode: u64,
    local: SocketAddr,
    peer: SocketAddr,
    left: bool,
}

/// A connection on which something came when the application had closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Parting {
    /// Takes duplicates of those that descendants of the keeper have, as far as that is allowed.
    pub(crate) fn of(keeper: i32, open: &[Seen]) -> Self {
        let mut connections = Vec::new();
        let mut taken = HashSet::new();
        for pid in kin::descendants(keeper) {
            let Some(process) = Pid::from_raw(pid) else {
                continue;
            };
            let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else {
                continue;
            };
            for (number, inode) in kin::sockets(pid) {
                let seen = open.iter().find(|seen| u64::from(seen.inode) == inode);
                let Some(seen) = seen.filter(|_| taken.len() < MOST) else {
                    continue;
                };
                let Ok(socket) = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) else {
                    continue;
                };
                // The number may mean another one by now.
                let is_it = rustix::fs::fstat(&socket).is_ok_and(|stat| stat.st_ino == inode);
                if is_it && taken.insert(inode) {
                    connections.push(Connection {
                        socket,
                        inode,
                        local: seen.local,
                        peer: seen.peer,
                        left: false,
                    });
                }
            }
        }
        Self {
            keeper,
            connections,
        }
    }

    /// Ends those that the application has closed and on which nothing is in flight; tells on which of them
    /// something came too late.
    pub(crate) fn look(&mut self) -> Vec<Late> {
        let mut late = Vec::new();
        if self.connections.is_empty() {
            return late;
        }
        let kin = kin::descendants(self.keeper).into_iter();
        let open: HashSet<u64> = kin.flat_map(kin::inodes).collect();
        self.connections.retain_mut(|connection| {
            if open.contains(&connection.inode) {
                return true;
            }
            let unsent = sys::unsent(connection.socket.as_fd()).unwrap_or(0);
            if !connection.left {
                connection.left = true;
                // What is written goes out before it.
                let _ = shutdown(&connection.socket, Shutdown::Write);
            }
            if connection.discard() {
                late.push(Late {
                    local: connection.local,
                    peer: connection.peer,
                });
            }
            unsent > 0
        });
        late.dedup();
        late
    }

    /// Waits until nothing is in flight on any.
    pub(crate) async fn end(mut self) -> Vec<Late> {
        let mut late = self.look();
        while !self.connections.is_empty() {
            sleep(STEP).await;
            late.extend(self.look());
        }
        late
    }
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
            let mut parting = Parting::of(own, &open);
            assert_eq!(parting.connections.len(), 1);
            assert_eq!(parting.look(), [], "the process has it");
            child.kill().unwrap();
            child.wait().unwrap();
            let late = Late {
                local: client.peer_addr().unwrap(),
                peer,
            };
            if kept {
                assert_eq!(parting.look(), [late]);
                assert_eq!(parting.connections.len(), 1, "the client has not read it");
            } else {
                parting.connections.clear();
            }
            let mut heard = Vec::new();
            let end = client.read_to_end(&mut heard);
            assert_eq!(end.is_ok() && heard.len() == written, kept, "{end:?}");
            // Its last acknowledgement may be delayed.
            while !parting.connections.is_empty() {
                assert_eq!(parting.look(), []);
                std::thread::yield_now();
            }
        }
    }
}
