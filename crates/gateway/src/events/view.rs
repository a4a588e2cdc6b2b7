//! What a subscriber sees of a Dio: a filter, what is shown of rows, and how it is written.
//!
//! Equal views of one Dio are one [`EventView`], shared by all sockets that have it: an event is judged and its frame made once, by
//! the first that comes to it. An event that goes out as it is has its frame in the ring, for all views.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::frame::{self, Encoding, Kind};
use crate::http::bounds::Bounds;
use crate::http::budget::Lease;
use crate::http::problem::{ApiError, Code};
use crate::rows::format::{self, Writer};
use crate::rows::scoped_rows::ScopedRows;
use diorama_core::dio::{RingItem, RowBefore};
use diorama_core::record::Body;
use diorama_core::state::{Entry, Frame, VisibleChange};
use diorama_core::vista::query::{CompiledQuery, Fields};
use diorama_core::vista::{Query, Schema};

/// Views of one Dio, at most.
const MOST_VIEWS: usize = 1_000;
/// Events whose frames a view remembers; a power of two.
const REMEMBERED: u64 = 256;
/// Bytes of frames that a view remembers, at most.
const MOST_REMEMBERED: usize = 1 << 20;
/// Rows larger than this are not sent with their event: whoever wants them reads them.
const MOST_RECORD: usize = 256 << 10;

/// What a subscriber is told of an event.
#[derive(Clone, Debug)]
pub(super) struct EventFrame {
    pub(super) kind: Kind,
    pub(super) frame: Bytes,
}

/// What a subscriber sees of a Dio.
#[derive(Debug)]
pub(super) struct EventView {
    pub(super) encoding: Encoding,
    filter: Option<CompiledQuery>,
    writer: Writer,
    projected: bool,
    records: bool,
    recent: Mutex<RecentEvents>,
    /// What it holds of the gateway's budgets.
    _leases: Vec<Lease>,
}

/// What was made of the newest events: the event with number `n` is at `n % REMEMBERED`.
#[derive(Debug, Default)]
struct RecentEvents {
    told: Vec<(u64, Option<EventFrame>)>,
    bytes: usize,
}

/// What is known of a row before an event.
#[derive(Clone, Copy)]
enum PriorRow {
    Matched,
    No,
    Unknown,
}

impl EventView {
    fn new(
        query: &Query,
        filter: Option<CompiledQuery>,
        records: bool,
        encoding: Encoding,
        (schema, leases): (&Schema, Vec<Lease>),
    ) -> Result<EventView, ApiError> {
        Ok(EventView {
            encoding,
            filter,
            writer: Writer::new(encoding.of_rows(), query, schema)?,
            projected: !query.select.is_empty(),
            records,
            recent: Mutex::default(),
            _leases: leases,
        })
    }

    /// What is told of the event with the number `at` in the ring, or of one that is not there any more.
    pub(super) fn tell(&self, item: &RingItem, at: Option<u64>) -> Option<EventFrame> {
        let entry = item.entry.as_ref()?;
        // What was remembered of the event has the row that was erased since.
        if entry.erased || self.filter.is_none() && self.goes_as_it_is() {
            return self.told(item, entry);
        }
        let Some(at) = at else { return self.told(item, entry) };
        let slot = usize::try_from(at % REMEMBERED).unwrap_or_default();
        let mut recent = self.recent.lock();
        if recent.told.is_empty() {
            recent.told.resize(REMEMBERED as usize, (u64::MAX, None));
        }
        if recent.told[slot].0 != at {
            let told = self.told(item, entry);
            recent.keep(slot, at, told);
        }
        recent.told[slot].1.clone()
    }

    /// Whether frames are those of the ring.
    fn goes_as_it_is(&self) -> bool {
        self.encoding == Encoding::Json && self.records && !self.projected
    }

