//! [`ScopedRows`]: the only access to the rows of a Dio.
//!
//! Each [`Scope`](crate::scope::Scope) has one. Lists, single rows, counts, groups, exports, plans, subscriptions and writes use
//! its methods only; `tests/house/door.rs` checks this. Caches that outlive a request have its id in their keys. The rows and
//! columns are those of a [`View`], which the access rules make.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::access::{ANONYMOUS, Grant, Principal, TOKEN, Verb, View, ViewId};
use diorama_core::dio::{Dio, EventLog, IdempotencyKey, Ticket, Workers, WriteOptions};
use diorama_core::plan::{Page, Plan, PreparedQuery, Selection};
use diorama_core::record::{Body, Record};
use diorama_core::scenery::{TableSceneryBuilder, ValueSceneryBuilder};
use diorama_core::state::State;
use diorama_core::table::RowRef;
use diorama_core::vista::query::{Aggregation, Fields, Groups, JsonRow, Meter, SelectItem};
use diorama_core::vista::{Error, Filter, Query, Result, Schema, Vista, WriteBounds, WriteKind, WriteOp};

/// Rows of a Dio that one caller may see and change.
#[derive(Clone, Debug)]
pub(crate) struct ScopedRows {
    dio: Dio,
    principal: Principal,
    grant: Arc<Grant>,
    view: Arc<View>,
}

impl ScopedRows {
    /// Creates access to the rows of `dio` that `view` shows, for writes that `grant` permits.
    pub(crate) fn new(dio: &Dio, principal: Principal, grant: Arc<Grant>, view: Arc<View>) -> ScopedRows {
        ScopedRows { dio: dio.clone(), principal, grant, view }
    }

