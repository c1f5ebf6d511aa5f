//! The application has ended by itself: whether, when and how it is started again.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::Supervision;
use crate::control::Answer;
use crate::generation::{Generation, Start};
use crate::guard::Outcome;
use crate::keeper::exit_code;
use crate::listeners::Listener;
use crate::readiness::Readiness;
use crate::retiring::kill;
use crate::{Mode, Restart};

/// The pause before an application that has crashed is started again: none at first, then this, and so on up
/// to the longest. One that has lived longer than that begins anew.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Supervision {
    pub(super) fn is_started_again(&self, code: u8) -> bool {
        let restarts = match self.guard.restart {
            Restart::No => false,
            Restart::OnFailure => code != 0,
            Restart::Always => true,
        };
        // One that has never listened would not be helped by it; what is passed listens before it runs.
        let has_listened = match self.guard.mode {
            Mode::ListenFds(_) => *self.shown.ready.borrow(),
            Mode::Auto | Mode::Kernel => self.current.has_listened(),
        };
        restarts && has_listened
    }

    /// The process that the command became has ended; others of its may serve on, such as workers whose master
    /// was killed. What has left a daemon behind is followed by that.
    pub(super) fn left_behind(&mut self, code: u8) {
        if code != 0 && self.is_started_again(code) && self.current.has_processes() {
            self.say(&format!(
                "the command has ended ({code}), and what it has left serves on until the next generation does"
            ));
            self.restart(Vec::new());
        }
    }

    /// No process is left: the next one serves who waits in the queue meanwhile.
    pub(super) async fn crashed(&mut self) -> Option<Outcome> {
        let code = self.current.status().map_or(1, exit_code);
        if !self.is_started_again(code) && self.next.is_none() {
            return Some(Outcome::Ended(code));
        }
        if let Some(mut next) = self.next.take() {
            // It would have a queue of its own, and nobody would serve this one's.
            kill(&mut next.generation).await;
            self.part_with(next.generation);
            for asked in next
                .asked
                .into_iter()
                .chain(self.again.take().unwrap_or_default())
            {
                let _ = asked.send(Answer::Refused("the application has ended".to_owned()));
            }
        }
        if self.since.elapsed() > LONGEST_PAUSE {
            self.pause = Duration::ZERO;
        }
        self.count(|counts| counts.crashes += 1);
        let pause = humantime::format_duration(self.pause);
        self.say(&format!(
            "the application has ended ({code}); it is started again in {pause}"
        ));
        self.start_later();
        None
    }

    pub(super) fn start_later(&mut self) {
        self.respawn_at = Some(Instant::now() + self.pause);
        self.pause = longer(self.pause);
    }

    /// Starts the generation that takes the place of one whose processes are gone, or that is yet to be.
    pub(super) fn respawn(&mut self) -> io::Result<()> {
        for inode in self.current.drop_deaf() {
            self.groups.leaves(inode);
        }
        let number = match self.current.is_vacant() {
            true => self.current.number(),
            false => self.latest + 1,
        };
        self.latest = number;
        let listeners = self.current.lasting().map(Listener::share);
        let start = Start {
            shared: Vec::new(),
            listeners: listeners.collect::<io::Result<_>>()?,
        };
        for listener in &start.listeners {
            self.groups.joins(listener.address, number, listener.inode);
        }
        let next = Generation::start(&self.guard, number, start)?;
        let old = self.make_current(next);
        let kept = |inode| {
            self.current
                .listeners()
                .iter()
                .any(|own| own.inode == inode)
        };
        for gone in old.listeners().iter().filter(|own| !kept(own.inode)) {
            self.groups.leaves(gone.inode);
        }
        self.respawn_at = None;
        if let Some(awaited) = &mut self.awaited {
            awaited.readiness = Readiness::new();
        }
        Ok(())
    }
}

/// The pause after one that was in vain.
fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = std::iter::successors(Some(Duration::ZERO), |pause| Some(longer(*pause)));
        let milliseconds: Vec<_> = pauses.take(10).map(|pause| pause.as_millis()).collect();
        let expected = [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(milliseconds, expected);
    }
}
