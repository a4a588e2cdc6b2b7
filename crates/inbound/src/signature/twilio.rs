//! Twilio's signature: over the URL and the sorted fields of the form, or over the URL with a hash of the body.

use subtle::Choice;

use super::mac::{self, Mac};
use super::{Algorithm, Encoding, InBody, Key, Refusal, Verifier, decide, one};
use crate::Request;
use crate::body::parameter;
use crate::form::fields;
use crate::hook::media_type;

pub(super) const SIGNATURE: &str = "x-twilio-signature";

/// Twilio's signature.
#[derive(Clone, Debug)]
pub struct Twilio {
    /// The auth tokens, any of which may match.
    pub secrets: Vec<Key>,
    /// The URL configured at Twilio, without its query, if a proxy changes host or path; by default `https`, the header `Host`,
    /// and the path.
    pub public_url: Option<String>,
}

impl Twilio {
    /// Begins to verify a delivery. The sorted fields of a form are signed, so a form is verified when it is complete. For other
    /// bodies the signed URL contains the body's hash.
    pub(super) fn begin<'a>(&'a self, request: &Request<'a>) -> Result<Verifier<'a>, Refusal> {
        if media_type(request.headers) == "application/x-www-form-urlencoded" {
            one(request.headers, SIGNATURE)?;
            return Ok(Verifier::head_only(request).then(InBody::Twilio(self), 0));
        }
        decide(self.signs(request, "")?)?;
        let given = request.query.and_then(|query| parameter(query, "bodySHA256")).ok_or(Refusal::Missing)?;
        Ok(Verifier::hash(request, Encoding::Hex.decode(&given)))
    }

    /// Verifies the signature of the URL and a form.
    pub(super) fn verify_form(&self, request: &Request<'_>) -> Result<(), Refusal> {
        decide(self.signs(request, &sorted(request.body)?)?)
    }

    /// Compares the signature with the expected ones of the URL and `text`.
    fn signs(&self, request: &Request<'_>, text: &str) -> Result<Choice, Refusal> {
        let presented = [Encoding::Base64.decode(one(request.headers, SIGNATURE)?)];
        let urls = self.urls(request)?;
        let of = |url: &str| {
            let macs = self.secrets.iter().filter_map(|key| Mac::new(key, Algorithm::Sha1));
            mac::any(macs.map(|mac| mac.feed(url.as_bytes()).feed(text.as_bytes())), &presented)
        };
        Ok(urls.iter().fold(Choice::from(0), |known, url| known | of(url)))
    }

    /// Returns the URLs that Twilio may have signed: with the port of the scheme, and without a port.
    fn urls(&self, request: &Request<'_>) -> Result<[String; 2], Refusal> {
        let base = match &self.public_url {
            Some(url) => url.clone(),
            None => format!("https://{}{}", one(request.headers, "host")?, request.path),
        };
        let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
        let other = other_port(&base);
        Ok([format!("{base}{query}"), format!("{other}{query}")])
    }
}

/// Returns `url` without its port if it has one, else with the default port.
fn other_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => format!("{scheme}://{host}{path}"),
        _ => format!("{scheme}://{host}:{}{path}", if scheme == "http" { 80 } else { 443 }),
    }
}

/// Returns names and values, concatenated in the order of the names.
fn sorted(body: &[u8]) -> Result<String, Refusal> {
    let mut fields = fields(body).ok_or(Refusal::Malformed)?;
    fields.sort_unstable();
    fields.dedup();
    Ok(fields.into_iter().map(|(name, value)| name + &value).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_port_is_left_out_or_added() {
        for (url, other) in [
            ("https://a.example/b:7", "https://a.example:443/b:7"),
            ("https://a.example:8443/b", "https://a.example/b"),
            ("http://a.example", "http://a.example:80"),
            ("https://[::1]/b", "https://[::1]:443/b"),
            ("a", "a"),
        ] {
            assert_eq!(super::other_port(url), other);
        }
    }
}
