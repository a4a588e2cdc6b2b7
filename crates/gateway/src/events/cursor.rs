//! Cursor of one subscription in a Dio's event log, independent of the transport.
//!
//! A cursor stores no events. It reads from the ring, or in pieces from the journal once it has fallen behind the ring. If it
//! is too far behind, it sends the newest state of every changed row in place of the events; beyond that, it sends a `reset`.
//! So a slow reader does not affect others and uses bounded memory: [`BATCH_BYTES`] of frames in flight, or 10,000 ids.

mod ahead;
mod lag;
mod rows;

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use self::ahead::RowsAhead;
use self::lag::NewestStates;
use self::rows::Remaining;
use super::dispatch::{Route, Seek};
use super::frame::{self, Encoding, Hello, Kind, Reset};
use super::request::{Ops, SnapshotMode, StartPoint, Subscription};
use super::view::{EventFrame, EventView, ViewKind};
use crate::access::Verb;
use crate::http::bounds::Bounds;
use crate::http::problem::ApiError;
use crate::scope::Scope;
use diorama_core::dio::{CursorRead, EventLog, Position, Ring, RingItem};
use diorama_core::journal::Seq;

/// Maximum number of frames in one batch.
const BATCH: usize = 512;
/// Approximate size of one batch, in bytes.
const BATCH_BYTES: usize = 256 << 10;
/// Approximate number of bytes read from the journal at once.
const PIECE: usize = 64 << 10;
/// Lag in bytes beyond which a reader gets newest states in place of events.
const MOST_BEHIND: u64 = 4 << 20;

/// Frame to send.
#[derive(Clone, Debug)]
pub(super) struct OutgoingFrame {
    pub(super) frame: Bytes,
    /// Position that a client may resume from once it has this frame; `None` if there is none.
    pub(super) seq: Option<Seq>,
    /// True if the frame makes the client read everything again.
    pub(super) rereads: bool,
    /// True if the frame ends the wait of a long poll: events, rows and resets, but not the greeting and bookmarks.
    pub(super) is_event: bool,
}

impl OutgoingFrame {
    /// Creates a frame that ends the wait of a long poll.
    pub(super) fn event(frame: Bytes, seq: Option<Seq>) -> OutgoingFrame {
        OutgoingFrame { frame, seq, rereads: false, is_event: true }
    }

    /// Creates a frame that does not end the wait of a long poll.
    pub(super) fn control(frame: Bytes, seq: Option<Seq>) -> OutgoingFrame {
        OutgoingFrame { frame, seq, rereads: false, is_event: false }
    }
}

/// Reason for the end of a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CursorEnd {
    /// The Dio was closed.
    Closed,
    /// The reader was reset too often.
    Slow,
    /// Other access rules apply.
    Rules,
}

/// Events of the ring that a cursor reads.
enum RingEvents {
    /// All; it is woken at each.
    All(watch::Receiver<u64>),
    /// Those that the dispatch has found.
    Routed(Route),
}

/// Current work of a cursor.
enum CursorWork {
    /// Sends events in order.
    Follow,
    /// Sends the remaining rows of a snapshot.
    Rows(Remaining),
    /// Sends newest states in place of events.
    Newest(NewestStates),
}

/// Cursor of a subscription.
pub(super) struct EventCursor {
    log: EventLog,
    view: Arc<EventView>,
    /// Caller who gets the results of its own writes; `None` for an anonymous one.
    writer: Option<Arc<str>>,
    /// True if the caller may see the operations of all callers.
    governs: bool,
    ids: Option<HashSet<String>>,
    ops: Option<Ops>,
    snapshot: SnapshotMode,
    events: RingEvents,
    /// Number of the next item in the ring; `None` while the cursor reads from the journal.
    next: Option<u64>,
    /// Position up to which all events were sent or do not concern this subscriber.
    position: Position,
    /// Weight of the ring at the reader's position, from which the lag is measured. Events from before the subscription, and
    /// events during the replay of a resumed one, do not count as lag.
    mark: u64,
    /// True while the cursor replays past events after resuming.
    resuming: bool,
    work: CursorWork,
    /// Rows whose next events the reader has already.
    ahead: Option<Box<RowsAhead>>,
    greeting: Vec<OutgoingFrame>,
    resets: VecDeque<Instant>,
}

