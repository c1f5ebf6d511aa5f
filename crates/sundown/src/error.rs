//! What can keep a service from starting.

use std::io;

use thiserror::Error;

use crate::budget::BudgetError;
use crate::exit::ExitStatus;

/// The error of any hook, worker or source: whatever the application uses.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a service did not start, or could not be told to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// An environment variable cannot be read as what it sets.
    #[error("{name}={value}: {problem}")]
    Setting {
        /// The variable, such as `SUNDOWN_GRACE`.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong, and an example of what is right.
        problem: String,
    },
    /// The budget contradicts itself.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A listener's address cannot be understood.
    #[error(
        "listener {listener}: cannot use address {address:?}; write HOST:PORT, such as 127.0.0.1:8080 or [::]:8080"
    )]
    Address {
        /// The listener's name.
        listener: String,
        /// What was given.
        address: String,
    },
    /// A listener could not be opened.
    #[error("listener {listener}: could not bind {address}{}", bind_advice(.source))]
    Bind {
        /// The listener's name.
        listener: String,
        /// The address.
        address: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A listener's certificates cannot be used.
    #[error("listener {listener}: {problem}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong, with the file's name.
        problem: String,
    },
    /// The admin listener cannot be opened as it is set.
    #[error("listener admin: {0}")]
    Admin(String),
    /// Two listeners, workers or hooks have one name, or a hook waits for one that is not there.
    #[error("{0}")]
    Names(String),
    /// The service has neither a listener nor a worker.
    #[error("{0} has nothing to do: give the App a listener or a worker")]
    Nothing(String),
    /// A start hook failed.
    #[error("start hook {hook} failed")]
    Start {
        /// The hook's name.
        hook: String,
        /// What it returned.
        #[source]
        source: BoxError,
    },
    /// What was given to `run_with` failed.
    #[error("could not build the service")]
    Build(#[source] BoxError),
    /// The system refused a thread, a pipe, a signal handler or the runtime.
    #[error("could not set up {what}")]
    Setup {
        /// What was refused.
        what: &'static str,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The exit status that tells a supervisor whether trying again could help.
    pub fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Start { .. } | Self::Build(_) | Self::Setup { .. } => ExitStatus::Failed,
            _ => ExitStatus::BadSetting,
        }
    }

    /// The error and its causes on one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(&format!(": {error}"));
            cause = error.source();
        }
        line
    }
}

fn bind_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (stop what listens there, or choose another port)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
        _ => "",
    }
}
