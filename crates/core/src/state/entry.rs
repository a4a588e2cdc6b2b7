//! Log entries: the only thing that changes a [`State`](super::State). They hold results, not deltas.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::former_row::FormerRow;
use super::op::{Effect, Op, OpError, OpId, OpState};
use crate::record::{Body, CborValue, Id, Layout, Seq};
use crate::table::{Ordinal, RowRef, Table};

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
    /// Versions of the confirmed row by clock, where the row does not say them or is a write's own.
    #[serde(rename = "k", default, skip_serializing_if = "Versions::is_empty")]
    pub versions: Versions,
    /// The version by the Dio's own clock, as format 1 has it; read into [`Entry::versions`].
    #[serde(rename = "n", default, skip_serializing)]
    version: Option<CborValue>,
    /// Whether the confirmed row is what it was, or one that was lost with the cache file: no change beneath the operations
    /// over it.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// What happens to operations.
    #[serde(rename = "o", default, skip_serializing_if = "OpChange::is_none")]
    pub op: OpChange,
    /// What happens to the row that readers see.
    #[serde(rename = "v", default, skip_serializing_if = "VisibleChange::is_same")]
    pub visible: VisibleChange,
    /// What subscribers are told.
    #[serde(rename = "f", default)]
    pub frame: Frame,
    /// The visible row before, in entries that tell subscribers of a row.
    #[serde(rename = "w", default, skip_serializing_if = "FormerRow::is_unknown")]
    pub former_row: FormerRow,
    /// Positions that feeds have reached with this entry.
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<FeedMark>,
    /// Whether the values of its row were erased, by a purge: nobody can tell any more what the row was before and after.
    #[serde(rename = "x", default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
    /// Ids of rows that are to be erased from all older entries. None once that is done.
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

/// The clock of the Dio's own version column.
pub const COLUMN_CLOCK: &str = "column";

impl Versions {
    /// A version by the Dio's own clock, or none.
    pub fn of_column(version: Option<CborValue>) -> Versions {
        Versions(version.map(|version| (Arc::from(COLUMN_CLOCK), version)).into_iter().collect())
    }

    /// The version by the Dio's own clock.
    pub fn column(&self) -> Option<&CborValue> {
        self.by(COLUMN_CLOCK)
    }

    /// The version by `clock`.
    pub fn by(&self, clock: &str) -> Option<&CborValue> {
        self.0.get(clock)
    }

    /// Notes a version by `clock`.
    pub fn set(&mut self, clock: &Arc<str>, version: CborValue) {
        self.0.insert(Arc::clone(clock), version);
    }

    /// The versions by other clocks than the Dio's own.
    pub fn others(&self) -> impl Iterator<Item = (&Arc<str>, &CborValue)> {
        self.0.iter().filter(|(clock, _)| &***clock != COLUMN_CLOCK)
    }

    /// Whether no clock has said anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The position of a feed at its sender, with what was applied of the message there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedMark {
    /// The feed.
    #[serde(rename = "k")]
    pub key: Arc<str>,
    /// The position, in the feed's own terms.
    #[serde(rename = "p")]
    pub position: Bytes,
    /// Changes of the message at that position that are applied.
    #[serde(rename = "a", default)]
    pub applied: u64,
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
    /// The identity of whoever asked for it, where the caller said so.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Arc<str>>,
}

/// Where a change came from.
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
    /// Many rows changed. In the journal of one process they are in the cache file and not in the log: replaying the entry
    /// means to read the master again.
    #[serde(rename = "m")]
    Many {
        /// The rows, in memory only.
        #[serde(skip, default)]
        rows: Arc<BulkRows>,
        /// The rows, where the log carries them: a journal that several processes share.
        #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
        carried: Vec<BulkRow>,
    },
}

/// The rows of a bulk entry, in memory only.
#[derive(Clone, Debug, Default)]
pub enum BulkRows {
    /// The entry was read back from the log: its rows are not known.
    #[default]
    Unknown,
    /// A table built aside.
    Table(Table),
    /// Changed rows.
    Rows(Vec<BulkRow>),
}

/// One confirmed row of a bulk entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkRow {
    /// Its id.
    #[serde(rename = "i")]
    pub id: Id,
    /// The row and its place, `None` if it is gone.
    #[serde(rename = "r")]
    pub row: Option<(Body, Ordinal)>,
}

