//! Subscribers of a source whose refreshes do not tell every difference: an event fits the rows that they have, and they are told to
//! read again for everything else, also after a crash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use diorama::cache::{MemoryCache, RedbCache};
use diorama::journal::{Journal, RedbJournal};
use diorama::{ChangeEvent, DioEvent, Error, Lens, LensBuilder, Result};
use diorama_core::dio::{CursorRead, Dio, Inbound, RingItem};
use diorama_core::journal::disk::{fate, images};

use super::harness::pairs::*;
use super::images::life::Disks;

/// Runs `life` on a clock that jumps to whatever is waited for.
fn run<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(life)
}

fn new_of(item: &RingItem) -> Option<Cells> {
    item.new.as_ref().map(|row| cells(&row.decode().unwrap()))
}

fn id_of(item: &RingItem) -> String {
    item.entry.as_ref().and_then(|entry| entry.id.clone()).unwrap_or_default().to_string()
}

/// A subscriber that reads all rows at an `Invalidated` that is not covered, and otherwise knows only what events tell.
struct Reader {
    next: u64,
    /// Position of the rows that were read.
    position: u64,
    rows: BTreeMap<String, Cells>,
    /// Number of times that it had to read again.
    reads: usize,
}

impl Reader {
    fn of(dio: &Dio) -> Reader {
        let state = dio.state();
        Reader { next: dio.ring().end(), position: state.seq(), rows: visible(&state), reads: 0 }
    }

    /// Hears everything so far.
    fn hear(&mut self, dio: &Dio) {
        while let CursorRead::Item(item) = dio.ring().at(self.next) {
            self.next += 1;
            if item.seq.is_some_and(|seq| seq > self.position) {
                self.hear_one(&item, dio);
            }
        }
    }

    fn hear_one(&mut self, item: &RingItem, dio: &Dio) {
        let (id, new) = (id_of(item), new_of(item));
        let put = |rows: &mut BTreeMap<String, Cells>| match new {
            Some(new) => rows.insert(id.clone(), new).is_some(),
            None => rows.remove(&id).is_some(),
        };
        let fits = match item.event {
            DioEvent::Invalidated if item.covered() => true,
            DioEvent::Invalidated => {
                (self.rows, self.position) = (visible(&dio.state()), dio.state().seq());
                self.reads += 1;
                true
            }
            DioEvent::RecordInserted { .. } => !put(&mut self.rows),
            DioEvent::RecordChanged { .. } | DioEvent::RecordRemoved { .. } => put(&mut self.rows),
            _ => true,
        };
        assert!(fits, "{:?} of {new:?} does not fit the rows of a subscriber", item.event);
    }
}

/// A change as a feed of all changes reports it.
fn fed(id: &str, new: Option<Cells>) -> Inbound {
    let id = id.to_string();
    let event = match new {
        Some(new) => ChangeEvent::Updated { id, new: Some(record(new)) },
        None => ChangeEvent::Deleted { id },
    };
    Inbound { in_order: true, ..Inbound::from(event) }
}

/// Copies the first list of `master`.
fn copying(lens: LensBuilder) -> LensBuilder {
    lens.on_start(|dio| {
        let dio = dio.clone();
        async move { if dio.status().complete { Ok(()) } else { relist(dio).await } }
    })
}

/// A master with two rows, of which a Dio has a copy before there are `rows` more.
async fn grown(lens: LensBuilder, rows: usize) -> (Lens, Dio, Scripted) {
    let master = Scripted::of_pairs(false, true);
    ["a", "b"].into_iter().for_each(|id| master.set_pair(id, Some((0, 0))));
    let lens = copying(lens.cache_source(MemoryCache::default())).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    (0..rows).for_each(|at| master.set_pair(&format!("r{at}"), Some((0, 0))));
    (lens, dio, master)
}

#[tokio::test(start_paused = true)]
async fn every_event_fits_while_a_large_refresh_is_applied_under_a_feed() {
    const ROWS: usize = 6_000;
    let lens = Lens::new().on_refresh(|dio| relist(dio.clone()));
    let (_lens, dio, _master) = grown(lens, ROWS).await;
    let mut reader = Reader::of(&dio);
    let refresh = tokio::spawn({
        let dio = dio.clone();
        async move { dio.refresh().await }
    });
    // The feed changes rows that the refresh has brought, others, and new ones, between its parts.
    let (mut random, mut between) = (fate(5), 0);
    for n in 1.. {
        let known = dio.state().table().len();
        if refresh.is_finished() {
            break;
        }
        between += usize::from(known > 2 && known < ROWS);
        let id = match random.below(8) {
            0 => "a".to_string(),
            1 => format!("new{}", random.below(5)),
            _ => format!("r{}", random.below(ROWS)),
        };
        let new = (random.below(3) > 0).then_some((n, 1));
        dio.handle_event(fed(&id, new)).await.unwrap();
        reader.hear(&dio);
    }
    refresh.await.unwrap().unwrap();
    reader.hear(&dio);
    assert!(between > 5, "{between} changes between the parts of the refresh");
    assert_eq!((reader.rows.clone(), reader.reads), (visible(&dio.state()), 1), "one refresh is announced once");
    dio.handle_event(fed("r1", Some((-1, 0)))).await.unwrap();
    reader.hear(&dio);
    assert_eq!(reader.rows, visible(&dio.state()), "events go on");
}

