//! A certificate that nobody else trusts, for a server that is measured under TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// The name that the certificate is for.
const NAME: &str = "localhost";

/// What a client needs to take the server for who it is.
#[derive(Clone, Debug)]
pub(crate) struct Trust(Arc<ClientConfig>);

/// Makes a certificate that signs itself, and writes it to `cert.pem` and its key to `key.pem`.
///
/// # Errors
/// When it cannot be made or written.
pub(crate) fn write(folder: &Path) -> anyhow::Result<Trust> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(folder.join("cert.pem"), cert.pem())?;
    fs::write(folder.join("key.pem"), signing_key.serialize_pem())?;
    Trust::in_this(cert.der().clone())
}

impl Trust {
    fn in_this(certificate: CertificateDer<'static>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Every handshake is a whole one.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Begins a connection of HTTP/1.1.
    ///
    /// # Errors
    /// When rustls does.
    pub(crate) fn client(&self) -> anyhow::Result<ClientConnection> {
        Ok(ClientConnection::new(self.0.clone(), NAME.try_into()?)?)
    }
}
