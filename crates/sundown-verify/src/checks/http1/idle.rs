//! Whether idle connections hold a stop up.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::cause;
use crate::check::{Check, Finding, Level, Need, Stop};
use crate::http1::{Connection, Letter};
use crate::plan::{Plan, Request};
use crate::stop::Stage;
use crate::tcp::Window;

pub(super) const CHECK: Check = Check {
    id: "http1/9",
    level: Level::Should,
    promise: "idle connections do not hold a stop up",
    method: "sixteen connections are answered once and stay open, sixteen more stay silent; none closes before the server does",
    criterion: "the process exits within 2 s",
    source: "RFC 9112 §9.5; golang/go#22682: a silent connection costs five seconds",
    advice: "Close idle connections after a short linger; Node: server.closeIdleConnections(); Go: silent connections count as new for five seconds",
    needs: &[Need::Http1],
    stop: Stop::Own,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 16;
const LIMIT: Duration = Duration::from_secs(2);

async fn play(mut stage: Stage) -> Finding {
    let letter = Letter::new(
        &[Request::get(&stage.service().offers.fast)],
        stage.address(),
    );
    let mut open = Vec::new();
    for number in 0..2 * CLIENTS {
        let opened = Connection::open(stage.endpoint(), Window::Usual, Plan::HANG_LIMIT).await;
        let Ok(mut connection) = opened else { continue };
        if number % 2 == 0 {
            let exchange = connection.exchange(&letter, Plan::HANG_LIMIT).await;
            stage
                .recorder()
                .note_exchange(number + 1, &letter, &exchange);
        }
        open.push(connection);
    }
    stage.send(stage.service().signal);
    let _closings = close_when_told(open);
    let moments = stage.ended().await;
    let took = moments.after_signal(moments.ended.map(|(at, _)| at));
    match took {
        Some(took) if took <= LIMIT => {
            Finding::pass(1, format!("exited after {} ms", took.as_millis()))
        }
        Some(took) => Finding::fail(1, format!("exited after {} ms", took.as_millis()))
            .because(cause::of_stay(&moments, LIMIT)),
        None => Finding::inconclusive("its end was not seen"),
    }
}

/// Lets each client close when its server has.
fn close_when_told(open: Vec<Connection>) -> JoinSet<()> {
    let mut closing = JoinSet::new();
    for mut connection in open {
        closing.spawn(async move { connection.closed_by_peer().await });
    }
    closing
}
