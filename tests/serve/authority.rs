//! Certificates for servers and clients, and TLS clients of a server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::process::{PATIENCE, Server, TOKEN};

/// A connection of a client.
pub(crate) type Connection = StreamOwned<ClientConnection, TcpStream>;

/// An authority that issues certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate with its key, both in PEM format.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "Authority of the test");
        let pem = parameters.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(parameters, key), pem }
    }

    /// A certificate for this machine, valid from one year to another.
    pub(crate) fn server_between(&self, from: i32, until: i32) -> Issued {
        let mut parameters = CertificateParams::new(["localhost".to_string(), "127.0.0.1".to_string()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        self.issue(&parameters)
    }

    pub(crate) fn server(&self) -> Issued {
        self.server_between(2020, 2060)
    }

    pub(crate) fn client(&self, name: &str) -> Issued {
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(&parameters)
    }

    fn issue(&self, parameters: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let cert = parameters.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { cert, key: key.serialize_pem() }
    }

    /// Settings of a client that trusts this authority.
    pub(crate) fn trusting(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Issued>,
        protocol: &[u8],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// Settings of a client that trusts this authority and speaks `protocol`.
    pub(crate) fn speaking(&self, protocol: &str) -> Arc<ClientConfig> {
        self.trusting(&[&TLS13, &TLS12], None, protocol.as_bytes())
    }
}

impl Issued {
    /// Writes both to the files that [`served`] names.
    pub(crate) fn write(&self, dir: &Path) {
        std::fs::write(dir.join("cert.pem"), &self.cert).unwrap();
        std::fs::write(dir.join("key.pem"), &self.key).unwrap();
    }
}

/// Writes a configuration with TLS and one resource: further lines of `[server]`, `[server.tls]` and `[server.limits]`.
pub(crate) fn configure(dir: &Path, server: &str, tls: &str, limits: &str) {
    let text = format!(
        "[server]\n{server}\n[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n{tls}\n[server.limits]\n{limits}\n\
         [dio.orders]\nsource = {{ sqlite = \"shop.db\", table = \"orders\" }}\n"
    );
    std::fs::write(dir.join("diorama.toml"), text).unwrap();
}

/// Connects and performs the handshake.
pub(crate) fn connect(server: &Server, config: &Arc<ClientConfig>) -> std::io::Result<Connection> {
    let stream = TcpStream::connect(&server.address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let session = ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap();
    let mut connection = StreamOwned::new(session, stream);
    while connection.conn.is_handshaking() {
        connection.conn.complete_io(&mut connection.sock)?;
    }
    Ok(connection)
}

/// Everything that the server sends until the connection ends.
pub(crate) fn rest(connection: &mut Connection) -> std::io::Result<String> {
    let mut read = Vec::new();
    match connection.read_to_end(&mut read) {
        // The end without a message of TLS that says so.
        Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof || read.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&read).into_owned()),
    }
}

/// The answer to a request by HTTP/1.1.
pub(crate) fn get(server: &Server, config: &Arc<ClientConfig>, path: &str) -> std::io::Result<String> {
    let mut connection = connect(server, config)?;
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes())?;
    rest(&mut connection)
}
