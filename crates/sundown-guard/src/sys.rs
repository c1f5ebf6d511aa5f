//! The system calls that no crate offers: the one place with `unsafe`.
//!
//! Each function is one call, or one loop around it; none decides anything.

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An interface number that no system has. A socket bound to it hears nothing.
const NO_SUCH_INTERFACE: libc::c_int = libc::c_int::MAX;

/// `SO_BINDTOIFINDEX` (socket(7)); not in every libc's headers.
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// Which system call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Bind,
    Listen,
    /// `io_uring_setup`.
    Ring,
    /// `setsockopt`.
    Option,
}

/// A system call that waits for its answer (`struct seccomp_notif`, seccomp_unotify(2)).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notification {
    pub(crate) id: u64,
    pub(crate) call: Call,
    /// The thread that called, as this process's namespace numbers it.
    pub(crate) thread: u32,
    pub(crate) arguments: [u64; 6],
}

/// What becomes of a system call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel carries it out as it is.
    Continue,
    /// It was carried out, with success.
    Done,
    /// It fails with this error number.
    Fails(i32),
}

/// Lets this thread, and whoever it becomes, run under a filter (seccomp(2)); returns the descriptor that
/// hears of calls that wait.
///
/// # Errors
/// `EACCES` without CAP_SYS_ADMIN unless no_new_privs is set, `EBUSY` under another such filter, `EINVAL`
/// before Linux 5.0.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    const NEW_LISTENER: libc::c_ulong = 1 << 3;
    const SPEC_ALLOW: libc::c_ulong = 1 << 2;
    // Linux 5.19: a signal that does not kill leaves a call waiting.
    const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    let install = |flags: libc::c_ulong| {
        // SAFETY: `filter` describes `program`, which the kernel only reads.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER as libc::c_ulong,
                flags,
                &raw const filter,
            )
        };
        check(fd as libc::c_int)
    };
    let fd = match install(NEW_LISTENER | SPEC_ALLOW | WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            install(NEW_LISTENER | SPEC_ALLOW)?
        }
        other => other?,
    };
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Loads a BPF program that visits sockets, for the kernel's function of this number, and ties it to them
/// (BPF_PROG_LOAD, BPF_LINK_CREATE, bpf(2)); returns the tie.
///
/// # Errors
/// `EPERM` without CAP_BPF and CAP_PERFMON, `EINVAL` for a program that the kernel does not accept.
pub(crate) fn load_visitor(program: &[u64], visited: u32) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const LINK_CREATE: libc::c_int = 28;
    const TRACING: u32 = 26;
    const TRACE_ITER: u32 = 28;
    /// What it calls is open to programs under the GPL; this one is under either licence.
    const LICENCE: &CStr = c"Dual MIT/GPL";

    /// `union bpf_attr` of BPF_PROG_LOAD, as far as it is filled here.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        program: u64,
        licence: u64,
        nothing: [u32; 11],
        attach_kind: u32,
        nothing_either: [u32; 9],
        attached_to: u32,
        end: [u32; 2],
    }
    /// The same of BPF_LINK_CREATE.
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attach_kind: u32,
        flags: u32,
    }
    let load = Load {
        kind: TRACING,
        count: program.len() as u32,
        program: program.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        nothing: [0; 11],
        attach_kind: TRACE_ITER,
        nothing_either: [0; 9],
        attached_to: visited,
        end: [0; 2],
    };
    let loaded = bpf(PROG_LOAD, &load)?;
    let link = Link {
        program: loaded.as_raw_fd() as u32,
        target: 0,
        attach_kind: TRACE_ITER,
        flags: 0,
    };
    bpf(LINK_CREATE, &link)
}

/// Begins a visit of the sockets; reading it runs the program (BPF_ITER_CREATE, bpf(2)).
///
/// # Errors
/// Those of bpf(2).
pub(crate) fn visit_sockets(tie: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const ITER_CREATE: libc::c_int = 33;
    bpf(ITER_CREATE, &[tie.as_raw_fd() as u32, 0])
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    let (attributes, length) = (&raw const *attributes, mem::size_of::<T>());
    // SAFETY: the kernel only reads the attributes and what they point to, which outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, length) };
    check(fd as libc::c_int)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Waits for the next call that waits (SECCOMP_IOCTL_NOTIF_RECV, seccomp_unotify(2)).
///
/// # Errors
/// `ENOENT` if its caller is gone by now.
pub(crate) fn receive_notification(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: all-zero bytes are a valid `seccomp_notif`, and what the kernel asks for.
    let mut notification: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the request fills a `seccomp_notif`, which outlives it.
    check(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV as _,
            &raw mut notification,
        )
    })?;
    Ok(Notification {
        id: notification.id,
        call: match libc::c_long::from(notification.data.nr) {
            libc::SYS_listen => Call::Listen,
            libc::SYS_io_uring_setup => Call::Ring,
            libc::SYS_setsockopt => Call::Option,
            _ => Call::Bind,
        },
        thread: notification.pid,
        arguments: notification.data.args,
    })
}

