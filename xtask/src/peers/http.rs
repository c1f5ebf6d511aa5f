//! The smallest HTTP/1.1 client that can check a peer: one connection, its own bytes.
//!
//! Never retries, and connects again only where an answer has said that its connection ends: what the peer
//! does with it is the finding.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How long a peer may take for anything that is not `/slow`.
const PATIENCE: Duration = Duration::from_secs(20);

/// A keep-alive connection to a peer.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    /// The last answer said that nothing follows it.
    is_over: bool,
}

/// What the peer answered.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Whether it says that its connection ends.
    closes: bool,
}

impl Connection {
    /// Connects to the peer on this port.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        Self::to(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }

    fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::new(stream),
            address,
            is_over: false,
        })
    }

    /// Sends a GET and reads its answer.
    pub(super) fn get(&mut self, target: &str) -> anyhow::Result<Response> {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: peer\r\n\r\n"), &[])?;
        self.receive()
    }

    /// Sends a POST with this body and reads its answer.
    pub(super) fn post(&mut self, target: &str, body: &[u8]) -> anyhow::Result<Response> {
        let length = body.len();
        self.send(
            &format!("POST {target} HTTP/1.1\r\nHost: peer\r\nContent-Length: {length}\r\n\r\n"),
            body,
        )?;
        self.receive()
    }

    /// Sends a GET and leaves its answer to [`Self::receive`].
    pub(super) fn start_get(&mut self, target: &str) -> anyhow::Result<()> {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: peer\r\n\r\n"), &[])
    }

    /// Reads one answer.
    pub(super) fn receive(&mut self) -> anyhow::Result<Response> {
        let response = read_response(&mut self.stream)?;
        self.is_over = response.closes;
        Ok(response)
    }

    /// Returns whether nothing at all came in within `limit`.
    pub(super) fn is_silent_for(&mut self, limit: Duration) -> io::Result<bool> {
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        let silent = match self.stream.fill_buf() {
            Ok(_) => Ok(false),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(cause) => Err(cause),
        };
        self.stream.get_ref().set_read_timeout(Some(PATIENCE))?;
        silent
    }

    fn send(&mut self, head: &str, body: &[u8]) -> anyhow::Result<()> {
        if self.is_over {
            *self = Self::to(self.address).context("could not connect again")?;
        }
        let stream = self.stream.get_mut();
        stream
            .write_all(head.as_bytes())
            .context("could not send the head")?;
        stream.write_all(body).context("could not send the body")
    }
}

/// Reads a response whose body has a length or comes in chunks (RFC 9112 §6).
fn read_response(input: &mut impl BufRead) -> anyhow::Result<Response> {
    let status_line = read_line(input)?;
    let status = status_line
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no status in {status_line:?}"))?;
    let (mut framing, mut closes) = (None, false);
    loop {
        let line = read_line(input)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", length) => framing = Some(Framing::Length(length.parse()?)),
            ("transfer-encoding", "chunked") => framing = Some(Framing::Chunked),
            ("connection", "close") => closes = true,
            _ => {}
        }
    }
    let body = match framing {
        Some(Framing::Length(length)) => read_exactly(input, length)?,
        Some(Framing::Chunked) => read_chunks(input)?,
        None => bail!("the answer's body has no length and no chunks"),
    };
    Ok(Response {
        status,
        body,
        closes,
    })
}

enum Framing {
    Length(usize),
    Chunked,
}

fn read_chunks(input: &mut impl BufRead) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(input)?;
        let digits = line.split(';').next().unwrap_or_default();
        let length = usize::from_str_radix(digits, 16)
            .with_context(|| format!("no chunk length in {line:?}"))?;
        body.extend(read_exactly(input, length)?);
        let end = read_line(input)?;
        ensure!(end.is_empty(), "{end:?} instead of a chunk's end");
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_line(input: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input
        .read_line(&mut line)
        .context("could not read the answer")?;
    ensure!(line.ends_with("\r\n"), "the answer ends after {line:?}");
    line.truncate(line.len() - 2);
    Ok(line)
}

fn read_exactly(input: &mut impl BufRead, length: usize) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    input
        .take(length as u64)
        .read_to_end(&mut body)
        .context("could not read the body")?;
    ensure!(
        body.len() == length,
        "the body ends after {} of {length} bytes",
        body.len()
    );
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &str, expected: Result<(u16, &str), &str>) {
        let found = read_response(&mut bytes.as_bytes());
        let found = found.map(|response| {
            (
                response.status,
                String::from_utf8(response.body).expect("it is text"),
            )
        });
        let expected = expected
            .map(|(status, body)| (status, body.to_owned()))
            .map_err(str::to_owned);
        assert_eq!(
            found.map_err(|error| error.to_string()),
            expected,
            "{bytes:?}"
        );
    }

    #[test]
    fn bodies_are_read_by_length_and_by_chunk_and_a_cut_one_is_an_error() {
        check(
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Ok((200, "ok")),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Ok((200, "ok")),
        );
        check(
            "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
            Ok((503, "")),
        );
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            Err("the body ends after 2 of 3 bytes"),
        );
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            Err(r#"the answer ends after """#),
        );
        check(
            "HTTP/1.1 200 OK\r\n\r\n",
            Err("the answer's body has no length and no chunks"),
        );
        check("", Err(r#"the answer ends after """#));
    }
}
