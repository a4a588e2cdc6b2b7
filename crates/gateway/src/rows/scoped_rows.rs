//! [`ScopedRows`]: the one door to the rows of a Dio.
//!
//! A [`Scope`](crate::scope::Scope) has it. Lists, single rows, counts, groups, exports, explanations, subscriptions and writes go
//! through its methods and nowhere else, which `tests/house/door.rs` checks. What is kept between requests is kept under its id. Until
//! there are access rules every scope is everybody's, and is everything.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::http::auth::Principal;
use diorama_core::dio::{Dio, EventLog, GroupIter, Ticket, Workers, WriteOptions};
use diorama_core::plan::{Page, Plan, PreparedQuery, Selection};
use diorama_core::record::Record;
use diorama_core::scenery::{TableSceneryBuilder, ValueSceneryBuilder};
use diorama_core::state::State;
use diorama_core::table::RowRef;
use diorama_core::vista::query::{Aggregation, CompiledQuery, Fields, JsonRow, Meter};
use diorama_core::vista::{Filter, Narrowing, Query, Result, Schema, Vista, WriteOp};

/// Columns that a caller may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Columns {
    /// All of them.
    #[default]
    All,
}

/// Identity of what a scope shows: equal ones show the same rows alike. Zero is everything.
///
/// Half of a SHA-256 of the filter: what is kept for one scope must not be given to another, so nobody may be able to find two filters
/// with one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ScopeId(u128);

impl ScopeId {
    fn of(filter: &Filter) -> ScopeId {
        let digest: [u8; 32] = Sha256::digest(format!("{filter:?}")).into();
        let half = digest.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        ScopeId(half.max(1))
    }

    /// Its halves, which stand for it in ETags and seeds of hashes; both are zero for everything.
    pub(crate) fn halves(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }
}

/// The rows of a Dio that one caller may see and change.
#[derive(Clone, Debug)]
pub(crate) struct ScopedRows {
    dio: Dio,
    schema: Arc<Schema>,
    principal: Principal,
    /// Rows that do not pass are as if they were not there.
    filter: Filter,
    /// The filter, if it is one.
    prepared: Option<Arc<CompiledQuery>>,
    columns: Columns,
    id: ScopeId,
}

impl ScopedRows {
    /// The rows of `dio`, which have the shape of `schema`, that pass `filter`; all of their columns.
    pub(crate) fn new(dio: &Dio, schema: &Arc<Schema>, principal: Principal, filter: Filter) -> ScopedRows {
        let (mut prepared, mut id) = (None, ScopeId::default());
        if !filter.is_everything() {
            let query = Query { filter: filter.clone(), ..Query::default() };
            prepared = Some(Arc::new(query.prepare(schema)));
            id = ScopeId::of(&filter);
        }
        let (dio, schema) = (dio.clone(), Arc::clone(schema));
        ScopedRows { dio, schema, principal, filter, prepared, columns: Columns::All, id }
    }

    /// The shape of the rows.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// The threads for heavy queries.
    pub(crate) fn workers(&self) -> &Workers {
        self.dio.workers()
    }

    /// Identity of what it shows.
    pub(crate) fn id(&self) -> ScopeId {
        self.id
    }

    /// Whether nothing is outside of it.
    pub(crate) fn is_everything(&self) -> bool {
        self.filter.is_everything()
    }

    /// `query` as it is asked in this scope.
    pub(crate) fn narrow(&self, mut query: Query) -> Query {
        // Whoever adds another kind of columns is to bound what is selected, tested and ordered by here.
        let Columns::All = self.columns;
        if !self.is_everything() {
            query.filter = Filter::All(vec![self.filter.clone(), query.filter]);
        }
        query
    }

    /// [`ScopedRows::narrow`], to be asked again and again.
    pub(crate) fn prepare(&self, query: Query) -> Arc<PreparedQuery> {
        Arc::new(PreparedQuery::new(self.narrow(query)))
    }

    /// Whether a row is in the scope.
    pub(crate) fn sees(&self, row: &impl Fields) -> bool {
        self.prepared.as_ref().is_none_or(|filter| filter.matches(row))
    }

