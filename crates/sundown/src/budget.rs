//! Splits one grace budget into the parts of a stop, or says why it cannot be split.
//!
//! Pure: never reads the clock nor the environment.

use std::time::{Duration, Instant};

use thiserror::Error;

/// The default grace: below Kubernetes' `terminationGracePeriodSeconds` of 30 s.
/// (`docker stop` waits 10 s: set `SUNDOWN_GRACE=8s` there, or `docker stop --time`.)
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(25);

/// What was asked for; `None` means "derive it from grace".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) grace: Option<Duration>,
    pub(crate) lame_duck: Option<Duration>,
    pub(crate) linger: Option<Duration>,
    pub(crate) release: Option<Duration>,
    pub(crate) mercy: Option<Duration>,
}

/// How long a stop may take in all, and how that time is shared out.
///
/// `grace` is a maximum that includes every other part; with nothing to wait for a stop takes
/// milliseconds. The parts of a stop that uses all of it, in order:
///
/// | part | default | what it is for |
/// |---|---|---|
/// | `lame_duck` | 0 s | still accepting, so that load balancers take notice |
/// | drain | the rest | work in flight finishes |
/// | `mercy` | 500 ms, at most a tenth of grace | contexts are cancelled, handlers may still answer |
/// | `release` | 5 s, at most a fifth of grace | `post_cleanup` hooks |
///
/// `linger` (500 ms, at most a tenth of grace) is spent within the drain: how long an idle
/// keep-alive connection stays open for a request that was on its way. Of more than 800 connections
/// some end earlier, over up to half of it, so that they do not all come back at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// The longest a stop may take, from the first signal to the end of the process.
    pub grace: Duration,
    /// How long new connections are still served after readiness turned false.
    pub lame_duck: Duration,
    /// How long an idle connection stays open after the stop began.
    pub linger: Duration,
    /// The share of grace that is kept for releasing resources.
    pub release: Duration,
    /// How long a cancelled handler may still answer before it is cut off.
    pub mercy: Duration,
}

/// A budget that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// `grace` is zero: nothing could ever be drained.
    #[error("grace (0s) leaves no time to drain; set it to 1s or more")]
    NoGrace,
    /// A part does not fit into what the others leave of `grace`.
    #[error(
        "{part} ({}) does not fit into grace ({}), of which {} are taken by the other parts; \
         raise grace or lower {part}",
        humantime::format_duration(*.value),
        humantime::format_duration(*.grace),
        humantime::format_duration(*.taken)
    )]
    TooLong {
        /// The part's name, as in [`Budget`].
        part: &'static str,
        /// How long it was to be.
        value: Duration,
        /// The whole budget.
        grace: Duration,
        /// What `lame_duck`, `linger`, `mercy` and `release` take beside this part.
        taken: Duration,
    },
}

impl Wishes {
    /// Fills in the defaults and checks that the parts fit.
    ///
    /// # Errors
    /// [`BudgetError`] names the part that is too long and the grace it has to fit into.
    pub(crate) fn settle(self) -> Result<Budget, BudgetError> {
        let grace = self.grace.unwrap_or(DEFAULT_GRACE);
        if grace.is_zero() {
            return Err(BudgetError::NoGrace);
        }
        let tenth = (grace / 10).min(Duration::from_millis(500));
        let budget = Budget {
            grace,
            lame_duck: self.lame_duck.unwrap_or(Duration::ZERO),
            linger: self.linger.unwrap_or(tenth),
            release: self
                .release
                .unwrap_or((grace / 5).min(Duration::from_secs(5))),
            mercy: self.mercy.unwrap_or(tenth),
        };
        budget.check()?;
        Ok(budget)
    }
}

/// Kept of the release share for the report and the end of the process.
const LAST_WORDS: Duration = Duration::from_millis(50);

impl Budget {
    fn check(&self) -> Result<(), BudgetError> {
        let parts = [
            ("lame_duck", self.lame_duck),
            ("release", self.release),
            ("linger", self.linger),
            ("mercy", self.mercy),
        ];
        let sum = parts
            .iter()
            .fold(Duration::ZERO, |sum, (_, value)| sum.saturating_add(*value));
        if sum <= self.grace {
            return Ok(());
        }
        let (part, value) = parts
            .into_iter()
            .max_by_key(|(_, value)| *value)
            .expect("the list of parts is not empty");
        let taken = sum.saturating_sub(value);
        Err(BudgetError::TooLong {
            part,
            value,
            grace: self.grace,
            taken,
        })
    }

