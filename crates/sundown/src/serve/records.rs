//! Where a response that is made of records may end: between two of them.
//!
//! Pure: it is shown each byte that leaves, and says whether a record ends there. Knows the formats
//! that a `Content-Type` declares: server-sent events, lines (JSON or text), and gRPC's messages.

use http::{HeaderMap, header};

/// How records are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// An event ends with an empty line (WHATWG HTML, §9.2.6).
    Events,
    /// A record ends with its line.
    Lines,
    /// A message has five bytes before it: whether it is compressed, and its length (gRPC over HTTP/2).
    Grpc,
}

/// The types whose records are lines: newline-delimited JSON by its usual names, and RFC 7464.
const LINES: [&str; 6] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonlines",
    "application/json-seq",
    "application/stream+json",
];

impl Format {
    /// What the head of a message declares, if it declares records at all.
    pub(super) fn declared(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = given.split(';').next().unwrap_or_default().trim();
        let is = |name: &str| essence.eq_ignore_ascii_case(name);
        if is("text/event-stream") {
            Some(Self::Events)
        } else if is("application/grpc") || has_prefix(essence, "application/grpc+") {
            Some(Self::Grpc)
        } else {
            LINES.iter().any(|name| is(name)).then_some(Self::Lines)
        }
    }
}

fn has_prefix(text: &str, prefix: &str) -> bool {
    let start = text.as_bytes().get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// How far a body has come.
#[derive(Debug)]
pub(super) struct Records {
    format: Format,
    place: Place,
    at_boundary: bool,
}

#[derive(Debug)]
enum Place {
    Events(Events),
    Lines,
    Grpc(Messages),
}

impl Records {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            place: match format {
                Format::Events => Place::Events(Events::new()),
                Format::Lines => Place::Lines,
                Format::Grpc => Place::Grpc(Messages::of_grpc()),
            },
            at_boundary: true,
        }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Whether the body may end here.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.at_boundary
    }

    /// Takes note of bytes that leave.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Takes note of bytes up to the end of the record that has begun; returns how many.
    pub(super) fn pass_rest(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !self.at_boundary {
            passed += self.step(&bytes[passed..]);
        }
        passed
    }

    /// Takes note of some bytes, at the most up to the end of a record; returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let (passed, at_boundary) = match &mut self.place {
            Place::Events(events) => (1, events.ends_with(bytes[0])),
            Place::Lines => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (bytes.len(), false),
            },
            Place::Grpc(messages) => {
                let passed = messages.step(bytes);
                (passed, messages.is_at_boundary())
            }
        };
        self.at_boundary = at_boundary;
        passed
    }
}

/// A place among events, whose lines end with LF, CR, or both.
#[derive(Debug)]
struct Events {
    /// Whether nothing stands on the line that has begun.
    empty: bool,
    /// Whether the line before was empty.
    empty_before: bool,
    /// Whether the last byte was CR.
    returned: bool,
    /// Whether LF has followed CR: it will again.
    both: bool,
}

impl Events {
    fn new() -> Self {
        Self {
            empty: true,
            empty_before: true,
            returned: false,
            both: false,
        }
    }

    /// Whether an event ends with this byte.
    fn ends_with(&mut self, byte: u8) -> bool {
        let completes = byte == b'\n' && self.returned;
        self.returned = byte == b'\r';
        self.both |= completes;
        if completes {
            return self.empty_before;
        }
        if !matches!(byte, b'\r' | b'\n') {
            self.empty = false;
            return false;
        }
        self.empty_before = std::mem::replace(&mut self.empty, true);
        self.empty_before && !(self.returned && self.both)
    }
}

/// A place among messages that have five bytes before them, the last of which are a length: gRPC's
/// messages, TLS's records.
#[derive(Debug)]
pub(super) struct Messages {
    prefix: [u8; 5],
    /// How many bytes of the prefix are no length.
    before_length: usize,
    /// How many bytes of the prefix have passed.
    held: usize,
    /// How many bytes of the message have yet to pass.
    left: usize,
}

