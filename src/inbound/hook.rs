//! One webhook's verifying and decoding: pure, so that it can be tried without a server.

use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;

use super::native;
use super::{Change, DecodeError, Format, ItemError, Refused, Scheme};
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
    /// Why the first of them is not.
    pub why: Option<String>,
}

/// How deliveries of one webhook are verified and what they mean.
#[derive(Clone, Debug)]
pub struct Hook {
    scheme: Scheme,
    format: Format,
    delivery: Option<HeaderName>,
    abort: bool,
}

impl Hook {
    /// A hook that takes the native format.
    pub fn new(scheme: Scheme) -> Hook {
        Hook { scheme, format: Format::Native, delivery: None, abort: false }
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
        let now = u64::try_from(request.now.as_second()).unwrap_or(0);
        self.scheme.verify(request.headers, request.body, now)
    }

    /// The answer to a delivery that asks whether anybody is there; to be called after [`Hook::verify`].
    pub fn answer_before_decoding(&self, _request: &Request<'_>) -> Option<Reply> {
        None
    }

    /// The answer to `OPTIONS`, where senders ask with it whether they may deliver; nothing is signed.
    pub fn handshake(&self, _request: &Request<'_>) -> Option<Reply> {
        None
    }

    /// What the delivery says, for a resource with `schema`.
    ///
    /// # Errors
    /// [`DecodeError::MediaType`] if it is written in a way that is not understood, others if nothing of it is.
    pub fn decode(&self, request: &Request<'_>, schema: &Schema) -> Result<Decoded, DecodeError> {
        let kind = media_type(request.headers)?;
        let mut decoded = match &self.format {
            Format::Native => native::decode(request.body, &kind, schema)?,
        };
        let known = decoded.delivery.take();
        decoded.delivery = self.scheme.delivery(request.headers).or(known).or_else(|| self.configured(request));
        decoded.delivery = decoded.delivery.filter(|id| !id.is_empty() && id.len() <= MOST_ID);
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

/// The body's type in lower case, without parameters. A body that is written in another way than it is signed is refused.
fn media_type(headers: &HeaderMap) -> Result<String, DecodeError> {
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(DecodeError::MediaType("deliveries are signed as they are: they must not be compressed"));
    }
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    Ok(given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}
