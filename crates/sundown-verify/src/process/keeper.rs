//! Stands between us and a service, so that no process of it gets lost, whatever it forks.
//!
//! The promise: each descendant of the service, also one that has left its group and its session, is
//! a descendant of the keeper until it is dead; all are killed and reaped when the [`Keeper`] is
//! dropped, and also when our own process ends, however it does. Nothing of the process that uses this
//! library changes: it is the keeper that is a subreaper (PR_SET_CHILD_SUBREAPER(2const)), and it is
//! asked about its own children only, so that services which run side by side are told apart by what
//! the kernel knows. A mark in the environment could be lost by `env -i`, overwritten by a title, and
//! not be read of another user's process.
//!
//! The keeper is a fork of ours that executes nothing: it makes system calls, and allocates nothing,
//! because another thread of ours may have held the allocator when it was forked.

use std::io::{self, Read};
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::ptr;
use std::time::Duration;

use super::kin;

/// How long killed processes may take until some of them are gone.
const LIMIT: Duration = Duration::from_secs(2);

/// What the keeper writes: first the service's number, then its status once it has ended. Both are of
/// this size.
type Word = [u8; 4];

/// Is the parent of a service; ends it and all its descendants when dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    child: Child,
    line: UnixStream,
    service: u32,
    status: Option<ExitStatus>,
    /// Whether all were ended.
    empty: bool,
}

impl Keeper {
    /// Hears of the service from the keeper: its descriptor (pidfd_open(2)).
    pub(super) fn meet(child: Child, line: UnixStream) -> io::Result<(Self, OwnedFd)> {
        let mut keeper = Self {
            child,
            line,
            service: 0,
            status: None,
            empty: false,
        };
        let (service, pidfd) = receive(&keeper.line)?;
        keeper.service = service;
        Ok((keeper, pidfd))
    }

    /// The service's number.
    pub(super) fn service(&self) -> u32 {
        self.service
    }

    /// Returns how the service ended; waits for that if it has not.
    pub(super) fn status(&mut self) -> io::Result<ExitStatus> {
        if self.status.is_none() {
            let mut word = Word::default();
            self.line.read_exact(&mut word)?;
            self.status = Some(ExitStatus::from_raw(i32::from_ne_bytes(word)));
        }
        Ok(self.status.expect("it was read above"))
    }

    /// Lists the service, while it runs, and all its descendants.
    pub(super) fn kept(&self) -> Vec<u32> {
        match self.empty {
            true => Vec::new(),
            false => kin::descendants(self.child.id()),
        }
    }

    /// Kills the service and all its descendants, and waits until they are gone.
    pub(super) fn end(&mut self) {
        let _ = self.line.shutdown(Shutdown::Write);
        let _ = self.line.set_read_timeout(Some(LIMIT));
        if self.status.is_none() {
            let _ = self.status();
        }
        let mut left = usize::MAX;
        // The end of the line is the end of the keeper, which has nobody left then.
        while !self.empty {
            self.empty = matches!(self.line.read(&mut [0]), Ok(0));
            let now = self.kept().len();
            if now >= left {
                return;
            }
            left = now;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
        // Else somebody cannot be killed: another user's, or one that waits for a disk. The keeper stays
        // with them, and ends when they do.
        if self.empty {
            let _ = self.child.wait();
        }
    }
}

/// Forks: the service returns, as a child of the keeper and the leader of a group of its own; the
/// keeper never does.
///
/// To be called between fork and exec, with every signal at its default.
pub(super) fn stand_between(line: RawFd) -> io::Result<()> {
    // SAFETY: prctl(2), fork(2) and setpgid(2) take no pointers here. The calling process is a fork
    // itself, and has one thread.
    unsafe {
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => match libc::setpgid(0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            },
            service => keep(service, line),
        }
    }
}

