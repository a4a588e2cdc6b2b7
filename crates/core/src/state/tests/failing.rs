//! Writes that fail, that were made for what failed, and that nobody ever confirms.

use super::*;

fn only_if(condition: Condition, op: u64, key: usize, effect: Effect) -> Command {
    Command::Write(NewWrite { condition, ..write(op, Some(&id(key)), effect) })
}

fn patch_of(json: &str) -> Effect {
    Effect::Patch(Body::from_parts(json.to_string().into(), None))
}

/// The version that readers see.
fn version(state: &State, key: usize) -> Condition {
    Condition::Matches(vec![state.get(&id(key)).unwrap().hash()])
}

fn fail(state: &mut State, op: u64) -> Vec<(Option<OpId>, Frame)> {
    let decision = settle(state, op, Answer::Failed(refusal()));
    decision.entries.iter().map(|entry| (entry.cause.op, entry.frame.clone())).collect()
}

fn standing(state: &State, op: u64) -> OpState {
    state.op(op_id(op)).unwrap().state
}

#[test]
fn rolled_back_a_write_for_the_version_that_a_failed_one_made_fails_with_it_and_the_others_are_laid_over_the_restored_row()
 {
    let mut state = known(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    let on = version(&state, 0);
    run(&mut state, &only_if(on, 2, 0, patch_of(r#"{"m":5}"#)));
    let on = version(&state, 0);
    run(&mut state, &only_if(on, 3, 0, patch_of(r#"{"m":6}"#)));
    patch(&mut state, 4, r#"{"m":9}"#);
    let told = fail(&mut state, 1);
    let failed = |op: u64| state.op(op_id(op)).unwrap().error.clone().unwrap();
    assert_eq!((shown(&state), base(&state)), (json(1, 9), json(1, 1)));
    assert_eq!(
        [1, 2, 3, 4].map(|op| standing(&state, op)),
        [OpState::Failed, OpState::Failed, OpState::Failed, OpState::Queued]
    );
    for built in [2, 3] {
        let OpError { code, detail } = failed(built);
        assert!(
            code == "precondition-failed" && detail.contains(&op_id(1).to_string()) && detail.contains("no"),
            "{detail}"
        );
    }
    let told: Vec<_> = told.iter().map(|(op, frame)| (op.unwrap(), frame.clone())).collect();
    let lost = |op| (op_id(op), Frame::WriteFailed(failed(op)));
    assert_eq!(told, [lost(3), lost(2), (op_id(1), Frame::Changed), lost(1)], "each once, the row before its write");
}

#[test]
fn rolled_back_a_write_for_a_version_that_would_have_been_there_anyway_goes_on() {
    let mut state = known(false);
    patch(&mut state, 1, r#"{"n":1}"#);
    let on = version(&state, 0);
    run(&mut state, &only_if(on, 2, 0, patch_of(r#"{"m":5}"#)));
    fail(&mut state, 1);
    assert_eq!((standing(&state, 2), shown(&state)), (OpState::Queued, json(1, 5)));
}

#[test]
fn rolled_back_what_was_asked_of_a_row_being_there_or_not_is_asked_of_the_restored_row() {
    let mut state = known(false);
    run(&mut state, &Command::Write(write(1, Some(&id(1)), Effect::Insert(plain(1, 1)))));
    run(&mut state, &only_if(Condition::Exists, 2, 1, patch_of(r#"{"n":2}"#)));
    fail(&mut state, 1);
    assert_eq!((standing(&state, 2), state.get("b").is_none()), (OpState::Failed, true));
    run(&mut state, &Command::Write(write(3, Some(&id(0)), Effect::Delete)));
    run(&mut state, &only_if(Condition::Absent, 4, 0, Effect::Replace(plain(0, 4))));
    fail(&mut state, 3);
    assert_eq!((standing(&state, 4), shown(&state)), (OpState::Failed, json(1, 1)));
    run(&mut state, &Command::Write(write(5, None, Effect::DeleteAll)));
    run(&mut state, &only_if(Condition::Absent, 6, 0, Effect::Insert(plain(0, 6))));
    fail(&mut state, 5);
    assert_eq!((standing(&state, 6), shown(&state)), (OpState::Failed, json(1, 1)));
    // One that still holds.
    patch(&mut state, 7, r#"{"n":7}"#);
    run(&mut state, &only_if(Condition::Exists, 8, 0, patch_of(r#"{"m":8}"#)));
    fail(&mut state, 7);
    assert_eq!((standing(&state, 8), shown(&state)), (OpState::Queued, json(1, 8)));
}

#[test]
fn a2_a_routed_write_that_the_master_never_shows_is_taken_back_when_its_time_is_over() {
    let mut state =
        State::new(Arc::new(Rules { routed_ttl: Some(1_000), ..(*rules(false, true)).clone() }), "epoch", 0);
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(body(0, 1, Some(1), None)))], told: false });
    patch(&mut state, 1, r#"{"n":2}"#);
    settle(&mut state, 1, Answer::Routed);
    let earlier = open(&mut state);
    patch(&mut state, 2, r#"{"m":2}"#);
    settle(&mut state, 2, Answer::Routed);
    let list = |state: &mut State, mark, now| {
        let items = vec![ReadRow { id: id(0), row: Some(body(0, 1, Some(1), None)), ordinal: None }];
        run_at(state, &Command::News { items, mark, told: true }, now).entries
    };
    assert!(list(&mut state, earlier, 900).is_empty(), "there is time");
    list(&mut state, earlier, 1_100);
    assert_eq!(
        (standing(&state, 1), standing(&state, 2)),
        (OpState::Failed, OpState::Routed),
        "that read began before the other"
    );
    assert_eq!(
        (shown(&state), state.op(op_id(1)).unwrap().error.clone().unwrap().code),
        (json(1, 2), "unconfirmed".into())
    );
    run(&mut state, &Command::Close(earlier));
    let mark = open(&mut state);
    let told = list(&mut state, mark, 1_100);
    assert!(matches!(told.last().unwrap().frame, Frame::WriteFailed(_)));
    assert_eq!((shown(&state), state.folds().count()), (json(1, 1), 0));
}

#[test]
fn a2_a_row_that_is_written_often_does_not_pile_up_routed_writes_while_the_master_is_silent() {
    let mut state =
        State::new(Arc::new(Rules { keep_routed: 3, keep_finished: 10, ..(*rules(false, true)).clone() }), "epoch", 0);
    run(&mut state, &Command::Statement { rows: vec![(id(0), Some(body(0, 1, Some(1), None)))], told: false });
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
