//! Tests of the state machine: single scenarios here, all interleavings in [`model`], restarts in [`restart`].

mod bounded;
mod failing;
mod model;
mod restart;
mod routed;
mod telling;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::record::{Body, Id};
use crate::table::{Table, TableBuilder};
use crate::vista::{Column, ColumnType, Error, Schema};

fn schema() -> Arc<Schema> {
    let columns = ["n", "m", "v"].map(|name| Column::new(name, ColumnType::Integer)).to_vec();
    Arc::new(Schema::new("id", columns))
}

fn rules(versioned: bool, trust: bool) -> Arc<Rules> {
    thread_local!(static SCHEMA: Arc<Schema> = schema());
    let rules = Rules::new(SCHEMA.with(Arc::clone));
    Arc::new(Rules { version: versioned.then(|| "v".into()), trust_payload: trust, ..rules })
}

fn id(key: usize) -> Id {
    Id::from(["a", "b", "c", "d", "e"][key])
}

/// Creates a body of these columns in schema order.
fn body(key: usize, n: u64, m: Option<u64>, v: Option<u64>) -> Body {
    let column = |name: &str, value: Option<u64>| value.map_or(String::new(), |value| format!(r#","{name}":{value}"#));
    let json = format!(r#"{{"id":"{}","n":{n}{}{}}}"#, id(key), column("m", m), column("v", v));
    Body::from_parts(json.into(), None)
}

fn plain(key: usize, n: u64) -> Body {
    body(key, n, None, None)
}

fn row(versioned: bool, key: usize, n: u64, version: usize) -> Body {
    body(key, n, None, versioned.then_some(version as u64))
}

/// Creates a patch that sets `n`.
fn part(n: u64) -> Body {
    Body::from_parts(format!(r#"{{"n":{n}}}"#).into(), None)
}

/// Returns the value of `n`.
fn value_of(body: &Body) -> u64 {
    let text = std::str::from_utf8(body.json()).unwrap();
    let digits = text.split("\"n\":").nth(1).unwrap();
    digits.split([',', '}']).next().unwrap().parse().unwrap()
}

fn op_id(n: u64) -> OpId {
    OpId::from_u128(n.into())
}

fn write(op: u64, id: Option<&Id>, effect: Effect) -> NewWrite {
    NewWrite::new(op_id(op), id.cloned(), effect)
}

fn rejection() -> OpError {
    OpError { code: "refused".into(), detail: "no".into() }
}

/// Decides a command and applies the decision; panics if it is rejected.
fn run(state: &mut State, command: &Command) -> Decision {
    run_at(state, command, 7)
}

fn run_at(state: &mut State, command: &Command, now: u64) -> Decision {
    let decision = state.decide(command, now).unwrap();
    for entry in &decision.entries {
        state.apply(entry);
    }
    for note in &decision.notes {
        state.note(note);
    }
    decision
}

fn state_with_row(versioned: bool) -> State {
    let mut state = State::new(rules(versioned, true), "epoch", 0);
    run(
        &mut state,
        &Command::Statement { rows: vec![(id(0), Some(body(0, 1, Some(1), versioned.then_some(1))))], notify: false },
    );
    state
}

fn patch(state: &mut State, op: u64, json: &str) -> Decision {
    let patch = Body::from_parts(json.to_string().into(), None);
    run(state, &Command::Write(write(op, Some(&id(0)), Effect::Patch(patch))))
}

fn open(state: &mut State) -> u64 {
    match run(state, &Command::Open).outcome {
        Outcome::Mark(mark) => mark,
        other => panic!("{other:?}"),
    }
}

fn settle(state: &mut State, op: u64, answer: Answer) -> Decision {
    let mark = open(state);
    run(state, &Command::Settle { op: op_id(op), mark, answer })
}

fn read(state: &mut State, row: Option<Body>) -> Decision {
    let mark = open(state);
    let items = vec![ReadRow { id: id(0), row, ordinal: None }];
    let decision = run(state, &Command::ReadRows { items, mark, notice: Notice::RowEvents });
    run(state, &Command::Close(mark));
    decision
}

/// Creates a version by the Dio's own column.
fn by_column(version: u64) -> EventVersion {
    EventVersion { clock: COLUMN_CLOCK.into(), version: version.into() }
}

fn push(state: &mut State, row: Option<Body>, version: Option<u64>) -> Decision {
    let change = row.map_or(UpstreamChange::Gone, UpstreamChange::Row);
    let version = version.map(by_column);
    run(
        state,
        &Command::Upstream(UpstreamEvent {
            id: id(0),
            change,
            version,
            delivery: None,
            origin: Origin::Webhook,
            in_order: false,
        }),
    )
}

fn confirmed() -> Answer {
    Answer::Confirmed { row: None, id: None }
}

fn shown(state: &State) -> Option<String> {
    state.get("a").map(|row| String::from_utf8(row.json().to_vec()).unwrap())
}

fn base(state: &State) -> Option<String> {
    state.base("a").map(|base| String::from_utf8(base.body.json().to_vec()).unwrap())
}

fn json(n: u64, m: u64) -> Option<String> {
    Some(format!(r#"{{"id":"a","n":{n},"m":{m}}}"#))
}

fn frames(decision: &Decision) -> Vec<&Frame> {
    decision.entries.iter().map(|entry| &entry.frame).collect()
}

#[test]
fn rolled_back_a_failed_write_leaves_the_confirmed_row_and_the_writes_behind_it() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2,"m":2}"#);
    patch(&mut state, 2, r#"{"m":3}"#);
    assert_eq!(shown(&state), json(2, 3));
    let decision = settle(&mut state, 1, Answer::Failed(rejection()));
    assert_eq!(frames(&decision), [&Frame::Changed, &Frame::WriteFailed(rejection())]);
    assert_eq!(shown(&state), json(1, 3));
    assert_eq!(base(&state), json(1, 1));
    assert_eq!(settle(&mut state, 1, Answer::Failed(rejection())).entries.len(), 0, "it has already failed");
    let decision = settle(&mut state, 2, confirmed());
    assert_eq!(frames(&decision), [&Frame::WriteCommitted]);
    assert_eq!((base(&state), shown(&state)), (json(1, 3), json(1, 3)));
    assert_eq!(state.folds().count(), 0);
}

#[test]
fn rolled_back_a_failed_insert_removes_its_row_before_the_failure_event() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Write(write(1, Some(&id(1)), Effect::Insert(plain(1, 4)))));
    let decision = settle(&mut state, 1, Answer::Failed(rejection()));
    assert_eq!(frames(&decision), [&Frame::Removed, &Frame::WriteFailed(rejection())]);
    assert!(state.get("b").is_none());
}

#[test]
fn a_confirmation_without_visible_change_keeps_the_position_of_rows() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    let (seq, rows) = (state.seq(), state.rows_seq());
    assert_eq!(seq, rows);
    settle(&mut state, 1, confirmed());
    assert_eq!(state.rows_seq(), rows);
    assert_eq!(state.seq(), seq + 1);
    run(&mut state, &Command::InvalidateAll { covered: true, origin: Origin::Refresh });
    assert_eq!((state.rows_seq(), state.seq()), (rows, seq + 2));
}

#[test]
fn writes_that_conflict_with_the_visible_row_are_rejected_and_repeats_are_not() {
    let mut state = state_with_row(false);
    let attempt = |state: &State, key: usize, effect: Effect, condition: Condition| {
        state.decide(&Command::Write(NewWrite { condition, ..write(9, Some(&id(key)), effect) }), 0)
    };
    let none = Condition::None;
    assert!(matches!(attempt(&state, 1, Effect::Patch(part(1)), none.clone()), Err(Error::NotFound { .. })));
    assert!(matches!(attempt(&state, 1, Effect::Delete, none.clone()), Err(Error::NotFound { .. })));
    let other = Effect::Insert(plain(0, 9));
    assert!(matches!(attempt(&state, 0, other, none.clone()), Err(Error::Conflict { .. })));
    let same = Effect::Insert(body(0, 1, Some(1), None));
    assert_eq!(attempt(&state, 0, same, none).unwrap().outcome, Outcome::Identical);
    let hash = state.get("a").unwrap().hash();
    let replace = || Effect::Replace(plain(0, 3));
    assert!(attempt(&state, 0, replace(), Condition::Matches(vec![0, hash])).is_ok());
    assert!(attempt(&state, 0, replace(), Condition::Exists).is_ok());
    assert!(attempt(&state, 1, replace(), Condition::Absent).is_ok());
    for (key, condition) in [(0, Condition::Absent), (1, Condition::Exists), (1, Condition::Matches(vec![hash]))] {
        assert!(matches!(attempt(&state, key, replace(), condition), Err(Error::Precondition { .. })));
    }
    patch(&mut state, 1, r#"{"n":5}"#);
    let late = attempt(&state, 0, replace(), Condition::Matches(vec![hash]));
    assert!(matches!(late, Err(Error::Precondition { .. })), "only one of two writers on the same version wins");
}

#[test]
fn delete_all_covers_the_visible_rows_and_is_rolled_back_completely() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Write(write(1, Some(&id(1)), Effect::Insert(plain(1, 4)))));
    run(&mut state, &Command::Write(write(2, None, Effect::DeleteAll)));
    assert!(state.table().is_empty());
    run(&mut state, &Command::Write(write(3, Some(&id(2)), Effect::Insert(plain(2, 4)))));
    let op = state.op(op_id(2)).unwrap();
    assert!(!state.is_next(op), "the delete waits for the insert of one of its rows");
    let decision = settle(&mut state, 2, Answer::Failed(rejection()));
    assert_eq!(frames(&decision), [&Frame::Inserted, &Frame::Inserted, &Frame::WriteFailed(rejection())]);
    assert_eq!(state.table().len(), 3);
    run(&mut state, &Command::Write(write(4, None, Effect::DeleteAll)));
    settle(&mut state, 1, confirmed());
    settle(&mut state, 3, confirmed());
    settle(&mut state, 4, confirmed());
    assert_eq!((state.table().len(), state.folds().count(), state.base("a")), (0, 0, None));
}

#[test]
fn statements_are_accepted_as_given_and_pending_writes_still_apply() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(body(0, 7, Some(7), None)))], notify: true });
    assert_eq!((shown(&state), base(&state)), (json(2, 7), json(7, 7)));
    assert!(state.is_dirty("a"), "a write is pending");
    settle(&mut state, 1, Answer::Routed);
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(body(0, 2, Some(8), None)))], notify: true });
    assert_eq!((shown(&state), state.folds().count()), (json(2, 8), 0), "the statement confirms the routed write");
    let repeated =
        run(&mut state, &Command::Statement { rows: vec![(id(0), Some(body(0, 2, Some(8), None)))], notify: true });
    assert_eq!(frames(&repeated), [&Frame::Changed]);
    let silent = run(&mut state, &Command::Statement { rows: vec![(id(0), None)], notify: false });
    assert_eq!(frames(&silent), [&Frame::Silent]);
    assert_eq!((shown(&state), state.rows_seq()), (None, state.seq()));
}

