//! PostgreSQL tables, views and queries: every capability, and exactly-once writes.
//!
//! A query part is translated to SQL only if SQL and the crate's evaluator agree exactly (`sql/plan.rs`); the evaluator applies
//! the rest to a wider select. Names are always quoted and values always bound.

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::IsolationLevel;

use super::address::Address;
use super::errors::{failed, is_bad_value, is_other_shape};
use super::listing;
use super::ops;
use super::options::PostgresOptions;
use super::pool::{Lease, Pool, Session};
use super::progress::{Checkpoint, PASSING, PASSING_OF_LIST, Snapshot};
use super::shared::Shared;
use super::statement::slice;
use super::table::{PostgresRelation, Table};
use super::value::Param;
use super::write::{self, Write};
use crate::rows::{apply, count, first_rows, foreign_token, page_after, sorted_page};
use crate::sql::Plan;
use crate::sql::operations::{TIDY_EVERY, settle_reported};
use diorama_core::record::{Record, Rows};
use diorama_core::vista::{
    Capabilities, Error, Inferred, Narrowing, Query, Result, Schema, TableShell, Token, Vista, WriteOp, Written,
};

/// Pause between two looks for changes that the server does not show yet.
const INVISIBLE: Duration = Duration::from_millis(5);

/// Maximum number of writes in one batch.
const BATCH: usize = 256;

/// A table, view or query of a PostgreSQL database as a source.
#[derive(Clone, Debug)]
pub struct Postgres(Arc<Inner>);

/// State that the clones of a [`Postgres`] share.
#[derive(Debug)]
struct Inner {
    /// The table as it was when the source was opened, which determines the schema.
    first: Arc<Table>,
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    /// True if the table of operations exists.
    notes: AtomicBool,
    /// Number of operations written under their ids.
    written: AtomicU64,
}

impl Postgres {
    /// Opens `relation` in the database at `url`: `postgres://USER:PASSWORD@HOST/DATABASE`.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is not valid, or the table does not exist or has no usable key; [`Error::Source`] if the
    /// server cannot be reached.
    pub async fn open(name: &str, url: &str, relation: PostgresRelation, options: PostgresOptions) -> Result<Vista> {
        let address = Address::parse(url, options.tls, options.ca.clone()).map_err(Error::Config)?;
        let shell = Postgres::connect(Shared::new(address, relation), options).await?;
        Ok(Vista::new(name, shell))
    }

    /// Runs SQL statements in the database at `url`, in one transaction.
    ///
    /// # Errors
    /// [`Error::Config`] if the URL is not valid, [`Error::Source`] if the server cannot be reached or refuses a statement.
    pub async fn run(url: &str, sql: &str) -> Result<()> {
        let address = Address::parse(url, None, None).map_err(Error::Config)?;
        let client = address.connect().await?;
        client.batch_execute(&format!("BEGIN; {sql}\n; COMMIT")).await.map_err(failed)
    }

    /// Opens the source that `shared` names.
    pub(super) async fn connect(shared: Arc<Shared>, options: PostgresOptions) -> Result<Postgres> {
        let pool = Pool::new(shared.address.clone());
        let mut lease = pool.lease().await?;
        let client = &lease.session().client;
        let first = shared.describe(client, options).await?;
        let user = shared.address.config.get_user().unwrap_or("the user");
        let notes = first.rights.any() && ops::check(client, &first, user).await?;
        shared.make_slot_first(client, &first).await;
        lease.give_back();
        let (notes, written) = (AtomicBool::new(notes), AtomicU64::new(0));
        Ok(Postgres(Arc::new(Inner { first, shared, pool, notes, written })))
    }

    /// The table as it was last described.
    fn table(&self) -> Arc<Table> {
        self.0.shared.table().unwrap_or_else(|| Arc::clone(&self.0.first))
    }

    async fn lease(&self) -> Result<Lease> {
        self.0.pool.lease().await
    }

    /// Returns the rows that `sql` selects. The Dio's feed has passed the changes that they show, unless it is too slow.
    async fn select(&self, table: &Table, sql: &str, params: &[Param]) -> Result<Rows> {
        let checkpoint = self.0.shared.progress.checkpoint().await?;
        let mut lease = self.lease().await?;
        self.await_visible(lease.session()).await?;
        let rows = select(lease.session(), table, sql, params).await?;
        let passed = self.await_feed(lease.session(), checkpoint, PASSING).await;
        lease.give_back();
        passed.map(|()| rows)
    }

