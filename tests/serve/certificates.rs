//! Keys whose clients authenticate themselves by certificates.

use std::io::Write as _;
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::authority::{Authority, connect, rest};
use crate::events::frame;
use crate::frames::{HEADERS, Http2};
use crate::process::{Server, TOKEN, folder, run};
use crate::reload::Logged;

const ROBOT: &str = "[key.robot]\ncertificate = \"robot\"\nrole = \"shop\"\nclaims = { item = \"Bun\" }\n";
const BOTH: &str = "[key.both]\ncertificate = [\"first\", \"second\"]\ntoken = \"env:TOKEN\"\nrole = \"admin\"\n";
const OWN: &str =
    "[[allow]]\nrole = \"shop\"\ndio = \"orders\"\ncan = [\"read\", \"events\"]\nwhere = \"item=eq.{claims.item}\"\n";

/// Configuration with lines of `[server]` and `[server.tls]`, and with keys and rules.
fn configuration(server: &str, tls: &str, access: &str) -> String {
    format!(
        "[server]\n{server}\n[server.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n{tls}\n\
         [dio.orders]\nsource = {{ csv = \"orders.csv\" }}\n{access}"
    )
}

fn configure(dir: &TempDir, authority: &Authority, server: &str, tls: &str, access: &str) {
    authority.server().write(dir.path());
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    std::fs::write(dir.path().join("orders.csv"), "id,item\na,Bun\nb,Roll\n").unwrap();
    let text = configuration(server, &format!("client_ca = \"ca.pem\"\n{tls}"), access);
    std::fs::write(dir.path().join("diorama.toml"), text).unwrap();
}

/// A client with a certificate of this name, if there is one.
fn client(authority: &Authority, name: Option<&str>) -> Arc<ClientConfig> {
    let own = name.map(|name| authority.client(name));
    authority.trusting(&[&TLS13, &TLS12], own.as_ref(), b"http/1.1")
}

/// Status and body of the answer to a request with these lines of headers.
fn get(server: &Server, client: &Arc<ClientConfig>, path: &str, headers: &str) -> (u16, String) {
    let mut connection = connect(server, client).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}connection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    let answer = rest(&mut connection).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_string())
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

#[test]
fn a_client_certificate_is_the_key_that_names_it_with_its_role_and_rules() {
    let (dir, authority) = (folder(), Authority::new());
    configure(&dir, &authority, "", "client_auth = \"optional\"", &format!("{ROBOT}{BOTH}{OWN}"));
    let server = Server::start(dir.path(), &[]);
    let status =
        |name: Option<&str>, path: &str, headers: &str| get(&server, &client(&authority, name), path, headers).0;
    // The role and the claim of the key decide which rows there are.
    let (code, rows) = get(&server, &client(&authority, Some("robot")), "/orders", "");
    assert!(code == 200 && rows.contains("Bun") && !rows.contains("Roll"), "{rows}");
    assert_eq!(status(Some("robot"), "/orders/b", ""), 404);
    assert_eq!(status(Some("robot"), "/_audit", ""), 403, "not an administrator");
    // A key with certificates and a token accepts each of them.
    for name in ["first", "second"] {
        assert_eq!(status(Some(name), "/orders/b", ""), 200, "{name}");
    }
    assert_eq!(status(None, "/orders/b", &bearer(TOKEN)), 200);
    // A token comes before the certificate, and a wrong one is refused.
    assert_eq!(status(Some("robot"), "/orders/b", &bearer(TOKEN)), 200);
    assert_eq!(status(Some("robot"), "/orders/a", &bearer("another token")), 401);
    for other in [Some("other"), Some("Robot"), None] {
        assert_eq!(status(other, "/orders", ""), 401, "{other:?}");
    }
    assert_eq!(status(None, "/healthz", ""), 200);
    // A page of another site that a browser shows.
    assert_eq!(status(Some("robot"), "/orders/a", "sec-fetch-site: same-site\r\n"), 401);
    assert_eq!(status(Some("robot"), "/orders/a", "origin: https://localhost\r\n"), 200);
}

