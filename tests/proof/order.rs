//! Order and bounds of the write queue: with one lane nothing overtakes, and what waits is bounded. Time is paused.

use std::sync::Arc;
use std::time::Duration;

use diorama::cache::MemoryCache;
use diorama::dio::{OperationState, Retry, WriteOptions, WriteOrder};
use diorama::journal::Journal;
use diorama::{Dio, Error, Lens, LensBuilder, WriteOp};
use proptest::prelude::*;

use super::harness::*;
use super::masters::{patch, write};

const NEVER: Duration = Duration::from_secs(3_600);

fn insert(id: &str) -> WriteOp {
    WriteOp::Insert { id: id.into(), record: cells([("price", 1.into())]) }
}

/// Ids in the order in which the master took their writes.
fn applied(master: &Scripted) -> Vec<String> {
    master.applied().iter().filter_map(|op| op.id().map(str::to_string)).collect()
}

async fn opened(lens: LensBuilder) -> (Scripted, Dio) {
    opened_on(lens, Scripted::bakery()).await
}

async fn opened_on(lens: LensBuilder, master: Scripted) -> (Scripted, Dio) {
    let (_lens, dio) = open(seeding(lens), &master).await;
    (master, dio)
}

#[tokio::test(start_paused = true)]
async fn in_order_a_write_that_fails_for_a_moment_is_not_overtaken() {
    let (master, dio) = opened(memory()).await;
    master.fail_writes(1, &Error::transient("busy"));
    write(&dio, insert("order")).await;
    let line = write(&dio, insert("line")).await;
    assert_eq!(dio.settled(line, NEVER).await.unwrap().state, OperationState::Applied);
    assert_eq!(applied(&master), ["order", "line"], "a line without its order would have been refused for good");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_holds_nobody() {
    let (master, dio) = opened(memory()).await;
    master.refuse("order", Error::permanent("no"));
    let order = write(&dio, insert("order")).await;
    let line = write(&dio, insert("line")).await;
    assert_eq!(dio.settled(line, Duration::from_secs(1)).await.unwrap().state, OperationState::Applied);
    assert_eq!(dio.operation(order).unwrap().state, OperationState::Failed);
}

#[tokio::test(start_paused = true)]
async fn in_order_a_write_that_holds_the_queue_of_a_master_that_answers_everything_else_is_parked() {
    let lens = reconciling(memory()).refresh_every(Duration::from_secs(5));
    let (master, dio) = opened(lens).await;
    master.refuse("7", Error::transient("locked"));
    let poison = patch(&dio, "7", 1).await;
    let behind = patch(&dio, "1", 2).await;
    tokio::time::sleep(Duration::from_secs(55)).await;
    assert_eq!(dio.operation(behind).unwrap().state, OperationState::Queued, "not before its patience is at an end");
    assert_eq!(dio.settled(behind, Duration::from_secs(120)).await.unwrap().state, OperationState::Applied);
    assert_eq!(dio.operation(poison).unwrap().state, OperationState::Parked);
    assert_eq!(
        dio.vista().get_value("7").await.unwrap().unwrap()["price"],
        175.into(),
        "rolled back until a person decides"
    );
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_given_up_because_its_master_is_away_for_all() {
    let lens = reconciling(memory()).refresh_every(Duration::from_secs(5));
    let (master, dio) = opened(lens).await;
    let first = patch(&dio, "7", 1).await;
    dio.settled(first, NEVER).await;
    master.outage(Some(Error::transient("away")));
    let (held, behind) = (patch(&dio, "7", 2).await, patch(&dio, "1", 2).await);
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    assert_eq!(dio.operation(held).unwrap().state, OperationState::Queued);
    master.outage(None);
    let soon = Duration::from_secs(20);
    assert_eq!(dio.settled(behind, soon).await.unwrap().state, OperationState::Applied, "half an hour is forgotten");
    assert_eq!(dio.operation(held).unwrap().state, OperationState::Applied);
    assert_eq!(applied(&master), ["7", "7", "1"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// The master takes what was accepted, in that order, each once; a permanent refusal leaves its write out.
    #[test]
    fn in_order_the_master_gets_every_write_as_it_was_accepted(
        rows in proptest::collection::vec(0u8..6, 1..30),
        failures in proptest::collection::vec((0u8..8, any::<bool>()), 0..12),
        batch in 1usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let retry = Retry { first: Duration::from_millis(10), most: Duration::from_secs(1), ..Retry::default() };
            let (master, dio) = opened_on(memory().retry(retry), Scripted::bakery().batching(batch)).await;
            let mut accepted = Vec::new();
            for (at, row) in rows.iter().enumerate() {
                if let Some((times, unknown)) = failures.get(at % failures.len().max(1)) {
                    let error = if *unknown { Error::unknown("no answer") } else { Error::transient("busy") };
                    master.fail_writes(usize::from(*times % 3), &error);
                }
                let op = WriteOp::Replace { id: format!("r{row}"), record: cells([("price", (at as i64).into())]) };
                let last = dio.write(op, WriteOptions::default()).await.unwrap().operation.unwrap();
                accepted.push((format!("r{row}"), at as i64));
                if at + 1 == rows.len() {
                    dio.settled(last, NEVER).await;
                }
            }
            let taken: Vec<(String, i64)> = master.applied().into_iter().map(|op| match op {
                WriteOp::Replace { id, record } => (id, i64::try_from(record["price"].as_integer().unwrap()).unwrap()),
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(taken, accepted);
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn in_order_a_write_is_delivered_while_the_one_before_it_is_settled() {
    let journal = Arc::new(GatedJournal::lasting());
    let lens = Lens::new().cache_source(MemoryCache::new()).journal_source(Arc::clone(&journal) as Arc<dyn Journal>);
    let (master, dio) = opened_on(lens, Scripted::bakery().batching(4)).await;
    master.writes().close();
    let first = patch(&dio, "7", 1).await;
    master.writes().waited_at(1).await;
    let second = patch(&dio, "1", 2).await;
    let third = patch(&dio, "7", 3).await;
    breathe().await;
    assert_eq!(master.arrived().len(), 1, "one call at a time");
    journal.gate().close();
    master.writes().open();
    eventually(|| applied(&master) == ["7", "1"]).await;
    breathe().await;
    assert!(!dio.operation(first).unwrap().state.is_final(), "it cannot be settled yet");
    assert_eq!(applied(&master), ["7", "1"], "another write of its row waits until it is settled");
    journal.gate().open();
    for op in [first, second, third] {
        assert_eq!(dio.settled(op, NEVER).await.unwrap().state, OperationState::Applied);
    }
    assert_eq!(applied(&master), ["7", "1", "7"]);
    assert_eq!(master.most_writing(), 1);
}

#[tokio::test(start_paused = true)]
async fn in_order_a_prepared_write_waits_for_one_that_has_to_be_repeated() {
    let (master, dio) = opened_on(memory(), Scripted::bakery().batching(4)).await;
    master.writes().close();
    let first = patch(&dio, "7", 1).await;
    master.writes().waited_at(1).await;
    let second = patch(&dio, "1", 2).await;
    breathe().await;
    master.fail_writes(1, &Error::transient("busy"));
    master.writes().open();
    for op in [first, second] {
        assert_eq!(dio.settled(op, NEVER).await.unwrap().state, OperationState::Applied);
    }
    assert_eq!(applied(&master), ["7", "1"]);
    assert_eq!(dio.operation(second).unwrap().attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_queue_holds_as_many_writes_as_it_may_and_the_others_wait_in_their_order() {
    let (master, dio) = opened(memory().write_queue_capacity(1)).await;
    master.writes().close();
    let writers: Vec<_> = (0..50)
        .map(|number| {
            let vista = dio.vista();
            let id = format!("n{number:02}");
            tokio::spawn(async move { vista.insert(&id, &cells([("price", 1.into())])).await })
        })
        .collect();
    breathe().await;
    assert_eq!(writers.iter().filter(|writer| writer.is_finished()).count(), 1, "one place");
    assert_eq!(dio.status().queued, 1);
    let op = WriteOp::Delete { id: "7".into() };
    let refused = dio.write(op, WriteOptions { refuse_when_full: true, ..WriteOptions::default() }).await;
    assert!(matches!(refused, Err(Error::QueueFull)), "{refused:?}");
    master.writes().open();
    for writer in writers {
        soon(writer).await.unwrap().unwrap();
    }
    settle(&dio).await;
    let expected: Vec<String> = (0..50).map(|number| format!("n{number:02}")).collect();
    assert_eq!(applied(&master), expected);
    assert_eq!(dio.free_places(), 1);
}

#[tokio::test(start_paused = true)]
async fn routed_and_parked_writes_take_no_place_unless_parked_ones_are_to_be_counted() {
    let (_, dio) = opened(memory().write_queue_capacity(2).on_write(|_, _| std::future::ready(Ok(())))).await;
    for number in 0..5 {
        let op = write(&dio, insert(&format!("n{number}"))).await;
        dio.settled(op, NEVER).await;
    }
    assert_eq!(dio.free_places(), 2, "the route has them");
    for counted in [false, true] {
        let lens = memory().write_queue_capacity(2).settings(|settings| settings.count_parked = counted);
        let (master, dio) = opened(lens.retry(Retry { max_age: Duration::ZERO, ..Retry::default() })).await;
        master.outage(Some(Error::transient("away")));
        let parked = patch(&dio, "7", 1).await;
        assert_eq!(dio.settled(parked, NEVER).await.unwrap().state, OperationState::Parked);
        assert_eq!(dio.free_places(), if counted { 1 } else { 2 });
        dio.discard(parked).await.unwrap();
        assert_eq!(dio.free_places(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn writers_that_wait_for_a_place_are_told_when_the_dio_closes() {
    let (master, dio) = opened(memory().write_queue_capacity(1)).await;
    master.writes().close();
    write(&dio, insert("a")).await;
    let waiting = {
        let vista = dio.vista();
        tokio::spawn(async move { vista.insert("b", &cells([("price", 1.into())])).await })
    };
    breathe().await;
    let closing = {
        let dio = dio.clone();
        tokio::spawn(async move { dio.close().await })
    };
    assert!(matches!(soon(waiting).await.unwrap(), Err(Error::Closed)));
    master.writes().open();
    soon(closing).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn by_rows_a_queue_of_many_writes_over_few_rows_is_delivered_in_the_order_of_each() {
    let lens = memory().write_order(WriteOrder::Row).write_concurrency(3).write_queue_capacity(1_000);
    let (master, dio) = opened(lens).await;
    master.writes().close();
    let mut last = None;
    for number in 0..200i64 {
        last = Some(patch(&dio, &(number % 7 + 1).to_string(), number).await);
    }
    master.writes().open();
    dio.settled(last.unwrap(), NEVER).await;
    settle(&dio).await;
    for id in 1..=7 {
        let prices: Vec<i64> = master
            .applied()
            .into_iter()
            .filter_map(|op| match op {
                WriteOp::Patch { id: row, record } if row == id.to_string() => {
                    Some(i64::try_from(record["price"].as_integer().unwrap()).unwrap())
                }
                _ => None,
            })
            .collect();
        assert!(prices.is_sorted() && prices.len() >= 28, "{id}: {prices:?}");
    }
}