    /// Waits until reads on this connection show everything that the Dio's feed has applied.
    ///
    /// # Errors
    /// A transient error if that takes too long.
    async fn await_visible(&self, session: &Session) -> Result<()> {
        let progress = &self.0.shared.progress;
        let applied = progress.applied();
        if applied.is_empty() {
            return Ok(());
        }
        let visible = async {
            loop {
                let now = session.client.query_one(Snapshot::SQL, &[]).await.map_err(failed)?;
                let until: Option<&str> = now.get(1);
                let snapshot = until.and_then(|until| Snapshot::parse(now.get(0), until));
                if snapshot.is_none_or(|now| applied.iter().all(|(commit, xid)| now.sees(*commit, *xid))) {
                    progress.note_visible(&applied);
                    return Ok(());
                }
                tokio::time::sleep(INVISIBLE).await;
            }
        };
        let late = |_| Error::transient("the server does not show changes yet that it has reported already");
        tokio::time::timeout(PASSING, visible).await.map_err(late)?
    }

    /// Waits until the Dio's feed has passed everything that a read on this connection has seen.
    ///
    /// # Errors
    /// A transient error if the feed does not in time.
    async fn await_feed(
        &self,
        session: &Session,
        checkpoint: Option<Checkpoint<'_>>,
        patience: Duration,
    ) -> Result<()> {
        let Some(checkpoint) = checkpoint else { return Ok(()) };
        write::emit(session, &checkpoint.text).await.map_err(failed)?;
        match checkpoint.passed(patience).await {
            Some(_) => Ok(()),
            None => Err(Error::transient("the feed of the source's changes is behind what was read")),
        }
    }

    /// As [`Postgres::await_feed`], for a write that cannot be repeated.
    async fn await_feed_or_stray(&self, session: &Session, checkpoint: Option<Checkpoint<'_>>) {
        if self.await_feed(session, checkpoint, PASSING).await.is_err() {
            self.0.shared.progress.stray();
        }
    }

    /// Returns all rows. If the table has other columns than before, they are read with their new types.
    async fn list_whole(&self) -> Result<Rows> {
        let checkpoint = self.0.shared.progress.checkpoint_of_list().await?;
        let mut lease = self.lease().await?;
        let session = lease.session();
        if self.0.shared.describe_again(&session.client).await? {
            session.forget_statements();
        }
        self.await_visible(session).await?;
        let table = self.table();
        let sql = format!("SELECT {} FROM {}{}", table.selected, table.from, table.natural_order());
        let (rows, snapshot) = select_whole(lease.session(), &table, &sql).await?;
        let progress = &self.0.shared.progress;
        let checkpoint = match checkpoint {
            None if !progress.note_listed(snapshot) => progress.checkpoint().await?,
            checkpoint => checkpoint,
        };
        let passed = self.await_feed(lease.session(), checkpoint, PASSING_OF_LIST).await;
        lease.give_back();
        passed.map(|()| rows)
    }

    fn check_writes(&self) -> Result<()> {
        let first = &self.0.first;
        match first.rights.any() {
            true => Ok(()),
            false => Err(Error::Unsupported { vista: first.name.as_str().into(), what: "write" }),
        }
    }

