//! What passes on a WebSocket, frame by frame, and the last word of a stop (RFC 6455 §5.2, §7.4.1).
//!
//! Pure: bytes are shown, and it says how many of them may leave. Never changes a byte: the word goes
//! between two messages, never into one, and whatever the application would say after it is kept
//! from the wire, because nothing may follow a close frame (§5.5.1).

/// A WebSocket, as far as its end is concerned.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) outbound: Outbound,
    pub(super) inbound: Frames,
    left: bool,
}

impl Conversation {
    /// The application has let go of it. Only the first time does that say whether somebody else has to wait
    /// for the client's answer.
    pub(super) fn leave(&mut self) -> bool {
        !std::mem::replace(&mut self.left, true) && self.awaits_answer()
    }

    /// Whether we have said close, and the client has not.
    pub(super) fn awaits_answer(&self) -> bool {
        self.outbound.is_over() && !self.inbound.closed
    }
}

/// How one end of a WebSocket speaks.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    frames: Frames,
    parting: Parting,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Parting {
    #[default]
    No,
    /// Due at the next boundary.
    Due,
    /// So many bytes of the word are out.
    Begun(usize),
    /// By us, or by the application before us.
    Said,
}

/// Close, "going away" (1001), and why.
const LAST_WORD: &[u8] = b"\x88\x19\x03\xe9the service is stopping";

impl Outbound {
    /// Asks for the last word at the next boundary.
    pub(super) fn part(&mut self) {
        if self.parting == Parting::No {
            self.parting = Parting::Due;
        }
    }

    /// What is to be written before anything else; nothing within a message.
    pub(super) fn word(&self) -> &'static [u8] {
        match self.parting {
            Parting::Due if self.frames.at_boundary() => LAST_WORD,
            Parting::Begun(written) => &LAST_WORD[written..],
            _ => &[],
        }
    }

    /// Some of the word is written.
    pub(super) fn word_written(&mut self, bytes: usize) {
        let before = match self.parting {
            Parting::Begun(before) => before,
            _ => 0,
        };
        self.parting = match before + bytes {
            all if all == LAST_WORD.len() => Parting::Said,
            some => Parting::Begun(some),
        };
    }

    /// Whether nothing may be written any more.
    pub(super) fn is_over(&self) -> bool {
        self.parting == Parting::Said && self.frames.at_boundary()
    }

    /// How many of these bytes may be written next: when the word is due, up to the end of the message.
    pub(super) fn admits(&self, bytes: &[u8]) -> usize {
        if self.parting == Parting::No {
            return bytes.len();
        }
        let mut ahead = self.frames;
        let mut admitted = 0;
        while admitted < bytes.len() {
            admitted += ahead.step(&bytes[admitted..]);
            if ahead.at_boundary() {
                break;
            }
        }
        admitted
    }

    /// Takes note of bytes that were written.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.frames.pass(bytes);
        if self.frames.closed {
            self.parting = Parting::Said;
        }
    }
}

/// A place among frames, of either end.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Frames {
    header: [u8; LONGEST_HEADER],
    /// How many bytes of the header have passed.
    held: usize,
    /// How many bytes of the payload have yet to pass.
    left: u64,
    /// Whether a message has begun whose last frame has not.
    within_message: bool,
    /// Whether a close frame has begun.
    closed: bool,
}

/// Two bytes, eight of a length, and four of a mask.
const LONGEST_HEADER: usize = 14;

const FIN: u8 = 0x80;
const CLOSE: u8 = 0x8;

impl Frames {
    /// Takes note of bytes that pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Takes note of bytes up to the end of a header or a frame at the most; returns how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let some = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= some as u64;
            return some;
        }
        self.header[self.held] = bytes[0];
        self.held += 1;
        if self.held == self.header_length() {
            self.begin_payload();
        }
        1
    }

    /// How long the header is, as far as that is known: two bytes tell.
    fn header_length(&self) -> usize {
        if self.held < 2 {
            return 2;
        }
        let length = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    fn begin_payload(&mut self) {
        let [first, second, rest @ ..] = self.header;
        let long = |length: usize| {
            let digits = rest[..length].iter();
            digits.fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte))
        };
        self.left = match second & 0x7f {
            126 => long(2),
            127 => long(8),
            short => u64::from(short),
        };
        self.held = 0;
        let opcode = first & 0x0f;
        self.closed |= opcode == CLOSE;
        // Control frames may stand within a message, and are none of it.
        if opcode < CLOSE {
            self.within_message = first & FIN == 0;
        }
    }

    fn at_boundary(&self) -> bool {
        self.held == 0 && self.left == 0 && !self.within_message
    }
}

