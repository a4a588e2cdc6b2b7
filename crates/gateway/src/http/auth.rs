//! Authentication by bearer tokens, which are compared in constant time.

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

use crate::access::{Identity, Principal, Verbs};
use diorama_core::record::CborValue;

/// Reason why a caller is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum AuthError {
    /// Refused because a proxy in between may have checked another header than this server would.
    #[error("the request has several Authorization headers")]
    Several,
    #[error("the Authorization header is not a valid bearer token")]
    NotBearer,
    #[error("the request has no token")]
    Missing,
    #[error("the token is not known")]
    Unknown,
}

/// Identity of all callers with a token of [`Auth::Tokens`].
static TOKEN: LazyLock<Arc<Identity>> = LazyLock::new(|| {
    Arc::new(Identity {
        name: "token".into(),
        role: "admin".into(),
        claims: CborValue::Map(Vec::new()),
        verbs: Verbs::ALL,
        unrestricted: true,
        expires: None,
    })
});

/// Authentication of callers.
#[derive(Clone, Default)]
pub enum Auth {
    /// No authentication: every caller is admitted.
    #[default]
    None,
    /// Tokens, one of which is sent as `Authorization: Bearer TOKEN` or offered as the WebSocket subprotocol `bearer.TOKEN`.
    Tokens(Vec<String>),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Auth::None => f.write_str("None"),
            Auth::Tokens(tokens) => write!(f, "Tokens({} of them)", tokens.len()),
        }
    }
}

impl Auth {
    /// Authenticates the request of `headers` and returns its principal.
    ///
    /// # Errors
    /// The request has no valid token, or several `Authorization` headers.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let Auth::Tokens(tokens) = self else { return Ok(Principal::anonymous()) };
        let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
        let first = authorizations.next();
        if authorizations.next().is_some() {
            return Err(AuthError::Several);
        }
        let known = match first {
            Some(value) => match value.as_bytes().split_at_checked(7) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                    is_known(tokens, token.trim_ascii())
                }
                _ => return Err(AuthError::NotBearer),
            },
            None => match subprotocol_token(headers) {
                Some(token) => {
                    // Tokens with characters that a subprotocol cannot contain are sent as base64url.
                    let decoded = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
                    is_known(tokens, token) | is_known(tokens, &decoded)
                }
                None => return Err(AuthError::Missing),
            },
        };
        if bool::from(known) { Ok(Principal::from(Arc::clone(&TOKEN))) } else { Err(AuthError::Unknown) }
    }
}

/// Returns the token among the subprotocols that a WebSocket handshake offers. Browsers can set no other header.
fn subprotocol_token(headers: &HeaderMap) -> Option<&[u8]> {
    let handshake = headers.contains_key(header::UPGRADE);
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter(|_| handshake);
    let mut offers = offers.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    offers.find_map(|offer| offer.trim_ascii().strip_prefix(b"bearer."))
}

/// Compares `given` with every token, so that the time does not reveal which one was close.
fn is_known(tokens: &[String], given: &[u8]) -> Choice {
    let known = tokens.iter().fold(Choice::from(0), |known, token| known | token.as_bytes().ct_eq(given));
    known & Choice::from(u8::from(!given.is_empty()))
}

/// Marks the headers that may contain a token as sensitive, so that debug output of headers omits them.
///
/// tower-http's `SetSensitiveHeaders` does the same, but moves the future of the whole pipeline. That costs one record 3 % more
/// instructions.
pub(crate) fn hide(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if name == header::AUTHORIZATION || name == header::SEC_WEBSOCKET_PROTOCOL {
            value.set_sensitive(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: header::HeaderName, value: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, "websocket".parse().unwrap());
        if let Some(value) = value {
            headers.insert(name, value.parse().unwrap());
        }
        Auth::Tokens(vec!["one".into(), "two".into(), "a/b=".into(), String::new()]).check(&headers).is_ok()
    }

    #[test]
    fn only_known_tokens_are_accepted_and_never_an_empty_one() {
        let check = |value| check(header::AUTHORIZATION, value);
        assert!(check(Some("Bearer two")) && check(Some("bearer one")));
        for refused in [None, Some("Bearer "), Some("Bearer"), Some("Bearer three"), Some("Basic one"), Some("on")] {
            assert!(!check(refused), "{refused:?}");
        }
    }

    #[test]
    fn several_authorization_headers_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, "Bearer two".parse().unwrap());
        headers.append(header::AUTHORIZATION, "Bearer two".parse().unwrap());
        let refused = Auth::Tokens(vec!["two".into()]).check(&headers).unwrap_err();
        assert_eq!(refused, AuthError::Several);
        assert!(Auth::None.check(&headers).is_ok(), "there is no authentication");
    }

    #[test]
    fn a_browser_sends_its_token_as_a_subprotocol() {
        let check = |value: &str| check(header::SEC_WEBSOCKET_PROTOCOL, Some(value));
        let encoded = format!("diorama.v1+json,bearer.{}", URL_SAFE_NO_PAD.encode("a/b="));
        assert!(check("diorama.v1+json, bearer.two") && check("bearer.one") && check(&encoded));
        for refused in ["diorama.v1+json", "bearer.", "bearer.three", "two", "bearer", "Bearer.two", "x, bearer.tw"] {
            assert!(!check(refused), "{refused}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, "bearer.two".parse().unwrap());
        assert!(
            Auth::Tokens(vec!["two".into()]).check(&headers).is_err(),
            "subprotocols are read from handshakes only"
        );
        hide(&mut headers);
        assert!(!format!("{headers:?}").contains("two"));
    }
}
