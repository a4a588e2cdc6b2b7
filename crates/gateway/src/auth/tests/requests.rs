//! Requests to a gateway that authenticates its callers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::Value;

use super::super::issuer::testing::{SECRET, ed25519, secret_issuer};
use super::super::jwt::testing::{claims, signed};
use super::*;
use crate::access::{Allow, Verb};
use crate::events::testing::{record, small_dio};
use crate::{Gateway, GatewayService, Limits};

/// Returns a service with a row, whose callers are authenticated by `auth`.
pub(super) async fn service(auth: Auth, gateway: impl FnOnce(Gateway) -> Gateway) -> GatewayService {
    let dio = small_dio().await;
    for id in ["a", "b"] {
        dio.patched(id, record("A", 1)).await.unwrap();
    }
    // Tests fail more often than a person does.
    let limits = Limits { auth_failures: 1_000, ..Limits::default() };
    gateway(Gateway::new().mount(dio).limits(limits).auth(auth)).into_service()
}

async fn send(
    service: &GatewayService,
    method: &str,
    uri: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Response {
    let mut request = Request::builder().method(method).uri(uri).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    service.clone().answer(request.body(Body::from(body.to_string())).unwrap()).await
}

async fn status(service: &GatewayService, method: &str, uri: &str, headers: &[(&'static str, &str)]) -> u16 {
    send(service, method, uri, headers, "").await.status().as_u16()
}

pub(super) async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

async fn json(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

pub(super) fn header_of(response: &Response, name: &str) -> String {
    response.headers().get(name).map(|value| value.to_str().unwrap().to_string()).unwrap_or_default()
}

fn viewer() -> Auth {
    Auth::builder().key(Key::new("viewer", "viewer").token("s3cret")).build().unwrap()
}

pub(super) const VIEWER: [(&str, &str); 1] = [("authorization", "Bearer s3cret")];

#[tokio::test]
async fn callers_without_credentials_are_admitted_where_that_is_set_and_wrong_ones_never() {
    let open = Auth::builder().key(Key::new("viewer", "viewer").token("s3cret")).anonymous(true).build().unwrap();
    let (open, closed) = (service(open, |gateway| gateway).await, service(viewer(), |gateway| gateway).await);
    assert_eq!(
        (status(&open, "GET", "/products", &[]).await, status(&closed, "GET", "/products", &[]).await),
        (200, 401)
    );
    for server in [&open, &closed] {
        assert_eq!(status(server, "GET", "/products", &VIEWER).await, 200);
        for wrong in ["Bearer x", "Basic x", "Bearer a.b.c"] {
            assert_eq!(status(server, "GET", "/products", &[("authorization", wrong)]).await, 401, "{wrong}");
        }
        let ticket = format!("/products?ticket=tk_{}", "A".repeat(43));
        assert_eq!(status(server, "GET", &ticket, &[]).await, 401);
        let cookie = [("cookie", "diorama_session=x"), ("sec-fetch-site", "same-origin")];
        assert_eq!(status(server, "GET", "/products", &cookie).await, 401);
    }
    let refused = send(&closed, "GET", "/products", &[], "").await;
    assert_eq!(header_of(&refused, "www-authenticate"), "Bearer");
    let refused = send(&closed, "GET", "/products", &[("authorization", "Bearer x")], "").await;
    let challenge = r#"Bearer error="invalid_token", error_description="the token is not known""#;
    assert_eq!(header_of(&refused, "www-authenticate"), challenge);
}

async fn ticket(service: &GatewayService, path: &str) -> String {
    let body = format!(r#"{{"path":{path:?}}}"#);
    let prefix = path.strip_suffix("/products").or(path.strip_suffix("/products/events")).unwrap_or_default();
    let issued = send(service, "POST", &format!("{prefix}/_ticket"), &VIEWER, &body).await;
    assert_eq!((issued.status(), header_of(&issued, "cache-control")), (StatusCode::OK, "no-store".into()));
    let issued = json(issued).await;
    assert_eq!(issued["expires_in"], 30);
    issued["ticket"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn a_ticket_opens_its_path_once_and_is_not_in_links() {
    for base in ["", "/api"] {
        let service = service(viewer(), |gateway| gateway.base_path(base)).await;
        let path = format!("{base}/products");
        let uri = format!("{path}?limit=1&ticket={}", ticket(&service, &path).await);
        let answer = send(&service, "GET", &uri, &[], "").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let link = header_of(&answer, "link");
        assert!(link.contains("rel=\"next\"") && !link.contains("ticket"), "{link}");
        assert_eq!(status(&service, "GET", &uri, &[]).await, 401, "a second time");
        for (method, other) in [("GET", "/b"), ("POST", ""), ("HEAD", "")] {
            let uri = format!("{path}{other}?ticket={}", ticket(&service, &path).await);
            assert_eq!(status(&service, method, &uri, &[]).await, 401, "{method} {other}");
        }
    }
}

#[tokio::test]
async fn a_ticket_is_only_for_authenticated_callers_and_for_paths() {
    let service = service(viewer(), |gateway| gateway).await;
    let body = r#"{"path":"/products"}"#;
    assert_eq!(send(&service, "POST", "/_ticket", &[], body).await.status(), StatusCode::UNAUTHORIZED);
    for wrong in ["", "{}", r#"{"path":7}"#, r#"{"path":"products"}"#, r#"{"path":"/a?b"}"#, r#"{"path":"/a","b":1}"#] {
        assert_eq!(
            send(&service, "POST", "/_ticket", &VIEWER, wrong).await.status(),
            StatusCode::BAD_REQUEST,
            "{wrong}"
        );
    }
    assert_eq!(status(&service, "GET", "/_ticket", &VIEWER).await, 405);
    let filter = send(&service, "GET", "/products?ticket=eq.5", &VIEWER, "").await;
    assert_eq!(json(filter).await["code"], "unknown-column", "it is a filter");
}

#[tokio::test]
async fn a_session_is_begun_with_a_token_and_counts_for_own_pages() {
    let service = service(viewer(), |gateway| gateway.base_path("/api")).await;
    let own = ("origin", "http://shop.example");
    let begun = send(&service, "POST", "/api/_session", &[VIEWER[0], own], "").await;
    assert_eq!(begun.status(), StatusCode::NO_CONTENT);
    let set = header_of(&begun, "set-cookie");
    assert!(set.ends_with("; HttpOnly; SameSite=Strict; Path=/api; Max-Age=43200"), "{set}");
    let cookie = ("cookie", set.split(';').next().unwrap());
    assert_eq!(status(&service, "GET", "/api/products", &[cookie, ("sec-fetch-site", "same-origin")]).await, 200);
    assert_eq!(status(&service, "GET", "/api/products", &[cookie]).await, 401, "no page is named");
    let foreign = ("origin", "http://evil.example");
    assert_eq!(status(&service, "DELETE", "/api/products/a", &[cookie, foreign]).await, 401);
    assert_eq!(status(&service, "DELETE", "/api/products/a", &[cookie, ("sec-fetch-site", "same-origin")]).await, 401);
    assert!(status(&service, "DELETE", "/api/products/a", &[cookie, own]).await < 300);
    assert_eq!(status(&service, "POST", "/api/_session", &[cookie, own]).await, 401, "it does not prolong itself");
    let ended = send(&service, "DELETE", "/api/_session", &[cookie, own], "").await;
    assert!(header_of(&ended, "set-cookie").contains("Max-Age=0"));
    let gone = send(&service, "GET", "/api/products", &[cookie, own], "").await;
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
    assert!(header_of(&gone, "set-cookie").contains("diorama_session=; "), "the browser forgets it");
}

#[tokio::test]
async fn a_cookie_is_secure_behind_tls_and_a_removed_key_ends_its_session() {
    let service = service(viewer(), |gateway| gateway).await;
    let mut request = Request::post("/_session").header("host", "shop.example").header(VIEWER[0].0, VIEWER[0].1);
    request.extensions_mut().unwrap().insert(Https);
    let begun = service.clone().answer(request.body(Body::empty()).unwrap()).await;
    let set = header_of(&begun, "set-cookie");
    assert!(set.ends_with("; Secure"), "{set}");
    let cookie = [("cookie", set.split(';').next().unwrap()), ("sec-fetch-site", "same-origin")];
    assert_eq!(status(&service, "GET", "/products", &cookie).await, 200);
    service.reload_auth(&viewer());
    assert_eq!(status(&service, "GET", "/products", &cookie).await, 200, "the key is the same");
    service.reload_auth(&Auth::tokens(["other"]));
    assert_eq!(status(&service, "GET", "/products", &cookie).await, 401);
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_streams_and_tickets_and_no_others() {
    let service = service(viewer(), |gateway| gateway).await;
    let own = ("origin", "http://shop.example");
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let begun = send(&service, "POST", "/_session", &[VIEWER[0], own], "").await;
        cookies.push(header_of(&begun, "set-cookie").split(';').next().unwrap().to_string());
    }
    let (ending, kept) = ([("cookie", &*cookies[0]), own], [("cookie", &*cookies[1]), own]);
    let (ended, others, of_token) =
        (stream(&service, &ending).await, stream(&service, &kept).await, stream(&service, &VIEWER).await);
    let ticket = json(send(&service, "POST", "/_ticket", &ending, r#"{"path":"/products"}"#).await).await;
    assert_eq!(status(&service, "DELETE", "/_session", &ending).await, 204);
    let body = text(ended).await;
    assert!(body.contains(r#""type":"bye""#) && body.contains("4401"), "{body}");
    assert!(body.contains("the session has ended"), "{body}");
    let uri = format!("/products?ticket={}", ticket["ticket"].as_str().unwrap());
    assert_eq!(status(&service, "GET", &uri, &[]).await, 401);
    for going_on in [others, of_token] {
        let rest = tokio::time::timeout(Duration::from_millis(100), text(going_on)).await;
        assert!(rest.is_err(), "it goes on");
    }
}

#[tokio::test]
async fn rights_tell_who_the_caller_is_and_whether_it_has_a_session() {
    let open = Auth::builder().key(Key::new("viewer", "viewer").token("s3cret")).anonymous(true).build().unwrap();
    let service = service(open, |gateway| gateway).await;
    let rights = async |headers: &[(&'static str, &str)]| {
        let answer = send(&service, "GET", "/_access", headers, "").await;
        assert_eq!(header_of(&answer, "cache-control"), "no-store");
        let rights = json(answer).await;
        [&rights["name"], &rights["role"], &rights["credentials"], &rights["session"]].map(Value::to_string)
    };
    assert_eq!(rights(&[]).await, ["null", r#""anonymous""#, "true", "false"]);
    assert_eq!(rights(&VIEWER).await, [r#""key:viewer""#, r#""viewer""#, "true", "false"]);
    let own = ("origin", "http://shop.example");
    let begun = send(&service, "POST", "/_session", &[VIEWER[0], own], "").await;
    let set = header_of(&begun, "set-cookie");
    let cookie = ("cookie", set.split(';').next().unwrap());
    assert_eq!(rights(&[cookie, own]).await, [r#""key:viewer""#, r#""viewer""#, "true", "true"]);
    assert_eq!(status(&service, "GET", "/_access", &[("authorization", "Bearer x")]).await, 401);
}

async fn stream(service: &GatewayService, headers: &[(&'static str, &str)]) -> Response {
    let accept = [("accept", "text/event-stream")];
    let answer = send(service, "GET", "/products/events", &[&accept, headers].concat(), "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_its_key_expires() {
    let expires = SystemTime::now() + Duration::from_secs(100);
    let auth = Auth::builder().key(Key::new("viewer", "viewer").token("s3cret").expires(expires)).build().unwrap();
    let service = service(auth, |gateway| gateway).await;
    let start = tokio::time::Instant::now();
    let body = text(stream(&service, &VIEWER).await).await;
    assert!((99..=100).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(body.ends_with("\n\n") && body.contains(r#""type":"bye""#) && body.contains("4401"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_ends_streams_of_removed_keys_only() {
    let both =
        || Auth::builder().key(Key::new("viewer", "viewer").token("s3cret")).key(Key::new("b", "x").token("other"));
    let service = service(both().build().unwrap(), |gateway| gateway).await;
    let (kept, ended) = (stream(&service, &VIEWER).await, stream(&service, &[("authorization", "Bearer other")]).await);
    service.reload_auth(&viewer());
    assert!(text(ended).await.contains("the token has been revoked"));
    let kept = tokio::time::timeout(Duration::from_secs(60), text(kept)).await;
    assert!(kept.is_err(), "it goes on");
    assert_eq!(status(&service, "GET", "/products", &[("authorization", "Bearer other")]).await, 401);
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_that_other_rules_were_loaded() {
    let allow = |can: &[Verb]| Allow {
        role: "viewer".into(),
        dio: "*".into(),
        can: can.iter().copied().collect(),
        filter: String::new(),
        check: None,
        columns: None,
    };
    let service = service(viewer(), |gateway| gateway.try_allow(&[allow(&[Verb::Events])]).unwrap()).await;
    let open = stream(&service, &VIEWER).await;
    service.reload_rules(service.compile_rules(&[allow(&[Verb::Events, Verb::Read])]).unwrap());
    let body = text(open).await;
    assert!(body.contains(r#""type":"bye""#) && body.contains("4403"), "{body}");
}

#[tokio::test]
async fn a_token_of_an_issuer_is_admitted_and_its_end_is_named() {
    let service = service(Auth::builder().issuer(secret_issuer("main")).build().unwrap(), |gateway| gateway).await;
    let bearer = |token: &str| format!("Bearer {token}");
    let good = bearer(&signed(&claims()));
    assert_eq!(status(&service, "GET", "/products", &[("authorization", &good)]).await, 200);
    let mut old = claims();
    old.iter_mut().filter(|(name, _)| *name == "exp").for_each(|(_, value)| *value = "1000".into());
    let refused = send(&service, "GET", "/products", &[("authorization", &bearer(&signed(&old)))], "").await;
    let challenge = header_of(&refused, "www-authenticate");
    assert_eq!(challenge, r#"Bearer error="invalid_token", error_description="the token has expired""#);
    let problem = json(refused).await;
    assert_eq!((&problem["code"], &problem["detail"]), (&"unauthenticated".into(), &"the token has expired".into()));
    assert!(!SECRET.is_empty() && !problem.to_string().contains("0123456789abcdef"));
}

/// Server of a key set that can be replaced or fail.
#[derive(Default)]
struct Server {
    keys: Mutex<Vec<(&'static str, u8)>>,
    fetches: AtomicUsize,
}

impl JwksSource for Server {
    fn fetch<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<JwksDocument, String>> {
        assert_eq!(url, "https://idp.example/keys");
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let keys = self.keys.lock().clone();
        Box::pin(async move {
            if keys.is_empty() {
                return Err("connection refused".into());
            }
            let keys: Vec<String> = keys.iter().map(|(kid, seed)| ed25519(*seed).jwk(kid)).collect();
            let body = format!(r#"{{"keys":[{}]}}"#, keys.join(",")).into_bytes();
            Ok(JwksDocument { body, max_age: Some(Duration::from_secs(3_600)) })
        })
    }
}

fn url_issuer() -> Issuer {
    let settings = IssuerSettings { algorithms: vec![Algorithm::EdDsa], ..secret_issuer("main").settings().clone() };
    Issuer::new(settings, KeySource::Url("https://idp.example/keys".into())).unwrap()
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_again_for_an_unknown_key_and_once_a_minute_at_most() {
    let service = service(Auth::builder().issuer(url_issuer()).build().unwrap(), |gateway| gateway).await;
    let server = Server::default();
    let fetches = || server.fetches.load(Ordering::SeqCst);
    let get = async |kid: &str, seed: u8| {
        let token = format!("Bearer {}", ed25519(seed).signed(kid, &claims()));
        status(&service, "GET", "/products", &[("authorization", &token)]).await
    };
    let story = async {
        assert_eq!(get("one", 1).await, 503, "the issuer does not answer");
        *server.keys.lock() = vec![("one", 1)];
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(get("one", 1).await, 200);
        assert_eq!(get("one", 2).await, 401, "another key with the same name");
        let before = fetches();
        tokio::time::sleep(Duration::from_secs(60)).await;
        *server.keys.lock() = vec![("one", 1), ("two", 2)];
        assert_eq!((get("two", 2).await, fetches()), (200, before + 1), "the new key is fetched for its first token");
        for _ in 0..100 {
            assert_eq!(get("three", 3).await, 401);
        }
        assert_eq!(fetches(), before + 1, "unknown keys do not cause requests without end");
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!((get("three", 3).await, fetches()), (401, before + 2));
        server.keys.lock().clear();
        tokio::time::sleep(Duration::from_secs(3_601)).await;
        assert_eq!((get("one", 1).await, get("two", 2).await), (200, 200), "the last keys stay");
        *server.keys.lock() = vec![("two", 2)];
        tokio::time::sleep(Duration::from_secs(301)).await;
        assert_eq!(
            (get("one", 1).await, get("two", 2).await),
            (401, 200),
            "a removed key ends its verified tokens too"
        );
    };
    tokio::select! {
        () = service.refresh_keys(&server) => unreachable!("it never returns"),
        () = story => {}
    }
}

#[tokio::test(start_paused = true)]
async fn many_requests_with_an_unknown_key_share_one_fetch() {
    let service = service(Auth::builder().issuer(url_issuer()).build().unwrap(), |gateway| gateway).await;
    let server = Server::default();
    *server.keys.lock() = vec![("one", 1)];
    let story = async {
        tokio::time::sleep(Duration::from_secs(120)).await;
        *server.keys.lock() = vec![("two", 2)];
        let before = server.fetches.load(Ordering::SeqCst);
        let token = format!("Bearer {}", ed25519(2).signed("two", &claims()));
        let headers = [("authorization", token.as_str())];
        let all = futures_util::future::join_all((0..50).map(|_| status(&service, "GET", "/products", &headers))).await;
        assert_eq!(all, [200; 50]);
        assert_eq!(server.fetches.load(Ordering::SeqCst), before + 1);
    };
    tokio::select! {
        () = service.refresh_keys(&server) => unreachable!("it never returns"),
        () = story => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_just_before_other_requests_fetched_its_key_is_admitted() {
    let auth = CurrentAuth::from(Auth::builder().issuer(url_issuer()).build().unwrap());
    let server = Server::default();
    *server.keys.lock() = vec![("one", 1)];
    let headers = |id: &str| {
        let claims: Vec<_> = claims().into_iter().chain([("jti", format!("{id:?}"))]).collect();
        let token = format!("Bearer {}", ed25519(2).signed("two", &claims));
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&token).unwrap())])
    };
    let (late, other) = (headers("late"), headers("other"));
    let story = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        *server.keys.lock() = vec![("two", 2)];
        let refused = auth.load().check(&late).unwrap_err();
        assert!(refused.may_pass_later(), "{refused}");
        assert!(auth.retry(&other).await.unwrap().is_some(), "its request fetches the keys");
        assert!(auth.retry(&late).await.unwrap().is_some(), "the keys of the other request count");
        assert_eq!(server.fetches.load(Ordering::SeqCst), 2);
    };
    tokio::select! {
        () = auth.refresh(&server) => unreachable!("it never returns"),
        () = story => {}
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_tells_why_an_issuer_has_no_keys_and_a_reload_keeps_those_it_has() {
    let auth = || Auth::builder().tokens(["s3cret"]).issuer(url_issuer()).build().unwrap();
    let service = service(auth(), |gateway| gateway).await;
    let server = Server::default();
    let story = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let ready = send(&service, "GET", "/readyz", &VIEWER, "").await;
        assert_eq!(ready.status(), StatusCode::OK, "the resources can be read");
        let about = json(ready).await["auth"][0].as_str().unwrap().to_string();
        assert!(about.contains("there are no keys of main") && about.contains("connection refused"), "{about}");
        *server.keys.lock() = vec![("one", 1)];
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(json(send(&service, "GET", "/readyz", &VIEWER, "").await).await.get("auth").is_none());
        server.keys.lock().clear();
        service.reload_auth(&auth());
        let token = format!("Bearer {}", ed25519(1).signed("one", &claims()));
        assert_eq!(status(&service, "GET", "/products", &[("authorization", &token)]).await, 200);
    };
    tokio::select! {
        () = service.refresh_keys(&server) => unreachable!("it never returns"),
        () = story => {}
    }
}

#[tokio::test]
async fn a_method_of_a_page_or_webhook_needs_no_credential() {
    let service = service(viewer(), |gateway| gateway).await;
    for path in ["/healthz", "/static/explorer.js"] {
        assert_eq!(status(&service, Method::GET.as_str(), path, &[]).await, 200, "{path}");
    }
    assert_eq!(status(&service, "POST", "/webhooks/x", &[]).await, 404);
}
