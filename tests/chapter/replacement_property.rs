//! Replacements in hooks under concurrent writes, pushes and restarts: no reader sees a part, nothing pending is lost, and at
//! rest the copy is what the master has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diorama::dio::WriteOptions;
use diorama::journal::{Journal, MemoryJournal};
use diorama::{ChangeEvent, Dio, Error, Lens, TableScenery, WriteOp};
use proptest::prelude::*;

use crate::harness::*;
use crate::replacement::{PUTS, Put, replace};

/// Rows that are always there, at the master and so in every copy.
const STABLE: i64 = 150;
/// Rows that come and go.
const FREE: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// The program writes one of the rows that come and go.
    Write(usize),
    /// It deletes one.
    Delete(usize),
    /// It inserts a row that nobody else touches.
    Own,
    /// Somebody else changes a row; the Dio may be told.
    Other {
        id: usize,
        gone: bool,
        told: bool,
    },
    /// Somebody else changes every stable row.
    Turn,
    Refresh,
    /// A refresh whose hook fails after its clear.
    Failing,
    Restart,
    /// Time passes.
    Pass(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..FREE.len()).prop_map(Step::Write),
        2 => (0..FREE.len()).prop_map(Step::Delete),
        2 => Just(Step::Own),
        3 => (0..FREE.len(), any::<bool>(), any::<bool>()).prop_map(|(id, gone, told)| Step::Other { id, gone, told }),
        2 => Just(Step::Turn),
        4 => Just(Step::Refresh),
        1 => Just(Step::Failing),
        1 => Just(Step::Restart),
        4 => (0u8..30).prop_map(Step::Pass),
    ]
}

struct World {
    master: Scripted,
    cache: RemoteCache,
    journal: Arc<MemoryJournal>,
    put: Put,
    /// Hooks that are to fail.
    failing: Arc<AtomicUsize>,
    count: i64,
    own: Vec<String>,
}

impl World {
    fn new(put: Put, csv: bool) -> World {
        let rows = (0..STABLE).map(|n| (format!("s{n}"), product(&format!("s{n}"), "Stable", 0, 1)));
        let master = Scripted::new(schema(), rows);
        let master = if csv { master.like_csv().able(diorama::Capabilities::all()) } else { master };
        master.slow(Duration::from_millis(3));
        World {
            master,
            cache: RemoteCache::default(),
            journal: Arc::new(MemoryJournal::new()),
            put,
            failing: Arc::default(),
            count: 0,
            own: Vec::new(),
        }
    }

    async fn open(&self) -> (Arc<Lens>, Dio) {
        let journal: Arc<dyn Journal> = Arc::clone(&self.journal) as _;
        let (put, failing) = (self.put, Arc::clone(&self.failing));
        let lens = Lens::new()
            .cache_source(self.cache.clone())
            .journal_source(journal)
            .settings(|settings| settings.drain_timeout = Duration::from_millis(5))
            .on_start(move |dio| {
                let dio = dio.clone();
                async move { replace(&dio, put).await }
            })
            .on_refresh(move |dio| {
                let (dio, failing) = (dio.clone(), Arc::clone(&failing));
                async move {
                    replace(&dio, put).await?;
                    tokio::time::sleep(Duration::from_millis(7)).await;
                    let fails = failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                    if fails.is_ok() { Err(Error::transient("told to")) } else { Ok(()) }
                }
            });
        let (lens, dio) = open(lens, &self.master).await;
        check(&dio, None).await;
        (lens, dio)
    }

