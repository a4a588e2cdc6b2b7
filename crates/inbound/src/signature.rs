//! Authentication of deliveries: over the bytes as received, in constant time, with the same response for every refusal.
//!
//! A hook may have several secrets, so that they can be rotated without a gap. Every secret is tried on every presented
//! signature, without stopping at the first match.

mod contentful;
mod hmac;
mod in_body;
mod key;
mod mac;
mod signer;
mod standard;
mod timed_header;
mod token;
mod twilio;
mod url;
mod verifier;

pub use contentful::Contentful;
pub use hmac::{Hmac, Message};
pub(super) use in_body::MailgunProof;
pub use in_body::{Graph, Mailgun};
pub use key::Key;
pub use mac::{Algorithm, Encoding};
pub use signer::Signer;
pub use standard::Standard;
pub use timed_header::TimedHeader;
pub use token::Gitlab;
pub(super) use token::any_key_matches;
pub use twilio::Twilio;
pub use url::{Sns, UrlToken};
pub(super) use url::{SnsMessage, is_raw};
use verifier::InBody;
pub use verifier::{BodyCheck, Verifier};

use http::HeaderMap;
use http::header::HeaderName;
use jiff::Timestamp;
use subtle::Choice;

use super::Request;

/// Default tolerance in seconds between a signed time and the server's clock, in both directions.
pub const TOLERANCE: u64 = 300;
/// Maximum number of secrets of one hook.
pub const MOST_SECRETS: usize = 5;
/// Maximum number of signatures in one header.
const MOST_SIGNATURES: usize = 10;
/// Maximum length of a signature header in bytes.
const MOST_HEADER: usize = 8 << 10;

/// Authentication scheme of a sender.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// Standard Webhooks, or Svix.
    Standard(Standard),
    /// An HMAC in a header: GitHub, Shopify, Slack, Meta, Zoom, Twitch, Asana, Dropbox, Airtable, and others.
    Hmac(Hmac),
    /// A header with time and signatures: Stripe, Sanity.
    Timed(TimedHeader),
    /// Contentful.
    Contentful(Contentful),
    /// GitLab.
    Gitlab(Gitlab),
    /// A token: `Authorization: Bearer ..`.
    Bearer(Vec<Key>),
    /// A token in a custom header.
    Header(HeaderName, Vec<Key>),
    /// `user:password`: `Authorization: Basic ..`.
    Basic(Vec<Key>),
    /// A token in the URL: Azure Event Grid, and others.
    Url(UrlToken),
    /// Amazon SNS.
    Sns(Sns),
    /// Twilio.
    Twilio(Twilio),
    /// Mailgun.
    Mailgun(Mailgun),
    /// Microsoft Graph.
    Graph(Graph),
    /// No authentication.
    None,
}

/// Senders that need special handling besides the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// No special handling.
    Any,
    /// GitHub: pings, bodies in forms, `X-GitHub-Delivery`.
    Github,
    /// Shopify: `X-Shopify-Webhook-Id`.
    Shopify,
    /// Slack: challenges, the delivery's id in the body.
    Slack,
    /// Airtable: the time of the signature in the body.
    Airtable,
    /// Meta: a challenge by `GET` with a separate token.
    Meta,
    /// Dropbox: a challenge by `GET`.
    Dropbox,
    /// Zoom: a challenge with a signed response.
    Zoom,
    /// Twitch: challenges and revocations, `Twitch-Eventsub-Message-Id`.
    Twitch,
    /// Asana: `X-Hook-Secret` is echoed.
    Asana,
    /// Azure Event Grid: a validation code is echoed.
    EventGrid,
    /// Amazon SNS: messages in an envelope, subscriptions that a person confirms.
    Sns,
    /// Twilio: forms.
    Twilio,
    /// Mailgun: forms or JSON, a token that is valid once.
    Mailgun,
    /// Microsoft Graph: `validationToken` is echoed.
    Graph,
}

