//! The newest part of the event log in memory: a ring with cursors, not a queue per subscriber.
//!
//! The cost of publishing does not depend on the number of receivers; a receiver is a number. A receiver that falls
//! behind the ring gets the number of missed events and continues.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::event::{DioEvent, EventEntry, Position, event_of};
use crate::journal::Seq;
use crate::record::{Body, Layout, Member, Record};
use crate::state::{Entry, Eraser, Frame};
use crate::table::Slot;
use crate::vista::{Error, Result};

/// The row before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowBefore {
    /// There was no row.
    Absent,
    /// The row.
    Known(Body),
    /// The event was read back from an entry of format 1, or is not in the log.
    Unknown,
}

/// One event in the ring, shared by all readers.
#[derive(Debug)]
pub struct RingItem {
    /// Position in the log, `None` for events that are not in the log.
    pub seq: Option<Seq>,
    /// The event.
    pub event: DioEvent,
    /// Entry of the log, if the event is from the log.
    pub entry: Option<Entry>,
    /// The row before the change.
    pub old: RowBefore,
    /// The row after the change.
    pub new: Option<Body>,
    /// Slot of the row, if it is known: not for events that were read back from the journal.
    pub slot: Option<Slot>,
    /// The wire frame, built on first use.
    pub frame: OnceLock<Bytes>,
}

impl RingItem {
    /// Event of an entry of the log. `None` if `entry` is silent.
    pub(crate) fn of(entry: Entry, old: RowBefore, new: Option<Body>) -> Option<RingItem> {
        let event = event_of(&entry.frame, entry.id.as_deref(), entry.cause.op)?;
        let (old, new) = if entry.erased { (RowBefore::Unknown, None) } else { (old, new) };
        Some(RingItem { seq: Some(entry.seq), event, entry: Some(entry), old, new, slot: None, frame: OnceLock::new() })
    }

    /// Event of an entry without the State before it, for entries that are read back from the journal.
    pub(crate) fn read_back(entry: Entry, layout: &Layout) -> Option<RingItem> {
        let old = match entry.former_row(layout) {
            None => RowBefore::Unknown,
            Some(None) => RowBefore::Absent,
            Some(Some(row)) => RowBefore::Known(row),
        };
        let new = entry.visible_body().cloned();
        RingItem::of(entry, old, new)
    }

    fn unlogged(event: DioEvent) -> RingItem {
        let old = RowBefore::Unknown;
        RingItem { seq: None, event, entry: None, old, new: None, slot: None, frame: OnceLock::new() }
    }

    fn size(&self) -> usize {
        let old = match &self.old {
            RowBefore::Known(body) => body.size(),
            RowBefore::Absent | RowBefore::Unknown => 0,
        };
        256 + old + 2 * self.new.as_ref().map_or(0, Body::size)
    }

    /// Approximate bytes of the wire frame.
    fn weight(&self) -> u64 {
        (200 + self.new.as_ref().map_or(0, |body| body.json().len())) as u64
    }

    /// Columns whose values differ, if the row before the change is known.
    pub fn changed(&self) -> Option<Vec<String>> {
        let decode = |body: &Body| body.decode().unwrap_or_default();
        match (&self.old, &self.new) {
            (RowBefore::Known(old), Some(new)) => {
                Some(differing_members(old, new).unwrap_or_else(|| differing(&decode(old), &decode(new))))
            }
            _ => None,
        }
    }

    /// Returns true for an `Invalidated` whose differences were all published as row events before.
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

/// [`differing`] for rows whose members can be compared without decoding them; `None` for others.
fn differing_members(old: &Body, new: &Body) -> Option<Vec<String>> {
    let (old, new) = (old.members()?, new.members()?);
    let changed = new.iter().filter(|(name, value)| value_in(&old, name) != Some(*value));
    let gone = old.iter().filter(|(name, _)| value_in(&new, name).is_none());
    Some(changed.chain(gone).map(|(name, _)| name.to_string()).collect())
}

fn value_in<'b>(members: &[Member<'b>], name: &str) -> Option<&'b [u8]> {
    members.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
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

