//! The cache writer: brings the cache file up to the journal, behind the readers' backs.
//!
//! Changes are coalesced by slot while they wait, so that the backlog is bounded by the table. A failed write is kept and tried
//! again; readers never notice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cache::{CacheBatch, CacheError, CacheMeta, RowTable, StoredRow};
use crate::journal::Seq;
use crate::record::Id;
use crate::state::{BaseRow, CacheChange, State};
use crate::table::{Slot, Table};

/// Changes that wait for the cache file.
#[derive(Default)]
struct Backlog {
    rows: HashMap<Slot, (Id, Option<BaseRow>)>,
    versions: HashMap<Id, Option<Bytes>>,
    upto: Seq,
}

/// The cache table of a Dio with what waits for it.
pub(crate) struct Store {
    table: Arc<dyn RowTable>,
    backlog: Mutex<Backlog>,
    meta: tokio::sync::Mutex<CacheMeta>,
    /// Asks the writer to flush before its time.
    pub(crate) full: Notify,
    /// Whether somebody was told that the file is behind.
    behind: AtomicBool,
}

/// Rows in one transaction of the cache.
const CHUNK: usize = 5_000;

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn new(table: Arc<dyn RowTable>, meta: CacheMeta) -> Store {
        let backlog = Mutex::new(Backlog { upto: meta.watermark, ..Backlog::default() });
        Store {
            table,
            backlog,
            meta: tokio::sync::Mutex::new(meta),
            full: Notify::new(),
            behind: AtomicBool::default(),
        }
    }

    /// Takes note of changes up to position `upto`. Never waits.
    pub(crate) fn learn(&self, changes: impl IntoIterator<Item = CacheChange>, upto: Seq) {
        let mut backlog = self.backlog.lock();
        for change in changes {
            backlog.learn(change);
        }
        backlog.upto = backlog.upto.max(upto);
        if backlog.rows.len() >= CHUNK {
            self.full.notify_one();
        }
    }

    /// Writes what waits; returns the position that is on disk then.
    pub(crate) async fn flush(&self) -> Result<Seq, CacheError> {
        let mut meta = self.meta.lock().await;
        let taken = std::mem::take(&mut *self.backlog.lock());
        if taken.rows.is_empty() && taken.versions.is_empty() && taken.upto <= meta.watermark {
            return Ok(meta.watermark);
        }
        let next = CacheMeta { watermark: taken.upto.max(meta.watermark), ..meta.clone() };
        match self.table.commit(taken.batch(next.clone())).await {
            Ok(()) => {
                *meta = next;
                let mut backlog = self.backlog.lock();
                backlog.upto = backlog.upto.max(meta.watermark);
                Ok(meta.watermark)
            }
            Err(error) => {
                // What came meanwhile is newer than what could not be written.
                let mut backlog = self.backlog.lock();
                for (slot, row) in taken.rows {
                    backlog.rows.entry(slot).or_insert(row);
                }
                for (id, versions) in taken.versions {
                    backlog.versions.entry(id).or_insert(versions);
                }
                backlog.upto = backlog.upto.max(taken.upto);
                Err(error)
            }
        }
    }

    /// [`Store::flush`] of what erases rows.
    pub(crate) async fn flush_erased(&self) -> Result<Seq, CacheError> {
        self.table.note_erased().await?;
        self.flush().await
    }

    /// [`Store::flush`] for those who go on without: says once that the file is behind, until it no longer is.
    pub(crate) async fn flush_or_tell(&self, dio: &str) {
        if let Err(error) = self.flush().await {
            if !self.behind.swap(true, Ordering::Relaxed) {
                tracing::warn!(dio, %error, "the cache file is behind; the next start brings it up to the journal");
            }
        } else {
            self.behind.store(false, Ordering::Relaxed);
        }
    }

    /// Flushes and stores changed meta in the same way.
    pub(crate) async fn set_meta(&self, change: impl FnOnce(&mut CacheMeta)) -> Result<(), CacheError> {
        self.flush().await?;
        let mut meta = self.meta.lock().await;
        let mut next = meta.clone();
        change(&mut next);
        self.table.commit(CacheBatch { meta: Some(next.clone()), ..CacheBatch::default() }).await?;
        *meta = next;
        Ok(())
    }

    /// Stores a whole table built aside, in chunks, marked as under way: nobody has seen it yet.
    pub(crate) async fn seed(&self, table: &Table) -> Result<(), CacheError> {
        let mut meta = self.meta.lock().await;
        let next = CacheMeta { bulk: true, ..meta.clone() };
        // What waits is of rows that are gone, in slots that are given anew. Should others have come, all are stored again.
        self.backlog.lock().rows.clear();
        self.table.clear().await?;
        let mut rows = table.iter_slots();
        loop {
            let upserts: Vec<StoredRow> = rows
                .by_ref()
                .take(4 * CHUNK)
                .map(|row| StoredRow {
                    slot: row.slot(),
                    ordinal: row.ordinal(),
                    id: row.id().into(),
                    body: row.body(),
                })
                .collect();
            if upserts.is_empty() {
                break;
            }
            self.table.commit(CacheBatch { upserts, meta: Some(next.clone()), ..CacheBatch::default() }).await?;
        }
        *meta = next;
        Ok(())
    }

    /// Forgets what is stored and stores every confirmed row, marked as under way meanwhile.
    pub(crate) async fn rewrite(&self, state: impl Fn() -> Arc<State>) -> Result<(), CacheError> {
        {
            let mut meta = self.meta.lock().await;
            meta.bulk = true;
            self.table.clear().await?;
            self.table.commit(CacheBatch { meta: Some(meta.clone()), ..CacheBatch::default() }).await?;
            // Nothing is flushed meanwhile, and what waits is newer than this State.
            let state = state();
            let hidden = state.folds().map(|(id, _)| Id::clone(id));
            let ids = state.table().iter_slots().map(|row| Id::from(row.id())).chain(hidden);
            let rows = ids.filter_map(|id| state.base(&id).map(|base| (id, base)));
            let mut backlog = self.backlog.lock();
            for (id, base) in rows {
                backlog.rows.entry(base.slot).or_insert((id, Some(base)));
            }
            for (id, versions) in state.all_versions() {
                backlog.versions.entry(id).or_insert(Some(versions));
            }
            backlog.upto = backlog.upto.max(state.seq());
        }
        self.set_meta(|meta| meta.bulk = false).await
    }
}

