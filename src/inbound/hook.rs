//! One webhook's verifying and decoding: pure, so that it can be tried without a server.

use std::sync::Arc;

use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::body::Documents;
use super::signature::{Sender, TOLERANCE};
use super::{Change, DecodeError, Format, ItemError, Refused, Scheme, cloudevents, native};
use crate::vista::Schema;

/// Bytes of a delivery's id, at most.
const MOST_ID: usize = 256;

/// A delivery as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method; some schemes sign it.
    pub method: &'a Method,
    /// The path as it was sent; some schemes sign it.
    pub path: &'a str,
    /// What stands behind the question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, byte for byte.
    pub body: &'a [u8],
    /// When it arrived.
    pub now: Timestamp,
}

/// An answer that the sender waits for and that changes nothing, such as a challenge given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers, with the body's type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: String,
}

/// What a delivery says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The sender's id of the delivery: a second one with the same id has no effect.
    pub delivery: Option<String>,
    /// The changes in order. One that cannot be understood does not stand in the way of the others, unless the hook is told
    /// to abort: then the whole delivery is an error.
    pub changes: Vec<Result<Change, ItemError>>,
    /// How many parts are of no concern to this hook.
    pub ignored: usize,
    /// Why the first of them is not, or what was left out of a change.
    pub why: Option<String>,
}

impl Decoded {
    /// Notes a part that cannot be understood.
    pub(super) fn reject(&mut self, detail: String) {
        let number = self.changes.len() + self.ignored + 1;
        self.changes.push(Err(ItemError { number, detail }));
    }

    pub(super) fn ignore(&mut self, why: String) {
        self.ignored += 1;
        self.why.get_or_insert(why);
    }
}

/// How deliveries of one webhook are verified and what they mean.
#[derive(Clone, Debug)]
pub struct Hook {
    scheme: Scheme,
    tolerance: u64,
    format: Format,
    delivery: Option<HeaderName>,
    abort: bool,
    origins: Vec<String>,
    clock: Option<Arc<str>>,
}

impl Hook {
    /// A hook that takes the native format.
    pub fn new(scheme: Scheme) -> Hook {
        let (format, origins) = (Format::Native, Vec::new());
        Hook { scheme, tolerance: TOLERANCE, format, delivery: None, abort: false, origins, clock: None }
    }

    /// How deliveries are written.
    #[must_use]
    pub fn format(mut self, format: Format) -> Hook {
        self.format = format;
        self
    }

    /// How many seconds a signed time may differ from the arrival, 300 unless said otherwise.
    #[must_use]
    pub fn tolerance(mut self, seconds: u64) -> Hook {
        self.tolerance = seconds;
        self
    }

    /// Who may ask by `OPTIONS` whether to deliver CloudEvents here; `*` is everybody.
    #[must_use]
    pub fn origins(mut self, origins: Vec<String>) -> Hook {
        self.origins = origins;
        self
    }

    /// The header with the delivery's id, where neither the scheme nor the format says it.
    #[must_use]
    pub fn delivery_header(mut self, name: Option<HeaderName>) -> Hook {
        self.delivery = name;
        self
    }

    /// Whether one change that cannot be understood makes the whole delivery an error.
    #[must_use]
    pub fn abort_on_item_error(mut self, abort: bool) -> Hook {
        self.abort = abort;
        self
    }

    /// The clock that the versions of its changes are of (see [`Inbound::clock`](crate::Inbound::clock)): that of its own, unless
    /// said otherwise.
    #[must_use]
    pub fn versions_of(mut self, clock: Option<Arc<str>>) -> Hook {
        self.clock = clock;
        self
    }

    /// The clock of its versions, if it is not its own.
    pub fn clock(&self) -> Option<&Arc<str>> {
        self.clock.as_ref()
    }

    /// Whether deliveries are written in the native form.
    pub fn is_native(&self) -> bool {
        matches!(self.format, Format::Native)
    }

    /// Whether one change that cannot be understood, or does not fit, makes the whole delivery an error.
    pub fn aborts_on_item_error(&self) -> bool {
        self.abort
    }

