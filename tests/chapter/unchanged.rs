//! Masters that recognize their last list, or can tell what has changed since.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use diorama::vista::Capabilities;
use diorama::{Dio, Lens, Query, Record, Result, Rows, Schema, TableShell, Vista, WriteOp, Written};

use crate::harness::*;
use crate::refresh::pass;

/// Rows with the time of their last change, which is also the version of the list.
#[derive(Clone, Default)]
struct Versioned(Arc<Inner>);

#[derive(Default)]
struct Inner {
    rows: Mutex<Vec<(String, Record, u64)>>,
    time: AtomicUsize,
    /// Number of whole lists.
    lists: AtomicUsize,
    /// Number of lists of changes.
    changes: AtomicUsize,
    tells_changes: bool,
    /// Set when the whole list is due.
    whole_due: std::sync::atomic::AtomicBool,
    /// Gate of lists of changes.
    reads: Gate,
}

impl Versioned {
    fn new(tells_changes: bool) -> Versioned {
        let master = Versioned(Arc::new(Inner { tells_changes, ..Inner::default() }));
        // More than the shrink guard overlooks.
        (1..=300).for_each(|n| master.put(&n.to_string(), n));
        master
    }

    fn put(&self, id: &str, price: i64) {
        let time = self.0.time.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        let mut rows = self.0.rows.lock().unwrap();
        rows.retain(|(own, ..)| own != id);
        rows.push((id.to_string(), product(id, "Cake", price, 1), time));
    }

    fn take(&self, id: &str) {
        self.0.time.fetch_add(1, Ordering::SeqCst);
        self.0.rows.lock().unwrap().retain(|(own, ..)| own != id);
    }

    fn rows(&self, since: u64) -> Rows {
        let rows = self.0.rows.lock().unwrap();
        let time = self.0.time.load(Ordering::SeqCst).to_string();
        let rows: Rows =
            rows.iter().filter(|row| row.2 > since).map(|(id, record, _)| (id.clone(), record.clone())).collect();
        match self.0.tells_changes {
            true => rows.with_since(Some(time)),
            false => rows.with_fingerprint(Some(time)),
        }
    }

    /// Numbers of whole lists and of lists of changes since the last call.
    fn calls(&self) -> (usize, usize) {
        (self.0.lists.swap(0, Ordering::SeqCst), self.0.changes.swap(0, Ordering::SeqCst))
    }
}

