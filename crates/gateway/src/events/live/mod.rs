//! Live queries: the rows of a list, or groups of an aggregate, and then every change of them with its place.
//!
//! Equal ones of a Dio are one [`LiveQuery`], built on one scenery: whoever comes first when that has moved finds the changes and
//! makes their frames, once for all. A subscription ([`LiveCursor`]) is a cursor on them. It gets, after its `hello`, either the
//! rows as a snapshot does (`snapshot_begin` with `count` and `total`, `rows` in their order, `snapshot_end`), or, where it
//! resumes, nothing; and then
//!
//! ```text
//! {"type":"window","op":"insert","index":3,"id":"7","record":{...}}          put it in at index
//! {"type":"window","op":"update","index":3,"id":"7","record":{...}}          it is another now
//! {"type":"window","op":"move","from":9,"index":3,"id":"7","record":{...}}   take it out at from, put it in at index
//! {"type":"window","op":"remove","index":3,"id":"7"}                         take it out
//! {"type":"window","total":1043,"seq":850}                                   nothing of it is in the window
//! ```
//!
//! one after the other; a `move` has a `record` only if the row changed as well. The last frame of a change has `seq`: then
//! the list is as it is at that position, and `total`, if how many rows there are in all has changed. Who has fallen behind
//! what is kept, or when too much has changed at once, gets `reset` and the rows anew.

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
use super::view::prepared;
use crate::http::bounds::Bounds;
use crate::http::budget::Lease;
use crate::http::problem::{ApiError, Code};
use crate::rows::format::Writer;
use crate::rows::scoped_rows::ScopedRows;
use diorama_core::dio::Ring;
use diorama_core::journal::Seq;
use diorama_core::record::{Body, CborValue, Id, Layout, Record, value_to_json};
use diorama_core::scenery::{Generation, ScenerySnapshot, TableScenery, ValueScenery};
use diorama_core::vista::query::{Aggregation, CompiledQuery};

/// Bytes of the frames of changes that are kept, at most.
const MOST_KEPT: usize = 256 << 10;
/// Changes that are kept, at most.
const MOST_CHANGES: usize = 256;
/// Bytes of one change's frames, at most; the rows themselves are sent instead.
const MOST_CHANGE: usize = 256 << 10;
/// Rows larger than this are not sent with their change: whoever wants them reads them.
const MOST_RECORD: usize = 256 << 10;
/// Bytes of the compiled patterns of one live query, at most: they are compiled again when its rows are read anew.
const MOST_PATTERNS: usize = 4 << 20;

/// What a live query shows, for all who ask for the same.
#[derive(Debug)]
pub(super) struct LiveQuery {
    scene: LiveSource,
    encoding: Encoding,
    writer: Writer,
    records: bool,
    ring: Arc<Ring>,
    log: Mutex<Log>,
    /// What it holds of the gateway's budgets, on the account of who asked first.
    _leases: [Lease; 2],
}

#[derive(Debug)]
enum LiveSource {
    Rows { scenery: TableScenery, range: Range<u64> },
    Groups { scenery: ValueScenery, aggregation: Arc<Aggregation>, layout: Arc<Layout> },
}

/// What was shown, and the changes that led to it.
#[derive(Debug)]
struct Log {
    version: u64,
    /// The position that the rows were last seen to be true at.
    seq: Seq,
    total: Option<u64>,
    rows: Arc<[Row]>,
    changes: VecDeque<ListChange>,
    /// The number of the first change that is kept.
    first: u64,
    /// The position before it.
    floor: Seq,
    bytes: usize,
}

