//! Why requests were lost.
//!
//! What the kernel does is evidence: it resets a connection that is closed with bytes unread (RFC
//! 1122 §4.2.2.13, RFC 2525 §2.17) and all that wait in the queue of a listener that is closed; of
//! one whose bytes were all read it sends a FIN. Whether that came with the end of the process or
//! before it is told by the time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{LATE, NEAR, is_unhandled, unhandled};
use crate::outcome::{Evidence, Loss, Protocol, Reuse, Seen, Sent};
use crate::plan::Kind;
use crate::stop::Moments;
use crate::timeline::Span;

/// A request that was lost, and what its client saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    /// The kind of its client, where that is one of a load.
    pub(crate) kind: Option<Kind>,
    /// When it began and when its client saw the end of it.
    pub(crate) span: Span,
    /// How it was lost.
    pub(crate) loss: Loss,
    /// What its client saw.
    pub(crate) evidence: Evidence,
}

/// Says why most of those that were lost after the signal were; `lag` is how late we were ourselves.
pub(crate) fn of_losses(losses: &[Lost], moments: &Moments, lag: Duration) -> Option<String> {
    let signalled = moments.signalled?;
    let (before, during): (Vec<&Lost>, Vec<&Lost>) =
        losses.iter().partition(|lost| lost.span.to < signalled);
    let told = Teller {
        moments,
        lag,
        failed_before: before.iter().any(|lost| lost.loss == Loss::ServerError),
    };
    let mut causes: BTreeMap<Cause, Vec<&Lost>> = BTreeMap::new();
    for lost in &during {
        if let Some(cause) = told.cause(lost) {
            causes.entry(cause).or_default().push(lost);
        }
    }
    let (cause, those) = causes.into_iter().max_by_key(|(_, those)| those.len())?;
    let words = told.words(cause, &those);
    let (some, all) = (those.len(), during.len());
    Some(match some == all {
        true => words,
        false => format!("{some} of {all}: {words}"),
    })
}

/// Why a request was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    /// The signal itself ended the process.
    Unhandled,
    /// We killed the process.
    Killed,
    /// The listener was closed before its queue was empty.
    QueueClosed,
    /// The same by the end of the process.
    QueueEnded,
    /// The process ended.
    Ended(Unfinished),
    /// The connection was closed, and the process went on.
    Closed(Unfinished),
    /// One of the two: who reads slowly sees late what came of it.
    Cut,
    /// The kernel let it in, and that was all.
    LetIn,
    /// The service answered by this error.
    Failed(u16),
}

/// What was not at its end when a connection was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unfinished {
    Handshake,
    Head,
    Body,
    /// The request was there, and nobody had read it.
    Unread,
    /// It was read.
    Unanswered,
    Answer,
}

/// Knows the stop.
struct Teller<'a> {
    moments: &'a Moments,
    lag: Duration,
    /// Whether there were server errors before the signal.
    failed_before: bool,
}

