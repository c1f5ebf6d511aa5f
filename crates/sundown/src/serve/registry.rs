//! Knows every open connection: what it does, since when, and how to reach its task.
//!
//! A connection's state is a few atomics that its own task writes; the reaper and the control
//! thread only read them and leave orders. Never holds the lock across anything that waits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::Limits;
use super::judge::{Activity, Judgement, Order, Protocol, Stage, View, judge};
use crate::context::Context;
use crate::core::{Clock, Core, lock};
use crate::in_flight::Guard;
use crate::report::{ConnectionCounts, CutOff, Work};

/// Every open connection of a service, and how the ended ones ended.
#[derive(Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    counts: Mutex<ConnectionCounts>,
    look: Notify,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    Ended,
    ClosedIdle,
    HeadTimeout,
    Failed,
    CutOff,
}

/// One connection's state.
pub(crate) struct Connection {
    id: u64,
    pub(super) peer: SocketAddr,
    clock: Clock,
    limits: Limits,
    protocol: AtomicU8,
    activity: AtomicU8,
    /// Microseconds of `clock`.
    since: AtomicU64,
    served: AtomicBool,
    /// Microseconds of `clock` plus one; zero is "not told".
    told: AtomicU64,
    order: AtomicU8,
    fate: AtomicU8,
    waker: AtomicWaker,
    requests: Mutex<Vec<Context>>,
}

/// The stages of one HTTP/1 exchange after another, as numbers for an atomic.
mod activity {
    pub(super) const IDLE: u8 = 0;
    pub(super) const HEAD: u8 = 1;
    pub(super) const BUSY: u8 = 2;
    /// The response is written into hyper's buffer but not yet to the kernel.
    pub(super) const FLUSHING: u8 = 3;
    pub(super) const CLOSING: u8 = 4;
    pub(super) const UPGRADED: u8 = 5;
}

mod order {
    pub(super) const NONE: u8 = 0;
    pub(super) const CLOSE: u8 = 1;
    pub(super) const HEAD_TIMEOUT: u8 = 2;
    pub(super) const GO_AWAY: u8 = 3;
    /// The highest: no other order replaces it.
    pub(super) const CUT: u8 = 4;
}

/// Ends a connection's entry when the last owner of its socket is gone.
pub(super) struct Registered {
    pub(super) connection: Arc<Connection>,
    core: Arc<Core>,
    _guard: Guard,
    _place: Option<OwnedSemaphorePermit>,
}

