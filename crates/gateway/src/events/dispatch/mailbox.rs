//! [`Mailbox`]: the events of the ring that one subscriber has to read.

use std::collections::VecDeque;
use std::task::Waker;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use diorama_core::dio::RingPlace;

/// Maximum number of stretches. Beyond it, the last one grows, so that the subscriber reads events that do not concern it.
const MOST_STRETCHES: usize = 32;

/// Events of the ring that one subscriber has to read, as stretches of their numbers. It bounds its memory and not the events: a
/// subscriber that falls behind reads more of them in vain.
#[derive(Debug)]
pub(super) struct Mailbox {
    stretches: Mutex<VecDeque<Stretch>>,
    waker: AtomicWaker,
}

/// Consecutive events of the ring.
#[derive(Debug)]
struct Stretch {
    start: RingPlace,
    end: u64,
}

/// Next event that can concern a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::events) enum Seek {
    /// The event at the cursor.
    Here,
    /// The event after this place. Events before it do not concern the subscriber.
    Ahead(RingPlace),
    /// No event that was dispatched. Events before this place do not concern the subscriber.
    Nothing(RingPlace),
}

impl Mailbox {
    /// Creates the mailbox of a subscriber who reads every event before number `end`: they were not dispatched to it.
    pub(super) fn new(end: u64) -> Mailbox {
        let unread = Stretch { start: RingPlace::default(), end };
        Mailbox { stretches: Mutex::new([unread].into()), waker: AtomicWaker::new() }
    }

    /// Adds the events from `start` up to number `end`, and wakes the subscriber. Calls are in the order of the events.
    pub(super) fn tell(&self, start: RingPlace, end: u64) {
        let mut stretches = self.stretches.lock();
        let is_full = stretches.len() >= MOST_STRETCHES;
        match stretches.back_mut() {
            Some(last) if last.end >= start.number || is_full => last.end = last.end.max(end),
            _ => stretches.push_back(Stretch { start, end }),
        }
        drop(stretches);
        self.waker.wake();
    }

    /// Wakes the subscriber.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Notes the task that is to be woken.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Finds the next event to read, from number `next` on, and forgets those before it. All events before `reached` were dispatched.
    pub(super) fn seek(&self, next: u64, reached: RingPlace) -> Seek {
        let mut stretches = self.stretches.lock();
        while stretches.front().is_some_and(|first| first.end <= next) {
            stretches.pop_front();
        }
        match stretches.front() {
            Some(first) if first.start.number <= next => Seek::Here,
            Some(first) => Seek::Ahead(first.start),
            None => Seek::Nothing(reached),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> RingPlace {
        RingPlace { number, seq: number + 100, weight: number * 10 }
    }

    #[test]
    fn a_subscriber_reads_what_it_is_told_and_what_came_before_it() {
        let mailbox = Mailbox::new(5);
        assert_eq!((mailbox.seek(2, place(5)), mailbox.seek(5, place(5))), (Seek::Here, Seek::Nothing(place(5))));
        mailbox.tell(place(8), 9);
        mailbox.tell(place(8), 9);
        mailbox.tell(place(9), 10);
        mailbox.tell(place(20), 21);
        assert_eq!(mailbox.stretches.lock().len(), 2, "neighbours are one stretch");
        assert_eq!(mailbox.seek(5, place(30)), Seek::Ahead(place(8)));
        assert_eq!((mailbox.seek(8, place(30)), mailbox.seek(9, place(30))), (Seek::Here, Seek::Here));
        assert_eq!(mailbox.seek(10, place(30)), Seek::Ahead(place(20)));
        assert_eq!(mailbox.seek(21, place(30)), Seek::Nothing(place(30)));
    }

    #[test]
    fn a_mailbox_is_bounded_and_loses_nothing() {
        let mailbox = Mailbox::new(0);
        let told: Vec<u64> = (0..1_000).map(|n| n * 3 + 1).collect();
        told.iter().for_each(|number| mailbox.tell(place(*number), number + 1));
        assert_eq!(mailbox.stretches.lock().len(), MOST_STRETCHES);
        let (mut next, mut read) = (0, Vec::new());
        loop {
            match mailbox.seek(next, place(5_000)) {
                Seek::Here => {
                    read.push(next);
                    next += 1;
                }
                Seek::Ahead(place) => next = place.number,
                Seek::Nothing(place) => break assert_eq!(place.number, 5_000),
            }
        }
        assert!(told.iter().all(|number| read.contains(number)));
    }
}
