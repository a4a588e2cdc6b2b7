//! Sceneries of a Dio that loads its rows piece by piece.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use diorama::vista::query::Test;
use diorama::{DioEvent, Filter, LoadState, OrderTerm, RecordStatus};
use parking_lot::Mutex;

use super::*;

/// What the callback was asked for, and whether it fails.
#[derive(Default)]
struct Script {
    asked: Mutex<Vec<Range<u64>>>,
    fails: AtomicBool,
    price: std::sync::atomic::AtomicI64,
}

impl Script {
    fn take(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.asked.lock())
    }
}

/// A Lens that loads ranges of `count` buns; each load takes ten seconds.
fn loading(count: u64) -> (LensBuilder, Arc<Script>) {
    let script: Arc<Script> = Arc::default();
    let loads = Arc::clone(&script);
    let lens = Lens::new().cache_source(MemoryCache::new()).on_load_chunk(move |_, range, sink| {
        let script = Arc::clone(&loads);
        async move {
            script.asked.lock().push(range.clone());
            tokio::time::sleep(Duration::from_secs(10)).await;
            if script.fails.load(Ordering::Relaxed) {
                return Err(Error::transient("the oven is off"));
            }
            let rows = buns(count).into_iter().skip(range.start as usize).take((range.end - range.start) as usize);
            let more = script.price.load(Ordering::Relaxed);
            sink.put(rows.map(|(id, bun)| (id.clone(), row(&format!("bun {id}"), price(&bun) + more))).collect());
            Ok(())
        }
    });
    (lens, script)
}

fn price(record: &Record) -> i64 {
    record["price"].as_integer().and_then(|price| price.try_into().ok()).unwrap_or_default()
}

async fn open(lens: LensBuilder, capabilities: Capabilities) -> Dio {
    let master = MemoryTable::new(schema(), buns(500)).with_capabilities(capabilities);
    lens.build().unwrap().make_dio(Vista::new("buns", master)).await.unwrap()
}

async fn list_only(lens: LensBuilder) -> Dio {
    open(lens, Capabilities::default()).await
}

