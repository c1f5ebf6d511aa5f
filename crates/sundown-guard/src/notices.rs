//! What an application says of itself to whoever started it: datagrams of sd_notify(3).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::io::IoSliceMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::{control, kin, sys};

/// The longest datagram, in bytes.
const LONGEST: usize = 4096;

/// Something that an application has said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// It is ready.
    pub(crate) ready: bool,
    /// How it is, in its own words.
    pub(crate) status: Option<String>,
}

/// Where a generation says it; the socket's file goes with this.
pub(crate) struct Notices {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Notices {
    /// Opens a socket in the folder of this user's guards.
    pub(crate) fn open(service: &str, generation: u32) -> io::Result<Self> {
        let name = format!("{service}.{generation}.notify");
        let path = control::private_folder()?.join(name);
        control::remove_stale(&path)?;
        Self::at(path)
    }

    fn at(path: PathBuf) -> io::Result<Self> {
        let socket = UnixDatagram::bind(&path)?;
        socket.set_nonblocking(true)?;
        sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self {
            socket: sys::watch(socket.into())?,
            path,
        })
    }

    /// What NOTIFY_SOCKET is to be.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next that a descendant of this process says; who it is the kernel tells (SCM_CREDENTIALS, unix(7)).
    ///
    /// # Cancel safety
    /// Safe: a datagram is taken whole, in one step.
    pub(crate) async fn next(&self, keeper: i32) -> Said {
        loop {
            let received = self.socket.async_io(Interest::READABLE, receive);
            match received.await {
                // Who has ended since, as a tool that says one thing, cannot be asked whose child it was.
                Ok((text, Some(pid)))
                    if !is_there(pid) || kin::descendants(keeper).contains(&pid) =>
                {
                    return read(&text);
                }
                Ok(_) => {}
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_there(pid: i32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}

fn receive(socket: &OwnedFd) -> io::Result<(String, Option<i32>)> {
    let mut bytes = [0; LONGEST];
    // An application may send descriptors to be kept, too: those are closed.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(16))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, &mut parts, &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let pid = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(who) => Some(who.pid.as_raw_nonzero().get()),
        _ => None,
    });
    Ok((
        String::from_utf8_lossy(&bytes[..received.bytes]).into_owned(),
        pid,
    ))
}

/// Reads the lines of a datagram; those that mean nothing here are left out.
fn read(text: &str) -> Said {
    text.lines()
        .fold(Said::default(), |said, line| match line.split_once('=') {
            Some(("READY", "1")) => Said {
                ready: true,
                ..said
            },
            Some(("STATUS", status)) => Said {
                status: Some(status.to_owned()),
                ..said
            },
            _ => said,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_line_by_line() {
        let said = |ready, status: Option<&str>| Said {
            ready,
            status: status.map(str::to_owned),
        };
        let table = [
            ("READY=1", said(true, None)),
            (
                "STATUS=warm = yes\nREADY=1\nMAINPID=7",
                said(true, Some("warm = yes")),
            ),
            ("READY=0\nFDSTORE=1\n\nnothing", said(false, None)),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_stranger_is_not_heard_and_a_descendant_is() {
        let folder = tempfile::tempdir().unwrap();
        let notices = Notices::at(folder.path().join("notify")).unwrap();
        let say = |text: &[u8]| UnixDatagram::unbound()?.send_to(text, notices.path());
        let own = i32::try_from(std::process::id()).unwrap();
        let parent = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        say(b"STATUS=of nobody beneath").unwrap();
        tokio::select! {
            biased;
            said = notices.next(own) => panic!("{said:?}"),
            () = tokio::task::yield_now() => {}
        }
        say(b"READY=1").unwrap();
        let said = notices.next(parent).await;
        assert!(said.ready);
        assert_eq!(said.status, None);
    }
}
