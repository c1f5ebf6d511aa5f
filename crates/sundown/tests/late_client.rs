//! A client whose handshake is under way at the signal, and ends a long round trip later.
//!
//! No kernel lets a test delay its own handshake; so the client is made by hand, packet by packet, on a TUN
//! device in a network namespace of the test's own. Where neither can be had, the test says so and ends.

mod trial;

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::Duration;

use trial::{LIMIT, Trial, spawn};

const PART: &str = "SUNDOWN_TEST_PART";
const OURS: [u8; 4] = [10, 9, 0, 1];
const CLIENTS: [u8; 4] = [10, 9, 0, 2];
const CLIENT_PORT: u16 = 40_000;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// How long the client's ACK takes: the round trip around half of the earth.
const ROUND_TRIP: Duration = Duration::from_millis(300);

#[test]
fn a_handshake_that_takes_a_long_round_trip_is_not_lost() {
    let test = std::env::current_exe().unwrap();
    let in_namespace = |program: &std::path::Path, arguments: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net"]).arg(program);
        unshare.args(arguments).env(PART, "client").output()
    };
    let possible = in_namespace("test".as_ref(), &["-w", "/dev/net/tun"]);
    if !possible.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this takes unshare (util-linux), user namespaces and /dev/net/tun");
        return;
    }
    let played = in_namespace(
        &test,
        &["--exact", "the_client_plays_its_part", "--nocapture"],
    )
    .unwrap();
    let said = String::from_utf8([played.stdout, played.stderr].concat()).unwrap();
    assert!(played.status.success(), "{said}");
    assert!(said.contains("the late client was answered"), "{said}");
}

/// Plays the client in the namespace; as an ordinary test it does nothing.
#[test]
fn the_client_plays_its_part() {
    if std::env::var_os(PART).is_some() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(play());
    }
}

async fn play() {
    let mut wire = Wire::open();
    let mut trial = Trial::of(spawn("").env("TRIAL_ADDRESS", "10.9.0.1:0")).await;
    let port = trial.address.port();
    wire.send(port, SYN, 1_000, 0, b"");
    let hello = wire.hear(port);
    assert_eq!(hello.flags, SYN | ACK);

    trial.signal(libc::SIGTERM);
    trial.says("SIGTERM: stopping").await;
    tokio::time::sleep(ROUND_TRIP).await; // tidy: it is how long the client takes
    wire.send(port, ACK, 1_001, hello.sequence + 1, b"");
    let request = b"GET / HTTP/1.1\r\nhost: trial\r\n\r\n";
    wire.send(port, ACK, 1_001, hello.sequence + 1, request);
    let after = 1_001 + request.len() as u32;
    let mut answer = Vec::new();
    loop {
        let packet = wire.hear(port);
        assert_eq!(packet.flags & RST, 0, "the connection was reset");
        let end = u32::from(packet.flags & FIN);
        let heard = packet.sequence + packet.data.len() as u32 + end;
        if packet.flags & SYN == 0 {
            answer.extend(packet.data);
            wire.send(port, ACK | (end as u8 * FIN), after, heard, b"");
        }
        if end == 1 {
            break;
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"),
        "{answer}"
    );
    assert_eq!(trial.exit().await.0, 0);
    println!("the late client was answered");
}

/// The client's end of a TUN device.
struct Wire(File);

/// A TCP packet to the client.
struct Packet {
    flags: u8,
    sequence: u32,
    data: Vec<u8>,
}

impl Wire {
    fn open() -> Self {
        /// `struct ifreq`, as far as TUNSETIFF reads it.
        #[repr(C)]
        struct Request {
            name: [u8; 16],
            flags: libc::c_short,
            rest: [u8; 22],
        }
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .unwrap();
        let mut request = Request {
            name: *b"tun0\0\0\0\0\0\0\0\0\0\0\0\0",
            flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
            rest: [0; 22],
        };
        // SAFETY: the request is of the size that the kernel reads, and outlives the call.
        let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(made, 0, "{}", std::io::Error::last_os_error());
        for words in [
            "link set lo up",
            "addr add 10.9.0.1/24 dev tun0",
            "link set tun0 up",
        ] {
            let done = Command::new("ip").args(words.split(' ')).status().unwrap();
            assert!(done.success(), "ip {words}");
        }
        Self(device)
    }

    fn send(&mut self, port: u16, flags: u8, sequence: u32, heard: u32, data: &[u8]) {
        let mut tcp = Vec::new();
        tcp.extend(CLIENT_PORT.to_be_bytes());
        tcp.extend(port.to_be_bytes());
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(heard.to_be_bytes());
        // Five words of header, a window, and a checksum to come.
        tcp.extend([5 << 4, flags, 0xfa, 0, 0, 0, 0, 0]);
        tcp.extend(data);
        let length = (tcp.len() as u16).to_be_bytes();
        let pseudo = [&CLIENTS[..], &OURS, &[0, libc::IPPROTO_TCP as u8], &length].concat();
        let sum = checksum(&[&pseudo[..], &tcp].concat());
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());

        let length = (20 + tcp.len() as u16).to_be_bytes();
        let [high, low] = length;
        let mut ip = vec![
            0x45,
            0,
            high,
            low,
            0,
            1,
            0,
            0,
            64,
            libc::IPPROTO_TCP as u8,
            0,
            0,
        ];
        ip.extend(CLIENTS);
        ip.extend(OURS);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip.extend(tcp);
        self.0.write_all(&ip).unwrap();
    }

    /// Waits for the next packet of TCP from the port.
    fn hear(&mut self, port: u16) -> Packet {
        let mut bytes = [0; 4096];
        loop {
            let mut poll = libc::pollfd {
                fd: self.0.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one `pollfd`, which outlives the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, LIMIT.as_millis() as i32) };
            assert_eq!(ready, 1, "nothing is heard");
            let length = self.0.read(&mut bytes).unwrap();
            let is_tcp = length >= 40 && bytes[0] == 0x45 && bytes[9] == libc::IPPROTO_TCP as u8;
            let tcp = &bytes[20..length.max(20)];
            if is_tcp && tcp[..2] == port.to_be_bytes() {
                let head = usize::from(tcp[12] >> 4) * 4;
                return Packet {
                    flags: tcp[13],
                    sequence: u32::from_be_bytes(tcp[4..8].try_into().unwrap()),
                    data: tcp[head..].to_vec(),
                };
            }
        }
    }
}

/// The ones' complement of the sum of words (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let words = words.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
