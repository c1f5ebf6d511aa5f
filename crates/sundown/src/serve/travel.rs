//! Connections that go on in a successor, with what was read of them and not answered.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;

use super::connection::Serving;
use super::exchange::{Exchanges, HttpService};
use super::io::Io;
use super::registry::{Fate, Registered};
use super::rest::Door;
use super::socket::Socket;
use crate::restart::{Owner, Passage, Traveller};

/// Lets a connection go to the successor.
pub(super) fn send<S: HttpService>(
    passage: &Passage,
    io: Io,
    unparsed: Bytes,
    exchanges: Exchanges<S>,
    door: &Door<S>,
) {
    let connection = exchanges.connection().clone();
    let (socket, rewound) = match io.into_parts() {
        Ok(parts) => parts,
        Err(error) => return connection.fail(&error),
    };
    connection.leaves();
    passage.send(Traveller {
        socket,
        listener: passage.name.clone(),
        // hyper had read this before there was anything to be put back.
        bytes: match rewound.is_empty() {
            true => unparsed,
            false => [unparsed, rewound].concat().into(),
        },
        announced: connection.announced(),
        owner: Box::new(Home {
            exchanges,
            door: door.clone(),
        }),
    });
}

/// What a connection needs to go on here.
struct Home<S> {
    exchanges: Exchanges<S>,
    door: Door<S>,
}

impl<S: HttpService> Owner for Home<S> {
    fn lets_go(self: Box<Self>) {
        self.exchanges.connection().set_fate(Fate::HandedOver);
    }

    fn takes_back(self: Box<Self>, socket: OwnedFd, bytes: Bytes) {
        let Self { exchanges, door } = *self;
        let connection = exchanges.connection().clone();
        match Socket::of(socket) {
            Ok(socket) => {
                let io = arrived(socket, &connection, bytes);
                tokio::spawn(Serving::new(io, exchanges, door));
            }
            Err(error) => connection.fail(&error),
        }
    }
}

/// Puts a connection together again.
pub(super) fn arrived(socket: Socket, connection: &Arc<Registered>, bytes: Bytes) -> Io {
    if !bytes.is_empty() && !connection.is_unannounced() {
        connection.head_begins();
    }
    let mut io = Io::new(socket, connection.clone());
    io.rewind(bytes);
    io
}
