use diorama_core::cache::MemoryCache;
use diorama_core::journal::{Journal, MemoryJournal};
use diorama_core::vista::{ChangeEvent, Column, ColumnType, Schema};
use diorama_core::{Lens, Record};

use super::*;
use crate::memory::MemoryTable;

const KEY: &str = "test:1";

/// Files of a Lens, in memory.
#[derive(Default)]
struct Files {
    cache: Arc<MemoryCache>,
    journal: Arc<MemoryJournal>,
    /// Held while a list that was read is not applied.
    applying: Arc<tokio::sync::Mutex<()>>,
}

impl Files {
    /// A Dio of one row, whose first copy is made once, and the intake of its feed.
    async fn open(&self) -> (Lens, Dio, Intake) {
        let applying = Arc::clone(&self.applying);
        let list = move |dio: &Dio| {
            let (dio, applying) = (dio.clone(), Arc::clone(&applying));
            async move {
                let rows = dio.master().list_values().await?;
                let _applying = applying.lock().await;
                dio.reconcile(rows).await.map(drop)
            }
        };
        let first = list.clone();
        let copy = move |dio: &Dio| {
            let (copied, listing) = (dio.status().complete, first(dio));
            async move { if copied { Ok(()) } else { listing.await } }
        };
        let lens = Lens::new()
            .cache_source(Arc::clone(&self.cache))
            .journal_source(Arc::clone(&self.journal) as Arc<dyn Journal>)
            .on_start(copy)
            .on_refresh(list);
        let lens = lens.build().unwrap();
        let schema = Schema::new("id", vec![Column::new("id", ColumnType::String)]);
        let row = Record::from_iter([("id".to_string(), "a".into())]);
        let dio = lens.make_dio(MemoryTable::vista("d", schema, [("a".to_string(), row)])).await.unwrap();
        let intake = Intake::new(&dio, "test".into(), KEY, (Duration::from_millis(1), Duration::from_secs(1)));
        (lens, dio, intake)
    }

    async fn stored(&self) -> Option<Bytes> {
        self.journal.mark(&format!("f/d/{KEY}")).await.unwrap()
    }
}

fn gone(id: &str) -> Vec<Inbound> {
    let event = ChangeEvent::Deleted { id: id.into() };
    vec![Inbound { version: Some(1.into()), clock: Some("feed".into()), ..Inbound::from(event) }]
}

async fn close((lens, dio, intake): (Lens, Dio, Intake)) {
    drop(intake);
    dio.close().await;
    lens.close().await;
}

#[tokio::test(start_paused = true)]
async fn positions_without_changes_are_stored_at_intervals() {
    let files = Files::default();
    let (lens, dio, mut intake) = files.open().await;
    assert_eq!(intake.resume().await, None);
    assert!(intake.begin_refresh());
    intake.refreshed().await;
    assert!(intake.apply(Vec::new(), Some("1".into())).await);
    intake.refreshed().await;
    assert_eq!(intake.stored_position(), Some(&"1".into()), "the first one at once");
    let first = files.stored().await;
    assert!(first.is_some());
    let passed = async |intake: &mut Intake, time| {
        let _ = tokio::time::timeout(time, intake.refreshed()).await;
    };
    for at in 2..=10 {
        assert!(intake.apply(Vec::new(), Some(at.to_string().into())).await);
        passed(&mut intake, Duration::from_secs(1)).await;
    }
    assert_eq!(files.stored().await, first);
    passed(&mut intake, Duration::from_secs(2)).await;
    assert_eq!(intake.stored_position(), Some(&"10".into()));
    let second = files.stored().await;
    assert_ne!(second, first);
    // With a change it is stored at once.
    assert!(intake.apply(gone("b"), Some("11".into())).await);
    assert_ne!(files.stored().await, second);
    assert_eq!(intake.stored_position(), Some(&"11".into()));
    // Changes inside of a transaction have no position.
    assert!(intake.apply(gone("c"), None).await);
    assert_eq!(intake.stored_position(), Some(&"11".into()));
    close((lens, dio, intake)).await;
    let (lens, dio, mut intake) = files.open().await;
    assert_eq!(intake.resume().await, Some("11".into()));
    assert!(!intake.owes_refresh());
    close((lens, dio, intake)).await;
}

