//! Who listens where, as the kernel tells it.
//!
//! Never connects: a connection would be one that the server sees. Our own network namespace is asked
//! by sock_diag(7), which looks at listeners alone; /proc/net/tcp (proc_net_tcp(5)) goes through the
//! table of all connections, some milliseconds each time, and is for other namespaces and for where
//! netlink is refused.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

/// Is a socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    inode: u64,
    /// How many connections wait to be accepted.
    queued: u64,
}

/// Tells whether a socket in our network namespace listens on the port.
pub(crate) fn listens(addr: SocketAddr) -> io::Result<bool> {
    Ok(!on_port(addr.port())?.is_empty())
}

/// Lists the inodes of the sockets in our network namespace that listen on the port.
pub(crate) fn on_port(port: u16) -> io::Result<Vec<u64>> {
    let listeners = ours()?.into_iter();
    let on_port = listeners.filter(|listener| listener.address.port() == port);
    Ok(on_port.map(|listener| listener.inode).collect())
}

/// Returns how many connections wait to be accepted on the port, in our network namespace.
pub(crate) fn queued(port: u16) -> io::Result<u64> {
    let listeners = ours()?.into_iter();
    let on_port = listeners.filter(|listener| listener.address.port() == port);
    Ok(on_port.map(|listener| listener.queued).sum())
}

/// Lists the addresses on which a process listens, in its own network namespace.
///
/// # Errors
/// If its descriptors may not be seen.
pub(crate) fn of(pid: u32) -> io::Result<Vec<SocketAddr>> {
    let inodes = sockets(pid)?;
    let listeners = table(&format!("/proc/{pid}/net"))?.into_iter();
    let own = listeners.filter(|listener| inodes.contains(&listener.inode));
    Ok(own.map(|listener| listener.address).collect())
}

/// Tells whether a process has one of these sockets open.
pub(crate) fn holds_one_of(pid: u32, inodes: &[u64]) -> bool {
    let open = sockets(pid).unwrap_or_default();
    open.iter().any(|inode| inodes.contains(inode))
}

fn sockets(pid: u32) -> io::Result<Vec<u64>> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let inode = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        let socket = link.to_str()?.strip_prefix("socket:[")?;
        socket.trim_end_matches(']').parse().ok()
    };
    Ok(open.filter_map(inode).collect())
}

/// Lists the listeners of our network namespace.
fn ours() -> io::Result<Vec<Listener>> {
    dump().or_else(|_| table("/proc/net"))
}

fn dump() -> io::Result<Vec<Listener>> {
    // An unconnected netlink socket sends to the kernel.
    let netlink = Socket::new(NETLINK_SOCK_DIAG)?;
    let mut listeners = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        netlink.send(&request(family), 0)?;
        while let Dump::Goes = read(&netlink.recv_from_full()?.0, &mut listeners)? {}
    }
    Ok(listeners)
}

fn request(family: libc::c_int) -> Vec<u8> {
    let request = SockDiagMessage::InetRequest(InetRequest {
        family: family as u8,
        protocol: libc::IPPROTO_TCP as u8,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN,
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
fn read(mut bytes: &[u8], listeners: &mut Vec<Listener>) -> io::Result<Dump> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::deserialize(bytes).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                listeners.push(told(&socket));
            }
            NetlinkPayload::Done(_) => return Ok(Dump::Done),
            other => return Err(io::Error::other(format!("sock_diag said {other:?}"))),
        }
        let length = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(Dump::Goes)
}

fn told(socket: &InetResponse) -> Listener {
    let id = &socket.header.socket_id;
    Listener {
        address: SocketAddr::new(id.source_address.to_canonical(), id.source_port),
        inode: socket.header.inode.into(),
        // Of a listener this is the queue of accept(2).
        queued: socket.header.recv_queue.into(),
    }
}

fn table(folder: &str) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for name in ["tcp", "tcp6"] {
        let file = match File::open(format!("{folder}/{name}")) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).lines().skip(1) {
            // Listeners come first; behind them may lie ten thousand connections in TIME_WAIT.
            let Some(found) = listener(&line?) else { break };
            listeners.push(found);
        }
    }
    Ok(listeners)
}

/// Reads a line such as `0: 0100007F:1F90 00000000:0000 0A …`, if it listens.
fn listener(line: &str) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.rsplit_once(':')?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    // Of a listener the second queue is that of accept(2).
    let (_, queued) = fields.next()?.rsplit_once(':')?;
    let inode = fields.nth(4)?.parse().ok()?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listener {
        address: SocketAddr::new(address(ip)?, port),
        inode,
        queued: u64::from_str_radix(queued, 16).ok()?,
    })
}

/// Reads words of 32 bits, each printed as the number that its bytes are to this machine.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = hex.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    if hex.len() == 8 {
        return Some(Ipv4Addr::from(word(0)?).into());
    }
    let mut bytes = [0; 16];
    for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
        part.copy_from_slice(&word(at)?);
    }
    Some(Ipv6Addr::from(bytes).to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_read_from_the_kernels_table() {
        let rest = "00000000:00000000 00:00000000 00000000     0        0";
        let line = |socket: &str| format!("   0: {socket} {rest} 4711 1");
        let read = |socket: &str| {
            let found = listener(&line(socket))?;
            Some((found.address.to_string(), found.inode))
        };
        let table = [
            ("0100007F:1F90 00000000:0000 0A", Some("127.0.0.1:8080")),
            ("00000000:0050 00000000:0000 0A", Some("0.0.0.0:80")),
            (
                "00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A",
                Some("[::1]:80"),
            ),
            (
                "0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A",
                Some("127.0.0.1:80"),
            ),
            ("0100007F:1F90 0100007F:C350 01", None),
        ];
        for (socket, expected) in table {
            let expected = expected.map(|address| (address.to_owned(), 4711));
            assert_eq!(read(socket), expected, "{socket}");
        }
    }

    #[test]
    fn who_waits_to_be_accepted_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let waiting = [(); 3].map(|()| std::net::TcpStream::connect(addr).unwrap());
        assert_eq!(queued(addr.port()).unwrap(), 3);
        for (left, _) in waiting.iter().enumerate().rev() {
            listener.accept().unwrap();
            assert_eq!(queued(addr.port()).unwrap(), left as u64);
        }
    }

    #[test]
    fn both_tables_of_the_kernel_tell_the_same() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0");
        let addresses = [Ok(four), six].into_iter().flatten();
        let own: Vec<_> = addresses
            .map(|listener| (listener.local_addr().unwrap(), listener))
            .collect();
        let inodes = sockets(std::process::id()).unwrap();
        let both = [dump().unwrap(), table("/proc/net").unwrap()];
        let [dumped, read] = both.map(|listeners| {
            let found = |address: &SocketAddr| {
                let found = listeners.iter().find(|found| found.address == *address);
                *found.expect("it listens")
            };
            own.iter()
                .map(|(address, _)| found(address))
                .collect::<Vec<_>>()
        });
        assert_eq!(dumped, read);
        assert!(dumped.iter().all(|found| inodes.contains(&found.inode)));
    }

    #[test]
    fn a_port_listens_from_bind_to_close() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        assert!(listens(addr).unwrap());
        assert!(of(std::process::id()).unwrap().contains(&addr));

        drop(listener);
        assert!(!listens(addr).unwrap());
    }
}
