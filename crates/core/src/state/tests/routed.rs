//! Routed writes: what the news of the master keep, settle and overrule.

use super::*;

#[test]
fn a2_a_routed_delete_all_ends_row_by_row() {
    let mut state = known(false);
    run(&mut state, &Command::Statement { rows: vec![(id(1), Some(plain(1, 1)))], told: false });
    run(&mut state, &Command::Write(write(1, None, Effect::DeleteAll)));
    settle(&mut state, 1, Answer::Routed);
    read(&mut state, None);
    assert!(state.table().is_empty(), "news of one row say nothing of the other");
    assert!(state.op(op_id(1)).unwrap().is_open());
    push(&mut state, Some(plain(0, 7)), None);
    assert_eq!(state.table().len(), 1);
}

#[test]
fn a2_a_routed_write_survives_reads_that_show_the_confirmed_row() {
    let mut state = known(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    settle(&mut state, 1, Answer::Routed);
    assert_eq!(read(&mut state, Some(body(0, 1, Some(1), None))).entries.len(), 0);
    assert_eq!((shown(&state), base(&state)), (json(2, 1), json(1, 1)));
}

#[test]
fn a2_a_routed_write_survives_the_loss_of_the_cache_file_however_often() {
    let mut state = known(false);
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
        // A restart with the cache file that was filled since.
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
fn a2_news_of_a_row_that_was_lost_with_the_cache_file_end_a_routed_write() {
    let mut state = known(false);
    let mut log = patch(&mut state, 1, r#"{"n":2}"#).entries;
    log.extend(settle(&mut state, 1, Answer::Routed).entries);
    for reported_row in [Some(body(0, 7, Some(7), None)), None] {
        let mut state = State::new(rules(false, true), "epoch", 0);
        log.iter().for_each(|entry| drop(state.apply(&Entry::decode(&entry.encode()).unwrap())));
        state.doubt_missing(false);
        let row = reported_row.as_ref().map(|row| row.json().to_vec());
        let decision = read(&mut state, reported_row);
        assert!(!decision.entries.iter().any(|entry| entry.found), "that is not what the route saw beneath the write");
        assert_eq!(state.table().get("a").map(|row| row.json().to_vec()), row);
        assert!(!state.op(op_id(1)).unwrap().is_open());
    }
}

#[test]
fn a2_a_row_that_was_never_there_was_not_lost() {
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
fn a2_a_routed_write_survives_a_lost_cache_file_though_the_log_has_only_an_older_row() {
    let mut state = known(false);
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
    assert_eq!(base(&state), json(2, 1), "what ended the first write is kept, what came later is not");
    for _ in 0..2 {
        read(&mut state, Some(body(0, 5, Some(1), None)));
        assert_eq!((shown(&state), base(&state)), (json(5, 9), json(5, 1)));
    }
    read(&mut state, Some(body(0, 6, Some(1), None)));
    assert_eq!((shown(&state), state.folds().count()), (json(6, 1), 0), "the master wins, now that its row is known");
}

#[test]
fn a2_news_that_match_what_a_routed_write_set_end_it() {
    let mut state = known(false);
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
fn a2_other_news_overrule_only_writes_delivered_before_them() {
    let mut state = known(false);
    patch(&mut state, 1, r#"{"n":2}"#);
    let early = open(&mut state);
    settle(&mut state, 1, Answer::Routed);
    let items = vec![ReadRow { id: id(0), row: Some(body(0, 5, Some(5), None)), ordinal: None }];
    run(&mut state, &Command::News { items, mark: early, told: true });
    run(&mut state, &Command::Close(early));
    assert_eq!((shown(&state), base(&state)), (json(2, 5), json(5, 5)), "the read began before the delivery");
    read(&mut state, Some(body(0, 6, Some(6), None)));
    assert_eq!((shown(&state), state.folds().count()), (json(6, 6), 0), "the master wins");
}

#[test]
fn a2_a_row_set_back_to_what_an_earlier_routed_write_made_is_seen_by_the_second_read() {
    let mut state = known(false);
    run(&mut state, &Command::Write(write(1, Some(&id(0)), Effect::Delete)));
    run(&mut state, &Command::Write(write(2, Some(&id(0)), Effect::Insert(plain(0, 2)))));
    settle(&mut state, 1, Answer::Routed);
    settle(&mut state, 2, Answer::Routed);
    // The consumer took both, and somebody deleted the row again. Or it has not taken the second yet: one read cannot tell.
    read(&mut state, None);
    assert_eq!((value_of(&state.get("a").unwrap().body()), base(&state)), (2, None));
    read(&mut state, None);
    assert_eq!((shown(&state), state.folds().count()), (None, 0), "the master wins");
}

#[test]
fn a2_a_versioned_read_from_before_the_delivery_does_not_overrule_it() {
    let mut state = known(true);
    patch(&mut state, 1, r#"{"n":2}"#);
    let early = open(&mut state);
    settle(&mut state, 1, Answer::Routed);
    let items = vec![ReadRow { id: id(0), row: Some(body(0, 5, Some(5), Some(2))), ordinal: None }];
    run(&mut state, &Command::News { items, mark: early, told: true });
    assert!(state.op(op_id(1)).unwrap().is_open());
    assert_eq!(value_of(&state.get("a").unwrap().body()), 2);
}