/// Lives as the keeper.
///
/// # Safety
/// The process has one thread, `service` is its child, and `line` is open.
unsafe fn keep(service: libc::pid_t, line: RawFd) -> ! {
    // SAFETY: the calls take numbers and pointers to local variables that outlive them.
    unsafe {
        close_all_but(line);
        libc::prctl(libc::PR_SET_NAME, c"sundown-keeper".as_ptr());
        // Ctrl-C is for the service, and no signal but SIGKILL keeps us from our task.
        let mut signals = mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut signals);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const signals, ptr::null_mut());
        let mut of_children = mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut of_children);
        libc::sigaddset(&raw mut of_children, libc::SIGCHLD);
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let ends = libc::signalfd(-1, &raw const of_children, flags);
        // Nobody has reaped the service yet, so its number is still its own.
        if ends == -1 || !introduce(service, line) {
            end_all(service, line);
        }
        while reap(service, line, libc::WNOHANG) {}
        loop {
            let mut polled =
                [(line, libc::POLLIN), (ends, libc::POLLIN)].map(|(fd, events)| libc::pollfd {
                    fd,
                    events,
                    revents: 0,
                });
            libc::poll(polled.as_mut_ptr(), 2, -1);
            // Nothing is ever written to us: the other end was closed.
            if polled[0].revents != 0 {
                end_all(service, line);
            }
            let mut read = mem::zeroed::<libc::signalfd_siginfo>();
            let size = mem::size_of_val(&read);
            while libc::read(ends, (&raw mut read).cast(), size) > 0 {}
            while reap(service, line, libc::WNOHANG) {}
        }
    }
}

/// Reaps one child, and tells of its status if it was the service; tells whether there was one. Ends
/// the keeper when it has no child any more.
///
/// # Safety
/// As [`keep`].
unsafe fn reap(service: libc::pid_t, line: RawFd, options: i32) -> bool {
    let mut status = 0;
    // SAFETY: waitpid(2) takes a pointer to a local variable.
    let reaped = unsafe { libc::waitpid(-1, &raw mut status, options) };
    if reaped == service {
        let word: Word = status.to_ne_bytes();
        // SAFETY: the pointer is to four bytes. That nobody reads any more must not end us.
        unsafe { libc::send(line, word.as_ptr().cast(), word.len(), libc::MSG_NOSIGNAL) };
    }
    if reaped == -1 {
        // SAFETY: it takes a number, and runs nothing that was to run at the end of our original.
        unsafe { libc::_exit(0) };
    }
    reaped != 0
}

/// Kills until nobody is left: whoever loses its parent by that becomes our own child.
///
/// # Safety
/// As [`keep`].
unsafe fn end_all(service: libc::pid_t, line: RawFd) -> ! {
    // SAFETY: as in `keep`.
    unsafe {
        // By its number, too: a kernel can be built without a list of children.
        kill_child(service);
        loop {
            kill_children();
            reap(service, line, 0);
            // All that have ended meanwhile: to kill many one after the other takes too long.
            while reap(service, line, libc::WNOHANG) {}
        }
    }
}

/// Kills who is our own child in this moment.
///
/// # Safety
/// As [`keep`].
unsafe fn kill_children() {
    let mut listed = [0_u8; 4096];
    // SAFETY: the calls take a string with its end, and a buffer with its length.
    let read = unsafe {
        let path = c"/proc/thread-self/children".as_ptr();
        let file = libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC);
        let read = libc::read(file, listed.as_mut_ptr().cast(), listed.len());
        libc::close(file);
        read
    };
    let mut pid: libc::pid_t = 0;
    for byte in &listed[..usize::try_from(read).unwrap_or(0)] {
        // A number that the buffer has cut has no blank behind it, and is met another time.
        match byte {
            b'0'..=b'9' => pid = pid.wrapping_mul(10).wrapping_add((byte - b'0').into()),
            _ => {
                // SAFETY: as in `keep`.
                unsafe { kill_child(mem::take(&mut pid)) };
            }
        }
    }
}

