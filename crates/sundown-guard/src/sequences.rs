//! Asks the kernel up to which byte either side of each connection has come: exact where times are not.
//!
//! A BPF program visits the TCP sockets (`iter/tcp`, Linux 5.9) and writes their sequence numbers down. It takes
//! CAP_BPF and CAP_PERFMON, or root, and a kernel that describes its types; elsewhere TCP_INFO has to do.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};

use crate::btf::{self, Btf};
use crate::sys;

/// The sequence numbers of an established connection (RFC 9293, 3.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sequences {
    /// What the application has read up to.
    pub(crate) read: u32,
    /// What the peer has sent up to.
    pub(crate) received: u32,
    /// What the peer has acknowledged up to.
    pub(crate) acknowledged: u32,
    /// What the application has written up to.
    pub(crate) written: u32,
    /// Where the peer's segment began that last told of its window: its last acknowledgement.
    pub(crate) told: u32,
}

impl Sequences {
    /// Whether everything is read and acknowledged, and the peer has said nothing since it acknowledged the last.
    pub(crate) fn rest(&self) -> bool {
        self.read == self.received
            && self.acknowledged == self.written
            && self.told == self.received
    }
}

/// The members of `struct tcp_sock` that they are, in their order.
const MEMBERS: [&str; 5] = ["copied_seq", "rcv_nxt", "snd_una", "write_seq", "snd_wl1"];

/// How long what is written of one socket is: its cookie, and the numbers.
const RECORD: usize = 8 + 4 * MEMBERS.len();

/// The program, ready to visit.
pub(crate) struct Visitor(OwnedFd);

impl Visitor {
    /// # Errors
    /// `EPERM` without the privileges, and others where the kernel has no such visits.
    pub(crate) fn load() -> io::Result<Self> {
        let description = fs::read(btf::KERNEL)?;
        let known = Btf::read(&description).and_then(|btf| {
            let [state, cookie] = btf.offsets("sock_common", ["skc_state", "skc_cookie"])?;
            let members = btf.offsets("tcp_sock", MEMBERS)?;
            let visited = btf.function("bpf_iter_tcp")?;
            Some((program(state, cookie, members), visited))
        });
        let (program, visited) = known.ok_or(io::ErrorKind::Unsupported)?;
        sys::load_visitor(&program, visited).map(Self)
    }

    /// Looks at every connection of this network namespace, by their cookies.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(crate) fn look(&self) -> io::Result<HashMap<u64, Sequences>> {
        let mut bytes = Vec::new();
        let visit = sys::visit_sockets(self.0.as_fd())?;
        File::from(visit).read_to_end(&mut bytes)?;
        Ok(records(&bytes))
    }
}

/// What is run for each socket (linux/bpf.h), where these members of it lie.
fn program(state: i16, cookie: i16, members: [i16; MEMBERS.len()]) -> Vec<u64> {
    const SKC_TO_TCP_SOCK: i32 = 137;
    const SEQ_WRITE: i32 = 127;
    const ESTABLISHED: i32 = 1;
    /// Where the record lies on the stack, which ends at register 10.
    const PLACE: i16 = -32;
    const { assert!(RECORD <= 32) };

    let op = |code: u8, to: u8, from: u8, offset: i16, value: i32| {
        let mut bytes = [code, from << 4 | to, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&value.to_ne_bytes());
        u64::from_ne_bytes(bytes)
    };
    let copy = |to, from| op(0xbf, to, from, 0, 0);
    let set = |to, value| op(0xb7, to, 0, 0, value);
    let add = |to, value| op(0x07, to, 0, 0, value);
    let load_byte = |to, from, offset| op(0x71, to, from, offset, 0);
    let load_word = |to, from, offset| op(0x61, to, from, offset, 0);
    let load_long = |to, from, offset| op(0x79, to, from, offset, 0);
    let store_word = |from, offset| op(0x63, 10, from, offset, 0);
    let store_long = |from, offset| op(0x7b, 10, from, offset, 0);
    let call = |function| op(0x85, 0, 0, 0, function);
    let end = [set(0, 0), op(0x95, 0, 0, 0, 0)];

    let write = [
        vec![load_long(1, 7, cookie), store_long(1, PLACE)],
        members
            .iter()
            .zip((PLACE + 8..).step_by(4))
            .flat_map(|(member, place)| [load_word(1, 7, *member), store_word(1, place)])
            .collect(),
        // The file that is written to hangs on the context.
        vec![
            load_long(1, 6, 0),
            load_long(1, 1, 0),
            copy(2, 10),
            add(2, PLACE.into()),
            set(3, RECORD as i32),
            call(SEQ_WRITE),
        ],
    ]
    .concat();
    let over = write.len() as i16;
    let is_other = |register, value, over| op(0x55, register, 0, over, value);
    let is_none = |register, over| op(0x15, register, 0, over, 0);
    [
        vec![
            copy(6, 1),
            load_long(1, 6, 8),
            is_none(1, over + 5),
            call(SKC_TO_TCP_SOCK),
            is_none(0, over + 3),
            copy(7, 0),
            load_byte(1, 7, state),
            is_other(1, ESTABLISHED, over),
        ],
        write,
        end.to_vec(),
    ]
    .concat()
}

fn records(bytes: &[u8]) -> HashMap<u64, Sequences> {
    let record = |bytes: &[u8]| {
        let cookie = u64::from_ne_bytes(*bytes.first_chunk().expect("it is longer"));
        let mut words = bytes[8..].chunks_exact(4);
        let mut next = || {
            let word = words.next().and_then(<[u8]>::first_chunk);
            u32::from_ne_bytes(*word.expect("it is as long"))
        };
        let sequences = Sequences {
            read: next(),
            received: next(),
            acknowledged: next(),
            written: next(),
            told: next(),
        };
        (cookie, sequences)
    };
    bytes.chunks_exact(RECORD).map(record).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use netlink_packet_sock_diag::inet::StateFlags;

    use super::*;
    use crate::sockets;

    #[test]
    fn a_request_right_behind_an_answer_is_seen() {
        match Visitor::load() {
            Ok(visitor) => play(&visitor),
            Err(refused) => eprintln!("skipped: {refused}"),
        }
    }

    fn play(visitor: &Visitor) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, peer) = listener.accept().unwrap();
        let rests = || {
            // sock_diag gives a socket its cookie.
            let open = sockets::list(StateFlags::ESTABLISHED).unwrap();
            let seen = open.iter().find(|seen| seen.peer == peer).unwrap();
            visitor.look().unwrap()[&seen.cookie].rest()
        };
        assert!(rests(), "nothing was said yet");
        for _ in 0..3 {
            client.write_all(b"request").unwrap();
            assert!(!rests(), "a request is unread");
            server.read_exact(&mut [0; 7]).unwrap();
            assert!(!rests(), "a request is handled");
            server.write_all(b"answer").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
        // The acknowledgement of the last answer may be delayed.
        while !rests() {
            std::thread::yield_now();
        }
        client.write_all(b"request").unwrap();
        server.read_exact(&mut [0; 7]).unwrap();
        assert!(!rests());
    }
}
