//! Masters that are down, slow, flapping, rate-limited, refusing, lying, garbled, or away for too long. Time is paused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diorama::dio::{BreakerState, OnUnknown, OperationState, Retry, WriteOptions, WriteOrder};
use diorama::vista::ErrorKind;
use diorama::{Capabilities, CborValue, Dio, DioEvent, Error, Record, WriteOp};
use diorama_core::state::OpId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::harness::*;

fn price(price: i64) -> Record {
    cells([("price", price.into())])
}

fn later(seconds: u64) -> Error {
    let retry_after = Some(Duration::from_secs(seconds));
    Error::Source { message: "too many".into(), kind: ErrorKind::Transient, retry_after, cause: None }
}

pub(crate) async fn write(dio: &Dio, op: WriteOp) -> OpId {
    dio.write(op, WriteOptions::default()).await.unwrap().operation.unwrap()
}

pub(crate) async fn patch(dio: &Dio, id: &str, to: i64) -> OpId {
    write(dio, WriteOp::Patch { id: id.into(), record: price(to) }).await
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

fn state(dio: &Dio, op: OpId) -> OperationState {
    dio.operation(op).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn a_master_that_is_down_is_probed_not_loaded_and_all_converges_when_it_is_back() {
    let master = Scripted::bakery();
    let lens = reconciling(seeding(memory())).refresh_every(Duration::from_secs(1));
    let (_lens, dio) = open(lens, &master).await;
    master.outage(Some(Error::transient("no route")));
    for number in 0..200 {
        dio.vista().insert(&format!("new{number}"), &price(number)).await.unwrap();
    }
    let before = master.calls().total();
    pass(Duration::from_secs(60)).await;
    let asked = master.calls().total() - before;
    assert!((7..30).contains(&asked), "{asked} requests in a minute");
    let status = dio.status();
    assert_ne!(status.source.state, BreakerState::Closed);
    assert_eq!(status.source.error.as_deref(), Some("no route"));
    assert!(status.stale && status.refresh_failed.is_some());
    let waits = dio.operations().into_iter().find(|op| op.state == OperationState::Queued).unwrap();
    assert!(waits.next_attempt.is_some(), "it says when");
    let began = Instant::now();
    assert_eq!(dio.vista().get_count().await.unwrap(), 207);
    assert_eq!(began.elapsed(), Duration::ZERO, "readers do not notice");
    master.outage(None);
    while dio.status().queued > 0 || dio.status().refresh_failed.is_some() {
        pass(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(dio.status().source.state, BreakerState::Closed);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert_eq!(master.applied().len(), 200, "each once");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_master_longer_than_max_age_is_parked_without_being_tried() {
    let master = Scripted::bakery();
    let retry = Retry { max_age: Duration::from_millis(30), ..Retry::default() };
    let lens = reconciling(seeding(memory())).retry(retry);
    let (_lens, dio) = open(lens, &master).await;
    master.outage(Some(Error::transient("no route")));
    while dio.status().source.state == BreakerState::Closed {
        dio.refresh().await.unwrap_err();
    }
    let op = patch(&dio, "7", 1).await;
    // Age is measured on the wall clock, which the pause does not hold.
    std::thread::sleep(Duration::from_millis(40));
    let parked = dio.settled(op, Duration::from_secs(30)).await.unwrap();
    assert_eq!(parked.state, OperationState::Parked);
    assert!(parked.error.unwrap().detail.contains("no route"));
    assert!(master.arrived().len() <= 1, "a probe at most");
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 175.into(), "rolled back");
    master.outage(None);
    let again = dio.retry(op).await.unwrap();
    assert_eq!(dio.settled(again, Duration::from_secs(30)).await.unwrap().state, OperationState::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_slow_master_slows_no_reader_and_is_listed_once_at_a_time() {
    let (lens, master) = (reconciling(seeding(memory())), Scripted::bakery());
    let (_lens, dio) = open(lens, &master).await;
    master.slow(Duration::from_secs(5));
    let lists = master.calls().list;
    let refreshes: Vec<_> = (0..10)
        .map(|_| {
            let dio = dio.clone();
            tokio::spawn(async move { dio.refresh().await.map(drop) })
        })
        .collect();
    let op = patch(&dio, "7", 1).await;
    breathe().await;
    let began = Instant::now();
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 1.into());
    assert_eq!(dio.vista().list_values().await.unwrap().len(), 7);
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(!state(&dio, op).is_final());
    for refresh in refreshes {
        refresh.await.unwrap().unwrap();
    }
    assert_eq!(master.calls().list, lists + 1);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_hangs_holds_no_refresh_and_no_reader_for_ever() {
    let (lens, master) = (reconciling(seeding(memory())), Scripted::bakery());
    let lens = lens.settings(|settings| {
        settings.refresh_timeout = Duration::from_secs(60);
        settings.read_timeout = Duration::from_secs(7);
    });
    let (_lens, dio) = open(lens, &master).await;
    master.reads().close();
    let began = Instant::now();
    let error = dio.refresh().await.unwrap_err();
    assert!(error.to_string().contains("no answer within 60 s"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 60);
    let began = Instant::now();
    assert!(dio.master().get_value("7").await.is_err());
    assert_eq!(began.elapsed().as_secs(), 7);
    breathe().await;
    assert_eq!(master.reads().waiting(), 0, "nobody waits there any more");
    master.reads().open();
    dio.refresh().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_flapping_master_makes_no_storm() {
    let master = Scripted::bakery();
    let lens = reconciling(seeding(memory())).refresh_every(Duration::from_secs(1));
    let (_lens, dio) = open(lens, &master).await;
    let mut bus = dio.subscribe_events();
    let before = master.calls().total();
    for turn in 0..200 {
        master.outage((turn % 2 == 0).then(|| Error::transient("flap")));
        patch(&dio, &format!("{}", turn % 7 + 1), turn).await;
        pass(Duration::from_millis(150)).await;
    }
    master.outage(None);
    let asked = master.calls().total() - before;
    assert!(asked < 2 * 200 + 60, "{asked} requests for 200 writes in 30 s");
    while dio.status().queued > 0 {
        pass(Duration::from_millis(100)).await;
    }
    dio.refresh().await.unwrap();
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    let seen = events(&mut bus);
    assert!(!seen.iter().any(is_failed));
    let (mut refreshing, mut ended) = (0, 0);
    for event in &seen {
        refreshing += u32::from(matches!(event, DioEvent::Refreshing));
        ended += u32::from(matches!(event, DioEvent::RefreshFailed { .. } | DioEvent::Invalidated));
    }
    assert_eq!(refreshing, ended, "each refresh ends in one of the two");
}

#[tokio::test(start_paused = true)]
async fn a_master_that_applies_and_does_not_answer_is_asked_before_it_is_written_to_again() {
    let (master, dio) = bakery_dio().await;
    for op in
        [WriteOp::Patch { id: "7".into(), record: price(1) }, WriteOp::Insert { id: "muffin".into(), record: muffin() }]
    {
        master.lose_answers(1);
        let op = write(&dio, op).await;
        assert_eq!(dio.settled(op, Duration::from_secs(30)).await.unwrap().state, OperationState::Applied);
    }
    assert_eq!(master.applied().len(), 2, "nothing twice");
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_tell_is_sent_again_or_parked_as_asked() {
    for on_unknown in [OnUnknown::Retry, OnUnknown::Park] {
        let master = Scripted::bakery().like_csv().able(Capabilities::all());
        let lens = seeding(memory()).settings(|settings| settings.on_unknown = on_unknown);
        let (_lens, dio) = open(lens, &master).await;
        master.lose_answers(1);
        let op = patch(&dio, "7", 1).await;
        let done = dio.settled(op, Duration::from_secs(30)).await.unwrap();
        match on_unknown {
            OnUnknown::Retry => assert_eq!((done.state, master.applied().len()), (OperationState::Applied, 2)),
            OnUnknown::Park => {
                assert_eq!((done.state, master.applied().len()), (OperationState::Parked, 1));
                assert_eq!(done.error.unwrap().code, "outcome-unknown");
            }
        }
        // What can be repeated without harm is, whatever is asked for the rest.
        master.lose_answers(1);
        let op = write(&dio, WriteOp::Replace { id: "6".into(), record: product("6", "Tartlet", 91, 2) }).await;
        assert_eq!(dio.settled(op, Duration::from_secs(30)).await.unwrap().state, OperationState::Applied);
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_that_says_when_to_come_back_is_left_alone_until_then() {
    let (master, dio) = bakery_dio().await;
    master.fail_writes(1, &later(30));
    for id in 1..=7 {
        patch(&dio, &id.to_string(), 1).await;
    }
    pass(Duration::from_secs(29)).await;
    assert_eq!(master.arrived().len(), 1, "nobody else tries either");
    assert_eq!(dio.status().source.state, BreakerState::Open);
    pass(Duration::from_secs(10)).await;
    assert_eq!((dio.status().queued, master.applied().len()), (0, 7));
}

#[tokio::test(start_paused = true)]
async fn a_master_that_refuses_four_calls_of_five_gets_every_write_once_and_is_not_stormed() {
    let master = Scripted::bakery();
    let lens = reconciling(seeding(memory())).write_concurrency(4).refresh_every(Duration::from_secs(5));
    let (_lens, dio) = open(lens, &master).await;
    master.limit(5, Duration::from_secs(1));
    for number in 0..40 {
        dio.vista().insert(&format!("new{number}"), &price(number)).await.unwrap();
    }
    let began = Instant::now();
    while dio.status().queued > 0 {
        pass(Duration::from_millis(100)).await;
    }
    let (seconds, asked) = (began.elapsed().as_secs_f64(), master.asked());
    assert_eq!(master.applied().len(), 40, "each once");
    assert!((asked as f64) < 25.0 + 6.0 * seconds, "{asked} requests in {seconds} s: it said to come back in a second");
    assert_eq!(dio.vista().get_count().await.unwrap(), 47, "readers do not notice");
    assert!(dio.operations().iter().all(|op| op.state == OperationState::Applied));
}

#[tokio::test(start_paused = true)]
async fn in_the_order_of_rows_a_row_that_nobody_can_write_keeps_no_other_waiting() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(memory()).write_order(WriteOrder::Row), &master).await;
    master.refuse("7", Error::transient("locked"));
    let poison = patch(&dio, "7", 1).await;
    pass(Duration::from_secs(120)).await;
    assert_eq!(dio.status().source.state, BreakerState::Closed, "one row says nothing of its master");
    let tried = master.arrived().len();
    assert!((8..=14).contains(&tried), "{tried} attempts: 250 ms doubled up to 120 s, with jitter");
    for id in 1..=6 {
        let began = Instant::now();
        let op = patch(&dio, &id.to_string(), 2).await;
        assert_eq!(dio.settled(op, Duration::from_secs(5)).await.unwrap().state, OperationState::Applied);
        assert!(began.elapsed() < Duration::from_millis(100));
    }
    assert_eq!(state(&dio, poison), OperationState::Queued);
    master.relent("7");
    assert_eq!(dio.settled(poison, Duration::from_secs(300)).await.unwrap().state, OperationState::Applied);
}

#[tokio::test(start_paused = true)]
async fn a_write_route_that_is_down_does_not_keep_the_master_from_being_read() {
    let master = Scripted::bakery();
    let lens = reconciling(seeding(memory())).refresh_every(Duration::from_secs(10));
    let lens = lens.on_write(|_, _| std::future::ready(Err(Error::transient("broker away"))));
    let (_lens, dio) = open(lens, &master).await;
    for id in 1..=7 {
        patch(&dio, &id.to_string(), 1).await;
    }
    pass(Duration::from_secs(5)).await;
    let status = dio.status();
    assert_ne!(status.route.unwrap().state, BreakerState::Closed);
    assert_eq!((status.source.state, status.queued), (BreakerState::Closed, 7));
    let lists = master.calls().list;
    pass(Duration::from_secs(31)).await;
    assert!(master.calls().list >= lists + 2);
}

#[tokio::test(start_paused = true)]
async fn a_write_route_that_comes_back_gets_every_write_once_and_each_row_in_order() {
    let (master, down) = (Scripted::bakery(), Arc::new(AtomicBool::new(true)));
    let taken: Arc<Mutex<Vec<(String, CborValue)>>> = Arc::default();
    let (route, broken) = (Arc::clone(&taken), Arc::clone(&down));
    let lens = reconciling(seeding(memory())).write_concurrency(4).on_write(move |_, op| {
        let (route, broken) = (Arc::clone(&route), Arc::clone(&broken));
        async move {
            // Some take longer than others.
            pass(Duration::from_millis(op.id().map_or(0, |id| u64::from(id.as_bytes()[0]) % 7))).await;
            if broken.load(Ordering::SeqCst) {
                return Err(Error::transient("broker away"));
            }
            if let WriteOp::Patch { id, record } = op {
                route.lock().push((id, record["price"].clone()));
            }
            Ok(())
        }
    });
    let (_lens, dio) = open(lens, &master).await;
    for step in 0..5 {
        for id in 1..=7 {
            patch(&dio, &id.to_string(), step).await;
        }
    }
    pass(Duration::from_secs(20)).await;
    assert_eq!((dio.status().queued, taken.lock().len()), (35, 0));
    down.store(false, Ordering::SeqCst);
    let began = Instant::now();
    while dio.status().queued > 0 {
        pass(Duration::from_millis(50)).await;
    }
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    for id in 1..=7 {
        let taken = taken.lock();
        let steps: Vec<_> =
            taken.iter().filter(|(row, _)| *row == id.to_string()).map(|(_, step)| step.clone()).collect();
        assert_eq!(steps, (0..5).map(CborValue::from).collect::<Vec<_>>(), "row {id}");
    }
}

/// Whatever part of the file is there: it is refused, and the rows stay.
#[cfg(feature = "json")]
#[tokio::test]
async fn a_list_that_ends_early_wherever_that_is_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("products.json");
    let rows: Vec<String> = (0..8).map(|n| format!("{{\"id\":\"{n}\",\"name\":\"Bun {n}\"}}")).collect();
    let whole = format!("[{}]", rows.join(","));
    std::fs::write(&path, &whole).unwrap();
    // Each part is as it is: nobody waits for the rest of it.
    let options = diorama::connect::JsonOptions { settle: Some(std::time::Duration::ZERO), ..Default::default() };
    let vista = diorama::connect::Json::open("products", &path, options).await.unwrap();
    let lens = reconciling(seeding(memory())).build().unwrap();
    let dio = lens.make_dio(vista).await.unwrap();
    let (before, mut bus) = (dio.state().rows_seq(), dio.subscribe_events());
    for end in 0..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        dio.refresh().await.unwrap_err();
    }
    assert_eq!((dio.state().rows_seq(), dio.vista().get_count().await.unwrap()), (before, 8));
    let told = events(&mut bus);
    assert_eq!(told.iter().filter(|event| matches!(event, DioEvent::RefreshFailed { .. })).count(), whole.len());
    assert!(!told.contains(&DioEvent::Invalidated) && dio.status().stale);
    std::fs::write(&path, &whole).unwrap();
    dio.refresh().await.unwrap();
    assert!(!dio.status().stale);
}

#[tokio::test(start_paused = true)]
async fn rows_that_cannot_be_decoded_are_kept_and_counted_and_the_others_refreshed() {
    let (lens, master) = (reconciling(seeding(memory())), Scripted::bakery());
    let (_lens, dio) = open(lens, &master).await;
    let known = dio.cache().get_value("3").await.unwrap();
    master.garble(&["3", "5"]);
    master.put("7", product("7", "Blueberry muffin", 180, 2)).await;
    master.put("new", product("new", "New", 1, 1)).await;
    master.take("1").await;
    dio.refresh().await.unwrap();
    assert_eq!(dio.status().undecodable, 2);
    assert_eq!(dio.cache().get_value("3").await.unwrap(), known, "not gone");
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 180.into());
    assert!(dio.cache().get_value("new").await.unwrap().is_some());
    assert!(dio.cache().get_value("1").await.unwrap().is_some(), "such a list says of no row that it is gone");
    assert!(!dio.status().stale);
    let all: Vec<String> = master.rows().await.ids().map(str::to_string).collect();
    master.garble(&all.iter().map(String::as_str).collect::<Vec<_>>());
    let error = dio.refresh().await.unwrap_err();
    assert!(error.to_string().contains("none of 7 rows of the source can be decoded: row 2 is no row"), "{error}");
    master.garble(&[]);
    dio.refresh().await.unwrap();
    assert_eq!(dio.status().undecodable, 0);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}
