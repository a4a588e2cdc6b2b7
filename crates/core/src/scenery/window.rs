//! Rows that a table scenery holds, by their position in its query, without I/O.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::dio::{DioEvent, RingItem};
use crate::journal::Seq;
use crate::record::{Body, BodyRef, Id};
use crate::state::Origin;

/// One row of a window.
#[derive(Clone, Debug)]
pub(super) struct WindowRow {
    pub(super) id: Id,
    pub(super) body: Body,
    /// Round of the load that read it.
    round: u64,
}

/// Rows by position, and the total number of rows as far as known.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    rows: BTreeMap<u64, WindowRow>,
    total: Option<u64>,
    /// Newest log position at which the window is known to be current.
    pub(super) seq: Seq,
    /// Number of changes so far.
    pub(super) version: u64,
}

impl PartialEq for Window {
    fn eq(&self, other: &Window) -> bool {
        let same = |(a, b): (&WindowRow, &WindowRow)| a.id == b.id && a.body == b.body;
        self.total == other.total
            && self.rows.keys().eq(other.rows.keys())
            && self.rows.values().zip(other.rows.values()).all(same)
    }
}

impl Window {
    /// Creates a window without rows, of `total`.
    pub(super) fn empty(total: Option<u64>) -> Window {
        Window { rows: BTreeMap::new(), total, seq: 0, version: 0 }
    }

    /// Creates a window of `rows` in order, the first at position `start`.
    pub(super) fn of<'a>(start: u64, rows: impl Iterator<Item = (&'a str, BodyRef<'a>)>, total: u64) -> Window {
        let mut window = Window::empty(Some(total));
        window.put(start, rows.map(|(id, body)| (Id::from(id), body.to_body())), 0);
        window
    }

    /// Returns the row at position `at`.
    pub(super) fn row(&self, at: u64) -> Option<&WindowRow> {
        self.rows.get(&at)
    }

    /// Returns the rows in `range`, up to the first gap.
    pub(super) fn rows_in(&self, range: Range<u64>) -> impl Iterator<Item = &WindowRow> {
        let rows = self.rows.range(range.clone()).zip(range);
        rows.take_while(|((at, _), place)| *at == place).map(|((_, row), _)| row)
    }

    /// Returns the rows in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = &WindowRow> {
        self.rows.values()
    }

    /// Total number of rows, if known.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Total number of rows, or a lower bound if it is unknown.
    pub(super) fn count(&self) -> u64 {
        self.total.unwrap_or_else(|| self.end())
    }

    /// Returns true if there are rows after the last one held.
    pub(super) fn has_more(&self) -> bool {
        self.total.is_none_or(|total| self.end() < total)
    }

    /// Returns true if every row is held.
    pub(super) fn is_whole(&self) -> bool {
        self.total == Some(self.rows.len() as u64)
    }

    /// Position after the last row held.
    fn end(&self) -> u64 {
        self.rows.last_key_value().map_or(0, |(at, _)| at + 1)
    }

    /// Returns the parts of `wanted` that were not read in `round`, ascending.
    pub(super) fn gaps(&self, wanted: Range<u64>, round: u64) -> Vec<Range<u64>> {
        let end = self.total.map_or(wanted.end, |total| wanted.end.min(total));
        let mut gaps = Vec::new();
        let mut at = wanted.start;
        if at >= end {
            return gaps;
        }
        for (place, _) in self.rows.range(wanted.start..end).filter(|(_, row)| row.round == round) {
            if at < *place {
                gaps.push(at..*place);
            }
            at = place + 1;
        }
        if at < end {
            gaps.push(at..end);
        }
        gaps
    }

    fn put(&mut self, start: u64, rows: impl Iterator<Item = (Id, Body)>, round: u64) -> u64 {
        let mut at = start;
        for (id, body) in rows {
            self.rows.insert(at, WindowRow { id, body, round });
            at += 1;
        }
        at
    }

    /// Stores the result of a load of `range`; `last` means that the master had no more rows.
    pub(super) fn loaded(&mut self, range: &Range<u64>, rows: &[(Id, Body)], last: bool, round: u64) {
        // A row that moved keeps only the position at which it was read last.
        self.rows.retain(|at, row| range.contains(at) || rows.iter().all(|(id, _)| *id != row.id));
        self.rows.retain(|at, _| !range.contains(at));
        let end = self.put(range.start, rows.iter().cloned(), round);
        if last {
            self.rows.split_off(&end);
            self.total = Some(end);
        } else {
            self.total = self.total.map(|total| total.max(end));
        }
    }

    /// Applies one event to partly known rows; returns true if anything changed. `matches` decides if a held row still belongs.
    /// Only rows that the program itself writes are added, at the end: the positions of others are known only to the master.
    pub(super) fn follow(&mut self, item: &RingItem, matches: impl Fn(&Body) -> bool, narrowed: bool) -> bool {
        match &item.event {
            DioEvent::RecordRemoved { id } => match self.position_of(id) {
                Some(at) => self.close_up(at),
                None if narrowed => false,
                None => self.lose_one(),
            },
            DioEvent::RecordChanged { id } | DioEvent::RecordInserted { id } => {
                let Some(body) = &item.new else { return false };
                match self.position_of(id) {
                    Some(at) if !matches(body) => self.close_up(at),
                    Some(at) => self.replace(at, body),
                    None => !narrowed && is_new(item) && self.append(id, body),
                }
            }
            _ => false,
        }
    }

    fn position_of(&self, id: &str) -> Option<u64> {
        self.rows.iter().find(|(_, row)| &*row.id == id).map(|(at, _)| *at)
    }

    fn replace(&mut self, at: u64, body: &Body) -> bool {
        match self.rows.get_mut(&at) {
            Some(row) if row.body != *body => {
                row.body = body.clone();
                true
            }
            _ => false,
        }
    }

    /// Removes the row at position `at`; the rows behind it move up.
    fn close_up(&mut self, at: u64) -> bool {
        let mut behind = self.rows.split_off(&at);
        behind.remove(&at);
        self.rows.extend(behind.into_iter().map(|(at, row)| (at - 1, row)));
        self.lose_one();
        true
    }

    fn lose_one(&mut self) -> bool {
        let before = self.total;
        self.total = before.map(|total| total.saturating_sub(1).max(self.end()));
        self.total != before
    }

    fn append(&mut self, id: &str, body: &Body) -> bool {
        let Some(total) = self.total else { return false };
        if self.end() == total {
            let round = self.rows.last_key_value().map_or(0, |(_, row)| row.round);
            self.rows.insert(total, WindowRow { id: Id::from(id), body: body.clone(), round });
        }
        self.total = Some(total + 1);
        true
    }
}

