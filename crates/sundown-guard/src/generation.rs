//! One run of the command: its keeper, the sockets that it listens on, and what is heard of it.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::letters::{self, Hearing, Order, To, Word};
use crate::listeners::Listener;
use crate::notices::{Notices, Said};
use crate::output::Relays;
use crate::{Guard, Mode, OnGuardDeath, Output, Ready, environment, kin, sys};

/// A command that was started, seen from the guard.
pub(crate) struct Generation {
    number: u32,
    running: Option<Running>,
    listeners: Vec<Listener>,
    /// The inodes of those on which it listens: not those that are kept for it.
    heard: HashSet<u64>,
    /// Of those, the ones whose ports the system chose: no other generation has them.
    passing: HashSet<u64>,
    /// Its listeners cannot be heard of.
    unheard: bool,
    /// The process that the command became, or the daemon that it has left.
    leader: Option<Leader>,
    /// The status with which the process that the command became has ended.
    ended: Option<i32>,
    /// What it says of itself.
    says: Option<String>,
    /// The inodes of listeners at which somebody waited when that was last looked at.
    waited_at: HashSet<u64>,
}

struct Leader {
    pid: i32,
    /// The same process, whoever has its number later; there is none where that is not known any more.
    process: Option<OwnedFd>,
}

struct Running {
    keeper: Child,
    letters: AsyncFd<OwnedFd>,
    relays: Relays,
    /// What it says of itself, where that is asked for.
    notices: Option<Notices>,
}

/// What a generation starts with.
#[derive(Default)]
pub(crate) struct Start {
    /// Addresses on which the one before goes on listening.
    pub(crate) shared: Vec<SocketAddr>,
    /// Listeners that are its from the start. It gets them when it binds their addresses, or, in
    /// [`Mode::ListenFds`], passed.
    pub(crate) listeners: Vec<Listener>,
}

/// What is heard of a generation.
#[derive(Debug)]
pub(crate) enum News {
    /// The command runs; if its listeners cannot be heard of, why.
    Started { pid: i32, unheard: Option<String> },
    /// It could not be started.
    Failed(io::Error),
    /// It was not started, since its listeners cannot be heard of; why.
    Unheard(String),
    /// It listens here, by this socket.
    Listens(SocketAddr, u64),
    /// It had closed this socket, listens on its address again, and goes on without it once our duplicate is
    /// [dropped](Generation::drop_listener).
    Closed(u64),
    /// Something to tell.
    Note(String),
    /// It has said something of itself (sd_notify(3)).
    Said(Said),
    /// The process that the command became has ended, with this status (waitpid(2)).
    Ended(i32),
    /// That has left this process, a daemon, which takes its place.
    Leads(i32),
    /// No process of it is left.
    Gone,
}

