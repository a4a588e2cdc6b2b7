//! Whichever operation of a disk fails: writes are refused, reads go on, and when the disk works again so does the Dio, in the
//! same process.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use diorama::cache::RedbCache;
use diorama::dio::{Dio, IdempotencyKey, Inbound, OperationState, WriteOptions};
use diorama::journal::{Journal, RedbJournal};
use diorama::{ChangeEvent, Error, Lens, Result};
use diorama_core::journal::disk::{Disk, Failing};
use diorama_core::state::OpId;

use super::harness::pairs::*;

fn lens(journal: &Disk, cache: &Disk) -> Lens {
    Lens::new()
        .cache_file(RedbCache::with_backend(cache.factory()).unwrap())
        .journal_source(Arc::new(RedbJournal::with_backend(journal.factory()).unwrap()) as Arc<dyn Journal>)
        .settings(|settings| {
            settings.keep_events = 10;
            settings.drain_timeout = Duration::ZERO;
        })
        .build()
        .unwrap()
}

/// Runs `life` on a clock that jumps to whatever is waited for.
fn run<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(life)
}

/// How the disk fails; each operation meets one of these.
fn failing(at: usize) -> Failing {
    match at % 4 {
        0 => Failing::Once(at, ErrorKind::Other),
        1 => Failing::From(at, ErrorKind::Other),
        2 => Failing::Once(at, ErrorKind::StorageFull),
        _ => Failing::From(at, ErrorKind::StorageFull),
    }
}

/// What came of a few writes and deliveries, as far as anybody was told.
#[derive(Default)]
struct Told {
    /// Rows as they must be; `None` where a write may or may not have been accepted.
    rows: BTreeMap<String, Option<Cells>>,
    operations: Vec<OpId>,
    refused: usize,
}

impl Told {
    /// A refusal says that nothing was accepted, or that nobody knows.
    fn refused(&mut self, id: &str, error: &Error) {
        self.refused += 1;
        match error {
            Error::Storage { .. } => {}
            Error::OutcomeUnknown { .. } => drop(self.rows.insert(id.into(), None)),
            error => panic!("{error:?}"),
        }
    }

    fn check(&self, dio: &Dio, when: &str) {
        let seen = visible(&dio.state());
        for (id, cells) in self.rows.iter().filter_map(|(id, cells)| Some((id, (*cells)?))) {
            assert_eq!(seen.get(id), Some(&cells), "{id} {when}");
        }
    }
}

async fn write(dio: &Dio, number: i64, keyed: bool, told: &mut Told) -> Result<()> {
    let id = format!("r{number}");
    let key = keyed.then(|| IdempotencyKey { key: id.clone(), fingerprint: 1 });
    let done = dio.write(insert(&id, (number, 0)), WriteOptions { key, ..WriteOptions::default() }).await;
    match &done {
        Ok(ticket) => {
            told.rows.insert(id, Some((number, 0)));
            told.operations.extend(ticket.operation);
        }
        Err(error) => told.refused(&id, error),
    }
    done.map(drop)
}

async fn deliver(dio: &Dio, master: &Scripted, number: i64, told: &mut Told) {
    let id = format!("d{number}");
    master.set_pair(&id, Some((number, 1)));
    let event = ChangeEvent::Updated { id: id.clone(), new: master.event_row(&id) };
    let inbound = Inbound { delivery: Some(id.clone()), ..Inbound::from(event) };
    match dio.handle_event(inbound).await {
        Ok(_) => drop(told.rows.insert(id, Some((number, 1)))),
        Err(error) => told.refused(&id, &error),
    }
}

