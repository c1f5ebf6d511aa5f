//! Overhears an HTTP/2 connection between `h2` and the kernel.
//!
//! The promise: what is said about a stream's fate (written or not, reset, above GOAWAY) comes
//! from the bytes that really passed, not from a library's summary of them; under TLS from those that
//! TLS took, which may keep them until hands are shaken. Never delays, changes or drops a byte.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::frames::{Frame, Frames};
use crate::channel::Channel;
use crate::outcome::{Disclaimed, End};
use crate::tcp::{Look, TcpState};

/// Shares a TCP connection, and what was overheard on it.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Arc<TcpStream>,
    heard: Mutex<Heard>,
    headers_written: watch::Sender<usize>,
}

/// What was overheard so far.
#[derive(Debug, Default)]
struct Heard {
    spoken: bool,
    /// Whether what it says is HTTP/2.
    settings: bool,
    goaway: Option<u32>,
    /// Whether a GOAWAY named the highest stream there can be.
    warned: bool,
    resets: HashMap<u32, u32>,
    /// The connection's state just after the write that carried a stream's HEADERS.
    written: HashMap<u32, TcpState>,
    end: Option<End>,
    error: Option<io::ErrorKind>,
}

const REFUSED_STREAM: u32 = 0x7;
const HIGHEST_STREAM: u32 = 0x7fff_ffff;

impl Wire {
    pub(crate) fn on(channel: &Channel) -> Arc<Self> {
        let (headers_written, _) = watch::channel(0);
        Arc::new(Self {
            socket: channel.socket(),
            heard: Mutex::default(),
            headers_written,
        })
    }

    /// Asks the kernel for the connection's state.
    pub(crate) fn state(&self) -> TcpState {
        Look::at(&*self.socket).state
    }

    /// Tells whether the server said GOAWAY.
    pub(crate) fn going_away(&self) -> bool {
        self.heard().goaway.is_some()
    }

    /// Returns the lowest stream that a GOAWAY named.
    pub(crate) fn last_stream(&self) -> Option<u32> {
        self.heard().goaway
    }

    /// Tells whether the server said GOAWAY without declining anything.
    pub(crate) fn warned(&self) -> bool {
        self.heard().warned
    }

    /// Tells whether the server has said anything yet.
    pub(crate) fn spoken(&self) -> bool {
        self.heard().spoken
    }

    /// Tells whether the server has said anything in HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.heard().settings
    }

    /// Tells whether the server has ended what it says.
    pub(crate) fn has_ended(&self) -> bool {
        self.heard().end.is_some()
    }

    /// Tells what the server said about not processing a stream.
    pub(crate) fn disclaimed(&self, stream: u32) -> Disclaimed {
        let heard = self.heard();
        match (heard.goaway, heard.resets.get(&stream)) {
            (_, Some(&REFUSED_STREAM)) => Disclaimed::RefusedStream,
            (Some(last), _) if stream > last => Disclaimed::AboveGoAway,
            _ => Disclaimed::No,
        }
    }

    /// Returns the state just after a stream's HEADERS were written; `None` if they never were.
    pub(crate) fn after_headers(&self, stream: u32) -> Option<TcpState> {
        self.heard().written.get(&stream).copied()
    }

    /// Returns what ended the stream or, failing that, the connection.
    pub(crate) fn end(&self, stream: u32) -> Option<(End, String)> {
        let heard = self.heard();
        if let Some(code) = heard.resets.get(&stream) {
            return Some((End::Reset, format!("RST_STREAM with error code {code}")));
        }
        heard.end.map(|end| {
            (
                end,
                heard
                    .error
                    .map_or("end of file".into(), |error| error.to_string()),
            )
        })
    }

    /// Forgets a stream that is over.
    pub(crate) fn forget(&self, stream: u32) {
        let mut heard = self.heard();
        heard.written.remove(&stream);
        heard.resets.remove(&stream);
    }

    /// Waits until HEADERS frames were written on this many streams in all.
    pub(crate) async fn headers_written(&self, streams: usize) {
        let mut written = self.headers_written.subscribe();
        // The sender lives in `self`, so the wait can only end by the condition.
        let _ = written.wait_for(|written| *written >= streams).await;
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear_end(&self, end: End, error: Option<io::ErrorKind>) {
        let mut heard = self.heard();
        if heard.end.is_none() {
            heard.end = Some(end);
            heard.error = error;
        }
    }

    fn hear_from_server(&self, frame: Frame) {
        let mut heard = self.heard();
        match frame {
            Frame::GoAway { last } => {
                heard.warned |= last == HIGHEST_STREAM;
                heard.goaway = Some(heard.goaway.map_or(last, |before| before.min(last)));
            }
            Frame::Reset { stream, code } => {
                heard.resets.insert(stream, code);
            }
            Frame::Settings => heard.settings = true,
            Frame::Headers { .. } => {}
        }
    }

    fn hear_from_us(&self, frame: Frame, after: TcpState) {
        if let Frame::Headers { stream } = frame {
            self.heard().written.insert(stream, after);
            self.headers_written.send_modify(|written| *written += 1);
        }
    }
}

/// Is the ear on the wire: the byte stream that `h2` reads and writes.
pub(crate) struct Ear {
    channel: Channel,
    wire: Arc<Wire>,
    inbound: Frames,
    outbound: Frames,
}

impl Ear {
    pub(crate) fn on(channel: Channel, wire: Arc<Wire>) -> Self {
        Self {
            channel,
            wire,
            inbound: Frames::of_server(),
            outbound: Frames::of_client(),
        }
    }
}

impl AsyncRead for Ear {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            channel,
            wire,
            inbound,
            ..
        } = self.get_mut();
        let before = buf.filled().len();
        let read = ready!(Pin::new(channel).poll_read(cx, buf));
        match (&read, &buf.filled()[before..]) {
            (Err(error), _) if error.kind() == io::ErrorKind::InvalidData => {
                wire.hear_end(End::Garbled, Some(error.kind()));
            }
            (Err(error), _) => wire.hear_end(End::Reset, Some(error.kind())),
            (Ok(()), []) => wire.hear_end(End::Eof, None),
            (Ok(()), bytes) => {
                wire.heard().spoken = true;
                inbound.pass(bytes, |frame| wire.hear_from_server(frame));
            }
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Ear {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self {
            channel,
            wire,
            outbound,
            ..
        } = self.get_mut();
        let written = ready!(Pin::new(channel).poll_write(cx, bytes));
        match &written {
            Ok(written) => {
                let after = wire.state();
                outbound.pass(&bytes[..*written], |frame| wire.hear_from_us(frame, after));
            }
            Err(error) => wire.hear_end(End::Reset, Some(error.kind())),
        }
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().channel).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().channel).poll_shutdown(cx)
    }
}