impl EventCursor {
    /// Opens a cursor at the start point of `subscription`. The first batch is the greeting.
    pub(super) async fn open(
        scope: &Scope,
        subscription: Subscription,
        encoding: Encoding,
        heartbeat: u64,
        bounds: &Bounds,
    ) -> Result<EventCursor, ApiError> {
        let log = scope.rows.log();
        let events = match scope.dispatch.route(scope, &subscription) {
            Some(route) => RingEvents::Routed(route),
            None => RingEvents::All(log.ring().watch()),
        };
        let kind = match &events {
            RingEvents::All(_) => ViewKind::Evaluated,
            RingEvents::Routed(route) => ViewKind::Routed { by_rule: route.is_by_rule() },
        };
        let kind = (subscription.records, encoding, kind);
        let view = scope.views.get(&scope.rows, &subscription.query, kind, bounds).await?;
        // Later events are in the ring. Events in the ring up to the position are skipped by their sequence number.
        let (mark, now) = (log.ring().weight(), log.position());
        let (position, gap) = match resolve(&log, &now, subscription.since.as_ref()).await {
            Ok(position) => (position, None),
            Err(gap) => (now.clone(), gap),
        };
        let resumed =
            gap.is_none() && matches!(&subscription.since, Some(StartPoint::Earliest | StartPoint::Position(_)));
        let snapshot = match subscription.snapshot {
            SnapshotMode::None => false,
            SnapshotMode::Full => true,
            SnapshotMode::Auto => subscription.since.is_none() || gap.is_some(),
        };
        // A snapshot shows the current rows, so events follow from the current position.
        let position = if snapshot { now.clone() } else { position };
        let next = log.ring().after(position.seq);
        let missed = next.map_or(now.seq.saturating_sub(position.seq), |next| log.ring().logged_from(next));
        let hello = Hello { dio: log.dio(), position: &position, resumed, missed, heartbeat, snapshot };
        let greeting =
            vec![OutgoingFrame::control(frame::hello(encoding, &hello), (!snapshot).then_some(position.seq))];
        let mut cursor = EventCursor {
            view,
            writer: scope.rows.principal().name().cloned(),
            governs: scope.grant.verbs().has(Verb::Operations),
            ids: subscription.ids,
            ops: subscription.ops,
            snapshot: subscription.snapshot,
            events,
            next,
            position,
            mark,
            resuming: next.is_none(),
            work: CursorWork::Follow,
            ahead: None,
            greeting,
            resets: VecDeque::new(),
            log,
        };
        if let Some(reason) = gap {
            let reset = frame::reset(encoding, reason, &cursor.position);
            cursor.greeting.push(OutgoingFrame::event(reset, (!snapshot).then_some(cursor.position.seq)));
        }
        if snapshot {
            let begin = cursor.begin_snapshot();
            cursor.greeting.push(begin);
        }
        Ok(cursor)
    }

    /// Position that a caught-up client may resume from; `None` during a snapshot.
    pub(super) fn bookmark(&self) -> Option<Position> {
        let position = || match self.seek() {
            Some(Seek::Ahead(place) | Seek::Nothing(place)) => {
                Position { seq: place.seq.max(self.position.seq), ..self.position.clone() }
            }
            Some(Seek::Here) | None => self.position.clone(),
        };
        (!matches!(self.work, CursorWork::Rows(_))).then(position)
    }

