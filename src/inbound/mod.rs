//! Upstream messages: are they what they claim (`signature.rs`), and what do they say (`native.rs`). Pure: bytes in, values out.

pub mod native;
pub mod signature;

pub use native::{DecodeError, Format, decode};
pub use signature::{Encoding, Hmac, Key, Refused, Scheme};

use crate::record::CborValue;
use crate::vista::ChangeEvent;

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
}