impl Log {
    /// Forgets changes that led to the list at `upto` or before: whoever has not got all of them gets the rows.
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

/// The frames of one change, which leads to the list at `seq`.
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
        let query = match &subscription.of {
            LiveTarget::Rows(query) => query,
            LiveTarget::Groups { rows, .. } => rows,
        };
        let place = bounds.lease_live()?;
        let patterns = prepared(source, query, bounds).await?.as_ref().map_or(0, CompiledQuery::pattern_bytes);
        if patterns > MOST_PATTERNS {
            return Err(ApiError::new(Code::LimitTooLarge, "the patterns of a live query are too big")
                .hint("use fewer or smaller patterns, and like in place of match"));
        }
        let leases = [place, bounds.lease_patterns(2 * patterns)?];
        let scene = match &subscription.of {
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
        let writer = match &subscription.of {
            LiveTarget::Rows(query) => Writer::new(encoding.of_rows(), query, source.schema())?,
            LiveTarget::Groups { aggregation, .. } => {
                Writer::new(encoding.of_rows(), &diorama_core::vista::Query::default(), &aggregation.schema())?
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

    /// Moves when there may be something new.
    fn generation(&self) -> watch::Receiver<Generation> {
        match &self.scene {
            LiveSource::Rows { scenery, .. } => scenery.subscribe(),
            LiveSource::Groups { scenery, .. } => scenery.subscribe(),
        }
    }

    /// Looks at what is shown now, and uses what is known of it.
    fn look<T>(&self, with: impl FnOnce(&mut Log) -> T) -> T {
        let mut log = self.log.lock();
        let (version, seq) = self.scene.version();
        match version == log.version {
            true => log.seq = seq,
            false => self.note(&mut log, self.scene.shown()),
        }
        // They may have rows that were erased: whoever lacks some gets the rows anew.
        log.forget(self.ring.erased());
        with(&mut log)
    }

    fn note(&self, log: &mut Log, shown: ScenerySnapshot) {
        let rows: Arc<[Row]> = shown.rows.into_iter().map(|(id, body)| Row { id, body }).collect();
        let total = (shown.total != log.total).then_some(shown.total).flatten();
        let frames = self.frames(&log.rows, &rows, total, shown.seq);
        (log.version, log.seq, log.total, log.rows) = (shown.version, shown.seq, shown.total, rows);
        let bytes: usize = frames.iter().map(Bytes::len).sum();
        if bytes > MOST_CHANGE {
            // All are behind what is kept, and get the rows.
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

    /// The frames that make `new` of `old`; none if what is shown of the rows is the same.
    fn frames(&self, old: &[Row], new: &[Row], total: Option<u64>, seq: Seq) -> Vec<Bytes> {
        // What differs may not be shown.
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

/// A group under what tells it from all others, as a JSON array.
fn group_row(group: &CborValue, aggregation: &Aggregation, layout: &Layout) -> (Id, Body) {
    let cells = group.as_map().into_iter().flatten();
    let record: Record = cells.filter_map(|(name, value)| Some((name.as_text()?.to_string(), value.clone()))).collect();
    let key = CborValue::Array(aggregation.key(&record).cloned().collect());
    let id = String::from_utf8_lossy(&value_to_json(&key)).into_owned();
    (id.into(), Body::encode_plain(&record, layout))
}

/// The live queries of one Dio that somebody follows.
#[derive(Debug, Default)]
pub(crate) struct LiveQueries(Mutex<HashMap<String, Weak<LiveQuerySlot>>>);

/// Where a live query is while somebody has it, or is about to.
pub(super) type LiveQuerySlot = OnceCell<Arc<LiveQuery>>;

impl LiveQueries {
    /// What is asked for; equal queries are one.
    pub(super) async fn get(
        &self,
        rows: &ScopedRows,
        most: usize,
        subscription: &LiveSubscription,
        encoding: Encoding,
        bounds: &Bounds,
    ) -> Result<(Arc<LiveQuerySlot>, Arc<LiveQuery>), ApiError> {
        let key = format!("{encoding:?} {:?} {} {:?}", rows.id(), subscription.records, subscription.of);
        let shelf = self.shelf(key, most)?;
        let live = shelf
            .get_or_try_init(|| async { LiveQuery::open(rows, subscription, encoding, bounds).await.map(Arc::new) })
            .await?;
        let live = Arc::clone(live);
        Ok((shelf, live))
    }

    fn shelf(&self, key: String, most: usize) -> Result<Arc<LiveQuerySlot>, ApiError> {
        let mut lives = self.0.lock();
        if let Some(shelf) = lives.get(&key).and_then(Weak::upgrade) {
            return Ok(shelf);
        }
        if lives.len() >= most {
            lives.retain(|_, shelf| shelf.strong_count() > 0);
        }
        if lives.len() >= most {
            let detail = format!("{most} different live queries of this resource are followed already");
            return Err(ApiError::new(Code::TooManyViews, detail)
                .hint("use a query that others use, or a filter on its events; max_live is the bound"));
        }
        let shelf = Arc::new(OnceCell::new());
        lives.insert(key, Arc::downgrade(&shelf));
        Ok(shelf)
    }

    /// How many different ones there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().values().filter(|shelf| shelf.strong_count() > 0).count()
    }
}
