//! `on_query`: when it is asked, and who answers then.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use diorama::{Filter, LoadState, OrderTerm, QueryRoute};
use parking_lot::Mutex;

use super::*;

/// What the callbacks were asked, and what `on_query` answers.
#[derive(Default)]
struct Script {
    queries: Mutex<Vec<Query>>,
    chunks: Mutex<Vec<Query>>,
    /// The usual when there is none.
    answers: Mutex<VecDeque<Result<QueryRoute>>>,
    /// Whether `on_query` takes ten seconds.
    slow: AtomicBool,
}

impl Script {
    fn ranges(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut *self.queries.lock()).iter().map(range).collect()
    }

    fn answer(&self, answer: impl Into<QueryRoute>) {
        self.answers.lock().push_back(Ok(answer.into()));
    }

    fn fail(&self) {
        self.answers.lock().push_back(Err(Error::transient("the index is being built")));
    }
}

fn range(query: &Query) -> Range<u64> {
    query.offset..query.limit.map_or(u64::MAX, |limit| query.offset + limit)
}

/// What a view keeps of the rows that cost `price`.
fn costing(price: i64) -> Filter {
    let mut filter = Filter::default();
    filter.and(Filter::eq("price", price.into()));
    filter
}

fn scripted(lens: LensBuilder) -> (LensBuilder, Arc<Script>) {
    let script: Arc<Script> = Arc::default();
    let asked = Arc::clone(&script);
    let lens = lens.on_query(move |_, query| {
        let script = Arc::clone(&asked);
        async move {
            script.queries.lock().push(query);
            if script.slow.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            let answer = script.answers.lock().pop_front();
            answer.unwrap_or(Ok(QueryRoute::Cache))
        }
    });
    (lens, script)
}

/// A Dio of `count` buns, all of them cached.
async fn whole(count: u64) -> (Dio, Arc<Script>) {
    let (lens, script) = scripted(lens());
    (dio_of(lens, buns(count)).await, script)
}

/// A Dio of 500 buns that loads ranges: its master can list and nothing else, the callback what it is asked.
async fn pieces() -> (Dio, Arc<Script>) {
    let (lens, script) = scripted(Lens::new().cache_source(MemoryCache::new()));
    let asked = Arc::clone(&script);
    let lens = lens.on_load_chunk(move |_, request, sink| {
        let script = Arc::clone(&asked);
        async move {
            script.chunks.lock().push(request.query().clone());
            sink.put(MemoryTable::new(schema(), buns(500)).list(request.query()).await?);
            Ok(())
        }
    });
    let master = MemoryTable::new(schema(), buns(500)).with_capabilities(Capabilities::default());
    (lens.build().unwrap().make_dio(Vista::new("buns", master)).await.unwrap(), script)
}

/// Buns by number.
fn chosen(numbers: &[u64]) -> Rows {
    numbers.iter().map(|n| (n.to_string(), row(&format!("bun {n}"), *n as i64 * 10))).collect()
}

