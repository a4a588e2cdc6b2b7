use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::notify::mark::SendMark;
use diorama_core::journal::Outgoing;

const RETRY: u64 = 100;

fn start() -> SendMark {
    SendMark { epoch: "E".into(), seq: 0, settled: Vec::new(), disabled: None }
}

fn event(seq: Seq, row: u8) -> (Delivery, RawRequest) {
    let raw = RawRequest { body: format!("{seq}").into(), ..RawRequest::default() };
    let delivery = Delivery {
        id: DeliveryId::new(),
        hook: "n".into(),
        dio: "d".into(),
        key: Some(format!("E:{seq}")),
        state: DeliveryState::Pending,
        changes: Default::default(),
        detail: None,
        attempts: 0,
        received: 0,
        updated: 0,
        size: 1,
        outgoing: Some(Box::new(Outgoing { row: Some(format!("r{row}").into()), due: 0 })),
    };
    (delivery, raw)
}

/// Stored part of a notification, as a journal keeps it.
#[derive(Default)]
struct Stored {
    mark: Option<(Seq, Vec<Seq>)>,
    deliveries: BTreeMap<DeliveryId, (Delivery, RawRequest)>,
}

impl Stored {
    fn keep(&mut self, queue: &mut SendQueue) {
        let Some((seq, settled, changes)) = queue.take_progress() else { return };
        self.mark = Some((seq, settled));
        for StoredDelivery { delivery, raw } in changes {
            let raw = raw.or_else(|| self.deliveries.get(&delivery.id).map(|(_, raw)| raw.clone())).expect("a message");
            self.deliveries.insert(delivery.id, (delivery, raw));
        }
    }

    fn reopen(&self) -> SendQueue {
        let (seq, settled) = self.mark.clone().unwrap_or_default();
        let mut queue = SendQueue::after(&SendMark { seq, settled, ..start() });
        let pending = self.deliveries.values().filter(|(delivery, _)| delivery.state == DeliveryState::Pending);
        pending.for_each(|(delivery, _)| queue.resume(delivery.clone()));
        queue
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(u8),
    Send,
    End { at: usize, taken: bool },
    Store,
    Wait,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8).prop_map(Step::Read),
        6 => Just(Step::Send),
        6 => (0..8_usize, prop::bool::weighted(0.6)).prop_map(|(at, taken)| Step::End { at, taken }),
        3 => Just(Step::Store),
        2 => Just(Step::Wait),
        1 => Just(Step::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Every event reaches the receiver, in the order of its row, over failures, a full outbox and kills. Only what was under way or not
    /// stored at a kill arrives twice.
    #[test]
    fn every_event_arrives_in_the_order_of_its_row(steps in prop::collection::vec(step(), 1..120), room: bool) {
        let (mut stored, mut now) = (Stored::default(), 1);
        let mut queue = SendQueue::after(&start());
        let mut log: Vec<u8> = Vec::new();
        let mut under_way: Vec<Job> = Vec::new();
        // Taken messages by row, with the number of kills before each.
        let mut taken: BTreeMap<Lane, Vec<(Seq, u32)>> = BTreeMap::new();
        let (mut kills, mut unstored) = (0, BTreeSet::new());
        let seq_of = |job: &Job| job.key[2..].parse::<Seq>().unwrap();
        let mut end = |queue: &mut SendQueue, job: Job, success: bool, now: u64, kills: u32, unstored: &mut BTreeSet<Seq>| {
            let seq = seq_of(&job);
            let attempt = match success {
                true => {
                    taken.entry(job.lane.clone()).or_default().push((seq, kills));
                    unstored.insert(seq);
                    Attempt::Delivered
                }
                false => Attempt::Failed { detail: "no".into(), next: Some(now + RETRY) },
            };
            queue.finish(&job.lane, attempt, now, room);
        };
        for step in steps.into_iter().chain(std::iter::repeat_n(Step::Wait, 1)) {
            match step {
                Step::Read(row) => {
                    // A reader continues after the position of its queue.
                    if (log.len() as Seq) == queue.position() {
                        log.push(row);
                    }
                    if queue.has_room() {
                        let seq = queue.position() + 1;
                        let (delivery, raw) = event(seq, log[seq as usize - 1]);
                        queue.push(seq, delivery, raw, room);
                    }
                }
                Step::Send => under_way.extend(queue.start(now)),
                Step::End { at, taken } if !under_way.is_empty() => {
                    let job = under_way.swap_remove(at % under_way.len());
                    end(&mut queue, job, taken, now, kills, &mut unstored);
                }
                Step::End { .. } => {}
                Step::Store => {
                    stored.keep(&mut queue);
                    unstored.clear();
                }
                Step::Wait => now += RETRY,
                Step::Kill => {
                    under_way.clear();
                    (queue, kills) = (stored.reopen(), kills + 1);
                }
            }
            prop_assert_eq!(queue.sending(), under_way.len());
        }
        // The receiver takes everything from now on.
        let mut rounds = 0;
        while queue.len() > 0 || queue.position() < log.len() as Seq || !under_way.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 10_000, "something is never sent");
            while queue.has_room() && queue.position() < log.len() as Seq {
                let seq = queue.position() + 1;
                let (delivery, raw) = event(seq, log[seq as usize - 1]);
                queue.push(seq, delivery, raw, room);
            }
            now += RETRY;
            under_way.extend(std::iter::from_fn(|| queue.start(now)));
            for job in std::mem::take(&mut under_way) {
                end(&mut queue, job, true, now, kills, &mut unstored);
            }
            stored.keep(&mut queue);
        }
        stored.keep(&mut queue);
        prop_assert_eq!(stored.mark.clone().map_or(0, |(seq, _)| seq), log.len() as Seq);
        for row in 0..4 {
            let lane = Some(Id::from(format!("r{row}")));
            let own = taken.remove(&lane).unwrap_or_default();
            let expected: Vec<Seq> = (1..).zip(&log).filter(|(_, of)| **of == row).map(|(seq, _)| seq).collect();
            let mut first = BTreeSet::new();
            let firsts: Vec<Seq> = own.iter().map(|(seq, _)| *seq).filter(|seq| first.insert(*seq)).collect();
            prop_assert_eq!(&firsts, &expected);
            for pair in own.windows(2) {
                prop_assert!(pair[0].0 < pair[1].0 || pair[0].1 < pair[1].1, "{:?}: repeated without a kill", own);
            }
        }
    }
}

