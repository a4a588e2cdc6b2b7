//! A Dio whose log is in memory, beside others of its Lens whose log is on disk.

use std::path::Path;
use std::sync::Arc;

use diorama::cache::MemoryCache;
use diorama::dio::{Dio, Settings, WriteOptions};
use diorama::journal::Journal;
use diorama::{Error, Lens, LensBuilder, WriteOp};
use diorama_core::state::OpId;

use super::harness::pairs::*;
use super::harness::{GatedJournal, soon};

fn lens(dir: &Path) -> LensBuilder {
    let relisting = Lens::new().on_start(|dio| relist(dio.clone())).on_refresh(|dio| relist(dio.clone()));
    relisting.cache_at(dir.join("cache.redb"))
}

fn in_memory(settings: &mut Settings) {
    settings.log_in_memory = true;
}

async fn write(dio: &Dio, op: WriteOp) -> OpId {
    soon(dio.write(op, WriteOptions::default())).await.unwrap().operation.unwrap()
}

#[tokio::test]
async fn a_write_that_is_acknowledged_from_memory_waits_for_no_disk() {
    let (master, journal) = (Scripted::of_pairs(true, true), Arc::new(GatedJournal::lasting()));
    let lens = Lens::new().cache_source(MemoryCache::new());
    let lens = lens.journal_source(Arc::clone(&journal) as Arc<dyn Journal>).build().unwrap();
    let kept = lens.make_dio(master.vista("kept")).await.unwrap();
    let quick = lens.make_dio_with(master.vista("quick"), in_memory).await.unwrap();
    assert_eq!((kept.status().durable, quick.status().durable), (true, false));
    journal.gate().close();
    let waits = kept.write(insert("a", (1, 1)), WriteOptions::default());
    tokio::pin!(waits);
    assert!(futures_util::poll!(&mut waits).is_pending());
    write(&quick, insert("b", (2, 2))).await;
    assert_eq!(visible(&quick.state()).get("b"), Some(&(2, 2)), "read your writes");
    assert!(futures_util::poll!(&mut waits).is_pending(), "the other waits for its disk");
    journal.gate().open();
    soon(waits).await.unwrap();
}

#[test]
fn a_crash_loses_what_the_master_had_not_taken_and_only_where_that_was_agreed() {
    let dir = tempfile::tempdir().unwrap();
    let (master, busy) = (Scripted::of_pairs(true, true), Scripted::of_pairs(true, true));
    let life = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (epochs, position) = life().block_on(async {
        let lens = lens(dir.path()).build().unwrap();
        let kept = lens.make_dio(busy.vista("kept")).await.unwrap();
        let quick = lens.make_dio_with(busy.vista("quick"), in_memory).await.unwrap();
        let taken = lens.make_dio_with(master.vista("taken"), in_memory).await.unwrap();
        busy.by_hand(true);
        write(&kept, insert("a", (1, 1))).await;
        write(&quick, insert("b", (2, 2))).await;
        let op = write(&taken, insert("c", (3, 3))).await;
        taken.settled(op, std::time::Duration::from_secs(20)).await;
        assert_eq!(visible(&quick.state()).get("b"), Some(&(2, 2)));
        ([kept.position().epoch, quick.position().epoch], kept.position().seq)
    });
    busy.forget_calls();
    life().block_on(async {
        let lens = lens(dir.path()).build().unwrap();
        busy.by_hand(false);
        let kept = lens.make_dio(busy.vista("kept")).await.unwrap();
        let quick = lens.make_dio_with(busy.vista("quick"), in_memory).await.unwrap();
        let taken = lens.make_dio_with(master.vista("taken"), in_memory).await.unwrap();
        assert_eq!(visible(&kept.state()).get("a"), Some(&(1, 1)), "that was on disk");
        assert!(kept.position().epoch == epochs[0] && kept.position().seq >= position);
        assert_eq!(visible(&quick.state()).get("b"), None, "nobody has it any more");
        assert_ne!(quick.position().epoch, epochs[1], "subscribers are told to read again");
        assert_eq!(visible(&taken.state()).get("c"), Some(&(3, 3)), "the master had it");
        lens.close().await;
    });
}

#[tokio::test]
async fn a_log_in_memory_is_refused_where_accepted_writes_would_be_lost_from_sight() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    let lens = lens(dir.path()).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    master.by_hand(true);
    let op = write(&dio, insert("a", (1, 1))).await;
    let other = Lens::new().cache_source(MemoryCache::new()).journal_source(lens.journal().await.unwrap());
    let other = other.build().unwrap();
    let refused = other.make_dio_with(master.vista("d"), in_memory).await.unwrap_err();
    assert!(matches!(&refused, Error::Config(why) if why.contains("1 accepted writes wait")), "{refused}");
    master.release();
    dio.settled(op, std::time::Duration::from_secs(20)).await;
    other.make_dio_with(master.vista("d"), in_memory).await.unwrap();
    let around = lens.dio(master.vista("around")).on_write(|_, _| std::future::ready(Ok(()))).settings(in_memory);
    let refused = around.make().await.unwrap_err();
    assert!(matches!(&refused, Error::Config(why) if why.contains("around the source")), "{refused}");
}
