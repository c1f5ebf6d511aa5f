//! Sends new connections to one generation of those that share an address.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use crate::filter;
use crate::generation::{Generation, Listener};
use crate::groups::{Groups, Part};
use crate::sys;

/// Sends what connects from now on to this generation; tells where that cannot be.
pub(crate) fn steer_to(generation: &Generation, groups: &Groups) -> Vec<String> {
    let steer = |listener: &Listener| {
        let part = groups.part(listener.address, generation.number())?;
        let refused = steer(listener, part).err()?;
        Some(format!(
            "{}: connections cannot be steered ({refused})",
            listener.address
        ))
    };
    generation.listeners().iter().filter_map(steer).collect()
}

/// Lets nobody connect to a listener that nobody serves, for the moment until it is closed.
pub(crate) fn fence(listener: &Listener) {
    // Where that cannot be there is a moment in which a connect is lost.
    let _ = sys::filter(listener.socket.as_fd(), &filter::fence());
}

fn steer(listener: &Listener, part: Part) -> io::Result<()> {
    let program = filter::steering(part.base, part.count);
    match sys::steer(listener.socket.as_fd(), &program) {
        // Go's listeners, by default, are of MPTCP: another member of the group has to ask.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            through_a_member(listener.address, &program)
        }
        other => other,
    }
}

/// Joins the group for as long as it takes; nobody takes the number of the last member when it leaves. Until
/// the program is replaced the one before may lead to it: it hears no SYN, so that whoever sends one tries again.
fn through_a_member(address: SocketAddr, program: &[libc::sock_filter]) -> io::Result<()> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC;
    let member = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    sockopt::set_socket_reuseaddr(&member, true)?;
    sockopt::set_socket_reuseport(&member, true)?;
    rustix::net::bind(&member, &address)?;
    sys::filter(member.as_fd(), &filter::fence())?;
    rustix::net::listen(&member, 1)?;
    sys::steer(member.as_fd(), program)
}
