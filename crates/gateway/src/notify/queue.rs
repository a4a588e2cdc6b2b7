//! [`SendQueue`]: deliveries of one notification that are not settled, without clock, network or storage.
//!
//! Deliveries of one row are sent in their order, one at a time. A delivery is *fresh* until its first attempt has ended: it is in memory
//! only, and the mark stays before its event. One that fails moves aside: it is stored, and so are the later ones of its row, so that
//! the mark can pass them. While the outbox has no room, it stays fresh instead, and the window fills.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::mark::SendMark;
use diorama_core::journal::{Delivery, DeliveryId, DeliveryState, RawRequest, Seq, StoredDelivery};
use diorama_core::record::Id;

/// Maximum number of fresh deliveries.
const WINDOW: usize = 256;
/// Maximum size of their messages in bytes, beyond the first.
const WINDOW_BYTES: usize = 8 << 20;

/// Row whose deliveries are sent in order; `None` for those that are about no single row.
pub(super) type Lane = Option<Id>;

/// Delivery to send now.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) lane: Lane,
    pub(super) id: DeliveryId,
    /// Value of `webhook-id`.
    pub(super) key: String,
    /// Message; `None` if it is in the journal.
    pub(super) body: Option<Bytes>,
}

/// Result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// The receiver has taken the message.
    Delivered,
    /// It has not. The time of the next attempt in Unix milliseconds; `None` if this was the last one.
    Failed { detail: String, next: Option<u64> },
    /// The stored message is gone, because its row was purged.
    Erased,
}

/// Deliveries that are not settled, and the changes since they were last stored.
#[derive(Debug)]
pub(super) struct SendQueue {
    lanes: HashMap<Lane, VecDeque<Queued>>,
    /// First deliveries of the lanes that are not being sent, by the time of the attempt and their age.
    waiting: BTreeSet<(u64, u64, Lane)>,
    /// Events of fresh deliveries.
    fresh: BTreeSet<Seq>,
    fresh_bytes: usize,
    /// Settled events after the oldest fresh one.
    settled: BTreeSet<Seq>,
    /// Position up to which events have been read.
    read: Seq,
    sending: usize,
    queued: usize,
    /// Number of deliveries that were ever queued.
    count: u64,
    changes: Vec<StoredDelivery>,
    /// Position and number of settled events after it, as they were stored last.
    stored_mark: Option<(Seq, usize)>,
}

#[derive(Debug)]
struct Queued {
    number: u64,
    delivery: Delivery,
    fresh: Option<Fresh>,
    sending: bool,
}

/// Part of a delivery that is not stored.
#[derive(Debug)]
struct Fresh {
    seq: Seq,
    raw: RawRequest,
}

impl Queued {
    fn due(&self) -> u64 {
        self.delivery.outgoing.as_ref().map_or(0, |outgoing| outgoing.due)
    }

    fn set_due(&mut self, due: u64) {
        self.delivery.outgoing.get_or_insert_default().due = due;
    }
}

impl SendQueue {
    /// Creates a queue that continues after `mark`.
    pub(super) fn after(mark: &SendMark) -> SendQueue {
        SendQueue {
            lanes: HashMap::new(),
            waiting: BTreeSet::new(),
            fresh: BTreeSet::new(),
            fresh_bytes: 0,
            settled: mark.settled.iter().copied().collect(),
            read: mark.seq,
            sending: 0,
            queued: 0,
            count: 0,
            changes: Vec::new(),
            stored_mark: Some((mark.seq, mark.settled.len())),
        }
    }

    /// Number of deliveries that are being sent.
    pub(super) fn sending(&self) -> usize {
        self.sending
    }

    /// Number of deliveries that are not settled.
    pub(super) fn len(&self) -> usize {
        self.queued
    }

    /// Position up to which events have been read.
    pub(super) fn position(&self) -> Seq {
        self.read
    }

    /// Returns true if more events may be read.
    pub(super) fn has_room(&self) -> bool {
        self.fresh.len() < WINDOW && (self.fresh.is_empty() || self.fresh_bytes < WINDOW_BYTES)
    }

    /// Moves on to `seq`: events up to there that were not pushed do not concern the notification.
    pub(super) fn advance(&mut self, seq: Seq) {
        self.read = self.read.max(seq);
    }

