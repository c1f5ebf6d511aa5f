//! Every interleaving of the in-flight guard, by loom.

#![allow(
    dead_code,
    missing_docs,
    reason = "the file under test is built with loom's atomics"
)]

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};
}

#[path = "../src/in_flight.rs"]
mod in_flight;

use atomic::Ordering;
use in_flight::InFlight;

fn counted() -> (InFlight, Arc<AtomicUsize>) {
    let in_flight = InFlight::new();
    let told = Arc::new(AtomicUsize::new(0));
    let counter = told.clone();
    in_flight.on_empty(move || {
        counter.fetch_add(1, Ordering::AcqRel);
    });
    (in_flight, told)
}

#[test]
fn empty_is_told_exactly_once_however_the_last_guard_and_the_seal_race() {
    loom::model(|| {
        let (in_flight, told) = counted();
        let guards = [in_flight.enter().unwrap(), in_flight.enter().unwrap()];
        let threads = guards.map(|guard| thread::spawn(move || drop(guard)));
        in_flight.seal();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(told.load(Ordering::Acquire), 1);
        assert!(in_flight.enter().is_none());
    });
}

#[test]
fn empty_is_never_told_while_a_guard_is_alive() {
    loom::model(|| {
        let (in_flight, told) = counted();
        let first = in_flight.enter().unwrap();
        let late = {
            let (in_flight, told) = (in_flight.clone(), told.clone());
            thread::spawn(move || {
                if let Some(guard) = in_flight.enter() {
                    assert_eq!(told.load(Ordering::Acquire), 0);
                    drop(guard);
                }
            })
        };
        in_flight.seal();
        drop(first);
        late.join().unwrap();
        assert_eq!(told.load(Ordering::Acquire), 1);
    });
}
