//! What the files hold when a process starts again, and what it makes of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diorama::cache::RedbCache;
use diorama::{DioEvent, Error, Lens, LensBuilder, WriteOp};
use diorama_core::dio::{CursorRead, Dio, OperationState, Retry, WriteOptions};
use diorama_core::state::OpId;

use redb::ReadableTable;

use super::harness::pairs::*;

fn lens(dir: &Path) -> LensBuilder {
    Lens::new().cache_at(dir.join("cache.redb"))
}

/// A lens whose writes go somewhere else than to the master.
fn routed(dir: &Path, deliveries: &Arc<AtomicUsize>) -> LensBuilder {
    let deliveries = Arc::clone(deliveries);
    lens(dir).on_start(|dio| relist(dio.clone())).on_refresh(|dio| relist(dio.clone())).on_write(move |_, _| {
        deliveries.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(()))
    })
}

async fn write(dio: &Dio, op: WriteOp) -> OpId {
    dio.write(op, WriteOptions::default()).await.unwrap().operation.unwrap()
}

async fn settle(dio: &Dio, op: OpId) -> OperationState {
    dio.settled(op, Duration::from_secs(20)).await.unwrap().state
}

async fn end(lens: Lens, dio: Dio) {
    dio.close().await;
    drop(dio);
    lens.close().await;
}

/// Runs `life` as a process that ends in the middle of whatever it does.
fn crash<T>(life: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(life)
}

fn map<const N: usize>(rows: [(&str, Cells); N]) -> BTreeMap<String, Cells> {
    rows.into_iter().map(|(id, cells)| (id.to_string(), cells)).collect()
}

#[tokio::test]
async fn routed_writes_survive_refreshes_and_the_loss_of_the_cache_file() {
    let dir = tempfile::tempdir().unwrap();
    let (master, deliveries) = (Scripted::of_pairs(true, true), Arc::default());
    master.set_pair("a", Some((1, 1)));
    let (lens, epoch, op) = {
        let lens = routed(dir.path(), &deliveries).build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        let op = write(&dio, insert("muffin", (5, 5))).await;
        settle(&dio, write(&dio, patch("a", "w", 9)).await).await;
        dio.refresh().await.unwrap();
        assert_eq!(visible(&dio.state()), map([("a", (1, 9)), ("muffin", (5, 5))]));
        let epoch = dio.position().epoch;
        end(lens, dio).await;
        std::fs::remove_file(dir.path().join("cache.redb")).unwrap();
        (routed(dir.path(), &deliveries).build().unwrap(), epoch, op)
    };
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    assert_eq!(dio.position().epoch, epoch);
    assert_eq!(visible(&dio.state()), map([("a", (1, 9)), ("muffin", (5, 5))]));
    dio.refresh().await.unwrap();
    assert_eq!(visible(&dio.state()), map([("a", (1, 9)), ("muffin", (5, 5))]));
    assert_eq!(confirmed(&dio.state()), master.pairs());
    assert_eq!(dio.operation(op).unwrap().state, OperationState::Applied);
    assert_eq!(deliveries.load(Ordering::SeqCst), 2, "nothing is delivered again");
    // The master speaks of them: they are its own now.
    master.set_pair("muffin", Some((5, 5)));
    master.set_pair("a", Some((2, 2)));
    dio.refresh().await.unwrap();
    assert_eq!(visible(&dio.state()), master.pairs());
    assert_eq!(dio.state().folds().count(), 0);
}

