//! Looks at all connections from time to time, and tells those to end that should.
//!
//! One timer for all of them: a request costs none, and a service without connections sleeps.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::{DRAINING, QUIET, Stage};
use super::registry::Next;
use crate::core::Core;

/// How often it looks while serving.
const SERVING: Duration = Duration::from_secs(1);

/// Runs until it is dropped.
pub(crate) async fn reap(core: Arc<Core>) {
    loop {
        let stage = Stage::of(&core);
        let now = Instant::now();
        let next = match core.connections.judge_all(now, stage) {
            Next::By(next) => next,
            Next::Never => {
                core.connections.looked_for().await;
                continue;
            }
        };
        let step = if stage.is_draining() {
            // What becomes idle behind one look is not due before the next.
            stage.linger.clamp(DRAINING, QUIET)
        } else {
            SERVING
        };
        let most = now + step;
        let at = next.map_or(most, |next| next.min(most));
        tokio::select! {
            () = core.connections.looked_for() => {}
            () = tokio::time::sleep_until(at.into()) => {}
        }
    }
}
