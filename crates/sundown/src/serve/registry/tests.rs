use std::time::Duration;

use super::super::requests::Target;
use super::*;
use crate::budget::Wishes;
use crate::core::{Link, StopTimes};

fn core() -> Arc<Core> {
    let budget = Wishes::default().settle().unwrap();
    Core::new("test".into(), budget, Link::new().0)
}

fn connection(core: &Arc<Core>) -> Arc<Registered> {
    let guard = core.in_flight.enter().unwrap();
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    Registered::new(core, Some(peer), Limits::default(), guard, None)
}

fn begin(connection: &Registered) -> Ticket {
    let since = connection.request_begins();
    connection.add_request(Named {
        method: http::Method::GET,
        target: Target::None,
        since,
    })
}

#[test]
fn a_lame_ducks_http2_connection_goes_away_as_soon_as_it_has_served() {
    let core = core();
    let connection = connection(&core);
    connection.set_protocol(Protocol::Http2);
    let early = begin(&connection);
    connection.request_ends(early, Outcome::Finished);
    assert_eq!(connection.take_order(), None);

    let now = Instant::now();
    core.set_stop(StopTimes {
        closing_since: now,
        schedule: core.budget.schedule(now),
    });
    core.closing.store(true, Ordering::Relaxed);
    let late = begin(&connection);
    connection.request_ends(late, Outcome::Finished);
    assert_eq!(connection.take_order(), Some(Order::GoAway));
}

#[tokio::test(start_paused = true)]
async fn nobody_looks_where_there_is_no_connection_until_there_is_one() {
    let core = core();
    let look = || {
        let stage = Stage::of(&core);
        core.connections.judge_all(Instant::now(), stage)
    };
    assert!(matches!(look(), Next::Never));
    let _first = connection(&core);
    core.connections.looked_for().await;
    assert!(matches!(look(), Next::By(_)));
    let _second = connection(&core);
    let woken = tokio::time::timeout(Duration::from_secs(1), core.connections.looked_for());
    assert!(woken.await.is_err(), "it costs a reaper that looks nothing");
}

#[test]
fn an_order_that_was_overtaken_is_void() {
    let core = core();
    let connection = connection(&core);
    // It was due to an idle time that a request has ended since.
    connection.give_order(Order::Close);
    assert_eq!(connection.take_order(), None);
    assert_eq!(connection.order.load(Ordering::Relaxed), order::NONE);
}

#[test]
fn an_upgraded_connection_that_closes_hears_when_to_look() {
    let core = core();
    let connection = connection(&core);
    // Nobody took this one: the upgrade came first.
    connection.give_order(Order::Rest);
    connection.upgrades();
    connection.closes();
    connection.upgrades();
    connection.give_order(Order::Look);
    assert!(!connection.take_order_to_look());
    let later = Instant::now() + Duration::from_secs(1);
    connection.judge(later, Stage::of(&core));
    assert!(connection.take_order_to_look());
}

#[test]
fn a_connection_whose_body_is_still_read_is_busy() {
    let core = core();
    let connection = connection(&core);
    connection.set_protocol(Protocol::Http1);
    let ticket = begin(&connection);
    connection.body_begins();
    connection.request_ends(ticket, Outcome::Finished);
    connection.flushed();
    assert_eq!(connection.view().activity, Activity::Busy);
    connection.bytes_arrived();
    connection.body_ends(false);
    assert!(matches!(connection.view().activity, Activity::Idle(_)));
    assert!(connection.has_unread_body());
    begin(&connection);
    assert!(!connection.has_unread_body());
}

#[test]
fn a_connection_is_over_when_its_last_request_is_and_not_with_its_socket() {
    let core = core();
    let socket = connection(&core);
    let request = socket.clone();
    let ticket = begin(&request);
    drop(socket);
    assert_eq!(core.connections.len(), 1);
    assert_eq!(
        core.connections
            .open_requests(Instant::now() + Duration::from_secs(1))
            .len(),
        1
    );

    request.request_ends(ticket, Outcome::Open);
    drop(request);
    assert_eq!(core.connections.len(), 0);
    assert_eq!(core.connections.request_counts().abandoned_by_client, 1);
}
