//! The cache writer: brings the cache file up to the journal in the background.
//!
//! Changes are coalesced by slot while they wait, so that the table bounds the backlog. A failed write is kept and
//! retried; it does not affect readers.

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

/// The cache table of a Dio with its backlog.
pub(crate) struct Store {
    table: Arc<dyn RowTable>,
    backlog: Mutex<Backlog>,
    meta: tokio::sync::Mutex<CacheMeta>,
    /// Requests a flush before the next interval.
    pub(crate) full: Notify,
    /// True once it has been logged that the file is behind.
    behind: AtomicBool,
    /// True while the table may lack rows that are not in the backlog either, because [`Store::rewrite`] has failed on its way.
    is_partial: AtomicBool,
    /// True while the table lacks a change of the metadata, which the next flush stores.
    owes_meta: AtomicBool,
}

/// Number of rows in one transaction of the cache.
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
            is_partial: AtomicBool::default(),
            owes_meta: AtomicBool::default(),
        }
    }

    /// Why the table is behind, if its storage tells.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.table.trouble()
    }

    /// Adds changes up to position `upto` to the backlog. Never waits.
    pub(crate) fn add(&self, changes: impl IntoIterator<Item = CacheChange>, upto: Seq) {
        let mut backlog = self.backlog.lock();
        if self.table.keeps_rows() {
            changes.into_iter().for_each(|change| backlog.add(change));
        }
        backlog.upto = backlog.upto.max(upto);
        if backlog.rows.len() >= CHUNK {
            self.full.notify_one();
        }
    }

    /// Writes the backlog; returns the position that is on disk then.
    pub(crate) async fn flush(&self) -> Result<Seq, CacheError> {
        let mut meta = self.meta.lock().await;
        if self.is_partial.load(Ordering::Relaxed) {
            return Err(CacheError::corrupt("table", "it could not be filled again as a whole"));
        }
        let taken = std::mem::take(&mut *self.backlog.lock());
        let is_empty = taken.rows.is_empty() && taken.versions.is_empty() && taken.upto <= meta.watermark;
        if is_empty && !self.owes_meta.load(Ordering::Relaxed) {
            return Ok(meta.watermark);
        }
        let next = CacheMeta { watermark: taken.upto.max(meta.watermark), ..meta.clone() };
        match self.table.commit(taken.batch(next.clone())).await {
            Ok(()) => {
                *meta = next;
                self.owes_meta.store(false, Ordering::Relaxed);
                let mut backlog = self.backlog.lock();
                backlog.upto = backlog.upto.max(meta.watermark);
                Ok(meta.watermark)
            }
            Err(error) => {
                // Changes that came meanwhile are newer than those that could not be written.
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

    /// [`Store::flush`] after rows were erased.
    pub(crate) async fn flush_erased(&self) -> Result<Seq, CacheError> {
        self.table.note_erased().await?;
        self.flush().await
    }

    /// [`Store::flush`] for callers that continue after a failure: logs the first failure in a row.
    pub(crate) async fn flush_or_log(&self, dio: &str) {
        if let Err(error) = self.flush().await {
            if !self.behind.swap(true, Ordering::Relaxed) {
                tracing::warn!(dio, %error, "the cache file is behind; the next start brings it up to the journal");
            }
        } else {
            self.behind.store(false, Ordering::Relaxed);
        }
    }

    /// Flushes, then stores changed metadata. What cannot be stored now is stored by the next flush.
    pub(crate) async fn set_meta(&self, change: impl FnOnce(&mut CacheMeta)) -> Result<(), CacheError> {
        let flushed = self.flush().await;
        let mut meta = self.meta.lock().await;
        change(&mut meta);
        let stored = match flushed {
            Ok(_) => self.table.commit(CacheBatch { meta: Some(meta.clone()), ..CacheBatch::default() }).await,
            Err(error) => Err(error),
        };
        self.owes_meta.store(stored.is_err(), Ordering::Relaxed);
        stored
    }

    /// Stores a whole table that is not published yet, in chunks, marked as incomplete.
    pub(crate) async fn seed(&self, table: &Table) -> Result<(), CacheError> {
        let mut meta = self.meta.lock().await;
        let next = CacheMeta { bulk: true, ..meta.clone() };
        // The backlog is of removed rows, whose slots are reused. If other rows have come meanwhile, the caller stores
        // all again.
        self.backlog.lock().rows.clear();
        self.table.clear().await?;
        let mut rows = table.iter_slots();
        while self.table.keeps_rows() {
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

    /// Clears the table and stores every confirmed row again, marked as incomplete meanwhile.
    pub(crate) async fn rewrite(&self, state: impl Fn() -> Arc<State>) -> Result<(), CacheError> {
        if !self.table.keeps_rows() {
            return self.set_meta(|meta| meta.bulk = false).await;
        }
        {
            let mut meta = self.meta.lock().await;
            meta.bulk = true;
            self.is_partial.store(true, Ordering::Relaxed);
            self.table.clear().await?;
            self.table.commit(CacheBatch { meta: Some(meta.clone()), ..CacheBatch::default() }).await?;
            // Nothing is flushed meanwhile, and changes in the backlog are newer than this State.
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
            self.is_partial.store(false, Ordering::Relaxed);
        }
        self.set_meta(|meta| meta.bulk = false).await
    }
}

impl Backlog {
    fn add(&mut self, change: CacheChange) {
        match change {
            CacheChange::None => {}
            CacheChange::Upsert(id, row) => drop(self.rows.insert(row.slot, (id, Some(row)))),
            CacheChange::Delete(id, slot) => drop(self.rows.insert(slot, (id, None))),
            CacheChange::Versions(id, versions) => drop(self.versions.insert(id, versions)),
            CacheChange::Many(changes) => changes.into_iter().for_each(|change| self.add(change)),
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