/// A few of everything; the disk may fail on the way.
async fn work(dio: &Dio, master: &Scripted) -> Told {
    let mut told = Told::default();
    for number in 0..8 {
        let before = told.refused;
        match number % 4 {
            3 => deliver(dio, master, number, &mut told).await,
            _ => drop(write(dio, number, number % 2 == 0, &mut told).await),
        }
        told.check(dio, "while the disk fails");
        if told.refused > before {
            assert!(dio.status().journal_trouble.is_some(), "nobody says why writes are refused");
        }
        if number % 3 == 2 {
            // Delivered, settled, flushed and trimmed meanwhile.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
    told
}

/// The disk works again: without a write, without a restart.
async fn heal(dio: &Dio, master: &Scripted, mut told: Told) -> Told {
    eventually_slowly("the journal works", || dio.status().journal_trouble.is_none()).await;
    write(dio, 100, true, &mut told).await.unwrap();
    deliver(dio, master, 101, &mut told).await;
    eventually_slowly("what waited is delivered", || dio.state().backlog().0 == 0).await;
    for op in &told.operations {
        let state = dio.operation(*op).map(|operation| operation.state);
        assert!(matches!(state, None | Some(OperationState::Applied)), "{op} is {state:?}");
    }
    told.check(dio, "after the disk was healed");
    told
}

async fn eventually_slowly(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("never: {what}");
}

async fn end(lens: Lens, dio: Dio) {
    dio.close().await;
    drop(dio);
    lens.close().await;
}

/// How many operations of the disk that `which` picks `work` takes, and how many there were before.
async fn count(which: impl Fn(&Disk, &Disk) -> Disk) -> std::ops::Range<usize> {
    let (journal, cache, master) = (Disk::default(), Disk::default(), Scripted::of_pairs(true, true));
    let disk = which(&journal, &cache);
    let lens = lens(&journal, &cache);
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let first = disk.operations();
    let told = work(&dio, &master).await;
    assert_eq!(told.refused, 0);
    let last = disk.operations();
    end(lens, dio).await;
    first..last
}

#[test]
fn whichever_operation_of_the_journals_disk_fails_writes_are_refused_and_the_dio_heals_by_itself() {
    let operations = run(count(|journal, _| journal.clone()));
    let (mut refused, mut failures) = (0, 0);
    for at in operations.clone() {
        run(async {
            let (journal, cache, master) = (Disk::default(), Disk::default(), Scripted::of_pairs(true, true));
            let one = lens(&journal, &cache);
            let dio = one.make_dio(master.vista("d")).await.unwrap();
            journal.set_failing(failing(at));
            let told = work(&dio, &master).await;
            (refused, failures) = (refused + told.refused, failures + usize::from(told.refused > 0));
            journal.set_failing(Failing::Never);
            let told = heal(&dio, &master, told).await;
            end(one, dio).await;
            // And a restart finds what was there.
            let again = lens(&journal, &cache);
            let dio = again.make_dio(master.vista("d")).await.unwrap();
            told.check(&dio, "after a restart");
            end(again, dio).await;
        });
    }
    println!("{} operations, {failures} of them refused {refused} writes", operations.len());
    assert!(failures > operations.len() / 3);
}

#[test]
fn whichever_operation_of_the_caches_disk_fails_nobody_notices_and_the_file_catches_up() {
    let operations = run(count(|_, cache| cache.clone()));
    for at in operations {
        run(async {
            let (journal, cache, master) = (Disk::default(), Disk::default(), Scripted::of_pairs(true, true));
            let one = lens(&journal, &cache);
            let dio = one.make_dio(master.vista("d")).await.unwrap();
            cache.set_failing(failing(at));
            let told = work(&dio, &master).await;
            assert_eq!(told.refused, 0, "operation {at}: the cache file is nobody's business");
            cache.set_failing(Failing::Never);
            let told = heal(&dio, &master, told).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            let (rows, seq) = (confirmed(&dio.state()), dio.position().seq);
            told.check(&dio, "with a cache file that failed");
            end(one, dio).await;
            let cache = RedbCache::with_backend(cache.factory()).unwrap();
            assert_eq!(stored_in_file(&cache).await, (rows, seq), "operation {at}");
        });
    }
}
