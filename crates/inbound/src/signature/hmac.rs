//! An HMAC in a header of its own, as GitHub, Shopify, Slack, Meta, Zoom, Twitch and most others have one.

use http::header::HeaderName;
use jiff::Timestamp;
use serde::Deserialize;

use super::mac::Mac;
use super::{Algorithm, Encoding, InBody, Key, Refusal, Sender, Unit, Verifier, fresh, one};
use crate::Request;

/// An HMAC in a header.
#[derive(Clone, Debug)]
pub struct Hmac {
    /// The secrets, any of which may fit.
    pub secrets: Vec<Key>,
    /// The headers with the signature; some senders have several names of it, of which one must be there.
    pub headers: Vec<HeaderName>,
    /// What stands before it (`sha256=`).
    pub prefix: String,
    /// How it is written.
    pub encoding: Encoding,
    /// With which hash it is made.
    pub algorithm: Algorithm,
    /// The header with the time, in seconds; Twitch's is RFC 3339.
    pub timestamp: Option<HeaderName>,
    /// What is signed.
    pub message: Message,
    /// Who signs so.
    pub sender: Sender,
}

impl Hmac {
    /// The plainest one: the body's SHA-256 in hexadecimal digits.
    pub fn new(secrets: Vec<Key>, header: HeaderName) -> Hmac {
        Hmac {
            secrets,
            headers: vec![header],
            prefix: String::new(),
            encoding: Encoding::Hex,
            algorithm: Algorithm::Sha256,
            timestamp: None,
            message: Message::body(),
            sender: Sender::Any,
        }
    }

    /// GitHub's.
    pub fn github(secrets: Vec<Key>) -> Hmac {
        let header = HeaderName::from_static("x-hub-signature-256");
        Hmac { prefix: "sha256=".into(), sender: Sender::Github, ..Hmac::new(secrets, header) }
    }

    /// Shopify's, under the headers' old names and the new ones.
    pub fn shopify(secrets: Vec<Key>) -> Hmac {
        let names = ["x-shopify-hmac-sha256", "shopify-hmac-sha256"].map(HeaderName::from_static);
        let own = Hmac::new(secrets, names[0].clone());
        Hmac { headers: names.to_vec(), encoding: Encoding::Base64, sender: Sender::Shopify, ..own }
    }

    /// Slack's.
    pub fn slack(secrets: Vec<Key>) -> Hmac {
        Hmac::versioned(secrets, "x-slack-signature", "x-slack-request-timestamp", Sender::Slack)
    }

    /// Zoom's.
    pub fn zoom(secrets: Vec<Key>) -> Hmac {
        Hmac::versioned(secrets, "x-zm-signature", "x-zm-request-timestamp", Sender::Zoom)
    }

    /// `v0=` and the signature of `v0:{timestamp}:{body}`.
    fn versioned(secrets: Vec<Key>, signature: &'static str, timestamp: &'static str, sender: Sender) -> Hmac {
        let own = Hmac::new(secrets, HeaderName::from_static(signature));
        Hmac {
            prefix: "v0=".into(),
            timestamp: Some(HeaderName::from_static(timestamp)),
            message: Message {
                before: vec![SignedPart::Text("v0:".into()), SignedPart::Timestamp, SignedPart::Text(":".into())],
                after: Vec::new(),
            },
            sender,
            ..own
        }
    }

    /// Twitch's, over id, time and body.
    pub fn twitch(secrets: Vec<Key>) -> Hmac {
        let own = Hmac::new(secrets, HeaderName::from_static("twitch-eventsub-message-signature"));
        let id = HeaderName::from_static("twitch-eventsub-message-id");
        Hmac {
            prefix: "sha256=".into(),
            timestamp: Some(HeaderName::from_static("twitch-eventsub-message-timestamp")),
            message: Message { before: vec![SignedPart::Header(id), SignedPart::Timestamp], after: Vec::new() },
            sender: Sender::Twitch,
            ..own
        }
    }

    /// Meta's: Facebook, Instagram, WhatsApp, and what else its platform tells of.
    pub fn meta(secrets: Vec<Key>) -> Hmac {
        Hmac { sender: Sender::Meta, ..Hmac::github(secrets) }
    }

    /// Dropbox's.
    pub fn dropbox(secrets: Vec<Key>) -> Hmac {
        let header = HeaderName::from_static("x-dropbox-signature");
        Hmac { sender: Sender::Dropbox, ..Hmac::new(secrets, header) }
    }

    /// Asana's. Without secrets nothing fits.
    pub fn asana(secrets: Vec<Key>) -> Hmac {
        let header = HeaderName::from_static("x-hook-signature");
        Hmac { sender: Sender::Asana, ..Hmac::new(secrets, header) }
    }

    /// Airtable's; its secrets are base64, and the time stands in the body.
    pub fn airtable(secrets: Vec<Key>) -> Hmac {
        let own = Hmac::new(secrets, HeaderName::from_static("x-airtable-content-mac"));
        Hmac { prefix: "hmac-sha256=".into(), sender: Sender::Airtable, ..own }
    }

    pub(super) fn begin<'a>(&'a self, request: &Request<'a>, tolerance: u64) -> Result<Verifier<'a>, Refusal> {
        let signed = self.signed(request)?;
        match self.timestamp {
            Some(_) if self.sender == Sender::Twitch => {
                fresh(signed.timestamp, Unit::Rfc3339, request.now, tolerance)?;
            }
            Some(_) => fresh(signed.timestamp, Unit::Seconds, request.now, tolerance)?,
            None => {}
        }
        let verifier = signed.verifier(request, &self.secrets, self.algorithm)?;
        Ok(match self.sender {
            Sender::Airtable => verifier.then(InBody::Time, tolerance),
            _ => verifier,
        })
    }

