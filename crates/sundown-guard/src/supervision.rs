//! The application from its start to its end: one generation after the other.

mod crash;
mod restart;
mod stop;

use std::io;
use std::time::Duration;

use sundown::{Context, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use self::restart::{Asked, Awaited, Next};
use crate::control::{Answer, Request, Verb};
use crate::drain::Rest;
use crate::generation::{Generation, Line, News, Start};
use crate::groups::Groups;
use crate::guard::{Outcome, not_started};
use crate::keeper::exit_code;
use crate::letters::To;
use crate::listeners::Listener;
use crate::notices::Said;
use crate::output::say;
use crate::readiness::{Due, Readiness};
use crate::retiring::{Move, Retired, Retirees};
use crate::status::{Counts, GenerationStatus, State, Status};
use crate::steering::{fence, steer_to};
use crate::{Guard, Mode, Passed};

/// How often is looked whether somebody waits where nobody will accept, and how soon again if so. Each look wakes a
/// guard that does nothing else.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What others see of the guard.
#[derive(Default)]
pub(crate) struct Shown {
    /// Whether a generation has been ready yet.
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) counts: watch::Sender<Counts>,
    pub(crate) retirees: Retirees,
}

/// What tells the guard what to do.
pub(crate) struct Orders {
    pub(crate) ctx: Context,
    pub(crate) handle: Handle,
    pub(crate) signals: mpsc::Receiver<i32>,
    pub(crate) requests: mpsc::Receiver<Request>,
}

pub(crate) struct Supervision {
    guard: Guard,
    orders: Orders,
    /// The one that new connections go to.
    current: Generation,
    /// The number of the latest, of use or not.
    latest: u32,
    since: Instant,
    /// When the current one is replaced, since no process of it is left.
    respawn_at: Option<Instant>,
    pause: Duration,
    next: Option<Next>,
    /// Who has asked for a restart while one was under way, if one was: another follows it.
    again: Option<Asked>,
    /// That the current one is waited for.
    awaited: Option<Awaited>,
    last_restart: Option<String>,
    last_report: Option<String>,
    shown: Shown,
    retiring: JoinSet<Retired>,
    /// Listeners of those that retire, as they come and go.
    moves: mpsc::UnboundedReceiver<Move>,
    tell_moves: mpsc::UnboundedSender<Move>,
    rest: Rest,
    groups: Groups,
}

impl Supervision {
    /// # Errors
    /// If a keeper cannot be started, or, with what cannot be had, a socket that is to be passed.
    pub(crate) fn start(guard: Guard, orders: Orders, shown: Shown) -> io::Result<Self> {
        let mut groups = Groups::default();
        let mut start = Start::default();
        if let Mode::ListenFds(passed) = &guard.mode {
            for Passed { address, .. } in passed {
                let told =
                    |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
                let listener = Listener::open(*address).map_err(told)?;
                groups.joins(listener.address, 1, listener.inode);
                say(
                    &guard,
                    &format!("mode listen-fds: {} is passed", listener.address),
                );
                start.listeners.push(listener);
            }
        }
        shown.counts.send_modify(|counts| counts.generation = 1);
        let since = Instant::now();
        let (tell_moves, moves) = mpsc::unbounded_channel();
        Ok(Self {
            current: Generation::start(&guard, 1, start)?,
            latest: 1,
            since,
            respawn_at: None,
            pause: Duration::ZERO,
            next: None,
            again: None,
            awaited: Some(Awaited {
                readiness: Readiness::new(),
                until: Some(since + guard.ready_within),
                asked: Vec::new(),
            }),
            last_restart: None,
            last_report: None,
            shown,
            retiring: JoinSet::new(),
            moves,
            tell_moves,
            rest: Rest::after(guard.quiet),
            groups,
            guard,
            orders,
        })
    }

