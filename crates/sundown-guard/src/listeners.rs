//! Listeners: our duplicates of the application's, and those that the guard opens itself.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, sockopt};

use crate::sys;

/// The queue of a listener of ours; the system may allow less (net.core.somaxconn).
const BACKLOG: i32 = 4096;

/// A socket that listens, and our descriptor of it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    pub(crate) inode: u64,
    pub(crate) socket: OwnedFd,
}

impl Listener {
    /// Asks a socket that listens where it does.
    pub(crate) fn of(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            address: SocketAddr::try_from(rustix::net::getsockname(&socket)?)?,
            inode: rustix::fs::fstat(&socket)?.st_ino,
            socket,
        })
    }

    /// Opens one where nobody else may listen but who joins it later.
    ///
    /// # Errors
    /// `AddrInUse` where somebody does.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = new_socket(address, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &address)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Self::of(socket)
    }

    /// Opens another with the same address and of the same kind. Until connections are steered, it gets some.
    pub(crate) fn open_beside(&self) -> io::Result<Self> {
        let protocol = sockopt::socket_protocol(&self.socket)?;
        let socket = self.bind_beside(protocol)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Self::of(socket)
    }

    /// Binds a socket to the same address, which does not listen yet.
    pub(crate) fn bind_beside(&self, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
        let owner = rustix::fs::fstat(&self.socket)?.st_uid;
        let socket = sys::as_user(owner, || new_socket(self.address, protocol))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        if self.address.is_ipv6() {
            let alone = sockopt::ipv6_v6only(&self.socket)?;
            sockopt::set_ipv6_v6only(&socket, alone)?;
        }
        rustix::net::bind(&socket, &self.address)?;
        Ok(socket)
    }

    /// A duplicate.
    ///
    /// # Errors
    /// If this process may open no more files.
    pub(crate) fn share(&self) -> io::Result<Self> {
        Ok(Self {
            socket: self.socket.try_clone()?,
            ..*self
        })
    }
}

/// A socket of TCP, or of this protocol, for this address.
pub(crate) fn new_socket(address: SocketAddr, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        family,
        SocketType::STREAM,
        flags,
        protocol,
    )?)
}
