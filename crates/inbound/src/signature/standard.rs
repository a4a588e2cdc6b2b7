//! Standard Webhooks, also under Svix's names of the headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, StreamVerifier, VerifyingKey};
use http::HeaderMap;

use super::key::public;
use super::{Algorithm, Encoding, Key, MOST_SIGNATURES, Refusal, Unit, Verifier, fresh, one};
use crate::Request;

/// Signatures with private keys that are tried of one delivery, at most: each one hashes the whole body.
const MOST_PUBLIC: usize = 3;

/// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
#[derive(Clone, Debug)]
pub struct Standard {
    /// Shared secrets (`v1`).
    shared: Vec<Key>,
    /// Public keys (`v1a`).
    public: Vec<VerifyingKey>,
}

const STANDARD_NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
const SVIX_NAMES: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];

impl Standard {
    /// Of secrets (`whsec_`) and public keys (`whpk_`).
    ///
    /// # Errors
    /// Says what they look like; never the secret.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Result<Standard, String> {
        let mut own = Standard { shared: Vec::new(), public: Vec::new() };
        for secret in secrets {
            match secret {
                key if key.starts_with("whpk_") => own.public.push(public(key)?),
                key if key.starts_with("whsk_") => {
                    return Err("whsk_ is the sender's own key: the one to check with begins with whpk_".into());
                }
                key => own.shared.push(Key::standard(key)?),
            }
        }
        Ok(own)
    }

    pub(super) fn begin<'a>(&self, request: &Request<'a>, tolerance: u64) -> Result<Verifier<'a>, Refusal> {
        let [id, timestamp, signature] = names(request.headers)?;
        let id = one(request.headers, id)?;
        let timestamp = one(request.headers, timestamp)?;
        let given = one(request.headers, signature)?;
        let of = |version: &'static str| given.split(' ').filter_map(move |given| given.strip_prefix(version));
        let shared: Vec<_> = of("v1,").take(MOST_SIGNATURES).map(|text| Encoding::Base64.decode(text)).collect();
        fresh(timestamp, Unit::Seconds, request.now, tolerance)?;
        let before = [id.as_bytes(), b".", timestamp.as_bytes(), b"."];
        let signed: Vec<Signature> = of("v1a,").take(MOST_PUBLIC).filter_map(ed25519).collect();
        let tries = self.public.iter().flat_map(|key| signed.iter().filter_map(|signature| stream(key, signature)));
        let fed = |mut stream: StreamVerifier| {
            before.iter().for_each(|piece| stream.update(piece));
            stream
        };
        let streams = tries.map(fed).collect();
        let keys = (&self.shared[..], Algorithm::Sha256);
        Verifier::signatures(request, keys, shared, streams, |mac| {
            before.iter().fold(mac, |mac, piece| mac.feed(piece))
        })
    }
}

/// A verifier of a message that arrives in pieces, as strict as `VerifyingKey::verify_strict`: neither the key (see
/// [`public`]) nor the signature's point may be of small order. A signature is made in two passes over its message, but checked
/// in one, so that no message is kept.
fn stream(key: &VerifyingKey, signature: &Signature) -> Option<StreamVerifier> {
    let point = VerifyingKey::from_bytes(signature.r_bytes()).ok()?;
    if point.is_weak() { None } else { key.verify_stream(signature).ok() }
}

fn ed25519(text: &str) -> Option<Signature> {
    Signature::from_slice(&STANDARD.decode(text).ok()?).ok()
}

/// The sender's id of the delivery.
pub(super) fn delivery(headers: &HeaderMap) -> Option<&str> {
    one(headers, names(headers).ok()?[0]).ok()
}

/// The set of names the sender uses; both sets at once may disagree and are not accepted.
fn names(headers: &HeaderMap) -> Result<[&'static str; 3], Refusal> {
    match (headers.contains_key(STANDARD_NAMES[2]), headers.contains_key(SVIX_NAMES[2])) {
        (true, true) => Err(Refusal::Malformed),
        (true, false) => Ok(STANDARD_NAMES),
        (false, true) => Ok(SVIX_NAMES),
        (false, false) => Err(Refusal::Missing),
    }
}
