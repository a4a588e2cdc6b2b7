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

/// Maximum number of evaluated views of one Dio.
const MOST_EVALUATED: usize = 1_000;
/// Smallest number of views at which those without subscribers are forgotten.
const SWEEP: usize = 64;
/// Size in bytes beyond which a row is not sent with its event; clients can read it by id.
const MOST_RECORD: usize = 256 << 10;

/// Kind of a view by the events that its subscribers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ViewKind {
    /// Every event of the ring, which the view evaluates.
    Evaluated,
    /// Those that the dispatch finds.
    Routed {
        /// True if an access rule alone decides which.
        by_rule: bool,
    },
}

impl ViewKind {
    /// Returns the number of events whose frames a view caches, and the maximum size of these frames in bytes. Subscribers who are
    /// told of an event read it at about the same time, and routed views are many.
    fn cached(self) -> (u64, usize) {
        match self {
            ViewKind::Evaluated => (256, 1 << 20),
            ViewKind::Routed { .. } => (16, 16 << 10),
        }
    }
}

/// Event as a subscriber sees it: its kind and frame.
#[derive(Clone, Debug)]
pub(crate) struct EventFrame {
    pub(crate) kind: Kind,
    pub(crate) frame: Bytes,
    /// True if only the writer and callers who may see all operations get it.
    pub(super) private: bool,
}

/// View of subscribers on a Dio's events.
#[derive(Debug)]
pub(crate) struct EventView {
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
    kind: ViewKind,
    recent: Mutex<RecentEvents>,
    /// Shares of the gateway's budgets.
    _leases: Vec<Lease>,
}

