//! MariaDB and MySQL tables, views and queries: every capability, and exactly-once writes.
//!
//! A query part is translated to SQL only if SQL and the crate's evaluator agree exactly (`sql/plan.rs`); the evaluator applies
//! the rest to a wider select. Names are always quoted; values are bound, or literals of digits.

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use mysql_async::{Row, Value};

use super::address::Address;
use super::errors::failed;
use super::ops;
use super::options::MySqlOptions;
use super::pool::{Lease, Pool, Session};
use super::table::{MySqlRelation, Table};
use super::write::{self, Write};
use crate::rows::{apply, count, first_rows, foreign_token, page_after, sorted_page};
use crate::sql::Plan;
use crate::sql::operations::TIDY_EVERY;
use diorama_core::record::{Record, Rows};
use diorama_core::vista::{
    Capabilities, Error, Narrowing, Query, Result, Schema, TableShell, Token, Vista, WriteOp, Written,
};

/// Maximum number of writes in one batch.
const BATCH: usize = 256;

/// A table, view or query of a MariaDB or MySQL database as a source.
#[derive(Clone, Debug)]
pub struct MySql(Arc<Inner>);

/// State that the clones of a [`MySql`] share.
#[derive(Debug)]
struct Inner {
    table: Table,
    pool: Arc<Pool>,
    /// Number of operations written under their ids.
    written: AtomicU64,
}

impl MySql {
    /// Opens `relation` in the database at `url`: `mysql://USER:PASSWORD@HOST/DATABASE`.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is not valid, or the table does not exist or has no usable key; [`Error::Source`] if the
    /// server cannot be reached.
    pub async fn open(name: &str, url: &str, relation: MySqlRelation, options: MySqlOptions) -> Result<Vista> {
        let address = Address::parse(url, options.tls, options.ca.clone()).map_err(Error::Config)?;
        let shell = MySql::connect(&address, &relation, &options).await?;
        Ok(Vista::new(name, shell))
    }

    /// Opens `relation` of the database at `address`.
    pub(super) async fn connect(address: &Address, relation: &MySqlRelation, options: &MySqlOptions) -> Result<MySql> {
        let pool = Pool::new(address.clone());
        let mut lease = pool.lease().await?;
        let session = lease.session();
        let table = Table::describe(session, address, relation, options).await?;
        if table.rights.any() {
            ops::prepare(session, &table, address.user()).await?;
        }
        lease.give_back();
        Ok(MySql(Arc::new(Inner { table, pool, written: AtomicU64::new(0) })))
    }

    fn table(&self) -> &Table {
        &self.0.table
    }

    async fn lease(&self) -> Result<Lease> {
        self.0.pool.lease().await
    }

    /// Returns the rows that a statement selects.
    async fn select(&self, sql: &str, params: Vec<Value>) -> Result<Rows> {
        let mut lease = self.lease().await?;
        let rows = select(lease.session(), self.table(), sql, params).await?;
        lease.give_back();
        Ok(rows)
    }

    fn check_writes(&self) -> Result<()> {
        match self.table().rights.any() {
            true => Ok(()),
            false => Err(Error::Unsupported { vista: self.table().name.as_str().into(), what: "write" }),
        }
    }

    async fn execute(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let mut lease = match self.check_writes() {
            Ok(()) => match self.lease().await {
                Ok(lease) => lease,
                Err(error) => return vec![Err(error)],
            },
            Err(error) => return vec![Err(error)],
        };
        let results = write::execute_all(lease.session(), self.table(), writes).await;
        self.tidy(lease.session(), writes).await;
        lease.give_back();
        results
    }

    /// Deletes old operations after every some thousand writes. A failure is left to the next time.
    async fn tidy(&self, session: &mut Session, writes: &[Write]) {
        let noted = writes.iter().filter(|write| write.operation.is_some()).count() as u64;
        let before = self.0.written.fetch_add(noted, Ordering::Relaxed);
        let Some(place) = &self.table().place else { return };
        if noted > 0
            && (before == 0 || before / TIDY_EVERY != (before + noted) / TIDY_EVERY)
            && let Err(error) = ops::tidy(session, place).await
        {
            tracing::warn!(table = self.table().name, %error, "old ids of operations cannot be deleted");
        }
    }

    async fn execute_one(&self, write: Write) -> Result<Written> {
        let written = self.execute(std::slice::from_ref(&write)).await.into_iter().next();
        written.unwrap_or_else(|| Err(Error::unknown("the write was sent, but its outcome is unknown")))
    }
}

