//! Files that are opened again as soon as every handle to what had them is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diorama::{Dio, Error, Lens, LensBuilder, TableShell as _};
use tempfile::TempDir;

use crate::harness::*;

async fn life(dir: &TempDir, master: &Scripted) -> (Arc<Lens>, Dio) {
    open(reconciling(seeding(on_file(dir))), master).await
}

/// Lives one after the other, each begun when all handles of the one before are dropped, and nothing is closed.
async fn fifty_lives() {
    let (dir, master) = (tempfile::tempdir().unwrap(), Scripted::bakery());
    let began = Instant::now();
    for at in 0..50 {
        let (lens, dio) = life(&dir, &master).await;
        assert_eq!(dio.vista().get_count().await.unwrap(), 7 + at);
        // Accepted, and perhaps neither delivered nor in the cache file when the last handle goes.
        dio.vista().insert(&format!("n{at}"), &cells([("price", 1.into())])).await.unwrap();
        if at % 3 == 0 {
            drop((dio, lens));
        } else {
            drop((lens, dio));
        }
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let (_lens, dio) = life(&dir, &master).await;
    settle(&dio).await;
    assert_eq!(master.rows().await.len(), 57, "every write arrived");
}

#[tokio::test(flavor = "current_thread")]
async fn a_file_is_opened_again_at_once_on_one_thread() {
    fifty_lives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_opened_again_at_once_on_several_threads() {
    fifty_lives().await;
}

#[test]
fn a_file_is_opened_again_at_once_outside_a_runtime() {
    let (dir, master) = (tempfile::tempdir().unwrap(), Scripted::bakery());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for at in 0..50 {
        let lens = seeding(on_file(&dir)).build().unwrap();
        let dio = runtime.block_on(lens.make_dio(master.vista("products"))).unwrap();
        let written = runtime.block_on(dio.vista().insert(&format!("n{at}"), &cells([("price", 1.into())])));
        assert!(written.is_ok(), "{written:?}");
    }
    // Tasks end with their runtime.
    drop(runtime);
    let lens = on_file(&dir).build().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dio = runtime.block_on(lens.make_dio(master.vista("products"))).unwrap();
    assert!(runtime.block_on(dio.vista().get_count()).unwrap() >= 56);
}

#[tokio::test]
async fn a_lens_that_lives_refuses_a_second_one_at_once() {
    let (dir, master) = (tempfile::tempdir().unwrap(), Scripted::bakery());
    let (lens, dio) = life(&dir, &master).await;
    drop(dio);
    let began = Instant::now();
    for builder in [on_file(&dir), memory().journal_at(dir.path().join("cache.journal.redb"))] {
        let Err(Error::Storage { detail, .. }) = builder.build() else { panic!("two Lenses on one file") };
        assert!(detail.contains("in use"), "{detail}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(lens);
    let (_lens, dio) = life(&dir, &master).await;
    assert_eq!(dio.vista().get_count().await.unwrap(), 7);
}

#[tokio::test]
async fn a_dio_that_lives_without_its_lens_keeps_the_file_and_the_next_one_says_so_in_time() {
    let (dir, master) = (tempfile::tempdir().unwrap(), Scripted::bakery());
    let (lens, dio) = life(&dir, &master).await;
    drop(lens);
    dio.vista().insert("muffin", &muffin()).await.unwrap();
    let next = on_file(&dir).settings(|settings| settings.drain_timeout = Duration::ZERO).build().unwrap();
    let began = Instant::now();
    let refused = next.make_dio(master.vista("products")).await.unwrap_err();
    assert!(matches!(&refused, Error::Storage { detail, .. } if detail.contains("in use")), "{refused}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(dio);
    let dio = next.make_dio(master.vista("products")).await.unwrap();
    assert_eq!(dio.vista().get_count().await.unwrap(), 8);
}

/// A master whose rows a, b and c are as given.
async fn three(prices: [i64; 3]) -> Scripted {
    let master = Scripted::empty();
    for (id, price) in ["a", "b", "c"].into_iter().zip(prices) {
        master.put(id, product(id, "Bun", price, 1)).await;
    }
    master
}

/// A Lens whose writes go to `route`, if there is one.
fn routing(lens: LensBuilder, route: Option<&Scripted>) -> LensBuilder {
    let Some(route) = route.cloned() else { return lens };
    lens.on_write(move |_, op| {
        let route = route.clone();
        async move { route.write(&op).await.map(drop) }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_journals_writes_reach_a_master_that_remembers_none_only_where_its_row_is_as_it_was() {
    for routed in [false, true] {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (master, route) = (three([1, 1, 1]).await, three([0, 0, 0]).await);
        master.writes().close();
        route.writes().close();
        let builder = routing(reconciling(seeding(on_file(&dir))), routed.then_some(&route));
        let (_lens, dio) = open(builder, &master).await;
        for (id, price) in [("a", 2), ("b", 2), ("c", 2)] {
            dio.vista().patch_value(id, &cells([("price", price.into())])).await.unwrap();
        }
        dio.vista().delete("c").await.unwrap();
        // What a kill would leave, without the head: it may be an older copy.
        let journal = "cache.journal.redb";
        std::fs::copy(dir.path().join(journal), copy.path().join(journal)).unwrap();

        // Since then somebody has changed b.
        let (later, taken) = (three([1, 5, 1]).await, three([0, 0, 0]).await);
        let builder = routing(reconciling(seeding(on_file(&copy))), routed.then_some(&taken));
        let (_second, dio) = open(builder, &later).await;
        settle(&dio).await;
        let mut ends: Vec<_> = dio.operations().into_iter().map(|op| (op.id, op.state.as_str())).collect();
        ends.sort();
        let ends: Vec<_> = ends.into_iter().map(|(_, state)| state).collect();
        assert_eq!(ends, ["applied", "parked", "applied", "applied"], "routed: {routed}");
        let written = if routed { &taken } else { &later };
        let written: Vec<_> = written.applied().iter().map(|op| op.id().unwrap().to_string()).collect();
        assert_eq!(written, ["a", "c", "c"], "routed: {routed}");
        assert_eq!(dio.vista().get_value("b").await.unwrap(), Some(product("b", "Bun", 5, 1)), "routed: {routed}");
    }
}