/// Cached frames of the newest events. The event with number `n` is at index `n % frames.len()`.
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
        (records, encoding, kind): (bool, Encoding, ViewKind),
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
            kind,
            recent: Mutex::default(),
            _leases: leases,
        })
    }

    /// Creates a view for one subscriber, which shares it with no other: whole frames in JSON.
    ///
    /// # Errors
    /// A projection that is not possible.
    pub(crate) fn unshared(rows: &ScopedRows, query: &Query) -> Result<EventView, ApiError> {
        let filter = (!query.is_unfiltered()).then(|| query.prepare(rows.full_schema()));
        EventView::new(rows, query, filter, (true, Encoding::Json, ViewKind::Evaluated), Vec::new())
    }

    /// Returns the frame of an event; `None` if the view does not show it. `at` is the event's number in the ring, `None` if it
    /// was read from the journal.
    pub(crate) fn frame_of(&self, item: &RingItem, at: Option<u64>) -> Option<EventFrame> {
        let entry = item.entry.as_ref()?;
        // A cached frame could contain a row that was erased since.
        if entry.erased || self.is_unfiltered() && self.uses_ring_frames() {
            return self.build(item, entry);
        }
        let Some(at) = at else { return self.build(item, entry) };
        let (events, bytes) = self.kind.cached();
        let slot = usize::try_from(at % events).unwrap_or_default();
        let mut recent = self.recent.lock();
        if recent.frames.is_empty() {
            recent.frames.resize(events as usize, (u64::MAX, None));
        }
        if recent.frames[slot].0 == at {
            return recent.frames[slot].1.clone();
        }
        let frame = self.build(item, entry);
        recent.keep(slot, at, frame.clone(), bytes);
        frame
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
        let sees = |row: &Body| self.scope.sees(row);
        let (old, new) = (known_before(item), item.new.as_ref());
        let (sees_old, sees_new) = (old.map(sees), new.map(sees));
        if self.hides(item, sees_old, sees_new) {
            return None;
        }
        if self.is_unfiltered() {
            return Some(plain);
        }
        let passes = |row: &Body| self.filter.as_ref().is_none_or(|filter| filter.matches(row));
        let now = new.map(|row| sees_new == Some(true) && passes(row));
        let before = match &item.old {
            // An invalidation without a write: the row that subscribers have is unknown.
            _ if matches!(entry.visible, VisibleChange::Same) => PriorRow::Unknown,
            RowBefore::Known(old) if sees_old == Some(true) && passes(old) => PriorRow::Matched,
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
    /// have changed. `sees_old` and `sees_new` are true if the rows that are known are in the scope.
    fn hides(&self, item: &RingItem, sees_old: Option<bool>, sees_new: Option<bool>) -> bool {
        if self.scope.is_everything() {
            return false;
        }
        let [seen_before, seen_now] = [sees_old, sees_new].map(|sees| sees.unwrap_or(self.scope.has_all_rows()));
        if !seen_before && !seen_now {
            return true;
        }
        match (known_before(item), &item.new) {
            (Some(old), Some(new)) if seen_before && seen_now => {
                let is_whole = self.scope.columns().is_none();
                !is_whole && old != new && self.scope.version(old) == self.scope.version(new)
            }
            _ => false,
        }
    }

    /// Returns true if evaluating an event needs the row before it, which is unknown. Events without a write do not need it.
    pub(crate) fn lacks_prior_row(&self, item: &RingItem) -> bool {
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
    /// Stores the frame of event `at`. If all frames together have more than `most` bytes, only this one stays, or none.
    fn keep(&mut self, slot: usize, at: u64, frame: Option<EventFrame>, most: usize) {
        let size = |frame: &Option<EventFrame>| frame.as_ref().map_or(0, |event| event.frame.len());
        self.bytes += size(&frame);
        self.bytes -= size(&std::mem::replace(&mut self.frames[slot], (at, frame)).1);
        if self.bytes > most {
            let kept = std::mem::replace(&mut self.frames[slot], (u64::MAX, None));
            self.frames.fill((u64::MAX, None));
            self.bytes = size(&kept.1);
            if self.bytes > most {
                self.bytes = 0;
            } else {
                self.frames[slot] = kept;
            }
        }
    }
}

/// Returns the row before an event, if there was one and it is known.
fn known_before(item: &RingItem) -> Option<&Body> {
    match &item.old {
        RowBefore::Known(old) => Some(old),
        RowBefore::Absent | RowBefore::Unknown => None,
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
pub(crate) struct EventViews {
    evaluated: Mutex<ViewMap>,
    routed: Mutex<ViewMap>,
}

/// Views by their parameters.
#[derive(Debug, Default)]
struct ViewMap {
    views: HashMap<String, Weak<EventView>>,
    /// Number of views at which those without subscribers are forgotten.
    sweep_at: usize,
}

impl EventViews {
    /// Returns the view with these parameters, which is shared with equal ones. A new view with a filter or projection is charged
    /// to the caller's budget, unless it is that of an access rule by which events are dispatched.
    pub(super) async fn get(
        &self,
        rows: &ScopedRows,
        query: &Query,
        (records, encoding, kind): (bool, Encoding, ViewKind),
        bounds: &Bounds,
    ) -> Result<Arc<EventView>, ApiError> {
        let governs = rows.grant().verbs().has(Verb::Operations);
        let own = format!("{encoding:?} {records} {governs} {:?} {:?} {:?}", query.filter, query.search, query.select);
        let key = format!("{own} {:?}", rows.id());
        let (views, most) = match kind {
            ViewKind::Evaluated => (&self.evaluated, MOST_EVALUATED),
            ViewKind::Routed { .. } => (&self.routed, bounds.most_routed_views()),
        };
        if let Some(view) = views.lock().views.get(&key).and_then(Weak::upgrade) {
            return Ok(view);
        }
        let is_whole = query.is_unfiltered() && query.select.is_empty();
        let is_free = is_whole && (rows.is_everything() || kind == ViewKind::Routed { by_rule: true });
        let place = if is_free { None } else { Some(bounds.lease_live()?) };
        let filter = compile_filter(rows, query, bounds).await?;
        let patterns = filter.as_ref().map_or(0, CompiledQuery::pattern_bytes);
        let leases = place.into_iter().chain(Some(bounds.lease_patterns(patterns)?)).collect();
        let view = EventView::new(rows, query, filter, (records, encoding, kind), leases)?;
        views.lock().insert(key, view, most)
    }

    /// Number of different views.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        [&self.evaluated, &self.routed].map(|views| views.lock().live()).iter().sum()
    }
}

impl ViewMap {
    /// Stores a view, or returns an equal one that was stored meanwhile.
    fn insert(&mut self, key: String, view: EventView, most: usize) -> Result<Arc<EventView>, ApiError> {
        if let Some(view) = self.views.get(&key).and_then(Weak::upgrade) {
            return Ok(view);
        }
        if self.views.len() >= self.sweep_at.max(SWEEP).min(most) {
            self.views.retain(|_, view| view.strong_count() > 0);
            self.sweep_at = 2 * self.views.len();
        }
        if self.views.len() >= most {
            let detail = format!("subscribers of this resource have {most} different scopes and filters already");
            return Err(ApiError::new(Code::TooManyViews, detail)
                .hint("use the same filter as other subscribers, or filter at the client"));
        }
        let view = Arc::new(view);
        self.views.insert(key, Arc::downgrade(&view));
        Ok(view)
    }

    #[cfg(test)]
    fn live(&self) -> usize {
        self.views.values().filter(|view| view.strong_count() > 0).count()
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
