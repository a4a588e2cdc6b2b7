//! Refreshing: by a timer and by hand, one at a time, told when it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diorama::{Dio, DioEvent, Error, LensBuilder};

use crate::harness::*;

const MINUTE: Duration = Duration::from_secs(60);

/// An `on_refresh` that only counts.
fn counting(lens: LensBuilder) -> (LensBuilder, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let lens = lens.on_refresh(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    (lens, calls)
}

pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
    breathe().await;
}

#[tokio::test(start_paused = true)]
async fn the_timer_fires_after_one_interval_and_again_and_stops_with_the_dio() {
    let (lens, calls) = counting(memory().refresh_every(MINUTE));
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    let fired = || calls.load(Ordering::SeqCst);
    pass(Duration::from_secs(59)).await;
    assert_eq!(fired(), 0, "not at the start");
    pass(Duration::from_secs(2)).await;
    assert_eq!(fired(), 1);
    pass(2 * Duration::from_secs(61)).await;
    assert_eq!(fired(), 3);
    drop(dio);
    pass(10 * MINUTE).await;
    assert_eq!(fired(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_timed_refresh_brings_what_changed_at_the_master() {
    let master = Scripted::bakery().like_csv();
    let (_lens, dio) = open(reconciling(seeding(memory())).refresh_every(MINUTE), &master).await;
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    master.take("3").await;
    pass(2 * MINUTE).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn without_an_interval_or_without_a_callback_there_is_no_timer() {
    let (counted, calls) = counting(memory());
    for lens in [counted, memory().refresh_every(MINUTE)] {
        let (_lens, dio) = open(lens, &Scripted::bakery()).await;
        let mut bus = dio.subscribe_events();
        pass(10 * MINUTE).await;
        assert_eq!(events(&mut bus), []);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn by_hand_and_by_timer_it_is_the_same_callback() {
    let (lens, calls) = counting(memory().refresh_every(MINUTE));
    let (_lens, products_dio) = open(lens, &Scripted::bakery()).await;
    products_dio.refresh().await.unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    pass(Duration::from_secs(61)).await;
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// A refresh that waits at a gate, seven callers, one run.
#[tokio::test(start_paused = true)]
async fn a_refresh_under_way_is_joined() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(reconciling(seeding(memory())), &master).await;
    let lists = master.calls().list;
    master.reads().close();
    let refreshes: Vec<_> = (0..7)
        .map(|_| {
            let dio = dio.clone();
            tokio::spawn(async move { dio.refresh().await.unwrap() })
        })
        .collect();
    master.reads().waited_at(1).await;
    breathe().await;
    assert_eq!(master.reads().waiting(), 1);
    master.put("8", product("8", "New", 1, 1)).await;
    master.reads().open();
    for refresh in refreshes {
        assert_eq!(soon(refresh).await.unwrap().inserted, 1);
    }
    assert_eq!(master.calls().list, lists + 1);
    dio.refresh().await.unwrap();
    assert_eq!(master.calls().list, lists + 2, "the next one runs anew");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_does_not_stop_the_refresh() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(reconciling(seeding(memory())), &master).await;
    let mut bus = dio.subscribe_events();
    master.reads().close();
    let impatient = tokio::spawn({
        let dio = dio.clone();
        async move { dio.refresh().await }
    });
    master.reads().waited_at(1).await;
    impatient.abort();
    master.reads().open();
    until(&mut bus, |event| *event == DioEvent::Invalidated).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_inside_of_on_refresh_is_refused() {
    let lens = memory().on_refresh(|dio| {
        let dio = dio.clone();
        async move {
            assert!(matches!(dio.refresh().await, Err(Error::Reentrant { .. })));
            Ok(())
        }
    });
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    soon(dio.refresh()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn invalidated_comes_after_the_callback_and_all_that_it_told() {
    let gate = Gate::closed();
    let lens = memory().on_refresh({
        let gate = gate.clone();
        move |dio| {
            let (dio, gate) = (dio.clone(), gate.clone());
            async move {
                gate.pass().await;
                let rows = dio.master().list_values().await?;
                dio.reconcile(rows).await.map(drop)
            }
        }
    });
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(lens), &master).await;
    let mut bus = dio.subscribe_events();
    master.put("8", product("8", "New", 1, 1)).await;
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    master.take("3").await;
    let refresh = tokio::spawn({
        let dio = dio.clone();
        async move { dio.refresh().await.unwrap() }
    });
    gate.waited_at(1).await;
    breathe().await;
    assert_eq!(events(&mut bus), [DioEvent::Refreshing], "nothing before the callback is done");
    gate.open();
    let report = soon(refresh).await.unwrap();
    assert_eq!((report.inserted, report.changed, report.removed), (1, 1, 1));
    let mut told = events(&mut bus);
    assert_eq!(told.pop(), Some(DioEvent::Invalidated));
    told.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(told, [changed("7"), inserted("8"), removed("3")]);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

async fn refresh_events(dio: &Dio) -> Vec<DioEvent> {
    let mut bus = dio.subscribe_events();
    dio.refresh().await.unwrap();
    events(&mut bus)
}

#[tokio::test(start_paused = true)]
async fn without_a_callback_it_still_says_invalidated() {
    let (_lens, dio) = open(memory(), &Scripted::bakery()).await;
    assert_eq!(refresh_events(&dio).await, [DioEvent::Refreshing, DioEvent::Invalidated]);
}

#[tokio::test(start_paused = true)]
async fn invalidated_says_whether_row_events_told_everything() {
    let master = Scripted::bakery();
    let (_lens, told) = open(reconciling(seeding(memory())), &master).await;
    let silent = seeding(memory()).on_refresh(|dio| {
        let dio = dio.clone();
        async move { dio.cache().insert_values(dio.master().list_values().await?).await }
    });
    let (_lens, silent) = open(silent, &master).await;
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    for (dio, covered) in [(told, true), (silent, false)] {
        let mut bus = dio.subscribe_events();
        dio.refresh().await.unwrap();
        let last = loop {
            let entry = soon(bus.recv_entry()).await.unwrap();
            if entry.event == DioEvent::Invalidated {
                break entry;
            }
        };
        assert_eq!(last.covered, covered);
        assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_silently_before_is_not_covered_by_the_next_refresh() {
    let (_lens, dio) = open(reconciling(seeding(memory())), &Scripted::bakery()).await;
    dio.refresh().await.unwrap();
    dio.cache().delete_value("7").await.unwrap();
    let mut bus = dio.subscribe_events();
    for covered in [false, true] {
        dio.refresh().await.unwrap();
        let last = loop {
            let entry = soon(bus.recv_entry()).await.unwrap();
            if entry.event == DioEvent::Invalidated {
                break entry;
            }
        };
        assert_eq!(last.covered, covered);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_says_why_and_changes_nothing() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(reconciling(seeding(memory())), &master).await;
    let mut bus = dio.subscribe_events();
    let before = dio.cache().list_values().await.unwrap();
    master.put("8", product("8", "New", 1, 1)).await;
    master.fail_reads(1, &Error::transient("the line is cut"));
    let error = dio.refresh().await.unwrap_err();
    assert!(error.to_string().contains("the line is cut"));
    let failed = DioEvent::RefreshFailed { error: error.to_string() };
    assert_eq!(events(&mut bus), [DioEvent::Refreshing, failed], "no Invalidated");
    assert_eq!(dio.cache().list_values().await.unwrap(), before);
    assert!(dio.status().stale && dio.status().refresh_failed.is_some(), "and the status says so");
    dio.refresh().await.unwrap();
    assert!(!dio.status().stale && dio.status().refresh_failed.is_none());
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

/// A panic in the hook's future, and one before it gives a future at all.
#[tokio::test(start_paused = true)]
async fn a_panic_in_on_refresh_is_a_failed_refresh() {
    for early in [false, true] {
        let calls = Arc::new(AtomicUsize::new(0));
        let lens = memory().on_refresh({
            let calls = Arc::clone(&calls);
            move |_| {
                let first = calls.fetch_add(1, Ordering::SeqCst) == 0;
                assert!(!(first && early), "told to");
                async move {
                    assert!(!first, "told to");
                    Ok(())
                }
            }
        });
        let (_lens, dio) = open(lens, &Scripted::bakery()).await;
        let mut bus = dio.subscribe_events();
        let error = soon(dio.refresh()).await.unwrap_err();
        assert!(error.to_string().contains("told to"), "early: {early}: {error}");
        soon(dio.refresh()).await.unwrap();
        let seen = events(&mut bus);
        assert!(matches!(
            &seen[..],
            [DioEvent::Refreshing, DioEvent::RefreshFailed { .. }, DioEvent::Refreshing, DioEvent::Invalidated]
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_shrank_too_much_is_not_believed() {
    let rows = (0..300).map(|n| (n.to_string(), product(&n.to_string(), "Row", n, 1)));
    let master = Scripted::new(schema(), rows);
    let (_lens, dio) = open(reconciling(seeding(memory())), &master).await;
    for n in 50..300 {
        master.take(&n.to_string()).await;
    }
    assert!(matches!(dio.refresh().await, Err(Error::Suspicious { listed: 50, cached: 300 })));
    assert_eq!(dio.cache().count().await.unwrap(), 300);
    // Whoever says that it is right is not given the answer of a refresh that was not told so.
    master.slow(Duration::from_secs(1));
    let (others, ours) = tokio::join!(dio.refresh(), dio.refresh_allowing_shrink());
    assert!(matches!(others, Err(Error::Suspicious { .. })), "{others:?}");
    assert_eq!((ours.unwrap().removed, dio.cache().count().await.unwrap()), (250, 50));
}

/// Nobody ever sees an empty or half-filled table while a refresh goes on.
#[tokio::test(start_paused = true)]
async fn readers_see_whole_tables_during_a_slow_refresh() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(reconciling(seeding(memory())), &master).await;
    for id in ["1", "2", "3"] {
        master.put(id, product(id, "New name", 1, 1)).await;
    }
    master.slow(Duration::from_secs(1));
    let refresh = tokio::spawn({
        let dio = dio.clone();
        async move { dio.refresh().await }
    });
    while !refresh.is_finished() {
        let rows = dio.vista().list_values().await.unwrap();
        assert_eq!(rows.len(), 7);
        let new = rows.iter().filter(|(_, row)| row["name"] == "New name".into()).count();
        assert!(new == 0 || new == 3, "one turn, one look");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    refresh.await.unwrap().unwrap();
}
