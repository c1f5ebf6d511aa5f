//! Those that finish what they have, as whoever asks is shown them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::NAMED;
use super::cut_off::{CutOff, named};
use crate::drain::Held;
use crate::generation::Generation;
use crate::status::{GenerationStatus, State};
use crate::supervision::addresses;

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
    /// The connections on which something was under way at the last look.
    pub(super) fn under_way(&self) -> Vec<CutOff> {
        let all = self.all.lock();
        let held = all.get(&self.number).and_then(|one| one.held.as_ref());
        match held {
            Some(Held::Connections(_)) => named(held),
            // Who is in a queue now is asked of that.
            Some(Held::Queue(_)) | None => Vec::new(),
        }
    }

    /// What holds it, in words.
    pub(super) fn held(&self) -> Option<String> {
        let all = self.all.lock();
        let held = named(all.get(&self.number)?.held.as_ref());
        let first: Vec<_> = held.iter().take(3).map(ToString::to_string).collect();
        let more = match held.len() - first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!first.is_empty()).then(|| format!("{}{more}", first.join(", ")))
    }

    pub(super) fn is_held_by(&self, held: Option<Held>) {
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
