//! Groups of a Dio's rows, from its whole copy.

use std::sync::Arc;

use super::coverage::Coverage;
use crate::dio::core::Core;
use crate::plan::{Plan, Selection};
use crate::record::Record;
use crate::state::State;
use crate::vista::query::{Aggregation, JsonRow, Meter};
use crate::vista::{Error, Query, Result, Schema};

/// The groups of an aggregation, one after the other.
pub type GroupIter<'a> = &'a mut dyn Iterator<Item = Result<Record>>;

impl Core {
    /// Groups the rows of `state` that pass the filter and search of `query`, and gives what `page` makes of the groups.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if only a part of the rows is held: no slice is summed up. [`Error::NotReady`] before the first copy.
    /// What the aggregation says.
    pub(crate) async fn aggregate<T: Send + 'static>(
        &self,
        state: Arc<State>,
        query: &Query,
        asked: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
        page: impl FnOnce(GroupIter<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.readable()? == Coverage::Partial {
            let what = "aggregate (its rows are only partly cached)";
            return Err(Error::Unsupported { vista: Arc::clone(&self.name), what });
        }
        self.aggregate_in(state, query, asked, schema, meter, page).await
    }

    /// [`Core::aggregate`] of a state that has all rows. All of it is one piece of work: no groups wait for another turn.
    ///
    /// # Errors
    /// What the aggregation says, and as [`Core::select_slots`].
    pub(crate) async fn aggregate_in<T: Send + 'static>(
        &self,
        state: Arc<State>,
        query: &Query,
        asked: &Arc<Aggregation>,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
        page: impl FnOnce(GroupIter<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // Of a mere number, no row is looked at.
        let limit = asked.is_count().then_some(0);
        let rows = Query { filter: query.filter.clone(), search: query.search.clone(), limit, ..Query::default() };
        let (asked, of) = (Arc::clone(asked), Arc::clone(&state));
        let page = move |selection: Selection, _: Plan, meter: &Meter| {
            if asked.is_count() {
                return page(&mut std::iter::once(Ok(asked.of_count(selection.total))), meter);
            }
            let rows = selection.slots.iter().filter_map(|slot| of.table().at(*slot));
            let rows = rows.map(|row| JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])));
            page(&mut asked.fold_within(rows, meter)?, meter)
        };
        self.select_then(&state, &rows, schema, meter, page).await
    }
}
