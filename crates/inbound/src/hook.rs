//! One webhook's verifying and decoding: pure, so that it can be tried without a server.

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

/// What a delivery says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DecodedDelivery {
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

impl DecodedDelivery {
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
    /// A hook that takes the native format.
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

    /// Tokens of which a challenge by `GET` must have one (Meta).
    #[must_use]
    pub fn verify_tokens(mut self, tokens: Vec<Key>) -> Hook {
        self.verify_tokens = tokens;
        self
    }

    /// The header with the delivery's id, where neither the scheme nor the format says it.
    #[must_use]
    pub fn delivery_header(mut self, name: Option<HeaderName>) -> Hook {
        self.delivery = name;
        self
    }

    /// Bytes of one delivery, as sent and decompressed, 1 MiB unless said otherwise; 64 MiB at most.
    #[must_use]
    pub fn bytes(mut self, most: usize) -> Hook {
        self.most = most.min(LARGEST_BYTES);
        self
    }

    /// Whether one change that cannot be understood makes the whole delivery an error.
    #[must_use]
    pub fn abort_on_item_error(mut self, abort: bool) -> Hook {
        self.abort = abort;
        self
    }

    /// The clock that the versions of its changes are of (see [`Inbound::clock`](diorama_core::dio::Inbound::clock)): that of its own, unless
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

    /// Bytes of one delivery, at most.
    pub fn most_bytes(&self) -> usize {
        self.most
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
    pub fn verify(&self, request: &Request<'_>) -> Result<(), Refusal> {
        self.scheme.verify(request, self.tolerance)
    }

    /// Begins to check a delivery whose body is still to come: that of `request` is not looked at.
    ///
    /// # Errors
    /// As [`Hook::verify`], if no body can make up for what the head is like.
    pub fn begin<'a>(&'a self, request: &Request<'a>) -> Result<Verifier<'a>, Refusal> {
        self.scheme.begin(request, self.tolerance)
    }

    /// What the delivery says, for a resource with `schema`.
    ///
    /// # Errors
    /// [`DecodeError::MediaType`] if it is written in a way that is not understood, others if nothing of it is.
    pub fn decode(&self, request: &Request<'_>, schema: &Schema) -> Result<DecodedDelivery, DecodeError> {
        self.decode_up_to(self.most, request, schema)
    }

    /// What a delivery says that was taken before, perhaps when larger ones were.
    ///
    /// # Errors
    /// As [`Hook::decode`].
    pub fn decode_kept(&self, request: &Request<'_>, schema: &Schema) -> Result<DecodedDelivery, DecodeError> {
        self.decode_up_to(LARGEST_BYTES, request, schema)
    }

    /// Bytes of the body when it is decompressed.
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
        let in_body = self.scheme.delivery_member().and_then(|member| documents.member(member));
        let in_body = in_body.or_else(|| self.mailgun_token(request));
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

    /// Reads the body: decompressed to at most `most` bytes, and without the envelope that its sender puts around every message.
    fn documents(&self, most: usize, request: &Request<'_>) -> Result<Documents, DecodeError> {
        let body = coding::decompressed(request.headers, request.body, most)?;
        match self.scheme.sender() {
            Sender::Sns => Documents::of_sns(&body, is_raw(request)),
            _ => Documents::read(&body, &media_type(request.headers), self.forms()),
        }
    }

    /// Reads the body of a delivery that has just come.
    pub(super) fn message(&self, request: &Request<'_>) -> Result<Documents, DecodeError> {
        self.documents(self.most, request)
    }

    /// Meaning of forms in deliveries.
    fn forms(&self) -> Forms {
        match (self.scheme.sender(), &self.format) {
            (Sender::Github, _) => Forms::Payload,
            (Sender::Slack, _) => Forms::PayloadOrFields,
            (_, Format::Map(_)) => Forms::Fields,
            _ => Forms::Refused,
        }
    }

    /// Mailgun's token, which counts once: the rest of the body is not signed.
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

/// An id of a length that can be kept; long ones by their hash.
fn bounded(id: String) -> Option<String> {
    match id.len() {
        0 => None,
        1..=MOST_ID => Some(id),
        _ => Some(Sha256::digest(&id).iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// The body's type in lower case, without parameters.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let given = headers.get(CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
