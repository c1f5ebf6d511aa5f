//! Listeners that came past the filter: io_uring binds and listens without a system call that could wait
//! (IORING_OP_BIND and IORING_OP_LISTEN of io_uring_enter(2), since Linux 6.11).
//!
//! Most programs have their rings for files. So nothing is told before such a listener is found, and nothing twice.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use netlink_packet_sock_diag::inet::StateFlags;

use crate::{kin, sockets};

/// The pause before the first look; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a generation's rings.
#[derive(Default)]
pub(super) struct Rings {
    /// When is looked for its listeners: never without a ring, and not again once some were found.
    at: Option<Instant>,
    pause: Duration,
}

impl Rings {
    /// It sets up a ring.
    pub(super) fn set_up(&mut self, now: Instant) {
        if self.pause.is_zero() {
            self.later(now, FIRST_PAUSE);
        }
    }

    /// How long until the next look, if there is one.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        Some(self.at?.saturating_duration_since(now))
    }

    /// Looks for listeners, if it is time to; tells of them.
    pub(super) fn look(
        &mut self,
        now: Instant,
        find: impl FnOnce() -> Vec<SocketAddr>,
    ) -> Option<String> {
        self.at.filter(|at| *at <= now)?;
        self.later(now, self.pause * 2);
        let found = find();
        if found.is_empty() {
            return None;
        }
        self.at = None;
        let addresses: Vec<_> = found.iter().map(SocketAddr::to_string).collect();
        Some(format!(
            "it listens on {} past the guard, as io_uring makes possible: who connects there is not looked after; \
             open it by --listen, or switch io_uring off (in the application, or by kernel.io_uring_disabled)",
            addresses.join(", ")
        ))
    }

    fn later(&mut self, now: Instant, pause: Duration) {
        self.pause = pause;
        self.at = Some(now + pause);
    }
}

/// Where descendants of this process listen by sockets that are not known, each address once. Where the kernel
/// does not tell of its sockets, nowhere.
pub(super) fn unknown(is_known: impl Fn(u64) -> bool) -> Vec<SocketAddr> {
    let mut listeners = sockets::list(StateFlags::LISTEN).unwrap_or_default();
    listeners.retain(|seen| !is_known(seen.inode.into()));
    if listeners.is_empty() {
        return Vec::new();
    }
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let open: HashSet<u64> = kin::descendants(own)
        .into_iter()
        .flat_map(kin::inodes)
        .collect();
    listeners.retain(|seen| open.contains(&seen.inode.into()));
    let mut addresses: Vec<_> = listeners.into_iter().map(|seen| seen.local).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_ever_more_rarely_until_something_is_told_once() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut rings = Rings::default();
        assert_eq!(rings.wait(began), None);
        rings.set_up(began);
        rings.set_up(began + second / 2);
        let mut now = began;
        for pause in [1, 2, 4, 8] {
            assert_eq!(rings.wait(now), Some(second * pause));
            assert_eq!(rings.look(now, || panic!("it is not time")), None);
            now += second * pause;
            assert_eq!(rings.look(now, Vec::new), None);
        }
        now += second * 16;
        let found = || vec!["127.0.0.1:80".parse().unwrap()];
        let told = rings.look(now, found).unwrap();
        assert!(told.contains("127.0.0.1:80 past the guard"), "{told}");
        rings.set_up(now);
        assert_eq!(rings.wait(now), None);
        assert_eq!(rings.look(now + second * 99, found), None);
    }
}
