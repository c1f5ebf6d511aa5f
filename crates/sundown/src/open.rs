//! Keeps the names of tasks and workers that are under way, so that whoever holds up a stop can be
//! named.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::core::{Core, lock};
use crate::in_flight::Guard;
use crate::report::{CutOff, RequestCounts, Work};

/// The tasks and workers under way.
#[derive(Default)]
pub(crate) struct Tasks {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Task>>,
}

struct Task {
    work: Work,
    name: Arc<str>,
    place: &'static Location<'static>,
    since: Instant,
}

/// Holds the drain open under a name, until it is dropped.
pub(crate) struct Tracked {
    core: Arc<Core>,
    id: u64,
    _guard: Guard,
}

impl Tracked {
    /// Begins to track; `None` when the drain is over and nothing may begin any more.
    pub(crate) fn begin(
        core: &Arc<Core>,
        work: Work,
        name: impl Into<Arc<str>>,
        place: &'static Location<'static>,
    ) -> Option<Self> {
        let guard = core.in_flight.enter()?;
        let id = core.tasks.next.fetch_add(1, Ordering::Relaxed);
        let task = Task {
            work,
            name: name.into(),
            place,
            since: Instant::now(),
        };
        lock(&core.tasks.open).insert(id, task);
        Some(Self {
            core: core.clone(),
            id,
            _guard: guard,
        })
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        lock(&self.core.tasks.open).remove(&self.id);
    }
}

impl Tasks {
    fn list(&self, now: Instant) -> Vec<CutOff> {
        let open = lock(&self.open);
        open.values()
            .map(|task| CutOff {
                begun_at: Some(task.place.to_string()),
                ..CutOff::new(task.work, task.name.to_string(), None, now - task.since)
            })
            .collect()
    }
}

impl Core {
    /// Everything that holds the drain open and has a name, oldest first.
    pub(crate) fn whats_open(&self, now: Instant) -> Vec<CutOff> {
        let mut open = self.tasks.list(now);
        open.extend(self.connections.open_requests(now));
        open.sort_by_key(|work| std::cmp::Reverse(work.age));
        open
    }

    /// Requests by outcome so far.
    pub(crate) fn request_counts(&self) -> RequestCounts {
        let counts = self.connections.request_counts();
        let findings = self.findings();
        let cut_off = findings.broken.iter().chain(&findings.cut_off);
        let cut_off = cut_off.filter(|open| open.work.is_of_a_client()).count();
        RequestCounts {
            cut_off: cut_off as u64,
            ..counts
        }
    }
}
