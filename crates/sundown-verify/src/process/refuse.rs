//! Makes the kernel refuse socket options or system calls to a child, by a seccomp filter, so that fallbacks
//! are measured against a real refusal.
//!
//! Never refuses anything else: every other system call passes (seccomp(2)).

use std::io;

use libc::sock_filter;

/// Says what the kernel refuses, with EPERM: ways of a listener to turn newcomers away, to look into another
/// process, or to hear of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Refuse {
    /// None.
    #[default]
    Nothing,
    /// `SO_BINDTOIFINDEX`: the listener cannot be made deaf.
    Deaf,
    /// `SO_BINDTOIFINDEX` and `SO_ATTACH_FILTER`: it cannot be fenced either.
    DeafAndFence,
    /// `pidfd_getfd`, as most containers do: no descriptor of another process can be opened.
    Descriptors,
    /// `pidfd_getfd` and `process_vm_readv`: nor can its memory be read by that call.
    DescriptorsAndMemory,
    /// `seccomp`: no filter can be set by it.
    Filters,
}

const SO_BINDTOIFINDEX: u32 = 62;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the seccomp filter knows x86_64 and aarch64 only");

// Offsets into `struct seccomp_data`; an argument's low half comes first on both architectures.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const SECOND_ARGUMENT: u32 = 24;
const THIRD_ARGUMENT: u32 = 32;

impl Refuse {
    /// Returns the filter; empty if nothing is refused.
    pub(super) fn filter(self) -> Vec<sock_filter> {
        match self {
            Refuse::Nothing => Vec::new(),
            Refuse::Deaf => refuse_options(&[SO_BINDTOIFINDEX]),
            Refuse::DeafAndFence => {
                refuse_options(&[SO_BINDTOIFINDEX, libc::SO_ATTACH_FILTER as u32])
            }
            Refuse::Descriptors => refuse_calls(&[libc::SYS_pidfd_getfd]),
            Refuse::DescriptorsAndMemory => {
                refuse_calls(&[libc::SYS_pidfd_getfd, libc::SYS_process_vm_readv])
            }
            Refuse::Filters => refuse_calls(&[libc::SYS_seccomp]),
        }
    }
}

/// Builds a filter: each of the calls fails, all else passes.
fn refuse_calls(calls: &[libc::c_long]) -> Vec<sock_filter> {
    // Two loads, the jump of the architecture, a jump a call, and the two returns.
    let allow = 3 + calls.len();
    let refuse = allow + 1;
    let mut filter = vec![load(ARCH)];
    filter.push(jump_if_equal(AUDIT_ARCH, 0, allow - 2));
    filter.push(load(NUMBER));
    for call in calls {
        let distance = refuse - filter.len() - 1;
        filter.push(jump_if_equal(*call as u32, distance, 0));
    }
    filter.push(give_back(libc::SECCOMP_RET_ALLOW));
    filter.push(give_back(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    filter
}

/// Builds a filter: `setsockopt` at level SOL_SOCKET with one of the options fails, all else passes.
fn refuse_options(options: &[u32]) -> Vec<sock_filter> {
    let conditions = [
        (ARCH, AUDIT_ARCH),
        (NUMBER, libc::SYS_setsockopt as u32),
        (SECOND_ARGUMENT, libc::SOL_SOCKET as u32),
    ];
    // Each condition is a load and a jump; then come the load of the option, a jump an option, the
    // return that allows, and the return that refuses.
    let allow = conditions.len() * 2 + 1 + options.len();
    let refuse = allow + 1;
    let mut filter = Vec::with_capacity(refuse + 1);
    for (offset, value) in conditions {
        filter.push(load(offset));
        let distance = allow - filter.len() - 1;
        filter.push(jump_if_equal(value, 0, distance));
    }
    filter.push(load(THIRD_ARGUMENT));
    for option in options {
        let distance = refuse - filter.len() - 1;
        filter.push(jump_if_equal(*option, distance, 0));
    }
    filter.push(give_back(libc::SECCOMP_RET_ALLOW));
    filter.push(give_back(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    filter
}

fn load(offset: u32) -> sock_filter {
    let code = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

fn jump_if_equal(value: u32, then: usize, otherwise: usize) -> sock_filter {
    let code = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    sock_filter {
        code,
        jt: then as u8,
        jf: otherwise as u8,
        k: value,
    }
}

fn give_back(value: u32) -> sock_filter {
    sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: value,
    }
}

/// Installs the filter in the calling process, for good; an empty one changes nothing.
///
/// Allocates nothing: it runs between fork and exec.
pub(super) fn install(filter: &[sock_filter]) -> io::Result<()> {
    if filter.is_empty() {
        return Ok(());
    }
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `filter`, which outlives both calls; the kernel copies it.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const program,
            ),
        ]
    };
    match results {
        [0, 0] => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