/// Bounds of a ring. The oldest events are dropped first.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Maximum number of events.
    pub events: usize,
    /// Maximum bytes. One event always fits.
    pub bytes: usize,
}

impl Default for RingLimits {
    /// Returns bounds of 10,000 events and 16 MiB.
    fn default() -> Self {
        RingLimits { events: 10_000, bytes: 16 << 20 }
    }
}

/// The newest events of a Dio.
#[derive(Debug)]
pub struct Ring {
    limits: RingLimits,
    /// Position after which the journal had every event when the ring was created.
    pub(super) oldest: Seq,
    items: RwLock<Items>,
    head: watch::Sender<u64>,
    erased: AtomicU64,
    observers: RwLock<Vec<Weak<dyn RingObserver>>>,
}

/// Follower of a ring that is called by the thread that adds events.
pub trait RingObserver: std::fmt::Debug + Send + Sync {
    /// Reads on: events were added, or the ring was closed. Calls may overlap. Writers wait for its return.
    fn advance(&self);
}

/// Place between two events of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingPlace {
    /// Cursor of the event after it.
    pub number: u64,
    /// Position of the last event of the log before it.
    pub seq: Seq,
    /// [`Ring::weight`] of the events before it.
    pub weight: u64,
}

/// An event in the ring.
#[derive(Debug)]
struct QueuedItem {
    item: Arc<RingItem>,
    /// Weight of all items before it.
    before: u64,
}

/// Contents of a ring.
#[derive(Debug)]
struct Items {
    epoch: Arc<str>,
    queue: VecDeque<QueuedItem>,
    /// Cursor of the first item in the queue: the number of items before it since the start.
    first: u64,
    /// Weight of all items since the start.
    weight: u64,
    bytes: usize,
    /// Position after which every event of the log is in the queue.
    floor: Seq,
    closed: bool,
}

/// Result of reading at a cursor.
#[derive(Debug)]
pub enum CursorRead {
    /// The event at the cursor.
    Item(Arc<RingItem>),
    /// No event yet.
    End,
    /// The event at the cursor was dropped.
    Gone {
        /// Number of dropped events from the cursor on.
        missed: u64,
        /// Cursor of the oldest event in the ring.
        next: u64,
    },
    /// No more events: the ring is closed.
    Closed,
}

impl Ring {
    /// An empty ring for the events after position `floor`.
    pub(crate) fn new(limits: RingLimits, epoch: Arc<str>, floor: Seq) -> Ring {
        let items = Items { epoch, queue: VecDeque::new(), first: 0, weight: 0, bytes: 0, floor, closed: false };
        Ring {
            limits,
            oldest: floor,
            items: RwLock::new(items),
            head: watch::Sender::new(0),
            erased: AtomicU64::new(0),
            observers: RwLock::default(),
        }
    }

