//! A Dio over a journal that fails, and over a queue that is full.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diorama::cache::MemoryCache;
use diorama::dio::{Dio, IdempotencyKey, Inbound, OperationState, Reconciled, Ticket, WriteOptions};
use diorama::journal::{Journal, MemoryJournal};
use diorama::record::Body;
use diorama::{ChangeEvent, DioEvent, Error, Lens, LensBuilder, WriteOp};
use diorama_core::journal::faulty::{Fault, FaultRates, FaultyJournal};
use diorama_core::state::{Base, Cause, Condition, Entry, Frame, OpChange, OpId, VisibleChange};

use super::harness::Random;
use super::harness::pairs::*;

fn faulty(seed: u64) -> Arc<FaultyJournal> {
    Arc::new(FaultyJournal::new(Arc::new(MemoryJournal::new()), seed))
}

fn lens_on(journal: &Arc<FaultyJournal>) -> LensBuilder {
    Lens::new().cache_source(MemoryCache::new()).journal_source(Arc::clone(journal) as Arc<dyn Journal>)
}

async fn log_of(journal: &FaultyJournal) -> Vec<Entry> {
    let entries = journal.read("d", 0, usize::MAX).await.unwrap();
    assert!(entries.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq));
    entries.iter().map(|entry| Entry::decode(&entry.bytes).unwrap()).collect()
}

/// What another instance writes to the log: a row of its own.
fn foreign(seq: u64) -> bytes::Bytes {
    let body = Body::encode("foreign", &record((seq as i64, 0)), schema().layout());
    let mut entry = Entry::new(seq, 0, Some("foreign".into()), Cause::default());
    entry.base = Base::Set { body, ordinal: 1 };
    (entry.visible, entry.frame) = (VisibleChange::Base, Frame::Changed);
    entry.encode()
}

/// Lets everything that can run do so. Settlements wait for 2 ms.
async fn idle() {
    tokio::time::sleep(Duration::from_millis(3)).await;
}

async fn write(dio: &Dio, op: WriteOp) -> Result<Ticket, Error> {
    dio.write(op, WriteOptions::default()).await
}

