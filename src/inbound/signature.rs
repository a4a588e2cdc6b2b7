//! Whether a delivery comes from who it says: over the bytes as received, in constant time, with one answer for every refusal.
//!
//! Several secrets may hold at a time, so that they can be changed without a gap: every secret is tried on every presented
//! signature, and nothing stops at the first that fits.

mod contentful;
mod hmac;
mod key;
mod mac;
mod standard;
mod timed;
mod token;

pub use contentful::Contentful;
pub use hmac::{Hmac, Message};
pub use key::Key;
pub use mac::{Algorithm, Encoding};
pub use standard::Standard;
pub use timed::Timed;
pub use token::Gitlab;

use hyper::HeaderMap;
use hyper::header::HeaderName;
use jiff::Timestamp;
use subtle::Choice;

use super::Request;

/// Seconds that a signed time may differ from ours, in both directions, unless it is said otherwise.
pub const TOLERANCE: u64 = 300;
/// Secrets of one hook, at most.
pub const MOST_SECRETS: usize = 5;
/// Signatures in one header, at most.
const MOST_SIGNATURES: usize = 10;
/// Bytes of a signature header, at most.
const MOST_HEADER: usize = 8 << 10;

/// How senders prove who they are.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// Standard Webhooks, or Svix.
    Standard(Standard),
    /// An HMAC in a header: GitHub, Shopify, Slack, Airtable, and others.
    Hmac(Hmac),
    /// A header with time and signatures: Stripe, Sanity.
    Timed(Timed),
    /// Contentful.
    Contentful(Contentful),
    /// GitLab.
    Gitlab(Gitlab),
    /// A token: `Authorization: Bearer ..`.
    Bearer(Vec<Key>),
    /// A token in a header of its own.
    Header(HeaderName, Vec<Key>),
    /// `user:password`: `Authorization: Basic ..`.
    Basic(Vec<Key>),
    /// They do not.
    None,
}

/// Senders with manners of their own beside the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// None in particular.
    Any,
    /// GitHub: pings, bodies in forms, `X-GitHub-Delivery`.
    Github,
    /// Shopify: `X-Shopify-Webhook-Id`.
    Shopify,
    /// Slack: challenges, the delivery's id in the body.
    Slack,
    /// Airtable: the time of the signature in the body.
    Airtable,
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
    /// Checks a delivery; a signed time may differ from its arrival by `tolerance` seconds.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn verify(&self, request: &Request<'_>, tolerance: u64) -> Result<(), Refused> {
        match self {
            Scheme::Standard(standard) => standard.verify(request, tolerance),
            Scheme::Hmac(hmac) => hmac.verify(request, tolerance),
            Scheme::Timed(timed) => timed.verify(request, tolerance),
            Scheme::Contentful(contentful) => contentful.verify(request, tolerance),
            Scheme::Gitlab(gitlab) => gitlab.verify(request, tolerance),
            Scheme::Bearer(tokens) => token::bearer(tokens, request),
            Scheme::Header(name, tokens) => token::header(name, tokens, request),
            Scheme::Basic(users) => token::basic(users, request),
            Scheme::None => Ok(()),
        }
    }

    /// Who signs so.
    pub fn sender(&self) -> Sender {
        match self {
            Scheme::Hmac(hmac) => hmac.sender,
            _ => Sender::Any,
        }
    }

    /// What senders must send to be believed.
    pub fn proof(&self) -> Proof {
        let header = |name: &str, about| (name.to_string(), about);
        let headers = match self {
            Scheme::Standard(_) => vec![
                header("webhook-id", "The delivery's id; a second one changes nothing."),
                header("webhook-timestamp", "Unix seconds."),
                header("webhook-signature", "`v1,` and the signature of id, timestamp and body (Standard Webhooks)."),
            ],
            Scheme::Hmac(hmac) => {
                let signature = hmac.headers.first().map(|name| header(name.as_str(), "The signature of the body."));
                let time = hmac.timestamp.as_ref().map(|name| header(name.as_str(), "Unix seconds."));
                signature.into_iter().chain(time).collect()
            }
            Scheme::Timed(timed) => vec![header(timed.header().as_str(), "`t=`, the time, `,v1=` and the signature.")],
            Scheme::Contentful(_) => vec![
                header(contentful::SIGNATURE, "The signature of the request."),
                header(contentful::TIMESTAMP, "Unix milliseconds."),
            ],
            Scheme::Gitlab(_) => vec![header(token::GITLAB_TOKEN, "The webhook's secret.")],
            Scheme::Header(name, _) => vec![header(name.as_str(), "The webhook's secret.")],
            Scheme::Bearer(_) => return Proof::Bearer,
            Scheme::Basic(_) => return Proof::Basic,
            Scheme::None => return Proof::Nothing,
        };
        Proof::Headers(headers)
    }

    /// The sender's id of the delivery, where the scheme has one in a header.
    pub fn delivery<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let first = |names: &[&str]| names.iter().find_map(|name| one(headers, name).ok());
        match self {
            Scheme::Standard(_) => standard::delivery(headers),
            Scheme::Gitlab(_) => first(&["webhook-id", "idempotency-key", "x-gitlab-event-uuid"]),
            Scheme::Timed(timed) if !timed.id_in_body => first(&["idempotency-key"]),
            Scheme::Hmac(hmac) => match hmac.sender {
                Sender::Github => first(&["x-github-delivery"]),
                Sender::Shopify => first(&["x-shopify-webhook-id", "shopify-webhook-id"]),
                Sender::Slack | Sender::Airtable | Sender::Any => None,
            },
            _ => None,
        }
    }

    /// The member of the body with the sender's id of the delivery, where the scheme has one there.
    pub(super) fn delivery_member(&self) -> Option<&'static str> {
        match self {
            Scheme::Timed(timed) if timed.id_in_body => Some("id"),
            Scheme::Hmac(hmac) if hmac.sender == Sender::Slack => Some("event_id"),
            _ => None,
        }
    }
}

fn decide(known: Choice) -> Result<(), Refused> {
    if known.into() { Ok(()) } else { Err(Refused::Signature) }
}

/// What a signed time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

fn fresh(timestamp: &str, unit: Unit, now: Timestamp, tolerance: u64) -> Result<(), Refused> {
    let at: u64 = timestamp.parse().map_err(|_| Refused::Malformed)?;
    let (now, tolerance) = match unit {
        Unit::Seconds => (now.as_second(), tolerance),
        Unit::Milliseconds => (now.as_millisecond(), tolerance.saturating_mul(1_000)),
    };
    let now = u64::try_from(now).unwrap_or(0);
    if at.abs_diff(now) <= tolerance { Ok(()) } else { Err(Refused::Stale) }
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

#[cfg(test)]
mod tests;
