//! Log entries, which alone change a [`State`](super::State). They hold results, not deltas.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::former_row::FormerRow;
use super::op::{Effect, Op, OpError, OpId, OpState};
use crate::record::{Body, CborValue, Id, Layout, Seq};
use crate::table::{Ordinal, RowRef, Table};

/// One change of a Dio, at one position, with at most one frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the log.
    #[serde(rename = "s")]
    pub seq: Seq,
    /// Unix milliseconds of the change.
    #[serde(rename = "t")]
    pub at: u64,
    /// Id of the row; `None` for the whole Dio.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Id>,
    /// Cause of the change.
    #[serde(rename = "c", default)]
    pub cause: Cause,
    /// Change of the confirmed row.
    #[serde(rename = "b", default, skip_serializing_if = "Base::is_keep")]
    pub base: Base,
    /// Versions of the confirmed row by clock, if the row does not contain them or is a write's own.
    #[serde(rename = "k", default, skip_serializing_if = "Versions::is_empty")]
    pub versions: Versions,
    /// Version by the Dio's own clock in format 1; moved to [`Entry::versions`] when read.
    #[serde(rename = "n", default, skip_serializing)]
    version: Option<CborValue>,
    /// True if the confirmed row is unchanged, or is one that was lost with the cache file, and so not a change beneath its
    /// operations.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// True if the row's oldest waiting operation had been delivered before, so that the change of the confirmed row may be its own.
    #[serde(rename = "tr", default, skip_serializing_if = "std::ops::Not::not")]
    pub tried: bool,
    /// Change of operations.
    #[serde(rename = "o", default, skip_serializing_if = "OpChange::is_none")]
    pub op: OpChange,
    /// Change of the visible row.
    #[serde(rename = "v", default, skip_serializing_if = "VisibleChange::is_same")]
    pub visible: VisibleChange,
    /// Event for subscribers.
    #[serde(rename = "f", default)]
    pub frame: Frame,
    /// Visible row before the change, in entries with a row event.
    #[serde(rename = "w", default, skip_serializing_if = "FormerRow::is_unknown")]
    pub former_row: FormerRow,
    /// True if a purge erased the values of the row, so that the rows before and after the change are unknown.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
    /// Ids of rows to erase from all older entries; empty once that is done.
    #[serde(rename = "z", default = "no_ids", skip_serializing_if = "is_none")]
    pub purge: Arc<[Id]>,
}

fn no_ids() -> Arc<[Id]> {
    Arc::from([])
}

fn is_none(ids: &Arc<[Id]>) -> bool {
    ids.is_empty()
}

/// Versions of a row by clock: the Dio's own version column, or the sender of an upstream event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Versions(BTreeMap<Arc<str>, CborValue>);

/// Name of the clock of the Dio's own version column.
pub const COLUMN_CLOCK: &str = "column";

impl Versions {
    /// Creates versions with an optional version by the Dio's own clock.
    pub fn of_column(version: Option<CborValue>) -> Versions {
        Versions(version.map(|version| (Arc::from(COLUMN_CLOCK), version)).into_iter().collect())
    }

    /// Returns the version by the Dio's own clock.
    pub fn column(&self) -> Option<&CborValue> {
        self.by(COLUMN_CLOCK)
    }

    /// Returns the version by `clock`.
    pub fn by(&self, clock: &str) -> Option<&CborValue> {
        self.0.get(clock)
    }

    /// Sets the version by `clock`.
    pub fn set(&mut self, clock: &Arc<str>, version: CborValue) {
        self.0.insert(Arc::clone(clock), version);
    }

    /// Iterates over the versions by clocks other than the Dio's own.
    pub fn others(&self) -> impl Iterator<Item = (&Arc<str>, &CborValue)> {
        self.0.iter().filter(|(clock, _)| &***clock != COLUMN_CLOCK)
    }

    /// Returns true if there is no version.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Cause of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Origin of the change.
    #[serde(rename = "o", default)]
    pub origin: Origin,
    /// Operation, if there is one.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    pub op: Option<OpId>,
    /// Delivery of an upstream event.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Arc<str>>,
    /// Identity of the requester, if the caller provided it.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Arc<str>>,
}

