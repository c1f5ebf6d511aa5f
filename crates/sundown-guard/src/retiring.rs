//! A generation that finishes what it has, and how that is told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sundown::{Context, Work};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until};

use crate::drain::{Held, Open, Scope};
use crate::generation::{Generation, News};
use crate::letters::To;
use crate::output::say;
use crate::parting::{Late, Parting};
use crate::sockets::Seen;
use crate::status::{GenerationStatus, State};
use crate::supervision::{addresses, at};
use crate::{Guard, kin, parting, sys};

/// How many of what holds a generation are named in a status.
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

/// Something that was under way.
pub(crate) struct CutOff {
    pub(crate) work: Work,
    pub(crate) name: String,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) age: Duration,
}

impl From<Late> for CutOff {
    fn from(late: Late) -> Self {
        Self {
            work: Work::Connection,
            name: format!(
                "{} (what came when the application had closed it)",
                late.local
            ),
            peer: Some(late.peer),
            age: Duration::ZERO,
        }
    }
}

impl fmt::Display for CutOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.work, self.name)?;
        match self.peer {
            Some(peer) => write!(f, " from {peer}"),
            None => Ok(()),
        }
    }
}

/// Those that finish what they have, by number.
#[derive(Clone, Default)]
pub(crate) struct Retirees(Arc<Mutex<BTreeMap<u32, Shown>>>);

struct Shown {
    pid: Option<i32>,
    since: Instant,
    listens: Vec<String>,
    held: Option<Held>,
}

/// One of them; it is no longer shown when this is dropped.
pub(crate) struct Retiree {
    all: Retirees,
    number: u32,
}

impl Retirees {
    pub(crate) fn add(&self, generation: &Generation) -> Retiree {
        let number = generation.number();
        let shown = Shown {
            pid: generation.pid(),
            since: Instant::now(),
            listens: addresses(generation),
            held: None,
        };
        self.lock().insert(number, shown);
        Retiree {
            all: self.clone(),
            number,
        }
    }

    pub(crate) fn status(&self) -> Vec<GenerationStatus> {
        let status = |(number, shown): (&u32, &Shown)| {
            let under_way = named(shown.held.as_ref());
            let held_count = under_way.len();
            let held = under_way
                .iter()
                .take(NAMED)
                .map(ToString::to_string)
                .collect();
            GenerationStatus {
                number: *number,
                state: State::Retiring,
                pid: shown.pid,
                says: None,
                since_ms: shown.since.elapsed().as_millis() as u64,
                listens: shown.listens.clone(),
                held,
                held_count,
            }
        };
        self.lock().iter().map(status).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Shown>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Retiree {
    /// What holds it, in words.
    fn held(&self) -> Option<String> {
        let all = self.all.lock();
        let held = named(all.get(&self.number)?.held.as_ref());
        let first: Vec<_> = held.iter().take(3).map(ToString::to_string).collect();
        let more = match held.len() - first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!first.is_empty()).then(|| format!("{}{more}", first.join(", ")))
    }

    fn is_held_by(&self, held: Option<Held>) {
        if let Some(shown) = self.all.lock().get_mut(&self.number) {
            shown.held = held;
        }
    }
}

impl Drop for Retiree {
    fn drop(&mut self) {
        self.all.lock().remove(&self.number);
    }
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

/// What an application still has when it is told to stop although something is under way: the last tenth of the
/// drain, and two seconds at the most.
pub(crate) fn ending(drain: Duration) -> Duration {
    (drain / 10).min(Duration::from_secs(2))
}

/// What became of what was under way.
#[derive(Default)]
struct Finished {
    cut_off: Vec<CutOff>,
    /// How much the application has ended itself, when it was told to stop all the same.
    left: usize,
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

/// Waits for the end of a generation that is told to stop; once there is no more time it is killed.
async fn end(
    guard: &Guard,
    generation: &mut Generation,
    scope: &Scope,
    mut over: impl Future<Output = ()> + Unpin,
    mut kill_at: Option<Instant>,
    mut held: UnderWay,
) -> Finished {
    let told = Instant::now();
    let mut parting = generation.keeper().map(Parting::of);
    let mut late = Vec::new();
    let mut looks = interval(parting::STEP);
    // Ticks that are due all at once would leave no room for anything else.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = generation.news() => match news {
                News::Gone => break,
                // A shell ends and passes nothing on.
                News::Ended(_) => generation.signal(guard.stop_signal, To::Leader),
                _ => {}
            },
            _ = looks.tick() => if let Ok(open) = scope.connections() {
                held.look(&open);
                late.extend(parting.iter_mut().flat_map(|parting| parting.look(&open)));
            },
            () = &mut over, if kill_at.is_none() => {
                kill_at = Some(Instant::now() + ending(guard.drain));
            }
            () = at(kill_at) => {
                let pid = generation.pid().map_or(String::new(), |pid| format!("{pid} "));
                kill(generation).await;
                // One that was busy until then had no more than a moment.
                if held.cut.is_empty() {
                    held.cut.push(CutOff {
                        work: Work::Process,
                        name: format!("{pid}(told to stop, did not end)"),
                        peer: None,
                        age: told.elapsed(),
                    });
                }
                parting = None;
                break;
            }
        }
    }
    if let Some(parting) = parting {
        tokio::select! {
            rest = parting.end() => late.extend(rest),
            () = &mut over, if kill_at.is_none() => {}
            () = at(kill_at) => {}
        }
    }
    let UnderWay { mut cut, left, .. } = held;
    late.retain(|late| cut.iter().all(|cut| cut.peer != Some(late.peer)));
    cut.extend(late.into_iter().map(CutOff::from));
    Finished { cut_off: cut, left }
}

