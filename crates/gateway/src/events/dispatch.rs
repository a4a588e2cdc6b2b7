//! Dispatch of events by the values of cells: a change reaches only the subscribers that it can concern.
//!
//! A filter with equalities (`org_id=eq.5`, of an access rule or of the subscriber) matches only rows with these values. Its
//! subscribers are found by the cells of the row before and after a change, in one hash table for each set of columns that filters
//! compare, and subscribers of single rows by the id. The cost of a change depends on the number of these tables and of the subscribers
//! that it can concern, not on the number of all. Filters without an equality are not dispatched: their cursors read every event.
//!
//! The dispatch decides only which events a cursor reads ([`Route::seek`]); [`EventView`](super::view::EventView) judges them as ever.
//! It may find too many, never too few. It follows the ring as an observer, in the thread that publishes, so that there is no task to
//! be scheduled in between.

mod mailbox;
mod table;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, Weak};

use parking_lot::Mutex;

use self::mailbox::Mailbox;
pub(super) use self::mailbox::Seek;
use self::table::{CellKey, Routes};
use super::request::Subscription;
use crate::access::Verb;
use crate::scope::Scope;
use diorama_core::dio::{CursorRead, Ring, RingObserver, RingPlace};
use diorama_core::vista::Schema;
use diorama_core::vista::query::Filter;

/// Maximum number of ids or of sets of values of a dispatched subscription.
const MOST_KEYS: usize = 100;
/// Number of events that are taken from the ring at once.
const CHUNK: usize = 256;

/// Dispatch of the events of one resource.
#[derive(Debug)]
pub(crate) struct Dispatch {
    ring: Arc<Ring>,
    /// Schema by which filters are evaluated.
    schema: Arc<Schema>,
    routes: Mutex<Routes>,
    /// Place up to which events were dispatched. Set after the mailboxes, so that a mailbox has every event before this place.
    reached: Mutex<RingPlace>,
    observes: Once,
    /// True if all subscribers are to look at their permissions at the next event.
    rules_changed: AtomicBool,
}

/// Route of events to one subscriber; removed when dropped.
#[derive(Debug)]
pub(super) struct Route {
    dispatch: Arc<Dispatch>,
    mailbox: Arc<Mailbox>,
    interest: Interest,
}

/// Events that can concern a subscriber.
#[derive(Debug)]
struct Interest {
    rows: RowKeys,
    /// Caller who gets the results of its own writes.
    writer: Option<Arc<str>>,
    /// True if the subscriber gets the results of the writes of all callers.
    governs: bool,
    /// True if rows of all contents are in the scope, so that commits of rows that no longer exist are sent.
    has_all_rows: bool,
}

/// Keys by which events of rows find a subscriber.
#[derive(Debug)]
enum RowKeys {
    /// Ids of the rows.
    Ids(Vec<String>),
    /// Values of cells. The flag is true if they include those of the subscriber's own filter: then a row that does not have them can be
    /// in the scope, and is sent as one that left the filter if it is not known whether it was in it.
    Cells(Vec<CellKey>, bool),
}

impl Dispatch {
    /// Creates the dispatch of a ring of rows of `schema`. It follows the ring from the first subscriber on.
    pub(crate) fn new(ring: &Arc<Ring>, schema: &Arc<Schema>) -> Arc<Dispatch> {
        Arc::new(Dispatch {
            ring: Arc::clone(ring),
            schema: Arc::clone(schema),
            routes: Mutex::default(),
            reached: Mutex::default(),
            observes: Once::new(),
            rules_changed: AtomicBool::new(false),
        })
    }

