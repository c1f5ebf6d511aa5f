//! The signals by which we are told to end ourselves.
//!
//! Each is heard: one that ended us at once could leave a service frozen.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Hears them from when it was made.
pub(super) struct Interrupts {
    hung_up: Signal,
    interrupted: Signal,
    terminated: Signal,
}

impl Interrupts {
    /// Installs the handlers.
    ///
    /// # Errors
    /// If they cannot be installed.
    pub(super) fn hear() -> io::Result<Self> {
        Ok(Self {
            hung_up: signal(SignalKind::hangup())?,
            interrupted: signal(SignalKind::interrupt())?,
            terminated: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for any of them.
    pub(super) async fn any(&mut self) {
        tokio::select! {
            _ = self.hung_up.recv() => {}
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}