    /// Continues after `seq`, because the events between cannot be read. Fresh deliveries are stored, as positions before have no meaning
    /// any more.
    pub(super) fn skip_to(&mut self, seq: Seq) {
        let lanes: Vec<Lane> = self.lanes.keys().cloned().collect();
        lanes.iter().for_each(|lane| self.move_aside(lane));
        self.settled.clear();
        self.read = seq;
    }

    /// Number of attempts of the first delivery of a lane.
    pub(super) fn attempts(&self, lane: &Lane) -> u32 {
        self.lanes.get(lane).and_then(VecDeque::front).map_or(0, |first| first.delivery.attempts)
    }

    /// Position up to which every event is settled or stored.
    pub(super) fn settled_up_to(&self) -> Seq {
        self.fresh.first().map_or(self.read, |oldest| oldest - 1)
    }

    /// Has the next [`SendQueue::take_progress`] store the mark, even if the position is the same.
    pub(super) fn note_change(&mut self) {
        self.stored_mark = None;
    }

    /// Adds the delivery of the event `seq`. Returns false for an event that was settled before a restart.
    pub(super) fn push(&mut self, seq: Seq, delivery: Delivery, raw: RawRequest, room: bool) -> bool {
        self.read = self.read.max(seq);
        if self.settled.contains(&seq) {
            return false;
        }
        self.fresh.insert(seq);
        self.fresh_bytes += raw.body.len();
        let lane = self.add(delivery, Some(Fresh { seq, raw }));
        // A delivery behind one that has failed waits in the journal.
        let is_behind = self.lanes.get(&lane).is_some_and(|queue| queue.len() > 1 && has_failed(&queue[0]));
        if is_behind && room {
            self.move_aside(&lane);
        }
        true
    }

    /// Adds a stored delivery: one that an earlier process has left, or one to replay.
    pub(super) fn resume(&mut self, delivery: Delivery) {
        self.add(delivery, None);
    }

    /// Sends a stored delivery again, with all attempts, after those of its row that wait. One that waits is due now.
    pub(super) fn replay(&mut self, mut delivery: Delivery, now: u64) {
        let lane = lane_of(&delivery);
        let known =
            self.lanes.get_mut(&lane).and_then(|queue| queue.iter_mut().find(|own| own.delivery.id == delivery.id));
        match known {
            Some(_) => self.hurry(&lane, now),
            None => {
                (delivery.state, delivery.attempts, delivery.detail) = (DeliveryState::Pending, 0, None);
                delivery.outgoing.get_or_insert_default().due = now;
                delivery.updated = now;
                self.changes.push(StoredDelivery { delivery: delivery.clone(), raw: None });
                self.add(delivery, None);
            }
        }
    }

    fn add(&mut self, delivery: Delivery, fresh: Option<Fresh>) -> Lane {
        let lane = lane_of(&delivery);
        self.count += 1;
        self.queued += 1;
        let queue = self.lanes.entry(lane.clone()).or_default();
        queue.push_back(Queued { number: self.count, delivery, fresh, sending: false });
        if queue.len() == 1 {
            self.wait(&lane);
        }
        lane
    }

    /// Puts the first delivery of a lane among those that wait.
    fn wait(&mut self, lane: &Lane) {
        if let Some(first) = self.lanes.get(lane).and_then(VecDeque::front) {
            self.waiting.insert((first.due(), first.number, lane.clone()));
        }
    }