    /// Adds a subscriber. `None` if its events cannot be found by values.
    pub(super) fn route(self: &Arc<Self>, scope: &Scope, subscription: &Subscription) -> Option<Route> {
        // Before the lock, which observers take while the ring calls them.
        self.observes.call_once(|| self.ring.observe(Arc::downgrade(self) as Weak<dyn RingObserver>));
        let mut routes = self.routes.lock();
        let interest = Interest {
            rows: self.row_keys(&mut routes, scope.rows.view().filter(), subscription)?,
            writer: scope.rows.principal().name().cloned(),
            governs: scope.grant.verbs().has(Verb::Operations),
            has_all_rows: scope.rows.view().has_all_rows(),
        };
        if routes.is_empty() {
            // Without subscribers, nothing was dispatched.
            *self.reached.lock() = self.ring.tail();
        }
        let mailbox = Arc::new(Mailbox::new(self.reached.lock().number));
        routes.add(&interest, &mailbox);
        drop(routes);
        Some(Route { dispatch: Arc::clone(self), mailbox, interest })
    }

    /// Returns the keys of a subscriber to the rows that pass `rule` and its own filter. The tables of own filters are few; beyond
    /// them, the rule alone gives the keys.
    fn row_keys(&self, routes: &mut Routes, rule: &Filter, subscription: &Subscription) -> Option<RowKeys> {
        if let Some(ids) = subscription.ids.as_ref().filter(|ids| ids.len() <= MOST_KEYS) {
            return Some(RowKeys::Ids(ids.iter().cloned().collect()));
        }
        let own = &subscription.query.filter;
        if own.equalities(MOST_KEYS).is_some() {
            let both = Filter::All(vec![rule.clone(), own.clone()]);
            if let Some(cells) = both.equalities(MOST_KEYS).and_then(|sets| routes.keys(&sets, &self.schema, true)) {
                return Some(RowKeys::Cells(cells, true));
            }
        }
        let cells = routes.keys(&rule.equalities(MOST_KEYS)?, &self.schema, false)?;
        Some(RowKeys::Cells(cells, false))
    }

    /// Lets all subscribers look at their permissions at the next event, because the access rules have changed.
    pub(crate) fn check_rules(&self) {
        self.rules_changed.store(true, Ordering::Release);
    }

    /// Number of dispatched subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.routes.lock().len()
    }
}

impl RingObserver for Dispatch {
    fn advance(&self) {
        let mut routes = self.routes.lock();
        if routes.is_empty() {
            return;
        }
        let mut place = *self.reached.lock();
        loop {
            let events = self.ring.read(place.number, CHUNK);
            for (item, weight) in &events {
                place.weight = *weight;
                if self.rules_changed.swap(false, Ordering::AcqRel) {
                    routes.tell_all(place, place.number + 1);
                }
                routes.dispatch(item, place);
                place = RingPlace { number: place.number + 1, seq: item.seq.unwrap_or(place.seq), ..place };
            }
            if events.is_empty() {
                match self.ring.at(place.number) {
                    CursorRead::Item(_) => continue,
                    CursorRead::Gone { next, .. } => {
                        // These events were dropped before they were dispatched: all subscribers read them from the journal.
                        routes.tell_all(place, next);
                        place.number = next;
                        continue;
                    }
                    CursorRead::Closed => routes.wake_all(),
                    CursorRead::End => {}
                }
                break;
            }
            place.weight = self.ring.weight_before(place.number).unwrap_or(place.weight);
            *self.reached.lock() = place;
        }
        *self.reached.lock() = place;
    }
}

impl Route {
    /// Finds the next event that can concern the subscriber, from cursor `next` on.
    pub(super) fn seek(&self, next: u64) -> Seek {
        // Before the mailbox, which has all events up to here.
        let reached = *self.dispatch.reached.lock();
        self.mailbox.seek(next, reached)
    }

    /// Notes the task that is to be woken at the next event that can concern the subscriber.
    pub(super) fn register(&self, waker: &std::task::Waker) {
        self.mailbox.register(waker);
    }

    /// Returns true if the events are found by the access rule alone.
    pub(super) fn is_by_rule(&self) -> bool {
        matches!(self.interest.rows, RowKeys::Cells(_, false))
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        self.dispatch.routes.lock().remove(&self.interest, &self.mailbox);
    }
}
