//! The application from its start to its end: one generation after the other.

use std::io;
use std::time::Duration;

use sundown::{Context, Handle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::control::{Answer, Request, Verb};
use crate::drain::{self, Scope};
use crate::generation::{Before, Generation, News};
use crate::groups::Groups;
use crate::guard::{Outcome, not_started};
use crate::keeper::exit_code;
use crate::retiring::{CutOff, Retired, Retirees, kill, retire};
use crate::status::{GenerationStatus, State, Status};
use crate::steering::{fence, steer_to};
use crate::{Guard, OnGuardDeath, Restart};

/// The pause before an application that has crashed is started again: none at first, then this, and so on up
/// to the longest. One that has lived longer than that begins anew.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What tells the guard what to do.
pub(crate) struct Orders {
    pub(crate) ctx: Context,
    pub(crate) handle: Handle,
    pub(crate) hangups: watch::Receiver<u64>,
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
    /// A restart was asked for while one was under way.
    again: bool,
    last_restart: Option<String>,
    retiring: JoinSet<Retired>,
    retirees: Retirees,
    groups: Groups,
}

/// A generation that is to take over once it is ready.
struct Next {
    generation: Generation,
    since: Instant,
    until: Instant,
    asked: Vec<oneshot::Sender<Answer>>,
}

impl Supervision {
    pub(crate) fn start(guard: Guard, orders: Orders) -> io::Result<Self> {
        Ok(Self {
            current: Generation::start(&guard, 1, Before::default())?,
            latest: 1,
            since: Instant::now(),
            respawn_at: None,
            pause: Duration::ZERO,
            next: None,
            again: false,
            last_restart: None,
            retiring: JoinSet::new(),
            retirees: Retirees::default(),
            groups: Groups::default(),
            guard,
            orders,
        })
    }

    pub(crate) async fn run(mut self) -> Outcome {
        let ctx = self.orders.ctx.clone();
        loop {
            let until = self.next.as_ref().map(|next| next.until);
            let respawn_at = self.respawn_at.filter(|_| self.next.is_none());
            tokio::select! {
                news = self.current.news(), if self.respawn_at.is_none() => {
                    if let Some(outcome) = self.hear(news).await {
                        return outcome;
                    }
                }
                news = news_of(&mut self.next) => self.hear_next(news).await,
                () = at(until) => {
                    let within = humantime::format_duration(self.guard.ready_within);
                    let problem = format!("it did not listen where it should within {within}");
                    self.give_up(problem).await;
                }
                () = at(respawn_at) => {
                    if let Err(error) = self.respawn() {
                        self.say(&format!("a keeper cannot be started: {error}"));
                        return Outcome::Ended(1);
                    }
                }
                Some(Ok(retired)) = self.retiring.join_next() => self.part_with(retired.generation),
                Ok(()) = self.orders.hangups.changed() => self.restart(None),
                Some(request) = self.orders.requests.recv() => self.answer(request),
                () = ctx.draining() => return self.stop().await,
            }
        }
    }

    /// Something happened to the current generation; if it was the end of everything, how that was.
    async fn hear(&mut self, news: News) -> Option<Outcome> {
        match news {
            News::Failed(error) => {
                let program = self.guard.command[0].to_string_lossy();
                return Some(not_started(&program, &error));
            }
            News::Gone => return self.crashed().await,
            News::Ended(status) => self.left_behind(exit_code(status)),
            other => {
                let listens = matches!(other, News::Listens(..));
                note(&self.guard, &mut self.groups, &mut self.current, other);
                if listens && self.current.number() > 1 {
                    // After a crash it may not be the socket that was left.
                    self.steer_to_current();
                }
            }
        }
        None
    }

    fn is_started_again(&self, code: u8) -> bool {
        let restarts = match self.guard.restart {
            Restart::No => false,
            Restart::OnFailure => code != 0,
            Restart::Always => true,
        };
        // One that has never listened would not be helped by it.
        restarts && !self.current.listeners().is_empty()
    }

    /// The process that the command became has ended; others of its may serve on, such as workers whose master
    /// was killed. What has left a daemon behind has done its work.
    fn left_behind(&mut self, code: u8) {
        if code != 0 && self.is_started_again(code) && self.current.has_processes() {
            self.say(&format!(
                "the command has ended ({code}), and what it has left serves on until the next generation does"
            ));
            self.restart(None);
        }
    }

    /// No process is left: the next one serves who waits in the queue meanwhile.
    async fn crashed(&mut self) -> Option<Outcome> {
        let code = self.current.status().map_or(1, exit_code);
        if !self.is_started_again(code) && self.next.is_none() {
            return Some(Outcome::Ended(code));
        }
        if let Some(mut next) = self.next.take() {
            // It would have a queue of its own, and nobody would serve this one's.
            kill(&mut next.generation).await;
            self.part_with(next.generation);
            for asked in next.asked {
                let _ = asked.send(Answer::Refused("the application has ended".to_owned()));
            }
        }
        if self.since.elapsed() > LONGEST_PAUSE {
            self.pause = Duration::ZERO;
        }
        let pause = humantime::format_duration(self.pause);
        self.say(&format!(
            "the application has ended ({code}); it is started again in {pause}"
        ));
        self.respawn_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        None
    }

    /// Starts the generation that takes the place of one whose processes are gone.
    fn respawn(&mut self) -> io::Result<()> {
        for inode in self.current.drop_deaf() {
            self.groups.leaves(inode);
        }
        let before = Before {
            shared: Vec::new(),
            left: self.current.share_listeners(),
        };
        self.latest += 1;
        let mut next = Generation::start(&self.guard, self.latest, before)?;
        next.adopt(self.current.take_listeners());
        self.current = next;
        self.since = Instant::now();
        self.respawn_at = None;
        Ok(())
    }

    /// Starts the next generation beside this one.
    fn restart(&mut self, asked: Option<oneshot::Sender<Answer>>) {
        if let Some(next) = &mut self.next {
            self.again = true;
            next.asked.extend(asked);
            return;
        }
        let refused = if self.respawn_at.is_some() {
            Some("it is being started again as it is")
        } else if self.current.listeners().is_empty() {
            Some("the application does not listen yet")
        } else {
            None
        };
        if let Some(why) = refused {
            return self.refuse(asked, why);
        }
        // Until it is ready nothing goes to it.
        self.steer_to_current();
        let before = Before {
            shared: self.current.addresses(),
            left: Vec::new(),
        };
        self.latest += 1;
        let number = self.latest;
        match Generation::start(&self.guard, number, before) {
            Ok(generation) => {
                // Who lives on without the guard is the one that takes what connects, and nobody beside it.
                generation.outlives(OnGuardDeath::Stop);
                self.say(&format!("restart: generation {number} is started"));
                let since = Instant::now();
                self.next = Some(Next {
                    generation,
                    since,
                    until: since + self.guard.ready_within,
                    asked: asked.into_iter().collect(),
                });
            }
            Err(error) => self.refuse(asked, &error.to_string()),
        }
    }

    fn refuse(&mut self, asked: Option<oneshot::Sender<Answer>>, why: &str) {
        self.say(&format!("no restart: {why}"));
        if let Some(asked) = asked {
            let _ = asked.send(Answer::Refused(why.to_owned()));
        }
    }

    async fn hear_next(&mut self, news: News) {
        let Some(next) = &mut self.next else { return };
        match news {
            News::Failed(error) => {
                self.give_up(format!("it could not be started: {error}"))
                    .await;
            }
            News::Gone => {
                let code = next.generation.status().map_or(1, exit_code);
                self.give_up(format!("it ended before it was ready ({code})"))
                    .await;
            }
            other => {
                note(&self.guard, &mut self.groups, &mut next.generation, other);
                if next.generation.listens_on(&self.current.addresses()) {
                    self.take_over();
                }
            }
        }
    }

    /// The next generation is ready.
    fn take_over(&mut self) {
        let Some(next) = self.next.take() else { return };
        let (new, old) = (next.generation.number(), self.current.number());
        let old_one = std::mem::replace(&mut self.current, next.generation);
        self.since = Instant::now();
        self.steer_to_current();
        self.current.outlives(self.guard.on_guard_death);
        old_one.outlives(OnGuardDeath::Stop);
        if self.respawn_at.take().is_some() {
            self.part_with(old_one);
        } else {
            let retiree = self.retirees.add(&old_one);
            let scope = Scope::beside(&old_one, self.guard.quiet);
            let until = Instant::now() + self.guard.drain;
            let (guard, ctx) = (self.guard.clone(), self.orders.ctx.clone());
            self.retiring
                .spawn(retire(guard, ctx, old_one, scope, Some(until), retiree));
        }
        self.restarted(
            next.asked,
            Answer::Done(format!("generation {new} takes what connects")),
            &format!("generation {new} takes what connects; generation {old} finishes what it has"),
        );
    }

    /// The next generation is of no use.
    async fn give_up(&mut self, problem: String) {
        let Some(mut next) = self.next.take() else {
            return;
        };
        kill(&mut next.generation).await;
        self.part_with(next.generation);
        let serves = format!("generation {} serves on", self.current.number());
        let told = format!("restart failed: {problem}; {serves}");
        self.restarted(next.asked, Answer::Refused(problem), &told);
    }

    fn restarted(&mut self, asked: Vec<oneshot::Sender<Answer>>, answer: Answer, told: &str) {
        self.say(told);
        self.last_restart = Some(told.to_owned());
        for asked in asked {
            let _ = asked.send(answer.clone());
        }
        if std::mem::take(&mut self.again) {
            self.restart(None);
        }
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

    fn steer_to_current(&self) {
        for problem in steer_to(&self.current, &self.groups) {
            self.say(&problem);
        }
    }

    fn answer(&mut self, Request { verb, answer }: Request) {
        match verb {
            Verb::Restart { wait: true } => self.restart(Some(answer)),
            Verb::Restart { wait: false } => {
                let (asked, mut refused) = oneshot::channel();
                self.restart(Some(asked));
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
            since_ms: since.elapsed().as_millis() as u64,
            listens: addresses(generation),
            held: Vec::new(),
            held_count: 0,
        };
        let mut generations = self.retirees.status();
        generations.push(running(&self.current, State::Current, self.since));
        let next = self.next.as_ref();
        generations.extend(next.map(|next| running(&next.generation, State::Starting, next.since)));
        Status {
            name: self.guard.name.clone(),
            pid: std::process::id(),
            stopping: false,
            generations,
            last_restart: self.last_restart.clone(),
        }
    }

    /// Lets everything end in its order; whatever is left when the time is over is killed, and named.
    async fn stop(mut self) -> Outcome {
        if let Some(mut next) = self.next.take() {
            kill(&mut next.generation).await;
            self.part_with(next.generation);
        }
        self.current.ends_with_us();
        for problem in drain::refuse_newcomers(self.current.listeners()) {
            self.say(&problem);
        }
        let Self {
            guard,
            mut orders,
            current,
            respawn_at,
            last_restart,
            mut retiring,
            retirees,
            ..
        } = self;
        if respawn_at.is_none() {
            let scope = match retiring.is_empty() {
                true => Scope::alone(&current, guard.quiet),
                false => Scope::beside(&current, guard.quiet),
            };
            let (retiree, ctx) = (retirees.add(&current), orders.ctx.clone());
            retiring.spawn(retire(guard.clone(), ctx, current, scope, None, retiree));
        }
        let status = || Status {
            name: guard.name.clone(),
            pid: std::process::id(),
            stopping: true,
            generations: retirees.status(),
            last_restart: last_restart.clone(),
        };
        loop {
            tokio::select! {
                retired = retiring.join_next() => match retired {
                    Some(Ok(retired)) => {
                        for CutOff { work, name, peer, age } in retired.cut_off {
                            orders.ctx.cut_off(work, name, peer, age);
                        }
                    }
                    Some(Err(_)) => {}
                    None => return Outcome::Told,
                },
                Some(request) = orders.requests.recv() => {
                    let _ = request.answer.send(match request.verb {
                        Verb::Status => Answer::Status(Box::new(status())),
                        Verb::Stop => Answer::Done("stopping".to_owned()),
                        Verb::Restart { .. } => Answer::Refused("the guard stops".to_owned()),
                    });
                }
            }
        }
    }

    fn say(&self, text: &str) {
        say(&self.guard, text);
    }
}

/// What is heard of the next generation, if there is one.
async fn news_of(next: &mut Option<Next>) -> News {
    match next {
        Some(next) => next.generation.news().await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Takes a piece of news that changes nothing but what is known.
fn note(guard: &Guard, groups: &mut Groups, generation: &mut Generation, news: News) {
    let number = generation.number();
    match news {
        News::Started { pid, unheard } => {
            say(guard, &format!("generation {number} is PID {pid}"));
            if let Some(why) = unheard {
                let lost = "a stop can only signal it, and it cannot be restarted";
                say(
                    guard,
                    &format!("its listeners cannot be guarded ({why}): {lost}"),
                );
            }
        }
        News::Listens(address, inode) => {
            groups.joins(address, number, inode);
            say(guard, &format!("generation {number} listens on {address}"));
        }
        News::Closed(inode) => {
            groups.leaves(inode);
            generation.drop_listener(inode);
        }
        News::Note(text) => say(guard, &text),
        News::Failed(_) | News::Ended(_) | News::Gone => {}
    }
}

/// Where a generation listens, for people.
pub(crate) fn addresses(generation: &Generation) -> Vec<String> {
    let addresses = generation.addresses();
    addresses.iter().map(ToString::to_string).collect()
}

pub(crate) fn say(guard: &Guard, text: &str) {
    eprintln!("{}: {text}", guard.name);
    tracing::info!(target: "sundown", service = %guard.name, "{text}");
}
