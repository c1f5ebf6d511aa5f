//! Starts a server as a child process, signals it, and waits for its end.
//!
//! The promise: the child starts with every signal at its default and unblocked (but for those
//! asked for), whatever our own parent did; its end is seen by a pidfd, so that no thread of it is
//! left; and it is killed and reaped when its [`Process`] is dropped, with all that it started if it
//! is [kept whole](Spawn::whole). Never signals any process but its own child and what that started,
//! and never touches a child that is already reaped.

mod keeper;
mod kin;
mod output;
mod refuse;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::listeners::{holds_one_of, listens, on_port};
use crate::pidfd::Pidfd;
use keeper::Keeper;
pub use kin::Descendant;
pub(crate) use kin::members;
use output::Output;
pub use refuse::Refuse;

/// Describes a process to start.
///
/// ```no_run
/// # async fn example() -> Result<(), sundown_verify::process::ProcessError> {
/// use std::time::Duration;
/// use sundown_verify::process::{self, Ended, Spawn};
///
/// let addr = process::free_port().unwrap();
/// let mut server = Spawn::new("my-server").arg("--listen").arg(addr.to_string()).start()?;
/// server.wait_listening(addr, Duration::from_secs(10)).await?;
/// server.signal(libc::SIGTERM)?;
/// let exit = server.wait_exit(Duration::from_secs(30)).await?;
/// assert_eq!(exit.ended, Ended::Code(0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    blocked_signals: Vec<i32>,
    refuse: Refuse,
    streams: Streams,
    extent: Extent,
}

/// Says how much is ended together with the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Alone,
    Group,
    Whole,
}

/// Says where the child's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// Into memory, the last 256 KiB of each stream: see [`Process::stdout`].
    Captured,
    /// Where our own output goes.
    Inherited,
}

impl Spawn {
    /// Describes a program without arguments, its output captured.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            blocked_signals: Vec::new(),
            refuse: Refuse::Nothing,
            streams: Streams::Captured,
            extent: Extent::Alone,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable in the child's environment, beside those it inherits.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts the child with these signals blocked.
    pub fn blocked_signals(mut self, signals: impl IntoIterator<Item = i32>) -> Self {
        self.blocked_signals.extend(signals);
        self
    }

    /// Makes the kernel refuse some socket options to the child.
    pub fn refuse(mut self, refuse: Refuse) -> Self {
        self.refuse = refuse;
        self
    }

    /// Gives the child a process group of its own, and kills what is left of it in the end:
    /// wrappers such as `sh -c` and `npm` have children.
    pub fn own_group(mut self) -> Self {
        self.extent = Extent::Group;
        self
    }

    /// Gives the child a process group of its own and a parent that keeps track of all that it starts,
    /// also of a daemon that has left its group and its session; all is killed in the end, even if we
    /// are killed ourselves. The child's parent, which has no other child, is then not this process.
    pub fn whole(mut self) -> Self {
        self.extent = Extent::Whole;
        self
    }

    /// Says where the output goes.
    pub fn streams(mut self, streams: Streams) -> Self {
        self.streams = streams;
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    /// If the program cannot be started.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(&self) -> Result<Process, ProcessError> {
        let spawn_error = |source| ProcessError::Spawn {
            program: self.program.clone(),
            source,
        };
        let (ours, keepers) = match self.extent {
            Extent::Whole => UnixStream::pair().map(|(ours, keepers)| (Some(ours), Some(keepers))),
            Extent::Alone | Extent::Group => Ok((None, None)),
        }
        .map_err(spawn_error)?;
        let line = keepers.as_ref().map(AsRawFd::as_raw_fd);
        let mut child = self.command(line).spawn().map_err(spawn_error)?;
        drop(keepers);
        let stdout = Output::follow(child.stdout.take());
        let stderr = Output::follow(child.stderr.take());
        // From here on the child is killed and reaped should anything fail.
        let (parent, end) = Parent::of(child, ours, self.extent).map_err(spawn_error)?;
        Ok(Process {
            parent,
            end,
            stdout,
            stderr,
            since: Instant::now(),
            words_until: None,
        })
    }

