//! Counts outcomes, by kind of client and in total.
//!
//! The promise: `sent = answered + declined + lost`, in every part and in the sum; what failed on
//! our side is counted apart. Never keeps more than [`Tally::MAX_EXAMPLES`] losses in words, and
//! never measures time: a tally says what happened, not how fast.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::outcome::{Declined, Loss, Outcome};
use crate::plan::Kind;

/// Counts what happened to a load's requests.
///
/// ```
/// use sundown_verify::{Kind, Loss, Outcome, Tally};
///
/// let mut tally = Tally::default();
/// tally.count(Kind::KeepAlive, Outcome::Answered { status: 200 });
/// tally.count(Kind::Slow, Outcome::Lost(Loss::Eof));
/// assert_eq!((tally.total.sent, tally.total.lost), (2, 1));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// The sum over all kinds of client.
    pub total: Counts,
    /// The same by kind of client; a kind that sent nothing is absent.
    pub kinds: BTreeMap<Kind, Counts>,
    /// The first losses, in words.
    pub examples: Vec<Example>,
}

/// Counts the outcomes of a set of requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests tried against the server: `answered + declined + lost`.
    pub sent: u64,
    /// Requests with a whole answer.
    pub answered: u64,
    /// Requests the server turned down, and said so.
    pub declined: u64,
    /// The declined requests by the way they were declined.
    pub declined_as: BTreeMap<Declined, u64>,
    /// Requests without the answer they were owed.
    pub lost: u64,
    /// The lost requests by the way they were lost.
    pub lost_as: BTreeMap<Loss, u64>,
    /// Requests that our own side could not send: no part of `sent`.
    pub local_errors: u64,
}

/// Describes one lost request for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The kind of client that lost it.
    pub kind: Kind,
    /// How it was lost.
    pub loss: Loss,
    /// The request line, such as `GET /fast`.
    pub request: String,
    /// The number its builder gave it.
    pub tag: u64,
    /// How far the exchange had come.
    pub phase: String,
    /// What the operating system or the protocol said.
    pub error: String,
}

impl Tally {
    /// Bounds the list of examples.
    pub const MAX_EXAMPLES: usize = 20;

    /// Counts one outcome.
    pub fn count(&mut self, kind: Kind, outcome: Outcome) {
        self.total.count(outcome);
        self.kinds.entry(kind).or_default().count(outcome);
    }

    /// Keeps a loss in words, unless there are enough already; it is not built if not kept.
    pub fn describe(&mut self, example: impl FnOnce() -> Example) {
        if self.examples.len() < Self::MAX_EXAMPLES {
            self.examples.push(example());
        }
    }

    /// Adds another tally to this one.
    pub fn merge(&mut self, other: Tally) {
        self.total.merge(&other.total);
        for (kind, counts) in &other.kinds {
            self.kinds.entry(*kind).or_default().merge(counts);
        }
        let room = Self::MAX_EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Returns the counts of one kind of client; all zero if it sent nothing.
    pub fn of(&self, kind: Kind) -> Counts {
        self.kinds.get(&kind).cloned().unwrap_or_default()
    }
}

impl Counts {
    /// Returns how many requests were declined in this way.
    pub fn declined_as(&self, declined: Declined) -> u64 {
        self.declined_as.get(&declined).copied().unwrap_or(0)
    }

    /// Returns how many requests were lost in this way.
    pub fn lost_as(&self, loss: Loss) -> u64 {
        self.lost_as.get(&loss).copied().unwrap_or(0)
    }

    /// What has come since an earlier count of the same load.
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |now: u64, then: u64| now.saturating_sub(then);
        Self {
            sent: less(self.sent, earlier.sent),
            answered: less(self.answered, earlier.answered),
            declined: less(self.declined, earlier.declined),
            declined_as: rest(&self.declined_as, &earlier.declined_as),
            lost: less(self.lost, earlier.lost),
            lost_as: rest(&self.lost_as, &earlier.lost_as),
            local_errors: less(self.local_errors, earlier.local_errors),
        }
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::LocalError => {
                self.local_errors += 1;
                return;
            }
            Outcome::Answered { .. } => self.answered += 1,
            Outcome::Declined(declined) => {
                self.declined += 1;
                *self.declined_as.entry(declined).or_default() += 1;
            }
            Outcome::Lost(loss) => {
                self.lost += 1;
                *self.lost_as.entry(loss).or_default() += 1;
            }
        }
        self.sent += 1;
    }

    fn merge(&mut self, other: &Counts) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.declined += other.declined;
        self.lost += other.lost;
        self.local_errors += other.local_errors;
        for (declined, count) in &other.declined_as {
            *self.declined_as.entry(*declined).or_default() += count;
        }
        for (loss, count) in &other.lost_as {
            *self.lost_as.entry(*loss).or_default() += count;
        }
    }
}

fn rest<K: Ord + Copy>(now: &BTreeMap<K, u64>, then: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let count = |key: &K| then.get(key).copied().unwrap_or(0);
    let rest = now
        .iter()
        .map(|(key, n)| (*key, n.saturating_sub(count(key))));
    rest.filter(|(_, n)| *n > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTCOMES: [Outcome; 9] = [
        Outcome::Answered { status: 200 },
        Outcome::Answered { status: 404 },
        Outcome::Declined(Declined::Refused),
        Outcome::Declined(Declined::Crossed),
        Outcome::Declined(Declined::Crossed),
        Outcome::Lost(Loss::Reset),
        Outcome::Lost(Loss::BacklogReset),
        Outcome::Lost(Loss::Hung),
        Outcome::LocalError,
    ];

    fn tally_of(kind: Kind) -> Tally {
        let mut tally = Tally::default();
        for outcome in OUTCOMES {
            tally.count(kind, outcome);
        }
        tally
    }

    #[track_caller]
    fn assert_adds_up(counts: &Counts) {
        assert_eq!(counts.sent, counts.answered + counts.declined + counts.lost);
        assert_eq!(counts.declined, counts.declined_as.values().sum::<u64>());
        assert_eq!(counts.lost, counts.lost_as.values().sum::<u64>());
    }

    fn example(tag: u64) -> Example {
        Example {
            kind: Kind::Slow,
            loss: Loss::Eof,
            request: "GET /slow".into(),
            tag,
            phase: "waiting".into(),
            error: "end of file".into(),
        }
    }

    #[test]
    fn every_request_sent_is_answered_declined_or_lost() {
        let tally = tally_of(Kind::KeepAlive);

        assert_adds_up(&tally.total);
        assert_eq!(tally.total.sent, 8);
        assert_eq!(tally.total.local_errors, 1);
        assert_eq!(tally.total.declined_as(Declined::Crossed), 2);
    }

    #[test]
    fn the_parts_make_the_sum_after_a_merge() {
        let mut tally = tally_of(Kind::KeepAlive);
        tally.merge(tally_of(Kind::Http2));
        tally.merge(tally_of(Kind::Http2));

        let mut sum = Counts::default();
        for counts in tally.kinds.values() {
            assert_adds_up(counts);
            sum.merge(counts);
        }
        assert_eq!(sum, tally.total);
        assert_eq!(tally.of(Kind::Http2).sent, 16);
        assert_eq!(tally.of(Kind::Silent), Counts::default());
    }

    #[test]
    fn the_list_of_examples_stays_short() {
        let mut tally = Tally::default();
        for tag in 0..15 {
            tally.describe(|| example(tag));
        }
        tally.merge(tally.clone());

        assert_eq!(tally.examples.len(), Tally::MAX_EXAMPLES);
    }
}
