//! Adapter from rows by slot to a backend that stores records by id.
//!
//! Each load assigns new slots. The backend's meta holds the Dio's meta and the number of rows, so that a store that has lost
//! rows (a restarted in-memory server, an eviction) is not taken for a complete copy.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{
    CacheBackend, CacheBatch, CacheError, CacheMeta, CacheTable, CachedRow, LoadReport, RowStore, RowTable, StoredRow,
};
use crate::record::{Id, Layout};
use crate::redb_file::{seal, unseal};

/// Gap between the ordinals of rows that have lost theirs.
const GAP: u64 = 1 << 32;

/// Row store on any backend.
pub(crate) struct ById(Box<dyn CacheBackend>);

impl ById {
    pub(crate) fn new(backend: impl CacheBackend) -> ById {
        ById(Box::new(backend))
    }
}

/// A table of the backend and its known content.
struct Table {
    table: Arc<dyn CacheTable>,
    known: Mutex<KnownSlots>,
}

/// Slots and meta that the backend has stored.
#[derive(Default)]
struct KnownSlots {
    slots: HashSet<u32>,
    meta: Option<CacheMeta>,
}

/// Meta as the backend stores it, sealed.
#[derive(Serialize, Deserialize)]
struct SealedMeta {
    rows: u64,
    #[serde(rename = "dio")]
    meta: CacheMeta,
}

impl SealedMeta {
    fn encode(&self) -> Result<Bytes, CacheError> {
        let mut cbor = Vec::new();
        ciborium::into_writer(self, &mut cbor).map_err(|error| CacheError::io("meta", error))?;
        Ok(seal(0, &[&cbor]).into())
    }

    /// Decodes a sealed meta. `None` for other bytes, without which the state of the rows is unknown.
    fn decode(bytes: &[u8]) -> Option<SealedMeta> {
        ciborium::from_reader(unseal(0, bytes)?).ok()
    }
}

/// Reads a meta with a correct seal and arbitrary content, for fuzzing.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn decode_stored_meta(content: &[u8]) -> bool {
    let _ = serde_json::from_slice::<CacheMeta>(content);
    SealedMeta::decode(&seal(0, &[content])).is_some_and(|sealed_meta| sealed_meta.encode().is_ok())
}

#[async_trait]
impl RowStore for ById {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn RowTable>, CacheError> {
        let table = self.0.open_table(name).await?;
        Ok(Arc::new(Table { table, known: Mutex::default() }))
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl RowTable for Table {
    async fn load(
        &self,
        layout: &Layout,
        sink: &mut (dyn FnMut(Vec<StoredRow>) + Send),
    ) -> Result<LoadReport, CacheError> {
        let mut known = self.known.lock().await;
        *known = KnownSlots::default();
        let mut assigner = SlotAssigner { layout, slot: 0, last: 0, damaged: 0 };
        let loaded = self.table.load(&mut |rows| sink(assigner.place(rows))).await;
        let SlotAssigner { slot: found, mut damaged, .. } = assigner;
        let sealed_meta = match loaded {
            Err(error @ CacheError::Corrupt { .. }) => {
                tracing::warn!(%error, "the cache table is damaged: it is cleared and filled again");
                self.table.clear().await?;
                return Ok(LoadReport { damaged: damaged.max(1), ..LoadReport::default() });
            }
            loaded => loaded?.and_then(|meta| SealedMeta::decode(&meta)),
        };
        known.slots.extend(0..found);
        if let Some(sealed_meta) = &sealed_meta {
            damaged = damaged.max(sealed_meta.rows.abs_diff(u64::from(found)));
        }
        known.meta = sealed_meta.map(|sealed_meta| sealed_meta.meta);
        Ok(LoadReport { meta: known.meta.clone(), damaged, versions: None })
    }

    async fn meta(&self) -> Result<Option<CacheMeta>, CacheError> {
        let sealed_meta = self.table.meta().await?.and_then(|meta| SealedMeta::decode(&meta));
        Ok(sealed_meta.map(|sealed_meta| sealed_meta.meta))
    }

    async fn commit(&self, batch: CacheBatch) -> Result<(), CacheError> {
        let mut known = self.known.lock().await;
        let CacheBatch { deletes, upserts, meta, .. } = batch;
        // Skip the sets for a seed, which deletes nothing.
        let (kept, filled): (HashSet<&Id>, HashSet<u32>) = match deletes.is_empty() {
            true => Default::default(),
            false => upserts.iter().map(|row| (&row.id, row.slot)).unzip(),
        };
        let emptied: HashSet<u32> = deletes.iter().map(|(slot, _)| *slot).collect();
        let gone: Vec<u32> = emptied.difference(&filled).filter(|slot| known.slots.contains(slot)).copied().collect();
        let new: Vec<u32> = upserts.iter().map(|row| row.slot).filter(|slot| !known.slots.contains(slot)).collect();
        let removed: HashSet<Id> = deletes.into_iter().map(|(_, id)| id).filter(|id| !kept.contains(id)).collect();
        let rows = (known.slots.len() + new.len() - gone.len()) as u64;
        let meta = meta.or_else(|| known.meta.clone());
        let sealed_meta = meta.clone().map(|meta| SealedMeta { rows, meta }.encode()).transpose()?;
        let puts = upserts.into_iter().map(CachedRow::from).collect();
        self.table.commit(puts, removed.into_iter().collect(), sealed_meta).await?;
        for slot in gone {
            known.slots.remove(&slot);
        }
        known.slots.extend(new);
        known.meta = meta;
        Ok(())
    }

    fn trouble(&self) -> Option<String> {
        self.table.trouble()
    }

    async fn clear(&self) -> Result<(), CacheError> {
        let mut known = self.known.lock().await;
        self.table.clear().await?;
        *known = KnownSlots::default();
        Ok(())
    }
}

/// Assigns slots and ordinals to rows during a load.
struct SlotAssigner<'a> {
    layout: &'a Layout,
    /// Next free slot.
    slot: u32,
    /// Highest ordinal so far.
    last: u64,
    damaged: u64,
}

impl SlotAssigner<'_> {
    fn place(&mut self, rows: Vec<CachedRow>) -> Vec<StoredRow> {
        let mut placed = Vec::with_capacity(rows.len());
        for row in rows {
            let next = self.last.saturating_add(GAP);
            match row.into_stored(self.slot, next, self.layout) {
                Some(row) if self.slot < u32::MAX => {
                    self.last = self.last.max(row.ordinal);
                    self.slot += 1;
                    placed.push(row);
                }
                _ => self.damaged += 1,
            }
        }
        placed
    }
}
