//! Sends new connections to one generation of those that share an address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;

use libc::sock_filter;
use rustix::net::ipproto;

use crate::filter;
use crate::generation::Generation;
use crate::groups::Groups;
use crate::listeners::{Listener, new_socket};
use crate::sys;

/// Sends what connects from now on to this generation; tells where that cannot be.
pub(crate) fn steer_to(generation: &Generation, groups: &Groups) -> Vec<String> {
    let steer = |listener: &Listener| {
        let part = groups.part(listener.address, generation.number())?;
        let refused = steer(listener, &filter::steering(part)).err()?;
        Some(format!(
            "{}: connections cannot be steered ({refused})",
            listener.address
        ))
    };
    generation.listeners().iter().filter_map(steer).collect()
}

/// Connects to a generation's own listener at this address, though another takes what connects.
///
/// # Errors
/// If it does not listen there, or the connection is not there at once: its queue is full.
pub(crate) fn connect_to(
    asked: &Generation,
    takes: &Generation,
    address: SocketAddr,
    groups: &Groups,
) -> io::Result<std::net::TcpStream> {
    let nowhere = || io::Error::from(io::ErrorKind::NotFound);
    let listener = asked.listeners().iter().find(|own| own.address == address);
    let listener = listener.ok_or_else(nowhere)?;
    let its = groups.part(address, asked.number()).ok_or_else(nowhere)?;
    let target = own_host(address);
    let socket = new_socket(target, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(target.ip(), 0))?;
    let source = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    let others = groups.part(address, takes.number()).unwrap_or(its);
    steer(listener, &filter::steering_but(source, its, others))?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    // Within the host the first packet has arrived when this comes back.
    let connected = rustix::net::connect(&socket, &target);
    steer(listener, &filter::steering(others))?;
    match connected {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// Where a listener's own host reaches it.
fn own_host(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// Lets nobody connect to a listener that nobody serves, for the moment until it is closed.
pub(crate) fn fence(listener: &Listener) {
    // Where that cannot be there is a moment in which a connect is lost.
    let _ = sys::filter(listener.socket.as_fd(), &filter::fence());
}

fn steer(listener: &Listener, program: &[sock_filter]) -> io::Result<()> {
    match sys::steer(listener.socket.as_fd(), program) {
        // Go's listeners, by default, are of MPTCP: another member of the group has to ask.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            through_a_member(listener, program)
        }
        other => other,
    }
}

/// Joins the group for as long as it takes; nobody takes the number of the last member when it leaves. Until
/// the program is replaced the one before may lead to it: it hears no SYN, so that whoever sends one tries again.
fn through_a_member(listener: &Listener, program: &[sock_filter]) -> io::Result<()> {
    let member = listener.bind_beside(Some(ipproto::TCP))?;
    // Where an ordinary user may attach none to a socket of TCP (seen on Linux 6.18), a SYN of this moment is lost.
    let _ = sys::filter(member.as_fd(), &filter::fence());
    rustix::net::listen(&member, 1)?;
    sys::steer(member.as_fd(), program)
}