    /// How senders prove who they are.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Whether the delivery comes from who it says.
    ///
    /// # Errors
    /// The reason, for the log: to the sender every refusal looks the same.
    pub fn verify(&self, request: &Request<'_>) -> Result<(), Refused> {
        self.scheme.verify(request, self.tolerance)
    }

    /// The answer to a delivery that asks whether anybody is there; to be called after [`Hook::verify`].
    pub fn answer_before_decoding(&self, request: &Request<'_>) -> Option<Reply> {
        let event = request.headers.get("x-github-event");
        match self.scheme.sender() {
            Sender::Github if event.is_some_and(|event| event == "ping") => Some(text("pong".into())),
            Sender::Slack => {
                let kind = media_type(request.headers).ok()?;
                let body = Documents::read(request.body, &kind, false).ok()?;
                let asks = body.member("type").is_some_and(|kind| kind == "url_verification");
                body.member("challenge").filter(|_| asks).map(text)
            }
            _ => None,
        }
    }

    /// The answer to `OPTIONS`, where senders ask with it whether they may deliver (CloudEvents); nothing is signed.
    pub fn handshake(&self, request: &Request<'_>) -> Option<Reply> {
        let asking = request.headers.get("webhook-request-origin")?;
        let known = self.origins.iter().any(|origin| origin == "*" || asking == origin.as_str());
        let header = HeaderName::from_static;
        let headers = || {
            vec![
                (header("webhook-allowed-origin"), asking.clone()),
                (header("webhook-allowed-rate"), HeaderValue::from_static("*")),
                (ALLOW, HeaderValue::from_static("POST, OPTIONS")),
            ]
        };
        known.then(|| Reply { status: StatusCode::OK, headers: headers(), body: String::new() })
    }

    /// What the delivery says, for a resource with `schema`.
    ///
    /// # Errors
    /// [`DecodeError::MediaType`] if it is written in a way that is not understood, others if nothing of it is.
    pub fn decode(&self, request: &Request<'_>, schema: &Schema) -> Result<Decoded, DecodeError> {
        let kind = media_type(request.headers)?;
        let documents = Documents::read(request.body, &kind, self.scheme.sender() == Sender::Github)?;
        let in_body = self.scheme.delivery_member().and_then(|member| documents.member(member));
        let mut decoded = match &self.format {
            Format::Native => native::decode(documents)?,
            Format::CloudEvents { batches } => {
                cloudevents::decode(documents, &kind, *batches, request.headers, schema.id_column())?
            }
            Format::Map(map) => map.decode(documents, request, schema.id_column())?,
        };
        let said = decoded.delivery.take();
        let signed = self.scheme.delivery(request.headers).map(str::to_string).or(in_body);
        decoded.delivery = signed.or(said).or_else(|| self.configured(request)).and_then(bounded);
        for change in decoded.changes.iter_mut().flatten() {
            change.delivery = change.delivery.take().and_then(bounded);
        }
        let all = decoded.changes.iter().all(Result::is_err);
        match decoded.changes.iter().find_map(|change| change.as_ref().err()) {
            Some(error) if self.abort || all => Err(DecodeError::Item(error.clone())),
            _ => Ok(decoded),
        }
    }

    fn configured(&self, request: &Request<'_>) -> Option<String> {
        Some(request.headers.get(self.delivery.as_ref()?)?.to_str().ok()?.to_string())
    }
}

fn text(body: String) -> Reply {
    let kind = (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Reply { status: StatusCode::OK, headers: vec![kind], body }
}

/// An id of a length that can be kept; long ones by their hash.
fn bounded(id: String) -> Option<String> {
    match id.len() {
        0 => None,
        1..=MOST_ID => Some(id),
        _ => Some(Sha256::digest(&id).iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// The body's type in lower case, without parameters. A body that is written in another way than it is signed is refused.
fn media_type(headers: &HeaderMap) -> Result<String, DecodeError> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(DecodeError::MediaType("deliveries are signed as they are: they must not be compressed"));
    }
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    Ok(given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
