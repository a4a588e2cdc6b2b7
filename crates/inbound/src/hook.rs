//! Verification and decoding of one webhook's deliveries: pure, so that it can be tried without a server.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::body::Documents;
use super::form::Forms;
use super::signature::{Key, MailgunProof, Sender, TOLERANCE, is_raw};
use super::{
    Change, DecodeError, Format, ItemError, LARGEST_BYTES, MOST_BYTES, Refusal, Scheme, Verifier, cloudevents, coding,
    native,
};
use diorama_core::vista::Schema;

/// Maximum length of a delivery's id in bytes.
const MOST_ID: usize = 256;

/// A delivery as received.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method; some schemes sign it.
    pub method: &'a Method,
    /// The path as sent; some schemes sign it.
    pub path: &'a str,
    /// The query string, without the question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, byte for byte.
    pub body: &'a [u8],
    /// Time of arrival.
    pub now: Timestamp,
}

/// A decoded delivery.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecodedDelivery {
    /// The sender's id of the delivery: a second one with the same id has no effect.
    pub delivery: Option<String>,
    /// The changes in order. A change that cannot be decoded does not affect the others, unless the hook aborts on errors: then
    /// the whole delivery is an error.
    pub changes: Vec<Result<Change, ItemError>>,
    /// Number of parts that do not concern this hook.
    pub ignored: usize,
    /// Reason why the first of them was ignored, or a remark on a part of a change that was left out.
    pub why: Option<String>,
}

impl DecodedDelivery {
    /// Records a part that cannot be decoded.
    pub(super) fn reject(&mut self, detail: String) {
        let number = self.changes.len() + self.ignored + 1;
        self.changes.push(Err(ItemError { number, detail }));
    }

    pub(super) fn ignore(&mut self, why: String) {
        self.ignored += 1;
        self.why.get_or_insert(why);
    }
}

/// Configuration of one webhook: verification and decoding of its deliveries.
#[derive(Clone, Debug)]
pub struct Hook {
    pub(super) scheme: Scheme,
    tolerance: u64,
    format: Format,
    delivery: Option<HeaderName>,
    abort: bool,
    most: usize,
    pub(super) origins: Vec<String>,
    pub(super) verify_tokens: Vec<Key>,
    clock: Option<Arc<str>>,
}

impl Hook {
    /// Creates a hook for the native format.
    pub fn new(scheme: Scheme) -> Hook {
        Hook {
            scheme,
            tolerance: TOLERANCE,
            format: Format::Native,
            delivery: None,
            abort: false,
            most: MOST_BYTES,
            origins: Vec::new(),
            verify_tokens: Vec::new(),
            clock: None,
        }
    }

    /// Sets the format of deliveries.
    #[must_use]
    pub fn format(mut self, format: Format) -> Hook {
        self.format = format;
        self
    }

    /// Sets how many seconds a signed time may differ from the arrival (default: 300).
    #[must_use]
    pub fn tolerance(mut self, seconds: u64) -> Hook {
        self.tolerance = seconds;
        self
    }

    /// Sets the origins that may request permission to deliver CloudEvents by `OPTIONS`; `*` permits all.
    #[must_use]
    pub fn origins(mut self, origins: Vec<String>) -> Hook {
        self.origins = origins;
        self
    }

    /// Sets the tokens, one of which a challenge by `GET` must present (Meta).
    #[must_use]
    pub fn verify_tokens(mut self, tokens: Vec<Key>) -> Hook {
        self.verify_tokens = tokens;
        self
    }

    /// Sets the header with the delivery's id, used if neither the scheme nor the format provides one.
    #[must_use]
    pub fn delivery_header(mut self, name: Option<HeaderName>) -> Hook {
        self.delivery = name;
        self
    }

    /// Sets the maximum size of one delivery in bytes, as sent and decompressed (default: 1 MiB, at most 64 MiB).
    #[must_use]
    pub fn bytes(mut self, most: usize) -> Hook {
        self.most = most.min(LARGEST_BYTES);
        self
    }

    /// Sets if one change that cannot be decoded makes the whole delivery an error.
    #[must_use]
    pub fn abort_on_item_error(mut self, abort: bool) -> Hook {
        self.abort = abort;
        self
    }

    /// Sets the clock of the changes' versions (see [`Inbound::clock`](diorama_core::dio::Inbound::clock)); by default the hook
    /// has its own clock.
    #[must_use]
    pub fn versions_of(mut self, clock: Option<Arc<str>>) -> Hook {
        self.clock = clock;
        self
    }

    /// Returns the configured clock of the versions; `None` for the hook's own clock.
    pub fn clock(&self) -> Option<&Arc<str>> {
        self.clock.as_ref()
    }

    /// Returns the maximum size of one delivery in bytes.
    pub fn most_bytes(&self) -> usize {
        self.most
    }

    /// Returns true if deliveries are in the native format.
    pub fn is_native(&self) -> bool {
        matches!(self.format, Format::Native)
    }

    /// Returns true if deliveries are CloudEvents.
    pub fn is_cloudevents(&self) -> bool {
        matches!(self.format, Format::CloudEvents { .. })
    }

