//! TLS settings of connections: which certificates of a server are trusted.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

#[cfg(feature = "postgres")]
mod unverified;

/// Check of a server's certificate.
#[derive(Debug)]
pub(crate) enum Verification<'a> {
    /// By the authorities whose certificates are in this PEM text.
    Authorities(&'a [u8]),
    /// By the public authorities.
    #[cfg(any(
        feature = "amqp",
        feature = "http",
        feature = "kafka",
        feature = "mqtt",
        feature = "nats",
        feature = "postgres",
        feature = "redis"
    ))]
    Public,
    /// None: the connection is encrypted, but the server may be another one.
    #[cfg(feature = "postgres")]
    None,
}

/// Returns the settings of a client.
///
/// # Errors
/// The problem with the given authorities.
pub(crate) fn client(verification: &Verification<'_>) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match verification {
        Verification::Authorities(pem) => builder.with_root_certificates(authorities(pem)?),
        #[cfg(any(
            feature = "amqp",
            feature = "http",
            feature = "kafka",
            feature = "mqtt",
            feature = "nats",
            feature = "postgres",
            feature = "redis"
        ))]
        Verification::Public => {
            builder.with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
        }
        #[cfg(feature = "postgres")]
        Verification::None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(unverified::AcceptAny(Arc::clone(&provider))))
        }
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("the file contains no certificate: PEM begins with -----BEGIN CERTIFICATE-----".into());
    }
    Ok(roots)
}