    /// Time of the next attempt; `None` if nothing waits.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.waiting.first().map(|(due, ..)| *due)
    }

    /// Takes the oldest delivery that is due at `now`.
    pub(super) fn start(&mut self, now: u64) -> Option<Job> {
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        let (.., lane) = self.waiting.pop_first()?;
        let first = self.lanes.get_mut(&lane)?.front_mut()?;
        first.sending = true;
        self.sending += 1;
        Some(Job {
            id: first.delivery.id,
            key: first.delivery.key.clone().unwrap_or_default(),
            body: first.fresh.as_ref().map(|fresh| fresh.raw.body.clone()),
            lane,
        })
    }

    /// Notes the result of the attempt that was started last in a lane. `room` is true if the outbox takes more deliveries.
    pub(super) fn finish(&mut self, lane: &Lane, attempt: Attempt, now: u64, room: bool) {
        let Some(first) = self.lanes.get_mut(lane).and_then(VecDeque::front_mut) else { return };
        self.sending -= usize::from(std::mem::take(&mut first.sending));
        first.delivery.attempts = first.delivery.attempts.saturating_add(1);
        first.delivery.updated = now;
        match attempt {
            Attempt::Delivered => self.settle(lane, DeliveryState::Delivered, None),
            Attempt::Failed { detail, next: None } => self.settle(lane, DeliveryState::Failed, Some(detail)),
            Attempt::Erased => self.forget(lane),
            Attempt::Failed { detail, next: Some(next) } => {
                first.delivery.detail = Some(detail);
                first.set_due(next);
                if first.fresh.is_none() {
                    self.changes.push(StoredDelivery { delivery: first.delivery.clone(), raw: None });
                } else if room {
                    self.move_aside(lane);
                }
                self.wait(lane);
            }
        }
    }

    /// Stores all fresh deliveries of a lane, so that the mark can pass them.
    fn move_aside(&mut self, lane: &Lane) {
        let Some(queue) = self.lanes.get_mut(lane) else { return };
        for queued in queue.iter_mut() {
            let Some(Fresh { seq, raw }) = queued.fresh.take() else { continue };
            self.fresh.remove(&seq);
            self.settled.insert(seq);
            self.fresh_bytes -= raw.body.len();
            self.changes.push(StoredDelivery { delivery: queued.delivery.clone(), raw: Some(raw) });
        }
    }

    /// Removes the first delivery of a lane, which has ended.
    fn settle(&mut self, lane: &Lane, state: DeliveryState, detail: Option<String>) {
        let Some(mut first) = self.take_first(lane) else { return };
        (first.delivery.state, first.delivery.detail) = (state, detail);
        self.changes.push(StoredDelivery { delivery: first.delivery, raw: first.fresh.map(|fresh| fresh.raw) });
    }

    fn forget(&mut self, lane: &Lane) {
        drop(self.take_first(lane));
    }

    fn take_first(&mut self, lane: &Lane) -> Option<Queued> {
        let queue = self.lanes.get_mut(lane)?;
        let first = queue.pop_front()?;
        self.queued -= 1;
        if queue.is_empty() {
            self.lanes.remove(lane);
        }
        if let Some(fresh) = &first.fresh {
            self.fresh.remove(&fresh.seq);
            self.settled.insert(fresh.seq);
            self.fresh_bytes -= fresh.raw.body.len();
        }
        self.wait(lane);
        Some(first)
    }

    /// Makes everything that waits due at `now`.
    pub(super) fn hurry_all(&mut self, now: u64) {
        let lanes: Vec<Lane> = self.waiting.iter().map(|(.., lane)| lane.clone()).collect();
        lanes.iter().for_each(|lane| self.hurry(lane, now));
    }

    /// Makes the first delivery of a lane due at `now`, unless it is being sent.
    fn hurry(&mut self, lane: &Lane, now: u64) {
        let Some(first) = self.lanes.get_mut(lane).and_then(VecDeque::front_mut) else { return };
        if self.waiting.remove(&(first.due(), first.number, lane.clone())) {
            let due = first.due().min(now);
            first.set_due(due);
            self.wait(lane);
        }
    }

    /// Returns the position up to which all events are settled, with the settled ones after it, and the changes, if there are any since
    /// they were last taken. All of it is to be stored at once.
    pub(super) fn take_progress(&mut self) -> Option<(Seq, Vec<Seq>, Vec<StoredDelivery>)> {
        let seq = self.settled_up_to();
        self.settled = self.settled.split_off(&(seq + 1));
        let mark = Some((seq, self.settled.len()));
        if mark == self.stored_mark && self.changes.is_empty() {
            return None;
        }
        self.stored_mark = mark;
        Some((seq, self.settled.iter().copied().collect(), std::mem::take(&mut self.changes)))
    }
}

fn lane_of(delivery: &Delivery) -> Lane {
    delivery.outgoing.as_ref().and_then(|outgoing| outgoing.row.as_ref()).map(Arc::clone)
}

fn has_failed(queued: &Queued) -> bool {
    queued.fresh.is_none()
}

#[cfg(test)]
mod tests;
