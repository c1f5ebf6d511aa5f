//! A connection of which the kernel drops what its client says, unheard and not acknowledged.
//!
//! What an application dies of or closes by is no moment: a request that comes meanwhile would be acknowledged by a
//! kernel that nobody reads from any more, and reset. Where it is dropped the client's kernel says it again, to an
//! application that lives on; otherwise the client hears that the connection has ended, and knows that nobody heard
//! its request (RFC 9112, section 9.3.1).
//!
//! The means is the least time to live of what a connection takes (RFC 5082), as nothing that is routed or comes from
//! this machine has the greatest there is. It needs no privilege.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// What no sender uses whose packets may have been routed.
const GREATEST: libc::c_int = 255;

/// `IPV6_MINHOPCOUNT` (linux/in6.h); not in every libc's headers.
const IPV6_MINHOPCOUNT: libc::c_int = 73;

/// Such a connection; it is heard again when this is dropped.
pub(crate) struct Hushed {
    socket: OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    before: libc::c_int,
}

impl Hushed {
    /// Hushes what comes from there.
    ///
    /// # Errors
    /// Where the system does not let it.
    pub(crate) fn new(socket: OwnedFd, peer: SocketAddr) -> io::Result<Self> {
        // An IPv4 client of an IPv6 socket sends IPv4.
        let (level, option) = match peer {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT),
        };
        let before = sys::number(socket.as_fd(), level, option)?;
        sys::set_number(socket.as_fd(), level, option, GREATEST)?;
        Ok(Self {
            socket,
            level,
            option,
            before,
        })
    }
}

impl AsFd for Hushed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Hushed {
    fn drop(&mut self) {
        let _ = sys::set_number(self.as_fd(), self.level, self.option, self.before);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_is_said_meanwhile_is_said_again_afterwards() {
        for (bound, host) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let listener = TcpListener::bind(bound).unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut client = TcpStream::connect((host, port)).unwrap();
            let (mut server, peer) = listener.accept().unwrap();
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let duplicate = OwnedFd::from(server.try_clone().unwrap());
            let hushed = Hushed::new(duplicate, peer).unwrap();
            client.write_all(b"hello").unwrap();
            // Loopback hands it over before the write returns.
            server.set_nonblocking(true).unwrap();
            let unheard = server.read(&mut [0; 5]).unwrap_err();
            assert_eq!(unheard.kind(), io::ErrorKind::WouldBlock);
            drop(hushed);
            server.set_nonblocking(false).unwrap();
            let mut heard = [0; 5];
            server.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"hello");
        }
    }
}
