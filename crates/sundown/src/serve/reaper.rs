//! Looks at all connections from time to time, and tells those to end that should.
//!
//! One timer for all of them: a request costs none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::Stage;
use crate::core::Core;

/// How often it looks while serving, and while draining.
const SERVING: Duration = Duration::from_secs(1);
const DRAINING: Duration = Duration::from_millis(20);

/// Runs until it is dropped.
pub(crate) async fn reap(core: Arc<Core>) {
    loop {
        let stage = Stage::of(&core);
        let now = Instant::now();
        let next = core.connections.judge_all(now, stage);
        let most = now + if stage.draining { DRAINING } else { SERVING };
        let at = next.map_or(most, |next| next.min(most));
        tokio::select! {
            () = core.connections.looked_for() => {}
            () = tokio::time::sleep_until(at.into()) => {}
        }
    }
}