    /// Fixes the instants of a stop that began at `began`.
    pub(crate) fn schedule(&self, began: Instant) -> Schedule {
        let cut = began + self.grace - self.release;
        Schedule {
            lame_duck_over: began + self.lame_duck,
            cancel: cut - self.mercy,
            cut,
            end: self.end_after(cut),
        }
    }

    /// The report is written and the process gone before grace is over, not just asked to be.
    fn end_after(&self, cut: Instant) -> Instant {
        cut + self.release - LAST_WORDS.min(self.release / 8)
    }
}

/// The instants of one stop; each is a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Until here new connections are accepted.
    pub(crate) lame_duck_over: Instant,
    /// From here contexts say `cancelled`.
    pub(crate) cancel: Instant,
    /// Here whatever is still open is cut off.
    pub(crate) cut: Instant,
    /// Here the process is ended, if it has not ended before.
    pub(crate) end: Instant,
}

impl Schedule {
    /// Moves every later instant forward: the second signal.
    pub(crate) fn hurry(&mut self, now: Instant, budget: &Budget) {
        self.lame_duck_over = self.lame_duck_over.min(now);
        self.cancel = self.cancel.min(now);
        self.cut = self.cut.min(now + budget.mercy);
        self.end = self.end.min(budget.end_after(self.cut));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn defaults_fit_into_any_grace() {
        for millis in [1, 10, 100, 1_000, 8_000, 25_000, 3_600_000] {
            let grace = Duration::from_millis(millis);
            let budget = Wishes {
                grace: Some(grace),
                ..Wishes::default()
            }
            .settle();
            assert!(budget.is_ok(), "{grace:?}: {budget:?}");
        }
    }

    #[test]
    fn a_part_that_is_too_long_is_named_with_grace() {
        let table = [
            (
                Wishes {
                    grace: Some(S(5)),
                    lame_duck: Some(S(6)),
                    ..Wishes::default()
                },
                "lame_duck (6s)",
                "grace (5s)",
            ),
            (
                Wishes {
                    release: Some(S(30)),
                    ..Wishes::default()
                },
                "release (30s)",
                "grace (25s)",
            ),
            (
                Wishes {
                    grace: Some(S(2)),
                    linger: Some(S(9)),
                    ..Wishes::default()
                },
                "linger (9s)",
                "grace (2s)",
            ),
            (
                Wishes {
                    grace: Some(S(2)),
                    mercy: Some(Duration::MAX),
                    ..Wishes::default()
                },
                "mercy",
                "grace (2s)",
            ),
        ];
        for (wishes, part, grace) in table {
            let error = wishes.settle().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(grace), "{error}");
        }
        let none = Wishes {
            grace: Some(Duration::ZERO),
            ..Wishes::default()
        };
        assert_eq!(none.settle(), Err(BudgetError::NoGrace));
    }

    #[test]
    fn a_stop_ends_before_its_grace_and_after_its_cut() {
        for millis in [1, 10, 2_000, 25_000] {
            let grace = Duration::from_millis(millis);
            let wishes = Wishes {
                grace: Some(grace),
                ..Wishes::default()
            };
            let began = Instant::now();
            let schedule = wishes.settle().unwrap().schedule(began);
            assert!(schedule.cut < schedule.end && schedule.end < began + grace);
        }
    }

    #[test]
    fn a_hurried_stop_keeps_mercy_and_release_and_never_gets_longer() {
        let budget = Wishes::default().settle().unwrap();
        let began = Instant::now();
        let mut schedule = budget.schedule(began);
        schedule.hurry(began + S(1), &budget);
        assert_eq!(schedule.cancel, began + S(1));
        assert_eq!(schedule.cut, began + S(1) + budget.mercy);
        assert!(schedule.end < schedule.cut + budget.release);
        let hurried = schedule;
        schedule.hurry(began + S(24), &budget);
        assert_eq!(schedule, hurried);
    }
}