impl BulkRows {
    /// The rows as a log can carry them; `None` if they are not known.
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

    /// Whether the confirmed row changes.
    pub fn changes(&self) -> bool {
        !self.is_keep()
    }
}

/// What happens to operations.
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
pub enum VisibleChange {
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

impl VisibleChange {
    fn is_same(&self) -> bool {
        matches!(self, VisibleChange::Same)
    }
}

/// What subscribers are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// Format of encoded entries; the first byte of each. Format 1 lacks former rows, versions by clock, principals, marks and
/// carried rows, and is read for ever.
const FORMAT: u8 = 2;

/// The oldest format that is read.
const OLDEST_FORMAT: u8 = 1;

impl Entry {
    /// An entry about nothing yet.
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
            op: OpChange::None,
            visible: VisibleChange::Same,
            frame: Frame::Silent,
            former_row: FormerRow::Unknown,
            marks: Vec::new(),
            erased: false,
            purge: no_ids(),
        }
    }

    /// The body that readers see from this entry on, if it says so.
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

    /// Whether it says no more than what the confirmed row is.
    pub(super) fn only_confirms(&self) -> bool {
        self.frame == Frame::Silent && self.op.is_none() && self.visible.is_same()
    }

    /// Keeps the row that readers saw before, for those who read the entry back from the journal. Only entries that tell
    /// subscribers of a row need it, and an insert says by itself that there was none. `WriteCommitted` changes no row, and
    /// filters judge it by the row as it is, which mostly is the confirmed one.
    pub(crate) fn remember(&mut self, old: Option<&Body>, new: Option<&Body>, layout: &Layout) {
        match self.frame {
            // What goes with a purge is kept nowhere.
            _ if self.erased => {}
            Frame::Changed | Frame::Removed => self.former_row = FormerRow::between(old, new, layout),
            Frame::WriteCommitted if self.visible_body() != new => self.former_row = FormerRow::Same(new.cloned()),
            _ => {}
        }
    }

    /// The row that readers saw before: `None` if the entry does not say it, `Some(None)` if there was none.
    pub fn former_row(&self, layout: &Layout) -> Option<Option<Body>> {
        match &self.frame {
            Frame::Inserted => Some(None),
            _ => self.former_row.row(self.visible_body(), layout),
        }
    }

    /// Bytes for the journal: a format byte, then CBOR.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        ciborium::into_writer(self, &mut bytes).expect("a Vec takes every write and every field has a CBOR form");
        bytes.into()
    }

    /// [`Entry::encode`] with the rows of a bulk entry, for journals whose readers have no cache file in common.
    pub fn encode_with_rows(&self) -> Bytes {
        let mut whole = self.clone();
        if let Base::Many { rows, carried } = &mut whole.base
            && let Some(known) = rows.rows()
        {
            *carried = known;
        }
        whole.encode()
    }

    /// Reads what [`Entry::encode`] wrote, in this format or an older one.
    ///
    /// # Errors
    /// Says what is wrong with the bytes; never panics, whatever they are.
    pub fn decode(bytes: &[u8]) -> Result<Entry, String> {
        match bytes.split_first() {
            Some((&(OLDEST_FORMAT..=FORMAT), rest)) => {
                ciborium::from_reader(rest).map(Entry::upgraded).map_err(|error| error.to_string())
            }
            Some((format, _)) => Err(format!("entry format {format} is not known (this program reads up to {FORMAT})")),
            None => Err("the entry is empty".into()),
        }
    }

    /// What format 1 says elsewhere is moved to where this format has it.
    fn upgraded(mut self) -> Entry {
        if let Some(version) = self.version.take() {
            self.versions = Versions::of_column(Some(version));
        }
        self
    }

    /// Reads an entry that `bytes` begin with; gives it with its length. For bytes that nothing else is known of.
    pub fn decode_first(bytes: &[u8]) -> Option<(Entry, usize)> {
        const MAP: u8 = 5;
        let (format, rest) = bytes.split_first()?;
        rest.first().filter(|head| (OLDEST_FORMAT..=FORMAT).contains(format) && **head >> 5 == MAP)?;
        let mut left = rest;
        let entry: Entry = ciborium::from_reader(&mut left).ok()?;
        Some((entry.upgraded(), bytes.len() - left.len()))
    }
}
