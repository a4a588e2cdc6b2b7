//! Table sceneries of a whole copy.

use std::sync::atomic::{AtomicU64, Ordering};

use diorama::{DioEvent, Filter, LoadState, OrderTerm, TableScenery};
use parking_lot::Mutex;

use super::*;

#[tokio::test(start_paused = true)]
async fn rows_are_ordered_and_paged() {
    let dio = dio_of(lens(), buns(25)).await;
    let scenery = dio.table_scenery().sort("price", true).page_size(10).open().await.unwrap();
    assert_eq!((scenery.row_count(), scenery.estimated_total(), scenery.has_more()), (25, Some(25), true));
    assert_eq!((at(&scenery, 0), at(&scenery, 9), at(&scenery, 10)), ("25".into(), "16".into(), String::new()));
    assert_eq!(scenery.load_state(), LoadState::Partial);
    assert_eq!(scenery.generation().get(), 0);

    let mut generation = scenery.subscribe();
    scenery.request_load_more();
    moved(&mut generation).await;
    assert_eq!((at(&scenery, 0), at(&scenery, 19), scenery.rows().len()), ("25".into(), "6".into(), 20));
    scenery.request_load_more();
    moved(&mut generation).await;
    assert_eq!((scenery.rows().len(), scenery.has_more(), scenery.load_state()), (25, false, LoadState::Complete));

    scenery.set_viewport(12..15);
    moved(&mut generation).await;
    assert_eq!((at(&scenery, 9), at(&scenery, 12), scenery.rows().len()), (String::new(), "13".into(), 10));
    assert_eq!(scenery.row_count(), 25);
}

#[tokio::test(start_paused = true)]
async fn a_table_is_narrowed_searched_and_sorted_anew() {
    let dio = dio_of(lens(), buns(12)).await;
    let scenery = dio.table_scenery().filter(Filter::eq("price", 10.into()).not()).open().await.unwrap();
    assert_eq!(scenery.row_count(), 11);
    let mut generation = scenery.subscribe();
    scenery.set_search("BUN 1");
    moved(&mut generation).await;
    assert_eq!(ids(&scenery.rows()), ["10", "11", "12"]);
    scenery.set_sort([OrderTerm::new("price", true)]).unwrap();
    moved(&mut generation).await;
    assert_eq!(ids(&scenery.rows()), ["12", "11", "10"]);
    let wrong = scenery.set_sort([OrderTerm::new("prize", true)]).unwrap_err();
    assert!(wrong.to_string().contains("price"), "{wrong}");
    let wrong = dio.table_scenery().where_eq("nam", "x").open().await.unwrap_err();
    assert!(wrong.to_string().contains("name"), "{wrong}");
}

