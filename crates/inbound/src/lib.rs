//! Verification and decoding of upstream messages: signatures (`signature/`), the native form (`native.rs`), CloudEvents
//! (`cloudevents.rs`), and any other form that a mapping describes (`map/`; `presets/` has mappings for well-known senders). The
//! crate is pure: bytes in, values out.
//!
//! A [`Hook`] does all of this for one webhook: [`Hook::answer_before_verifying`], [`Hook::verify`] (or [`Hook::begin`] while the
//! body arrives), then [`Hook::answer_before_decoding`], then [`Hook::decode`].

mod body;
mod cloudevents;
mod coding;
mod form;
mod handshake;
mod hook;
mod map;
mod native;
mod presets;
pub mod signature;

pub use handshake::{Notice, Reply};
pub use hook::{DecodedDelivery, Hook, Request};
pub use map::{Map, Problem};
pub use presets::{PRESETS, preset, preset_filled};
pub use signature::{Algorithm, BodyCheck, Encoding, Hmac, Key, Proof, Refusal, Scheme, Verifier};

use diorama_core::record::CborValue;
use diorama_core::vista::{ChangeEvent, Coercion};

/// A change described by an upstream message.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The change.
    pub event: ChangeEvent,
    /// The row's version after it.
    pub version: Option<CborValue>,
    /// True if the row is partial and must be merged into the known row.
    pub partial: bool,
    /// The sender's id of the change: a second change with the same id has no effect.
    pub delivery: Option<String>,
    /// Coercion of texts in the row. A mapping may select numbers that the sender wrote as text.
    pub coercion: Coercion,
}

/// Default maximum size of one delivery in bytes, both as sent and decompressed.
pub const MOST_BYTES: usize = 1 << 20;
/// Highest configurable maximum size of one delivery in bytes.
pub const LARGEST_BYTES: usize = 64 << 20;
/// Maximum number of changes in one delivery.
pub const MOST_CHANGES: usize = 10_000;

/// Format of deliveries.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Format {
    /// `{"op":"update","id":"7","new":{..}}`, an array of them, or one per line.
    #[default]
    Native,
    /// CloudEvents, in the request's headers or in its body.
    CloudEvents {
        /// True to accept batches.
        batches: bool,
    },
    /// Any format, described by a mapping.
    Map(Map),
}

/// Error of one of several changes that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change {number}: {detail}")]
pub struct ItemError {
    /// Number of the change, from 1.
    pub number: usize,
    /// The mistake.
    pub detail: String,
}

/// Error of a delivery that could not be decoded. None of its changes may be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The format does not support the body's media type.
    #[error("{0}")]
    MediaType(&'static str),
    /// The body has an unsupported content coding.
    #[error("the content coding is not supported: send the body uncompressed or as gzip")]
    Coding,
    /// The decompressed body is too large.
    #[error("the delivery has more than {0} bytes after decompression")]
    TooLarge(usize),
    /// The body is not valid for its media type.
    #[error("{0}")]
    Syntax(String),
    /// No change could be decoded, or one could not and the hook aborts on that.
    #[error("{0}")]
    Item(ItemError),
    /// The delivery has too many changes.
    #[error("a delivery must not have more than {MOST_CHANGES} changes")]
    TooMany,
}
