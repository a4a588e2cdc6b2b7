//! Whether a delivery comes from who it says: over the bytes as received, in constant time, with one answer for every refusal.
//!
//! Several secrets may hold at a time, so that they can be changed without a gap: every secret is tried on every presented
//! signature, and nothing stops at the first that fits.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use hmac::{KeyInit as _, Mac as _};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName};
use sha2::{Digest as _, Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq as _};

/// Seconds that a signed time may differ from ours, in both directions.
pub const TOLERANCE: u64 = 300;
/// Secrets of one hook, at most.
pub const MOST_SECRETS: usize = 5;
/// Signatures in one header, at most.
const MOST_SIGNATURES: usize = 10;
/// Bytes of a signature header, at most.
const MOST_HEADER: usize = 8 << 10;

/// A secret. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// The secret of a Standard Webhooks sender: base64 behind `whsec_`, 24 to 64 bytes.
    ///
    /// # Errors
    /// Says what a secret looks like; never the secret.
    pub fn standard(secret: &str) -> Result<Key, String> {
        let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
        let key = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
        let key = key.map_err(|_| "a secret of scheme \"standard\" is base64, usually behind whsec_")?;
        if !(24..=64).contains(&key.len()) {
            return Err(format!("a secret of scheme \"standard\" has 24 to 64 bytes, not {}", key.len()));
        }
        Ok(Key(key))
    }

    /// A secret that is used as it stands.
    ///
    /// # Errors
    /// If it is empty.
    pub fn plain(secret: &str) -> Result<Key, String> {
        if secret.is_empty() { Err("a secret must not be empty".into()) } else { Ok(Key(secret.into())) }
    }
}

/// How senders prove who they are.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature` (or Svix's own names of them).
    Standard(Vec<Key>),
    /// An HMAC in a header.
    Hmac(Hmac),
    /// A token: `Authorization: Bearer ..`.
    Bearer(Vec<Key>),
    /// They do not.
    None,
}

/// An HMAC in a header, as most services have one of their own.
#[derive(Clone, Debug)]
pub struct Hmac {
    /// The secrets, any of which may fit.
    pub secrets: Vec<Key>,
    /// The header with the signature.
    pub header: HeaderName,
    /// What stands before it (`sha256=`).
    pub prefix: String,
    /// How it is written.
    pub encoding: Encoding,
    /// Whether it is SHA-512 (else SHA-256).
    pub sha512: bool,
    /// The header with the time, in seconds.
    pub timestamp: Option<HeaderName>,
    /// What is signed: `{body}` and `{timestamp}` stand for themselves.
    pub message: String,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hexadecimal, in either case.
    Hex,
    /// Base64 with padding.
    Base64,
    /// Base64 for URLs, without padding.
    Base64Url,
}

/// What senders of a scheme must send; for documents and `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// `Authorization: Bearer ..`
    Bearer,
    /// `Authorization: Basic ..`
    Basic,
    /// These headers; what each of them is.
    Headers(Vec<(String, &'static str)>),
}

/// Why a delivery is refused; for the log only, the sender learns nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A header that the scheme needs is not there.
    #[error("a header is missing")]
    Missing,
    /// A header is there twice, too long or unreadable.
    #[error("a header cannot be read")]
    Malformed,
    /// No secret fits.
    #[error("no secret fits the signature")]
    Signature,
    /// It was signed too long ago, or in the future.
    #[error("the time it was signed at is too far off")]
    Stale,
}

impl Scheme {
    /// Checks a delivery that arrives at `now` (unix seconds).
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: u64) -> Result<(), Refused> {
        match self {
            Scheme::Standard(secrets) => standard(secrets, headers, body, now),
            Scheme::Hmac(hmac) => hmac.verify(headers, body, now),
            Scheme::Bearer(tokens) => bearer(tokens, headers),
            Scheme::None => Ok(()),
        }
    }

    /// What senders must send to be believed.
    pub fn proof(&self) -> Proof {
        let header = |name: &str, about| (name.to_string(), about);
        match self {
            Scheme::Standard(_) => Proof::Headers(vec![
                header("webhook-id", "The delivery's id; a second one changes nothing."),
                header("webhook-timestamp", "Unix seconds."),
                header("webhook-signature", "`v1,` and the signature of id, timestamp and body (Standard Webhooks)."),
            ]),
            Scheme::Hmac(hmac) => {
                let time = hmac.timestamp.as_ref().map(|name| header(name.as_str(), "Unix seconds."));
                let signature = header(hmac.header.as_str(), "The signature of the body.");
                Proof::Headers([Some(signature), time].into_iter().flatten().collect())
            }
            Scheme::Bearer(_) => Proof::Bearer,
            Scheme::None => Proof::Nothing,
        }
    }

    /// The sender's id of the delivery, where the scheme has one.
    pub fn delivery(&self, headers: &HeaderMap) -> Option<String> {
        match self {
            Scheme::Standard(_) => {
                let [id, ..] = names(headers).ok()?;
                one(headers, id).ok().map(str::to_string)
            }
            Scheme::Hmac(_) | Scheme::Bearer(_) | Scheme::None => None,
        }
    }
}

const STANDARD_NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
const SVIX_NAMES: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];