/// Origin of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Change of the confirmed row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Base {
    /// No change.
    #[default]
    #[serde(rename = "k")]
    Keep,
    /// Set the row.
    #[serde(rename = "s")]
    Set {
        /// The row.
        #[serde(rename = "b")]
        body: Body,
        /// Ordinal in the master's order.
        #[serde(rename = "o")]
        ordinal: Ordinal,
    },
    /// Remove the row.
    #[serde(rename = "g")]
    Gone,
    /// Many rows changed. In the journal of one process the rows are in the cache file and not in the log: a replay of the
    /// entry must read the master again.
    #[serde(rename = "m")]
    Many {
        /// Rows, in memory only.
        #[serde(skip, default)]
        rows: Arc<BulkRows>,
        /// Rows carried by the log, for a journal that several processes share.
        #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
        carried: Vec<BulkRow>,
    },
}

/// Rows of a bulk entry, in memory only.
#[derive(Clone, Debug, Default)]
pub enum BulkRows {
    /// Unknown, because the entry was read back from the log.
    #[default]
    Unknown,
    /// A table that was built separately.
    Table(Table),
    /// Changed rows.
    Rows(Vec<BulkRow>),
}

/// One confirmed row of a bulk entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRow {
    /// Id of the row.
    #[serde(rename = "i")]
    pub id: Id,
    /// The row and its ordinal; `None` if it was removed.
    #[serde(rename = "r")]
    pub row: Option<(Body, Ordinal)>,
}

impl BulkRows {
    /// Returns the rows for the log; `None` if they are unknown.
    fn rows(&self) -> Option<Vec<BulkRow>> {
        match self {
            BulkRows::Unknown => None,
            BulkRows::Rows(rows) => Some(rows.clone()),
            BulkRows::Table(table) => {
                let row = |row: RowRef<'_>| BulkRow { id: Id::from(row.id()), row: Some((row.body(), row.ordinal())) };
                Some(table.natural(0).map(row).collect())
            }
        }
    }
}

impl Base {
    fn is_keep(&self) -> bool {
        matches!(self, Base::Keep)
    }

    /// Returns true if the confirmed row changes.
    pub fn changes(&self) -> bool {
        !self.is_keep()
    }
}

/// Change of operations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "an entry of a write has an operation, and a box would cost each an allocation"
)]
pub enum OpChange {
    /// No change.
    #[default]
    #[serde(rename = "n")]
    None,
    /// An operation is accepted.
    #[serde(rename = "s")]
    Stage(Op),
    /// The operation of the cause covers this row too (see [`Effect::DeleteAll`](super::Effect::DeleteAll)).
    #[serde(rename = "j")]
    Join,
    /// The operation of the cause changes its state.
    #[serde(rename = "e")]
    Settle {
        /// New state.
        #[serde(rename = "s")]
        state: OpState,
        /// Reason of a failure.
        #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
        error: Option<OpError>,
        /// Hash of the confirmed row beneath when the route accepts the operation, 0 if there is none. After the cache file was
        /// lost, it distinguishes a changed row from the lost one.
        #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
        beneath: Option<u128>,
    },
    /// A reported row contains the effects of these operations. Routed ones are no longer applied on top of it; a waiting one is
    /// until its route answers.
    #[serde(rename = "a")]
    Absorb(Vec<OpId>),
    /// The operation of the cause and an older one of the row are merged: both are routed, and the older one ends.
    #[serde(rename = "m")]
    Merge {
        /// The older operation.
        #[serde(rename = "o")]
        older: OpId,
        /// Combined effect.
        #[serde(rename = "e")]
        effect: Effect,
    },
}

impl OpChange {
    fn is_none(&self) -> bool {
        matches!(self, OpChange::None)
    }
}

/// Change of the visible row.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum VisibleChange {
    /// No change.
    #[default]
    #[serde(rename = "-")]
    Same,
    /// Set the row.
    #[serde(rename = "r")]
    Row {
        /// The row.
        #[serde(rename = "b")]
        body: Body,
        /// Ordinal of the row.
        #[serde(rename = "o")]
        ordinal: Ordinal,
    },
    /// Set the row of the staged operation (whose body is not stored twice), at this ordinal.
    #[serde(rename = "s")]
    Staged(Ordinal),
    /// Set the confirmed row (whose body is not stored twice).
    #[serde(rename = "b")]
    Base,
    /// Remove the row.
    #[serde(rename = "g")]
    Gone,
}

impl VisibleChange {
    fn is_same(&self) -> bool {
        matches!(self, VisibleChange::Same)
    }
}

/// Event for subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// No change.
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
    /// `Invalidated`; covered if all differences were reported as row events before.
    #[serde(rename = "x")]
    Invalidated {
        /// True if all differences were reported.
        #[serde(rename = "c")]
        covered: bool,
    },
}

/// Format of encoded entries, and their first byte. Format 1 lacks former rows, versions by clock, principals and carried
/// rows, and stays readable.
const FORMAT: u8 = 2;

