//! The facade: a Vista backed by the Dio. Reads from the hot tier, writes through the queue, schema from the master.

use std::sync::Arc;

use async_trait::async_trait;

use super::Handle;
use super::core::Core;
use super::write::WriteOptions;
use crate::hot::{RowRef, Slot, State, Table};
use crate::record::{Id, Record, Rows};
use crate::vista::query::JsonRow;
use crate::vista::{Capabilities, Error, Flag, Query, Result, Schema, TableShell, Token, Vista, WriteOp, Written};

/// The shell of [`Dio::vista`](super::Dio::vista). Keeps the Dio alive.
pub(super) struct Facade {
    pub(super) handle: Arc<Handle>,
    pub(super) schema: Arc<Schema>,
}

/// The master's schema with what a whole copy adds: every column can be sorted by and searched.
pub(super) fn lifted_schema(core: &Core) -> Arc<Schema> {
    let schema = (*core.vista.schema()).clone();
    Arc::new(schema.with_flag_on_all(Flag::Orderable).with_flag_on_all(Flag::Searchable))
}

/// What the facade can do: the union of the master's and what the cache and the hooks provide.
pub(super) fn capabilities(core: &Core) -> Capabilities {
    let master = core.vista.capabilities();
    let routed = core.hooks.on_write.is_some();
    let mut caps = if core.is_complete() { Capabilities::reads() } else { master };
    caps.can_insert = routed || master.can_insert;
    caps.can_update = routed || master.can_update;
    caps.can_delete = routed || master.can_delete;
    caps.can_delete_all = routed || master.can_delete_all;
    caps
}

impl Core {
    /// Rows that `query` asks for, and how many match in all.
    pub(crate) async fn select(self: &Arc<Self>, query: &Query, schema: &Arc<Schema>) -> Result<(Rows, u64)> {
        self.select_from(self.state(), query, schema).await
    }

    /// [`Core::select`] from a State of the caller's.
    pub(crate) async fn select_from(
        &self,
        state: Arc<State>,
        query: &Query,
        schema: &Arc<Schema>,
    ) -> Result<(Rows, u64)> {
        let schema = Arc::clone(schema);
        let query = query.clone();
        self.heavy(cost(state.table(), &query), move || select(&state, &query, &schema)).await
    }

    /// Answers `query` from the master, if the copy is not whole and the master can.
    async fn at_master(&self, query: &Query) -> Result<Rows> {
        self.master_takes(query)?;
        self.vista.shell().list(query).await
    }

    /// Whether the master itself can answer `query`.
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
        if (query.limit.is_some() || query.offset > 0) && !caps.can_fetch_page {
            return refuse("page (its rows are only partly cached)");
        }
        Ok(())
    }
}

/// The rows that `query` asks for, encoded, and how many match in all.
fn select(state: &State, query: &Query, schema: &Schema) -> (Rows, u64) {
    let mut rows = Rows::with_layout(Arc::clone(schema.layout()));
    let (slots, total) = pick(state.table(), query, schema);
    for row in slots.into_iter().filter_map(|slot| state.table().at(slot)) {
        rows.push_body(Id::from(row.id()), row.body());
    }
    (rows, total)
}

/// The one way rows are picked for an answer: their slots in order, and how many match in all. Without filter and order, only
/// the rows asked for are touched.
pub(crate) fn pick(table: &Table, query: &Query, schema: &Schema) -> (Vec<Slot>, u64) {
    if query.is_unfiltered() && query.order.is_empty() {
        let (skip, take) = (clamp(query.offset), query.limit.map_or(usize::MAX, clamp));
        return (table.natural(skip).take(take).map(|row| row.slot()).collect(), table.len() as u64);
    }
    let prepared = query.prepare(schema);
    let all = table.natural(0).map(|row| (ById(row), JsonRow(row.json(), row.cbor().map(|cbor| &cbor[..]))));
    let (picked, total) = prepared.top(all, query.offset, query.limit);
    (picked.into_iter().map(|(ById(row), _)| row.slot()).collect(), total)
}

/// How many rows [`pick`] touches.
pub(crate) fn cost(table: &Table, query: &Query) -> usize {
    if query.is_unfiltered() && query.order.is_empty() {
        query.limit.map_or(table.len(), clamp).min(table.len())
    } else {
        table.len()
    }
}

struct ById<'a>(RowRef<'a>);

impl AsRef<str> for ById<'_> {
    fn as_ref(&self) -> &str {
        self.0.id()
    }
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
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
        if !core.is_complete() {
            return core.at_master(query).await;
        }
        self.handle.refresh_if_stale();
        core.select(query, &self.schema).await.map(|(rows, _)| rows)
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let core = &self.handle.core;
        self.handle.refresh_if_stale();
        if let Some(row) = core.state().get(id) {
            return Ok(row.decode().ok());
        }
        if core.is_complete() {
            return Ok(None);
        }
        core.vista.shell().get(id).await
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let core = &self.handle.core;
        if !core.is_complete() {
            return core.vista.shell().count(query).await;
        }
        self.handle.refresh_if_stale();
        let query = Query { limit: Some(0), offset: 0, order: Vec::new(), ..query.clone() };
        core.select(&query, &self.schema).await.map(|(_, total)| total)
    }

    /// Tokens are offsets: a page after changes may repeat or miss rows, as with any master that pages.
    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let core = &self.handle.core;
        if !core.is_complete() {
            return core.vista.shell().next(query, token).await;
        }
        self.handle.refresh_if_stale();
        let offset = match token {
            None => 0,
            Some(token) => {
                token.parse().map_err(|_| Error::invalid(format!("{token:?} is not a token of this source")))?
            }
        };
        let query = Query { offset, ..query.clone() };
        let (rows, total) = core.select(&query, &self.schema).await?;
        let end = offset + rows.len() as u64;
        let more = end < total && !rows.is_empty();
        Ok((rows, more.then(|| end.to_string())))
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.handle.core.submit(op.clone(), WriteOptions::default()).await?;
        Ok(Written::default())
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        let core = &self.handle.core;
        let master = core.vista.schema();
        let id = if !master.layout().integer_id() {
            let id = uuid::Uuid::now_v7().to_string();
            let op = WriteOp::Insert { id: id.clone(), record: record.clone() };
            core.submit(op, WriteOptions::default()).await?;
            id
        } else if core.hooks.on_write.is_some() {
            let detail =
                format!("give the row an id in its column {:?}: the write route cannot choose one", master.id_column());
            return Err(Error::invalid(detail));
        } else {
            core.insert_at_master(record).await?
        };
        Ok(Written { id: Some(id), record: None })
    }

    fn reference(&self, relation: &str, row: &Record) -> Result<Vista> {
        self.handle.core.vista.get_ref(relation, row)
    }
}
