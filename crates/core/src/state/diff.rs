//! What a list of the master says that is not known yet: the rows that differ, moved, are new, or are missing from it.

use std::sync::Arc;

use super::apply::same_body;
use super::command::ReadRow;
use super::data::State;
use crate::record::{Body, Id, Rows};
use crate::table::{ORDINAL_STEP, Ordinal};

/// Compares a list with the confirmed rows of `state`. A complete list also says which rows are gone and in which order the
/// others come; a partial one only adds and changes. `rows` must be encoded under the state's layout.
pub fn diff(state: &State, rows: &Rows, complete: bool) -> Vec<ReadRow> {
    let ordinals = if complete { Some(ordinals(state, rows)) } else { None };
    let mut items = Vec::new();
    for (at, (id, body)) in rows.bodies().enumerate() {
        let ordinal = ordinals.as_ref().map(|ordinals| ordinals[at]);
        if differs(state, id, body, ordinal) {
            items.push(ReadRow { id: Arc::clone(id), row: Some(body.clone()), ordinal });
        }
    }
    if complete {
        items.extend(missing(state, rows).into_iter().map(|id| ReadRow { id, row: None, ordinal: None }));
    }
    items
}

/// How many rows the master has confirmed.
pub fn confirmed(state: &State) -> usize {
    let over = state.folds().filter(|(id, fold)| fold.base.is_none() && state.table().contains(id)).count();
    let under = state.folds().filter(|(id, fold)| fold.base.is_some() && !state.table().contains(id)).count();
    state.table().len() - over + under
}

/// How many rows the master had confirmed at `mark`, when a reading of it began: what a list can have missed. Rows that writes or
/// events have added since are not counted.
pub fn confirmed_at(state: &State, mark: u64) -> usize {
    confirmed(state).saturating_sub(state.confirmed_since(mark))
}

/// Whether an item of a list may change a confirmed row or its place: not if it says what is known already, such as that the
/// master does not show a row which only a write route has.
pub fn may_change(state: &State, item: &ReadRow) -> bool {
    let base = state.base(&item.id);
    let moved = base.as_ref().is_some_and(|base| item.ordinal.is_some_and(|ordinal| ordinal != base.ordinal));
    moved || state.is_lost(&item.id) || base.as_ref().map(|base| &base.body) != item.row.as_ref()
}

fn differs(state: &State, id: &Id, body: &Body, ordinal: Option<Ordinal>) -> bool {
    // That a row is as it was is news too where writes lie over it.
    if state.is_dirty(id) || state.fold(id).is_some() {
        return true;
    }
    state.get(id).is_none_or(|row| !same_body(&row, body) || ordinal.is_some_and(|ordinal| ordinal != row.ordinal()))
}

/// Ids that a complete list does not have: of confirmed rows, of those with writes over them, of those in doubt.
pub fn missing(state: &State, rows: &Rows) -> Vec<Id> {
    let visible = state.table().iter_slots().filter(|row| !rows.contains(row.id())).map(|row| Id::from(row.id()));
    let visible = visible.filter(|id| state.fold(id).is_none());
    let folded = state.folds().map(|(id, _)| id).filter(|id| !rows.contains(id)).cloned();
    let absent = |id: &&Id| !rows.contains(id) && state.get(id).is_none() && state.fold(id).is_none();
    let doubtful = state.dirty().filter(absent).cloned();
    visible.chain(folded).chain(doubtful).collect()
}

/// A place for every row of a complete list: rows keep theirs where the order allows it (the longest increasing
/// subsequence), the others get one in the gap between their neighbours; if a gap is used up, all are numbered anew.
fn ordinals(state: &State, rows: &Rows) -> Vec<Ordinal> {
    let known: Vec<Option<Ordinal>> = rows.ids().map(|id| state.base(id).map(|base| base.ordinal)).collect();
    let kept = keep_increasing(&known);
    let last = state.table().last_ordinal().unwrap_or(0);
    fill(&kept, last).unwrap_or_else(|| (1..=rows.len() as u64).map(|at| at.saturating_mul(ORDINAL_STEP)).collect())
}

/// `known` with everything dropped that is not in its longest increasing subsequence.
fn keep_increasing(known: &[Option<Ordinal>]) -> Vec<Option<Ordinal>> {
    let present = || known.iter().enumerate().filter_map(|(at, ordinal)| ordinal.map(|ordinal| (at, ordinal)));
    if present().map(|(_, ordinal)| ordinal).is_sorted_by(|a, b| a < b) {
        return known.to_vec();
    }
    // Patience sorting: `ends[n]` is the place of the smallest end of an increasing run of n + 1.
    let mut ends: Vec<(Ordinal, usize)> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; known.len()];
    for (at, ordinal) in present() {
        let length = ends.partition_point(|(end, _)| *end < ordinal);
        before[at] = length.checked_sub(1).map(|length| ends[length].1);
        match ends.get_mut(length) {
            Some(end) => *end = (ordinal, at),
            None => ends.push((ordinal, at)),
        }
    }
    let mut kept = vec![None; known.len()];
    let mut next = ends.last().map(|(_, at)| *at);
    while let Some(at) = next {
        kept[at] = known[at];
        next = before[at];
    }
    kept
}

/// Places for those without one; `None` if a gap has no room.
fn fill(kept: &[Option<Ordinal>], last: Ordinal) -> Option<Vec<Ordinal>> {
    let mut places = Vec::with_capacity(kept.len());
    let mut previous: Ordinal = 0;
    let mut waiting = 0u64;
    for kept in kept {
        match kept {
            None => waiting += 1,
            Some(next) => {
                let step = (next - previous) / (waiting + 1);
                if step == 0 {
                    return None;
                }
                places.extend((1..=waiting).map(|at| previous + at * step));
                places.push(*next);
                (previous, waiting) = (*next, 0);
            }
        }
    }
    let start = previous.max(last) / ORDINAL_STEP * ORDINAL_STEP;
    for at in 1..=waiting {
        places.push(start.checked_add(at.checked_mul(ORDINAL_STEP)?)?);
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_rise_and_as_many_as_can_be_are_kept(known in proptest::collection::vec(proptest::option::of(1u64..40), 0..40)) {
            let kept = keep_increasing(&known);
            let present: Vec<u64> = kept.iter().flatten().copied().collect();
            prop_assert!(present.is_sorted_by(|a, b| a < b));
            for (kept, known) in kept.iter().zip(&known) {
                prop_assert!(kept.is_none() || kept == known);
            }
            // As long as a quadratic search finds.
            let values: Vec<u64> = known.iter().flatten().copied().collect();
            let mut best = vec![1usize; values.len()];
            for at in 0..values.len() {
                for before in 0..at {
                    if values[before] < values[at] {
                        best[at] = best[at].max(best[before] + 1);
                    }
                }
            }
            prop_assert_eq!(present.len(), best.into_iter().max().unwrap_or(0));
            let scaled: Vec<Option<u64>> = kept.iter().map(|place| place.map(|place| place << 32)).collect();
            let places = fill(&scaled, 0).unwrap();
            prop_assert!(places.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_gap_without_room_is_reported() {
        assert_eq!(fill(&[Some(1), None, Some(2)], 2), None);
    }
}