    /// Epoch of the cursor's positions.
    pub(super) fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.position.epoch)
    }

    fn encoding(&self) -> Encoding {
        self.view.encoding
    }

    /// Returns true if [`EventCursor::batch`] has something to do.
    pub(super) fn is_ready(&self) -> bool {
        let busy = !self.greeting.is_empty() || !matches!(self.work, CursorWork::Follow);
        let Some(next) = self.next.filter(|_| !busy) else { return true };
        let next = match self.seek() {
            Some(Seek::Here | Seek::Ahead(_)) => return true,
            Some(Seek::Nothing(place)) => place.number.max(next),
            None => next,
        };
        !matches!(self.log.ring().at(next), CursorRead::End)
    }

    /// Returns the next event that can concern the view; `None` if each may, or while the cursor does not follow the ring.
    fn seek(&self) -> Option<Seek> {
        match (&self.events, &self.work, self.next) {
            (RingEvents::Routed(route), CursorWork::Follow, Some(next)) => Some(route.seek(next)),
            _ => None,
        }
    }

    /// Moves the position over events that do not concern the view, from the event at cursor `next` on; returns the cursor of the next
    /// one that can.
    fn skip_from(&mut self, next: u64) -> u64 {
        let RingEvents::Routed(route) = &self.events else { return next };
        let (Seek::Ahead(place) | Seek::Nothing(place)) = route.seek(next) else { return next };
        if place.number <= next {
            return next;
        }
        self.position.seq = self.position.seq.max(place.seq);
        self.mark = self.mark.max(place.weight);
        self.ahead.take_if(|ahead| ahead.is_reached(place.seq));
        place.number
    }

    /// Waits until a routed cursor is ready. It notes its task first, so that no event is missed in between.
    fn poll_routed(&self, cx: &Context<'_>) -> Poll<()> {
        if let RingEvents::Routed(route) = &self.events {
            route.register(cx.waker());
        }
        if self.is_ready() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits until [`EventCursor::batch`] has something to do.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn ready(&mut self) {
        if let RingEvents::Routed(_) = &self.events {
            return poll_fn(|cx| self.poll_routed(cx)).await;
        }
        loop {
            if let RingEvents::All(head) = &mut self.events {
                head.borrow_and_update();
            }
            let is_ready = self.is_ready();
            let RingEvents::All(head) = &mut self.events else { return };
            if is_ready || head.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns the next batch of frames; it may be empty although more frames follow.
    pub(super) async fn batch(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        if !self.greeting.is_empty() {
            return Ok(std::mem::take(&mut self.greeting));
        }
        if self.resuming {
            self.resuming = self.next.is_none();
            self.mark = self.log.ring().weight();
        }
        if let (CursorWork::Follow, Some(next)) = (&self.work, self.next) {
            self.next = Some(self.skip_from(next));
        }
        match std::mem::replace(&mut self.work, CursorWork::Follow) {
            CursorWork::Rows(remaining) => Ok(self.rows(remaining)),
            CursorWork::Newest(newest) => Ok(self.newest(newest)),
            CursorWork::Follow if self.log.ring().weight().saturating_sub(self.mark) > MOST_BEHIND => {
                // Boxed because it is rare: the future of a cursor that keeps up stays small.
                Box::pin(self.conflate()).await
            }
            CursorWork::Follow => match self.next {
                Some(next) => self.follow(next),
                None => Box::pin(self.catch_up()).await,
            },
        }
    }

    // --- events ------------------------------------------------------------------------------------------------------

    fn follow(&mut self, mut next: u64) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        let (mut out, mut bytes) = (Vec::new(), 0);
        let ring = Arc::clone(self.log.ring());
        for _ in 0..BATCH {
            next = self.skip_from(next);
            match ring.at(next) {
                CursorRead::Item(item) if self.lacks_prior_row(&item) => return self.reset_because(Reset::Trimmed),
                CursorRead::Item(item) => {
                    bytes += self.take(&item, Some(next), &mut out);
                    next += 1;
                }
                CursorRead::End => break,
                CursorRead::Gone { .. } => {
                    self.next = None;
                    return Ok(out);
                }
                CursorRead::Closed if out.is_empty() => return Err(CursorEnd::Closed),
                CursorRead::Closed => break,
            }
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        self.next = Some(next);
        self.mark = ring.weight_before(next).unwrap_or_default().max(self.mark);
        Ok(out)
    }

    /// Reads a piece of the journal. The cursor returns to the ring once that has all later events.
    async fn catch_up(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        if self.ahead.as_ref().is_some_and(|ahead| ahead.needs_slots(self.position.seq)) {
            return self.conflate().await;
        }
        let Ok(Some(past)) = self.log.past(self.position.seq, PIECE).await else { return self.reset() };
        let mut out = Vec::new();
        let stuck = past.reached == self.position.seq;
        if past.items.iter().any(|item| self.lacks_prior_row(item)) {
            return self.reset_because(Reset::Trimmed);
        }
        for item in &past.items {
            self.take(item, None, &mut out);
        }
        self.position.seq = past.reached;
        self.next = self.log.ring().after(self.position.seq);
        if stuck && self.next.is_none() {
            return self.reset();
        }
        Ok(out)
    }

    /// Adds the frame of an event to `out`, if this subscriber gets one; returns its size.
    fn take(&mut self, item: &RingItem, at: Option<u64>, out: &mut Vec<OutgoingFrame>) -> usize {
        let Some(seq) = item.seq.filter(|seq| *seq > self.position.seq) else { return 0 };
        self.position.seq = seq;
        if self.has_row(item) {
            return 0;
        }
        let Some(sent) = self.frame_of(item, at) else { return 0 };
        let size = sent.frame.len();
        // Consecutive invalidations of everything are merged into one.
        if sent.rereads && out.last().is_some_and(|last| last.rereads) {
            out.pop();
        }
        out.push(sent);
        size
    }

    /// Returns true if the reader has the row of an event already.
    fn has_row(&mut self, item: &RingItem) -> bool {
        self.ahead.take_if(|ahead| item.seq.is_some_and(|seq| seq > 0 && ahead.is_reached(seq - 1)));
        self.ahead.as_ref().is_some_and(|ahead| ahead.has(item))
    }

    fn frame_of(&self, item: &RingItem, at: Option<u64>) -> Option<OutgoingFrame> {
        if !self.concerns(item) {
            return None;
        }
        let event = self.event_of(item, at)?;
        let wanted = self.ops.is_none_or(|ops| ops.has(event.kind));
        let rereads = event.kind == Kind::Invalidated && !item.covered();
        wanted.then(|| OutgoingFrame { rereads, ..OutgoingFrame::event(event.frame, item.seq) })
    }

    /// Returns the event as this subscriber sees it.
    pub(super) fn event_of(&self, item: &RingItem, at: Option<u64>) -> Option<EventFrame> {
        let is_own = || {
            let writer = item.entry.as_ref().and_then(|entry| entry.cause.principal.as_ref());
            self.governs || self.writer.is_some() && self.writer.as_ref() == writer
        };
        // A view without other subscribers caches no frames.
        let at = at.filter(|_| Arc::strong_count(&self.view) > 1);
        self.view.frame_of(item, at).filter(|event| !event.private || is_own())
    }

    /// Returns true if an event cannot be evaluated for this subscriber, because its entry has a format without the row before
    /// the change.
    pub(super) fn lacks_prior_row(&self, item: &RingItem) -> bool {
        let ahead = item.seq.is_some_and(|seq| seq > self.position.seq);
        ahead && self.concerns(item) && self.view.lacks_prior_row(item)
    }

    fn concerns(&self, item: &RingItem) -> bool {
        match (&self.ids, item.entry.as_ref().and_then(|entry| entry.id.as_deref())) {
            (Some(ids), Some(id)) => ids.contains(id),
            _ => true,
        }
    }
}

/// Returns the position after which a subscription begins, or the reason why it cannot resume. The error is `None` if the
/// subscription does not request past events.
async fn resolve(log: &EventLog, now: &Position, since: Option<&StartPoint>) -> Result<Position, Option<Reset>> {
    let from = match since {
        None | Some(StartPoint::Now) => return Err(None),
        Some(StartPoint::Earliest) => return Ok(Position { seq: log.earliest().await, ..now.clone() }),
        Some(StartPoint::Position(position)) => position.clone(),
    };
    if from.epoch != now.epoch {
        return Err(Some(Reset::Epoch));
    }
    if from.seq > now.seq {
        return Err(Some(Reset::Future));
    }
    if has(log.ring(), from.seq) {
        return Ok(from);
    }
    match log.past(from.seq, 1).await {
        Ok(Some(past)) if past.reached > from.seq => Ok(from),
        _ => Err(Some(Reset::Trimmed)),
    }
}

/// Returns true if the ring has all events after `seq`.
fn has(ring: &Ring, seq: Seq) -> bool {
    ring.after(seq).is_some()
}

#[cfg(test)]
mod ahead_tests;
#[cfg(test)]
mod dispatch_tests;
#[cfg(test)]
mod tests;