/// The stored rows of the Dio `d` as bytes, by slot; with `old`, those are put back where they were.
fn tampered(dir: &Path, old: Option<&[(u32, Vec<u8>)]>) -> Vec<(u32, Vec<u8>)> {
    let database = redb::Database::open(dir.join("cache.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let mut table = transaction.open_table(redb::TableDefinition::<u32, &[u8]>::new("d")).unwrap();
    let rows = |(slot, row): (redb::AccessGuard<u32>, redb::AccessGuard<&[u8]>)| (slot.value(), row.value().to_vec());
    let stored = table.iter().unwrap().map(|row| rows(row.unwrap())).collect();
    for (slot, row) in old.into_iter().flatten() {
        table.insert(slot, row.as_slice()).unwrap();
    }
    drop(table);
    transaction.commit().unwrap();
    stored
}

#[tokio::test]
async fn crash_old_rows_in_a_damaged_cache_end_no_routed_write() {
    let dir = tempfile::tempdir().unwrap();
    let (master, deliveries) = (Scripted::of_pairs(true, true), Arc::default());
    let open = async || {
        let lens = routed(dir.path(), &deliveries).build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        (lens, dio)
    };
    for id in ["a", "b", "c"] {
        master.set_pair(id, Some((1, 1)));
    }
    let (lens, dio) = open().await;
    dio.refresh().await.unwrap();
    end(lens, dio).await;
    let old = tampered(dir.path(), None);
    assert_eq!(old.len(), 3);
    // `a` changes at the master and `b` goes; then writes go around it.
    master.set_pair("a", Some((2, 1)));
    master.set_pair("b", None);
    let (lens, dio) = open().await;
    dio.refresh().await.unwrap();
    for op in [patch("a", "w", 9), insert("b", (5, 5)), delete("c")] {
        settle(&dio, write(&dio, op).await).await;
    }
    let shown = map([("a", (2, 9)), ("b", (5, 5))]);
    assert_eq!(visible(&dio.state()), shown);
    end(lens, dio).await;
    // A page from before comes back, whole.
    tampered(dir.path(), Some(&old));
    let (lens, dio) = open().await;
    dio.refresh().await.unwrap();
    assert_eq!(visible(&dio.state()), shown);
    assert_eq!(confirmed(&dio.state()), master.pairs());
    end(lens, dio).await;
}

#[tokio::test]
async fn a_trim_forgets_neither_routed_nor_parked_writes_nor_what_became_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (master, deliveries) = (Scripted::of_pairs(true, true), Arc::default());
    let small = |dir: &Path| routed(dir, &deliveries).settings(|settings| settings.keep_events = 10);
    let parking = |dir: &Path| {
        let retry = Retry { max_age: Duration::ZERO, first: Duration::from_millis(1), ..Retry::default() };
        lens(dir).retry(retry).settings(|settings| settings.keep_events = 10)
    };
    let (one, other) = (small(dir.path()).build().unwrap(), tempfile::tempdir().unwrap());
    let two = parking(other.path()).build().unwrap();
    let busy = Scripted::of_pairs(true, true);
    busy.by_hand(true);
    let dio = one.make_dio(master.vista("d")).await.unwrap();
    let parked_dio = two.make_dio(busy.vista("d")).await.unwrap();
    let op = write(&dio, insert("muffin", (5, 5))).await;
    settle(&dio, op).await;
    let parked = write(&parked_dio, insert("p", (1, 1))).await;
    eventually("a delivery", || busy.waiting() == 1).await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    busy.execute(0, Verdict::Busy);
    busy.answer(0);
    assert_eq!(settle(&parked_dio, parked).await, OperationState::Parked);
    for number in 0..100 {
        dio.cache().insert_value("x", &record((number, 0))).await.unwrap();
        parked_dio.cache().insert_value("x", &record((number, 0))).await.unwrap();
    }
    for (lens, dio) in [(&one, &dio), (&two, &parked_dio)] {
        let mut read = Vec::new();
        for _ in 0..400 {
            read = lens.journal().await.unwrap().read("d", 0, usize::MAX).await.unwrap();
            if read.len() < 40 {
                break;
            }
            dio.cache().insert_value("y", &record((0, 0))).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(read.len() < 40, "the journal was trimmed: {}", read.len());
    }
    end(one, dio).await;
    end(two, parked_dio).await;
    let one = small(dir.path()).build().unwrap();
    let dio = one.make_dio(master.vista("d")).await.unwrap();
    assert_eq!(dio.state().op(op).map(|op| op.state), Some(diorama_core::state::OpState::Routed));
    assert_eq!(visible(&dio.state()).get("muffin"), Some(&(5, 5)));
    assert_eq!(deliveries.load(Ordering::SeqCst), 1);
    let two = parking(other.path()).build().unwrap();
    let dio = two.make_dio(busy.vista("d")).await.unwrap();
    assert_eq!(dio.operation(parked).unwrap().state, OperationState::Parked);
    assert_eq!(visible(&dio.state()).get("p"), None, "it stays rolled back");
    busy.by_hand(false);
    let again = dio.retry(parked).await.unwrap();
    assert_eq!(settle(&dio, again).await, OperationState::Applied);
    assert_eq!(dio.operation(parked).unwrap().state, OperationState::Discarded);
}

#[tokio::test]
async fn a_cache_file_older_than_the_journal_is_brought_up_and_stays_so() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    let (cache, old) = (dir.path().join("cache.redb"), dir.path().join("old.redb"));
    let first = lens(dir.path()).build().unwrap();
    let dio = first.make_dio(master.vista("d")).await.unwrap();
    settle(&dio, write(&dio, insert("a", (1, 1))).await).await;
    settle(&dio, write(&dio, insert("gone", (1, 1))).await).await;
    end(first, dio).await;
    std::fs::copy(&cache, &old).unwrap();
    let second = lens(dir.path()).build().unwrap();
    let dio = second.make_dio(master.vista("d")).await.unwrap();
    settle(&dio, write(&dio, patch("a", "v", 2)).await).await;
    settle(&dio, write(&dio, insert("b", (3, 3))).await).await;
    settle(&dio, write(&dio, delete("gone")).await).await;
    let position = dio.position();
    end(second, dio).await;
    std::fs::copy(&old, &cache).unwrap();
    // Twice: what the first start replays must be in the file for the second, whatever it writes itself.
    for start in 0..3 {
        let next = lens(dir.path()).build().unwrap();
        let dio = next.make_dio(master.vista("d")).await.unwrap();
        assert_eq!(dio.position().epoch, position.epoch);
        assert_eq!(visible(&dio.state()), master.pairs(), "start {start}");
        settle(&dio, write(&dio, insert(&format!("n{start}"), (start, 0))).await).await;
        end(next, dio).await;
    }
    assert_eq!(stored_in_file(&RedbCache::open(&cache).unwrap()).await.0, master.pairs());
}

#[tokio::test]
async fn positions_a_lost_journal_is_a_new_epoch_that_keeps_the_rows_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    master.set_pair("a", Some((1, 1)));
    let build = || lens(dir.path()).on_refresh(|dio| relist(dio.clone())).build().unwrap();
    let first = build();
    let dio = first.make_dio(master.vista("d")).await.unwrap();
    dio.refresh().await.unwrap();
    let epoch = dio.position().epoch;
    end(first, dio).await;
    std::fs::remove_file(dir.path().join("cache.journal.redb")).unwrap();
    master.by_hand(true);
    let second = build();
    let dio = second.make_dio(master.vista("d")).await.unwrap();
    assert_ne!(dio.position().epoch, epoch);
    assert_eq!(visible(&dio.state()), map([("a", (1, 1))]), "rows are served meanwhile");
    assert!(dio.status().stale);
    assert!(
        matches!(dio.ring().at(0), CursorRead::Item(item) if item.event == DioEvent::Invalidated && !item.covered())
    );
    // And everything is read again without being asked.
    eventually("a list", || master.has_list()).await;
    master.set_pair("a", Some((2, 2)));
    master.release();
    eventually("the new row", || visible(&dio.state()) == master.pairs()).await;
    end(second, dio).await;
    // The epoch lasts from then on.
    let third = build();
    let dio = third.make_dio(master.vista("d")).await.unwrap();
    assert_eq!(visible(&dio.state()), master.pairs());
    assert!(dio.ring().at(0).event_is_not_doubt());
}

