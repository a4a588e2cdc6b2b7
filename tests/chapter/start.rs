//! Before the first copy, and with a copy while the master is away: what is answered, and what is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use diorama::dio::{BreakerState, WriteOptions};
use diorama::journal::{Journal, MemoryJournal};
use diorama::{Dio, DioEvent, Error, Lens, LensBuilder, LoadState, RecordStatus, Result, Vista, WriteOp};
use futures_util::StreamExt as _;

use crate::harness::*;

/// An `on_start` that lists the master, behind a gate.
fn gated_seed(lens: LensBuilder, gate: &Gate) -> LensBuilder {
    let gate = gate.clone();
    lens.on_start(move |dio| {
        let (dio, gate) = (dio.clone(), gate.clone());
        async move {
            gate.pass().await;
            dio.cache().insert_values(dio.master().list_values().await?).await
        }
    })
}

/// Everything that the facade can be asked and told; the errors.
async fn refusals(dio: &Dio) -> Vec<Error> {
    let v: Vista = dio.vista();
    let mut errors = Vec::new();
    let mut note = |what: &str, done: Result<()>| match done {
        Err(error) => errors.push(error),
        Ok(()) => panic!("{what} was answered"),
    };
    note("list_values", v.list_values().await.map(drop));
    note("get_value", v.get_value("7").await.map(drop));
    note("get_count", v.get_count().await.map(drop));
    note("get_some_value", v.get_some_value().await.map(drop));
    note("fetch_page", v.fetch_page(1).await.map(drop));
    note("fetch_next", v.fetch_next(None).await.map(drop));
    note("stream_values", v.stream_values().next().await.unwrap_or(Err(Error::Closed)).map(drop));
    note("insert", v.insert("muffin", &muffin()).await.map(drop));
    note("patch_value", v.patch_value("7", &muffin()).await.map(drop));
    note("delete", v.delete("7").await.map(drop));
    let op = WriteOp::Delete { id: "7".into() };
    note("write", dio.write(op, WriteOptions::default()).await.map(drop));
    errors
}

async fn assert_not_ready(dio: &Dio, why: Option<&str>) {
    for error in refusals(dio).await {
        let Error::NotReady { dio, reason } = &error else { panic!("{error:?}") };
        assert_eq!((&**dio, reason.as_deref()), ("products", why));
        assert!(error.to_string().contains(why.unwrap_or("still being read")), "{error}");
    }
    assert!(!dio.is_ready() && !dio.status().ready && !dio.status().complete);
}

/// A Lens whose files survive it.
struct Files(RemoteCache, Arc<MemoryJournal>);

impl Files {
    fn new() -> Files {
        Files(RemoteCache::default(), Arc::new(MemoryJournal::new()))
    }

    fn lens(&self) -> LensBuilder {
        let journal: Arc<dyn Journal> = Arc::clone(&self.1) as _;
        Lens::new().cache_source(self.0.clone()).journal_source(journal)
    }

    /// A first life, which leaves a whole copy.
    async fn warm(&self, master: &Scripted) {
        let (lens, dio) = open(seeding(self.lens()), master).await;
        dio.close().await;
        drop((lens, dio));
    }
}

fn away() -> Error {
    Error::transient("no route to host")
}

// --- before the first copy -----------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn before_the_first_copy_the_facade_refuses_and_the_cache_is_a_plain_store() {
    let gate = Gate::closed();
    let master = Scripted::bakery();
    let (_lens, dio) = open(gated_seed(memory(), &gate).on_start_blocking(false), &master).await;
    gate.waited_at(1).await;
    assert_not_ready(&dio, None).await;
    assert_eq!(dio.cache().count().await.unwrap(), 0);
    dio.cache().insert_value("early", &product("early", "Muffin", 175, 2)).await.unwrap();
    assert_eq!(dio.cache().count().await.unwrap(), 1);
    assert_eq!(master.calls().total(), 0, "nothing went to the master");
    gate.open();
    eventually(|| dio.is_ready()).await;
    assert_eq!(dio.vista().get_count().await.unwrap(), 7);
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    settle(&dio).await;
    assert!(dio.status().complete);
}

