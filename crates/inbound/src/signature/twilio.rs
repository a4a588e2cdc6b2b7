//! Twilio's signature: over the URL and the sorted fields of the form, or over the URL with a hash of the body in it.

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
    /// The auth tokens, any of which may fit.
    pub secrets: Vec<Key>,
    /// The URL without its query that Twilio was given, where a proxy changes host or path; else `https`, the header `Host`, and
    /// the path.
    pub public_url: Option<String>,
}

impl Twilio {
    /// The fields of a form are signed in their order, so a form is checked when all of it is there. Of other bodies, the signed
    /// URL has the hash.
    pub(super) fn begin<'a>(&'a self, request: &Request<'a>) -> Result<Verifier<'a>, Refusal> {
        if media_type(request.headers) == "application/x-www-form-urlencoded" {
            one(request.headers, SIGNATURE)?;
            return Ok(Verifier::head_only(request).then(InBody::Twilio(self), 0));
        }
        decide(self.signs(request, "")?)?;
        let given = request.query.and_then(|query| parameter(query, "bodySHA256")).ok_or(Refusal::Missing)?;
        Ok(Verifier::hash(request, Encoding::Hex.decode(&given)))
    }

    /// Checks the signature of the URL and of a form.
    pub(super) fn verify_form(&self, request: &Request<'_>) -> Result<(), Refusal> {
        decide(self.signs(request, &sorted(request.body)?)?)
    }

    /// Compares the signature with those of the URL and `text`.
    fn signs(&self, request: &Request<'_>, text: &str) -> Result<Choice, Refusal> {
        let presented = [Encoding::Base64.decode(one(request.headers, SIGNATURE)?)];
        let urls = self.urls(request)?;
        let of = |url: &str| {
            let macs = self.secrets.iter().filter_map(|key| Mac::new(key, Algorithm::Sha1));
            mac::any(macs.map(|mac| mac.feed(url.as_bytes()).feed(text.as_bytes())), &presented)
        };
        Ok(urls.iter().fold(Choice::from(0), |known, url| known | of(url)))
    }

    /// The URL as Twilio may have signed it: with the port of its scheme, and without any.
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

/// `url` without its port if it has one, else with the usual one.
fn other_port(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => format!("{scheme}://{host}{path}"),
        _ => format!("{scheme}://{host}:{}{path}", if scheme == "http" { 80 } else { 443 }),
    }
}

/// Names and values, one after the other, in the order of the names.
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
