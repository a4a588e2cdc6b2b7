//! Differences between a list of the master and the known rows: changed, moved, new and missing rows.

use super::command::ReadRow;
use super::data::State;
use crate::record::{BodyRef, Id, Rows};
use crate::table::{ORDINAL_STEP, Ordinal};

/// Compares a list with the confirmed rows of `state`. A complete list also determines deleted rows and the order; a partial
/// one only adds and changes rows. `rows` must be encoded with the state's layout.
pub fn diff(state: &State, rows: &Rows, complete: bool) -> Vec<ReadRow> {
    let ordinals = if complete { Some(ordinals(state, rows)) } else { None };
    let mut items = Vec::new();
    for (at, (id, body)) in rows.bodies().enumerate() {
        let ordinal = ordinals.as_ref().map(|ordinals| ordinals[at]);
        if differs(state, id, body, ordinal) {
            items.push(ReadRow { id: id.into(), row: Some(body.to_body()), ordinal });
        }
    }
    if complete {
        items.extend(missing(state, rows).into_iter().map(|id| ReadRow { id, row: None, ordinal: None }));
    }
    items
}

/// Returns the number of rows that the master has confirmed.
pub fn confirmed(state: &State) -> usize {
    let over = state.folds().filter(|(id, fold)| fold.base.is_none() && state.table().contains(id)).count();
    let under = state.folds().filter(|(id, fold)| fold.base.is_some() && !state.table().contains(id)).count();
    state.table().len() - over + under
}

/// Returns the number of rows that the master had confirmed at `mark`, when a read began: the rows that a list can have missed.
/// Rows that writes or events have added since are not counted.
pub fn confirmed_at(state: &State, mark: u64) -> usize {
    confirmed(state).saturating_sub(state.confirmed_since(mark))
}

/// Returns true if an item of a list may change a confirmed row or its ordinal. False if it is already known, for example that
/// the master does not show a row which only a write route has.
pub fn may_change(state: &State, item: &ReadRow) -> bool {
    let base = state.base(&item.id);
    let moved = base.as_ref().is_some_and(|base| item.ordinal.is_some_and(|ordinal| ordinal != base.ordinal));
    moved || state.is_lost(&item.id) || base.as_ref().map(|base| &base.body) != item.row.as_ref()
}

fn differs(state: &State, id: &str, body: BodyRef<'_>, ordinal: Option<Ordinal>) -> bool {
    // A row with open operations has to be reconciled even if it is unchanged.
    if state.is_dirty(id) || state.fold(id).is_some() {
        return true;
    }
    state.get(id).is_none_or(|row| row.encoded() != body || ordinal.is_some_and(|ordinal| ordinal != row.ordinal()))
}

/// Returns the ids missing from a complete list: confirmed rows, rows with open operations, and dirty rows.
pub fn missing(state: &State, rows: &Rows) -> Vec<Id> {
    let visible = state.table().iter_slots().filter(|row| !rows.contains(row.id())).map(|row| Id::from(row.id()));
    let visible = visible.filter(|id| state.fold(id).is_none());
    let folded = state.folds().map(|(id, _)| id).filter(|id| !rows.contains(id)).cloned();
    let absent = |id: &&Id| !rows.contains(id) && state.get(id).is_none() && state.fold(id).is_none();
    let doubtful = state.dirty().filter(absent).cloned();
    visible.chain(folded).chain(doubtful).collect()
}

/// Assigns an ordinal to every row of a complete list. Rows keep theirs where the order allows it (the longest increasing
/// subsequence); the others get one in the gap between their neighbours. If a gap is exhausted, all rows are renumbered.
fn ordinals(state: &State, rows: &Rows) -> Vec<Ordinal> {
    let known: Vec<Option<Ordinal>> = rows.ids().map(|id| state.base_ordinal(id)).collect();
    let kept = keep_increasing(&known);
    let last = state.table().last_ordinal().unwrap_or(0);
    fill(&kept, last).unwrap_or_else(|| (1..=rows.len() as u64).map(|at| at.saturating_mul(ORDINAL_STEP)).collect())
}

/// Keeps only the longest increasing subsequence of `known`.
fn keep_increasing(known: &[Option<Ordinal>]) -> Vec<Option<Ordinal>> {
    let present = || known.iter().enumerate().filter_map(|(at, ordinal)| ordinal.map(|ordinal| (at, ordinal)));
    if present().map(|(_, ordinal)| ordinal).is_sorted_by(|a, b| a < b) {
        return known.to_vec();
    }
    // Patience sorting: `ends[n]` is the position of the smallest end of an increasing run of n + 1.
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

/// Assigns ordinals to rows without one; `None` if a gap has no room.
fn fill(kept: &[Option<Ordinal>], last: Ordinal) -> Option<Vec<Ordinal>> {
    let mut ordinals = Vec::with_capacity(kept.len());
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
                ordinals.extend((1..=waiting).map(|at| previous + at * step));
                ordinals.push(*next);
                (previous, waiting) = (*next, 0);
            }
        }
    }
    let start = previous.max(last) / ORDINAL_STEP * ORDINAL_STEP;
    for at in 1..=waiting {
        ordinals.push(start.checked_add(at.checked_mul(ORDINAL_STEP)?)?);
    }
    Some(ordinals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ordinals_rise_and_most_are_kept(known in proptest::collection::vec(proptest::option::of(1u64..40), 0..40)) {
            let kept = keep_increasing(&known);
            let present: Vec<u64> = kept.iter().flatten().copied().collect();
            prop_assert!(present.is_sorted_by(|a, b| a < b));
            for (kept, known) in kept.iter().zip(&known) {
                prop_assert!(kept.is_none() || kept == known);
            }
            // Compare the length with a quadratic search.
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
            let ordinals = fill(&scaled, 0).unwrap();
            prop_assert!(ordinals.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_gap_without_room_is_reported() {
        assert_eq!(fill(&[Some(1), None, Some(2)], 2), None);
    }
}
