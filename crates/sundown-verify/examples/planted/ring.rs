//! A listener by io_uring(7): bound and listening without bind(2) and listen(2), since Linux 6.11.
//!
//! One request at a time; the offsets are those that the kernel gives (io_uring_setup(2)).

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

const OP_BIND: u8 = 56;
const OP_LISTEN: u8 = 57;
const BACKLOG: u32 = 128;

/// `struct io_uring_params`, with its two lists of offsets.
#[repr(C)]
#[derive(Default)]
struct Parameters {
    sq_entries: u32,
    cq_entries: u32,
    /// Flags, features and the like.
    others: [u32; 8],
    sq: SubmissionOffsets,
    cq: CompletionOffsets,
}

#[repr(C)]
#[derive(Default)]
struct SubmissionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    others: [u32; 3],
    array: u32,
    reserved: [u32; 3],
}

#[repr(C)]
#[derive(Default)]
struct CompletionOffsets {
    head: u32,
    tail: u32,
    ring_mask: u32,
    others: [u32; 2],
    cqes: u32,
    reserved: [u32; 4],
}

/// `struct io_uring_sqe`, as far as it is used here.
#[repr(C)]
#[derive(Default)]
struct Entry {
    opcode: u8,
    others: [u8; 3],
    fd: RawFd,
    /// Of `OP_BIND` the length of the address.
    offset: u64,
    address: u64,
    /// Of `OP_LISTEN` the backlog.
    length: u32,
    rest: [u32; 9],
}

/// Is a ring; its memory is the kernel's until the process ends.
pub(crate) struct Ring {
    fd: OwnedFd,
    parameters: Parameters,
    rings: *mut u8,
    entries: *mut Entry,
}

impl Ring {
    pub(crate) fn set_up() -> io::Result<Self> {
        let mut parameters = Parameters::default();
        // SAFETY: the kernel writes one `io_uring_params`, which outlives the call.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, &raw mut parameters) };
        let fd = checked(fd)? as RawFd;
        // SAFETY: the kernel has just opened it for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // Both rings are in one mapping since Linux 5.4; a page holds rings of this size, and the entries.
        const RINGS: libc::off_t = 0;
        const ENTRIES: libc::off_t = 0x1000_0000;
        let map = |offset| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            // SAFETY: the kernel chooses where; nothing of ours is replaced.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    prot,
                    flags,
                    fd.as_raw_fd(),
                    offset,
                )
            };
            match at == libc::MAP_FAILED {
                true => Err(io::Error::last_os_error()),
                false => Ok(at.cast::<u8>()),
            }
        };
        Ok(Self {
            rings: map(RINGS)?,
            entries: map(ENTRIES)?.cast(),
            parameters,
            fd,
        })
    }

    /// A listener of this host's own.
    pub(crate) fn listen(&self, port: u16) -> io::Result<TcpListener> {
        let family = libc::AF_INET;
        // SAFETY: socket(2) takes numbers.
        let socket = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        let fd = checked(socket.into())? as RawFd;
        // SAFETY: the kernel has just opened it for us.
        let listener = unsafe { TcpListener::from_raw_fd(fd) };
        let address = libc::sockaddr_in {
            sin_family: family as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr {
                s_addr: Ipv4Addr::LOCALHOST.to_bits().to_be(),
            },
            sin_zero: [0; 8],
        };
        self.carry_out(Entry {
            opcode: OP_BIND,
            fd,
            offset: size_of_val(&address) as u64,
            address: (&raw const address) as u64,
            ..Entry::default()
        })?;
        self.carry_out(Entry {
            opcode: OP_LISTEN,
            fd,
            length: BACKLOG,
            ..Entry::default()
        })?;
        Ok(listener)
    }

    /// Hands in a request and waits for its result (io_uring_enter(2)); what it points to outlives that.
    fn carry_out(&self, entry: Entry) -> io::Result<()> {
        const GET_EVENTS: u32 = 1;
        let Parameters { sq, cq, .. } = &self.parameters;
        // SAFETY: there is room for one entry, and the one before was carried out.
        unsafe { self.entries.write(entry) };
        // The index of the entry, at each place of the ring, is 0, as the kernel's memory is.
        self.word(sq.tail).fetch_add(1, Ordering::Release);
        // SAFETY: io_uring_enter takes numbers, and a null signal set.
        let entered = unsafe {
            let no_set = std::ptr::null::<libc::sigset_t>();
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.fd.as_raw_fd(),
                1,
                1,
                GET_EVENTS,
                no_set,
                0,
            )
        };
        checked(entered)?;
        let head = self.word(cq.head);
        let mask = self.word(cq.ring_mask).load(Ordering::Relaxed);
        assert_ne!(
            self.word(cq.tail).load(Ordering::Acquire),
            head.load(Ordering::Relaxed)
        );
        // A `struct io_uring_cqe` has 16 bytes; the result is behind the first eight.
        let at = cq.cqes + (head.load(Ordering::Relaxed) & mask) * 16 + 8;
        let result = self.word(at).load(Ordering::Relaxed) as i32;
        head.fetch_add(1, Ordering::Release);
        match result {
            0.. => Ok(()),
            error => Err(io::Error::from_raw_os_error(-error)),
        }
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the kernel says that there is a number at this offset, and changes it as a whole.
        unsafe { AtomicU32::from_ptr(self.rings.add(offset as usize).cast()) }
    }
}

fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    match result {
        0.. => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