impl Registered {
    pub(super) fn new(
        core: &Arc<Core>,
        peer: SocketAddr,
        limits: Limits,
        guard: Guard,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let connections = &core.connections;
        let connection = Arc::new(Connection {
            id: connections.next.fetch_add(1, Ordering::Relaxed),
            peer,
            clock: core.clock,
            limits,
            protocol: AtomicU8::new(Protocol::Unknown as u8),
            activity: AtomicU8::new(activity::IDLE),
            since: AtomicU64::new(core.clock.micros()),
            served: AtomicBool::new(false),
            told: AtomicU64::new(0),
            order: AtomicU8::new(order::NONE),
            fate: AtomicU8::new(Fate::Ended as u8),
            waker: AtomicWaker::new(),
            requests: Mutex::default(),
        });
        lock(&connections.open).insert(connection.id, connection.clone());
        lock(&connections.counts).accepted += 1;
        Self {
            connection,
            core: core.clone(),
            _guard: guard,
            _place: place,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let connections = &self.core.connections;
        lock(&connections.open).remove(&self.connection.id);
        let mut counts = lock(&connections.counts);
        let counter = match self.connection.fate() {
            Fate::Ended => &mut counts.ended,
            Fate::ClosedIdle => &mut counts.closed_idle,
            Fate::HeadTimeout => &mut counts.head_timeout,
            Fate::Failed => &mut counts.failed,
            Fate::CutOff => &mut counts.cut_off,
        };
        *counter += 1;
    }
}

impl Connection {
    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Ordering::Relaxed);
    }

    /// Bytes arrived: on an idle connection they begin a request head.
    pub(super) fn bytes_arrived(&self) {
        if self.activity.load(Ordering::Relaxed) == activity::IDLE {
            self.enter(activity::HEAD);
        }
    }

    /// A request begins; returns since when, which is its first byte.
    pub(super) fn request_begins(&self) -> Instant {
        let was = self.activity.swap(activity::BUSY, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        if was != activity::HEAD {
            self.since.store(self.clock.micros(), Ordering::Relaxed);
        }
        self.since()
    }

    pub(super) fn add_request(&self, context: Context) {
        lock(&self.requests).push(context);
    }

    /// Forgets a request; true when it was the last.
    pub(super) fn remove_request(&self, context: &Context) -> bool {
        let mut requests = lock(&self.requests);
        if let Some(index) = requests.iter().position(|open| open.is_same(context)) {
            requests.swap_remove(index);
        }
        requests.is_empty()
    }

    /// A response is complete in hyper's buffer.
    pub(super) fn response_ends(&self) {
        if self.protocol() == Protocol::Http2 {
            // Streams are flushed by h2 itself, which also ends the connection.
            self.enter(activity::IDLE);
        } else {
            let _ = self.activity.compare_exchange(
                activity::BUSY,
                activity::FLUSHING,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// hyper's buffer is empty: what was complete is now with the kernel.
    pub(super) fn flushed(&self) {
        if self.activity.load(Ordering::Relaxed) == activity::FLUSHING {
            self.enter(activity::IDLE);
        }
    }

    pub(super) fn closes(&self) {
        self.activity.store(activity::CLOSING, Ordering::Relaxed);
    }

    pub(super) fn upgrades(&self) {
        self.enter(activity::UPGRADED);
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.activity.load(Ordering::Relaxed), activity::IDLE)
    }

    pub(super) fn has_no_request(&self) -> bool {
        lock(&self.requests).is_empty()
    }

    pub(super) fn is_in_head(&self) -> bool {
        self.activity.load(Ordering::Relaxed) == activity::HEAD
    }

    /// Begins the head's time anew: bytes of it were found where nobody had seen them arrive.
    pub(super) fn head_begins(&self) {
        self.enter(activity::HEAD);
    }

    pub(super) fn set_fate(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::Relaxed);
    }

    fn fate(&self) -> Fate {
        [
            Fate::Ended,
            Fate::ClosedIdle,
            Fate::HeadTimeout,
            Fate::Failed,
            Fate::CutOff,
        ]
        .into_iter()
        .find(|fate| *fate as u8 == self.fate.load(Ordering::Relaxed))
        .unwrap_or(Fate::Failed)
    }

    /// Lets the connection's task be woken by orders.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Takes the order that was left, if any. The order to cut stays.
    pub(super) fn take_order(&self) -> Option<Order> {
        let number = self.order.load(Ordering::Acquire);
        if number == order::NONE {
            return None;
        }
        if number != order::CUT {
            let _ = self.order.compare_exchange(
                number,
                order::NONE,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
        match number {
            order::CLOSE => Some(Order::Close),
            order::HEAD_TIMEOUT => Some(Order::HeadTimeout),
            order::GO_AWAY => Some(Order::GoAway),
            _ => Some(Order::Cut),
        }
    }

    pub(super) fn is_cut(&self) -> bool {
        self.order.load(Ordering::Acquire) == order::CUT
    }

    fn give_order(&self, wanted: Order) {
        let number = match wanted {
            Order::Close => order::CLOSE,
            Order::HeadTimeout => order::HEAD_TIMEOUT,
            Order::GoAway => order::GO_AWAY,
            Order::Cut => order::CUT,
        };
        if wanted == Order::GoAway {
            self.told.store(self.clock.micros() + 1, Ordering::Relaxed);
        }
        self.order.fetch_max(number, Ordering::AcqRel);
        self.waker.wake();
    }

    fn enter(&self, activity: u8) {
        self.since.store(self.clock.micros(), Ordering::Relaxed);
        self.activity.store(activity, Ordering::Relaxed);
    }

    fn since(&self) -> Instant {
        self.clock.instant(self.since.load(Ordering::Relaxed))
    }

    fn protocol(&self) -> Protocol {
        match self.protocol.load(Ordering::Relaxed) {
            number if number == Protocol::Http1 as u8 => Protocol::Http1,
            number if number == Protocol::Http2 as u8 => Protocol::Http2,
            _ => Protocol::Unknown,
        }
    }

    fn view(&self) -> View {
        let activity = match self.activity.load(Ordering::Relaxed) {
            activity::IDLE => Activity::Idle(self.since()),
            activity::HEAD => Activity::Head(self.since()),
            _ => Activity::Busy,
        };
        let told = self.told.load(Ordering::Relaxed).checked_sub(1);
        View {
            protocol: self.protocol(),
            activity,
            served: self.served.load(Ordering::Relaxed),
            told: told.map(|micros| self.clock.instant(micros)),
        }
    }

    fn open_work(&self, now: Instant) -> Vec<CutOff> {
        let peer = Some(self.peer);
        let requests = lock(&self.requests);
        if !requests.is_empty() {
            let named = requests.iter().filter_map(Context::request);
            return named
                .map(|request| {
                    let name = format!("{} {}", request.method, request.path());
                    CutOff::new(
                        Work::Request,
                        name,
                        peer,
                        now.saturating_duration_since(request.since),
                    )
                })
                .collect();
        }
        let work = match self.activity.load(Ordering::Relaxed) {
            activity::HEAD if self.protocol() != Protocol::Http2 => Work::RequestHead,
            activity::UPGRADED => Work::Upgraded,
            activity::FLUSHING => Work::Request,
            _ => return Vec::new(),
        };
        let age = now.saturating_duration_since(self.since());
        vec![CutOff::new(
            work,
            "(unread or unsent)".to_owned(),
            peer,
            age,
        )]
    }
}

impl Connections {
    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        lock(&self.open).len()
    }

    pub(crate) fn counts(&self) -> ConnectionCounts {
        *lock(&self.counts)
    }

    /// What is under way, for the report.
    pub(crate) fn open_requests(&self, now: Instant) -> Vec<CutOff> {
        let open: Vec<_> = lock(&self.open).values().cloned().collect();
        open.iter()
            .flat_map(|connection| connection.open_work(now))
            .collect()
    }

    /// Wakes the reaper: the phase has changed.
    pub(crate) fn look_again(&self) {
        self.look.notify_one();
    }

    pub(super) async fn looked_for(&self) {
        self.look.notified().await;
    }

    /// Drops every connection.
    pub(crate) fn cut_all(&self) {
        let open: Vec<_> = lock(&self.open).values().cloned().collect();
        for connection in open {
            connection.give_order(Order::Cut);
        }
    }

    /// Gives the orders that are due; returns when the next could be.
    pub(super) fn judge_all(&self, now: Instant, stage: Stage) -> Option<Instant> {
        let open = lock(&self.open);
        let mut next: Option<Instant> = None;
        for connection in open.values() {
            match judge(now, connection.view(), stage, &connection.limits) {
                Judgement::Now(order) => connection.give_order(order),
                Judgement::At(at) => next = Some(next.map_or(at, |next| next.min(at))),
                Judgement::Never => {}
            }
        }
        next
    }
}