/// Whether a call still waits, so that what was looked up of its caller was its caller's
/// (SECCOMP_IOCTL_NOTIF_ID_VALID, seccomp_unotify(2)).
pub(crate) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the request reads one number, which outlives it.
    let valid = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _,
            &raw const id,
        )
    };
    valid == 0
}

/// Answers a call that waits (SECCOMP_IOCTL_NOTIF_SEND, seccomp_unotify(2)).
///
/// # Errors
/// `ENOENT` if its caller is gone by now.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let response = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: match answer {
            Answer::Fails(number) => -number,
            Answer::Continue | Answer::Done => 0,
        },
        flags: match answer {
            Answer::Continue => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Answer::Done | Answer::Fails(_) => 0,
        },
    };
    // SAFETY: the request reads a `seccomp_notif_resp`, which outlives it.
    check(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND as _,
            &raw const response,
        )
    })
    .map(drop)
}

/// Puts a duplicate of a descriptor of ours in the place of a caller's own
/// (SECCOMP_IOCTL_NOTIF_ADDFD with SECCOMP_ADDFD_FLAG_SETFD, seccomp_unotify(2)).
pub(crate) fn replace_descriptor(
    listener: BorrowedFd<'_>,
    id: u64,
    ours: BorrowedFd<'_>,
    theirs: RawFd,
    closes_on_exec: bool,
) -> io::Result<()> {
    let added = libc::seccomp_notif_addfd {
        id,
        flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
        srcfd: ours.as_raw_fd() as u32,
        newfd: theirs as u32,
        newfd_flags: if closes_on_exec {
            libc::O_CLOEXEC as u32
        } else {
            0
        },
    };
    // SAFETY: the request reads a `seccomp_notif_addfd`, which outlives it.
    check(unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_ADDFD as _,
            &raw const added,
        )
    })
    .map(drop)
}