    /// Returns the schema of the visible columns, by which queries are parsed and rows are shown.
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        self.view.schema()
    }

    /// Returns the schema by which narrowed queries are compiled, which has the columns of the scope's condition too.
    pub(crate) fn full_schema(&self) -> &Arc<Schema> {
        self.view.full_schema()
    }

    /// Returns the worker threads for heavy queries.
    pub(crate) fn workers(&self) -> &Workers {
        self.dio.workers()
    }

    /// Returns the visible rows and columns.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Returns the permissions of the caller.
    pub(crate) fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// Returns the caller.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Returns the identity of the scope.
    pub(crate) fn id(&self) -> ViewId {
        self.view.id()
    }

    /// Returns true if all rows and columns are in the scope.
    pub(crate) fn is_everything(&self) -> bool {
        self.view.is_everything()
    }

    /// Returns true if all columns are visible, so that rows can be sent as they are stored.
    pub(crate) fn has_all_columns(&self) -> bool {
        self.view.columns().is_none()
    }

    /// Returns true if the caller may see rows, and not only change them.
    pub(crate) fn are_readable(&self) -> bool {
        self.grant.verbs().has(Verb::Read)
    }

    /// Returns true if the caller may delete every row, whatever it contains, so that one operation can do so.
    pub(crate) fn may_delete_all(&self) -> bool {
        let unbounded = |bounds: &WriteBounds| bounds.sees.is_none() && bounds.changes.is_none();
        self.grant.bounds(WriteKind::DeleteAll).is_none_or(|bounds| unbounded(bounds))
    }

    /// Narrows `query` to this scope.
    pub(crate) fn narrow(&self, query: Query) -> Query {
        self.view.narrow(query)
    }

    /// Narrows `query` and prepares it for repeated execution.
    pub(crate) fn prepare(&self, query: Query) -> Arc<PreparedQuery> {
        Arc::new(PreparedQuery::new(self.narrow(query)))
    }

    /// Adds a condition to a query from [`ScopedRows::prepare`], and replaces its projection.
    pub(crate) fn restrict(
        &self,
        known: &PreparedQuery,
        filter: Filter,
        select: Option<Vec<SelectItem>>,
    ) -> Arc<PreparedQuery> {
        let mut query = known.query().clone();
        query.filter.and(filter);
        if let Some(select) = select {
            query.select = self.narrow(Query { select, ..Query::default() }).select;
        }
        Arc::new(PreparedQuery::new(query))
    }

    /// Returns true if a row is in the scope.
    pub(crate) fn sees(&self, row: &impl Fields) -> bool {
        self.view.sees(row)
    }

    /// Returns true if a stored row is in the scope.
    pub(crate) fn sees_row(&self, row: &RowRef<'_>) -> bool {
        self.view.has_all_rows() || self.sees(&fields(row))
    }

    /// Returns the version of a row for the scope's callers: a hash of what they see of it.
    pub(crate) fn version(&self, row: &RowRef<'_>) -> u128 {
        self.view.columns().map_or_else(|| row.hash(), |columns| columns.projection.hash(&fields(row)))
    }

    /// [`ScopedRows::version`] of an encoded row.
    pub(crate) fn version_of(&self, row: &Body) -> u128 {
        self.view.version(row)
    }

    /// Returns the visible part of a row as JSON.
    pub(crate) fn shown(&self, row: &RowRef<'_>) -> Vec<u8> {
        self.view.json(&fields(row))
    }

    // --- reading -----------------------------------------------------------------------------------------------------

    /// Returns the current state of all rows, in or out of the scope. Use it only for slots that a query of this scope selected.
    pub(crate) fn state(&self) -> Arc<State> {
        self.dio.state()
    }

    /// Returns the id in the form in which the row is stored. If the row is outside of the scope, that form would tell that there is
    /// one; only what `makes` a row needs it, to find the conflict.
    pub(crate) fn known_id<'i>(&self, id: &'i str, makes: bool) -> Cow<'i, str> {
        match self.dio.known_id(id) {
            Cow::Owned(known) if !makes && self.held_row(&known).is_none() => Cow::Borrowed(id),
            known => known,
        }
    }

    /// Returns the whole row under `id`, if it is stored and in the scope. Not all of its columns may be visible.
    pub(crate) fn held_row(&self, id: &str) -> Option<Record> {
        self.dio.held_row(id).filter(|row| self.sees(row))
    }

    /// Returns the visible part of the row under `id` as JSON, if it is stored and in the scope.
    pub(crate) fn json(&self, id: &str) -> Option<Bytes> {
        let state = self.state();
        let row = state.get(id).filter(|row| self.sees_row(row))?;
        Some(self.shown(&row).into())
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
        self.dio.select(state, &query, self.full_schema(), meter).await
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
        self.dio.select_prepared(state, query, page, self.full_schema(), meter).await
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
        page: impl FnOnce(Groups<'_>, &Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (state, query, schema) = (Arc::clone(state), self.narrow(query.clone()), self.full_schema());
        self.dio.aggregate(state, &query, aggregation, schema, meter, page).await
    }

    /// Returns the rows as a Vista, which reads rows that are not stored from the source.
    ///
    /// # Errors
    /// [`Error::Unsupported`](diorama_core::Error::Unsupported) if the source has to filter and cannot.
    pub(crate) fn vista(&self) -> Result<Vista> {
        let mut vista = self.dio.vista();
        if !self.view.has_all_rows() {
            vista.add_filter(self.view.filter().clone())?;
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
        self.dio.table_scenery().query(self.narrow(query.clone())).schema(self.full_schema())
    }

    /// Starts a continuously updated value of the rows that pass the filter and search of `query`.
    pub(crate) fn value_scenery(&self, query: &Query) -> ValueSceneryBuilder {
        let Query { filter, search, .. } = self.narrow(query.clone());
        self.dio.value_scenery().filter(filter).search(search).schema(self.full_schema())
    }

    // --- writing -----------------------------------------------------------------------------------------------------

    /// Accepts a write. The committer checks in the order of all writes that the caller sees and may change the row, and may make the
    /// row after it.
    ///
    /// # Errors
    /// As [`Dio::write`](diorama_core::Dio::write), and [`Error::Forbidden`] for what the access rules do not permit.
    pub(crate) async fn write(&self, op: WriteOp, mut options: WriteOptions) -> Result<Ticket> {
        let kind = op.kind();
        if kind == WriteKind::DeleteAll && !self.may_delete_all() {
            return Err(Error::Forbidden { detail: "the access rules do not permit to delete all rows".into() });
        }
        self.check_columns(kind, op.record())?;
        let op = self.with_kept_columns(op);
        if let Some(bounds) = self.grant.bounds(kind).filter(|_| kind != WriteKind::DeleteAll) {
            if let Some(id) = op.id().filter(|id| !self.dio.is_complete() && self.dio.held_row(id).is_none()) {
                // A row that is not in the copy may be outside the scope.
                self.dio.vista().get_value(id).await?;
            }
            options.within = Some(Arc::clone(bounds));
        }
        options.principal = self.principal.name().cloned();
        options.key = options.key.map(|key| IdempotencyKey { key: self.own_key(&key.key), ..key });
        let asked = op.id().filter(|_| !self.view.is_everything()).map(str::to_string);
        self.dio.write(op, options).await.map_err(|error| self.seen(error, asked))
    }

    /// Narrows `query`, which selects the targets of writes of `kind`, to the rows that the caller may change so.
    pub(crate) fn targets(&self, mut query: Query, kind: WriteKind) -> Query {
        if let Some(changes) = self.grant.bounds(kind).and_then(|bounds| bounds.changes.as_ref()) {
            query.filter = Filter::All(vec![changes.query().filter.clone(), query.filter]);
        }
        query
    }

    /// Inserts a row under an id that the source chooses, and returns the id.
    ///
    /// # Errors
    /// As [`ScopedRows::write`].
    pub(crate) async fn insert_at_master(&self, row: &Record) -> Result<String> {
        self.check_columns(WriteKind::Insert, Some(row))?;
        let bounds = self.grant.bounds(WriteKind::Insert).map(|bounds| &**bounds);
        self.dio.insert_at_master(row, bounds).await.map_err(|error| self.seen(error, None))
    }

    /// Returns true if the caller sent a write with this idempotency key before.
    ///
    /// # Errors
    /// As [`Dio::knows_key`](diorama_core::Dio::knows_key).
    pub(crate) async fn knows_key(&self, key: &str) -> Result<bool> {
        self.dio.knows_key(&self.own_key(key)).await
    }

    /// Returns the idempotency key as it is stored. Equal keys of different callers are different keys: an answer would tell the one
    /// about the write of the other. Keys from clients contain no space. Those of callers with a token of `server.auth` are stored as they
    /// were before there were other callers, so that a request is recognized over an upgrade.
    fn own_key(&self, key: &str) -> String {
        let name = match self.principal.name() {
            Some(name) if **name == *TOKEN => return key.to_string(),
            Some(name) => name,
            None if self.grant.is_unrestricted() => return key.to_string(),
            None => ANONYMOUS,
        };
        let digest = Sha256::digest(name.as_bytes());
        let half = digest.iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        format!("{key} {half:032x}")
    }

    /// Refuses columns that writes of `kind` may not set.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with the first of them.
    pub(crate) fn check_columns(&self, kind: WriteKind, row: Option<&Record>) -> Result<()> {
        let (Some(writable), Some(row)) = (self.grant.writable(kind), row) else { return Ok(()) };
        let id = self.full_schema().id_column();
        match row.columns().find(|column| *column != id && !writable.contains(*column)) {
            None => Ok(()),
            Some(column) => Err(Error::Forbidden { detail: format!("column {column:?} may not be written") }),
        }
    }

    /// Completes a replacement with the columns of the row that the caller may not write. The committer does so again with the row that
    /// it replaces.
    fn with_kept_columns(&self, mut op: WriteOp) -> WriteOp {
        let kind = op.kind();
        if let (WriteOp::Replace { id, record }, Some(writable)) = (&mut op, self.grant.writable(kind))
            && let Some(row) = self.held_row(id)
        {
            let kept = row.iter().filter(|(column, _)| !writable.contains(column.as_str()));
            kept.for_each(|(column, value)| drop(record.insert(column, value.clone())));
        }
        op
    }

    /// Removes facts that the caller does not see from an error: about columns, and the form in which the row of the id `asked` is
    /// stored.
    fn seen(&self, error: Error, asked: Option<String>) -> Error {
        let visible = |column: &str| self.schema().column(column).is_some();
        match (error, asked) {
            // The caller's own key, without the part that `own_key` adds.
            (Error::KeyReused { key }, _) => {
                Error::KeyReused { key: key.split(' ').next().unwrap_or_default().to_string() }
            }
            (Error::NotFound { .. }, Some(id)) => Error::NotFound { id },
            (Error::Conflict { detail, .. }, Some(id)) => Error::Conflict { id, detail },
            (Error::Precondition { .. }, Some(id)) => Error::Precondition { id },
            (Error::Invalid { fields, .. }, _)
                if !self.has_all_columns() && fields.keys().any(|column| !visible(column)) =>
            {
                let fields: BTreeMap<_, _> = fields.into_iter().filter(|(column, _)| visible(column)).collect();
                let detail = match fields.first_key_value() {
                    Some((column, detail)) => format!("column {column:?} {detail}"),
                    None => "the row needs values that this caller may not write".to_string(),
                };
                Error::Invalid { detail, fields }
            }
            (error, _) => error,
        }
    }
}

fn fields<'r>(row: &'r RowRef<'_>) -> JsonRow<'r> {
    JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))
}
