//! Messages between two processes, with descriptors beside them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Letter;

/// How many descriptors one message may carry (SCM_MAX_FD is 253).
pub(super) const MOST_DESCRIPTORS: usize = 250;

/// How many bytes of a connection one message may carry.
pub(super) const MOST_BYTES: usize = 32 << 10;

/// The longest message: those bytes, or the names of all listeners.
const LONGEST: usize = 128 << 10;

/// One end. A message arrives whole or not at all (SOCK_SEQPACKET).
pub(super) struct Letters(AsyncFd<OwnedFd>);

/// A message that has arrived.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) letter: Letter,
    /// What stood behind it.
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Letters {
    /// Makes both ends; the other is for a process that is yet to be.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, others) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::over(ours)?, others))
    }

    /// Speaks over a descriptor that was inherited.
    pub(super) fn over(socket: OwnedFd) -> io::Result<Self> {
        if rustix::net::sockopt::socket_type(&socket)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: an `OwnedFd` always names the one descriptor that it keeps open.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    pub(super) async fn send(
        &self,
        letter: &Letter,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut text = serde_json::to_vec(letter)?;
        text.push(b'\n');
        self.0
            .async_io(Interest::WRITABLE, |socket| {
                send_now(socket.as_fd(), &[&text, bytes], descriptors)
            })
            .await
    }

    /// The next message; `None` once the other end is closed.
    ///
    /// # Cancel safety
    /// Safe: a message is taken whole, in one step.
    pub(super) async fn receive(&self) -> io::Result<Option<Received>> {
        let mut space = vec![0; LONGEST];
        let (length, descriptors) = self
            .0
            .async_io(Interest::READABLE, |socket| {
                receive_now(socket.as_fd(), &mut space)
            })
            .await?;
        if length == 0 {
            return Ok(None);
        }
        read(&space[..length], descriptors).map(Some)
    }
}

pub(super) fn read(message: &[u8], descriptors: Vec<OwnedFd>) -> io::Result<Received> {
    let end = message.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Received {
        letter: serde_json::from_slice(&message[..end])?,
        bytes: message[end + 1..].to_vec(),
        descriptors,
    })
}

fn send_now(
    socket: BorrowedFd<'_>,
    parts: &[&[u8]; 2],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many listeners"));
    }
    let parts = parts.map(IoSlice::new);
    rustix::net::sendmsg(socket, &parts, &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive_now(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let mut parts = [IoSliceMut::new(bytes)];
    let received = rustix::net::recvmsg(socket, &mut parts, &mut beside, flags)?;
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            descriptors.extend(sent);
        }
    }
    if received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
    {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((received.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[tokio::test]
    async fn a_letter_arrives_with_its_bytes_and_a_descriptor_that_works() {
        let (one, other) = Letters::pair().unwrap();
        let other = Letters::over(other).unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        let letter = Letter::Taken(7);
        one.send(&letter, b"GET /\nhalf", &[writer.as_fd()])
            .await
            .unwrap();
        one.send(&Letter::Go, b"", &[]).await.unwrap();
        writer.write_all(b"first ").unwrap();
        drop(writer);
        let received = other.receive().await.unwrap().unwrap();
        assert_eq!(
            (received.letter, &*received.bytes),
            (letter, &b"GET /\nhalf"[..])
        );
        let mut descriptors = received.descriptors;
        let mut given = std::fs::File::from(descriptors.pop().unwrap());
        given.write_all(b"and second").unwrap();
        drop(given);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first and second");

        assert_eq!(other.receive().await.unwrap().unwrap().letter, Letter::Go);
        drop(one);
        assert!(other.receive().await.unwrap().is_none());
    }

    #[test]
    fn what_is_no_letter_is_an_error() {
        for message in [
            &b""[..],
            b"\n",
            b"{}\n",
            b"\"Go\"",
            b"\"Come\"\n",
            b"\xff\n",
        ] {
            assert!(read(message, Vec::new()).is_err(), "{message:?}");
        }
    }
}
