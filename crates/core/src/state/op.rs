//! Operations: accepted writes on their way to the master.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::record::{Body, Id, Layout, join_patches};
use crate::vista::{Error, WriteKind, WriteOp};

/// Globally unique identifier of an operation; sent to masters as the idempotency key.
///
/// A UUIDv7 in Crockford base32 with the prefix `op_`. Ids sort by time of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u128);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl OpId {
    /// Generates an id.
    #[expect(clippy::new_without_default, reason = "two defaults would not be equal")]
    pub fn new() -> OpId {
        OpId(uuid::Uuid::now_v7().as_u128())
    }

    /// Creates the id with these bits.
    pub fn from_u128(bits: u128) -> OpId {
        OpId(bits)
    }

    /// Returns the bits.
    pub fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("op_")?;
        for at in (0..26).rev() {
            let digit = ALPHABET[(self.0 >> (at * 5)) as usize & 31];
            fmt::Write::write_char(f, digit as char)?;
        }
        Ok(())
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OpId {
    type Err = Error;

    fn from_str(text: &str) -> Result<OpId, Error> {
        let wrong = || Error::invalid(format!("{text:?} is not an operation id"));
        let digits = text.strip_prefix("op_").filter(|digits| digits.len() == 26).ok_or_else(wrong)?;
        let mut bits: u128 = 0;
        for (at, digit) in digits.bytes().enumerate() {
            let value = ALPHABET.iter().position(|known| *known == digit).ok_or_else(wrong)?;
            if at == 0 && value > 7 {
                return Err(wrong());
            }
            bits = bits << 5 | value as u128;
        }
        Ok(OpId(bits))
    }
}

impl Serialize for OpId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bytes::Bytes::copy_from_slice(&self.0.to_be_bytes()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OpId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes::Bytes::deserialize(deserializer)?;
        let bytes: [u8; 16] = bytes[..].try_into().map_err(serde::de::Error::custom)?;
        Ok(OpId(u128::from_be_bytes(bytes)))
    }
}

/// Effect of an operation on a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Insert this row.
    #[serde(rename = "i")]
    Insert(Body),
    /// Replace the row with this one.
    #[serde(rename = "r")]
    Replace(Body),
    /// Merge these columns into the row by RFC 7396. Encoded like [`Body::encode_plain`].
    #[serde(rename = "p")]
    Patch(Body),
    /// Delete the row.
    #[serde(rename = "d")]
    Delete,
    /// Delete all visible rows, in one operation of the master.
    #[serde(rename = "a")]
    DeleteAll,
}

impl Effect {
    /// Returns the kind of write.
    pub fn kind(&self) -> WriteKind {
        match self {
            Effect::Insert(_) => WriteKind::Insert,
            Effect::Replace(_) => WriteKind::Replace,
            Effect::Patch(_) => WriteKind::Patch,
            Effect::Delete => WriteKind::Delete,
            Effect::DeleteAll => WriteKind::DeleteAll,
        }
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> usize {
        match self {
            Effect::Insert(body) | Effect::Replace(body) | Effect::Patch(body) => body.size(),
            Effect::Delete | Effect::DeleteAll => 0,
        }
    }

    /// Returns the row after this effect, given the row before.
    pub fn on(&self, before: Option<&Body>, id: &str, layout: &Layout) -> Option<Body> {
        match self {
            Effect::Insert(body) | Effect::Replace(body) => Some(body.clone()),
            Effect::Patch(patch) => before.map(|before| patched(before, patch, id, layout)),
            Effect::Delete | Effect::DeleteAll => None,
        }
    }

    /// Returns one effect equal to this effect followed by `next`; `None` if there is none.
    pub fn then(&self, next: &Effect, layout: &Layout) -> Option<Effect> {
        Some(match (self, next) {
            (Effect::Insert(_), Effect::Replace(body)) => Effect::Insert(body.clone()),
            (_, Effect::Insert(body) | Effect::Replace(body)) => Effect::Replace(body.clone()),
            (Effect::Insert(body), Effect::Patch(patch)) => Effect::Insert(patch_body(body, patch, layout)?),
            (Effect::Replace(body), Effect::Patch(patch)) => Effect::Replace(patch_body(body, patch, layout)?),
            (Effect::Patch(first), Effect::Patch(second)) => {
                let both = join_patches(first.decode().ok()?, &second.decode().ok()?)?;
                Effect::Patch(Body::encode_plain(&both, layout))
            }
            (Effect::Delete | Effect::DeleteAll, Effect::Patch(_)) | (_, Effect::Delete | Effect::DeleteAll) => {
                Effect::Delete
            }
        })
    }

    /// Converts to the write for the route or the master.
    ///
    /// # Errors
    /// [`Error::Source`] if the stored row cannot be decoded.
    pub fn to_write_op(&self, id: &str) -> Result<WriteOp, Error> {
        let decode = |body: &Body| body.decode().map_err(|error| Error::permanent(error.to_string()));
        let id = id.to_string();
        Ok(match self {
            Effect::Insert(body) => WriteOp::Insert { id, record: decode(body)? },
            Effect::Replace(body) => WriteOp::Replace { id, record: decode(body)? },
            Effect::Patch(body) => WriteOp::Patch { id, record: decode(body)? },
            Effect::Delete => WriteOp::Delete { id },
            Effect::DeleteAll => WriteOp::DeleteAll,
        })
    }
}

/// Merges `patch` into `before`. Stored bytes were encoded by this program and carry checksums, so they decode. If they do not,
/// the row stays the same and is not lost.
fn patched(before: &Body, patch: &Body, id: &str, layout: &Layout) -> Body {
    match (before.decode(), patch.decode()) {
        (Ok(row), Ok(patch)) => Body::encode(id, &crate::record::merge_patch(row, &patch, layout), layout),
        _ => before.clone(),
    }
}

fn patch_body(body: &Body, patch: &Body, layout: &Layout) -> Option<Body> {
    let (row, patch) = (body.decode().ok()?, patch.decode().ok()?);
    let id = row.get(layout.id_column()).and_then(crate::record::id_from_value)?;
    Some(Body::encode(&id, &crate::record::merge_patch(row, &patch, layout), layout))
}

/// State of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpState {
    /// Waiting for delivery, or being delivered.
    Queued,
    /// Accepted by the write route; the master has not reported the row yet.
    Routed,
    /// The master has the write.
    Applied,
    /// Rejected by the master; the row was rolled back.
    Failed,
    /// Suspended with the row rolled back, until an operator decides.
    Parked,
    /// Discarded by an operator.
    Discarded,
}

