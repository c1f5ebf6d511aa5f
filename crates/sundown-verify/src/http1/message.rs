//! Writes HTTP/1.1 requests and reads responses (RFC 9112), a piece at a time.
//!
//! The promise: a response is whole exactly when its framing says so (length, chunks, or the end
//! of the connection), and until then it is known whether it has begun. Never does I/O, never
//! keeps more than [`KEPT`] bytes of a body.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};

use crate::outcome::{Persistence, Seen};
use crate::plan::Request;

/// Bounds what is kept of a response's body.
pub const KEPT: usize = 64 * 1024;

/// How many of a body's last bytes are known.
pub const LAST: usize = 4;

/// Appends a request's head to `out`.
pub(crate) fn encode_head(request: &Request, target: SocketAddr, out: &mut Vec<u8>) {
    let line = format!(
        "{} {} HTTP/1.1\r\nHost: {target}\r\n",
        request.method, request.path
    );
    out.extend_from_slice(line.as_bytes());
    for (name, value) in &request.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !request.body.is_empty() || request.method == http::Method::POST {
        let line = format!("Content-Length: {}\r\n", request.body.len());
        out.extend_from_slice(line.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Is a whole response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// What it says about the connection.
    pub persistence: Persistence,
    /// What it says the body is; empty where it does not.
    pub content_type: String,
    /// The first [`KEPT`] bytes of the body.
    pub body: Vec<u8>,
}

/// Means that the bytes are not an HTTP/1.1 response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not an HTTP/1.1 response")]
pub struct Garbled;

/// Reads one response from bytes as they come.
#[derive(Debug, Default)]
pub struct Reader {
    stage: Stage,
    begun: bool,
    length: Option<u64>,
    response: Option<Response>,
    last: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Head,
    Length {
        left: u64,
    },
    ChunkSize,
    Chunk {
        left: u64,
    },
    ChunkEnd,
    Trailer,
    UntilEof,
    Done,
}

impl Reader {
    /// Takes what it can from `incoming`; returns the response once it is whole.
    ///
    /// # Errors
    /// [`Garbled`], after which the reader is of no more use.
    pub fn advance(&mut self, incoming: &mut BytesMut) -> Result<Option<Response>, Garbled> {
        self.begun |= !incoming.is_empty();
        loop {
            let next = match self.stage {
                Stage::Head => self.head(incoming)?,
                Stage::Length { left } => {
                    self.body(incoming, left).map(|left| Stage::Length { left })
                }
                Stage::Chunk { left } => {
                    self.body(incoming, left).map(|left| Stage::Chunk { left })
                }
                Stage::UntilEof => self.body(incoming, u64::MAX).map(|_| Stage::UntilEof),
                Stage::ChunkSize => chunk_size(incoming)?,
                Stage::ChunkEnd => line(incoming)?.map(|_| Stage::ChunkSize),
                Stage::Trailer => line(incoming)?.map(|text| match text.is_empty() {
                    true => Stage::Done,
                    false => Stage::Trailer,
                }),
                Stage::Done => return Ok(self.response.take()),
            };
            self.stage = match next {
                None => return Ok(None),
                Some(Stage::Length { left: 0 }) => Stage::Done,
                Some(Stage::Chunk { left: 0 }) => Stage::ChunkEnd,
                Some(stage) => stage,
            };
        }
    }

    /// Returns the response if the end of the connection makes it whole.
    pub fn at_eof(&mut self) -> Option<Response> {
        self.response.take_if(|_| self.stage == Stage::UntilEof)
    }

    /// Begins another response, whose body has yet to be seen.
    pub fn begin_next(&mut self) {
        *self = Self {
            last: std::mem::take(&mut self.last),
            ..Self::default()
        };
    }

    /// Tells whether a response has begun.
    pub fn seen(&self) -> Seen {
        if self.begun {
            Seen::Part
        } else {
            Seen::Nothing
        }
    }

    /// Returns the length the head announced.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the last bytes of the body so far, at most [`LAST`]; before the next head those of the one
    /// before.
    pub fn last_bytes(&self) -> &[u8] {
        &self.last
    }

    fn head(&mut self, incoming: &mut BytesMut) -> Result<Option<Stage>, Garbled> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let taken = match head.parse(incoming) {
            Ok(httparse::Status::Complete(taken)) => taken,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Garbled),
        };
        let status = head.code.ok_or(Garbled)?;
        let framing = Framing::of(&head)?;
        incoming.advance(taken);
        if (100..200).contains(&status) && status != 101 {
            return Ok(Some(Stage::Head));
        }
        let stage = framing.stage(status);
        let persistence = match stage {
            Stage::UntilEof => Persistence::Close,
            _ => framing.persistence,
        };
        self.length = framing.length;
        self.last.clear();
        self.response = Some(Response {
            status,
            persistence,
            content_type: framing.content_type,
            body: Vec::new(),
        });
        Ok(Some(stage))
    }

    /// Takes up to `left` bytes of the body, keeps the first of them, and returns how many are left
    /// to come; `None` if there was nothing to take.
    fn body(&mut self, incoming: &mut BytesMut, left: u64) -> Option<u64> {
        if incoming.is_empty() {
            return None;
        }
        let taken = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(incoming.len());
        if let Some(response) = &mut self.response {
            let kept = taken.min(KEPT.saturating_sub(response.body.len()));
            response.body.extend_from_slice(&incoming[..kept]);
        }
        self.last
            .extend_from_slice(&incoming[taken.saturating_sub(LAST)..taken]);
        self.last.drain(..self.last.len().saturating_sub(LAST));
        incoming.advance(taken);
        Some(left - taken as u64)
    }
}

