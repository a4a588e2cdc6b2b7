//! Twilio's signature: over the URL and the sorted fields of the form, or over the URL with a hash of the body in it.

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::{Algorithm, Encoding, Key, Refused, decide, mac, one};
use crate::inbound::Request;
use crate::inbound::body::parameter;
use crate::inbound::form::fields;
use crate::inbound::hook::media_type;

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
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        let presented = [Encoding::Base64.decode(one(request.headers, SIGNATURE)?)];
        let urls = self.urls(request)?;
        let (signed, whole) = match media_type(request.headers).as_str() {
            "application/x-www-form-urlencoded" => (sorted(request.body)?, Choice::from(1)),
            _ => (String::new(), body_fits(request)?),
        };
        let known = urls.iter().fold(Choice::from(0), |known, url| {
            known
                | mac::any(&self.secrets, Algorithm::Sha1, &presented, |mac| {
                    mac.feed(url.as_bytes()).feed(signed.as_bytes())
                })
        });
        decide(known & whole)
    }

    /// The URL as Twilio may have signed it: with the port of its scheme, and without any.
    fn urls(&self, request: &Request<'_>) -> Result<[String; 2], Refused> {
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
fn sorted(body: &[u8]) -> Result<String, Refused> {
    let mut fields = fields(body).ok_or(Refused::Malformed)?;
    fields.sort_unstable();
    fields.dedup();
    Ok(fields.into_iter().map(|(name, value)| name + &value).collect())
}

/// Compares the body's hash with the one in the signed URL.
fn body_fits(request: &Request<'_>) -> Result<Choice, Refused> {
    let given = request.query.and_then(|query| parameter(query, "bodySHA256")).ok_or(Refused::Missing)?;
    Ok(Sha256::digest(request.body).as_slice().ct_eq(&Encoding::Hex.decode(&given)))
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
