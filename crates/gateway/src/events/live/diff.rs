//! Difference of two lists, as few changes as possible, each with its index. Pure.

use diorama_core::record::{Body, Id};

/// Row of a list, or group.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::events) struct Row {
    pub(super) id: Id,
    pub(super) body: Body,
}

/// Change of a list. Indexes refer to the list after the preceding changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change<'a> {
    Remove {
        index: usize,
        id: &'a str,
    },
    Insert {
        index: usize,
        row: &'a Row,
    },
    /// The row at `from` is removed and inserted at `index`. `changed` is true if its contents changed too.
    Move {
        from: usize,
        index: usize,
        row: &'a Row,
        changed: bool,
    },
    Update {
        index: usize,
        row: &'a Row,
    },
}

/// Returns the changes from `old` to `new`. Removals come first, so that the list is never longer than the longer of both.
pub(super) fn diff<'a>(old: &'a [Row], new: &'a [Row], same: impl Fn(&Row, &Row) -> bool) -> Vec<Change<'a>> {
    let place: std::collections::HashMap<&str, usize> =
        new.iter().enumerate().map(|(at, row)| (&*row.id, at)).collect();
    let mut changes = Vec::new();
    // New indexes of the rows that stay, in their old order; and their old contents, by new index.
    let mut now: Vec<usize> = Vec::with_capacity(new.len());
    let mut was: Vec<Option<&Row>> = vec![None; new.len()];
    for row in old {
        if let Some(at) = place.get(&*row.id) {
            now.push(*at);
            was[*at] = Some(row);
        }
    }
    for (index, row) in old.iter().enumerate().rev() {
        if !place.contains_key(&*row.id) {
            changes.push(Change::Remove { index, id: &row.id });
        }
    }
    let stays = longest_ascending(&now, new.len());
    let mut next = 0;
    for (at, row) in new.iter().enumerate() {
        let changed = was[at].is_some_and(|was| !same(was, row));
        let index_of = |now: &[usize]| now.iter().position(|other| *other == at).unwrap_or_default();
        let index = match was[at] {
            // Rows that move later may be in between.
            Some(_) if stays[at] => {
                let index = next + index_of(&now[next..]);
                changes.extend(changed.then_some(Change::Update { index, row }));
                index
            }
            Some(_) => {
                let from = index_of(&now);
                now.remove(from);
                let index = if from < next { next - 1 } else { next };
                now.insert(index, at);
                match (from == index, changed) {
                    (false, _) => changes.push(Change::Move { from, index, row, changed }),
                    (true, true) => changes.push(Change::Update { index, row }),
                    (true, false) => {}
                }
                index
            }
            None => {
                now.insert(next, at);
                changes.push(Change::Insert { index: next, row });
                next
            }
        };
        next = index + 1;
    }
    changes
}

/// Marks the numbers below `end` in a longest ascending subsequence of `numbers`, which are distinct.
fn longest_ascending(numbers: &[usize], end: usize) -> Vec<bool> {
    // For each length, the end of the subsequence with the lowest last number; for each index, its predecessor.
    let (mut ends, mut before): (Vec<usize>, Vec<Option<usize>>) = (Vec::new(), Vec::with_capacity(numbers.len()));
    for (at, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let mut within = vec![false; end];
    let mut at = ends.last().copied();
    while let Some(place) = at {
        within[numbers[place]] = true;
        at = before[place];
    }
    within
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use diorama_core::record::{Body, Layout, Record};

    fn row(id: &str, value: u8) -> Row {
        let record = Record::from_iter([("v".to_string(), u64::from(value).into())]);
        Row { id: id.into(), body: Body::encode_plain(&record, &Layout::new("", false, ["v"])) }
    }

    fn rows(ids: &str) -> Vec<Row> {
        ids.chars().map(|id| row(&id.to_string(), u8::from(id.is_uppercase()))).collect()
    }

    fn same(a: &Row, b: &Row) -> bool {
        a.body == b.body
    }

    /// Applies a change as a client does.
    fn apply(list: &mut Vec<Row>, change: &Change<'_>) {
        match change {
            Change::Remove { index, id } => assert_eq!(&*list.remove(*index).id, *id),
            Change::Insert { index, row } => list.insert(*index, (*row).clone()),
            Change::Move { from, index, row, changed } => {
                let old = list.remove(*from);
                assert_eq!(old.id, row.id);
                list.insert(*index, if *changed { (*row).clone() } else { old });
            }
            Change::Update { index, row } => {
                assert_eq!(list[*index].id, row.id);
                list[*index] = (*row).clone();
            }
        }
    }

    #[test]
    fn a_row_that_moves_is_one_change() {
        for (old, new, count) in
            [("abcd", "bcda", 1), ("abcd", "dabc", 1), ("abcd", "abcd", 0), ("abcd", "xabc", 2), ("abc", "cba", 2)]
        {
            let (old, new) = (rows(old), rows(new));
            assert_eq!(diff(&old, &new, same).len(), count);
        }
    }

    proptest! {
        #[test]
        fn applying_the_changes_gives_the_new_list(
            old in prop::collection::vec((0..12u8, 0..2u8), 0..12),
            new in prop::collection::vec((0..12u8, 0..2u8), 0..12),
        ) {
            let list = |rows: Vec<(u8, u8)>| {
                let mut seen = Vec::new();
                let fresh = rows.into_iter().filter(|(id, _)| !seen.contains(id) && { seen.push(*id); true });
                fresh.map(|(id, value)| row(&id.to_string(), value)).collect::<Vec<_>>()
            };
            let (old, new) = (list(old), list(new));
            let changes = diff(&old, &new, same);
            let mut now = old.clone();
            for change in &changes {
                apply(&mut now, change);
                prop_assert!(now.len() <= old.len().max(new.len()));
            }
            prop_assert_eq!(&now, &new);
            let kept = old.iter().filter(|row| new.iter().any(|other| other.id == row.id)).count();
            let moved = changes.iter().filter(|change| matches!(change, Change::Move { .. })).count();
            prop_assert!(kept == 0 || moved < kept);
        }
    }
}
