//! Views of subscribers on a Dio's events: scope, filter, projection and encoding.
//!
//! A view sends the events that a Dio of the visible rows and columns alone would have: a row that enters or leaves the scope is sent
//! as one that enters or leaves a filter, and changes of hidden columns are not sent. Equal views of one Dio share one [`EventView`].
//! The first subscriber that reaches an event evaluates the filter and builds the frame for all. A frame that no projection or filter
//! changes is cached in the ring, for all views.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::frame::{self, Encoding, Kind, VisiblePart};
use crate::access::{Verb, View};
use crate::http::bounds::Bounds;
use crate::http::budget::Lease;
use crate::http::problem::{ApiError, Code};
use crate::rows::format::{self, Writer};
use crate::rows::scoped_rows::ScopedRows;
use diorama_core::dio::{RingItem, RowBefore};
use diorama_core::record::Body;
use diorama_core::state::{Entry, Frame, VisibleChange};
use diorama_core::vista::Query;
use diorama_core::vista::query::{CompiledQuery, Fields};

/// Maximum number of views of one Dio.
const MOST_VIEWS: usize = 1_000;
/// Number of events whose frames a view caches; a power of two.
const REMEMBERED: u64 = 256;
/// Maximum size of the frames that a view caches, in bytes.
const MOST_REMEMBERED: usize = 1 << 20;
/// Size in bytes beyond which a row is not sent with its event; clients can read it by id.
const MOST_RECORD: usize = 256 << 10;

/// Event as a subscriber sees it: its kind and frame.
#[derive(Clone, Debug)]
pub(super) struct EventFrame {
    pub(super) kind: Kind,
    pub(super) frame: Bytes,
    /// True if only the writer and callers who may see all operations get it.
    pub(super) private: bool,
}

/// View of subscribers on a Dio's events.
#[derive(Debug)]
pub(super) struct EventView {
    pub(super) encoding: Encoding,
    /// Visible rows and columns.
    scope: Arc<View>,
    /// True if the subscribers may see the operations of all callers.
    governs: bool,
    /// Filter of the subscribers.
    filter: Option<CompiledQuery>,
    writer: Writer,
    projected: bool,
    records: bool,
    recent: Mutex<RecentEvents>,
    /// Shares of the gateway's budgets.
    _leases: Vec<Lease>,
}

/// Cached frames of the newest events. The event with number `n` is at index `n % REMEMBERED`.
#[derive(Debug, Default)]
struct RecentEvents {
    frames: Vec<(u64, Option<EventFrame>)>,
    bytes: usize,
}

/// State of a row before an event.
#[derive(Clone, Copy)]
enum PriorRow {
    Matched,
    NotMatched,
    Unknown,
}

impl EventView {
    fn new(
        rows: &ScopedRows,
        query: &Query,
        filter: Option<CompiledQuery>,
        (records, encoding): (bool, Encoding),
        leases: Vec<Lease>,
    ) -> Result<EventView, ApiError> {
        let query = rows.narrow(query.clone());
        Ok(EventView {
            encoding,
            scope: Arc::clone(rows.view()),
            governs: rows.grant().verbs().has(Verb::Operations),
            filter,
            writer: Writer::new(encoding.of_rows(), &query, rows.schema())?,
            projected: !query.select.is_empty(),
            records,
            recent: Mutex::default(),
            _leases: leases,
        })
    }

    /// Returns the frame of an event; `None` if the view does not show it. `at` is the event's number in the ring, `None` if it
    /// was read from the journal.
    pub(super) fn frame_of(&self, item: &RingItem, at: Option<u64>) -> Option<EventFrame> {
        let entry = item.entry.as_ref()?;
        // A cached frame could contain a row that was erased since.
        if entry.erased || self.is_unfiltered() && self.uses_ring_frames() {
            return self.build(item, entry);
        }
        let Some(at) = at else { return self.build(item, entry) };
        let slot = usize::try_from(at % REMEMBERED).unwrap_or_default();
        let mut recent = self.recent.lock();
        if recent.frames.is_empty() {
            recent.frames.resize(REMEMBERED as usize, (u64::MAX, None));
        }
        if recent.frames[slot].0 != at {
            let frame = self.build(item, entry);
            recent.keep(slot, at, frame);
        }
        recent.frames[slot].1.clone()
    }

    /// Returns true if frames can be shared through the ring.
    fn uses_ring_frames(&self) -> bool {
        self.encoding == Encoding::Json && self.records && !self.projected
    }

    fn build(&self, item: &RingItem, entry: &Entry) -> Option<EventFrame> {
        let kind = self.verdict(item, entry)?;
        let encode = || frame::event(self.encoding, kind, item, entry, &self.visible_part(kind, item, entry));
        let own =
            matches!(kind, Kind::Entered | Kind::Left) || !kind_of(item, entry).is_some_and(|plain| plain == kind);
        let frame = match self.uses_ring_frames() && !own {
            true => item.frame.get_or_init(encode).clone(),
            false => encode(),
        };
        Some(EventFrame { kind, frame, private: self.is_private(kind, item) })
    }