trait NotDoubt {
    fn event_is_not_doubt(&self) -> bool;
}

impl NotDoubt for CursorRead {
    /// The first thing in the ring is what the second process said, not a doubt of the third.
    fn event_is_not_doubt(&self) -> bool {
        matches!(self, CursorRead::Item(item) if item.seq == Some(1))
    }
}

#[tokio::test]
async fn never_back_the_source_is_read_as_a_whole_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    master.set_pair("a", Some((1, 1)));
    master.by_hand(true);
    let build = lens(dir.path()).on_start(|dio| relist(dio.clone())).on_refresh(|dio| relist(dio.clone()));
    let lens = build.on_start_blocking(false).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    eventually("the first list", || master.has_list()).await;
    // What it will say is said now, and arrives late.
    master.execute(0, Verdict::Accept);
    master.set_pair("a", Some((2, 2)));
    let refresh = tokio::spawn({
        let dio = dio.clone();
        async move { dio.refresh().await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(master.waiting(), 1, "a refresh waits for on_start");
    master.answer(0);
    eventually("the second list", || master.has_list()).await;
    master.release();
    refresh.await.unwrap().unwrap();
    assert_eq!(visible(&dio.state()), master.pairs());
    end(lens, dio).await;
}

#[tokio::test]
async fn a_corrupt_cache_is_set_aside_and_filled_again() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    master.set_pair("a", Some((1, 1)));
    let build = || lens(dir.path()).on_refresh(|dio| relist(dio.clone())).build().unwrap();
    let first = build();
    let dio = first.make_dio(master.vista("d")).await.unwrap();
    dio.refresh().await.unwrap();
    let position = dio.position();
    end(first, dio).await;
    std::fs::write(dir.path().join("cache.redb"), vec![7; 8192]).unwrap();
    let second = build();
    let dio = second.make_dio(master.vista("d")).await.unwrap();
    assert_eq!(dio.position().epoch, position.epoch);
    eventually("the rows", || visible(&dio.state()) == master.pairs()).await;
    assert!(dir.path().join("cache.redb.corrupt-1").exists());
    end(second, dio).await;
}

#[test]
fn an_interrupted_large_refresh_is_told_and_made_good() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    (0..2500).for_each(|number| master.set_pair(&format!("r{number:04}"), Some((number, 0))));
    let build = || lens(dir.path()).on_refresh(|dio| relist(dio.clone())).build().unwrap();
    let position = crash(async {
        let lens = build();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        dio.refresh().await.unwrap();
        assert_eq!(visible(&dio.state()).len(), 2500);
        // A thousand rows on the way to the next state, the process ends.
        (0..2500).for_each(|number| master.set_pair(&format!("r{number:04}"), Some((number, 1))));
        let before = dio.position().seq;
        let refresh = tokio::spawn({
            let dio = dio.clone();
            async move { dio.refresh().await }
        });
        while dio.position().seq == before {
            tokio::task::yield_now().await;
        }
        assert!(!refresh.is_finished());
        dio.position()
    });
    crash(async {
        master.by_hand(true);
        let lens = build();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        assert_eq!(dio.position().epoch, position.epoch);
        assert!(dio.position().seq > position.seq);
        assert!(dio.status().stale);
        let mut told = false;
        for at in 0..dio.ring().end() {
            told |= matches!(dio.ring().at(at), CursorRead::Item(item)
                if item.event == DioEvent::Invalidated && !item.covered() && item.seq > Some(position.seq));
        }
        assert!(told, "subscribers read again");
        eventually("a list", || master.has_list()).await;
        master.release();
        eventually("the rows", || visible(&dio.state()) == master.pairs()).await;
        end(lens, dio).await;
    });
}

