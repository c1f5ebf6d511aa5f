//! Keeps some of many: what tells most, and evenly of what tells less.
//!
//! Never reads a clock, and never keeps more than a thousand.

use std::collections::VecDeque;

/// Bounds what tells most; the first are kept.
const TELLING: usize = 500;

/// Bounds what came after the signal; it is thinned evenly.
const AFTER: usize = 300;

/// Bounds what came before; the last are kept.
const BEFORE: usize = 200;

/// How much something tells of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Losses, refusals, and what is in flight at the signal.
    Telling,
    /// What begins after the signal and is answered.
    After,
    /// What is answered before it.
    Before,
}

/// What is kept, and how much is not.
#[derive(Debug)]
pub(super) struct Kept<T> {
    telling: Vec<T>,
    after: Thinned<T>,
    before: VecDeque<T>,
    left_out: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            telling: Vec::new(),
            after: Thinned::default(),
            before: VecDeque::new(),
            left_out: 0,
        }
    }
}

impl<T> Kept<T> {
    /// Keeps this, or leaves it or another out.
    pub(super) fn keep(&mut self, weight: Weight, one: T) {
        match weight {
            Weight::Telling if self.telling.len() < TELLING => self.telling.push(one),
            Weight::Telling => self.left_out += 1,
            Weight::After => self.after.push(one),
            Weight::Before => {
                self.before.push_back(one);
                if self.before.len() > BEFORE {
                    self.before.pop_front();
                    self.left_out += 1;
                }
            }
        }
    }

    /// Lists what was kept, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let others = self.after.kept.iter().chain(&self.telling);
        self.before.iter().chain(others)
    }

    /// How much was not kept.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out + self.after.left_out()
    }
}

/// Every n-th of a sequence of unknown length, n doubling whenever there are too many.
#[derive(Debug)]
struct Thinned<T> {
    kept: Vec<T>,
    seen: u64,
    stride: u64,
}

impl<T> Default for Thinned<T> {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            seen: 0,
            stride: 1,
        }
    }
}

impl<T> Thinned<T> {
    fn push(&mut self, one: T) {
        let number = self.seen;
        self.seen += 1;
        if number.is_multiple_of(self.stride) && self.kept.len() == AFTER {
            self.halve();
        }
        if number.is_multiple_of(self.stride) {
            self.kept.push(one);
        }
    }

    fn halve(&mut self) {
        let mut even = false;
        self.kept.retain(|_| {
            even = !even;
            even
        });
        self.stride *= 2;
    }

    fn left_out(&self) -> u64 {
        self.seen - self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(weight: Weight, count: u64) -> (Vec<u64>, u64) {
        let mut kept = Kept::default();
        for number in 0..count {
            kept.keep(weight, number);
        }
        (kept.iter().copied().collect(), kept.left_out())
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_not_is_counted() {
        let table = [
            (Weight::Telling, 500, 500),
            (Weight::Telling, 501, 500),
            (Weight::After, 300, 300),
            (Weight::After, 301, 151),
            (Weight::After, 100_000, 196),
            (Weight::Before, 200, 200),
            (Weight::Before, 100_000, 200),
        ];
        for (weight, count, expected) in table {
            let (kept, left_out) = kept(weight, count);
            assert_eq!(kept.len(), expected, "{weight:?} {count}");
            assert_eq!(kept.len() as u64 + left_out, count, "{weight:?} {count}");
        }
    }

    #[test]
    fn of_what_tells_most_the_first_are_kept_of_what_came_before_the_last() {
        assert_eq!(kept(Weight::Telling, 1000).0.last(), Some(&499));
        assert_eq!(kept(Weight::Before, 1000).0.first(), Some(&800));
    }

    #[test]
    fn what_came_after_is_thinned_evenly_to_its_end() {
        for count in [2, 299, 301, 1000, 12_345] {
            let (kept, _) = kept(Weight::After, count);
            let gaps: Vec<u64> = kept.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{count}: {gaps:?}");
            let last = kept[kept.len() - 1];
            assert!(last + gaps[0] >= count, "{count}: the last is {last}");
        }
    }
}
