//! Knows every open connection: what it does, since when, and how to reach its task.
//!
//! A connection's state is a few atomics that its own task writes; the reaper and the control
//! thread only read them and leave orders. Never holds the lock across anything that waits.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::Limits;
use super::judge::{Activity, DRAINING, Judgement, Order, Protocol, Stage, View, judge};
use super::requests::{Ending, Named, Requests, Ticket};
use crate::core::{Core, lock};
use crate::in_flight::Guard;
use crate::report::{ConnectionCounts, CutOff, RequestCounts, Work};
use crate::restart::Passage;
#[cfg(feature = "tls")]
use crate::tls::ClientCertificates;
use crate::traffic::Traffic;

/// Every open connection of a service, and how the ended ones ended.
#[derive(Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    counts: Mutex<Counts>,
    crowd: OnceLock<usize>,
    look: Notify,
    /// That nobody looks until there is a connection. Changes only while `open` is locked.
    unwatched: AtomicBool,
}

/// Of the connections that have ended, and of their requests.
#[derive(Default)]
struct Counts {
    connections: ConnectionCounts,
    requests: RequestCounts,
}

/// When connections are to be looked at again.
pub(super) enum Next {
    /// Once there are some; whoever is the first wakes the reaper.
    Never,
    /// At the latest then, where something is foreseen.
    By(Option<Instant>),
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fate {
    Ended,
    ClosedIdle,
    HeadTimeout,
    HandedOver,
    Failed,
    CutOff,
}

/// How a request ended, as its response knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It did not: whoever had it let go of it.
    Open,
    /// Answered in full.
    Finished,
    /// Ended in order, though more was to come.
    EndedEarly,
    /// Ended where its client sees that more was to come.
    Broken,
}

/// One connection's state.
pub(crate) struct Connection {
    id: u64,
    /// The other end of the socket, where that has an address.
    neighbour: Option<SocketAddr>,
    /// Who a proxy says that it is, once it has said something.
    announced: OnceLock<Option<SocketAddr>>,
    pub(super) core: Arc<Core>,
    pub(super) limits: Limits,
    protocol: AtomicU8,
    activity: AtomicU8,
    body: AtomicU8,
    /// Microseconds of `clock`.
    since: AtomicU64,
    rests: AtomicBool,
    /// Its way to a successor, where it could go on.
    passage: OnceLock<Arc<Passage>>,
    /// It has gone that way; one that came back goes no second time.
    left: AtomicBool,
    websocket: AtomicBool,
    /// A stream of HTTP/2 went on as something else; nobody says when that is over.
    tunnels: AtomicBool,
    served: AtomicBool,
    /// Microseconds of `clock` plus one; zero is "not told".
    told: AtomicU64,
    order: AtomicU8,
    fate: AtomicU8,
    /// The task that has it: the one that serves it, the one that minds those that rest, or after an
    /// upgrade the one that closes it.
    task: Mutex<Option<Waker>>,
    requests: Requests,
    /// What the client has shown of itself.
    #[cfg(feature = "tls")]
    pub(super) certificates: OnceLock<ClientCertificates>,
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
    pub(super) const HANDSHAKE: u8 = 6;
    /// A handler of raw connections has it.
    pub(super) const RAW: u8 = 7;
}

/// What is left of an HTTP/1 request's body, which may outlive the response.
mod body {
    pub(super) const NONE: u8 = 0;
    /// The service has it.
    pub(super) const OPEN: u8 = 1;
    /// The service let go of it before its end.
    pub(super) const UNREAD: u8 = 2;
}

mod order {
    pub(super) const NONE: u8 = 0;
    pub(super) const LOOK: u8 = 1;
    pub(super) const REST: u8 = 2;
    pub(super) const TRAVEL: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const HEAD_TIMEOUT: u8 = 5;
    pub(super) const GO_AWAY: u8 = 6;
    pub(super) const PART: u8 = 7;
    /// The highest: no other order replaces it.
    pub(super) const CUT: u8 = 8;
}

