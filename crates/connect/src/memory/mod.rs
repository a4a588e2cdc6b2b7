//! Table in memory: the simplest complete source, for tests, demos and generated data.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::rows::{apply, count, field_error, foreign_token, sorted_page, with_id};
use diorama_core::record::{Body, CborValue, Id, Record, Rows, merge_patch};
use diorama_core::vista::{
    Capabilities, ColumnType, Error, Flag, Narrowing, Query, Result, Schema, TableShell, Token, Vista, WriteOp, Written,
};

/// A table whose rows are held in memory in insertion order. It has every capability unless
/// [`with_capabilities`](MemoryTable::with_capabilities) restricts it.
#[derive(Debug)]
pub struct MemoryTable {
    schema: Arc<Schema>,
    capabilities: Capabilities,
    store: Mutex<Store>,
}

/// Rows by number and numbers by id. Numbers only increase, so a token that holds one stays valid after inserts and deletes.
#[derive(Debug, Default)]
struct Store {
    rows: BTreeMap<u64, (Id, Body)>,
    numbers: HashMap<Id, u64>,
    next: u64,
}

impl Store {
    fn body(&self, id: &str) -> Option<&Body> {
        self.numbers.get(id).and_then(|number| self.rows.get(number)).map(|(_, body)| body)
    }

    fn put(&mut self, id: &str, body: Body) {
        if let Some((_, old)) = self.numbers.get(id).and_then(|number| self.rows.get_mut(number)) {
            *old = body;
            return;
        }
        let id = Id::from(id);
        self.rows.insert(self.next, (Arc::clone(&id), body));
        self.numbers.insert(id, self.next);
        self.next += 1;
    }

    fn remove(&mut self, id: &str) -> bool {
        self.numbers.remove(id).is_some_and(|number| self.rows.remove(&number).is_some())
    }
}

impl MemoryTable {
    /// Creates a table of `rows`. Of rows with the same id the last one is kept.
    pub fn new(schema: Schema, rows: impl IntoIterator<Item = (String, Record)>) -> MemoryTable {
        let mut store = Store::default();
        for (id, record) in rows {
            store.put(&id, Body::encode(&id, &record, schema.layout()));
        }
        MemoryTable { schema: Arc::new(schema), capabilities: Capabilities::all(), store: Mutex::new(store) }
    }

