//! Clients that misbehave, each in one way, on bare sockets.
//!
//! Never judges: says who it was, and when and behind what its connection ended.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;
use std::{io, mem};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A way to misbehave, and how a report names it.
pub(super) struct Manner {
    pub(super) name: &'static str,
    pub(super) door: Door,
    /// What is said first, as text; and this many bytes behind it.
    opening: &'static [u8],
    behind: usize,
    /// How the answer begins whose head is read first, where there is one.
    answer: Option<&'static [u8]>,
    then: Then,
    /// The kind and the name of the work.
    pub(super) work: &'static str,
    pub(super) route: &'static str,
}

/// Where a client connects.
#[derive(Clone, Copy)]
pub(super) enum Door {
    Plain,
    Tls,
}

/// What a client does to the end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Reads, and says nothing.
    Listens,
    /// Reads nothing until the server is gone.
    Ignores,
    /// Says one byte more from time to time, and reads.
    Trickles,
    /// Sends FIN, and reads.
    HalfCloses,
}

/// What the report calls what has no route yet.
const NAMELESS: &str = "(unread or unsent)";

const UPGRADE: &[u8] = b"GET /ws HTTP/1.1\r\nhost: peer\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: bWlzYmVoYXZlcyBvZnRlbg==\r\n\r\n";

/// A record of 200 bytes of which the first six arrive (RFC 8446 §5.1): the beginning of a ClientHello.
const PART_OF_HELLO: &[u8] = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03";

const PART_OF_HEAD: &[u8] = b"GET /fast HTTP/1.1\r\nhost: peer\r\nx-slow: ";

const UPLOAD: &[u8] = b"POST /upload HTTP/1.1\r\nhost: peer\r\ncontent-length: 8192\r\n\r\n";
const HALF: usize = 4096;

#[rustfmt::skip] // A table reads best with a row a line.
pub(super) const MANNERS: [Manner; 6] = [
    Manner { name: "WebSocket that never answers close", door: Door::Plain, opening: UPGRADE, behind: 0, answer: Some(b"HTTP/1.1 101 "), then: Then::Listens, work: "upgraded", route: "GET /ws" },
    Manner { name: "event stream that is not read", door: Door::Plain, opening: b"GET /flood HTTP/1.1\r\nhost: peer\r\n\r\n", behind: 0, answer: Some(b"HTTP/1.1 200 "), then: Then::Ignores, work: "request", route: "GET /flood" },
    Manner { name: "upload that is half closed", door: Door::Plain, opening: UPLOAD, behind: HALF, answer: None, then: Then::HalfCloses, work: "request", route: "POST /upload" },
    Manner { name: "upload that stalls", door: Door::Plain, opening: UPLOAD, behind: HALF, answer: None, then: Then::Listens, work: "request", route: "POST /upload" },
    // The last, since these have the time of a head from their first byte on.
    Manner { name: "TLS handshake that stalls", door: Door::Tls, opening: PART_OF_HELLO, behind: 0, answer: None, then: Then::Listens, work: "handshake", route: NAMELESS },
    Manner { name: "request head that trickles", door: Door::Plain, opening: PART_OF_HEAD, behind: 0, answer: None, then: Then::Trickles, work: "request_head", route: NAMELESS },
];

/// How often a head that trickles gets a byte.
const TRICKLE: Duration = Duration::from_millis(500);

/// So little that a reader who stops is felt soon: what the kernel holds for it is not read either.
const RECEIVE_BUFFER: u32 = 4096;

/// Ethernet's: by loopback's segments of 64 KiB the server's kernel would take megabytes for each client.
const SEGMENT: libc::c_int = 1460;

/// How much is kept of what was heard last.
const KEPT: usize = 16;

/// The end of a chunked body (RFC 9112 §7.1).
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// A client that has begun to misbehave.
pub(super) struct Client {
    pub(super) address: SocketAddr,
    conduct: JoinHandle<Ended>,
}

/// How a connection ended, as its client saw it.
pub(super) struct Ended {
    at: Instant,
    /// The last bytes that were heard.
    last: Vec<u8>,
}

