//! The facade: a Vista backed by the Dio. It reads from memory, writes through the queue and has the master's schema.

use std::sync::Arc;

use async_trait::async_trait;

use super::coverage::Coverage;
use crate::dio::commit::write::WriteOptions;
use crate::dio::core::Core;
use crate::dio::handle::Handle;
use crate::dio::tasks::HEAVY;
use crate::plan::{Page, Plan, PreparedQuery, Selection, plan};
use crate::record::{Record, Rows};
use crate::state::State;
use crate::table::Slot;
use crate::vista::query::{Cursor, Meter};
use crate::vista::{
    Capabilities, Error, Flag, Narrowing, Query, Result, Schema, TableShell, Token, Vista, WriteBounds, WriteOp,
    Written,
};

/// Number of rows from which background work runs off the async threads. There may be hundreds of such tasks at a time.
const FEW: usize = 500;

/// Shell of [`Dio::vista`](crate::dio::Dio::vista). It keeps the Dio alive.
pub(crate) struct Facade {
    pub(crate) handle: Arc<Handle>,
    pub(crate) schema: Arc<Schema>,
}

/// The master's schema with every column orderable and searchable, as a whole copy allows.
pub(crate) fn lifted_schema(core: &Core) -> Arc<Schema> {
    let schema = (*core.vista.schema()).clone();
    Arc::new(schema.with_flag_on_all(Flag::Orderable).with_flag_on_all(Flag::Searchable))
}

/// Capabilities of the facade: those of the master, the cache and the callbacks together.
pub(crate) fn capabilities(core: &Core) -> Capabilities {
    let master = core.vista.capabilities();
    let routed = core.callbacks.on_write.is_some();
    let mut caps = if core.is_complete() { Capabilities::reads() } else { master };
    caps.can_insert = routed || master.can_insert;
    caps.can_update = routed || master.can_update;
    caps.can_delete = routed || master.can_delete;
    caps.can_delete_all = match &core.settings.route {
        Some(route) if routed => route.capabilities().can_delete_all,
        _ => routed || master.can_delete_all,
    };
    caps
}

impl Core {
    /// Rows of `query`, and the number of all matches.
    pub(crate) async fn select(self: &Arc<Self>, query: &Query, schema: &Arc<Schema>) -> Result<(Rows, u64)> {
        self.select_from(self.state(), query, schema, Meter::unbounded()).await
    }

    /// [`Core::select`] from the caller's State, within the bounds of `meter`.
    pub(crate) async fn select_from(
        &self,
        state: Arc<State>,
        query: &Query,
        schema: &Arc<Schema>,
        meter: Meter,
    ) -> Result<(Rows, u64)> {
        let (selection, _) = self.select_slots(&state, query, schema, &Arc::new(meter)).await?;
        Ok((encode(&state, &selection.slots, schema), selection.total))
    }

    /// Selects rows and returns them with the plan of the query. All reads of rows use this function.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor that does not fit, and as [`Workers::run`](super::workers::Workers::run).
    pub(crate) async fn select_slots(
        &self,
        state: &Arc<State>,
        query: &Query,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
    ) -> Result<(Selection, Plan)> {
        let plan = self.plan(state, query, schema)?;
        let weight = Core::weight(query, &plan);
        let (state, query, schema) = (Arc::clone(state), query.clone(), Arc::clone(schema));
        let work = move |meter: &Meter| Ok((plan.run(state.table(), &query, &schema, meter)?, plan));
        self.work(weight, meter, work).await
    }

    /// Plans `query`, and notes the indexes that it uses and lacks.
    ///
    /// # Errors
    /// As [`plan`].
    pub(super) fn plan(&self, state: &State, query: &Query, schema: &Schema) -> Result<Plan> {
        state.table().columns().set_limit(self.settings.column_memory);
        let plan = plan(state.table(), query, schema)?;
        self.note_plan(state, &plan);
        Ok(plan)
    }

