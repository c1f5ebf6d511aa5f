//! The programs that the kernel runs for us: which calls wait for the keeper (classic BPF over `struct
//! seccomp_data`, seccomp(2)), and which listener a connection goes to (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
//!
//! Pure: lists of instructions.

use libc::sock_filter;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the guard knows x86_64 and aarch64 only");

// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// `bind` and `listen` wait, everything else passes. Calls of another architecture (32-bit programs) pass unheard, as do those of x32, whose numbers have a bit
/// of their own.
pub(crate) fn calls() -> [sock_filter; 7] {
    [
        load(ARCH),
        unless_equal(AUDIT_ARCH, 3),
        load(NUMBER),
        if_equal(libc::SYS_listen as u32, 2),
        if_equal(libc::SYS_bind as u32, 1),
        give_back(libc::SECCOMP_RET_ALLOW),
        give_back(libc::SECCOMP_RET_USER_NOTIF),
    ]
}

/// Each new connection goes to one of `count` listeners of a group, the first of which is number `base`.
pub(crate) fn steering(base: u32, count: u32) -> [sock_filter; 4] {
    let random = libc::SKF_AD_OFF + libc::SKF_AD_RANDOM;
    [
        load(random as u32),
        arithmetic(libc::BPF_MOD, count.max(1)),
        arithmetic(libc::BPF_ADD, base),
        instruction((libc::BPF_RET | libc::BPF_A) as u16, 0, 0, 0),
    ]
}

/// Drops bare SYNs, whose clients try again a second later; what has ACK or lacks SYN passes (classic BPF over
/// the TCP header).
pub(crate) fn fence() -> [sock_filter; 5] {
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    let byte = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    [
        instruction(byte, 0, 0, FLAGS),
        arithmetic(libc::BPF_AND, SYN_OR_ACK),
        unless_equal(SYN, 1),
        give_back(0),
        give_back(u32::MAX),
    ]
}

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

    /// What the program gives back for a call: an interpreter of the four instructions that it uses.
    fn verdict(arch: u32, number: u32) -> u32 {
        let program = calls();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            match u32::from(code) & 7 {
                libc::BPF_LD => accumulator = if k == ARCH { arch } else { number },
                libc::BPF_JMP => at += usize::from(if accumulator == k { jt } else { jf }),
                libc::BPF_RET => return k,
                other => panic!("class {other}"),
            }
        }
    }

    #[test]
    fn bind_and_listen_wait_and_everything_else_passes() {
        const OTHER_ARCH: u32 = 0x4000_0003;
        let listen = libc::SYS_listen as u32;
        let table = [
            (AUDIT_ARCH, listen, libc::SECCOMP_RET_USER_NOTIF),
            (
                AUDIT_ARCH,
                libc::SYS_bind as u32,
                libc::SECCOMP_RET_USER_NOTIF,
            ),
            (
                AUDIT_ARCH,
                libc::SYS_connect as u32,
                libc::SECCOMP_RET_ALLOW,
            ),
            (AUDIT_ARCH, listen | 0x4000_0000, libc::SECCOMP_RET_ALLOW),
            (OTHER_ARCH, listen, libc::SECCOMP_RET_ALLOW),
        ];
        for (arch, number, expected) in table {
            assert_eq!(verdict(arch, number), expected, "{arch:x} {number}");
        }
    }
}
