//! Accepts connections, and closes a listener so that nobody in its queue is lost.
//!
//! The order was measured: deafen (or fence), wait for handshakes under way, sweep the queue,
//! close. Closing at once reset 668 connections in 30 stops, this none.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
#[cfg(feature = "tls")]
use tokio_util::task::AbortOnDropHandle;

use super::Limits;
use super::bind::{LocalAddress, Open};
use super::connection::Serving;
use super::exchange::{Exchanges, HttpService};
use super::io::Io;
use super::queue::{Queue, Taken};
use super::raw::{Connection, Raw};
use super::registry::Registered;
use super::rest::Door;
use super::socket::Socket;
#[cfg(feature = "tls")]
use super::tls::Tls;
use super::travel;
use crate::context::Context;
use crate::core::Core;
use crate::error::BoxError;
use crate::in_flight::Guard;
use crate::lifecycle::Phase;
use crate::report::{ListenerReport, ListenerStop};
use crate::restart::{Arrival, Passage};
#[cfg(feature = "tls")]
use crate::tls::Certificates;

/// How long the kernel's handshakes under way may take. After that it would say again what it has said
/// (TCP_TIMEOUT_INIT, a second), and whoever has not answered by then has not heard it, or never will.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// The same where the kernel cannot be asked whether there are any, or keeps nobody out: a round trip of
/// most clients.
const UNKNOWN: Duration = Duration::from_millis(50);

/// How often the queue is looked at during the sweep.
const SWEEP_STEP: Duration = Duration::from_millis(2);

/// The pauses after an accept that failed for want of resources.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A socket that listens, and what the service knows of it.
pub(crate) struct Listening {
    pub(crate) name: String,
    pub(crate) address: LocalAddress,
    pub(crate) listener: Open,
    pub(crate) shared: bool,
    pub(crate) limits: Limits,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<Certificates>>,
}

/// Accepts for one listener until its end; made where the service's type is still known.
pub(crate) type Serve =
    Box<dyn FnOnce(Arc<Core>, Listening) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What becomes of each connection of a listener.
pub(super) trait Take: Send + Sync + 'static {
    /// Whether an idle one can go on in another process.
    const TRAVELS: bool;

    /// Ends what still waits when it is dropped.
    type End: Send;

    /// Begins with one.
    fn take(&self, io: Io);

    fn end(&self) -> Self::End;
}

/// Serves HTTP; forgets the service's type.
pub(crate) fn start<S: HttpService + Sync>(
    #[cfg_attr(not(feature = "axum"), expect(unused_mut))] mut service: S,
) -> Serve {
    #[cfg(feature = "axum")]
    settle_routes(&mut service);
    serve(|_| Http {
        service,
        door: Door::new(),
    })
}

/// Serves raw connections; forgets the handler's type.
pub(crate) fn start_raw<H, F>(handler: H) -> Serve
where
    H: Fn(Connection, Context) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    serve(|name| Raw::new(name, handler))
}

fn serve<T: Take>(make: impl FnOnce(&str) -> T + Send + 'static) -> Serve {
    Box::new(move |core, listening| {
        let take = make(&listening.name);
        // Here and not in the task: before the first of them can come, and before a stop can be over.
        let arrivals = core.succession.awaits(&listening.name);
        let guard = core.in_flight.enter();
        Box::pin(async move {
            if let Some(guard) = guard {
                run(core, listening, take, arrivals, guard).await;
            }
        })
    })
}

/// Speaks HTTP on each connection.
struct Http<S: HttpService> {
    service: S,
    door: Door<S>,
}

impl<S: HttpService + Sync> Take for Http<S> {
    const TRAVELS: bool = true;

    type End = CloseAtEnd<S>;

    fn take(&self, io: Io) {
        let exchanges = Exchanges::new(self.service.clone(), io.connection().clone());
        tokio::spawn(Serving::new(io, exchanges, self.door.clone()));
    }