impl Backlog {
    fn learn(&mut self, change: CacheChange) {
        match change {
            CacheChange::None => {}
            CacheChange::Upsert(id, row) => drop(self.rows.insert(row.slot, (id, Some(row)))),
            CacheChange::Delete(id, slot) => drop(self.rows.insert(slot, (id, None))),
            CacheChange::Versions(id, versions) => drop(self.versions.insert(id, versions)),
            CacheChange::Many(changes) => changes.into_iter().for_each(|change| self.learn(change)),
        }
    }

    fn batch(&self, meta: CacheMeta) -> CacheBatch {
        let mut batch = CacheBatch { meta: Some(meta), ..CacheBatch::default() };
        for (slot, (id, row)) in &self.rows {
            match row {
                None => batch.deletes.push((*slot, Arc::clone(id))),
                Some(row) => batch.upserts.push(StoredRow {
                    slot: *slot,
                    ordinal: row.ordinal,
                    id: Arc::clone(id),
                    body: row.body.clone(),
                }),
            }
        }
        batch.versions = self.versions.iter().map(|(id, versions)| (Arc::clone(id), versions.clone())).collect();
        batch.versions.sort_unstable();
        batch.deletes.sort_unstable();
        batch.upserts.sort_unstable_by_key(|row| row.slot);
        batch
    }
}
