//! Writes with bounds: what the committer decides, whatever the writer knew of the row before.

use std::collections::HashSet;

use super::*;
use crate::vista::query::{Filter, JsonRow, Query, SelectItem, Test};
use crate::vista::{Narrowing, WriteBounds, WriteColumns};

/// Bounds of a writer who sees and may write the column `n`.
fn of_n() -> WriteBounds {
    let select = vec![SelectItem::Column { column: "n".into(), alias: None }];
    let shown = Query { select, ..Query::default() }.projection(&schema()).unwrap();
    WriteBounds {
        columns: Some(Arc::new(WriteColumns { shown, writable: HashSet::from(["n".into()]) })),
        ..WriteBounds::default()
    }
}

fn at_least(n: u64) -> Option<Arc<Narrowing>> {
    let filter = Filter::test("n", Test::Gte(n.into()));
    Some(Arc::new(Narrowing::new(&Query { filter, ..Query::default() }, &schema())))
}

fn attempt(
    state: &State,
    effect: Effect,
    condition: Condition,
    within: &WriteBounds,
) -> crate::vista::Result<Decision> {
    let within = Some(Arc::new(within.clone()));
    state.decide(&Command::Write(NewWrite { condition, within, ..write(9, Some(&id(0)), effect) }), 0)
}

#[test]
fn a_replacement_keeps_the_columns_of_the_row_that_it_meets() {
    let state = state_with_row(false);
    for stale in [plain(0, 5), body(0, 5, Some(9), None)] {
        let decision = attempt(&state, Effect::Replace(stale), Condition::None, &of_n()).unwrap();
        let mut after = state.clone();
        decision.entries.iter().for_each(|entry| drop(after.apply(entry)));
        assert_eq!(after.get("a").unwrap().json(), body(0, 5, Some(1), None).json());
    }
}

#[test]
fn a_version_is_that_of_the_visible_columns() {
    let mut state = state_with_row(false);
    let row = state.get("a").unwrap().body();
    let shown = of_n().columns.unwrap().shown.clone().unwrap().hash(&JsonRow::from(&row));
    let replace =
        |state: &State, hash| attempt(state, Effect::Patch(part(2)), Condition::Matches(vec![hash]), &of_n()).is_ok();
    assert!(replace(&state, shown) && !replace(&state, row.hash()));
    patch(&mut state, 1, r#"{"m":7}"#);
    assert!(replace(&state, shown), "a hidden column has changed");
    patch(&mut state, 2, r#"{"n":7}"#);
    assert!(!replace(&state, shown));
}

#[test]
fn a_row_is_absent_unless_it_is_seen_and_forbidden_unless_it_may_be_changed_and_made() {
    let state = state_with_row(false);
    let outcome = |within: WriteBounds, effect: Effect| attempt(&state, effect, Condition::None, &within).map(drop);
    let unseen = || WriteBounds { sees: at_least(2), ..WriteBounds::default() };
    assert!(matches!(outcome(unseen(), Effect::Delete), Err(Error::NotFound { .. })));
    assert!(matches!(outcome(unseen(), Effect::Replace(plain(0, 5))), Err(Error::Conflict { .. })));
    assert!(
        matches!(outcome(unseen(), Effect::Insert(plain(0, 1))), Err(Error::Conflict { .. })),
        "not even an equal one"
    );
    let fixed = || WriteBounds { changes: at_least(2), refusal: Some("no".into()), ..WriteBounds::default() };
    assert!(matches!(outcome(fixed(), Effect::Delete), Err(Error::Forbidden { .. })));
    assert!(matches!(outcome(fixed(), Effect::Patch(part(5))), Err(Error::Forbidden { .. })), "the row before counts");
    let made = || WriteBounds { makes: at_least(2), refusal: Some("no".into()), ..WriteBounds::default() };
    assert!(matches!(outcome(made(), Effect::Replace(plain(0, 1))), Err(Error::Forbidden { .. })));
    assert!(outcome(made(), Effect::Replace(plain(0, 2))).is_ok() && outcome(made(), Effect::Delete).is_ok());
}

#[test]
fn a_replacement_creates_a_row_only_if_it_may_and_as_it_may() {
    let absent = State::new(rules(false, true), "epoch", 0);
    let put =
        |within: WriteBounds, n| attempt(&absent, Effect::Replace(plain(0, n)), Condition::None, &within).map(drop);
    let none = WriteBounds { keeps_absent: true, ..WriteBounds::default() };
    assert!(matches!(put(none, 1), Err(Error::NotFound { .. })));
    let (makes, creates) = (at_least(9), at_least(2));
    let some = || WriteBounds {
        makes: makes.clone(),
        creates: creates.clone(),
        refusal: Some("no".into()),
        ..WriteBounds::default()
    };
    assert!(put(some(), 2).is_ok() && matches!(put(some(), 1), Err(Error::Forbidden { .. })));
}