    /// Adds events, then wakes all receivers.
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
        self.call_observers();
    }

    /// Adds an observer, which is called until it is dropped.
    pub fn observe(&self, observer: Weak<dyn RingObserver>) {
        let mut observers = self.observers.write();
        observers.retain(|known| known.strong_count() > 0);
        observers.push(observer);
    }

    fn call_observers(&self) {
        let observers = self.observers.read();
        observers.iter().filter_map(Weak::upgrade).for_each(|observer| observer.advance());
    }

    /// Adds an event that is not in the log.
    pub(crate) fn push_unlogged(&self, event: DioEvent) {
        self.push([RingItem::unlogged(event)]);
    }

    /// Erases rows from the events up to position `upto`, as a purge does in the journal.
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
                kept.item = Arc::new(RingItem { slot: kept.item.slot, ..item });
            }
        }
        drop(items);
        self.erased.fetch_max(upto, Ordering::AcqRel);
    }

    /// Newest position up to which rows were erased. Values derived from rows up to this position must not be sent any more.
    pub fn erased(&self) -> Seq {
        self.erased.load(Ordering::Acquire)
    }

    /// Closes the ring: no more events are added.
    pub(crate) fn close(&self) {
        self.items.write().closed = true;
        self.head.send_modify(|_| {});
        self.call_observers();
    }

    /// Reads at cursor `at`.
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

    /// Reads up to `most` events from cursor `at` on, each with the weight of the events before it. Empty if [`Ring::at`] yields no
    /// event there.
    pub fn read(&self, at: u64, most: usize) -> Vec<(Arc<RingItem>, u64)> {
        let items = self.items.read();
        let Some(skip) = at.checked_sub(items.first).and_then(|skip| usize::try_from(skip).ok()) else {
            return Vec::new();
        };
        items.queue.iter().skip(skip).take(most).map(|kept| (Arc::clone(&kept.item), kept.before)).collect()
    }

    /// Place after the newest event.
    pub fn tail(&self) -> RingPlace {
        let items = self.items.read();
        let seq = items.queue.iter().rev().find_map(|kept| kept.item.seq).unwrap_or(items.floor);
        RingPlace { number: items.first + items.queue.len() as u64, seq, weight: items.weight }
    }

    /// Cursor after the newest event.
    pub fn end(&self) -> u64 {
        let items = self.items.read();
        items.first + items.queue.len() as u64
    }

    /// Cursor of the first event after position `seq`, `None` if some of these events were dropped.
    pub fn after(&self, seq: Seq) -> Option<u64> {
        let items = self.items.read();
        if seq < items.floor {
            return None;
        }
        // Events that are not in the log have no position: they have that of the event before them.
        let mut last = items.floor;
        let skip = items.queue.iter().take_while(|kept| {
            last = kept.item.seq.unwrap_or(last);
            last <= seq
        });
        Some(items.first + skip.count() as u64)
    }

    /// Position after which every event of the log is in the ring.
    pub fn floor(&self) -> Seq {
        self.items.read().floor
    }

    /// Number of events of the log at cursor `at` and after it.
    pub fn logged_from(&self, at: u64) -> u64 {
        let items = self.items.read();
        let skip = usize::try_from(at.saturating_sub(items.first)).unwrap_or(usize::MAX);
        items.queue.iter().skip(skip).filter(|kept| kept.item.seq.is_some()).count() as u64
    }

    /// Approximate bytes of all events since the start. The difference of two such sums is the size of the events between.
    pub fn weight(&self) -> u64 {
        self.items.read().weight
    }

    /// [`Ring::weight`] before the event at cursor `at`, `None` if that event was dropped.
    pub fn weight_before(&self, at: u64) -> Option<u64> {
        let items = self.items.read();
        match items.queue.get(usize::try_from(at.checked_sub(items.first)?).ok()?) {
            Some(kept) => Some(kept.before),
            None => Some(items.weight),
        }
    }

    /// Epoch of the log.
    pub fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.items.read().epoch)
    }

    /// Watches the cursor after the newest event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Number of receivers that watch the ring.
    pub fn watchers(&self) -> usize {
        self.head.receiver_count()
    }
}

/// Receiver of the events that are published after its creation.
///
/// A receiver that lags yields [`DioEvent::Lagged`] and continues.
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

    /// Waits for the next event.
    ///
    /// # Errors
    /// [`Error::Closed`] once the Dio is closed and all events were received.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Result<DioEvent> {
        Ok(match self.advance().await? {
            Ok(item) => item.event.clone(),
            Err(missed) => DioEvent::Lagged { missed },
        })
    }

    /// [`EventReceiver::recv`] with the row, its differing columns, the origin and the operation.
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

    /// Returns the next event without waiting, `None` if there is none.
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
