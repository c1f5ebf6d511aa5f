//! The end of a generation that was told to stop: what it ends itself, what is cut off, what is killed.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use sundown::Work;
use tokio::time::{Instant, sleep_until};

use super::cut_off::{CutOff, named};
use super::{NAMED, Retiring, ServiceStop, heed, join_the_stop};
use crate::drain::{Held, Scope};
use crate::generation::{Generation, News};
use crate::kin;
use crate::letters::To;
use crate::parting::{self, Parting};
use crate::sockets::Seen;
use crate::supervision::at;

/// How much longer than a look at the sockets is waited for the next one: with very many it takes a while.
const LOOKS_APART: u32 = 4;

/// What an application still has when it is told to stop although something is under way: the last tenth of the
/// drain, and two seconds at the most.
pub(crate) fn ending(drain: Duration) -> Duration {
    (drain / 10).min(Duration::from_secs(2))
}

/// What became of what was under way.
#[derive(Default)]
pub(super) struct Finished {
    pub(super) cut_off: Vec<CutOff>,
    /// How much the application has ended itself, when it was told to stop all the same.
    pub(super) left: usize,
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cut_off[..] {
            [] => write!(f, "nothing was cut off")?,
            cut => {
                let names: Vec<_> = cut.iter().take(NAMED).map(ToString::to_string).collect();
                write!(f, "{} cut off: {}", cut.len(), names.join(", "))?;
            }
        }
        if self.left > 0 {
            let left = self.left;
            write!(
                f,
                "; {left} that were under way the application ended itself"
            )?;
        }
        Ok(())
    }
}

impl Retiring {
    /// Waits for the end of a generation that is told to stop; once there is no more time it is killed.
    pub(super) async fn end(
        &mut self,
        mut over: impl Future<Output = ()> + Unpin,
        mut kill_at: Option<Instant>,
        mut held: UnderWay,
        mut parting: Option<Parting>,
        mut stop: ServiceStop,
    ) -> Finished {
        let told = Instant::now();
        let mut late = Vec::new();
        let mut look_at = told;
        loop {
            tokio::select! {
                () = stop.begins(&self.ctx) => join_the_stop(&self.guard, &self.generation),
                news = self.generation.news() => match news {
                    News::Gone => break,
                    // A shell ends and passes nothing on.
                    News::Ended(_) => self.generation.signal(self.guard.stop_signal, To::Leader),
                    other => heed(&self.guard, &mut self.generation, &self.moves, &stop, &other),
                },
                () = sleep_until(look_at) => {
                    let began = Instant::now();
                    if let Ok(open) = self.scope.connections() {
                        held.look(&open);
                        late.extend(parting.iter_mut().flat_map(|parting| parting.look(&open)));
                    }
                    let step = parting.as_ref().map_or(parting::STEP, Parting::step);
                    look_at = Instant::now() + step.max(began.elapsed() * LOOKS_APART);
                }
                () = &mut over, if kill_at.is_none() => {
                    kill_at = Some(Instant::now() + ending(self.guard.drain));
                }
                () = at(kill_at) => {
                    let pid = self.generation.pid();
                    let pid = pid.map_or(String::new(), |pid| format!("{pid} "));
                    kill(&mut self.generation).await;
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
}

/// What is under way in a generation that is told to stop all the same.
#[derive(Default)]
pub(super) struct UnderWay {
    pub(super) cut: Vec<CutOff>,
    /// The processes that have its connections, by their peers.
    owners: HashMap<SocketAddr, Vec<i32>>,
    /// How much of it the application has ended itself.
    left: usize,
}

impl UnderWay {
    pub(super) fn of(scope: &Scope, generation: &Generation) -> Self {
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

/// Kills every process of a generation, and waits until they are gone.
pub(crate) async fn kill(generation: &mut Generation) {
    loop {
        generation.signal(libc::SIGKILL, To::All);
        if let News::Gone = generation.news().await {
            return;
        }
    }
}
