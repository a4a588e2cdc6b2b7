//! Live queries: the rows of a list, or the groups of an aggregate, followed by all changes with their indexes.
//!
//! Equal live queries of a Dio share one [`LiveQuery`] with one scenery. The first subscription that sees a new version of the
//! scenery computes the changes and their frames for all. A subscription is a [`LiveCursor`] in these changes. After its `hello`
//! it gets the rows like a snapshot (`snapshot_begin` with `count` and `total`, `rows` in order, `snapshot_end`), unless it
//! resumes, and then changes:
//!
//! ```text
//! {"type":"window","op":"insert","index":3,"id":"7","record":{...}}          insert at index
//! {"type":"window","op":"update","index":3,"id":"7","record":{...}}          replace at index
//! {"type":"window","op":"move","from":9,"index":3,"id":"7","record":{...}}   remove at from, insert at index
//! {"type":"window","op":"remove","index":3,"id":"7"}                         remove at index
//! {"type":"window","total":1043,"seq":850}                                   change outside the window
//! ```
//!
//! Frames are applied in order. A `move` has a `record` only if the contents of the row changed too. The last frame of a change
//! has `seq`, the position of the resulting list, and `total` if the number of all rows has changed. A subscription gets
//! `reset` and all rows if it is behind the kept changes, or if a change is too large.

mod cursor;
mod diff;
#[cfg(test)]
mod tests;

pub(super) use cursor::LiveCursor;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, watch};

use self::diff::{Change, Row, diff};
use super::frame::{self, Encoding};
use super::request::{LiveSubscription, LiveTarget};
use super::view::compile_filter;
use crate::http::bounds::Bounds;
use crate::http::budget::Lease;
use crate::http::problem::{ApiError, Code};
use crate::rows::format::Writer;
use crate::rows::scoped_rows::ScopedRows;
use diorama_core::dio::Ring;
use diorama_core::journal::Seq;
use diorama_core::record::{Body, CborValue, Id, Layout, Record, value_to_json};
use diorama_core::scenery::{Generation, ScenerySnapshot, TableScenery, ValueScenery};
use diorama_core::vista::Query;
use diorama_core::vista::query::{Aggregation, CompiledQuery};

/// Maximum size of the frames of kept changes, in bytes.
const MOST_KEPT: usize = 256 << 10;
/// Maximum number of kept changes.
const MOST_CHANGES: usize = 256;
/// Maximum size of the frames of one change, in bytes; beyond it, all rows are sent instead.
const MOST_CHANGE: usize = 256 << 10;
/// Size in bytes beyond which a row is not sent with its change; clients can read it by id.
const MOST_RECORD: usize = 256 << 10;
/// Maximum size of the compiled patterns of one live query, in bytes. They are compiled again when its rows are reread.
const MOST_PATTERNS: usize = 4 << 20;

/// Live query, shared by all subscriptions to the same query.
#[derive(Debug)]
pub(super) struct LiveQuery {
    scene: LiveSource,
    encoding: Encoding,
    writer: Writer,
    records: bool,
    ring: Arc<Ring>,
    log: Mutex<Log>,
    /// Shares of the gateway's budgets, charged to the caller of the first subscription.
    _leases: [Lease; 2],
}

/// Scenery that provides the rows or groups.
#[derive(Debug)]
enum LiveSource {
    Rows { scenery: TableScenery, range: Range<u64> },
    Groups { scenery: ValueScenery, aggregation: Arc<Aggregation>, layout: Arc<Layout> },
}

/// Current rows and the changes that led to them.
#[derive(Debug)]
struct Log {
    version: u64,
    /// Latest position at which the rows are known to be current.
    seq: Seq,
    total: Option<u64>,
    rows: Arc<[Row]>,
    changes: VecDeque<ListChange>,
    /// Number of the first kept change.
    first: u64,
    /// Position before the first kept change.
    floor: Seq,
    bytes: usize,
}

impl Log {
    /// Drops the changes up to position `upto`. Subscriptions that have not got all of them get the rows.
    fn forget(&mut self, upto: Seq) {
        while self.changes.front().is_some_and(|oldest| oldest.seq <= upto) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(old) = self.changes.pop_front() else { return };
        self.bytes -= old.bytes;
        self.floor = old.seq;
        self.first += 1;
    }
}

/// Frames of one change, which result in the list at `seq`.
#[derive(Debug)]
struct ListChange {
    frames: Vec<Bytes>,
    seq: Seq,
    bytes: usize,
}

