//! Who may call: bearer tokens, compared in constant time.

use std::sync::Arc;

use axum::http::{Extensions, HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::{Choice, ConstantTimeEq as _};
use thiserror::Error;

/// Reason why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum AuthError {
    /// Whoever stands in between may have looked at another one.
    #[error("there are several Authorization headers")]
    Several,
    #[error("the Authorization header is no bearer token")]
    NotBearer,
    #[error("a token is required")]
    Missing,
    #[error("the token is not known")]
    Unknown,
}

/// Who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Anybody whom the server lets in.
    #[default]
    Anybody,
}

impl Principal {
    /// Who sent the request that has these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Principal {
        extensions.get().copied().unwrap_or_default()
    }

    /// Name under which the log keeps what the caller did.
    pub(crate) fn name(self) -> Option<Arc<str>> {
        match self {
            Principal::Anybody => None,
        }
    }
}

/// Who may call.
#[derive(Clone, Default)]
pub enum Auth {
    /// Anybody.
    #[default]
    None,
    /// Whoever sends one of these as `Authorization: Bearer TOKEN`, or offers it as the WebSocket subprotocol `bearer.TOKEN`.
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
    /// Who sent the request of `headers`, if it may pass.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Principal, AuthError> {
        let Auth::Tokens(tokens) = self else { return Ok(Principal::Anybody) };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let one = given.next();
        if given.next().is_some() {
            return Err(AuthError::Several);
        }
        let known = match one {
            Some(value) => match value.as_bytes().split_at_checked(7) {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
                    is_known(tokens, token.trim_ascii())
                }
                _ => return Err(AuthError::NotBearer),
            },
            None => match offered(headers) {
                Some(token) => {
                    // Tokens with characters that a subprotocol cannot have come as base64url.
                    let decoded = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
                    is_known(tokens, token) | is_known(tokens, &decoded)
                }
                None => return Err(AuthError::Missing),
            },
        };
        if bool::from(known) { Ok(Principal::Anybody) } else { Err(AuthError::Unknown) }
    }
}

/// The token among the subprotocols that a WebSocket handshake offers: browsers can set no other header.
fn offered(headers: &HeaderMap) -> Option<&[u8]> {
    let handshake = headers.contains_key(header::UPGRADE);
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter(|_| handshake);
    let mut offers = offers.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    offers.find_map(|offer| offer.trim_ascii().strip_prefix(b"bearer."))
}

/// Compares with every token, so that the time says nothing of which one was close.
fn is_known(tokens: &[String], given: &[u8]) -> Choice {
    let known = tokens.iter().fold(Choice::from(0), |known, token| known | token.as_bytes().ct_eq(given));
    known & Choice::from(u8::from(!given.is_empty()))
}

/// Keeps headers that may hold a token out of whatever prints headers. tower-http's `sensitive-headers` does the same for 3 % more
/// instructions of one record: it moves the future of the whole pipeline.
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
    fn only_known_tokens_pass_and_an_empty_one_never() {
        let check = |value| check(header::AUTHORIZATION, value);
        assert!(check(Some("Bearer two")) && check(Some("bearer one")));
        for refused in [None, Some("Bearer "), Some("Bearer"), Some("Bearer three"), Some("Basic one"), Some("on")] {
            assert!(!check(refused), "{refused:?}");
        }
    }

    #[test]
    fn two_credentials_are_no_credential() {
        let mut headers = HeaderMap::new();
        headers.append(header::AUTHORIZATION, "Bearer two".parse().unwrap());
        headers.append(header::AUTHORIZATION, "Bearer two".parse().unwrap());
        let refused = Auth::Tokens(vec!["two".into()]).check(&headers).unwrap_err();
        assert_eq!(refused, AuthError::Several);
        assert!(Auth::None.check(&headers).is_ok(), "nobody is asked who they are");
    }

    #[test]
    fn a_browser_offers_its_token_as_a_subprotocol() {
        let check = |value: &str| check(header::SEC_WEBSOCKET_PROTOCOL, Some(value));
        let encoded = format!("diorama.v1+json,bearer.{}", URL_SAFE_NO_PAD.encode("a/b="));
        assert!(check("diorama.v1+json, bearer.two") && check("bearer.one") && check(&encoded));
        for refused in ["diorama.v1+json", "bearer.", "bearer.three", "two", "bearer", "Bearer.two", "x, bearer.tw"] {
            assert!(!check(refused), "{refused}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, "bearer.two".parse().unwrap());
        assert!(Auth::Tokens(vec!["two".into()]).check(&headers).is_err(), "only a handshake has subprotocols");
        hide(&mut headers);
        assert!(!format!("{headers:?}").contains("two"));
    }
}