impl Generation {
    /// Starts a keeper, which starts the command.
    ///
    /// # Errors
    /// Also for an environment file that cannot be read, with the reason.
    pub(crate) fn start(guard: &Guard, number: u32, start: Start) -> io::Result<Self> {
        let Start { shared, listeners } = start;
        let (ours, theirs) = letters::pair()?;
        let mut words = guard.keeper.iter();
        let mut keeper = Command::new(words.next().ok_or(io::ErrorKind::InvalidInput)?);
        keeper
            .args(words)
            .arg(theirs.as_raw_fd().to_string())
            .arg(guard.on_guard_death.name())
            .arg(guard.stop_signal.to_string())
            .args(&guard.command)
            // What a terminal sends is for the guard, and what systemd wants to hear is the guard's to say.
            .process_group(0)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        let notices = match guard.ready {
            Ready::Notify => Some(Notices::open(&guard.name, number)?),
            _ => None,
        };
        if let Some(notices) = &notices {
            keeper.env("NOTIFY_SOCKET", notices.path());
        }
        if let Mode::ListenFds(passed) = &guard.mode {
            let names: Vec<_> = passed.iter().map(|passed| &*passed.name).collect();
            keeper.env("LISTEN_FDS", passed.len().to_string());
            keeper.env("LISTEN_FDNAMES", names.join(":"));
        }
        if let Some(folder) = &guard.surroundings.folder {
            let told = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", folder.display()))
            };
            std::fs::metadata(folder.join(".")).map_err(told)?;
            keeper.current_dir(folder);
        }
        if let Some(file) = &guard.surroundings.env_file {
            keeper.envs(environment::read(file)?);
        }
        if guard.output == Output::Json {
            keeper.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        sys::inherit(&mut keeper, theirs);
        let spawned = keeper.spawn();
        // Its copy of the other end would keep the conversation open.
        drop(keeper);
        let mut keeper = spawned?;
        let relays = Relays::start(guard, number, &mut keeper);
        let passes = matches!(guard.mode, Mode::ListenFds(_));
        for Listener {
            address, socket, ..
        } in &listeners
        {
            let order = match passes {
                true => Order::Pass,
                false => Order::Inherit { address: *address },
            };
            letters::send(&ours, &order, Some(socket.as_fd()))?;
        }
        let order = Order::Start {
            shared,
            hearing: match guard.mode {
                Mode::Auto => Hearing::Wished,
                Mode::Kernel => Hearing::Needed,
                Mode::ListenFds(_) => Hearing::No,
            },
        };
        letters::send(&ours, &order, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Self {
            number,
            running: Some(Running {
                keeper,
                letters: sys::watch(ours)?,
                relays,
                notices,
            }),
            heard: match passes {
                true => listeners.iter().map(|own| own.inode).collect(),
                false => HashSet::new(),
            },
            passing: HashSet::new(),
            unheard: false,
            listeners,
            leader: None,
            ended: None,
            says: None,
            waited_at: HashSet::new(),
        })
    }

    /// One that is yet to be started: until then it has listeners that nobody serves.
    pub(crate) fn vacant(number: u32, listeners: Vec<Listener>) -> Self {
        Self {
            number,
            running: None,
            listeners,
            heard: HashSet::new(),
            passing: HashSet::new(),
            unheard: false,
            leader: None,
            ended: None,
            says: None,
            waited_at: HashSet::new(),
        }
    }

    /// Whether it is yet to be started.
    pub(crate) fn is_vacant(&self) -> bool {
        self.running.is_none()
    }

    /// The next that is heard of it; after [`News::Gone`] nothing is.
    ///
    /// # Cancel safety
    /// Safe: news are taken whole, in one step.
    pub(crate) async fn news(&mut self) -> News {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let letter = running.letters.async_io(Interest::READABLE, |socket| {
            letters::receive::<Word>(socket)
        });
        let received = tokio::select! {
            received = letter => received,
            said = said_by(running.notices.as_ref(), &running.keeper) => return News::Said(said),
        };
        match received {
            Ok(Some((Word::Started { pid, unheard }, _))) => {
                self.leader = Some(Leader::of(pid, &running.keeper));
                self.unheard = unheard.is_some();
                News::Started { pid, unheard }
            }
            Ok(Some((Word::Failed { error }, _))) => {
                News::Failed(io::Error::from_raw_os_error(error))
            }
            Ok(Some((Word::Unheard { why }, _))) => News::Unheard(why),
            Ok(Some((Word::Listens { inode, named }, Some(socket)))) => {
                self.listens(inode, socket, named)
            }
            Ok(Some((Word::Listens { .. }, None))) => News::Note(
                "a listener is not known: this process may open no more files".to_owned(),
            ),
            Ok(Some((Word::Closed { inode, wanted }, _))) => self.closed(inode, wanted),
            Ok(Some((Word::Note { text }, _))) => News::Note(text),
            Ok(Some((Word::Ended { status }, _))) => {
                self.ended = Some(status);
                self.leader = None;
                News::Ended(status)
            }
            Ok(Some((Word::Leads { pid }, _))) => {
                self.leader = Some(Leader::of(pid, &running.keeper));
                News::Leads(pid)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                News::Note(format!("what its keeper says cannot be read: {error}"))
            }
            Ok(None) | Err(_) => {
                let keeper = running.keeper.wait();
                let killed = keeper.is_ok_and(|status| status.signal().is_some());
                let leader = self.leader.take();
                if killed && let Some(leader) = leader.and_then(|leader| Pid::from_raw(leader.pid))
                {
                    // Nobody looks after what it has left.
                    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
                }
                running.relays.last_words().await;
                News::Gone
            }
        }
    }