#[tokio::test(start_paused = true)]
async fn sceneries_that_are_opened_before_the_first_copy_fill_by_themselves() {
    let gate = Gate::closed();
    let (_lens, dio) = open(gated_seed(memory(), &gate).on_start_blocking(false), &Scripted::bakery()).await;
    let table = dio.table_scenery().open().await.unwrap();
    let (there, missing) = (dio.record_scenery("7").await.unwrap(), dio.record_scenery("8").await.unwrap());
    let count = dio.value_scenery().open().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((table.load_state(), table.rows().len(), table.row_count()), (LoadState::Loading, 0, 0));
    assert_eq!((there.status(), there.record()), (RecordStatus::Loading { error: None }, None));
    assert_eq!(count.value(), None);
    assert!(count.error().unwrap().contains("still being read"));
    gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((table.load_state(), table.rows().len(), table.row_count()), (LoadState::Complete, 7, 7));
    assert_eq!((there.status(), missing.status()), (RecordStatus::Present, RecordStatus::Missing));
    assert_eq!((count.value(), count.error()), (Some(7.into()), None));
}

#[tokio::test(start_paused = true)]
async fn callbacks_of_a_scenery_that_ask_the_facade_do_not_keep_it_from_loading() {
    let gate = Gate::closed();
    let lens = gated_seed(memory(), &gate).on_start_blocking(false);
    let lens = lens.total_provider(|dio| {
        let dio = dio.clone();
        async move { dio.vista().get_count().await }
    });
    let lens = lens.on_query(|dio, _| {
        let dio = dio.clone();
        async move { dio.vista().get_value("7").await.map(drop) }
    });
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    let table = dio.table_scenery().open().await.unwrap();
    assert_eq!((table.load_state(), table.row_count()), (LoadState::Loading, 0));
    gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((table.load_state(), table.row_count()), (LoadState::Complete, 7));
}

/// Nothing is told of a first copy that has no rows.
#[tokio::test(start_paused = true)]
async fn a_scenery_is_complete_once_an_empty_master_was_listed() {
    let gate = Gate::closed();
    let (_lens, dio) = open(gated_seed(memory(), &gate).on_start_blocking(false), &Scripted::empty()).await;
    let table = dio.table_scenery().open().await.unwrap();
    let count = dio.value_scenery().open().await.unwrap();
    gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((table.load_state(), table.row_count(), count.value()), (LoadState::Complete, 0, Some(0.into())));
}

#[tokio::test(start_paused = true)]
async fn a_first_copy_that_failed_is_said_everywhere_and_tried_again_until_it_is_there() {
    let master = Scripted::bakery();
    master.outage(Some(away()));
    let (_lens, dio) = open(seeding(memory()).on_start_blocking(false), &master).await;
    let mut bus = dio.subscribe_events();
    until(&mut bus, |event| matches!(event, DioEvent::RefreshFailed { .. })).await;
    let why = "no route to host";
    assert_not_ready(&dio, Some(why)).await;
    let table = dio.table_scenery().open().await.unwrap();
    let record = dio.record_scenery("7").await.unwrap();
    let count = dio.value_scenery().open().await.unwrap();
    assert_eq!((table.load_state(), table.rows().len()), (LoadState::Failed(why.into()), 0));
    assert_eq!(record.status(), RecordStatus::Loading { error: Some(why.into()) });
    assert!(count.value().is_none() && count.error().unwrap().contains(why));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let lists = master.calls().list;
    assert!((60..=200).contains(&lists), "every 30 s or so in an hour: {lists}");
    assert_not_ready(&dio, Some(why)).await;
    master.outage(None);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((table.load_state(), table.rows().len()), (LoadState::Complete, 7));
    assert_eq!((record.status(), count.value()), (RecordStatus::Present, Some(7.into())));
    let status = dio.status();
    assert!(status.ready && status.complete && !status.stale && status.refresh_failed.is_none());
    let lists = master.calls().list;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(master.calls().list, lists, "once it is there, on_start is done");
}

/// A scenery that was loading says so when the attempt fails, without another event.
#[tokio::test(start_paused = true)]
async fn a_loading_scenery_becomes_failed_and_then_complete() {
    let gate = Gate::closed();
    let master = Scripted::bakery();
    master.fail_reads(1, &away());
    let (_lens, dio) = open(gated_seed(memory(), &gate).on_start_blocking(false), &master).await;
    let table = dio.table_scenery().open().await.unwrap();
    let mut load = table.subscribe_load_state();
    assert_eq!(*load.borrow_and_update(), LoadState::Loading);
    gate.open();
    soon(load.changed()).await.unwrap();
    assert_eq!(*load.borrow_and_update(), LoadState::Failed("no route to host".into()));
    soon(load.wait_for(|state| *state == LoadState::Complete)).await.unwrap();
    assert_eq!(table.row_count(), 7);
}

