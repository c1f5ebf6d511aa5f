//! A certificate that nobody else trusts, for a server that is measured under TLS.

use std::fs;
use std::path::Path;

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// The name that the certificate is for.
const NAME: &str = "localhost";

/// Makes a certificate that signs itself, and writes it to `cert.pem` and its key to `key.pem`.
///
/// # Errors
/// When it cannot be made or written.
pub(crate) fn write(folder: &Path) -> anyhow::Result<()> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(folder.join("cert.pem"), cert.pem())?;
    fs::write(folder.join("key.pem"), signing_key.serialize_pem())?;
    Ok(())
}
