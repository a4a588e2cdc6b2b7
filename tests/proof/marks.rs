//! Marks of feeds: wherever the power, the journal or the process fails, a position is never ahead of the changes before it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use diorama::cache::{MemoryCache, RedbCache};
use diorama::journal::{Changes, Delivery, DeliveryId, DeliveryState, Journal, MemoryJournal, RedbJournal};
use diorama::{CborValue, ChangeEvent, Error, Lens, LensBuilder, Result};
use diorama_core::dio::{CursorRead, DeliveryBatch, Dio, FeedMark, Inbound};
use diorama_core::journal::disk::{fate, images};
use diorama_core::journal::faulty::{Fault, FaultRates, FaultyJournal};

use super::harness::pairs::*;
use super::images::life::Disks;

const FEED: &str = "sender";
/// Rows of the sender.
const ROWS: i64 = 9;

/// Runs `life` on a clock that jumps to whatever is waited for.
fn run<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(life)
}

/// Runs `life` as a process that ends in the middle of whatever it does.
fn crash<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(life)
}

/// The id of the row that the `number`th change of the sender is about, and what it becomes. The first one of each row makes it.
fn change(number: i64) -> (String, Option<Cells>) {
    (format!("r{}", number * 5 % ROWS), (number <= ROWS || number % 4 != 0).then_some((number, 0)))
}

/// The rows after the first `number` changes.
fn model(number: i64) -> BTreeMap<String, Cells> {
    let mut rows = BTreeMap::new();
    for (id, cells) in (1..=number).map(change) {
        match cells {
            Some(cells) => drop(rows.insert(id, cells)),
            None => drop(rows.remove(&id)),
        }
    }
    rows
}

fn event((id, cells): (String, Option<Cells>), version: Option<i64>) -> Inbound {
    let event = match cells {
        Some(cells) => ChangeEvent::Updated { id, new: Some(record(cells)) },
        None => ChangeEvent::Deleted { id },
    };
    Inbound { version: version.map(CborValue::from), clock: Some(FEED.into()), ..Inbound::from(event) }
}

fn thin(id: &str) -> Inbound {
    Inbound::from(ChangeEvent::Updated { id: id.into(), new: None })
}

fn mark(position: i64) -> FeedMark {
    FeedMark { feed: FEED.into(), position: position.to_be_bytes().to_vec().into(), owes_refresh: false }
}

fn number(mark: &FeedMark) -> i64 {
    i64::from_be_bytes(mark.position[..].try_into().unwrap())
}

/// `changes`, after which the feed is at `position`.
fn batch(changes: Vec<Inbound>, position: i64) -> DeliveryBatch {
    let delivery = Delivery {
        id: DeliveryId::new(),
        hook: "feed".into(),
        dio: "".into(),
        key: None,
        state: DeliveryState::Received,
        changes: Changes::default(),
        detail: None,
        attempts: 0,
        received: 0,
        updated: 0,
        size: 0,
        outgoing: None,
    };
    let mark = Some(mark(position));
    DeliveryBatch { delivery, raw: None, changes, abort: false, again: false, same: None, mark }
}

/// Changes with versions.
fn changes(numbers: RangeInclusive<i64>) -> Vec<Inbound> {
    numbers.map(|number| event(change(number), Some(number))).collect()
}