    fn visible_part(&self, kind: Kind, item: &RingItem, entry: &Entry) -> VisiblePart {
        let mut part = VisiblePart::default();
        if let (Kind::Inserted | Kind::Entered | Kind::Changed, Some(row)) = (kind, &item.new) {
            (part.row, part.version) = (self.shown(row), self.scope.version(row));
        }
        if let (Kind::Changed, Frame::Changed, Some(mut changed)) = (kind, &entry.frame, item.changed()) {
            changed.retain(|column| self.scope.shows(column));
            part.changed = Some(changed);
        }
        // The source may quote values of hidden columns.
        part.detail = (!self.governs && self.scope.columns().is_some()).then_some("the source refused the write");
        part
    }

    /// Returns true if only the writer and callers who may see all operations get the event: a failure, and the commit of a write whose
    /// row or columns may be hidden.
    fn is_private(&self, kind: Kind, item: &RingItem) -> bool {
        let is_visible = || self.scope.columns().is_none() && self.sees_all_of(item.new.as_ref());
        kind == Kind::Failed || kind == Kind::Committed && !is_visible()
    }

    /// Returns true if a row is in the scope, or if all rows are.
    fn sees_all_of(&self, row: Option<&Body>) -> bool {
        self.scope.has_all_rows() || row.is_some_and(|row| self.scope.sees(row))
    }

    /// Returns the kind of the event in this view; `None` if the view does not show it.
    fn verdict(&self, item: &RingItem, entry: &Entry) -> Option<Kind> {
        let plain = kind_of(item, entry)?;
        if matches!(plain, Kind::Failed | Kind::Invalidated) {
            return Some(plain);
        }
        let filtered_out = |filter: &CompiledQuery| item.new.as_ref().is_some_and(|row| !filter.matches(row));
        if plain == Kind::Committed {
            return (!self.filter.as_ref().is_some_and(filtered_out)).then_some(plain);
        }
        if self.hides(item) {
            return None;
        }
        if self.is_unfiltered() {
            return Some(plain);
        }
        let now = item.new.as_ref().map(|row| self.matches(row));
        let before = match &item.old {
            // An invalidation without a write: the row that subscribers have is unknown.
            _ if matches!(entry.visible, VisibleChange::Same) => PriorRow::Unknown,
            RowBefore::Known(old) if self.matches(old) => PriorRow::Matched,
            RowBefore::Known(_) | RowBefore::Absent => PriorRow::NotMatched,
            RowBefore::Unknown => PriorRow::Unknown,
        };
        match (plain, before, now) {
            (Kind::Removed, PriorRow::NotMatched, _) => None,
            (Kind::Removed, ..) => Some(Kind::Removed),
            (Kind::Inserted, _, Some(false)) => None,
            (_, PriorRow::NotMatched, Some(true)) if plain == Kind::Changed => Some(Kind::Entered),
            (_, PriorRow::NotMatched, Some(false)) => None,
            (_, _, Some(false)) => Some(Kind::Left),
            (plain, ..) => Some(plain),
        }
    }

    /// Returns true if an event of a row must not be sent: the row is in the scope neither before nor after it, or only hidden columns
    /// have changed.
    fn hides(&self, item: &RingItem) -> bool {
        if self.scope.is_everything() {
            return false;
        }
        let new = item.new.as_ref();
        let (old, seen_before) = match &item.old {
            RowBefore::Known(old) => (Some(old), self.sees_all_of(Some(old))),
            RowBefore::Absent | RowBefore::Unknown => (None, self.scope.has_all_rows()),
        };
        if !seen_before && !self.sees_all_of(new) {
            return true;
        }
        match (old, new) {
            (Some(old), Some(new)) if seen_before && self.sees_all_of(Some(new)) => {
                old != new && self.scope.version(old) == self.scope.version(new)
            }
            _ => false,
        }
    }

    /// Returns true if evaluating an event needs the row before it, which is unknown. Events without a write do not need it.
    pub(super) fn lacks_prior_row(&self, item: &RingItem) -> bool {
        let needs = |entry: &Entry| {
            let is_removal = entry.frame == Frame::Removed;
            // Whether an erased row was in the scope is not known any more. Subscribers who may see all rows get its removal.
            if entry.erased {
                return is_removal && !self.scope.has_all_rows();
            }
            let by_columns = self.scope.columns().is_some() && !is_removal;
            let is_change = is_removal || entry.frame == Frame::Changed;
            is_change && !matches!(entry.visible, VisibleChange::Same) && (by_columns || !self.is_unfiltered())
        };
        item.old == RowBefore::Unknown && item.entry.as_ref().is_some_and(needs)
    }

    /// Returns true if the row is in the scope and passes the filter.
    pub(super) fn matches(&self, row: &impl Fields) -> bool {
        self.scope.sees(row) && self.filter.as_ref().is_none_or(|filter| filter.matches(row))
    }

