//! Tests of connections with a responder that reports what it sees of them.

use std::path::Path;

use axum::routing::get;
use axum::{Extension, http::Version};
use hyper::client::conn;
use hyper_util::rt::TokioExecutor;
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::config::{ClientAuth, PrivateKey, TlsSpec};

/// Reports the protocol and the client's certificate.
async fn report(version: Version, certificate: Option<Extension<ClientCertificate>>) -> String {
    let of = |Extension(certificate): Extension<ClientCertificate>| {
        format!("{} {}", certificate.name, certificate.fingerprint.len())
    };
    format!("{version:?} {}", certificate.map_or_else(|| "nobody".into(), of))
}

/// Server that accepts clients with and without certificates of its own authority.
struct Served {
    address: std::net::SocketAddr,
    roots: RootCertStore,
    issuer: Issuer<'static, KeyPair>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Served {
    async fn start(dir: &Path) -> Served {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new([]).unwrap();
        parameters.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&key).unwrap();
        let issuer = Issuer::new(parameters, key);
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["localhost".to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
        let at = |name: &str, text: String| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name)
        };
        let spec = TlsSpec {
            cert: at("cert.pem", own.pem()),
            key: PrivateKey::File(at("key.pem", key.serialize_pem())),
            clients: Some(ClientAuth { ca: at("ca.pem", authority.pem()), required: false }),
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let router = Router::new().fallback(get(report));
        let current = Arc::new(ArcSwap::from_pointee(Responder::Starting(router)));
        let (tls, closing) = (Arc::new(Tls::open(&spec).unwrap()), CancellationToken::new());
        let (limits, proxies) = (LimitsSpec::default(), Proxies::new(&[]));
        let front = Arc::new(Frontend::new(current, limits, proxies, Some(tls), closing.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, front, tasks.clone()));
        Served { address, roots, issuer, closing, tasks }
    }

    async fn connect(&self, name: Option<&str>, protocol: &[u8]) -> TokioIo<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(self.roots.clone());
        let mut config = match name {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let key = KeyPair::generate().unwrap();
                let mut parameters = CertificateParams::new([]).unwrap();
                parameters.distinguished_name.push(DnType::CommonName, name);
                let own = parameters.signed_by(&key, &self.issuer).unwrap();
                let key = PrivatePkcs8KeyDer::from(key.serialize_der());
                builder.with_client_auth_cert(vec![own.der().clone()], key.into()).unwrap()
            }
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        TokioIo::new(connector.connect("localhost".try_into().unwrap(), stream).await.unwrap())
    }

    async fn stop(self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn text(response: hyper::Response<Incoming>) -> String {
    let body = axum::body::to_bytes(Body::new(response.into_body()), 1_000).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

fn request(host: &str) -> Request<Body> {
    // What a client says about itself is not its certificate.
    let request = Request::get(format!("https://{host}/")).header("host", host).header("client-certificate", "forged");
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn each_request_has_the_verified_certificate_of_its_client_and_only_that() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path()).await;
    for (name, expected) in [(Some("robot"), "robot 64"), (None, "nobody")] {
        let stream = served.connect(name, b"http/1.1").await;
        let (mut sender, connection) = conn::http1::handshake(stream).await.unwrap();
        served.tasks.spawn(connection);
        for _ in 0..2 {
            let answer = sender.send_request(request("localhost")).await.unwrap();
            assert_eq!(text(answer).await, format!("HTTP/1.1 {expected}"));
            sender.ready().await.unwrap();
        }
        let stream = served.connect(name, b"h2").await;
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        served.tasks.spawn(connection);
        for _ in 0..2 {
            let answer = sender.send_request(request("localhost")).await.unwrap();
            assert_eq!(text(answer).await, format!("HTTP/2.0 {expected}"));
        }
    }
    served.stop().await;
}