    fn end(&self) -> CloseAtEnd<S> {
        CloseAtEnd(self.door.clone())
    }
}

/// Ends what rests, also when this listener's task is dropped or unwinds.
struct CloseAtEnd<S: HttpService>(Door<S>);

impl<S: HttpService> Drop for CloseAtEnd<S> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Lets an axum router make its routes now rather than for each request, as `axum::serve` does;
/// its documentation recommends that to whoever serves one.
#[cfg(feature = "axum")]
fn settle_routes(service: &mut dyn std::any::Any) {
    if let Some(router) = service.downcast_mut::<axum::Router>() {
        *router = std::mem::take(router).with_state(());
    }
}

/// Its guard holds the drain open until the queue is swept.
async fn run<T: Take>(
    core: Arc<Core>,
    listening: Listening,
    take: T,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    guard: Guard,
) {
    let Listening {
        name,
        address,
        listener,
        shared,
        limits,
        #[cfg(feature = "tls")]
        tls,
    } = listening;
    let queue = match Queue::of(listener) {
        Ok(queue) => Arc::new(queue),
        Err(error) => {
            let failure = format!("listener {name}: {error}");
            return core.findings().failures.push(failure);
        }
    };
    #[cfg(feature = "tls")]
    let _renewal = tls.clone().map(|certificates| {
        let (core, name) = (core.clone(), name.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            certificates.renew(&core, &name).await;
        }))
    });
    let places = Arc::new(Semaphore::new(
        limits.connections.min(Semaphore::MAX_PERMITS),
    ));
    let passage = core.succession.add(&name, &queue, shared);
    let released = core.clone();
    let accepting = Accepting {
        core,
        take,
        passage,
        limits,
        places,
        #[cfg(feature = "tls")]
        tls,
    };
    let _end = accepting.take.end();
    accepting.until_draining(&queue, arrivals).await;
    accepting.stop(name, address, queue, shared).await;
    // What the service holds may be what a worker waits for the end of.
    drop(accepting);
    drop(guard);
    released.reached(Phase::Releasing).await;
}

struct Accepting<T: Take> {
    core: Arc<Core>,
    take: T,
    passage: Arc<Passage>,
    limits: Limits,
    places: Arc<Semaphore>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<Certificates>>,
}

