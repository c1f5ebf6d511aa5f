//! Follows the frames of an HTTP/2 connection as they pass (RFC 9113 §4.1), in either direction.
//!
//! The promise: [`Frames`] reports each frame that matters to a request's fate, however the bytes
//! are cut. Never changes a byte and never decodes a header block: `h2` speaks the protocol, this
//! only overhears it.

/// Reports frames from a stream of bytes.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Bytes of the client's preface or of a payload that are still to be passed over.
    skip: usize,
    /// The frame's header and the first bytes of its payload, as far as they have come.
    held: Vec<u8>,
}

/// Is a frame that matters to a request's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// HEADERS: a request, or a response, or trailers.
    Headers {
        /// The stream.
        stream: u32,
    },
    /// SETTINGS, with which both sides begin.
    Settings,
    /// RST_STREAM.
    Reset {
        /// The stream.
        stream: u32,
        /// The error code.
        code: u32,
    },
    /// GOAWAY.
    GoAway {
        /// The last stream that was or might be processed.
        last: u32,
    },
}

const HEADER: usize = 9;
const CLIENT_PREFACE: usize = 24;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;

impl Frames {
    /// Follows what a server sends.
    pub(crate) fn of_server() -> Self {
        Self {
            skip: 0,
            held: Vec::with_capacity(HEADER + 4),
        }
    }

    /// Follows what a client sends, from its preface on.
    pub(crate) fn of_client() -> Self {
        Self {
            skip: CLIENT_PREFACE,
            ..Self::of_server()
        }
    }

    /// Takes the next bytes, and calls `report` for each frame that matters.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], mut report: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = self.wanted();
            let taken = (wanted - self.held.len()).min(bytes.len());
            self.held.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.held.len() < wanted {
                return;
            }
            if self.held.len() == self.wanted() {
                self.finish(&mut report);
            }
        }
    }

    /// Returns how many bytes of the frame are needed: the payload's first four for some types.
    fn wanted(&self) -> usize {
        match self.held.get(3) {
            Some(&RST_STREAM) if self.held.len() >= HEADER => HEADER + self.payload().min(4),
            Some(&GOAWAY) if self.held.len() >= HEADER => HEADER + self.payload().min(4),
            _ => HEADER,
        }
    }

    fn payload(&self) -> usize {
        u32::from_be_bytes([0, self.held[0], self.held[1], self.held[2]]) as usize
    }

    fn finish(&mut self, report: &mut impl FnMut(Frame)) {
        let stream = self.number_at(5) & STREAM_MASK;
        match self.held[3] {
            SETTINGS => report(Frame::Settings),
            HEADERS => report(Frame::Headers { stream }),
            RST_STREAM if self.held.len() == HEADER + 4 => {
                report(Frame::Reset {
                    stream,
                    code: self.number_at(HEADER),
                });
            }
            GOAWAY if self.held.len() == HEADER + 4 => {
                report(Frame::GoAway {
                    last: self.number_at(HEADER) & STREAM_MASK,
                });
            }
            _ => {}
        }
        self.skip = self.payload() - (self.held.len() - HEADER);
        self.held.clear();
    }

    fn number_at(&self, at: usize) -> u32 {
        u32::from_be_bytes([
            self.held[at],
            self.held[at + 1],
            self.held[at + 2],
            self.held[at + 3],
        ])
    }
}

const STREAM_MASK: u32 = 0x7fff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, 0]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = vec![b'P'; CLIENT_PREFACE];
        bytes.extend(frame(SETTINGS, 0, &[]));
        bytes.extend(frame(HEADERS, 1, &[0x88; 30]));
        bytes.extend(frame(0x0, 1, &[7; 300]));
        bytes.extend(frame(RST_STREAM, 3, &7_u32.to_be_bytes()));
        bytes.extend(frame(
            GOAWAY,
            0,
            &[0, 0, 0, 5, 0, 0, 0, 0, b'b', b'y', b'e'],
        ));
        bytes.extend(frame(HEADERS, 5, &[]));
        let expected = [
            Frame::Settings,
            Frame::Headers { stream: 1 },
            Frame::Reset { stream: 3, code: 7 },
            Frame::GoAway { last: 5 },
            Frame::Headers { stream: 5 },
        ];

        for size in [1, 2, 3, 5, 8, 13, 1000] {
            let mut frames = Frames::of_client();
            let mut found = Vec::new();
            for part in bytes.chunks(size) {
                frames.pass(part, |frame| found.push(frame));
            }
            assert_eq!(found, expected, "in parts of {size}");
        }
    }
}
