//! A gate at which threads wait for each other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Lets a test and a server wait for each other; once open it stays open.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Makes a closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the gate.
    pub fn open(&self) {
        *self.lock() = true;
        self.0.1.notify_all();
    }

    /// Tells whether the gate is open.
    pub fn is_open(&self) -> bool {
        *self.lock()
    }

    /// Waits until the gate is open.
    pub fn wait(&self) {
        let closed = self.0.1.wait_while(self.lock(), |open| !*open);
        drop(closed.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until the gate is open or so long has passed, and tells whether it is open.
    pub fn wait_at_most(&self, limit: Duration) -> bool {
        let waited = self
            .0
            .1
            .wait_timeout_while(self.lock(), limit, |open| !*open);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
