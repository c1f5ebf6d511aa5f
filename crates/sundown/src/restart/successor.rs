//! The side of the process that is followed by another: starts it, and lets it have what it can take.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::panic::Location;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tokio::sync::mpsc;

use super::letters::{Letters, MOST_BYTES, MOST_DESCRIPTORS};
use super::passage::{Passage, Traveller};
use super::{GivenListener, Letter, VARIABLE};
use crate::core::Core;
use crate::lifecycle::{Event, Phase, Reason};
use crate::open::Tracked;
use crate::report::Work;
use crate::systemd::Said;
use crate::{stderr, sys};

/// How many connections may be on their way at a time: each holds a descriptor in the kernel.
const ON_THE_WAY: usize = 64;

/// How long a successor that has closed its end may take to end, and one that is told to.
const OF_ITSELF: Duration = Duration::from_millis(100);
const BY_SIGTERM: Duration = Duration::from_secs(1);

/// How often it is looked at meanwhile.
const STEP: Duration = Duration::from_millis(5);

/// Restarts the service whenever that is asked for, until a successor has taken over.
pub(crate) async fn watch(core: Arc<Core>, within: Duration) {
    let mut asked = core.link.restarts.subscribe();
    if *asked.borrow() > 0 {
        // While this process started.
        asked.mark_changed();
    }
    while asked.changed().await.is_ok() {
        core.reached(Phase::Ready).await;
        if core.phase() != Phase::Ready {
            return say(&core, "no restart: the service stops");
        }
        if std::process::id() == 1 {
            say(
                &core,
                "no restart as PID 1, whose end is its container's: start another container",
            );
            continue;
        }
        // A stop waits until a successor that is of no use is gone.
        let place = Location::caller();
        let Some(tracked) = Tracked::begin(&core, Work::Task, "restart", place) else {
            return;
        };
        core.manager.tell(Said::Reloading);
        match succeed(&core, within).await {
            Ok(successor) => {
                drop(tracked);
                return successor.take_over(&core).await;
            }
            Err(_) if core.phase() != Phase::Ready => {
                return say(&core, "the restart is given up: the service stops");
            }
            Err(problem) => {
                say(
                    &core,
                    &format!("restart failed: {problem}; this process serves on"),
                );
                // Whoever asked meanwhile was answered by that.
                asked.mark_unchanged();
                core.manager.tell(Said::Ready {
                    status: format!("ready; the last restart failed: {problem}"),
                });
            }
        }
    }
}

fn say(core: &Core, text: &str) {
    stderr::lines(&format!("{}: {text}", core.name));
    tracing::info!(target: "sundown", service = %core.name, "{text}");
}

/// A process that has everything it wants, and may accept.
struct Successor {
    pid: u32,
    letters: Letters,
    wanted: Vec<Arc<Passage>>,
}

/// Starts a successor and waits until it is ready.
async fn succeed(core: &Arc<Core>, within: Duration) -> Result<Successor, String> {
    let (letters, others) = Letters::pair().map_err(|error| error.to_string())?;
    let mut process = Process::start(others).await?;
    let pid = process.child.id();
    say(
        core,
        &format!("restart: PID {pid} is started; this process serves on until it is ready"),
    );
    let ready = tokio::select! {
        ready = agree(core, &letters) => ready,
        () = tokio::time::sleep(within) => {
            let within = humantime::format_duration(within);
            Err(format!("it was not ready within {within}"))
        }
        () = core.reached(Phase::LameDuck) => Err("the service stops".to_owned()),
    };
    match ready {
        Ok(wanted) => Ok(Successor {
            pid: process.child.id(),
            letters,
            wanted,
        }),
        Err(problem) => Err(process.end(problem).await),
    }
}

/// Gives it the listeners, and leave to accept once it is ready; returns those that it wants.
async fn agree(core: &Core, letters: &Letters) -> Result<Vec<Arc<Passage>>, String> {
    let lost = |error: io::Error| format!("it could not be spoken to: {error}");
    let passages = core.succession.listeners();
    if passages.len() > MOST_DESCRIPTORS {
        return Err(format!("there are more than {MOST_DESCRIPTORS} listeners"));
    }
    let mut given = Vec::new();
    let mut queues = Vec::new();
    for passage in &passages {
        if let Some(queue) = passage.queue.upgrade() {
            given.push(GivenListener {
                name: passage.name.to_string(),
                shared: passage.shared,
                file: queue.has_file(),
            });
            queues.push(queue);
        }
    }
    let sockets: Vec<_> = queues.iter().map(|queue| queue.as_fd()).collect();
    let letter = Letter::Listeners(given);
    letters.send(&letter, b"", &sockets).await.map_err(lost)?;
    match letters.receive().await.map_err(lost)? {
        Some(received) => match received.letter {
            Letter::Ready(wanted) => {
                letters.send(&Letter::Go, b"", &[]).await.map_err(lost)?;
                let is_wanted =
                    |passage: &Arc<Passage>| wanted.iter().any(|name| **name == *passage.name);
                Ok(passages.into_iter().filter(is_wanted).collect())
            }
            other => Err(format!("it said {other:?} where it should have said Ready")),
        },
        None => Err("it ended before it was ready".to_owned()),
    }
}

