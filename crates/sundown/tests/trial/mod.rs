//! Starts the example `trial` and talks to it over sockets whose bytes the tests own.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sundown_verify::process::{Ended, Process, Refuse, Spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any of these tests waits when all is well.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A running `trial`.
pub struct Trial {
    pub process: Process,
    pub address: SocketAddr,
}

pub fn spawn(mode: &str) -> Spawn {
    let spawn = Spawn::new(program());
    if mode.is_empty() {
        spawn
    } else {
        spawn.arg(mode)
    }
}

pub fn spawn_path() -> PathBuf {
    program()
}

/// `cargo test` builds the examples beside the tests.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(|deps| deps.parent()).unwrap();
    target.join("examples/trial")
}

impl Trial {
    pub async fn start() -> Self {
        Self::of(spawn("")).await
    }

    /// Starts it and waits until it says where it listens.
    pub async fn of(spawn: Spawn) -> Self {
        let mut process = spawn.start().unwrap();
        let address = process.wait_line("http on ", LIMIT).await.unwrap();
        let address = address.parse().unwrap();
        Self { process, address }
    }

    pub async fn connect(&self) -> Client {
        Client::to(self.address).await
    }

    /// Sends a request on a connection of its own and returns that connection.
    pub async fn ask(&self, path: &str) -> Client {
        let mut client = self.connect().await;
        client.send(&get(path)).await;
        client
    }

    pub async fn says(&mut self, text: &str) {
        self.process.wait_output(text, LIMIT).await.unwrap();
    }

    pub fn signal(&mut self, signal: i32) {
        self.process.signal(signal).unwrap();
    }

    /// Waits for the end; returns the exit code and all of stderr.
    pub async fn exit(&mut self) -> (i32, String) {
        let exit = self.process.wait_exit(LIMIT).await.unwrap();
        let code = match exit.ended {
            Ended::Code(code) => code,
            Ended::Signal(signal) => panic!("killed by signal {signal}: {}", self.process.stderr()),
        };
        (code, self.process.stderr())
    }

    /// Stops it by SIGTERM; returns the exit code and all of stderr.
    pub async fn stop(mut self) -> (i32, String) {
        self.signal(libc::SIGTERM);
        self.exit().await
    }
}

/// Runs a trial that ends by itself.
pub async fn run(spawn: Spawn) -> (i32, String) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Trial {
        process: spawn.start().unwrap(),
        address,
    }
    .exit()
    .await
}

pub fn refusing(refuse: Refuse) -> Spawn {
    spawn("").refuse(refuse)
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: trial\r\n\r\n")
}

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    /// What was read beyond the last answer.
    seen: Vec<u8>,
}

impl Client {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self {
            stream,
            seen: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Reads one response with a Content-Length; returns head and body.
    pub async fn answer(&mut self) -> (String, String) {
        loop {
            if let Some(answer) = self.take_answer() {
                return answer;
            }
            let count = self.stream.read_buf(&mut self.seen).await.unwrap();
            let seen = String::from_utf8_lossy(&self.seen);
            assert!(count > 0, "ended in the middle of {seen:?}");
        }
    }

    fn take_answer(&mut self) -> Option<(String, String)> {
        let end = find(&self.seen, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.seen[..end]).to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next())
            .map_or(0, |length| length.parse().unwrap());
        let body = self.seen.get(end + 4..end + 4 + length)?;
        let body = String::from_utf8_lossy(body).into_owned();
        self.seen.drain(..end + 4 + length);
        Some((head, body))
    }

    /// Reads to the end; an error is told by its kind.
    pub async fn rest(&mut self) -> Result<String, std::io::ErrorKind> {
        let mut rest = Vec::new();
        self.stream
            .read_to_end(&mut rest)
            .await
            .map_err(|error| error.kind())?;
        Ok(String::from_utf8_lossy(&rest).into_owned())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
