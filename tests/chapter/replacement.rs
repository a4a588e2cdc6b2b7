//! Replacing all rows in a hook: `cache().clear()` and the inserts after it are one whole list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use diorama::journal::{Journal, MemoryJournal};
use diorama::{ChangeEvent, Dio, DioEvent, Error, Lens, LensBuilder, Result, Rows};

use crate::harness::*;

/// Sizes from one command to many bulk chunks.
const SIZES: [i64; 4] = [7, 130, 1_500, 2_000];

/// What the hook puts after its clear.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Put {
    /// What the master listed, as it is.
    Listed,
    /// The same rows, made by the program.
    Made,
    /// The same rows, one by one.
    OneByOne,
}

pub(crate) const PUTS: [Put; 3] = [Put::Listed, Put::Made, Put::OneByOne];

/// List, clear, insert.
pub(crate) async fn replace(dio: &Dio, put: Put) -> Result<()> {
    let fresh = dio.master().list_values().await?;
    dio.cache().clear().await?;
    match put {
        Put::Listed => dio.cache().insert_values(fresh).await?,
        Put::Made => dio.cache().insert_values(fresh.iter().collect()).await?,
        Put::OneByOne => {
            for (id, record) in &fresh {
                dio.cache().insert_value(&id, &record).await?;
            }
        }
    }
    Ok(())
}

fn replacing(lens: LensBuilder, put: Put) -> LensBuilder {
    lens.on_refresh(move |dio| {
        let dio = dio.clone();
        async move { replace(&dio, put).await }
    })
}

fn starting(lens: LensBuilder, put: Put) -> LensBuilder {
    lens.on_start(move |dio| {
        let dio = dio.clone();
        async move { replace(&dio, put).await }
    })
}

/// A hook that runs `work`, holding at `gate` when it says so.
fn gated<F, Fut>(lens: LensBuilder, gate: &Gate, work: F) -> LensBuilder
where
    F: Fn(Dio, Gate) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let gate = gate.clone();
    lens.on_refresh(move |dio| work(dio.clone(), gate.clone()))
}

fn numbered(count: i64, csv: bool) -> Scripted {
    let rows = (0..count).map(|n| (n.to_string(), product(&n.to_string(), "Row", n, 1)));
    let master = Scripted::new(schema(), rows);
    if csv { master.like_csv() } else { master }
}

/// One row more, one less, and one in ten different.
async fn change(master: &Scripted, count: i64) {
    for n in (0..count).step_by(10) {
        master.put(&n.to_string(), product(&n.to_string(), "Other", n + 1, 2)).await;
    }
    master.take("5").await;
    master.put("new", product("new", "New", 1, 1)).await;
}

async fn assert_copied(dio: &Dio, master: &Scripted, what: &str) {
    let expected = master.rows().await;
    assert_eq!(dio.cache().list_values().await.unwrap(), expected, "{what}");
    assert_eq!(dio.vista().get_count().await.unwrap(), expected.len() as u64, "{what}");
    let status = dio.status();
    assert!(status.complete && !status.stale && status.age.is_some(), "{what}: {status:?}");
    assert_eq!(dio.state().dirty().count(), 0, "{what}: nothing is in doubt");
}

