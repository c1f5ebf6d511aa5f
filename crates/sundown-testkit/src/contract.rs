//! A small server that speaks the contract of the peers and loses nothing while it lives.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use crate::acceptor::{Acceptor, Connection};

/// Is a running server: `GET /fast`, `GET /slow?ms=N`, `GET /big?mib=N`, `POST /upload`.
///
/// Dropping it closes everything, without regard for what is in flight.
#[derive(Debug)]
pub struct Contract(Acceptor);

impl Contract {
    /// Starts the server on a free port of loopback.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start() -> Self {
        Self(Acceptor::start(|_, connection| serve(connection)))
    }

    /// Returns where the server listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// Returns how many connections were accepted.
    pub fn accepted(&self) -> usize {
        self.0.accepted()
    }
}

fn serve(mut connection: Connection<'_>) -> io::Result<()> {
    loop {
        let head = connection.head()?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match path {
            "/slow" => {
                connection.pause(Duration::from_millis(number_in(query, 300)))?;
                answer(&mut connection, b"ok")?;
            }
            "/big" => answer_big(&mut connection, number_in(query, 16))?,
            "/upload" => {
                let body = connection.bytes(content_length(&head))?;
                answer(&mut connection, format!("got {}", body.len()).as_bytes())?;
            }
            _ => answer(&mut connection, b"ok")?,
        }
    }
}

fn answer(connection: &mut Connection<'_>, body: &[u8]) -> io::Result<()> {
    let mut bytes = head_of(body.len());
    bytes.extend_from_slice(body);
    connection.stream().write_all(&bytes)
}

fn answer_big(connection: &mut Connection<'_>, mib: u64) -> io::Result<()> {
    let mib = usize::try_from(mib).map_err(io::Error::other)?;
    connection.stream().write_all(&head_of(mib << 20))?;
    let chunk = vec![b'b'; 1 << 16];
    for _ in 0..mib * 16 {
        if connection.stopping() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        connection.stream().write_all(&chunk)?;
    }
    Ok(())
}

fn head_of(length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes()
}

/// Returns the number behind the query's first `=`.
fn number_in(query: &str, default: u64) -> u64 {
    query
        .split_once('=')
        .and_then(|(_, number)| number.parse().ok())
        .unwrap_or(default)
}

fn content_length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths
        .next()
        .and_then(|(_, length)| length.trim().parse().ok())
        .unwrap_or(0)
}
