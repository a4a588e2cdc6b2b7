//! Contentful's signature: over method, path, the headers it names, and body.

use std::fmt::Write as _;

use super::{Algorithm, Encoding, Key, Refusal, Unit, Verifier, fresh, one};
use crate::Request;

pub(super) const SIGNATURE: &str = "x-contentful-signature";
pub(super) const TIMESTAMP: &str = "x-contentful-timestamp";
const SIGNED_HEADERS: &str = "x-contentful-signed-headers";
/// Headers that one signature covers, at most.
const MOST_NAMES: usize = 64;

/// Contentful's signature.
#[derive(Clone, Debug)]
pub struct Contentful {
    /// The secrets, any of which may fit.
    pub secrets: Vec<Key>,
    /// The path that senders see, where a proxy changes it.
    pub public_path: Option<String>,
}

impl Contentful {
    pub(super) fn begin<'a>(&self, request: &Request<'a>, tolerance: u64) -> Result<Verifier<'a>, Refusal> {
        let presented = vec![Encoding::Hex.decode(one(request.headers, SIGNATURE)?)];
        let timestamp = one(request.headers, TIMESTAMP)?;
        let names = one(request.headers, SIGNED_HEADERS)?;
        let mut names: Vec<String> = names.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
        // A time that is not signed proves nothing.
        if names.len() > MOST_NAMES || !names.iter().any(|name| name == TIMESTAMP) {
            return Err(Refusal::Malformed);
        }
        names.sort_unstable();
        names.dedup();
        let mut headers = Vec::new();
        for name in &names {
            headers.push(format!("{name}:{}", one(request.headers, name)?.trim()));
        }
        let path = canonical(self.public_path.as_deref().unwrap_or(request.path), request.query);
        let head = format!("{}\n{path}\n{}\n", request.method, headers.join(";"));
        fresh(timestamp, Unit::Milliseconds, request.now, tolerance)?;
        let keys = (&self.secrets[..], Algorithm::Sha256);
        Verifier::signatures(request, keys, presented, Vec::new(), |mac| mac.feed(head.as_bytes()))
    }
}

/// `encodeURI(path + "?" + escape(query))`, so that a `%` of the query is escaped twice.
fn canonical(path: &str, query: Option<&str>) -> String {
    let mut out = encode(path, b";,/?:@&=+$-_.!~*'()#");
    if let Some(query) =
        query.map(|query| query.split('?').next().unwrap_or_default()).filter(|query| !query.is_empty())
    {
        out.push('?');
        out.push_str(&encode(&encode(query, b"-_.!~*'()"), b";,/?:@&=+$-_.!~*'()#"));
    }
    out
}

/// Percent-encodes all but letters, digits and `also`.
fn encode(text: &str, also: &[u8]) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || also.contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}
