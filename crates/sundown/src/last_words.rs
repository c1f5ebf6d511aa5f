//! What is done once all else is, and logged: what a logger still has is written out.
//!
//! Never waits for longer than [`TIME`], whatever it waits for: the process ends behind it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// For all of them.
const TIME: Duration = Duration::from_millis(250);

/// What each is told to have: less, so that it can say what it could not do.
const TOLD: Duration = Duration::from_millis(200);

type Word = Box<dyn FnOnce(Duration) + Send>;

/// What is done then.
#[derive(Default)]
pub(crate) struct LastWords(Mutex<Vec<Word>>);

impl LastWords {
    pub(crate) fn add(&self, word: impl FnOnce(Duration) + Send + 'static) {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        words.push(Box::new(word));
    }

    /// Does it, once, each on a thread of its own, as it may hang.
    pub(crate) fn say(&self) {
        let until = Instant::now() + TIME;
        let words = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let (done, end) = mpsc::channel();
        for word in words {
            let done = done.clone();
            let say = move || {
                // A panic has told of itself, and there is nobody else to tell.
                let _ = catch_unwind(AssertUnwindSafe(|| word(TOLD)));
                drop(done);
            };
            // Without a thread nothing is said.
            let _ = thread::Builder::new().name("last-words".into()).spawn(say);
        }
        drop(done);
        // Nothing is ever sent: it ends when the last of them has dropped its end.
        let _: Result<(), _> = end.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_said_once_and_none_is_waited_for_for_ever() {
        let words = LastWords::default();
        let (said, heard) = mpsc::channel();
        let (never, hang) = mpsc::channel::<()>();
        let tell = said.clone();
        words.add(move |_| tell.send("first").unwrap());
        words.add(move |_| {
            let _ = hang.recv();
        });
        words.add(|_| panic!("on purpose"));
        words.add(move |within| {
            assert_eq!(within, TOLD);
            said.send("last").unwrap();
        });
        words.say();
        let mut all: Vec<&str> = heard.iter().collect();
        all.sort_unstable();
        assert_eq!(all, ["first", "last"]);
        words.say();
        drop(never);
    }
}