impl Teller<'_> {
    fn cause(&self, lost: &Lost) -> Option<Cause> {
        match (lost.loss, lost.evidence.seen) {
            (Loss::Garbled, _) => None,
            (Loss::ServerError, Seen::Whole { status, .. }) => self.failed(lost, status),
            (Loss::ServerError, _) => None,
            (Loss::Hung, _) => self.let_in(lost),
            _ if is_unhandled(self.moments) => Some(Cause::Unhandled),
            _ => self.cut_off(lost),
        }
    }

    /// The clients of a load were answered before the signal.
    fn failed(&self, lost: &Lost, status: u16) -> Option<Cause> {
        let by_the_stop = lost.kind.is_some() && !self.failed_before;
        by_the_stop.then_some(Cause::Failed(status))
    }

    /// Connected when the signal had come, and well before nobody listened any more.
    fn let_in(&self, lost: &Lost) -> Option<Cause> {
        let (delivered, closed) = (self.moments.delivered?, self.moments.closed?);
        let came = lost.evidence.reuse == Reuse::Fresh
            && lost.evidence.before.is_some()
            && lost.evidence.seen == Seen::Nothing
            && lost.span.from >= delivered
            && lost.span.from + self.blur() < closed;
        came.then_some(Cause::LetIn)
    }

    fn cut_off(&self, lost: &Lost) -> Option<Cause> {
        let at_end = self.at_end(lost.span.to);
        if lost.kind == Some(Kind::SlowReader) && at_end != Some(false) {
            return (lost.loss == Loss::Truncated).then_some(Cause::Cut);
        }
        let new = lost.loss == Loss::BacklogReset && lost.evidence.reuse == Reuse::Fresh;
        match at_end? {
            true if self.moments.killed => Some(Cause::Killed),
            true if new && self.at_close(self.moments.ended?.0) => Some(Cause::QueueEnded),
            true => unfinished(lost).map(Cause::Ended),
            false if new && self.at_close(lost.span.to) => Some(Cause::QueueClosed),
            // A stream may have been reset while its connection went on.
            false if lost.evidence.protocol == Protocol::Http2 => None,
            false => unfinished(lost).map(Cause::Closed),
        }
    }

    /// Whether something came with the end of the process or after it; `None` where we were too late
    /// ourselves to tell, or where processes are left that may have served on.
    fn at_end(&self, at: Instant) -> Option<bool> {
        match self.moments.ended {
            None => Some(false),
            Some((ended, _)) if at + self.blur() < ended => Some(false),
            Some(_) => (self.lag <= LATE && self.moments.orphans.is_empty()).then_some(true),
        }
    }

    /// Whether it is certain that something came when the listener was closed: otherwise the connection
    /// may have been out of its queue by then, and unread all the same.
    fn at_close(&self, at: Instant) -> bool {
        let near = |closed: Instant| at.max(closed) - at.min(closed) <= NEAR;
        self.lag <= NEAR && self.moments.closed.is_some_and(near)
    }

    fn blur(&self) -> Duration {
        self.lag.max(NEAR)
    }

    fn words(&self, cause: Cause, those: &[&Lost]) -> String {
        let after = |at| {
            let after = self.moments.after_signal(at).unwrap_or_default();
            after.as_millis()
        };
        let ended = after(self.moments.ended.map(|(at, _)| at));
        match cause {
            Cause::Unhandled => unhandled(self.moments.signal.unwrap_or_default()),
            Cause::Killed => "the process outstayed its grace and was killed".to_owned(),
            Cause::QueueClosed => {
                "the listener was closed with connections in its queue, which resets them".to_owned()
            }
            Cause::QueueEnded => format!(
                "the process ended {ended} ms after the signal with connections in its listener's queue, which resets them"
            ),
            Cause::Ended(what) => {
                let when = match what {
                    Unfinished::Handshake => "while TLS hands were shaken",
                    Unfinished::Head => "while a head was still arriving",
                    Unfinished::Body => "while a body was still arriving",
                    Unfinished::Unread => "with requests unread in its sockets, which resets them",
                    Unfinished::Unanswered => "before it had answered",
                    Unfinished::Answer => "in the middle of an answer",
                };
                format!("the process ended {ended} ms after the signal, {when}")
            }
            Cause::Closed(what) => {
                let when = match what {
                    Unfinished::Handshake => "while TLS hands were shaken",
                    Unfinished::Head => "while a head was still arriving",
                    Unfinished::Body => "while a body was still arriving",
                    Unfinished::Unread => "with a request unread, which resets it",
                    Unfinished::Unanswered => "after the request had arrived and before an answer",
                    Unfinished::Answer => "in the middle of an answer",
                };
                format!("the connection was closed {when}, and the process went on")
            }
            Cause::Cut => {
                "the connection was closed before the answer had arrived, at the latest by the end of the process".to_owned()
            }
            Cause::LetIn => {
                "the listener stayed open after the signal, and who was let in was not served".to_owned()
            }
            Cause::Failed(status) => {
                let first = those.iter().map(|lost| lost.span.to).min();
                format!(
                    "requests failed ({status}) from {} ms after the signal on, and none did before it",
                    after(first)
                )
            }
        }
    }
}

