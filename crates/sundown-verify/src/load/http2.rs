//! Runs one HTTP/2 client: one connection, up to four streams at a time.

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::habit::Habit;
use super::http1::LOCAL_PAUSE;
use super::ledger::Report;
use super::{Client, Season};
use crate::http1::Unmade;
use crate::http2::{Session, Standing};
use crate::outcome::End;

const STREAMS: u64 = 4;

/// Asks on up to four streams, until the load is over or the server is gone.
pub(super) async fn run(mut client: Client) {
    let line = Arc::new(Mutex::new(Line::Down));
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let mut one = client.clone();
        one.rng = StdRng::from_rng(&mut client.rng);
        streams.spawn(run_stream(one, Arc::clone(&line)));
    }
    while let Some(stream) = streams.join_next().await {
        stream.expect("a stream neither panics nor is aborted while its client lives");
    }
}

/// Is the connection that a client's streams share.
enum Line {
    Down,
    Up(Session),
    /// The server refused us: no stream asks again.
    Gone,
}

async fn run_stream(mut client: Client, line: Arc<Mutex<Line>>) {
    let habit = Habit::of(client.kind);
    while client.pause(habit.think.clone()).await != Season::Over {
        let session = match session(&client, &line).await {
            Next::Ask(session) => session,
            Next::Again => continue,
            Next::AgainLater => {
                client.pause(LOCAL_PAUSE..=LOCAL_PAUSE).await;
                continue;
            }
            Next::Stop => return,
        };
        ask(&client, &session).await;
    }
}

enum Next {
    Ask(Session),
    Again,
    AgainLater,
    Stop,
}

/// Returns the connection, or makes one; holds the line meanwhile, so that one connect counts once.
async fn session(client: &Client, line: &Mutex<Line>) -> Next {
    let mut line = line.lock().await;
    match &*line {
        Line::Gone => return Next::Stop,
        Line::Up(session) if session.standing() == Standing::Open => {
            return Next::Ask(session.clone());
        }
        Line::Up(session) if session.standing() == Standing::Closed => {
            // The request that finds the connection closed counts as such; the next reconnects.
            let session = session.clone();
            *line = Line::Down;
            return Next::Ask(session);
        }
        Line::Up(_) | Line::Down => {}
    }
    if !client.may_connect() {
        return Next::Stop;
    }
    let plan = client.ledger.plan();
    match Session::open(plan.target, plan.hang_limit).await {
        Ok(session) => {
            *line = Line::Up(session.clone());
            Next::Ask(session)
        }
        Err(unmade) => {
            let next = count_unmade(client, &unmade);
            *line = if let Next::Stop = next {
                Line::Gone
            } else {
                Line::Down
            };
            next
        }
    }
}

fn count_unmade(client: &Client, unmade: &Unmade) -> Next {
    let request = client.ledger.request(client.kind);
    client
        .ledger
        .count_unmade(client.kind, client.number, &request, unmade);
    match unmade.evidence.end {
        End::Refused => Next::Stop,
        End::Local => Next::AgainLater,
        _ => Next::Again,
    }
}

async fn ask(client: &Client, session: &Session) {
    let request = client.ledger.request(client.kind);
    let under_way = client.ledger.begin(1);
    let exchange = session
        .exchange(&request, client.ledger.plan().hang_limit)
        .await;
    drop(under_way);
    client.ledger.count(Report {
        kind: client.kind,
        number: client.number,
        request: &request,
        span: exchange.span(),
        evidence: exchange.evidence(),
        response: exchange.response(),
        error: &|| exchange.error().unwrap_or_default().to_owned(),
    });
}
