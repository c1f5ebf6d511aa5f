//! A client that asks for one thing over kept-alive connections, closed loop or open loop.
//!
//! It owns its bytes: the request is a constant, and a response is read by its length, which the
//! first one tells. One thread, bare sockets: so cheap that the server is the bottleneck, which its
//! own share of a core proves. Never retries, and never takes an answer other than 200.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hdrhistogram::Histogram;

use super::epoll::Epoll;
use super::stream::Stream;
use crate::certificate::Trust;

/// What is asked for, byte by byte.
pub(super) const REQUEST: &[u8] = b"GET /fast HTTP/1.1\r\nHost: localhost\r\n\r\n";

const OK: &[u8] = b"HTTP/1.1 200 ";

/// The longest latency that is told apart: more than [`PATIENCE`] allows.
const LONGEST_NANOSECONDS: u64 = 60_000_000_000;

/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Some connections to one server.
pub(super) struct Client {
    epoll: Epoll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
}

/// One connection; at most one request is under way on it.
struct Connection {
    stream: Stream,
    received: usize,
    /// When its request should have been sent.
    intended: Instant,
}

/// What a closed loop saw.
pub(super) struct Saturated {
    pub(super) answered: u64,
    pub(super) took: Duration,
}

impl Client {
    /// Opens the connections, and learns from the first answer how long answers are.
    /// With somebody to trust, they are under TLS.
    pub(super) fn connect(
        target: SocketAddr,
        connections: usize,
        tls: Option<&Trust>,
    ) -> anyhow::Result<Self> {
        let epoll = Epoll::new()?;
        let mut length = 0;
        let mut opened = Vec::with_capacity(connections);
        for number in 0..connections {
            let mut stream = Stream::connect(target, tls, PATIENCE)?;
            length = ask_once(&mut stream)?;
            stream.socket().set_nonblocking(true)?;
            epoll.add(stream.socket(), number)?;
            opened.push(Connection {
                stream,
                received: 0,
                intended: Instant::now(),
            });
        }
        Ok(Self {
            epoll,
            connections: opened,
            buffer: vec![0; length],
        })
    }

    /// Keeps a request under way on every connection for this long, then awaits the last answers.
    pub(super) fn saturate(&mut self, length: Duration) -> anyhow::Result<Saturated> {
        let start = Instant::now();
        let end = start + length;
        for connection in &mut self.connections {
            connection.send(start)?;
        }
        let (mut answered, mut under_way) = (0, self.connections.len());
        while under_way > 0 {
            let ready = self.epoll.wait(PATIENCE)?;
            let now = Instant::now();
            ensure!(now < end + PATIENCE, "the server stopped answering");
            for number in ready {
                let connection = &mut self.connections[number];
                if !connection.receive(&mut self.buffer)? {
                    continue;
                }
                answered += 1;
                if now < end {
                    connection.send(now)?;
                } else {
                    under_way -= 1;
                }
            }
        }
        Ok(Saturated {
            answered,
            took: start.elapsed(),
        })
    }

    /// Sends at a fixed rate, whatever the answers do, and returns the latencies in nanoseconds,
    /// counted from when a request should have been sent: one that found no connection free has
    /// waited, too. Spins, because a sleeping client would measure its own waking up.
    pub(super) fn pace(&mut self, rate: f64, length: Duration) -> anyhow::Result<Histogram<u64>> {
        let mut latencies = Histogram::new_with_max(LONGEST_NANOSECONDS, 3)?;
        let interval = Duration::from_secs_f64(1.0 / rate);
        let requests = (length.as_secs_f64() * rate).ceil() as u64;
        let (start, mut due, mut answered) = (Instant::now(), 0, 0);
        let mut free: VecDeque<usize> = (0..self.connections.len()).collect();
        while answered < requests {
            let now = Instant::now();
            ensure!(now < start + length + PATIENCE, "the server cannot keep up");
            while due < requests {
                let intended = start + interval.mul_f64(due as f64);
                if intended > now {
                    break;
                }
                let Some(number) = free.pop_front() else {
                    break;
                };
                self.connections[number].send(intended)?;
                due += 1;
            }
            for number in self.epoll.wait(Duration::ZERO)? {
                let connection = &mut self.connections[number];
                if connection.receive(&mut self.buffer)? {
                    latencies.saturating_record(connection.intended.elapsed().as_nanos() as u64);
                    free.push_back(number);
                    answered += 1;
                }
            }
        }
        Ok(latencies)
    }
}

impl Connection {
    fn send(&mut self, intended: Instant) -> anyhow::Result<()> {
        self.intended = intended;
        self.received = 0;
        let sent = self.stream.write(REQUEST).context("could not send")?;
        ensure!(sent == REQUEST.len(), "a request did not fit in the socket");
        Ok(())
    }

    /// Reads what has arrived; returns whether the answer, which is as long as the buffer, is whole.
    fn receive(&mut self, buffer: &mut [u8]) -> anyhow::Result<bool> {
        let read = match self.stream.read(&mut buffer[self.received..]) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("could not receive"),
        };
        if self.received == 0 {
            ensure!(buffer.starts_with(OK), "the server did not answer 200");
        }
        self.received += read;
        Ok(self.received == buffer.len())
    }
}

/// Asks once on a blocking socket, and returns the length of the whole answer.
fn ask_once(stream: &mut Stream) -> anyhow::Result<usize> {
    stream.write_all(REQUEST)?;
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => bail!("the server closed a connection"),
            read => received.extend_from_slice(&buffer[..read]),
        }
        if let Some(length) = length(&received)?
            && received.len() >= length
        {
            ensure!(received.len() == length, "an answer is followed by more");
            return Ok(length);
        }
    }
}

/// Returns how long the answer will be, once its head is there.
pub(super) fn length(received: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(head) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&received[..head])?;
    ensure!(received.starts_with(OK), "the server answered {text:?}");
    let body = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("the server's answer tells no length")?;
    Ok(Some(head + 4 + body.1.trim().parse::<usize>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_known_once_the_head_is_there() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 2\r\n\r\nok";
        assert_eq!(length(&answer[..20]).unwrap(), None);
        assert_eq!(length(&answer[..38]).unwrap(), Some(40));
        assert_eq!(length(answer).unwrap(), Some(answer.len()));
    }

    #[test]
    fn an_answer_that_is_not_200_or_has_no_length_is_an_error() {
        assert!(length(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
