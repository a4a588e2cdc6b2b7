//! Routed writes: news of the master that keep, settle or override them.

use super::*;

#[test]
fn a_routed_delete_all_ends_row_by_row() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Statement { rows: vec![(id(1), Some(plain(1, 1)))], notify: false });
    run(&mut state, &Command::Write(write(1, None, Effect::DeleteAll)));
    settle(&mut state, 1, Answer::Routed);
    read(&mut state, None);
    assert!(state.table().is_empty(), "news of one row do not affect the other");
    assert!(state.op(op_id(1)).unwrap().is_open());
    push(&mut state, Some(plain(0, 7)), None);
    assert_eq!(state.table().len(), 1);
}

#[test]
fn a_routed_write_survives_reads_that_show_the_confirmed_row() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    settle(&mut state, 1, Answer::Routed);
    assert_eq!(read(&mut state, Some(body(0, 1, Some(1), None))).entries.len(), 0);
    assert_eq!((shown(&state), base(&state)), (json(2, 1), json(1, 1)));
}

#[test]
fn a_routed_write_survives_repeated_losses_of_the_cache_file() {
    let mut state = state_with_row(false);
    // The first copy is not in the log.
    let mut log = patch(&mut state, 1, r#"{"n":2}"#).entries;
    log.extend(settle(&mut state, 1, Answer::Routed).entries);
    for loss in 0..3 {
        let mut state = State::new(rules(false, true), "epoch", 0);
        log.iter().for_each(|entry| drop(state.apply(&Entry::decode(&entry.encode()).unwrap())));
        state.doubt_missing(false);
        for _ in 0..2 {
            log.extend(read(&mut state, Some(body(0, 1, Some(1), None))).entries);
            assert_eq!((shown(&state), base(&state)), (json(2, 1), json(1, 1)), "after loss {loss}");
        }
        // A restart with the cache file that has been filled since.
        let mut table = TableBuilder::new();
        let kept = state.base("a").unwrap();
        table.push_at(kept.slot, "a", &kept.body, kept.ordinal);
        let mut again = State::restore(rules(false, true), "epoch", state.seq(), table.finish());
        log.iter().for_each(|entry| drop(again.apply(entry)));
        again.advance(state.seq());
        assert_eq!(read(&mut again, Some(body(0, 1, Some(1), None))).entries.len(), 0);
        assert_eq!((shown(&again), base(&again)), (json(2, 1), json(1, 1)), "after loss {loss} and a restart");
    }
}

#[test]
fn news_of_a_row_lost_with_the_cache_file_end_a_routed_write() {
    let mut state = state_with_row(false);
    let mut log = patch(&mut state, 1, r#"{"n":2}"#).entries;
    log.extend(settle(&mut state, 1, Answer::Routed).entries);
    for reported_row in [Some(body(0, 7, Some(7), None)), None] {
        let mut state = State::new(rules(false, true), "epoch", 0);
        log.iter().for_each(|entry| drop(state.apply(&Entry::decode(&entry.encode()).unwrap())));
        state.doubt_missing(false);
        let row = reported_row.as_ref().map(|row| row.json().to_vec());
        let decision = read(&mut state, reported_row);
        assert!(
            !decision.entries.iter().any(|entry| entry.found),
            "the row differs from the one beneath the write when it was routed"
        );
        assert_eq!(state.table().get("a").map(|row| row.json().to_vec()), row);
        assert!(!state.op(op_id(1)).unwrap().is_open());
    }
}

#[test]
fn a_row_that_never_existed_does_not_count_as_lost() {
    let mut state = State::new(rules(false, true), "epoch", 0);
    let mut log = run(&mut state, &Command::Write(write(1, Some(&id(0)), Effect::Replace(plain(0, 1))))).entries;
    log.extend(settle(&mut state, 1, Answer::Routed).entries);
    let mut state = State::new(rules(false, true), "epoch", 0);
    log.iter().for_each(|entry| drop(state.apply(entry)));
    state.doubt_missing(false);
    assert!(!state.lacks_rows());
    read(&mut state, Some(body(0, 7, Some(7), None)));
    assert_eq!(shown(&state), json(7, 7));
}

#[test]
fn a_routed_write_survives_a_lost_cache_file_if_the_log_has_only_an_older_row() {
    let mut state = state_with_row(false);
    let mut log = patch(&mut state, 1, r#"{"n":2}"#).entries;
    log.extend(settle(&mut state, 1, Answer::Routed).entries);
    log.extend(read(&mut state, Some(body(0, 2, Some(1), None))).entries);
    log.extend(read(&mut state, Some(body(0, 5, Some(1), None))).entries);
    log.extend(patch(&mut state, 2, r#"{"m":9}"#).entries);
    log.extend(settle(&mut state, 2, Answer::Routed).entries);
    assert_eq!((shown(&state), base(&state)), (json(5, 9), json(5, 1)));
    let (kept, head) = (state.kept_entries(), state.seq());
    let mut state = State::new(rules(false, true), "epoch", 0);
    for entry in log.iter().filter(|entry| kept.contains(&entry.seq)) {
        state.apply(&Entry::decode(&entry.encode()).unwrap());
    }
    state.advance(head);
    state.doubt_missing(false);
    assert_eq!(base(&state), json(2, 1), "only the entry that ended the first write is kept");
    for _ in 0..2 {
        read(&mut state, Some(body(0, 5, Some(1), None)));
        assert_eq!((shown(&state), base(&state)), (json(5, 9), json(5, 1)));
    }
    read(&mut state, Some(body(0, 6, Some(1), None)));
    assert_eq!((shown(&state), state.folds().count()), (json(6, 1), 0), "the master wins once its row is known");
}

#[test]
fn news_that_equal_the_result_of_a_routed_write_end_it() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    patch(&mut state, 2, r#"{"n":3}"#);
    settle(&mut state, 1, Answer::Routed);
    settle(&mut state, 2, Answer::Routed);
    read(&mut state, Some(body(0, 2, Some(9), None)));
    assert_eq!(state.op(op_id(1)).unwrap().state, OpState::Applied);
    assert_eq!(state.op(op_id(2)).unwrap().state, OpState::Routed);
    assert_eq!((shown(&state), base(&state)), (json(3, 9), json(2, 9)));
}

#[test]
fn a_row_in_which_the_source_filled_in_columns_ends_its_routed_insert_only() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Write(write(1, Some(&id(0)), Effect::Delete)));
    settle(&mut state, 1, Answer::Routed);
    read(&mut state, None);
    run(&mut state, &Command::Write(write(2, Some(&id(0)), Effect::Insert(plain(0, 2)))));
    patch(&mut state, 3, r#"{"n":3}"#);
    settle(&mut state, 2, Answer::Routed);
    settle(&mut state, 3, Answer::Routed);
    read(&mut state, Some(body(0, 2, Some(9), None)));
    assert_eq!(state.op(op_id(2)).unwrap().state, OpState::Applied);
    assert_eq!(state.op(op_id(3)).unwrap().state, OpState::Routed);
    assert_eq!((shown(&state), base(&state)), (json(3, 9), json(2, 9)));
}

#[test]
fn other_news_override_only_writes_delivered_before_them() {
    let mut state = state_with_row(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    let early = open(&mut state);
    settle(&mut state, 1, Answer::Routed);
    let items = vec![ReadRow { id: id(0), row: Some(body(0, 5, Some(5), None)), ordinal: None }];
    run(&mut state, &Command::ReadRows { items, mark: early, notice: Notice::RowEvents });
    run(&mut state, &Command::Close(early));
    assert_eq!((shown(&state), base(&state)), (json(2, 5), json(5, 5)), "the read began before the delivery");
    read(&mut state, Some(body(0, 6, Some(6), None)));
    assert_eq!((shown(&state), state.folds().count()), (json(6, 6), 0), "the master wins");
}

#[test]
fn a_row_reset_to_the_result_of_an_earlier_routed_write_is_recognized_by_the_second_read() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Write(write(1, Some(&id(0)), Effect::Delete)));
    run(&mut state, &Command::Write(write(2, Some(&id(0)), Effect::Insert(plain(0, 2)))));
    settle(&mut state, 1, Answer::Routed);
    settle(&mut state, 2, Answer::Routed);
    // Either the consumer applied both and another client deleted the row again, or it has not applied the second yet: one read
    // cannot distinguish these cases.
    read(&mut state, None);
    assert_eq!((value_of(&state.get("a").unwrap().body()), base(&state)), (2, None));
    read(&mut state, None);
    assert_eq!((shown(&state), state.folds().count()), (None, 0), "the master wins");
}

#[test]
fn a_versioned_read_from_before_the_delivery_does_not_override_it() {
    let mut state = state_with_row(true);
    patch(&mut state, 1, r#"{"n":2}"#);
    let early = open(&mut state);
    settle(&mut state, 1, Answer::Routed);
    let items = vec![ReadRow { id: id(0), row: Some(body(0, 5, Some(5), Some(2))), ordinal: None }];
    run(&mut state, &Command::ReadRows { items, mark: early, notice: Notice::RowEvents });
    assert!(state.op(op_id(1)).unwrap().is_open());
    assert_eq!(value_of(&state.get("a").unwrap().body()), 2);
}

/// Begins a delivery of the row.
fn deliver(state: &mut State) -> u64 {
    match run(state, &Command::OpenFor(id(0))).outcome {
        Outcome::Mark(mark) => mark,
        other => panic!("{other:?}"),
    }
}

/// Answers a delivery that began at `mark`; the write is committed once.
fn accept(state: &mut State, op: u64, mark: u64) -> Decision {
    let decision = run(state, &Command::Settle { op: op_id(op), mark, answer: Answer::Routed });
    let committed = decision.entries.iter().filter(|entry| entry.frame == Frame::WriteCommitted);
    assert_eq!(committed.count(), 1);
    decision
}

fn json_with(n: u64, m: u64, v: u64) -> Option<String> {
    Some(format!(r#"{{"id":"a","n":{n},"m":{m},"v":{v}}}"#))
}

#[test]
fn a_write_that_comes_back_before_its_route_answers_ends_with_the_answer() {
    let insert = Effect::Insert(plain(0, 2));
    let replace = Effect::Replace(plain(0, 2));
    let patch = Effect::Patch(part(2));
    for (effect, exists) in [(insert, false), (replace.clone(), false), (replace, true), (patch, true)] {
        let mut state = state_with_row(true);
        if !exists {
            push(&mut state, None, Some(2));
        }
        run(&mut state, &Command::Write(write(1, Some(&id(0)), effect.clone())));
        let mark = deliver(&mut state);
        push(&mut state, Some(body(0, 2, Some(9), Some(3))), Some(3));
        assert!(state.op(op_id(1)).unwrap().is_open());
        accept(&mut state, 1, mark);
        assert_eq!((shown(&state), base(&state)), (json_with(2, 9, 3), json_with(2, 9, 3)), "{effect:?}");
        assert_eq!((state.op(op_id(1)).unwrap().state, state.folds().count()), (OpState::Applied, 0));
    }
}

#[test]
fn a_delete_that_comes_back_before_its_route_answers_ends_with_the_answer() {
    let mut state = state_with_row(true);
    run(&mut state, &Command::Write(write(1, Some(&id(0)), Effect::Delete)));
    let mark = deliver(&mut state);
    push(&mut state, None, Some(2));
    accept(&mut state, 1, mark);
    assert_eq!((shown(&state), state.folds().count()), (None, 0));
    push(&mut state, Some(body(0, 5, None, Some(3))), Some(3));
    assert_eq!(value_of(&state.get("a").unwrap().body()), 5, "the row of another client is shown");
}

#[test]
fn a_delete_of_all_rows_that_comes_back_before_its_route_answers_ends_with_the_answer() {
    let mut state = state_with_row(true);
    run(&mut state, &Command::Statement { rows: vec![(id(1), Some(plain(1, 1)))], notify: false });
    run(&mut state, &Command::Write(write(1, None, Effect::DeleteAll)));
    let mark = open(&mut state);
    push(&mut state, None, Some(2));
    accept(&mut state, 1, mark);
    assert!(state.fold("a").is_none() && state.fold("b").is_some(), "each row has its own report");
    assert!(state.table().is_empty() && state.op(op_id(1)).unwrap().is_open());
}

#[test]
fn a_write_that_comes_back_before_its_route_answers_leaves_those_behind_it() {
    let mut state = state_with_row(true);
    patch(&mut state, 1, r#"{"n":2}"#);
    patch(&mut state, 2, r#"{"n":3}"#);
    patch(&mut state, 3, r#"{"n":4}"#);
    settle(&mut state, 1, Answer::Routed);
    let mark = deliver(&mut state);
    push(&mut state, Some(body(0, 3, Some(9), Some(3))), Some(3));
    assert_eq!(state.op(op_id(1)).unwrap().state, OpState::Applied, "the second contains the first");
    assert_eq!(shown(&state), json_with(4, 9, 3));
    accept(&mut state, 2, mark);
    assert_eq!((shown(&state), base(&state)), (json_with(4, 9, 3), json_with(3, 9, 3)));
    assert_eq!(state.op(op_id(2)).unwrap().state, OpState::Applied);
    assert_eq!(state.op(op_id(3)).unwrap().state, OpState::Queued);
}

#[test]
fn a_later_change_after_a_write_came_back_is_shown_once_its_route_answers() {
    let mut state = state_with_row(true);
    patch(&mut state, 1, r#"{"n":2}"#);
    let mark = deliver(&mut state);
    push(&mut state, Some(body(0, 2, None, Some(2))), Some(2));
    push(&mut state, Some(body(0, 7, None, Some(3))), Some(3));
    assert_eq!(value_of(&state.get("a").unwrap().body()), 2, "the route may still refuse the write");
    accept(&mut state, 1, mark);
    assert_eq!((value_of(&state.get("a").unwrap().body()), state.folds().count()), (7, 0));
}

#[test]
fn an_older_change_does_not_end_a_write_that_is_delivered() {
    let mut state = state_with_row(true);
    patch(&mut state, 1, r#"{"n":2}"#);
    let mark = deliver(&mut state);
    push(&mut state, Some(body(0, 5, None, Some(2))), Some(2));
    accept(&mut state, 1, mark);
    assert_eq!(value_of(&state.get("a").unwrap().body()), 2);
    assert_eq!(state.op(op_id(1)).unwrap().state, OpState::Routed);
    push(&mut state, Some(body(0, 2, None, Some(3))), Some(3));
    assert_eq!((value_of(&state.get("a").unwrap().body()), state.folds().count()), (2, 0));
}

#[test]
fn a_change_with_equal_values_before_the_delivery_does_not_end_a_write() {
    let mut state = state_with_row(true);
    patch(&mut state, 1, r#"{"n":2}"#);
    push(&mut state, Some(body(0, 2, None, Some(2))), Some(2));
    push(&mut state, Some(body(0, 5, None, Some(3))), Some(3));
    let mark = deliver(&mut state);
    accept(&mut state, 1, mark);
    assert_eq!(value_of(&state.get("a").unwrap().body()), 2, "the consumer has not carried it out yet");
}

#[test]
fn a_write_that_came_back_in_other_values_before_its_route_answered_is_ended_by_the_next_read() {
    let mut state = state_with_row(true);
    patch(&mut state, 1, r#"{"n":2}"#);
    let mark = deliver(&mut state);
    push(&mut state, Some(body(0, 20, None, Some(2))), Some(2));
    let entries = accept(&mut state, 1, mark).entries;
    assert_eq!(value_of(&state.get("a").unwrap().body()), 2);
    assert_eq!(entries.len(), 1);
    let decision = read(&mut state, Some(body(0, 20, None, Some(2))));
    assert_eq!((value_of(&state.get("a").unwrap().body()), state.folds().count()), (20, 0), "the master wins");
    assert!(decision.entries[0].visible_body().is_some(), "the journal has the row of the event");
}

#[test]
fn a_write_that_came_back_before_a_restart_ends_with_its_repeated_delivery() {
    for pushed_before in [true, false] {
        let mut state = state_with_row(true);
        let mut log = patch(&mut state, 1, r#"{"n":2}"#).entries;
        deliver(&mut state);
        let row = || Some(body(0, 2, Some(9), Some(3)));
        if pushed_before {
            log.extend(push(&mut state, row(), Some(3)).entries);
        }
        let mut table = TableBuilder::new();
        let kept = state.base("a").unwrap();
        table.push_at(kept.slot, "a", &kept.body, kept.ordinal);
        let (head, kept) = (state.seq(), state.kept_entries());
        let mut state = State::restore(rules(true, true), "epoch", head, table.finish());
        for entry in log.iter().filter(|entry| kept.contains(&entry.seq)) {
            state.apply(&Entry::decode(&entry.encode()).unwrap());
        }
        state.advance(head);
        if !pushed_before {
            push(&mut state, row(), Some(3));
        }
        let mark = deliver(&mut state);
        accept(&mut state, 1, mark);
        assert_eq!((shown(&state), state.folds().count()), (json_with(2, 9, 3), 0), "{pushed_before}");
    }
}

#[test]
fn a_routed_replacement_ends_with_a_row_in_which_the_source_filled_in_columns() {
    let mut state = state_with_row(false);
    run(&mut state, &Command::Write(write(1, Some(&id(0)), Effect::Replace(plain(0, 2)))));
    run(&mut state, &Command::Write(write(2, Some(&id(0)), Effect::Replace(plain(0, 3)))));
    settle(&mut state, 1, Answer::Routed);
    settle(&mut state, 2, Answer::Routed);
    read(&mut state, Some(body(0, 2, Some(9), None)));
    assert_eq!(state.op(op_id(2)).unwrap().state, OpState::Routed);
    assert_eq!((value_of(&state.get("a").unwrap().body()), base(&state)), (3, json(2, 9)));
}
