//! The server speaks TLS by itself: certificates, handshakes, clients that authenticate themselves.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::authority::{Authority, configure, connect, get, rest};
use crate::frames::is_timeout;
use crate::process::{PATIENCE, Server, folder, has_tools, run};

fn open(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn requests_are_answered_by_tls_1_2_and_1_3_only() {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    configure(dir.path(), "", "", "");
    let server = Server::start(dir.path(), &[]);
    assert!(
        server.printed.iter().any(|line| line.starts_with("listening on https://127.0.0.1:")),
        "{:?}",
        server.printed
    );
    for version in [&TLS12, &TLS13] {
        let answer = get(&server, &authority.trusting(&[version], None, b"http/1.1"), "/orders").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("[]"), "{version:?}: {answer}");
    }
    let stranger = get(&server, &Authority::new().speaking("http/1.1"), "/orders");
    assert!(stranger.is_err(), "the certificate is that of its authority");
    if has_tools("old versions of TLS", &["openssl"]) {
        let arguments = ["s_client", "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0", "-connect", &server.address];
        let old = Command::new("openssl").args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
        assert!(!old.status.success() && String::from_utf8_lossy(&old.stderr).contains("alert"), "{old:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_tls_receives_events() {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    configure(dir.path(), "", "", "");
    let server = Server::start(dir.path(), &[]);
    let stream = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let connector = TlsConnector::from(authority.speaking("http/1.1"));
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let request = "wss://localhost/orders/events".into_client_request().unwrap();
    let (mut socket, _) = client_async(request, stream).await.unwrap();
    let hello = futures_util::StreamExt::next(&mut socket).await.unwrap().unwrap();
    assert!(hello.to_text().unwrap().contains("hello"), "{hello}");
}

#[test]
fn a_plain_request_is_answered_400_with_a_hint() {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    configure(dir.path(), "", "", "");
    let server = Server::start(dir.path(), &[]);
    let plain = server.get("/orders");
    assert_eq!((plain.status, plain.json()["code"].as_str()), (400, Some("malformed-request")));
    assert!(plain.body.contains("use https://"), "{}", plain.body);
    let mut garbage = open(&server);
    garbage.write_all(&[0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    assert!(answer.first().is_none_or(|first| *first == 0x15), "an alert of TLS: {answer:?}");
    assert!(get(&server, &authority.speaking("http/1.1"), "/orders").unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn slow_handshakes_delay_nobody_and_end_in_time() {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    configure(dir.path(), "", "", "header_timeout = \"1s\"");
    let server = Server::start(dir.path(), &[]);
    let mut slow: Vec<TcpStream> = (0..40).map(|_| open(&server)).collect();
    for (at, stream) in slow.iter_mut().enumerate().filter(|(at, _)| at % 2 == 0) {
        // The beginning of a handshake.
        stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0][..at % 6 + 1]).unwrap();
    }
    let started = Instant::now();
    let answer = get(&server, &authority.speaking("http/1.1"), "/orders").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(started.elapsed() < Duration::from_millis(900), "{:?}", started.elapsed());
    for mut stream in slow {
        let mut nothing = Vec::new();
        let _ = stream.read_to_end(&mut nothing);
        assert!(nothing.is_empty(), "{nothing:?}");
    }
    assert!(started.elapsed() < PATIENCE);
}

#[test]
fn handshakes_are_connections_of_their_address() {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    configure(dir.path(), "", "", "per_address = 2\nheader_timeout = \"10m\"");
    let server = Server::start(dir.path(), &[]);
    let waiting = [open(&server), open(&server)];
    let mut third = open(&server);
    let closed = third.read(&mut [0; 9]);
    assert!(closed.as_ref().map_or_else(|error| !is_timeout(error), |read| *read == 0), "no answer: {closed:?}");
    drop(waiting);
    let (client, deadline) = (authority.speaking("http/1.1"), Instant::now() + PATIENCE);
    while get(&server, &client, "/orders").is_err() {
        assert!(Instant::now() < deadline, "the places did not come back");
    }
}

#[test]
fn every_mistake_in_certificate_and_key_is_told_by_check_and_at_the_start() {
    let (dir, authority) = (folder(), Authority::new());
    let (own, other) = (authority.server(), authority.server());
    let write = |name: &str, text: &[u8]| std::fs::write(dir.path().join(name), text).unwrap();
    let encrypted = own.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let broken = own.cert.replacen("MII", "M!I", 1);
    for (cert, key, ca, told) in [
        (None, Some(own.key.as_str()), None, vec!["[server.tls] cert: cannot read", "cert.pem"]),
        (Some(own.cert.as_str()), None, None, vec!["[server.tls] key: cannot read", "key.pem"]),
        (
            None,
            None,
            Some("x"),
            vec!["cert: cannot read", "key: cannot read", "client_ca: ", "contains no certificate"],
        ),
        (Some("text"), Some(&own.key), None, vec!["contains no certificate: PEM begins with"]),
        (Some("0\u{3}der"), Some(&own.key), None, vec!["openssl x509 -inform der"]),
        (Some(&broken), Some(&own.key), None, vec!["is not valid PEM"]),
        (Some(&own.cert), Some(&own.cert), None, vec!["contains no private key: PEM begins with"]),
        (Some(&own.cert), Some(&encrypted), None, vec!["is encrypted: decrypt it with openssl pkey"]),
        (Some(&own.cert), Some(&other.key), None, vec!["does not belong to the first certificate"]),
    ] {
        for (name, text) in [("cert.pem", cert), ("key.pem", key), ("ca.pem", ca)] {
            match text {
                Some(text) => write(name, text.as_bytes()),
                None => drop(std::fs::remove_file(dir.path().join(name))),
            }
        }
        configure(dir.path(), "", ca.map_or("", |_| "client_ca = \"ca.pem\""), "");
        for arguments in [&["check"][..], &["check", "--offline"], &["serve"]] {
            let output = run(dir.path(), arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(78), "{arguments:?}: {said}");
            for part in &told {
                assert!(said.contains(part), "{arguments:?}: {part:?} is not in {said}");
            }
            assert!(!said.contains(own.key.lines().nth(1).unwrap()), "{said}");
        }
    }
    own.write(dir.path());
    configure(dir.path(), "", "", "");
    let fine = run(dir.path(), &["check"]);
    assert!(fine.status.success() && !String::from_utf8_lossy(&fine.stdout).contains("warning"), "{fine:?}");
}

#[test]
fn a_certificate_out_of_its_time_is_a_warning_with_the_date() {
    let (dir, authority) = (folder(), Authority::new());
    for (from, until, told) in
        [(2020, 2021, "expired at 2021-01-01T00:00:00Z"), (2050, 2060, "is not valid before 2050-01-01T00:00:00Z")]
    {
        authority.server_between(from, until).write(dir.path());
        configure(dir.path(), "", "", "");
        let checked = run(dir.path(), &["check"]);
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success() && said.contains("warning: ") && said.contains(told), "{said}");
        let log = dir.path().join("log");
        let mut server = Server::launch_logged(dir.path(), &log);
        server.wait_for("ready");
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(log.contains("WARN") && log.contains(told), "{log}");
    }
}

#[test]
fn the_key_may_be_in_the_environment() {
    let (dir, authority) = (folder(), Authority::new());
    let own = authority.server();
    own.write(dir.path());
    configure(dir.path(), "", "", "");
    let text = std::fs::read_to_string(dir.path().join("diorama.toml")).unwrap();
    std::fs::write(dir.path().join("diorama.toml"), text.replace("\"key.pem\"", "\"env:KEY\"")).unwrap();
    let mut command = crate::process::serving(dir.path(), &[]);
    let mut server = Server::spawn(command.env("KEY", &own.key));
    server.wait_for("ready");
    assert!(get(&server, &authority.speaking("http/1.1"), "/orders").unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn clients_authenticate_by_certificates_of_the_authority() {
    let (dir, authority, clients) = (folder(), Authority::new(), Authority::new());
    authority.server().write(dir.path());
    std::fs::write(dir.path().join("ca.pem"), &clients.pem).unwrap();
    let (own, other) = (clients.client("robot"), Authority::new().client("robot"));
    for (auth, without) in [("", false), ("client_auth = \"required\"", false), ("client_auth = \"optional\"", true)] {
        configure(dir.path(), "", &format!("client_ca = \"ca.pem\"\n{auth}"), "");
        let server = Server::start(dir.path(), &[]);
        for version in [&TLS12, &TLS13] {
            let is_answered = |own| {
                let client = authority.trusting(&[version], own, b"http/1.1");
                get(&server, &client, "/orders").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
            };
            assert!(is_answered(Some(&own)), "{auth} {version:?}");
            assert!(!is_answered(Some(&other)), "{auth} {version:?}: another authority");
            assert_eq!(is_answered(None), without, "{auth} {version:?}");
        }
    }
}

#[test]
fn a_session_with_a_client_certificate_is_not_resumed() {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let own = authority.client("robot");
    for (tls, resumed) in [("", true), ("client_ca = \"ca.pem\"", false)] {
        configure(dir.path(), "", tls, "");
        let server = Server::start(dir.path(), &[]);
        for version in [&TLS12, &TLS13] {
            let client = authority.trusting(&[version], Some(&own), b"http/1.1");
            get(&server, &client, "/orders").unwrap();
            let mut again = connect(&server, &client).unwrap();
            let kind = again.conn.handshake_kind().unwrap();
            assert_eq!(kind == tokio_rustls::rustls::HandshakeKind::Resumed, resumed, "{tls} {version:?}: {kind:?}");
            again.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
            assert!(rest(&mut again).unwrap().starts_with("HTTP/1.1 200"));
        }
    }
}

#[test]
fn the_tools_reach_a_server_with_tls_and_authenticate_by_a_certificate() {
    let (dir, authority) = (folder(), Authority::new());
    authority.server().write(dir.path());
    let own = authority.client("robot");
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    std::fs::write(dir.path().join("own.pem"), format!("{}{}", own.cert, own.key)).unwrap();
    std::fs::write(dir.path().join("other.pem"), &Authority::new().pem).unwrap();
    for (tls, certificate) in [("", &[][..]), ("client_ca = \"ca.pem\"", &["--cert", "own.pem"])] {
        configure(dir.path(), "", tls, "");
        let server = Server::start(dir.path(), &[]);
        let url = format!("https://{}", server.address);
        let tool = |arguments: &[&str], ca: &str| {
            let arguments = [arguments, &["--url", &url, "--cacert", ca], certificate].concat();
            run(dir.path(), &arguments)
        };
        for arguments in [&["ops", "list"][..], &["explain", "orders"]] {
            let output = tool(arguments, "ca.pem");
            assert!(output.status.success(), "{arguments:?} {certificate:?}: {output:?}");
            assert_eq!(tool(arguments, "other.pem").status.code(), Some(69), "another authority");
        }
        let name = format!("backup{}", certificate.len());
        let output = tool(&["backup", &name], "ca.pem");
        assert!(output.status.success() && dir.path().join(&name).join("cache.redb").exists(), "{output:?}");
    }
    configure(dir.path(), "", "client_ca = \"ca.pem\"", "");
    let server = Server::start(dir.path(), &[]);
    let url = format!("https://{}", server.address);
    let output = run(dir.path(), &["ops", "list", "--url", &url, "--cacert", "ca.pem"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}