/// Kills a process if it is our child: then its number is its own, because only we reap it.
///
/// # Safety
/// As [`keep`].
unsafe fn kill_child(pid: libc::pid_t) {
    // SAFETY: waitid(2) takes a pointer to a local variable, and leaves the child to be reaped.
    unsafe {
        let mut info = mem::zeroed::<libc::siginfo_t>();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let id = pid as libc::id_t;
        if pid > 0 && libc::waitid(libc::P_PID, id, &raw mut info, options) == 0 {
            libc::kill(pid, libc::SIGKILL);
        }
    }
}

/// Closes what was inherited: a pipe that stays open in us has no end for its reader.
///
/// # Safety
/// Nothing that is closed is used afterwards.
unsafe fn close_all_but(kept: RawFd) {
    let kept = kept as u32;
    // SAFETY: close_range(2) takes numbers, and getrlimit(2) a pointer to a local variable.
    unsafe {
        let range = |first: u32, last: u32| {
            first > last || libc::syscall(libc::SYS_close_range, first, last, 0) == 0
        };
        if (kept == 0 || range(0, kept - 1)) && range(kept + 1, u32::MAX) {
            return;
        }
        // Before Linux 5.9.
        let mut limit = mem::zeroed::<libc::rlimit>();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let last = limit.rlim_cur.min(1 << 20) as u32;
        for fd in (0..last).filter(|fd| *fd != kept) {
            libc::close(fd as RawFd);
        }
    }
}

/// A descriptor on its way (unix(7), SCM_RIGHTS).
#[repr(C)]
union Passed {
    header: libc::cmsghdr,
    space: [u8; 64],
}

/// Lays out a message of one word with space for one descriptor, and hands it to the closure.
fn with_message<T>(word: &mut Word, act: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut passed = Passed { space: [0; 64] };
    let mut part = libc::iovec {
        iov_base: word.as_mut_ptr().cast(),
        iov_len: word.len(),
    };
    // SAFETY: an empty message is all zero.
    let mut message = unsafe { mem::zeroed::<libc::msghdr>() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut passed).cast();
    // SAFETY: it computes a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(mem::size_of::<RawFd>() as u32) } as _;
    act(&mut message)
}

/// Sends the service's number and its descriptor; tells whether that went well.
///
/// # Safety
/// `service` is our child and was not reaped.
unsafe fn introduce(service: libc::pid_t, line: RawFd) -> bool {
    // SAFETY: pidfd_open(2) takes two numbers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, service, 0) } as RawFd;
    if pidfd == -1 {
        return false;
    }
    let mut word: Word = service.to_ne_bytes();
    // SAFETY: the message has space for one header with one descriptor, and lives through the call.
    let sent = with_message(&mut word, |message| unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(pidfd);
        libc::sendmsg(line, message, libc::MSG_NOSIGNAL)
    });
    // SAFETY: the descriptor is ours; what was sent is another.
    unsafe { libc::close(pidfd) };
    sent == mem::size_of::<Word>() as isize
}

/// Receives the service's number and its descriptor.
fn receive(line: &UnixStream) -> io::Result<(u32, OwnedFd)> {
    let mut word = Word::default();
    let fd = line.as_raw_fd();
    // SAFETY: the message lives through the calls; a header that is there was written by the kernel,
    // and the descriptor behind it is new and nobody else's.
    let pidfd = with_message(&mut word, |message| unsafe {
        let mut received = libc::recvmsg(fd, message, libc::MSG_CMSG_CLOEXEC);
        while received == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            received = libc::recvmsg(fd, message, libc::MSG_CMSG_CLOEXEC);
        }
        match received {
            -1 => return Err(io::Error::last_os_error()),
            received if received < mem::size_of::<Word>() as isize => return Ok(None),
            _ => {}
        }
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Ok(None);
        }
        let fd = libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned();
        Ok(Some(OwnedFd::from_raw_fd(fd)))
    })?;
    let pidfd = pidfd.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok((u32::from_ne_bytes(word), pidfd))
}