/// A connection's entry, which ends with the last that belongs to the connection: its socket, its
/// task, a request, also one that outlives the socket by the time it takes to drop it.
pub(super) struct Registered {
    connection: Arc<Connection>,
    _guard: Guard,
    _place: Option<OwnedSemaphorePermit>,
}

impl Registered {
    pub(super) fn new(
        core: &Arc<Core>,
        peer: Option<SocketAddr>,
        limits: Limits,
        guard: Guard,
        place: Option<OwnedSemaphorePermit>,
    ) -> Arc<Self> {
        let connections = &core.connections;
        let connection = Arc::new(Connection {
            id: connections.next.fetch_add(1, Ordering::Relaxed),
            neighbour: peer,
            announced: OnceLock::new(),
            core: core.clone(),
            limits,
            protocol: AtomicU8::new(Protocol::Unknown as u8),
            activity: AtomicU8::new(activity::IDLE),
            body: AtomicU8::new(body::NONE),
            since: AtomicU64::new(core.clock.micros()),
            rests: AtomicBool::new(false),
            passage: OnceLock::new(),
            left: AtomicBool::new(false),
            websocket: AtomicBool::new(false),
            tunnels: AtomicBool::new(false),
            served: AtomicBool::new(false),
            told: AtomicU64::new(0),
            order: AtomicU8::new(order::NONE),
            fate: AtomicU8::new(Fate::Ended as u8),
            task: Mutex::default(),
            requests: Requests::default(),
            #[cfg(feature = "tls")]
            certificates: OnceLock::new(),
        });
        lock(&connections.open).insert(connection.id, connection.clone());
        if connections.unwatched.load(Ordering::Relaxed) {
            connections.look_again();
        }
        lock(&connections.counts).connections.accepted += 1;
        Arc::new(Self {
            connection,
            _guard: guard,
            _place: place,
        })
    }
}

impl Deref for Registered {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let connection = &self.connection;
        let connections = &connection.core.connections;
        let mut open = lock(&connections.open);
        let mut counts = lock(&connections.counts);
        open.remove(&connection.id);
        counts.requests += connection.requests.counts();
        let ended = &mut counts.connections;
        let counter = match connection.fate() {
            Fate::Ended => &mut ended.ended,
            Fate::ClosedIdle => &mut ended.closed_idle,
            Fate::HeadTimeout => &mut ended.head_timeout,
            Fate::HandedOver => &mut ended.handed_over,
            Fate::Failed => &mut ended.failed,
            Fate::CutOff => &mut ended.cut_off,
        };
        *counter += 1;
    }
}

