//! The event log's newest part in memory: a ring with cursors, not a queue per subscriber.
//!
//! Publishing costs the same however many listen; a receiver is a number. One that falls behind the ring is told how much it
//! missed and goes on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::event::{DioEvent, EventEntry, Position, event_of};
use crate::journal::Seq;
use crate::record::{Body, Layout, Record};
use crate::state::{Entry, Eraser, Frame};
use crate::vista::{Error, Result};

/// The row before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowBefore {
    /// There was none.
    Absent,
    /// It was this.
    Known(Body),
    /// Not known: the event was read back from an entry of format 1, or is not in the log.
    Unknown,
}

/// One event as the ring keeps it: owned copies, shared by all who read it.
#[derive(Debug)]
pub struct RingItem {
    /// Its position in the log, `None` for events that are only on the bus.
    pub seq: Option<Seq>,
    /// The event.
    pub event: DioEvent,
    /// The entry it comes from.
    pub entry: Option<Entry>,
    /// The row before.
    pub old: RowBefore,
    /// The row after.
    pub new: Option<Body>,
    /// The wire frame, made by the first who sends it.
    pub frame: OnceLock<Bytes>,
}

impl RingItem {
    /// An event of the log; `None` if nobody is told of `entry`.
    pub(crate) fn of(entry: Entry, old: RowBefore, new: Option<Body>) -> Option<RingItem> {
        let event = event_of(&entry.frame, entry.id.as_deref(), entry.cause.op)?;
        let (old, new) = if entry.erased { (RowBefore::Unknown, None) } else { (old, new) };
        Some(RingItem { seq: Some(entry.seq), event, entry: Some(entry), old, new, frame: OnceLock::new() })
    }

    /// An event of the log as its entry alone tells it, for entries that are read without the State that they led to.
    pub(crate) fn read_back(entry: Entry, layout: &Layout) -> Option<RingItem> {
        let old = match entry.former_row(layout) {
            None => RowBefore::Unknown,
            Some(None) => RowBefore::Absent,
            Some(Some(row)) => RowBefore::Known(row),
        };
        let new = entry.visible_body().cloned();
        RingItem::of(entry, old, new)
    }

    fn bus_only(event: DioEvent) -> RingItem {
        RingItem { seq: None, event, entry: None, old: RowBefore::Unknown, new: None, frame: OnceLock::new() }
    }

    fn size(&self) -> usize {
        let old = match &self.old {
            RowBefore::Known(body) => body.size(),
            RowBefore::Absent | RowBefore::Unknown => 0,
        };
        256 + old + 2 * self.new.as_ref().map_or(0, Body::size)
    }

    /// About what its frame has.
    fn weight(&self) -> u64 {
        (200 + self.new.as_ref().map_or(0, |body| body.json().len())) as u64
    }

    /// Columns whose values differ, when the row before is known.
    pub fn changed(&self) -> Option<Vec<String>> {
        let decode = |body: &Body| body.decode().unwrap_or_default();
        match (&self.old, &self.new) {
            (RowBefore::Known(old), Some(new)) => Some(differing(&decode(old), &decode(new))),
            _ => None,
        }
    }

    /// Whether an `Invalidated` only notes that everything was told already.
    pub fn covered(&self) -> bool {
        matches!(self.entry, Some(Entry { frame: Frame::Invalidated { covered: true }, .. }))
    }

    fn to_entry(&self, epoch: &Arc<str>) -> EventEntry {
        EventEntry {
            position: self.seq.map(|seq| Position { epoch: Arc::clone(epoch), seq }),
            event: self.event.clone(),
            record: self.new.as_ref().and_then(|body| body.decode().ok()),
            changed: self.changed(),
            origin: self.entry.as_ref().map(|entry| entry.cause.origin),
            op: self.entry.as_ref().and_then(|entry| entry.cause.op),
            covered: self.covered(),
        }
    }
}

fn differing(old: &Record, new: &Record) -> Vec<String> {
    let mut columns: Vec<String> = new
        .iter()
        .filter(|(column, value)| old.get(column) != Some(*value))
        .map(|(column, _)| column.clone())
        .collect();
    columns.extend(old.columns().filter(|column| !new.contains(column)).map(str::to_string));
    columns
}

/// Bounds of a ring; the oldest events go first.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Events, at most.
    pub events: usize,
    /// Bytes, at most (one event always fits).
    pub bytes: usize,
}

