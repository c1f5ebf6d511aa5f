use proptest::prelude::*;

use super::*;
use crate::budget::Wishes;

fn budget() -> Budget {
    Wishes {
        grace: Some(Duration::from_secs(10)),
        lame_duck: Some(Duration::from_secs(1)),
        ..Wishes::default()
    }
    .settle()
    .unwrap()
}

/// Feeds `(milliseconds since the start, event)` and returns all steps with their times.
fn play(events: &[(u64, Event)]) -> Vec<(u64, Step)> {
    let start = Instant::now();
    let mut lifecycle = Lifecycle::new(budget());
    let mut steps = Vec::new();
    for (millis, event) in events {
        let now = start + Duration::from_millis(*millis);
        steps.extend(
            lifecycle
                .next(now, event.clone())
                .into_iter()
                .map(|step| (*millis, step)),
        );
    }
    steps
}

use Event as E;
use Phase as P;
use Step::*;

const TERM: i32 = libc::SIGTERM;

#[test]
fn an_orderly_stop_passes_every_phase() {
    let steps = play(&[
        (0, E::Started),
        (100, E::Signal(TERM)),
        (110, E::Prepared),
        (1100, E::Tick),
        (1200, E::Drained),
        (1300, E::Released),
    ]);
    let expected = [
        (0, Enter(P::Ready)),
        (100, Enter(P::LameDuck)),
        (1100, Enter(P::Draining)),
        (1200, Enter(P::Releasing)),
        (1300, Enter(P::Stopped)),
        (1300, Finish),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn work_that_never_ends_is_cancelled_then_cut_then_released() {
    let steps = play(&[
        (0, E::Started),
        (0, E::Signal(TERM)),
        (0, E::Prepared),
        (1000, E::Tick),
        (7500, E::Tick),
        (8000, E::Tick),
        (8010, E::Drained),
        (8020, E::Released),
    ]);
    let expected = [
        (0, Enter(P::Ready)),
        (0, Enter(P::LameDuck)),
        (1000, Enter(P::Draining)),
        (7500, Cancel),
        (8000, Cut),
        (8010, Enter(P::Releasing)),
        (8020, Enter(P::Stopped)),
        (8020, Finish),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_second_signal_hurries_and_a_third_kills() {
    let steps = play(&[
        (0, E::Started),
        (0, E::Signal(TERM)),
        (10, E::Signal(TERM)),
        (510, E::Tick),
        (520, E::Signal(libc::SIGINT)),
        (530, E::Signal(TERM)),
    ]);
    let expected = [
        (0, Enter(P::Ready)),
        (0, Enter(P::LameDuck)),
        (10, Enter(P::Draining)),
        (10, Cancel),
        (510, Cut),
        (520, Enter(P::Stopped)),
        (520, Kill(libc::SIGINT)),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_signal_after_a_stop_from_within_does_not_hurry() {
    let steps = play(&[
        (0, E::Started),
        (0, E::Stop(Reason::Future)),
        (10, E::Signal(TERM)),
    ]);
    assert_eq!(steps, [(0, Enter(P::Ready)), (0, Enter(P::LameDuck))]);
}

#[test]
fn a_signal_while_starting_gives_up_and_releases() {
    let steps = play(&[
        (0, E::Signal(TERM)),
        (5, E::NotStarted(None)),
        (9, E::Released),
    ]);
    let expected = [
        (0, AbandonStart),
        (5, Enter(P::Releasing)),
        (9, Enter(P::Stopped)),
        (9, Finish),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn a_start_that_ends_as_the_signal_comes_is_drained() {
    let steps = play(&[
        (0, E::Signal(TERM)),
        (5, E::Started),
        (6, E::Prepared),
        (1000, E::Tick),
    ]);
    let expected = [
        (0, AbandonStart),
        (5, Enter(P::Ready)),
        (5, Enter(P::LameDuck)),
        (1000, Enter(P::Draining)),
    ];
    assert_eq!(steps, expected);
}

#[test]
fn grace_ends_a_service_that_answers_nothing() {
    let steps = play(&[(0, E::Started), (0, E::Signal(TERM)), (10_000, E::Tick)]);
    assert_eq!(steps.last(), Some(&(10_000, GiveUp)));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(E::Started),
        Just(E::NotStarted(None)),
        Just(E::NotStarted(Some(Reason::StartFailed("db".into())))),
        Just(E::Stop(Reason::Future)),
        Just(E::Signal(TERM)),
        Just(E::Prepared),
        Just(E::Drained),
        Just(E::Released),
        Just(E::Tick),
    ]
}

fn count(steps: &[(Instant, Step)], wanted: fn(&Step) -> bool) -> usize {
    steps.iter().filter(|(_, step)| wanted(step)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_order_of_events_ends_once_in_order_and_within_the_budget(
        events in prop::collection::vec((any_event(), 0_u64..4_000), 0..40)
    ) {
        let budget = budget();
        let mut lifecycle = Lifecycle::new(budget);
        let mut now = Instant::now();
        let mut steps: Vec<(Instant, Step)> = Vec::new();
        let mut began: Option<Instant> = None;

        let mut feed = |lifecycle: &mut Lifecycle, now: Instant, event: Event| {
            let done = lifecycle.next(now, event);
            if lifecycle.stop.is_some() && began.is_none() {
                began = Some(now);
            }
            steps.extend(done.into_iter().map(|step| (now, step)));
        };

        for (event, millis) in events {
            // The shell always calls at `wake_at`, so that no boundary is passed unseen.
            let until = now + Duration::from_millis(millis);
            while let Some(at) = lifecycle.wake_at().filter(|at| *at <= until) {
                now = now.max(at);
                feed(&mut lifecycle, now, E::Tick);
            }
            now = until;
            feed(&mut lifecycle, now, event);
        }
        feed(&mut lifecycle, now, E::Stop(Reason::Future));
        let mut turns = 0;
        while let Some(at) = lifecycle.wake_at() {
            now = now.max(at);
            feed(&mut lifecycle, now, E::Tick);
            turns += 1;
            prop_assert!(turns < 20, "wake_at does not move on: {lifecycle:?}");
        }

        prop_assert_eq!(lifecycle.phase, Phase::Stopped);
        let began = began.expect("a stop was ordered");
        let (ended, last) = steps.last().copied().expect("there is a last step");
        prop_assert!(ended <= began + budget.grace, "took {:?}", ended - began);
        prop_assert!(matches!(last, Finish | GiveUp | Kill(_)));
        prop_assert_eq!(count(&steps, |step| matches!(step, Finish | GiveUp | Kill(_))), 1);

        let phases: Vec<Phase> = steps
            .iter()
            .filter_map(|(_, step)| match step { Enter(phase) => Some(*phase), _ => None })
            .collect();
        prop_assert!(phases.is_sorted(), "{phases:?}");
        prop_assert!(phases.windows(2).all(|pair| pair[0] != pair[1]), "{phases:?}");
        for once in [|step: &Step| *step == Cancel, |step: &Step| *step == Cut, |step: &Step| *step == AbandonStart] {
            prop_assert!(count(&steps, once) <= 1);
        }
        let drained = phases.contains(&Phase::Draining);
        let served = phases.contains(&Phase::Ready);
        if phases.contains(&Phase::Releasing) && served {
            prop_assert!(drained, "released without a drain: {phases:?}");
        }
    }
}
