//! Standard Webhooks, also under Svix's names of the headers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use hyper::HeaderMap;
use subtle::Choice;

use super::key::public;
use super::{Algorithm, Encoding, Key, MOST_SIGNATURES, Refused, Unit, decide, fresh, mac, one};
use crate::inbound::Request;

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

    pub(super) fn verify(&self, request: &Request<'_>, tolerance: u64) -> Result<(), Refused> {
        let [id, timestamp, signature] = names(request.headers)?;
        let id = one(request.headers, id)?;
        let timestamp = one(request.headers, timestamp)?;
        let given = one(request.headers, signature)?;
        let of = |version: &'static str| given.split(' ').filter_map(move |given| given.strip_prefix(version));
        let shared: Vec<_> = of("v1,").take(MOST_SIGNATURES).map(|text| Encoding::Base64.decode(text)).collect();
        let known = mac::any(&self.shared, Algorithm::Sha256, &shared, |mac| {
            mac.feed(id.as_bytes()).feed(b".").feed(timestamp.as_bytes()).feed(b".").feed(request.body)
        });
        let signed: Vec<Signature> = of("v1a,").take(MOST_PUBLIC).filter_map(ed25519).collect();
        decide(known | self.signed(&signed, id, timestamp, request.body))?;
        fresh(timestamp, Unit::Seconds, request.now, tolerance)
    }

    fn signed(&self, presented: &[Signature], id: &str, timestamp: &str, body: &[u8]) -> Choice {
        if self.public.is_empty() || presented.is_empty() {
            return Choice::from(0);
        }
        let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
        let tries = self.public.iter().flat_map(|key| presented.iter().map(move |signature| (key, signature)));
        tries.fold(Choice::from(0), |known, (key, signature)| {
            known | Choice::from(u8::from(key.verify_strict(&message, signature).is_ok()))
        })
    }
}

fn ed25519(text: &str) -> Option<Signature> {
    Signature::from_slice(&STANDARD.decode(text).ok()?).ok()
}

/// The sender's id of the delivery.
pub(super) fn delivery(headers: &HeaderMap) -> Option<&str> {
    one(headers, names(headers).ok()?[0]).ok()
}

/// The set of names the sender uses; both sets at once may disagree and are not accepted.
fn names(headers: &HeaderMap) -> Result<[&'static str; 3], Refused> {
    match (headers.contains_key(STANDARD_NAMES[2]), headers.contains_key(SVIX_NAMES[2])) {
        (true, true) => Err(Refused::Malformed),
        (true, false) => Ok(STANDARD_NAMES),
        (false, true) => Ok(SVIX_NAMES),
        (false, false) => Err(Refused::Missing),
    }
}
