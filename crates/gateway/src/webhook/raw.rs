//! Stored form of a delivery's request, without secrets and signatures.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::hook::Hook;
use diorama_core::journal::RawRequest;
use diorama_core::vista::query::url::percent_decoded;
use diorama_inbound::Proof;

/// Replacement of a secret value.
const REDACTED: &str = "[redacted]";
/// Parts of the names of headers and parameters with secret values.
const SECRET_PARTS: [&str; 11] =
    ["auth", "cookie", "signature", "token", "secret", "hmac", "password", "api-key", "apikey", "api_key", "-mac"];
/// Names that match [`SECRET_PARTS`] or a signature scheme but are not secret, and are needed for a replay.
const NOT_SECRET: [&str; 2] = ["webhook-id", "svix-id"];

/// Returns the stored form of a request to `hook`.
pub(super) fn keep(hook: &Hook, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> RawRequest {
    let (proofs, parameter) = match hook.inbound.scheme().proof() {
        Proof::Headers(headers) => (headers.into_iter().map(|(name, _)| name).collect(), None),
        Proof::Query(parameter) => (Vec::new(), Some(parameter)),
        Proof::Nothing | Proof::Bearer | Proof::Basic | Proof::Body => (Vec::new(), None),
    };
    let secret = |name: &str| {
        let proof = || proofs.iter().any(|proof| proof.eq_ignore_ascii_case(name)) && !name.contains("timestamp");
        !NOT_SECRET.contains(&name) && (is_secret_name(name) || proof())
    };
    let kept = headers.iter().map(|(name, value)| {
        let hidden = value.is_sensitive() || secret(name.as_str());
        let value = if hidden { REDACTED.into() } else { String::from_utf8_lossy(value.as_bytes()).into_owned() };
        (name.to_string(), value)
    });
    // Copied, because the body may be a slice of a larger buffer.
    let mut body = body.to_vec();
    hook.inbound.scheme().redact(&mut body);
    RawRequest { uri: redacted_uri(uri, parameter.as_deref()), headers: kept.collect(), body: body.into() }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// Redacts the values of secret parameters, including `proof`.
fn redacted_uri(uri: &Uri, proof: Option<&str>) -> String {
    let Some(query) = uri.query() else { return uri.path().to_string() };
    let plain = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _))
            if is_secret_name(name) || ["key", "sig"].contains(&name) || proof == Some(&*decoded_name(name)) =>
        {
            format!("{name}={REDACTED}")
        }
        _ => pair.to_string(),
    });
    format!("{}?{}", uri.path(), plain.collect::<Vec<_>>().join("&"))
}

fn decoded_name(name: &str) -> String {
    percent_decoded(name, true).map_or_else(String::new, Cow::into_owned)
}

/// Returns the stored headers of a request.
pub(super) fn headers(raw: &RawRequest) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(raw.headers.len());
    for (name, value) in &raw.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_inbound::{self as inbound, Scheme};

    #[test]
    fn secrets_and_signatures_are_not_kept() {
        let hook = Hook::new("a", "a", inbound::Hook::new(Scheme::None));
        let sent = [
            ("authorization", "Bearer hunter2"),
            ("x-gitlab-token", "hunter2"),
            ("x-shopify-hmac-sha256", "hunter2"),
            ("x-airtable-content-mac", "hunter2"),
            ("webhook-signature", "v1,hunter2"),
            ("cookie", "hunter2"),
            ("webhook-id", "msg_1"),
            ("content-type", "application/json"),
        ];
        let sent: HeaderMap = sent
            .into_iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let uri: Uri = "/webhooks/a?token=hunter2&shop=1".parse().unwrap();
        let raw = keep(&hook, &uri, &sent, &Bytes::from_static(b"{}"));
        assert!(!format!("{raw:?}").contains("hunter2"));
        assert_eq!(raw.uri, "/webhooks/a?token=[redacted]&shop=1");
        assert_eq!(headers(&raw)["webhook-id"], "msg_1");
        assert_eq!(headers(&raw)["content-type"], "application/json");
    }
}