    fn listens(&mut self, inode: u64, socket: OwnedFd, named: bool) -> News {
        let Ok(listener) = Listener::of(socket) else {
            return News::Note("a listener has no address".to_owned());
        };
        let address = listener.address;
        self.heard.insert(inode);
        if !named {
            self.passing.insert(inode);
        }
        // A second `listen` changes the backlog of the first.
        if self.listeners.iter().all(|known| known.inode != inode) {
            self.listeners.push(listener);
        }
        News::Listens(address, inode)
    }

    /// Gives it back a socket that it had closed, with whoever waits there, if it can have it.
    fn closed(&self, inode: u64, wanted: bool) -> News {
        let own = self.listeners.iter().find(|own| own.inode == inode);
        match own.filter(|_| wanted) {
            Some(own) => {
                let socket = own.socket.as_fd();
                self.tell(&Order::Closed, Some(socket));
                News::Note(format!(
                    "{} is opened again: its queue was kept",
                    own.address
                ))
            }
            None => News::Closed(inode),
        }
    }

    /// Closes our duplicate of a socket that the application has closed.
    pub(crate) fn drop_listener(&mut self, inode: u64) {
        self.listeners.retain(|listener| listener.inode != inode);
        self.tell(&Order::Closed, None);
    }

    /// Closes our duplicates of listeners that the application has closed for good: somebody has waited there since
    /// the look before, and no process has them. Where none is left at all, the next one will have them.
    pub(crate) fn drop_forsaken(&mut self) -> Vec<Listener> {
        let waited_at = |own: &&Listener| !matches!(sys::accept_queue(own.socket.as_fd()), Ok(0));
        let waited_at = self.listeners.iter().filter(waited_at);
        let waited_at: HashSet<u64> = waited_at.map(|own| own.inode).collect();
        let before = std::mem::replace(&mut self.waited_at, waited_at);
        let again = self.waited_at.intersection(&before);
        let again: HashSet<u64> = again
            .filter(|inode| self.heard.contains(inode))
            .copied()
            .collect();
        if again.is_empty() || !self.has_processes() {
            return Vec::new();
        }
        let Some(open) = self.keeper().and_then(kin::open_sockets) else {
            return Vec::new();
        };
        let is_forsaken =
            |own: &mut Listener| again.contains(&own.inode) && !open.contains(&own.inode);
        self.listeners.extract_if(.., is_forsaken).collect()
    }

    /// Whether somebody was in a queue of it at the last look.
    pub(crate) fn is_waited_at(&self) -> bool {
        !self.waited_at.is_empty()
    }

    /// Whether it has had this listener, which it then can have closed; others are kept for it.
    pub(crate) fn may_be_closed(&self, own: &Listener) -> bool {
        self.heard.contains(&own.inode)
    }

    /// Whether it listens or has listened, or takes the place of one that did.
    pub(crate) fn has_listened(&self) -> bool {
        !self.listeners.is_empty() || !self.heard.is_empty()
    }

    /// Closes our duplicates of listeners that the application itself has made deaf, as it does to stop: nobody
    /// could use them again. Returns their inodes.
    pub(crate) fn drop_deaf(&mut self) -> Vec<u64> {
        let is_deaf = |listener: &mut Listener| sys::is_deaf(listener.socket.as_fd());
        let deaf = self.listeners.extract_if(.., is_deaf);
        deaf.map(|listener| listener.inode).collect()
    }

    /// Gives away its listeners, for those that come after it.
    pub(crate) fn take_listeners(&mut self) -> Vec<Listener> {
        std::mem::take(&mut self.listeners)
    }

    /// Whether nobody waits to be accepted.
    pub(crate) fn queues_are_empty(&self) -> bool {
        let queues = self.listeners.iter().map(|own| own.socket.as_fd());
        queues
            .map(sys::accept_queue)
            .all(|queued| matches!(queued, Ok(0)))
    }

