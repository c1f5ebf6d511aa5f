//! The keeper: the tiny process between the guard and what it guards.
//!
//! It is the parent of the command and of whatever that leaves behind, hears of sockets that begin to listen,
//! and outlives the guard: a `listen` never waits for somebody who is gone. One thread, nothing but waiting.

mod intercept;
mod privileges;
mod rings;
mod swap;

use std::ffi::{CString, OsString};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use self::intercept::{Calls, Outcome, Waiting};
use crate::letters::{self, Hearing, Order, To, Word};
use crate::sys::Blocked;
use crate::{OnGuardDeath, filter, kin, sys};

/// How long what is told to stop since the guard is gone may take.
const AFTER_THE_GUARD: Duration = Duration::from_secs(10);

/// Runs a keeper over a socket that this process was started with, until everything that it keeps is gone.
///
/// The process must have no other thread.
pub fn keep(
    socket: RawFd,
    on_guard_death: OnGuardDeath,
    stop_signal: i32,
    command: Vec<OsString>,
) -> ExitCode {
    let guard = sys::own_passed_fd(socket);
    let kept = Keeper::start(guard, on_guard_death, stop_signal, command).and_then(Keeper::keep);
    match kept {
        Ok(()) => ExitCode::SUCCESS,
        // There is nobody whom it could tell but by its end.
        Err(_) => ExitCode::FAILURE,
    }
}

struct Keeper {
    guard: Option<OwnedFd>,
    children: OwnedFd,
    /// Calls that wait, where they can be heard.
    calls: Option<Calls>,
    /// A call that waits for a socket of the guard's.
    waits: Option<Waiting>,
    /// Why a call could not be looked at, the last time.
    problem: Option<String>,
    /// The process that the command became, or the daemon that it has left, until it is reaped.
    leader: Option<i32>,
    /// Whether that has ended, and with 0.
    ended_in_order: bool,
    on_guard_death: OnGuardDeath,
    stop_signal: i32,
    /// Whether nothing is to be left once the guard is gone.
    stops: bool,
    /// When what is left is killed.
    until: Option<Instant>,
}

impl Keeper {
    fn start(
        guard: OwnedFd,
        on_guard_death: OnGuardDeath,
        stop_signal: i32,
        command: Vec<OsString>,
    ) -> io::Result<Self> {
        // What stops a service is for the guard to hear, should it be sent to every process.
        let blocked = sys::block_signals();
        rustix::io::fcntl_setfd(&guard, rustix::io::FdFlags::CLOEXEC)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let StartWith {
            shared,
            hearing,
            inherited,
            passed,
        } = what_to_start_with(&guard)?;
        let (guard, passed) = put_in_place(guard, passed)?;
        let mut keeper = Self {
            guard: Some(guard),
            children: sys::children_that_end()?,
            calls: None,
            waits: None,
            problem: None,
            leader: None,
            ended_in_order: false,
            on_guard_death,
            stop_signal,
            stops: false,
            until: None,
        };
        let program = command.first().cloned().unwrap_or_default();
        match launch(command, hearing, passed, blocked) {
            Ok(Launched {
                pid,
                calls,
                unheard,
            }) => {
                keeper.leader = Some(pid);
                keeper.calls = calls.map(|calls| Calls::new(calls, shared, inherited));
                keeper.tell(&Word::Started { pid, unheard }, None);
                let replaced = keeper.calls.as_ref().and_then(|_| swap::is_needed(pid));
                for text in replaced.into_iter().chain(privileges::lost(&program, pid)) {
                    keeper.tell(&Word::Note { text }, None);
                }
            }
            Err(NotLaunched::Unheard(why)) => keeper.tell(&Word::Unheard { why }, None),
            Err(NotLaunched::System(error)) => {
                let error = error.raw_os_error().unwrap_or(libc::EIO);
                keeper.tell(&Word::Failed { error }, None);
            }
        }
        Ok(keeper)
    }

    fn keep(mut self) -> io::Result<()> {
        while self.reap()? {
            let [guard, calls] = self.wait()?;
            if let Some(text) = self.calls.as_mut().and_then(Calls::tick) {
                self.tell(&Word::Note { text }, None);
            }
            if calls {
                self.hear();
            }
            if guard {
                self.obey()?;
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                self.signal(libc::SIGKILL, To::All);
            }
        }
        Ok(())
    }

