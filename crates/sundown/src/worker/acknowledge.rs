//! Decides what may be acknowledged, given what was handled, in the order it was pulled.
//!
//! Pure: never talks to a source. An item is never acknowledged before it was handled; in the
//! modes that stand for all before it, never behind one that failed.

use std::collections::VecDeque;

/// How handled items are acknowledged. In each mode the order is that of pulling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Acknowledge {
    /// Each item by itself, as soon as it and those before it are done (a queue's ack).
    #[default]
    Each,
    /// Every pulled batch as a whole, once all of it is done.
    Batch,
    /// Only the newest position up to which everything is done (a log's offset).
    Position,
}

/// Receipts of what was pulled and handled, on their way to being acknowledged.
pub(super) struct Ledger<R> {
    mode: Acknowledge,
    /// How many items each pulled batch has left, oldest batch first.
    batches: VecDeque<usize>,
    done: Vec<R>,
    failed: bool,
}

impl<R> Ledger<R> {
    pub(super) fn new(mode: Acknowledge) -> Self {
        Self {
            mode,
            batches: VecDeque::new(),
            done: Vec::new(),
            failed: false,
        }
    }

    /// Notes a pulled batch.
    pub(super) fn pulled(&mut self, items: usize) {
        if items > 0 {
            self.batches.push_back(items);
        }
    }

    /// Notes that the oldest unsettled item was handled, or failed; returns what to acknowledge.
    pub(super) fn settled(&mut self, receipt: R, handled: bool) -> Vec<R> {
        self.failed |= !handled;
        let batch_is_complete = self.count_off();
        let counts = match self.mode {
            Acknowledge::Each => handled,
            Acknowledge::Batch | Acknowledge::Position => !self.failed,
        };
        if counts {
            self.done.push(receipt);
        } else if self.mode == Acknowledge::Batch {
            self.done.clear();
        }
        match self.mode {
            Acknowledge::Each => std::mem::take(&mut self.done),
            Acknowledge::Batch if batch_is_complete => std::mem::take(&mut self.done),
            Acknowledge::Batch => Vec::new(),
            Acknowledge::Position => self.done.drain(..).next_back().into_iter().collect(),
        }
    }

    fn count_off(&mut self) -> bool {
        let oldest = self
            .batches
            .front_mut()
            .expect("an item that settles was pulled");
        *oldest -= 1;
        let complete = *oldest == 0;
        if complete {
            self.batches.pop_front();
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two batches, of 3 and 2 items; `failing` fails. Returns each acknowledgement.
    fn acknowledged(mode: Acknowledge, failing: Option<u32>) -> Vec<Vec<u32>> {
        let mut ledger = Ledger::new(mode);
        ledger.pulled(3);
        ledger.pulled(2);
        let settled = (1..=5).map(|item| ledger.settled(item, Some(item) != failing));
        settled.filter(|receipts| !receipts.is_empty()).collect()
    }

    #[test]
    fn each_mode_acknowledges_in_order() {
        use Acknowledge::*;
        type Acknowledged = &'static [&'static [u32]];
        let table: [(Acknowledge, Option<u32>, Acknowledged); 8] = [
            (Each, None, &[&[1], &[2], &[3], &[4], &[5]]),
            (Each, Some(2), &[&[1], &[3], &[4], &[5]]),
            (Batch, None, &[&[1, 2, 3], &[4, 5]]),
            (Batch, Some(2), &[]),
            (Batch, Some(4), &[&[1, 2, 3]]),
            (Position, None, &[&[1], &[2], &[3], &[4], &[5]]),
            (Position, Some(1), &[]),
            (Position, Some(4), &[&[1], &[2], &[3]]),
        ];
        for (mode, failing, expected) in table {
            assert_eq!(
                acknowledged(mode, failing),
                expected,
                "{mode:?}, {failing:?} fails"
            );
        }
    }
}