#[async_trait]
impl TableShell for MySql {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.table().schema)
    }

    fn capabilities(&self) -> Capabilities {
        let (rights, mut can) = (self.table().rights, Capabilities::reads());
        can.can_insert = rights.insert;
        can.can_update = rights.update;
        (can.can_delete, can.can_delete_all) = (rights.delete, rights.delete);
        can
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        let table = self.table();
        let plan = Plan::new(table, query);
        let rows = self.select(&plan.select(&table.selected, &table.from), plan.params()).await?;
        Ok(if plan.is_exact { rows } else { apply(query, &table.schema, rows) })
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let table = self.table();
        let Some(sql) = table.select_one(id) else { return Ok(None) };
        let mut lease = self.lease().await?;
        let found = lease.session().rows(&sql).await.map_err(failed)?;
        lease.give_back();
        let row = found.into_iter().next().map(|row| table.row(row)).transpose()?;
        // The server may take another spelling for the same key.
        Ok(row.filter(|(own, _)| table.schema.is_same_id(own, id)).map(|(_, record)| record))
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let table = self.table();
        let query = Query { limit: None, offset: 0, order: Vec::new(), ..query.clone() };
        let plan = Plan::new(table, &query);
        if !plan.is_exact {
            let rows = self.select(&plan.select(&table.selected, &table.from), plan.params()).await?;
            return Ok(count(&query, &table.schema, &rows));
        }
        let sql = format!("SELECT count(*) FROM {}{}", table.from, plan.filter());
        let mut lease = self.lease().await?;
        let mut counted = None;
        let take = |row: Row| counted = row.get::<u64, _>(0);
        lease.session().each(&sql, plan.values().to_vec(), take).await.map_err(failed)?;
        lease.give_back();
        counted.ok_or_else(|| Error::permanent("the server has not counted the rows"))
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let table = self.table();
        let all = Query { order: Vec::new(), limit: None, offset: 0, ..query.clone() };
        let plan = Plan::new(table, &all);
        if !query.order.is_empty() || !plan.is_exact {
            let rows = self.select(&plan.select(&table.selected, &table.from), plan.params()).await?;
            if query.order.is_empty() {
                return Ok(page_after(query, &table.schema, rows, token));
            }
            return sorted_page(query, &table.schema, &rows, token);
        }
        self.natural_page(query.limit, &plan, token).await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.execute_one(Write { operation: None, op: op.clone() }).await
    }

    /// Checks and writes in one transaction.
    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        self.check_writes()?;
        let within = Narrowing::new(within, &self.table().schema);
        if op.id().is_some() {
            let mut lease = self.lease().await?;
            let write = Write { operation: None, op: op.clone() };
            let written = write::execute_within(lease.session(), self.table(), &write, &within).await;
            lease.give_back();
            return written;
        }
        for id in self.list(within.query()).await?.ids() {
            match self.write_within(&WriteOp::Delete { id: id.to_string() }, within.query()).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::default())
    }

    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        self.execute_one(Write { operation: Some(operation.to_string()), op: op.clone() }).await
    }

    fn batch_size(&self) -> usize {
        if self.table().rights.any() { BATCH } else { 1 }
    }

    async fn write_batch(&self, writes: &[(String, WriteOp)]) -> Vec<Result<Written>> {
        let write = |(id, op): &(String, WriteOp)| Write { operation: Some(id.clone()), op: op.clone() };
        self.execute(&writes.iter().map(write).collect::<Vec<_>>()).await
    }

    fn writes_once(&self) -> bool {
        self.table().rights.any()
    }

    async fn knows(&self, operation: &str) -> Result<bool> {
        let Some(place) = &self.table().place else { return Ok(false) };
        if !self.table().rights.any() {
            return Ok(false);
        }
        let mut lease = self.lease().await?;
        let knows = ops::knows(lease.session(), place, operation).await.map_err(failed)?;
        lease.give_back();
        Ok(knows)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.check_writes()?;
        let mut lease = self.lease().await?;
        let written = write::insert_return_id(lease.session(), self.table(), record).await;
        lease.give_back();
        written
    }
}

impl MySql {
    /// Returns the next rows in natural order. The token is the id of the last row, so inserts and deletes elsewhere do not matter.
    async fn natural_page(
        &self,
        limit: Option<u64>,
        plan: &Plan<Value>,
        token: Option<&Token>,
    ) -> Result<(Rows, Option<Token>)> {
        let table = self.table();
        let mut filter = plan.filter();
        if let Some(token) = token {
            let after = table.after(token).ok_or_else(foreign_token)?;
            filter = format!("{filter}{} {after}", if filter.is_empty() { " WHERE" } else { " AND" });
        }
        let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let page = limit.map(|limit| format!(" LIMIT {}", limit.saturating_add(1))).unwrap_or_default();
        let order = table.natural_order();
        let sql = format!("SELECT {} FROM {}{filter}{order}{page}", table.selected, table.from);
        let rows = self.select(&sql, plan.values().to_vec()).await?;
        Ok(first_rows(&table.schema, &rows, 0, most))
    }
}

/// Returns all rows that `sql` selects, as of one moment.
async fn select(session: &mut Session, table: &Table, sql: &str, params: Vec<Value>) -> Result<Rows> {
    session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map_err(failed)?;
    let mut rows = Rows::with_layout(Arc::clone(table.schema.layout()));
    let mut pushed = Ok(());
    let take = |row: Row| {
        if pushed.is_ok() {
            pushed = push(table, &mut rows, row);
        }
    };
    session.each(sql, params, take).await.map_err(failed)?;
    session.run("COMMIT").await.map_err(failed)?;
    pushed.map(|()| rows)
}

fn push(table: &Table, rows: &mut Rows, row: Row) -> Result<()> {
    let (id, record) = match table.row(row) {
        Ok(row) => row,
        Err(error) => {
            rows.skip(error.to_string());
            return Ok(());
        }
    };
    match rows.push(id.as_str(), &record) {
        true => Ok(()),
        false => Err(Error::permanent(format!("{} has more than one row with id {id:?}", table.name))),
    }
}
