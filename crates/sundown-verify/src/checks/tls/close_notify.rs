//! Whether TLS announces the end of connections.

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::channel::Farewell;
use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::{AFTERWARDS, keep};
use crate::http1::Letter;
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "tls/1",
    level: Level::Should,
    promise: "TLS announces the end of each connection",
    method: "eight connections are answered once and then idle; what ends them is looked at",
    criterion: "each ends with close_notify; a reset is an end without it",
    source: "RFC 8446 §6.1: each party must send close_notify before it closes; without it an attacker can cut off what is said",
    advice: "Shut TLS down before the socket: SSL_shutdown, tls.Conn.Close, poll_shutdown of a rustls stream",
    needs: &[Need::Http1, Need::Tls],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;

async fn play(mut stage: Stage) -> Finding {
    let letter = Letter::new(
        &[Request::get(&stage.service().offers.fast)],
        stage.address(),
    );
    let kept = keep(&stage, &letter, CLIENTS).await;
    if kept.is_empty() {
        return Finding::inconclusive("it keeps no connection");
    }
    stage.signalled().await;
    let mut idle = JoinSet::new();
    for mut connection in kept {
        idle.spawn(async move {
            connection.closed_by_peer().await;
            connection.farewell()
        });
    }
    let moments = stage.ended().await;
    if moments.killed {
        return Finding::inconclusive("it was killed");
    }
    let ends = timeout(AFTERWARDS, idle.join_all()).await;
    let Ok(ends) = ends else {
        return Finding::inconclusive("a connection outlived the process");
    };
    judge(&ends)
}

fn judge(ends: &[Option<Farewell>]) -> Finding {
    let count = ends.len() as u64;
    let announced = ends
        .iter()
        .filter(|end| **end == Some(Farewell::Announced))
        .count() as u64;
    let reset = ends.iter().filter(|end| end.is_none()).count();
    match count - announced {
        0 => Finding::pass(count, format!("all {count} were announced")),
        some => Finding::fail(count, format!("{some} of {count} were not announced"))
            .with_evidence((reset > 0).then(|| format!("{reset} were reset"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn an_end_without_close_notify_fails() {
        let announced = Some(Farewell::Announced);
        let table = [
            (vec![announced, announced], Verdict::Pass),
            (vec![announced, Some(Farewell::Fin)], Verdict::Fail),
            (vec![announced, None], Verdict::Fail),
        ];
        for (ends, verdict) in table {
            assert_eq!(judge(&ends).verdict, verdict, "{ends:?}");
        }
    }
}