    /// Restricts the advertised capabilities.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> MemoryTable {
        self.capabilities = capabilities;
        self
    }

    /// Returns a [`Vista`] on a new table of `rows`.
    pub fn vista(name: impl Into<Arc<str>>, schema: Schema, rows: impl IntoIterator<Item = (String, Record)>) -> Vista {
        Vista::new(name, MemoryTable::new(schema, rows))
    }

    fn rows_after(&self, number: Option<u64>) -> (Rows, Vec<u64>) {
        self.rows_into(Rows::new(), number)
    }

    /// Adds the rows after `number` to `rows`, an empty set. Returns them with their numbers.
    fn rows_into(&self, rows: Rows, number: Option<u64>) -> (Rows, Vec<u64>) {
        let start = number.map_or(Bound::Unbounded, Bound::Excluded);
        let store = self.store.lock();
        let mut rows = rows.fit_for(self.schema.layout());
        let mut numbers = Vec::new();
        for (number, (id, body)) in store.rows.range((start, Bound::Unbounded)) {
            rows.push_body(id, body);
            numbers.push(*number);
        }
        (rows, numbers)
    }

    fn encode(&self, id: &str, record: &Record) -> Result<Body> {
        for column in self.schema.columns().iter().filter(|column| column.has(Flag::Mandatory)) {
            if matches!(record.get(&column.name), None | Some(CborValue::Null)) {
                return Err(field_error(&column.name, "must not be null"));
            }
        }
        Ok(Body::encode(id, record, self.schema.layout()))
    }

    fn insert(&self, store: &mut Store, id: &str, record: &Record) -> Result<Body> {
        let body = self.encode(id, &with_id(id, record, &self.schema)?)?;
        match store.body(id) {
            Some(old) if *old != body => {
                Err(Error::Conflict { id: id.to_string(), detail: "already exists with other values".into() })
            }
            Some(_) => Ok(body),
            None => {
                store.put(id, body.clone());
                Ok(body)
            }
        }
    }

    fn replace(&self, store: &mut Store, id: &str, record: &Record) -> Result<Body> {
        let body = self.encode(id, &with_id(id, record, &self.schema)?)?;
        store.put(id, body.clone());
        Ok(body)
    }

    fn patch(&self, store: &mut Store, id: &str, changes: &Record) -> Result<Body> {
        let body = self.merged(store, id, changes)?;
        store.put(id, body.clone());
        Ok(body)
    }

    fn merged(&self, store: &Store, id: &str, changes: &Record) -> Result<Body> {
        let old = store.body(id).ok_or_else(|| Error::NotFound { id: id.to_string() })?;
        let record = merge_patch(decode(old)?, &with_id(id, changes, &self.schema)?, self.schema.layout());
        self.encode(id, &record)
    }

    fn write_in(&self, store: &mut Store, op: &WriteOp) -> Result<Written> {
        match op {
            WriteOp::Insert { id, record } => written(&self.insert(store, id, record)?),
            WriteOp::Replace { id, record } => written(&self.replace(store, id, record)?),
            WriteOp::Patch { id, record } => written(&self.patch(store, id, record)?),
            WriteOp::Delete { id } if store.remove(id) => Ok(Written::default()),
            WriteOp::Delete { id } => Err(Error::NotFound { id: id.clone() }),
            WriteOp::DeleteAll => {
                // Numbers continue to increase, so tokens issued before stay valid.
                *store = Store { next: store.next, ..Store::default() };
                Ok(Written::default())
            }
        }
    }

    /// Returns the row that `op` would store; `None` for deletes.
    fn resulting_row(&self, store: &Store, op: &WriteOp) -> Result<Option<Body>> {
        Ok(match op {
            WriteOp::Insert { id, record } | WriteOp::Replace { id, record } => {
                Some(self.encode(id, &with_id(id, record, &self.schema)?)?)
            }
            WriteOp::Patch { id, record } => Some(self.merged(store, id, record)?),
            WriteOp::Delete { .. } | WriteOp::DeleteAll => None,
        })
    }

    /// Generates a new id: the number after the highest for integer columns, a time-ordered UUID for others.
    fn new_id(&self, store: &Store) -> Result<String> {
        let integer = self.schema.column(self.schema.id_column()).is_some_and(|c| c.ty == ColumnType::Integer);
        if !integer {
            return Ok(uuid::Uuid::now_v7().to_string());
        }
        let highest = store.numbers.keys().filter_map(|id| id.parse::<i64>().ok()).max().unwrap_or(0);
        let next = highest
            .checked_add(1)
            .ok_or_else(|| Error::permanent("the integer ids are exhausted: the highest id is in use"))?;
        Ok(next.to_string())
    }
}

fn decode(body: &Body) -> Result<Record> {
    body.decode().map_err(|error| Error::permanent(error.to_string()))
}

fn written(body: &Body) -> Result<Written> {
    Ok(Written { record: Some(decode(body)?), ..Written::default() })
}

