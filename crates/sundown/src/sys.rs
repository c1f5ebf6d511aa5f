//! The system calls that no crate offers: the one place with `unsafe`.
//!
//! Each function is one call, or one loop around it; none decides anything.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// An interface number that no system has. A socket bound to it hears nothing.
const NO_SUCH_INTERFACE: libc::c_int = libc::c_int::MAX;

/// `SO_BINDTOIFINDEX` (Linux 5.0, socket(7)); not in every libc's headers.
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// Makes a listener deaf: new connects are refused, queued ones and handshakes under way live on.
///
/// # Errors
/// `EPERM` where a filter forbids it, `ENOPROTOOPT` before Linux 5.7.
pub(crate) fn make_deaf(listener: BorrowedFd<'_>) -> io::Result<()> {
    set_option(
        listener,
        libc::SOL_SOCKET,
        SO_BINDTOIFINDEX,
        &NO_SUCH_INTERFACE,
    )
}

/// Fences a listener: bare SYNs are dropped, so that a connect is retried a second later and then
/// refused; handshakes under way go on.
///
/// The filter (classic BPF over the TCP header) keeps what has ACK or lacks SYN.
pub(crate) fn fence(listener: BorrowedFd<'_>) -> io::Result<()> {
    const LOAD_FLAGS: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const FLAGS_BYTE: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;

    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(LOAD_FLAGS, 0, 0, FLAGS_BYTE),
        op(AND, 0, 0, SYN_OR_ACK),
        op(JUMP_IF_EQUAL, 0, 1, SYN),
        op(RETURN, 0, 0, 0),
        op(RETURN, 0, 0, u32::MAX),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(listener, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// How many connections wait in a listener's accept queue (`tcpi_unacked` of a listening socket).
pub(crate) fn accept_queue(listener: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: all-zero bytes are a valid `tcp_info`, which is plain integers.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut len = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: `info` and `len` live through the call, and `len` is the size of `info`.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut len,
        )
    };
    check(result).map(|_| info.tcpi_unacked)
}

/// How many bytes the kernel holds that were not yet read (FIONREAD).
pub(crate) fn unread_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue_length(socket, libc::FIONREAD)
}

/// How many bytes the kernel holds that the peer has not acknowledged (SIOCOUTQ).
pub(crate) fn unsent_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    queue_length(socket, libc::TIOCOUTQ)
}

fn queue_length(socket: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int through the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    check(result).map(|_| bytes.max(0) as usize)
}

fn set_option<T>(socket: BorrowedFd<'_>, level: i32, name: i32, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const *value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// Waits until `fd` can be read, or the timeout has passed. `None` waits for ever.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    // Rounded up, so that a wait never ends before its time and spins.
    let millis = timeout.map_or(-1, |timeout| {
        timeout
            .as_nanos()
            .div_ceil(1_000_000)
            .try_into()
            .unwrap_or(libc::c_int::MAX)
    });
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd is passed, and it outlives the call.
    match check(unsafe { libc::poll(&mut poll, 1, millis) }) {
        Ok(ready) => Ok(ready > 0),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(error) => Err(error),
    }
}

/// Installs `handler` for `signal` and returns the disposition that stood before.
pub(crate) fn handle_signal(
    signal: i32,
    handler: extern "C" fn(libc::c_int),
) -> io::Result<libc::sigaction> {
    // SAFETY: all-zero bytes are a valid `sigaction`: default disposition, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    set_disposition(signal, &action)
}

/// Puts a disposition back and returns the one that stood before.
pub(crate) fn set_disposition(
    signal: i32,
    action: &libc::sigaction,
) -> io::Result<libc::sigaction> {
    // SAFETY: all-zero bytes are a valid `sigaction`.
    let mut before: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: both pointers are valid for the call.
    check(unsafe { libc::sigaction(signal, action, &mut before) }).map(|_| before)
}

/// Unblocks signals for this thread and the threads it starts from now on.
pub(crate) fn unblock(signals: &[i32]) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sigset_t`, and `sigemptyset` initialises it.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: `set` outlives the calls; a null old set is allowed by pthread_sigmask(3).
    let result = unsafe {
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}

/// Writes one byte from a signal handler: async-signal-safe, leaves `errno` as it was.
pub(crate) fn write_byte_in_handler(fd: i32, byte: u8) {
    // SAFETY: write(2) is async-signal-safe, and errno belongs to this thread. A full or closed
    // pipe is an error that nobody could be told of here.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(fd, (&raw const byte).cast(), 1);
        *errno = saved;
    }
}

/// Sets O_NONBLOCK.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take and return plain integers.
    unsafe {
        let flags = check(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
        check(libc::fcntl(
            fd.as_raw_fd(),
            libc::F_SETFL,
            flags | libc::O_NONBLOCK,
        ))
        .map(drop)
    }
}

/// Reads the monotonic clock of the last timer tick, in microseconds: some 4 ms old at the most,
/// and a fraction of the cost.
pub(crate) fn coarse_micros() -> u64 {
    micros_of(libc::CLOCK_MONOTONIC_COARSE)
}

/// Reads the monotonic clock, which is `Instant`'s, in microseconds.
pub(crate) fn monotonic_micros() -> u64 {
    micros_of(libc::CLOCK_MONOTONIC)
}

fn micros_of(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` outlives the call; every Linux has these clocks, and a failure leaves zero.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// Ends the process now: no destructors, no exit handlers, nothing that could wait.
pub(crate) fn exit_now(code: u8) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(i32::from(code)) }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Writes to stderr if that needs no waiting; drops the bytes otherwise.
pub(crate) fn write_stderr_if_ready(bytes: &[u8]) {
    let mut poll = libc::pollfd {
        fd: libc::STDERR_FILENO,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one pollfd is passed, and it outlives the call.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    if ready == 1 && poll.revents & libc::POLLOUT != 0 {
        // SAFETY: the pointer and the length describe `bytes`. Stderr may be closed: nobody to tell.
        unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
    }
}

/// Tells how many columns the terminal on stderr has, if it is one that says (ioctl_tty(2)).
pub(crate) fn stderr_columns() -> Option<u16> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let asked = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0 && size.ws_col > 0).then_some(size.ws_col)
}

/// Takes ownership of a descriptor that the parent passed on, and keeps it from our children.
pub(crate) fn own_passed_fd(fd: std::os::fd::RawFd) -> std::os::fd::OwnedFd {
    // SAFETY: LISTEN_FDS and LISTEN_PID say that this descriptor was opened for this process, and
    // `sd_notify` hands each out once, as it unsets nothing else that could claim it.
    let fd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    // SAFETY: F_SETFD takes a plain integer. A failure would only leave it inheritable.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
    fd
}

/// Sends one datagram.
pub(crate) fn send(socket: std::os::fd::RawFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `bytes`, which outlives the call.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Receives one datagram; only for sockets that answer at once.
pub(crate) fn receive(socket: std::os::fd::RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length describe `buffer`, which outlives the call.
    let received = unsafe { libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Starts a program that inherits this descriptor, under its number.
pub(crate) fn spawn_with(
    command: &mut std::process::Command,
    descriptor: BorrowedFd<'_>,
) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt as _;
    let descriptor = descriptor.as_raw_fd();
    let keep = move || {
        // SAFETY: the flags of a descriptor that is open in the child; the call is safe behind fork.
        check(unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) }).map(drop)
    };
    // SAFETY: `keep` makes one system call, and neither locks nor allocates.
    unsafe { command.pre_exec(keep) };
    command.spawn()
}
