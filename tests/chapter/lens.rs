//! Lens, its builder and its Dios: built once, shared, each setter with its effect.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diorama::cache::MemoryCache;
use diorama::dio::{Inbound, OperationState, Reconciled, Retry, RingLimits, WriteRoute};
use diorama::journal::{Journal, MemoryJournal};
use diorama::{ChangeEvent, Dio, DioEvent, Error, Lens, LensBuilder, Record, Rows};

use crate::harness::*;

fn price(price: i64) -> Record {
    cells([("price", price.into())])
}

/// An `on_start` that passes a gate and then seeds.
fn gated_start(lens: LensBuilder, gate: &Gate) -> LensBuilder {
    let gate = gate.clone();
    lens.on_start(move |dio| {
        let (dio, gate) = (dio.clone(), gate.clone());
        async move {
            gate.pass().await;
            dio.cache().insert_values(dio.master().list_values().await?).await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn one_lens_serves_many_dios() {
    let lens: Arc<Lens> = Arc::new(seeding(memory()).build().unwrap());
    let (master, other) = (Scripted::bakery(), Scripted::empty());
    let make = |name: &'static str, master: &Scripted| {
        let (lens, vista) = (Arc::clone(&lens), master.vista(name));
        tokio::spawn(async move { lens.make_dio(vista).await.unwrap() })
    };
    let (products, orders) = (make("products", &master), make("orders", &other));
    let (products, orders) = (products.await.unwrap(), orders.await.unwrap());
    assert_eq!((products.name(), orders.name()), ("products", "orders"));
    assert_eq!((products.cache().count().await.unwrap(), orders.cache().count().await.unwrap()), (7, 0));
}

#[tokio::test(start_paused = true)]
async fn two_dios_of_one_name_are_refused_and_a_name_is_free_again_after_its_dio() {
    let lens = Arc::new(seeding(memory()).build().unwrap());
    let master = Scripted::bakery();
    let dio = lens.make_dio(master.vista("products")).await.unwrap();
    let Err(Error::Config(said)) = lens.make_dio(master.vista("products")).await else { panic!("two of one name") };
    assert!(said.contains("products"), "{said}");
    master.writes().close();
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    master.writes().waited_at(1).await;
    drop(dio);
    let again = tokio::spawn({
        let (lens, vista) = (Arc::clone(&lens), master.vista("products"));
        async move { lens.make_dio(vista).await.unwrap() }
    });
    breathe().await;
    assert!(!again.is_finished(), "the one before still delivers");
    master.writes().open();
    let dio = soon(again).await.unwrap();
    assert_eq!(master.applied().len(), 1);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn backend_callbacks_refresh_and_policies_are_the_builders() {
    let (starts, refreshes) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = |counter: &Arc<AtomicUsize>| {
        let counter = Arc::clone(counter);
        move |_: &Dio| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        }
    };
    let remote = RemoteCache::default();
    let lens = Lens::new()
        .cache_source(remote.clone())
        .on_start(count(&starts))
        .on_refresh(count(&refreshes))
        .refresh_every(Duration::from_secs(60))
        .ring(RingLimits { events: 2, bytes: 1 << 20 })
        .settings(|settings| settings.keep_events = 10);
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    assert!(remote.calls() > 0 && starts.load(Ordering::SeqCst) == 1);
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(refreshes.load(Ordering::SeqCst), 1);
    let mut bus = dio.subscribe_events();
    for id in ["1", "2", "3"] {
        dio.patched(id, price(1)).await.unwrap();
    }
    assert_eq!(events(&mut bus), [DioEvent::Lagged { missed: 1 }, changed("2"), changed("3")]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_dio_drains_its_queue_and_then_ends_everything() {
    let master = Scripted::bakery();
    let (lens, dio) = open(reconciling(seeding(memory())).refresh_every(Duration::from_secs(60)), &master).await;
    let mut bus = dio.subscribe_events();
    master.writes().close();
    for id in ["a", "b", "c"] {
        dio.vista().insert(id, &price(1)).await.unwrap();
    }
    let clone = dio.clone();
    drop(dio);
    breathe().await;
    assert!(clone.status().tasks > 0, "a clone keeps it");
    drop(clone);
    master.writes().waited_at(1).await;
    master.writes().open();
    let mut seen = Vec::new();
    while let Ok(event) = soon(bus.recv()).await {
        seen.push(event);
    }
    assert_eq!(seen.iter().filter(|event| is_committed(event)).count(), 3, "{seen:?}");
    assert_eq!(master.applied().len(), 3);
    drop((bus, lens));
    eventually(|| master.holders() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_ever_and_what_is_left_stays_in_the_journal() {
    let (cache, journal) = (RemoteCache::default(), Arc::new(MemoryJournal::new()));
    let lens = || {
        let journal: Arc<dyn Journal> = Arc::clone(&journal) as _;
        Lens::new().cache_source(cache.clone()).journal_source(journal)
    };
    let master = Scripted::bakery();
    let (lens_before, dio) = open(seeding(lens()), &master).await;
    master.writes().close();
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    master.writes().waited_at(1).await;
    let began = tokio::time::Instant::now();
    dio.close().await;
    assert!(began.elapsed() <= Duration::from_secs(25), "drain_timeout is 20 s: {:?}", began.elapsed());
    assert!(matches!(dio.vista().insert("late", &price(1)).await, Err(Error::Closed)));
    drop((dio, lens_before));
    assert!(master.applied().is_empty());
    master.writes().open();
    let (_lens, dio) = open(lens(), &master).await;
    assert_eq!(dio.cache().get_value("muffin").await.unwrap(), Some(muffin()), "seen at once");
    settle(&dio).await;
    assert_eq!(master.row("muffin").await, Some(muffin()), "and delivered by the next one");
}

#[test]
fn building_needs_no_runtime_and_says_what_is_missing() {
    let Err(Error::Config(said)) = Lens::new().build() else { panic!("a Lens without a cache") };
    assert!(said.contains("cache_at"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    let lens = on_file(&dir).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dio = lens.make_dio(Scripted::bakery().vista("products")).await.unwrap();
        dio.close().await;
    });
}

#[test]
fn settings_that_cannot_work_are_refused() {
    for lens in
        [memory().refresh_every(Duration::ZERO), memory().write_queue_capacity(0), memory().write_concurrency(0)]
    {
        assert!(matches!(lens.build(), Err(Error::Config(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn on_start_runs_once_per_dio_and_never_again() {
    let starts = Arc::new(AtomicUsize::new(0));
    let lens = reconciling(memory().on_start({
        let starts = Arc::clone(&starts);
        move |_| {
            starts.fetch_add(1, Ordering::SeqCst);
            async { Ok(()) }
        }
    }));
    let lens = lens.build().unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 0);
    let products = lens.make_dio(Scripted::bakery().vista("products")).await.unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 1);
    let _orders = lens.make_dio(Scripted::empty().vista("orders")).await.unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 2);
    products.refresh().await.unwrap();
    let _clone = products.clone();
    assert_eq!(starts.load(Ordering::SeqCst), 2);
}

/// The listing itself is a doctest of the crate's front page; this is what it comes to.
#[tokio::test]
async fn the_canonical_seed_lists_the_master_once_into_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(on_file(&dir)), &master).await;
    assert_eq!((master.calls().list, master.calls().total()), (1, 1));
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    assert!(dio.status().complete);
}

#[tokio::test]
async fn a_seed_on_a_warm_cache_takes_away_what_the_master_no_longer_has() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::bakery();
    let (lens, dio) = open(seeding(on_file(&dir)), &master).await;
    dio.close().await;
    lens.close().await;
    drop((lens, dio));
    master.take("3").await;
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    let (_lens, dio) = open(seeding(on_file(&dir)), &master).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn a_clone_of_the_dio_can_be_taken_anywhere() {
    let lens = memory().on_start(|dio| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?;
            let task = tokio::spawn(async move { dio.cache().insert_values(rows).await });
            task.await.map_err(|error| Error::permanent(error.to_string()))?
        }
    });
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    assert_eq!(dio.cache().count().await.unwrap(), 7);
}

/// All seven, each with a closure that clones the Dio it is lent.
#[tokio::test(start_paused = true)]
async fn every_callback_is_lent_the_dio() {
    fn name(dio: &Dio) -> String {
        dio.name().to_string()
    }
    let lens = memory()
        .on_start(|dio: &Dio| {
            let name = name(dio);
            async move { if name == "products" { Ok(()) } else { Err(Error::permanent(name)) } }
        })
        .on_refresh(|dio| {
            let dio = dio.clone();
            async move { dio.cache().count().await.map(drop) }
        })
        .on_write(|dio, op| {
            let dio = dio.clone();
            async move { dio.cache().get_value(op.id().unwrap_or_default()).await.map(drop) }
        })
        .on_event(|dio, event| {
            let dio = dio.clone();
            async move {
                dio.invalidate_record(event.id().unwrap_or_default());
                Ok(())
            }
        })
        .on_query(|dio, query| {
            let dio = dio.clone();
            async move { if query.limit == Some(0) { dio.cache().clear().await } else { Ok(()) } }
        })
        .total_provider(|dio| {
            let dio = dio.clone();
            async move { dio.cache().count().await }
        })
        .on_load_chunk(|dio, range, sink| {
            let dio = dio.clone();
            async move {
                if range.start < range.end {
                    sink.put(dio.master().list_values().await?);
                }
                Ok(())
            }
        });
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    dio.refresh().await.unwrap();
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    dio.handle_event(ChangeEvent::Deleted { id: "7".into() }).await.unwrap();
    settle(&dio).await;
}

/// A Dio's own callbacks stand in for the Lens', each by itself.
#[tokio::test(start_paused = true)]
async fn a_dio_can_have_callbacks_of_its_own() {
    let ran: Arc<Mutex<Vec<&str>>> = Arc::default();
    let note = {
        let ran = Arc::clone(&ran);
        move |what| ran.lock().unwrap().push(what)
    };
    let lens = note.clone();
    let lens = seeding(memory()).on_refresh(move |_| {
        lens("lens");
        async { Ok(()) }
    });
    let lens = lens.build().unwrap();
    let [start, refresh, write, event, query, total] = std::array::from_fn(|_| note.clone());
    let own = lens
        .dio(Scripted::bakery().vista("own"))
        .on_start(move |dio| {
            start("start");
            let dio = dio.clone();
            async move { dio.cache().insert_value("1", &product("1", "Rye bread", 320, 1)).await }
        })
        .on_refresh(move |_| {
            refresh("refresh");
            async { Ok(()) }
        })
        .on_write(move |_, _| {
            write("write");
            async { Ok(()) }
        })
        .on_event(move |_, _| {
            event("event");
            async { Ok(()) }
        })
        .on_query(move |_, _| {
            query("query");
            async { Ok(()) }
        })
        .total_provider(move |_| {
            total("total");
            async { Ok(7) }
        })
        .on_load_chunk(move |_, _, sink| {
            note("chunk");
            sink.put(Rows::new());
            async { Ok(()) }
        })
        .make()
        .await
        .unwrap();
    let other = lens.make_dio(Scripted::bakery().vista("other")).await.unwrap();
    own.vista().insert("muffin", &muffin()).await.unwrap();
    settle(&own).await;
    own.handle_event(ChangeEvent::Deleted { id: "7".into() }).await.unwrap();
    let scenery = own.table_scenery().open().await.unwrap();
    eventually(|| ran.lock().unwrap().contains(&"chunk")).await;
    own.refresh().await.unwrap();
    other.refresh().await.unwrap();
    assert_eq!(scenery.estimated_total(), Some(7));
    let mut ran = ran.lock().unwrap().clone();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran, ["chunk", "event", "lens", "query", "refresh", "start", "total", "write"]);
    assert_eq!(other.cache().count().await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_a_pointer_and_shares_everything() {
    assert_eq!(size_of::<Dio>(), size_of::<usize>());
    let (_master, a) = bakery_dio().await;
    let b = a.clone();
    let mut bus = b.subscribe_events();
    a.vista().insert("muffin", &muffin()).await.unwrap();
    assert_eq!(next(&mut bus).await, inserted("muffin"));
    assert_eq!(b.cache().get_value("muffin").await.unwrap(), Some(muffin()));
    assert_eq!(b.operations(), a.operations());
    drop(a);
    b.vista().delete("7").await.unwrap();
    settle(&b).await;
}

#[tokio::test(start_paused = true)]
async fn make_dio_fails_with_on_start_and_leaves_the_name_free() {
    let master = Scripted::bakery();
    let lens = seeding(memory()).build().unwrap();
    master.fail_reads(1, &Error::transient("the line is cut"));
    let error = lens.make_dio(master.vista("products")).await.unwrap_err();
    assert_eq!(error.to_string(), "the line is cut");
    let dio = lens.make_dio(master.vista("products")).await.unwrap();
    assert_eq!(dio.cache().count().await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn make_dio_fails_with_its_cache() {
    let remote = RemoteCache::default();
    let lens = Lens::new().cache_source(remote.clone()).build().unwrap();
    remote.set_away(true);
    let error = lens.make_dio(Scripted::bakery().vista("products")).await.unwrap_err();
    assert!(matches!(&error, Error::Storage { detail, .. } if detail.contains("no route")), "{error}");
    remote.set_away(false);
    lens.make_dio(Scripted::bakery().vista("products")).await.unwrap();
}

/// A Dio whose making was given up is still ending: the next of its name waits, so that two never write one log.
#[tokio::test(start_paused = true)]
async fn a_make_dio_that_was_given_up_has_ended_before_the_next() {
    let gate = Gate::closed();
    let lens = Arc::new(gated_start(memory(), &gate).build().unwrap());
    let master = Scripted::bakery();
    let make = || {
        let (lens, vista) = (Arc::clone(&lens), master.vista("products"));
        tokio::spawn(async move { lens.make_dio(vista).await })
    };
    let first = make();
    gate.waited_at(1).await;
    first.abort();
    breathe().await;
    let second = make();
    breathe().await;
    assert!(!second.is_finished() && gate.waiting() == 1, "the first one's on_start still runs");
    gate.open();
    let dio = soon(second).await.unwrap().unwrap();
    assert!(master.calls().list >= 1, "what was given up need not list any more");
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_outlives_its_dio_does_nothing() {
    let master = Scripted::bakery();
    let (lens, old) = open(seeding(memory()), &master).await;
    old.close().await;
    let new = lens.make_dio(master.vista("products")).await.unwrap();
    let mut bus = new.subscribe_events();
    assert!(matches!(old.vista().insert("muffin", &muffin()).await, Err(Error::Closed)));
    assert!(matches!(old.cache().delete_value("7").await, Err(Error::Closed)));
    assert!(matches!(old.patched("7", price(1)).await, Err(Error::Closed)));
    assert!(matches!(soon(old.handle_event(ChangeEvent::Invalidated)).await, Err(Error::Closed)));
    assert!(matches!(soon(old.refresh()).await, Err(Error::Closed)));
    old.invalidate_record("7");
    old.invalidate_all();
    breathe().await;
    assert_eq!(events(&mut bus), []);
    assert_eq!(new.cache().list_values().await.unwrap(), master.rows().await);
    new.vista().delete("7").await.unwrap();
    settle(&new).await;
}

#[tokio::test(start_paused = true)]
async fn make_dio_returns_a_dio_that_is_ready() {
    let gate = Gate::closed();
    let lens = Arc::new(gated_start(memory(), &gate).build().unwrap());
    let making = tokio::spawn({
        let (lens, vista) = (Arc::clone(&lens), Scripted::bakery().vista("products"));
        async move { lens.make_dio(vista).await.unwrap() }
    });
    gate.waited_at(1).await;
    breathe().await;
    assert!(!making.is_finished());
    gate.open();
    let dio = soon(making).await.unwrap();
    assert_eq!(dio.cache().count().await.unwrap(), 7);
    assert!(dio.status().complete && !dio.status().stale);
}

#[tokio::test]
async fn dios_of_one_lens_share_the_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let lens = seeding(on_file(&dir)).build().unwrap();
    let (slow, quick) = (Scripted::bakery(), Scripted::bakery());
    let products = lens.make_dio(slow.vista("products")).await.unwrap();
    let orders = lens.make_dio(quick.vista("orders")).await.unwrap();
    slow.writes().close();
    products.vista().insert("muffin", &muffin()).await.unwrap();
    slow.writes().waited_at(1).await;
    orders.vista().delete("7").await.unwrap();
    settle(&orders).await;
    assert_eq!(quick.applied().len(), 1, "a slow master of one does not delay the other");
    assert_eq!(orders.cache().get_value("muffin").await.unwrap(), None);
    assert!(products.cache().get_value("7").await.unwrap().is_some());
    slow.writes().open();
    settle(&products).await;
}

#[test]
fn compiles_with_every_name_of_the_public_face_at_the_crate_root() {
    #[allow(unused_imports, reason = "that they exist is what is tested")]
    use diorama::{
        CacheBackend, Capabilities, CborValue, ChangeEvent, Column, ColumnType, Dio, DioEvent, Error, EventReceiver,
        Filter, Flag, Lens, LensBuilder, Query, Record, Result, Rows, Schema, TableShell, Vista, WriteOp, Written,
    };
    fn is_backend<T: CacheBackend>() {}
    is_backend::<MemoryCache>();
    let _all: fn(LensBuilder) -> LensBuilder = |lens| {
        lens.on_start(|_| async { Ok(()) })
            .on_refresh(|_| async { Ok(()) })
            .on_write(|_, _: WriteOp| async { Ok(()) })
            .on_event(|_, _: ChangeEvent| async { Ok(()) })
    };
    let _facade: fn(&Dio) -> Vista = Dio::vista;
    let _bus: fn(&Dio) -> EventReceiver = Dio::subscribe_events;
}

// --- each setter has an effect -----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn setter_on_start_blocking_false_returns_at_once_and_seeds_behind() {
    let gate = Gate::closed();
    let (_lens, dio) = open(gated_start(memory(), &gate).on_start_blocking(false), &Scripted::bakery()).await;
    let mut bus = dio.subscribe_events();
    assert_eq!(dio.cache().count().await.unwrap(), 0);
    assert!(dio.status().stale);
    gate.open();
    assert_eq!(next(&mut bus).await, DioEvent::Invalidated, "subscribers are told to read again");
    assert_eq!(dio.cache().count().await.unwrap(), 7);
    assert!(!dio.status().stale);
}

#[tokio::test(start_paused = true)]
async fn setter_on_start_blocking_false_tells_of_a_failure() {
    let master = Scripted::bakery();
    master.fail_reads(1, &Error::transient("the line is cut"));
    let (_lens, dio) = open(seeding(memory()).on_start_blocking(false), &master).await;
    let mut bus = dio.subscribe_events();
    assert_eq!(next(&mut bus).await, DioEvent::RefreshFailed { error: "the line is cut".into() });
    assert_eq!(dio.status().refresh_failed.as_deref(), Some("the line is cut"));
}

#[tokio::test(start_paused = true)]
async fn setter_cache_ttl_makes_old_rows_stale_and_a_read_refreshes_them() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(reconciling(seeding(memory())).cache_ttl(Duration::from_secs(60)), &master).await;
    let lists = master.calls().list;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(!dio.status().stale);
    dio.vista().list_values().await.unwrap();
    breathe().await;
    assert_eq!(master.calls().list, lists);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(dio.status().stale);
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    let mut bus = dio.subscribe_events();
    let old = dio.vista().get_value("7").await.unwrap().unwrap();
    dio.vista().list_values().await.unwrap();
    assert_eq!(old["price"], 175.into(), "the read itself does not wait");
    until(&mut bus, |event| *event == DioEvent::Invalidated).await;
    assert_eq!(dio.vista().get_value("7").await.unwrap().unwrap()["price"], 200.into());
    assert!(!dio.status().stale);
    assert_eq!(master.calls().list, lists + 1);
}

#[tokio::test(start_paused = true)]
async fn setter_cache_ttl_counts_reads_of_every_kind() {
    type Read = fn(diorama::Vista) -> futures_util::future::BoxFuture<'static, ()>;
    let reads: [(&str, Read); 4] = [
        ("list", |vista| Box::pin(async move { vista.list_values().await.map(drop).unwrap() })),
        ("get", |vista| Box::pin(async move { vista.get_value("7").await.map(drop).unwrap() })),
        ("next", |vista| Box::pin(async move { vista.fetch_next(None).await.map(drop).unwrap() })),
        ("count", |vista| Box::pin(async move { vista.get_count().await.map(drop).unwrap() })),
    ];
    for (what, read) in reads {
        let master = Scripted::bakery();
        let (_lens, dio) = open(reconciling(seeding(memory())).cache_ttl(Duration::from_secs(60)), &master).await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        let lists = master.calls().list;
        read(dio.vista()).await;
        breathe().await;
        assert_eq!(master.calls().list, lists + 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn setter_write_concurrency_delivers_different_ids_together_and_one_id_in_order() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(memory()).write_concurrency(3), &master).await;
    master.writes().close();
    for id in ["1", "2", "3", "4"] {
        for to in [1, 2] {
            dio.vista().patch_value(id, &price(to)).await.unwrap();
        }
    }
    master.writes().waited_at(3).await;
    breathe().await;
    assert_eq!(master.writes().waiting(), 3);
    let first: Vec<_> = master.arrived().iter().map(|op| op.record().unwrap()["price"].clone()).collect();
    assert_eq!(first, [1.into(), 1.into(), 1.into()], "the second of an id waits for its first");
    master.writes().open();
    settle(&dio).await;
    assert_eq!(master.most_writing(), 3);
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

fn quick() -> Retry {
    Retry { first: Duration::from_secs(1), most: Duration::from_secs(4), ..Retry::default() }
}

#[tokio::test(start_paused = true)]
async fn setter_retry_says_when_a_failed_delivery_is_tried_again() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(memory()).retry(quick()), &master).await;
    let mut bus = dio.subscribe_events();
    master.fail_writes(5, &Error::transient("busy"));
    let began = tokio::time::Instant::now();
    dio.vista().patch_value("7", &price(1)).await.unwrap();
    while !is_committed(&bus.recv().await.unwrap()) {}
    let took = began.elapsed().as_secs_f64();
    // 1 + 2 + 4 + 4 + 4 seconds, each between half and all of it.
    assert!((7.5..=15.1).contains(&took), "{took}");
    assert_eq!(master.arrived().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn setter_retry_heeds_the_masters_own_word() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(seeding(memory()).retry(quick()), &master).await;
    let mut bus = dio.subscribe_events();
    let later = Error::Source {
        message: "too many".into(),
        kind: diorama::vista::ErrorKind::Transient,
        retry_after: Some(Duration::from_secs(30)),
        cause: None,
    };
    master.fail_writes(1, &later);
    let began = tokio::time::Instant::now();
    dio.vista().patch_value("7", &price(1)).await.unwrap();
    while !is_committed(&bus.recv().await.unwrap()) {}
    assert!(began.elapsed() >= Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn setter_retry_gives_up_an_attempt_without_answer() {
    let master = Scripted::bakery();
    let retry = Retry { attempt_timeout: Duration::from_secs(3), ..quick() };
    let (_lens, dio) = open(seeding(memory()).retry(retry), &master).await;
    master.writes().close();
    dio.vista().patch_value("7", &price(1)).await.unwrap();
    master.writes().waited_at(1).await;
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert_eq!(dio.operations()[0].state, OperationState::Unknown);
    assert!(dio.operations()[0].error.as_ref().unwrap().detail.contains("no answer"));
    master.writes().open();
    settle(&dio).await;
    assert_eq!(master.row("7").await.unwrap()["price"], 1.into());
}

#[tokio::test(start_paused = true)]
async fn setter_retry_parks_what_is_too_old_until_a_person_decides() {
    let master = Scripted::bakery();
    let retry = Retry { max_age: Duration::ZERO, ..quick() };
    let (_lens, dio) = open(seeding(memory()).retry(retry), &master).await;
    let mut bus = dio.subscribe_events();
    master.refuse("7", Error::transient("busy"));
    dio.vista().patch_value("7", &price(1)).await.unwrap();
    dio.vista().patch_value("7", &cells([("name", "Renamed".into())])).await.unwrap();
    let failed = soon(async {
        let mut failed = 0;
        loop {
            failed += usize::from(is_failed(&bus.recv().await.unwrap()));
            if failed == 2 {
                return failed;
            }
            // Age is measured on the wall clock, which the pause does not hold.
            std::thread::sleep(Duration::from_millis(1));
        }
    })
    .await;
    assert_eq!(failed, 2);
    let parked: Vec<_> = dio.operations().into_iter().rev().collect();
    assert!(parked.iter().all(|op| op.state == OperationState::Parked));
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await, "rolled back");
    master.relent("7");
    let again = dio.retry(parked[0].id).await.unwrap();
    assert_eq!(dio.operation(again).unwrap().retry_of, Some(parked[0].id));
    dio.discard(parked[1].id).await.unwrap();
    settle(&dio).await;
    assert_eq!(dio.operation(again).unwrap().state, OperationState::Applied);
    assert_eq!(dio.operation(parked[1].id).unwrap().state, OperationState::Discarded);
    let row = master.row("7").await.unwrap();
    assert_eq!((&row["price"], &row["name"]), (&1.into(), &"Blueberry muffin".into()));
    assert!(dio.discard(parked[1].id).await.is_err(), "once");
}

#[tokio::test(start_paused = true)]
async fn setter_version_column_lets_the_newest_win() {
    let versioned = |version: i64| {
        let mut row = product("7", "Told", version * 10, 1);
        row.insert("rev", version.into());
        row
    };
    let told = |version: i64| ChangeEvent::Updated { id: "7".into(), new: Some(versioned(version)) };
    let price_of = |dio: &Dio| dio.state().get("7").unwrap().decode().unwrap()["price"].clone();
    let (_lens, dio) = open(seeding(memory()).version_column("rev"), &Scripted::empty()).await;
    let (_lens2, plain) = open(seeding(memory()), &Scripted::empty()).await;
    for dio in [&dio, &plain] {
        dio.handle_event(told(5)).await.unwrap();
    }
    assert_eq!(dio.handle_event(told(4)).await.unwrap(), Reconciled::Stale);
    assert_eq!(price_of(&dio), 50.into());
    assert_eq!(dio.handle_event(told(6)).await.unwrap(), Reconciled::Applied);
    assert_eq!(price_of(&dio), 60.into());
    assert_eq!(plain.handle_event(told(4)).await.unwrap(), Reconciled::Applied);
    assert_eq!(price_of(&plain), 40.into(), "without it the last to come wins");
    let beside = Inbound { version: Some(1.into()), ..Inbound::from(ChangeEvent::Deleted { id: "7".into() }) };
    assert_eq!(dio.handle_event(beside).await.unwrap(), Reconciled::Stale, "a version beside the row counts too");
}

#[tokio::test(start_paused = true)]
async fn setter_write_route_says_what_ok_of_on_write_means() {
    for (route, stays) in [(WriteRoute::Around, true), (WriteRoute::Through, false)] {
        let lens = reconciling(seeding(memory())).on_write(|_, _| async { Ok(()) }).write_route(route);
        let master = Scripted::bakery();
        let (_lens, dio) = open(lens, &master).await;
        dio.vista().insert("muffin", &muffin()).await.unwrap();
        settle(&dio).await;
        assert_eq!(is_covered(&dio), stays, "{route:?}");
        dio.refresh().await.unwrap();
        let seen = dio.cache().get_value("muffin").await.unwrap().is_some();
        assert_eq!(seen, stays, "{route:?}: the master's list does not have it");
    }
}

#[tokio::test]
async fn setter_journal_at_makes_writes_of_a_memory_cache_durable() {
    let dir = tempfile::tempdir().unwrap();
    let lens = || memory().journal_at(dir.path().join("writes.redb"));
    let master = Scripted::bakery();
    let (lens_before, dio) = open(seeding(lens()).settings(|s| s.drain_timeout = Duration::ZERO), &master).await;
    assert!(dio.status().durable);
    master.writes().close();
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    dio.close().await;
    lens_before.close().await;
    drop((dio, lens_before));
    master.writes().open();
    let (_lens, dio) = open(seeding(lens()), &master).await;
    settle(&dio).await;
    assert_eq!(master.row("muffin").await, Some(muffin()));
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
    let (_lens, volatile) = open(memory(), &master).await;
    assert!(!volatile.status().durable);
}

#[tokio::test(start_paused = true)]
async fn setter_of_one_dio_leaves_the_others_as_they_are() {
    let lens = seeding(memory()).build().unwrap();
    let master = Scripted::bakery();
    let narrow = |settings: &mut diorama::dio::Settings| settings.ring = RingLimits { events: 1, bytes: 1 << 20 };
    let products = lens.make_dio_with(master.vista("products"), narrow).await.unwrap();
    let orders = lens.make_dio(master.vista("orders")).await.unwrap();
    for (dio, heard) in [(products, 2), (orders, 3)] {
        let mut bus = dio.subscribe_events();
        for id in ["1", "2", "3"] {
            dio.patched(id, price(1)).await.unwrap();
        }
        assert_eq!(events(&mut bus).len(), heard);
    }
}

#[tokio::test]
#[expect(clippy::unnecessary_to_owned, reason = "programs write it like this")]
async fn the_whole_sample_reads_from_the_cache_and_its_insert_is_enqueued() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::bakery();
    // Build once per application
    let lens = Arc::new(
        diorama::Lens::new()
            .cache_at(dir.path().join("cache.redb"))
            .on_start(|dio| {
                let dio = dio.clone();
                async move {
                    let rows = dio.master().list_values().await?;
                    dio.cache().insert_values(rows).await?;
                    Ok(())
                }
            })
            .refresh_every(Duration::from_secs(300))
            .build()
            .unwrap(),
    );
    // One Dio per entity
    let products = lens.make_dio(master.vista("products")).await.unwrap();
    let listed = master.calls().total();
    master.writes().close();
    // Read and write through the facade
    let v = products.vista();
    let rows = v.list_values().await.unwrap();
    v.insert(&"muffin".to_string(), &muffin()).await.unwrap();
    assert_eq!(rows.len(), bakery().len());
    assert_eq!(v.get_count().await.unwrap(), bakery().len() as u64 + 1);
    assert_eq!(master.rows().await.len(), bakery().len(), "enqueued");
    assert_eq!(master.calls().total(), listed, "a cache hit");
    master.writes().open();
    settle(&products).await;
    assert!(master.row("muffin").await.is_some(), "delivered behind it");
}

/// A version beside the row orders the events of its sender; the row is kept as it was sent.
#[tokio::test(start_paused = true)]
async fn versions_of_a_senders_clock_order_its_events_and_are_not_written_into_rows() {
    let row = |rev: i64, price: i64| {
        let mut row = product("7", "Told", price, 1);
        row.insert("rev", rev.into());
        row
    };
    let told = |version: i64, row: Record| Inbound {
        version: Some(version.into()),
        clock: Some("sender".into()),
        ..Inbound::from(ChangeEvent::Updated { id: "7".into(), new: Some(row) })
    };
    let seen = |dio: &Dio| {
        let row = dio.state().get("7").unwrap().decode().unwrap();
        (row["rev"].clone(), row["price"].clone())
    };
    let (_lens, dio) = open(seeding(memory()).version_column("rev"), &Scripted::empty()).await;
    dio.patched("7", row(2, 20)).await.unwrap();
    dio.handle_event(told(100, row(2, 20))).await.unwrap();
    assert_eq!(seen(&dio), (2.into(), 20.into()), "the sender's version is not the row's");
    // The source's own version goes on from where it was.
    let newer = Inbound::from(ChangeEvent::Updated { id: "7".into(), new: Some(row(3, 30)) });
    assert_eq!(dio.handle_event(newer).await.unwrap(), Reconciled::Applied);
    assert_eq!(seen(&dio), (3.into(), 30.into()));
    assert_eq!(dio.handle_event(told(99, row(4, 40))).await.unwrap(), Reconciled::Stale, "an event that came late");
    assert_eq!(dio.handle_event(told(101, row(2, 20))).await.unwrap(), Reconciled::Stale, "by the row's own version");
    assert_eq!(seen(&dio), (3.into(), 30.into()));
    // Without a version column the newest of the sender's events wins, in whatever order they come.
    let (_lens, plain) = open(seeding(memory()), &Scripted::empty()).await;
    plain.handle_event(told(5, row(0, 50))).await.unwrap();
    assert_eq!(plain.handle_event(told(7, row(0, 70))).await.unwrap(), Reconciled::Applied);
    assert_eq!(plain.handle_event(told(6, row(0, 60))).await.unwrap(), Reconciled::Stale);
    assert_eq!(seen(&plain), (0.into(), 70.into()));
    let other = Inbound { clock: Some("another".into()), ..told(1, row(0, 10)) };
    assert_ne!(plain.handle_event(other).await.unwrap(), Reconciled::Stale, "versions of two clocks are not compared");
}

/// What senders have told is known after a restart, also of rows that are gone, and when the log does not say it any more.
#[tokio::test]
async fn never_back_versions_of_senders_outlive_the_log_that_told_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let told = |version: i64, id: &str, new: Option<Record>| {
        let event = match new {
            Some(_) => ChangeEvent::Updated { id: id.into(), new },
            None => ChangeEvent::Deleted { id: id.into() },
        };
        Inbound { version: Some(version.into()), clock: Some("sender".into()), ..Inbound::from(event) }
    };
    let master = Scripted::empty();
    {
        let (lens, dio) = open(seeding(on_file(&dir)), &master).await;
        for (version, id, price) in [(5, "7", Some(50)), (8, "8", Some(80)), (9, "8", None)] {
            let row = price.map(|price| product(id, "Told", price, 1));
            dio.handle_event(told(version, id, row)).await.unwrap();
        }
        dio.close().await;
        lens.close().await;
    }
    std::fs::remove_file(dir.path().join("cache.journal.redb")).unwrap();
    let (lens, dio) = open(on_file(&dir), &master).await;
    for (version, id) in [(4, "7"), (8, "8")] {
        let late = told(version, id, Some(product(id, "Late", 1, 1)));
        assert_eq!(dio.handle_event(late).await.unwrap(), Reconciled::Stale, "{id} of version {version}");
    }
    assert_eq!(dio.state().get("8").map(|row| row.body()), None, "it does not come back");
    lens.close().await;
}
