//! Aggregations over a Dio's whole copy.

use std::sync::Arc;

use super::coverage::Coverage;
use crate::dio::core::Core;
use crate::state::State;
use crate::vista::query::{Aggregation, Groups, JsonRow, Meter};
use crate::vista::{Error, Query, Result, Schema};

impl Core {
    /// Groups the rows of `state` that match the filter and search of `query`, and returns the result of `page` on the groups.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if only a part of the rows is cached. [`Error::NotReady`] before the first copy. Errors of
    /// the aggregation.
    pub(crate) async fn aggregate<T: Send + 'static>(
        &self,
        state: Arc<State>,
        query: &Query,
        aggregation: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
        page: impl FnOnce(Groups<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.readable()? == Coverage::Partial {
            let what = "aggregate (its rows are only partly cached)";
            return Err(Error::Unsupported { vista: Arc::clone(&self.name), what });
        }
        self.aggregate_in(state, query, aggregation, schema, meter, page).await
    }

    /// [`Core::aggregate`] of a state that has all rows. It is one piece of work, so that groups do not wait for another turn.
    ///
    /// # Errors
    /// Errors of the aggregation and of [`Core::select_slots`].
    pub(crate) async fn aggregate_in<T: Send + 'static>(
        &self,
        state: Arc<State>,
        query: &Query,
        aggregation: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
        page: impl FnOnce(Groups<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // A count alone needs no rows.
        let limit = aggregation.is_count().then_some(0);
        let rows = Query { filter: query.filter.clone(), search: query.search.clone(), limit, ..Query::default() };
        let plan = self.plan(&state, &rows, schema)?;
        let weight = Core::weight(&rows, &plan);
        let (aggregation, schema) = (Arc::clone(aggregation), Arc::clone(schema));
        let work = move |meter: &Meter| {
            if aggregation.is_count() {
                let total = plan.run(state.table(), &rows, &schema, meter)?.total;
                return page(aggregation.of_count(total), meter);
            }
            if let Some(groups) = plan.groups(&aggregation, (state.table(), meter), &rows, &schema)? {
                return page(groups, meter);
            }
            let selection = plan.run(state.table(), &rows, &schema, meter)?;
            let rows = selection.slots.iter().filter_map(|slot| state.table().at(*slot));
            let rows = rows.map(|row| JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])));
            page(aggregation.fold_within(rows, meter)?, meter)
        };
        self.work(weight, meter, work).await
    }
}