#[test]
fn a_certificate_of_no_key_is_anonymous_where_that_is_admitted() {
    let (dir, authority) = (folder(), Authority::new());
    let rule = "[[allow]]\nrole = \"anonymous\"\ndio = \"orders\"\ncan = [\"read\"]\nwhere = \"item=eq.Roll\"\n";
    let access = format!("{ROBOT}{OWN}{rule}");
    configure(&dir, &authority, "anonymous = true", "client_auth = \"optional\"", &access);
    let server = Server::start(dir.path(), &[]);
    for (name, own, other) in [(Some("robot"), "Bun", "Roll"), (Some("other"), "Roll", "Bun"), (None, "Roll", "Bun")] {
        let (status, rows) = get(&server, &client(&authority, name), "/orders", "");
        assert!(status == 200 && rows.contains(own) && !rows.contains(other), "{name:?}: {rows}");
    }
}

#[test]
fn a_client_certificate_counts_for_every_request_of_http_2() {
    let (dir, authority) = (folder(), Authority::new());
    configure(&dir, &authority, "", "", &format!("{ROBOT}{OWN}"));
    let server = Server::start(dir.path(), &[]);
    for (name, is_known) in [("robot", true), ("other", false)] {
        let own = authority.client(name);
        let mut client = Http2::open_as(&server, &authority.trusting(&[&TLS13], Some(&own), b"h2"), &[]);
        for stream in [1, 3] {
            client.get(stream, "/orders", &[]);
            let head = client.until("a head", |frame| frame.kind == HEADERS && frame.stream == stream);
            assert_eq!(head.is_ok(), is_known, "{name} {stream}: {:?}", head.payload);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_takes_another_certificate_of_a_key_and_ends_the_sockets_of_the_old_one() {
    let (dir, authority) = (folder(), Authority::new());
    configure(&dir, &authority, "", "", &format!("{ROBOT}{BOTH}{OWN}"));
    let logged = Logged::start(dir);
    let status = |name: &str| get(&logged.server, &client(&authority, Some(name)), "/orders", "").0;
    assert_eq!([status("robot"), status("next"), status("first")], [200, 401, 200]);
    let open = async |name: &str| {
        let stream = tokio::net::TcpStream::connect(&logged.server.address).await.unwrap();
        let connector = TlsConnector::from(client(&authority, Some(name)));
        let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
        client_async("wss://localhost/orders/events".into_client_request().unwrap(), stream).await.unwrap().0
    };
    let (mut robot, mut first) = (open("robot").await, open("first").await);
    assert_eq!(
        (frame(&mut robot).await["type"].clone(), frame(&mut first).await["type"].clone()),
        ("hello".into(), "hello".into())
    );
    let configured = |access: &str| {
        let text = configuration("", "client_ca = \"ca.pem\"", access);
        std::fs::write(logged.path("diorama.toml"), text).unwrap();
    };
    configured(&format!("{ROBOT}{}{OWN}", BOTH.replace("first", "robot")));
    logged.hang_up("the new settings are refused");
    assert_eq!([status("robot"), status("next"), status("first")], [200, 401, 200], "a certificate of two keys");
    configured(&format!("{}{BOTH}{OWN}", ROBOT.replace("\"robot\"", "\"next\"")));
    logged.hang_up("the configuration was reloaded");
    assert_eq!([status("robot"), status("next"), status("first")], [401, 200, 200]);
    let mut end = frame(&mut robot).await;
    while end["type"] == "heartbeat" {
        end = frame(&mut robot).await;
    }
    assert_eq!(end, 4401, "the socket of the former certificate");
    configured(&format!("{ROBOT}{BOTH}{OWN}"));
    logged.hang_up("the configuration was reloaded");
    assert_eq!([status("robot"), status("next"), status("first")], [200, 401, 200]);
}

#[test]
fn keys_without_a_credential_and_certificates_without_an_authority_are_mistakes() {
    let (dir, authority) = (folder(), Authority::new());
    for (tls, access, told) in [
        ("client_ca = \"ca.pem\"", "[key.a]\nrole = \"x\"\n".to_string(), "or certificate = \"NAME\""),
        ("", ROBOT.to_string(), "certificate in [key.NAME] requires client_ca in [server.tls]"),
        ("client_ca = \"ca.pem\"", ROBOT.replace("\"robot\"", "\"\""), "certificate is empty"),
        ("client_ca = \"ca.pem\"", format!("{ROBOT}{}", BOTH.replace("first", "robot")), "is also one of another key"),
    ] {
        configure(&dir, &authority, "", "", "");
        std::fs::write(dir.path().join("diorama.toml"), configuration("", tls, &access)).unwrap();
        for arguments in [&["check", "--offline"][..], &["serve"]] {
            let output = run(dir.path(), arguments);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(78) && said.contains(told), "{arguments:?} {told}: {said}");
        }
    }
}
