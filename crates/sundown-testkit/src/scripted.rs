//! A TCP server that follows a script, one for each connection.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};

use crate::acceptor::{Acceptor, Connection};
use crate::frames;
use crate::gate::Gate;
use crate::socket::close_with_reset;

/// Is one thing a server does to a connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads one request head.
    ReadHead,
    /// Waits until there is something to read, and leaves it unread.
    Peek,
    /// Reads so many bytes.
    Read(usize),
    /// Speaks HTTP/2's preface and reads frames up to the HEADERS of so many streams.
    ReadStreams(usize),
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Answers 200 and keeps the connection.
    Answer,
    /// Answers 200 with `Connection: close`.
    AnswerAndClose,
    /// Answers requests with 200 until the client closes the connection.
    Serve,
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// Opens a gate that the test waits for.
    Open(Gate),
    /// Sends FIN; the connection still reads.
    Fin,
    /// Closes the connection: the kernel sends FIN if everything was read, RST if not.
    Close,
    /// Closes the connection by RST.
    Reset,
    /// Holds the connection, silent, until the client closes it or the server is dropped.
    Hold,
}

/// Is a running server; dropping it closes the listener and every connection.
///
/// A gate that a script waits for must be open before.
#[derive(Debug)]
pub struct Scripted(Acceptor);

impl Scripted {
    /// Starts a server on a free port of loopback; `script` gives the steps for the connection
    /// with this index.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(script: impl Fn(usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self(Acceptor::start(move |index, connection| {
            follow(script(index), connection)
        }))
    }

    /// Starts a server that follows the same script on every connection.
    pub fn always(script: impl Into<Vec<Step>>) -> Self {
        let script = script.into();
        Self::start(move |_| script.clone())
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

fn follow(script: Vec<Step>, mut connection: Connection<'_>) -> io::Result<()> {
    for step in script {
        match step {
            Step::ReadHead => drop(connection.head()?),
            Step::Peek => connection.peek()?,
            Step::Read(length) => drop(connection.bytes(length)?),
            Step::ReadStreams(streams) => speak_http2(&mut connection, streams)?,
            Step::Write(bytes) => connection.stream().write_all(&bytes)?,
            Step::Answer => connection.stream().write_all(OK)?,
            Step::AnswerAndClose => connection.stream().write_all(OK_AND_CLOSE)?,
            Step::Serve => loop {
                connection.head()?;
                connection.stream().write_all(OK)?;
            },
            Step::Wait(gate) => gate.wait(),
            Step::Open(gate) => gate.open(),
            Step::Fin => connection.stream().shutdown(Shutdown::Write)?,
            Step::Close => return Ok(()),
            Step::Reset => {
                close_with_reset(connection.into_stream());
                return Ok(());
            }
            Step::Hold => loop {
                connection.bytes(1)?;
            },
        }
    }
    Ok(())
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const OK_AND_CLOSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

fn speak_http2(connection: &mut Connection<'_>, mut streams: usize) -> io::Result<()> {
    const PREFACE: usize = 24;
    const HEADERS: u8 = 0x1;
    connection.stream().write_all(&frames::settings())?;
    connection.bytes(PREFACE)?;
    while streams > 0 {
        let header = connection.bytes(9)?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        connection.bytes(length as usize)?;
        streams -= usize::from(header[3] == HEADERS);
    }
    connection.stream().write_all(&frames::settings_ack())
}

/// Returns a listener's queue to the test: connections are made, and never accepted.
#[derive(Debug)]
pub struct Unaccepted(std::net::TcpListener);

impl Unaccepted {
    /// Listens on a free port of loopback.
    ///
    /// # Panics
    /// If there is none.
    pub fn listen() -> Self {
        Self(std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port"))
    }

    /// Returns where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0
            .local_addr()
            .expect("a bound listener has an address")
    }

    /// Waits until a connection is in the queue.
    pub fn wait(&self) {
        crate::socket::wait_readable(&self.0);
    }
}