#[tokio::test]
async fn positions_whoever_resumes_by_one_after_a_restart_misses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    let mut told: Vec<(u64, DioEvent)> = Vec::new();
    let mut positions = Vec::new();
    for life in 0..3 {
        let lens = lens(dir.path()).build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        let mut events = dio.subscribe_events();
        for number in 0..5 {
            let op = write(&dio, replace(&format!("r{number}"), (life, number))).await;
            settle(&dio, op).await;
            positions.push(dio.position());
        }
        dio.close().await;
        while let Ok(entry) = events.recv_entry().await {
            if let Some(position) = entry.position {
                told.push((position.seq, entry.event));
            }
        }
        end(lens, dio).await;
    }
    let lens = lens(dir.path()).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    for position in positions {
        assert_eq!(position.epoch, dio.position().epoch);
        let mut at = dio.ring().after(position.seq).expect("the ring reaches back");
        let mut found = Vec::new();
        while let CursorRead::Item(item) = dio.ring().at(at) {
            found.extend(item.seq.map(|seq| (seq, item.event.clone())));
            at += 1;
        }
        let wanted: Vec<_> = told.iter().filter(|(seq, _)| *seq > position.seq).cloned().collect();
        assert_eq!(found, wanted, "after {position}");
    }
    let operations = dio.operations();
    assert_eq!(operations.len(), 15);
    assert!(operations.iter().all(|operation| operation.state == OperationState::Applied));
}

