//! Table of one Dio in the cache file: store, load, clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

use super::format::{
    RowBytes, Rows, Versions, decode_row, encode_row, row_sum, stored_sum, stored_versions, too_large,
};
use super::{AHEAD, BATCH, Inner, META, OPTIONS, cache_error};
use crate::cache::{CacheBatch, CacheError, CacheMeta, LoadReport, RowTable, StoredRow};
use crate::record::{Body, Id, Layout};
use crate::redb_file::{Fault, blocking, note_erased, seal, unseal};

/// Table of one Dio in the file.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) inner: Arc<Inner>,
    pub(super) name: String,
    /// Generation of the file in which this table is known to be complete.
    pub(super) generation: AtomicU64,
}

impl Table {
    fn rows(&self) -> Rows<'_> {
        TableDefinition::new(&self.name)
    }

    fn versions_name(&self) -> String {
        format!("_versions/{}", self.name)
    }

    fn meta_key(&self) -> String {
        format!("table/{}", self.name)
    }

    fn sum_key(&self) -> String {
        format!("sum/{}", self.name)
    }

    /// Seed of the checksums of the table's rows.
    fn salt(&self) -> u64 {
        xxh3_64(self.name.as_bytes())
    }

    pub(super) fn create(&self) -> Result<(), Fault> {
        self.inner.with(|database| {
            // An existing table can be read even when the disk is full.
            match database.begin_read()?.open_table(self.rows()) {
                Err(redb::TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(()),
            }
            let transaction = begin(database)?;
            transaction.open_table(self.rows())?;
            Ok(transaction.commit()?)
        })
    }

    fn commit(&self, batch: &CacheBatch) -> Result<(), Fault> {
        self.inner.heal()?;
        let complete_in = self.generation.load(Ordering::Acquire);
        self.inner
            .with(|database| {
                if complete_in != self.inner.generation.load(Ordering::Acquire) {
                    return Ok(None);
                }
                let transaction = begin(database)?;
                self.store(&transaction, batch)?;
                Ok(Some(transaction.commit()?))
            })?
            .ok_or_else(|| Fault::Corrupt("the file was set aside: clear the table and store every row again".into()))
    }

    fn store(&self, transaction: &WriteTransaction, batch: &CacheBatch) -> Result<(), Fault> {
        let mut rows = transaction.open_table(self.rows())?;
        let mut metas = transaction.open_table(META)?;
        let mut sum = stored_sum(&metas, &self.sum_key())?;
        for (slot, _) in &batch.deletes {
            let old = rows.remove(slot)?;
            sum = sum.wrapping_sub(old.map_or(0, |old| row_sum(old.value())));
        }
        let mut buffer = Vec::new();
        for row in &batch.upserts {
            encode_row(self.salt(), row, &mut buffer)?;
            let old = rows.insert(row.slot, buffer.as_slice())?;
            sum = sum.wrapping_add(row_sum(&buffer)).wrapping_sub(old.map_or(0, |old| row_sum(old.value())));
        }
        metas.insert(self.sum_key().as_str(), sum.to_le_bytes().as_slice())?;
        if !batch.versions.is_empty() {
            let name = self.versions_name();
            let mut versions = transaction.open_table(Versions::new(&name))?;
            for (id, known) in &batch.versions {
                match known {
                    Some(known) => {
                        let sealed = seal(xxh3_64(id.as_bytes()), &[known]);
                        versions.insert(&**id, sealed.as_slice())?;
                    }
                    None => drop(versions.remove(&**id)?),
                }
            }
        }
        if let Some(meta) = &batch.meta {
            let key = self.meta_key();
            let json = serde_json::to_vec(meta).map_err(|error| too_large(&error.to_string()))?;
            let sealed = seal(xxh3_64(key.as_bytes()), &[&json]);
            metas.insert(key.as_str(), sealed.as_slice())?;
        }
        Ok(())
    }

    fn note_erased(&self) -> Result<(), Fault> {
        self.inner.with(|database| {
            let transaction = begin(database)?;
            note_erased(&transaction, OPTIONS)?;
            Ok(transaction.commit()?)
        })
    }

    fn clear(&self) -> Result<(), Fault> {
        self.inner.heal()?;
        let generation = self.inner.generation.load(Ordering::Acquire);
        self.inner.with(|database| {
            let transaction = begin(database)?;
            transaction.delete_table(self.rows())?;
            transaction.delete_table(Versions::new(&self.versions_name()))?;
            transaction.open_table(self.rows())?;
            let mut metas = transaction.open_table(META)?;
            metas.remove(self.meta_key().as_str())?;
            metas.remove(self.sum_key().as_str())?;
            drop(metas);
            Ok(transaction.commit()?)
        })?;
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    /// Opens the rows and reads the meta, the expected number of rows and the highest slot.
    fn begin_load(&self) -> Result<Option<Loading>, Fault> {
        self.inner.heal()?;
        let generation = self.inner.generation.load(Ordering::Acquire);
        let loading = self.inner.with(|database| {
            let transaction = database.begin_read()?;
            let rows = match transaction.open_table(self.rows()) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                opened => opened?,
            };
            let key = self.meta_key();
            let metas = transaction.open_table(META)?;
            let sum = stored_sum(&metas, &self.sum_key())?;
            let meta = match metas.get(key.as_str())? {
                Some(stored) => {
                    unseal(xxh3_64(key.as_bytes()), stored.value()).and_then(|json| serde_json::from_slice(json).ok())
                }
                None => None,
            };
            let versions = stored_versions(&transaction, &self.versions_name())?;
            let count = rows.len()?;
            let last = rows.last()?.map(|(slot, _)| slot.value());
            Ok(Some(Loading { table: self.salt(), rows: Arc::new(rows), meta, count, sum, last, versions }))
        })?;
        self.generation.store(generation, Ordering::Release);
        Ok(loading)
    }
}

