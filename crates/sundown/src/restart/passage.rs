//! What a restart needs of each listener: its socket, and the way of its connections to the successor or from
//! the predecessor.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{GivenConnection, Letter};
use crate::core::lock;
use crate::serve::Queue;

/// The listeners of a process, for the one that follows it, and whom each of them awaits from the one before.
#[derive(Default)]
pub(crate) struct Succession {
    listeners: Mutex<Vec<Arc<Passage>>>,
    awaited: Mutex<HashMap<String, mpsc::UnboundedSender<Arrival>>>,
}

/// One listener, on its way to a successor.
pub(crate) struct Passage {
    pub(crate) name: Arc<str>,
    pub(super) queue: Weak<Queue>,
    pub(super) shared: bool,
    /// A successor has the listener.
    handed_over: AtomicBool,
    /// Its connections may travel.
    open: AtomicBool,
    way: Mutex<Option<mpsc::UnboundedSender<Traveller>>>,
}

/// A connection that is to travel.
pub(crate) struct Traveller {
    pub(crate) socket: OwnedFd,
    pub(crate) listener: Arc<str>,
    /// What was read of it and not answered.
    pub(crate) bytes: Bytes,
    /// Whom a proxy has announced, if one has spoken.
    pub(crate) announced: Option<Option<SocketAddr>>,
    pub(crate) owner: Box<dyn Owner>,
}

/// Whoever has a connection until it has arrived.
pub(crate) trait Owner: Send {
    /// The successor has it.
    fn lets_go(self: Box<Self>);

    /// Nobody has it: it goes on here.
    fn takes_back(self: Box<Self>, socket: OwnedFd, bytes: Bytes);
}

/// A connection that has come from the predecessor.
pub(crate) struct Arrival {
    pub(crate) socket: OwnedFd,
    pub(crate) bytes: Vec<u8>,
    pub(crate) announced: Option<Option<SocketAddr>>,
    answer: Answer,
}

/// Tells the predecessor: unless somebody takes the connection, that nobody does.
pub(crate) struct Answer {
    number: u64,
    taken: bool,
    letters: mpsc::UnboundedSender<Letter>,
}

impl Succession {
    /// Adds a listener that is served.
    pub(crate) fn add(&self, name: &str, queue: &Arc<Queue>, shared: bool) -> Arc<Passage> {
        let passage = Arc::new(Passage {
            name: name.into(),
            queue: Arc::downgrade(queue),
            shared,
            handed_over: AtomicBool::new(false),
            open: AtomicBool::new(false),
            way: Mutex::default(),
        });
        lock(&self.listeners).push(passage.clone());
        passage
    }

    pub(super) fn listeners(&self) -> Vec<Arc<Passage>> {
        lock(&self.listeners).clone()
    }

    /// What comes to this listener from the predecessor.
    pub(crate) fn awaits(&self, name: &str) -> mpsc::UnboundedReceiver<Arrival> {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.awaited).insert(name.to_owned(), sender);
        receiver
    }

    /// Brings a connection to its listener; where there is none it is refused.
    pub(super) fn bring(&self, listener: &str, arrival: Arrival) {
        if let Some(listener) = lock(&self.awaited).get(listener) {
            // Whoever does not take it refuses it.
            let _ = listener.send(arrival);
        }
    }
}

impl Passage {
    /// The successor has this listener; its connections may go this way.
    pub(super) fn open(&self, way: mpsc::UnboundedSender<Traveller>) {
        *lock(&self.way) = Some(way);
        self.handed_over.store(true, Ordering::Release);
        self.open.store(true, Ordering::Release);
    }

    /// Nobody may travel any more.
    pub(super) fn close(&self) {
        self.open.store(false, Ordering::Release);
        *lock(&self.way) = None;
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Whether the queue is a successor's.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::Acquire)
    }

    /// Lets a connection go; where the way is closed its owner has it back at once.
    pub(crate) fn send(&self, traveller: Traveller) {
        let back = match &*lock(&self.way) {
            Some(way) => way.send(traveller).err().map(|refused| refused.0),
            None => Some(traveller),
        };
        if let Some(traveller) = back {
            traveller.stay();
        }
    }
}

impl Traveller {
    pub(super) fn letter(&self, number: u64) -> Letter {
        Letter::Connection(GivenConnection {
            number,
            listener: self.listener.to_string(),
            announced: self.announced.is_some(),
            peer: self.announced.flatten(),
        })
    }

    pub(super) fn stay(self) {
        self.owner.takes_back(self.socket, self.bytes);
    }
}

impl Arrival {
    pub(super) fn new(
        given: &GivenConnection,
        socket: OwnedFd,
        bytes: Vec<u8>,
        letters: mpsc::UnboundedSender<Letter>,
    ) -> Self {
        Self {
            socket,
            bytes,
            announced: given.announced.then_some(given.peer),
            answer: Answer {
                number: given.number,
                taken: false,
                letters,
            },
        }
    }

    /// Takes it apart: whoever has the parts has the connection, once it says so.
    pub(crate) fn take(self) -> (OwnedFd, Vec<u8>, Option<Option<SocketAddr>>, Answer) {
        (self.socket, self.bytes, self.announced, self.answer)
    }
}

impl Answer {
    pub(crate) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let answer = match self.taken {
            true => Letter::Taken(self.number),
            false => Letter::Refused(self.number),
        };
        // A predecessor that is gone needs no answer.
        let _ = self.letters.send(answer);
    }
}