    pub(crate) async fn run(mut self) -> Outcome {
        let ctx = self.orders.ctx.clone();
        let mut look_at = Instant::now() + LOOK;
        loop {
            let until = self.next.as_ref().map(|next| next.until);
            let awaited_until = self.awaited.as_ref().and_then(|awaited| awaited.until);
            let respawn_at = self.respawn_at.filter(|_| self.next.is_none());
            tokio::select! {
                news = self.current.news(), if self.respawn_at.is_none() => {
                    if let Some(outcome) = self.hear(news).await {
                        // Others may have something under way still.
                        return self.stop(outcome).await;
                    }
                }
                of_next = of_next(&mut self.next) => match of_next {
                    OfNext::News(news) => self.hear_next(news).await,
                    OfNext::Due(due) => self.next_is_due(due),
                },
                () = at(until) => {
                    let within = humantime::format_duration(self.guard.ready_within);
                    let next = self.next.as_ref().map(|next| &next.generation);
                    let listens = next.is_some_and(|next| next.listens_on(&self.current.lasting_addresses()));
                    let problem = match listens {
                        true => "it was not ready",
                        false => "it did not listen where it should",
                    };
                    self.give_up(format!("{problem} within {within}")).await;
                }
                () = at(awaited_until) => self.current_takes_long(),
                due = due(self.awaited.as_mut().map(|awaited| &mut awaited.readiness)) => {
                    self.current_is_due(due);
                }
                () = at(respawn_at) => {
                    if let Err(error) = self.respawn() {
                        self.say(&format!("generation {} cannot be started: {error}", self.latest));
                        self.start_later();
                    }
                }
                Some(Ok(retired)) = self.retiring.join_next() => {
                    self.count(|counts| counts.cut_off += retired.cut_off.len() as u64);
                    self.last_report = Some(retired.report);
                    // What it has told is older than its end.
                    while let Ok(moved) = self.moves.try_recv() {
                        self.heed(moved);
                    }
                    self.part_with(retired.generation);
                    if self.current.is_vacant() && self.retiring.is_empty() {
                        self.respawn_at = Some(Instant::now());
                    }
                }
                Some(moved) = self.moves.recv() => {
                    self.heed(moved);
                    self.steer_to_current();
                }
                () = sleep_until(look_at), if self.respawn_at.is_none() => {
                    self.drop_forsaken();
                    let again = self.current.is_waited_at();
                    look_at = Instant::now() + if again { LOOK_AGAIN } else { LOOK };
                }
                Some(signal) = self.orders.signals.recv() => match signal {
                    libc::SIGHUP => self.restart(Vec::new()),
                    other => pass_on(self.current.line().as_ref(), other),
                },
                Some(request) = self.orders.requests.recv() => self.answer(request),
                () = ctx.draining() => return self.stop(Outcome::Told).await,
            }
        }
    }

    /// Something happened to the current generation; if it was the end of everything, how that was.
    async fn hear(&mut self, news: News) -> Option<Outcome> {
        match news {
            News::Failed(error) if self.current.number() == 1 => {
                let program = self.guard.command[0].to_string_lossy();
                return Some(not_started(&program, &error));
            }
            News::Failed(error) => self.say(&format!("it could not be started: {error}")),
            News::Unheard(why) => {
                eprintln!(
                    "error: its listeners cannot be followed ({why}): use --mode auto to stop it by signals alone, \
                     or --listen if it takes sockets"
                );
                return Some(Outcome::NotStarted(2));
            }
            News::Gone => return self.crashed().await,
            News::Ended(status) => self.left_behind(exit_code(status)),
            other => {
                let listens = matches!(other, News::Listens(..));
                let mut nobody_waits = Readiness::new();
                let readiness = self.awaited.as_mut().map(|awaited| &mut awaited.readiness);
                let readiness = readiness.unwrap_or(&mut nobody_waits);
                note(
                    &self.guard,
                    &mut self.groups,
                    &mut self.current,
                    readiness,
                    other,
                );
                if listens && self.current.number() > 1 {
                    // After a crash it may not be the socket that was left.
                    self.steer_to_current();
                }
            }
        }
        None
    }

    /// A listener of a generation that retires has come or gone.
    fn heed(&mut self, moved: Move) {
        match moved {
            Move::Joins {
                address,
                generation,
                inode,
            } => self.groups.joins(address, generation, inode),
            Move::Leaves(inode) => self.groups.leaves(inode),
        }
    }

    /// Closes our duplicates of listeners that the application has closed: who connects there is refused, as it
    /// would be without a guard.
    fn drop_forsaken(&mut self) {
        let forsaken = self.current.drop_forsaken();
        if forsaken.is_empty() {
            return;
        }
        for listener in forsaken {
            self.groups.leaves(listener.inode);
            self.say(&format!(
                "{}: the application has closed it",
                listener.address
            ));
        }
        self.steer_to_current();
    }

    /// Closes our duplicates of what a generation that is gone has listened on.
    fn part_with(&mut self, mut gone: Generation) {
        let listeners = gone.take_listeners();
        listeners.iter().for_each(fence);
        for listener in listeners {
            self.groups.leaves(listener.inode);
        }
        // The others have new numbers.
        self.steer_to_current();
    }

    /// Returns what could not be done, which is told.
    fn steer_to_current(&self) -> Vec<String> {
        let problems = steer_to(&self.current, &self.groups);
        for problem in &problems {
            self.say(problem);
        }
        problems
    }

