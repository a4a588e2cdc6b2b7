//! [`Routes`]: the subscribers of one resource by what can concern them.

use std::collections::HashMap;
use std::sync::Arc;

use super::mailbox::Mailbox;
use super::{Interest, RowKeys};
use diorama_core::dio::{RingItem, RingPlace, RowBefore};
use diorama_core::record::Body;
use diorama_core::state::{Entry, Frame, VisibleChange};
use diorama_core::vista::Schema;
use diorama_core::vista::query::{CellKeys, Equalities};

/// Maximum number of tables. Each costs every change a look at its cells.
const MOST_TABLES: usize = 32;
/// Maximum number of tables of columns that subscribers, and not access rules, have chosen.
const MOST_OWN_TABLES: usize = 8;

/// Subscribers that share a key.
type Subscribers = Vec<Arc<Mailbox>>;

/// Values of a set of columns: the number of the table, and the encoded cells.
#[derive(Debug)]
pub(super) struct CellKey {
    table: usize,
    cells: Box<[u8]>,
}

/// Subscribers of one resource by what can concern them.
#[derive(Debug, Default)]
pub(super) struct Routes {
    all: Subscribers,
    /// Tables by set of columns. One without subscribers is replaced when another is needed, so that the others keep their numbers.
    tables: Vec<Table>,
    ids: HashMap<String, Subscribers>,
    writers: HashMap<Arc<str>, Subscribers>,
    /// Those that get the results of all writes.
    governors: Subscribers,
    /// Those whose own filter is part of their keys.
    filtered: Subscribers,
    /// Those whose scope has all rows.
    unscoped: Subscribers,
    /// Encoded cells of the row before and after a change.
    buffers: [Vec<u8>; 2],
}

/// Subscribers by the values of a set of columns.
#[derive(Debug)]
struct Table {
    /// Names, sorted.
    columns: Vec<String>,
    cells: Vec<CellKeys>,
    /// True if a subscriber has chosen the columns.
    is_own: bool,
    subscribers: HashMap<Box<[u8]>, Subscribers>,
}