    /// The first is number 1.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The process that the command became, while it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.leader.as_ref().map(|leader| leader.pid)
    }

    /// Whether any process of it is left.
    pub(crate) fn has_processes(&self) -> bool {
        let keeper = self.keeper();
        keeper.is_some_and(|keeper| !kin::descendants(keeper).is_empty())
    }

    /// The process whose descendants are its.
    pub(crate) fn keeper(&self) -> Option<i32> {
        self.running.as_ref().map(|running| pid_of(&running.keeper))
    }

    /// Whether it runs and its listeners cannot be heard of.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// Whether it listens on all of these.
    pub(crate) fn listens_on(&self, addresses: &[SocketAddr]) -> bool {
        let is_heard = |own: &&Listener| self.heard.contains(&own.inode);
        let heard: HashSet<_> = self
            .listeners
            .iter()
            .filter(is_heard)
            .map(|own| own.address)
            .collect();
        addresses.iter().all(|address| heard.contains(address))
    }

    /// Where those that come after it are to listen, each address once: not where the system chose a port.
    pub(crate) fn lasting_addresses(&self) -> Vec<SocketAddr> {
        let lasting = self.lasting().map(|own| own.address);
        let mut addresses: Vec<_> = lasting.collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The listeners there.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = &Listener> {
        let lasts = |own: &&Listener| !self.passing.contains(&own.inode);
        self.listeners.iter().filter(lasts)
    }

    /// Where it listens, each address once.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.listeners.iter().map(|own| own.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// What it has last said of itself.
    pub(crate) fn says(&self) -> Option<&str> {
        self.says.as_deref()
    }

    /// Remembers what it has said of itself.
    pub(crate) fn has_said(&mut self, status: String) {
        self.says = Some(status);
    }

    /// Sends a signal; whoever is gone does not hear it.
    pub(crate) fn signal(&self, signal: i32, to: To) {
        // Without the way by its keeper: the less time between the look that finds it at rest and this, the better.
        let process = self.leader.as_ref().filter(|_| to == To::Leader);
        let process = process.and_then(|leader| leader.process.as_ref());
        let sent = process.is_some_and(|process| sys::signal(process.as_fd(), signal).is_ok());
        if !sent {
            self.tell(&Order::Signal { signal, to }, None);
        }
    }

    /// Says what becomes of it from now on if this process is killed.
    pub(crate) fn outlives(&self, setting: OnGuardDeath) {
        self.tell(&Order::Outlives(setting), None);
    }

    /// Lets nothing of it outlive this process, even if that is killed now.
    pub(crate) fn ends_with_us(&self) {
        self.tell(&Order::Stops, None);
    }

    /// A way to send it signals when it is somebody else's.
    pub(crate) fn line(&self) -> Option<Line> {
        let letters = self.running.as_ref()?.letters.get_ref();
        Some(Line(letters.try_clone().ok()?))
    }

    fn tell(&self, order: &Order, beside: Option<BorrowedFd<'_>>) {
        if let Some(running) = &self.running {
            let _ = letters::send(running.letters.get_ref(), order, beside);
        }
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The status of the process that the command became, once it has ended.
    pub(crate) fn status(&self) -> Option<i32> {
        self.ended
    }
}

/// A line to a generation's keeper.
pub(crate) struct Line(OwnedFd);

impl Line {
    /// Sends a signal; whoever is gone does not hear it.
    pub(crate) fn signal(&self, signal: i32, to: To) {
        let _ = letters::send(&self.0, &Order::Signal { signal, to }, None);
    }
}

impl Drop for Generation {
    /// Without its guard a keeper does as it was told to; where nobody is left, it is gone.
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.keeper.try_wait();
        }
    }
}

impl Leader {
    fn of(pid: i32, keeper: &Child) -> Self {
        let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // Its number may have been a stranger's when it was opened.
        let process = process.filter(|_| kin::descends_from(pid, pid_of(keeper)));
        Self { pid, process }
    }
}

fn pid_of(keeper: &Child) -> i32 {
    i32::try_from(keeper.id()).expect("a PID is positive")
}

async fn said_by(notices: Option<&Notices>, keeper: &Child) -> Said {
    match notices {
        Some(notices) => notices.next(pid_of(keeper)).await,
        None => std::future::pending().await,
    }
}
