//! The end of connections on which data is in flight: what the application closes lives on in a duplicate until
//! that has arrived.
//!
//! The close of a socket with bytes unread resets it, and with it goes what was written and is not delivered yet.
//! While a duplicate is open the kernel sends nothing of a close. So there is one only while both are so, and, of
//! connections at rest, while the application stops, in which time these are hushed. Of any other connection the client
//! hears at once that it is closed. Nothing else is done to a socket that a process of the application still has.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::time::{Instant, sleep};

use crate::hush::Hushed;
use crate::sockets::Seen;
use crate::{kin, sys};

/// How often is looked for data in flight, and for what the application has closed.
pub(crate) const STEP: Duration = Duration::from_millis(10);

/// How long what comes to a connection at rest is not heard, in any case: an application that dies of its signal is
/// gone by then. A client's kernel waits longer before it says a thing again. Clients of one that lives on and closes
/// connections hear of that a step later.
const INSTANT: Duration = Duration::from_millis(100);
const STEP_IN_IT: Duration = Duration::from_millis(1);

/// How long it is not heard while the application has the connection open and says nothing on it: Tomcat answers
/// nobody any more two seconds before it closes. A client of one that goes on to serve waits so long, and until its
/// kernel says the request again; one that waits for its clients to close hears of that as late.
const LONGEST: Duration = Duration::from_secs(3);

/// How many of either kind are kept at the most; the others end as the application ends them.
const MOST: usize = 512;

/// Connections of a generation that is told to stop.
pub(crate) struct Parting {
    /// Whose descendants have them.
    keeper: i32,
    kept: Vec<Connection>,
    since: Instant,
}

struct Connection {
    socket: Duplicate,
    inode: u64,
    local: SocketAddr,
    peer: SocketAddr,
    /// That the application has closed it.
    left: bool,
}

enum Duplicate {
    /// Of one on which data is in flight.
    InFlight(OwnedFd),
    /// Of one that rests.
    AtRest(Hushed),
}

/// A connection on which something came that nobody has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