/// Writes at random; gives what was acknowledged.
async fn writer(dio: Dio, number: u64) -> Vec<(OpId, u64)> {
    let mut random = Random(number);
    let mut acked = Vec::new();
    for turn in 0..40 {
        let id = format!("r{}", random.below(12));
        let value = (number * 1000 + turn) as i64;
        let op = match random.below(4) {
            0 => insert(&id, (value, 0)),
            1 => replace(&id, (value, 0)),
            2 => patch(&id, "w", value),
            _ => delete(&id),
        };
        let key = (random.below(4) == 0)
            .then(|| IdempotencyKey { key: format!("{number}-{turn}"), fingerprint: u128::from(turn) });
        let condition = if random.below(5) == 0 { Condition::Exists } else { Condition::None };
        match dio.write(op, WriteOptions { condition, key, ..WriteOptions::default() }).await {
            Ok(Ticket { operation: Some(op), position, .. }) => {
                assert!(dio.state().seq() >= position.seq, "read your writes");
                assert!(dio.operation(op).is_some(), "read your writes");
                acked.push((op, position.seq));
            }
            Ok(_) => {}
            Err(
                Error::Storage { .. }
                | Error::Conflict { .. }
                | Error::NotFound { .. }
                | Error::Precondition { .. }
                | Error::Replayed { .. },
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }
    acked
}

async fn subscriber(dio: Dio) -> Vec<(u64, DioEvent)> {
    let mut events = dio.subscribe_events();
    let mut seen: Vec<(u64, DioEvent)> = Vec::new();
    drop(dio.state());
    let state = {
        let dio = dio.clone();
        move || dio.state().seq()
    };
    drop(dio);
    while let Ok(entry) = events.recv_entry().await {
        assert!(!matches!(entry.event, DioEvent::Lagged { .. }));
        let Some(position) = entry.position else { continue };
        assert!(position.seq <= state(), "told before it could be read");
        assert!(seen.last().is_none_or(|(last, _)| *last < position.seq), "positions rise");
        seen.push((position.seq, entry.event));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn durable_faults_of_the_journal_lose_nothing_that_was_acknowledged_and_keep_nothing_that_was_refused() {
    for seed in 0..12 {
        let journal = faulty(seed);
        journal.set_foreign(|_, seq| foreign(seq));
        let master = Scripted::of_pairs(true, seed % 2 == 0);
        let lens = lens_on(&journal).write_concurrency(3).build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        journal.set_rates(FaultRates {
            moved: 80,
            claimed: 150,
            unknown_stored: 80,
            unknown_lost: 80,
            full: 60,
            io: 60,
        });
        let heard = tokio::spawn(subscriber(dio.clone()));
        idle().await;
        let writers: Vec<_> = (0..8).map(|number| tokio::spawn(writer(dio.clone(), seed * 100 + number))).collect();
        let mut acked = Vec::new();
        for writer in writers {
            acked.extend(writer.await.unwrap());
        }
        journal.set_rates(FaultRates::default());
        while dio.state().backlog().0 > 0 || dio.state().dirty().next().is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let log = log_of(&journal).await;
        let staged: HashMap<OpId, u64> = log
            .iter()
            .filter_map(|entry| match &entry.op {
                OpChange::Stage(op) => Some((op.id, entry.seq)),
                _ => None,
            })
            .collect();
        assert!(!acked.is_empty());
        assert_eq!(staged, acked.into_iter().collect(), "seed {seed}");
        let state = dio.state();
        let mut rows = visible(&state);
        rows.remove("foreign");
        assert_eq!(rows, master.pairs(), "seed {seed}");
        let told: Vec<u64> = log.iter().filter(|entry| entry.frame != Frame::Silent).map(|entry| entry.seq).collect();
        dio.close().await;
        drop(dio);
        let heard: Vec<u64> = heard.await.unwrap().into_iter().map(|(seq, _)| seq).collect();
        assert_eq!(heard, told, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_racing_if_match_writers_in_one_batch_exactly_one_wins() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let lens = lens_on(&journal).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    write(&dio, insert("a", (1, 1))).await.unwrap();
    idle().await;
    for round in 0..10 {
        let hash = dio.state().get("a").unwrap().hash();
        let before = journal.appends();
        journal.hold();
        let racers: Vec<_> = (0..2)
            .map(|racer| {
                let dio = dio.clone();
                let condition = Condition::Matches(vec![hash]);
                let options = WriteOptions { condition, ..WriteOptions::default() };
                tokio::spawn(async move { dio.write(patch("a", "v", 10 + round * 2 + racer), options).await })
            })
            .collect();
        journal.wait_for_appends(before + 1).await;
        idle().await;
        assert_eq!(journal.sizes()[before], 1);
        assert!(racers.iter().all(|racer| !racer.is_finished()), "refusals wait for the append too");
        assert_eq!(dio.state().get("a").unwrap().hash(), hash);
        journal.release();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) => won += 1,
                Err(error) => assert!(matches!(error, Error::Precondition { .. }), "{error}"),
            }
        }
        assert_eq!(won, 1);
        idle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_append_shows_nothing_and_answers_nobody() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    master.by_hand(true);
    let lens = lens_on(&journal).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let mut events = dio.subscribe_events();
    journal.hold();
    let first = tokio::spawn({
        let dio = dio.clone();
        async move { write(&dio, insert("a", (1, 1))).await }
    });
    let second = tokio::spawn({
        let dio = dio.clone();
        async move { write(&dio, insert("a", (2, 2))).await }
    });
    journal.wait_for_appends(1).await;
    idle().await;
    assert!(!first.is_finished() && !second.is_finished());
    assert!(visible(&dio.state()).is_empty());
    assert_eq!((dio.position().seq, events.try_recv()), (0, None));
    journal.release();
    assert_eq!(first.await.unwrap().unwrap().position.seq, 1);
    assert!(matches!(second.await.unwrap(), Err(Error::Conflict { .. })));
    assert_eq!(events.try_recv(), Some(DioEvent::RecordInserted { id: "a".into() }));
    // One that is lost takes the refusals with it that were judged on it.
    journal.push_fault(Fault::UnknownLost);
    journal.hold();
    let first = tokio::spawn({
        let dio = dio.clone();
        async move { write(&dio, insert("b", (1, 1))).await }
    });
    let second = tokio::spawn({
        let dio = dio.clone();
        async move { write(&dio, insert("b", (2, 2))).await }
    });
    idle().await;
    journal.release();
    assert!(matches!(first.await.unwrap(), Err(Error::Storage { .. })));
    assert!(matches!(second.await.unwrap(), Err(Error::Storage { .. })));
    write(&dio, insert("b", (2, 2))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_share_one_append() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    master.by_hand(true);
    let lens = lens_on(&journal).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    journal.hold();
    let spawn = |number: usize| {
        let dio = dio.clone();
        tokio::spawn(async move { write(&dio, insert(&format!("r{number}"), (1, 1))).await.unwrap() })
    };
    let mut writers = vec![spawn(0)];
    journal.wait_for_appends(1).await;
    writers.extend((1..=64).map(spawn));
    idle().await;
    journal.release();
    for writer in writers {
        writer.await.unwrap();
    }
    // A turn also ends when it has decided for a millisecond, which a slow machine feels.
    let sizes = journal.sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 65);
    assert!(sizes.len() <= 12, "{sizes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_settlement_shares_the_append_of_the_next_write_unless_somebody_waits_for_it() {
    let journal = faulty(1);
    let lens = lens_on(&journal).build().unwrap();
    let dio = lens.make_dio(Scripted::of_pairs(true, true).vista("d")).await.unwrap();
    let before = journal.appends();
    for number in 0..100 {
        write(&dio, insert(&format!("r{number}"), (number, 0))).await.unwrap();
        // It has reached the source, and its settlement waits.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let shared = journal.appends() - before;
    assert!(shared < 120, "{shared} appends of 100 writes");
    let began = tokio::time::Instant::now();
    let ticket = write(&dio, insert("last", (1, 0))).await.unwrap();
    let settled = dio.settled(ticket.operation.unwrap(), Duration::from_secs(9)).await.unwrap();
    assert_eq!((settled.state, began.elapsed()), (OperationState::Applied, Duration::ZERO), "nobody is kept waiting");
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_the_library_wait_and_refuses_who_asks_for_it() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let lens = lens_on(&journal).write_queue_capacity(1).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    journal.hold();
    let first = tokio::spawn({
        let dio = dio.clone();
        async move { write(&dio, insert("a", (1, 1))).await }
    });
    journal.wait_for_appends(1).await;
    let second = tokio::spawn({
        let dio = dio.clone();
        async move { write(&dio, insert("b", (1, 1))).await }
    });
    idle().await;
    let options = WriteOptions { refuse_when_full: true, ..WriteOptions::default() };
    assert!(matches!(dio.write(insert("c", (1, 1)), options).await, Err(Error::QueueFull)));
    assert!(!second.is_finished());
    journal.release();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hook_may_write_to_its_own_dio_even_when_everything_is_full() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let lens = lens_on(&journal)
        .write_queue_capacity(1)
        .on_write(|dio, op| {
            let dio = dio.clone();
            async move {
                match op.id() {
                    Some("a") => dio.vista().insert("b", &record((2, 2))).await.map(drop),
                    _ => Ok(()),
                }
            }
        })
        .build()
        .unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let ticket = write(&dio, insert("a", (1, 1))).await.unwrap();
    let settled = dio.settled(ticket.operation.unwrap(), Duration::from_secs(100)).await.unwrap();
    assert_eq!(settled.state, OperationState::Applied);
    assert_eq!(visible(&dio.state()), BTreeMap::from([("a".into(), (1, 1)), ("b".into(), (2, 2))]));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_inside_a_refresh_is_refused() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let refresh = |dio: &Dio| {
        let dio = dio.clone();
        async move { dio.refresh().await.map(drop) }
    };
    let lens = lens_on(&journal).on_refresh(refresh).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    assert!(matches!(dio.refresh().await, Err(Error::Reentrant { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_large_copy_whose_commit_had_an_unknown_outcome_is_shown() {
    for fault in [Fault::UnknownStored, Fault::UnknownLost] {
        let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
        for number in 0..1500 {
            master.set_pair(&format!("r{number}"), Some((number, 0)));
        }
        let lens = lens_on(&journal).on_refresh(|dio| relist(dio.clone())).build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        for changed in 0..2 {
            journal.push_fault(fault);
            let refreshed = dio.refresh().await;
            assert_eq!(refreshed.is_ok(), fault == Fault::UnknownStored, "{refreshed:?}");
            if refreshed.is_err() {
                dio.refresh().await.unwrap();
            }
            assert_eq!(visible(&dio.state()), master.pairs(), "{fault:?}");
            // The second time round: as many changed rows.
            (0..1500).for_each(|number| master.set_pair(&format!("r{number}"), Some((number, changed + 1))));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_stays_away_leaves_the_outcome_open_and_reads_going() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let lens = lens_on(&journal).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    write(&dio, insert("a", (1, 1))).await.unwrap();
    idle().await;
    journal.push_fault(Fault::UnknownStored);
    journal.fail_reopens(100);
    let Err(Error::OutcomeUnknown { operation }) = write(&dio, insert("b", (2, 2))).await else {
        panic!("the outcome is not known")
    };
    assert_eq!(visible(&dio.state()), BTreeMap::from([("a".into(), (1, 1))]));
    assert!(matches!(write(&dio, insert("c", (3, 3))).await, Err(Error::Storage { .. })));
    journal.fail_reopens(0);
    write(&dio, insert("d", (4, 4))).await.unwrap();
    let found = dio.settled(operation.parse().unwrap(), Duration::from_secs(10)).await.unwrap();
    assert_eq!(found.state, OperationState::Applied);
    idle().await;
    assert_eq!(visible(&dio.state()), master.pairs());
    assert_eq!(master.pairs().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_changes_nothing_is_remembered_over_an_unknown_outcome() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let lens = lens_on(&journal).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let gone = || Inbound { delivery: Some("x".into()), ..Inbound::from(ChangeEvent::Deleted { id: "a".into() }) };
    journal.push_fault(Fault::UnknownStored);
    assert_eq!(dio.handle_event(gone()).await.unwrap(), Reconciled::Unchanged);
    assert_eq!(dio.handle_event(gone()).await.unwrap(), Reconciled::Duplicate);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_given_up_does_not_deliver_later() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let delivered: Arc<parking_lot::Mutex<Vec<WriteOp>>> = Arc::default();
    let attempts = Arc::new(AtomicUsize::new(0));
    let lens = lens_on(&journal)
        .on_write({
            let (delivered, attempts) = (Arc::clone(&delivered), Arc::clone(&attempts));
            move |_, op| {
                let delivered = Arc::clone(&delivered);
                let first = attempts.fetch_add(1, Ordering::SeqCst) == 0;
                async move {
                    if first {
                        tokio::time::sleep(Duration::from_secs(60)).await;
                    }
                    delivered.lock().push(op);
                    Ok(())
                }
            }
        })
        .build()
        .unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    write(&dio, insert("a", (1, 1))).await.unwrap();
    write(&dio, patch("a", "v", 2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let kinds: Vec<&str> = delivered.lock().iter().map(|op| op.kind().as_str()).collect();
    assert_eq!(kinds, ["insert", "patch"]);
}

#[tokio::test(start_paused = true)]
async fn the_queue_drains_through_on_write_when_the_last_handle_is_dropped() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let delivered = Arc::new(AtomicUsize::new(0));
    let lens = lens_on(&journal)
        .on_write({
            let delivered = Arc::clone(&delivered);
            move |_, _| {
                let delivered = Arc::clone(&delivered);
                async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    delivered.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                }
            }
        })
        .build()
        .unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    for number in 0..5 {
        write(&dio, insert(&format!("r{number}"), (1, 1))).await.unwrap();
    }
    drop(dio);
    // The next of its name waits for that.
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    assert_eq!(delivered.load(Ordering::SeqCst), 5);
    assert_eq!(visible(&dio.state()).len(), 5, "routed writes are still over the rows");
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_may_end_inside_a_hook_and_a_closed_dio_stays_closed() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let held: Arc<parking_lot::Mutex<Option<Dio>>> = Arc::default();
    let lens = lens_on(&journal)
        .on_write({
            let held = Arc::clone(&held);
            move |_, _| {
                drop(held.lock().take());
                std::future::ready(Ok(()))
            }
        })
        .build()
        .unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let cache = dio.cache();
    let inserting = tokio::spawn({
        let vista = dio.vista();
        async move { vista.insert("a", &record((1, 1))).await }
    });
    *held.lock() = Some(dio);
    inserting.await.unwrap().unwrap();
    while held.lock().is_some() {
        idle().await;
    }
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    assert_eq!(visible(&dio.state()).len(), 1);
    assert!(matches!(cache.insert_value("b", &record((1, 1))).await, Err(Error::Closed)));
    assert!(matches!(lens.make_dio(master.vista("d")).await, Err(Error::Config(_))), "two of a name");
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_frees_its_name_only_once_it_has_ended() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let fails = Arc::new(AtomicUsize::new(1));
    let lens = lens_on(&journal)
        .on_start({
            let fails = Arc::clone(&fails);
            move |_| {
                let fail = fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                std::future::ready(if fail { Err(Error::transient("not now")) } else { Ok(()) })
            }
        })
        .build()
        .unwrap();
    assert!(lens.make_dio(master.vista("d")).await.is_err());
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    write(&dio, insert("a", (1, 1))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_of_the_worker_is_lost() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let lens = lens_on(&journal).write_concurrency(2).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let mut done = HashSet::new();
    for round in 0..150 {
        let ids: Vec<String> = (0..3).map(|number| format!("{round}-{number}")).collect();
        let writes = ids.iter().map(|id| write(&dio, insert(id, (round, 0))));
        for ticket in futures_util::future::join_all(writes).await {
            let op = ticket.unwrap().operation.unwrap();
            let settled = dio.settled(op, Duration::from_secs(10)).await.unwrap();
            assert_eq!(settled.state, OperationState::Applied);
            done.insert(op);
        }
    }
    assert_eq!(master.pairs().len(), done.len());
    assert_eq!(master.arrived().len(), done.len(), "each was delivered once");
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_whose_append_failed_is_told_with_the_next_one() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let lens = lens_on(&journal).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let mut events = dio.subscribe_events();
    journal.push_fault(Fault::Full);
    dio.invalidate_record("x");
    idle().await;
    assert_eq!(events.try_recv(), None);
    write(&dio, insert("a", (1, 1))).await.unwrap();
    idle().await;
    let told: Vec<DioEvent> = std::iter::from_fn(|| events.try_recv()).collect();
    assert!(told.contains(&DioEvent::RecordChanged { id: "x".into() }), "{told:?}");
}
