//! Decides which connections are to end, and when to look again.
//!
//! Pure: a connection's view and the time go in, an order comes out.

use std::time::{Duration, Instant};

use super::Limits;
use crate::core::{Core, StopTimes};
use crate::lifecycle::Phase;
use crate::traffic::Traffic;

/// The least time between two looks while draining: to look at ten thousand connections takes a
/// while.
pub(super) const DRAINING: Duration = Duration::from_millis(20);

/// How long after our FIN a peer may be quiet before it is looked at.
pub(super) const QUIET: Duration = Duration::from_millis(500);

/// What a connection speaks, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Nothing has arrived yet.
    Unknown,
    Http1,
    Http2,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// Nothing, since then.
    Idle(Instant),
    /// A request head began to arrive then.
    Head(Instant),
    /// A request is handled or answered, or the connection is upgraded.
    Busy,
    /// Our FIN went out, or the peer was last looked at, then.
    Closing(Instant),
}

/// How long a peer and we need for the end of one connection, to be on the safe side.
const ENDING: Duration = Duration::from_micros(25);

/// What the judgement is based on.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) number: u64,
    pub(super) protocol: Protocol,
    pub(super) activity: Activity,
    /// Whether hyper has let go of it, or is never to.
    pub(super) rests: bool,
    /// Whether it can go on in a successor.
    pub(super) travels: bool,
    /// Whether it speaks WebSocket since an upgrade.
    pub(super) websocket: bool,
    /// Whether streams of it may go on as something else (HTTP/2).
    pub(super) tunnels: bool,
    /// Whether it ever carried a request.
    pub(super) served: bool,
    /// When it was told to go away (HTTP/2, WebSocket).
    pub(super) told: Option<Instant>,
}

/// What the service is doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) closing_since: Option<Instant>,
    /// Once it drains.
    pub(super) drain: Option<Drain>,
    pub(super) linger: Duration,
    /// How many connections there were when draining began.
    pub(super) crowd: usize,
}

/// The time of a drain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub(super) from: Instant,
    /// When contexts are cancelled.
    pub(super) to: Instant,
    /// How long after that what is left is cut off.
    pub(super) mercy: Duration,
}

impl Stage {
    pub(super) fn of(core: &Core) -> Self {
        let times = core.stop_times();
        let draining = core.phase() >= Phase::Draining;
        let drain = times.map(|StopTimes { schedule, .. }| Drain {
            from: schedule.lame_duck_over,
            to: schedule.cancel,
            mercy: core.budget.mercy,
        });
        Self {
            closing_since: times.map(|times| times.closing_since),
            drain: drain.filter(|_| draining),
            linger: core.budget.linger,
            crowd: if draining {
                core.connections.crowd()
            } else {
                0
            },
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// When traffic of a class is to leave, once the service drains.
    pub(super) fn leave_at(&self, traffic: Traffic, limits: &Limits) -> Option<Instant> {
        let Drain { from, to, mercy } = self.drain?;
        let last = match traffic {
            // Its client has to answer, which takes what is left of mercy.
            Traffic::WebSocket => to,
            // The service had some time to end it in its own way.
            Traffic::Records | Traffic::Stream | Traffic::Grpc => to + mercy / 2,
        };
        let at = from.checked_add(limits.stays.of(traffic));
        Some(at.map_or(last, |at| at.min(last)))
    }
}

/// What a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// See whether the peer still takes what it was sent, or can be left.
    Look,
    /// Let go of hyper and its buffers, if nothing has arrived meanwhile: what is left is a silent
    /// connection. Most never get another request; so the end of the linger has less to do.
    Rest,
    /// Go on in the successor of this process.
    Travel,
    /// Close, if nothing has arrived meanwhile.
    Close,
    /// Answer 408 and close.
    HeadTimeout,
    /// Send GOAWAY in two steps and finish what is open.
    GoAway,
    /// Say close (1001) between two messages of a WebSocket.
    Part,
    /// Drop everything now. Never judged: the control thread orders it.
    Cut,
}

/// An order for now, or the instant at which there could be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    Now(Order),
    At(Instant),
    Never,
}