/// Load in progress: a consistent view of the table, and what was stored about it.
pub(super) struct Loading {
    /// Seed of the checksums of the rows.
    table: u64,
    rows: Arc<ReadOnlyTable<u32, &'static [u8]>>,
    meta: Option<CacheMeta>,
    count: u64,
    sum: u64,
    last: Option<u32>,
    versions: Option<Vec<(Id, Bytes)>>,
}

/// Part of a table that was read.
#[derive(Default)]
pub(super) struct TablePart {
    rows: Vec<StoredRow>,
    /// Number of damaged rows.
    damaged: u64,
    /// Sum of the checksums of the intact rows.
    sum: u64,
}

/// One batch of a load.
pub(super) type Batch = Result<TablePart, Fault>;

impl Loading {
    /// Reads every second batch of slots, beginning with batch `first`, until the receiver is dropped.
    fn read_batches(&self, inner: &Inner, first: u32, batches: &mpsc::Sender<Batch>) {
        let last = self.last.unwrap_or(0) / BATCH;
        for at in (first..=last).step_by(2) {
            let slots = at * BATCH..=(at * BATCH).saturating_add(BATCH - 1);
            // The table keeps its transaction; `with` only prevents the handle from being closed in between.
            let batch = inner.with(|_| read_batch(self.table, &self.rows, slots));
            let failed = batch.is_err();
            if batches.blocking_send(batch).is_err() || failed {
                return;
            }
        }
    }
}

pub(super) fn begin(database: &Database) -> Result<WriteTransaction, Fault> {
    let mut transaction = database.begin_write()?;
    // With quick repair, a start after a crash need not read the whole file.
    transaction.set_quick_repair(true);
    Ok(transaction)
}

pub(super) fn read_batch(
    table: u64,
    rows: &ReadOnlyTable<u32, &'static [u8]>,
    slots: std::ops::RangeInclusive<u32>,
) -> Batch {
    let (mut parts, mut bodies, mut damaged) = (Vec::with_capacity(BATCH as usize), Vec::new(), 0);
    let mut sum = 0u64;
    for stored in rows.range(slots)? {
        let (slot, stored) = stored?;
        match decode_row(table, slot.value(), stored.value(), &mut bodies) {
            Some(row) => {
                sum = sum.wrapping_add(row_sum(stored.value()));
                parts.push(row);
            }
            None => damaged += 1,
        }
    }
    let bodies = Bytes::from(bodies);
    let row = |RowBytes { slot, ordinal, id, json, cbor }| {
        let body = Body::from_parts(bodies.slice(json), cbor.map(|cbor| bodies.slice(cbor)));
        StoredRow { slot, ordinal, id, body }
    };
    Ok(TablePart { rows: parts.into_iter().map(row).collect(), damaged, sum })
}

/// Shared table for jobs on other threads.
#[derive(Debug)]
pub(super) struct RedbTable(pub(super) Arc<Table>);

impl RedbTable {
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Table) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, CacheError> {
        let table = Arc::clone(&self.0);
        blocking(move || job(&table)).await.map_err(|fault| cache_error(&self.0.inner.file.label(), fault))
    }
}

#[async_trait]
impl RowTable for RedbTable {
    async fn load(&self, _: &Layout, sink: &mut (dyn FnMut(Vec<StoredRow>) + Send)) -> Result<LoadReport, CacheError> {
        let Some(loading) = self.run(Table::begin_load).await? else { return Ok(LoadReport::default()) };
        let loading = Arc::new(loading);
        // Two threads read alternate batches, which are merged here in slot order.
        let mut readers = Vec::new();
        let mut threads = Vec::new();
        for first in 0..2 {
            let (sender, receiver) = mpsc::channel(AHEAD);
            let loading = Arc::clone(&loading);
            readers.push(receiver);
            threads.push(self.run(move |table| {
                loading.read_batches(&table.inner, first, &sender);
                Ok(())
            }));
        }
        let merged = async {
            // Owned here, so that the threads see closed channels as soon as this future ends.
            let mut readers = readers;
            let (mut found, mut damaged, mut sum) = (0, 0, 0u64);
            loop {
                for reader in &mut readers {
                    let Some(batch) = reader.recv().await else { return Ok((found, damaged, sum)) };
                    let part = batch.map_err(|fault| cache_error(&self.0.inner.file.label(), fault))?;
                    found += part.rows.len() as u64;
                    damaged += part.damaged;
                    sum = sum.wrapping_add(part.sum);
                    if !part.rows.is_empty() {
                        sink(part.rows);
                    }
                }
            }
        };
        let (joined, merged) = futures_util::future::join(futures_util::future::try_join_all(threads), merged).await;
        let (found, mut damaged, sum) = merged?;
        joined?;
        // Damage in the tree itself can hide rows or bring old ones back. Count and sum are stored elsewhere.
        damaged = damaged.max(loading.count.saturating_sub(found));
        if damaged == 0 && sum != loading.sum {
            damaged = 1;
        }
        Ok(LoadReport { meta: loading.meta.clone(), damaged, versions: loading.versions.clone() })
    }

    async fn meta(&self) -> Result<Option<CacheMeta>, CacheError> {
        Ok(self.run(Table::begin_load).await?.and_then(|loading| loading.meta))
    }

    async fn commit(&self, batch: CacheBatch) -> Result<(), CacheError> {
        self.run(move |table| table.commit(&batch)).await
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.run(Table::clear).await
    }

    async fn note_erased(&self) -> Result<(), CacheError> {
        self.run(Table::note_erased).await
    }
}