#[tokio::test(start_paused = true)]
async fn every_event_goes_on_after_a_large_refresh_that_failed_or_was_dropped() {
    let failing = Lens::new().on_refresh(|dio| {
        let dio = dio.clone();
        async move {
            relist(dio).await?;
            Err(Error::permanent("after the list"))
        }
    });
    let (_lens, dio, master) = grown(failing, 3_000).await;
    let mut reader = Reader::of(&dio);
    dio.refresh().await.unwrap_err();
    assert_eq!(dio.state().table().len(), 3_002);
    eventually("an announcement", || !dio.state().has_untold()).await;
    reader.hear(&dio);
    assert_eq!(reader.rows, visible(&dio.state()));
    // A list of the program, whose future is dropped after the first of its parts.
    (0..3_000).for_each(|at| master.set_pair(&format!("s{at}"), Some((0, 0))));
    let list = dio.begin_list().await.unwrap();
    let rows = dio.master().list_values().await.unwrap();
    {
        let mut finish = std::pin::pin!(list.finish(rows));
        while dio.state().table().len() < 3_100 {
            tokio::select! {
                biased;
                _ = &mut finish => break,
                () = tokio::task::yield_now() => {}
            }
        }
    }
    assert!(dio.state().table().len() < 6_000, "it was dropped in time");
    eventually("an announcement", || !dio.state().has_untold()).await;
    reader.hear(&dio);
    dio.handle_event(fed("s1", None)).await.unwrap();
    reader.hear(&dio);
    assert_eq!(reader.rows, visible(&dio.state()));
}

/// Lists the master into the cache without events, as programs do.
async fn relist_silently(dio: Dio) -> Result<()> {
    dio.cache().insert_values(dio.master().list_values().await?).await
}

async fn on_disks(disks: &Disks, master: &Scripted) -> (Lens, Dio) {
    let lens = Lens::new()
        .cache_file(RedbCache::with_backend(disks.cache.factory()).unwrap())
        .journal_source(Arc::new(RedbJournal::with_backend(disks.journal.factory()).unwrap()) as Arc<dyn Journal>)
        .settings(|settings| settings.drain_timeout = Duration::ZERO)
        .on_refresh(|dio| relist_silently(dio.clone()));
    let lens = copying(lens).build().unwrap();
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    (lens, dio)
}

/// What a subscriber from the first position on knows of rows at the head of the log: `None` for rows that it has read again.
async fn known_of(dio: &Dio) -> BTreeMap<String, Option<Cells>> {
    let past = dio.log().past(0, usize::MAX).await.unwrap().unwrap();
    let mut known: BTreeMap<String, Option<Cells>> = BTreeMap::new();
    let mut has_read = false;
    for item in &past.items {
        let (id, new) = (id_of(item), new_of(item));
        let before = known.get(&id).copied();
        let fits = match item.event {
            DioEvent::Invalidated if !item.covered() => {
                known.clear();
                has_read = true;
                continue;
            }
            DioEvent::RecordInserted { .. } => before.flatten().is_none(),
            DioEvent::RecordChanged { .. } | DioEvent::RecordRemoved { .. } => {
                before.map_or(has_read, |before| before.is_some())
            }
            _ => continue,
        };
        assert!(fits, "{:?} does not fit {before:?}", item.event);
        known.insert(id, new);
    }
    if !has_read {
        for id in visible(&dio.state()).into_keys() {
            known.entry(id).or_default();
        }
    }
    known
}

#[test]
fn crash_wherever_the_power_is_cut_a_change_without_an_event_is_announced() {
    let (disks, mut random) = (Disks::empty(), fate(31));
    run(async {
        let master = Scripted::of_pairs(false, true);
        (0..6).for_each(|at| master.set_pair(&format!("r{at}"), Some((0, 0))));
        let (lens, dio) = on_disks(&disks, &master).await;
        for n in 1..30 {
            master.set_pair(&format!("r{}", random.below(8)), (random.below(4) > 0).then_some((n, 0)));
            dio.refresh().await.unwrap();
            let new = (random.below(3) > 0).then_some((n, 1));
            dio.handle_event(fed(&format!("f{}", random.below(3)), new)).await.unwrap();
            if random.below(4) == 0 {
                // The cache file is written meanwhile.
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
        dio.close().await;
        lens.close().await;
    });
    let mut between = 0;
    for _ in 0..images() / 40 {
        let image = disks.image(random.below(disks.now() + 1) as usize, &mut random);
        run(async {
            let master = Scripted::of_pairs(false, true);
            let (_lens, dio) = on_disks(&image, &master).await;
            let (rows, known) = (visible(&dio.state()), known_of(&dio).await);
            between += usize::from(known.is_empty() && !rows.is_empty());
            for (id, known) in known {
                assert_eq!(known, rows.get(&id).copied(), "{id} is not what a subscriber was told");
            }
        });
    }
    assert!(between > 0, "no image was cut between a change and its announcement");
}

#[tokio::test(start_paused = true)]
async fn every_event_a_start_that_only_removes_rows_silently_announces_them() {
    let (disks, master) = (Disks::empty(), Scripted::of_pairs(false, true));
    (0..3).for_each(|at| master.set_pair(&format!("r{at}"), Some((0, 0))));
    let silent = |disks: &Disks| {
        Lens::new()
            .cache_file(RedbCache::with_backend(disks.cache.factory()).unwrap())
            .journal_source(Arc::new(RedbJournal::with_backend(disks.journal.factory()).unwrap()) as Arc<dyn Journal>)
            .on_start(|dio| relist_silently(dio.clone()))
            .build()
            .unwrap()
    };
    let lens = silent(&disks);
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    let head = dio.position().seq;
    dio.close().await;
    lens.close().await;
    master.set_pair("r1", None);
    let lens = silent(&disks);
    let dio = lens.make_dio(master.vista("d")).await.unwrap();
    assert_eq!(visible(&dio.state()).len(), 2);
    let past = dio.log().past(head, usize::MAX).await.unwrap().unwrap();
    assert!(past.items.iter().any(|item| item.event == DioEvent::Invalidated && !item.covered()), "{past:?}");
}