impl Default for RingLimits {
    /// 10,000 events, 16 MiB.
    fn default() -> Self {
        RingLimits { events: 10_000, bytes: 16 << 20 }
    }
}

/// The newest events of a Dio.
#[derive(Debug)]
pub struct Ring {
    limits: RingLimits,
    /// Every event of the log after this position was in the journal when the ring was made.
    pub(super) oldest: Seq,
    items: RwLock<Items>,
    head: watch::Sender<u64>,
    erased: AtomicU64,
}

#[derive(Debug)]
struct QueuedItem {
    item: Arc<RingItem>,
    /// Weight of all items before it.
    before: u64,
}

#[derive(Debug)]
struct Items {
    epoch: Arc<str>,
    queue: VecDeque<QueuedItem>,
    /// Number of the first item in the queue, counting all that ever were.
    first: u64,
    /// Weight of all items that ever were.
    weight: u64,
    bytes: usize,
    /// Every event of the log after this position is in the queue.
    floor: Seq,
    closed: bool,
}

/// What lies at a cursor.
#[derive(Debug)]
pub enum CursorRead {
    /// An event.
    Item(Arc<RingItem>),
    /// Nothing yet.
    End,
    /// Events that are gone; the next one there is has this number.
    Gone {
        /// How many are gone.
        missed: u64,
        /// Where to go on.
        next: u64,
    },
    /// Nothing any more.
    Closed,
}

impl Ring {
    /// An empty ring that stands for all events after `floor`.
    pub(crate) fn new(limits: RingLimits, epoch: Arc<str>, floor: Seq) -> Ring {
        let items = Items { epoch, queue: VecDeque::new(), first: 0, weight: 0, bytes: 0, floor, closed: false };
        Ring {
            limits,
            oldest: floor,
            items: RwLock::new(items),
            head: watch::Sender::new(0),
            erased: AtomicU64::new(0),
        }
    }

    /// Adds events of the log, then wakes everyone.
    pub(crate) fn push(&self, new: impl IntoIterator<Item = RingItem>) {
        let mut items = self.items.write();
        for item in new {
            items.bytes += item.size();
            let before = items.weight;
            items.weight += item.weight();
            items.queue.push_back(QueuedItem { item: Arc::new(item), before });
        }
        while items.queue.len() > self.limits.events || items.bytes > self.limits.bytes && items.queue.len() > 1 {
            let Some(old) = items.queue.pop_front() else { break };
            items.bytes -= old.item.size();
            items.first += 1;
            items.floor = old.item.seq.unwrap_or(items.floor);
        }
        let head = items.first + items.queue.len() as u64;
        drop(items);
        self.head.send_replace(head);
    }

    /// Adds an event that is not in the log.
    pub(crate) fn tell(&self, event: DioEvent) {
        self.push([RingItem::bus_only(event)]);
    }

    /// Erases rows from the events up to position `upto`, as the journal has them from now on.
    pub(crate) fn erase(&self, eraser: &mut Eraser, upto: Seq) {
        let mut items = self.items.write();
        let Items { queue, bytes, .. } = &mut *items;
        for kept in queue.iter_mut() {
            let Some(entry) = kept.item.entry.as_ref().filter(|entry| entry.seq <= upto) else { continue };
            if !eraser.concerns(entry) {
                continue;
            }
            let mut entry = entry.clone();
            let (before, old, new) = (kept.item.size(), kept.item.old.clone(), kept.item.new.clone());
            if eraser.erase(&mut entry)
                && let Some(item) = RingItem::of(entry, old, new)
            {
                *bytes = *bytes - before + item.size();
                kept.item = Arc::new(item);
            }
        }
        drop(items);
        self.erased.fetch_max(upto, Ordering::AcqRel);
    }

    /// The newest position from which rows were erased: what was made of the rows as they were up to there is not to be told any
    /// more.
    pub fn erased(&self) -> Seq {
        self.erased.load(Ordering::Acquire)
    }

    /// Nothing will be added any more.
    pub(crate) fn close(&self) {
        self.items.write().closed = true;
        self.head.send_modify(|_| {});
    }

    /// What lies at cursor `at`.
    pub fn at(&self, at: u64) -> CursorRead {
        let items = self.items.read();
        if at < items.first {
            return CursorRead::Gone { missed: items.first - at, next: items.first };
        }
        match items.queue.get((at - items.first) as usize) {
            Some(kept) => CursorRead::Item(Arc::clone(&kept.item)),
            None if items.closed => CursorRead::Closed,
            None => CursorRead::End,
        }
    }