    /// [`ScopedRows::sees`] of a row as it is held.
    pub(crate) fn sees_row(&self, row: &RowRef<'_>) -> bool {
        self.is_everything() || self.sees(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
    }

    // --- reading -----------------------------------------------------------------------------------------------------

    /// The state of all rows now, in or out of the scope: for slots that a query of this scope selected.
    pub(crate) fn state(&self) -> Arc<State> {
        self.dio.state()
    }

    /// The id under which the row of `id` is held.
    pub(crate) fn known_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        self.dio.known_id(id)
    }

    /// The row under `id`, if it is held.
    pub(crate) fn held_row(&self, id: &str) -> Option<Record> {
        self.dio.held_row(id).filter(|row| self.sees(row))
    }

    /// The row under `id` as JSON, if it is held.
    pub(crate) fn json(&self, id: &str) -> Option<Bytes> {
        let state = self.state();
        let row = state.get(id).filter(|row| self.sees_row(row))?;
        Some(Bytes::copy_from_slice(row.json()))
    }

    /// The rows of `state` that `query` selects, and how they were found.
    ///
    /// # Errors
    /// As [`Dio::select`](diorama_core::Dio::select).
    pub(crate) async fn select(
        &self,
        state: &Arc<State>,
        query: &Query,
        meter: &Arc<Meter>,
    ) -> Result<(Selection, Plan)> {
        let query = self.narrow(query.clone());
        self.dio.select(state, &query, &self.schema, meter).await
    }

    /// The rows of `state` that a query selects which [`ScopedRows::prepare`] made.
    ///
    /// # Errors
    /// As [`ScopedRows::select`].
    pub(crate) async fn select_prepared(
        &self,
        state: &Arc<State>,
        query: &Arc<PreparedQuery>,
        page: Page,
        meter: &Arc<Meter>,
    ) -> Result<Selection> {
        self.dio.select_prepared(state, query, page, &self.schema, meter).await
    }

    /// Groups the rows of `state` that pass the filter and search of `query`.
    ///
    /// # Errors
    /// As [`Dio::aggregate`](diorama_core::Dio::aggregate).
    pub(crate) async fn aggregate<T: Send + 'static>(
        &self,
        state: &Arc<State>,
        query: &Query,
        aggregation: &Arc<Aggregation>,
        meter: &Arc<Meter>,
        page: impl FnOnce(GroupIter<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (state, query, schema) = (Arc::clone(state), self.narrow(query.clone()), &self.schema);
        self.dio.aggregate(state, &query, aggregation, schema, meter, page).await
    }

    /// The rows as a Vista, which asks the source for what is not held.
    ///
    /// # Errors
    /// [`Error::Unsupported`](diorama_core::Error::Unsupported) if the source has to filter and cannot.
    pub(crate) fn vista(&self) -> Result<Vista> {
        let mut vista = self.dio.vista();
        if !self.is_everything() {
            vista.add_filter(self.filter.clone())?;
        }
        Ok(vista)
    }

    // --- following ---------------------------------------------------------------------------------------------------

    /// The event log of all rows: what is sent of it has to pass a query that [`ScopedRows::narrow`] made.
    pub(crate) fn log(&self) -> EventLog {
        self.dio.log()
    }

    /// A standing view of the rows that `query` selects.
    pub(crate) fn table_scenery(&self, query: &Query) -> TableSceneryBuilder {
        self.dio.table_scenery().query(self.narrow(query.clone()))
    }

    /// A standing value of the rows that pass the filter and search of `query`.
    pub(crate) fn value_scenery(&self, query: &Query) -> ValueSceneryBuilder {
        let Query { filter, search, .. } = self.narrow(query.clone());
        self.dio.value_scenery().filter(filter).search(search)
    }

    // --- writing -----------------------------------------------------------------------------------------------------

    /// Accepts a write. The row before it and the row that it makes have to be in the scope, which is judged in the order of all
    /// writes.
    ///
    /// # Errors
    /// As [`Dio::write`](diorama_core::Dio::write).
    pub(crate) async fn write(&self, op: WriteOp, mut options: WriteOptions) -> Result<Ticket> {
        if !self.is_everything() {
            if let Some(id) = op.id().filter(|id| !self.dio.is_complete() && self.dio.held_row(id).is_none()) {
                // A row that is not in the copy may be one that is outside.
                self.dio.vista().get_value(id).await?;
            }
            let query = Query { filter: self.filter.clone(), ..Query::default() };
            options.within = Some(Arc::new(Narrowing::new(&query, &self.schema)));
        }
        options.principal = self.principal.name();
        self.dio.write(op, options).await
    }
}