    /// Makes the command; the descriptor is where a keeper is to report.
    fn command(&self, line: Option<RawFd>) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        if self.extent != Extent::Alone {
            command.process_group(0);
        }
        if self.streams == Streams::Captured {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let blocked = self.blocked_signals.clone();
        let filter = self.refuse.filter();
        // SAFETY: between fork and exec the closure makes system calls only; what it needs was
        // allocated before, and nothing is allocated or locked in it.
        unsafe {
            command.pre_exec(move || {
                reset_signals(&blocked)?;
                if let Some(line) = line {
                    keeper::stand_between(line)?;
                }
                refuse::install(&filter)
            });
        }
        command
    }
}

/// Sets every signal to its default and the mask to `blocked`: both survive exec (signal(7)), and
/// a test runner or `nohup` may have changed them.
fn reset_signals(blocked: &[i32]) -> io::Result<()> {
    // The kernel's own `struct sigaction`, all zero: SIG_DFL, no flags, nothing masked. The C
    // library's call would refuse the two signals it keeps for itself.
    let default = [0_u64; 4];
    const MASK_SIZE: usize = 8;
    // SAFETY: the calls take plain numbers, a pointer to `default`, and pointers to a local set that
    // is initialised by `sigemptyset` before it is read.
    unsafe {
        for signal in 1..=libc::SIGRTMAX() {
            // SIGKILL and SIGSTOP refuse, and need no reset.
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                none,
                MASK_SIZE,
            );
        }
        let mut mask = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut mask);
        for signal in blocked {
            libc::sigaddset(&raw mut mask, *signal);
        }
        match libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Is a running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    parent: Parent,
    end: Pidfd,
    stdout: Output,
    stderr: Output,
    since: Instant,
    /// Until when its last words are waited for, once it has ended.
    words_until: Option<Instant>,
}

/// How long the output of an ended process is waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Says who reaps a process; it is killed and reaped when this is dropped.
#[derive(Debug)]
enum Parent {
    We(Reaped),
    Keeper(Keeper),
}

impl Parent {
    /// Takes over what was started.
    fn of(child: Child, line: Option<UnixStream>, extent: Extent) -> io::Result<(Self, Pidfd)> {
        let Some(line) = line else {
            let group = extent == Extent::Group;
            let reaped = Reaped { child, group };
            let end = Pidfd::open(reaped.child.id())?;
            return Ok((Self::We(reaped), end));
        };
        let (keeper, end) = Keeper::meet(child, line)?;
        Ok((Self::Keeper(keeper), Pidfd::watch(end)?))
    }

    fn id(&self) -> u32 {
        match self {
            Self::We(reaped) => reaped.child.id(),
            Self::Keeper(keeper) => keeper.service(),
        }
    }

    /// Returns how the process ended; waits for that if it has not.
    fn status(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::We(reaped) => reaped.child.wait(),
            Self::Keeper(keeper) => keeper.status(),
        }
    }
}

/// Kills and reaps its child when dropped.
#[derive(Debug)]
struct Reaped {
    child: Child,
    group: bool,
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both do nothing if the child was reaped before, so no stranger with the same PID is hit.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.group {
            for pid in members(self.child.id()) {
                // SAFETY: kill(2) takes no pointers. The group's number stays taken while it has a
                // member, so this one is ours.
                unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
            }
        }
    }
}

/// Says who gets a signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SignalTo {
    /// The process that was started, as supervisors do.
    #[default]
    Leader,
    /// Its whole group, as a terminal does at Ctrl-C.
    Group,
}

/// Says how a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// By a code or by a signal.
    pub ended: Ended,
    /// How long after our last signal, or after the start if we sent none.
    pub after: Duration,
}

/// Says what ended a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "death by signal {signal}"),
        }
    }
}

