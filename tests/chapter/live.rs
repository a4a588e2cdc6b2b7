//! Live updates: what upstream says, through `on_event` or the built-in rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use diorama::dio::{Inbound, Reconciled};
use diorama::{ChangeEvent, Dio, DioEvent, Error};

use crate::harness::*;

fn updated(id: &str, price: i64) -> ChangeEvent {
    ChangeEvent::Updated { id: id.into(), new: Some(product(id, "Told", price, 1)) }
}

async fn listening_dio() -> (Scripted, Dio) {
    let master = Scripted::bakery();
    let (_lens, dio) = open(listening(seeding(memory())), &master).await;
    (master, dio)
}

#[tokio::test(start_paused = true)]
async fn on_event_runs_once_per_event_and_its_error_comes_back() {
    let calls = Arc::new(AtomicUsize::new(0));
    let lens = memory().on_event({
        let calls = Arc::clone(&calls);
        move |_, event| {
            calls.fetch_add(1, Ordering::SeqCst);
            async move {
                match event {
                    ChangeEvent::Invalidated => Err(Error::permanent("cannot do that")),
                    _ => Ok(()),
                }
            }
        }
    });
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    let mut bus = dio.subscribe_events();
    assert_eq!(dio.handle_event(updated("7", 1)).await.unwrap(), Reconciled::Applied);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let error = dio.handle_event(ChangeEvent::Invalidated).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot do that");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(events(&mut bus), [], "what the callback does not do is not done");
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 175.into());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_on_event_is_an_error() {
    for early in [false, true] {
        let lens = memory().on_event(move |_, _| {
            assert!(!early, "told to");
            async move { if early { Ok(()) } else { panic!("told to") } }
        });
        let (_lens, dio) = open(lens, &Scripted::bakery()).await;
        let error = dio.handle_event(updated("7", 1)).await.unwrap_err();
        assert!(error.to_string().contains("told to"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_on_event_takes_updates_deletes_and_invalidations() {
    let (_master, dio) = listening_dio().await;
    let mut bus = dio.subscribe_events();
    dio.handle_event(updated("7", 200)).await.unwrap();
    dio.handle_event(ChangeEvent::Deleted { id: "3".into() }).await.unwrap();
    // What is invalidated before this is told of would be all that is told.
    let mut seen = until(&mut bus, |event| *event == changed("3")).await;
    dio.handle_event(ChangeEvent::Invalidated).await.unwrap();
    dio.handle_event(ChangeEvent::Inserted { id: "8".into(), new: None }).await.unwrap();
    dio.handle_event(ChangeEvent::Updated { id: "1".into(), new: None }).await.unwrap();
    seen.extend(until(&mut bus, |event| *event == DioEvent::Invalidated).await);
    assert_eq!(seen, [changed("7"), changed("3"), DioEvent::Invalidated]);
    breathe().await;
    assert_eq!(events(&mut bus), [], "the others fall into its last arm");
    assert_eq!(dio.cache().get_value("7").await.unwrap(), Some(product("7", "Told", 200, 1)));
    assert_eq!(dio.cache().get_value("3").await.unwrap(), None);
}

/// Without `on_event` no event is dropped silently: the built-in rules take it, and say what came of it.
#[tokio::test(start_paused = true)]
async fn without_on_event_the_built_in_rules_apply() {
    let (master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    let row = |id: &str, price| Some(product(id, "Told", price, 1));
    let cases = [
        (updated("7", 200), Reconciled::Applied, vec![changed("7")]),
        (updated("7", 200), Reconciled::Unchanged, vec![]),
        (ChangeEvent::Inserted { id: "8".into(), new: row("8", 1) }, Reconciled::Applied, vec![inserted("8")]),
        (ChangeEvent::Updated { id: "9".into(), new: row("9", 1) }, Reconciled::Applied, vec![inserted("9")]),
        (ChangeEvent::Deleted { id: "3".into() }, Reconciled::Applied, vec![removed("3")]),
        (ChangeEvent::Deleted { id: "3".into() }, Reconciled::Unchanged, vec![]),
    ];
    for (event, came_to, told) in cases {
        // An event reports what the master has; without versions it is asked.
        match &event {
            ChangeEvent::Inserted { id, new: Some(row) } | ChangeEvent::Updated { id, new: Some(row) } => {
                master.put(id, row.clone()).await;
            }
            ChangeEvent::Deleted { id } if master.row(id).await.is_some() => master.take(id).await,
            ChangeEvent::Deleted { .. } => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(dio.handle_event(event.clone()).await.unwrap(), came_to, "{event:?}");
        assert_eq!(events(&mut bus), told, "{event:?}");
    }
    // A thin event makes the row be read.
    master.put("1", product("1", "Rye", 330, 1)).await;
    let thin = ChangeEvent::Updated { id: "1".into(), new: None };
    assert_eq!(dio.handle_event(thin).await.unwrap(), Reconciled::Deferred);
    assert_eq!(next(&mut bus).await, changed("1"));
    assert_eq!(dio.cache().get_value("1").await.unwrap(), Some(product("1", "Rye", 330, 1)));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_applied_once() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = memory().on_event({
        let calls = Arc::clone(&calls);
        move |_, _| {
            calls.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        }
    });
    for lens in [memory(), counted] {
        let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
        let delivered = || Inbound { delivery: Some("d1".into()), ..Inbound::from(updated("7", 200)) };
        assert_eq!(dio.handle_event(delivered()).await.unwrap(), Reconciled::Applied);
        assert_eq!(dio.handle_event(delivered()).await.unwrap(), Reconciled::Duplicate);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_partial_row_is_whole_when_on_event_sees_it() {
    let (_master, dio) = listening_dio().await;
    let part = ChangeEvent::Updated { id: "7".into(), new: Some(cells([("price", 1.into())])) };
    dio.handle_event(Inbound { partial: true, ..Inbound::from(part) }).await.unwrap();
    assert_eq!(dio.cache().get_value("7").await.unwrap(), Some(product("7", "Blueberry muffin", 1, 2)));
}

#[tokio::test(start_paused = true)]
async fn patched_writes_first_and_tells_then() {
    let (_master, dio) = bakery_dio().await;
    let watcher = tokio::spawn({
        let (mut bus, dio) = (dio.subscribe_events(), dio.clone());
        async move {
            let mut seen = Vec::new();
            while seen.len() < 50 {
                let DioEvent::RecordChanged { id } = bus.recv().await.unwrap() else { panic!("another event") };
                let row = dio.cache().get_value(&id).await.unwrap();
                seen.push(row.map(|row| row["price"].clone()));
            }
            seen
        }
    });
    breathe().await;
    for price in 0..50 {
        dio.patched("7", product("7", "Told", price, 1)).await.unwrap();
        let seen = dio.cache().get_value("7").await.unwrap().unwrap()["price"].clone();
        assert_eq!(seen, price.into(), "on return it is there");
        if price % 2 == 0 {
            breathe().await;
        }
    }
    let seen = soon(watcher).await.unwrap();
    for (at, price) in seen.iter().enumerate() {
        let price = price.clone().unwrap().into_integer().unwrap();
        assert!(i128::from(price) >= at as i128, "an event came before its row");
    }
}

#[tokio::test(start_paused = true)]
async fn patched_says_record_changed_also_for_a_row_that_is_new_or_equal() {
    let (_master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    dio.patched("8", product("8", "New", 1, 1)).await.unwrap();
    dio.patched("8", product("8", "New", 1, 1)).await.unwrap();
    assert_eq!(events(&mut bus), [changed("8"), changed("8")]);
    assert_eq!(dio.vista().get_count().await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_raw_delete_is_silent_and_invalidate_record_tells_once() {
    let (_master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    dio.cache().delete_value("3").await.unwrap();
    breathe().await;
    assert_eq!(events(&mut bus), []);
    assert_eq!(dio.vista().get_value("3").await.unwrap(), None, "readers see it all the same");
    dio.invalidate_record("3");
    assert_eq!(next(&mut bus).await, changed("3"));
    breathe().await;
    assert_eq!(events(&mut bus), []);
}

#[tokio::test(start_paused = true)]
async fn raw_writes_are_silent_and_move_the_position() {
    let (_master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    let before = dio.position();
    dio.cache().insert_value("8", &product("8", "New", 1, 1)).await.unwrap();
    dio.cache()
        .insert_values(bakery().into_iter().take(3).map(|(id, _)| (id, muffin_named())).collect())
        .await
        .unwrap();
    assert!(dio.position().seq > before.seq);
    dio.cache().clear().await.unwrap();
    breathe().await;
    assert_eq!(events(&mut bus), []);
    assert_eq!(dio.cache().count().await.unwrap(), 0);
}

fn muffin_named() -> diorama::Record {
    cells([("name", "Raw".into())])
}

#[tokio::test(start_paused = true)]
async fn invalidate_record_touches_nothing() {
    let (master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    let (rows, etag, calls) = (dio.state(), dio.state().get("7").unwrap().hash(), master.calls());
    dio.invalidate_record("7");
    dio.invalidate_record("nothing".to_string());
    assert_eq!(until(&mut bus, |event| *event == changed("nothing")).await, [changed("7"), changed("nothing")]);
    assert_eq!(dio.state().get("7").unwrap().hash(), etag);
    assert_eq!(dio.state().rows_seq(), rows.rows_seq(), "no visible row moved");
    assert_eq!(dio.cache().list_values().await.unwrap(), dio.vista().list_values().await.unwrap());
    assert_eq!(master.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn in_order_each_invalidation_is_told_and_too_many_are_one() {
    let (_master, dio) = bakery_dio().await;
    let mut bus = dio.subscribe_events();
    for id in ["7", "7", "3", "7"] {
        dio.invalidate_record(id);
    }
    dio.invalidate_all();
    dio.patched("1", muffin_named()).await.unwrap();
    dio.invalidate_record("3");
    dio.invalidate_all();
    breathe().await;
    let four = [changed("7"), changed("7"), changed("3"), changed("7")];
    let rest = [DioEvent::Invalidated, changed("1"), changed("3"), DioEvent::Invalidated];
    assert_eq!(events(&mut bus), [four, rest].concat(), "each call, in the order of the calls");
    for n in 0..10_001 {
        dio.invalidate_record(n.to_string());
    }
    breathe().await;
    assert_eq!(events(&mut bus), [DioEvent::Invalidated], "too many single ones");
}

#[tokio::test(start_paused = true)]
async fn handle_event_returns_when_on_event_is_done() {
    let gate = Gate::closed();
    let lens = memory().on_event({
        let gate = gate.clone();
        move |dio, event| {
            let (dio, gate) = (dio.clone(), gate.clone());
            async move {
                gate.pass().await;
                dio.patched(event.id().unwrap(), product("7", "Told", 1, 1)).await
            }
        }
    });
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    let sender = tokio::spawn({
        let dio = dio.clone();
        async move { dio.handle_event(updated("7", 1)).await }
    });
    gate.waited_at(1).await;
    breathe().await;
    assert!(!sender.is_finished());
    gate.open();
    assert_eq!(soon(sender).await.unwrap().unwrap(), Reconciled::Applied);
    assert_eq!(dio.cache().get_value("7").await.unwrap().unwrap()["price"], 1.into());
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_goes_away_does_not_stop_on_event() {
    let gate = Gate::closed();
    let lens = memory().on_event({
        let gate = gate.clone();
        move |dio, _| {
            let (dio, gate) = (dio.clone(), gate.clone());
            async move {
                gate.pass().await;
                dio.patched("7", product("7", "Told", 1, 1)).await
            }
        }
    });
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    let mut bus = dio.subscribe_events();
    let sender = tokio::spawn({
        let dio = dio.clone();
        async move { dio.handle_event(updated("7", 1)).await }
    });
    gate.waited_at(1).await;
    sender.abort();
    gate.open();
    assert_eq!(next(&mut bus).await, changed("7"));
}

/// Many sources at once, each in its own order, through the program's callback and through the built-in rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_tasks_feed_events_and_each_keeps_its_order() {
    // Without `on_event`, only a version tells which of two events for a row in doubt is the newer.
    for lens in [listening(memory()), memory().version_column("price")] {
        let (_lens, dio) = open(seeding(lens), &Scripted::empty()).await;
        let mut bus = dio.subscribe_events();
        let tasks: Vec<_> = (0..100)
            .map(|task| {
                let dio = dio.clone();
                tokio::spawn(async move {
                    for price in 0..10 {
                        dio.handle_event(updated(&task.to_string(), price)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            soon(task).await.unwrap();
        }
        let rows = dio.cache().list_values().await.unwrap();
        assert_eq!(rows.len(), 100);
        assert!(rows.iter().all(|(_, row)| row["price"] == 9.into()));
        let mut last = std::collections::HashMap::new();
        for _ in 0..1_000 {
            let entry = soon(bus.recv_entry()).await.unwrap();
            let record = entry.record.unwrap();
            let price = i128::from(record["price"].as_integer().unwrap());
            let before = last.insert(record["id"].as_text().unwrap().to_string(), price);
            assert_eq!(price, before.map_or(0, |before| before + 1));
        }
    }
}