#[tokio::test(start_paused = true)]
async fn attempts_at_the_first_copy_begin_after_a_second_and_then_less_often() {
    let master = Scripted::bakery();
    master.fail_reads(3, &away());
    let began = tokio::time::Instant::now();
    let (_lens, dio) = open(seeding(memory()).on_start_blocking(false), &master).await;
    let mut moved = dio.subscribe_events();
    while !dio.is_ready() {
        soon(moved.recv()).await.unwrap();
    }
    assert_eq!((began.elapsed().as_secs(), master.calls().list), (7, 4), "1 + 2 + 4 s");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_or_a_panic_of_on_start_is_tried_again_by_refresh_only() {
    for panics in [false, true] {
        let (broken, runs) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let lens = memory().on_start_blocking(false).on_start({
            let (broken, runs) = (Arc::clone(&broken), Arc::clone(&runs));
            move |dio| {
                runs.fetch_add(1, Ordering::SeqCst);
                let (dio, broken) = (dio.clone(), broken.load(Ordering::SeqCst));
                async move {
                    assert!(!(broken && panics), "told to");
                    if broken {
                        return Err(Error::permanent("told to"));
                    }
                    dio.cache().insert_values(dio.master().list_values().await?).await
                }
            }
        });
        let (_lens, dio) = open(lens, &Scripted::bakery()).await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 1, "panics: {panics}");
        assert!(dio.status().refresh_failed.unwrap().contains("told to"));
        assert!(dio.refresh().await.unwrap_err().to_string().contains("told to"));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        broken.store(false, Ordering::SeqCst);
        assert_eq!(dio.refresh().await.unwrap().inserted, 7);
        assert!(dio.is_ready() && dio.status().complete);
        dio.refresh().await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 3, "once it has succeeded it does not run again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_can_have_every_failure_of_its_first_copy_tried_again() {
    let master = Scripted::bakery();
    master.fail_reads(2, &Error::permanent("there is no such file"));
    let lens = seeding(memory()).on_start_blocking(false).settings(|settings| settings.retry_every_start = true);
    let (_lens, dio) = open(lens, &master).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(dio.is_ready());
}

/// The Dio that a blocking `on_start` is lent can be used elsewhere meanwhile.
#[tokio::test(start_paused = true)]
async fn a_clone_that_is_used_elsewhere_while_on_start_runs_is_not_ready_and_the_hook_itself_is() {
    let (gate, lent) = (Gate::closed(), Arc::new(std::sync::Mutex::new(None)));
    let lens = memory().on_start({
        let (gate, lent) = (gate.clone(), Arc::clone(&lent));
        move |dio| {
            let (dio, gate) = (dio.clone(), gate.clone());
            *lent.lock().unwrap() = Some(dio.clone());
            async move {
                dio.cache().insert_values(dio.master().list_values().await?).await?;
                assert_eq!(dio.vista().get_count().await?, 7, "the hook sees what it has made");
                dio.vista().insert("muffin", &muffin()).await?;
                gate.pass().await;
                Ok(())
            }
        }
    });
    let master = Scripted::bakery();
    let making = tokio::spawn({
        let (lens, vista) = (lens.build().unwrap(), master.vista("products"));
        async move { lens.make_dio(vista).await.map(|dio| (lens, dio)) }
    });
    gate.waited_at(1).await;
    let elsewhere = lent.lock().unwrap().take().unwrap();
    let refused = refusals(&elsewhere).await;
    assert!(refused.iter().all(|error| matches!(error, Error::NotReady { reason: None, .. })), "{refused:?}");
    assert_eq!(elsewhere.table_scenery().open().await.unwrap().load_state(), LoadState::Loading);
    gate.open();
    let (_lens, dio) = soon(making).await.unwrap().unwrap();
    assert_eq!(elsewhere.vista().get_count().await.unwrap(), 8);
    settle(&dio).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_list_of_the_program_can_be_the_first_copy() {
    let master = Scripted::bakery();
    master.outage(Some(away()));
    let (_lens, dio) = open(seeding(memory()).on_start_blocking(false), &master).await;
    let table = dio.table_scenery().open().await.unwrap();
    let list = dio.begin_list().await.unwrap();
    list.finish(bakery().into_iter().collect()).await.unwrap();
    assert_eq!(dio.vista().get_count().await.unwrap(), 7);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(table.load_state(), LoadState::Complete);
}

#[tokio::test(start_paused = true)]
async fn a_scenery_of_a_partly_cached_dio_begins_to_load_once_on_start_has_returned() {
    let gate = Gate::closed();
    let lens = memory().on_start_blocking(false).on_start({
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.pass().await;
                Ok(())
            }
        }
    });
    let lens = lens.on_load_chunk(|dio, range, sink| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?.into_iter();
            sink.put(rows.skip(range.start as usize).take((range.end - range.start) as usize).collect());
            Ok(())
        }
    });
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    let table = dio.table_scenery().open().await.unwrap();
    let record = dio.record_scenery("7").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((table.load_state(), table.rows().len()), (LoadState::Loading, 0));
    assert_eq!(record.status(), RecordStatus::Loading { error: None });
    gate.open();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((table.rows().len(), record.status()), (7, RecordStatus::Present));
}

