//! Which stops of a group of checks are shown: each in which a check failed for the first time; where
//! none did, the last in which all were played.
//!
//! So fifty runs show no more stops than there are checks.

use super::Timeline;

/// The stops that are shown of one group of checks.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    failed: Vec<Timeline>,
    /// Shown where none failed.
    last: Option<Timeline>,
}

impl Selection {
    /// Takes what one stop showed, or drops it; `checks` is how many the group has.
    pub(crate) fn offer(&mut self, timeline: Timeline, checks: usize) {
        let known = |check: &&str| self.failed.iter().any(|one| one.failed.contains(check));
        if !timeline.failed.iter().all(known) {
            self.failed.push(timeline);
        } else if self.last.is_none() || timeline.checks.len() == checks {
            // What is tried again, alone, shows less.
            self.last = Some(timeline);
        }
    }

    /// The stops that are shown.
    pub(crate) fn shown(self) -> Vec<Timeline> {
        match self.failed.is_empty() {
            true => self.last.into_iter().collect(),
            false => self.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers stops of two checks: which were played, and which failed.
    fn shown(stops: &[(&[&'static str], &[&'static str])]) -> Vec<usize> {
        let mut selection = Selection::default();
        for (index, (checks, failed)) in stops.iter().enumerate() {
            let timeline = Timeline {
                stop: index + 1,
                checks: checks.to_vec(),
                failed: failed.to_vec(),
                marks: Vec::new(),
                lanes: Vec::new(),
                left_out: 0,
                last_answer: None,
            };
            selection.offer(timeline, 2);
        }
        selection.shown().iter().map(|one| one.stop).collect()
    }

    #[test]
    fn each_first_failure_is_shown_and_else_the_last_whole_stop() {
        const BOTH: &[&str] = &["a", "b"];
        const A: &[&str] = &["a"];
        const B: &[&str] = &["b"];
        assert!(shown(&[]).is_empty());
        assert_eq!(shown(&[(BOTH, &[]), (BOTH, &[])]), [2]);
        assert_eq!(shown(&[(BOTH, &[]), (A, &[])]), [1], "tried again alone");
        assert_eq!(shown(&[(BOTH, &[]), (BOTH, A), (BOTH, A)]), [2]);
        assert_eq!(shown(&[(BOTH, A), (BOTH, BOTH), (BOTH, B)]), [1, 2]);
    }
}
