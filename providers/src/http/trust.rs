//! Trusted certificates: the well-known ones, those of this machine, and those of a file.
//!
//! The machine's certificates are in OpenSSL's directories, or at `SSL_CERT_FILE` and
//! `SSL_CERT_DIR`.

use std::{path::Path, sync::Arc};

use gleitzeit_domain::error::{ErrorCode, TaskError};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// A configuration for TLS that trusts these.
///
/// # Errors
/// `CONFIGURATION_ERROR` if `ca_file` cannot be read or has no certificate.
pub(crate) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TaskError> {
    super::super::tls::install_crypto_provider();
    let mut roots = actix_tls::connect::rustls_0_23::webpki_roots_cert_store();
    let machine = rustls_native_certs::load_native_certs();
    for error in machine.errors {
        tracing::warn!(%error, "certificates of this machine cannot be read");
    }
    // One that rustls does not understand is of no use to it, and no reason to trust none.
    roots.add_parsable_certificates(machine.certs);
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TaskError> {
    let refuse = |problem: String| {
        let message = format!("ca_file: {} {problem}", path.display());
        TaskError::new(ErrorCode::ConfigurationError, message)
    };
    let read = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<CertificateDer<'_>>, _>>);
    let certificates = read.map_err(|error| refuse(format!("cannot be read: {error}")))?;
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(refuse(
            "has no certificate; expected PEM, `-----BEGIN CERTIFICATE-----`".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file that is not what it should be is named when the provider starts, not as a handshake
    /// that fails for reasons unknown.
    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        fs::write(&empty, "no certificate").unwrap();
        for path in [empty, folder.path().join("missing.pem")] {
            let error = config(Some(&path)).unwrap_err();
            assert_eq!(error.code, ErrorCode::ConfigurationError);
            assert!(error.message.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
