//! TLS settings of connections: which certificates of a server are trusted.

use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};

/// Check of a server's certificate.
#[derive(Debug)]
pub(crate) enum Verification<'a> {
    /// By the authorities whose certificates are in this PEM text.
    Authorities(&'a [u8]),
    /// By the public authorities.
    #[cfg(any(feature = "http", feature = "postgres"))]
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
        #[cfg(any(feature = "http", feature = "postgres"))]
        Verification::Public => {
            builder.with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
        }
        #[cfg(feature = "postgres")]
        Verification::None => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(Arc::clone(&provider))))
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

/// Verifier that accepts every certificate, as clients of PostgreSQL do by default.
#[cfg(feature = "postgres")]
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

#[cfg(feature = "postgres")]
impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