#[test]
fn a_delivery_that_fails_moves_aside_with_the_later_ones_of_its_row() {
    let mut queue = SendQueue::after(&start());
    for (seq, row) in [(1, 1), (2, 2), (3, 1)] {
        let (delivery, raw) = event(seq, row);
        queue.push(seq, delivery, raw, true);
    }
    let first = queue.start(0).unwrap();
    let second = queue.start(0).unwrap();
    assert_eq!((first.key.as_str(), second.key.as_str()), ("E:1", "E:2"));
    assert!(queue.start(0).is_none(), "one at a time for each row");
    queue.finish(&first.lane, Attempt::Failed { detail: "503".into(), next: Some(500) }, 0, true);
    let (mark, settled, changes) = queue.take_progress().unwrap();
    assert_eq!((mark, settled, changes.len()), (1, vec![3], 2), "1 and 3 are stored, 2 is under way");
    queue.finish(&second.lane, Attempt::Delivered, 0, true);
    assert_eq!(queue.take_progress().unwrap().0, 3, "the mark passes what is stored");
    let (delivery, raw) = event(4, 1);
    queue.push(4, delivery, raw, true);
    assert_eq!(queue.take_progress().unwrap().2.len(), 1, "a later one of the row is stored at once");
    assert!(queue.start(499).is_none());
    for key in ["E:1", "E:3", "E:4"] {
        let job = queue.start(500).unwrap();
        assert_eq!((job.key.as_str(), job.body.is_none()), (key, true));
        queue.finish(&job.lane, Attempt::Delivered, 500, true);
    }
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_full_outbox_keeps_failed_deliveries_in_the_window_and_stops_reading() {
    let mut queue = SendQueue::after(&start());
    let mut seq = 0;
    while queue.has_room() {
        seq += 1;
        let (delivery, raw) = event(seq, 1);
        queue.push(seq, delivery, raw, false);
    }
    assert_eq!(seq as usize, WINDOW);
    let job = queue.start(0).unwrap();
    queue.finish(&job.lane, Attempt::Failed { detail: "no".into(), next: Some(9) }, 0, false);
    assert!(queue.take_progress().is_none() && !queue.has_room());
    let job = queue.start(9).unwrap();
    assert!(job.body.is_some());
    queue.finish(&job.lane, Attempt::Delivered, 9, false);
    assert!(queue.has_room());
    assert_eq!(queue.take_progress().unwrap().0, 1);
}

#[test]
fn a_delivery_is_given_up_after_its_last_attempt_and_the_row_goes_on() {
    let mut queue = SendQueue::after(&start());
    for seq in 1..=2 {
        let (delivery, raw) = event(seq, 1);
        queue.push(seq, delivery, raw, true);
    }
    let job = queue.start(0).unwrap();
    queue.finish(&job.lane, Attempt::Failed { detail: "400".into(), next: None }, 7, true);
    let (mark, _, changes) = queue.take_progress().unwrap();
    assert_eq!((mark, changes.len(), changes[0].delivery.state), (1, 1, DeliveryState::Failed));
    let given_up = changes[0].delivery.clone();
    let job = queue.start(0).unwrap();
    assert_eq!(job.key, "E:2");
    queue.replay(given_up, 8);
    queue.finish(&job.lane, Attempt::Delivered, 8, true);
    let job = queue.start(8).unwrap();
    assert_eq!(job.key, "E:1", "a replay comes after those that wait");
    queue.finish(&job.lane, Attempt::Delivered, 8, true);
    assert_eq!(queue.len(), 0);
}
