//! The program that lets `listen` wait for the keeper, and lets everything else pass.
//!
//! Pure: a list of instructions (classic BPF over `struct seccomp_data`, seccomp(2)).

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

/// Calls of another architecture (32-bit programs) pass unheard, as do those of x32, whose numbers have a bit
/// of their own.
pub(crate) fn program() -> [sock_filter; 6] {
    [
        load(ARCH),
        unless_equal(AUDIT_ARCH, 2),
        load(NUMBER),
        // One further where it is equal.
        if_equal(libc::SYS_listen as u32, 1),
        give_back(libc::SECCOMP_RET_ALLOW),
        give_back(libc::SECCOMP_RET_USER_NOTIF),
    ]
}

fn load(offset: u32) -> sock_filter {
    let code = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    instruction(code, 0, 0, offset)
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
        let program = program();
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
    fn listen_waits_and_everything_else_passes() {
        const OTHER_ARCH: u32 = 0x4000_0003;
        let listen = libc::SYS_listen as u32;
        let table = [
            (AUDIT_ARCH, listen, libc::SECCOMP_RET_USER_NOTIF),
            (AUDIT_ARCH, libc::SYS_bind as u32, libc::SECCOMP_RET_ALLOW),
            (AUDIT_ARCH, listen | 0x4000_0000, libc::SECCOMP_RET_ALLOW),
            (OTHER_ARCH, listen, libc::SECCOMP_RET_ALLOW),
        ];
        for (arch, number, expected) in table {
            assert_eq!(verdict(arch, number), expected, "{arch:x} {number}");
        }
    }
}
