//! Writes that fail, writes that depend on failed ones, and writes that are never confirmed.

use super::*;

fn only_if(condition: Condition, op: u64, key: usize, effect: Effect) -> Command {
    Command::Write(NewWrite { condition, ..write(op, Some(&id(key)), effect) })
}

fn patch_of(json: &str) -> Effect {
    Effect::Patch(Body::from_parts(json.to_string().into(), None))
}

/// Returns a condition on the visible version.
fn version(state: &State, key: usize) -> Condition {
    Condition::Matches(vec![state.get(&id(key)).unwrap().hash()])
}

fn fail(state: &mut State, op: u64) -> Vec<(Option<OpId>, Frame)> {
    let decision = settle(state, op, Answer::Failed(rejection()));
    decision.entries.iter().map(|entry| (entry.cause.op, entry.frame.clone())).collect()
}

fn op_state(state: &State, op: u64) -> OpState {
    state.op(op_id(op)).unwrap().state
}

#[test]
fn rolled_back_a_write_for_the_version_of_a_failed_one_fails_too_and_the_others_apply_to_the_restored_row() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    let on = version(&state, 0);
    run(&mut state, &only_if(on, 2, 0, patch_of(r#"{"m":5}"#)));
    let on = version(&state, 0);
    run(&mut state, &only_if(on, 3, 0, patch_of(r#"{"m":6}"#)));
    patch(&mut state, 4, r#"{"m":9}"#);
    let events = fail(&mut state, 1);
    let failed = |op: u64| state.op(op_id(op)).unwrap().error.clone().unwrap();
    assert_eq!((shown(&state), base(&state)), (json(1, 9), json(1, 1)));
    assert_eq!(
        [1, 2, 3, 4].map(|op| op_state(&state, op)),
        [OpState::Failed, OpState::Failed, OpState::Failed, OpState::Queued]
    );
    for dependent in [2, 3] {
        let OpError { code, detail } = failed(dependent);
        assert!(
            code == "precondition-failed" && detail.contains(&op_id(1).to_string()) && detail.contains("no"),
            "{detail}"
        );
    }
    let events: Vec<_> = events.iter().map(|(op, frame)| (op.unwrap(), frame.clone())).collect();
    let lost = |op| (op_id(op), Frame::WriteFailed(failed(op)));
    assert_eq!(events, [lost(3), lost(2), (op_id(1), Frame::Changed), lost(1)], "one event each, the row event first");
}

#[test]
fn rolled_back_a_write_for_a_version_that_the_failed_one_did_not_change_stays() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":1}"#);
    let on = version(&state, 0);
    run(&mut state, &only_if(on, 2, 0, patch_of(r#"{"m":5}"#)));
    fail(&mut state, 1);
    assert_eq!((op_state(&state, 2), shown(&state)), (OpState::Queued, json(1, 5)));
}

#[test]
fn rolled_back_conditions_on_existence_are_checked_on_the_restored_row() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Write(write(1, Some(&id(1)), Effect::Insert(plain(1, 1)))));
    run(&mut state, &only_if(Condition::Exists, 2, 1, patch_of(r#"{"n":2}"#)));
    fail(&mut state, 1);
    assert_eq!((op_state(&state, 2), state.get("b").is_none()), (OpState::Failed, true));
    run(&mut state, &Command::Write(write(3, Some(&id(0)), Effect::Delete)));
    run(&mut state, &only_if(Condition::Absent, 4, 0, Effect::Replace(plain(0, 4))));
    fail(&mut state, 3);
    assert_eq!((op_state(&state, 4), shown(&state)), (OpState::Failed, json(1, 1)));
    run(&mut state, &Command::Write(write(5, None, Effect::DeleteAll)));
    run(&mut state, &only_if(Condition::Absent, 6, 0, Effect::Insert(plain(0, 6))));
    fail(&mut state, 5);
    assert_eq!((op_state(&state, 6), shown(&state)), (OpState::Failed, json(1, 1)));
    // A condition that still holds.
    patch(&mut state, 7, r#"{"n":7}"#);
    run(&mut state, &only_if(Condition::Exists, 8, 0, patch_of(r#"{"m":8}"#)));
    fail(&mut state, 7);
    assert_eq!((op_state(&state, 8), shown(&state)), (OpState::Queued, json(1, 8)));
}

#[test]
fn a_routed_write_that_the_master_never_shows_is_rolled_back_after_its_ttl() {
    let mut state =
        State::new(Arc::new(Rules { routed_ttl: Some(1_000), ..(*rules(false, true)).clone() }), "epoch", 0);
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(body(0, 1, Some(1), None)))], notify: false });
    patch(&mut state, 1, r#"{"n":2}"#);
    settle(&mut state, 1, Answer::Routed);
    let earlier = open(&mut state);
    patch(&mut state, 2, r#"{"m":2}"#);
    settle(&mut state, 2, Answer::Routed);
    let list = |state: &mut State, mark, now| {
        let items = vec![ReadRow { id: id(0), row: Some(body(0, 1, Some(1), None)), ordinal: None }];
        run_at(state, &Command::ReadRows { items, mark, notice: Notice::RowEvents }, now).entries
    };
    assert!(list(&mut state, earlier, 900).is_empty(), "the TTL has not expired");
    list(&mut state, earlier, 1_100);
    assert_eq!(
        (op_state(&state, 1), op_state(&state, 2)),
        (OpState::Failed, OpState::Routed),
        "the read began before the second delivery"
    );
    assert_eq!(
        (shown(&state), state.op(op_id(1)).unwrap().error.clone().unwrap().code),
        (json(1, 2), "unconfirmed".into())
    );
    run(&mut state, &Command::Close(earlier));
    let mark = open(&mut state);
    let entries = list(&mut state, mark, 1_100);
    assert!(matches!(entries.last().unwrap().frame, Frame::WriteFailed(_)));
    assert_eq!((shown(&state), state.folds().count()), (json(1, 1), 0));
}

#[test]
fn routed_writes_of_a_row_are_merged_while_the_master_is_silent() {
    let mut state =
        State::new(Arc::new(Rules { keep_routed: 3, keep_finished: 10, ..(*rules(false, true)).clone() }), "epoch", 0);
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(body(0, 1, Some(1), None)))], notify: false });
    for op in 1..=200 {
        let json = if op % 3 == 0 { format!(r#"{{"m":{op}}}"#) } else { format!(r#"{{"n":{op}}}"#) };
        patch(&mut state, op, &json);
        settle(&mut state, op, Answer::Routed);
        read(&mut state, Some(body(0, 1, Some(1), None)));
        assert!(state.fold("a").unwrap().ops.len() <= 3);
    }
    assert_eq!((shown(&state), base(&state)), (json(200, 198), json(1, 1)));
    assert!(state.kept_entries().len() < 60, "{} entries", state.kept_entries().len());
    // The master is behind by two, then up to date.
    read(&mut state, Some(body(0, 199, Some(198), None)));
    assert_eq!((shown(&state), base(&state)), (json(200, 198), json(199, 198)));
    read(&mut state, Some(body(0, 200, Some(198), None)));
    assert_eq!((shown(&state), state.folds().count()), (json(200, 198), 0));
}
