//! One subscription: a cursor into a Dio's log, whatever carries its frames to the client.
//!
//! A cursor holds no events. It reads from the ring; where it has fallen behind that, from the journal, piece by piece. Too far
//! behind it gives the newest state of every row that changed in place of the events, and then a `reset`. So a slow reader
//! costs others nothing and the server a bounded number of bytes: [`BATCH_BYTES`] of frames under way, or 10,000 ids.

mod lag;
mod rows;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use self::lag::NewestStates;
use self::rows::Remaining;
use super::frame::{self, Encoding, Hello, Kind, Reset};
use super::request::{Ops, SnapshotMode, StartPoint, Subscription};
use super::view::EventView;
use crate::http::bounds::Bounds;
use crate::http::problem::ApiError;
use crate::scope::Scope;
use diorama_core::dio::{CursorRead, EventLog, Position, Ring, RingItem};
use diorama_core::journal::Seq;

/// Frames of one batch, at most.
const BATCH: usize = 512;
/// Bytes of one batch, about.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes read from the journal at once, about.
const PIECE: usize = 64 << 10;
/// A reader that is so many bytes behind gets the newest state in place of events.
const MOST_BEHIND: u64 = 4 << 20;

/// A frame on its way.
#[derive(Clone, Debug)]
pub(super) struct OutgoingFrame {
    pub(super) frame: Bytes,
    /// The position that a client may go on from once it has this frame.
    pub(super) seq: Option<Seq>,
    /// Whether it has the client read everything again.
    pub(super) rereads: bool,
    /// Whether it is what a poll waits for: events, rows and resets, but not the greeting and bookmarks.
    pub(super) is_event: bool,
}

impl OutgoingFrame {
    pub(super) fn news(frame: Bytes, seq: Option<Seq>) -> OutgoingFrame {
        OutgoingFrame { frame, seq, rereads: false, is_event: true }
    }

    pub(super) fn word(frame: Bytes, seq: Option<Seq>) -> OutgoingFrame {
        OutgoingFrame { frame, seq, rereads: false, is_event: false }
    }
}

/// Why a cursor has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CursorEnd {
    /// The Dio was closed.
    Closed,
    /// The reader was reset too often.
    Slow,
}

/// What a cursor is at.
enum CursorWork {
    /// Events, one after the other.
    Follow,
    /// The rows of a snapshot, from this slot on, or these.
    Rows(Remaining),
    /// Newest states in place of events.
    Newest(NewestStates),
}

/// A subscription.
pub(super) struct EventCursor {
    log: EventLog,
    view: Arc<EventView>,
    ids: Option<HashSet<String>>,
    ops: Option<Ops>,
    snapshot: SnapshotMode,
    head: watch::Receiver<u64>,
    /// The next item of the ring; `None` while it has to read from the journal.
    next: Option<u64>,
    /// Everything up to here was given or does not concern this subscriber.
    position: Position,
    /// The ring's weight where the reader is; what had happened before it came, or happens until it has read the past that it
    /// resumes from, does not count as lag.
    mark: u64,
    /// Whether it still reads the past that it resumes from.
    resuming: bool,
    work: CursorWork,
    greeting: Vec<OutgoingFrame>,
    resets: VecDeque<Instant>,
}

impl EventCursor {
    /// Begins where `subscription` says. The first batch is the greeting.
    pub(super) async fn open(
        scope: &Scope,
        subscription: Subscription,
        encoding: Encoding,
        heartbeat: u64,
        bounds: &Bounds,
    ) -> Result<EventCursor, ApiError> {
        let view = scope.views.get(&scope.rows, &subscription.query, subscription.records, encoding, bounds).await?;
        let log = scope.rows.log();
        let head = log.ring().watch();
        // What is published from here on is in the ring; what the ring has and readers saw before is skipped by position.
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
        // A snapshot shows what is there now.
        let position = if snapshot { now.clone() } else { position };
        let next = log.ring().after(position.seq);
        let missed = next.map_or(now.seq.saturating_sub(position.seq), |next| log.ring().told_from(next));
        let hello = Hello { dio: log.dio(), position: &position, resumed, missed, heartbeat, snapshot };
        let greeting = vec![OutgoingFrame::word(frame::hello(encoding, &hello), (!snapshot).then_some(position.seq))];
        let mut cursor = EventCursor {
            view,
            ids: subscription.ids,
            ops: subscription.ops,
            snapshot: subscription.snapshot,
            head,
            next,
            position,
            mark,
            resuming: next.is_none(),
            work: CursorWork::Follow,
            greeting,
            resets: VecDeque::new(),
            log,
        };
        if let Some(reason) = gap {
            let reset = frame::reset(encoding, reason, &cursor.position);
            cursor.greeting.push(OutgoingFrame::news(reset, (!snapshot).then_some(cursor.position.seq)));
        }
        if snapshot {
            let begin = cursor.begin_snapshot();
            cursor.greeting.push(begin);
        }
        Ok(cursor)
    }

