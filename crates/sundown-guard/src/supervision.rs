//! The application from its start to its end: one generation after the other.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sundown::Context;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::drain::{self, Held, Open, Scope};
use crate::generation::{Before, Generation, News};
use crate::groups::Groups;
use crate::guard::{Outcome, not_started};
use crate::keeper::exit_code;
use crate::letters::To;
use crate::steering::steer_to;
use crate::{Guard, Restart};

/// The first pause before an application that has crashed is started again, but for the first time, and the
/// longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(crate) struct Supervision {
    guard: Guard,
    ctx: Context,
    hangups: watch::Receiver<u64>,
    /// The one that new connections go to.
    current: Generation,
    since: Instant,
    /// Those that finish what they have.
    retiring: JoinSet<Generation>,
    groups: Groups,
    /// How long to wait before the next one that is started after a crash.
    pause: Duration,
}

impl Supervision {
    pub(crate) fn start(
        guard: Guard,
        ctx: Context,
        hangups: watch::Receiver<u64>,
    ) -> io::Result<Self> {
        Ok(Self {
            current: Generation::start(&guard, 1, Before::default())?,
            since: Instant::now(),
            retiring: JoinSet::new(),
            groups: Groups::default(),
            pause: Duration::ZERO,
            guard,
            ctx,
            hangups,
        })
    }

