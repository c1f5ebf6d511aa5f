//! The programs that the kernel runs for us: which calls wait for the keeper (classic BPF over `struct
//! seccomp_data`, seccomp(2)), and which listener a connection goes to (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
//!
//! Pure: lists of instructions.

use std::net::{IpAddr, SocketAddr};

use libc::sock_filter;

use crate::groups::Part;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the guard knows x86_64 and aarch64 only");

// Offsets into `struct seccomp_data`, of arguments the lower half.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const SECOND: u32 = 24 + HALF;
const THIRD: u32 = 32 + HALF;
const HALF: u32 = if cfg!(target_endian = "big") { 4 } else { 0 };

/// Options of listeners, by level and name; some clients set one of them, too.
const OPTIONS: [(i32, i32); 4] = [
    (libc::SOL_SOCKET, libc::SO_REUSEPORT),
    (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
];

/// `bind`, `listen`, `io_uring_setup` and, where that is wished, a `setsockopt` of an option of listeners wait,
/// everything else passes. Calls of another architecture (32-bit programs) pass unheard, as do those of x32, whose
/// numbers have a bit of their own.
pub(crate) fn calls(with_options: bool) -> Vec<sock_filter> {
    let heard = if with_options { &OPTIONS[..] } else { &[] };
    let options = heard.iter().enumerate().flat_map(|(at, (level, name))| {
        let behind = 4 * (heard.len() - at - 1) as u8;
        [
            load(SECOND),
            unless_equal(*level as u32, 2),
            load(THIRD),
            if_equal(*name as u32, behind + 1),
        ]
    });
    let passes = 4 * heard.len() as u8;
    let heads = [
        load(ARCH),
        unless_equal(AUDIT_ARCH, passes + 5),
        load(NUMBER),
        if_equal(libc::SYS_listen as u32, passes + 4),
        if_equal(libc::SYS_bind as u32, passes + 3),
        if_equal(libc::SYS_io_uring_setup as u32, passes + 2),
        unless_equal(libc::SYS_setsockopt as u32, passes),
    ];
    let ends = [
        give_back(libc::SECCOMP_RET_ALLOW),
        give_back(libc::SECCOMP_RET_USER_NOTIF),
    ];
    heads.into_iter().chain(options).chain(ends).collect()
}

/// Each new connection goes to one of a generation's part of a group.
pub(crate) fn steering(part: Part) -> Vec<sock_filter> {
    let random = libc::SKF_AD_OFF + libc::SKF_AD_RANDOM;
    vec![
        load(random as u32),
        arithmetic(libc::BPF_MOD, part.count.max(1)),
        arithmetic(libc::BPF_ADD, part.base),
        instruction((libc::BPF_RET | libc::BPF_A) as u16, 0, 0, 0),
    ]
}

/// The same, but the connection from one source goes to another generation's part.
///
/// The source is read from the IP header (SKF_NET_OFF) and the first two bytes behind it; of IPv6 no extension
/// header is looked at, as there is none on the way from one's own host.
pub(crate) fn steering_but(source: SocketAddr, its: Part, others: Part) -> Vec<sock_filter> {
    const V4: u32 = 0x40;
    const V6: u32 = 0x60;
    let net = |offset: u32| (libc::SKF_NET_OFF as u32).wrapping_add(offset);
    let word = |at: u32, value: u32| [load(net(at)), unless_equal(value, 0)];
    let mut looks = vec![
        instruction(LOAD_BYTE, 0, 0, net(0)),
        arithmetic(libc::BPF_AND, 0xf0),
    ];
    match source.ip() {
        IpAddr::V4(address) => {
            const INDEX_BY_HEADER: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
            const LOAD_HALF_BEHIND: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
            looks.push(unless_equal(V4, 0));
            looks.extend(word(12, address.to_bits()));
            looks.push(instruction(INDEX_BY_HEADER, 0, 0, net(0)));
            looks.push(instruction(LOAD_HALF_BEHIND, 0, 0, net(0)));
        }
        IpAddr::V6(address) => {
            const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
            looks.push(unless_equal(V6, 0));
            let words = address.octets();
            for (at, bytes) in (8..).step_by(4).zip(words.chunks_exact(4)) {
                let value = u32::from_be_bytes(bytes.try_into().expect("four bytes"));
                looks.extend(word(at, value));
            }
            looks.push(instruction(LOAD_HALF, 0, 0, net(40)));
        }
    }
    looks.push(unless_equal(u32::from(source.port()), 0));
    let its = steering(its);
    // Who is not the source goes on behind what is done for it.
    let end = looks.len() + its.len();
    for (at, look) in looks.iter_mut().enumerate() {
        if u32::from(look.code) & 7 == libc::BPF_JMP {
            look.jf = (end - at - 1) as u8;
        }
    }
    looks
        .into_iter()
        .chain(its)
        .chain(steering(others))
        .collect()
}

/// Drops bare SYNs, whose clients try again a second later; what has ACK or lacks SYN passes (classic BPF over
/// the TCP header).
pub(crate) fn fence() -> [sock_filter; 5] {
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    [
        instruction(LOAD_BYTE, 0, 0, FLAGS),
        arithmetic(libc::BPF_AND, SYN_OR_ACK),
        unless_equal(SYN, 1),
        give_back(0),
        give_back(u32::MAX),
    ]
}

const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;

fn load(offset: u32) -> sock_filter {
    let code = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    instruction(code, 0, 0, offset)
}

fn arithmetic(operation: u32, operand: u32) -> sock_filter {
    let code = (libc::BPF_ALU | operation | libc::BPF_K) as u16;
    instruction(code, 0, 0, operand)
}

fn if_equal(value: u32, further: u8) -> sock_filter {
    let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    instruction(code, further, 0, value)
}

fn unless_equal(value: u32, further: u8) -> sock_filter {
    let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    instruction(code, 0, further, value)
}

fn give_back(action: u32) -> sock_filter {
    instruction((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, action)
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program gives back for a call with these arguments behind its first: an interpreter of the three
    /// instructions that it uses.
    fn verdict(program: &[sock_filter], arch: u32, number: u32, [second, third]: [i32; 2]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) & 7 {
                libc::BPF_LD => {
                    accumulator = match k {
                        ARCH => arch,
                        NUMBER => number,
                        SECOND => second as u32,
                        THIRD => third as u32,
                        other => panic!("offset {other}"),
                    }
                }
                libc::BPF_JMP => at += usize::from(if accumulator == k { jt } else { jf }),
                libc::BPF_RET => return k,
                other => panic!("class {other}"),
            }
        }
    }

    #[test]
    fn what_makes_listeners_waits_and_everything_else_passes() {
        const OTHER_ARCH: u32 = 0x4000_0003;
        let [listen, bind, ring, connect, set] = [
            libc::SYS_listen,
            libc::SYS_bind,
            libc::SYS_io_uring_setup,
            libc::SYS_connect,
            libc::SYS_setsockopt,
        ]
        .map(|call| call as u32);
        let (waits, passes) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        let none = [0; 2];
        let table = [
            (AUDIT_ARCH, listen, none, waits),
            (AUDIT_ARCH, bind, none, waits),
            (AUDIT_ARCH, ring, none, waits),
            (AUDIT_ARCH, connect, none, passes),
            (AUDIT_ARCH, listen | 0x4000_0000, none, passes),
            (OTHER_ARCH, listen, none, passes),
            (
                AUDIT_ARCH,
                set,
                [libc::SOL_SOCKET, libc::SO_REUSEADDR],
                passes,
            ),
            (
                AUDIT_ARCH,
                set,
                [libc::IPPROTO_TCP, libc::TCP_NODELAY],
                passes,
            ),
            // A name of another level's.
            (
                AUDIT_ARCH,
                set,
                [libc::IPPROTO_IP, libc::SO_REUSEPORT],
                passes,
            ),
        ];
        let [without, with] = [false, true].map(calls);
        for (arch, number, arguments, expected) in table {
            for program in [&without, &with] {
                let found = verdict(program, arch, number, arguments);
                assert_eq!(found, expected, "{arch:x} {number} {arguments:?}");
            }
        }
        for option in OPTIONS.map(|(level, name)| [level, name]) {
            assert_eq!(verdict(&with, AUDIT_ARCH, set, option), waits);
            assert_eq!(verdict(&without, AUDIT_ARCH, set, option), passes);
            assert_eq!(verdict(&with, AUDIT_ARCH, connect, option), passes);
        }
    }
}
