//! Groups of a Dio's rows, from its whole copy.

use std::sync::Arc;

use super::core::Core;
use super::coverage::Coverage;
use crate::hot::State;
use crate::record::Record;
use crate::vista::query::{Aggregation, JsonRow, Meter};
use crate::vista::{Error, Query, Result, Schema};

impl Core {
    /// What `asked` makes of the rows of `state` that pass the filter and search of `query`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if only a part of the rows is held: no slice is summed up. [`Error::NotReady`] before the first copy.
    /// What the aggregation says.
    pub(crate) async fn aggregate(
        &self,
        state: Arc<State>,
        query: &Query,
        asked: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
    ) -> Result<Vec<Record>> {
        if self.readable()? == Coverage::Partial {
            let what = "aggregate (its rows are only partly cached)";
            return Err(Error::Unsupported { vista: Arc::clone(&self.name), what });
        }
        self.aggregate_in(state, query, asked, schema, meter).await
    }

    /// [`Core::aggregate`] of a state that has all rows.
    ///
    /// # Errors
    /// What the aggregation says, and as [`Core::pick`].
    pub(crate) async fn aggregate_in(
        &self,
        state: Arc<State>,
        query: &Query,
        asked: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
    ) -> Result<Vec<Record>> {
        // Of a mere number, no row is looked at.
        let limit = asked.is_count().then_some(0);
        let rows = Query { filter: query.filter.clone(), search: query.search.clone(), limit, ..Query::default() };
        let (picked, _) = self.pick(&state, &rows, schema, meter).await?;
        if asked.is_count() {
            return Ok(vec![asked.of_count(picked.total)]);
        }
        let asked = Arc::clone(asked);
        self.work(picked.slots.len(), meter, move |meter| {
            let rows = picked.slots.iter().filter_map(|slot| state.table().at(*slot));
            asked.fold_within(rows.map(|row| JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))), meter)
        })
        .await
    }
}
