//! *Decides* whether a connection rests, so that its end costs nobody anything.

use std::time::Duration;

use crate::sequences::Sequences;
use crate::sockets::Seen;

/// Whether nothing is on its way on a connection: everything is read and acknowledged, the last word was the
/// application's, and both have been silent for `quiet`.
///
/// The kernel tells times to a tick of some 4 ms, so that a request that came within one tick of the answer
/// before it looks answered: its sequence numbers tell the two apart, where they can be seen. An answered probe
/// looks like rest by those alone. Where nothing was ever answered, a request is seen.
pub(crate) fn rests(seen: &Seen, exact: Option<&Sequences>, quiet: Duration) -> bool {
    let quiet = u32::try_from(quiet.as_millis()).unwrap_or(u32::MAX);
    let unanswered = seen.bytes_sent == 0 && seen.bytes_received > 0;
    let answered = seen.sent_ago <= seen.received_ago && exact.is_none_or(Sequences::rest);
    seen.unread == 0 && seen.unsent == 0 && !unanswered && answered && seen.sent_ago >= quiet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_rests_only_when_both_have_nothing_more_to_say() {
        let quiet = Duration::from_secs(5);
        let idle = Seen {
            local: "127.0.0.1:80".parse().unwrap(),
            peer: "127.0.0.1:4000".parse().unwrap(),
            inode: 7,
            cookie: 7,
            unread: 0,
            unsent: 0,
            bytes_sent: 100,
            bytes_received: 100,
            sent_ago: 6_000,
            received_ago: 6_004,
        };
        let silent = Seen {
            bytes_sent: 0,
            bytes_received: 0,
            received_ago: 6_000,
            ..idle
        };
        let table = [
            ("an answered one", idle, true),
            ("one that never spoke", silent, true),
            ("bytes unread", Seen { unread: 1, ..idle }, false),
            ("an answer on its way", Seen { unsent: 1, ..idle }, false),
            (
                "a request that is being handled",
                Seen {
                    received_ago: 5_900,
                    ..idle
                },
                false,
            ),
            (
                "a first request right after the handshake",
                Seen {
                    bytes_received: 40,
                    ..silent
                },
                false,
            ),
            (
                "a stream with gaps",
                Seen {
                    sent_ago: 3_000,
                    ..idle
                },
                false,
            ),
        ];
        for (what, seen, expected) in table {
            assert_eq!(rests(&seen, None, quiet), expected, "{what}");
        }
        let done = Sequences {
            read: 100,
            received: 100,
            acknowledged: 100,
            written: 100,
            told: 100,
        };
        let behind = Sequences { told: 60, ..done };
        assert!(rests(&idle, Some(&done), quiet));
        assert!(
            !rests(&idle, Some(&behind), quiet),
            "a request right behind an answer"
        );
    }
}