    /// Where a client may go on that has got everything so far; nowhere in the midst of a snapshot.
    pub(super) fn bookmark(&self) -> Option<Position> {
        (!matches!(self.work, CursorWork::Rows(_))).then(|| self.position.clone())
    }

    /// The epoch of its positions.
    pub(super) fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.position.epoch)
    }

    fn encoding(&self) -> Encoding {
        self.view.encoding
    }

    /// Whether [`EventCursor::batch`] has something to do.
    pub(super) fn is_ready(&self) -> bool {
        let busy = !self.greeting.is_empty() || !matches!(self.work, CursorWork::Follow);
        busy || self.next.is_none_or(|next| !matches!(self.log.ring().at(next), CursorRead::End))
    }

    /// Waits until [`EventCursor::batch`] has something to do.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn ready(&mut self) {
        loop {
            self.head.borrow_and_update();
            if self.is_ready() || self.head.changed().await.is_err() {
                return;
            }
        }
    }

    /// What can be sent at once; it may be nothing, although there is more.
    pub(super) async fn batch(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        if !self.greeting.is_empty() {
            return Ok(std::mem::take(&mut self.greeting));
        }
        if self.resuming {
            self.resuming = self.next.is_none();
            self.mark = self.log.ring().weight();
        }
        match std::mem::replace(&mut self.work, CursorWork::Follow) {
            CursorWork::Rows(remaining) => Ok(self.rows(remaining)),
            CursorWork::Newest(newest) => Ok(self.newest(newest)),
            CursorWork::Follow if self.log.ring().weight().saturating_sub(self.mark) > MOST_BEHIND => {
                // Boxed, as whatever is rare: a cursor that keeps up is to be small.
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
            match ring.at(next) {
                CursorRead::Item(item) if self.is_blind(&item) => return self.reset_because(Reset::Trimmed),
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

    /// Reads a piece of the journal, until the ring has all that follows.
    async fn catch_up(&mut self) -> Result<Vec<OutgoingFrame>, CursorEnd> {
        let Ok(Some(past)) = self.log.past(self.position.seq, PIECE).await else { return self.reset() };
        let mut out = Vec::new();
        let stuck = past.reached == self.position.seq;
        if past.items.iter().any(|item| self.is_blind(item)) {
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

    /// Adds what is told of an event to `out`; gives its size.
    fn take(&mut self, item: &RingItem, at: Option<u64>, out: &mut Vec<OutgoingFrame>) -> usize {
        let Some(seq) = item.seq.filter(|seq| *seq > self.position.seq) else { return 0 };
        self.position.seq = seq;
        let Some(sent) = self.told(item, at) else { return 0 };
        let size = sent.frame.len();
        // To read everything again once is enough.
        if sent.rereads && out.last().is_some_and(|last| last.rereads) {
            out.pop();
        }
        out.push(sent);
        size
    }

    fn told(&self, item: &RingItem, at: Option<u64>) -> Option<OutgoingFrame> {
        if !self.concerns(item) {
            return None;
        }
        let told = self.view.tell(item, at)?;
        let wanted = self.ops.is_none_or(|ops| ops.has(told.kind));
        let rereads = told.kind == Kind::Invalidated && !item.covered();
        wanted.then(|| OutgoingFrame { rereads, ..OutgoingFrame::news(told.frame, item.seq) })
    }

    /// Whether nobody can tell what an event is for this subscriber, because its entry is of a format that does not keep the row
    /// before.
    fn is_blind(&self, item: &RingItem) -> bool {
        let ahead = item.seq.is_some_and(|seq| seq > self.position.seq);
        ahead && self.concerns(item) && self.view.is_blind(item)
    }

    fn concerns(&self, item: &RingItem) -> bool {
        match (&self.ids, item.entry.as_ref().and_then(|entry| entry.id.as_deref())) {
            (Some(ids), Some(id)) => ids.contains(id),
            _ => true,
        }
    }
}

/// The position after which a subscription begins; else why it cannot, `None` if it wants no past.
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

/// Whether the ring has everything after `seq`.
fn has(ring: &Ring, seq: Seq) -> bool {
    ring.after(seq).is_some()
}

#[cfg(test)]
mod tests;
