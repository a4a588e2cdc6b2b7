//! Files that are opened again as soon as every handle to what had them is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diorama::{Dio, Error, Lens};
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