impl Connection {
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Ordering::Relaxed);
    }

    /// Bytes arrived: on an idle connection they begin a request head.
    pub(super) fn bytes_arrived(&self) {
        if self.activity.load(Ordering::Relaxed) == activity::IDLE
            && self.body.load(Ordering::Relaxed) == body::NONE
        {
            self.enter(activity::HEAD);
        }
    }

    /// Bytes went out. On HTTP/2 they may be of a response that is over for us and waits in h2 for
    /// the client's window: the connection is not idle.
    pub(super) fn bytes_left(&self) {
        if self.protocol() == Protocol::Http2 {
            self.since
                .store(self.core.clock.micros(), Ordering::Relaxed);
        }
    }

    /// A request's body begins to arrive, on HTTP/1.
    pub(super) fn body_begins(&self) {
        self.body.store(body::OPEN, Ordering::Relaxed);
    }

    /// The service has read a body to its end, or let go of it before.
    pub(super) fn body_ends(&self, whole: bool) {
        let body = if whole { body::NONE } else { body::UNREAD };
        self.since
            .store(self.core.clock.micros(), Ordering::Relaxed);
        self.body.store(body, Ordering::Release);
    }

    pub(super) fn has_unread_body(&self) -> bool {
        self.body.load(Ordering::Acquire) == body::UNREAD
    }

    /// A request begins; returns since when, which is its first byte.
    pub(super) fn request_begins(&self) -> u64 {
        // On HTTP/2 the bytes before it may be of any frame.
        let began_before = self.activity.load(Ordering::Relaxed) == activity::HEAD
            && self.protocol() != Protocol::Http2;
        if !began_before {
            self.since
                .store(self.core.clock.micros(), Ordering::Relaxed);
        }
        self.body.store(body::NONE, Ordering::Relaxed);
        self.activity.store(activity::BUSY, Ordering::Release);
        self.served.store(true, Ordering::Relaxed);
        self.since.load(Ordering::Relaxed)
    }

    pub(super) fn add_request(&self, request: Named) -> Ticket {
        self.requests.begin(request)
    }

    /// Remembers a request by name for as long as the connection goes on as what it was upgraded to.
    pub(super) fn keep_name(&self, ticket: Ticket) {
        self.requests.keep_name(ticket);
    }

    /// A response is complete in hyper's buffer, or never will be.
    pub(super) fn request_ends(&self, ticket: Ticket, outcome: Outcome) {
        let ending = match outcome {
            Outcome::Finished => Ending::Finished {
                stopping: self.core.is_closing(),
            },
            Outcome::EndedEarly => Ending::EndedEarly,
            Outcome::Broken => {
                self.note_broken(ticket);
                Ending::CutOff
            }
            Outcome::Open if self.is_cut() => Ending::CutOff,
            Outcome::Open => Ending::Abandoned,
        };
        let was_last = self.requests.end(ticket, ending);
        if self.protocol() == Protocol::Http2 {
            self.stream_ends(was_last);
        } else if self.activity.load(Ordering::Relaxed) == activity::BUSY {
            self.activity.store(activity::FLUSHING, Ordering::Relaxed);
        }
    }

    /// A response is cut off on its own, before everything is.
    fn note_broken(&self, ticket: Ticket) {
        let now = Instant::now();
        let broken = self.requests.describe(ticket, |request| {
            let since = self.core.clock.instant(request.since);
            let age = now.saturating_duration_since(since);
            CutOff::new(Work::Request, request.route(), self.peer(), age)
        });
        self.core.findings().broken.extend(broken);
        if self.protocol() != Protocol::Http2 {
            // Nothing can follow on it.
            self.set_fate(Fate::CutOff);
        }
    }

    /// Whether responses of this class are to end by now.
    pub(super) fn is_to_leave(&self, traffic: Traffic) -> bool {
        self.core.is_closing()
            && self
                .leave_at(traffic, Stage::of(&self.core))
                .is_some_and(|at| at <= Instant::now())
    }

    /// Lets a task be woken when a response of this class is to end; true when it is by now.
    pub(super) fn waits_to_leave(&self, ticket: Ticket, traffic: Traffic, task: &Waker) -> bool {
        self.requests.wait(ticket, traffic, task);
        // Afterwards: the reaper may have looked in between.
        self.is_to_leave(traffic)
    }

    fn leave_at(&self, traffic: Traffic, stage: Stage) -> Option<Instant> {
        stage.leave_at(traffic, &self.limits)
    }

    /// Streams are flushed by h2 itself, which also ends the connection.
    fn stream_ends(&self, was_last: bool) {
        if was_last {
            self.enter(activity::IDLE);
        }
        if self.core.is_closing() && self.told.load(Ordering::Relaxed) == 0 {
            // A lame duck's connection goes away as soon as it has served.
            self.judge(Instant::now(), Stage::of(&self.core));
        }
    }

    /// hyper's buffer is empty: what was complete is now with the kernel.
    pub(super) fn flushed(&self) {
        if self.activity.load(Ordering::Relaxed) == activity::FLUSHING {
            self.enter(activity::IDLE);
        }
    }

    /// Our FIN goes out, or the peer has been looked at since.
    pub(super) fn closes(&self) {
        self.enter(activity::CLOSING);
    }

    pub(super) fn upgrades(&self) {
        // Whoever has it since may be closing it already.
        let _ = self
            .activity
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |activity| {
                (activity != activity::CLOSING).then_some(activity::UPGRADED)
            });
    }

    /// Whether it goes on as something else than HTTP, by an upgrade.
    pub(super) fn is_upgraded(&self) -> bool {
        self.is_websocket() || self.activity.load(Ordering::Relaxed) == activity::UPGRADED
    }

    /// A handler has its bytes to itself; the report calls it by this name.
    pub(super) fn becomes_raw(&self, name: String) {
        self.enter(activity::RAW);
        let since = self.since.load(Ordering::Relaxed);
        self.requests.go_by(name, since);
    }

    /// A request was answered by an upgrade to WebSocket.
    pub(super) fn becomes_websocket(&self) {
        self.websocket.store(true, Ordering::Relaxed);
    }

    /// A stream goes on as something else, for as long as hyper keeps the connection.
    pub(super) fn has_tunnel(&self) {
        self.tunnels.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_websocket(&self) -> bool {
        self.websocket.load(Ordering::Relaxed)
    }

    pub(super) fn has_no_request(&self) -> bool {
        self.requests.is_empty()
    }

    /// The first byte of what comes before all requests has arrived: a proxy's header, a handshake.
    pub(super) fn handshake_begins(&self) {
        self.enter(activity::HANDSHAKE);
    }

    /// A request may follow.
    pub(super) fn handshake_ends(&self) {
        self.enter(activity::IDLE);
    }

    /// Whether a proxy has yet to say whose connection it is.
    pub(super) fn is_unannounced(&self) -> bool {
        self.limits.proxy_protocol && self.announced.get().is_none()
    }

    /// A proxy has said whose connection it is, or that it is its own.
    pub(super) fn is_announced(&self, peer: Option<SocketAddr>) {
        let _ = self.announced.set(peer);
        self.handshake_ends();
    }

    /// Whom a proxy has announced, if one has spoken.
    pub(super) fn announced(&self) -> Option<Option<SocketAddr>> {
        self.announced.get().copied()
    }

    /// The client's address, where it has one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.announced.get().copied().flatten().or(self.neighbour)
    }

    /// Begins the head's time anew: bytes of it were found where nobody had seen them arrive.
    pub(super) fn head_begins(&self) {
        self.enter(activity::HEAD);
    }

    pub(super) fn set_fate(&self, fate: Fate) {
        self.fate.store(fate as u8, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, error: &(dyn std::error::Error + 'static)) {
        tracing::debug!(target: "sundown", peer = ?self.peer(), error, "connection failed");
        if self.fate() != Fate::CutOff {
            self.set_fate(Fate::Failed);
        }
    }

    fn fate(&self) -> Fate {
        [
            Fate::Ended,
            Fate::ClosedIdle,
            Fate::HeadTimeout,
            Fate::HandedOver,
            Fate::Failed,
            Fate::CutOff,
        ]
        .into_iter()
        .find(|fate| *fate as u8 == self.fate.load(Ordering::Relaxed))
        .unwrap_or(Fate::Failed)
    }

    /// Lets orders wake the task that has the connection now. It looks for one afterwards: an order
    /// that came before found nobody to wake.
    pub(super) fn wake_for_orders(&self, task: Waker) {
        *lock(&self.task) = Some(task);
    }

    /// hyper has let go of it, or has it again.
    pub(super) fn rests(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// It can go on in a successor of this process: there is nothing to it but a socket.
    pub(super) fn may_travel(&self, passage: Arc<Passage>) {
        let _ = self.passage.set(passage);
    }

    /// Its way to the successor, if that is open.
    pub(super) fn passage(&self) -> Option<&Arc<Passage>> {
        self.passage.get().filter(|passage| passage.is_open())
    }

    /// Whether it will go on in a successor, so that its client need not be told anything.
    pub(super) fn travels(&self) -> bool {
        self.passage().is_some()
            && self.protocol() != Protocol::Http2
            && !self.left.load(Ordering::Relaxed)
    }

    /// It goes to the successor.
    pub(super) fn leaves(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// There is more to it than a socket: hyper keeps it to its end.
    pub(super) fn never_rests(&self) {
        self.rests(true);
    }

    /// Takes the order that was left, if any. The order to cut stays, and the one to look is for
    /// whoever closes.
    pub(super) fn take_order(&self) -> Option<Order> {
        let number = self.order.load(Ordering::Acquire);
        let order = match number {
            // These are for whoever has the socket.
            order::NONE | order::LOOK | order::PART => return None,
            order::REST => Order::Rest,
            order::TRAVEL => Order::Travel,
            order::CLOSE => Order::Close,
            order::HEAD_TIMEOUT => Order::HeadTimeout,
            order::GO_AWAY => Order::GoAway,
            _ => return Some(Order::Cut),
        };
        self.remove_order(number);
        // A request may have overtaken it. GOAWAY is right whatever has come since.
        let stage = Stage::of(&self.core);
        let still = judge(Instant::now(), self.view(), stage, &self.limits);
        (order == Order::GoAway || still == Judgement::Now(order)).then_some(order)
    }

    /// Takes the order to look; true when there was one.
    pub(super) fn take_order_to_look(&self) -> bool {
        let number = self.order.load(Ordering::Acquire);
        // Any other was overtaken by an upgrade; it must not keep the order to look away.
        !matches!(number, order::NONE | order::CUT)
            && self.remove_order(number)
            && number == order::LOOK
    }

    /// Takes the order to say the last word on a WebSocket; true when there was one.
    pub(super) fn take_order_to_part(&self) -> bool {
        self.order.load(Ordering::Acquire) == order::PART && self.remove_order(order::PART)
    }

    /// Removes an order, unless a higher one has replaced it.
    fn remove_order(&self, number: u8) -> bool {
        let removed =
            self.order
                .compare_exchange(number, order::NONE, Ordering::AcqRel, Ordering::Acquire);
        removed.is_ok()
    }

    pub(super) fn has_order(&self) -> bool {
        self.order.load(Ordering::Acquire) != order::NONE
    }

    pub(super) fn is_cut(&self) -> bool {
        self.order.load(Ordering::Acquire) == order::CUT
    }

    fn give_order(&self, wanted: Order) {
        let number = match wanted {
            Order::Look => order::LOOK,
            Order::Rest => order::REST,
            Order::Travel => order::TRAVEL,
            Order::Close => order::CLOSE,
            Order::HeadTimeout => order::HEAD_TIMEOUT,
            Order::GoAway => order::GO_AWAY,
            Order::Part => order::PART,
            Order::Cut => order::CUT,
        };
        if matches!(wanted, Order::GoAway | Order::Part) {
            let now = self.core.clock.micros();
            self.told.store(now + 1, Ordering::Relaxed);
        }
        self.order.fetch_max(number, Ordering::AcqRel);
        if let Some(task) = &*lock(&self.task) {
            task.wake_by_ref();
        }
    }

    /// Gives the order that is due; returns when one could be.
    fn judge(&self, now: Instant, stage: Stage) -> Option<Instant> {
        let own = match judge(now, self.view(), stage, &self.limits) {
            Judgement::Now(order) => {
                self.give_order(order);
                // One that rests is to be closed later.
                // And one that cannot travel yet looked at again.
                matches!(order, Order::Rest | Order::Travel).then(|| now + DRAINING)
            }
            Judgement::At(at) => Some(at),
            Judgement::Never => None,
        };
        let responses = stage.is_draining().then(|| {
            let leave_at = |traffic| self.leave_at(traffic, stage);
            self.requests.wake_leaving(now, leave_at)
        });
        own.into_iter().chain(responses.flatten()).min()
    }

    fn enter(&self, activity: u8) {
        self.since
            .store(self.core.clock.micros(), Ordering::Relaxed);
        // Whoever sees the activity sees since when.
        self.activity.store(activity, Ordering::Release);
    }

    fn since(&self) -> Instant {
        self.core.clock.instant(self.since.load(Ordering::Relaxed))
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.protocol.load(Ordering::Relaxed) {
            number if number == Protocol::Http1 as u8 => Protocol::Http1,
            number if number == Protocol::Http2 as u8 => Protocol::Http2,
            _ => Protocol::Unknown,
        }
    }

    fn view(&self) -> View {
        let body = self.body.load(Ordering::Acquire);
        let activity = match self.activity.load(Ordering::Acquire) {
            activity::IDLE if body == body::OPEN => Activity::Busy,
            activity::IDLE => Activity::Idle(self.since()),
            // Both have to arrive within one time.
            activity::HEAD | activity::HANDSHAKE => Activity::Head(self.since()),
            activity::CLOSING => Activity::Closing(self.since()),
            _ => Activity::Busy,
        };
        let told = self.told.load(Ordering::Relaxed).checked_sub(1);
        View {
            number: self.id,
            protocol: self.protocol(),
            activity,
            rests: self.rests.load(Ordering::Relaxed),
            travels: self.travels() && body != body::UNREAD,
            websocket: self.is_websocket(),
            tunnels: self.tunnels.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            told: told.map(|micros| self.core.clock.instant(micros)),
        }
    }

    fn open_work(&self, now: Instant) -> Vec<CutOff> {
        let peer = self.peer();
        let age = |since| now.saturating_duration_since(self.core.clock.instant(since));
        let requests = self
            .requests
            .map(|request| CutOff::new(Work::Request, request.route(), peer, age(request.since)));
        if !requests.is_empty() {
            return requests;
        }
        let work = match self.activity.load(Ordering::Relaxed) {
            activity::HEAD if self.protocol() != Protocol::Http2 => Work::RequestHead,
            activity::HANDSHAKE => Work::Handshake,
            activity::UPGRADED => Work::Upgraded,
            activity::RAW => Work::Connection,
            activity::FLUSHING => Work::Request,
            _ if self.tunnels.load(Ordering::Relaxed) => Work::Upgraded,
            _ if self.body.load(Ordering::Acquire) == body::OPEN => Work::Request,
            _ => return Vec::new(),
        };
        if let (Work::Upgraded | Work::Connection, Some((name, since))) =
            (work, self.requests.kept_name())
        {
            return vec![CutOff::new(work, name, peer, age(since))];
        }
        let age = age(self.since.load(Ordering::Relaxed));
        let name = "(unread or unsent)".to_owned();
        vec![CutOff::new(work, name, peer, age)]
    }
}

impl Connections {
    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        lock(&self.open).len()
    }

    /// How many were open when this was first asked.
    pub(super) fn crowd(&self) -> usize {
        *self.crowd.get_or_init(|| self.len())
    }

    pub(crate) fn counts(&self) -> ConnectionCounts {
        lock(&self.counts).connections
    }

    /// Requests by outcome, those of open connections included; what was cut off is named, and not
    /// counted here.
    pub(crate) fn request_counts(&self) -> RequestCounts {
        let open = lock(&self.open);
        let mut counts = lock(&self.counts).requests;
        for connection in open.values() {
            counts += connection.requests.counts();
        }
        counts
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

    /// Gives the orders that are due; returns when the next could be, and looks no more where there is nobody.
    pub(super) fn judge_all(&self, now: Instant, stage: Stage) -> Next {
        let open = lock(&self.open);
        self.unwatched.store(open.is_empty(), Ordering::Relaxed);
        if open.is_empty() {
            return Next::Never;
        }
        let orders = open
            .values()
            .filter_map(|connection| connection.judge(now, stage));
        Next::By(orders.min())
    }
}

#[cfg(test)]
mod tests;