    /// The HMAC of `text` with the secret that signed `request`, in hexadecimal digits.
    pub(crate) fn answer(&self, request: &Request<'_>, text: &str) -> Option<String> {
        let signed = |key: &&Key| {
            let signed = self.signed(request)?;
            let mut verifier = signed.verifier(request, std::slice::from_ref(*key), self.algorithm)?;
            verifier.update(request.body);
            verifier.finish()
        };
        let key = self.secrets.iter().find(|key| signed(key).is_ok())?;
        Mac::new(key, self.algorithm).map(|mac| mac.feed(text.as_bytes()).hex())
    }

    fn signed<'a>(&'a self, request: &Request<'a>) -> Result<SignedContent<'a>, Refusal> {
        let mut presented = Vec::new();
        for name in self.headers.iter().filter(|name| request.headers.contains_key(*name)) {
            let given = one(request.headers, name.as_str())?;
            let given = given.strip_prefix(self.prefix.as_str()).ok_or(Refusal::Malformed)?;
            presented.push(self.encoding.decode(given));
        }
        if presented.is_empty() {
            return Err(Refusal::Missing);
        }
        let timestamp = match &self.timestamp {
            Some(name) => one(request.headers, name.as_str())?,
            None => "",
        };
        let before = pieces(&self.message.before, request, timestamp)?;
        let after = pieces(&self.message.after, request, timestamp)?;
        Ok(SignedContent { presented, timestamp, before, after })
    }
}

/// Signatures of a delivery, and what they are of: something before the body, the body, and something after it.
struct SignedContent<'a> {
    presented: Vec<Vec<u8>>,
    timestamp: &'a str,
    before: Vec<&'a [u8]>,
    after: Vec<&'a [u8]>,
}

impl<'a> SignedContent<'a> {
    fn verifier(self, request: &Request<'a>, keys: &[Key], algorithm: Algorithm) -> Result<Verifier<'a>, Refusal> {
        let before = |mac| self.before.iter().fold(mac, |mac: Mac, piece| mac.feed(piece));
        let verifier = Verifier::signatures(request, (keys, algorithm), self.presented, Vec::new(), before)?;
        Ok(verifier.followed_by(self.after))
    }
}

/// A body that is signed and says no time has none that is too far off.
#[derive(Deserialize)]
struct TimeCheck {
    timestamp: Option<String>,
}

/// Whether the time in the body is near: what was recorded once is not good for ever.
pub(super) fn fresh_body(request: &Request<'_>, tolerance: u64) -> Result<(), Refusal> {
    let Ok(TimeCheck { timestamp: Some(at) }) = serde_json::from_slice(request.body) else { return Ok(()) };
    let at: Timestamp = at.parse().map_err(|_| Refusal::Malformed)?;
    let off = at.as_second().abs_diff(request.now.as_second());
    if off <= tolerance { Ok(()) } else { Err(Refusal::Stale) }
}

/// What is signed: parts of a delivery with text between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    before: Vec<SignedPart>,
    after: Vec<SignedPart>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum SignedPart {
    Text(String),
    Timestamp,
    Method,
    Path,
    Header(HeaderName),
}

impl Message {
    /// The body alone.
    pub fn body() -> Message {
        Message { before: Vec::new(), after: Vec::new() }
    }

    /// Of a text in which `{body}`, `{timestamp}`, `{method}`, `{path}` and `{header:NAME}` stand for parts of the delivery. The body
    /// stands there once: it is hashed as it arrives.
    ///
    /// # Errors
    /// Says which of the words in braces is not known.
    pub fn parse(text: &str) -> Result<Message, String> {
        let (mut before, mut pieces) = (None, Vec::new());
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            pieces.extend((!plain.is_empty()).then(|| SignedPart::Text(plain.into())));
            let (word, after) = after.split_once('}').ok_or("message has a { without }")?;
            rest = after;
            pieces.push(match word.split_once(':') {
                None if word == "body" && before.is_some() => return Err("message must contain {body} once".into()),
                None if word == "body" => {
                    before = Some(std::mem::take(&mut pieces));
                    continue;
                }
                None if word == "timestamp" => SignedPart::Timestamp,
                None if word == "method" => SignedPart::Method,
                None if word == "path" => SignedPart::Path,
                Some(("header", name)) => {
                    SignedPart::Header(name.parse().map_err(|_| format!("{name:?} in message is no name of a header"))?)
                }
                _ => {
                    let known = "{body}, {timestamp}, {method}, {path} and {header:NAME}";
                    return Err(format!("{{{word}}} in message is not known: there are {known}"));
                }
            });
        }
        pieces.extend((!rest.is_empty()).then(|| SignedPart::Text(rest.into())));
        let before = before.ok_or("message must contain {body}: what is not signed proves nothing")?;
        Ok(Message { before, after: pieces })
    }
}

fn pieces<'a>(pieces: &'a [SignedPart], request: &Request<'a>, timestamp: &'a str) -> Result<Vec<&'a [u8]>, Refusal> {
    let piece = |piece: &'a SignedPart| {
        Ok(match piece {
            SignedPart::Text(text) => text.as_bytes(),
            SignedPart::Timestamp => timestamp.as_bytes(),
            SignedPart::Method => request.method.as_str().as_bytes(),
            SignedPart::Path => request.path.as_bytes(),
            SignedPart::Header(name) => one(request.headers, name.as_str())?.as_bytes(),
        })
    };
    pieces.iter().map(piece).collect()
}
