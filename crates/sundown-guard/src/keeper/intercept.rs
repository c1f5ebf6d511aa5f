//! One `listen`, carried out on a duplicate of the caller's socket, which stays here.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::kin;
use crate::sys::{self, Answer, Notification};

/// The least queue: what waits there is not lost while an application is busy.
const LEAST_BACKLOG: i32 = 1024;

/// Answers one call; gives back the duplicate of a socket that listens since.
///
/// # Errors
/// `ENOENT` if the caller is gone; anything else after the call was let through.
pub(super) fn one(calls: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let call = sys::receive_notification(calls)?;
    let (answer, outcome) = match duplicate(calls, &call) {
        Ok(Some(socket)) => match listen(&socket, call.arguments[1] as i32) {
            Ok(()) => (Answer::Done, Ok(Some(socket))),
            Err(error) => (Answer::Fails(error.raw_os_error()), Ok(None)),
        },
        Ok(None) => (Answer::Continue, Ok(None)),
        Err(error) => (Answer::Continue, Err(error)),
    };
    sys::answer(calls, call.id, answer)?;
    outcome
}

/// The caller's socket, if it is one that we care for.
fn duplicate(calls: BorrowedFd<'_>, call: &Notification) -> io::Result<Option<OwnedFd>> {
    let process = kin::process_of(call.thread).and_then(Pid::from_raw);
    let process = process.ok_or(io::ErrorKind::NotFound)?;
    let process = pidfd_open(process, PidfdFlags::empty())?;
    let number = call.arguments[0] as RawFd;
    let socket = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
        // The kernel will say so itself.
        Err(rustix::io::Errno::BADF) => return Ok(None),
        other => other?,
    };
    if !sys::still_waits(calls, call.id) {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let internet = matches!(
        sockopt::socket_domain(&socket)?,
        AddressFamily::INET | AddressFamily::INET6
    );
    let stream = sockopt::socket_type(&socket)? == SocketType::STREAM;
    Ok((internet && stream).then_some(socket))
}

fn listen(socket: &OwnedFd, backlog: i32) -> rustix::io::Result<()> {
    rustix::net::listen(socket, backlog.max(LEAST_BACKLOG))
}