/// Applies a batch as a feed does, however often the journal fails; gives the outcome of the last attempt.
async fn apply(dio: &Dio, mut batch: DeliveryBatch) -> DeliveryState {
    loop {
        match dio.deliver(&batch).await {
            Ok(delivery) => return delivery.state,
            Err(Error::Storage { .. } | Error::OutcomeUnknown { .. }) => batch.delivery.attempts += 1,
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What subscribers were told of each row, in order.
fn told(dio: &Dio) -> BTreeMap<String, Vec<Option<Cells>>> {
    let mut told: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for at in 0..dio.ring().end() {
        if let CursorRead::Item(item) = dio.ring().at(at)
            && let Some(id) = item.entry.as_ref().and_then(|entry| entry.id.clone())
        {
            told.entry(id.to_string()).or_default().push(item.new.as_ref().map(|row| cells(&row.decode().unwrap())));
        }
    }
    told
}

/// What a subscriber of everything is told of each row.
fn history(upto: i64) -> BTreeMap<String, Vec<Option<Cells>>> {
    let mut all: BTreeMap<String, Vec<Option<Cells>>> = BTreeMap::new();
    for (id, cells) in (1..=upto).map(change) {
        let row = all.entry(id).or_default();
        // The removal of a row that is not there is not told.
        if cells.is_some() || row.last().is_some_and(Option::is_some) {
            row.push(cells);
        }
    }
    all.retain(|_, row| !row.is_empty());
    all
}

/// The first copy, made once: a start with a whole copy reads nothing.
fn copying(lens: LensBuilder) -> LensBuilder {
    let copy = |dio: &Dio| {
        let dio = dio.clone();
        async move { if dio.status().complete { Ok(()) } else { relist(dio).await } }
    };
    lens.on_start(copy).on_refresh(|dio| relist(dio.clone()))
}

async fn on_disks(disks: &Disks, master: &Scripted) -> (Lens, Dio) {
    let lens = Lens::new()
        .cache_file(RedbCache::with_backend(disks.cache.factory()).unwrap())
        .journal_source(Arc::new(RedbJournal::with_backend(disks.journal.factory()).unwrap()) as Arc<dyn Journal>)
        .settings(|settings| settings.drain_timeout = Duration::ZERO);
    let lens = copying(lens).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    (lens, dio)
}

#[test]
fn crash_wherever_the_power_is_cut_a_mark_has_every_change_before_it_and_none_is_told_twice() {
    const ALL: i64 = 120;
    let (disks, mut random) = (Disks::empty(), fate(23));
    let mut acked = Vec::new();
    run(async {
        let master = Scripted::of_pairs(true, true);
        let (lens, dio) = on_disks(&disks, &master).await;
        // Rows in doubt stay so: every value is the sender's.
        master.by_hand(true);
        let mut next = 1;
        while next <= ALL {
            let last = (next + random.below(4) as i64).min(ALL);
            apply(&dio, batch(changes(next..=last), last)).await;
            acked.push((disks.now(), last));
            next = last + 1;
            if random.below(5) == 0 {
                // The cache file is written meanwhile.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        assert_eq!(visible(&dio.state()), model(ALL));
        assert_eq!(told(&dio), history(ALL));
        dio.close().await;
        lens.close().await;
    });
    let (mut resumed, mut inside) = (0, 0);
    for _ in 0..images() / 40 {
        let cut = random.below(disks.now() + 1) as usize;
        let image = disks.image(cut, &mut random);
        run(async {
            let master = Scripted::of_pairs(true, true);
            let (_lens, dio) = on_disks(&image, &master).await;
            master.by_hand(true);
            let durable = acked.iter().rev().find(|(at, _)| *at <= cut).map_or(0, |(_, number)| *number);
            let mark = dio.resume_feed(FEED).await.unwrap();
            // A copy that was not whole on disk, or none, is made anew: nobody relies on the mark.
            let Some(mark) = mark else { return };
            let reached = number(&mark);
            assert!(reached >= durable, "acknowledged up to {durable}, found {reached}");
            assert!(!mark.owes_refresh);
            assert_eq!(visible(&dio.state()), model(reached), "the copy at {reached}");
            (resumed, inside) = (resumed + 1, inside + usize::from(reached < ALL));
            // The sender goes on behind the mark.
            for at in reached + 1..=ALL {
                apply(&dio, batch(changes(at..=at), at)).await;
            }
            assert_eq!(visible(&dio.state()), model(ALL));
            assert_eq!(told(&dio), history(ALL), "continued at {reached}");
            assert_eq!(master.calls().list, 0, "the source is not listed");
        });
    }
    assert!(resumed > 0 && inside > 0, "{resumed} images had a mark, {inside} of them before the end");
}

fn faulty(seed: u64) -> Arc<FaultyJournal> {
    Arc::new(FaultyJournal::new(Arc::new(MemoryJournal::new()), seed))
}

async fn on_journal(
    journal: &Arc<FaultyJournal>,
    cache: &Arc<MemoryCache>,
    master: &Scripted,
    name: &str,
) -> (Lens, Dio) {
    let lens = Lens::new().cache_source(Arc::clone(cache)).journal_source(Arc::clone(journal) as Arc<dyn Journal>);
    let lens = copying(lens).build().unwrap();
    let dio = lens.make_dio(master.vista(name)).await.unwrap();
    (lens, dio)
}

/// The position in the journal, whatever it is worth.
async fn stored(journal: &FaultyJournal, dio: &str) -> Option<bytes::Bytes> {
    journal.mark(&format!("f/{dio}/{FEED}")).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_commit_a_mark_and_its_changes_are_one_append() {
    let (journal, master) = (faulty(1), Scripted::of_pairs(true, true));
    let (_lens, dio) = on_journal(&journal, &Arc::default(), &master, "d").await;
    master.by_hand(true);
    let before = journal.appends();
    journal.push_fault(Fault::Full);
    dio.deliver(&batch(changes(1..=3), 3)).await.unwrap_err();
    assert_eq!((stored(&journal, "d").await, visible(&dio.state())), (None, model(0)));
    dio.deliver(&batch(changes(1..=3), 3)).await.unwrap();
    assert_eq!(journal.sizes()[before..], [3, 3], "one append each");
    let three = stored(&journal, "d").await;
    assert!(three.is_some());
    // Without an entry the mark is stored, too: alone, and with a change that is known.
    dio.advance_feed(mark(4)).await.unwrap();
    dio.deliver(&batch(changes(3..=3), 5)).await.unwrap();
    assert_eq!(journal.sizes()[before + 2..], [0, 0]);
    assert_ne!(stored(&journal, "d").await, three);
    // Many changes are several appends, of which the last has the mark.
    let five = stored(&journal, "d").await;
    let many: Vec<Inbound> = (0..600).map(|at| event((format!("m{at}"), Some((at, 0))), Some(at))).collect();
    (0..2).for_each(|_| journal.push_fault(Fault::Full));
    dio.deliver(&batch(many.clone(), 9)).await.unwrap_err();
    assert_eq!(stored(&journal, "d").await, five);
    apply(&dio, batch(many, 9)).await;
    assert_eq!(visible(&dio.state()).len(), 600 + model(3).len());
    assert_ne!(stored(&journal, "d").await, five);
    // A mark alone can fail, too, and an unknown outcome is looked up.
    for (fault, is_stored) in [(Fault::UnknownStored, true), (Fault::UnknownLost, false)] {
        let before = stored(&journal, "d").await;
        journal.push_fault(fault);
        assert_eq!(dio.advance_feed(mark(if is_stored { 10 } else { 11 })).await.is_ok(), is_stored);
        assert_eq!(stored(&journal, "d").await != before, is_stored);
    }
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_journal_lose_no_change_of_a_feed_and_tell_none_twice() {
    for seed in 0..8 {
        let (journal, master) = (faulty(seed), Scripted::of_pairs(true, true));
        let (_lens, dio) = on_journal(&journal, &Arc::default(), &master, "d").await;
        master.by_hand(true);
        journal.set_rates(FaultRates {
            unknown_stored: 150,
            unknown_lost: 150,
            full: 100,
            io: 100,
            ..Default::default()
        });
        for at in (1..=200).step_by(2) {
            if at % 20 == 1 {
                // Longer than answers are held back.
                journal.fail_reopens(12);
            }
            apply(&dio, batch(changes(at..=at + 1), at + 1)).await;
        }
        journal.set_rates(FaultRates::default());
        assert_eq!(visible(&dio.state()), model(200));
        assert_eq!(told(&dio), history(200));
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_was_stored_although_it_failed_is_not_applied_again() {
    let (journal, master) = (faulty(3), Scripted::of_pairs(true, true));
    master.set_pair("a", Some((1, 0)));
    let (_lens, dio) = on_journal(&journal, &Arc::default(), &master, "d").await;
    let part = |v: i64| Inbound {
        partial: true,
        version: Some(v.into()),
        clock: Some(FEED.into()),
        ..Inbound::from(ChangeEvent::Updated { id: "a".into(), new: Some(record((v, 0))) })
    };
    journal.push_fault(Fault::UnknownStored);
    journal.fail_reopens(1_000);
    let failed = dio.deliver(&batch(vec![part(2), part(3)], 1)).await;
    assert!(matches!(failed, Err(Error::Storage { .. })), "{failed:?}");
    journal.fail_reopens(0);
    let mut again = batch(vec![part(2), part(3)], 1);
    again.delivery.attempts = 1;
    assert_eq!(apply(&dio, again).await, DeliveryState::Duplicate);
    assert_eq!(told(&dio)["a"], [Some((2, 0)), Some((3, 0))]);
}

fn on_files(dir: &Path) -> LensBuilder {
    copying(Lens::new().cache_at(dir.join("cache.redb")))
}

/// Lets a process of `lens` do `work` on a Dio of `master`, and kills it.
fn killed_after(lens: LensBuilder, master: &Scripted, work: impl AsyncFnOnce(&Dio)) {
    crash(async {
        let lens = lens.build().unwrap();
        let dio = lens.make_dio(master.vista("d")).await.unwrap();
        work(&dio).await;
    });
}

#[test]
fn a_row_in_doubt_at_a_crash_is_read_again_and_the_source_is_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    (0..3).for_each(|at| master.set_pair(&format!("r{at}"), Some((at, 0))));
    killed_after(on_files(dir.path()), &master, async |dio| {
        master.reads().close();
        master.set_pair("r1", Some((41, 0)));
        assert_eq!(apply(dio, batch(vec![thin("r1")], 7)).await, DeliveryState::Applied);
        assert_eq!(dio.rows_in_doubt(), 1);
        // A later position does not pass it either.
        dio.advance_feed(mark(8)).await.unwrap();
    });
    master.reads().open();
    master.take_calls();
    killed_after(on_files(dir.path()), &master, async |dio| {
        assert_eq!(visible(&dio.state())["r1"], (1, 0), "the crash came first");
        let mark = dio.resume_feed(FEED).await.unwrap().expect("a valid mark");
        assert_eq!((number(&mark), mark.owes_refresh), (8, false));
        eventually("the row is read", || visible(&dio.state())["r1"] == (41, 0)).await;
        let calls = master.take_calls();
        assert_eq!((calls.list, calls.get), (0, 1));
        eventually("nothing is in doubt", || dio.rows_in_doubt() == 0).await;
        dio.advance_feed(mark).await.unwrap();
    });
    killed_after(on_files(dir.path()), &master, async |dio| {
        dio.resume_feed(FEED).await.unwrap().expect("a valid mark");
        assert_eq!((dio.rows_in_doubt(), master.calls().total()), (0, 0));
    });
}

#[test]
fn a_mark_with_too_many_rows_in_doubt_owes_a_refresh() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    killed_after(on_files(dir.path()), &master, async |dio| {
        master.reads().close();
        let doubts = (0..=1_000).map(|at| thin(&format!("r{at}"))).collect();
        apply(dio, batch(doubts, 1)).await;
        assert_eq!(dio.rows_in_doubt(), 1_001);
    });
    master.reads().open();
    killed_after(on_files(dir.path()), &master, async |dio| {
        let mark = dio.resume_feed(FEED).await.unwrap().expect("a valid mark");
        assert!(mark.owes_refresh);
        assert_eq!(dio.rows_in_doubt(), 0);
    });
}

#[test]
fn a_mark_of_another_epoch_or_of_a_copy_that_is_not_whole_is_not_valid() {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    master.set_pair("a", Some((1, 0)));
    let resumes = |lens: LensBuilder, valid: bool| {
        killed_after(lens, &master, async |dio| {
            let mark = dio.resume_feed(FEED).await.unwrap();
            assert_eq!(mark.is_some(), valid, "{mark:?}");
            dio.advance_feed(self::mark(1)).await.unwrap();
            // The cache file is written, so that it and the journal agree.
            dio.close().await;
        });
    };
    resumes(on_files(dir.path()), false);
    resumes(on_files(dir.path()), true);
    std::fs::remove_file(dir.path().join("cache.redb")).unwrap();
    resumes(on_files(dir.path()), false);
    resumes(on_files(dir.path()), true);
    // An older journal continues in a new epoch, and keeps the mark.
    let journal = dir.path().join("cache.journal.redb");
    let older = std::fs::read(&journal).unwrap();
    killed_after(on_files(dir.path()), &master, async |dio| {
        apply(dio, batch(vec![event(("a".into(), Some((2, 0))), Some(2))], 2)).await;
        dio.close().await;
    });
    std::fs::write(&journal, older).unwrap();
    killed_after(on_files(dir.path()), &master, async |dio| {
        dio.refresh().await.unwrap();
        dio.close().await;
    });
    // The copy is whole again, but the mark is of the epoch before.
    resumes(on_files(dir.path()), false);
    resumes(on_files(dir.path()), true);
    // A part of the source only.
    let other = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let partial = Lens::new().cache_at(other.path().join("cache.redb")).on_load_chunk(|_, _, _| async { Ok(()) });
        killed_after(partial, &master, async |dio| {
            assert_eq!(dio.resume_feed(FEED).await.unwrap(), None);
            dio.advance_feed(mark(1)).await.unwrap();
        });
    }
}

#[tokio::test(start_paused = true)]
async fn dios_of_one_journal_have_marks_of_their_own() -> Result<()> {
    let (journal, cache, master) = (faulty(1), Arc::new(MemoryCache::default()), Scripted::of_pairs(true, true));
    for (name, at) in [("d", 1), ("e", 2)] {
        let (lens, dio) = on_journal(&journal, &cache, &master, name).await;
        dio.advance_feed(mark(at)).await?;
        dio.advance_feed(FeedMark { feed: "another".into(), ..mark(at + 10) }).await?;
        dio.close().await;
        lens.close().await;
    }
    for (name, at) in [("d", 1), ("e", 2)] {
        let (lens, dio) = on_journal(&journal, &cache, &master, name).await;
        assert_eq!(dio.resume_feed(FEED).await?, Some(mark(at)));
        assert_eq!(dio.resume_feed("another").await?.map(|mark| number(&mark)), Some(at + 10));
        assert_eq!(dio.resume_feed("nobody").await?, None);
        dio.close().await;
        lens.close().await;
    }
    Ok(())
}