#[async_trait]
impl TableShell for Versioned {
    fn schema(&self) -> Arc<Schema> {
        Arc::new(schema())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    async fn list(&self, _: &Query) -> Result<Rows> {
        self.0.lists.fetch_add(1, Ordering::SeqCst);
        Ok(self.rows(0))
    }

    async fn list_changed(&self, fingerprint: &str) -> Result<Option<Rows>> {
        if fingerprint == self.0.time.load(Ordering::SeqCst).to_string() {
            return Ok(None);
        }
        self.list(&Query::default()).await.map(Some)
    }

    async fn list_since(&self, since: &str) -> Result<Option<Rows>> {
        if self.0.whole_due.swap(false, Ordering::SeqCst) {
            return Ok(None);
        }
        self.0.changes.fetch_add(1, Ordering::SeqCst);
        self.0.reads.pass().await;
        Ok(Some(self.rows(since.parse().unwrap())))
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        let price =
            op.record().and_then(|record| record["price"].as_integer()).map_or(0, |price| price.try_into().unwrap());
        self.put(op.id().unwrap(), price);
        Ok(Written::default())
    }
}

/// More than the time between two timed refreshes.
const INTERVAL: Duration = Duration::from_secs(61);

async fn open_dio(master: &Versioned) -> (Lens, Dio) {
    open_with(memory(), master).await
}

/// Opens a Dio that is refreshed each minute.
async fn open_timed(master: &Versioned) -> (Lens, Dio) {
    open_with(memory().refresh_every(Duration::from_secs(60)), master).await
}

async fn open_with(lens: diorama::LensBuilder, master: &Versioned) -> (Lens, Dio) {
    let lens = lens
        .on_start(|dio| {
            let dio = dio.clone();
            async move { dio.reconcile_master().await.map(drop) }
        })
        .on_refresh(|dio| {
            let dio = dio.clone();
            async move { dio.reconcile_master().await.map(drop) }
        });
    let lens = lens.build().unwrap();
    let dio = lens.make_dio(Vista::new("products", master.clone())).await.unwrap();
    (lens, dio)
}

async fn assert_copy(dio: &Dio, master: &Versioned) {
    let mut expected: Vec<(String, Record)> = master.rows(0).into_iter().collect();
    let mut copy: Vec<(String, Record)> = dio.cache().list_values().await.unwrap().into_iter().collect();
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    copy.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(copy, expected);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_the_master_recognizes_is_not_read_again() {
    let master = Versioned::new(false);
    let (_lens, dio) = open_dio(&master).await;
    assert_eq!(master.calls(), (1, 0));
    // A list that changes nothing shows that the copy equals it.
    dio.refresh().await.unwrap();
    assert_eq!(master.calls(), (1, 0));
    for _ in 0..3 {
        dio.refresh().await.unwrap();
        assert_eq!(master.calls(), (0, 0));
        assert!(!dio.status().stale);
    }
    master.put("3", 99);
    dio.refresh().await.unwrap();
    assert_eq!(master.calls(), (1, 0));
    assert_copy(&dio, &master).await;
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_changed_since_is_compared_with_the_whole_list() {
    let master = Versioned::new(false);
    let (_lens, dio) = open_dio(&master).await;
    dio.refresh().await.unwrap();
    dio.refresh().await.unwrap();
    master.calls();
    // An event of somebody else that the master knows nothing of.
    let wrong = diorama::ChangeEvent::Updated { id: "2".into(), new: Some(product("2", "Wrong", 1, 1)) };
    dio.handle_event(wrong).await.unwrap();
    dio.refresh().await.unwrap();
    assert_eq!(master.calls(), (1, 0));
    assert_copy(&dio, &master).await;
}

#[tokio::test(start_paused = true)]
async fn between_whole_lists_a_timed_refresh_asks_for_the_changes_only() {
    let master = Versioned::new(true);
    let (_lens, dio) = open_timed(&master).await;
    assert_eq!(master.calls(), (1, 0));
    master.put("3", 99);
    master.put("new", 9);
    pass(INTERVAL).await;
    assert_eq!(master.calls(), (0, 1));
    assert_copy(&dio, &master).await;
    // A deleted row stays until the whole list is due.
    master.take("1");
    pass(INTERVAL).await;
    assert!(dio.cache().get_value("1").await.unwrap().is_some());
    assert_eq!(master.calls(), (0, 1));
    master.0.whole_due.store(true, Ordering::SeqCst);
    pass(INTERVAL).await;
    assert_eq!(master.calls(), (1, 0));
    assert_copy(&dio, &master).await;
    pass(INTERVAL).await;
    assert_eq!(master.calls(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_somebody_asks_for_reads_the_whole_list() {
    let master = Versioned::new(true);
    let (_lens, dio) = open_timed(&master).await;
    pass(INTERVAL).await;
    assert_eq!(master.calls(), (1, 1));
    master.take("1");
    let report = dio.refresh().await.unwrap();
    assert_eq!((report.inserted, report.changed, report.removed), (0, 0, 1));
    assert_eq!(master.calls(), (1, 0));
    assert_copy(&dio, &master).await;
    // So does a change of which nothing else is known, which may be a delete.
    master.take("2");
    dio.handle_event(diorama::ChangeEvent::Invalidated).await.unwrap();
    assert_eq!(master.calls(), (1, 0));
    assert_copy(&dio, &master).await;
    pass(INTERVAL).await;
    assert_eq!(master.calls(), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_somebody_asks_for_does_not_join_one_that_asks_for_changes() {
    let master = Versioned::new(true);
    let (_lens, dio) = open_timed(&master).await;
    master.calls();
    let reads = master.0.reads.clone();
    reads.close();
    tokio::time::sleep(INTERVAL).await;
    reads.waited_at(1).await;
    master.take("1");
    let asked = [dio.clone(), dio.clone()].map(|dio| tokio::spawn(async move { dio.refresh().await.unwrap() }));
    breathe().await;
    reads.open();
    for asked in asked {
        assert_eq!(asked.await.unwrap().removed, 1);
    }
    assert_eq!(master.calls(), (1, 1), "and those who ask join each other");
    assert_copy(&dio, &master).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_applied_is_read_again_as_a_whole() {
    let master = Versioned::new(true);
    let (_lens, dio) = open_timed(&master).await;
    master.calls();
    (1..=200).for_each(|n| master.take(&n.to_string()));
    master.0.whole_due.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        pass(INTERVAL).await;
        assert!(dio.status().stale, "it has lost most of its rows");
        assert_eq!(master.calls(), (1, 0));
    }
    (1..=200).for_each(|n| master.put(&n.to_string(), n));
    pass(INTERVAL).await;
    assert_eq!(master.calls(), (1, 0));
    assert_copy(&dio, &master).await;
}