/// Proof that senders of a scheme must send; for documentation and `WWW-Authenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing.
    Nothing,
    /// `Authorization: Bearer ..`
    Bearer,
    /// `Authorization: Basic ..`
    Basic,
    /// Headers, each with its description.
    Headers(Vec<(String, &'static str)>),
    /// A parameter of the query.
    Query(String),
    /// A part of the body.
    Body,
}

/// Reason why a delivery is refused; for the log only and never sent to the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A required header is missing.
    #[error("a header is missing")]
    Missing,
    /// A header is duplicated, too long or malformed.
    #[error("a header is duplicated, too long or malformed")]
    Malformed,
    /// No secret matches.
    #[error("no secret matches the signature")]
    Signature,
    /// The delivery was signed too long ago, or in the future.
    #[error("the signed time differs too much from the time of arrival")]
    Stale,
    /// The topic is not expected.
    #[error("the topic is not one of auth.topics")]
    Topic,
    /// The confirmation URL is not one of the sender.
    #[error("the confirmation URL is not one of Amazon SNS")]
    Address,
}

impl Scheme {
    /// Verifies a delivery. A signed time may differ from its arrival by `tolerance` seconds.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn verify(&self, request: &Request<'_>, tolerance: u64) -> Result<(), Refusal> {
        let mut verifier = self.begin(request, tolerance)?;
        verifier.update(request.body);
        verifier.finish()?.check(request.body)
    }

    /// Begins to verify a delivery before its body has arrived. The body of `request` is ignored.
    ///
    /// # Errors
    /// The reason, for the log, if the head is refused regardless of the body.
    pub fn begin<'a>(&'a self, request: &Request<'a>, tolerance: u64) -> Result<Verifier<'a>, Refusal> {
        match self {
            Scheme::Standard(standard) => return standard.begin(request, tolerance),
            Scheme::Hmac(hmac) => return hmac.begin(request, tolerance),
            Scheme::Timed(timed_header) => return timed_header.begin(request, tolerance),
            Scheme::Contentful(contentful) => return contentful.begin(request, tolerance),
            Scheme::Gitlab(gitlab) => return gitlab.begin(request, tolerance),
            Scheme::Sns(sns) => return sns.begin(request),
            Scheme::Twilio(twilio) => return twilio.begin(request),
            Scheme::Mailgun(mailgun) => {
                return Ok(Verifier::head_only(request).then(InBody::Mailgun(mailgun), tolerance));
            }
            Scheme::Graph(graph) => return Ok(Verifier::head_only(request).then(InBody::Graph(graph), tolerance)),
            Scheme::Bearer(tokens) => token::bearer(tokens, request)?,
            Scheme::Header(name, tokens) => token::header(name, tokens, request)?,
            Scheme::Basic(users) => token::basic(users, request)?,
            Scheme::Url(token) => token.verify(request)?,
            Scheme::None => {}
        }
        Ok(Verifier::head_only(request))
    }

    /// Returns the sender.
    pub fn sender(&self) -> Sender {
        match self {
            Scheme::Hmac(hmac) => hmac.sender,
            Scheme::Url(token) => token.sender,
            Scheme::Sns(_) => Sender::Sns,
            Scheme::Twilio(_) => Sender::Twilio,
            Scheme::Mailgun(_) => Sender::Mailgun,
            Scheme::Graph(_) => Sender::Graph,
            _ => Sender::Any,
        }
    }

    /// Returns the proof that senders must send.
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
                let about = if hmac.sender == Sender::Twitch { "RFC 3339." } else { "Unix seconds." };
                let time = hmac.timestamp.as_ref().map(|name| header(name.as_str(), about));
                signature.into_iter().chain(time).collect()
            }
            Scheme::Timed(timed_header) => {
                vec![header(timed_header.header().as_str(), "`t=`, the time, `,v1=` and the signature.")]
            }
            Scheme::Contentful(_) => vec![
                header(contentful::SIGNATURE, "The signature of the request."),
                header(contentful::TIMESTAMP, "Unix milliseconds."),
            ],
            Scheme::Gitlab(_) => vec![header(token::GITLAB_TOKEN, "The webhook's secret.")],
            Scheme::Header(name, _) => vec![header(name.as_str(), "The webhook's secret.")],
            Scheme::Bearer(_) => return Proof::Bearer,
            Scheme::Basic(_) => return Proof::Basic,
            Scheme::Twilio(_) => vec![header(twilio::SIGNATURE, "The signature of URL and form.")],
            Scheme::Url(token) => return Proof::Query(token.parameter.clone()),
            Scheme::Sns(sns) => return Proof::Query(sns.token.parameter.clone()),
            Scheme::Mailgun(_) | Scheme::Graph(_) => return Proof::Body,
            Scheme::None => return Proof::Nothing,
        };
        Proof::Headers(headers)
    }

    /// Returns the value of `WWW-Authenticate` for a refusal. Amazon SNS sends user and password only after such a challenge.
    pub fn authenticate(&self) -> Option<&'static str> {
        match self {
            Scheme::Bearer(_) => Some("Bearer"),
            Scheme::Basic(_) | Scheme::Sns(_) => Some("Basic realm=\"webhook\""),
            _ => None,
        }
    }

    /// Redacts secrets in a body before it is stored.
    pub fn redact(&self, body: &mut [u8]) {
        if let Scheme::Graph(graph) = self {
            graph.redact(body);
        }
    }

    /// Returns the sender's id of the delivery, if the scheme has one in a header.
    pub fn delivery<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let first = |names: &[&str]| names.iter().find_map(|name| one(headers, name).ok());
        match self {
            Scheme::Standard(_) => standard::delivery(headers),
            Scheme::Gitlab(_) => first(&["webhook-id", "idempotency-key", "x-gitlab-event-uuid"]),
            Scheme::Timed(timed_header) if !timed_header.id_in_body => first(&["idempotency-key"]),
            Scheme::Hmac(hmac) => match hmac.sender {
                Sender::Github => first(&["x-github-delivery"]),
                Sender::Shopify => first(&["x-shopify-webhook-id", "shopify-webhook-id"]),
                Sender::Twitch => first(&["twitch-eventsub-message-id"]),
                _ => None,
            },
            Scheme::Sns(_) => first(&["x-amz-sns-message-id"]),
            _ => None,
        }
    }

    /// Returns the body's member with the sender's id of the delivery, if the scheme has one there.
    pub(super) fn delivery_member(&self) -> Option<&'static str> {
        match self {
            Scheme::Timed(timed_header) if timed_header.id_in_body => Some("id"),
            Scheme::Hmac(hmac) if hmac.sender == Sender::Slack => Some("event_id"),
            _ => None,
        }
    }
}

