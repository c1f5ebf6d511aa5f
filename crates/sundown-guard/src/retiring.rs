//! A generation that finishes what it has and ends.

mod cut_off;
mod ending;
mod retirees;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sundown::Context;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, interval_at};

pub(crate) use self::cut_off::{CutOff, unserved};
use self::ending::{Finished, UnderWay};
pub(crate) use self::ending::{ending, kill};
pub(crate) use self::retirees::{Retiree, Retirees};
use crate::Guard;
use crate::drain::{Held, Scope, refuse_newcomers};
use crate::generation::{Generation, News};
use crate::keeper::exit_code;
use crate::kin;
use crate::letters::To;
use crate::output::say;
use crate::parting::Parting;
use crate::supervision::at;

/// How many of what holds a generation are named at once.
const NAMED: usize = 10;

/// How often is said what a generation waits for.
const WORD: Duration = Duration::from_secs(5);

/// A generation that finishes what it has.
pub(crate) struct Retiring {
    pub(crate) guard: Guard,
    pub(crate) ctx: Context,
    pub(crate) generation: Generation,
    pub(crate) scope: Scope,
    pub(crate) retiree: Retiree,
    pub(crate) moves: UnboundedSender<Move>,
}

/// A listener of such a generation has come or gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    Joins {
        address: SocketAddr,
        generation: u32,
        inode: u64,
    },
    Leaves(u64),
}

/// A generation of which no process is left.
pub(crate) struct Retired {
    /// Its listeners are open still.
    pub(crate) generation: Generation,
    /// What was under way when its time was over.
    pub(crate) cut_off: Vec<CutOff>,
    /// How that was, in a line.
    pub(crate) report: String,
}

impl Retiring {
    /// Lets a generation finish what it has, until the service has no more time or, if it is followed by another,
    /// until its own is over.
    pub(crate) async fn retire(mut self, until: Option<Instant>) -> Retired {
        let began = Instant::now();
        let ctx = self.ctx.clone();
        let over = async {
            tokio::select! {
                () = at(until) => {}
                _ = ctx.cancelled() => {}
            }
        };
        let finished = self.finish(over).await;
        let took = Duration::from_millis(began.elapsed().as_millis() as u64);
        let took = humantime::format_duration(took);
        let number = self.generation.number();
        let report = format!("generation {number} has ended after {took}: {finished}");
        say(&self.guard, &report);
        Retired {
            generation: self.generation,
            cut_off: finished.cut_off,
            report,
        }
    }

    /// Waits until nothing is under way, or its time is over, tells it to stop, and waits for that; what has not
    /// ended then is killed.
    async fn finish(&mut self, over: impl Future<Output = ()>) -> Finished {
        tokio::pin!(over);
        let mut stop = ServiceStop::default();
        let (mut held, mut parting) = (None, self.generation.keeper().map(Parting::of));
        match self.quiesce(&mut over, &mut stop).await {
            Quiesced::Gone => return self.gone(),
            Quiesced::Rests(kept) => parting = kept,
            Quiesced::Unseen(error) => self.say(&format!(
                "what is under way cannot be seen ({error}): the application is told at once"
            )),
            Quiesced::Over => held = Some(UnderWay::of(&self.scope, &self.generation)),
        }
        // At once: a client that rested a moment ago may speak the next.
        self.generation.signal(self.guard.stop_signal, To::Leader);
        let kill_at = held
            .as_ref()
            .map(|_| Instant::now() + ending(self.guard.drain));
        if let Some(held) = &held {
            let (number, count) = (self.generation.number(), held.cut.len());
            self.say(&format!(
                "generation {number} is told to stop with {count} under way: its time is over"
            ));
        }
        self.end(over, kill_at, held.unwrap_or_default(), parting, stop)
            .await
    }

    /// What became of a generation that ended before it was told to: where it failed, what was last seen under way
    /// is lost.
    fn gone(&self) -> Finished {
        let under_way = self.retiree.under_way();
        let failed = self
            .generation
            .status()
            .is_none_or(|status| exit_code(status) != 0);
        let mut finished = Finished::default();
        match failed {
            true => finished.cut_off = under_way,
            false => finished.left = under_way.len(),
        }
        finished.cut_off.extend(unserved(&self.generation));
        finished
    }

