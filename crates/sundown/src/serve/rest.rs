//! Where idle connections wait for the end of the linger: without hyper, without a task each, and
//! out of the runtime's driver.
//!
//! Thousands of them end at one time, and that time is the stop's. Here such an end costs four
//! system calls and next to nothing beside; as a task it costs half as much again. Decides nothing: the
//! reaper orders, as everywhere, and a connection on which anything arrives becomes a task again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind, Read as _};
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Wake, Waker};
use std::thread;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::connection::Serving;
use super::exchange::{Exchanges, HttpService};
use super::io::Io;
use super::judge::Order;
use super::registry::Fate;
use super::socket::Socket;
use crate::sys;

/// How many sockets are asked for at a time.
const BATCH: usize = 1024;

/// Not a connection's number: somebody called.
const CALLED: Token = Token(usize::MAX);

/// Takes one listener's connections to where they rest.
pub(super) struct Door<S>(Arc<Behind<S>>);

/// Made when the first connection comes: before a stop nothing rests.
struct Behind<S>(OnceLock<Option<Inside<S>>>);

struct Inside<S> {
    newcomers: mpsc::Sender<Resting<S>>,
    bell: Arc<Bell>,
}

/// What is given back.
type Refused<S> = Box<(Io, Exchanges<S>)>;

impl<S> Clone for Door<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: HttpService> Door<S> {
    pub(super) fn new() -> Self {
        Self(Arc::new(Behind(OnceLock::new())))
    }

    /// Lets a connection rest of which nothing was read that is not answered; gives it back where
    /// the system refuses what that needs.
    pub(super) fn enter(&self, io: Io, exchanges: Exchanges<S>) -> Result<(), Refused<S>> {
        let Some(inside) = self.0.0.get_or_init(|| self.open()) else {
            return Err(Box::new((io, exchanges)));
        };
        match io.into_std() {
            Ok(stream) => inside.take(self, Resting::new(stream, exchanges)),
            Err(error) => exchanges.connection().fail(&error),
        }
        Ok(())
    }

    fn open(&self) -> Option<Inside<S>> {
        match Room::open(self.clone()) {
            Ok(inside) => Some(inside),
            Err(error) => {
                tracing::warn!(target: "sundown", %error, "idle connections stay tasks");
                None
            }
        }
    }

    /// Ends whatever rests still, and lets nothing rest from now on.
    pub(super) fn close(&self) {
        if let Some(inside) = self.0.0.get_or_init(|| None) {
            inside.bell.over.store(true, Ordering::Release);
            inside.bell.call();
        }
    }
}

impl<S: HttpService> Inside<S> {
    fn take(&self, door: &Door<S>, newcomer: Resting<S>) {
        match self.newcomers.send(newcomer) {
            Ok(()) => self.bell.call(),
            // The drain is over, and so is the connection.
            Err(_) if self.bell.is_over() => {}
            Err(mpsc::SendError(newcomer)) => newcomer.wake(door),
        }
    }
}

/// What the resting connections' orders wake.
struct Bell {
    waker: mio::Waker,
    ordered: AtomicBool,
    over: AtomicBool,
}

impl Bell {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn call(&self) {
        // It fails only where an eventfd is full, which is a call, too.
        let _ = self.waker.wake();
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.ordered.swap(true, Ordering::AcqRel) {
            self.call();
        }
    }
}

/// One listener's connections that rest, and the thread that minds them.
struct Room<S> {
    newcomers: mpsc::Receiver<Resting<S>>,
    door: Door<S>,
    bell: Arc<Bell>,
    registry: Registry,
    resting: HashMap<Token, Resting<S>>,
}

impl<S: HttpService> Room<S> {
    fn open(door: Door<S>) -> io::Result<Inside<S>> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let bell = Arc::new(Bell {
            waker: mio::Waker::new(&registry, CALLED)?,
            ordered: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        let (sender, newcomers) = mpsc::channel();
        let room = Self {
            newcomers,
            door,
            bell: bell.clone(),
            registry,
            resting: HashMap::new(),
        };
        let runtime = Handle::current();
        thread::Builder::new()
            .name("sundown-rest".to_owned())
            .spawn(move || {
                let _entered = runtime.enter();
                room.mind(poll);
            })?;
        Ok(Inside {
            newcomers: sender,
            bell,
        })
    }

    fn mind(mut self, mut poll: Poll) {
        let mut events = Events::with_capacity(BATCH);
        while !self.bell.is_over() {
            if let Err(error) = poll.poll(&mut events, None)
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(target: "sundown", %error, "idle connections are tasks again");
                return self.wake_all();
            }
            for event in &events {
                match event.token() {
                    CALLED => self.answer(),
                    token => self.let_do(token, Resting::hear),
                }
            }
        }
    }

