//! Counts what holds a stop open, and tells once when nothing does.
//!
//! A guard is taken by everything that must end before resources are released: a listener, a
//! connection, a worker, a task. Once the count is sealed and at zero it stays there: `enter`
//! refuses. The callback runs exactly once, and never while a guard is alive.
//! Checked by loom in `tests/loom.rs`, which puts loom's atomics in place of `crate::atomic`.

use std::sync::{Arc, OnceLock};

use crate::atomic::{AtomicUsize, Ordering};

const SEALED: usize = 1;
const ONE: usize = 2;

/// The count. Cheap to clone; all clones are one count.
#[derive(Clone)]
pub(crate) struct InFlight(Arc<Inner>);

struct Inner {
    /// Twice the number of guards, plus one once sealed.
    state: AtomicUsize,
    on_empty: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl InFlight {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            state: AtomicUsize::new(0),
            on_empty: OnceLock::new(),
        }))
    }

    /// Says what to do once the count is sealed and at zero. Set once, before `seal`.
    pub(crate) fn on_empty(&self, callback: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.on_empty.set(Box::new(callback));
    }

    /// Takes a guard, or refuses because the drain is over.
    pub(crate) fn enter(&self) -> Option<Guard> {
        let taken = self
            .0
            .state
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
                (state != SEALED).then_some(state + ONE)
            });
        taken.ok().map(|_| Guard(self.clone()))
    }

    /// From now on zero is final.
    pub(crate) fn seal(&self) {
        let before = self.0.state.fetch_or(SEALED, Ordering::AcqRel);
        if before == 0 {
            self.empty();
        }
    }

    fn empty(&self) {
        if let Some(callback) = self.0.on_empty.get() {
            callback();
        }
    }
}

/// Holds the drain open until it is dropped.
pub(crate) struct Guard(InFlight);

impl Drop for Guard {
    fn drop(&mut self) {
        let before = self.0.0.state.fetch_sub(ONE, Ordering::AcqRel);
        if before == ONE + SEALED {
            self.0.empty();
        }
    }
}