    async fn quiesce(
        &mut self,
        mut over: impl Future<Output = ()> + Unpin,
        stop: &mut ServiceStop,
    ) -> Quiesced {
        let (scope, retiree, keeper) = (&self.scope, &self.retiree, self.generation.keeper());
        // The connections of a process that dies are gone before it is: what was under way on them was not finished.
        let had_files = keeper.is_some_and(kin::have_files);
        let dies = || had_files && !keeper.is_some_and(kin::have_files);
        let rests = async {
            loop {
                let tell = |held: Option<Held>| {
                    if held.is_some() || !dies() {
                        retiree.is_held_by(held);
                    }
                };
                scope.quiesce(tell).await?;
                if dies() {
                    // Its end is told before long.
                    return std::future::pending().await;
                }
                let kept = match keeper {
                    Some(keeper) => Some(Parting::at_rest(keeper, &scope.connections()?)),
                    None => None,
                };
                // That took a moment, in which a client may have spoken.
                if scope.look()?.is_none() {
                    return io::Result::Ok(kept);
                }
            }
        };
        tokio::pin!(rests);
        let mut word = interval_at(Instant::now() + WORD, WORD);
        loop {
            tokio::select! {
                () = stop.begins(&self.ctx) => join_the_stop(&self.guard, &self.generation),
                _ = word.tick() => if let Some(held) = retiree.held() {
                    say(&self.guard, &format!("generation {} waits for {held}", self.generation.number()));
                },
                rests = &mut rests => return match rests {
                    Ok(kept) => Quiesced::Rests(kept),
                    Err(error) => Quiesced::Unseen(error),
                },
                news = self.generation.news() => match news {
                    News::Gone => return Quiesced::Gone,
                    other => heed(&self.guard, &mut self.generation, &self.moves, stop, &other),
                },
                () = &mut over => return Quiesced::Over,
            }
        }
    }

    fn say(&self, text: &str) {
        say(&self.guard, text);
    }
}

/// What became of the wait for a generation's rest.
enum Quiesced {
    /// With what is kept of it while it stops.
    Rests(Option<Parting>),
    /// The kernel does not tell.
    Unseen(io::Error),
    /// No process of it is left.
    Gone,
    /// There is no more time.
    Over,
}

/// The stop of the whole service, of which each generation takes part once.
#[derive(Default)]
struct ServiceStop {
    has_begun: bool,
}

impl ServiceStop {
    /// Waits until it begins; for ever once it has.
    ///
    /// # Cancel safety
    /// Safe: it counts as begun only when this returns.
    async fn begins(&mut self, ctx: &Context) {
        if self.has_begun {
            return std::future::pending().await;
        }
        ctx.draining().await;
        self.has_begun = true;
    }
}

/// Refuses newcomers, and lets nothing of a generation outlive the guard.
fn join_the_stop(guard: &Guard, generation: &Generation) {
    generation.ends_with_us();
    tell_all(guard, refuse_newcomers(generation.listeners()));
}

fn tell_all(guard: &Guard, problems: Vec<String>) {
    for problem in problems {
        say(guard, &problem);
    }
}

/// Takes note of listeners that come and go.
fn heed(
    guard: &Guard,
    generation: &mut Generation,
    moves: &UnboundedSender<Move>,
    stop: &ServiceStop,
    news: &News,
) {
    let moved = match *news {
        News::Closed(inode) => {
            generation.drop_listener(inode);
            Move::Leaves(inode)
        }
        News::Listens(address, inode) => {
            // A worker that was started late; where nobody has listened before, it is the application's own affair.
            let (late, others): (Vec<_>, Vec<_>) = generation
                .listeners()
                .iter()
                .partition(|own| own.inode == inode);
            if stop.has_begun && others.iter().any(|own| own.address == address) {
                tell_all(guard, refuse_newcomers(late));
            }
            Move::Joins {
                address,
                generation: generation.number(),
                inode,
            }
        }
        // What its keeper has to say of it is as true now.
        News::Note(ref text) => return say(guard, text),
        _ => return,
    };
    // When the service stops nobody is steered any more.
    let _ = moves.send(moved);
}
