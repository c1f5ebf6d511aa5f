//! The sockets of this network namespace, as sock_diag(7) tells of them. Needs no privilege.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::nlas::{Nla, TcpInfo};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

/// One TCP socket, at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) inode: u32,
    /// What else it is known by, as long as it lives.
    pub(crate) cookie: u64,
    /// Bytes that the application has not read; of a listener, connections that it has not accepted.
    pub(crate) unread: u32,
    /// Bytes that the peer has not acknowledged.
    pub(crate) unsent: u32,
    /// Bytes that were ever sent and received.
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// Milliseconds since data was last sent and last received.
    pub(crate) sent_ago: u32,
    pub(crate) received_ago: u32,
}

/// Lists the sockets in these states, those with a TCP_INFO of their own.
pub(crate) fn list(states: StateFlags) -> io::Result<Vec<Seen>> {
    // An unconnected netlink socket sends to the kernel.
    let netlink = Socket::new(NETLINK_SOCK_DIAG)?;
    let mut seen = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        netlink.send(&request(family, states.clone()), 0)?;
        while let Dump::Goes = read(&netlink.recv_from_full()?.0, &mut seen)? {}
    }
    Ok(seen)
}

fn request(family: libc::c_int, states: StateFlags) -> Vec<u8> {
    let request = SockDiagMessage::InetRequest(InetRequest {
        family: family as u8,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: ExtensionFlags::INFO,
        states,
        socket_id: SocketId::new_v4(),
    });
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

enum Dump {
    Goes,
    Done,
}

/// Reads the messages of one datagram (netlink(7)).
fn read(mut bytes: &[u8], seen: &mut Vec<Seen>) -> io::Result<Dump> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::deserialize(bytes).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                seen.push(told(&socket));
            }
            NetlinkPayload::Done(_) => return Ok(Dump::Done),
            other => return Err(io::Error::other(format!("sock_diag said {other:?}"))),
        }
        let length = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(Dump::Goes)
}

fn told(socket: &InetResponse) -> Seen {
    let id = &socket.header.socket_id;
    let info = socket.nlas.iter().find_map(|attribute| match attribute {
        Nla::TcpInfo(info) => Some(info),
        _ => None,
    });
    let info = |of: fn(&TcpInfo) -> u64| info.map_or(0, of);
    Seen {
        local: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        peer: SocketAddr::new(id.destination_address.to_canonical(), id.destination_port),
        inode: socket.header.inode,
        cookie: u64::from_ne_bytes(id.cookie),
        unread: socket.header.recv_queue,
        unsent: socket.header.send_queue,
        bytes_sent: info(|info| info.bytes_sent),
        bytes_received: info(|info| info.bytes_received),
        sent_ago: info(|info| info.last_data_sent.into()) as u32,
        received_ago: info(|info| info.last_data_recv.into()) as u32,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_was_sent_and_what_is_unread_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let waits = list(StateFlags::LISTEN).unwrap();
        let found = waits.iter().find(|seen| seen.local == address).unwrap();
        assert_eq!(found.unread, 1);

        let (mut server, peer) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let look = || {
            let open = list(StateFlags::ESTABLISHED).unwrap();
            let is_it = |seen: &&Seen| seen.local == address && seen.peer == peer;
            *open.iter().find(is_it).unwrap()
        };
        assert_eq!((look().unread, look().bytes_received), (5, 5));
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"hi").unwrap();
        assert_eq!((look().unread, look().bytes_sent), (0, 2));
    }
}