// --- when it is asked --------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn it_is_asked_at_every_read_with_what_is_asked() {
    let (dio, script) = whole(100).await;
    let scenery = dio.table_scenery().where_eq("price", 50).sort("name", true).page_size(10).open().await.unwrap();
    let asked = script.queries.lock()[0].clone();
    assert_eq!((asked.filter, asked.order), (costing(50), vec![OrderTerm::new("name", true)]));
    drop(scenery);
    script.ranges();

    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    settle().await;
    assert_eq!(script.ranges(), [0..10]);
    for start in [20, 30, 40] {
        scenery.set_viewport(start..start + 10);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    settle().await;
    assert_eq!(script.ranges(), [40..50], "a viewport that moves on is not asked about");
    assert_eq!((at(&scenery, 40), at(&scenery, 49)), ("41".into(), "50".into()));
    scenery.set_viewport(42..44);
    settle().await;
    assert_eq!(script.ranges(), [], "these rows are held");
    scenery.request_load_more();
    settle().await;
    assert_eq!(script.ranges(), [40..60]);

    dio.invalidate_all();
    settle().await;
    assert_eq!(script.ranges(), [40..60]);
    dio.refresh().await.unwrap();
    settle().await;
    assert_eq!(script.ranges(), [40..60]);
    dio.vista().patch_value("42", &row("changed", 1)).await.unwrap();
    settle().await;
    assert_eq!(script.ranges(), [], "a change of a row is in the cache");
    assert_eq!(scenery.row(41).unwrap().1["name"], "changed".into());

    scenery.set_search("bun");
    settle().await;
    scenery.set_sort([OrderTerm::new("price", true)]).unwrap();
    settle().await;
    let asked = std::mem::take(&mut *script.queries.lock());
    assert_eq!(asked.iter().map(range).collect::<Vec<_>>(), [0..10, 0..10]);
    assert_eq!(asked.iter().map(|query| query.search.as_deref()).collect::<Vec<_>>(), [Some("bun"), Some("bun")]);
    assert_eq!((asked[0].order.len(), asked[1].order.len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_before_ranges_are_loaded() {
    let (dio, script) = pieces().await;
    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    settle().await;
    scenery.set_viewport(30..40);
    settle().await;
    scenery.set_viewport(32..38);
    settle().await;
    assert_eq!(script.ranges(), [0..10, 30..40]);
    dio.invalidate_all();
    settle().await;
    assert_eq!(script.ranges(), [30..40]);
    let chunks: Vec<_> = script.chunks.lock().iter().map(range).collect();
    assert_eq!(chunks, [0..10, 30..40, 32..38]);
    assert_eq!((at(&scenery, 0), at(&scenery, 39)), ("1".into(), "40".into()));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_holds_up_no_change_and_is_asked_for_once_more() {
    let (dio, script) = whole(20).await;
    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    script.slow.store(true, Ordering::Relaxed);
    script.ranges();
    dio.invalidate_all();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(script.ranges(), [0..10]);
    dio.vista().patch_value("2", &row("changed", 1)).await.unwrap();
    for _ in 0..3 {
        dio.invalidate_all();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(scenery.row(1).unwrap().1["name"], "changed".into());
    assert_eq!(script.ranges(), [], "one question at a time");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.ranges(), [0..10], "what it looked at may have been older than the invalidation");
}

#[tokio::test(start_paused = true)]
async fn one_that_refreshes_is_not_asked_for_ever() {
    let asked: Arc<Mutex<u64>> = Arc::default();
    let count = Arc::clone(&asked);
    let lens = lens().on_query(move |dio, _| {
        *count.lock() += 1;
        let dio = dio.clone();
        async move { dio.refresh().await.map(drop) }
    });
    let dio = dio_of(lens, buns(20)).await;
    let table = dio.table_scenery().open().await.unwrap();
    let value = dio.value_scenery().count().open().await.unwrap();
    settle().await;
    let before = std::mem::take(&mut *asked.lock());
    assert_eq!(before, 2, "a refresh for one view is none to ask about for another");
    drop(value);
    dio.invalidate_all();
    settle().await;
    assert_eq!((*asked.lock(), table.row_count()), (1, 20));
}

#[tokio::test(start_paused = true)]
async fn it_is_asked_again_when_the_first_copy_is_there() {
    let gate = Arc::new(Semaphore::new(0));
    let passed = Arc::clone(&gate);
    let lens = Lens::new().cache_source(MemoryCache::new()).on_start_blocking(false).on_start(move |dio| {
        let (dio, gate) = (dio.clone(), Arc::clone(&passed));
        async move {
            gate.acquire().await.map_err(|error| Error::permanent(error.to_string()))?.forget();
            seed(&dio).await
        }
    });
    let (lens, script) = scripted(lens);
    let dio = dio_of(lens, buns(20)).await;
    script.answer(chosen(&[3]));
    let table = dio.table_scenery().search("best before").open().await.unwrap();
    let sum = dio.value_scenery().sum("price").open().await.unwrap();
    settle().await;
    assert_eq!((table.load_state(), table.rows().len(), sum.value()), (LoadState::Loading, 0, None));
    assert_eq!(script.ranges().len(), 2, "its answers are of no use yet");
    // For the copy, and for the `Invalidated` that tells of it.
    (0..4).for_each(|_| script.fail());
    gate.add_permits(1);
    settle().await;
    assert!((2..=4).contains(&script.ranges().len()));
    assert_eq!(table.load_state(), LoadState::Failed("the index is being built".into()));
    assert_eq!(sum.error(), Some("the index is being built".into()));
    script.answers.lock().clear();
    dio.invalidate_all();
    settle().await;
    assert_eq!((table.load_state(), sum.value()), (LoadState::Complete, integer(2_100)));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_said_and_the_rows_stay() {
    let (dio, script) = whole(20).await;
    let scenery = dio.table_scenery().page_size(10).open().await.unwrap();
    script.fail();
    dio.invalidate_all();
    settle().await;
    assert_eq!(scenery.load_state(), LoadState::Failed("the index is being built".into()));
    assert_eq!(scenery.rows().len(), 10);
    dio.invalidate_all();
    settle().await;
    assert_eq!(scenery.load_state(), LoadState::Partial);
    script.fail();
    assert!(dio.table_scenery().open().await.is_err());
}

// --- rows that it gives ------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn rows_that_it_gives_are_shown_in_their_order_and_kept() {
    let (dio, script) = whole(20).await;
    // More than what is cached; and the words are not to be found in them.
    script.answer(chosen(&[7, 900, 3]));
    let scenery = dio.table_scenery().search("best before").page_size(3).open().await.unwrap();
    assert_eq!((ids(&scenery.rows()), scenery.has_more()), (vec!["7".into(), "900".into(), "3".into()], true));
    assert_eq!((scenery.load_state(), scenery.generation().get()), (LoadState::Partial, 0));
    assert!(dio.cache().get_value("900").await.unwrap().is_some());

    let mut generation = scenery.subscribe();
    script.answer(chosen(&[901]));
    scenery.request_load_more();
    moved(&mut generation).await;
    script.ranges();
    settle().await;
    // The answer was the page of the viewport: its rows stand for all of it.
    assert_eq!((ids(&scenery.rows()), scenery.has_more()), (vec!["901".into()], false));
    assert_eq!(scenery.load_state(), LoadState::Complete);

    script.answer(chosen(&[5, 6]));
    dio.invalidate_all();
    moved(&mut generation).await;
    assert_eq!((script.ranges(), ids(&scenery.rows())), (vec![0..6], vec!["5".into(), "6".into()]));
    dio.vista().patch_value("6", &row("changed", 1)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!(scenery.row(1).unwrap().1["name"], "changed".into(), "whatever the words are");
    dio.vista().delete("5").await.unwrap();
    moved(&mut generation).await;
    dio.vista().insert("7000", &row("best before", 1)).await.unwrap();
    settle().await;
    assert_eq!((ids(&scenery.rows()), scenery.row_count()), (vec!["6".into()], 1), "who knows where others belong?");
    assert_eq!(script.ranges(), []);
}

#[tokio::test(start_paused = true)]
async fn a_viewport_over_rows_that_were_not_given_is_asked_about() {
    let (dio, script) = pieces().await;
    script.answer(chosen(&[11, 12]));
    let scenery = dio.table_scenery().sort("price", true).page_size(2).open().await.unwrap();
    script.answer(chosen(&[21, 22]));
    scenery.set_viewport(4..6);
    settle().await;
    assert_eq!(script.ranges(), [0..2, 4..6]);
    assert_eq!(ids(&scenery.rows()), ["11", "12", "21", "22"]);
    assert_eq!((at(&scenery, 4), scenery.has_more()), ("21".into(), true));
    scenery.set_viewport(0..2);
    settle().await;
    assert_eq!(script.ranges(), [], "they are held");
    assert_eq!(script.chunks.lock().len(), 0);
    // Its own, from here on: the master cannot sort.
    dio.invalidate_all();
    settle().await;
    assert!(matches!(scenery.load_state(), LoadState::Failed(_)), "{:?}", scenery.load_state());
}

#[tokio::test(start_paused = true)]
async fn more_rows_than_were_asked_for_are_refused() {
    let (dio, script) = whole(20).await;
    script.answer(chosen(&[1, 2, 3]));
    let refused = dio.table_scenery().page_size(2).open().await.unwrap_err();
    assert!(refused.to_string().contains("exactly the requested rows"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn other_views_follow_the_rows_that_it_gives_into_a_whole_copy() {
    let (dio, script) = whole(20).await;
    let all = dio.table_scenery().open().await.unwrap();
    script.answer(chosen(&[900]));
    let _found = dio.table_scenery().search("bun").open().await.unwrap();
    settle().await;
    assert_eq!((all.row_count(), at(&all, 20)), (21, "900".into()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_later_leaves_what_is_shown() {
    let (dio, script) = whole(20).await;
    script.answer(QueryRoute::Later);
    let scenery = dio.table_scenery().page_size(5).open().await.unwrap();
    assert_eq!((scenery.load_state(), scenery.rows().len()), (LoadState::Loading, 0));
    script.answer(chosen(&[3, 1]));
    dio.invalidate_all();
    settle().await;
    assert_eq!((scenery.load_state(), ids(&scenery.rows())), (LoadState::Complete, vec!["3".into(), "1".into()]));
    script.answer(QueryRoute::Later);
    dio.invalidate_all();
    settle().await;
    assert_eq!((scenery.load_state(), ids(&scenery.rows())), (LoadState::Loading, vec!["3".into(), "1".into()]));
    dio.invalidate_all();
    settle().await;
    assert_eq!((scenery.load_state(), ids(&scenery.rows()).len()), (LoadState::Partial, 5), "back to the cache");
}

// --- on_load_chunk with a query ----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_view_that_is_routed_to_on_load_chunk_loads_its_own_ranges() {
    let (dio, script) = pieces().await;
    let view = || dio.table_scenery().where_eq("price", 4990).search("bun").sort("name", true).page_size(3);
    assert!(matches!(view().open().await, Err(Error::Unsupported { .. })), "the master cannot");
    script.answer(QueryRoute::Load);
    let scenery = view().open().await.unwrap();
    settle().await;
    let asked = script.chunks.lock().remove(0);
    assert_eq!((asked.filter, asked.search.as_deref()), (costing(4990), Some("bun")));
    assert_eq!((asked.order, asked.offset, asked.limit), (vec![OrderTerm::new("name", true)], 0, Some(3)));
    assert_eq!((ids(&scenery.rows()), scenery.load_state()), (vec!["499".into()], LoadState::Complete));
    drop(scenery);

    script.answer(QueryRoute::Load);
    let scenery = dio.table_scenery().sort("price", true).page_size(3).open().await.unwrap();
    settle().await;
    assert_eq!(ids(&scenery.rows()), ["500", "499", "498"]);
    script.answer(QueryRoute::Load);
    scenery.set_viewport(6..9);
    settle().await;
    assert_eq!((at(&scenery, 6), at(&scenery, 8)), ("494".into(), "492".into()), "places are the view's");
    script.answer(QueryRoute::Load);
    dio.invalidate_all();
    settle().await;
    let chunks: Vec<_> = script.chunks.lock().iter().map(range).collect();
    assert_eq!(chunks, [0..3, 6..9, 6..9]);
}

#[tokio::test(start_paused = true)]
async fn a_whole_copy_can_be_left_to_on_load_chunk_too() {
    let (dio, script) = whole(20).await;
    script.answer(QueryRoute::Load);
    let refused = dio.table_scenery().open().await.unwrap_err();
    assert!(refused.to_string().contains("no on_load_chunk"), "{refused}");

    let (lens, script) = scripted(lens().on_refresh(|dio| {
        let dio = dio.clone();
        async move { seed(&dio).await }
    }));
    let lens = lens.on_load_chunk(|_, request, sink| {
        sink.put(request.into_iter().map(|n| (n.to_string(), row("elsewhere", n as i64))).collect());
        async { Ok(()) }
    });
    let dio = dio_of(lens, buns(20)).await;
    dio.refresh().await.unwrap();
    script.answer(QueryRoute::Load);
    let scenery = dio.table_scenery().page_size(2).open().await.unwrap();
    settle().await;
    assert_eq!(scenery.row(1).unwrap(), ("1".into(), dio.cache().get_value("1").await.unwrap().unwrap()));
    assert_eq!(scenery.row(1).unwrap().1["name"], "elsewhere".into());
}

#[tokio::test(start_paused = true)]
async fn a_request_is_its_range() {
    let seen: Arc<Mutex<Vec<Range<u64>>>> = Arc::default();
    let log = Arc::clone(&seen);
    let lens = Lens::new().cache_source(MemoryCache::new()).on_load_chunk(move |_, range, sink| {
        log.lock().extend([range.clone(), range.range(), range.start..range.end]);
        assert!(range.contains(&1) && !range.is_empty());
        sink.put(Rows::new());
        async { Ok(()) }
    });
    let dio = dio_of(lens, Vec::new()).await;
    let _scenery = dio.table_scenery().page_size(2).open().await.unwrap();
    settle().await;
    assert_eq!(*seen.lock(), [0..2, 0..2, 0..2]);
}

// --- values ------------------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_value_is_computed_from_the_rows_that_it_gives() {
    let (dio, script) = pieces().await;
    script.answer(chosen(&[1, 2, 3]));
    let sum = dio.value_scenery().sum("price").open().await.unwrap();
    assert_eq!(sum.value(), integer(60), "also where only a part is cached");
    let mut generation = sum.subscribe();
    dio.patched("2", row("dear", 1_000)).await.unwrap();
    moved(&mut generation).await;
    assert_eq!(sum.value(), integer(1_040));
    script.answer(chosen(&[1]));
    dio.invalidate_all();
    moved(&mut generation).await;
    assert_eq!((sum.value(), script.queries.lock().len()), (integer(10), 2));
    script.answer(QueryRoute::Later);
    dio.invalidate_all();
    settle().await;
    assert_eq!(sum.value(), integer(10));
    assert!(sum.error().unwrap().contains("no answer yet"));

    script.answer(QueryRoute::Later);
    let later = dio.value_scenery().custom(|rows| Ok((rows.len() as u64).into())).open().await.unwrap();
    assert_eq!(later.value(), None);
    script.answer(QueryRoute::Load);
    assert!(matches!(dio.value_scenery().count().open().await, Err(Error::Unsupported { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_value_is_asked_about_when_everything_may_be_different() {
    let (dio, script) = whole(20).await;
    let count = dio.value_scenery().count_where(Filter::eq("price", 50.into())).open().await.unwrap();
    assert_eq!(script.queries.lock()[0].filter, costing(50));
    dio.invalidate_all();
    settle().await;
    assert_eq!((script.ranges().len(), count.value()), (2, integer(1)));
    dio.vista().delete("5").await.unwrap();
    settle().await;
    assert_eq!((script.ranges().len(), count.value()), (0, integer(0)));
}
