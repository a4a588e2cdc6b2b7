//! Log entries: the only thing that changes a [`State`](super::State). They hold results, not deltas.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::op::{Effect, Op, OpError, OpId, OpState};
use super::table::{Ordinal, Table};
use crate::record::{Body, CborValue, Id, Seq};

/// One change of a Dio: one position, at most one frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its position.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// Unix milliseconds.
    #[serde(rename = "t")]
    pub at: u64,
    /// The row, `None` when it is about the whole Dio.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// What brought it about.
    #[serde(rename = "c", default)]
    pub cause: Cause,
    /// What happens to the confirmed row.
    #[serde(rename = "b", default, skip_serializing_if = "Base::is_keep")]
    pub base: Base,
    /// The version that the master told for what the confirmed row is now, where the row does not say it or is a write's own.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    pub version: Option<CborValue>,
    /// Whether the confirmed row is what it was, or one that was lost with the cache file: no change beneath the operations
    /// over it.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// What happens to operations.
    #[serde(rename = "o", default, skip_serializing_if = "OpChange::is_none")]
    pub op: OpChange,
    /// What happens to the row that readers see.
    #[serde(rename = "v", default, skip_serializing_if = "Visible::is_same")]
    pub visible: Visible,
    /// What subscribers are told.
    #[serde(rename = "f", default)]
    pub frame: Frame,
}

/// What brought an entry about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Where it came from.
    #[serde(rename = "o", default)]
    pub origin: Origin,
    /// The operation.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub op: Option<OpId>,
    /// The delivery of an upstream event.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Arc<str>>,
}

/// Where a change came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Origin {
    /// A write through the facade.
    #[default]
    Write,
    /// An upstream event.
    Webhook,
    /// A read of the master.
    Refresh,
    /// A feed that is not HTTP.
    Feed,
    /// A statement of the program: `patched`, raw cache writes, `invalidate_*`.
    Program,
}

/// What happens to the confirmed row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Base {
    /// Nothing.
    #[default]
    #[serde(rename = "k")]
    Keep,
    /// It is this.
    #[serde(rename = "s")]
    Set {
        /// The row.
        #[serde(rename = "b")]
        body: Body,
        /// Its place in the master's order.
        #[serde(rename = "o")]
        ordinal: Ordinal,
    },
    /// It is gone.
    #[serde(rename = "g")]
    Gone,
    /// Many rows changed; they are in the cache file and not in the log. Replaying one means: read the master again.
    #[serde(rename = "m")]
    Many {
        /// The rows, in memory only.
        #[serde(skip, default)]
        rows: Arc<Many>,
    },
}

/// The rows of a bulk entry, in memory only.
#[derive(Clone, Debug, Default)]
pub enum Many {
    /// The entry was read back from the log: its rows are not known.
    #[default]
    Unknown,
    /// A table built aside.
    Table(Table),
    /// Changed rows.
    Rows(Vec<BulkRow>),
}

/// One confirmed row of a bulk entry.
#[derive(Clone, Debug)]
pub struct BulkRow {
    /// Its id.
    pub id: Id,
    /// The row and its place, `None` if it is gone.
    pub row: Option<(Body, Ordinal)>,
}

impl Base {
    fn is_keep(&self) -> bool {
        matches!(self, Base::Keep)
    }

    /// Whether the confirmed row changes.
    pub fn changes(&self) -> bool {
        !self.is_keep()
    }
}

/// What happens to operations.
#[expect(clippy::large_enum_variant, reason = "the large one is the common one")]
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum OpChange {
    /// Nothing.
    #[default]
    #[serde(rename = "n")]
    None,
    /// One is accepted.
    #[serde(rename = "s")]
    Stage(Op),
    /// The one of the cause covers this row too (see [`Effect::DeleteAll`](super::Effect::DeleteAll)).
    #[serde(rename = "j")]
    Join,
    /// The one of the cause changes its state.
    #[serde(rename = "e")]
    Settle {
        /// To this.
        #[serde(rename = "s")]
        state: OpState,
        /// Because of this.
        #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
        error: Option<OpError>,
        /// When the route takes it: the hash of the confirmed row beneath, 0 if there is none. Tells news of the row from the
        /// row itself when the cache file was lost.
        #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
        beneath: Option<u128>,
    },
    /// The master's news of the row speak of these routed ones: they are applied and no longer lie over it.
    #[serde(rename = "a")]
    Absorb(Vec<OpId>),
    /// The one of the cause, and an older one beneath it, are one from now on: both are routed, and the older one ends.
    #[serde(rename = "m")]
    Merge {
        /// The older one.
        #[serde(rename = "o")]
        older: OpId,
        /// What both of them do.
        #[serde(rename = "e")]
        effect: Effect,
    },
}