impl LiveQuery {
    async fn open(
        source: &ScopedRows,
        subscription: &LiveSubscription,
        encoding: Encoding,
        bounds: &Bounds,
    ) -> Result<LiveQuery, ApiError> {
        let query = match &subscription.target {
            LiveTarget::Rows(query) => query,
            LiveTarget::Groups { rows, .. } => rows,
        };
        let place = bounds.lease_live()?;
        let patterns = compile_filter(source, query, bounds).await?.as_ref().map_or(0, CompiledQuery::pattern_bytes);
        if patterns > MOST_PATTERNS {
            return Err(ApiError::new(Code::LimitTooLarge, "the patterns of the live query are too large")
                .hint("use fewer or smaller patterns, and like in place of match"));
        }
        let leases = [place, bounds.lease_patterns(2 * patterns)?];
        let scene = match &subscription.target {
            LiveTarget::Rows(query) => {
                let scenery = source.table_scenery(query).open().await?;
                let range = query.offset..query.offset.saturating_add(query.limit.unwrap_or_default());
                LiveSource::Rows { scenery, range }
            }
            LiveTarget::Groups { aggregation, rows, page } => {
                let scenery = source.value_scenery(rows);
                let scenery = scenery.groups(Arc::clone(aggregation), Arc::clone(page)).open().await?;
                let layout = Arc::clone(aggregation.schema().layout());
                LiveSource::Groups { scenery, aggregation: Arc::clone(aggregation), layout }
            }
        };
        let writer = match &subscription.target {
            LiveTarget::Rows(query) => {
                Writer::new(encoding.of_rows(), &source.narrow(Query::clone(query)), source.schema())?
            }
            LiveTarget::Groups { aggregation, .. } => {
                Writer::new(encoding.of_rows(), &Query::default(), &aggregation.schema())?
            }
        };
        let ring = Arc::clone(source.log().ring());
        let ScenerySnapshot { version, seq, total, rows } = scene.shown();
        let rows = rows.into_iter().map(|(id, body)| Row { id, body }).collect();
        let log = Log { version, seq, total, rows, changes: VecDeque::new(), first: 0, floor: seq, bytes: 0 };
        Ok(LiveQuery {
            scene,
            encoding,
            writer,
            records: subscription.records,
            ring,
            log: Mutex::new(log),
            _leases: leases,
        })
    }

    /// Subscribes to notifications of possible changes.
    fn generation(&self) -> watch::Receiver<Generation> {
        match &self.scene {
            LiveSource::Rows { scenery, .. } => scenery.subscribe(),
            LiveSource::Groups { scenery, .. } => scenery.subscribe(),
        }
    }

    /// Updates the log from the scenery and calls `with` on it.
    fn with_log<T>(&self, with: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.log.lock();
        let (version, seq) = self.scene.version();
        match version == log.version {
            true => log.seq = seq,
            false => self.note(&mut log, self.scene.shown()),
        }
        // Changes up to an erasure may contain erased rows. Subscriptions that lack some of them get the rows.
        log.forget(self.ring.erased());
        with(&mut log)
    }

    /// Adds the changes that lead to a new version of the list.
    fn note(&self, log: &mut Log, shown: ScenerySnapshot) {
        let rows: Arc<[Row]> = shown.rows.into_iter().map(|(id, body)| Row { id, body }).collect();
        let total = (shown.total != log.total).then_some(shown.total).flatten();
        let frames = self.frames(&log.rows, &rows, total, shown.seq);
        (log.version, log.seq, log.total, log.rows) = (shown.version, shown.seq, shown.total, rows);
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        if bytes > MOST_CHANGE {
            // All subscriptions are now behind the kept changes and get the rows.
            log.first += log.changes.len() as u64 + 1;
            log.changes.clear();
            (log.bytes, log.floor) = (0, shown.seq);
            return;
        }
        if !frames.is_empty() {
            log.bytes += bytes;
            log.changes.push_back(ListChange { frames, seq: shown.seq, bytes });
        }
        while log.changes.len() > MOST_CHANGES || log.bytes > MOST_KEPT {
            log.drop_oldest();
        }
    }

    /// Builds the frames of the changes from `old` to `new`; empty if the visible parts of the rows are equal.
    fn frames(&self, old: &[Row], new: &[Row], total: Option<u64>, seq: Seq) -> Vec<Bytes> {
        // Rows may differ only in columns that are not shown.
        let same = |a: &Row, b: &Row| {
            a.body == b.body || !self.records || self.writer.one(&a.body) == self.writer.one(&b.body)
        };
        let changes = diff(old, new, same);
        let last = changes.len().checked_sub(1);
        let mut frames: Vec<Bytes> = (changes.iter().enumerate())
            .map(|(at, change)| {
                let end = (Some(at) == last).then_some((total, seq));
                self.frame(change, end)
            })
            .collect();
        if let (None, Some(_)) = (last, total) {
            frames.push(frame::window(self.encoding, None, Some((total, seq))));
        }
        frames
    }