#[tokio::test(start_paused = true)]
async fn a_resting_viewport_is_loaded_and_the_latest_range_wins() {
    let (lens, script) = loading(500);
    let dio = list_only(lens.total_provider(|_| async { Ok(500) })).await;
    let mut events = dio.subscribe_events();
    let scenery = dio.table_scenery().open().await.unwrap();
    assert_eq!((scenery.row_count(), scenery.load_state()), (500, LoadState::Loading));
    let mut generation = scenery.subscribe();
    for start in [0, 50, 90] {
        scenery.set_viewport(start..start + 20);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    moved(&mut generation).await;
    assert_eq!(script.take(), [90..110]);
    assert_eq!((at(&scenery, 90), at(&scenery, 109), at(&scenery, 89)), ("91".into(), "110".into(), String::new()));
    assert_eq!((scenery.generation().get(), scenery.load_state()), (1, LoadState::Partial));
    assert_eq!(events.recv().await.unwrap(), DioEvent::Loaded { start: 90, end: 110 });

    scenery.set_viewport(100..120);
    moved(&mut generation).await;
    assert_eq!(script.take(), [110..120], "only what is not there is asked for");
    scenery.set_viewport(95..115);
    settle().await;
    assert_eq!((script.take(), scenery.generation().get()), (vec![], 2));
    assert_eq!(dio.cache().count().await.unwrap(), 30, "rows are kept");
}

#[tokio::test(start_paused = true)]
async fn the_first_page_is_loaded_unless_something_else_is_asked_for() {
    let (lens, script) = loading(30);
    let dio = list_only(lens).await;
    let scenery = dio.table_scenery().page_size(20).open().await.unwrap();
    let mut generation = scenery.subscribe();
    moved(&mut generation).await;
    assert_eq!((scenery.row_count(), scenery.has_more(), scenery.estimated_total()), (20, true, None));
    scenery.request_load_more();
    moved(&mut generation).await;
    assert_eq!(script.take(), [0..20, 20..40]);
    assert_eq!((scenery.row_count(), scenery.has_more(), scenery.load_state()), (30, false, LoadState::Complete));
}

#[tokio::test(start_paused = true)]
async fn each_gap_is_one_load_and_each_chunk_one_generation() {
    let (lens, script) = loading(100);
    let dio = list_only(lens.total_provider(|_| async { Ok(100) })).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    let mut generation = scenery.subscribe();
    for middle in [10..20, 30..40] {
        scenery.set_viewport(middle);
        moved(&mut generation).await;
    }
    script.take();
    scenery.set_viewport(0..50);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.take(), [0..10, 20..30, 40..50]);
    assert_eq!(scenery.generation().get(), 5);
    assert_eq!(scenery.rows().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_slow_chunk_does_not_hold_up_the_next_range() {
    let (lens, script) = loading(100);
    let dio = list_only(lens).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    scenery.set_viewport(0..10);
    tokio::time::sleep(Duration::from_secs(5)).await;
    scenery.set_viewport(50..60);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(script.take(), [0..10, 50..60]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!((at(&scenery, 0), at(&scenery, 59)), ("1".into(), "60".into()));
}

#[tokio::test(start_paused = true)]
async fn a_failed_chunk_moves_nothing_and_says_so() {
    let (lens, script) = loading(100);
    let dio = list_only(lens).await;
    script.fails.store(true, Ordering::Relaxed);
    let scenery = dio.table_scenery().open().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(scenery.load_state(), LoadState::Failed("the oven is off".into()));
    assert_eq!((scenery.generation().get(), script.take().len()), (0, 1), "it is not tried again by itself");
    script.fails.store(false, Ordering::Relaxed);
    scenery.set_viewport(0..10);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((scenery.load_state(), at(&scenery, 9)), (LoadState::Partial, "10".into()));
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_gives_nothing_or_too_much_is_told_what_to_do() {
    for (rows, advice) in [(None, "sink.put"), (Some(buns(3)), "exactly the requested rows")] {
        let lens = Lens::new().cache_source(MemoryCache::new()).on_load_chunk(move |_, _, sink| {
            if let Some(rows) = rows.clone() {
                sink.put(rows.into_iter().collect());
            }
            async { Ok(()) }
        });
        let dio = list_only(lens).await;
        let scenery = dio.table_scenery().page_size(2).open().await.unwrap();
        settle().await;
        let LoadState::Failed(said) = scenery.load_state() else { panic!("{:?}", scenery.load_state()) };
        assert!(said.contains(advice), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_all_rows_is_refused_on_a_part_of_them() {
    let (lens, _) = loading(500);
    let dio = list_only(lens).await;
    let refused = dio.table_scenery().search("bun").open().await.unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    assert!(dio.table_scenery().sort("price", true).open().await.is_err());
    assert!(dio.table_scenery().where_eq("price", 10).open().await.is_err());
    assert!(dio.value_scenery().count().open().await.is_err());

    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(scenery.rows().len(), 10);
    scenery.set_search("bun 3");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(scenery.load_state(), LoadState::Failed(_)));
    assert_eq!(scenery.rows().len(), 0, "rows of another question are no answer");
    scenery.set_search("");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(scenery.rows().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_capable_master_answers_instead() {
    let (lens, script) = loading(500);
    let dio = open(lens, Capabilities::all()).await;
    let scenery = dio.table_scenery().filter(Filter::test("name", Test::like("bun 5*").unwrap()));
    let scenery = scenery.sort("price", true).page_size(3).open().await.unwrap();
    let mut generation = scenery.subscribe();
    moved(&mut generation).await;
    assert_eq!(ids(&scenery.rows()), ["500", "59", "58"]);
    assert_eq!(script.take(), [], "the callback knows only the master's own order");
    scenery.set_sort([OrderTerm::new("price", false)]).unwrap();
    moved(&mut generation).await;
    moved(&mut generation).await;
    assert_eq!(ids(&scenery.rows()), ["5", "50", "51"]);
}

#[tokio::test(start_paused = true)]
async fn writes_and_events_show_in_a_loaded_window() {
    let (lens, _) = loading(10);
    let dio = open(lens.total_provider(|_| async { Ok(10) }), Capabilities::all()).await;
    let scenery = dio.table_scenery().open().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((scenery.row_count(), scenery.load_state()), (10, LoadState::Complete));
    let mut generation = scenery.subscribe();
    dio.vista().patch_value("3", &row("changed", 1)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!(scenery.row(2).unwrap().1["name"], "changed".into());
    dio.vista().delete("1").await.unwrap();
    moved(&mut generation).await;
    assert_eq!((scenery.row_count(), at(&scenery, 0), at(&scenery, 8)), (9, "2".into(), "10".into()));
    dio.vista().insert("900", &row("new", 1)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!((scenery.row_count(), at(&scenery, 9)), (10, "900".into()));
    // A row that somebody else speaks of may lie anywhere in the master.
    dio.patched("400", row("elsewhere", 1)).await.unwrap();
    settle().await;
    assert_eq!(scenery.row_count(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_loads_the_viewport_again_without_a_blank() {
    let (lens, script) = loading(100);
    let dio = list_only(lens.total_provider(|_| async { Ok(100) })).await;
    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    let mut generation = scenery.subscribe();
    moved(&mut generation).await;
    script.take();
    script.price.store(1, Ordering::Relaxed);
    dio.invalidate_all();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((scenery.rows().len(), scenery.generation().get()), (10, 1), "the old rows stand meanwhile");
    moved(&mut generation).await;
    settle().await;
    assert_eq!((script.take(), scenery.generation().get()), (vec![0..10], 2));
    assert_eq!(scenery.row(0).unwrap().1["price"], 11.into());
}

#[tokio::test(start_paused = true)]
async fn a_complete_list_makes_a_whole_of_it() {
    let (lens, _) = loading(500);
    let lens = lens.on_refresh(|dio| {
        let dio = dio.clone();
        async move { seed(&dio).await }
    });
    let dio = list_only(lens.refresh_on_open(false)).await;
    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(scenery.row_count(), 10);
    dio.refresh().await.unwrap();
    settle().await;
    assert_eq!((scenery.row_count(), scenery.has_more()), (500, true));
    assert_eq!(dio.table_scenery().search("bun 499").open().await.unwrap().row_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_single_record_is_read_from_the_master() {
    let (lens, _) = loading(500);
    let dio = list_only(lens).await;
    let scenery = dio.record_scenery("321").await.unwrap();
    assert_eq!((scenery.status(), price(&scenery.record().unwrap())), (RecordStatus::Present, 3210));
    assert_eq!(dio.record_scenery("9999").await.unwrap().status(), RecordStatus::Missing);
}
