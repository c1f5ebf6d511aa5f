//! Keeps a server busy with many kinds of client, and counts what happens to every request.
//!
//! The promise: a client that started a request sees it to its end, also while the load is being
//! finished; each request is counted once; a client whose connect is refused counts that once and
//! stops. Never retries, and never blames the server for a shortage of our own.

mod habit;
mod http1;
mod http2;
pub(crate) mod ledger;

use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::plan::{Kind, Plan};
use crate::tally::Tally;
use ledger::Ledger;

/// Is a running load; dropping it ends the clients at once, with their requests uncounted.
///
/// ```no_run
/// # async fn example() {
/// use std::net::SocketAddr;
/// use sundown_verify::{Kind, Load, Plan};
///
/// let plan = Plan::against(SocketAddr::from(([127, 0, 0, 1], 8080)))
///     .with(Kind::KeepAlive, 32)
///     .with(Kind::NewConnection, 16);
/// let load = Load::start(plan);
/// // … stop the server, wait for its exit …
/// let tally = load.finish().await;
/// assert_eq!(tally.total.lost, 0);
/// # }
/// ```
#[derive(Debug)]
pub struct Load {
    ledger: Arc<Ledger>,
    season: watch::Sender<Season>,
    clients: JoinSet<()>,
}

/// Says whether clients may start requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Season {
    Open,
    /// Only on connections that are there.
    Settled,
    Over,
}

impl Load {
    /// Starts the clients as tasks of the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(plan: Plan) -> Self {
        let ledger = Arc::new(Ledger::new(plan));
        let (season, _) = watch::channel(Season::Open);
        let mut clients = JoinSet::new();
        let kinds = ledger
            .plan()
            .clients
            .iter()
            .flat_map(|(kind, n)| std::iter::repeat_n(kind, *n));
        for (index, kind) in kinds.enumerate() {
            let client = Client {
                kind: *kind,
                number: index + 1,
                ledger: Arc::clone(&ledger),
                season: season.subscribe(),
                rng: StdRng::seed_from_u64(ledger.plan().seed.wrapping_add(index as u64)),
            };
            match kind {
                Kind::Http2 => clients.spawn(http2::run(client)),
                _ => clients.spawn(http1::run(client)),
            };
        }
        Self {
            ledger,
            season,
            clients,
        }
    }

    /// Returns how many requests are under way now.
    pub fn in_flight(&self) -> usize {
        self.ledger.in_flight()
    }

    /// Returns what has been counted so far.
    pub fn tally(&self) -> Tally {
        self.ledger.tally()
    }

    /// Lets no client make another connection; each ends with the one it has.
    pub fn settle(&self) {
        self.season.send_replace(Season::Settled);
    }

    /// Lets no client begin another request.
    pub fn wind_up(&self) {
        self.season.send_replace(Season::Over);
    }

    /// Waits until no client is left: each was refused, because the server is gone.
    ///
    /// # Cancel safety
    /// Safe: call it again, or [`finish`](Self::finish).
    pub async fn ended(&mut self) {
        while let Some(client) = self.clients.join_next().await {
            client.expect("a client neither panics nor is aborted while its load lives");
        }
    }

    /// Lets no client start another request, waits for those under way, and returns the count.
    ///
    /// Takes at most the plan's hang limit.
    pub async fn finish(mut self) -> Tally {
        self.wind_up();
        self.ended().await;
        self.ledger.tally()
    }
}

/// Is what every client needs, whatever its kind.
#[derive(Clone)]
struct Client {
    kind: Kind,
    /// Its number within the load, from one.
    number: usize,
    ledger: Arc<Ledger>,
    season: watch::Receiver<Season>,
    rng: StdRng,
}

impl Client {
    /// Waits for a random while; returns early, with [`Season::Over`], when the load is over.
    async fn pause(&mut self, millis: std::ops::RangeInclusive<u64>) -> Season {
        let pause = habit::random(&mut self.rng, millis);
        let over = self.season.wait_for(|season| *season == Season::Over);
        match tokio::time::timeout(pause, over).await {
            Ok(_) => Season::Over,
            Err(_) => Season::Open,
        }
    }

    /// Whether it may make a connection.
    fn may_connect(&self) -> bool {
        *self.season.borrow() == Season::Open
    }
}
