//! The first copy, and the marks of whole copies in the cache file.

use std::sync::Arc;

use tokio::time::Instant;

use crate::cache::CacheMeta;
use crate::dio::core::Core;
use crate::record::Rows;
use crate::state::{Command, Notice};
use crate::table::TableBuilder;
use crate::vista::{Error, Result};

impl Core {
    /// Makes the first copy: turns the rows into a table and stores it, then publishes it at once. The rows refer to the table
    /// afterwards. Returns false if other rows arrived meanwhile.
    pub(super) async fn seed(self: &Arc<Self>, rows: &mut Rows, mark: u64, notice: Notice) -> Result<bool> {
        if rows.is_empty() {
            return Ok(false);
        }
        let (core, mut listed) = (Arc::clone(self), std::mem::take(rows));
        let built = self.heavy(listed.len(), move || {
            core.note_list_mismatches(&listed);
            (TableBuilder::take_over(&mut listed), listed)
        });
        let (table, listed) = built.await?;
        *rows = listed;
        let stored = self.store.seed(&table).await;
        match self.commit(Command::Seed { table, mark, notice }).await {
            Ok(_) => {
                match stored {
                    Ok(()) => self.set_bulk(false).await,
                    Err(error) => {
                        tracing::warn!(dio = %self.name, %error, "the first copy could not be stored; trying again");
                        self.rewrite().await;
                    }
                }
                Ok(true)
            }
            Err(refused) => {
                // The file has rows now that the State lacks.
                self.rewrite().await;
                if matches!(refused, Error::Conflict { .. }) { Ok(false) } else { Err(refused) }
            }
        }
    }

    /// Stores every row again. Until that succeeds, the file is marked as incomplete for the next start.
    async fn rewrite(&self) {
        if let Err(error) = self.store.rewrite(|| self.state()).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }

    pub(super) async fn set_bulk(&self, bulk: bool) {
        if let Err(error) = self.store.set_meta(|meta| meta.bulk = bulk).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }

    /// Marks the rows as a whole copy of the master as of now.
    pub(crate) async fn mark_complete(&self) {
        {
            let mut freshness = self.sync.last_list.lock();
            freshness.at = Some(Instant::now());
            freshness.complete = true;
            freshness.failed = None;
        }
        // Rows that were lost and are not read again yet are missing from the file, which the next start has to know.
        let whole = (!self.state().lacks_rows()).then(crate::dio::clock::now);
        let note = |meta: &mut CacheMeta| (meta.complete_at, meta.gap) = (whole, meta.gap && whole.is_none());
        if let Err(error) = self.store.set_meta(note).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }

    /// Marks the rows as a part of the master's.
    pub(crate) async fn mark_partial(&self) {
        self.sync.last_list.lock().complete = false;
        if let Err(error) = self.store.set_meta(|meta| meta.complete_at = None).await {
            tracing::warn!(dio = %self.name, %error, "the cache file could not be written");
        }
    }
}
