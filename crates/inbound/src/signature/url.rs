//! Secrets in the URL, of senders that sign nothing: a query parameter, and Amazon SNS's user and password.

use serde::Deserialize;
use subtle::Choice;

use super::token::{authorization, known};
use super::{InBody, Key, Refusal, Sender, Verifier, decide, one};
use crate::Request;
use crate::body::parameter;

/// A secret in a query parameter.
#[derive(Clone, Debug)]
pub struct UrlToken {
    /// The parameter with the secret.
    pub parameter: String,
    /// The secrets, any of which may fit.
    pub secrets: Vec<Key>,
    /// The sender, where it has manners of its own.
    pub sender: Sender,
}

impl UrlToken {
    /// A token for any sender.
    pub fn new(parameter: impl Into<String>, secrets: Vec<Key>) -> UrlToken {
        UrlToken { parameter: parameter.into(), secrets, sender: Sender::Any }
    }

    /// Azure Event Grid's.
    pub fn event_grid(parameter: impl Into<String>, secrets: Vec<Key>) -> UrlToken {
        UrlToken { sender: Sender::EventGrid, ..UrlToken::new(parameter, secrets) }
    }

    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refusal> {
        decide(self.fits(request).ok_or(Refusal::Missing)?)
    }

    /// Compares the parameter with the secrets; `None` if it is not there.
    fn fits(&self, request: &Request<'_>) -> Option<Choice> {
        Some(known(&self.secrets, parameter(request.query?, &self.parameter)?.as_bytes()))
    }
}

/// Amazon SNS: a secret in the URL, or `user:password` in it, and the topics that are expected.
///
/// Messages are signed with certificates that are to be fetched from AWS. Diorama makes no such requests, so the secret is what
/// proves the sender.
#[derive(Clone, Debug)]
pub struct Sns {
    /// The secret, as a query parameter or as `user:password`.
    pub token: UrlToken,
    /// ARNs of the topics whose messages are taken.
    pub topics: Vec<String>,
}

/// The parts of an SNS message that are not its content.
#[derive(Debug, Deserialize)]
pub(crate) struct SnsMessage {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    #[serde(rename = "TopicArn")]
    pub(crate) topic: String,
    #[serde(rename = "SubscribeURL")]
    pub(crate) subscribe_url: Option<String>,
}

/// Says whether the message comes without its envelope.
pub(crate) fn is_raw(request: &Request<'_>) -> bool {
    request.headers.get("x-amz-sns-rawdelivery").is_some_and(|raw| raw == "true")
}

impl Sns {
    /// A hook for messages of `topics`.
    pub fn new(parameter: impl Into<String>, secrets: Vec<Key>, topics: Vec<String>) -> Sns {
        Sns { token: UrlToken { sender: Sender::Sns, ..UrlToken::new(parameter, secrets) }, topics }
    }

    pub(super) fn begin<'a>(&'a self, request: &Request<'a>) -> Result<Verifier<'a>, Refusal> {
        let in_url = self.token.fits(request);
        let given = authorization(request, "basic ").ok().and_then(super::token::decoded);
        let in_header = given.map(|given| known(&self.token.secrets, &given));
        let both = in_url.into_iter().chain(in_header).reduce(|one, other| one | other);
        decide(both.ok_or(Refusal::Missing)?)?;
        match one(request.headers, "x-amz-sns-topic-arn") {
            Ok(topic) if !self.expects(topic) => Err(Refusal::Topic),
            Err(_) if is_raw(request) => Err(Refusal::Missing),
            _ if is_raw(request) => Ok(Verifier::head_only(request)),
            _ => Ok(Verifier::head_only(request).then(InBody::Sns(self), 0)),
        }
    }

    fn expects(&self, topic: &str) -> bool {
        self.topics.iter().any(|own| own == topic)
    }

    /// Checks the topic of a message, and the address that it asks to open.
    pub(super) fn verify_body(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let message: SnsMessage = serde_json::from_slice(request.body).map_err(|_| Refusal::Malformed)?;
        if !self.expects(&message.topic) {
            return Err(Refusal::Topic);
        }
        let asks = message.kind != "Notification";
        match message.subscribe_url.as_deref() {
            Some(url) if asks && !is_subscribe_url(url) => Err(Refusal::Address),
            None if asks => Err(Refusal::Malformed),
            _ => Ok(()),
        }
    }
}

/// Says whether `url` leads to SNS itself, over https: `https://sns.REGION.amazonaws.com/..`.
fn is_subscribe_url(url: &str) -> bool {
    let plain = url.len() <= 2_048 && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let host = url.strip_prefix("https://sns.").and_then(|rest| rest.split_once(['/', '?'])).map(|(host, _)| host);
    let region = host.and_then(|host| {
        host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn")).map(str::as_bytes)
    });
    let fits = |region: &[u8]| {
        (1..=40).contains(&region.len())
            && region.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-')
    };
    plain && region.is_some_and(fits)
}

#[cfg(test)]
mod tests {
    use super::is_subscribe_url;

    #[test]
    fn only_addresses_of_sns_itself_are_shown_to_a_person() {
        for good in [
            "https://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription&TopicArn=a&Token=b",
            "https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription",
        ] {
            assert!(is_subscribe_url(good), "{good}");
        }
        for bad in [
            "http://sns.us-west-2.amazonaws.com/?Action=ConfirmSubscription",
            "https://sns.us-west-2.amazonaws.com.evil.example/",
            "https://evil.example/sns.us-west-2.amazonaws.com/",
            "https://sns.evil.example/.amazonaws.com/",
            "https://sns.a@evil.example/?.amazonaws.com",
            "https://sns.us-west-2.amazonaws.com@evil.example/",
            "https://sns.us-west-2.amazonaws.com:8443/",
            "https://sns.x.y.amazonaws.com/",
            "https://sns..amazonaws.com/",
            "https://s3.us-west-2.amazonaws.com/",
            "https://sns.us-west-2.amazonaws.com/\nhttps://evil.example",
            "https://sns.us-west-2.amazonaws.com",
            "",
        ] {
            assert!(!is_subscribe_url(bad), "{bad}");
        }
    }
}