pub(super) fn judge(now: Instant, view: View, stage: Stage, limits: &Limits) -> Judgement {
    let due = match (view.protocol, view.activity) {
        (_, Activity::Closing(since)) => (since + QUIET, Order::Look),
        (Protocol::Http2, _) => return judge_http2(now, view, stage, limits),
        (_, Activity::Busy) if view.websocket && view.told.is_none() => {
            match stage.leave_at(Traffic::WebSocket, limits) {
                Some(at) => (at, Order::Part),
                None => return Judgement::Never,
            }
        }
        (_, Activity::Busy) => return Judgement::Never,
        (_, Activity::Head(since)) => (since + limits.head_timeout, Order::HeadTimeout),
        (protocol, Activity::Idle(since)) => {
            if stage.is_draining() && view.travels {
                return Judgement::Now(Order::Travel);
            }
            let until = idle_until(since, view.number, stage, limits);
            let awake = protocol == Protocol::Http1 && !view.rests;
            if stage.is_draining() && awake && now < until {
                return Judgement::Now(Order::Rest);
            }
            (until, Order::Close)
        }
    };
    at_or_now(now, due.0, due.1)
}

/// The linger counts from the beginning of the stop, or from when the connection became idle
/// later without having said close.
fn idle_until(since: Instant, number: u64, stage: Stage, limits: &Limits) -> Instant {
    let kept = since + limits.keep_alive;
    match stage.closing_since {
        Some(closing) if stage.is_draining() => {
            let linger = stage.linger - lead(number, stage);
            kept.min(since.max(closing) + linger)
        }
        _ => kept,
    }
}

/// How much earlier than the linger's end this one of many connections ends: thousands that end
/// at one instant keep us, and come back to our successor at one instant, too. In steps, and
/// over no more than half of the linger.
fn lead(number: u64, stage: Stage) -> Duration {
    let crowd = u32::try_from(stage.crowd).unwrap_or(u32::MAX);
    let spread = ENDING.saturating_mul(crowd).min(stage.linger / 2);
    let steps = spread.as_micros() / DRAINING.as_micros();
    DRAINING * (u128::from(number) % (steps + 1)) as u32
}

fn judge_http2(now: Instant, view: View, stage: Stage, limits: &Limits) -> Judgement {
    let idle_since = match view.activity {
        Activity::Idle(since) | Activity::Head(since) => Some(since),
        Activity::Busy | Activity::Closing(_) => None,
    };
    if let Some(told) = view.told {
        if view.tunnels {
            // It ends with its last stream, which only hyper knows.
            return Judgement::Never;
        }
        // GOAWAY is out; a client that neither answers the PING nor has a stream is not waited for.
        return match idle_since {
            Some(since) => at_or_now(now, since.max(told) + stage.linger, Order::Close),
            None => Judgement::Never,
        };
    }
    // Never at the handshake of a lame duck: clients would reconnect in a storm.
    if stage.closing_since.is_some() && (stage.is_draining() || view.served) {
        return Judgement::Now(Order::GoAway);
    }
    match idle_since {
        Some(since) => at_or_now(now, since + limits.keep_alive, Order::GoAway),
        None => Judgement::Never,
    }
}

