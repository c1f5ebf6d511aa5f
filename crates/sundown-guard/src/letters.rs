//! What guard and keeper tell each other, with descriptors beside it.
//!
//! Over SOCK_SEQPACKET, so that a message arrives whole or not at all, and the end of either process is the
//! end of the conversation.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::OnGuardDeath;

/// The longest message: the addresses of a generation of very many.
const LONGEST: usize = 64 * 1024;

/// What the guard asks of a keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// A socket, beside this, that listens on this address and is to be used by whoever binds it.
    Inherit { address: SocketAddr },
    /// A socket, beside this, that is passed to the command: the first as descriptor 3, and so on
    /// (sd_listen_fds(3)).
    Pass,
    /// Starts the command; who binds one of these addresses shares it with the generation before.
    Start {
        shared: Vec<SocketAddr>,
        hearing: Hearing,
    },
    /// The answer to [`Word::Closed`]: the socket is beside this if it was wanted, and otherwise closed.
    Closed,
    /// What becomes of it from now on if the guard is killed.
    Outlives(OnGuardDeath),
    /// The service stops: should the guard end before it, nothing is to be left.
    Stops,
    /// Sends a signal.
    Signal { signal: i32, to: To },
}

/// Whether the calls of a command are heard, without which nothing of its sockets is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Hearing {
    /// They are not.
    No,
    /// They are if that is possible.
    Wished,
    /// Without that it is not started.
    Needed,
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum To {
    /// The process that the command became, or what it left when it has ended.
    Leader,
    /// Every process of the generation.
    All,
}

/// What a keeper tells the guard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// The command runs; if its listeners cannot be heard of, why.
    Started { pid: i32, unheard: Option<String> },
    /// It could not be started, by this error of the system.
    Failed { error: i32 },
    /// It was not started, since its listeners cannot be heard of; why.
    Unheard { why: String },
    /// A socket listens; a duplicate is beside this. The application `named` its port, or the system chose one.
    Listens { inode: u64, named: bool },
    /// No process of the command has this socket any more, and one binds its address again: it is `wanted`, or
    /// in the way. An answer is awaited.
    Closed { inode: u64, wanted: bool },
    /// Something that whoever runs the guard should know.
    Note { text: String },
    /// The process that the command became has ended, with this status (waitpid(2)).
    Ended { status: i32 },
    /// That has left this process, which counts as what the command became from now on.
    Leads { pid: i32 },
}

/// Both ends; the other is for a process that is yet to be.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends a message, and a descriptor beside it.
///
/// # Errors
/// `EPIPE` once the other end is gone.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        beside.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    sendmsg(
        socket,
        &[IoSlice::new(&text)],
        &mut beside,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The next message and what is beside it; `None` once the other end is gone.
///
/// # Errors
/// `EAGAIN` where there is none yet and the socket does not wait, `InvalidData` for what is no such message.
pub(crate) fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(M, Option<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = match recvmsg(&socket, &mut parts, &mut beside, flags) {
        // The other end is gone and has not read everything: that is told once, and before what it sent last.
        Err(rustix::io::Errno::CONNRESET) => recvmsg(&socket, &mut parts, &mut beside, flags),
        other => other,
    }?;
    let mut descriptor = None;
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(mut sent) = message {
            descriptor = sent.next();
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let message = serde_json::from_slice(&bytes[..received.bytes])?;
    Ok(Some((message, descriptor)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptor_and_then_the_end() {
        let (one, other) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(
            &one,
            &Word::Listens {
                inode: 7,
                named: true,
            },
            Some(writer.as_fd()),
        )
        .unwrap();
        send(&one, &Word::Ended { status: 256 }, None).unwrap();
        drop((one, writer));

        let (word, descriptor) = receive(&other).unwrap().unwrap();
        assert!(matches!(word, Word::Listens { inode: 7, .. }));
        let mut writer = io::PipeWriter::from(descriptor.unwrap());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut seen = String::new();
        reader.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "through");
        let (word, descriptor) = receive(&other).unwrap().unwrap();
        assert!(matches!(word, Word::Ended { status: 256 }) && descriptor.is_none());
        assert!(receive::<Word>(&other).unwrap().is_none());
        assert!(send(&other, &Order::Closed, None).is_err());
    }

    #[test]
    fn last_words_arrive_of_an_end_that_did_not_listen() {
        let (one, other) = pair().unwrap();
        send(&other, &Order::Stops, None).unwrap();
        send(&one, &Word::Ended { status: 256 }, None).unwrap();
        drop(one);
        let (word, _) = receive(&other).unwrap().unwrap();
        assert!(matches!(word, Word::Ended { status: 256 }));
        assert!(receive::<Word>(&other).unwrap().is_none());
    }
}