#[tokio::test(start_paused = true)]
async fn a_write_moves_the_generation_once_and_foreign_rows_do_not() {
    let dio = dio_of(lens(), buns(3)).await;
    let all = dio.table_scenery().open().await.unwrap();
    let cheap = dio.table_scenery().where_eq("price", 10).open().await.unwrap();
    let mut generation = all.subscribe();
    dio.vista().insert("4", &row("bun 4", 40)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!(ids(&all.rows()), ["1", "2", "3", "4"]);
    settle().await;
    assert_eq!((all.generation().get(), cheap.generation().get()), (1, 0));
    dio.vista().patch_value("1", &row("bun 1", 11)).await.unwrap();
    settle().await;
    assert_eq!((all.generation().get(), cheap.generation().get()), (2, 1));
    assert_eq!(cheap.row_count(), 0, "it left");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_writes_is_one_generation_every_25_ms() {
    let dio = dio_of(lens(), Vec::new()).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    let mut generation = scenery.subscribe();
    for (id, record) in buns(100) {
        dio.vista().insert(&id, &record).await.unwrap();
    }
    moved(&mut generation).await;
    settle().await;
    assert_eq!(scenery.row_count(), 100);
    assert!(scenery.generation().get() <= 3, "{} generations without time passing", scenery.generation());
}

#[tokio::test(start_paused = true)]
async fn invalidate_all_moves_the_generation_exactly_once() {
    let dio = dio_of(lens(), buns(3)).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    dio.invalidate_all();
    settle().await;
    assert_eq!(scenery.generation().get(), 1);
    // What was written past the bus shows with the invalidation.
    dio.cache().insert_value("9", &row("raw", 9)).await.unwrap();
    settle().await;
    assert_eq!((scenery.generation().get(), scenery.row_count()), (1, 3));
    dio.invalidate_all();
    settle().await;
    assert_eq!((scenery.generation().get(), scenery.row_count()), (2, 4));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_told_all_its_differences_moves_nothing_more() {
    let reconcile = lens().on_refresh(|dio| {
        let dio = dio.clone();
        async move {
            let rows = dio.master().list_values().await?;
            dio.reconcile(rows).await.map(drop)
        }
    });
    let dio = dio_of(reconcile, buns(3)).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    dio.refresh().await.unwrap();
    settle().await;
    assert_eq!(scenery.generation().get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_moves_once_for_its_rollback_and_not_for_the_failure() {
    let master = gated(buns(2));
    master.refuse_writes(Error::permanent("no more buns"));
    let dio = lens().build().unwrap().make_dio(master.vista("buns")).await.unwrap();
    let scenery = dio.table_scenery().open().await.unwrap();
    let mut events = dio.subscribe_events();
    dio.vista().insert("3", &row("bun 3", 30)).await.unwrap();
    settle().await;
    assert_eq!((scenery.generation().get(), scenery.row_count()), (1, 3));
    master.writes().open();
    while !matches!(events.recv().await.unwrap(), DioEvent::WriteFailed { .. }) {}
    settle().await;
    assert_eq!((scenery.generation().get(), scenery.row_count()), (2, 2));
}

/// Empties the cache, takes a minute, and fills it again with one row more each time.
fn slow_refresh() -> LensBuilder {
    let runs = Arc::new(AtomicU64::new(0));
    lens().on_refresh(move |dio| {
        let (dio, run) = (dio.clone(), runs.fetch_add(1, Ordering::Relaxed) + 1);
        async move {
            dio.cache().clear().await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
            let mut rows = Rows::new();
            for (id, record) in buns(3 + run) {
                rows.push(id, &record);
            }
            dio.cache().insert_values(rows).await
        }
    })
}

#[tokio::test(start_paused = true)]
async fn a_refresh_is_never_seen_half_done() {
    let dio = dio_of(slow_refresh(), buns(3)).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    scenery.request_refresh();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(dio.cache().count().await.unwrap(), 3, "the cache itself has the old rows until the new ones are there");
    assert_eq!((scenery.row_count(), scenery.generation().get()), (3, 0));
    // A write in the middle of it shows at once, over what was there before.
    let mut generation = scenery.subscribe();
    dio.vista().insert("77", &row("own", 770)).await.unwrap();
    moved(&mut generation).await;
    let mut shown = ids(&scenery.rows());
    shown.sort();
    assert_eq!(shown, ["1", "2", "3", "77"]);
    let opened_meanwhile = dio.table_scenery().open().await.unwrap();
    assert_eq!(opened_meanwhile.row_count(), 4);
    moved(&mut generation).await;
    assert!(scenery.rows().contains("77"), "also when it was delivered before the refresh ended");
    settle().await;
    assert_eq!((scenery.row_count(), scenery.generation().get()), (5, 2));
    assert_eq!(opened_meanwhile.row_count(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_said_and_the_rows_stay() {
    let failing = lens().on_refresh(|_| async { Err(Error::transient("the oven is off")) });
    let dio = dio_of(failing, buns(3)).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    let mut load = scenery.subscribe_load_state();
    scenery.request_refresh();
    timeout(Duration::from_secs(60), load.changed()).await.unwrap().unwrap();
    assert_eq!(scenery.load_state(), LoadState::Failed("the oven is off".into()));
    assert_eq!((scenery.row_count(), scenery.generation().get()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_scenery_opened_on_a_stale_dio_refreshes_it() {
    for (refreshes, expected) in [(true, 4), (false, 3)] {
        let lens = slow_refresh().cache_ttl(Duration::from_secs(1)).refresh_on_open(refreshes);
        let dio = dio_of(lens, buns(3)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let scenery = dio.table_scenery().open().await.unwrap();
        assert_eq!(scenery.row_count(), 3);
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(scenery.row_count(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_a_start_in_the_background_brings_arrive() {
    let dio = dio_of(lens().on_start_blocking(false), buns(3)).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    settle().await;
    assert_eq!(scenery.row_count(), 3);
}

#[tokio::test(start_paused = true)]
async fn on_query_hears_every_reading_and_may_fill_the_cache() {
    let asked: Arc<Mutex<Vec<Query>>> = Arc::default();
    let heard = Arc::clone(&asked);
    let lens = lens().on_query(move |dio, query| {
        heard.lock().push(query.clone());
        let dio = dio.clone();
        async move {
            match query.search.as_deref() {
                Some("rare") => dio.cache().insert_value("900", &row("rare bun", 1)).await,
                Some("broken") => Err(Error::transient("the oven is off")),
                _ => Ok(()),
            }
        }
    });
    let dio = dio_of(lens, buns(30)).await;
    let opening = dio.table_scenery().where_eq("name", "bun 7").sort("price", true).page_size(10);
    let scenery = opening.open().await.unwrap();
    let first = asked.lock().pop().unwrap();
    assert_eq!(first.filter, {
        let mut all = Filter::default();
        all.and(Filter::eq("name", "bun 7".into()));
        all
    });
    assert_eq!((first.order, first.offset, first.limit), (vec![OrderTerm::new("price", true)], 0, Some(10)));
    drop(scenery);

    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    let mut generation = scenery.subscribe();
    scenery.set_viewport(12..18);
    moved(&mut generation).await;
    assert_eq!(asked.lock().last().map(|query| (query.offset, query.limit)), Some((10, Some(10))));
    scenery.set_search("rare");
    moved(&mut generation).await;
    assert_eq!(ids(&scenery.rows()), ["900"]);
    let readings = asked.lock().len();
    dio.patched("900", row("rare bun", 2)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!(asked.lock().len(), readings, "what happens by itself is read from the cache");

    let mut load = scenery.subscribe_load_state();
    scenery.set_search("broken");
    timeout(Duration::from_secs(60), load.changed()).await.unwrap().unwrap();
    assert_eq!(scenery.load_state(), LoadState::Failed("the oven is off".into()));
}

#[tokio::test(start_paused = true)]
async fn total_provider_is_asked_once_at_opening() {
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let by_hand = Lens::new().cache_source(MemoryCache::new()).total_provider(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        async { Ok(42) }
    });
    let dio = dio_of(by_hand, Vec::new()).await;
    for (id, record) in buns(3) {
        dio.cache().insert_value(&id, &record).await.unwrap();
    }
    let scenery = dio.table_scenery().open().await.unwrap();
    assert_eq!((scenery.row_count(), scenery.estimated_total(), scenery.has_more()), (42, Some(42), true));
    assert_eq!(scenery.load_state(), LoadState::Partial, "three of 42 are no whole");
    dio.vista().insert("4", &row("bun 4", 40)).await.unwrap();
    dio.invalidate_all();
    settle().await;
    assert_eq!(scenery.row_count(), 43);
    scenery.set_search("bun");
    settle().await;
    assert_eq!(scenery.row_count(), 4, "nobody said how many of them match");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_tasks() {
    let dio = dio_of(lens(), buns(3)).await;
    settle().await;
    let before = dio.status().tasks;
    let table = dio.table_scenery().open().await.unwrap();
    let other = table.clone();
    let record = dio.record_scenery("1").await.unwrap();
    let value = dio.value_scenery().count().open().await.unwrap();
    assert_eq!(dio.status().tasks, before + 3);
    drop((table, record, value));
    settle().await;
    assert_eq!(dio.status().tasks, before + 1);
    drop(other);
    settle().await;
    assert_eq!(dio.status().tasks, before);
}

#[tokio::test(start_paused = true)]
async fn a_scenery_keeps_its_dio_alive() {
    let lens = lens().build().unwrap();
    let vista = MemoryTable::vista("buns", schema(), buns(3));
    let scenery: TableScenery = lens.make_dio(vista.clone()).await.unwrap().table_scenery().open().await.unwrap();
    settle().await;
    assert!(lens.make_dio(vista.clone()).await.is_err(), "it lives");
    drop(scenery);
    assert!(lens.make_dio(vista).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn closing_the_dio_does_not_wait_for_sceneries() {
    let dio = dio_of(lens(), buns(3)).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    timeout(Duration::from_secs(60), dio.close()).await.unwrap();
    assert_eq!(at(&scenery, 0), "1");
}

/// Whatever happens, in the end a scenery shows what the facade lists.
#[tokio::test(start_paused = true)]
async fn after_everything_has_settled_a_scenery_shows_what_the_facade_lists() {
    let dio = dio_of(lens(), buns(20)).await;
    let by_price = dio.table_scenery().sort("price", false).page_size(7).open().await.unwrap();
    let searched = dio.table_scenery().search("1").open().await.unwrap();
    let mut random = 7_u64;
    for step in 0..300_u64 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (id, price) = ((random >> 33) % 30, (random >> 40) % 100);
        let record = row(&format!("bun {price}"), price as i64);
        let id = id.to_string();
        // Refusals (there is, or there is not, such a row) are part of life.
        let _ = match step % 5 {
            0 => dio.vista().insert(&id, &record).await.map(drop),
            1 => dio.vista().delete(&id).await.map(drop),
            2 => dio.patched(id, record).await,
            3 => dio.cache().insert_value(&id, &record).await,
            _ => dio.vista().replace_value(&id, &record).await.map(drop),
        };
        if step % 40 == 39 {
            dio.invalidate_all();
            settle().await;
            let mut facade = dio.vista();
            facade.add_order("price", false).unwrap();
            let listed = facade.list_values().await.unwrap();
            assert_eq!(by_price.row_count(), listed.len() as u64);
            assert!(by_price.rows().iter().eq(listed.iter().take(7)), "at step {step}");
            let mut facade = dio.vista();
            facade.add_search("1").unwrap();
            assert_eq!(searched.rows(), facade.list_values().await.unwrap(), "at step {step}");
        }
    }
}
