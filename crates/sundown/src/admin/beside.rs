//! Lives beside a service and ends after it: a core of its own, without signals and hooks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::access::Access;
use crate::budget::Wishes;
use crate::core::{Core, StopTimes};
use crate::error::Error;
use crate::lifecycle::Phase;
use crate::serve::{self, Listening, LocalAddress, Serve};

/// How long those who watch the service may take to read its last word, and then to go.
const LAST_WORD: Duration = Duration::from_millis(50);

/// What is served beside a service.
pub(crate) struct Beside {
    core: Arc<Core>,
    access: Arc<Access>,
    over: Arc<watch::Sender<bool>>,
    _reaper: AbortOnDropHandle<()>,
}

impl Beside {
    pub(super) fn new(service: &Core, access: Arc<Access>) -> Self {
        let budget = Wishes {
            grace: Some(2 * LAST_WORD),
            linger: Some(Duration::ZERO),
            release: Some(Duration::ZERO),
            mercy: Some(Duration::ZERO),
            ..Wishes::default()
        };
        let budget = budget.settle().expect("the parts fit");
        let core = Core::beside(service, budget);
        let reaper = AbortOnDropHandle::new(tokio::spawn(serve::reap(core.clone())));
        Self {
            core,
            access,
            over: Arc::new(watch::Sender::new(false)),
            _reaper: reaper,
        }
    }

    /// Says no to an address that others reach, unless a token keeps them out.
    ///
    /// # Errors
    /// [`Error::Admin`].
    pub(crate) fn check_reach(&self, address: &LocalAddress) -> Result<(), Error> {
        self.access.check_reach(address)
    }

    /// Says when it is over; whoever streams holds a receiver until its last word is said.
    pub(super) fn over(&self) -> Arc<watch::Sender<bool>> {
        self.over.clone()
    }

    /// Begins to serve.
    pub(crate) fn serve(&self, listening: Listening, serve: Serve) {
        tokio::spawn(serve(self.core.clone(), listening));
    }

    /// Ends it as every service ends, within twice [`LAST_WORD`].
    pub(crate) async fn end(self) {
        self.over.send_replace(true);
        let _ = tokio::time::timeout(LAST_WORD, self.over.closed()).await;
        let core = &self.core;
        let now = Instant::now();
        core.set_stop(StopTimes {
            closing_since: now,
            schedule: core.budget.schedule(now),
        });
        core.closing.store(true, Ordering::Relaxed);
        core.link.phase.send_replace(Phase::Draining);
        core.connections.look_again();
        core.in_flight.seal();
        let drained = tokio::time::timeout(LAST_WORD, core.reached(Phase::Releasing));
        if drained.await.is_err() {
            core.cut.cancel();
            core.connections.cut_all();
        }
    }
}
