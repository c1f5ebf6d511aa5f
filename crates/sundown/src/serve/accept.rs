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

use super::Limits;
use super::connection::Serving;
use super::diag;
use super::exchange::{Exchanges, HttpService};
use super::io::Io;
use super::registry::Registered;
use super::rest::Door;
use crate::core::Core;
use crate::lifecycle::Phase;
use crate::report::{ListenerReport, ListenerStop};
use crate::sys;

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
}

/// Accepts for one listener until its end; made where the service's type is still known.
pub(crate) type Serve =
    Box<dyn FnOnce(Arc<Core>, Listening) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// Forgets the service's type.
pub(crate) fn start<S: HttpService + Sync>(mut service: S) -> Serve {
    #[cfg(feature = "axum")]
    settle_routes(&mut service);
    Box::new(move |core, listening| Box::pin(run(core, listening, service)))
}

/// Lets an axum router make its routes now rather than for each request, as `axum::serve` does;
/// its documentation recommends that to whoever serves one.
#[cfg(feature = "axum")]
fn settle_routes(service: &mut dyn std::any::Any) {
    if let Some(router) = service.downcast_mut::<axum::Router>() {
        *router = std::mem::take(router).with_state(());
    }
}

async fn run<S: HttpService + Sync>(core: Arc<Core>, listening: Listening, service: S) {
    // Holds the drain open until the queue is swept.
    let Some(guard) = core.in_flight.enter() else {
        return;
    };
    let Listening {
        name,
        listener,
        shared,
        limits,
    } = listening;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            let failure = format!("listener {name}: {error}");
            return core.findings().failures.push(failure);
        }
    };
    let places = Arc::new(Semaphore::new(
        limits.connections.min(Semaphore::MAX_PERMITS),
    ));
    let door = Door::new();
    let released = core.clone();
    let accepting = Accepting {
        core,
        service,
        limits,
        places,
        door: door.clone(),
    };
    let _closed = CloseAtEnd(door);
    accepting.until_draining(&listener).await;
    accepting.stop(name, listener, shared).await;
    // What the service holds may be what a worker waits for the end of.
    drop(accepting);
    drop(guard);
    released.reached(Phase::Releasing).await;
}

/// Ends what rests, also when this listener's task is dropped or unwinds.
struct CloseAtEnd<S: HttpService>(Door<S>);

impl<S: HttpService> Drop for CloseAtEnd<S> {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Accepting<S> {
    core: Arc<Core>,
    service: S,
    limits: Limits,
    places: Arc<Semaphore>,
    door: Door<S>,
}

impl<S: HttpService + Sync> Accepting<S> {
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
        let exchanges = Exchanges::new(self.service.clone(), connection.clone());
        let io = Io::new(stream, connection);
        tokio::spawn(Serving::new(io, exchanges, self.door.clone()));
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
