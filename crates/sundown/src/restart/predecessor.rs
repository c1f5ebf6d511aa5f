//! The side of the process that was started to follow another.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::letters::{Letters, Received};
use super::passage::Arrival;
use super::{GivenListener, Letter, VARIABLE};
use crate::core::Core;
use crate::sys;

/// The way to the process that we follow.
pub(crate) struct Predecessor(Letters);

impl Predecessor {
    /// Who started this process as its successor, if anybody did.
    pub(crate) fn from_environment() -> Option<Self> {
        let value = std::env::var(VARIABLE).ok()?;
        let (descriptor, process) = way(&value)?;
        // Of a successor's own children none is meant.
        if process != std::os::unix::process::parent_id() {
            return None;
        }
        let descriptor = sys::own_passed_fd(descriptor);
        Letters::over(descriptor).ok().map(Self)
    }

    /// The sockets that it listens on, by name.
    pub(crate) async fn listeners(&self) -> io::Result<Vec<(String, OwnedFd, bool, bool)>> {
        let Some(Received {
            letter: Letter::Listeners(given),
            descriptors,
            ..
        }) = self.0.receive().await?
        else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let with_name = |(given, descriptor): (GivenListener, OwnedFd)| {
            (given.name, descriptor, given.shared, given.file)
        };
        Ok(given.into_iter().zip(descriptors).map(with_name).collect())
    }

    /// Says that everything has started, and waits until it may accept. A predecessor that is gone has left
    /// us alone.
    pub(crate) async fn ready(&self, wanted: Vec<String>) {
        if self.0.send(&Letter::Ready(wanted), b"", &[]).await.is_ok() {
            let _ = self.0.receive().await;
        }
    }

    /// Takes its connections until it is gone.
    pub(crate) async fn welcome(self, core: Arc<Core>) {
        let (answers, mut answered) = mpsc::unbounded_channel();
        loop {
            tokio::select! {
                Some(answer) = answered.recv() => {
                    if self.0.send(&answer, b"", &[]).await.is_err() {
                        return;
                    }
                }
                received = self.0.receive() => match received {
                    Ok(Some(received)) => bring(&core, received, &answers),
                    Ok(None) => return,
                    Err(error) => {
                        return tracing::warn!(target: "sundown", %error, "the predecessor is not understood");
                    }
                },
            }
        }
    }
}

/// A descriptor, and the process that has left it to us.
pub(super) fn way(value: &str) -> Option<(RawFd, u32)> {
    let (descriptor, process) = value.split_once(':')?;
    // The first three are taken.
    let descriptor = descriptor.parse().ok().filter(|number| *number > 2)?;
    Some((descriptor, process.parse().ok()?))
}

fn bring(core: &Core, received: Received, answers: &mpsc::UnboundedSender<Letter>) {
    let (Letter::Connection(given), Some(socket)) =
        (received.letter, received.descriptors.into_iter().next())
    else {
        return;
    };
    let arrival = Arrival::new(&given, socket, received.bytes, answers.clone());
    core.succession.bring(&given.listener, arrival);
}
