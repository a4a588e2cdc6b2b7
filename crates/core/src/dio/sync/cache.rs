//! `dio.cache()`: the rows as a simple store, without conditions, order or search.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::dio::core::Core;
use crate::record::{Body, Id, Record, Rows};
use crate::state::{Command, check_size};
use crate::vista::{Result, Shape};

/// The cached rows of a Dio by id.
///
/// Reads give what readers see, also before the first copy is complete. Writes are statements of the program about the
/// *confirmed* rows: they go through the Dio's committer and take a position, but publish nothing; pending operations stay over
/// them. Tell subscribers with [`Dio::invalidate_record`](crate::dio::Dio::invalidate_record).
///
/// # Replacing all rows
/// In `on_start` and `on_refresh`, [`DioCache::clear`] begins a replacement: the rows that the hook puts afterwards are gathered,
/// and applied together when it returns `Ok`, as [`Dio::reconcile_whole`](crate::dio::Dio::reconcile_whole) does: by differences, each
/// told as a row event, and a list that shrank is believed. Until then readers see the old rows, and this hook's own
/// `dio.cache()` the gathered ones. When the hook fails, nothing changes. Rows that something else has changed since the hook
/// began, or that writes wait for, are kept and read again. Tasks that the hook spawned take no part in it.
#[derive(Clone, Debug)]
pub struct DioCache {
    pub(crate) core: Arc<Core>,
}

impl DioCache {
    /// Every row, in the master's order.
    ///
    /// # Errors
    /// None today; a cache that has to fetch may fail.
    pub async fn list_values(&self) -> Result<Rows> {
        if let Some(rows) = self.core.replacement_rows(|replacement_rows, layout| replacement_rows.rows(layout)) {
            return Ok(rows);
        }
        let state = self.core.state();
        let rows = state.table().len();
        self.core
            .heavy(rows, move || {
                let mut rows = Rows::with_layout(Arc::clone(state.rules().schema.layout()));
                for row in state.table().natural(0) {
                    rows.push_body(Id::from(row.id()), row.body());
                }
                rows
            })
            .await
    }

    /// One row.
    ///
    /// # Errors
    /// As [`DioCache::list_values`].
    pub async fn get_value(&self, id: &str) -> Result<Option<Record>> {
        if let Some(row) = self.core.replacement_rows(|replacement_rows, _| replacement_rows.get(id).cloned()) {
            return Ok(row.and_then(|body| body.decode().ok()));
        }
        Ok(self.core.state().get(id).and_then(|row| row.decode().ok()))
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// As [`DioCache::list_values`].
    pub async fn count(&self) -> Result<u64> {
        if let Some(count) = self.core.replacement_rows(|replacement_rows, _| replacement_rows.len()) {
            return Ok(count as u64);
        }
        Ok(self.core.state().table().len() as u64)
    }

    /// Puts rows: new ones are added, others replaced, none removed. Rows that `dio.master()` listed are compared first and
    /// never overwrite what is newer than their reading.
    ///
    /// Rows that `dio.master()` listed are kept as they are. Of others, cells that are not of their column's type are converted
    /// where that loses nothing, else kept; [`Dio::mismatches`](crate::dio::Dio::mismatches) counts those of either.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the journal fails, [`Error::Closed`](crate::Error::Closed).
    pub async fn insert_values(&self, rows: Rows) -> Result<()> {
        match self.core.gathering() {
            Some(scope) => self.core.gather(&scope, rows, false).await,
            None => self.core.apply_list(rows, false, false).await.map(drop),
        }
    }

    /// Puts one row, every cell as its column holds it.
    ///
    /// # Errors
    /// As [`DioCache::insert_values`]; [`Error::Invalid`](crate::Error::Invalid) for a row that is not as the schema says.
    pub async fn insert_value(&self, id: &str, record: &Record) -> Result<()> {
        let record = self.core.checked_row(id, Cow::Borrowed(record), Shape::Whole)?;
        let body = Body::encode(id, &record, self.core.vista.schema().layout());
        check_size(id, &body)?;
        self.state(id, Some(body)).await
    }

    /// Takes one row away.
    ///
    /// # Errors
    /// As [`DioCache::insert_values`].
    pub async fn delete_value(&self, id: &str) -> Result<()> {
        self.state(id, None).await
    }

    /// Takes every row away. In `on_start` and `on_refresh` it begins a replacement: see [`DioCache`].
    ///
    /// # Errors
    /// As [`DioCache::insert_values`].
    pub async fn clear(&self) -> Result<()> {
        if self.core.begin_replacement().await? {
            return Ok(());
        }
        let state = self.core.state();
        let ids: Vec<Id> = state.table().iter_slots().map(|row| Id::from(row.id())).collect();
        self.core.sync.untold.store(true, Ordering::Release);
        for ids in ids.chunks(64) {
            let rows = ids.iter().map(|id| (Arc::clone(id), None)).collect();
            self.core.commit(Command::Statement { rows, told: false }).await?;
        }
        Ok(())
    }

    async fn state(&self, id: &str, row: Option<Body>) -> Result<()> {
        if self.core.gather_row(id, row.as_ref()) {
            return Ok(());
        }
        self.core.sync.untold.store(true, Ordering::Release);
        let rows = vec![(Id::from(id), row)];
        self.core.commit(Command::Statement { rows, told: false }).await.map(drop)
    }
}