    fn frame(&self, change: &Change<'_>, end: Option<(Option<u64>, Seq)>) -> Bytes {
        let shown = |row: &Row| self.shown(row);
        let (op, record) = match change {
            Change::Remove { index, id } => (frame::WindowOp { op: "remove", index: *index, from: None, id }, None),
            Change::Insert { index, row } => {
                (frame::WindowOp { op: "insert", index: *index, from: None, id: &row.id }, shown(row))
            }
            Change::Update { index, row } => {
                (frame::WindowOp { op: "update", index: *index, from: None, id: &row.id }, shown(row))
            }
            Change::Move { from, index, row, changed } => {
                let op = frame::WindowOp { op: "move", index: *index, from: Some(*from), id: &row.id };
                (op, changed.then(|| shown(row)).flatten())
            }
        };
        frame::window(self.encoding, Some((op, record.as_deref())), end)
    }

    fn shown(&self, row: &Row) -> Option<Vec<u8>> {
        let row = self.records.then(|| self.writer.one(&row.body))?;
        (row.len() <= MOST_RECORD).then_some(row)
    }
}

impl LiveSource {
    fn version(&self) -> (u64, Seq) {
        match self {
            LiveSource::Rows { scenery, .. } => scenery.version(),
            LiveSource::Groups { scenery, .. } => scenery.version(),
        }
    }

    fn shown(&self) -> ScenerySnapshot {
        match self {
            LiveSource::Rows { scenery, range } => scenery.shown(range.clone()),
            LiveSource::Groups { scenery, aggregation, layout } => {
                scenery.shown(|group| group_row(group, aggregation, layout))
            }
        }
    }
}

/// Converts a group to a row. Its id is the group's key as a JSON array.
fn group_row(group: &CborValue, aggregation: &Aggregation, layout: &Layout) -> (Id, Body) {
    let cells = group.as_map().into_iter().flatten();
    let record: Record = cells.filter_map(|(name, value)| Some((name.as_text()?.to_string(), value.clone()))).collect();
    let key = CborValue::Array(aggregation.key(&record).cloned().collect());
    let id = String::from_utf8_lossy(&value_to_json(&key)).into_owned();
    (id.into(), Body::encode_plain(&record, layout))
}

/// Live queries of one Dio that have subscriptions.
#[derive(Debug, Default)]
pub(crate) struct LiveQueries(Mutex<HashMap<String, Weak<LiveQuerySlot>>>);

/// Slot of a live query, which exists while it has subscriptions or is being opened.
pub(super) type LiveQuerySlot = OnceCell<Arc<LiveQuery>>;

impl LiveQueries {
    /// Returns the live query of `subscription`, which is shared with equal ones, and its slot.
    pub(super) async fn get(
        &self,
        rows: &ScopedRows,
        most: usize,
        subscription: &LiveSubscription,
        encoding: Encoding,
        bounds: &Bounds,
    ) -> Result<(Arc<LiveQuerySlot>, Arc<LiveQuery>), ApiError> {
        let key = format!("{encoding:?} {:?} {} {:?}", rows.id(), subscription.records, subscription.target);
        let slot = self.slot(key, most)?;
        let live = slot
            .get_or_try_init(|| async { LiveQuery::open(rows, subscription, encoding, bounds).await.map(Arc::new) })
            .await?;
        let live = Arc::clone(live);
        Ok((slot, live))
    }

    fn slot(&self, key: String, most: usize) -> Result<Arc<LiveQuerySlot>, ApiError> {
        let mut lives = self.0.lock();
        if let Some(slot) = lives.get(&key).and_then(Weak::upgrade) {
            return Ok(slot);
        }
        if lives.len() >= most {
            lives.retain(|_, slot| slot.strong_count() > 0);
        }
        if lives.len() >= most {
            let detail = format!("{most} different live queries of this resource are open already");
            return Err(ApiError::new(Code::TooManyViews, detail).hint(
                "use the same query as other clients, or subscribe to events with a filter; max_live sets the limit",
            ));
        }
        let slot = Arc::new(OnceCell::new());
        lives.insert(key, Arc::downgrade(&slot));
        Ok(slot)
    }

    /// Number of different live queries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().values().filter(|slot| slot.strong_count() > 0).count()
    }
}
