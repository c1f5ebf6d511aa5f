//! Asks the kernel whether handshakes with a listener are under way.
//!
//! Uses sock_diag(7) over netlink, which needs no privilege. `None` means "cannot be seen here":
//! the caller waits instead.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NETLINK_SOCK_DIAG: i32 = 4;
const TCP_SYN_RECV: u32 = 3;
/// The size of `nlmsghdr`, and of `nlmsghdr` with `inet_diag_req_v2` (linux/inet_diag.h).
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
/// Where `id.idiag_sport` lies in an `inet_diag_msg`.
const SOURCE_PORT: usize = HEADER + 4;

/// Counts the connections in SYN_RECV on the listener's port.
pub(super) fn handshakes(listener: SocketAddr) -> Option<usize> {
    let mut count = count(libc::AF_INET, listener.port()).ok()?;
    if listener.is_ipv6() {
        count += self::count(libc::AF_INET6, listener.port()).ok()?;
    }
    Some(count)
}

fn count(family: i32, port: u16) -> io::Result<usize> {
    let netlink = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW,
        Some(Protocol::from(NETLINK_SOCK_DIAG)),
    )?;
    let netlink = OwnedFd::from(netlink);
    send(&netlink, &request(family))?;
    let mut found = 0;
    let mut buffer = vec![0_u8; 32 << 10];
    loop {
        let length = receive(&netlink, &mut buffer)?;
        match count_messages(&buffer[..length], port)? {
            Dump::Goes(more) => found += more,
            Dump::Done(more) => return Ok(found + more),
        }
    }
}

enum Dump {
    Goes(usize),
    Done(usize),
}

/// Walks the netlink messages of one datagram (netlink(7)).
fn count_messages(mut bytes: &[u8], port: u16) -> io::Result<Dump> {
    let mut found = 0;
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let kind = i32::from(u16::from_ne_bytes([bytes[4], bytes[5]]));
        if kind == libc::NLMSG_DONE {
            return Ok(Dump::Done(found));
        }
        if kind == libc::NLMSG_ERROR || length < HEADER || length > bytes.len() {
            return Err(io::Error::other("sock_diag refused"));
        }
        if length >= SOURCE_PORT + 2 {
            let source = u16::from_be_bytes([bytes[SOURCE_PORT], bytes[SOURCE_PORT + 1]]);
            found += usize::from(source == port);
        }
        let aligned = length.next_multiple_of(4).min(bytes.len());
        bytes = &bytes[aligned..];
    }
    Ok(Dump::Goes(found))
}

fn request(family: i32) -> [u8; REQUEST] {
    const FLAGS: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut message = [0_u8; REQUEST];
    message[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    message[HEADER] = family as u8;
    message[HEADER + 1] = libc::IPPROTO_TCP as u8;
    message[HEADER + 4..HEADER + 8].copy_from_slice(&(1_u32 << TCP_SYN_RECV).to_ne_bytes());
    message
}

fn send(netlink: &OwnedFd, message: &[u8]) -> io::Result<()> {
    // An unconnected netlink socket sends to the kernel.
    crate::sys::send(netlink.as_raw_fd(), message)
}

fn receive(netlink: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    crate::sys::receive(netlink.as_raw_fd(), buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_without_clients_has_no_handshakes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        // Where the kernel does not tell (a sandbox), there is nothing to assert but the `None`.
        let seen = handshakes(listener.local_addr().unwrap());
        assert!(seen.is_none_or(|count| count == 0), "{seen:?}");
    }

    #[test]
    fn messages_are_counted_by_port_up_to_the_end_of_the_dump() {
        let message = |kind: u16, port: u16| {
            let mut bytes = vec![0_u8; 88];
            bytes[0..4].copy_from_slice(&88_u32.to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
            bytes
        };
        let one = message(SOCK_DIAG_BY_FAMILY, 80);
        let other = message(SOCK_DIAG_BY_FAMILY, 81);
        let done = message(libc::NLMSG_DONE as u16, 0);
        let goes = count_messages(&[one.clone(), other.clone()].concat(), 80);
        assert!(matches!(goes, Ok(Dump::Goes(1))));
        assert!(matches!(
            count_messages(&[one, other, done].concat(), 80),
            Ok(Dump::Done(1))
        ));
        let error = message(libc::NLMSG_ERROR as u16, 0);
        assert!(count_messages(&error, 80).is_err());
        assert!(count_messages(&[0; 20], 80).is_err());
    }
}
