//! One header with time and signatures, `t=..,v1=..`, as Stripe and Sanity have it.

use http::header::HeaderName;

use super::{Algorithm, Encoding, Key, MOST_SIGNATURES, Refusal, Unit, Verifier, fresh, one};
use crate::Request;

/// A header with the time and signatures of `{time}.{body}`.
#[derive(Clone, Debug)]
pub struct TimedHeader {
    secrets: Vec<Key>,
    header: HeaderName,
    encoding: Encoding,
    unit: Unit,
    /// Whether the body bears the delivery's id.
    pub(super) id_in_body: bool,
}

impl TimedHeader {
    /// Stripe's: the secrets are used with their `whsec_`.
    pub fn stripe(secrets: Vec<Key>) -> TimedHeader {
        let header = HeaderName::from_static("stripe-signature");
        TimedHeader { secrets, header, encoding: Encoding::Hex, unit: Unit::Seconds, id_in_body: true }
    }

    /// Sanity's: in milliseconds.
    pub fn sanity(secrets: Vec<Key>) -> TimedHeader {
        let header = HeaderName::from_static("sanity-webhook-signature");
        TimedHeader { secrets, header, encoding: Encoding::Base64Url, unit: Unit::Milliseconds, id_in_body: false }
    }

    pub(super) fn header(&self) -> &HeaderName {
        &self.header
    }

    pub(super) fn begin<'a>(&self, request: &Request<'a>, tolerance: u64) -> Result<Verifier<'a>, Refusal> {
        let mut timestamp = None;
        let mut presented = Vec::new();
        let parts = one(request.headers, self.header.as_str())?.split([',', ' ']).filter(|part| !part.is_empty());
        for part in parts {
            match part.split_once('=') {
                Some(("t", at)) if timestamp.is_none() => timestamp = Some(at),
                Some(("v1", given)) if presented.len() < MOST_SIGNATURES => presented.push(self.encoding.decode(given)),
                Some(("t", _)) | None => return Err(Refusal::Malformed),
                Some(_) => {}
            }
        }
        let timestamp = timestamp.ok_or(Refusal::Malformed)?;
        fresh(timestamp, self.unit, request.now, tolerance)?;
        let keys = (&self.secrets[..], Algorithm::Sha256);
        Verifier::signatures(request, keys, presented, Vec::new(), |mac| mac.feed(timestamp.as_bytes()).feed(b"."))
    }
}