#[tokio::test(start_paused = true)]
async fn a_replacement_in_on_refresh_shows_the_new_rows_when_the_refresh_is_done() {
    for (count, csv) in SIZES.into_iter().flat_map(|count| [(count, false), (count, true)]) {
        for put in PUTS {
            let what = format!("{count} rows, list only: {csv}, {put:?}");
            let master = numbered(count, csv);
            let (_lens, dio) = open(replacing(seeding(memory()), put), &master).await;
            let scenery = dio.table_scenery().page_size(5_000).open().await.unwrap();
            change(&master, count).await;
            let gets = master.calls().get;
            let report = dio.refresh().await.unwrap();
            let changed = (count + 9) / 10;
            assert_eq!((report.inserted, report.changed, report.removed), (1, changed as u64, 1), "{what}");
            assert_copied(&dio, &master, &what).await;
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_copied(&dio, &master, &what).await;
            assert_eq!(scenery.row_count(), count as u64, "{what}");
            assert_eq!(master.calls().get, gets, "{what}: no row is read one by one");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_in_on_start_over_no_rows_is_the_first_copy() {
    for (count, csv) in SIZES.into_iter().flat_map(|count| [(count, false), (count, true)]) {
        for put in PUTS {
            let master = numbered(count, csv);
            let (_lens, dio) = open(starting(memory(), put), &master).await;
            assert_copied(&dio, &master, &format!("{count} rows, list only: {csv}, {put:?}")).await;
            assert_eq!(master.calls().get, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replacement_in_on_start_over_the_rows_of_an_earlier_life_is_whole_when_make_dio_returns() {
    for (count, csv) in SIZES.into_iter().flat_map(|count| [(count, false), (count, true)]) {
        for put in PUTS {
            let what = format!("{count} rows, list only: {csv}, {put:?}");
            let (cache, journal) = (RemoteCache::default(), Arc::new(MemoryJournal::new()));
            let lens = || {
                let journal: Arc<dyn Journal> = Arc::clone(&journal) as _;
                Lens::new().cache_source(cache.clone()).journal_source(journal)
            };
            let master = numbered(count, csv);
            let (before, dio) = open(starting(lens(), put), &master).await;
            dio.close().await;
            drop((before, dio));
            change(&master, count).await;
            let (_lens, dio) = open(starting(lens(), put), &master).await;
            assert_copied(&dio, &master, &what).await;
            assert_eq!(master.calls().get, 0, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn differences_of_a_replacement_are_told_row_by_row_and_covered() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(replacing(seeding(memory()), Put::Made), &master).await;
    dio.refresh().await.unwrap();
    master.put("8", product("8", "New", 1, 1)).await;
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    master.take("3").await;
    let mut bus = dio.subscribe_events();
    dio.refresh().await.unwrap();
    let (mut told, mut covered) = (Vec::new(), None);
    while covered.is_none() {
        let entry = soon(bus.recv_entry()).await.unwrap();
        covered = (entry.event == DioEvent::Invalidated).then_some(entry.covered);
        told.push(entry.event);
    }
    assert_eq!(covered, Some(true));
    told.sort_by_key(|event| format!("{event:?}"));
    let expected = [DioEvent::Invalidated, changed("7"), inserted("8"), removed("3"), DioEvent::Refreshing];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn readers_see_the_old_rows_and_the_hook_its_own_until_it_returns() {
    let gate = Gate::closed();
    let lens = gated(seeding(memory()), &gate, |dio, gate| async move {
        let fresh = dio.master().list_values().await?;
        dio.cache().clear().await?;
        assert_eq!(dio.cache().count().await?, 0);
        let mut pages = (Rows::new(), Rows::new());
        for (n, (id, record)) in fresh.iter().enumerate() {
            if n < 4 {
                pages.0.push(id, &record)
            } else {
                pages.1.push(id, &record)
            };
        }
        dio.cache().insert_values(pages.0).await?;
        assert_eq!((dio.cache().count().await?, dio.cache().get_value("7").await?), (4, None));
        dio.cache().insert_values(pages.1).await?;
        dio.cache().delete_value("2").await?;
        dio.patched("1", product("1", "Patched", 1, 1)).await?;
        assert_eq!(dio.cache().get_value("1").await?, Some(product("1", "Patched", 1, 1)));
        assert_eq!(ids(&dio.cache().list_values().await?), ["1", "3", "4", "5", "6", "7"]);
        gate.pass().await;
        Ok(())
    });
    let master = Scripted::bakery();
    let (_lens, dio) = open(lens, &master).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    let before = dio.cache().list_values().await.unwrap();
    let refresh = tokio::spawn({
        let dio = dio.clone();
        async move { dio.refresh().await }
    });
    gate.waited_at(1).await;
    assert_eq!(dio.cache().list_values().await.unwrap(), before);
    assert_eq!(dio.vista().list_values().await.unwrap(), before);
    assert_eq!(scenery.rows(), before);
    gate.open();
    soon(refresh).await.unwrap().unwrap();
    assert_eq!(ids(&dio.cache().list_values().await.unwrap()), ["1", "3", "4", "5", "6", "7"]);
    assert_eq!(dio.vista().get_value("1").await.unwrap().unwrap()["name"], "Patched".into());
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_after_a_clear_changes_nothing() {
    for panics in [false, true] {
        let lens = seeding(memory()).on_refresh(move |dio| {
            let dio = dio.clone();
            async move {
                dio.cache().clear().await?;
                dio.cache().insert_value("only", &product("only", "Muffin", 175, 2)).await?;
                assert!(!panics, "told to");
                Err(Error::transient("the line is cut"))
            }
        });
        let master = Scripted::bakery();
        let (_lens, dio) = open(lens, &master).await;
        let (before, position) = (dio.cache().list_values().await.unwrap(), dio.position());
        let mut bus = dio.subscribe_events();
        dio.refresh().await.unwrap_err();
        assert_eq!(dio.cache().list_values().await.unwrap(), before);
        assert_eq!(dio.position(), position, "not even in the log");
        assert!(matches!(&events(&mut bus)[..], [DioEvent::Refreshing, DioEvent::RefreshFailed { .. }]));
        assert!(dio.status().complete);
        assert_eq!(dio.state().dirty().count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clear_alone_empties_the_dio_however_many_rows_it_has() {
    let lens = seeding(memory()).on_refresh(|dio| {
        let dio = dio.clone();
        async move { dio.cache().clear().await }
    });
    let (_lens, dio) = open(lens, &numbered(300, false)).await;
    let report = dio.refresh().await.unwrap();
    assert_eq!((report.removed, dio.cache().count().await.unwrap()), (300, 0));
    assert!(dio.status().complete);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_may_have_far_fewer_rows() {
    let master = numbered(300, false);
    let (_lens, dio) = open(replacing(seeding(memory()), Put::Listed), &master).await;
    for n in 10..300 {
        master.take(&n.to_string()).await;
    }
    assert_eq!(dio.refresh().await.unwrap().removed, 290);
    assert_copied(&dio, &master, "10 of 300").await;
}

#[tokio::test(start_paused = true)]
async fn writes_before_a_clear_apply_at_once_and_a_second_clear_begins_anew() {
    let gate = Gate::closed();
    let lens = gated(memory(), &gate, |dio, gate| async move {
        dio.cache().insert_value("early", &product("early", "Muffin", 175, 2)).await?;
        gate.pass().await;
        dio.cache().clear().await?;
        dio.cache().insert_value("gone", &product("gone", "Muffin", 175, 2)).await?;
        dio.cache().clear().await?;
        dio.cache().insert_value("last", &product("last", "Muffin", 175, 2)).await
    });
    let (_lens, dio) = open(lens, &Scripted::empty()).await;
    let refresh = tokio::spawn({
        let dio = dio.clone();
        async move { dio.refresh().await }
    });
    gate.waited_at(1).await;
    assert_eq!(ids(&dio.cache().list_values().await.unwrap()), ["early"]);
    gate.open();
    soon(refresh).await.unwrap().unwrap();
    settle(&dio).await;
    assert_eq!(ids(&dio.cache().list_values().await.unwrap()), ["last"]);
}

#[tokio::test(start_paused = true)]
async fn a_complete_list_that_is_reconciled_after_a_clear_takes_the_place_of_what_was_gathered() {
    let lens = seeding(memory()).on_refresh(|dio| {
        let dio = dio.clone();
        async move {
            let fresh = dio.master().list_values().await?;
            dio.cache().clear().await?;
            dio.cache().insert_value("early", &product("early", "Muffin", 175, 2)).await?;
            dio.reconcile(fresh).await.map(drop)
        }
    });
    let master = Scripted::bakery();
    let (_lens, dio) = open(lens, &master).await;
    dio.refresh().await.unwrap();
    assert_copied(&dio, &master, "reconcile").await;
}

/// Three things that happen while the hook has cleared and not returned yet.
#[tokio::test(start_paused = true)]
async fn what_happens_during_a_replacement_is_kept_and_read_again() {
    for csv in [false, true] {
        let gate = Gate::closed();
        let lens = gated(seeding(memory()), &gate, |dio, gate| async move {
            let fresh = dio.master().list_values().await?;
            dio.cache().clear().await?;
            gate.pass().await;
            dio.cache().insert_values(fresh.iter().collect()).await
        });
        let master = if csv { Scripted::bakery().like_csv() } else { Scripted::bakery() };
        let capable = master.clone().able(diorama::Capabilities::all());
        let (_lens, dio) = open(lens, &capable).await;
        let refresh = tokio::spawn({
            let dio = dio.clone();
            async move { dio.refresh().await }
        });
        gate.waited_at(1).await;
        // A write that waits, one that is through, a push, and a statement of a task that the hook did not wait for.
        master.writes().close();
        dio.vista().patch_value("1", &cells([("price", 11.into())])).await.unwrap();
        dio.vista().insert("muffin", &muffin()).await.unwrap();
        master.put("2", product("2", "Pushed", 22, 2)).await;
        let pushed = ChangeEvent::Updated { id: "2".into(), new: Some(product("2", "Pushed", 22, 2)) };
        dio.handle_event(pushed).await.unwrap();
        master.put("3", product("3", "Stated", 33, 3)).await;
        dio.cache().insert_value("3", &product("3", "Stated", 33, 3)).await.unwrap();
        gate.open();
        soon(refresh).await.unwrap().unwrap();
        let price = |id: &str| dio.state().get(id).unwrap().decode().unwrap()["price"].clone();
        assert_eq!((price("1"), price("muffin"), price("3")), (11.into(), 175.into(), 33.into()), "list only: {csv}");
        assert_eq!(dio.cache().count().await.unwrap(), 8);
        assert!(!dio.status().complete, "rows are in doubt");
        master.writes().open();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_copied(&dio, &master, &format!("list only: {csv}")).await;
        assert_eq!(price("2"), 22.into());
        assert_eq!(master.row("1").await.unwrap()["price"], 11.into());
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_the_hook_spawned_writes_at_once() {
    let seen = Arc::new(AtomicUsize::new(usize::MAX));
    let lens = memory().on_refresh({
        let seen = Arc::clone(&seen);
        move |dio| {
            let (dio, seen) = (dio.clone(), Arc::clone(&seen));
            async move {
                dio.cache().clear().await?;
                let task = tokio::spawn({
                    let dio = dio.clone();
                    async move { dio.cache().insert_value("7", &product("7", "Spawned", 1, 1)).await }
                });
                task.await.map_err(|error| Error::permanent(error.to_string()))??;
                seen.store(dio.state().table().len(), Ordering::SeqCst);
                dio.cache().insert_values(dio.master().list_values().await?).await
            }
        }
    });
    let master = Scripted::bakery();
    let (_lens, dio) = open(lens, &master).await;
    dio.refresh().await.unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1, "readers saw it at once");
    settle(&dio).await;
    assert_copied(&dio, &master, "and the row was read again").await;
}

#[tokio::test(start_paused = true)]
async fn a_partly_cached_dio_is_complete_only_after_a_complete_list() {
    let whole = Arc::new(AtomicBool::new(false));
    let lens = memory().on_load_chunk(|_, _, sink| async move {
        sink.put(Rows::new());
        Ok(())
    });
    let lens = lens.on_refresh({
        let whole = Arc::clone(&whole);
        move |dio| {
            let (dio, whole) = (dio.clone(), whole.load(Ordering::SeqCst));
            async move {
                let fresh = dio.master().list_values().await?;
                dio.cache().clear().await?;
                match whole {
                    true => dio.cache().insert_values(fresh).await,
                    false => dio.cache().insert_values(fresh.iter().take(3).collect()).await,
                }
            }
        }
    });
    let (_lens, dio) = open(lens, &Scripted::bakery()).await;
    for (is_whole, rows) in [(false, 3), (true, 7), (false, 3)] {
        whole.store(is_whole, Ordering::SeqCst);
        dio.refresh().await.unwrap();
        assert_eq!((dio.cache().count().await.unwrap(), dio.status().complete), (rows, is_whole));
    }
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_replacement_that_cannot_be_decoded_are_kept_as_they_were() {
    let master = Scripted::bakery();
    let (_lens, dio) = open(replacing(seeding(memory()), Put::Listed), &master).await;
    master.garble(&["3"]);
    master.put("7", product("7", "Blueberry muffin", 200, 2)).await;
    let report = dio.refresh().await.unwrap();
    assert_eq!((report.changed, report.removed, report.undecodable), (1, 0, 1));
    assert_eq!(dio.cache().list_values().await.unwrap(), master.rows().await);
}

#[tokio::test(start_paused = true)]
async fn a_hook_writes_to_a_dio_of_the_same_name_in_another_lens_at_once() {
    let (_lens, copy) = open(memory(), &Scripted::empty()).await;
    let lens = seeding(memory()).on_refresh({
        let copy = copy.clone();
        move |dio| {
            let (dio, copy) = (dio.clone(), copy.clone());
            async move {
                let fresh = dio.master().list_values().await?;
                dio.cache().clear().await?;
                copy.cache().insert_values(fresh.iter().collect()).await?;
                dio.cache().insert_values(fresh).await
            }
        }
    });
    let master = Scripted::bakery();
    let (_lens, dio) = open(lens, &master).await;
    dio.refresh().await.unwrap();
    assert_eq!(copy.cache().list_values().await.unwrap(), master.rows().await);
    assert_copied(&dio, &master, "its own").await;
}

/// A hook may make its rows without the master: they are no reason to ask it about each.
#[tokio::test(start_paused = true)]
async fn rows_that_a_hook_makes_without_a_clear_are_not_read_again() {
    let lens = memory().on_refresh(|dio| {
        let dio = dio.clone();
        async move { dio.cache().insert_values(bakery().into_iter().collect()).await }
    });
    let master = Scripted::empty();
    let (_lens, dio) = open(lens, &master).await;
    dio.refresh().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((dio.cache().count().await.unwrap(), master.calls().total()), (7, 0));
}
