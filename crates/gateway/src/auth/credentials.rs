//! Credentials in the headers of a request.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::AuthError;

/// Returns the token in the headers: that of `Authorization`, else that among the subprotocols of a WebSocket handshake.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<Cow<'_, [u8]>>, AuthError> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = authorizations.next() else { return Ok(subprotocol_token(headers)) };
    if authorizations.next().is_some() {
        return Err(AuthError::Several);
    }
    match first.as_bytes().split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => Ok(Some(token.trim_ascii().into())),
        _ => Err(AuthError::NotBearer),
    }
}

/// Returns the token among the subprotocols that a WebSocket handshake offers. Browsers can set no other header. Tokens with characters
/// that a subprotocol cannot contain are sent as base64url.
fn subprotocol_token(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    if !headers.contains_key(header::UPGRADE) {
        return None;
    }
    let offers = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offers = offers.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    offers.find_map(|offer| offer.trim_ascii().strip_prefix(b"bearer.")).map(Cow::Borrowed)
}

/// Returns the token that `token` is the base64url of, if it may be one.
pub(super) fn decoded(headers: &HeaderMap, token: &[u8]) -> Option<Vec<u8>> {
    let is_offer = !headers.contains_key(header::AUTHORIZATION);
    is_offer.then(|| URL_SAFE_NO_PAD.decode(token).ok()).flatten().filter(|decoded| !decoded.is_empty())
}

/// Returns the value of a cookie. A cookie that is sent twice does not count: one of them may be of another path or site.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(own, _)| *own == name).map(|(_, value)| value);
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Marks the headers that may contain a credential as sensitive, so that debug output of headers omits them.
///
/// tower-http's `SetSensitiveHeaders` does the same, but moves the future of the whole pipeline. That costs one record 3 % more
/// instructions.
pub(crate) fn hide(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        if name == header::AUTHORIZATION || name == header::SEC_WEBSOCKET_PROTOCOL || name == header::COOKIE {
            value.set_sensitive(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_not_if_it_is_sent_twice() {
        let headers = |lines: &[&str]| lines.iter().map(|line| (header::COOKIE, line.parse().unwrap())).collect();
        let find = |lines: &[&str]| cookie(&headers(lines), "own").map(str::to_string);
        assert_eq!(find(&["a=1; own=x=y; b=2"]), Some("x=y".into()));
        assert_eq!(find(&["a=1", "own="]), Some("".into()));
        for none in [&["a=1; xown=2"][..], &["own=1; own=1"], &["own=1", "own=2"], &[], &["own"], &["Own=1"]] {
            assert_eq!(find(none), None, "{none:?}");
        }
    }

    #[test]
    fn credentials_are_hidden_from_debug_output() {
        let mut headers = HeaderMap::new();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, "bearer.two".parse().unwrap());
        headers.insert(header::COOKIE, "diorama_session=two".parse().unwrap());
        headers.insert(header::AUTHORIZATION, "Bearer two".parse().unwrap());
        hide(&mut headers);
        assert!(!format!("{headers:?}").contains("two"));
    }
}