#[async_trait]
impl TableShell for MemoryTable {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.schema)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        Ok(apply(query, &self.schema, self.rows_after(None).0))
    }

    async fn list_into(&self, query: &Query, rows: Rows) -> Result<Rows> {
        Ok(apply(query, &self.schema, self.rows_into(rows, None).0))
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let body = self.store.lock().body(id).cloned();
        body.as_ref().map(decode).transpose()
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        Ok(count(query, &self.schema, &self.rows_after(None).0))
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        if !query.order.is_empty() {
            return sorted_page(query, &self.schema, &self.rows_after(None).0, token);
        }
        let after = token.map(|token| token.parse::<u64>().map_err(|_| foreign_token())).transpose()?;
        let (rows, numbers) = self.rows_after(after);
        let by_id: HashMap<&str, u64> = rows.ids().zip(numbers).collect();
        let one_more = query.limit.map(|limit| limit.saturating_add(1));
        let mut page = apply(&Query { limit: one_more, offset: 0, ..query.clone() }, &self.schema, rows.clone());
        let mut next = None;
        if query.limit.is_some_and(|limit| page.len() as u64 > limit) {
            page = apply(&Query { limit: query.limit, ..Query::default() }, &self.schema, page);
            next = page.ids().last().and_then(|id| by_id.get(id)).map(u64::to_string);
        }
        Ok((page, next))
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.write_in(&mut self.store.lock(), op)
    }

    /// Checks and writes under one lock.
    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        let within = Narrowing::new(within, &self.schema);
        let op = within.completed(op.clone());
        let mut store = self.store.lock();
        let Some(id) = op.id() else {
            let matching = store.rows.values().filter(|(_, body)| within.matches(body));
            let ids: Vec<Id> = matching.map(|(id, _)| Arc::clone(id)).collect();
            for id in ids {
                store.remove(&id);
            }
            return Ok(Written::default());
        };
        within.check_before(op.kind(), id, store.body(id))?;
        if let Some(after) = self.resulting_row(&store, &op)? {
            within.check_after(&after)?;
        }
        self.write_in(&mut store, &op)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        let mut store = self.store.lock();
        let id = self.new_id(&store)?;
        let mut record = record.clone();
        record.remove(self.schema.id_column());
        let body = self.insert(&mut store, &id, &record)?;
        Ok(Written { id: Some(id), record: Some(decode(&body)?), ..Written::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;
    use diorama_core::vista::Column;

    fn schema(id: ColumnType) -> Schema {
        let name = Column::new("name", ColumnType::String).with(Flag::Mandatory);
        Schema::new("id", vec![Column::new("id", id), name, Column::new("price", ColumnType::Integer)])
    }

    fn row(name: &str, price: i64) -> Record {
        Record::from_iter([("name".into(), name.into()), ("price".into(), price.into())])
    }

    #[tokio::test]
    async fn the_contract_suite_passes() {
        use ColumnType::{Integer, String};
        let columns = [("id", Integer), ("name", String), ("price", Integer), ("category_id", Integer)];
        let schema = Schema::new("id", columns.map(|(name, ty)| Column::new(name, ty)).to_vec());
        let table = || MemoryTable::new(schema.clone(), contract::rows());
        contract::reads(&Vista::new("products", table()), contract::Natural::Stored).await;
        contract::writes(&Vista::new("products", table())).await;
        for capabilities in [Capabilities::default(), Capabilities::reads()] {
            let reduced = Vista::new("products", table().with_capabilities(capabilities));
            contract::reads(&reduced, contract::Natural::Stored).await;
            contract::refuses_writes(&reduced).await;
        }
    }

    #[tokio::test]
    async fn the_source_chooses_the_next_integer_or_a_uuid() {
        let table = MemoryTable::vista("t", schema(ColumnType::Integer), [("7".into(), row("a", 1))]);
        assert_eq!(table.insert_return_id(&row("b", 2)).await.unwrap(), "8");
        assert_eq!(table.get_value("8").await.unwrap().unwrap()["id"], 8.into());
        let table = MemoryTable::vista("t", schema(ColumnType::String), []);
        let id = table.insert_return_id(&row("b", 2)).await.unwrap();
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    }

    #[tokio::test]
    async fn a_mandatory_column_refuses_null_and_keeps_the_old_row() {
        let table = MemoryTable::vista("t", schema(ColumnType::Integer), [("7".into(), row("a", 1))]);
        let null = Record::from_iter([("name".into(), CborValue::Null)]);
        let error = table.patch_value("7", &null).await.unwrap_err();
        assert_eq!(error.to_string(), "column \"name\" must not be null");
        assert_eq!(table.get_value("7").await.unwrap().unwrap()["name"], "a".into());
    }

    #[tokio::test]
    async fn tokens_survive_deletes_of_the_rows_they_point_to() {
        let rows = (1..=5).map(|n| (n.to_string(), row("x", n)));
        let mut table = MemoryTable::vista("t", schema(ColumnType::Integer), rows);
        table.set_page_size(2).unwrap();
        let (page, token) = table.fetch_next(None).await.unwrap();
        assert_eq!(page.ids().collect::<Vec<_>>(), ["1", "2"]);
        table.delete("2").await.unwrap();
        let (page, token) = table.fetch_next(token).await.unwrap();
        assert_eq!(page.ids().collect::<Vec<_>>(), ["3", "4"]);
        let (page, token) = table.fetch_next(token).await.unwrap();
        assert_eq!((page.ids().collect::<Vec<_>>(), token), (vec!["5"], None));
        assert!(matches!(table.fetch_next(Some("nonsense".into())).await, Err(Error::Invalid { .. })));
    }
}