impl Manner {
    /// Connects and begins; goes on by itself until the server ends it. `gone` tells that there is no server
    /// any more.
    pub(super) async fn begin(
        &'static self,
        source: Ipv4Addr,
        target: SocketAddr,
        gone: watch::Receiver<bool>,
    ) -> anyhow::Result<Client> {
        let mut stream = connect(source, target).await?;
        let address = stream.local_addr()?;
        stream.write_all(self.opening).await?;
        stream.write_all(&vec![b'x'; self.behind]).await?;
        if let Some(answer) = self.answer {
            hear_head(&mut stream, answer).await?;
        }
        let conduct = tokio::spawn(self.then.until_the_end(stream, gone));
        Ok(Client { address, conduct })
    }

    /// Whether the server ended such a connection before it cut off whatever was open. Who does not read
    /// learns that late, but by what was said last.
    pub(super) fn was_ended(&self, ended: &Ended, cut: Instant) -> bool {
        match self.then {
            Then::Ignores => ended.last.ends_with(LAST_CHUNK),
            Then::Listens | Then::Trickles | Then::HalfCloses => ended.at < cut,
        }
    }
}

impl Client {
    /// Waits for the end.
    pub(super) async fn ended(self) -> anyhow::Result<Ended> {
        self.conduct.await.context("a client panicked")
    }
}

async fn connect(source: Ipv4Addr, target: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    limit_segments(&socket)?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Announces segments of Ethernet's size (`TCP_MAXSEG`, tcp(7)).
fn limit_segments(socket: &TcpSocket) -> io::Result<()> {
    let segment = SEGMENT;
    // SAFETY: the descriptor is open for as long as `socket` lives, and the pointer and length describe
    // `segment`.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MAXSEG,
            (&raw const segment).cast(),
            mem::size_of_val(&segment) as libc::socklen_t,
        )
    };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

async fn hear_head(stream: &mut TcpStream, answer: &[u8]) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    ensure!(
        head.starts_with(answer),
        "the server answered {}",
        String::from_utf8_lossy(&head)
    );
    Ok(())
}

impl Then {
    async fn until_the_end(self, mut stream: TcpStream, mut gone: watch::Receiver<bool>) -> Ended {
        match self {
            Self::Listens => {}
            // Its other end lives longer than any client.
            Self::Ignores => drop(gone.wait_for(|gone| *gone).await),
            Self::HalfCloses => drop(stream.shutdown().await),
            Self::Trickles => return trickle(stream).await,
        }
        hear(&mut stream).await
    }
}

async fn trickle(stream: TcpStream) -> Ended {
    let (mut reader, mut writer) = stream.into_split();
    let mut due = interval(TRICKLE);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let saying = async {
        loop {
            due.tick().await;
            // That nobody takes it is heard by the reader.
            let _ = writer.write_all(b"x").await;
        }
    };
    tokio::select! {
        ended = hear(&mut reader) => ended,
        () = saying => unreachable!("it says something for ever"),
    }
}

/// Reads to the end, which may be a reset.
async fn hear(stream: &mut (impl AsyncReadExt + Unpin)) -> Ended {
    let mut last = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut last).await {
        let old = last.len().saturating_sub(KEPT);
        last.drain(..old);
    }
    Ended {
        at: Instant::now(),
        last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_learns_of_an_end_by_what_was_said_last() {
        let cut = Instant::now();
        let early = cut - Duration::from_secs(1);
        let late = cut + Duration::from_secs(1);
        let table: [(Then, Instant, &[u8], bool); 5] = [
            (Then::Listens, early, b"", true),
            (Then::Listens, late, b"", false),
            (Then::Trickles, cut, b"", false),
            (Then::Ignores, late, b"data: x\n\n\r\n0\r\n\r\n", true),
            (Then::Ignores, early, b"data: x\n\n\r\n3f5\r\n", false),
        ];
        for (then, at, last, expected) in table {
            let manner = Manner { then, ..MANNERS[0] };
            let ended = Ended {
                at,
                last: last.to_vec(),
            };
            assert_eq!(manner.was_ended(&ended, cut), expected, "{last:?}");
        }
    }
}
