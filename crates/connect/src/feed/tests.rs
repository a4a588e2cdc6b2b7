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
}

impl Files {
    /// A Dio of one row, whose first copy is made once, and the intake of its feed.
    async fn open(&self) -> (Lens, Dio, Intake) {
        let list = |dio: &Dio| {
            let dio = dio.clone();
            async move {
                let rows = dio.master().list_values().await?;
                dio.reconcile(rows).await.map(drop)
            }
        };
        let copy = move |dio: &Dio| {
            let (copied, listing) = (dio.status().complete, list(dio));
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
    vec![Inbound { version: Some(1.into()), clock: Some(CLOCK.into()), ..Inbound::from(event) }]
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