impl Routes {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the keys of these equalities; `None` if there are too many tables.
    pub(super) fn keys(&mut self, sets: &[Equalities<'_>], schema: &Schema, is_own: bool) -> Option<Vec<CellKey>> {
        let mut keys = Vec::with_capacity(sets.len());
        for set in sets {
            let mut set = set.clone();
            set.sort_by_key(|(column, _)| *column);
            let table = self.table(&set, schema, is_own, &keys)?;
            let mut cells = Vec::new();
            // A set with a null is met by no row.
            let is_met =
                set.iter().zip(&self.tables[table].cells).all(|((_, value), cell)| cell.value(value, &mut cells));
            keys.extend(is_met.then(|| CellKey { table, cells: cells.into() }));
        }
        Some(keys)
    }

    /// Returns the number of the table of these columns, which is made if there is none. Tables of `keys` are not replaced.
    fn table(&mut self, set: &Equalities<'_>, schema: &Schema, is_own: bool, keys: &[CellKey]) -> Option<usize> {
        let names = || set.iter().map(|(column, _)| *column);
        if let Some(known) = self.tables.iter().position(|table| table.columns.iter().map(String::as_str).eq(names())) {
            self.tables[known].is_own &= is_own;
            return Some(known);
        }
        let is_free = |at: &usize| self.tables[*at].subscribers.is_empty() && keys.iter().all(|key| key.table != *at);
        let free = (0..self.tables.len()).find(is_free);
        let own = self.tables.iter().filter(|table| table.is_own && !table.subscribers.is_empty()).count();
        if is_own && own >= MOST_OWN_TABLES || free.is_none() && self.tables.len() >= MOST_TABLES {
            return None;
        }
        let cells = names().map(|column| CellKeys::new(column, schema)).collect();
        let columns = names().map(str::to_string).collect();
        let table = Table { columns, cells, is_own, subscribers: HashMap::new() };
        match free {
            Some(free) => self.tables[free] = table,
            None => self.tables.push(table),
        }
        free.or(Some(self.tables.len() - 1))
    }

    /// Adds a subscriber.
    pub(super) fn add(&mut self, interest: &Interest, mailbox: &Arc<Mailbox>) {
        self.lists(interest, |list| list.push(Arc::clone(mailbox)));
    }

    /// Removes a subscriber.
    pub(super) fn remove(&mut self, interest: &Interest, mailbox: &Arc<Mailbox>) {
        self.lists(interest, |list| {
            if let Some(at) = list.iter().position(|known| Arc::ptr_eq(known, mailbox)) {
                list.swap_remove(at);
            }
        });
    }

    /// Calls `change` with each list that a subscriber is in, and forgets those that are empty then.
    fn lists(&mut self, interest: &Interest, change: impl Fn(&mut Subscribers)) {
        change(&mut self.all);
        match &interest.rows {
            // All events of these rows concern the subscriber, and none of others.
            RowKeys::Ids(ids) => return ids.iter().for_each(|id| at_key(&mut self.ids, id.clone(), &change)),
            RowKeys::Cells(keys, _) => {
                for key in keys {
                    at_key(&mut self.tables[key.table].subscribers, key.cells.clone(), &change);
                }
            }
        }
        if let Some(writer) = &interest.writer {
            at_key(&mut self.writers, Arc::clone(writer), &change);
        }
        let lists = [
            (interest.governs, &mut self.governors),
            (matches!(interest.rows, RowKeys::Cells(_, true)), &mut self.filtered),
            (interest.has_all_rows, &mut self.unscoped),
        ];
        lists.into_iter().filter(|(is_in, _)| *is_in).for_each(|(_, list)| change(list));
    }

    /// Tells all subscribers to read the events from `start` up to number `end`.
    pub(super) fn tell_all(&self, start: RingPlace, end: u64) {
        self.all.iter().for_each(|mailbox| mailbox.tell(start, end));
    }

    /// Wakes all subscribers.
    pub(super) fn wake_all(&self) {
        self.all.iter().for_each(|mailbox| mailbox.wake());
    }

    /// Tells of the event after `place` all those that it can concern: for whom `EventView::frame_of` may yield a frame, or
    /// `EventView::lacks_prior_row` may be true.
    pub(super) fn dispatch(&mut self, item: &RingItem, place: RingPlace) {
        // Other events are not sent.
        let Some(entry) = &item.entry else { return };
        let tell = |list: &Subscribers| list.iter().for_each(|mailbox| mailbox.tell(place, place.number + 1));
        let (Some(id), false) = (&entry.id, concerns_all(item, entry)) else { return tell(&self.all) };
        if let Some(subscribers) = self.ids.get(&**id) {
            tell(subscribers);
        }
        let is_result = matches!(entry.frame, Frame::WriteFailed(_) | Frame::WriteCommitted);
        if is_result {
            tell(&self.governors);
            if let Some(subscribers) = entry.cause.principal.as_ref().and_then(|writer| self.writers.get(writer)) {
                tell(subscribers);
            }
        }
        match &entry.frame {
            Frame::WriteFailed(_) => {}
            Frame::WriteCommitted if item.new.is_none() => tell(&self.unscoped),
            Frame::WriteCommitted => self.dispatch_by_cells(None, item.new.as_ref(), tell),
            _ => {
                let old = match &item.old {
                    RowBefore::Known(row) => Some(row),
                    RowBefore::Absent | RowBefore::Unknown => None,
                };
                self.dispatch_by_cells(old, item.new.as_ref(), tell);
                // An invalidation without a write: the row that subscribers have is unknown.
                if matches!(entry.visible, VisibleChange::Same) {
                    tell(&self.filtered);
                }
            }
        }
    }

    /// Calls `tell` with the subscribers whose keys are the cells of one of the rows.
    fn dispatch_by_cells(&mut self, old: Option<&Body>, new: Option<&Body>, tell: impl Fn(&Subscribers)) {
        let [before, after] = &mut self.buffers;
        for table in self.tables.iter().filter(|table| !table.subscribers.is_empty()) {
            let was = old.is_some_and(|row| table.encode(row, before));
            let is = new.is_some_and(|row| table.encode(row, after)) && !(was && before == after);
            for cells in [was.then_some(&*before), is.then_some(&*after)].into_iter().flatten() {
                if let Some(subscribers) = table.subscribers.get(&**cells) {
                    tell(subscribers);
                }
            }
        }
    }
}

impl Table {
    /// Encodes the cells of a row; returns false if one is null.
    fn encode(&self, row: &Body, cells: &mut Vec<u8>) -> bool {
        cells.clear();
        self.cells.iter().all(|cell| cell.row(row, cells))
    }
}

/// Returns true if an event can concern every subscriber: it is about all rows, or its row before the change is unknown, or a row that
/// was added does not exist.
fn concerns_all(item: &RingItem, entry: &Entry) -> bool {
    match entry.frame {
        Frame::Invalidated { .. } => true,
        Frame::Inserted if item.new.is_none() => true,
        Frame::Inserted | Frame::Changed | Frame::Removed => item.old == RowBefore::Unknown,
        Frame::WriteFailed(_) | Frame::WriteCommitted | Frame::Silent => false,
    }
}

fn at_key<K: Eq + std::hash::Hash>(lists: &mut HashMap<K, Subscribers>, key: K, change: &impl Fn(&mut Subscribers)) {
    let mut entry = match lists.entry(key) {
        std::collections::hash_map::Entry::Occupied(entry) => entry,
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert_entry(Vec::with_capacity(1)),
    };
    change(entry.get_mut());
    if entry.get().is_empty() {
        entry.remove();
    }
}
