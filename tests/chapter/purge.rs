//! Purges: everything that is kept of a row goes, and nothing else changes.

use std::sync::Arc;

use diorama::journal::{Journal, LogEntry, MemoryJournal};
use diorama::{ChangeEvent, Dio, Error, Lens, Record, WriteOp};
use diorama_core::dio::{CursorRead, WriteOptions};
use memchr::memmem;
use proptest::prelude::*;

use crate::harness::*;

/// What nobody must find any more.
const MARK: &str = "Hidden";
/// The row that is purged, and another.
const ROWS: [&str; 3] = ["1", "2", "new"];

fn marked(id: &str, n: i64) -> Record {
    match id {
        "2" => product(id, &format!("Plain {n}"), n, 1),
        _ => product(id, &format!("{MARK} {n}"), n, 1),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Replace(usize),
    Patch(usize),
    Delete(usize),
    DeleteAll,
    /// The source refuses a write and quotes it.
    Refused(usize),
    /// The source fails once and quotes the write.
    Failing(usize),
    /// Somebody tells of a change.
    Told(usize, bool),
    /// The program says what a row is, or that it is another.
    Said(usize, bool),
    Refresh,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let row = 0..ROWS.len();
    prop_oneof![
        3 => row.clone().prop_map(Step::Replace),
        3 => row.clone().prop_map(Step::Patch),
        2 => row.clone().prop_map(Step::Delete),
        1 => Just(Step::DeleteAll),
        2 => row.clone().prop_map(Step::Refused),
        1 => row.clone().prop_map(Step::Failing),
        2 => (row.clone(), any::<bool>()).prop_map(|(row, gone)| Step::Told(row, gone)),
        2 => (row, any::<bool>()).prop_map(|(row, silent)| Step::Said(row, silent)),
        1 => Just(Step::Refresh),
        1 => Just(Step::Restart),
    ]
}

/// A Dio whose files outlive it.
struct World {
    master: Scripted,
    cache: RemoteCache,
    journal: Arc<MemoryJournal>,
    routed: bool,
}

impl World {
    fn new(routed: bool) -> World {
        let rows = ROWS[..2].iter().map(|id| (id.to_string(), marked(id, 0)));
        World { master: Scripted::new(schema(), rows), cache: RemoteCache::default(), journal: Arc::default(), routed }
    }

    async fn open(&self) -> (Arc<Lens>, Dio) {
        self.open_on(Arc::clone(&self.journal) as _).await
    }

    async fn open_on(&self, journal: Arc<dyn Journal>) -> (Arc<Lens>, Dio) {
        let lens = reconciling(seeding(Lens::new().cache_source(self.cache.clone()).journal_source(journal)));
        let lens = match self.routed {
            true => lens.on_write(|dio, op| {
                let dio = dio.clone();
                async move { dio.master().shell().write(&op).await.map(drop) }
            }),
            false => lens,
        };
        open(lens, &self.master).await
    }

    async fn step(&self, dio: &Dio, step: &Step, n: i64) {
        let write = async |op| match dio.write(op, WriteOptions::default()).await {
            Ok(_) | Err(Error::NotFound { .. } | Error::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        };
        match step {
            Step::Replace(row) => {
                write(WriteOp::Replace { id: ROWS[*row].into(), record: marked(ROWS[*row], n) }).await
            }
            Step::Patch(row) => {
                let record = cells([("name", marked(ROWS[*row], n)["name"].clone())]);
                write(WriteOp::Patch { id: ROWS[*row].into(), record }).await;
            }
            Step::Delete(row) => write(WriteOp::Delete { id: ROWS[*row].into() }).await,
            Step::DeleteAll => write(WriteOp::DeleteAll).await,
            Step::Refused(row) => {
                let id = ROWS[*row];
                settle(dio).await;
                self.master.refuse(id, Error::permanent(format!("{:?} is not allowed", marked(id, n))));
                write(WriteOp::Replace { id: id.into(), record: marked(id, n) }).await;
                settle(dio).await;
                self.master.relent(id);
            }
            Step::Failing(row) => {
                settle(dio).await;
                let record = marked(ROWS[*row], n);
                self.master.fail_writes(1, &Error::transient(format!("{record:?} came too early")));
                write(WriteOp::Replace { id: ROWS[*row].into(), record }).await;
            }
            Step::Told(row, gone) => {
                let (id, new) = (ROWS[*row].to_string(), Some(marked(ROWS[*row], n)));
                let event = if *gone { ChangeEvent::Deleted { id } } else { ChangeEvent::Updated { id, new } };
                dio.handle_event(event).await.unwrap();
            }
            Step::Said(row, true) => dio.cache().insert_value(ROWS[*row], &marked(ROWS[*row], n)).await.unwrap(),
            Step::Said(row, false) => {
                dio.patched(ROWS[*row], marked(ROWS[*row], n)).await.unwrap();
                dio.invalidate_record(ROWS[*row]);
            }
            Step::Refresh => drop(dio.refresh().await),
            Step::Restart => {}
        }
    }

    async fn log(&self) -> Vec<LogEntry> {
        self.journal.read("products", 0, usize::MAX).await.unwrap()
    }
}

/// Everything that a reader or a subscriber can be told.
async fn told(dio: &Dio) -> String {
    let mut all = String::new();
    let rows = dio.vista().list_values().await.unwrap();
    all += &format!("{:?}", rows.iter().collect::<Vec<_>>());
    all += &format!("{:?}", dio.operations());
    all += &format!("{:?}", dio.state().ops().collect::<Vec<_>>());
    let (ring, mut at) = (dio.ring(), 0);
    loop {
        match ring.at(at) {
            CursorRead::Item(item) => all += &format!("{item:?}\n"),
            CursorRead::Gone { next, .. } => {
                at = next;
                continue;
            }
            CursorRead::End | CursorRead::Closed => return all,
        }
        at += 1;
    }
}

fn holds(bytes: &[u8]) -> bool {
    memmem::find(bytes, MARK.as_bytes()).is_some()
}

async fn nothing_is_left(steps: &[Step], routed: bool) {
    let world = World::new(routed);
    let (mut lens, mut dio) = world.open().await;
    for (n, step) in (1..).zip(steps) {
        if let Step::Restart = step {
            dio.close().await;
            drop((dio, lens));
            (lens, dio) = world.open().await;
        }
        world.step(&dio, step, n).await;
    }
    settle(&dio).await;
    // Routed writes end once the source was read.
    drop(dio.refresh_allowing_shrink().await);
    settle(&dio).await;
    for id in ["1", "new"] {
        if world.master.row(id).await.is_some() {
            world.master.take(id).await;
        }
    }
    drop(dio.refresh_allowing_shrink().await);
    settle(&dio).await;
    let before = world.log().await;
    let purged = match dio.purge(["1", "new"]).await {
        Err(Error::Conflict { .. }) if routed && is_covered(&dio) => return,
        purged => purged.unwrap(),
    };
    assert_eq!((purged.returned, purged.in_source), (Vec::<String>::new(), Some(Vec::new())));
    let after = world.log().await;
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(changed as u64, purged.entries);
    assert!(before.iter().zip(&after).all(|(before, after)| before.seq == after.seq), "nothing moves");
    for (entry, old) in after.iter().zip(&before) {
        assert!(!holds(&entry.bytes), "{:?}", String::from_utf8_lossy(&entry.bytes));
        let of_another = memmem::find(&old.bytes, b"Plain").is_some();
        assert!(!of_another || entry == old, "another row's entry is as it was");
    }
    let now = told(&dio).await;
    assert!(!now.contains(MARK), "{now}");
    let again = dio.purge(["1", "new", "never there"]).await.unwrap();
    assert_eq!((again.rows, again.entries, again.operations, again.deliveries), (0, 0, 0, 0));
    assert_eq!(again.position, dio.position(), "what is not there takes no entry");
    let known = dio.vista().get_value("2").await.unwrap();
    assert!(routed || known == world.master.row("2").await);
    dio.close().await;
    drop((dio, lens));
    let (_lens, dio) = world.open().await;
    settle(&dio).await;
    let later = told(&dio).await;
    assert!(!later.contains(MARK), "after a restart: {later}");
    assert_eq!(dio.vista().get_value("2").await.unwrap(), known);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn after_a_purge_no_entry_no_event_and_no_read_has_the_values(
        steps in proptest::collection::vec(step(), 1..25),
        routed in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(nothing_is_left(&steps, routed));
    }
}

#[tokio::test]
async fn a_row_with_a_write_that_is_not_settled_is_refused_and_nothing_is_changed() {
    let world = World::new(false);
    let (_lens, dio) = world.open().await;
    world.master.writes().close();
    dio.vista().replace_value("1", &marked("1", 5)).await.unwrap();
    let before = world.log().await;
    let refused = dio.purge(["2", "1"]).await.unwrap_err();
    assert!(matches!(&refused, Error::Conflict { id, .. } if id == "1"), "{refused}");
    assert!(refused.to_string().contains("op_"), "it says which: {refused}");
    assert_eq!(world.log().await, before);
    assert!(dio.vista().get_value("2").await.unwrap().is_some());
    world.master.writes().open();
    settle(&dio).await;
    assert_eq!(dio.purge(["2", "1"]).await.unwrap().rows, 2);
}

#[tokio::test]
async fn a_row_that_the_source_still_has_is_named_and_comes_back_with_the_next_refresh() {
    let world = World::new(false);
    let (_lens, dio) = world.open().await;
    let mut bus = dio.subscribe_events();
    let purged = dio.purge(["1"]).await.unwrap();
    assert_eq!((purged.rows, purged.in_source), (1, Some(vec!["1".to_string()])));
    assert_eq!(next(&mut bus).await, removed("1"));
    assert_eq!(dio.vista().get_value("1").await.unwrap(), None);
    assert_eq!(dio.vista().get_count().await.unwrap(), 1);
    dio.refresh().await.unwrap();
    assert_eq!(dio.vista().get_value("1").await.unwrap(), Some(marked("1", 0)));
}

#[tokio::test]
async fn what_is_written_after_a_purge_stays() {
    let world = World::new(false);
    let (_lens, dio) = world.open().await;
    dio.purge(["1"]).await.unwrap();
    dio.vista().replace_value("1", &marked("1", 7)).await.unwrap();
    settle(&dio).await;
    dio.purge(["2"]).await.unwrap();
    assert_eq!(dio.vista().get_value("1").await.unwrap(), Some(marked("1", 7)));
    assert!(world.log().await.iter().any(|entry| holds(&entry.bytes)));
}

#[tokio::test]
async fn a_journal_that_cannot_rewrite_says_so_and_nothing_is_changed() {
    let world = World::new(false);
    let (_lens, dio) = world.open_on(Arc::new(GatedJournal::default())).await;
    assert!(is_unsupported(&dio.purge(["1"]).await));
    assert!(dio.vista().get_value("1").await.unwrap().is_some());
    assert_eq!(kind(&dio.purge([""; 0]).await.unwrap_err()), "Invalid");
    assert_eq!(kind(&dio.purge((0..1_001).map(|id| id.to_string())).await.unwrap_err()), "Invalid");
}

#[tokio::test]
async fn a_purge_that_broke_off_is_finished_by_the_next_start() {
    // The first rewrite only asks whether there can be any.
    for times in 1..4 {
        let world = World::new(false);
        let gated = Arc::new(GatedJournal::rewriting(Arc::clone(&world.journal), times));
        let (lens, dio) = world.open_on(gated).await;
        for n in 0..2_500 {
            dio.patched("1", marked("1", n)).await.unwrap();
        }
        world.master.take("1").await;
        assert_eq!(kind(&dio.purge(["1"]).await.unwrap_err()), "Storage", "{times}");
        assert_eq!(dio.vista().get_value("1").await.unwrap(), None, "the row is gone at once");
        dio.close().await;
        drop((dio, lens));
        assert!(world.log().await.iter().any(|entry| memmem::find(&entry.bytes, b"\x61z").is_some()));
        let (_lens, dio) = world.open().await;
        assert!(!world.log().await.iter().any(|entry| holds(&entry.bytes)), "after {times} rewrites");
        assert!(!told(&dio).await.contains(MARK));
        assert_eq!(dio.state().purges().count(), 0);
        assert_eq!(dio.purge(["1"]).await.unwrap().entries, 0);
    }
}