    fn told(&self, item: &RingItem, entry: &Entry) -> Option<EventFrame> {
        let kind = self.verdict(item, entry)?;
        let encode = || {
            let row = item.new.as_ref().and_then(|row| self.shown(row));
            frame::event(self.encoding, kind, item, entry, row.as_deref())
        };
        let own =
            matches!(kind, Kind::Entered | Kind::Left) || !kind_of(item, entry).is_some_and(|plain| plain == kind);
        let frame = match self.goes_as_it_is() && !own {
            true => item.frame.get_or_init(encode).clone(),
            false => encode(),
        };
        Some(EventFrame { kind, frame })
    }

    /// What the event is for whoever sees this view; `None` if nothing.
    fn verdict(&self, item: &RingItem, entry: &Entry) -> Option<Kind> {
        let plain = kind_of(item, entry)?;
        let Some(filter) = &self.filter else { return Some(plain) };
        let now = item.new.as_ref().map(|row| filter.matches(row));
        let before = match &item.old {
            // Nothing is written, somebody says that the row may be another: what subscribers had of it is not known.
            _ if matches!(entry.visible, VisibleChange::Same) => PriorRow::Unknown,
            RowBefore::Known(old) if filter.matches(old) => PriorRow::Matched,
            RowBefore::Known(_) | RowBefore::Absent => PriorRow::No,
            RowBefore::Unknown => PriorRow::Unknown,
        };
        match (plain, before, now) {
            (Kind::Committed, _, Some(false)) => None,
            (Kind::Failed | Kind::Invalidated | Kind::Committed, ..) => Some(plain),
            (Kind::Removed, PriorRow::No, _) => None,
            (Kind::Removed, ..) => Some(Kind::Removed),
            (Kind::Inserted, _, Some(false)) => None,
            (_, PriorRow::No, Some(true)) if plain == Kind::Changed => Some(Kind::Entered),
            (_, PriorRow::No, Some(false)) => None,
            (_, _, Some(false)) => Some(Kind::Left),
            (plain, ..) => Some(plain),
        }
    }

    /// Whether the verdict on an event needs the row before it, which is not known. What was not written is judged without.
    pub(super) fn is_blind(&self, item: &RingItem) -> bool {
        let needs = |entry: &Entry| {
            let told = matches!(entry.frame, Frame::Changed | Frame::Removed);
            // That a row was erased is told to everybody: nobody can tell any more who saw it.
            told && !matches!(entry.visible, VisibleChange::Same) && !entry.erased
        };
        self.filter.is_some() && item.old == RowBefore::Unknown && item.entry.as_ref().is_some_and(needs)
    }

    /// Whether a row is seen.
    pub(super) fn matches(&self, row: &impl Fields) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(row))
    }

    /// Whether every row is seen.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.filter.is_none()
    }

    /// What is shown of a row, `None` if nothing is.
    pub(super) fn shown<'a>(&self, row: impl Into<format::Bytes<'a>>) -> Option<Vec<u8>> {
        let row = self.records.then(|| self.writer.one(row))?;
        (row.len() <= MOST_RECORD).then_some(row)
    }

    /// Whether rows are shown whole, and as the ring has them.
    pub(super) fn newest(&self, id: &str, seq: u64, row: Option<&Body>) -> EventFrame {
        let row = row.filter(|row| self.matches(*row));
        let kind = if row.is_some() { Kind::Changed } else { Kind::Removed };
        let shown = row.and_then(|row| self.shown(row));
        let frame = frame::newest(self.encoding, kind, id, seq, row.map(|row| (row, shown.as_deref())));
        EventFrame { kind, frame }
    }
}

impl RecentEvents {
    fn keep(&mut self, slot: usize, at: u64, told: Option<EventFrame>) {
        let size = |told: &Option<EventFrame>| told.as_ref().map_or(0, |told| told.frame.len());
        self.bytes += size(&told);
        self.bytes -= size(&std::mem::replace(&mut self.told[slot], (at, told)).1);
        if self.bytes > MOST_REMEMBERED {
            let kept = std::mem::replace(&mut self.told[slot], (u64::MAX, None));
            self.told.fill((u64::MAX, None));
            self.bytes = size(&kept.1);
            self.told[slot] = kept;
        }
    }
}