/// Tells whether these bytes begin with a control frame: close, ping or pong.
pub(super) fn is_control(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| first & 0x0f >= CLOSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut bytes = match payload {
            short @ 0..126 => vec![first, short as u8],
            long @ 126..0x1_0000 => vec![first, 126, (long >> 8) as u8, long as u8],
            longer => [&[first, 127][..], &(longer as u64).to_be_bytes()].concat(),
        };
        bytes.resize(bytes.len() + payload, 0xff);
        bytes
    }

    const TEXT: u8 = 0x81;
    const BEGINNING: u8 = 0x01;
    const CONTINUED: u8 = 0x00;
    const END: u8 = 0x80;
    const PING: u8 = 0x89;

    /// Writes it all in parts of some bytes, with the word due from a position on; returns what leaves.
    fn leaves(bytes: &[u8], part: usize, due_from: usize) -> Vec<u8> {
        let mut outbound = Outbound::default();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            if at >= due_from {
                outbound.part();
            }
            while !outbound.word().is_empty() {
                let some = outbound.word().len().min(part);
                out.extend_from_slice(&outbound.word()[..some]);
                outbound.word_written(some);
            }
            let end = bytes.len().min(at + part);
            if outbound.is_over() {
                at = end;
                continue;
            }
            let admitted = outbound.admits(&bytes[at..end]);
            outbound.pass(&bytes[at..at + admitted]);
            out.extend_from_slice(&bytes[at..at + admitted]);
            at += admitted;
        }
        if due_from < usize::MAX {
            outbound.part();
        }
        while !outbound.word().is_empty() {
            let some = outbound.word().len().min(part);
            out.extend_from_slice(&outbound.word()[..some]);
            outbound.word_written(some);
        }
        out
    }

    #[test]
    fn the_word_goes_between_messages_however_they_are_cut() {
        let messages = [
            frame(TEXT, 5),
            frame(TEXT, 0),
            [frame(BEGINNING, 3), frame(PING, 2), frame(CONTINUED, 300)].concat(),
            frame(TEXT, 70_000),
        ];
        // The third is a message of several frames, whose last is this.
        let end = frame(END, 4);
        let mut whole: Vec<Vec<u8>> = messages.to_vec();
        whole[2].extend(end);
        let all = whole.concat();
        let ends: Vec<usize> = (1..=whole.len())
            .map(|count| whole[..count].iter().map(Vec::len).sum())
            .collect();
        for part in [1, 2, 7, 1000, usize::MAX / 2] {
            for due in [0, 1, 6, 7, 8, 20, 310, 330, 400] {
                let out = leaves(&all, part, due);
                let word = out.len() - LAST_WORD.len();
                assert_eq!(
                    &out[word..],
                    LAST_WORD,
                    "in parts of {part}, due from {due}"
                );
                assert_eq!(out[..word], all[..word]);
                assert!(
                    word == 0 || ends.contains(&word),
                    "{word} in parts of {part}"
                );
            }
        }
    }

    #[test]
    fn nothing_is_held_back_before_the_word_is_due() {
        let all = [frame(TEXT, 5), frame(TEXT, 70_000)].concat();
        assert_eq!(leaves(&all, 999, usize::MAX), all);
    }

    #[test]
    fn a_close_of_the_applications_own_is_the_last_word() {
        let closed = [frame(TEXT, 5), frame(END | CLOSE, 2)].concat();
        assert_eq!(leaves(&closed, 4, closed.len()), closed);
    }

    #[test]
    fn the_word_is_a_close_frame() {
        assert_eq!(usize::from(LAST_WORD[1]), LAST_WORD.len() - 2);
        assert_eq!(LAST_WORD[2..4], 1001_u16.to_be_bytes());
    }
}
