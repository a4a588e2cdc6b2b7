//! SurrealDB tables: every capability, and exactly-once writes.
//!
//! The server filters by record id and counts all rows. Everything else is left to the crate's evaluator, because operators of SurrealQL
//! compare values of different types in an order of their own.

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::cbor::{items, member, object};
use super::errors::{Failure, failed};
use super::pool::{Lease, Pool};
use super::progress::{PASSING, PASSING_OF_LIST, Turn};
use super::record_id::{parts, records_after};
use super::rpc::{Session, Transaction};
use super::shared::Shared;
use super::table::{Options, Table, timeout};
use super::{ops, write};
use crate::rows::{apply, count, foreign_token, page_after, sorted_page};
use crate::sql::operations::{TIDY_EVERY, settle_reported};
use diorama_core::record::{CborValue, Record, Rows};
use diorama_core::vista::{
    Capabilities, Error, Inferred, Narrowing, Query, Result, Schema, TableShell, Token, WriteOp, Written,
};

/// Numbers of rows in one page of a list; if an answer is too large, the next one is tried.
const PAGES: [u64; 4] = [1_000, 100, 10, 1];

/// A table of a SurrealDB database as a source.
#[derive(Clone, Debug)]
pub(super) struct Surreal(Arc<Inner>);

/// State that the clones of a [`Surreal`] share.
#[derive(Debug)]
struct Inner {
    table: Arc<Table>,
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    /// Number of operations written under their ids.
    written: AtomicU64,
}

impl Surreal {
    /// Opens the source that `shared` names.
    ///
    /// # Errors
    /// [`Error::Config`] if the server refuses the login, or the table does not exist; [`Error::Source`] if it cannot be reached.
    pub(super) async fn connect(shared: Arc<Shared>, options: &Options) -> Result<Surreal> {
        let mut session = shared.address.connect().await?;
        let table = shared.describe(&mut session, options).await?;
        let pool = Pool::new(shared.address.clone());
        Ok(Surreal(Arc::new(Inner { table, shared, pool, written: AtomicU64::new(0) })))
    }

    /// Returns true if rows can be written.
    pub(super) fn is_writable(&self) -> bool {
        self.0.table.is_writable
    }

    fn table(&self) -> &Table {
        &self.0.table
    }

    async fn lease(&self) -> Result<Lease> {
        self.0.pool.lease().await
    }

    async fn turn(&self) -> Result<Option<Turn>> {
        self.0.shared.progress.turn().await
    }

    /// Waits until the Dio's feed has passed everything that a read has shown.
    ///
    /// # Errors
    /// A transient error if the feed does not in time.
    async fn await_feed(&self, turn: Option<Turn>, patience: Duration) -> Result<()> {
        if turn.is_none() {
            return Ok(());
        }
        match self.0.shared.progress.passed(patience).await {
            Some(_) => Ok(()),
            None => Err(Error::transient("the feed of the source's changes is behind what was read")),
        }
    }

    /// Waits until the Dio's feed has passed a write that cannot be repeated.
    async fn await_feed_or_stray(&self, turn: Option<Turn>) {
        if turn.is_some() && self.0.shared.progress.passed(PASSING).await.is_none() {
            self.0.shared.progress.stray();
        }
    }

    /// Returns all rows, as they are at one moment.
    async fn list_whole(&self) -> Result<Rows> {
        let turn = self.0.shared.progress.turn_of_list().await?;
        for size in PAGES {
            let mut lease = self.lease().await?;
            match list(lease.session(), self.table(), size).await {
                Ok(rows) => {
                    lease.give_back();
                    self.await_feed(turn, PASSING_OF_LIST).await?;
                    return Ok(rows);
                }
                Err(Failure::TooLarge) => {}
                Err(failure) => return Err(failed(failure)),
            }
        }
        Err(failed(Failure::TooLarge))
    }

    fn check_writes(&self) -> Result<()> {
        match self.is_writable() {
            true => Ok(()),
            false => Err(Error::Unsupported { vista: self.table().name.as_str().into(), what: "write" }),
        }
    }

    async fn execute(&self, op: &WriteOp, operation: Option<&str>) -> Result<Written> {
        self.check_writes()?;
        let turn = self.turn().await?;
        let mut lease = self.lease().await?;
        let mut results = vec![write::execute(lease.session(), self.table(), op, operation).await];
        if operation.is_some() {
            self.tidy(lease.session()).await;
        }
        lease.give_back();
        match operation {
            Some(_) if turn.is_some() && results[0].is_ok() => {
                settle_reported(&mut results, self.0.shared.progress.passed(PASSING).await);
            }
            None if results[0].is_ok() => self.await_feed_or_stray(turn).await,
            _ => {}
        }
        let result = results.into_iter().next();
        result.unwrap_or_else(|| Err(Error::unknown("the write was sent, but its outcome is unknown")))
    }

    /// Deletes old operations after every some thousand writes. A failure is left to the next time.
    async fn tidy(&self, session: &mut Session) {
        let before = self.0.written.fetch_add(1, Ordering::Relaxed);
        if before.is_multiple_of(TIDY_EVERY)
            && !session.is_broken()
            && let Err(error) = ops::tidy(session).await
        {
            tracing::warn!(table = self.table().name, %error, "old ids of operations cannot be deleted");
        }
    }