    fn answer(&mut self, Request { verb, answer }: Request) {
        match verb {
            Verb::Restart { wait: true } => self.restart(vec![answer]),
            Verb::Restart { wait: false } => {
                let (asked, mut refused) = oneshot::channel();
                self.restart(vec![asked]);
                let begun = Answer::Done("the next generation is started".to_owned());
                let _ = answer.send(refused.try_recv().unwrap_or(begun));
            }
            Verb::Stop => {
                self.orders.handle.shutdown("sundown stop");
                let _ = answer.send(Answer::Done("stopping".to_owned()));
            }
            Verb::Status => {
                let status = Box::new(self.status());
                let _ = answer.send(Answer::Status(status));
            }
        }
    }

    fn status(&self) -> Status {
        let running = |generation: &Generation, state, since: Instant| GenerationStatus {
            number: generation.number(),
            state,
            pid: generation.pid(),
            says: generation.says().map(str::to_owned),
            since_ms: since.elapsed().as_millis() as u64,
            listens: addresses(generation),
            held: Vec::new(),
            held_count: 0,
        };
        let mut generations = self.shown.retirees.status();
        let state = match self.current.is_vacant() || self.respawn_at.is_some() {
            true => State::Waiting,
            false => State::Current,
        };
        generations.push(running(&self.current, state, self.since));
        let next = self.next.as_ref();
        generations.extend(next.map(|next| running(&next.generation, State::Starting, next.since)));
        Status {
            name: self.guard.name.clone(),
            pid: std::process::id(),
            ready: *self.shown.ready.borrow(),
            stopping: false,
            generations,
            last_restart: self.last_restart.clone(),
            last_report: self.last_report.clone(),
            counts: *self.shown.counts.borrow(),
        }
    }

    /// Returns the one before.
    fn make_current(&mut self, next: Generation) -> Generation {
        self.since = Instant::now();
        self.count(|counts| counts.generation = next.number());
        std::mem::replace(&mut self.current, next)
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        self.shown.counts.send_modify(count);
    }

    fn say(&self, text: &str) {
        say(&self.guard, text);
    }
}

/// What is to be asked of a generation that is waited for, if there is one.
async fn due(readiness: Option<&mut Readiness>) -> Due {
    match readiness {
        Some(readiness) => readiness.due().await,
        None => std::future::pending().await,
    }
}

/// What there is about the next generation.
enum OfNext {
    News(News),
    Due(Due),
}

/// Waits for that, if there is one.
async fn of_next(next: &mut Option<Next>) -> OfNext {
    match next {
        Some(Next {
            generation,
            readiness,
            ..
        }) => tokio::select! {
            news = generation.news() => OfNext::News(news),
            due = readiness.due() => OfNext::Due(due),
        },
        None => std::future::pending().await,
    }
}

/// Waits for an instant, if there is one.
pub(crate) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Gives the application a signal that the guard was sent and has no use for.
fn pass_on(application: Option<&Line>, signal: i32) {
    if let Some(application) = application {
        application.signal(signal, To::Leader);
    }
    if signal == libc::SIGTSTP {
        // The terminal wants all of it to stop for now.
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    }
}

/// Takes a piece of news that changes nothing but what is known.
fn note(
    guard: &Guard,
    groups: &mut Groups,
    generation: &mut Generation,
    readiness: &mut Readiness,
    news: News,
) {
    let number = generation.number();
    match news {
        News::Started { pid, unheard } => {
            say(guard, &format!("generation {number} is PID {pid}"));
            if (&guard.mode, &unheard, number) == (&Mode::Auto, &None, 1) {
                say(guard, "mode kernel: seccomp(2) tells of its listeners");
            }
            if let Some(why) = unheard {
                let lost = "a stop can only signal it, and it cannot be restarted";
                let help = "if it takes sockets, --listen guards it all the same";
                say(
                    guard,
                    &format!("its listeners cannot be guarded ({why}): {lost}; {help}"),
                );
            }
        }
        News::Listens(address, inode) => {
            groups.joins(address, number, inode);
            say(guard, &format!("generation {number} listens on {address}"));
            readiness.hurry();
        }
        News::Closed(inode) => {
            groups.leaves(inode);
            generation.drop_listener(inode);
        }
        News::Leads(pid) => say(
            guard,
            &format!("generation {number} is PID {pid} now, which the command has left"),
        ),
        News::Note(text) => say(guard, &text),
        News::Said(Said { ready, status }) => {
            if let Some(status) = status {
                generation.has_said(status);
            }
            if ready {
                readiness.has_said();
            }
        }
        News::Failed(_) | News::Unheard(_) | News::Ended(_) | News::Gone => {}
    }
}

/// Where a generation listens, for people.
pub(crate) fn addresses(generation: &Generation) -> Vec<String> {
    let addresses = generation.addresses();
    addresses.iter().map(ToString::to_string).collect()
}
