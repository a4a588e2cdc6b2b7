//! HMAC signature in a header, as used by GitHub, Shopify, Slack, Meta, Zoom, Twitch and most others.

use http::header::HeaderName;
use jiff::Timestamp;
use serde::Deserialize;

use super::mac::Mac;
use super::{Algorithm, Encoding, InBody, Key, Refusal, Sender, Unit, Verifier, fresh, one};
use crate::Request;

/// An HMAC signature in a header.
#[derive(Clone, Debug)]
pub struct Hmac {
    /// The secrets, any of which may match.
    pub secrets: Vec<Key>,
    /// The headers with the signature. Some senders use several names, of which at least one must be present.
    pub headers: Vec<HeaderName>,
    /// The prefix of the signature (`sha256=`).
    pub prefix: String,
    /// The encoding of the signature.
    pub encoding: Encoding,
    /// The hash algorithm.
    pub algorithm: Algorithm,
    /// The header with the time, in seconds; Twitch's is RFC 3339.
    pub timestamp: Option<HeaderName>,
    /// The signed message.
    pub message: Message,
    /// The sender.
    pub sender: Sender,
}

impl Hmac {
    /// Creates the simplest scheme: the body's HMAC-SHA-256 in hexadecimal digits.
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

    /// Creates GitHub's scheme.
    pub fn github(secrets: Vec<Key>) -> Hmac {
        let header = HeaderName::from_static("x-hub-signature-256");
        Hmac { prefix: "sha256=".into(), sender: Sender::Github, ..Hmac::new(secrets, header) }
    }

    /// Creates Shopify's scheme, with the old and the new names of the headers.
    pub fn shopify(secrets: Vec<Key>) -> Hmac {
        let names = ["x-shopify-hmac-sha256", "shopify-hmac-sha256"].map(HeaderName::from_static);
        let own = Hmac::new(secrets, names[0].clone());
        Hmac { headers: names.to_vec(), encoding: Encoding::Base64, sender: Sender::Shopify, ..own }
    }

    /// Creates Slack's scheme.
    pub fn slack(secrets: Vec<Key>) -> Hmac {
        Hmac::versioned(secrets, "x-slack-signature", "x-slack-request-timestamp", Sender::Slack)
    }

    /// Creates Zoom's scheme.
    pub fn zoom(secrets: Vec<Key>) -> Hmac {
        Hmac::versioned(secrets, "x-zm-signature", "x-zm-request-timestamp", Sender::Zoom)
    }

    /// Creates a scheme of `v0=` and the signature of `v0:{timestamp}:{body}`.
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

    /// Creates Twitch's scheme, over id, time and body.
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

    /// Creates the scheme of Meta: Facebook, Instagram, WhatsApp and its other products.
    pub fn meta(secrets: Vec<Key>) -> Hmac {
        Hmac { sender: Sender::Meta, ..Hmac::github(secrets) }
    }

    /// Creates Dropbox's scheme.
    pub fn dropbox(secrets: Vec<Key>) -> Hmac {
        let header = HeaderName::from_static("x-dropbox-signature");
        Hmac { sender: Sender::Dropbox, ..Hmac::new(secrets, header) }
    }

    /// Creates Asana's scheme. Without secrets every delivery is refused.
    pub fn asana(secrets: Vec<Key>) -> Hmac {
        let header = HeaderName::from_static("x-hook-signature");
        Hmac { sender: Sender::Asana, ..Hmac::new(secrets, header) }
    }

    /// Creates Airtable's scheme. Its secrets are base64, and the time is in the body.
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

    /// Returns the HMAC of `text` with the secret that signed `request`, in hexadecimal digits.
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

/// Signatures of a delivery, and the signed text before and after the body.
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

/// Time in a signed body. A body without a time is never stale.
#[derive(Deserialize)]
struct TimeCheck {
    timestamp: Option<String>,
}

/// Checks the time in the body, to refuse replays of recorded deliveries.
pub(super) fn fresh_body(request: &Request<'_>, tolerance: u64) -> Result<(), Refusal> {
    let Ok(TimeCheck { timestamp: Some(at) }) = serde_json::from_slice(request.body) else { return Ok(()) };
    let at: Timestamp = at.parse().map_err(|_| Refusal::Malformed)?;
    let off = at.as_second().abs_diff(request.now.as_second());
    if off <= tolerance { Ok(()) } else { Err(Refusal::Stale) }
}

/// Signed message: parts of a delivery with text between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    before: Vec<SignedPart>,
    after: Vec<SignedPart>,
}

/// Part of a signed message.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SignedPart {
    Text(String),
    Timestamp,
    Method,
    Path,
    Header(HeaderName),
}

impl Message {
    /// Returns the message that is only the body.
    pub fn body() -> Message {
        Message { before: Vec::new(), after: Vec::new() }
    }

    /// Parses a text with the placeholders `{body}`, `{timestamp}`, `{method}`, `{path}` and `{header:NAME}` for parts of the
    /// delivery. The body must occur exactly once, because it is hashed as it arrives.
    ///
    /// # Errors
    /// The placeholder that is not known, or the other mistake.
    pub fn parse(text: &str) -> Result<Message, String> {
        let (mut before, mut pieces) = (None, Vec::new());
        let mut rest = text;
        while let Some((plain, after)) = rest.split_once('{') {
            pieces.extend((!plain.is_empty()).then(|| SignedPart::Text(plain.into())));
            let (word, after) = after.split_once('}').ok_or("message has a { without }")?;
            rest = after;
            pieces.push(match word.split_once(':') {
                None if word == "body" && before.is_some() => {
                    return Err("message must contain {body} only once".into());
                }
                None if word == "body" => {
                    before = Some(std::mem::take(&mut pieces));
                    continue;
                }
                None if word == "timestamp" => SignedPart::Timestamp,
                None if word == "method" => SignedPart::Method,
                None if word == "path" => SignedPart::Path,
                Some(("header", name)) => SignedPart::Header(
                    name.parse().map_err(|_| format!("{name:?} in message is not a valid header name"))?,
                ),
                _ => {
                    let known = "{body}, {timestamp}, {method}, {path} and {header:NAME}";
                    return Err(format!("{{{word}}} in message is not known: use {known}"));
                }
            });
        }
        pieces.extend((!rest.is_empty()).then(|| SignedPart::Text(rest.into())));
        let before = before.ok_or("message must contain {body}, because an unsigned body proves nothing")?;
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