    /// Returns the next rows in the order of record ids. The token is the id of the last row, so inserts and deletes elsewhere do not
    /// matter.
    async fn natural_page(&self, limit: Option<u64>, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let Some(limit) = limit else { return Ok((self.list_whole().await?, None)) };
        let after = token.map(|token| self.table().key.key_of(token).ok_or_else(foreign_token)).transpose()?;
        let turn = self.turn().await?;
        let mut lease = self.lease().await?;
        let session = lease.session();
        let found = records(session, self.table(), after, limit.saturating_add(1), None).await.map_err(failed)?;
        lease.give_back();
        self.await_feed(turn, PASSING).await?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = found.len() > most;
        let mut rows = Rows::with_layout(Arc::clone(self.table().schema.layout()));
        let mut last = None;
        for record in found.into_iter().take(most) {
            last = push(self.table(), &mut rows, record).or(last);
        }
        Ok((rows, last.filter(|_| has_more)))
    }
}

/// Returns at most `limit` records after a key, in the order of their ids.
async fn records(
    session: &mut Session,
    table: &Table,
    after: Option<CborValue>,
    limit: u64,
    transaction: Option<&Transaction>,
) -> std::result::Result<Vec<CborValue>, Failure> {
    let sql = format!("SELECT * FROM $range LIMIT {limit}{}", timeout());
    let variables = object([("range", records_after(&table.name, after))]);
    session.last(&sql, variables, transaction).await.map(items)
}

/// Returns all rows in pages of `size`, in one transaction.
async fn list(session: &mut Session, table: &Table, size: u64) -> std::result::Result<Rows, Failure> {
    let transaction = session.begin().await?;
    let mut rows = Rows::with_layout(Arc::clone(table.schema.layout()));
    let mut after = None;
    loop {
        let page = records(session, table, after, size, Some(&transaction)).await?;
        let is_last = (page.len() as u64) < size;
        after = page.last().and_then(key_of);
        for record in page {
            push(table, &mut rows, record);
        }
        if is_last {
            break;
        }
        if after.is_none() {
            return Err(Failure::lost("the server has sent a record without an id"));
        }
    }
    if rows.is_empty() {
        // A range of a table that was removed has no records.
        let sql = format!("SELECT VALUE id FROM {} LIMIT 1", super::value::identifier(&table.name));
        session.last(&sql, object([]), Some(&transaction)).await?;
    }
    session.cancel(transaction).await?;
    Ok(rows)
}

fn key_of(record: &CborValue) -> Option<CborValue> {
    Some(parts(member(record, "id")?)?.1.clone())
}

/// Adds a record to the rows, and returns its id; one that is not a row is noted.
fn push(table: &Table, rows: &mut Rows, record: CborValue) -> Option<String> {
    match table.row(record) {
        Ok((id, row)) => {
            rows.push(id.as_str(), &row);
            Some(id)
        }
        Err(problem) => {
            rows.skip(problem);
            None
        }
    }
}

#[async_trait]
impl TableShell for Surreal {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.table().schema)
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::reads();
        let writes = self.is_writable();
        (can.can_insert, can.can_update, can.can_delete, can.can_delete_all) = (writes, writes, writes, writes);
        can
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        let rows = self.list_whole().await?;
        Ok(apply(query, &self.table().schema, rows))
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let turn = self.turn().await?;
        let mut lease = self.lease().await?;
        let row = write::stored(lease.session(), self.table(), id).await?;
        lease.give_back();
        self.await_feed(turn, PASSING).await?;
        Ok(row)
    }

    fn inferred(&self) -> Vec<Inferred> {
        self.table().inferred.clone()
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        if !query.is_unfiltered() {
            let rows = self.list_whole().await?;
            return Ok(count(query, &self.table().schema, &rows));
        }
        let sql =
            format!("SELECT count() FROM {} GROUP ALL{}", super::value::identifier(&self.table().name), timeout());
        let mut lease = self.lease().await?;
        let counted = lease.session().last(&sql, object([]), None).await.map_err(failed)?;
        lease.give_back();
        Ok(items(counted).first().and_then(|row| super::cbor::number(row, "count")).unwrap_or_default())
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        if query.order.is_empty() && query.is_unfiltered() {
            return self.natural_page(query.limit, token).await;
        }
        let rows = self.list_whole().await?;
        match query.order.is_empty() {
            true => Ok(page_after(query, &self.table().schema, rows, token)),
            false => sorted_page(query, &self.table().schema, &rows, token),
        }
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.execute(op, None).await
    }

    /// Checks and writes in one transaction.
    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        self.check_writes()?;
        let within = Narrowing::new(within, &self.table().schema);
        if op.id().is_some() {
            let turn = self.turn().await?;
            let mut lease = self.lease().await?;
            let written = write::execute_within(lease.session(), self.table(), op, &within).await;
            lease.give_back();
            if written.is_ok() {
                self.await_feed_or_stray(turn).await;
            }
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
        self.execute(op, Some(operation)).await
    }

    fn writes_once(&self) -> bool {
        self.is_writable()
    }

    async fn knows(&self, operation: &str) -> Result<bool> {
        if !self.is_writable() {
            return Ok(false);
        }
        let mut lease = self.lease().await?;
        let knows = ops::knows(lease.session(), operation).await.map_err(failed)?;
        lease.give_back();
        Ok(knows)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.check_writes()?;
        let turn = self.turn().await?;
        let mut lease = self.lease().await?;
        let written = write::insert_return_id(lease.session(), self.table(), record).await;
        lease.give_back();
        if written.is_ok() {
            self.await_feed_or_stray(turn).await;
        }
        written
    }
}
