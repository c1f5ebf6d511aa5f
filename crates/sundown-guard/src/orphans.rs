//! Reaps whom others leave to the guard: as PID 1 of a container it is the parent of every orphan there.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::{kin, sys};

/// Who has ended and is still there after this time is nobody's: a keeper or a command of ours is reaped at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reaps them for as long as it is polled.
pub(crate) async fn reap() {
    let Ok(mut ends) = signal(SignalKind::child()) else {
        return;
    };
    while ends.recv().await.is_some() {
        let ended = zombies();
        sleep(PATIENCE).await;
        for pid in zombies().intersection(&ended) {
            let _ = sys::reap_child(*pid);
        }
    }
}

/// Children that have ended and were not reaped.
fn zombies() -> HashSet<i32> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let has_ended = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name before it may have parentheses, too (proc_pid_stat(5)).
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
    };
    kin::children(own).into_iter().filter(has_ended).collect()
}