    /// Returns true if one change that cannot be decoded or applied makes the whole delivery an error.
    pub fn aborts_on_item_error(&self) -> bool {
        self.abort
    }

    /// Returns the scheme that authenticates senders.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Verifies that the delivery comes from the sender.
    ///
    /// # Errors
    /// The reason, for the log only: the sender gets the same response for every refusal.
    pub fn verify(&self, request: &Request<'_>) -> Result<(), Refusal> {
        self.scheme.verify(request, self.tolerance)
    }

    /// Begins to verify a delivery before its body has arrived. The body of `request` is ignored.
    ///
    /// # Errors
    /// As [`Hook::verify`], if the head is refused regardless of the body.
    pub fn begin<'a>(&'a self, request: &Request<'a>) -> Result<Verifier<'a>, Refusal> {
        self.scheme.begin(request, self.tolerance)
    }

    /// Decodes a delivery for a resource with `schema`.
    ///
    /// # Errors
    /// [`DecodeError::MediaType`] for an unsupported media type, other errors if no change can be decoded.
    pub fn decode(&self, request: &Request<'_>, schema: &Schema) -> Result<DecodedDelivery, DecodeError> {
        self.decode_up_to(self.most, request, schema)
    }

    /// Decodes a delivery that was accepted before, perhaps with a higher size limit.
    ///
    /// # Errors
    /// As [`Hook::decode`].
    pub fn decode_kept(&self, request: &Request<'_>, schema: &Schema) -> Result<DecodedDelivery, DecodeError> {
        self.decode_up_to(LARGEST_BYTES, request, schema)
    }

    /// Returns the size of the decompressed body in bytes.
    ///
    /// # Errors
    /// As [`Hook::decode`].
    pub fn length(&self, request: &Request<'_>) -> Result<usize, DecodeError> {
        coding::decompressed_length(request.headers, request.body, self.most)
    }

    fn decode_up_to(
        &self,
        most: usize,
        request: &Request<'_>,
        schema: &Schema,
    ) -> Result<DecodedDelivery, DecodeError> {
        let kind = media_type(request.headers);
        let documents = self.documents(most, request)?;
        let body_id = self.scheme.delivery_member().and_then(|member| documents.member(member));
        let body_id = body_id.or_else(|| self.mailgun_token(request));
        let mut decoded = match &self.format {
            Format::Native => native::decode(documents)?,
            Format::CloudEvents { batches } => {
                cloudevents::decode(documents, &kind, *batches, request.headers, schema.id_column())?
            }
            Format::Map(map) => map.decode(documents, request, schema.id_column())?,
        };
        let format_id = decoded.delivery.take();
        let scheme_id = self.scheme.delivery(request.headers).map(str::to_string).or(body_id);
        decoded.delivery = scheme_id.or(format_id).or_else(|| self.configured(request)).and_then(bounded);
        for change in decoded.changes.iter_mut().flatten() {
            change.delivery = change.delivery.take().and_then(bounded);
        }
        let all = decoded.changes.iter().all(Result::is_err);
        match decoded.changes.iter().find_map(|change| change.as_ref().err()) {
            Some(error) if self.abort || all => Err(DecodeError::Item(error.clone())),
            _ => Ok(decoded),
        }
    }

    /// Parses the body: decompressed to at most `most` bytes, and without the sender's envelope.
    fn documents(&self, most: usize, request: &Request<'_>) -> Result<Documents, DecodeError> {
        let body = coding::decompressed(request.headers, request.body, most)?;
        match self.scheme.sender() {
            Sender::Sns => Documents::of_sns(&body, is_raw(request)),
            _ => Documents::read(&body, &media_type(request.headers), self.forms()),
        }
    }

    /// Parses the body of a new delivery.
    pub(super) fn message(&self, request: &Request<'_>) -> Result<Documents, DecodeError> {
        self.documents(self.most, request)
    }

    /// Returns the meaning of forms in deliveries.
    fn forms(&self) -> Forms {
        match (self.scheme.sender(), &self.format) {
            (Sender::Github, _) => Forms::Payload,
            (Sender::Slack, _) => Forms::PayloadOrFields,
            (_, Format::Map(_)) => Forms::Fields,
            _ => Forms::Refused,
        }
    }

    /// Returns Mailgun's token, which is valid only once, because the rest of the body is not signed.
    fn mailgun_token(&self, request: &Request<'_>) -> Option<String> {
        match self.scheme.sender() {
            Sender::Mailgun => MailgunProof::of(request).map(|proof| proof.token),
            _ => None,
        }
    }

    fn configured(&self, request: &Request<'_>) -> Option<String> {
        Some(request.headers.get(self.delivery.as_ref()?)?.to_str().ok()?.to_string())
    }
}

/// Bounds the length of an id: a long one is replaced by its hash.
fn bounded(id: String) -> Option<String> {
    match id.len() {
        0 => None,
        1..=MOST_ID => Some(id),
        _ => Some(Sha256::digest(&id).iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// Returns the body's media type in lower case, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