/// Holds what a response's head says about its body and the connection's future.
struct Framing {
    length: Option<u64>,
    chunked: bool,
    content_type: String,
    persistence: Persistence,
}

impl Framing {
    fn of(head: &httparse::Response<'_, '_>) -> Result<Self, Garbled> {
        // HTTP/1.0 closes unless it says otherwise (RFC 9112 §9.3).
        let persistence = match head.version {
            Some(0) => Persistence::Close,
            _ => Persistence::KeepAlive,
        };
        let mut framing = Self {
            length: None,
            chunked: false,
            content_type: String::new(),
            persistence,
        };
        for header in head.headers.iter() {
            let value = std::str::from_utf8(header.value).map_err(|_| Garbled)?;
            match header.name {
                name if name.eq_ignore_ascii_case("content-length") => {
                    framing.length = Some(value.trim().parse().map_err(|_| Garbled)?);
                }
                name if name.eq_ignore_ascii_case("content-type") => {
                    framing.content_type = value.to_ascii_lowercase();
                }
                name if name.eq_ignore_ascii_case("transfer-encoding") => {
                    framing.chunked |= has_token(value, "chunked");
                }
                name if name.eq_ignore_ascii_case("connection") => {
                    if has_token(value, "close") {
                        framing.persistence = Persistence::Close;
                    } else if has_token(value, "keep-alive") {
                        framing.persistence = Persistence::KeepAlive;
                    }
                }
                _ => {}
            }
        }
        Ok(framing)
    }

    fn stage(&self, status: u16) -> Stage {
        match (status, self.chunked, self.length) {
            (101 | 204 | 304, _, _) | (_, false, Some(0)) => Stage::Done,
            (_, true, _) => Stage::ChunkSize,
            (_, false, Some(left)) => Stage::Length { left },
            (_, false, None) => Stage::UntilEof,
        }
    }
}

fn has_token(value: &str, token: &str) -> bool {
    value
        .split(',')
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn chunk_size(incoming: &mut BytesMut) -> Result<Option<Stage>, Garbled> {
    let Some(text) = line(incoming)? else {
        return Ok(None);
    };
    let digits = text.split(';').next().unwrap_or_default().trim();
    match u64::from_str_radix(digits, 16) {
        Ok(0) => Ok(Some(Stage::Trailer)),
        Ok(left) => Ok(Some(Stage::Chunk { left })),
        Err(_) => Err(Garbled),
    }
}

/// Takes one line, without its end.
fn line(incoming: &mut BytesMut) -> Result<Option<String>, Garbled> {
    const LONGEST: usize = 8 * 1024;
    let Some(end) = incoming.iter().position(|byte| *byte == b'\n') else {
        return if incoming.len() > LONGEST {
            Err(Garbled)
        } else {
            Ok(None)
        };
    };
    let line = incoming.split_to(end + 1);
    let text = std::str::from_utf8(&line).map_err(|_| Garbled)?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes one by one, and ends the connection: every cut must be survived.
    fn read(bytes: &str) -> Result<Option<Response>, Garbled> {
        let mut reader = Reader::default();
        let mut incoming = BytesMut::new();
        for byte in bytes.as_bytes() {
            incoming.extend_from_slice(&[*byte]);
            if let Some(response) = reader.advance(&mut incoming)? {
                return Ok(Some(response));
            }
        }
        Ok(reader.at_eof())
    }

    #[test]
    fn every_framing_is_read_to_its_end() {
        use Persistence::{Close, KeepAlive};
        let cases = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                200,
                KeepAlive,
                "ok",
            ),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                200,
                KeepAlive,
                "",
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 1\r\n\r\nx",
                200,
                Close,
                "x",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nA: b\r\n\r\n",
                200,
                KeepAlive,
                "abcde",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nto the end",
                200,
                Close,
                "to the end",
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
                200,
                Close,
                "ok",
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, KeepAlive, ""),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
                404,
                KeepAlive,
                "no",
            ),
        ];
        for (bytes, status, persistence, body) in cases {
            let expected = Response {
                status,
                persistence,
                content_type: String::new(),
                body: body.into(),
            };
            assert_eq!(read(bytes), Ok(Some(expected)), "{bytes:?}");
        }
    }

    #[test]
    fn a_cut_response_is_never_whole() {
        for bytes in [
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
            "HTTP/1.1 200 OK\r\nContent-Len",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        ] {
            assert_eq!(read(bytes), Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_http_is_told() {
        for bytes in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n",
        ] {
            assert_eq!(read(bytes), Err(Garbled), "{bytes:?}");
        }
    }

    #[test]
    fn a_big_body_is_counted_to_its_end_but_not_kept() {
        let mut incoming = BytesMut::from("HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n");
        let mut reader = Reader::default();
        let mut whole = None;
        for _ in 0..1024 {
            assert_eq!(whole, None);
            incoming.extend_from_slice(&[b'x'; 1024]);
            whole = reader.advance(&mut incoming).unwrap();
        }
        assert_eq!(whole.unwrap().body.len(), KEPT);
        assert_eq!(reader.length(), Some(1_048_576));
    }

    #[test]
    fn a_request_is_written_with_its_length() {
        let target = "127.0.0.1:80".parse().unwrap();
        let mut out = Vec::new();
        let request = Request::post("/upload", "abc")
            .header(http::header::ACCEPT, http::HeaderValue::from_static("*/*"));
        encode_head(&request, target, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "POST /upload HTTP/1.1\r\nHost: 127.0.0.1:80\r\naccept: */*\r\nContent-Length: 3\r\n\r\n"
        );
    }
}
