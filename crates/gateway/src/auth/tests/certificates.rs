//! Requests of clients that authenticate themselves by certificates.

use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::Request;

use super::super::*;
use super::requests::{VIEWER, header_of, service, text};
use crate::{ClientCertificate, GatewayService};

/// Sends a request of a client whose certificate has this name. Returns the status and the reason of a refusal.
async fn send(
    service: &GatewayService,
    path: &str,
    name: Option<&str>,
    headers: &[(&'static str, &str)],
) -> (u16, String) {
    let mut request = Request::get(path).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    if let Some(name) = name {
        request.extensions_mut().insert(ClientCertificate::new(name, b"der"));
    }
    let answer = service.clone().answer(request).await;
    let (status, challenge) = (answer.status().as_u16(), header_of(&answer, "www-authenticate"));
    assert_eq!(challenge.is_empty(), status != 401, "a refusal says how to authenticate");
    (status, text(answer).await)
}

fn robot() -> Key {
    Key::new("robot", "viewer").certificate("robot").token("of the robot")
}

#[tokio::test]
async fn a_certificate_is_its_key_unless_there_is_another_credential() {
    let auth = Auth::builder().key(robot()).key(Key::new("viewer", "viewer").token("s3cret"));
    let closed = service(auth.clone().build().unwrap(), |gateway| gateway).await;
    let open = service(auth.anonymous(true).build().unwrap(), |gateway| gateway).await;
    for (name, headers, status, anonymous) in [
        (Some("robot"), &[][..], 200, 200),
        (Some("robot"), &VIEWER, 200, 200),
        (None, &[("authorization", "Bearer of the robot")], 200, 200),
        (Some("other"), &[("authorization", "Bearer of the robot")], 200, 200),
        (Some("other"), &[], 401, 200),
        (Some("Robot"), &[], 401, 200),
        (Some(""), &[], 401, 200),
        (None, &[], 401, 200),
        (Some("robot"), &[("authorization", "Bearer wrong")], 401, 401),
        (Some("robot"), &[("authorization", "Basic x")], 401, 401),
        (Some("robot"), &[("cookie", "diorama_session=x"), ("sec-fetch-site", "same-origin")], 401, 401),
    ] {
        assert_eq!(send(&closed, "/products", name, headers).await.0, status, "{name:?} {headers:?}");
        assert_eq!(send(&open, "/products", name, headers).await.0, anonymous, "{name:?} {headers:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_a_browser_sends_counts_only_for_pages_of_the_server() {
    let closed = service(Auth::builder().key(robot()).build().unwrap(), |gateway| {
        gateway.cors(vec!["https://other.example".into()])
    });
    let closed = closed.await;
    for (headers, status) in [
        (&[("origin", "https://shop.example")][..], 200),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none")], 200),
        (&[("origin", "https://other.example")], 401),
        (&[("sec-fetch-site", "same-site")], 401),
        (&[("origin", "null")], 403),
        (&[("origin", "https://evil.example")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
    ] {
        let (answered, body) = send(&closed, "/products", Some("robot"), headers).await;
        assert_eq!(answered, status, "{headers:?}: {body}");
        assert_eq!(body.contains("programs and of pages of this server"), status == 401, "{headers:?}: {body}");
    }
}

#[tokio::test]
async fn a_certificate_of_an_expired_key_is_refused() {
    let old = Key::new("old", "viewer").certificate("old").expires(SystemTime::now() - Duration::from_secs(1));
    let server = service(Auth::builder().key(old).anonymous(true).build().unwrap(), |gateway| gateway).await;
    let (status, body) = send(&server, "/products", Some("old"), &[]).await;
    assert!(status == 401 && body.contains("has expired"), "{body}");
    assert_eq!(send(&server, "/products", None, &[]).await.0, 200);
}

#[tokio::test]
async fn the_page_shows_what_the_client_of_a_certificate_may_see() {
    let server = service(Auth::builder().key(robot()).build().unwrap(), |gateway| gateway).await;
    for (name, headers, is_known) in [
        (Some("robot"), &[("accept", "text/html")][..], true),
        (Some("other"), &[("accept", "text/html")], false),
        (Some("robot"), &[("accept", "text/html"), ("sec-fetch-site", "same-site")], false),
    ] {
        for path in ["/", "/docs"] {
            let (status, page) = send(&server, path, name, headers).await;
            let is_shown = if path == "/" { page.contains("products") } else { !page.contains("token is required") };
            assert_eq!((status == 200, is_shown), (is_known, is_known), "{path} {name:?} {headers:?}: {page}");
        }
    }
}