fn at_or_now(now: Instant, at: Instant, order: Order) -> Judgement {
    if now >= at {
        Judgement::Now(order)
    } else {
        Judgement::At(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_connection_ends_when_it_should() {
        let zero = Instant::now();
        let at = |seconds: u64| zero + Duration::from_secs(seconds);
        let drain = Drain {
            from: at(100),
            to: at(200),
            mercy: Duration::from_secs(1),
        };
        let serving = Stage {
            closing_since: None,
            drain: None,
            linger: Duration::from_secs(1),
            crowd: 799,
        };
        let lame = Stage {
            closing_since: Some(at(100)),
            ..serving
        };
        let draining = Stage {
            drain: Some(drain),
            ..lame
        };
        let crowded = Stage {
            crowd: 1_000_000,
            ..draining
        };
        let view = |protocol, activity| View {
            number: 25,
            protocol,
            activity,
            rests: false,
            travels: false,
            websocket: false,
            tunnels: false,
            served: true,
            told: None,
        };
        use Activity::*;
        use Judgement::*;
        use Protocol::*;
        let table = [
            (
                "kept while serving",
                100,
                view(Http1, Idle(at(50))),
                serving,
                At(at(125)),
            ),
            (
                "keep-alive is over",
                125,
                view(Http1, Idle(at(50))),
                serving,
                Now(Order::Close),
            ),
            (
                "a silent one as well",
                125,
                view(Unknown, Idle(at(50))),
                serving,
                Now(Order::Close),
            ),
            (
                "busy is left alone",
                999,
                view(Http1, Busy),
                draining,
                Never,
            ),
            (
                "a WebSocket is told when draining",
                100,
                View {
                    websocket: true,
                    ..view(Http1, Busy)
                },
                draining,
                Now(Order::Part),
            ),
            (
                "and once",
                100,
                View {
                    websocket: true,
                    told: Some(at(100)),
                    ..view(Http1, Busy)
                },
                draining,
                Never,
            ),
            (
                "an idle one goes to the successor",
                100,
                View {
                    travels: true,
                    ..view(Http1, Idle(at(50)))
                },
                draining,
                Now(Order::Travel),
            ),
            (
                "but not before this process drains",
                100,
                View {
                    travels: true,
                    ..view(Http1, Idle(at(50)))
                },
                serving,
                At(at(125)),
            ),
            (
                "half a head has its own time",
                100,
                view(Http1, Head(at(95))),
                draining,
                At(at(105)),
            ),
            (
                "half a head is over",
                105,
                view(Http1, Head(at(95))),
                draining,
                Now(Order::HeadTimeout),
            ),
            (
                "no linger ends while lame",
                110,
                view(Http1, Idle(at(90))),
                lame,
                At(at(165)),
            ),
            (
                "rest while it lingers",
                100,
                view(Http1, Idle(at(50))),
                draining,
                Now(Order::Rest),
            ),
            (
                "no need to say it twice",
                100,
                View {
                    rests: true,
                    ..view(Http1, Idle(at(50)))
                },
                draining,
                At(at(101)),
            ),
            (
                "in a crowd some end after half of the linger",
                100,
                view(Unknown, Idle(at(50))),
                crowded,
                At(at(101) - Duration::from_millis(500)),
            ),
            (
                "and some at its end",
                100,
                View {
                    number: 26,
                    ..view(Unknown, Idle(at(50)))
                },
                crowded,
                At(at(101)),
            ),
            (
                "linger from closing",
                100,
                view(Unknown, Idle(at(50))),
                draining,
                At(at(101)),
            ),
            (
                "linger from idle",
                103,
                view(Unknown, Idle(at(103))),
                draining,
                At(at(104)),
            ),
            (
                "linger is over",
                104,
                view(Http1, Idle(at(103))),
                draining,
                Now(Order::Close),
            ),
            (
                "goaway while lame",
                100,
                view(Http2, Busy),
                lame,
                Now(Order::GoAway),
            ),
            (
                "no goaway at the handshake of a lame duck",
                100,
                View {
                    served: false,
                    ..view(Http2, Idle(at(100)))
                },
                lame,
                At(at(175)),
            ),
            (
                "a tunnel is not closed after its goaway",
                999,
                View {
                    tunnels: true,
                    told: Some(at(100)),
                    ..view(Http2, Idle(at(100)))
                },
                draining,
                Never,
            ),
            (
                "goaway to all when draining",
                100,
                View {
                    served: false,
                    ..view(Http2, Idle(at(100)))
                },
                draining,
                Now(Order::GoAway),
            ),
            (
                "streams after goaway are waited for",
                300,
                View {
                    told: Some(at(100)),
                    ..view(Http2, Busy)
                },
                draining,
                Never,
            ),
            (
                "no answer to goaway",
                101,
                View {
                    told: Some(at(100)),
                    ..view(Http2, Idle(at(90)))
                },
                draining,
                Now(Order::Close),
            ),
            (
                "time for the peer to close, too",
                110,
                view(Http2, Closing(at(110))),
                draining,
                At(at(110) + QUIET),
            ),
            (
                "a look at a peer that does not",
                111,
                view(Http1, Closing(at(110))),
                serving,
                Now(Order::Look),
            ),
        ];
        for (what, now, view, stage, expected) in table {
            assert_eq!(
                judge(at(now), view, stage, &Limits::default()),
                expected,
                "{what}"
            );
        }
    }

    #[test]
    fn what_may_stay_stays_until_the_drain_is_over_at_the_most() {
        let zero = Instant::now();
        let at = |millis: u64| zero + Duration::from_millis(millis);
        let drain = Drain {
            from: at(1_000),
            to: at(20_000),
            mercy: Duration::from_millis(500),
        };
        let draining = Stage {
            closing_since: Some(zero),
            drain: Some(drain),
            linger: Duration::ZERO,
            crowd: 0,
        };
        let serving = Stage {
            drain: None,
            ..draining
        };
        let table = [
            (Traffic::Records, 0, 1_000),
            (Traffic::Grpc, 5, 6_000),
            (Traffic::Stream, 30, 20_250),
            (Traffic::WebSocket, 30, 20_000),
            (Traffic::Grpc, u64::MAX, 20_250),
        ];
        for (traffic, stay, expected) in table {
            let mut limits = Limits::default();
            limits.stays.set(traffic, Duration::from_secs(stay));
            assert_eq!(draining.leave_at(traffic, &limits), Some(at(expected)));
            assert_eq!(serving.leave_at(traffic, &limits), None);
        }
    }
}