    /// Waits for the guard, a call or the end of a child; says which of the first two it is.
    fn wait(&self) -> io::Result<[bool; 2]> {
        let mut waited = vec![PollFd::new(&self.children, PollFlags::IN)];
        // While one call waits for the guard the next ones wait too.
        let calls = self.calls.as_ref().filter(|_| self.waits.is_none());
        let calls = calls.map(Calls::descriptor);
        let others = [self.guard.as_ref(), calls].map(|descriptor| {
            waited.push(PollFd::new(descriptor?, PollFlags::IN));
            Some(waited.len() - 1)
        });
        let limit = self.until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            // Whoever was born meanwhile is killed a moment later.
            left.max(Duration::from_millis(10))
        });
        let limit = limit
            .into_iter()
            .chain(self.calls.as_ref().and_then(Calls::wait))
            .min();
        let limit = limit.map(|limit| Timespec::try_from(limit).expect("it is short"));
        match poll(&mut waited, limit.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok([false; 2]),
            Err(error) => return Err(error.into()),
        }
        let ready = |at: Option<usize>| at.is_some_and(|at| !waited[at].revents().is_empty());
        Ok(others.map(ready))
    }

    /// Reaps who has ended; false once nobody is left.
    fn reap(&mut self) -> io::Result<bool> {
        // What it says is that somebody ended; who it was is asked below.
        let _ = rustix::io::read(&self.children, &mut [0; 128]);
        loop {
            match sys::reap() {
                Ok(Some((pid, status))) => {
                    if self.leader == Some(pid) {
                        self.leader = None;
                        self.ended_in_order = status == 0;
                        self.tell(&Word::Ended { status }, None);
                    }
                }
                Ok(None) => {
                    self.follow_a_daemon();
                    return Ok(true);
                }
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Where the command has ended in order and left one process, as daemons do, that one is the service.
    fn follow_a_daemon(&mut self) {
        if self.leader.is_some() || !self.ended_in_order {
            return;
        }
        let own = rustix::process::getpid().as_raw_nonzero().get();
        if let [pid] = kin::children(own)[..] {
            self.leader = Some(pid);
            self.tell(&Word::Leads { pid }, None);
        }
    }

    fn hear(&mut self) {
        let Some(calls) = &mut self.calls else { return };
        match calls.next() {
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Listens {
                socket,
                inode,
                named,
            }) => {
                self.tell(&Word::Listens { inode, named }, Some(socket.as_fd()));
            }
            Ok(Outcome::Closed { inode, waiting }) => {
                let wanted = waiting.wanted;
                self.waits = Some(waiting);
                self.tell(&Word::Closed { inode, wanted }, None);
                if self.guard.is_none() {
                    self.go_on(None);
                }
            }
            Ok(Outcome::Note(text)) => self.tell(&Word::Note { text }, None),
            // The caller was killed meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => {
                let text = format!("a listener could not be looked at: {error}");
                // What is denied once is denied at every call.
                if self.problem.as_ref() != Some(&text) {
                    self.tell(&Word::Note { text: text.clone() }, None);
                    self.problem = Some(text);
                }
            }
        }
    }

    /// Lets the call that waits for the guard go on.
    fn go_on(&mut self, socket: Option<OwnedFd>) {
        if let (Some(calls), Some(waiting)) = (&mut self.calls, self.waits.take()) {
            calls.go_on(&waiting, socket);
        }
    }

    fn obey(&mut self) -> io::Result<()> {
        let Some(guard) = &self.guard else {
            return Ok(());
        };
        match letters::receive(guard) {
            Ok(Some((Order::Signal { signal, to }, _))) => {
                self.signal(signal, to);
                if (signal, to) == (libc::SIGKILL, To::All) {
                    // Whoever is born meanwhile is no exception.
                    self.until = Some(Instant::now());
                }
            }
            Ok(Some((Order::Outlives(setting), _))) => self.on_guard_death = setting,
            Ok(Some((Order::Stops, _))) => self.stops = true,
            Ok(Some((Order::Closed, socket))) => self.go_on(socket),
            Ok(Some((Order::Start { .. } | Order::Inherit { .. } | Order::Pass, _))) => {}
            Ok(None) | Err(_) => {
                self.guard = None;
                self.go_on(None);
                if self.stops {
                    self.until = Some(Instant::now());
                } else if self.on_guard_death == OnGuardDeath::Stop {
                    self.signal(self.stop_signal, To::Leader);
                    self.until = Some(Instant::now() + AFTER_THE_GUARD);
                }
                // Nothing stays stopped.
                self.signal(libc::SIGCONT, To::All);
            }
        }
        Ok(())
    }

    /// Sends a signal to those who descend from this process at the moment at which they are sent it.
    fn signal(&self, signal: i32, to: To) {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let pids = match (to, self.leader) {
            (To::Leader, Some(leader)) => vec![leader],
            (To::Leader, None) => kin::children(own),
            (To::All, _) => kin::descendants(own),
        };
        for pid in pids {
            if self.leader == Some(pid) {
                // A child that is not reaped keeps its number; it needs no /proc, which may be another namespace's.
                let _ = sys::signal_number(pid, signal);
                continue;
            }
            let Some(process) = Pid::from_raw(pid) else {
                continue;
            };
            // Its number may be a stranger's by now: who is opened is looked at once more.
            let opened = pidfd_open(process, PidfdFlags::empty());
            if !kin::descends_from(pid, own) {
                continue;
            }
            let sent = opened.map_err(io::Error::from);
            let sent = sent.and_then(|process| sys::signal(process.as_fd(), signal));
            // Some sandboxes know no such descriptors.
            if sent.is_err_and(|error| error.raw_os_error() != Some(libc::ESRCH)) {
                let _ = sys::signal_number(pid, signal);
            }
        }
    }

    /// Tells the guard, if there is one.
    fn tell(&self, word: &Word, descriptor: Option<BorrowedFd<'_>>) {
        if let Some(guard) = &self.guard {
            let _ = letters::send(guard, word, descriptor);
        }
    }
}