impl<T: Take> Accepting<T> {
    async fn until_draining(&self, queue: &Queue, mut arrivals: mpsc::UnboundedReceiver<Arrival>) {
        let mut draining = pin!(self.core.reached(Phase::Draining));
        let mut pause = FIRST_PAUSE;
        loop {
            let next = async {
                let place = self.places.clone().acquire_owned().await.ok();
                (queue.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                biased;
                () = &mut draining => return,
                Some(arrival) = arrivals.recv() => {
                    self.welcome(arrival);
                    continue;
                }
                accepted = next => accepted,
            };
            match accepted {
                Ok(taken) => {
                    pause = FIRST_PAUSE;
                    self.admit(taken, place);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(target: "sundown", %error, ?pause, "cannot accept");
                    tokio::select! {
                        () = &mut draining => return,
                        () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    }
                }
            }
        }
    }

    fn admit(&self, (socket, peer): Taken, place: Option<OwnedSemaphorePermit>) {
        let Some(connection) = self.register(&socket, peer, place) else {
            return;
        };
        let socket = self.under(socket, &connection);
        self.take.take(Io::new(socket, connection));
    }

    /// Takes over a connection of the process before this one, if it is of a kind that is spoken here.
    fn welcome(&self, arrival: Arrival) {
        if !T::TRAVELS || self.speaks_tls() {
            return;
        }
        let (socket, bytes, announced, answer) = arrival.take();
        let Ok(socket) = Socket::of(socket) else {
            return;
        };
        let place = self.places.clone().try_acquire_owned().ok();
        let Some(connection) = self.register(&socket, socket.peer(), place) else {
            return;
        };
        if let Some(peer) = announced {
            connection.is_announced(peer);
        }
        self.take
            .take(travel::arrived(socket, &connection, bytes.into()));
        answer.taken();
    }

    fn register(
        &self,
        socket: &Socket,
        peer: Option<SocketAddr>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Option<Arc<Registered>> {
        // The listener's own guard is alive, so the drain is not over and this never refuses.
        let guard = self.core.in_flight.enter()?;
        let connection = Registered::new(&self.core, peer, self.limits, guard, place);
        if !socket.can_rest() {
            connection.never_rests();
        }
        if T::TRAVELS && socket.is_plain() && !self.speaks_tls() {
            connection.may_travel(self.passage.clone());
        }
        Some(connection)
    }

    #[cfg(feature = "tls")]
    fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    fn speaks_tls(&self) -> bool {
        false
    }

    /// Lets TLS be spoken on it, where it is to be.
    #[cfg(feature = "tls")]
    fn under(&self, socket: Socket, connection: &Arc<Registered>) -> Socket {
        match (&self.tls, socket) {
            (Some(certificates), Socket::Plain(stream)) => {
                connection.never_rests();
                let tls = Tls::new(stream, certificates.current(), connection.clone());
                Socket::Tls(Box::new(tls))
            }
            (_, socket) => socket,
        }
    }

    #[cfg(not(feature = "tls"))]
    fn under(&self, socket: Socket, _: &Arc<Registered>) -> Socket {
        socket
    }

    async fn stop(&self, name: String, address: LocalAddress, queue: Arc<Queue>, shared: bool) {
        let mut swept = 0;
        let closed_by = if self.passage.is_handed_over() {
            ListenerStop::HandedOver
        } else if shared {
            ListenerStop::Shared
        } else {
            let shut = queue.shut();
            let guarded = shut != ListenerStop::Unguarded;
            swept = self.sweep(&queue, &address, guarded).await;
            shut
        };
        drop(queue);
        tracing::debug!(target: "sundown", listener = %name, ?closed_by, swept, "listener closed");
        let report = ListenerReport {
            name,
            address,
            closed_by,
            swept,
        };
        self.core.findings().listeners.push(report);
    }

    /// Accepts until nothing can come any more, and at the most for as long as a handshake takes.
    async fn sweep(&self, queue: &Queue, address: &LocalAddress, guarded: bool) -> usize {
        let began = Instant::now();
        let mut swept = 0;
        loop {
            // In this order: what leaves the handshake meanwhile is found in the queue.
            let handshakes = address.handshakes();
            swept += self.empty(queue).await;
            // Where nobody is kept out, there always is another.
            let known = handshakes.is_some() && guarded;
            let limit = if known { HANDSHAKE } else { UNKNOWN };
            let over = began.elapsed() >= limit;
            let nothing_comes = handshakes == Some(0) && queue.is_empty();
            if nothing_comes || over {
                return swept;
            }
            tokio::time::sleep(SWEEP_STEP).await;
        }
    }

    async fn empty(&self, queue: &Queue) -> usize {
        let mut taken = 0;
        let give_up = self.core.stop_times().map(|times| times.schedule.cancel);
        loop {
            match queue.accept_now() {
                Ok(connection) => {
                    let place = self.places.clone().try_acquire_owned().ok();
                    self.admit(connection, place);
                    taken += 1;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return taken,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    if give_up.is_none_or(|at| Instant::now() >= at) {
                        tracing::error!(target: "sundown", %error, "the queue could not be emptied");
                        return taken;
                    }
                    tokio::time::sleep(FIRST_PAUSE).await;
                }
            }
        }
    }
}

/// Errors that say something of a connection and nothing of the listener (accept(2)).
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) || matches!(
        error.raw_os_error(),
        Some(
            libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EOPNOTSUPP
                | libc::ENONET
                | libc::EPERM
        )
    )
}