/// Reason why an operation ended without effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpError {
    /// Stable code, as in problem+json.
    pub code: String,
    /// Description of the failure.
    pub detail: String,
}

/// Assumption about the row on which a write was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assumption {
    /// The row had one version, or did not have another.
    #[serde(rename = "v")]
    Version,
    /// The row existed.
    #[serde(rename = "p")]
    Present,
    /// The row did not exist.
    #[serde(rename = "a")]
    Absent,
}

/// One accepted write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Id of the operation.
    pub id: OpId,
    /// Effect on its rows.
    pub effect: Effect,
    /// Ids of its rows: one, or all that [`Effect::DeleteAll`] covers.
    pub targets: Arc<[Id]>,
    /// Unix milliseconds of the acceptance.
    pub created: u64,
    /// Operation that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<OpId>,
    /// Assumption on which it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<Assumption>,
    /// Identity of the writer, if the caller provided it. The log has it in the cause of the entry.
    #[serde(skip, default)]
    pub principal: Option<Arc<str>>,
    /// Position in the log.
    #[serde(skip, default)]
    pub staged: u64,
    /// Positions of the later entries that a restart needs to restore its state.
    #[serde(skip, default)]
    pub log: Vec<u64>,
    /// Number of rows to which it still applies.
    #[serde(skip, default)]
    pub over: usize,
    /// State; changed only by [`State::apply`](super::State::apply).
    #[serde(skip, default = "queued")]
    pub state: OpState,
    /// True once it has been delivered for the first time, or an earlier process may have delivered it.
    #[serde(skip, default)]
    pub(super) tried: bool,
    /// Clock of the State when the route accepted it.
    #[serde(skip, default)]
    pub delivered: u64,
    /// Hash of the confirmed row when the route accepted it, 0 if there was none.
    #[serde(skip, default)]
    pub beneath: Option<u128>,
    /// Reason why it ended without effect.
    #[serde(skip, default)]
    pub error: Option<OpError>,
    /// Unix milliseconds of the last change of state.
    #[serde(skip, default)]
    pub updated: u64,
}

fn queued() -> OpState {
    OpState::Queued
}

impl Op {
    /// Returns true if the operation still applies to the confirmed row.
    pub fn is_open(&self) -> bool {
        matches!(self.state, OpState::Queued | OpState::Routed)
    }

    /// Returns the size in bytes that counts against limits.
    pub fn size(&self) -> usize {
        self.effect.size() + 128
    }
}

impl Effect {
    /// Returns the columns that this effect sets; `None` if its row cannot be decoded.
    pub(super) fn columns(&self) -> Option<Vec<String>> {
        match self {
            Effect::Insert(body) | Effect::Replace(body) | Effect::Patch(body) => {
                body.decode().ok().map(|record| record.columns().map(str::to_string).collect())
            }
            Effect::Delete | Effect::DeleteAll => Some(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_ids_read_back_and_sort_by_time() {
        let (first, second) = (OpId::new(), OpId(OpId::new().0 | 1 << 100));
        assert_eq!(first.to_string().parse::<OpId>().unwrap(), first);
        assert_eq!(first < second, first.to_string() < second.to_string());
        assert!("op_".parse::<OpId>().is_err());
        assert!("op_ZZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<OpId>().is_err());
    }
}
