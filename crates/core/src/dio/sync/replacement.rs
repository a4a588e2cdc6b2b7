//! Replacing all rows in a callback: after `dio.cache().clear()`, the writes of the callback are collected, and applied
//! as one whole list when it has returned.
//!
//! Applied one by one, a clear and the inserts after it would show readers an empty Dio, and the clear would count as
//! newer than the list that was read before it.

use std::sync::Arc;

use super::apply::Listing;
use super::replacement_rows::ReplacementRows;
use super::report::RefreshDemands;
use crate::dio::core::Core;
use crate::dio::scope;
use crate::dio::scope::{Kind, Scope, scope_of};
use crate::record::{Body, Id, Layout, Rows};
use crate::state::check_size;
use crate::vista::Result;

impl Core {
    /// Scope of an `on_start` or `on_refresh` that begins now, with the mark of its beginning.
    pub(crate) async fn callback_scope(self: &Arc<Self>, kind: Kind, demands: RefreshDemands) -> Result<Arc<Scope>> {
        // A guard for an id that no row has: changes of all rows are recorded as touched, but no row counts as being read,
        // so that events and the callback's own statements are applied at once.
        let guard = self.open_guard_for(&Id::from("")).await?;
        Ok(Arc::new(Scope { demands, guard: Some(guard), ..Scope::new(&self.name, kind) }))
    }

    /// Begins to collect the running callback's writes. Returns false if the caller is not a callback that makes the copy.
    pub(crate) async fn begin_replacement(self: &Arc<Self>) -> Result<bool> {
        let Some(scope) = scope_of(&self.name).filter(|scope| scope.guard.is_some()) else { return Ok(false) };
        let guard = self.open_guard().await?;
        *scope.replacement_rows.lock() = Some(ReplacementRows::new(guard));
        // A list that was given to the cache before is not part of the replacement.
        *scope.listed.lock() = None;
        Ok(true)
    }

    /// Scope of the running callback, if its writes are collected.
    pub(crate) fn gathering(&self) -> Option<Arc<Scope>> {
        scope_of(&self.name).filter(|scope| scope.replacement_rows.lock().is_some())
    }

    /// Calls `read` with the rows that the running callback has collected, `None` if it collects none.
    pub(crate) fn replacement_rows<T>(&self, read: impl FnOnce(&ReplacementRows, &Arc<Layout>) -> T) -> Option<T> {
        let scope = scope_of(&self.name)?;
        let replacement_rows = scope.replacement_rows.lock();
        replacement_rows.as_ref().map(|replacement_rows| read(replacement_rows, self.vista.schema().layout()))
    }

    /// Adds one row to the collected rows, or removes one. Returns false if the caller collects none.
    pub(crate) fn gather_row(&self, id: &str, row: Option<&Body>) -> bool {
        let Some(scope) = scope_of(&self.name) else { return false };
        let mut replacement_rows = scope.replacement_rows.lock();
        replacement_rows.as_mut().map(|replacement_rows| replacement_rows.put(Id::from(id), row.cloned())).is_some()
    }

    /// Adds rows to the collected rows. With `reconcile`, a complete list replaces all of them.
    pub(crate) async fn gather(self: &Arc<Self>, scope: &Scope, rows: Rows, reconcile: bool) -> Result<()> {
        let schema = self.vista.schema();
        let rows = rows.under(schema.layout());
        let Some(complete) = rows.stamp().map(|stamp| stamp.complete) else {
            let rows = self.converted(rows).await?;
            rows.bodies().try_for_each(|(id, body)| check_size(id, body))?;
            return self.gather_rows(scope, &rows, false, false);
        };
        let rows = rows.without(|id, body| check_size(id, body).err().map(|error| error.to_string()));
        self.gather_rows(scope, &rows, complete, complete && reconcile)
    }

    /// Adds checked rows to the collected rows. `complete` is true if they are a whole list, `alone` if they replace all
    /// others.
    pub(crate) fn gather_rows(&self, scope: &Scope, rows: &Rows, complete: bool, alone: bool) -> Result<()> {
        let decoded = self.check_decoded(rows, complete)?;
        let mut replacement_rows = scope.replacement_rows.lock();
        let Some(replacement_rows) = replacement_rows.as_mut() else { return Ok(()) };
        if alone {
            replacement_rows.forget();
        }
        replacement_rows.whole |= complete;
        replacement_rows.undecodable |= !decoded;
        rows.to_bodies().for_each(|(id, body)| replacement_rows.put(id, Some(body)));
        Ok(())
    }

    /// Finishes an `on_start` or `on_refresh` that has returned `Ok`: replaces all rows by the collected ones, or removes
    /// the rows that its complete list lacks.
    pub(crate) async fn finish_callback(self: &Arc<Self>, scope: &Arc<Scope>) -> Result<()> {
        let replacement_rows = scope.replacement_rows.lock().take();
        match (replacement_rows, &scope.guard) {
            (Some(replacement_rows), Some(guard)) => {
                scope::within(scope, self.replace_all(&replacement_rows, guard.mark)).await
            }
            _ => self.finish_listing(scope).await,
        }
    }

    async fn replace_all(self: &Arc<Self>, replacement_rows: &ReplacementRows, mark: u64) -> Result<()> {
        let schema = self.vista.schema();
        let rows = replacement_rows.rows(schema.layout());
        // Rows that could not be decoded keep their known values.
        let list =
            Listing { mark, whole: true, removes: !replacement_rows.undecodable, publish: true, allow_shrink: true };
        let applied = self.apply_rows(rows, &list).await?;
        if replacement_rows.whole || self.callbacks.on_load_chunk.is_none() {
            self.mark_complete().await;
        } else {
            self.mark_partial().await;
        }
        if applied.seeded {
            self.announce(true).await?;
        }
        Ok(())
    }
}