impl Successor {
    /// Lets it accept, drains this process, and brings it the connections that become idle.
    async fn take_over(self, core: &Arc<Core>) {
        let Self {
            pid,
            letters,
            wanted,
        } = self;
        let (way, travellers) = mpsc::unbounded_channel();
        for passage in &wanted {
            if let Some(queue) = passage.queue.upgrade() {
                queue.leave_file();
            }
            passage.open(way.clone());
        }
        drop(way);
        core.manager.tell(Said::Successor { pid });
        core.link.send(Event::Stop(Reason::Restart(pid)));
        core.reached(Phase::LameDuck).await;
        if !matches!(core.findings().reason, Some(Reason::Restart(_))) {
            // Told to stop in this very moment: that was meant for the service.
            terminate(pid);
        }
        let courier = Courier {
            letters,
            sent: 0,
            away: HashMap::new(),
        };
        core.cut
            .run_until_cancelled(courier.carry(travellers))
            .await;
        for passage in &wanted {
            passage.close();
        }
    }
}

/// Brings connections to the successor, and keeps each until it has arrived.
struct Courier {
    letters: Letters,
    /// How many were sent, which numbers them.
    sent: u64,
    away: HashMap<u64, Traveller>,
}

impl Courier {
    async fn carry(mut self, mut travellers: mpsc::UnboundedReceiver<Traveller>) {
        loop {
            tokio::select! {
                biased;
                received = self.letters.receive() => match received {
                    Ok(Some(received)) => self.hear(received.letter),
                    // Whoever was on the way stays.
                    _ => break,
                },
                Some(traveller) = travellers.recv(), if self.away.len() < ON_THE_WAY => {
                    self.send(traveller).await;
                }
            }
        }
        travellers.close();
        while let Ok(traveller) = travellers.try_recv() {
            traveller.stay();
        }
        self.away.into_values().for_each(Traveller::stay);
    }

    async fn send(&mut self, traveller: Traveller) {
        if traveller.bytes.len() > MOST_BYTES {
            return traveller.stay();
        }
        self.sent += 1;
        let letter = traveller.letter(self.sent);
        let socket = [traveller.socket.as_fd()];
        let sent = self.letters.send(&letter, &traveller.bytes, &socket).await;
        match sent {
            Ok(()) => {
                self.away.insert(self.sent, traveller);
            }
            Err(_) => traveller.stay(),
        }
    }

    fn hear(&mut self, letter: Letter) {
        match letter {
            Letter::Taken(number) => {
                if let Some(traveller) = self.away.remove(&number) {
                    traveller.owner.lets_go();
                }
            }
            Letter::Refused(number) => {
                if let Some(traveller) = self.away.remove(&number) {
                    traveller.stay();
                }
            }
            _ => {}
        }
    }
}

/// The program, once more.
struct Process {
    child: Child,
}

impl Process {
    /// Starts it as this process was started, with the other end of the letters.
    async fn start(others: OwnedFd) -> Result<Self, String> {
        let start = move || {
            let program = program()?;
            let mut arguments = std::env::args_os();
            let mut command = Command::new(&program);
            if let Some(name) = arguments.next() {
                std::os::unix::process::CommandExt::arg0(&mut command, name);
            }
            let way = format!("{}:{}", others.as_raw_fd(), std::process::id());
            command.args(arguments).env(VARIABLE, way);
            // These are for this process only.
            for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
                command.env_remove(name);
            }
            sys::spawn_with(&mut command, others.as_fd())
                .map_err(|error| format!("could not start {}: {error}", program.display()))
        };
        let started = tokio::task::spawn_blocking(start).await;
        let child = started.map_err(|error| error.to_string())??;
        Ok(Self { child })
    }

    /// Ends what is of no use; says what was wrong.
    async fn end(&mut self, problem: String) -> String {
        // It may be ending by itself just now, and has something to say by its status.
        if let Some(status) = self.wait(OF_ITSELF).await {
            return format!("{problem} ({status})");
        }
        terminate(self.child.id());
        if self.wait(BY_SIGTERM).await.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        problem
    }

    async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() >= until {
                return ended;
            }
            // tidy: a process that ends tells nobody else of it
            tokio::time::sleep(STEP).await;
        }
    }
}

/// Asks a child of ours, which nobody has waited for, to stop.
fn terminate(child: u32) {
    if let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::TERM);
    }
}

/// Where the program is: by now that may be a newer one.
fn program() -> Result<std::path::PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?;
    // What the link of a file says that was replaced.
    let replaced = path
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"));
    Ok(replaced.map_or_else(|| path.clone(), Into::into))
}