struct StartWith {
    /// The addresses that are shared with the generation before.
    shared: Vec<SocketAddr>,
    hearing: Hearing,
    /// The listeners that are to be used again.
    inherited: Vec<(SocketAddr, OwnedFd)>,
    passed: Vec<OwnedFd>,
}

fn what_to_start_with(guard: &OwnedFd) -> io::Result<StartWith> {
    let (mut inherited, mut passed) = (Vec::new(), Vec::new());
    loop {
        match letters::receive(guard)? {
            Some((Order::Inherit { address }, Some(socket))) => inherited.push((address, socket)),
            Some((Order::Pass, Some(socket))) => passed.push(socket),
            Some((Order::Start { shared, hearing }, _)) => {
                return Ok(StartWith {
                    shared,
                    hearing,
                    inherited,
                    passed,
                });
            }
            Some(_) => {}
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The number of the first socket that is passed (sd_listen_fds(3)).
const FIRST_PASSED: RawFd = 3;

/// Puts what is passed where the command will look for it. Now, so that nothing of ours comes to be there.
fn put_in_place(guard: OwnedFd, passed: Vec<OwnedFd>) -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
    if passed.is_empty() {
        return Ok((guard, passed));
    }
    let behind = FIRST_PASSED + passed.len() as RawFd;
    let guard = rustix::io::fcntl_dupfd_cloexec(&guard, behind)?;
    let moved: rustix::io::Result<Vec<OwnedFd>> = passed
        .iter()
        .map(|socket| rustix::io::fcntl_dupfd_cloexec(socket, behind))
        .collect();
    drop(passed);
    let place = |(number, socket): (RawFd, &OwnedFd)| sys::duplicate_to(socket.as_fd(), number);
    let placed: io::Result<Vec<_>> = (FIRST_PASSED..).zip(&moved?).map(place).collect();
    Ok((guard, placed?))
}

struct Launched {
    pid: i32,
    calls: Option<OwnedFd>,
    unheard: Option<String>,
}

enum NotLaunched {
    /// Its calls were to be heard, and cannot be.
    Unheard(String),
    System(io::Error),
}

impl From<io::Error> for NotLaunched {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Starts the command in a process group of its own, with these signals blocked, under the filter where that is
/// wished and can be.
fn launch(
    command: Vec<OsString>,
    hearing: Hearing,
    passed: Vec<OwnedFd>,
    blocked: Blocked,
) -> Result<Launched, NotLaunched> {
    let mut words = command.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).process_group(0);
    let (ours, theirs) = letters::pair()?;
    let filter = filter::calls(swap::may_be_needed());
    sys::prepare(&mut command, move || {
        sys::block_only(&blocked);
        for socket in &passed {
            rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty())?;
        }
        if !passed.is_empty() {
            let own = CString::new(std::process::id().to_string())?;
            sys::set_variable(c"LISTEN_PID", &own)?;
        }
        if hearing == Hearing::No {
            return Ok(());
        }
        match hear_calls(&filter) {
            Ok(calls) => letters::send(&theirs, &0, Some(calls.as_fd())),
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(libc::EIO);
                letters::send(&theirs, &number, None)?;
                match hearing {
                    Hearing::Needed => Err(error),
                    Hearing::Wished | Hearing::No => Ok(()),
                }
            }
        }
    });
    let spawned = command.spawn();
    // Its copy of the other end would keep the conversation open.
    drop(command);
    let (calls, unheard) = match letters::receive::<i32>(&ours)? {
        Some((error, None)) => (None, Some(unheard(error))),
        Some((_, calls)) => (calls, None),
        None => (None, None),
    };
    match (spawned, unheard) {
        (Err(_), Some(why)) if hearing == Hearing::Needed => Err(NotLaunched::Unheard(why)),
        (spawned, unheard) => Ok(Launched {
            pid: i32::try_from(spawned?.id()).expect("a PID is positive"),
            calls,
            unheard,
        }),
    }
}

/// Why calls cannot be heard.
fn unheard(error: i32) -> String {
    match error {
        libc::EBUSY => "another supervisor hears its system calls already".to_owned(),
        other => format!("seccomp(2) says: {}", io::Error::from_raw_os_error(other)),
    }
}

/// Without CAP_SYS_ADMIN a filter is let in only where nothing can gain privileges.
fn hear_calls(filter: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    match sys::install_filter(filter) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            rustix::thread::set_no_new_privs(true)?;
            sys::install_filter(filter)
        }
        other => other,
    }
}

/// How a process ended, as a shell would say it.
pub(crate) fn exit_code(status: i32) -> u8 {
    let status = ExitStatus::from_raw(status);
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}