    /// Returns true if some rows or columns are not in the scope.
    pub(super) fn is_scoped(&self) -> bool {
        !self.scope.is_everything()
    }

    /// Returns true if all rows are in the scope and pass the filter.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.filter.is_none() && self.scope.has_all_rows()
    }

    /// Encodes a row; `None` if rows are not sent or the row is too large.
    pub(super) fn shown<'a>(&self, row: impl Into<format::Bytes<'a>>) -> Option<Vec<u8>> {
        let row = self.records.then(|| self.writer.one(row))?;
        (row.len() <= MOST_RECORD).then_some(row)
    }

    /// Builds the frame of a row's newest state: changed, or removed if the row does not exist or does not match.
    pub(super) fn newest(&self, id: &str, seq: u64, row: Option<&Body>) -> EventFrame {
        let row = row.filter(|row| self.matches(*row));
        let kind = if row.is_some() { Kind::Changed } else { Kind::Removed };
        let shown = row.and_then(|row| self.shown(row));
        let frame =
            frame::newest(self.encoding, kind, id, seq, row.map(|row| (self.scope.version(row), shown.as_deref())));
        EventFrame { kind, frame, private: false }
    }
}

impl RecentEvents {
    fn keep(&mut self, slot: usize, at: u64, frame: Option<EventFrame>) {
        let size = |frame: &Option<EventFrame>| frame.as_ref().map_or(0, |event| event.frame.len());
        self.bytes += size(&frame);
        self.bytes -= size(&std::mem::replace(&mut self.frames[slot], (at, frame)).1);
        if self.bytes > MOST_REMEMBERED {
            let kept = std::mem::replace(&mut self.frames[slot], (u64::MAX, None));
            self.frames.fill((u64::MAX, None));
            self.bytes = size(&kept.1);
            self.frames[slot] = kept;
        }
    }
}

/// Returns the kind of an event in an unfiltered view. A change of a row that no longer exists is a removal.
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

/// Returns true if the row no longer exists. An event from the journal has no rows other than those in its entry.
fn is_gone(item: &RingItem, entry: &Entry) -> bool {
    match item.old {
        RowBefore::Unknown => matches!(entry.visible, VisibleChange::Gone),
        RowBefore::Absent | RowBefore::Known(_) => item.new.is_none(),
    }
}

/// Views of one Dio that have subscribers.
#[derive(Debug, Default)]
pub(crate) struct EventViews(Mutex<HashMap<String, Weak<EventView>>>);

impl EventViews {
    /// Returns the view with these parameters, which is shared with equal ones. A new view with a filter or projection is charged
    /// to the caller's budget.
    pub(super) async fn get(
        &self,
        rows: &ScopedRows,
        query: &Query,
        records: bool,
        encoding: Encoding,
        bounds: &Bounds,
    ) -> Result<Arc<EventView>, ApiError> {
        let governs = rows.grant().verbs().has(Verb::Operations);
        let own = format!("{encoding:?} {records} {governs} {:?} {:?} {:?}", query.filter, query.search, query.select);
        let key = format!("{own} {:?}", rows.id());
        if let Some(view) = self.0.lock().get(&key).and_then(Weak::upgrade) {
            return Ok(view);
        }
        let plain = query.is_unfiltered() && query.select.is_empty() && rows.is_everything();
        let place = if plain { None } else { Some(bounds.lease_live()?) };
        let filter = compile_filter(rows, query, bounds).await?;
        let patterns = filter.as_ref().map_or(0, CompiledQuery::pattern_bytes);
        let leases = place.into_iter().chain(Some(bounds.lease_patterns(patterns)?)).collect();
        self.insert(key, EventView::new(rows, query, filter, (records, encoding), leases)?)
    }

    /// Stores a view, or returns an equal one that was stored meanwhile.
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
            return Err(ApiError::new(Code::TooManyViews, detail)
                .hint("use the same filter as other subscribers, or filter at the client"));
        }
        let view = Arc::new(view);
        views.insert(key, Arc::downgrade(&view));
        Ok(view)
    }

    /// Number of different views.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().values().filter(|view| view.strong_count() > 0).count()
    }
}

/// Compiles the filter of `query`; `None` if it has none. Patterns are compiled on a worker thread.
pub(super) async fn compile_filter(
    rows: &ScopedRows,
    query: &Query,
    bounds: &Bounds,
) -> Result<Option<CompiledQuery>, ApiError> {
    if query.is_unfiltered() {
        return Ok(None);
    }
    if !query.filter.has_patterns() {
        return Ok(Some(query.prepare(rows.full_schema())));
    }
    let (query, schema) = (query.clone(), Arc::clone(rows.full_schema()));
    Ok(Some(bounds.run(rows.workers(), move || query.prepare(&schema)).await?))
}

#[cfg(test)]
mod tests;