#[tokio::test(start_paused = true)]
async fn a_mark_says_that_a_refresh_is_owed_until_one_has_ended() {
    let files = Files::default();
    let (lens, dio, mut intake) = files.open().await;
    assert!(intake.apply(gone("b"), Some("1".into())).await);
    close((lens, dio, intake)).await;
    let (lens, dio, mut intake) = files.open().await;
    assert_eq!(intake.resume().await, Some("1".into()));
    assert!(intake.owes_refresh(), "the first refresh had not begun");
    assert!(intake.begin_refresh());
    assert!(intake.apply(gone("c"), Some("2".into())).await);
    close((lens, dio, intake)).await;
    let (lens, dio, mut intake) = files.open().await;
    assert_eq!(intake.resume().await, Some("2".into()));
    assert!(intake.owes_refresh(), "it had not ended");
    assert!(intake.begin_refresh());
    intake.refreshed().await;
    intake.refreshed().await;
    close((lens, dio, intake)).await;
    let (lens, dio, mut intake) = files.open().await;
    assert_eq!(intake.resume().await, Some("2".into()));
    assert!(!intake.owes_refresh());
    close((lens, dio, intake)).await;
}

/// A sender whose connections end after each change, or at once.
struct Flapping {
    sends: bool,
    connects: Arc<std::sync::atomic::AtomicU32>,
}

#[async_trait]
impl Channel for Flapping {
    type Connection = ();

    fn resume(&mut self, _: &Bytes) -> bool {
        false
    }

    async fn connect(&mut self, _: &mut Intake) -> std::result::Result<(), String> {
        self.connects.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    async fn listen(&mut self, (): (), intake: &mut Intake) -> std::result::Result<(), String> {
        if self.sends && !intake.apply(gone("b"), None).await {
            return Ok(());
        }
        Err("the connection was lost".into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_has_applied_something_connects_again_at_once() {
    for (sends, expected) in [(true, 10..1_000_000), (false, 1..13)] {
        let files = Files::default();
        let (lens, dio, mut intake) = files.open().await;
        intake.backoff = (Duration::from_millis(500), Duration::from_secs(30));
        let connects = Arc::<std::sync::atomic::AtomicU32>::default();
        dio.listen(follow(Flapping { sends, connects: Arc::clone(&connects) }, intake));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let connects = connects.load(std::sync::atomic::Ordering::Relaxed);
        assert!(expected.contains(&connects), "{connects} connections within a minute");
        dio.close().await;
        lens.close().await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn known_rows_are_returned_once_and_in_parts() {
    let files = Files::default();
    let (lens, dio, mut intake) = files.open().await;
    for n in 0..25 {
        let id = n.to_string();
        dio.patched(id.as_str(), Record::from_iter([("id".to_string(), id.as_str().into())])).await.unwrap();
    }
    let mut known = intake.known_rows().unwrap();
    let mut parts = Vec::new();
    while !known.is_at_end() {
        parts.push(known.next(10));
    }
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 6]);
    let ids: std::collections::HashSet<String> = parts.into_iter().flatten().collect();
    assert_eq!(ids.len(), 26, "and the row of the first copy");
    close((lens, dio, intake)).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(start_paused = true)]
async fn rows_of_a_list_under_way_do_not_outlive_the_removal_of_all() {
    let files = Files::default();
    let (lens, dio, mut intake) = files.open().await;
    let row = |id: &str| Record::from_iter([("id".to_string(), id.into())]);
    let applying = files.applying.lock().await;
    dio.master().insert("b", &row("b")).await.unwrap();
    assert!(intake.begin_refresh());
    // The list is read, with a row that the Dio does not know.
    for _ in 0..100 {
        assert!(intake.refreshed().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    for id in ["a", "b"] {
        dio.master().delete(id).await.unwrap();
    }
    dio.master().insert("c", &row("c")).await.unwrap();
    let mut events: Vec<ChangeEvent> = Vec::new();
    let mut known = intake.known_rows().unwrap();
    events.extend(known.next(10).into_iter().map(|id| ChangeEvent::Deleted { id }));
    events.push(ChangeEvent::Inserted { id: "c".into(), new: Some(row("c")) });
    let changes = events.into_iter().map(|event| Inbound { in_order: true, ..Inbound::from(event) });
    assert!(intake.apply(changes.collect(), None).await);
    drop(applying);
    while intake.owes_refresh() {
        assert!(intake.begin_refresh());
        intake.refreshed().await;
    }
    let ids: Vec<String> = dio.state().table().natural(0).map(|row| row.id().to_string()).collect();
    assert_eq!(ids, ["c"]);
    close((lens, dio, intake)).await;
}
