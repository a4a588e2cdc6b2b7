//! Encoded rows that are borrowed from where they are kept.

use bytes::Bytes;

use super::body::{Body, BodyError, decode_parts, hash_parts};
use super::{Id, Record};

/// A [`Body`] that is borrowed from a set of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRef<'a> {
    json: &'a [u8],
    cbor: Option<&'a Bytes>,
}

impl<'a> BodyRef<'a> {
    pub(crate) fn new(json: &'a [u8], cbor: Option<&'a Bytes>) -> BodyRef<'a> {
        BodyRef { json, cbor }
    }

    /// The row as a JSON object, ready to send.
    pub fn json(&self) -> &'a [u8] {
        self.json
    }

    /// The row as canonical CBOR, if JSON does not represent it exactly.
    pub fn cbor(&self) -> Option<&'a Bytes> {
        self.cbor
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.json.len() + self.cbor.map_or(0, Bytes::len)
    }

    /// Copies the row.
    pub fn to_body(&self) -> Body {
        Body::from_parts(Bytes::copy_from_slice(self.json), self.cbor.cloned())
    }

    /// Decodes the row.
    ///
    /// # Errors
    /// [`BodyError`] if the bytes were not made by [`Body::encode`].
    pub fn decode(&self) -> Result<Record, BodyError> {
        decode_parts(self.json, self.cbor.map(|cbor| &cbor[..]))
    }

    /// xxh3-128 of the canonical bytes, the strong ETag of the row.
    pub fn hash(&self) -> u128 {
        hash_parts(self.json, self.cbor.map(|cbor| &cbor[..]))
    }
}

impl<'a> From<&'a Body> for BodyRef<'a> {
    fn from(body: &'a Body) -> BodyRef<'a> {
        BodyRef { json: body.json(), cbor: body.cbor() }
    }
}

impl PartialEq<Body> for BodyRef<'_> {
    fn eq(&self, other: &Body) -> bool {
        *self == BodyRef::from(other)
    }
}

/// An id with an encoded row, borrowed.
pub(crate) type EncodedRow<'a> = (&'a str, BodyRef<'a>);

/// Copies a borrowed row.
pub(crate) fn to_owned((id, body): EncodedRow<'_>) -> (Id, Body) {
    (Id::from(id), body.to_body())
}