// --- a copy while the master is away ---------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_whole_copy_is_served_while_the_master_is_away_and_follows_when_it_is_back() {
    for error in [away(), Error::unknown("no answer")] {
        let (files, master) = (Files::new(), Scripted::bakery());
        files.warm(&master).await;
        master.outage(Some(error.clone()));
        let (_lens, dio) = open(seeding(files.lens()), &master).await;
        let mut bus = dio.subscribe_events();
        let status = dio.status();
        assert!(status.ready && status.complete && status.stale && status.age.is_none());
        assert_eq!(status.refresh_failed, Some(error.to_string()));
        let before = dio.vista().list_values().await.unwrap();
        assert_eq!(before, master.rows().await);
        assert_eq!(dio.table_scenery().open().await.unwrap().row_count(), 7);
        master.put("8", product("8", "New", 1, 1)).await;
        master.take("3").await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(dio.vista().list_values().await.unwrap(), before);
        assert_ne!(dio.status().source.state, BreakerState::Closed, "it is left alone");
        assert!(events(&mut bus).contains(&DioEvent::RefreshFailed { error: error.to_string() }));
        let lists = master.calls().list;
        assert!((10..=40).contains(&lists), "it is asked again and again, not too often: {lists}");
        master.outage(None);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(dio.vista().list_values().await.unwrap(), master.rows().await);
        let status = dio.status();
        assert!(status.complete && !status.stale && status.refresh_failed.is_none() && status.age.is_some());
        assert_eq!(events(&mut bus).last(), Some(&DioEvent::Invalidated));
    }
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_a_start_over_a_whole_copy_is_told_to_who_listens() {
    let (files, master) = (Files::new(), Scripted::bakery());
    files.warm(&master).await;
    master.fail_reads(1, &away());
    let heard = Arc::new(std::sync::Mutex::new(None));
    let lens = files.lens().on_start({
        let heard = Arc::clone(&heard);
        move |dio| {
            heard.lock().unwrap().get_or_insert_with(|| dio.subscribe_events());
            let dio = dio.clone();
            async move { dio.cache().insert_values(dio.master().list_values().await?).await }
        }
    });
    let (_lens, _dio) = open(lens, &master).await;
    let mut bus = heard.lock().unwrap().take().unwrap();
    assert_eq!(next(&mut bus).await, DioEvent::RefreshFailed { error: "no route to host".into() });
}

#[tokio::test(start_paused = true)]
async fn a_refresh_by_hand_makes_up_for_a_start_that_failed() {
    let (files, master) = (Files::new(), Scripted::bakery());
    files.warm(&master).await;
    master.outage(Some(away()));
    let (_lens, dio) = open(seeding(files.lens()), &master).await;
    master.outage(None);
    master.put("8", product("8", "New", 1, 1)).await;
    assert_eq!(dio.refresh().await.unwrap().inserted, 1, "on_start, although there is no on_refresh");
    assert!(!dio.status().stale);
}

#[tokio::test(start_paused = true)]
async fn make_dio_fails_with_a_refusal_or_a_panic_of_on_start_whatever_is_cached() {
    let files = Files::new();
    files.warm(&Scripted::bakery()).await;
    let refusing = files.lens().on_start(|_| async { Err(Error::permanent("told to")) });
    let panicking = files.lens().on_start(|_| async { panic!("told to") });
    for lens in [refusing, panicking] {
        let lens = lens.build().unwrap();
        let error = lens.make_dio(Scripted::bakery().vista("products")).await.unwrap_err();
        assert!(error.to_string().contains("told to"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn make_dio_fails_without_a_whole_copy() {
    let master = Scripted::bakery();
    let files = Files::new();
    // Rows that nobody called whole.
    let some = files.lens().on_start(|dio| {
        let dio = dio.clone();
        async move { dio.cache().insert_value("muffin", &muffin()).await }
    });
    let (lens, dio) = open(some, &master).await;
    dio.close().await;
    drop((lens, dio));
    master.outage(Some(away()));
    let lens = seeding(files.lens()).build().unwrap();
    let error = lens.make_dio(master.vista("products")).await.unwrap_err();
    assert_eq!(error.to_string(), "no route to host");
}
