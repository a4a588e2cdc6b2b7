//! Groups of a Dio's rows, from its whole copy.

use std::sync::Arc;

use super::core::Core;
use super::facade::{cost, pick};
use crate::hot::State;
use crate::record::Record;
use crate::vista::query::{Aggregation, JsonRow};
use crate::vista::{Error, Query, Result, Schema};

impl Core {
    /// What `asked` makes of the rows of `state` that pass the filter and search of `query`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if only a part of the rows is held: no slice is summed up. What the aggregation says.
    pub(crate) async fn aggregate(
        &self,
        state: Arc<State>,
        query: &Query,
        asked: &Arc<Aggregation>,
        schema: &Arc<Schema>,
    ) -> Result<Vec<Record>> {
        if !self.is_complete() {
            let what = "aggregate (its rows are only partly cached)";
            return Err(Error::Unsupported { vista: Arc::clone(&self.name), what });
        }
        let rows = Query { filter: query.filter.clone(), search: query.search.clone(), ..Query::default() };
        let (asked, schema) = (Arc::clone(asked), Arc::clone(schema));
        // A mere number of rows looks at none, if an index knows it.
        let rows = Query { limit: asked.is_count().then_some(0), ..rows };
        let touched = if asked.is_count() { cost(state.table(), &rows) } else { state.table().len() };
        self.heavy(touched, move || {
            let picked = pick(state.table(), &rows, &schema)?;
            if asked.is_count() {
                return Ok(vec![asked.of_count(picked.total)]);
            }
            let rows = picked.slots.iter().filter_map(|slot| state.table().at(*slot));
            asked.fold(rows.map(|row| JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))))
        })
        .await?
    }
}
