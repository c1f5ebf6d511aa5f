//! Tells systemd how the service is (sd_notify(3)): that it is ready, that it stops and how long that may
//! take, and that it lives.
//!
//! A thread of its own says it, because the control thread must not wait for a manager that does not read;
//! and there is none where nobody asked.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

/// What systemd waits for us longer than we take: its own part of the end.
const MARGIN: Duration = Duration::from_secs(5);

/// How much may wait to be said.
const WAITING: usize = 64;

/// The way to systemd, if it asked to be told.
pub(crate) struct Manager(Option<mpsc::SyncSender<Said>>);

/// One thing to say.
pub(crate) enum Said {
    /// Everything has started.
    Ready { status: String },
    /// The stop has begun, or goes on, and ends within this time.
    Stopping { status: String, within: Duration },
    /// Something begins that leads to `Ready` or `Successor`.
    Reloading,
    /// Another process is the service from now on, and is ready.
    Successor { pid: u32 },
    /// This socket is to be kept, and passed to whoever is started next.
    Store { name: String, socket: OwnedFd },
    /// The runtime still runs.
    Alive,
}

impl Manager {
    pub(crate) fn from_environment() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").and_then(|_| speaker()))
    }

    /// Nobody, whoever has asked.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Says it, some time soon.
    pub(crate) fn tell(&self, said: Said) {
        if let Some(speaker) = &self.0 {
            // What a manager that does not read would be told next is left out.
            let _ = speaker.try_send(said);
        }
    }

    /// Whether it keeps sockets for us (`FileDescriptorStoreMax=`; systemd 254 and later say so).
    pub(crate) fn stores(&self) -> bool {
        let most = std::env::var("FDSTORE").ok();
        let most = most.and_then(|most| most.parse().ok());
        self.0.is_some() && most.is_some_and(|most: u32| most > 0)
    }

    /// How often it wants to hear that we live, with time to spare.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?;
        sd_notify::watchdog_enabled().map(|limit| limit / 2)
    }
}

fn speaker() -> Option<mpsc::SyncSender<Said>> {
    let (sender, inbox) = mpsc::sync_channel::<Said>(WAITING);
    let speak = move || {
        for said in inbox {
            if let Err(error) = said.say() {
                tracing::warn!(target: "sundown", %error, "systemd cannot be told");
            }
        }
    };
    let thread = thread::Builder::new().name("sundown-systemd".to_owned());
    match thread.spawn(speak) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(target: "sundown", %error, "systemd will not be told");
            None
        }
    }
}

impl Said {
    fn say(&self) -> std::io::Result<()> {
        match self {
            Self::Ready { status } => {
                sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])
            }
            Self::Stopping { status, within } => {
                let within = (*within + MARGIN).as_micros();
                let within = u32::try_from(within).unwrap_or(u32::MAX);
                sd_notify::notify(&[
                    NotifyState::Stopping,
                    NotifyState::Status(status),
                    NotifyState::ExtendTimeoutUsec(within),
                ])
            }
            Self::Reloading => {
                sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
            }
            Self::Successor { pid } => {
                sd_notify::notify(&[NotifyState::MainPid(*pid), NotifyState::Ready])
            }
            Self::Store { name, socket } => sd_notify::notify_with_fds(
                &[NotifyState::FdStore, NotifyState::FdName(name)],
                &[socket.as_fd()],
            ),
            Self::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        }
    }
}
