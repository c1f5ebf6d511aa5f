//! Makes connections, and looks at their state as the kernel sees it.
//!
//! The promise: every connection to loopback comes from its own source address, so that a run of
//! ten thousand connections does not run out of ports; and an error of our own making is told
//! apart from one of the server's. Never reads and never writes.

use std::io;
use std::mem::size_of_val;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::net::{TcpSocket, TcpStream};

use crate::outcome::End;

/// Connects to a server, from the next source address if the server is on IPv4 loopback.
///
/// # Errors
/// What the operating system said; [`end_of_connect`] tells whose fault it is.
pub async fn connect(target: SocketAddr, window: Window) -> io::Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Window::Small = window {
        socket.set_recv_buffer_size(SMALL_WINDOW)?;
    }
    if target.ip().is_loopback() && target.is_ipv4() {
        bind_to_address_only(&socket, next_source())?;
    }
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

const SMALL_WINDOW: u32 = 32 * 1024;

/// Says how much the kernel may buffer for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// As much as it likes.
    Usual,
    /// Little: a slow reader shall make its server wait.
    Small,
}

/// Returns the next source address: 127.1.0.1, 127.1.0.2, … 127.254.255.254, and again.
fn next_source() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    source(NEXT.fetch_add(1, Ordering::Relaxed))
}

fn source(n: u32) -> Ipv4Addr {
    let (n, low) = (n / 254, n % 254 + 1);
    let (n, middle) = (n / 256, n % 256);
    let high = n % 254 + 1;
    Ipv4Addr::from([127, high as u8, middle as u8, low as u8])
}

/// Binds to an address and leaves the choice of the port to connect, where it need be unique only
/// together with the target (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
fn bind_to_address_only(socket: &TcpSocket, source: Ipv4Addr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for as long as `socket` lives, and the pointer and length
    // describe `on`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))
}

/// Tells who is to blame for a connect that failed.
pub fn end_of_connect(error: &io::Error) -> End {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => End::Refused,
        Some(libc::ECONNRESET | libc::EPIPE) => End::Reset,
        Some(libc::ETIMEDOUT) => End::Hung,
        // No port, no descriptor, no memory, no route: nothing reached the server.
        _ => End::Local,
    }
}

/// Is a connection's state (RFC 9293 §3.3.2), as far as a client cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpState {
    /// Open in both directions.
    Established,
    /// The server has sent its FIN, and we have not sent ours.
    CloseWait,
    /// Gone: reset, or ended on both sides.
    Close,
    /// Any other state.
    Other,
}

impl TcpState {
    /// Tells whether the server has ended the connection, in order or not.
    pub fn peer_has_closed(self) -> bool {
        matches!(self, TcpState::CloseWait | TcpState::Close)
    }

    /// Returns the name used by ss(8).
    pub fn name(self) -> &'static str {
        match self {
            TcpState::Established => "ESTABLISHED",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::Close => "CLOSE",
            TcpState::Other => "another state",
        }
    }
}

/// Is what the kernel knows of a connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The connection's state.
    pub state: TcpState,
    /// How many bytes the server's kernel has acknowledged so far, give or take a constant.
    pub acked: u64,
}

impl Look {
    /// Asks the kernel (`TCP_INFO`, tcp(7)).
    ///
    /// The answer covers all segments that have arrived: the kernel works off the socket's backlog
    /// first.
    pub fn at(stream: &impl AsFd) -> Look {
        let mut info = [0_u8; ACKED.end];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the descriptor is borrowed, hence open, and the pointer and length describe
        // `info`; the kernel writes no more than that.
        let result = unsafe {
            libc::getsockopt(
                stream.as_fd().as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let state = match (result, info[0]) {
            (0, TCP_ESTABLISHED) => TcpState::Established,
            (0, TCP_CLOSE) => TcpState::Close,
            (0, TCP_CLOSE_WAIT) => TcpState::CloseWait,
            _ => TcpState::Other,
        };
        let acked = info[ACKED]
            .try_into()
            .expect("the range is as long as the number");
        Look {
            state,
            acked: u64::from_ne_bytes(acked),
        }
    }
}

// The kernel's numbers, include/net/tcp_states.h.
const TCP_ESTABLISHED: u8 = 1;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;

/// Where `tcpi_bytes_acked` lies in `struct tcp_info`, include/uapi/linux/tcp.h; the C library's
/// declaration ends before it.
const ACKED: std::ops::Range<usize> = 120..128;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let client = connect(target, Window::Usual).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, server)
    }

    #[test]
    fn source_addresses_repeat_only_after_sixteen_million() {
        assert_eq!(source(0), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(source(254), Ipv4Addr::new(127, 1, 1, 1));
        assert_eq!(
            source(254 * 256 * 254 - 1),
            Ipv4Addr::new(127, 254, 255, 254)
        );
        assert_eq!(source(254 * 256 * 254), source(0));
    }

    #[tokio::test]
    async fn two_connections_come_from_two_addresses() {
        let (first, _server) = pair().await;
        let (second, _server) = pair().await;

        assert_ne!(
            first.local_addr().unwrap().ip(),
            second.local_addr().unwrap().ip()
        );
    }

    #[tokio::test]
    async fn the_state_tells_an_open_connection_from_a_closed_one() {
        let (mut client, server) = pair().await;
        assert_eq!(Look::at(&client).state, TcpState::Established);

        drop(server);
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(Look::at(&client).state, TcpState::CloseWait);
    }

    #[tokio::test]
    async fn the_state_tells_a_reset() {
        let (mut client, server) = pair().await;

        socket2::SockRef::from(&server)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
        drop(server);
        assert!(client.read(&mut [0]).await.is_err());
        assert_eq!(Look::at(&client).state, TcpState::Close);
    }

    #[tokio::test]
    async fn the_look_tells_what_the_other_side_has_acknowledged() {
        let (mut client, mut server) = pair().await;
        let before = Look::at(&client);

        client.write_all(b"request").await.unwrap();
        server.read_exact(&mut [0; 7]).await.unwrap();
        server.write_all(b"a").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();

        assert_eq!(Look::at(&client).acked, before.acked + 7);
    }

    #[tokio::test]
    async fn a_closed_port_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);

        let error = connect(target, Window::Usual).await.unwrap_err();
        assert_eq!(end_of_connect(&error), End::Refused);
    }

    #[test]
    fn our_own_shortage_is_a_local_error() {
        for code in [
            libc::EMFILE,
            libc::ENFILE,
            libc::EADDRNOTAVAIL,
            libc::ENOBUFS,
            libc::ENOMEM,
        ] {
            assert_eq!(
                end_of_connect(&io::Error::from_raw_os_error(code)),
                End::Local
            );
        }
    }
}
