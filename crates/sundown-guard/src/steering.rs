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

/// Joins the group for as long as it takes. The last member is never one that is steered to, and nobody takes
/// its number when it leaves.
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
    rustix::net::listen(&member, 1)?;
    sys::steer(member.as_fd(), program)
}