#[test]
fn with_a_versioned_master_the_newest_version_wins_in_every_order() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let mut state = State::new(rules(true, true), "epoch", 0);
        for version in order {
            let row = (version != 2).then(|| body(0, version, None, Some(version)));
            push(&mut state, row, Some(version));
        }
        assert_eq!(state.get("a").map(|row| value_of(&row.body())), Some(3), "{order:?}");
    }
    for order in [[1, 2], [2, 1]] {
        let mut state = State::new(rules(true, true), "epoch", 0);
        for version in order {
            push(&mut state, (version == 1).then(|| body(0, 1, None, Some(1))), Some(version));
        }
        assert!(state.get("a").is_none(), "a deleted row stays deleted: {order:?}");
    }
}

/// Reports a change of row `a` as a feed of all changes of the master in their order does.
fn report(state: &mut State, change: UpstreamChange) -> Decision {
    let (version, delivery, origin) = (None, None, Origin::Feed);
    run(state, &Command::Upstream(UpstreamEvent { id: id(0), change, version, delivery, origin, in_order: true }))
}

/// The feed's row is the newest: no read follows, and one that began before does not undo it.
#[test]
fn a_row_that_is_reported_in_order_is_adopted_without_a_doubt() {
    let mut state = state_with_row(false);
    let mark = open(&mut state);
    report(&mut state, UpstreamChange::Row(plain(0, 5)));
    assert_eq!((base(&state), state.is_dirty("a")), (Some(r#"{"id":"a","n":5}"#.into()), false));
    let items = vec![ReadRow { id: id(0), row: Some(plain(0, 4)), ordinal: None }];
    run(&mut state, &Command::ReadRows { items, mark, notice: Notice::RowEvents });
    assert_eq!(base(&state), Some(r#"{"id":"a","n":5}"#.into()), "the read may have seen an older row");
    run(&mut state, &Command::Close(mark));
    report(&mut state, UpstreamChange::Gone);
    assert_eq!(base(&state), None);
}

/// Cells that were not sent stay; those that were sent replace, and nested values are not merged.
#[test]
fn reported_cells_replace_those_of_the_row() {
    let mut state = state_with_row(false);
    report(&mut state, UpstreamChange::Cells(Body::from_parts(r#"{"id":"a","n":9}"#.into(), None)));
    assert_eq!(shown(&state), Some(r#"{"id":"a","n":9,"m":1}"#.into()));
    assert!(!state.is_dirty("a"));
    let mut empty = State::new(rules(false, true), "epoch", 0);
    report(&mut empty, UpstreamChange::Cells(part(9)));
    assert!(empty.is_dirty("a") && empty.get("a").is_none(), "the rest of an unknown row is read");
}

/// A write ends when the feed has reported it; a later change of the row stays.
#[test]
fn a_reported_write_leaves_the_row_of_the_feed() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    report(&mut state, UpstreamChange::Row(body(0, 2, Some(1), None)));
    report(&mut state, UpstreamChange::Row(body(0, 3, Some(1), None)));
    assert_eq!(shown(&state), Some(r#"{"id":"a","n":2,"m":1}"#.into()), "the write waits on top");
    settle(&mut state, 1, Answer::Reported);
    assert_eq!(shown(&state), Some(r#"{"id":"a","n":3,"m":1}"#.into()));
    assert!(!state.is_dirty("a") && state.queue().next().is_none());
}

/// The feed has only told that the row changed: the effect of the write stays until the row was read.
#[test]
fn a_reported_write_of_a_row_in_doubt_keeps_its_effect() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    report(&mut state, UpstreamChange::Thin);
    settle(&mut state, 1, Answer::Reported);
    assert_eq!(shown(&state), Some(r#"{"id":"a","n":2,"m":1}"#.into()));
    assert!(state.is_dirty("a"));
    read(&mut state, Some(body(0, 7, Some(1), None)));
    assert_eq!(shown(&state), Some(r#"{"id":"a","n":7,"m":1}"#.into()));
}

#[test]
fn a_versioned_part_is_stored_as_sent_and_read_again() {
    let mut state = state_with_row(true);
    let change = UpstreamChange::Part(part(4));
    let event = UpstreamEvent {
        id: id(0),
        change,
        version: Some(by_column(5)),
        delivery: None,
        origin: Origin::Feed,
        in_order: false,
    };
    run(&mut state, &Command::Upstream(event));
    assert_eq!(shown(&state), Some(r#"{"id":"a","n":4,"m":1,"v":1}"#.into()));
    assert!(state.is_dirty("a"));
    assert_eq!(push(&mut state, Some(body(0, 9, None, Some(4))), Some(4)).outcome, Outcome::Stale);
    assert!(state.is_dirty("a"), "a stale event settles nothing");
    read(&mut state, Some(body(0, 4, Some(8), Some(5))));
    assert_eq!(shown(&state), Some(r#"{"id":"a","n":4,"m":8,"v":5}"#.into()), "the missed column is updated");
    assert!(!state.is_dirty("a"));
}

#[test]
fn parked_writes_are_rolled_back_and_wait_for_an_operator() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    let decision = settle(&mut state, 1, Answer::Parked(rejection()));
    assert_eq!(frames(&decision), [&Frame::Changed, &Frame::WriteFailed(rejection())]);
    assert_eq!(shown(&state), json(1, 1));
    run(&mut state, &Command::Retry { op: op_id(1), new: op_id(2) });
    assert_eq!(state.op(op_id(2)).unwrap().retry_of, Some(op_id(1)));
    assert_eq!((shown(&state), state.op(op_id(1)).unwrap().state), (json(2, 1), OpState::Discarded));
    settle(&mut state, 2, Answer::Parked(rejection()));
    run(&mut state, &Command::Discard(op_id(2)));
    assert!(matches!(state.decide(&Command::Discard(op_id(2)), 0), Err(Error::Conflict { .. })));
    assert!(matches!(state.decide(&Command::Discard(op_id(8)), 0), Err(Error::NotFound { .. })));
}

#[test]
fn a_hint_during_a_delivery_does_not_hide_the_write() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    let mark = open(&mut state);
    push(&mut state, Some(body(0, 2, Some(1), None)), None);
    run(&mut state, &Command::Settle { op: op_id(1), mark, answer: confirmed() });
    assert_eq!((shown(&state), base(&state)), (json(2, 1), json(2, 1)));
    assert!(state.is_dirty("a"));
}

#[test]
fn only_a_read_that_began_later_settles_a_doubt() {
    let mut state = state_with_row(false);
    let early = open(&mut state);
    patch(&mut state, 1, r#"{"n":2}"#);
    read(&mut state, Some(body(0, 4, Some(4), None)));
    settle(&mut state, 1, Answer::Failed(rejection()));
    let items = vec![ReadRow { id: id(0), row: Some(body(0, 1, Some(1), None)), ordinal: None }];
    run(&mut state, &Command::ReadRows { items, mark: early, notice: Notice::RowEvents });
    run(&mut state, &Command::Close(early));
    assert!(state.is_dirty("a"));
    read(&mut state, Some(body(0, 4, Some(4), None)));
    assert!(!state.is_dirty("a"));
    assert_eq!(shown(&state), json(4, 4));
}

#[test]
fn silent_news_and_bulk_move_rows_without_frames() {
    let mut state = state_with_row(false);
    let mark = open(&mut state);
    let items = [
        ReadRow { id: id(0), row: None, ordinal: None },
        ReadRow { id: id(1), row: Some(plain(1, 1)), ordinal: None },
        ReadRow { id: id(2), row: Some(plain(2, 1)), ordinal: None },
    ];
    let decision =
        run(&mut state, &Command::ReadRows { items: items[..2].to_vec(), mark, notice: Notice::Invalidated });
    assert_eq!(frames(&decision), [&Frame::Silent, &Frame::Silent]);
    assert_eq!(decision.outcome, Outcome::Applied { inserted: 1, changed: 0, removed: 1 });
    patch_other(&mut state);
    let later = open(&mut state);
    let decision =
        run(&mut state, &Command::Bulk { items: items[1..].to_vec(), mark: later, notice: Notice::Invalidated });
    assert_eq!((decision.entries.len(), decision.entries[0].id.as_ref()), (1, None));
    assert_eq!(state.rows_seq(), state.seq());
    assert!(state.get("c").is_some());
    assert!(!state.is_dirty("b") || state.has_queued("b"));
}

fn patch_other(state: &mut State) {
    run(state, &Command::Write(write(5, Some(&id(1)), Effect::Patch(part(3)))));
}

#[test]
fn a_seed_is_accepted_only_by_an_empty_state_and_pending_inserts_stay() {
    let mut table = TableBuilder::new();
    table.push("b", &plain(1, 1), 1 << 32);
    let seed = Command::Seed { table: table.finish(), mark: 0, notice: Notice::Invalidated };
    assert!(state_with_row(false).decide(&seed, 0).is_err());
    let mut state = State::new(rules(false, true), "epoch", 0);
    run(&mut state, &Command::Write(write(1, Some(&id(0)), Effect::Insert(plain(0, 4)))));
    run(&mut state, &seed);
    assert_eq!(state.table().len(), 2);
    assert_eq!((state.base("a"), state.base("b").is_some()), (None, true));
    settle(&mut state, 1, confirmed());
    assert!(state.base("a").is_some());
}

#[test]
fn touches_are_recorded_only_while_a_guard_is_open() {
    let mut state = state_with_row(false);
    push(&mut state, Some(plain(0, 3)), None);
    assert!(state.touched.is_empty());
    let (first, second) = (open(&mut state), open(&mut state));
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(plain(0, 4)))], notify: false });
    assert!(state.touched_after("a", first));
    run(&mut state, &Command::Close(first));
    assert!(state.touched_after("a", second) && state.in_motion());
    run(&mut state, &Command::Close(second));
    assert!(state.touched.is_empty() && !state.in_motion());
}

#[test]
fn a_confirmed_write_ends_earlier_routed_writes() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    settle(&mut state, 1, Answer::Routed);
    patch(&mut state, 2, r#"{"n":3}"#);
    settle(&mut state, 2, confirmed());
    assert_eq!((shown(&state), state.folds().count()), (json(3, 1), 0));
}

#[test]
fn a_row_with_an_id_from_the_master_replaces_the_staged_row() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Write(write(1, Some(&id(1)), Effect::Insert(plain(1, 4)))));
    let answer = Answer::Confirmed { row: Some(plain(2, 4)), id: Some(id(2)) };
    let decision = settle(&mut state, 1, answer);
    assert_eq!(frames(&decision), [&Frame::Removed, &Frame::Inserted, &Frame::WriteCommitted]);
    assert!(state.get("b").is_none() && state.base("c").is_some());
}

#[test]
fn never_back_a_bulk_change_obeys_versions_too() {
    let mut state = state_with_row(true);
    push(&mut state, Some(row(true, 0, 10, 10)), None);
    let mark = open(&mut state);
    let old = ReadRow { id: id(0), row: Some(row(true, 0, 1, 1)), ordinal: None };
    let new = ReadRow { id: id(1), row: Some(row(true, 1, 2, 2)), ordinal: None };
    run(&mut state, &Command::Bulk { items: vec![old, new], mark, notice: Notice::Invalidated });
    assert_eq!(value_of(&state.get("a").unwrap().body()), 10);
    assert_eq!(value_of(&state.get("b").unwrap().body()), 2);
}

#[test]
fn never_back_the_version_of_a_deleted_row_survives_a_restart() {
    let mut state = state_with_row(true);
    let gone = push(&mut state, None, Some(7));
    assert!(state.get("a").is_none());
    // The cache file already contains the delete, but the log still has its entry.
    let mut back = State::restore(rules(true, true), "epoch", state.seq(), Table::new());
    gone.entries.iter().for_each(|entry| drop(back.apply(entry)));
    back.advance(state.seq());
    assert_eq!(push(&mut back, Some(row(true, 0, 6, 6)), Some(6)).outcome, Outcome::Stale);
    assert!(back.get("a").is_none());
    push(&mut back, Some(row(true, 0, 8, 8)), Some(8));
    assert!(back.get("a").is_some());
}

#[test]
fn finished_operations_are_remembered_for_a_day_and_parked_ones_until_an_operator_acts() {
    const DAY: u64 = 24 * 3_600_000;
    let mut state = state_with_row(false);
    let mut end = |op: u64, answer: Answer, now: u64| {
        run_at(&mut state, &Command::Write(write(op, Some(&id(0)), Effect::Replace(plain(0, op)))), now);
        run_at(&mut state, &Command::Settle { op: op_id(op), mark: 0, answer }, now);
        let remembered = state.ops().map(|op| op.id).collect::<Vec<_>>();
        (remembered, state.parked().0)
    };
    end(1, Answer::Failed(rejection()), 1);
    end(2, Answer::Parked(rejection()), 1);
    assert_eq!(end(3, Answer::Failed(rejection()), DAY + 1), (vec![op_id(1), op_id(2), op_id(3)], 1));
    assert_eq!(end(4, Answer::Failed(rejection()), DAY + 2), (vec![op_id(2), op_id(3), op_id(4)], 1));
    run(&mut state, &Command::Discard(op_id(2)));
    assert_eq!(state.parked(), (0, 0));
}

#[test]
fn rows_confirmed_during_a_read_do_not_count_as_missing_from_its_list() {
    let mut state = State::new(rules(false, true), "epoch", 0);
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(plain(0, 1)))], notify: false });
    let Outcome::Mark(mark) = run(&mut state, &Command::Open).outcome else { panic!("no mark") };
    run(&mut state, &Command::Write(write(1, Some(&id(1)), Effect::Insert(plain(1, 1)))));
    run(&mut state, &Command::Settle { op: op_id(1), mark, answer: Answer::Confirmed { row: None, id: None } });
    let Outcome::Mark(mark) = run(&mut state, &Command::Open).outcome else { panic!("no mark {mark}") };
    run(&mut state, &Command::Write(write(2, Some(&id(2)), Effect::Insert(plain(2, 1)))));
    run(&mut state, &Command::Statement { rows: vec![(id(2), Some(plain(2, 1)))], notify: false });
    assert_eq!((crate::state::confirmed(&state), confirmed_at(&state, mark)), (3, 2));
}