impl OpChange {
    fn is_none(&self) -> bool {
        matches!(self, OpChange::None)
    }
}

/// What happens to the row that readers see.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Visible {
    /// Nothing.
    #[default]
    #[serde(rename = "-")]
    Same,
    /// It is this.
    #[serde(rename = "r")]
    Row {
        /// The row.
        #[serde(rename = "b")]
        body: Body,
        /// Its place.
        #[serde(rename = "o")]
        ordinal: Ordinal,
    },
    /// It is what the staged operation says (whose body is not stored twice), at this place.
    #[serde(rename = "s")]
    Staged(Ordinal),
    /// It is the confirmed row (whose body is not stored twice).
    #[serde(rename = "b")]
    Base,
    /// It is gone.
    #[serde(rename = "g")]
    Gone,
}

impl Visible {
    fn is_same(&self) -> bool {
        matches!(self, Visible::Same)
    }
}

/// What subscribers are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Frame {
    /// Nothing.
    #[default]
    #[serde(rename = "-")]
    Silent,
    /// `RecordInserted`
    #[serde(rename = "i")]
    Inserted,
    /// `RecordChanged`
    #[serde(rename = "c")]
    Changed,
    /// `RecordRemoved`
    #[serde(rename = "r")]
    Removed,
    /// `WriteFailed`
    #[serde(rename = "f")]
    WriteFailed(OpError),
    /// `WriteCommitted`
    #[serde(rename = "w")]
    WriteCommitted,
    /// `Invalidated`; covered when all differences were told as row events before.
    #[serde(rename = "x")]
    Invalidated {
        /// Whether they were.
        #[serde(rename = "c")]
        covered: bool,
    },
}

/// Format of encoded entries; the first byte of each.
const FORMAT: u8 = 1;

impl Entry {
    /// An entry about nothing yet.
    pub(super) fn new(seq: Seq, at: u64, id: Option<Id>, cause: Cause) -> Entry {
        Entry {
            seq,
            at,
            id,
            cause,
            base: Base::Keep,
            version: None,
            found: false,
            op: OpChange::None,
            visible: Visible::Same,
            frame: Frame::Silent,
        }
    }

    /// The body that readers see from this entry on, if it says so.
    pub fn visible_body(&self) -> Option<&Body> {
        match (&self.visible, &self.base, &self.op) {
            (Visible::Row { body, .. }, _, _) | (Visible::Base, Base::Set { body, .. }, _) => Some(body),
            (Visible::Staged(_), _, OpChange::Stage(op)) => match &op.effect {
                super::Effect::Insert(body) | super::Effect::Replace(body) => Some(body),
                _ => None,
            },
            _ => None,
        }
    }

    /// Bytes for the journal: a format byte, then CBOR.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        ciborium::into_writer(self, &mut bytes).expect("a Vec takes every write and every field has a CBOR form");
        bytes.into()
    }

    /// Reads what [`Entry::encode`] wrote.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; never panics, whatever they are.
    pub fn decode(bytes: &[u8]) -> Result<Entry, String> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => ciborium::from_reader(rest).map_err(|error| error.to_string()),
            Some((format, _)) => Err(format!("entry format {format} is not known (this program reads {FORMAT})")),
            None => Err("the entry is empty".into()),
        }
    }

    /// Reads an entry that `bytes` begin with; gives it with its length. For bytes that nothing else is known of.
    pub fn decode_first(bytes: &[u8]) -> Option<(Entry, usize)> {
        const MAP: u8 = 5;
        let rest = bytes.strip_prefix(&[FORMAT])?;
        rest.first().filter(|head| **head >> 5 == MAP)?;
        let mut left = rest;
        let entry = ciborium::from_reader(&mut left).ok()?;
        Some((entry, bytes.len() - left.len()))
    }
}