    /// Number of rows that a query counts as.
    pub(super) fn weight(query: &Query, plan: &Plan) -> usize {
        if query.filter.has_patterns() { HEAVY } else { plan.cost() }
    }

    /// [`Core::select_slots`] for a prepared query that runs repeatedly.
    ///
    /// # Errors
    /// As [`Core::select_slots`].
    pub(crate) async fn select_prepared(
        &self,
        state: &Arc<State>,
        query: &Arc<PreparedQuery>,
        page: Page,
        schema: &Arc<Schema>,
        meter: &Arc<Meter>,
    ) -> Result<Selection> {
        state.table().columns().set_limit(self.settings.column_memory);
        let cached_plan = query.cached_plan(state, page, schema)?;
        self.note_plan(state, cached_plan.plan());
        if let Some(selection) = cached_plan.selection(page) {
            return Ok(selection);
        }
        if cached_plan.plan().cost() < HEAVY && !query.has_patterns() {
            return cached_plan.run(state, query.query(), page, schema, meter);
        }
        let (state, query, schema) = (Arc::clone(state), Arc::clone(query), Arc::clone(schema));
        let work = move |meter: &Meter| cached_plan.run(&state, query.query(), page, &schema, meter);
        self.settings.workers.run(meter, work).await
    }

    /// Runs `work` within the bounds of `meter`, on the [`Workers`](super::workers::Workers) if it is about many rows.
    ///
    /// # Errors
    /// Errors of `work`, and as [`Workers::run`](super::workers::Workers::run).
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        rows: usize,
        meter: &Arc<Meter>,
        work: impl FnOnce(&Meter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let most = if meter.is_background() { FEW } else { HEAVY };
        if rows < most {
            return work(meter);
        }
        self.settings.workers.run(meter, work).await
    }

    /// Answers `query` from the master, for a partial copy.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the master does not support the query.
    async fn at_master(self: &Arc<Self>, query: &Query) -> Result<Rows> {
        self.master_takes(query)?;
        self.load_page(query).await
    }

    /// Checks that the master itself can answer `query`.
    pub(crate) fn master_takes(&self, query: &Query) -> Result<()> {
        let caps = self.vista.capabilities();
        let refuse = |what| Err(Error::Unsupported { vista: Arc::clone(&self.name), what });
        if !query.filter.is_everything() && !caps.can_filter {
            return refuse("filter (its rows are only partly cached)");
        }
        if query.search.is_some() && !caps.can_search {
            return refuse("search (its rows are only partly cached)");
        }
        if !query.order.is_empty() && !caps.can_order {
            return refuse("sort (its rows are only partly cached)");
        }
        if query.after.is_some() {
            return refuse("continue from a cursor (its rows are only partly cached)");
        }
        if (query.limit.is_some() || query.offset > 0) && !caps.can_fetch_page {
            return refuse("page (its rows are only partly cached)");
        }
        Ok(())
    }
}

/// Encodes the rows in `slots`.
fn encode(state: &State, slots: &[Slot], schema: &Schema) -> Rows {
    let mut rows = Rows::with_layout(Arc::clone(schema.layout()));
    for row in slots.iter().filter_map(|slot| state.table().at(*slot)) {
        rows.push_body(row.id(), row.encoded());
    }
    rows
}

/// Options of a write that is restricted to `within`.
fn bounded(within: &Arc<WriteBounds>) -> WriteOptions {
    WriteOptions { within: Some(Arc::clone(within)), ..WriteOptions::default() }
}

impl Core {
    /// Returns true if new rows without an id get a new UUID. A master with integer ids chooses them, and one that says so, unless
    /// writes go to a route.
    pub(crate) fn mints_ids(&self) -> bool {
        let chooses = self.vista.capabilities().chooses_ids && self.callbacks.on_write.is_none();
        !self.vista.schema().layout().integer_id() && !chooses
    }
}