    fn wake_all(self) {
        let resting = self.resting.into_values().chain(self.newcomers.try_iter());
        resting.for_each(|resting| resting.wake(&self.door));
    }

    fn answer(&mut self) {
        while let Ok(newcomer) = self.newcomers.try_recv() {
            self.take_in(newcomer);
        }
        if self.bell.ordered.swap(false, Ordering::AcqRel) {
            let resting = self.resting.iter();
            let ordered = resting.filter(|(_, resting)| resting.exchanges.connection().has_order());
            let ordered: Vec<Token> = ordered.map(|(token, _)| *token).collect();
            for token in ordered {
                self.let_do(token, Resting::carry_out_order);
            }
        }
    }

    fn take_in(&mut self, newcomer: Resting<S>) {
        let connection = newcomer.exchanges.connection().clone();
        let token = Token(connection.id() as usize);
        let socket = newcomer.stream.as_raw_fd();
        let interest = Interest::READABLE;
        if let Err(error) = self
            .registry
            .register(&mut SourceFd(&socket), token, interest)
        {
            tracing::warn!(target: "sundown", %error, "a connection cannot rest");
            return newcomer.wake(&self.door);
        }
        self.resting.insert(token, newcomer);
        connection.rests(true);
        connection.wake_for_orders(Waker::from(self.bell.clone()));
        // What was ordered before woke nobody.
        self.let_do(token, Resting::carry_out_order);
    }

    fn let_do(&mut self, token: Token, act: impl FnOnce(&mut Resting<S>) -> Next) {
        let Entry::Occupied(mut resting) = self.resting.entry(token) else {
            return;
        };
        match act(resting.get_mut()) {
            Next::Rest => {}
            Next::End => drop(resting.remove()),
            Next::Wake => {
                let resting = resting.remove();
                let socket = resting.stream.as_raw_fd();
                let _ = self.registry.deregister(&mut SourceFd(&socket));
                resting.wake(&self.door);
            }
        }
    }
}

/// A connection with nothing in it.
struct Resting<S> {
    stream: StdTcpStream,
    exchanges: Exchanges<S>,
    /// Whether our FIN is out.
    closing: bool,
}

/// What becomes of a connection.
enum Next {
    Rest,
    End,
    /// Be a task again.
    Wake,
}

impl<S: HttpService> Resting<S> {
    fn new(stream: StdTcpStream, exchanges: Exchanges<S>) -> Self {
        Self {
            stream,
            exchanges,
            closing: false,
        }
    }

    fn carry_out_order(&mut self) -> Next {
        let connection = self.exchanges.connection();
        if connection.is_cut() {
            connection.set_fate(Fate::CutOff);
            return Next::End;
        }
        if self.closing {
            return self.look();
        }
        match connection.take_order() {
            Some(Order::Close) => self.close(),
            _ => Next::Rest,
        }
    }