    /// The cursor after the newest event.
    pub fn end(&self) -> u64 {
        let items = self.items.read();
        items.first + items.queue.len() as u64
    }

    /// The cursor of the first event after position `seq`, `None` if some of them are gone.
    pub fn after(&self, seq: Seq) -> Option<u64> {
        let items = self.items.read();
        if seq < items.floor {
            return None;
        }
        // Events that are only on the bus have no position: they count as the one before them.
        let mut last = items.floor;
        let skip = items.queue.iter().take_while(|kept| {
            last = kept.item.seq.unwrap_or(last);
            last <= seq
        });
        Some(items.first + skip.count() as u64)
    }

    /// Every event of the log after this position is in the ring.
    pub fn floor(&self) -> Seq {
        self.items.read().floor
    }

    /// How many events of the log are at cursor `at` and after it.
    pub fn told_from(&self, at: u64) -> u64 {
        let items = self.items.read();
        let skip = usize::try_from(at.saturating_sub(items.first)).unwrap_or(usize::MAX);
        items.queue.iter().skip(skip).filter(|kept| kept.item.seq.is_some()).count() as u64
    }

    /// About how many bytes all events have that were ever published; of two such sums, the difference is what lies between.
    pub fn weight(&self) -> u64 {
        self.items.read().weight
    }

    /// [`Ring::weight`] as it was before the event at cursor `at`, `None` if that is gone.
    pub fn weight_before(&self, at: u64) -> Option<u64> {
        let items = self.items.read();
        match items.queue.get(usize::try_from(at.checked_sub(items.first)?).ok()?) {
            Some(kept) => Some(kept.before),
            None => Some(items.weight),
        }
    }

    /// The log's epoch.
    pub fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.items.read().epoch)
    }

    /// Follows the cursor after the newest event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// How many wait for events.
    pub fn watchers(&self) -> usize {
        self.head.receiver_count()
    }
}

/// Receives a Dio's events from the moment it was made. Lag does not end it: it yields [`DioEvent::Lagged`] and goes on.
#[derive(Debug)]
pub struct EventReceiver {
    ring: Arc<Ring>,
    head: watch::Receiver<u64>,
    next: u64,
}

impl EventReceiver {
    pub(crate) fn new(ring: Arc<Ring>) -> EventReceiver {
        let head = ring.watch();
        let next = ring.end();
        EventReceiver { ring, head, next }
    }

    /// The next event; waits for it.
    ///
    /// # Errors
    /// [`Error::Closed`] once the Dio is closed and everything was received.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Result<DioEvent> {
        Ok(match self.advance().await? {
            Ok(item) => item.event.clone(),
            Err(missed) => DioEvent::Lagged { missed },
        })
    }

    /// [`EventReceiver::recv`] with the row, its differing columns and what brought it about.
    ///
    /// # Errors
    /// As [`EventReceiver::recv`].
    pub async fn recv_entry(&mut self) -> Result<EventEntry> {
        Ok(match self.advance().await? {
            Ok(item) => item.to_entry(&self.ring.epoch()),
            Err(missed) => EventEntry {
                position: None,
                event: DioEvent::Lagged { missed },
                record: None,
                changed: None,
                origin: None,
                op: None,
                covered: false,
            },
        })
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<DioEvent> {
        match self.ring.at(self.next) {
            CursorRead::Item(item) => {
                self.next += 1;
                Some(item.event.clone())
            }
            CursorRead::Gone { missed, next } => {
                self.next = next;
                Some(DioEvent::Lagged { missed })
            }
            CursorRead::End | CursorRead::Closed => None,
        }
    }

    async fn advance(&mut self) -> Result<Result<Arc<RingItem>, u64>> {
        loop {
            self.head.borrow_and_update();
            match self.ring.at(self.next) {
                CursorRead::Item(item) => {
                    self.next += 1;
                    return Ok(Ok(item));
                }
                CursorRead::Gone { missed, next } => {
                    self.next = next;
                    return Ok(Err(missed));
                }
                CursorRead::Closed => return Err(Error::Closed),
                CursorRead::End => self.head.changed().await.map_err(|_| Error::Closed)?,
            }
        }
    }
}
