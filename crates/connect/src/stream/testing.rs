//! A resource that follows a topic, for the tests of brokers.

use std::collections::BTreeMap;
use std::time::Duration;

use diorama_core::Dio;
use diorama_core::lens::Lens;
use diorama_core::record::CborValue;
use diorama_core::table::RowRef;
use diorama_core::vista::{Column, ColumnType, Result, Schema, Vista};
use diorama_inbound::{Format, Hook, Scheme};
use tempfile::TempDir;

use crate::connector::FeedFormat;
use crate::memory::MemoryTable;

/// Time within which a test must come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// The files of a Lens and a source in memory, which outlive the [`Followed`] on them.
pub(crate) struct World {
    folder: TempDir,
    /// The source.
    pub(crate) source: Vista,
}

impl World {
    /// A source without rows, with the columns `id` and `n`.
    pub(crate) fn new() -> World {
        let columns = vec![Column::new("id", ColumnType::String), Column::new("n", ColumnType::Integer)];
        let source = MemoryTable::vista("rows", Schema::new("id", columns), []);
        World { folder: tempfile::tempdir().unwrap(), source }
    }

    /// Opens the resource and starts its feed.
    pub(crate) async fn open(&self, start: impl FnOnce(&Dio)) -> Followed {
        let lens = Lens::new().on_start(|dio| list_once(dio.clone())).on_refresh(|dio| list(dio.clone()));
        let lens = lens.cache_at(self.folder.path().join("cache.redb")).build().unwrap();
        let dio = lens.dio(self.source.clone()).make().await.unwrap();
        start(&dio);
        Followed { dio, lens }
    }
}

/// A resource with its feed.
pub(crate) struct Followed {
    pub(crate) dio: Dio,
    lens: Lens,
}

async fn list_once(dio: Dio) -> Result<()> {
    if dio.status().complete { Ok(()) } else { list(dio).await }
}

async fn list(dio: Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.reconcile(rows).await.map(drop)
}

impl Followed {
    /// Waits until `holds`.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let late = tokio::time::timeout(PATIENCE, waiting).await.is_err();
        assert!(!late, "{what}: {:?}; rows {:?}", self.dio.status().feeds, self.rows());
    }

    /// Waits until the rows are `expected`: the value of `n` by id.
    pub(crate) async fn shows(&self, expected: &[(&str, i64)]) {
        let expected: BTreeMap<String, CborValue> =
            expected.iter().map(|(id, value)| (id.to_string(), CborValue::from(*value))).collect();
        self.until(&format!("{expected:?}"), || self.rows() == expected).await;
    }

    /// The value of `n` by id.
    pub(crate) fn rows(&self) -> BTreeMap<String, CborValue> {
        let state = self.dio.state();
        let value = |row: RowRef<'_>| row.body().decode().unwrap().get("n").cloned().unwrap_or(CborValue::Null);
        state.table().natural(0).map(|row| (row.id().to_string(), value(row))).collect()
    }

    /// Number of times that the source was read as a whole by the feed.
    pub(crate) fn lists(&self) -> u64 {
        self.dio.counters().refreshed.count
    }

    /// Messages of the feed that could not be decoded.
    pub(crate) fn undecodable(&self) -> u64 {
        self.dio.status().feeds.iter().map(|feed| feed.undecodable).sum()
    }

    pub(crate) async fn close(self) {
        self.dio.close().await;
        self.lens.close().await;
    }
}

/// Format of native messages.
pub(crate) fn native() -> FeedFormat {
    FeedFormat::Inbound(Box::new(Hook::new(Scheme::None)))
}

/// Format of a preset.
pub(crate) fn preset(name: &str, only: Option<&str>) -> FeedFormat {
    let map = diorama_inbound::preset(name, only, "", &[]).unwrap();
    FeedFormat::Inbound(Box::new(Hook::new(Scheme::None).format(Format::Map(map))))
}

/// Format of CloudEvents.
pub(crate) fn cloudevents() -> FeedFormat {
    FeedFormat::Inbound(Box::new(Hook::new(Scheme::None).format(Format::CloudEvents { batches: false })))
}
