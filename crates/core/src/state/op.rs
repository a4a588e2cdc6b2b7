//! Operations: accepted writes on their way to the master.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::record::{Body, Id, Layout, join_patches};
use crate::vista::{Error, WriteKind, WriteOp};

/// Identifies an operation, for ever and everywhere; handed to masters as idempotency key.
///
/// A UUIDv7 in Crockford base32 behind `op_`: sorts by time of creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u128);

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl OpId {
    /// A fresh id.
    #[expect(clippy::new_without_default, reason = "two defaults would not be equal")]
    pub fn new() -> OpId {
        OpId(uuid::Uuid::now_v7().as_u128())
    }

    /// The id with these bits.
    pub fn from_u128(bits: u128) -> OpId {
        OpId(bits)
    }

    /// The bits.
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

/// What an operation does to a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// The row is new.
    #[serde(rename = "i")]
    Insert(Body),
    /// The row is this.
    #[serde(rename = "r")]
    Replace(Body),
    /// These columns are this; merged as RFC 7396 says. Encoded as [`Body::encode_plain`] does.
    #[serde(rename = "p")]
    Patch(Body),
    /// The row is gone.
    #[serde(rename = "d")]
    Delete,
    /// All rows that were visible are gone, in one operation of the master.
    #[serde(rename = "a")]
    DeleteAll,
}

impl Effect {
    /// The kind of write.
    pub fn kind(&self) -> WriteKind {
        match self {
            Effect::Insert(_) => WriteKind::Insert,
            Effect::Replace(_) => WriteKind::Replace,
            Effect::Patch(_) => WriteKind::Patch,
            Effect::Delete => WriteKind::Delete,
            Effect::DeleteAll => WriteKind::DeleteAll,
        }
    }

    /// Bytes held.
    pub fn size(&self) -> usize {
        match self {
            Effect::Insert(body) | Effect::Replace(body) | Effect::Patch(body) => body.size(),
            Effect::Delete | Effect::DeleteAll => 0,
        }
    }

    /// The row after this, given the row before.
    pub fn on(&self, before: Option<&Body>, id: &str, layout: &Layout) -> Option<Body> {
        match self {
            Effect::Insert(body) | Effect::Replace(body) => Some(body.clone()),
            Effect::Patch(patch) => before.map(|before| patched(before, patch, id, layout)),
            Effect::Delete | Effect::DeleteAll => None,
        }
    }

    /// One effect that does to any row what this and then `next` do; `None` if there is none.
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

    /// As the route or the master gets it.
    ///
    /// # Errors
    /// [`Error::Source`] if what is kept of the row cannot be decoded.
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

/// `before` with `patch` merged in. Stored bytes decode: they were encoded by this program and carry checksums at rest. Should
/// they not, the row stays as it was rather than be lost.
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

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpState {
    /// Waits for its turn, or is being delivered.
    Queued,
    /// The write route took it; the master has not said anything about the row yet.
    Routed,
    /// The master has it.
    Applied,
    /// The master refused it; the row was rolled back.
    Failed,
    /// Given up for now; the row was rolled back; a person decides.
    Parked,
    /// Given up for good by a person.
    Discarded,
}

/// Why an operation ended without effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpError {
    /// A stable code, as in problem+json.
    pub code: String,
    /// In words.
    pub detail: String,
}

/// What a write was accepted on, of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Assumption {
    /// That it was of one version, or not of another.
    #[serde(rename = "v")]
    Version,
    /// That it was there.
    #[serde(rename = "p")]
    Present,
    /// That it was not.
    #[serde(rename = "a")]
    Absent,
}

/// One accepted write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Op {
    /// Its id.
    pub id: OpId,
    /// What it does.
    pub effect: Effect,
    /// The rows it is about: one, or all that [`Effect::DeleteAll`] covers.
    pub targets: Arc<[Id]>,
    /// Unix milliseconds of its acceptance.
    pub created: u64,
    /// The operation that this one repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<OpId>,
    /// The condition it was accepted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assumed: Option<Assumption>,
    /// Its position in the log.
    #[serde(skip, default)]
    pub staged: u64,
    /// Positions of the later entries that a restart needs to know where it stands.
    #[serde(skip, default)]
    pub log: Vec<u64>,
    /// Rows that it still lies over.
    #[serde(skip, default)]
    pub over: usize,
    /// Where it stands; moved by [`State::apply`](super::State::apply) only.
    #[serde(skip, default = "queued")]
    pub state: OpState,
    /// Clock of the State when the route took it.
    #[serde(skip, default)]
    pub delivered: u64,
    /// Hash of the confirmed row that it lay over then, 0 if there was none.
    #[serde(skip, default)]
    pub beneath: Option<u128>,
    /// Why it ended without effect.
    #[serde(skip, default)]
    pub error: Option<OpError>,
    /// Unix milliseconds of its last change of state.
    #[serde(skip, default)]
    pub updated: u64,
}

fn queued() -> OpState {
    OpState::Queued
}

impl Op {
    /// Whether it still lies over the confirmed row.
    pub fn is_open(&self) -> bool {
        matches!(self.state, OpState::Queued | OpState::Routed)
    }

    /// Bytes it is charged with.
    pub fn size(&self) -> usize {
        self.effect.size() + 128
    }
}

impl Effect {
    /// The columns that this effect sets, `None` for all of the row.
    pub(super) fn columns(&self) -> Option<Vec<String>> {
        match self {
            Effect::Patch(body) => body.decode().ok().map(|patch| patch.columns().map(str::to_string).collect()),
            _ => None,
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
