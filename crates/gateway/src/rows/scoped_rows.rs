//! [`ScopedRows`]: the only access to the rows of a Dio.
//!
//! Each [`Scope`](crate::scope::Scope) has one. Lists, single rows, counts, groups, exports, plans, subscriptions and writes use
//! its methods only; `tests/house/door.rs` checks this. Caches that outlive a request have its id in their keys. There are no
//! access rules yet, so every scope contains all rows.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::access::Principal;
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

/// Identity of a scope's contents: scopes with equal ids show the same rows. Zero is the scope of all rows.
///
/// The id is half of a SHA-256 of the filter. Cached data of one scope must never reach another, so it must be infeasible to
/// find two filters with the same id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ScopeId(u128);

impl ScopeId {
    fn of(filter: &Filter) -> ScopeId {
        let digest: [u8; 32] = Sha256::digest(format!("{filter:?}")).into();
        let half = digest.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        ScopeId(half.max(1))
    }

    /// Returns the high and low half, for ETags and seeds of hashes. Both are zero for the scope of all rows.
    pub(crate) fn halves(self) -> (u64, u64) {
        ((self.0 >> 64) as u64, self.0 as u64)
    }
}

/// Rows of a Dio that one caller may see and change.
#[derive(Clone, Debug)]
pub(crate) struct ScopedRows {
    dio: Dio,
    schema: Arc<Schema>,
    principal: Principal,
    /// Filter of the scope. Rows that do not pass are treated as absent.
    filter: Filter,
    /// Compiled filter; `None` if all rows pass.
    prepared: Option<Arc<CompiledQuery>>,
    columns: Columns,
    id: ScopeId,
}

impl ScopedRows {
    /// Creates access to the rows of `dio` that pass `filter`, with all columns of `schema`.
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

    /// Returns the schema of the rows.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Returns the worker threads for heavy queries.
    pub(crate) fn workers(&self) -> &Workers {
        self.dio.workers()
    }

    /// Returns the identity of the scope.
    pub(crate) fn id(&self) -> ScopeId {
        self.id
    }

    /// Returns true if all rows are in the scope.
    pub(crate) fn is_everything(&self) -> bool {
        self.filter.is_everything()
    }

    /// Narrows `query` to this scope.
    pub(crate) fn narrow(&self, mut query: Query) -> Query {
        // A new variant of `Columns` has to restrict selected, tested and ordering columns here.
        let Columns::All = self.columns;
        if !self.is_everything() {
            query.filter = Filter::All(vec![self.filter.clone(), query.filter]);
        }
        query
    }

    /// Narrows `query` and prepares it for repeated execution.
    pub(crate) fn prepare(&self, query: Query) -> Arc<PreparedQuery> {
        Arc::new(PreparedQuery::new(self.narrow(query)))
    }

    /// Returns true if a row is in the scope.
    pub(crate) fn sees(&self, row: &impl Fields) -> bool {
        self.prepared.as_ref().is_none_or(|filter| filter.matches(row))
    }

    /// Returns true if a stored row is in the scope.
    pub(crate) fn sees_row(&self, row: &RowRef<'_>) -> bool {
        self.is_everything() || self.sees(&JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..])))
    }

    // --- reading -----------------------------------------------------------------------------------------------------

    /// Returns the current state of all rows, in or out of the scope. Use it only for slots that a query of this scope selected.
    pub(crate) fn state(&self) -> Arc<State> {
        self.dio.state()
    }

    /// Returns the id in the form in which the row is stored.
    pub(crate) fn known_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        self.dio.known_id(id)
    }

    /// Returns the row under `id`, if it is stored and in the scope.
    pub(crate) fn held_row(&self, id: &str) -> Option<Record> {
        self.dio.held_row(id).filter(|row| self.sees(row))
    }

    /// Returns the row under `id` as JSON, if it is stored and in the scope.
    pub(crate) fn json(&self, id: &str) -> Option<Bytes> {
        let state = self.state();
        let row = state.get(id).filter(|row| self.sees_row(row))?;
        Some(Bytes::copy_from_slice(row.json()))
    }

    /// Selects the rows of `state` that match `query`; also returns the plan.
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

    /// Selects the rows of `state` that match a query from [`ScopedRows::prepare`].
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

    /// Returns the rows as a Vista, which reads rows that are not stored from the source.
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

    /// Returns the event log of all rows. Events have to pass a query from [`ScopedRows::narrow`] before they are sent.
    pub(crate) fn log(&self) -> EventLog {
        self.dio.log()
    }

    /// Starts a continuously updated view of the rows that `query` selects.
    pub(crate) fn table_scenery(&self, query: &Query) -> TableSceneryBuilder {
        self.dio.table_scenery().query(self.narrow(query.clone()))
    }

    /// Starts a continuously updated value of the rows that pass the filter and search of `query`.
    pub(crate) fn value_scenery(&self, query: &Query) -> ValueSceneryBuilder {
        let Query { filter, search, .. } = self.narrow(query.clone());
        self.dio.value_scenery().filter(filter).search(search)
    }

    // --- writing -----------------------------------------------------------------------------------------------------

    /// Accepts a write. The row before and after the write has to be in the scope, which the committer checks in the order of
    /// all writes.
    ///
    /// # Errors
    /// As [`Dio::write`](diorama_core::Dio::write).
    pub(crate) async fn write(&self, op: WriteOp, mut options: WriteOptions) -> Result<Ticket> {
        if !self.is_everything() {
            if let Some(id) = op.id().filter(|id| !self.dio.is_complete() && self.dio.held_row(id).is_none()) {
                // A row that is not in the copy may be outside the scope.
                self.dio.vista().get_value(id).await?;
            }
            let query = Query { filter: self.filter.clone(), ..Query::default() };
            options.within = Some(Arc::new(Narrowing::new(&query, &self.schema)));
        }
        options.principal = self.principal.name().cloned();
        self.dio.write(op, options).await
    }
}