fn unfinished(lost: &Lost) -> Option<Unfinished> {
    let Evidence { protocol, sent, .. } = lost.evidence;
    match (lost.loss, sent) {
        (Loss::Truncated, _) => Some(Unfinished::Answer),
        (Loss::UploadCut, _) => Some(Unfinished::Body),
        (Loss::Eof | Loss::Reset | Loss::BacklogReset, Sent::Handshake) => {
            Some(Unfinished::Handshake)
        }
        (Loss::Eof | Loss::Reset | Loss::BacklogReset, Sent::PartOfHead) => Some(Unfinished::Head),
        (Loss::Eof, Sent::All) => Some(Unfinished::Unanswered),
        // Other streams' frames may have been what was unread.
        (Loss::Reset | Loss::BacklogReset, Sent::All) if protocol == Protocol::Http2 => {
            Some(Unfinished::Unanswered)
        }
        (Loss::Reset | Loss::BacklogReset, Sent::All) => Some(Unfinished::Unread),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::tests::stop;
    use crate::disposition::Disposition;
    use crate::outcome::{Disclaimed, End, Outcome, Persistence, Taken, judge};
    use crate::process::{Descendant, Ended};
    use crate::tcp::TcpState::{Close, CloseWait, Established};

    const IN_TIME: Duration = Duration::from_millis(5);
    const LATE: Duration = Duration::from_millis(400);

    /// A request that was read from a kept connection, which then got a FIN.
    const READ: Evidence = Evidence {
        protocol: Protocol::Http1,
        reuse: Reuse::Reused,
        before: Some(Established),
        after: Some(Established),
        finally: Some(CloseWait),
        sent: Sent::All,
        taken: Taken::Some,
        seen: Seen::Nothing,
        disclaimed: Disclaimed::No,
        end: End::Eof,
    };
    const UNREAD: Evidence = Evidence {
        finally: Some(Close),
        taken: Taken::Unknown,
        end: End::Reset,
        ..READ
    };
    const QUEUED: Evidence = Evidence {
        reuse: Reuse::Fresh,
        ..UNREAD
    };
    const CUT: Evidence = Evidence {
        seen: Seen::Part,
        ..READ
    };
    const HUNG: Evidence = Evidence {
        end: End::Hung,
        reuse: Reuse::Fresh,
        ..READ
    };
    const HALF_HEAD: Evidence = Evidence {
        sent: Sent::PartOfHead,
        ..READ
    };
    const HALF_BODY: Evidence = Evidence {
        sent: Sent::PartOfBody,
        ..READ
    };
    const FAILED: Evidence = Evidence {
        seen: Seen::Whole {
            status: 500,
            persistence: Persistence::KeepAlive,
        },
        end: End::Answer,
        ..READ
    };

    /// Lost by a client of this kind between these milliseconds after the signal.
    fn lost(moments: &Moments, kind: Kind, evidence: Evidence, from: u64, to: u64) -> Lost {
        let Outcome::Lost(loss) = judge(&evidence) else {
            panic!("{evidence:?} is no loss");
        };
        let at = |millis| moments.signalled.unwrap() + Duration::from_millis(millis);
        let (from, to) = (at(from), at(to));
        Lost {
            kind: Some(kind),
            span: Span { from, to },
            loss,
            evidence,
        }
    }

    #[track_caller]
    fn check(cause: Option<String>, expected: Option<&str>, what: &str) {
        match (&cause, expected) {
            (Some(cause), Some(expected)) => assert!(cause.contains(expected), "{what}: {cause}"),
            (cause, expected) => assert_eq!(cause.as_deref(), expected, "{what}"),
        }
    }

    #[test]
    fn a_loss_is_blamed_on_what_came_with_it() {
        let h2 = |evidence| Evidence {
            protocol: Protocol::Http2,
            ..evidence
        };
        // The listener is closed at 100 ms, and the process ends at 500.
        let table: [(&str, Evidence, u64, Option<&str>); 17] = [
            (
                "queue",
                QUEUED,
                101,
                Some("listener was closed with connections in its queue"),
            ),
            (
                "new, early",
                QUEUED,
                50,
                Some("closed with a request unread"),
            ),
            (
                "new, at the end",
                QUEUED,
                499,
                Some("ended 500 ms after the signal, with requests unread"),
            ),
            (
                "kept",
                UNREAD,
                101,
                Some("closed with a request unread, which resets it"),
            ),
            (
                "kept, at the end",
                UNREAD,
                495,
                Some("with requests unread in its sockets"),
            ),
            (
                "read",
                READ,
                101,
                Some("before an answer, and the process went on"),
            ),
            (
                "read, at the end",
                READ,
                505,
                Some("ended 500 ms after the signal, before it had answered"),
            ),
            (
                "half a head",
                HALF_HEAD,
                101,
                Some("while a head was still arriving"),
            ),
            (
                "half a body",
                HALF_BODY,
                101,
                Some("while a body was still arriving"),
            ),
            (
                "half a body, at the end",
                HALF_BODY,
                500,
                Some("ended 500 ms after the signal, while a body"),
            ),
            (
                "half an answer",
                CUT,
                300,
                Some("closed in the middle of an answer"),
            ),
            (
                "half an answer, at the end",
                CUT,
                500,
                Some("ended 500 ms after the signal, in the middle"),
            ),
            ("HTTP/2", h2(UNREAD), 101, None),
            (
                "HTTP/2, at the end",
                h2(UNREAD),
                500,
                Some("before it had answered"),
            ),
            (
                "an error",
                FAILED,
                40,
                Some("failed (500) from 40 ms after the signal on"),
            ),
            (
                "hung, from before",
                Evidence {
                    reuse: Reuse::Reused,
                    ..HUNG
                },
                900,
                None,
            ),
            (
                "not HTTP",
                Evidence {
                    end: End::Garbled,
                    ..READ
                },
                40,
                None,
            ),
        ];
        let moments = stop(100, 500, Ended::Code(0));
        for (what, evidence, at, expected) in table {
            let lost = lost(&moments, Kind::KeepAlive, evidence, 0, at);
            check(of_losses(&[lost], &moments, IN_TIME), expected, what);
        }
    }

    #[test]
    fn where_we_were_late_nothing_is_said_about_what_came_first() {
        let moments = stop(100, 2000, Ended::Code(0));
        let table = [
            (
                "queue or not",
                QUEUED,
                101,
                Some("closed with a request unread"),
            ),
            ("end or not", READ, 1900, None),
            (
                "long before the end",
                READ,
                101,
                Some("and the process went on"),
            ),
        ];
        for (what, evidence, at, expected) in table {
            let lost = lost(&moments, Kind::KeepAlive, evidence, 0, at);
            check(of_losses(&[lost], &moments, LATE), expected, what);
        }
    }

    #[test]
    fn the_end_of_the_process_explains_what_it_took_along() {
        let term = Ended::Signal(libc::SIGTERM);
        let killed = Moments {
            killed: true,
            ..stop(2, 5000, Ended::Signal(libc::SIGKILL))
        };
        let unhandled = Moments {
            disposition: Some(Disposition::Default),
            ..stop(2, 2, term)
        };
        let left = Moments {
            orphans: vec![Descendant {
                pid: 7,
                command: "worker".to_owned(),
            }],
            ..unhandled.clone()
        };
        let stayed = Moments {
            ended: None,
            stayed: true,
            ..stop(2, 0, term)
        };
        let table = [
            (
                "killed",
                killed,
                CUT,
                5000,
                Some("outstayed its grace and was killed"),
            ),
            (
                "nobody handles it",
                unhandled.clone(),
                UNREAD,
                2,
                Some("SIGTERM itself ended the process"),
            ),
            (
                "nor when we are late",
                unhandled,
                QUEUED,
                90,
                Some("SIGTERM itself ended the process"),
            ),
            ("others are left", left, READ, 2, None),
            (
                "raised again",
                stop(2, 2, term),
                READ,
                2,
                Some("ended 2 ms after the signal"),
            ),
            (
                "at once, with a queue",
                stop(9, 10, Ended::Code(0)),
                QUEUED,
                10,
                Some("in its listener's queue"),
            ),
            (
                "it stayed",
                stayed,
                READ,
                9,
                Some("and the process went on"),
            ),
        ];
        for (what, moments, evidence, at, expected) in table {
            let lost = lost(&moments, Kind::NewConnection, evidence, 0, at);
            check(of_losses(&[lost], &moments, IN_TIME), expected, what);
        }
    }

    #[test]
    fn who_reads_slowly_sees_late_what_came_of_it() {
        let moments = stop(2, 500, Ended::Code(0));
        let cause = |at| {
            let lost = lost(&moments, Kind::SlowReader, CUT, 0, at);
            of_losses(&[lost], &moments, IN_TIME)
        };
        check(
            cause(1500),
            Some("at the latest by the end"),
            "after the end",
        );
        check(
            cause(100),
            Some("and the process went on"),
            "before the end",
        );
    }

    #[test]
    fn who_is_let_in_and_left_alone_came_after_the_signal_and_before_the_close() {
        let moments = stop(1000, 1001, Ended::Code(0));
        for (from, expected) in [(300, Some("who was let in was not served")), (995, None)] {
            let lost = lost(&moments, Kind::NewConnection, HUNG, from, 4000);
            let what = format!("came at {from} ms");
            check(of_losses(&[lost], &moments, IN_TIME), expected, &what);
        }
    }

    #[test]
    fn the_cause_of_most_is_told_with_how_many_they_are() {
        let moments = stop(100, 500, Ended::Code(0));
        let of = |evidence, at| lost(&moments, Kind::KeepAlive, evidence, 0, at);
        let losses = [
            of(READ, 500),
            of(UNREAD, 101),
            of(UNREAD, 102),
            of(HUNG, 3000),
        ];
        let cause = of_losses(&losses, &moments, IN_TIME);
        check(
            cause,
            Some("2 of 4: the connection was closed with a request unread"),
            "most",
        );
        assert_eq!(of_losses(&[], &moments, IN_TIME), None);
    }

    #[test]
    fn what_failed_before_the_signal_is_not_blamed_on_the_stop() {
        let moments = stop(100, 500, Ended::Code(0));
        let after = lost(&moments, Kind::KeepAlive, FAILED, 0, 40);
        let earlier = |at: Instant| at - Duration::from_millis(100);
        let span = Span {
            from: earlier(after.span.from),
            to: earlier(after.span.to),
        };
        let before = Lost { span, ..after };
        assert_eq!(of_losses(&[before, after], &moments, IN_TIME), None);
    }
}
