//! `dio.cache()`: the cached rows as a simple store, without conditions, order or search.

use std::borrow::Cow;
use std::sync::Arc;

use crate::dio::core::Core;
use crate::record::{Body, Id, Record, Rows};
use crate::state::{Command, check_size};
use crate::vista::{Result, Shape};

/// Cached rows of a Dio by id.
///
/// Reads return the rows that readers see, also before the first copy is complete. Writes are statements of the program
/// about the *confirmed* rows: they go through the Dio's committer and take a position, but publish no events; pending
/// operations are still shown instead of them. Notify subscribers with
/// [`Dio::invalidate_record`](crate::dio::Dio::invalidate_record).
///
/// # Replacing all rows
/// In `on_start` and `on_refresh`, [`DioCache::clear`] begins a replacement. The rows that the callback puts afterwards are
/// collected, and applied together when it returns `Ok`, as [`Dio::reconcile_whole`](crate::dio::Dio::reconcile_whole)
/// does: by differences, each published as a row event, and without the shrink guard. Until then readers see the old
/// rows, and this callback's own `dio.cache()` the collected ones. If the callback fails, nothing changes. Rows with other
/// changes since the callback began, or with pending writes, are kept and read again. Tasks that the callback spawned take no
/// part in the replacement.
#[derive(Clone, Debug)]
pub struct DioCache {
    pub(crate) core: Arc<Core>,
}

impl DioCache {
    /// All rows, in the master's order.
    ///
    /// # Errors
    /// None at present, apart from an internal error.
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
                    rows.push_body(row.id(), row.encoded());
                }
                rows
            })
            .await
    }

    /// The row with `id`, if it is cached.
    ///
    /// # Errors
    /// As [`DioCache::list_values`].
    pub async fn get_value(&self, id: &str) -> Result<Option<Record>> {
        if let Some(row) = self.core.replacement_rows(|replacement_rows, _| replacement_rows.get(id).cloned()) {
            return Ok(row.and_then(|body| body.decode().ok()));
        }
        Ok(self.core.state().get(id).and_then(|row| row.decode().ok()))
    }

    /// Number of rows.
    ///
    /// # Errors
    /// As [`DioCache::list_values`].
    pub async fn count(&self) -> Result<u64> {
        if let Some(count) = self.core.replacement_rows(|replacement_rows, _| replacement_rows.len()) {
            return Ok(count as u64);
        }
        Ok(self.core.state().table().len() as u64)
    }

    /// Puts rows: new ones are added, known ones replaced, none removed.
    ///
    /// Rows that `dio.master()` listed are compared first, never overwrite changes that are newer than their read, and
    /// are kept as they are. In other rows, values that are not of their column's type are converted if that loses
    /// nothing, else kept. [`Dio::mismatches`](crate::dio::Dio::mismatches) counts the mismatches of both.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the journal fails, [`Error::Closed`](crate::Error::Closed).
    pub async fn insert_values(&self, rows: Rows) -> Result<()> {
        match self.core.gathering() {
            Some(scope) => self.core.gather(&scope, rows, false).await,
            None => self.core.apply_list(rows, false, false).await.map(drop),
        }
    }

    /// Puts one row, with its values converted to the types of their columns.
    ///
    /// # Errors
    /// As [`DioCache::insert_values`]; [`Error::Invalid`](crate::Error::Invalid) for a row that does not match the schema.
    pub async fn insert_value(&self, id: &str, record: &Record) -> Result<()> {
        let record = self.core.checked_row(id, Cow::Borrowed(record), Shape::Whole)?;
        let body = Body::encode(id, &record, self.core.vista.schema().layout());
        check_size(id, &body)?;
        self.state(id, Some(body)).await
    }

    /// Removes one row.
    ///
    /// # Errors
    /// As [`DioCache::insert_values`].
    pub async fn delete_value(&self, id: &str) -> Result<()> {
        self.state(id, None).await
    }

    /// Removes all rows. In `on_start` and `on_refresh` it begins a replacement: see [`DioCache`].
    ///
    /// # Errors
    /// As [`DioCache::insert_values`].
    pub async fn clear(&self) -> Result<()> {
        if self.core.begin_replacement().await? {
            return Ok(());
        }
        let state = self.core.state();
        let ids: Vec<Id> = state.table().iter_slots().map(|row| Id::from(row.id())).collect();
        for ids in ids.chunks(64) {
            let rows = ids.iter().map(|id| (Arc::clone(id), None)).collect();
            self.core.commit(Command::Statement { rows, notify: false }).await?;
        }
        Ok(())
    }

    async fn state(&self, id: &str, row: Option<Body>) -> Result<()> {
        if self.core.gather_row(id, row.as_ref()) {
            return Ok(());
        }
        let rows = vec![(Id::from(id), row)];
        self.core.commit(Command::Statement { rows, notify: false }).await.map(drop)
    }
}