/// Returns true for a row that a write inserted. A row from an upstream event may be anywhere in the master's order.
fn is_new(item: &RingItem) -> bool {
    matches!(item.event, DioEvent::RecordInserted { .. })
        && item.entry.as_ref().is_some_and(|entry| entry.cause.origin == Origin::Write)
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges are what is compared")]
mod tests {
    use super::*;
    use crate::record::{Layout, Record};

    fn row(id: &str) -> (Id, Body) {
        (id.into(), Body::encode_plain(&Record::from_iter([("n".into(), id.into())]), &Layout::new("", false, ["n"])))
    }

    fn ids(window: &Window) -> Vec<(u64, String)> {
        window.rows.iter().map(|(at, row)| (*at, row.id.to_string())).collect()
    }

    #[test]
    fn rows_not_read_in_this_round_are_gaps() {
        let mut window = Window::empty(Some(10));
        assert_eq!(window.gaps(0..4, 0), [0..4]);
        window.loaded(&(0..2), &[row("a"), row("b")], false, 0);
        window.loaded(&(4..5), &[row("e")], false, 0);
        assert_eq!(window.gaps(0..20, 0), [2..4, 5..10]);
        assert_eq!(window.gaps(0..2, 0), []);
        assert_eq!(window.gaps(0..2, 1), [0..2], "an invalidated row is read again");
        assert_eq!(window.gaps(12..20, 0), [], "no gap after the end");
    }

    #[test]
    fn a_short_chunk_marks_the_end() {
        let mut window = Window::empty(None);
        assert!(window.has_more());
        window.loaded(&(0..3), &[row("a"), row("b"), row("c")], false, 0);
        assert!(window.has_more() && window.count() == 3);
        window.loaded(&(3..6), &[row("d")], true, 0);
        assert!(!window.has_more() && window.is_whole());
        assert_eq!(window.total(), Some(4));
    }

    #[test]
    fn a_moved_row_keeps_only_its_last_position() {
        let mut window = Window::empty(Some(4));
        window.loaded(&(0..2), &[row("a"), row("b")], false, 0);
        window.loaded(&(2..4), &[row("a"), row("d")], false, 0);
        assert_eq!(ids(&window), [(1, "b".into()), (2, "a".into()), (3, "d".into())]);
        window.loaded(&(0..2), &[row("b"), row("c")], false, 1);
        assert_eq!(ids(&window), [(0, "b".into()), (1, "c".into()), (2, "a".into()), (3, "d".into())]);
    }

    #[test]
    fn rows_behind_a_removed_one_move_up() {
        let mut window = Window::empty(Some(5));
        window.loaded(&(0..2), &[row("a"), row("b")], false, 0);
        window.loaded(&(3..5), &[row("d"), row("e")], false, 0);
        window.close_up(1);
        assert_eq!(ids(&window), [(0, "a".into()), (2, "d".into()), (3, "e".into())]);
        assert_eq!(window.total(), Some(4));
    }
}