impl Parting {
    /// Keeps none yet.
    pub(crate) fn of(keeper: i32) -> Self {
        Self {
            keeper,
            kept: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Hushes all from now on, just before the application is told to stop, as far as that is allowed.
    pub(crate) fn at_rest(keeper: i32, open: &[Seen]) -> Self {
        let mut parting = Self::of(keeper);
        parting.keep(open.iter(), MOST, |socket, peer| {
            Hushed::new(socket, peer).ok().map(Duplicate::AtRest)
        });
        parting
    }

    /// How long it may be until the next look.
    pub(crate) fn step(&self) -> Duration {
        match self.since.elapsed() < INSTANT && self.kept.iter().any(Connection::is_hushed) {
            true => STEP_IN_IT,
            false => STEP,
        }
    }

    /// Keeps those on which data is in flight, as far as that is allowed, and ends those that the application has
    /// closed once none is any more; tells on which of them something was unread.
    pub(crate) fn look(&mut self, open: &[Seen]) -> Vec<Late> {
        let in_flight: HashMap<u64, &Seen> = open
            .iter()
            .filter(|seen| seen.unread > 0 && seen.unsent > 0)
            .map(|seen| (seen.inode.into(), seen))
            .collect();
        if in_flight.is_empty() && self.kept.is_empty() {
            return Vec::new();
        }
        let left_are_known = self.end_those_left();
        let mut late = Vec::new();
        let since = self.since.elapsed();
        // One that has begun to close is no open connection any more, and waits to hear its client.
        let silent: HashSet<u64> = open
            .iter()
            .filter(|seen| seen.unsent == 0)
            .map(|seen| seen.inode.into())
            .collect();
        let stays_hushed = |connection: &Connection| {
            since < INSTANT
                || left_are_known && since < LONGEST && silent.contains(&connection.inode)
        };
        self.kept.retain(|connection| match &connection.socket {
            Duplicate::AtRest(_) => !connection.left && stays_hushed(connection),
            Duplicate::InFlight(_) if !connection.left => in_flight.contains_key(&connection.inode),
            Duplicate::InFlight(socket) => {
                late.extend(connection.discard());
                sys::unsent(socket.as_fd()).is_ok_and(|unsent| unsent > 0)
            }
        });
        let hushed = self.kept.iter().filter(|kept| kept.is_hushed()).count();
        self.keep(in_flight.into_values(), MOST + hushed, |socket, _| {
            Some(Duplicate::InFlight(socket))
        });
        late
    }

    /// Waits until nothing is in flight on any.
    pub(crate) async fn end(mut self) -> Vec<Late> {
        let mut late = self.look(&[]);
        while !self.kept.is_empty() {
            sleep(self.step()).await;
            late.extend(self.look(&[]));
        }
        late
    }

    /// Says to the clients of those that no process has any more that nothing follows what was written; tells whether
    /// it may be seen which these are.
    fn end_those_left(&mut self) -> bool {
        if self.kept.iter().all(|connection| connection.left) {
            return true;
        }
        let Some(open) = kin::open_sockets(self.keeper) else {
            return false;
        };
        let left =
            |connection: &&mut Connection| !connection.left && !open.contains(&connection.inode);
        for connection in self.kept.iter_mut().filter(left) {
            connection.left = true;
            let _ = shutdown(connection.socket(), Shutdown::Write);
        }
        true
    }

    /// Takes duplicates of those that are not kept yet, until so many are.
    fn keep<'a>(
        &mut self,
        wanted: impl Iterator<Item = &'a Seen>,
        most: usize,
        kept: impl Fn(OwnedFd, SocketAddr) -> Option<Duplicate>,
    ) {
        let mut wanted: HashMap<u64, &Seen> =
            wanted.map(|seen| (seen.inode.into(), seen)).collect();
        for connection in &self.kept {
            wanted.remove(&connection.inode);
        }
        if wanted.is_empty() {
            return;
        }
        for pid in kin::descendants(self.keeper) {
            for (number, inode) in kin::sockets(pid) {
                if self.kept.len() == most {
                    return;
                }
                let Some(&&Seen { local, peer, .. }) = wanted.get(&inode) else {
                    continue;
                };
                let socket = duplicate(pid, number, inode);
                if let Some(socket) = socket.and_then(|socket| kept(socket, peer)) {
                    wanted.remove(&inode);
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
    fn is_hushed(&self) -> bool {
        matches!(self.socket, Duplicate::AtRest(_))
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Duplicate::InFlight(socket) => socket.as_fd(),
            Duplicate::AtRest(hushed) => hushed.as_fd(),
        }
    }

    /// Reads what nobody will; tells if there was anything.
    fn discard(&self) -> Option<Late> {
        let mut bytes = [0; 16 << 10];
        let mut any = false;
        while let Ok((_, 1..)) = recv(self.socket(), &mut bytes, RecvFlags::DONTWAIT) {
            any = true;
        }
        any.then_some(Late {
            local: self.local,
            peer: self.peer,
        })
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

    /// A process that has a connection open on which so much is written, and its client.
    fn left_open(write: impl FnOnce(&mut TcpStream)) -> (Child, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        write(&mut server);
        let child = Command::new("sleep")
            .arg("60")
            .stdin(OwnedFd::from(server))
            .spawn()
            .unwrap();
        (child, client)
    }

    /// What is seen of a client's connection.
    fn seen(client: &TcpStream) -> Vec<Seen> {
        let peer = client.local_addr().unwrap();
        let mut open = sockets::list(StateFlags::ESTABLISHED).unwrap();
        open.retain(|seen| seen.peer == peer);
        open
    }

    /// This process is the keeper of its children.
    fn own() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn who_speaks_as_a_process_dies_of_its_signal_is_not_reset() {
        for kept in [false, true] {
            let (mut child, mut client) = left_open(|_| {});
            let parting = match kept {
                true => Parting::at_rest(own(), &seen(&client)),
                false => Parting::of(own()),
            };
            client.write_all(b"nobody reads it").unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            assert_eq!(runtime.block_on(parting.end()), [], "nobody heard it");
            let end = client.read(&mut [0; 1]);
            assert_eq!(matches!(end, Ok(0)), kept, "{end:?}");
        }
    }

    #[test]
    fn one_that_lives_on_is_not_spoken_to_until_it_speaks_or_time_is_over() {
        let (mut child, mut client) = left_open(|_| {});
        let mut parting = Parting::at_rest(own(), &seen(&client));
        let begun = parting.since;
        parting.since = begun - INSTANT;
        client.write_all(b"not now").unwrap();
        assert_eq!(parting.look(&seen(&client)), []);
        assert_eq!(parting.kept.len(), 1, "it may be closing");
        assert_eq!(parting.step(), STEP);
        let unread = seen(&client)[0].unread;
        assert_eq!(unread, 0, "nobody has heard it");

        let mut speaks = seen(&client);
        speaks[0].unsent = 1;
        assert_eq!(parting.look(&speaks), []);
        assert!(parting.kept.is_empty(), "it goes on");

        let mut parting = Parting::at_rest(own(), &seen(&client));
        parting.since = begun - INSTANT;
        assert_eq!(parting.look(&[]), []);
        assert!(parting.kept.is_empty(), "it has begun to close");

        let mut parting = Parting::at_rest(own(), &seen(&client));
        parting.since = begun - LONGEST;
        assert_eq!(parting.look(&seen(&client)), []);
        assert!(parting.kept.is_empty(), "its client has waited for long");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_ends_with_bytes_unread_loses_none_that_it_wrote() {
        for kept in [false, true] {
            let mut written = 0;
            let (mut child, mut client) = left_open(|server| {
                server.set_nonblocking(true).unwrap();
                while let Ok(count) = server.write(&[b'x'; 64 << 10]) {
                    written += count;
                }
            });
            client.write_all(b"nobody reads it").unwrap();
            let peer = client.local_addr().unwrap();
            let mut parting = Parting::of(own());
            assert_eq!(parting.look(&seen(&client)), [], "the process has it");
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
