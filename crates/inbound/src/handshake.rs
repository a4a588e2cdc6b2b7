//! Handshakes: requests by which senders find out whether somebody takes their deliveries. They change nothing and are never
//! kept.
//!
//! Each is as authenticated as its sender makes it: Zoom, Twitch, Slack and GitHub sign theirs, Meta has a token for it, Azure
//! Event Grid and Amazon SNS have the secret in the URL. Microsoft Graph, Dropbox and Asana ask strangers: they are given back
//! what they sent, as plain text or a header, and nothing else.

use http::StatusCode;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use super::body::{Documents, parameter};
use super::hook::{Hook, Request, media_type};
use super::signature::{Sender, SnsMessage, is_raw, known, one};
use super::{Refusal, Scheme};

/// Bytes of what is given back, at most.
const MOST_ECHO: usize = 4 << 10;
/// Bytes of Asana's secret, at most.
const MOST_SECRET: usize = 256;
/// Origin of Azure Event Grid's deliveries of CloudEvents.
const EVENT_GRID: &str = "eventgrid.azure.net";
const HOOK_SECRET: HeaderName = HeaderName::from_static("x-hook-secret");

/// An answer that the sender waits for and that changes nothing, such as a challenge given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers, with the body's type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: String,
    /// Something that a person is to know.
    pub notice: Option<Notice>,
}

/// Something that a person is to know of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Asana showed a secret that the hook does not have: until it has, what is signed with it is refused.
    UnknownSecret,
    /// Amazon SNS sends nothing of a topic until a person opens an address.
    Confirm {
        /// The topic's ARN.
        topic: String,
        /// The address; it leads to AWS.
        url: String,
    },
    /// Amazon SNS sends nothing of a topic any more.
    Unsubscribed {
        /// The topic's ARN.
        topic: String,
    },
    /// Twitch gave a subscription up.
    Revoked {
        /// Type of its events, like `channel.follow`.
        subscription: String,
        /// Twitch's word for the reason.
        reason: String,
    },
}

#[derive(Deserialize)]
struct TwitchMessage {
    challenge: Option<String>,
    subscription: Option<TwitchSubscription>,
}

#[derive(Default, Deserialize)]
struct TwitchSubscription {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
struct ZoomMessage {
    event: String,
    payload: ZoomPayload,
}

#[derive(Deserialize)]
struct ZoomPayload {
    #[serde(rename = "plainToken")]
    plain_token: String,
}

#[derive(Deserialize)]
struct GridEvent {
    #[serde(rename = "eventType")]
    kind: String,
    data: GridData,
}

#[derive(Deserialize)]
struct GridData {
    #[serde(rename = "validationCode")]
    validation_code: String,
}

impl Hook {
    /// The answer to a `POST` that nobody signs, because its sender and the hook know no common secret yet; to be called before
    /// [`Hook::verify`].
    pub fn answer_before_verifying(&self, request: &Request<'_>) -> Option<Reply> {
        match self.scheme.sender() {
            Sender::Graph => parameter(request.query?, "validationToken").filter(|token| is_echo(token)).map(text),
            Sender::Asana => self.asana(request),
            _ => None,
        }
    }

    /// Says whether senders ask by `GET`.
    pub fn has_challenge(&self) -> bool {
        matches!(self.scheme.sender(), Sender::Meta | Sender::Dropbox)
    }

    /// The answer to `GET`; `None` if it is not a challenge of the hook's sender.
    pub fn challenge(&self, request: &Request<'_>) -> Option<Result<Reply, Refusal>> {
        let query = request.query.unwrap_or_default();
        match self.scheme.sender() {
            Sender::Meta => parameter(query, "hub.mode").map(|mode| self.meta(&mode, query)),
            Sender::Dropbox => parameter(query, "challenge").map(echo),
            _ => None,
        }
    }

    /// The answer to a delivery that asks whether anybody is there; to be called after [`Hook::verify`].
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

