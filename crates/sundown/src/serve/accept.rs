//! Accepts connections, and closes a listener so that nobody in its queue is lost.
//!
//! The order was measured: deafen (or fence), wait for handshakes under way, sweep the queue,
//! close. Closing at once reset 668 connections in 30 stops, this none.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
#[cfg(feature = "tls")]
use tokio_util::task::AbortOnDropHandle;

use super::Limits;
use super::connection::Serving;
use super::diag;
use super::exchange::{Exchanges, HttpService};
use super::io::Io;
use super::raw::{Connection, Raw};
use super::registry::Registered;
use super::rest::Door;
use super::socket::Socket;
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::context::Context;
use crate::core::Core;
use crate::error::BoxError;
use crate::lifecycle::Phase;
use crate::report::{ListenerReport, ListenerStop};
use crate::sys;
#[cfg(feature = "tls")]
use crate::tls::Certificates;

/// How long handshakes under way may take where the kernel cannot be asked: a round trip.
const SWEEP: Duration = Duration::from_millis(50);

/// How often the queue is looked at during the sweep.
const SWEEP_STEP: Duration = Duration::from_millis(2);

/// The pauses after an accept that failed for want of resources.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A socket that listens, and what the service knows of it.
pub(crate) struct Listening {
    pub(crate) name: String,
    pub(crate) listener: StdListener,
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
        Box::pin(run(core, listening, take))
    })
}

/// Speaks HTTP on each connection.
struct Http<S: HttpService> {
    service: S,
    door: Door<S>,
}

impl<S: HttpService + Sync> Take for Http<S> {
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

async fn run<T: Take>(core: Arc<Core>, listening: Listening, take: T) {
    // Holds the drain open until the queue is swept.
    let Some(guard) = core.in_flight.enter() else {
        return;
    };
    let Listening {
        name,
        listener,
        shared,
        limits,
        #[cfg(feature = "tls")]
        tls,
    } = listening;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
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
    let released = core.clone();
    let accepting = Accepting {
        core,
        take,
        limits,
        places,
        #[cfg(feature = "tls")]
        tls,
    };
    let _end = accepting.take.end();
    accepting.until_draining(&listener).await;
    accepting.stop(name, listener, shared).await;
    // What the service holds may be what a worker waits for the end of.
    drop(accepting);
    drop(guard);
    released.reached(Phase::Releasing).await;
}

struct Accepting<T: Take> {
    core: Arc<Core>,
    take: T,
    limits: Limits,
    places: Arc<Semaphore>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<Certificates>>,
}

impl<T: Take> Accepting<T> {
    async fn until_draining(&self, listener: &TcpListener) {
        let mut draining = pin!(self.core.reached(Phase::Draining));
        let mut pause = FIRST_PAUSE;
        loop {
            let next = async {
                let place = self.places.clone().acquire_owned().await.ok();
                (listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                biased;
                () = &mut draining => return,
                accepted = next => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    self.admit(stream, peer, place);
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

    fn admit(&self, stream: TcpStream, peer: SocketAddr, place: Option<OwnedSemaphorePermit>) {
        // The listener's own guard is alive, so the drain is not over and this never refuses.
        let Some(guard) = self.core.in_flight.enter() else {
            return;
        };
        let _ = stream.set_nodelay(true);
        let connection = Registered::new(&self.core, peer, self.limits, guard, place);
        let socket = self.socket(stream, &connection);
        self.take.take(Io::new(socket, connection));
    }

    /// What is spoken on it below HTTP.
    fn socket(&self, stream: TcpStream, connection: &Arc<Registered>) -> Socket {
        #[cfg(feature = "tls")]
        if let Some(certificates) = &self.tls {
            connection.never_rests();
            let tls = Tls::new(stream, certificates.current(), connection.clone());
            return Socket::Tls(Box::new(tls));
        }
        let _ = connection;
        Socket::Plain(stream)
    }

    async fn stop(&self, name: String, listener: TcpListener, shared: bool) {
        let Ok(address) = listener.local_addr() else {
            return;
        };
        let closed_by = if shared {
            ListenerStop::Shared
        } else {
            shut(&listener)
        };
        let mut swept = 0;
        if !shared {
            swept = self.sweep(&listener, address).await;
        }
        drop(listener);
        tracing::debug!(target: "sundown", listener = %name, ?closed_by, swept, "listener closed");
        let report = ListenerReport {
            name,
            address,
            closed_by,
            swept,
        };
        self.core.findings().listeners.push(report);
    }

    /// Accepts until nothing can come any more, and at the most for a round trip.
    async fn sweep(&self, listener: &TcpListener, address: SocketAddr) -> usize {
        let until = Instant::now() + SWEEP;
        let mut swept = 0;
        loop {
            // In this order: what leaves the handshake meanwhile is found in the queue.
            let handshakes = diag::handshakes(address);
            swept += self.empty_queue(listener).await;
            let over = Instant::now() >= until;
            let nothing_comes = handshakes == Some(0)
                && sys::accept_queue(listener.as_fd()).is_ok_and(|queued| queued == 0);
            if nothing_comes || over {
                return swept;
            }
            tokio::time::sleep(SWEEP_STEP).await;
        }
    }

    async fn empty_queue(&self, listener: &TcpListener) -> usize {
        let mut taken = 0;
        let give_up = self.core.stop_times().map(|times| times.schedule.cancel);
        loop {
            // Not tokio's accept: its idea of readiness may be older than the queue.
            match SockRef::from(listener).accept() {
                Ok((socket, peer)) => {
                    let place = self.places.clone().try_acquire_owned().ok();
                    if let (Ok(stream), Some(peer)) = (into_stream(socket), peer.as_socket()) {
                        self.admit(stream, peer, place);
                        taken += 1;
                    }
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

fn into_stream(socket: socket2::Socket) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    TcpStream::from_std(OwnedFd::from(socket).into())
}

/// Keeps new connections out while the queue lives on.
fn shut(listener: &TcpListener) -> ListenerStop {
    if sys::make_deaf(listener.as_fd()).is_ok() {
        ListenerStop::Deaf
    } else if sys::fence(listener.as_fd()).is_ok() {
        ListenerStop::Fence
    } else {
        ListenerStop::Unguarded
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
