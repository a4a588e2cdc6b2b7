//! Upstream messages: are they what they claim (`signature/`), and what do they say: in the native form (`native.rs`), as
//! CloudEvents (`cloudevents.rs`), or in any other form that a mapping describes (`map/`; `presets/` has those of well-known
//! senders). Pure: bytes in, values out.
//!
//! A [`Hook`] is all of it for one webhook: [`Hook::answer_before_verifying`], [`Hook::verify`] (or [`Hook::begin`], while the
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

/// A change that an upstream message speaks of.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The change.
    pub event: ChangeEvent,
    /// The row's version after it.
    pub version: Option<CborValue>,
    /// Whether the row is only a part, to be merged into the known one.
    pub partial: bool,
    /// The sender's id of it: a second one with the same id has no effect.
    pub delivery: Option<String>,
    /// Reading of the text in the row: what a mapping picks out of somebody else's body may be a number written as text.
    pub coercion: Coercion,
}

/// Bytes of one delivery, unless it is said otherwise; also of what comes out of a compressed one.
pub const MOST_BYTES: usize = 1 << 20;
/// Bytes of one delivery, at most, whatever is said.
pub const LARGEST_BYTES: usize = 64 << 20;
/// Changes in one delivery, at most.
pub const MOST_CHANGES: usize = 10_000;

/// How changes are written down.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Format {
    /// `{"op":"update","id":"7","new":{..}}`, an array of them, or one per line.
    #[default]
    Native,
    /// CloudEvents, in the request's headers or in its body.
    CloudEvents {
        /// Whether several at a time are taken.
        batches: bool,
    },
    /// As a mapping says.
    Map(Map),
}

/// Why one of several changes could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("change {number}: {detail}")]
pub struct ItemError {
    /// Which of the changes, from 1.
    pub number: usize,
    /// What is wrong.
    pub detail: String,
}

/// Why a delivery could not be understood. None of its changes is to be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body's type is not one that the format has.
    #[error("{0}")]
    MediaType(&'static str),
    /// The body is compressed in a way that is not understood.
    #[error("deliveries are taken as they are or as gzip")]
    Coding,
    /// More comes out of a compressed body than a delivery may have.
    #[error("the delivery has more than {0} bytes when it is decompressed")]
    TooLarge(usize),
    /// It is not written as its type says.
    #[error("{0}")]
    Syntax(String),
    /// It says nothing that is understood.
    #[error("{0}")]
    Item(ItemError),
    /// There are too many changes in it.
    #[error("a delivery holds at most {MOST_CHANGES} changes")]
    TooMany,
}
