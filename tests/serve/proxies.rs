//! Requests to an API through the proxy that the environment names.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::process::{Server, serving};

/// A server that answers every request with a list, those to a proxy and those in a tunnel among them.
struct Api {
    address: SocketAddr,
    /// First lines of the requests.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn start(tls: &Arc<ServerConfig>) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Api { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let (requests, tls) = (Arc::clone(&api.requests), Arc::clone(tls));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, tls) = (Arc::clone(&requests), Arc::clone(&tls));
                std::thread::spawn(move || stream.and_then(|stream| answer(stream, tls, &requests)));
            }
        });
        api
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, tls: Arc<ServerConfig>, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let first = first_line(&mut stream)?;
    let is_tunnel = first.starts_with("CONNECT ");
    requests.lock().unwrap().push(first);
    if !is_tunnel {
        return send_rows(&mut stream);
    }
    stream.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")?;
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut inner = StreamOwned::new(connection, stream);
    let first = first_line(&mut inner)?;
    requests.lock().unwrap().push(first);
    send_rows(&mut inner)
}

/// Reads the head of a request.
fn first_line(stream: &mut impl Read) -> std::io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_string())
}

fn send_rows(stream: &mut impl Write) -> std::io::Result<()> {
    let body = r#"[{"id":1,"name":"Bun"},{"id":2,"name":"Tart"}]"#;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    stream.flush()
}

/// Settings of a TLS server for `api.invalid`, and its certificate.
fn certified() -> (Arc<ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(["api.invalid".to_string()]).unwrap();
    let secret = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], secret.into()).unwrap();
    (Arc::new(config), made.cert.pem())
}

/// Serves the list at `url` in this environment, and checks its rows.
fn check_rows(dir: &Path, url: &str, environment: &[(&str, &str)]) {
    let source = format!("[dio.rows]\nsource = {{ http = {url:?}, ca = \"ca.pem\" }}\n");
    std::fs::write(dir.join("diorama.toml"), source).unwrap();
    let mut command: Command = serving(dir, &[]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    let mut server = Server::spawn(command.envs(environment.iter().copied()).stderr(Stdio::inherit()));
    server.wait_for("ready");
    assert_eq!(server.get("/rows").json().as_array().unwrap().len(), 2, "{url}");
}

#[test]
fn requests_go_through_the_proxy_of_the_environment() {
    let (tls, certificate) = certified();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), certificate).unwrap();

    for name in ["HTTP_PROXY", "http_proxy"] {
        let proxy = Api::start(&tls);
        check_rows(dir.path(), "http://api.invalid/rows?a=1", &[(name, &proxy.url())]);
        let requests = proxy.requests();
        assert!(!requests.is_empty(), "{name}");
        assert!(requests.iter().all(|first| first == "GET http://api.invalid/rows?a=1 HTTP/1.1"), "{requests:?}");
    }

    // Over TLS a tunnel hides the request from the proxy.
    let proxy = Api::start(&tls);
    check_rows(dir.path(), "https://api.invalid/rows", &[("HTTPS_PROXY", &proxy.url())]);
    let requests = proxy.requests();
    assert!(
        requests.starts_with(&["CONNECT api.invalid:443 HTTP/1.1".into(), "GET /rows HTTP/1.1".into()]),
        "{requests:?}"
    );

    // Hosts of NO_PROXY are called directly.
    let (proxy, api) = (Api::start(&tls), Api::start(&tls));
    let url = format!("{}/rows", api.url());
    check_rows(dir.path(), &url, &[("HTTP_PROXY", &proxy.url()), ("NO_PROXY", "example.com,127.0.0.1")]);
    assert_eq!(proxy.requests(), [""; 0]);
    assert!(!api.requests().is_empty());
    let before = api.requests();
    check_rows(dir.path(), &url, &[("HTTP_PROXY", &proxy.url()), ("NO_PROXY", "example.com")]);
    assert_eq!(api.requests(), before);
    assert!(!proxy.requests().is_empty());
}