    /// The answer to `OPTIONS`, where senders ask with it whether they may deliver (CloudEvents); nothing is signed.
    pub fn handshake(&self, request: &Request<'_>) -> Option<Reply> {
        let asking = request.headers.get("webhook-request-origin")?;
        let grid = self.scheme.sender() == Sender::EventGrid;
        // The secret stands in the URL, so it is here already.
        let believed = !grid || self.verify(request).is_ok();
        let listed = self.origins.iter().any(|origin| origin == "*" || asking == origin.as_str());
        let known = believed && (listed || grid && self.origins.is_empty() && asking == EVENT_GRID);
        let header = HeaderName::from_static;
        let headers = || {
            vec![
                (header("webhook-allowed-origin"), asking.clone()),
                (header("webhook-allowed-rate"), HeaderValue::from_static("*")),
                (ALLOW, HeaderValue::from_static("POST, OPTIONS")),
            ]
        };
        known.then(|| Reply { status: StatusCode::OK, headers: headers(), body: String::new(), notice: None })
    }

    /// The answer to a form that was taken, where its sender shows it to a person or runs it: Slack's commands, Twilio's calls.
    pub fn acknowledgement(&self, request: &Request<'_>) -> Option<Reply> {
        let form = media_type(request.headers) == "application/x-www-form-urlencoded";
        match self.scheme.sender() {
            Sender::Slack if form => Some(text(String::new())),
            Sender::Twilio if form => Some(typed("text/xml; charset=utf-8", "<Response></Response>".into())),
            _ => None,
        }
    }

    /// Asana shows the secret that it is going to sign with, and wants it back.
    fn asana(&self, request: &Request<'_>) -> Option<Reply> {
        let secret = one(request.headers, HOOK_SECRET.as_str()).ok()?;
        let plain = (1..=MOST_SECRET).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || request.headers.contains_key("x-hook-signature") {
            return None;
        }
        let Scheme::Hmac(hmac) = &self.scheme else { return None };
        let is_known = bool::from(known(&hmac.secrets, secret.as_bytes()));
        let mut value = HeaderValue::from_str(secret).ok()?;
        value.set_sensitive(true);
        let mut reply = text(String::new());
        reply.headers.push((HOOK_SECRET, value));
        reply.notice = (!is_known).then_some(Notice::UnknownSecret);
        Some(reply)
    }

    fn meta(&self, mode: &str, query: &str) -> Result<Reply, Refusal> {
        let token = parameter(query, "hub.verify_token").ok_or(Refusal::Missing)?;
        let is_known = bool::from(known(&self.verify_tokens, token.as_bytes()));
        if mode != "subscribe" || !is_known {
            return Err(Refusal::Signature);
        }
        echo(parameter(query, "hub.challenge").ok_or(Refusal::Missing)?)
    }

    fn slack(&self, request: &Request<'_>) -> Option<Reply> {
        let body = self.message(request).ok()?;
        let has = |name: &str, wanted: &str| body.member(name).is_some_and(|value| value == wanted);
        match &body {
            // Slack tries its connection to a command's URL out.
            Documents::One(_) if has("ssl_check", "1") => Some(text(String::new())),
            Documents::One(_) if has("type", "url_verification") => body.member("challenge").map(text),
            _ => None,
        }
    }

    fn zoom(&self, request: &Request<'_>) -> Option<Reply> {
        let Scheme::Hmac(hmac) = &self.scheme else { return None };
        let message: ZoomMessage = serde_json::from_slice(request.body).ok()?;
        let token = message.payload.plain_token;
        // Nothing is signed here that could be taken for a delivery: those have colons in what is signed.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_+/=.".contains(&byte);
        if message.event != "endpoint.url_validation" || token.len() > MOST_SECRET || !token.bytes().all(plain) {
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

/// Subscriptions are confirmed by a person: Diorama opens no address that somebody sends it.
fn sns(request: &Request<'_>) -> Option<Reply> {
    let message: SnsMessage = serde_json::from_slice(request.body).ok().filter(|_| !is_raw(request))?;
    let notice = match (message.kind.as_str(), message.subscribe_url) {
        ("SubscriptionConfirmation", Some(url)) => Notice::Confirm { topic: message.topic, url },
        ("UnsubscribeConfirmation", _) => Notice::Unsubscribed { topic: message.topic },
        _ => return None,
    };
    Some(Reply { notice: Some(notice), ..text(String::new()) })
}

/// `challenge` as plain text.
fn echo(challenge: String) -> Result<Reply, Refusal> {
    if is_echo(&challenge) { Ok(text(challenge)) } else { Err(Refusal::Malformed) }
}

/// Says whether `text` may be given back: what senders make up is short and printable.
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
