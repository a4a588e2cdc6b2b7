mod certificates;
mod requests;

use std::time::Duration;

use axum::http::HeaderName;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::issuer::testing::secret_issuer;
use super::jwt::testing::{claims, signed};
use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn check(auth: &Auth, pairs: &[(&'static str, &str)]) -> Result<Option<Principal>, AuthError> {
    auth.0.check(&headers(pairs))
}

#[test]
fn only_known_tokens_are_accepted_and_never_an_empty_one() {
    let auth = Auth::tokens(["one", "two", ""]);
    let check = |value| check(&auth, &[("authorization", value)]);
    assert!(check("Bearer two").is_ok() && check("bearer one").is_ok());
    for refused in ["Bearer ", "Bearer", "Bearer three", "Basic one", "on", "Bearer a.b.c"] {
        assert!(check(refused).is_err(), "{refused:?}");
    }
    assert!(auth.0.check(&HeaderMap::new()).unwrap().is_none());
    assert!(Auth::tokens([""]).is_required(), "an empty list admits nobody");
    assert!(!Auth::none().is_required() && !Auth::builder().build().unwrap().is_required());
}

#[test]
fn several_authorization_headers_are_refused() {
    let mut headers = HeaderMap::new();
    headers.append(header::AUTHORIZATION, "Bearer two".parse().unwrap());
    headers.append(header::AUTHORIZATION, "Bearer two".parse().unwrap());
    assert_eq!(Auth::tokens(["two"]).0.check(&headers).unwrap_err(), AuthError::Several);
}

#[test]
fn a_browser_sends_its_token_as_a_subprotocol() {
    let jwt = signed(&claims());
    let auth = Auth::builder().tokens(["one", "two", "a/b="]).issuer(secret_issuer("a")).build().unwrap();
    let check = |value: &str| check(&auth, &[("upgrade", "websocket"), ("sec-websocket-protocol", value)]);
    let encoded = format!("diorama.v1+json,bearer.{}", URL_SAFE_NO_PAD.encode("a/b="));
    let offers = ["diorama.v1+json, bearer.two".to_string(), "bearer.one".into(), encoded, format!("bearer.{jwt}")];
    for offer in offers {
        assert!(check(&offer).is_ok_and(|found| found.is_some()), "{offer}");
    }
    for refused in ["bearer.", "bearer.three", "x, bearer.tw"] {
        assert!(check(refused).is_err(), "{refused}");
    }
    for none in ["diorama.v1+json", "two", "bearer", "Bearer.two"] {
        assert!(check(none).unwrap().is_none(), "{none}");
    }
    let plain = self::headers(&[("sec-websocket-protocol", "bearer.two")]);
    assert!(auth.0.check(&plain).unwrap().is_none(), "subprotocols are read from handshakes only");
}

#[test]
fn a_key_that_has_expired_is_refused_as_such() {
    let past = SystemTime::now() - Duration::from_secs(1);
    let key = |name: &str| Key::new(name, "viewer").token(name);
    let auth = Auth::builder().key(key("old").expires(past)).key(key("new").expires(past + Duration::from_secs(60)));
    let auth = auth.build().unwrap();
    assert_eq!(check(&auth, &[("authorization", "Bearer old")]).unwrap_err(), AuthError::Expired);
    let found = check(&auth, &[("authorization", "Bearer new")]).unwrap().unwrap();
    assert_eq!((&**found.name().unwrap(), found.role()), ("key:new", "viewer"));
}

#[test]
fn two_issuers_with_one_name_or_one_iss_are_refused() {
    let build = |other: Issuer| Auth::builder().issuer(secret_issuer("a")).issuer(other).build();
    assert!(matches!(build(secret_issuer("b")), Err(AuthConfigError::SameIssuer(_))));
    let settings = IssuerSettings { issuer: "https://other.example".into(), ..secret_issuer("a").settings().clone() };
    let other = Issuer::new(settings.clone(), KeySource::Secret(vec![7; 32])).unwrap();
    assert!(matches!(build(other), Err(AuthConfigError::SameIssuer(_))));
    let settings = IssuerSettings { name: "b".into(), ..settings };
    assert!(build(Issuer::new(settings, KeySource::Secret(vec![7; 32])).unwrap()).is_ok());
}

#[test]
fn a_verified_token_is_verified_once_and_again_after_a_reload() {
    let current = CurrentAuth::from(Auth::builder().issuer(secret_issuer("a")).build().unwrap());
    let token = format!("Bearer {}", signed(&claims()));
    let find = || current.load().check(&headers(&[("authorization", &token)])).unwrap().unwrap();
    let first = find();
    assert!(first.is_same(&find()), "the second one is of the cache");
    current.replace(&Auth::builder().issuer(secret_issuer("a")).build().unwrap());
    assert!(!first.is_same(&find()) && first.is_valid(SystemTime::now()), "the issuer is the same");
    current.replace(&Auth::tokens(["other"]));
    assert!(!first.is_valid(SystemTime::now()), "the issuer is gone");
}

#[test]
fn a_reload_with_a_new_secret_revokes_the_tokens_of_the_old_one() {
    let current = CurrentAuth::from(Auth::builder().issuer(secret_issuer("a")).build().unwrap());
    let token = format!("Bearer {}", signed(&claims()));
    let check = || current.load().check(&headers(&[("authorization", &token)]));
    let old = check().unwrap().unwrap();
    let other = Issuer::new(secret_issuer("a").settings().clone(), KeySource::Secret(vec![7; 32])).unwrap();
    current.replace(&Auth::builder().issuer(other).build().unwrap());
    assert!(!old.is_valid(SystemTime::now()));
    assert_eq!(check().unwrap_err(), AuthError::Token(TokenError::Signature));
}

#[test]
fn refusals_name_the_reason_in_the_challenge() {
    for (error, code, challenge) in [
        (AuthError::Missing, Code::Unauthenticated, None),
        (AuthError::Several, Code::InvalidHeader, None),
        (AuthError::Token(TokenError::NoKeys), Code::KeysUnavailable, None),
        (AuthError::NotBearer, Code::Unauthenticated, Some("invalid_request")),
        (AuthError::Unknown, Code::Unauthenticated, Some("invalid_token")),
        (AuthError::Token(TokenError::Audience), Code::Unauthenticated, Some("invalid_token")),
    ] {
        let refusal = ApiError::from(error);
        assert_eq!(refusal.code(), code);
        let own = refusal.own_header(&header::WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
        let wanted = challenge.map(|kind| format!(r#"Bearer error="{kind}", error_description="{error}""#));
        assert_eq!(own, wanted.as_deref());
    }
}
