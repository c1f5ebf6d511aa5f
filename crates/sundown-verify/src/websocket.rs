//! A WebSocket from the client's side, as far as a stop needs it (RFC 6455).
//!
//! The promise: what it was told at the end is known to the frame, and a close frame is answered.
//! Never sends anything else, and keeps no message.

use std::fmt;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::channel::{Channel, Endpoint};
use crate::http1::{Connection, Letter};
use crate::plan::Request;
use crate::tcp::Window;

/// Any sixteen bytes in base64: what matters here is the end, not who answers.
const KEY: &str = "c3VuZG93biB2ZXJpZnkgMQ==";

/// A text message of two letters, masked with zeros.
const MESSAGE: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    stream: Channel,
    incoming: BytesMut,
}

/// How a WebSocket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By a close frame, with this code; 1005 stands for none.
    Close(u16),
    /// Without a close frame, between two frames.
    Silent,
    /// Within a frame.
    WithinFrame,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(code) => write!(f, "closed with {code}"),
            Self::Silent => f.write_str("ended without a close frame (1006)"),
            Self::WithinFrame => f.write_str("ended within a frame (1006)"),
        }
    }
}

impl WebSocket {
    /// Connects and upgrades.
    ///
    /// # Errors
    /// Says why there is none.
    pub async fn open(target: Endpoint, path: &str, limit: Duration) -> Result<Self, String> {
        let opened = Connection::open(target, Window::Usual, limit).await;
        let mut connection = opened.map_err(|unmade| unmade.error.to_string())?;
        let header = |name: &'static str, value: &'static str| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let request = Request::get(path)
            .header(CONNECTION, HeaderValue::from_static("Upgrade"))
            .header(UPGRADE, HeaderValue::from_static("websocket"));
        let request = [
            header("sec-websocket-version", "13"),
            header("sec-websocket-key", KEY),
        ]
        .into_iter()
        .fold(request, |request, (name, value)| {
            request.header(name, value)
        });
        let letter = Letter::new(&[request], target);
        let exchange = connection.exchange(&letter, limit).await;
        match exchange.responses() {
            [answer] if answer.status == 101 => {
                let (stream, incoming) = connection.into_parts();
                Ok(Self { stream, incoming })
            }
            [answer, ..] => Err(format!("{path} answers {} to an upgrade", answer.status)),
            [] => Err(format!("{path} does not answer an upgrade")),
        }
    }

    /// Reads frames until the end, and answers a close frame.
    pub async fn read_to_end(mut self) -> End {
        loop {
            if let Some(end) = self.read_more().await {
                return end;
            }
        }
    }

    /// The same, and sends a short text message this often until then.
    pub async fn talk_to_end(mut self, every: Duration) -> End {
        let mut due = tokio::time::interval(every);
        loop {
            tokio::select! {
                end = self.read_more() => if let Some(end) = end {
                    return end;
                },
                // Who is told close may not read what we say; it has said what there was to say.
                _ = due.tick() => drop(self.stream.write_all(&MESSAGE).await),
            }
        }
    }

    /// Takes the frames that are there, and waits for more; the end, once it has come.
    ///
    /// # Cancel safety
    /// Safe: call it again.
    async fn read_more(&mut self) -> Option<End> {
        while let Some(frame) = Frame::take(&mut self.incoming) {
            if let Frame::Close(code) = frame {
                self.answer_close(code).await;
                return Some(End::Close(code));
            }
        }
        match self.stream.read_buf(&mut self.incoming).await {
            Ok(1..) => None,
            _ if self.incoming.is_empty() => Some(End::Silent),
            _ => Some(End::WithinFrame),
        }
    }

    /// Masked, as a client's frames are; with a mask of zeros the bytes stay what they are.
    async fn answer_close(&mut self, code: u16) {
        let [high, low] = code.to_be_bytes();
        let frame = [0x88, 0x82, 0, 0, 0, 0, high, low];
        // The server may have closed already: it has said what there was to say.
        let _ = self.stream.write_all(&frame).await;
        let _ = self.stream.shutdown().await;
    }
}

/// A frame of the server's.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Close(u16),
    Other,
}

impl Frame {
    /// Takes one whole frame, or leaves what there is of it.
    fn take(incoming: &mut BytesMut) -> Option<Self> {
        const CLOSE: u8 = 8;
        const NO_CODE: u16 = 1005;
        let mut rest = &incoming[..];
        if rest.remaining() < 2 {
            return None;
        }
        let opcode = rest.get_u8() & 0x0f;
        let second = rest.get_u8();
        let length = match second & 0x7f {
            126 => usize::from(rest.try_get_u16().ok()?),
            127 => usize::try_from(rest.try_get_u64().ok()?).ok()?,
            short => usize::from(short),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let head = incoming.len() - rest.len() + mask;
        let whole = head.checked_add(length)?;
        if incoming.len() < whole {
            return None;
        }
        let mut frame = incoming.split_to(whole);
        frame.advance(head);
        Some(match opcode {
            CLOSE => Self::Close(frame.try_get_u16().unwrap_or(NO_CODE)),
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_whole() {
        let long = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        let table: &[(&[u8], Option<Frame>, usize)] = &[
            (b"", None, 0),
            (b"\x88", None, 1),
            (b"\x88\x02\x03", None, 3),
            (b"\x88\x02\x03\xe9", Some(Frame::Close(1001)), 0),
            (b"\x88\x00\x81", Some(Frame::Close(1005)), 1),
            (b"\x81\x02hi\x88", Some(Frame::Other), 1),
            (b"\x81\x7e\x01", None, 3),
            (&long, Some(Frame::Other), 0),
        ];
        for (bytes, expected, left) in table {
            let mut incoming = BytesMut::from(*bytes);
            assert_eq!(Frame::take(&mut incoming), *expected, "{bytes:?}");
            assert_eq!(incoming.len(), *left, "{bytes:?}");
        }
    }
}
