//! Proofs in the body: Mailgun's signature, Microsoft Graph's client state.

use serde::Deserialize;
use subtle::Choice;

use super::mac::{self, Mac};
use super::token::any_key_matches;
use super::{Algorithm, Encoding, Key, Refusal, Unit, decide, fresh};
use crate::Request;
use crate::form::fields;
use crate::hook::media_type;

/// Mailgun: a signature of a time and a random token. The rest of the body is not signed.
#[derive(Clone, Debug)]
pub struct Mailgun {
    /// The signing keys, any of which may match.
    pub secrets: Vec<Key>,
}

/// Mailgun's proof of a delivery.
#[derive(Debug, Deserialize)]
pub(crate) struct MailgunProof {
    timestamp: String,
    pub(crate) token: String,
    signature: String,
}

/// Body with Mailgun's signature.
#[derive(Deserialize)]
struct MailgunBody {
    signature: MailgunProof,
}

impl MailgunProof {
    /// Returns the proof in the member `signature` of a JSON body, or in three fields of a form.
    pub(crate) fn of(request: &Request<'_>) -> Option<MailgunProof> {
        if media_type(request.headers) != "application/x-www-form-urlencoded" {
            return serde_json::from_slice(request.body).ok().map(|body: MailgunBody| body.signature);
        }
        let fields = fields(request.body)?;
        let only = |name: &str| {
            let mut values = fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.clone());
            values.next().filter(|_| values.next().is_none())
        };
        Some(MailgunProof { timestamp: only("timestamp")?, token: only("token")?, signature: only("signature")? })
    }
}

impl Mailgun {
    pub(super) fn verify(&self, request: &Request<'_>, tolerance: u64) -> Result<(), Refusal> {
        let proof = MailgunProof::of(request).ok_or(Refusal::Malformed)?;
        let presented = [Encoding::Hex.decode(&proof.signature)];
        let macs = self.secrets.iter().filter_map(|key| Mac::new(key, Algorithm::Sha256));
        let fed = macs.map(|mac| mac.feed(proof.timestamp.as_bytes()).feed(proof.token.as_bytes()));
        decide(mac::any(fed, &presented))?;
        fresh(&proof.timestamp, Unit::Seconds, request.now, tolerance)
    }
}

/// Maximum length of a client state in bytes, set by Microsoft Graph.
const MOST_STATE: usize = 128;

/// Microsoft Graph: each notification repeats the `clientState` of its subscription.
#[derive(Clone, Debug)]
pub struct Graph {
    secrets: Vec<Key>,
}

/// Body of a delivery from Microsoft Graph.
#[derive(Deserialize)]
struct Notifications {
    value: Vec<Notification>,
}

/// One notification of Microsoft Graph.
#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "clientState")]
    client_state: Option<String>,
}

impl Graph {
    /// Creates the scheme for the given client states.
    ///
    /// # Errors
    /// The expected form of a client state, without the secret.
    pub fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Result<Graph, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let key = |secret: &'s str| match secret.len() <= MOST_STATE && secret.bytes().all(plain) {
            true => Key::plain(secret),
            false => Err(format!(
                "a secret of scheme \"graph\" must have at most {MOST_STATE} characters: letters, digits and - _ . ~"
            )),
        };
        Ok(Graph { secrets: secrets.into_iter().map(key).collect::<Result<_, _>>()? })
    }

    /// Verifies every notification: one request may contain those of several subscriptions.
    pub(super) fn verify(&self, request: &Request<'_>) -> Result<(), Refusal> {
        let notifications: Notifications = serde_json::from_slice(request.body).map_err(|_| Refusal::Malformed)?;
        if notifications.value.is_empty() {
            return Err(Refusal::Missing);
        }
        let fits = |notification: &Notification| match &notification.client_state {
            Some(state) => any_key_matches(&self.secrets, state.as_bytes()),
            None => Choice::from(0),
        };
        decide(notifications.value.iter().fold(Choice::from(1), |all, notification| all & fits(notification)))
    }

    /// Redacts the secrets in `body` in place, so that a stored delivery reveals none.
    pub(super) fn redact(&self, body: &mut [u8]) {
        for secret in self.secrets.iter().map(|key| &key.0) {
            let mut at = 0;
            while let Some(found) = memchr::memmem::find(&body[at..], secret) {
                at += found;
                body[at..at + secret.len()].fill(b'*');
                at += secret.len();
            }
        }
    }
}