    async fn step(&mut self, dio: &Dio, step: &Step) {
        self.count += 1;
        let n = self.count;
        match step {
            Step::Write(id) => {
                let (id, record) = (FREE[*id].to_string(), product(FREE[*id], "Written", n, 1));
                accepted(dio.write(WriteOp::Replace { id, record }, WriteOptions::default()).await);
            }
            Step::Delete(id) => {
                let id = FREE[*id].to_string();
                accepted(dio.write(WriteOp::Delete { id }, WriteOptions::default()).await);
            }
            Step::Own => {
                let id = format!("own{n}");
                dio.vista().insert(&id, &product(&id, "Own", n, 1)).await.unwrap();
                self.own.push(id);
            }
            Step::Other { id, gone, told } => self.other(dio, FREE[*id], *gone, *told).await,
            Step::Turn => {
                for at in 0..STABLE {
                    let id = format!("s{at}");
                    self.master.put(&id, product(&id, "Stable", n, 1)).await;
                }
            }
            Step::Refresh => {
                let dio = dio.clone();
                tokio::spawn(async move { dio.refresh().await });
            }
            Step::Failing => {
                self.failing.fetch_add(1, Ordering::SeqCst);
                let dio = dio.clone();
                tokio::spawn(async move { dio.refresh().await });
            }
            Step::Restart => unreachable!("done by who holds the Dio"),
            Step::Pass(time) => tokio::time::sleep(Duration::from_millis(u64::from(*time))).await,
        }
    }

    async fn other(&self, dio: &Dio, id: &str, gone: bool, told: bool) {
        let event = match gone {
            true => {
                if self.master.row(id).await.is_none() {
                    return;
                }
                self.master.take(id).await;
                ChangeEvent::Deleted { id: id.into() }
            }
            false => {
                let row = product(id, "Other", self.count, 2);
                self.master.put(id, row.clone()).await;
                ChangeEvent::Updated { id: id.into(), new: Some(row) }
            }
        };
        if told {
            dio.handle_event(event).await.unwrap();
        }
    }
}

fn accepted<T>(done: Result<T, Error>) {
    match done {
        Ok(_) | Err(Error::NotFound { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Whoever reads now sees every stable row.
async fn check(dio: &Dio, scenery: Option<&TableScenery>) {
    let whole = |what: &str, ids: Vec<&str>| {
        let stable = ids.iter().filter(|id| id.starts_with('s')).count();
        assert_eq!(stable, STABLE as usize, "{what} sees a part");
    };
    whole("the facade", ids(&dio.vista().list_values().await.unwrap()));
    whole("the cache", ids(&dio.cache().list_values().await.unwrap()));
    if let Some(scenery) = scenery {
        whole("a scenery", ids(&scenery.rows()));
    }
}

async fn watch(dio: Dio) {
    let scenery = dio.table_scenery().page_size(1_000).open().await.unwrap();
    loop {
        check(&dio, Some(&scenery)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn live(put: Put, csv: bool, steps: Vec<Step>) {
    let mut world = World::new(put, csv);
    let (mut lens, mut dio) = world.open().await;
    let mut watching = tokio::spawn(watch(dio.clone()));
    for step in &steps {
        if matches!(step, Step::Restart) {
            stop(&mut watching).await;
            dio.close().await;
            drop((lens, dio));
            (lens, dio) = world.open().await;
            watching = tokio::spawn(watch(dio.clone()));
            continue;
        }
        world.step(&dio, step).await;
    }
    stop(&mut watching).await;
    at_rest(&world, &dio).await;
    drop(lens);
}

async fn stop(watching: &mut tokio::task::JoinHandle<()>) {
    watching.abort();
    if let Err(error) = watching.await
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

async fn at_rest(world: &World, dio: &Dio) {
    let settled = || dio.operations().iter().all(|op| op.state.is_final()) && dio.state().dirty().next().is_none();
    for _ in 0..1_000 {
        if settled() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(settled(), "it comes to rest: {:?}", dio.operations());
    world.failing.store(0, Ordering::SeqCst);
    // Changes of others that nobody told of; a refresh that is under way may have read too early.
    let _ = dio.refresh().await;
    dio.refresh().await.unwrap();
    let (expected, rows) = (world.master.rows().await, dio.cache().list_values().await.unwrap());
    let lacking: Vec<_> = expected.iter().filter(|(id, row)| rows.get(id).as_ref() != Some(row)).collect();
    assert!(lacking.is_empty(), "rows that differ: {lacking:?}");
    assert_eq!(rows.len(), expected.len());
    for id in &world.own {
        assert!(world.master.row(id).await.is_some(), "{id} was accepted and is lost");
    }
    assert!(dio.status().complete);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn replacements_are_never_seen_in_part_and_lose_nothing(
        put in 0..PUTS.len(),
        csv in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(live(PUTS[put], csv, steps));
    }
}
