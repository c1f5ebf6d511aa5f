//! Why a check failed, as far as what was seen says so.
//!
//! The promise: pure functions of what clients saw and of when what happened to the process. Where
//! that fits several causes, or times are too near each other to tell which came first, there is no
//! cause. Never guesses at the service's code: what to change is the check's advice.

mod losses;

use std::time::Duration;

use crate::disposition::{Disposition, name};
use crate::process::Ended;
use crate::stop::Moments;
pub(crate) use losses::{Lost, of_losses};

/// What happens within this is one moment: the listener is looked at every 2 ms, and our own tasks
/// have to run in order to see anything.
const NEAR: Duration = Duration::from_millis(20);

/// Where our own tasks were later than this, what was seen last may have happened long before.
const LATE: Duration = Duration::from_millis(100);

/// Why a process stayed longer than `limit`.
pub(crate) fn of_stay(moments: &Moments, limit: Duration) -> Option<String> {
    let signal = name(moments.signal?);
    if let Some(after) = moments
        .after_signal(moments.closed)
        .filter(|at| *at < limit)
    {
        let after = after.as_millis();
        return Some(format!(
            "{signal} was heard: nobody listened any more after {after} ms; then the process waited for something"
        ));
    }
    match moments.disposition {
        Some(Disposition::Ignored) => Some(format!("the process ignores {signal}")),
        Some(Disposition::Caught) => Some(format!(
            "the process has a handler for {signal}, and nothing came of it within its grace"
        )),
        Some(Disposition::Blocked) => Some(format!(
            "the process blocks {signal}, and nothing came of it within its grace"
        )),
        Some(Disposition::Default) | None => None,
    }
}

/// Why the exit status is what it is.
pub(crate) fn of_status(moments: &Moments) -> Option<String> {
    if moments.killed {
        return Some("the process outstayed its grace and was killed".to_owned());
    }
    let signal = moments.signal?;
    match (moments.ended?.1?, moments.disposition?) {
        (Ended::Signal(by), Disposition::Default) if by == signal => Some(unhandled(signal)),
        (Ended::Signal(by), Disposition::Caught) if by == signal => {
            let signal = name(signal);
            Some(format!(
                "the process has a handler for {signal}, which set it back to its default and raised it again"
            ))
        }
        _ => None,
    }
}

fn unhandled(signal: i32) -> String {
    let signal = name(signal);
    format!("{signal} itself ended the process: nobody handles it")
}

/// Whether the signal did by itself what it does where nobody handles it.
fn is_unhandled(moments: &Moments) -> bool {
    let status = moments.ended.and_then(|(_, status)| status);
    let by_signal =
        matches!((status, moments.signal), (Some(Ended::Signal(by)), Some(signal)) if by == signal);
    by_signal && moments.disposition == Some(Disposition::Default) && moments.orphans.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const GRACE: Duration = Duration::from_secs(3);

    /// A stop whose listener was closed, and whose process ended, so many milliseconds after the
    /// signal.
    pub(super) fn stop(closed: u64, ended: u64, status: Ended) -> Moments {
        let signalled = Instant::now();
        let at = |millis| signalled + Duration::from_millis(millis);
        Moments {
            signalled: Some(signalled),
            delivered: Some(signalled),
            closed: Some(at(closed)),
            ended: Some((at(ended), Some(status))),
            signal: Some(libc::SIGTERM),
            disposition: Some(Disposition::Caught),
            ..Moments::default()
        }
    }

    #[test]
    fn a_process_that_stays_has_heard_the_signal_if_its_listener_is_closed() {
        let table = [
            (
                3,
                Disposition::Caught,
                Some("heard: nobody listened any more after 3 ms"),
            ),
            (3, Disposition::Ignored, Some("was heard")),
            (
                5000,
                Disposition::Caught,
                Some("has a handler for SIGTERM, and nothing came"),
            ),
            (5000, Disposition::Ignored, Some("ignores SIGTERM")),
            (5000, Disposition::Blocked, Some("blocks SIGTERM")),
            (5000, Disposition::Default, None),
        ];
        for (closed, disposition, expected) in table {
            let moments = Moments {
                disposition: Some(disposition),
                killed: true,
                ..stop(closed, 5000, Ended::Signal(libc::SIGKILL))
            };
            let cause = of_stay(&moments, GRACE);
            let fits = match (&cause, expected) {
                (Some(cause), Some(expected)) => cause.contains(expected),
                (cause, expected) => cause.is_none() && expected.is_none(),
            };
            assert!(fits, "{closed} ms, {disposition:?}: {cause:?}");
        }
    }

    #[test]
    fn a_status_has_a_cause_where_the_kernel_tells_what_became_of_the_signal() {
        const TERM: Ended = Ended::Signal(libc::SIGTERM);
        let table = [
            (TERM, Disposition::Default, Some("nobody handles it")),
            (TERM, Disposition::Caught, Some("raised it again")),
            (TERM, Disposition::Blocked, None),
            (Ended::Signal(libc::SIGSEGV), Disposition::Default, None),
            (Ended::Code(7), Disposition::Caught, None),
        ];
        for (status, disposition, expected) in table {
            let moments = Moments {
                disposition: Some(disposition),
                ..stop(3, 3, status)
            };
            let cause = of_status(&moments);
            assert_eq!(cause.is_some(), expected.is_some(), "{status}: {cause:?}");
            let words = cause.unwrap_or_default();
            assert!(words.contains(expected.unwrap_or_default()), "{words}");
        }
        let unknown = Moments {
            disposition: None,
            ..stop(3, 3, TERM)
        };
        assert_eq!(of_status(&unknown), None);
    }
}
