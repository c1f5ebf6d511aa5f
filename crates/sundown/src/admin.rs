//! The listener for those who run a service: how it is, what it holds open, and how to stop it.
//!
//! It is served beside the service, by the same code but with a core of its own (`beside`): what it has open
//! holds no stop up, and it ends last. `access` says who may ask for what, `routes` answers.

mod access;
mod beside;
mod metrics;
mod routes;

use std::sync::Arc;

use crate::app::Listener;
use crate::core::Core;
use crate::error::Error;
use crate::serve::Address;
use crate::settings::AdminSettings;
#[cfg(feature = "tls")]
use crate::tls::Tls;

use access::Access;
pub(crate) use beside::Beside;
pub(crate) use metrics::text as metrics;

/// Its name: for the report's neighbours, `LISTEN_FDNAMES` and [`Handle::address`](crate::Handle::address).
pub(crate) const NAME: &str = "admin";

/// The shortest token that is not soon guessed, in bytes.
const SHORTEST: usize = 16;

/// A listener of its own for those who run the service, which is open from before the start hooks until the
/// last release has ended.
///
/// | request | answer |
/// |---|---|
/// | `GET /livez` | 200 for as long as the process lives |
/// | `GET /readyz` | 200 while [`Ready`](crate::Phase::Ready) and no [`Check`](crate::Check) fails, else 503 |
/// | `GET /metrics` | counts and gauges in Prometheus' text format, or in OpenMetrics 1.0 where that is accepted |
/// | `GET /lifecycle` | JSON: phase, budget left, what is open by route with age and peer; with `Accept: text/event-stream` again at every change |
/// | `POST /shutdown` | 202; stops the service as SIGTERM does; `?reason=` is told in the report |
/// | `GET /` | all of it as a page |
///
/// An address without a host, such as `:9090`, is on loopback here. Where others can reach it, a token is
/// required: all but the page itself, `/livez` and `/readyz` (which tell a supervisor one word) want
/// `Authorization: Bearer TOKEN`. Without a token only requests that name the listener by an IP address or as
/// `localhost` are answered, so that no web page can ask in its reader's place.
///
/// ```
/// use sundown::{Admin, App};
///
/// let app = App::new("shop").admin(Admin::at(":9090"));
/// # let _ = app;
/// ```
///
/// Operators may add one to any service by `SUNDOWN_ADMIN`, and set `SUNDOWN_ADMIN_TOKEN`.
#[must_use = "an Admin does nothing until it is given to an App"]
#[derive(Debug)]
pub struct Admin {
    address: Address,
    token: Option<Token>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

/// What nobody is to read in a log.
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Admin {
    /// Listens here; see [`Address`], and a Unix socket is its owner's alone (mode 0o600).
    pub fn at(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            token: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Wants this from whoever asks: at least 16 visible ASCII characters.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Token(token.into()));
        self
    }

    /// Serves under TLS.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// What the code and the environment want together; `None` where neither wants one.
    pub(crate) fn merge(code: Option<Self>, settings: AdminSettings) -> Option<Self> {
        let AdminSettings { address, token } = settings;
        let mut admin = match (code, address) {
            (Some(code), None) => code,
            (Some(code), Some(address)) => Self {
                address: address.into(),
                ..code
            },
            (None, Some(address)) => Self::at(address),
            (None, None) => return None,
        };
        admin.token = token.map(Token).or(admin.token);
        Some(admin)
    }

    /// Checks it, before anything is bound.
    ///
    /// # Errors
    /// [`Error::Admin`] for a token that is missing or cannot be one, [`Error::Address`].
    pub(crate) fn settle(self) -> Result<Settled, Error> {
        let address = self.address.resolve(NAME, "127.0.0.1")?;
        if let Some(Token(token)) = &self.token {
            check_token(token)?;
        }
        let settled = Settled {
            address,
            access: Access::new(self.token.map(|Token(token)| token)),
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        if let Some(address) = settled.address.known() {
            settled.access.check_reach(&address)?;
        }
        Ok(settled)
    }
}

/// An admin listener whose settings are right.
pub(crate) struct Settled {
    address: Address,
    access: Access,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Settled {
    /// Makes the listener, and what stands beside the service.
    pub(crate) fn begin(self, core: &Arc<Core>) -> (Listener, Beside) {
        let access = Arc::new(self.access);
        let beside = Beside::new(core, access.clone());
        let service = routes::service(core.clone(), access, beside.over());
        let listener = Listener::http(self.address, service).name(NAME).mode(0o600);
        #[cfg(feature = "tls")]
        let listener = Listener {
            tls: self.tls,
            ..listener
        };
        (listener, beside)
    }
}

fn check_token(token: &str) -> Result<(), Error> {
    let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.len() >= SHORTEST && visible {
        return Ok(());
    }
    Err(Error::Admin(format!(
        "the token needs at least {SHORTEST} visible ASCII characters and no spaces; such as what \
         `openssl rand -hex 32` prints"
    )))
}

/// See `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    access::fuzz(bytes);
    routes::fuzz(bytes);
}
