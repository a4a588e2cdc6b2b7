//! Handshakes: requests by which senders check that a receiver accepts their deliveries. They change nothing and are never
//! stored.
//!
//! Authentication depends on the sender: Zoom, Twitch, Slack and GitHub sign their handshakes, Meta sends a token, Azure Event
//! Grid and Amazon SNS have the secret in the URL. Microsoft Graph, Dropbox and Asana send unauthenticated handshakes: the
//! response repeats what they sent, as plain text or a header, and contains nothing else.

use http::StatusCode;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::body::{Documents, parameter};
use super::hook::{Hook, Request, media_type};
use super::signature::{Sender, SnsMessage, any_key_matches, is_raw, one};
use super::{Refusal, Scheme};

/// Maximum size of an echoed challenge in bytes.
const MOST_ECHO: usize = 4 << 10;
/// Maximum length of Asana's secret in bytes.
const MOST_SECRET: usize = 256;
/// Origin of Azure Event Grid's deliveries of CloudEvents.
const EVENT_GRID: &str = "eventgrid.azure.net";
const HOOK_SECRET: HeaderName = HeaderName::from_static("x-hook-secret");

/// A response that the sender expects and that changes nothing, such as an echoed challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers, including the body's media type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: String,
    /// Notice for the operator.
    pub notice: Option<Notice>,
}

/// Notice for the operator about a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Asana sent a secret that is not configured: its deliveries are refused until it is.
    UnknownSecret,
    /// Amazon SNS sends no messages of a topic until a person opens a URL.
    Confirm {
        /// The topic's ARN.
        topic: String,
        /// The URL; it is one of AWS.
        url: String,
    },
    /// Amazon SNS has stopped sending messages of a topic.
    Unsubscribed {
        /// The topic's ARN.
        topic: String,
    },
    /// Twitch has revoked a subscription.
    Revoked {
        /// Type of its events, like `channel.follow`.
        subscription: String,
        /// Twitch's reason.
        reason: String,
    },
}

/// Body of a delivery from Twitch.
#[derive(Deserialize)]
struct TwitchMessage {
    challenge: Option<String>,
    subscription: Option<TwitchSubscription>,
}

/// Subscription in a delivery from Twitch.
#[derive(Default, Deserialize)]
struct TwitchSubscription {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
}

/// Body of a delivery from Zoom.
#[derive(Deserialize)]
struct ZoomMessage {
    event: String,
    payload: ZoomPayload,
}

/// Challenge in a delivery from Zoom.
#[derive(Deserialize)]
struct ZoomPayload {
    #[serde(rename = "plainToken")]
    plain_token: String,
}

/// Event of Azure Event Grid.
#[derive(Deserialize)]
struct GridEvent {
    #[serde(rename = "eventType")]
    kind: String,
    data: GridData,
}

/// Validation code in an event of Azure Event Grid.
#[derive(Deserialize)]
struct GridData {
    #[serde(rename = "validationCode")]
    validation_code: String,
}

impl Hook {
    /// Returns the response to an unsigned `POST`, sent while sender and hook do not share a secret yet; `None` for other
    /// requests. Call it before [`Hook::verify`].
    pub fn answer_before_verifying(&self, request: &Request<'_>) -> Option<Reply> {
        match self.scheme.sender() {
            Sender::Graph => parameter(request.query?, "validationToken").filter(|token| is_echo(token)).map(text),
            Sender::Asana => self.asana(request),
            _ => None,
        }
    }

    /// Returns true if the hook's sender sends challenges by `GET`.
    pub fn has_challenge(&self) -> bool {
        matches!(self.scheme.sender(), Sender::Meta | Sender::Dropbox)
    }

    /// Returns the response to `GET`; `None` if it is not a challenge of the hook's sender.
    pub fn challenge(&self, request: &Request<'_>) -> Option<Result<Reply, Refusal>> {
        let query = request.query.unwrap_or_default();
        match self.scheme.sender() {
            Sender::Meta => parameter(query, "hub.mode").map(|mode| self.meta(&mode, query)),
            Sender::Dropbox => parameter(query, "challenge").map(echo),
            _ => None,
        }
    }

    /// Returns the response to a handshake sent as a delivery; `None` for other deliveries. Call it after [`Hook::verify`].
    pub fn answer_before_decoding(&self, request: &Request<'_>) -> Option<Reply> {
        let event = request.headers.get("x-github-event");
        match self.scheme.sender() {
            Sender::Github if event.is_some_and(|event| event == "ping") => Some(text("pong".into())),
            Sender::Slack => self.slack(request),
            Sender::Zoom => self.zoom(request),
            Sender::Twitch => twitch(request),
            Sender::EventGrid => event_grid(request),
            Sender::Sns => sns(request),
            _ => None,
        }
    }

    /// Returns the response to `OPTIONS`, by which senders of CloudEvents request permission to deliver. It is not signed.
    pub fn handshake(&self, request: &Request<'_>) -> Option<Reply> {
        let origin_header = request.headers.get("webhook-request-origin")?;
        let grid = self.scheme.sender() == Sender::EventGrid;
        // The secret is in the URL and can be checked already.
        let authorized = !grid || self.verify(request).is_ok();
        let listed = self.origins.iter().any(|origin| origin == "*" || origin_header == origin.as_str());
        let known = authorized && (listed || grid && self.origins.is_empty() && origin_header == EVENT_GRID);
        let header = HeaderName::from_static;
        let headers = || {
            vec![
                (header("webhook-allowed-origin"), origin_header.clone()),
                (header("webhook-allowed-rate"), HeaderValue::from_static("*")),
                (ALLOW, HeaderValue::from_static("POST, OPTIONS")),
            ]
        };
        known.then(|| Reply { status: StatusCode::OK, headers: headers(), body: String::new(), notice: None })
    }