/// What is under way in a generation that is told to stop all the same.
#[derive(Default)]
struct UnderWay {
    cut: Vec<CutOff>,
    /// The processes that have its connections, by their peers.
    owners: HashMap<SocketAddr, Vec<i32>>,
    /// How much of it the application has ended itself.
    left: usize,
}

impl UnderWay {
    fn of(scope: &Scope, generation: &Generation) -> Self {
        let held = scope.look().ok().flatten();
        let mut owners: HashMap<SocketAddr, Vec<i32>> = HashMap::new();
        if let (Some(Held::Connections(open)), Some(keeper)) = (&held, generation.keeper()) {
            for pid in kin::descendants(keeper) {
                let inodes: HashSet<u64> = kin::inodes(pid).into_iter().collect();
                for connection in open.iter().filter(|open| inodes.contains(&open.inode)) {
                    owners.entry(connection.peer).or_default().push(pid);
                }
            }
        }
        Self {
            cut: named(held.as_ref()),
            owners,
            left: 0,
        }
    }

    /// Leaves out what the application has ended itself: whoever had it lives on.
    fn look(&mut self, open: &[Seen]) {
        let owners = &self.owners;
        let before = self.cut.len();
        self.cut.retain(|cut| {
            let Some(peer) = cut.peer else {
                return true;
            };
            let owners = owners.get(&peer).into_iter().flatten();
            open.iter().any(|seen| seen.peer == peer) || !owners.copied().any(kin::has_files)
        });
        self.left += before - self.cut.len();
    }
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

/// Kills every process of a generation, and waits until they are gone.
pub(crate) async fn kill(generation: &mut Generation) {
    loop {
        generation.signal(libc::SIGKILL, To::All);
        if let News::Gone = generation.news().await {
            return;
        }
    }
}

/// Who waits in the queues of a generation that does not run.
pub(crate) fn unserved(generation: &Generation) -> Option<CutOff> {
    let queues = generation.listeners().iter();
    let waiting = queues.map(|own| sys::accept_queue(own.socket.as_fd()).unwrap_or(0));
    let waiting: u32 = waiting.sum();
    named(Some(&Held::Queue(waiting)))
        .pop()
        .filter(|_| waiting > 0)
}

/// What is under way, by name.
fn named(held: Option<&Held>) -> Vec<CutOff> {
    match held {
        None => Vec::new(),
        Some(Held::Queue(count)) => vec![CutOff {
            work: Work::Process,
            name: format!("({count} connections in its queue)"),
            peer: None,
            age: Duration::ZERO,
        }],
        Some(Held::Connections(open)) => open
            .iter()
            .map(
                |&Open {
                     local, peer, age, ..
                 }| CutOff {
                    work: Work::Connection,
                    name: local.to_string(),
                    peer: Some(peer),
                    age,
                },
            )
            .collect(),
    }
}