/// What an event is for whoever sees everything. A change of a row that is not there is its removal.
fn kind_of(item: &RingItem, entry: &Entry) -> Option<Kind> {
    Some(match &entry.frame {
        Frame::Inserted => Kind::Inserted,
        Frame::Changed if is_gone(item, entry) => Kind::Removed,
        Frame::Changed => Kind::Changed,
        Frame::Removed => Kind::Removed,
        Frame::WriteFailed(_) => Kind::Failed,
        Frame::WriteCommitted => Kind::Committed,
        Frame::Invalidated { .. } => Kind::Invalidated,
        Frame::Silent => return None,
    })
}

/// An event read back from the journal knows no row but its own entry's.
fn is_gone(item: &RingItem, entry: &Entry) -> bool {
    match item.old {
        RowBefore::Unknown => matches!(entry.visible, VisibleChange::Gone),
        RowBefore::Absent | RowBefore::Known(_) => item.new.is_none(),
    }
}

/// The views of one Dio that somebody has.
#[derive(Debug, Default)]
pub(crate) struct EventViews(Mutex<HashMap<String, Weak<EventView>>>);

impl EventViews {
    /// The view of `query`, `encoding` and so on; equal ones are one. A new one that is not everything as it is counts for the
    /// caller who brings it.
    pub(super) async fn get(
        &self,
        rows: &ScopedRows,
        query: &Query,
        records: bool,
        encoding: Encoding,
        bounds: &Bounds,
    ) -> Result<Arc<EventView>, ApiError> {
        let query = &rows.narrow(query.clone());
        let key =
            format!("{encoding:?} {records} {:?} {:?} {:?} {:?}", rows.id(), query.filter, query.search, query.select);
        if let Some(view) = self.0.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(view);
        }
        let plain = query.is_unfiltered() && query.select.is_empty();
        let place = if plain { None } else { Some(bounds.lease_live()?) };
        let filter = prepared(rows, query, bounds).await?;
        let patterns = filter.as_ref().map_or(0, CompiledQuery::pattern_bytes);
        let leases = place.into_iter().chain(Some(bounds.lease_patterns(patterns)?)).collect();
        self.insert(key, EventView::new(query, filter, records, encoding, (rows.schema(), leases))?)
    }

    /// Keeps a view, unless an equal one is there by now.
    fn insert(&self, key: String, view: EventView) -> Result<Arc<EventView>, ApiError> {
        let mut views = self.0.lock();
        if let Some(view) = views.get(&key).and_then(Weak::upgrade) {
            return Ok(view);
        }
        if views.len() >= MOST_VIEWS {
            views.retain(|_, view| view.strong_count() > 0);
        }
        if views.len() >= MOST_VIEWS {
            let detail = format!("subscribers of this resource have {MOST_VIEWS} different filters already");
            return Err(
                ApiError::new(Code::TooManyViews, detail).hint("use a filter that others use, or filter yourself")
            );
        }
        let view = Arc::new(view);
        views.insert(key, Arc::downgrade(&view));
        Ok(view)
    }

    /// How many different ones there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().values().filter(|view| view.strong_count() > 0).count()
    }
}

/// The filter of `query`, if it has one; compiled off the async threads where that takes long.
pub(super) async fn prepared(
    rows: &ScopedRows,
    query: &Query,
    bounds: &Bounds,
) -> Result<Option<CompiledQuery>, ApiError> {
    if query.is_unfiltered() {
        return Ok(None);
    }
    if !query.filter.has_patterns() {
        return Ok(Some(query.prepare(rows.schema())));
    }
    let (query, schema) = (query.clone(), Arc::clone(rows.schema()));
    Ok(Some(bounds.run(rows.workers(), move || query.prepare(&schema)).await?))
}

#[cfg(test)]
mod tests;