    async fn execute(&self, writes: &[Write]) -> Vec<Result<Written>> {
        let prepared = async {
            self.check_writes()?;
            let checkpoint = self.0.shared.progress.checkpoint().await?;
            Ok((checkpoint, self.lease().await?))
        };
        let (checkpoint, mut lease) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return vec![Err(error)],
        };
        if let Err(error) = self.prepare_notes(lease.session(), writes).await {
            return vec![Err(error)];
        }
        let text = checkpoint.as_ref().map(|checkpoint| checkpoint.text.clone());
        let mut results = write::execute_all(lease.session(), &self.table(), writes, text.as_deref()).await;
        self.tidy(lease.session(), writes).await;
        lease.give_back();
        report(&mut results, checkpoint).await;
        results
    }

    /// Creates the table of operations before the first write that needs it.
    async fn prepare_notes(&self, session: &Session, writes: &[Write]) -> Result<()> {
        let needed = writes.iter().any(|write| write.operation.is_some());
        if let (true, false, Some(place)) = (needed, self.0.notes.load(Ordering::Acquire), &self.0.first.place) {
            ops::prepare(&session.client, place).await?;
            self.0.notes.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Deletes old operations after every some thousand writes. A failure is left to the next time.
    async fn tidy(&self, session: &Session, writes: &[Write]) {
        let noted = writes.iter().filter(|write| write.operation.is_some()).count() as u64;
        let before = self.0.written.fetch_add(noted, Ordering::Relaxed);
        let table = self.table();
        let Some(place) = &table.place else { return };
        if noted > 0
            && (before == 0 || before / TIDY_EVERY != (before + noted) / TIDY_EVERY)
            && let Err(error) = ops::tidy(&session.client, place).await
        {
            tracing::warn!(table = table.name, %error, "old ids of operations cannot be deleted");
        }
    }

    async fn execute_one(&self, write: Write) -> Result<Written> {
        let written = self.execute(std::slice::from_ref(&write)).await.into_iter().next();
        written.unwrap_or_else(|| Err(Error::unknown("the write was sent, but its outcome is unknown")))
    }
}

#[async_trait]
impl TableShell for Postgres {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.0.first.schema)
    }

    fn capabilities(&self) -> Capabilities {
        let (rights, mut can) = (self.0.first.rights, Capabilities::reads());
        can.can_insert = rights.insert;
        can.can_update = rights.update;
        (can.can_delete, can.can_delete_all) = (rights.delete, rights.delete);
        can
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        if *query == Query::default() {
            return self.list_whole().await;
        }
        let table = self.table();
        let plan = Plan::new(&*table, query);
        let rows = self.select(&table, &plan.select(&table.selected, &table.from), &plan.params()).await?;
        Ok(if plan.is_exact { rows } else { apply(query, &table.schema, rows) })
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let table = self.table();
        let Some((sql, params)) = table.select_one(id) else { return Ok(None) };
        let checkpoint = self.0.shared.progress.checkpoint().await?;
        let mut lease = self.lease().await?;
        let session = lease.session();
        self.await_visible(session).await?;
        let statement = session.prepare(&sql).await.map_err(failed)?;
        let found = match session.client.query_opt(&statement, &slice(&params)).await {
            Err(error) if is_bad_value(&error) => None,
            found => found.map_err(failed)?,
        };
        let passed = self.await_feed(lease.session(), checkpoint, PASSING).await;
        lease.give_back();
        passed?;
        let row = found.map(|row| table.row(&row, 0)).transpose()?;
        // The server may take another spelling for the same key.
        Ok(row.filter(|(own, _)| table.schema.is_same_id(own, id)).map(|(_, record)| record))
    }

    fn reads_one(&self) -> bool {
        true
    }

    fn inferred(&self) -> Vec<Inferred> {
        let changes = self.0.first.differences(&self.table());
        let because = "the database was changed while the source was open; the schema has it after a restart";
        let change = |(column, value)| Inferred::new(format!("column {column:?}"), value, because, "source").doubtful();
        changes.into_iter().map(change).collect()
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let table = self.table();
        let query = Query { limit: None, offset: 0, order: Vec::new(), ..query.clone() };
        let plan = Plan::new(&*table, &query);
        if !plan.is_exact {
            let rows = self.select(&table, &plan.select(&table.selected, &table.from), &plan.params()).await?;
            return Ok(count(&query, &table.schema, &rows));
        }
        let sql = format!("SELECT count(*) FROM {}{}", table.from, plan.filter());
        let mut lease = self.lease().await?;
        let session = lease.session();
        let statement = session.prepare(&sql).await.map_err(failed)?;
        let counted = session.client.query_one(&statement, &slice(plan.values())).await.map_err(failed)?;
        lease.give_back();
        Ok(counted.get::<_, i64>(0).unsigned_abs())
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let table = self.table();
        let all = Query { order: Vec::new(), limit: None, offset: 0, ..query.clone() };
        let plan = Plan::new(&*table, &all);
        if !query.order.is_empty() || !plan.is_exact {
            let rows = self.select(&table, &plan.select(&table.selected, &table.from), &plan.params()).await?;
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
        let within = Narrowing::new(within, &self.0.first.schema);
        if op.id().is_some() {
            let checkpoint = self.0.shared.progress.checkpoint().await?;
            let mut lease = self.lease().await?;
            let write = Write { operation: None, op: op.clone() };
            let written = write::execute_within(lease.session(), &self.table(), &write, &within, None).await;
            if written.is_ok() {
                self.await_feed_or_stray(lease.session(), checkpoint).await;
                lease.give_back();
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
        self.execute_one(Write { operation: Some(operation.to_string()), op: op.clone() }).await
    }

    fn batch_size(&self) -> usize {
        if self.0.first.rights.any() { BATCH } else { 1 }
    }

    async fn write_batch(&self, writes: &[(String, WriteOp)]) -> Vec<Result<Written>> {
        let write = |(id, op): &(String, WriteOp)| Write { operation: Some(id.clone()), op: op.clone() };
        self.execute(&writes.iter().map(write).collect::<Vec<_>>()).await
    }

    fn writes_once(&self) -> bool {
        self.0.first.rights.any()
    }

    async fn knows(&self, operation: &str) -> Result<bool> {
        let noted = self.0.notes.load(Ordering::Acquire);
        let Some(place) = self.0.first.place.as_ref().filter(|_| noted) else { return Ok(false) };
        let mut lease = self.lease().await?;
        let knows = ops::knows(&lease.session().client, place, operation).await.map_err(failed)?;
        lease.give_back();
        Ok(knows)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.check_writes()?;
        let checkpoint = self.0.shared.progress.checkpoint().await?;
        let mut lease = self.lease().await?;
        let written = write::insert_return_id(lease.session(), &self.table(), record, None).await?;
        self.await_feed_or_stray(lease.session(), checkpoint).await;
        lease.give_back();
        Ok(written)
    }
}

impl Postgres {
    /// Returns the next rows in natural order. The token is the id of the last row, so inserts and deletes elsewhere do not matter.
    async fn natural_page(
        &self,
        limit: Option<u64>,
        plan: &Plan<Param>,
        token: Option<&Token>,
    ) -> Result<(Rows, Option<Token>)> {
        let table = self.table();
        let mut params = plan.values().to_vec();
        let mut filter = plan.filter();
        if let Some(token) = token {
            let (after, key) = table.after(token, params.len() + 1).ok_or_else(foreign_token)?;
            filter = format!("{filter}{} {after}", if filter.is_empty() { " WHERE" } else { " AND" });
            params.extend(key);
        }
        let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let page = limit.map(|limit| format!(" LIMIT {}", limit.saturating_add(1))).unwrap_or_default();
        let order = table.natural_order();
        let sql = format!("SELECT {} FROM {}{filter}{order}{page}", table.selected, table.from);
        let mut lease = self.lease().await?;
        let rows = match select(lease.session(), &table, &sql, &params).await {
            Err(error) if token.is_some() && is_refused_value(&error) => return Err(foreign_token()),
            rows => rows?,
        };
        lease.give_back();
        Ok(first_rows(&table.schema, &rows, 0, most))
    }
}

/// Returns true if a statement failed because of the value of a parameter.
fn is_refused_value(error: &Error) -> bool {
    matches!(error, Error::Source { cause: Some(cause), .. }
        if cause.downcast_ref::<tokio_postgres::Error>().is_some_and(is_bad_value))
}

/// Marks written rows that the Dio's feed has reported, once it has passed them.
async fn report(results: &mut Vec<Result<Written>>, checkpoint: Option<Checkpoint<'_>>) {
    if let Some(checkpoint) = checkpoint.filter(|_| results.iter().any(Result::is_ok)) {
        settle_reported(results, checkpoint.passed(PASSING).await);
    }
}

/// Returns all rows that `sql` selects, as of one moment.
async fn select(session: &mut Session, table: &Table, sql: &str, params: &[Param]) -> Result<Rows> {
    let statement = session.prepare(sql).await.map_err(failed)?;
    let found = session.client.query_raw(&statement, params).await;
    let found = match found {
        Err(error) if is_other_shape(&error) => {
            session.forget_statements();
            return Err(Error::transient(format!("the columns of {} have changed: {error}", table.name)));
        }
        found => found.map_err(failed)?,
    };
    listing::read(table, found).await
}

/// Returns all rows of a table, and the transactions that they show.
async fn select_whole(session: &mut Session, table: &Table, sql: &str) -> Result<(Rows, Option<Snapshot>)> {
    let builder = session.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let transaction = builder.read_only(true).start().await.map_err(failed)?;
    let seen = transaction.query_one(Snapshot::SQL, &[]).await.map_err(failed)?;
    let until: Option<&str> = seen.get(1);
    let snapshot = until.and_then(|until| Snapshot::parse(seen.get(0), until));
    let copied = transaction.copy_out(&format!("COPY ({sql}) TO STDOUT (FORMAT binary)")).await.map_err(failed)?;
    let rows = listing::read_copy(table, copied).await?;
    transaction.commit().await.map_err(failed)?;
    Ok((rows, snapshot))
}
