//! Certificates for listeners, and their renewal while connections stay (feature `tls`).
//!
//! A connection keeps what it shook hands with. When new files cannot be used, the old ones stay in use and
//! the log says why; they are tried again when they change.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::core::{Core, lock};
use crate::lifecycle::Phase;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What HTTP's versions are called in a handshake, best first (RFC 7301, RFC 9113 §3.2).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How a listener proves who it is, and whether its clients have to; for
/// [`Listener::tls`](crate::Listener::tls).
///
/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. Files are PEM; they are read again when they change and
/// on SIGHUP, and no connection is dropped for that.
///
/// ```
/// use axum::Router;
/// use sundown::{App, Listener, Tls};
///
/// let tls = Tls::files("/etc/shop/tls.crt", "/etc/shop/tls.key");
/// let app = App::new("shop").listener(Listener::http(":8443", Router::new()).name("https").tls(tls));
/// # let _ = app;
/// ```
#[derive(Debug, Clone)]
pub struct Tls {
    source: Source,
    clients: Option<Clients>,
}

#[derive(Debug, Clone)]
enum Source {
    Files { certificates: PathBuf, key: PathBuf },
    Config(Arc<ServerConfig>),
}

#[derive(Debug, Clone)]
struct Files {
    certificates: PathBuf,
    key: PathBuf,
    clients: Option<Clients>,
}

#[derive(Debug, Clone)]
struct Clients {
    authorities: PathBuf,
    required: bool,
}

impl Tls {
    /// The listener's certificate with those that lead to its authority, and its private key.
    pub fn files(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self::of(Source::Files {
            certificates: certificates.into(),
            key: key.into(),
        })
    }

    /// A configuration of the application's own, used as it is: ALPN and renewal are its affair.
    pub fn config(config: Arc<ServerConfig>) -> Self {
        Self::of(Source::Config(config))
    }

    fn of(source: Source) -> Self {
        let clients = None;
        Self { source, clients }
    }

    /// Lets in only clients with a certificate of one of these authorities; handlers find it as
    /// [`ClientCertificates`]. For [`files`](Self::files): with a configuration of the application's own the
    /// service does not start, because that has a verifier of its own.
    pub fn require_clients(self, authorities: impl Into<PathBuf>) -> Self {
        self.with_clients(authorities.into(), true)
    }

    /// The same, but lets in clients without a certificate as well.
    pub fn allow_clients(self, authorities: impl Into<PathBuf>) -> Self {
        self.with_clients(authorities.into(), false)
    }

    fn with_clients(mut self, authorities: PathBuf, required: bool) -> Self {
        self.clients = Some(Clients {
            authorities,
            required,
        });
        self
    }
}

/// The certificates that a client has shown, its own first; in the extensions of each of its requests.
#[derive(Clone)]
pub struct ClientCertificates(Arc<[CertificateDer<'static>]>);

impl ClientCertificates {
    pub(crate) fn of(shown: &[CertificateDer<'_>]) -> Option<Self> {
        let owned = shown.iter().map(|one| one.clone().into_owned());
        (!shown.is_empty()).then(|| Self(owned.collect()))
    }

    /// The client's own, DER-encoded (X.509).
    pub fn end_entity(&self) -> &[u8] {
        &self.0[0]
    }

    /// All of them, DER-encoded.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|certificate| &**certificate)
    }
}

impl fmt::Debug for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientCertificates({})", self.0.len())
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("there is no certificate in {}; it has to be PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} and {} cannot be used: {source}", certificates.display(), key.display())]
    Unusable {
        certificates: PathBuf,
        key: PathBuf,
        source: rustls::Error,
    },
    #[error(
        "clients are verified by the configuration of Tls::config itself; give that a client verifier, or use Tls::files"
    )]
    OwnVerifier,
    #[error("{} cannot be used: {problem}", path.display())]
    Authorities { path: PathBuf, problem: String },
}

/// What a listener shakes hands with at present.
pub(crate) struct Certificates {
    /// With what they were like before they were read.
    files: Option<(Files, Vec<Stamp>)>,
    current: Mutex<Arc<ServerConfig>>,
}

impl Certificates {
    pub(crate) fn load(tls: Tls) -> Result<Self, TlsError> {
        let (files, config) = match (tls.source, tls.clients) {
            (Source::Config(_), Some(_)) => return Err(TlsError::OwnVerifier),
            (Source::Config(config), None) => (None, config),
            (Source::Files { certificates, key }, clients) => {
                let files = Files {
                    certificates,
                    key,
                    clients,
                };
                let seen = files.stamps();
                let config = files.load()?;
                (Some((files, seen)), config)
            }
        };
        Ok(Self {
            files,
            current: Mutex::new(config),
        })
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        lock(&self.current).clone()
    }

    /// Reads the files again when they change, until the service has drained.
    pub(crate) async fn renew(&self, core: &Core, listener: &str) {
        let Some((files, seen)) = &self.files else {
            return;
        };
        let mut seen = seen.clone();
        let mut hangups = core.link.hangups.subscribe();
        let mut drained = std::pin::pin!(core.reached(Phase::Releasing));
        loop {
            let asked = tokio::select! {
                () = &mut drained => return,
                () = tokio::time::sleep(LOOK) => false,
                asked = hangups.changed() => asked.is_ok(),
            };
            let stamps = files.stamps();
            if !asked && stamps == seen {
                continue;
            }
            seen = stamps;
            match files.load() {
                Ok(config) => {
                    *lock(&self.current) = config;
                    tracing::info!(target: "sundown", listener, "certificates renewed");
                }
                Err(error) => {
                    tracing::error!(target: "sundown", listener, %error, "certificates stay as they are");
                }
            }
        }
    }
}

/// What tells one version of a file from another.
type Stamp = Option<(SystemTime, u64, u64)>;

impl Files {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let clients = self.clients.iter().map(|clients| &*clients.authorities);
        [&*self.certificates, &*self.key].into_iter().chain(clients)
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path: &Path| {
            let file = fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.ino(), file.len()))
        };
        self.paths().map(stamp).collect()
    }

    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = read_certificates(&self.certificates)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::Read {
            path: self.key.clone(),
            source,
        })?;
        let unusable = |source| TlsError::Unusable {
            certificates: self.certificates.clone(),
            key: self.key.clone(),
            source,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(read_certificates(&clients.authorities)?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if clients.required {
                    verifier
                } else {
                    verifier.allow_unauthenticated()
                };
                let verifier = verifier.build().map_err(|error| TlsError::Authorities {
                    path: clients.authorities.clone(),
                    problem: error.to_string(),
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok(Arc::new(config))
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(all) if all.is_empty() => Err(TlsError::NoCertificate(path.to_owned())),
        Ok(all) => Ok(all),
        Err(source) => Err(TlsError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
