//! Whether a delivery comes from who it says: over the bytes as received, in constant time, with one answer for every refusal.
//!
//! Several secrets may hold at a time, so that they can be changed without a gap: every secret is tried on every presented
//! signature, and nothing stops at the first that fits.

mod contentful;
mod hmac;
mod in_body;
mod key;
mod mac;
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
pub use standard::Standard;
pub use timed_header::TimedHeader;
pub use token::Gitlab;
pub(super) use token::known;
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
    /// A token in a header of its own.
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
    /// Meta: a challenge by `GET` with a token of its own.
    Meta,
    /// Dropbox: a challenge by `GET`.
    Dropbox,
    /// Zoom: a challenge whose answer is signed.
    Zoom,
    /// Twitch: challenges and revocations, `Twitch-Eventsub-Message-Id`.
    Twitch,
    /// Asana: `X-Hook-Secret` is given back.
    Asana,
    /// Azure Event Grid: a validation code is given back.
    EventGrid,
    /// Amazon SNS: messages in an envelope, subscriptions that a person confirms.
    Sns,
    /// Twilio: forms.
    Twilio,
    /// Mailgun: forms or JSON, a token that counts once.
    Mailgun,
    /// Microsoft Graph: `validationToken` is given back.
    Graph,
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
    /// A parameter of the query.
    Query(String),
    /// A part of the body.
    Body,
}

/// Why a delivery is refused; for the log only, the sender learns nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
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
    /// The topic is not expected.
    #[error("the topic is not one of auth.topics")]
    Topic,
    /// The address that it asks to open is not the sender's own.
    #[error("the address to confirm at is not one of Amazon SNS")]
    Address,
}

impl Scheme {
    /// Checks a delivery; a signed time may differ from its arrival by `tolerance` seconds.
    ///
    /// # Errors
    /// The reason, for the log.
    pub fn verify(&self, request: &Request<'_>, tolerance: u64) -> Result<(), Refusal> {
        let mut verifier = self.begin(request, tolerance)?;
        verifier.update(request.body);
        verifier.finish()?.check(request.body)
    }

    /// Begins to check a delivery whose body is still to come: that of `request` is not looked at.
    ///
    /// # Errors
    /// The reason, for the log, if no body can make up for what the head is like.
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

    /// Who signs so.
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

    /// The value of `WWW-Authenticate` that goes with a refusal. Amazon SNS sends user and password only when it is asked for them.
    pub fn authenticate(&self) -> Option<&'static str> {
        match self {
            Scheme::Bearer(_) => Some("Bearer"),
            Scheme::Basic(_) | Scheme::Sns(_) => Some("Basic realm=\"webhook\""),
            _ => None,
        }
    }

    /// Blots secrets out of a body that is to be kept.
    pub fn redact(&self, body: &mut [u8]) {
        if let Scheme::Graph(graph) = self {
            graph.redact(body);
        }
    }

    /// The sender's id of the delivery, where the scheme has one in a header.
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

    /// The member of the body with the sender's id of the delivery, where the scheme has one there.
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

/// What a signed time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
    /// A time as RFC 3339 writes it.
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

/// The one value of a header.
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
