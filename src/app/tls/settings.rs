//! Reader of certificate, key and authorities, which become the settings of rustls.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::ring::{Ticketer, default_provider};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{Error as TlsError, InconsistentKeys, RootCertStore, ServerConfig};

use super::certificate::validity;
use crate::config::{ClientAuth, PrivateKey, TlsSpec};

/// Protocols that are offered, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Settings of TLS with the files that they were read from.
pub(super) struct TlsSettings {
    pub(super) spec: TlsSpec,
    pub(super) config: Arc<ServerConfig>,
    /// Contents of all files, to recognize unchanged ones.
    contents: Contents,
    not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Certificates in DER format and the text of the key.
#[derive(PartialEq, Eq)]
struct Contents {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
    authorities: Vec<CertificateDer<'static>>,
}

impl TlsSettings {
    /// Reads all files.
    ///
    /// # Errors
    /// All mistakes, one per line.
    pub(super) fn load(spec: &TlsSpec) -> Result<TlsSettings, String> {
        let provider = Arc::new(default_provider());
        let chain = certificates(&spec.cert).map_err(|mistake| format!("[server.tls] cert: {mistake}"));
        let key = private_key(&spec.key).map_err(|mistake| format!("[server.tls] key: {mistake}"));
        let clients = match &spec.clients {
            Some(clients) => verifier(clients, &provider).map(Some),
            None => Ok(None),
        };
        let clients = clients.map_err(|mistake| format!("[server.tls] client_ca: {mistake}"));
        let (chain, (text, key), clients) = match (chain, key, clients) {
            (Ok(chain), Ok(key), Ok(clients)) => (chain, key, clients),
            (chain, key, clients) => {
                let mistakes = [chain.err(), key.err(), clients.err()];
                return Err(mistakes.into_iter().flatten().collect::<Vec<_>>().join("\n"));
            }
        };
        let first = chain.first().map(|der| validity(der)).unwrap_or(Err("it is empty".into()));
        let (not_before, not_after) =
            first.map_err(|mistake| format!("[server.tls] cert: {}: {mistake}", spec.cert.display()))?;
        let certified =
            CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| unusable(spec, &error))?;
        let (verifier, authorities) = clients.unzip();
        let config = server_config(provider, verifier, certified).map_err(|error| format!("[server.tls] {error}"))?;
        let contents = Contents { chain, key: text, authorities: authorities.unwrap_or_default() };
        Ok(TlsSettings { spec: spec.clone(), config: Arc::new(config), contents, not_before, not_after })
    }

    /// Returns true if `other` was read from the same contents and asks clients for the same.
    pub(super) fn is_same(&self, other: &TlsSettings) -> bool {
        let is_required = |settings: &TlsSettings| settings.spec.clients.as_ref().map(|clients| clients.required);
        self.contents == other.contents && is_required(self) == is_required(other)
    }

    /// Returns a warning if the certificate is not valid at `now`.
    pub(super) fn warning(&self, now: SystemTime) -> Option<String> {
        let path = self.spec.cert.display();
        if now > self.not_after {
            return Some(format!("[server.tls] cert: {path} expired at {}", date(self.not_after)));
        }
        let is_early = now < self.not_before;
        is_early.then(|| format!("[server.tls] cert: {path} is not valid before {}", date(self.not_before)))
    }
}

impl fmt::Display for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "server.tls: certificate valid until {}", date(self.not_after))
    }
}

fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    certified: CertifiedKey,
) -> Result<ServerConfig, TlsError> {
    // TLS 1.2 and 1.3 are all that rustls has.
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let verifies = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    if verifies {
        // A resumed session would keep a client certificate that has expired or whose authority was removed.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(tokio_rustls::rustls::server::NoServerSessionStorage {});
    } else {
        config.ticketer = Ticketer::new()?;
    }
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Reads the certificates of a file; there is at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (text, path) = (read(path)?, path.display());
    let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = read.map_err(|error| format!("{path} is not valid PEM: {error}"))?;
    if certificates.is_empty() {
        let hint = match text.first() {
            // A sequence of ASN.1.
            Some(0x30) => format!("; convert it with openssl x509 -inform der -in {path} -out cert.pem"),
            _ => String::new(),
        };
        return Err(format!("{path} contains no certificate: PEM begins with -----BEGIN CERTIFICATE-----{hint}"));
    }
    Ok(certificates)
}

/// Reads a key; returns its text as well.
fn private_key(key: &PrivateKey) -> Result<(Vec<u8>, PrivateKeyDer<'static>), String> {
    let (text, place) = match key {
        PrivateKey::File(path) => (read(path)?, path.display().to_string()),
        PrivateKey::Text(secret) => (secret.reveal().as_bytes().to_vec(), "the environment variable".to_string()),
    };
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok((text, key)),
        Err(_) if memchr::memmem::find(&text, b"ENCRYPTED").is_some() => Err(format!(
            "the private key in {place} is encrypted: decrypt it with openssl pkey -in FILE -out key.pem, and let only the \
             server's user read it"
        )),
        Err(pem::Error::NoItemsFound) => {
            Err(format!("{place} contains no private key: PEM begins with -----BEGIN PRIVATE KEY-----"))
        }
        Err(error) => Err(format!("{place} is not valid PEM: {error}")),
    }
}

/// Returns the check of clients' certificates, with those of the authorities.
fn verifier(
    clients: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<dyn ClientCertVerifier>, Vec<CertificateDer<'static>>), String> {
    let (authorities, path) = (certificates(&clients.ca)?, clients.ca.display());
    let mut roots = RootCertStore::empty();
    for certificate in &authorities {
        let added = roots.add(certificate.clone());
        added.map_err(|error| format!("{path} has a certificate that is not valid: {error}"))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(|error| format!("{path}: {error}"))?;
    Ok((verifier, authorities))
}

/// Returns the message for a key that cannot be used with the certificate.
fn unusable(spec: &TlsSpec, error: &TlsError) -> String {
    let cert = spec.cert.display();
    match error {
        TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
            "[server.tls] key: the key does not belong to the first certificate in {cert}, which must be the server's own"
        ),
        error => format!("[server.tls] key: the key cannot be used with {cert}: {error}"),
    }
}

fn date(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "an unknown time".to_string(), |time| time.to_string())
}