impl Facade {
    /// Inserts a row without an id: under a new UUID, or under an id that the master chooses.
    async fn insert_new(&self, record: &Record, within: Option<Arc<WriteBounds>>) -> Result<Written> {
        let core = &self.handle.core;
        let master = core.vista.schema();
        let id = if core.mints_ids() {
            let id = uuid::Uuid::now_v7().to_string();
            let op = WriteOp::Insert { id: id.clone(), record: record.clone() };
            core.submit(op, WriteOptions { within, ..WriteOptions::default() }).await?;
            id
        } else if core.callbacks.on_write.is_some() {
            let detail = format!(
                "the row has no id in column {:?}, and the write route cannot choose one: add an id",
                master.id_column()
            );
            return Err(Error::invalid(detail));
        } else {
            core.writable()?;
            core.insert_at_master(&self.handle, record, within.as_deref()).await?
        };
        Ok(Written { id: Some(id), ..Written::default() })
    }
}

#[async_trait]
impl TableShell for Facade {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(&self.handle.core)
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        let core = &self.handle.core;
        if core.readable()? == Coverage::Partial {
            return core.at_master(query).await;
        }
        self.handle.refresh_if_stale();
        core.select(query, &self.schema).await.map(|(rows, _)| rows)
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let core = &self.handle.core;
        let coverage = core.readable()?;
        self.handle.refresh_if_stale();
        let id = &*core.known_id(id);
        if let Some(row) = core.state().get(id) {
            return Ok(row.decode().ok());
        }
        if coverage == Coverage::Whole {
            return Ok(None);
        }
        core.load_row(id).await?;
        Ok(core.state().get(id).and_then(|row| row.decode().ok()))
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let core = &self.handle.core;
        if core.readable()? == Coverage::Partial {
            return core.count_master(query).await;
        }
        self.handle.refresh_if_stale();
        let query = Query { limit: Some(0), offset: 0, after: None, order: Vec::new(), ..query.clone() };
        core.select(&query, &self.schema).await.map(|(_, total)| total)
    }

    /// Returns cursors as tokens, so that rows inserted and removed between pages neither hide nor repeat others.
    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let core = &self.handle.core;
        if core.readable()? == Coverage::Partial {
            return core.next_of_master(query, token).await;
        }
        self.handle.refresh_if_stale();
        let after = token.map_or(Ok(Cursor::start()), |token| Cursor::parse(token))?;
        let query = Query { after: Some(after), offset: 0, ..query.clone() };
        let (state, schema) = (core.state(), &self.schema);
        let (selection, _) = core.select_slots(&state, &query, schema, &Arc::new(Meter::unbounded())).await?;
        let next = selection.next(state.table(), &query, schema);
        Ok((encode(&state, &selection.slots, schema), next.map(|next| next.to_string())))
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.handle.core.submit(op.clone(), WriteOptions::default()).await?;
        Ok(Written::default())
    }

    /// Checks the restriction in commit order.
    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        let core = &self.handle.core;
        let narrowing = Narrowing::new(within, &self.schema);
        let targets = narrowing.query().clone();
        let within = Arc::new(WriteBounds::from(narrowing));
        let Some(id) = op.id() else {
            for id in self.list(&targets).await?.ids() {
                let op = WriteOp::Delete { id: id.to_string() };
                match core.submit(op, bounded(&within)).await {
                    Ok(_) | Err(Error::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(Written::default());
        };
        if !core.is_complete() && core.state().get(id).is_none() {
            // A row that is not cached may be outside of the restriction.
            core.load_row(id).await?;
        }
        core.submit(op.clone(), bounded(&within)).await?;
        Ok(Written::default())
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.insert_new(record, None).await
    }

    async fn insert_return_id_within(&self, record: &Record, within: &Query) -> Result<Written> {
        self.insert_new(record, Some(Arc::new(Narrowing::new(within, &self.schema).into()))).await
    }

    fn reference(&self, relation: &str, row: &Record) -> Result<Vista> {
        self.handle.core.vista.get_ref(relation, row)
    }
}

#[cfg(test)]
mod tests;