    fn close(&mut self) -> Next {
        if sys::unread_bytes(self.stream.as_fd()).is_ok_and(|unread| unread > 0) {
            return Next::Wake;
        }
        let connection = self.exchanges.connection();
        connection.set_fate(Fate::ClosedIdle);
        connection.closes();
        self.closing = true;
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => Next::Rest,
            Err(_) => Next::End,
        }
    }

    /// Leaves a peer that has been quiet and has taken everything.
    fn look(&self) -> Next {
        if !self.exchanges.connection().take_order_to_look() {
            return Next::Rest;
        }
        match sys::unsent_bytes(self.stream.as_fd()) {
            Ok(1..) => Next::Wake,
            _ => Next::End,
        }
    }

    /// Something has arrived; after our FIN it is most likely the peer's.
    fn hear(&mut self) -> Next {
        if !self.closing {
            return Next::Wake;
        }
        match (&self.stream).read(&mut [0; 512]) {
            Ok(1..) => Next::Wake,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Next::Rest
            }
            _ => Next::End,
        }
    }

    fn wake(self, door: &Door<S>) {
        let connection = self.exchanges.connection().clone();
        connection.rests(false);
        match TcpStream::from_std(self.stream) {
            Ok(stream) => {
                let io = Io::new(Socket::Plain(stream), connection.clone());
                tokio::spawn(if self.closing {
                    Serving::closing(io, door.clone())
                } else {
                    Serving::new(io, self.exchanges, door.clone())
                });
            }
            Err(error) => connection.fail(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::super::Limits;
    use super::super::judge::Stage;
    use super::super::registry::Registered;
    use super::*;
    use crate::budget::Wishes;
    use crate::core::{Core, Link};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

    /// A connection that rests, and its client.
    struct Rest {
        core: Arc<Core>,
        door: Door<Router>,
        client: TcpStream,
    }

    impl Drop for Rest {
        fn drop(&mut self) {
            self.door.close();
        }
    }

    impl Rest {
        async fn begin(keep_alive: Duration) -> Self {
            let budget = Wishes::default().settle().unwrap();
            let core = Core::new("test".into(), budget, Link::new().0);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
            let (stream, peer) = accepted.unwrap();
            let limits = Limits {
                keep_alive,
                ..Limits::default()
            };
            let guard = core.in_flight.enter().unwrap();
            let connection = Registered::new(&core, Some(peer), limits, guard, None);
            let router = Router::new().route("/", get(|| async { "awake" }));
            let exchanges = Exchanges::new(router, connection.clone());
            let door = Door::new();
            assert!(
                door.enter(Io::new(Socket::Plain(stream), connection), exchanges)
                    .is_ok()
            );
            Self {
                core,
                door,
                client: client.unwrap(),
            }
        }

        /// Lets the reaper look.
        fn judge(&self) {
            let stage = Stage::of(&self.core);
            self.core.connections.judge_all(Instant::now(), stage);
        }

        /// What the client can still read.
        async fn read_to_end(&mut self) -> io::Result<String> {
            let mut read = String::new();
            self.client.read_to_string(&mut read).await.map(|_| read)
        }

        /// Waits until the connection is over.
        async fn gone(&self) {
            while self.core.connections.len() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn whoever_asks_is_answered_by_a_task() {
        let mut rest = Rest::begin(Duration::from_secs(75)).await;
        rest.client.write_all(REQUEST).await.unwrap();
        let mut answer = [0; 512];
        let length = rest.client.read(&mut answer).await.unwrap();
        assert!(answer[..length].ends_with(b"awake"));
        rest.client.shutdown().await.unwrap();
        rest.gone().await;
        assert_eq!(rest.core.connections.counts().ended, 1);
    }

    #[tokio::test]
    async fn at_the_end_it_gets_a_fin_and_is_read_until_the_peers() {
        let mut rest = Rest::begin(Duration::ZERO).await;
        rest.judge();
        assert_eq!(rest.read_to_end().await.unwrap(), "");
        assert_eq!(rest.core.connections.len(), 1);
        // Too late, and no reason for a reset.
        rest.client.write_all(REQUEST).await.unwrap();
        rest.client.shutdown().await.unwrap();
        rest.gone().await;
        assert_eq!(rest.client.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(rest.core.connections.counts().closed_idle, 1);
    }

    #[tokio::test]
    async fn a_quiet_peer_is_left_after_a_look() {
        let mut rest = Rest::begin(Duration::ZERO).await;
        rest.judge();
        assert_eq!(rest.read_to_end().await.unwrap(), "");
        // The FIN itself may not be acknowledged at the first look.
        while rest.core.connections.len() > 0 {
            let later = Instant::now() + Duration::from_secs(1);
            let stage = Stage::of(&rest.core);
            rest.core.connections.judge_all(later, stage);
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_cut_ends_it() {
        let mut rest = Rest::begin(Duration::from_secs(75)).await;
        rest.core.connections.cut_all();
        assert_eq!(rest.read_to_end().await.unwrap(), "");
        rest.gone().await;
        assert_eq!(rest.core.connections.counts().cut_off, 1);
    }

    #[tokio::test]
    async fn it_ends_with_the_drain() {
        let mut rest = Rest::begin(Duration::from_secs(75)).await;
        rest.door.close();
        assert_eq!(rest.read_to_end().await.unwrap(), "");
        rest.gone().await;
    }
}
