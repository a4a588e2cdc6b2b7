//! TLS with an authority of the user's own, and compressed answers.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt as _, stream};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::server::TlsStream;

use super::super::{Http, HttpOptions};
use super::list;
use super::scripted::{Received, with_api};
use diorama_core::vista::{Error, ErrorKind};

/// An authority, and a server that it has certified for `localhost`.
struct Authority {
    pem: String,
    server: TlsAcceptor,
}

impl Authority {
    fn new() -> Authority {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new([]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let issuer = rcgen::Issuer::new(parameters, key);
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(["localhost".to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
        let secret = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![own.der().clone()], secret.into()).unwrap();
        Authority { pem, server: TlsAcceptor::from(Arc::new(config)) }
    }
}

struct TlsListener(TcpListener, TlsAcceptor);

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.0.accept().await else { continue };
            // A client that does not trust the server goes away.
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn a_server_is_trusted_by_its_own_authority_only() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (ca, other, none) = (file("ca.pem", &ours.pem), file("other.pem", &theirs.pem), file("none.pem", "none"));
    let both = file("both.pem", &format!("{}\n{}", theirs.pem, ours.pem));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let answer = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        async { r#"[{"id":1},{"id":2}]"# }
    };
    let test = async {
        let open = async |host: &str, ca: Option<&std::path::PathBuf>| {
            let options = HttpOptions { ca: ca.cloned(), ..HttpOptions::default() };
            Http::open("rows", &format!("https://{host}:{port}/rows"), options).await
        };
        for ca in [&ca, &both] {
            let vista = open("localhost", Some(ca)).await.unwrap();
            assert_eq!(list(&vista).await.unwrap().len(), 2);
        }
        let answered = requests.load(Ordering::SeqCst);
        for (host, ca) in [("localhost", None), ("localhost", Some(&other)), ("127.0.0.1", Some(&ca))] {
            let error = open(host, ca).await.unwrap_err();
            assert!(error.to_string().to_lowercase().contains("certificate"), "{host}, {ca:?}: {error}");
            assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        }
        assert_eq!(requests.load(Ordering::SeqCst), answered, "nothing was sent");
        for missing in [none, dir.path().join("missing.pem")] {
            let error = open("localhost", Some(&missing)).await.unwrap_err();
            assert!(matches!(error, Error::Config(_)) && error.to_string().contains("ca: "), "{error}");
        }
    };
    let router = Router::new().route("/rows", get(answer));
    tokio::select! {
        ended = axum::serve(TlsListener(listener, ours.server.clone()), router) => panic!("the API ended: {ended:?}"),
        () = test => {}
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn compressed(body: impl Into<Body>) -> Response {
    ([("content-type", "application/json"), ("content-encoding", "gzip")], body.into()).into_response()
}

#[tokio::test]
async fn a_compressed_answer_is_read_whole_or_refused() {
    let rows: Vec<String> = (0..2_000).map(|id| format!(r#"{{"id":{id},"name":"Article {id}"}}"#)).collect();
    let whole = gzip(&format!("[{}]", rows.join(",")));
    let api = move |request: Received| {
        let accepted = request.headers.get("accept-encoding").and_then(|accepted| accepted.to_str().ok());
        assert!(accepted.is_some_and(|accepted| accepted.contains("gzip")), "{accepted:?}");
        let end = whole.len() - if request.path == "/part" { 40 } else { 0 };
        let mut body = whole[..end].to_vec();
        if request.path == "/damaged" {
            body[end / 2] ^= 0x55;
        }
        compressed(body)
    };
    with_api(api, async |url| {
        let vista = Http::open("rows", url, HttpOptions::default()).await.unwrap();
        assert_eq!(list(&vista).await.unwrap().len(), 2_000);
        for path in ["part", "damaged"] {
            let error = Http::open("rows", &format!("{url}/{path}"), HttpOptions::default()).await.unwrap_err();
            assert_ne!(error.kind(), ErrorKind::Permanent, "{path}: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_decompression_bomb_is_bounded_by_the_size_of_its_content() {
    // An answer without end, of which each kilobyte is a megabyte.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let mut chunk = || {
        encoder.write_all(&[b' '; 1 << 20]).unwrap();
        encoder.flush().unwrap();
        Bytes::from(std::mem::take(encoder.get_mut()))
    };
    // Each chunk after the first refers to the spaces before it, so that it can be repeated.
    let (first, next) = (chunk(), chunk());
    assert!(next.len() < 4_096, "{} bytes", next.len());
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let api = move |_: Received| {
        let (counter, first, next) = (Arc::clone(&counter), first.clone(), next.clone());
        let chunks = stream::once(async { first }).chain(stream::repeat(next)).map(move |chunk: Bytes| {
            counter.fetch_add(chunk.len(), Ordering::SeqCst);
            Ok::<_, std::io::Error>(chunk)
        });
        compressed(Body::from_stream(chunks))
    };
    with_api(api, async |url| {
        let options = HttpOptions { max_size: 8 << 20, ..HttpOptions::default() };
        let error = Http::open("rows", url, options).await.unwrap_err();
        assert!(error.to_string().contains("larger than 8388608 bytes (max_size)"), "{error}");
    })
    .await;
    // The system holds some of what was sent.
    assert!(sent.load(Ordering::SeqCst) < 16 << 20, "{sent:?} bytes were sent");
}