fn decide(known: Choice) -> Result<(), Refusal> {
    if known.into() { Ok(()) } else { Err(Refusal::Signature) }
}

/// Unit of a signed time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
    /// Timestamps of RFC 3339.
    Rfc3339,
}

fn fresh(timestamp: &str, unit: Unit, now: Timestamp, tolerance: u64) -> Result<(), Refusal> {
    let count = || timestamp.parse::<u64>().map_err(|_| Refusal::Malformed);
    let off = |at: u64, now: i64| at.abs_diff(u64::try_from(now).unwrap_or(0));
    let near = match unit {
        Unit::Seconds => off(count()?, now.as_second()) <= tolerance,
        Unit::Milliseconds => off(count()?, now.as_millisecond()) <= tolerance.saturating_mul(1_000),
        Unit::Rfc3339 => {
            let at: Timestamp = timestamp.parse().map_err(|_| Refusal::Malformed)?;
            at.as_second().abs_diff(now.as_second()) <= tolerance
        }
    };
    if near { Ok(()) } else { Err(Refusal::Stale) }
}

/// Returns the only value of a header.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Refusal::Missing),
        (Some(value), None) if value.len() <= MOST_HEADER => value.to_str().map_err(|_| Refusal::Malformed),
        _ => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
mod sender_tests;
#[cfg(test)]
mod tests;
