//! The event bus: everyone hears everything, in order, after readers can see it; nobody holds up anybody.

use std::collections::BTreeMap;
use std::time::Duration;

use diorama::dio::{Retry, RingLimits};
use diorama::{ChangeEvent, DioEvent, Error, Record};
use proptest::prelude::*;

use crate::harness::*;

#[tokio::test(start_paused = true)]
async fn every_subscriber_of_a_dio_hears_its_events_and_no_others() {
    let lens = seeding(memory()).build().unwrap();
    let master = Scripted::bakery();
    let products = lens.make_dio(master.vista("products")).await.unwrap();
    let orders = lens.make_dio(Scripted::bakery().vista("orders")).await.unwrap();
    let mut of_products = [products.subscribe_events(), products.subscribe_events()];
    let mut of_orders = [orders.subscribe_events(), orders.clone().subscribe_events()];
    products.vista().insert("muffin", &muffin()).await.unwrap();
    orders.vista().delete("7").await.unwrap();
    for bus in &mut of_products {
        let seen: Result<DioEvent, Error> = soon(bus.recv()).await;
        assert_eq!(seen.unwrap(), inserted("muffin"));
        assert!(is_committed(&next(bus).await));
    }
    for bus in &mut of_orders {
        assert_eq!(next(bus).await, removed("7"));
        assert!(is_committed(&next(bus).await));
    }
    breathe().await;
    for bus in of_products.iter_mut().chain(&mut of_orders) {
        assert_eq!(bus.try_recv(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_what_comes_after_it_and_the_end() {
    let (_master, dio) = bakery_dio().await;
    dio.vista().delete("1").await.unwrap();
    settle(&dio).await;
    let mut bus = dio.subscribe_events();
    dio.vista().delete("2").await.unwrap();
    assert_eq!(next(&mut bus).await, removed("2"));
    drop(dio);
    assert!(is_committed(&next(&mut bus).await), "what was accepted is still delivered");
    assert!(matches!(soon(bus.recv()).await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn events_have_their_documented_names_and_fields() {
    let (master, dio) = bakery_dio().await;
    let mut rx = dio.subscribe_events();
    master.refuse("7", Error::permanent("no"));
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    dio.vista().patch_value("muffin", &cells([("price", 180.into())])).await.unwrap();
    dio.vista().delete("1").await.unwrap();
    dio.vista().delete("7").await.unwrap();
    settle(&dio).await;
    dio.refresh().await.unwrap();
    dio.close().await;
    let mut log = Vec::new();
    while let Ok(event) = rx.recv().await {
        match event {
            DioEvent::RecordChanged { id } => log.push(format!("updated: {}", id)),
            DioEvent::RecordInserted { id } => log.push(format!("new: {}", id)),
            DioEvent::RecordRemoved { id } => log.push(format!("deleted: {}", id)),
            DioEvent::Invalidated => log.push("full refresh happened".to_string()),
            DioEvent::WriteFailed { id, error, .. } => log.push(format!("failed: {} ({})", id, error)),
            _ => {}
        }
    }
    let expected = [
        "new: muffin",
        "updated: muffin",
        "deleted: 1",
        "deleted: 7",
        "new: 7",
        "failed: 7 (no)",
        "full refresh happened",
    ];
    assert_eq!(log, expected);
}

// --- whoever follows the events -----------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Act {
    Insert(u8, i64),
    Patch(u8, i64),
    Replace(u8, i64),
    Delete(u8),
    DeleteAll,
    Refuse(usize),
    Busy(usize),
    Master(u8, i64),
    MasterTakes(u8),
    Refresh,
    Upstream(u8, i64),
    UpstreamGone(u8),
    Thin(u8),
    Patched(u8, i64),
    Raw(u8, i64),
    RawDelete(u8),
    Settle,
    Look,
}

fn act() -> impl Strategy<Value = Act> {
    let id = 0u8..5;
    let price = 0i64..4;
    prop_oneof![
        3 => (id.clone(), price.clone()).prop_map(|(id, price)| Act::Insert(id, price)),
        3 => (id.clone(), price.clone()).prop_map(|(id, price)| Act::Patch(id, price)),
        2 => (id.clone(), price.clone()).prop_map(|(id, price)| Act::Replace(id, price)),
        2 => id.clone().prop_map(Act::Delete),
        1 => Just(Act::DeleteAll),
        2 => (1usize..3).prop_map(Act::Refuse),
        2 => (1usize..3).prop_map(Act::Busy),
        2 => (id.clone(), price.clone()).prop_map(|(id, price)| Act::Master(id, price)),
        1 => id.clone().prop_map(Act::MasterTakes),
        2 => Just(Act::Refresh),
        2 => (id.clone(), price.clone()).prop_map(|(id, price)| Act::Upstream(id, price)),
        1 => id.clone().prop_map(Act::UpstreamGone),
        1 => id.clone().prop_map(Act::Thin),
        1 => (id.clone(), price.clone()).prop_map(|(id, price)| Act::Patched(id, price)),
        1 => (id.clone(), price).prop_map(|(id, price)| Act::Raw(id, price)),
        1 => id.prop_map(Act::RawDelete),
        2 => Just(Act::Settle),
        4 => Just(Act::Look),
    ]
}

/// A subscriber that keeps a copy by events and re-reads alone.
struct Replica {
    rows: BTreeMap<String, Record>,
    failed: BTreeMap<String, usize>,
}

impl Replica {
    async fn hear(&mut self, dio: &diorama::Dio, bus: &mut diorama::dio::EventReceiver) {
        while let Some(event) = bus.try_recv() {
            match event {
                DioEvent::RecordChanged { id } | DioEvent::RecordInserted { id } => {
                    match dio.cache().get_value(&id).await.unwrap() {
                        Some(row) => drop(self.rows.insert(id, row)),
                        None => drop(self.rows.remove(&id)),
                    }
                }
                DioEvent::RecordRemoved { id } => {
                    // It may be back already; then an event of that follows.
                    self.rows.remove(&id);
                }
                DioEvent::Invalidated => self.rows = dio.cache().list_values().await.unwrap().into_iter().collect(),
                DioEvent::WriteFailed { op, .. } => *self.failed.entry(op).or_default() += 1,
                _ => {}
            }
        }
    }
}

async fn perform(dio: &diorama::Dio, master: &Scripted, act: Act) {
    let vista = dio.vista();
    let name = |id: u8| id.to_string();
    let row = |id: u8, price: i64| product(&id.to_string(), "Row", price, 1);
    // Refusals (a conflict, a missing row) are answers like others.
    match act {
        Act::Insert(id, price) => drop(vista.insert(&name(id), &row(id, price)).await),
        Act::Patch(id, price) => drop(vista.patch_value(&name(id), &cells([("price", price.into())])).await),
        Act::Replace(id, price) => drop(vista.replace_value(&name(id), &row(id, price)).await),
        Act::Delete(id) => vista.delete(&name(id)).await.unwrap(),
        Act::DeleteAll => vista.delete_all().await.unwrap(),
        Act::Refuse(times) => master.fail_writes(times, &Error::permanent("no")),
        Act::Busy(times) => master.fail_writes(times, &Error::transient("busy")),
        Act::Master(id, price) => master.put(&name(id), row(id, price)).await,
        Act::MasterTakes(id) if master.row(&name(id)).await.is_some() => master.take(&name(id)).await,
        Act::MasterTakes(_) => {}
        Act::Refresh => drop(dio.refresh().await.unwrap()),
        Act::Upstream(id, price) => {
            master.put(&name(id), row(id, price)).await;
            let new = Some(row(id, price));
            dio.handle_event(ChangeEvent::Updated { id: name(id), new }).await.unwrap();
        }
        Act::UpstreamGone(id) => {
            if master.row(&name(id)).await.is_some() {
                master.take(&name(id)).await;
            }
            dio.handle_event(ChangeEvent::Deleted { id: name(id) }).await.unwrap();
        }
        Act::Thin(id) => drop(dio.handle_event(ChangeEvent::Updated { id: name(id), new: None }).await.unwrap()),
        Act::Patched(id, price) => {
            master.put(&name(id), row(id, price)).await;
            dio.patched(name(id), row(id, price)).await.unwrap();
        }
        // Raw writes are silent: who makes them tells.
        Act::Raw(id, price) => {
            dio.cache().insert_value(&name(id), &row(id, price)).await.unwrap();
            dio.invalidate_record(name(id));
        }
        Act::RawDelete(id) => {
            dio.cache().delete_value(&name(id)).await.unwrap();
            dio.invalidate_record(name(id));
        }
        Act::Settle => settle(dio).await,
        Act::Look => breathe().await,
    }
}

fn run(acts: Vec<Act>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let master = Scripted::bakery();
        let soon = Retry { first: Duration::from_millis(10), most: Duration::from_millis(50), ..Retry::default() };
        let (_lens, dio) = open(reconciling(seeding(memory())).retry(soon), &master).await;
        let mut bus = dio.subscribe_events();
        let rows = dio.cache().list_values().await.unwrap().into_iter().collect();
        let mut replica = Replica { rows, failed: BTreeMap::new() };
        for act in acts {
            perform(&dio, &master, act).await;
            breathe().await;
            replica.hear(&dio, &mut bus).await;
            let seen: BTreeMap<_, _> = dio.cache().list_values().await.unwrap().into_iter().collect();
            assert_eq!(replica.rows, seen, "a visible change was not told");
        }
        settle(&dio).await;
        breathe().await;
        replica.hear(&dio, &mut bus).await;
        let seen: BTreeMap<_, _> = dio.cache().list_values().await.unwrap().into_iter().collect();
        assert_eq!(replica.rows, seen);
        let failed = dio.operations().into_iter().filter(|op| op.error.is_some() && op.state.as_str() == "failed");
        for op in failed {
            assert_eq!(replica.failed.get(&op.id.to_string()), Some(&1), "exactly one WriteFailed");
        }
        dio.refresh().await.unwrap();
        settle(&dio).await;
        dio.refresh().await.unwrap();
        let seen: BTreeMap<_, _> = dio.cache().list_values().await.unwrap().into_iter().collect();
        let truth: BTreeMap<_, _> = master.rows().await.into_iter().collect();
        assert_eq!(seen, truth, "at rest the cache is what the master has");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_follows_the_events_has_the_cache(acts in proptest::collection::vec(act(), 1..40)) {
        run(acts);
    }
}

fn many(rows: std::ops::Range<i64>, price: i64) -> impl Iterator<Item = (String, Record)> {
    rows.map(move |n| (n.to_string(), product(&n.to_string(), "Row", price, 1)))
}

/// More than the log tells row by row: then one `Invalidated` does, whoever reconciles.
#[tokio::test(start_paused = true)]
async fn a_first_copy_and_a_large_difference_are_told_as_a_whole() {
    let master = Scripted::empty();
    let (_lens, dio) = open(memory(), &master).await;
    let mut bus = dio.subscribe_events();
    for (id, row) in many(0..10, 1) {
        master.put(&id, row).await;
    }
    dio.reconcile(dio.master().list_values().await.unwrap()).await.unwrap();
    assert_eq!(events(&mut bus), [DioEvent::Invalidated], "a first copy");
    for (id, row) in many(0..2_000, 2) {
        master.put(&id, row).await;
    }
    dio.reconcile(dio.master().list_values().await.unwrap()).await.unwrap();
    assert_eq!(events(&mut bus), [DioEvent::Invalidated], "many rows");
    master.take("7").await;
    dio.reconcile(dio.master().list_values().await.unwrap()).await.unwrap();
    assert_eq!(events(&mut bus), [removed("7")], "one row");
    dio.reconcile(dio.master().list_values().await.unwrap()).await.unwrap();
    assert_eq!(events(&mut bus), [], "none");
}

#[tokio::test(start_paused = true)]
async fn a_large_refresh_says_that_rows_were_not_told() {
    let master = Scripted::new(schema(), many(0..2_000, 1));
    let (_lens, dio) = open(reconciling(seeding(memory())), &master).await;
    let mut bus = dio.subscribe_events();
    for (id, row) in many(0..2_000, 2) {
        master.put(&id, row).await;
    }
    dio.refresh().await.unwrap();
    assert_eq!(next(&mut bus).await, DioEvent::Refreshing);
    let entry = bus.recv_entry().await.unwrap();
    assert_eq!((entry.event, entry.covered), (DioEvent::Invalidated, false));
    assert_eq!(events(&mut bus), []);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_subscriber_holds_up_nobody_and_is_told_what_it_missed() {
    let lens = seeding(memory()).ring(RingLimits { events: 1_000, bytes: 16 << 20 });
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    let mut stalled = dio.subscribe_events();
    let mut awake = dio.subscribe_events();
    let mut heard = 0;
    for round in 0..100 {
        let writes = (0..100).map(|n| dio.patched(n.to_string(), product(&n.to_string(), "Row", round, 1)));
        futures_util::future::try_join_all(writes).await.unwrap();
        heard += events(&mut awake).iter().filter(|event| matches!(event, DioEvent::RecordChanged { .. })).count();
    }
    assert_eq!(heard, 10_000, "one that listens hears everything");
    assert_eq!(next(&mut stalled).await, DioEvent::Lagged { missed: 9_000 });
    assert_eq!(events(&mut stalled).len(), 1_000, "and goes on with what is left");
    dio.patched("7", product("7", "Row", 1, 1)).await.unwrap();
    assert_eq!(next(&mut stalled).await, changed("7"));
}

/// Listeners may do what they like, writing to the same Dio included.
#[tokio::test(start_paused = true)]
async fn a_subscriber_may_write() {
    let (master, dio) = bakery_dio().await;
    tokio::spawn({
        let (mut bus, dio) = (dio.subscribe_events(), dio.clone());
        async move {
            while let Ok(event) = bus.recv().await {
                if event == inserted("muffin") {
                    dio.vista().patch_value("muffin", &cells([("price", 1.into())])).await.unwrap();
                }
            }
        }
    });
    breathe().await;
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    eventually(|| master.applied().len() == 2).await;
    assert_eq!(master.row("muffin").await.unwrap()["price"], 1.into());
}

/// What happened inside and what upstream says are two types; only `handle_event` turns one into the other.
#[tokio::test(start_paused = true)]
async fn the_bus_carries_dio_events_and_on_event_gets_change_events() {
    let (sender, mut upstream) = tokio::sync::mpsc::unbounded_channel::<ChangeEvent>();
    let lens = memory().on_event(move |_, event| {
        let _ = sender.send(event);
        async { Ok(()) }
    });
    let (_lens, dio) = open(seeding(lens), &Scripted::bakery()).await;
    let mut bus = dio.subscribe_events();
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    settle(&dio).await;
    dio.refresh().await.unwrap();
    assert!(upstream.try_recv().is_err(), "internal events do not come as upstream ones");
    events(&mut bus);
    dio.handle_event(ChangeEvent::Deleted { id: "7".into() }).await.unwrap();
    assert_eq!(upstream.try_recv().unwrap(), ChangeEvent::Deleted { id: "7".into() });
    assert_eq!(events(&mut bus), [], "nor upstream ones as internal ones");
}