    /// Returns the response to an accepted form that the sender displays or executes: Slack's commands, Twilio's calls.
    pub fn acknowledgement(&self, request: &Request<'_>) -> Option<Reply> {
        let form = media_type(request.headers) == "application/x-www-form-urlencoded";
        match self.scheme.sender() {
            Sender::Slack if form => Some(text(String::new())),
            Sender::Twilio if form => Some(typed("text/xml; charset=utf-8", "<Response></Response>".into())),
            _ => None,
        }
    }

    /// Answers Asana's handshake, which sends the future signing secret and expects it back.
    fn asana(&self, request: &Request<'_>) -> Option<Reply> {
        let secret = one(request.headers, HOOK_SECRET.as_str()).ok()?;
        let is_valid = (1..=MOST_SECRET).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_valid || request.headers.contains_key("x-hook-signature") {
            return None;
        }
        let Scheme::Hmac(hmac) = &self.scheme else { return None };
        let is_known = bool::from(any_key_matches(&hmac.secrets, secret.as_bytes()));
        let mut value = HeaderValue::from_str(secret).ok()?;
        value.set_sensitive(true);
        let mut reply = text(String::new());
        reply.headers.push((HOOK_SECRET, value));
        reply.notice = (!is_known).then_some(Notice::UnknownSecret);
        Some(reply)
    }

    fn meta(&self, mode: &str, query: &str) -> Result<Reply, Refusal> {
        let token = parameter(query, "hub.verify_token").ok_or(Refusal::Missing)?;
        let is_known = bool::from(any_key_matches(&self.verify_tokens, token.as_bytes()));
        if mode != "subscribe" || !is_known {
            return Err(Refusal::Signature);
        }
        echo(parameter(query, "hub.challenge").ok_or(Refusal::Missing)?)
    }

    fn slack(&self, request: &Request<'_>) -> Option<Reply> {
        let body = self.message(request).ok()?;
        let has = |name: &str, wanted: &str| body.member(name).is_some_and(|value| value == wanted);
        match &body {
            // Slack checks its TLS connection to a command's URL.
            Documents::One(_) if has("ssl_check", "1") => Some(text(String::new())),
            Documents::One(_) if has("type", "url_verification") => body.member("challenge").map(text),
            _ => None,
        }
    }

    fn zoom(&self, request: &Request<'_>) -> Option<Reply> {
        let Scheme::Hmac(hmac) = &self.scheme else { return None };
        let message: ZoomMessage = serde_json::from_slice(request.body).ok()?;
        let token = message.payload.plain_token;
        // The response must not sign anything that could pass as a delivery, whose signed text contains colons.
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+/=.".contains(&byte);
        if message.event != "endpoint.url_validation" || token.len() > MOST_SECRET || !token.bytes().all(is_valid) {
            return None;
        }
        let encrypted = hmac.answer(request, &token)?;
        Some(typed("application/json", json!({ "plainToken": token, "encryptedToken": encrypted }).to_string()))
    }
}

fn twitch(request: &Request<'_>) -> Option<Reply> {
    let kind = one(request.headers, "twitch-eventsub-message-type").ok()?;
    let message = || serde_json::from_slice::<TwitchMessage>(request.body).ok();
    match kind {
        "webhook_callback_verification" => message()?.challenge.filter(|text| is_echo(text)).map(text),
        "revocation" => {
            let TwitchSubscription { kind, status } = message()?.subscription.unwrap_or_default();
            let notice = Notice::Revoked { subscription: kind, reason: status };
            Some(Reply {
                status: StatusCode::NO_CONTENT,
                headers: Vec::new(),
                body: String::new(),
                notice: Some(notice),
            })
        }
        _ => None,
    }
}

fn event_grid(request: &Request<'_>) -> Option<Reply> {
    if one(request.headers, "aeg-event-type").ok()? != "SubscriptionValidation" {
        return None;
    }
    let [event]: [GridEvent; 1] = serde_json::from_slice(request.body).ok()?;
    let asks = event.kind == "Microsoft.EventGrid.SubscriptionValidationEvent";
    let body = || json!({ "validationResponse": event.data.validation_code }).to_string();
    asks.then(|| typed("application/json", body()))
}

/// Answers Amazon SNS. A person confirms subscriptions: Diorama opens no URL from a delivery.
fn sns(request: &Request<'_>) -> Option<Reply> {
    let message: SnsMessage = serde_json::from_slice(request.body).ok().filter(|_| !is_raw(request))?;
    let notice = match (message.kind.as_str(), message.subscribe_url) {
        ("SubscriptionConfirmation", Some(url)) => Notice::Confirm { topic: message.topic, url },
        ("UnsubscribeConfirmation", _) => Notice::Unsubscribed { topic: message.topic },
        _ => return None,
    };
    Some(Reply { notice: Some(notice), ..text(String::new()) })
}

/// Returns `challenge` as plain text.
fn echo(challenge: String) -> Result<Reply, Refusal> {
    if is_echo(&challenge) { Ok(text(challenge)) } else { Err(Refusal::Malformed) }
}

/// Returns true if `text` may be echoed: senders' challenges are short and printable.
fn is_echo(text: &str) -> bool {
    (1..=MOST_ECHO).contains(&text.len()) && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn text(body: String) -> Reply {
    typed("text/plain; charset=utf-8", body)
}

fn typed(kind: &'static str, body: String) -> Reply {
    let headers = vec![(CONTENT_TYPE, HeaderValue::from_static(kind))];
    Reply { status: StatusCode::OK, headers, body, notice: None }
}

#[cfg(test)]
mod tests;