/// The set of names the sender uses; both sets at once may disagree and are not accepted.
fn names(headers: &HeaderMap) -> Result<[&'static str; 3], Refused> {
    match (headers.contains_key(STANDARD_NAMES[2]), headers.contains_key(SVIX_NAMES[2])) {
        (true, false) => Ok(STANDARD_NAMES),
        (false, true) => Ok(SVIX_NAMES),
        (true, true) => Err(Refused::Malformed),
        (false, false) => Err(Refused::Missing),
    }
}

fn standard(secrets: &[Key], headers: &HeaderMap, body: &[u8], now: u64) -> Result<(), Refused> {
    let [id, timestamp, signature] = names(headers)?;
    let (id, timestamp) = (one(headers, id)?, one(headers, timestamp)?);
    let presented = one(headers, signature)?.split(' ').filter_map(|signature| signature.strip_prefix("v1,"));
    let presented: Vec<_> = presented.take(MOST_SIGNATURES).map(|text| Encoding::Base64.decode(text)).collect();
    let mut known = Choice::from(0);
    for key in secrets {
        let Some(mac) = Mac::new(key, false) else { continue };
        let mac = mac.feed(id.as_bytes()).feed(b".").feed(timestamp.as_bytes()).feed(b".").feed(body);
        known |= mac.fits(&presented);
    }
    decide(known)?;
    fresh(timestamp, now)
}

impl Hmac {
    fn verify(&self, headers: &HeaderMap, body: &[u8], now: u64) -> Result<(), Refused> {
        let presented = one(headers, self.header.as_str())?;
        let presented = presented.strip_prefix(self.prefix.as_str()).ok_or(Refused::Malformed)?;
        let presented = [self.encoding.decode(presented)];
        let timestamp = match &self.timestamp {
            Some(name) => one(headers, name.as_str())?,
            None => "",
        };
        let mut known = Choice::from(0);
        for key in &self.secrets {
            let Some(mac) = Mac::new(key, self.sha512) else { continue };
            known |= self.message(mac, timestamp, body).fits(&presented);
        }
        decide(known)?;
        if self.timestamp.is_some() { fresh(timestamp, now) } else { Ok(()) }
    }

    fn message(&self, mut mac: Mac, timestamp: &str, body: &[u8]) -> Mac {
        let mut rest = self.message.as_str();
        while let Some(at) = rest.find('{') {
            let (before, after) = rest.split_at(at);
            mac = mac.feed(before.as_bytes());
            if let Some(after) = after.strip_prefix("{body}") {
                mac = mac.feed(body);
                rest = after;
            } else if let Some(after) = after.strip_prefix("{timestamp}") {
                mac = mac.feed(timestamp.as_bytes());
                rest = after;
            } else {
                mac = mac.feed(b"{");
                rest = &after[1..];
            }
        }
        mac.feed(rest.as_bytes())
    }
}

impl Encoding {
    /// The bytes, empty if it is written otherwise (which fits nothing).
    fn decode(self, text: &str) -> Vec<u8> {
        match self {
            Encoding::Hex => hex(text).unwrap_or_default(),
            Encoding::Base64 => STANDARD.decode(text).unwrap_or_default(),
            Encoding::Base64Url => URL_SAFE_NO_PAD.decode(text).unwrap_or_default(),
        }
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn bearer(tokens: &[Key], headers: &HeaderMap) -> Result<(), Refused> {
    let given = one(headers, AUTHORIZATION.as_str())?;
    let given = match given.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token,
        _ => return Err(Refused::Malformed),
    };
    // Hashes have one length, whatever was sent.
    let given = Sha256::digest(given);
    let known = tokens.iter().fold(Choice::from(0), |known, token| known | Sha256::digest(&token.0).ct_eq(&given));
    decide(known)
}

fn decide(known: Choice) -> Result<(), Refused> {
    if known.into() { Ok(()) } else { Err(Refused::Signature) }
}

fn fresh(timestamp: &str, now: u64) -> Result<(), Refused> {
    let at: u64 = timestamp.parse().map_err(|_| Refused::Malformed)?;
    if at.abs_diff(now) <= TOLERANCE { Ok(()) } else { Err(Refused::Stale) }
}

/// The one value of a header.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Refused::Missing),
        (Some(value), None) if value.len() <= MOST_HEADER => value.to_str().map_err(|_| Refused::Malformed),
        _ => Err(Refused::Malformed),
    }
}

/// An HMAC under way.
enum Mac {
    Sha256(hmac::Hmac<Sha256>),
    Sha512(hmac::Hmac<Sha512>),
}

impl Mac {
    /// `None` for keys that an HMAC does not take; it takes all.
    fn new(key: &Key, sha512: bool) -> Option<Mac> {
        Some(match sha512 {
            false => Mac::Sha256(hmac::Hmac::new_from_slice(&key.0).ok()?),
            true => Mac::Sha512(hmac::Hmac::new_from_slice(&key.0).ok()?),
        })
    }

    fn feed(mut self, bytes: &[u8]) -> Mac {
        match &mut self {
            Mac::Sha256(mac) => mac.update(bytes),
            Mac::Sha512(mac) => mac.update(bytes),
        }
        self
    }

    /// Whether one of `presented` is it.
    fn fits(self, presented: &[Vec<u8>]) -> Choice {
        let own: Vec<u8> = match self {
            Mac::Sha256(mac) => mac.finalize().into_bytes().to_vec(),
            Mac::Sha512(mac) => mac.finalize().into_bytes().to_vec(),
        };
        presented.iter().fold(Choice::from(0), |known, presented| known | own.ct_eq(presented))
    }
}

#[cfg(test)]
mod tests;