/// Reads another process's memory (process_vm_readv(2)); returns how many bytes there were.
pub(crate) fn read_memory(pid: i32, address: u64, bytes: &mut [u8]) -> io::Result<usize> {
    let ours = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let theirs = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: bytes.len(),
    };
    // SAFETY: `ours` describes `bytes`, which the kernel writes; `theirs` is of the other process.
    let count = unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Says which listener of a group each new connection goes to (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
///
/// # Errors
/// `EOPNOTSUPP` on a socket of MPTCP.
pub(crate) fn steer(listener: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    attach(listener, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// Lets a socket receive only what a program lets pass (SO_ATTACH_FILTER, socket(7)).
pub(crate) fn filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    attach(socket, libc::SO_ATTACH_FILTER, program)
}

fn attach(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `filter` describes `program`, which the kernel only reads.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const filter).cast(),
            size_of_val(&filter) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Makes a listener deaf: new connects are refused, queued ones and handshakes under way live on
/// (SO_BINDTOIFINDEX, socket(7)).
///
/// # Errors
/// `EPERM` where a filter forbids it, `ENOPROTOOPT` before Linux 5.7.
pub(crate) fn make_deaf(listener: BorrowedFd<'_>) -> io::Result<()> {
    set_number(
        listener,
        libc::SOL_SOCKET,
        SO_BINDTOIFINDEX,
        NO_SUCH_INTERFACE,
    )
}

/// Sets an option of a socket that is a number (setsockopt(2)).
pub(crate) fn set_number(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option is a number, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Reads an option of a socket that is a number (getsockopt(2)).
pub(crate) fn number(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: value and length outlive the call, which writes no more than the length says.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

/// Whether somebody has made a socket deaf in this way, for good.
pub(crate) fn is_deaf(socket: BorrowedFd<'_>) -> bool {
    let interface = number(socket, libc::SOL_SOCKET, SO_BINDTOIFINDEX);
    interface.is_ok_and(|interface| interface == NO_SUCH_INTERFACE)
}

/// How many connections wait in a listener's accept queue (`tcpi_unacked` of a listening socket, tcp(7)).
pub(crate) fn accept_queue(listener: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: all-zero bytes are a valid `tcp_info`, which is plain integers.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of `info`, which outlives the call.
    check(unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    })?;
    Ok(info.tcpi_unacked)
}

/// How many bytes that were written on a connection its peer has not acknowledged (SIOCOUTQ, tcp(7)).
pub(crate) fn unsent(connection: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the request writes one number, which outlives it; SIOCOUTQ is this by another name.
    check(unsafe { libc::ioctl(connection.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Which signals a thread has blocked (pthread_sigmask(3)).
#[derive(Clone, Copy)]
pub(crate) struct Blocked(libc::sigset_t);

/// Blocks every signal that can be; returns which were blocked before.
pub(crate) fn block_signals() -> Blocked {
    // SAFETY: `sigfillset` makes a valid set of these bytes, and so does the kernel of the others.
    unsafe {
        let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        Blocked(before)
    }
}

/// Blocks these signals and no others.
pub(crate) fn block_only(signals: &Blocked) {
    // SAFETY: the set is valid and outlives the call.
    unsafe {
        libc::pthread_sigmask(
            libc::SIG_SETMASK,
            &raw const signals.0,
            std::ptr::null_mut(),
        )
    };
}

/// Hears by a descriptor of children that end (signalfd(2)); their signal has to be blocked.
pub(crate) fn children_that_end() -> io::Result<OwnedFd> {
    // SAFETY: `sigemptyset` makes a valid set of these bytes.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set outlives the calls, and SIGCHLD is a signal.
    let fd = unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    // SAFETY: the kernel has just opened it for us.
    check(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a socket that belongs to this user (setfsuid(2)): only sockets of one user share an address.
///
/// # Errors
/// Those of `open`; where this process may not be that user, it opens the socket as itself.
pub(crate) fn as_user<T>(user: u32, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: the call takes a number, and concerns this thread alone.
    let own = unsafe { libc::setfsuid(user) };
    let opened = open();
    // SAFETY: the same.
    unsafe { libc::setfsuid(own as libc::uid_t) };
    opened
}

/// Reaps a child that has ended, if there is one (waitpid(2)): who it was, and its status.
///
/// # Errors
/// `ECHILD` where there is no child at all.
pub(crate) fn reap() -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) })?;
    Ok((pid > 0).then_some((pid, status)))
}

/// Reaps this child if it has ended (waitpid(2)).
pub(crate) fn reap_child(pid: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    check(unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) }).map(drop)
}

/// Sends a signal to a process (pidfd_send_signal(2)).
pub(crate) fn signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let (number, nothing) = (process.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the call takes numbers, and reads no information where there is none.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, number, signal, nothing, 0) };
    check(sent as libc::c_int).map(drop)
}

/// The same by its number (kill(2)).
pub(crate) fn signal_number(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill has no preconditions on memory.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Lets the runtime watch whether a descriptor can be read (epoll(7)).
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always names the one descriptor that it keeps open.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Duplicates a descriptor to this number, in the place of whatever is there (dup(2)).
pub(crate) fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: both are numbers; that nothing else here has `number` open is for the caller to see to.
    check(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Sets a variable in a process of one thread that is about to be another program (setenv(3)).
///
/// The standard library's own would wait for ever in a process that it has just forked.
pub(crate) fn set_variable(name: &CStr, value: &CStr) -> io::Result<()> {
    // SAFETY: both end with a zero byte, and there is no other thread that could read meanwhile.
    check(unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) }).map(drop)
}

/// Takes a descriptor that this process was started with.
pub(crate) fn own_passed_fd(fd: RawFd) -> OwnedFd {
    // SAFETY: whoever started this process says that it was opened for it, and nothing else here has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Lets a program inherit a descriptor (fcntl(2), FD_CLOEXEC).
pub(crate) fn inherit(command: &mut Command, fd: OwnedFd) {
    let keep = move || {
        // SAFETY: fcntl with F_SETFD takes a number, and `fd` is open for as long as the closure lives.
        check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) }).map(drop)
    };
    // SAFETY: fcntl is async-signal-safe, and nothing is allocated.
    unsafe { command.pre_exec(keep) };
}

/// Lets a program run under what `prepare` does in its process before it is executed.
///
/// # Safety in use
/// The caller has one thread, so that `prepare` may do what any code may.
pub(crate) fn prepare(
    command: &mut Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: forked from a process of one thread, no lock can be held by another.
    unsafe { command.pre_exec(prepare) };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