/// Means that a process did not do what it was waited for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It could not be started.
    #[error("could not start {}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It could not be signalled.
    #[error("could not send signal {signal}")]
    Signal {
        /// The signal.
        signal: i32,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It could not be observed.
    #[error("could not observe the process")]
    Observe(#[source] io::Error),
    /// It ended while it was expected to run.
    #[error("the process ended early ({ended:?}); its last words: {words}")]
    EndedEarly {
        /// How it ended.
        ended: Ended,
        /// The end of what it wrote to its standard error.
        words: String,
    },
    /// It took too long.
    #[error("the process did not {what} within {limit:?}")]
    TooSlow {
        /// What it was waited for.
        what: String,
        /// The limit.
        limit: Duration,
    },
}

impl Process {
    /// Returns the child, while it runs, and what is left of its group, when it has one of its own.
    pub fn group_members(&self) -> Vec<u32> {
        match &self.parent {
            Parent::We(Reaped { group: false, .. }) => Vec::new(),
            _ => members(self.id()),
        }
    }

    /// Returns what the child has started and is there still, directly or not, as far as it is kept
    /// track of: its group, or all of it.
    pub fn descendants(&self) -> Vec<Descendant> {
        let others = self.kept().into_iter().filter(|pid| *pid != self.id());
        others.filter_map(kin::named).collect()
    }

    fn kept(&self) -> Vec<u32> {
        match &self.parent {
            Parent::We(_) => self.group_members(),
            Parent::Keeper(keeper) => keeper.kept(),
        }
    }

    /// Kills the process, and what it has started as far as that is kept track of, as supervisors do.
    /// Tells whether the process was there.
    pub fn kill(&mut self) -> bool {
        let was_there = self.signal(libc::SIGKILL).is_ok();
        match &mut self.parent {
            Parent::Keeper(keeper) => keeper.end(),
            Parent::We(_) => {
                for pid in self.group_members() {
                    // SAFETY: as when dropped.
                    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
                }
            }
        }
        was_there
    }

    /// Returns the process's id.
    pub fn id(&self) -> u32 {
        self.parent.id()
    }

    /// Tells whether the process has ended, with all its threads.
    pub fn has_ended(&self) -> bool {
        self.end.has_ended()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended, or the signal does not exist.
    pub fn signal(&mut self, signal: i32) -> Result<(), ProcessError> {
        let refused = |source| ProcessError::Signal { signal, source };
        if self.has_ended() {
            return Err(refused(io::Error::from_raw_os_error(libc::ESRCH)));
        }
        self.since = Instant::now();
        self.end.signal(signal).map_err(refused)
    }

    /// Sends a signal to whom it is for.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn signal_to(&mut self, to: SignalTo, signal: i32) -> Result<(), ProcessError> {
        let others = match to {
            SignalTo::Leader => Vec::new(),
            SignalTo::Group => self.group_members(),
        };
        self.signal(signal)?;
        for pid in others.into_iter().filter(|pid| *pid != self.id()) {
            // SAFETY: as when dropped. One that has ended since needs no signal.
            unsafe { libc::kill(pid as libc::pid_t, signal) };
        }
        Ok(())
    }

    /// Names a child of this process that listens on the port while this one does not: then this one
    /// is a wrapper, such as a shell.
    pub(crate) fn listening_child(&self, port: u16) -> Option<String> {
        let inodes = on_port(port).ok()?;
        let listens = |pid: &u32| holds_one_of(*pid, &inodes);
        if listens(&self.id()) {
            return None;
        }
        let child = self.kept().into_iter().find(listens)?;
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        Some(name.trim().to_owned())
    }

    /// Waits until something listens on this port, without connecting to it: a connection would be
    /// the first that the server sees.
    ///
    /// # Errors
    /// If the process ends first, or the limit passes.
    pub async fn wait_listening(
        &mut self,
        addr: SocketAddr,
        limit: Duration,
    ) -> Result<(), ProcessError> {
        let deadline = Instant::now() + limit;
        loop {
            if listens(addr).map_err(ProcessError::Observe)? {
                return Ok(());
            }
            self.must_run()?;
            if Instant::now() > deadline {
                return Err(ProcessError::TooSlow {
                    what: format!("listen on {addr}"),
                    limit,
                });
            }
            // The kernel tells nobody that a port began to listen.
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until the process has written this text to its standard output or error.
    ///
    /// # Errors
    /// If the process closes both first, or the limit passes.
    pub async fn wait_output(&mut self, text: &str, limit: Duration) -> Result<(), ProcessError> {
        let found = async {
            tokio::select! {
                true = self.stdout.contains(text) => true,
                true = self.stderr.contains(text) => true,
                else => false,
            }
        };
        match timeout(limit, found).await {
            Ok(true) => Ok(()),
            _ => Err(ProcessError::TooSlow {
                what: format!("write {text:?}"),
                limit,
            }),
        }
    }

    /// Waits until the process has written a whole line with this marker to its standard output or
    /// error, and returns what stands behind the marker: an address, where the marker is `http on `.
    ///
    /// # Errors
    /// If the process closes both first, or the limit passes.
    pub async fn wait_line(
        &mut self,
        marker: &str,
        limit: Duration,
    ) -> Result<String, ProcessError> {
        let found = async {
            tokio::select! {
                Some(rest) = self.stdout.line(marker) => Some(rest),
                Some(rest) = self.stderr.line(marker) => Some(rest),
                else => None,
            }
        };
        match timeout(limit, found).await {
            Ok(Some(rest)) => Ok(rest),
            _ => Err(ProcessError::TooSlow {
                what: format!("write a line with {marker:?}"),
                limit,
            }),
        }
    }

    /// Waits until the process has ended, with all its threads.
    ///
    /// # Errors
    /// If the limit passes; the process then runs on.
    ///
    /// # Cancel safety
    /// Safe: call it again.
    pub async fn wait_exit(&mut self, limit: Duration) -> Result<Exit, ProcessError> {
        let too_slow = |_| ProcessError::TooSlow {
            what: "exit".into(),
            limit,
        };
        let ended = timeout(limit, self.end.ended()).await.map_err(too_slow)?;
        ended.map_err(ProcessError::Observe)?;
        let after = self.since.elapsed();
        let status = self.parent.status().map_err(ProcessError::Observe)?;
        // A grandchild may hold the pipes open for as long as it likes.
        let until = *self
            .words_until
            .get_or_insert_with(|| Instant::now() + LAST_WORDS);
        let rest = async { tokio::join!(self.stdout.closed(), self.stderr.closed()) };
        let _ = timeout_at(until, rest).await;
        Ok(Exit {
            ended: Ended::of(status),
            after,
        })
    }

    /// Returns the end of what the process wrote to its standard output.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Returns the end of what the process wrote to its standard error.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    fn must_run(&mut self) -> Result<(), ProcessError> {
        match self.has_ended() {
            false => Ok(()),
            true => Err(self.ended_early()?),
        }
    }

    /// Means that it has ended while it was expected to run.
    pub(crate) fn ended_early(&mut self) -> Result<ProcessError, ProcessError> {
        let status = self.parent.status().map_err(ProcessError::Observe)?;
        Ok(ProcessError::EndedEarly {
            ended: Ended::of(status),
            words: self.stderr(),
        })
    }
}

impl Ended {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Code(code),
            (None, Some(signal)) => Ended::Signal(signal),
            (None, None) => unreachable!("wait returns only processes that exited or were killed"),
        }
    }
}

/// Returns a loopback address whose port is free now; another process may take it meanwhile. The
/// last [`LENT`] calls of this process returned others.
///
/// # Errors
/// If there is no free port.
pub fn free_port() -> io::Result<SocketAddr> {
    static LAST: Mutex<VecDeque<u16>> = Mutex::new(VecDeque::new());
    loop {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.contains(&address.port()) {
            last.push_back(address.port());
            let surplus = last.len().saturating_sub(LENT);
            last.drain(..surplus);
            return Ok(address);
        }
    }
}

/// How many ports are remembered as taken by services that are only just starting.
pub const LENT: usize = 256;
