//! Runs one HTTP/1.1 client of any habit.

use rand::Rng;

use super::habit::{Habit, Keep};
use super::ledger::{Report, words};
use super::{Client, Season};
use crate::http1::{Connection, Unmade};
use crate::outcome::{End, Persistence};
use crate::plan::Request;

/// Asks, waits, thinks, and asks again, until the load is over or the server is gone.
pub(super) async fn run(mut client: Client) {
    let habit = Habit::of(client.kind);
    let mut kept = None;
    while client.pause(habit.think.clone()).await != Season::Over {
        let connection = match kept.take() {
            Some(connection) => connection,
            None if !client.may_connect() => return,
            None => match connect(&mut client, &habit).await {
                Next::Ask(connection) => connection,
                Next::Again => continue,
                Next::Stop => return,
            },
        };
        kept = ask(&mut client, &habit, connection).await;
    }
}

enum Next {
    Ask(Connection),
    Again,
    Stop,
}

/// Makes a connection, counts a failure to, and keeps the silence that the habit asks for.
async fn connect(client: &mut Client, habit: &Habit) -> Next {
    let plan = client.ledger.plan();
    let connection = match Connection::open(plan.target, habit.window, plan.hang_limit).await {
        Ok(connection) => connection,
        Err(unmade) => return count_unmade(client, &unmade).await,
    };
    let Some(silence) = habit.silence.clone() else {
        return Next::Ask(connection);
    };
    match client.pause(silence).await {
        Season::Over => Next::Stop,
        _ => Next::Ask(connection.preconnected()),
    }
}

async fn count_unmade(client: &mut Client, unmade: &Unmade) -> Next {
    let request = client.ledger.request(client.kind);
    client
        .ledger
        .count_unmade(client.kind, client.number, &request, unmade);
    match unmade.evidence.end {
        End::Refused => Next::Stop,
        // A shortage of our own does not pass by being hammered at.
        End::Local => match client.pause(LOCAL_PAUSE..=LOCAL_PAUSE).await {
            Season::Over => Next::Stop,
            _ => Next::Again,
        },
        _ => Next::Again,
    }
}

pub(super) const LOCAL_PAUSE: u64 = 100;

/// Sends one letter, counts its requests, and returns the connection if it may be used again.
async fn ask(client: &mut Client, habit: &Habit, mut connection: Connection) -> Option<Connection> {
    let count = client.rng.random_range(habit.burst.clone());
    let requests: Vec<Request> = (0..count)
        .map(|_| client.ledger.request(client.kind))
        .collect();
    let plan = client.ledger.plan();
    let letter = habit.letter(&requests, plan.target, &mut client.rng);

    let under_way = client.ledger.begin(requests.len());
    let exchange = connection.exchange(&letter, plan.hang_limit).await;
    drop(under_way);

    for (index, request) in requests.iter().enumerate() {
        let evidence = exchange.evidence(index);
        client.ledger.count(Report {
            kind: client.kind,
            number: client.number,
            request,
            span: exchange.span(index),
            evidence,
            response: exchange.responses().get(index),
            error: &|| words(&exchange, &evidence),
        });
    }
    let keep = habit.keep == Keep::Alive && exchange.persistence() == Persistence::KeepAlive;
    keep.then_some(connection)
}