#[test]
fn what_was_queued_at_a_crash_is_delivered_once_more_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    master.by_hand(true);
    let ops = crash(async {
        let lens = lens(dir.path()).build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        let ops = [
            write(&dio, insert("a", (1, 1))).await,
            write(&dio, patch("a", "v", 2)).await,
            write(&dio, insert("b", (1, 1))).await,
        ];
        eventually("a delivery", || master.waiting() == 1).await;
        master.execute(0, Verdict::Accept);
        ops
    });
    master.forget_calls();
    crash(async {
        let lens = lens(dir.path()).build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        assert_eq!(visible(&dio.state()), map([("a", (2, 1)), ("b", (1, 1))]));
        assert_ne!(dio.operation(ops[0]).unwrap().state, OperationState::Applied);
        master.release();
        eventually("delivery", || {
            master.release();
            true
        })
        .await;
        for op in ops {
            assert_eq!(settle(&dio, op).await, OperationState::Applied);
        }
        assert_eq!(visible(&dio.state()), master.pairs());
        end(lens, dio).await;
    });
}

#[tokio::test]
async fn a_second_lens_on_the_same_files_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let first = lens(dir.path()).build().unwrap();
    let refused = lens(dir.path()).build().unwrap_err().to_string();
    assert!(refused.contains("cache.redb") && refused.contains("in use"), "{refused}");
    let elsewhere = Lens::new().cache_at(dir.path().join("other.redb"));
    let refused = elsewhere.journal_at(dir.path().join("cache.journal.redb")).build().unwrap_err().to_string();
    assert!(refused.contains("cache.journal.redb") && refused.contains("in use"), "{refused}");
    let master = Scripted::of_pairs(true, true);
    let dio = first.make_dio(master.vista("d")).await.unwrap();
    let Err(Error::Config(refused)) = first.make_dio(master.vista("d")).await else { panic!("two of a name") };
    assert!(refused.contains("\"d\""), "{refused}");
    end(first, dio).await;
    lens(dir.path()).build().unwrap();
}

/// The first list after a loss comes while another read is open, so it cannot be believed of a row that a write waits for.
#[test]
fn a_write_over_a_lost_row_survives_a_restart_before_the_row_was_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    master.set_pair("a", Some((1, 1)));
    let taken = Arc::new(AtomicUsize::new(0));
    let build = |takes: bool| {
        let taken = Arc::clone(&taken);
        let seeding = lens(dir.path()).on_start(|dio| relist(dio.clone())).on_refresh(|dio| relist(dio.clone()));
        let routed = seeding.on_start_blocking(false).on_write(move |_, _| {
            let taken = Arc::clone(&taken);
            async move {
                if !takes {
                    std::future::pending::<()>().await;
                }
                taken.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        });
        routed.build().unwrap()
    };
    crash(async {
        let dio = build(false).make_dio(master.vista("d")).await.unwrap();
        eventually("the first copy is there", || dio.is_ready()).await;
        write(&dio, patch("a", "w", 9)).await;
    });
    std::fs::remove_file(dir.path().join("cache.redb")).unwrap();
    crash(async {
        master.by_hand(true);
        let dio = build(true).make_dio(master.vista("d")).await.unwrap();
        // The start lists, and because of the loss a refresh will: what the first of them says is enough.
        eventually("the start lists", || master.waiting() == 1).await;
        master.execute(0, Verdict::Accept);
        master.answer(0);
        eventually("the route took it", || taken.load(Ordering::SeqCst) == 1).await;
        eventually("that is known", || dio.state().queue().next().is_none()).await;
    });
    master.forget_calls();
    master.by_hand(false);
    crash(async {
        let dio = build(true).make_dio(master.vista("d")).await.unwrap();
        eventually("the copy is there", || dio.is_ready()).await;
        dio.refresh().await.unwrap();
        assert_eq!(visible(&dio.state()), map([("a", (1, 9))]));
        assert_eq!(taken.load(Ordering::SeqCst), 1);
    });
}
