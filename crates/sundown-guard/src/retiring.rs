//! A generation that finishes what it has and ends.

mod cut_off;
mod ending;
mod retirees;

use std::io;
use std::time::Duration;

use sundown::Context;
use tokio::time::{Instant, interval_at, sleep_until};

pub(crate) use self::cut_off::{CutOff, unserved};
use self::ending::{Finished, UnderWay, end};
pub(crate) use self::ending::{ending, kill};
pub(crate) use self::retirees::{Retiree, Retirees};
use crate::Guard;
use crate::drain::Scope;
use crate::generation::{Generation, News};
use crate::letters::To;
use crate::output::say;

/// How many of what holds a generation are named at once.
const NAMED: usize = 10;

/// How often is said what a generation waits for.
const WORD: Duration = Duration::from_secs(5);

/// A generation of which no process is left.
pub(crate) struct Retired {
    /// Its listeners are open still.
    pub(crate) generation: Generation,
    /// What was under way when its time was over.
    pub(crate) cut_off: Vec<CutOff>,
}

/// Lets a generation finish what it has, until the service has no more time or, if it is followed by another,
/// until its own is over.
pub(crate) async fn retire(
    guard: Guard,
    ctx: Context,
    mut generation: Generation,
    scope: Scope,
    until: Option<Instant>,
    retiree: Retiree,
) -> Retired {
    let began = Instant::now();
    let over = async {
        let own = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = own => {}
            _ = ctx.cancelled() => {}
        }
    };
    let Finished { cut_off, left } = finish(&guard, &mut generation, &scope, over, &retiree).await;
    let took = Duration::from_millis(began.elapsed().as_millis() as u64);
    let took = humantime::format_duration(took);
    let cut = match cut_off.len() {
        0 => "nothing was cut off".to_owned(),
        count => {
            let names: Vec<_> = cut_off
                .iter()
                .take(NAMED)
                .map(ToString::to_string)
                .collect();
            format!("{count} cut off: {}", names.join(", "))
        }
    };
    let left = match left {
        0 => String::new(),
        left => format!("; {left} that were under way the application ended itself"),
    };
    let number = generation.number();
    say(
        &guard,
        &format!("generation {number} has ended after {took}: {cut}{left}"),
    );
    Retired {
        generation,
        cut_off,
    }
}

/// Waits until nothing is under way in a generation, or its time is over, tells it to stop, and waits for that; what
/// has not ended then is killed.
async fn finish(
    guard: &Guard,
    generation: &mut Generation,
    scope: &Scope,
    over: impl Future<Output = ()>,
    retiree: &Retiree,
) -> Finished {
    tokio::pin!(over);
    let held = match quiesce(guard, generation, scope, &mut over, retiree).await {
        Quiesced::Gone => return Finished::default(),
        Quiesced::Rests => None,
        Quiesced::Unseen(error) => {
            say(
                guard,
                &format!(
                    "what is under way cannot be seen ({error}): the application is told at once"
                ),
            );
            None
        }
        Quiesced::Over => Some(UnderWay::of(scope, generation)),
    };
    // At once: a client that rested a moment ago may speak the next.
    generation.signal(guard.stop_signal, To::Leader);
    let kill_at = held.as_ref().map(|_| Instant::now() + ending(guard.drain));
    if let Some(held) = &held {
        let (number, count) = (generation.number(), held.cut.len());
        say(
            guard,
            &format!(
                "generation {number} is told to stop with {count} under way: its time is over"
            ),
        );
    }
    end(
        guard,
        generation,
        scope,
        over,
        kill_at,
        held.unwrap_or_default(),
    )
    .await
}

/// What became of the wait for a generation's rest.
enum Quiesced {
    Rests,
    /// The kernel does not tell.
    Unseen(io::Error),
    /// No process of it is left.
    Gone,
    /// There is no more time.
    Over,
}

async fn quiesce(
    guard: &Guard,
    generation: &mut Generation,
    scope: &Scope,
    mut over: impl Future<Output = ()> + Unpin,
    retiree: &Retiree,
) -> Quiesced {
    let rests = scope.quiesce(|held| retiree.is_held_by(held));
    tokio::pin!(rests);
    let mut word = interval_at(Instant::now() + WORD, WORD);
    loop {
        tokio::select! {
            _ = word.tick() => if let Some(held) = retiree.held() {
                say(guard, &format!("generation {} waits for {held}", generation.number()));
            },
            rests = &mut rests => return match rests {
                Ok(()) => Quiesced::Rests,
                Err(error) => Quiesced::Unseen(error),
            },
            news = generation.news() => match news {
                News::Gone => return Quiesced::Gone,
                News::Closed(inode) => generation.drop_listener(inode),
                _ => {}
            },
            () = &mut over => return Quiesced::Over,
        }
    }
}
