//! TLS of the client: which servers it trusts, and the certificate by which it authenticates itself.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{config, usage};
use crate::app::Failure;

/// Arguments for servers at `https://`.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct TrustArgs {
    /// Certificates of the authorities to trust, for https:// (default: the public authorities).
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// A certificate with its private key in one PEM file, for a server that requires one of its clients.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
}

/// TLS for connections to one server.
pub(super) struct Trust {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TrustArgs {
    /// Reads the files, for the server at `authority`, a host with a port.
    ///
    /// # Errors
    /// The file that cannot be used, or the host.
    pub(super) fn read(&self, authority: &str) -> Result<Trust, Failure> {
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_string();
        let name = ServerName::try_from(host).map_err(|error| usage(format!("--url: {error}")))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| usage(error.to_string()))?;
        let builder = builder.with_root_certificates(self.roots()?);
        let config = match &self.cert {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let wrong = |error: &dyn std::fmt::Display| unusable("--cert", path, error);
                let (chain, text) = (certificates("--cert", path)?, read("--cert", path)?);
                let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| wrong(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| wrong(&error))?
            }
        };
        Ok(Trust { config: Arc::new(config), name })
    }

    fn roots(&self) -> Result<RootCertStore, Failure> {
        let Some(path) = &self.cacert else {
            return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("--cacert", path)? {
            roots.add(certificate).map_err(|error| unusable("--cacert", path, &error))?;
        }
        Ok(roots)
    }
}

impl Trust {
    /// Performs the handshake over a new connection.
    pub(super) fn encrypt(&self, stream: TcpStream) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let session = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        let mut stream = StreamOwned::new(session.map_err(std::io::Error::other)?, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unusable(option, path, &error))
}

/// Reads the certificates of a file; there is at least one.
fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(option, path)?).collect();
    let certificates = read.map_err(|error| unusable(option, path, &error))?;
    match certificates.is_empty() {
        true => Err(unusable(option, path, &"it contains no certificate in PEM format")),
        false => Ok(certificates),
    }
}

fn unusable(option: &str, path: &Path, error: &dyn std::fmt::Display) -> Failure {
    config(format!("{option}: {}: {error}", path.display()))
}