impl Messages {
    /// Whether it is compressed, and its length (gRPC over HTTP/2, Length-Prefixed-Message).
    fn of_grpc() -> Self {
        Self::begin(1)
    }

    /// Its type, a version, and its length (RFC 8446 §5.1).
    #[cfg(feature = "tls")]
    pub(super) fn of_tls() -> Self {
        Self::begin(3)
    }

    fn begin(before_length: usize) -> Self {
        Self {
            prefix: [0; 5],
            before_length,
            held: 0,
            left: 0,
        }
    }

    /// Takes note of bytes that pass.
    #[cfg(feature = "tls")]
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Whether no message has begun that has not ended.
    pub(super) fn is_at_boundary(&self) -> bool {
        self.held == 0 && self.left == 0
    }

    /// Takes note of some bytes, at the most up to the end of a message; returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            return passed;
        }
        self.prefix[self.held] = bytes[0];
        self.held = (self.held + 1) % self.prefix.len();
        if self.held == 0 {
            let length = self.prefix[self.before_length..].iter();
            self.left = length.fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The positions at which a body may end, shown in parts of some bytes.
    fn boundaries(format: Format, body: &[u8], part: usize) -> Vec<usize> {
        let mut records = Records::new(format);
        let mut found = Vec::new();
        for end in 1..=body.len() {
            // Every byte on its own, or several together as far as a record goes.
            if end % part == 0 || end == body.len() {
                let begin = (end - 1) / part * part;
                records.pass(&body[begin..end]);
                if records.is_at_boundary() {
                    found.push(end);
                }
            }
        }
        found
    }

    #[test]
    fn an_event_ends_with_an_empty_line_however_lines_end() {
        let table: [(&str, &[usize]); 5] = [
            ("data: a\n\nid: 1\ndata: b\n\n", &[9, 24]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &[11, 22]),
            ("data: a\r\rdata: b\r\r", &[9, 18]),
            (":\n\n", &[3]),
            ("data: a\n", &[]),
        ];
        for (body, expected) in table {
            let found = boundaries(Format::Events, body.as_bytes(), 1);
            assert_eq!(found, expected, "{body:?}");
        }
    }

    #[test]
    fn a_line_and_a_message_end_where_they_say() {
        assert_eq!(boundaries(Format::Lines, b"{}\n[1]\n{", 1), [3, 7]);
        let messages = b"\0\0\0\0\x02ab\0\0\0\0\0\x01\0\0\0\x01c\0";
        assert_eq!(boundaries(Format::Grpc, messages, 1), [7, 12, 18]);
        assert_eq!(boundaries(Format::Grpc, messages, 6), [12, 18]);
    }

    #[test]
    fn of_a_cut_record_only_the_rest_passes() {
        for (format, body, begun, rest) in [
            (Format::Events, &b"data: a\n\ndata: b\n\n"[..], 8, 1),
            (Format::Lines, b"{}\n{}\n", 1, 2),
            (Format::Grpc, b"\0\0\0\0\x02ab\0", 3, 4),
        ] {
            let mut records = Records::new(format);
            assert_eq!(records.pass_rest(body), 0, "nothing has begun");
            records.pass(&body[..begun]);
            assert_eq!(records.pass_rest(&body[begun..]), rest);
            assert!(records.is_at_boundary());
        }
    }

    #[test]
    fn a_content_type_declares_records_or_none() {
        let table = [
            ("text/event-stream", Some(Format::Events)),
            ("Text/Event-Stream; charset=utf-8", Some(Format::Events)),
            ("application/x-ndjson", Some(Format::Lines)),
            ("application/grpc", Some(Format::Grpc)),
            ("application/grpc+proto", Some(Format::Grpc)),
            ("application/grpc-web", None),
            ("application/json", None),
            ("text/plain", None),
            ("", None),
        ];
        for (given, expected) in table {
            let mut headers = HeaderMap::new();
            assert_eq!(Format::declared(&headers), None);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(given));
            assert_eq!(Format::declared(&headers), expected, "{given}");
        }
    }
}