/// Oldest readable format.
const OLDEST_FORMAT: u8 = 1;

impl Entry {
    /// Creates an entry without changes.
    pub fn new(seq: Seq, at: u64, id: Option<Id>, cause: Cause) -> Entry {
        Entry {
            seq,
            at,
            id,
            cause,
            base: Base::Keep,
            versions: Versions::default(),
            version: None,
            found: false,
            tried: false,
            op: OpChange::None,
            visible: VisibleChange::Same,
            frame: Frame::Silent,
            former_row: FormerRow::Unknown,
            erased: false,
            purge: no_ids(),
        }
    }

    /// Returns the visible body after this entry, if the entry contains it.
    pub fn visible_body(&self) -> Option<&Body> {
        match (&self.visible, &self.base, &self.op) {
            (VisibleChange::Row { body, .. }, _, _) | (VisibleChange::Base, Base::Set { body, .. }, _) => Some(body),
            (VisibleChange::Staged(_), _, OpChange::Stage(op)) => match &op.effect {
                super::Effect::Insert(body) | super::Effect::Replace(body) => Some(body),
                _ => None,
            },
            (VisibleChange::Same, base, _) => match (&self.former_row, base) {
                (FormerRow::Same(row), _) => row.as_ref(),
                (FormerRow::Unknown, Base::Set { body, .. }) if self.frame == Frame::WriteCommitted => Some(body),
                _ => None,
            },
            _ => None,
        }
    }

    /// Returns true if the entry only changes the confirmed row.
    pub(super) fn only_confirms(&self) -> bool {
        self.frame == Frame::Silent && self.op.is_none() && self.visible.is_same()
    }

    /// Stores the visible row before the change, for readers of the journal. Only entries with a row event need it, and an
    /// insert implies that there was none. `WriteCommitted` changes no row; filters test it on the current row, which is
    /// usually the confirmed one.
    pub(crate) fn remember(&mut self, old: Option<&Body>, new: Option<&Body>, layout: &Layout) {
        match self.frame {
            // Do not keep what a purge erases.
            _ if self.erased => {}
            Frame::Changed | Frame::Removed => self.former_row = FormerRow::between(old, new, layout),
            Frame::WriteCommitted if self.visible_body() != new => self.former_row = FormerRow::Same(new.cloned()),
            _ => {}
        }
    }

    /// Returns the visible row before the change: `None` if the entry does not contain it, `Some(None)` if there was none.
    pub fn former_row(&self, layout: &Layout) -> Option<Option<Body>> {
        match &self.frame {
            Frame::Inserted => Some(None),
            _ => self.former_row.row(self.visible_body(), layout),
        }
    }

    /// Encodes the entry for the journal: a format byte, then CBOR.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        ciborium::into_writer(self, &mut bytes).expect("a Vec takes every write and every field has a CBOR form");
        bytes.into()
    }

    /// Encodes the entry with the rows of a bulk change, for journals whose readers do not share a cache file.
    pub fn encode_with_rows(&self) -> Bytes {
        let mut whole = self.clone();
        if let Base::Many { rows, carried } = &mut whole.base
            && let Some(known) = rows.rows()
        {
            *carried = known;
        }
        whole.encode()
    }

    /// Decodes the bytes of [`Entry::encode`], in this format or an older one.
    ///
    /// # Errors
    /// A description of the problem; never panics on any input.
    pub fn decode(bytes: &[u8]) -> Result<Entry, String> {
        match bytes.split_first() {
            Some((&(OLDEST_FORMAT..=FORMAT), rest)) => {
                ciborium::from_reader(rest).map(Entry::upgraded).map_err(|error| error.to_string())
            }
            Some((format, _)) => Err(format!("unknown entry format {format} (this program reads up to {FORMAT})")),
            None => Err("the entry is empty".into()),
        }
    }

    /// Moves data of format 1 to its place in the current format.
    fn upgraded(mut self) -> Entry {
        if let Some(version) = self.version.take() {
            self.versions = Versions::of_column(Some(version));
        }
        self
    }

    /// Decodes an entry at the start of `bytes` and returns it with its length. For bytes of unknown content.
    pub fn decode_first(bytes: &[u8]) -> Option<(Entry, usize)> {
        const MAP: u8 = 5;
        let (format, rest) = bytes.split_first()?;
        rest.first().filter(|head| (OLDEST_FORMAT..=FORMAT).contains(format) && **head >> 5 == MAP)?;
        let mut left = rest;
        let entry: Entry = ciborium::from_reader(&mut left).ok()?;
        Some((entry.upgraded(), bytes.len() - left.len()))
    }
}