    pub(crate) async fn run(mut self) -> Outcome {
        let ctx = self.ctx.clone();
        loop {
            tokio::select! {
                news = self.current.news() => {
                    if let Some(outcome) = self.hear(news).await {
                        return outcome;
                    }
                }
                Some(retired) = self.retiring.join_next() => {
                    if let Ok(retired) = retired {
                        self.part_with(retired);
                    }
                }
                Ok(()) = self.hangups.changed() => self.restart().await,
                () = ctx.draining() => {
                    self.stop().await;
                    return Outcome::Told;
                }
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
            News::Ended(status) => {
                let code = exit_code(status);
                tracing::info!(target: "sundown", code, "the command has ended");
            }
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

    /// No process is left: the next one serves who waits in the queue meanwhile.
    async fn crashed(&mut self) -> Option<Outcome> {
        let code = self.current.status().map_or(1, exit_code);
        let restarts = match self.guard.restart {
            Restart::No => false,
            Restart::OnFailure => code != 0,
            Restart::Always => true,
        };
        // One that has never listened would not be helped by being started again.
        if !restarts || self.current.listeners().is_empty() {
            return Some(Outcome::Ended(code));
        }
        if self.since.elapsed() > LONGEST_PAUSE {
            self.pause = Duration::ZERO;
        }
        let number = self.current.number() + 1;
        self.say(&format!(
            "the application has ended ({code}); generation {number} is started in {}",
            humantime::format_duration(self.pause)
        ));
        tokio::select! {
            () = sleep(self.pause) => {}
            () = self.ctx.draining() => return Some(Outcome::Told),
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let before = Before {
            shared: Vec::new(),
            left: self.current.share_listeners(),
        };
        match Generation::start(&self.guard, number, before) {
            Ok(mut next) => {
                next.adopt(self.current.take_listeners());
                self.current = next;
                self.since = Instant::now();
                None
            }
            Err(error) => {
                self.say(&format!("a keeper cannot be started: {error}"));
                Some(Outcome::Ended(code))
            }
        }
    }

    /// Starts the next generation beside this one, and lets it have what connects once it is ready.
    async fn restart(&mut self) {
        let number = self.current.number() + 1;
        if self.current.listeners().is_empty() {
            return self.say("no restart: the application does not listen yet");
        }
        // Until it is ready nothing goes to it.
        self.steer_to_current();
        match self.succeed(number).await {
            Ok(next) => {
                let old = std::mem::replace(&mut self.current, next);
                self.since = Instant::now();
                self.steer_to_current();
                self.say(&format!(
                    "generation {number} takes what connects; generation {} finishes what it has",
                    old.number()
                ));
                let guard = self.guard.clone();
                self.retiring.spawn(retire(guard, self.ctx.clone(), old));
            }
            Err(problem) => self.say(&format!(
                "restart failed: {problem}; generation {} serves on",
                self.current.number()
            )),
        }
    }

    /// Starts the next generation, and waits until it is ready.
    async fn succeed(&mut self, number: u32) -> Result<Generation, String> {
        let addresses = self.current.addresses();
        let before = Before {
            shared: addresses.clone(),
            left: Vec::new(),
        };
        let mut next =
            Generation::start(&self.guard, number, before).map_err(|error| error.to_string())?;
        self.say(&format!("restart: generation {number} is started"));
        let ctx = self.ctx.clone();
        let until = Instant::now() + self.guard.ready_within;
        let problem = loop {
            let news = tokio::select! {
                news = next.news() => news,
                () = sleep_until(until) => {
                    let within = humantime::format_duration(self.guard.ready_within);
                    break format!("it did not listen on {} within {within}", list(&addresses));
                }
                () = ctx.draining() => break "the service stops".to_owned(),
            };
            match news {
                News::Failed(error) => break format!("it could not be started: {error}"),
                News::Gone => {
                    let code = next.status().map_or(1, exit_code);
                    break format!("it ended before it was ready ({code})");
                }
                other => note(&self.guard, &mut self.groups, &mut next, other),
            }
            if next.listens_on(&addresses) {
                return Ok(next);
            }
        };
        kill(&mut next).await;
        self.part_with(next);
        Err(problem)
    }

    /// Closes our duplicates of what a generation that is gone has listened on.
    fn part_with(&mut self, mut gone: Generation) {
        for listener in gone.take_listeners() {
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

    /// Lets everything end in its order; whatever is left when the time is over is killed, and named.
    async fn stop(&mut self) {
        for problem in drain::refuse_newcomers(self.current.listeners()) {
            self.say(&problem);
        }
        let (ctx, guard) = (self.ctx.clone(), self.guard.clone());
        let scope = match self.retiring.is_empty() {
            true => Scope::alone(&self.current, guard.quiet),
            false => Scope::beside(&self.current, guard.quiet),
        };
        let cancelled = async {
            ctx.cancelled().await;
        };
        let held = finish(&guard, &mut self.current, scope, cancelled).await;
        self.name(held);
        while let Some(retired) = self.retiring.join_next().await {
            drop(retired);
        }
    }

    /// What was cut off is in the report.
    fn name(&self, held: Vec<String>) {
        for name in held {
            // Such a guard never ends.
            std::mem::forget(self.ctx.guard(name));
        }
    }

    fn say(&self, text: &str) {
        say(&self.guard, text);
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

/// A generation that is followed by another finishes what it has.
async fn retire(guard: Guard, ctx: Context, mut old: Generation) -> Generation {
    let began = Instant::now();
    let scope = Scope::beside(&old, guard.quiet);
    let over = async {
        tokio::select! {
            () = sleep(guard.drain) => {}
            _ = ctx.cancelled() => {}
        }
    };
    let held = finish(&guard, &mut old, scope, over).await;
    let took =
        humantime::format_duration(Duration::from_millis(began.elapsed().as_millis() as u64));
    let cut = match held.len() {
        0 => "nothing was cut off".to_owned(),
        count => format!("{count} cut off: {}", held.join(", ")),
    };
    say(
        &guard,
        &format!("generation {} has ended after {took}: {cut}", old.number()),
    );
    old
}

/// Waits until nothing is under way in a generation, tells it to stop, and waits for that; once the time is
/// over it is killed. Returns what was cut off.
async fn finish(
    guard: &Guard,
    generation: &mut Generation,
    scope: Scope,
    over: impl Future<Output = ()>,
) -> Vec<String> {
    tokio::pin!(over);
    let quiesced = {
        let rests = scope.quiesce();
        tokio::pin!(rests);
        loop {
            tokio::select! {
                rests = &mut rests => break Some(rests),
                news = generation.news() => match news {
                    News::Gone => return Vec::new(),
                    News::Closed(inode) => generation.drop_listener(inode),
                    _ => {}
                },
                () = &mut over => break None,
            }
        }
    };
    match quiesced {
        Some(Ok(())) => {}
        Some(Err(error)) => say(
            guard,
            &format!("what is under way cannot be seen ({error}): the application is told at once"),
        ),
        None => {
            let held = scope.look().ok().flatten();
            kill(generation).await;
            return names(held);
        }
    }
    generation.signal(guard.stop_signal, To::Leader);
    loop {
        tokio::select! {
            news = generation.news() => match news {
                News::Gone => return Vec::new(),
                // A shell ends and passes nothing on.
                News::Ended(_) => generation.signal(guard.stop_signal, To::Leader),
                _ => {}
            },
            () = &mut over => break,
        }
    }
    kill(generation).await;
    vec!["application (told to stop, did not end)".to_owned()]
}

/// Kills every process of a generation, and waits until they are gone.
async fn kill(generation: &mut Generation) {
    loop {
        generation.signal(libc::SIGKILL, To::All);
        if let News::Gone = generation.news().await {
            return;
        }
    }
}

/// What was under way.
fn names(held: Option<Held>) -> Vec<String> {
    match held {
        Some(Held::Queue(count)) => vec![format!("{count} connections that nobody accepted")],
        Some(Held::Connections(open)) => open
            .iter()
            .map(|Open { local, peer }| format!("connection from {peer} to {local}"))
            .collect(),
        None => Vec::new(),
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

fn say(guard: &Guard, text: &str) {
    eprintln!("{}: {text}", guard.name);
    tracing::info!(target: "sundown", service = %guard.name, "{text}");
}
