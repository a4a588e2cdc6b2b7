//! MariaDB and MySQL tables, views and queries: every capability, and exactly-once writes.
//!
//! A query part is translated to SQL only if SQL and the crate's evaluator agree exactly (`sql/plan.rs`); the evaluator applies
//! the rest to a wider select. Names are always quoted; values are bound, or literals of digits.

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::{Row, Value};

use super::address::Address;
use super::errors::{failed, is_other_shape};
use super::ops;
use super::options::MySqlOptions;
use super::pool::{Lease, Pool, Session};
use super::position::Place;
use super::progress::{PASSING, PASSING_OF_LIST, Turn};
use super::server::{self, SNAPSHOT};
use super::shared::Shared;
use super::table::{MySqlRelation, Table};
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

/// A table, view or query of a MariaDB or MySQL database as a source.
#[derive(Clone, Debug)]
pub struct MySql(Arc<Inner>);

/// State that the clones of a [`MySql`] share.
#[derive(Debug)]
struct Inner {
    /// The table as it was when the source was opened, which determines the schema.
    first: Arc<Table>,
    shared: Arc<Shared>,
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
        let shell = MySql::connect(Shared::new(address, relation), options).await?;
        Ok(Vista::new(name, shell))
    }

    /// Opens the source that `shared` names.
    pub(super) async fn connect(shared: Arc<Shared>, options: MySqlOptions) -> Result<MySql> {
        let pool = Pool::new(shared.address.clone());
        let mut lease = pool.lease().await?;
        let session = lease.session();
        let first = shared.describe(session, options).await?;
        if first.rights.any() {
            ops::prepare(session, &first, shared.address.user()).await?;
        }
        lease.give_back();
        Ok(MySql(Arc::new(Inner { first, shared, pool, written: AtomicU64::new(0) })))
    }

    /// The table as it was last described.
    fn table(&self) -> Arc<Table> {
        self.0.shared.table().unwrap_or_else(|| Arc::clone(&self.0.first))
    }

    async fn lease(&self) -> Result<Lease> {
        self.0.pool.lease().await
    }

    /// Returns the rows that a statement selects. The Dio's feed has passed the changes that they show, unless it is too slow.
    async fn select(&self, table: &Table, sql: &str, params: Vec<Value>) -> Result<Rows> {
        let turn = self.0.shared.progress.turn().await?;
        let mut lease = self.lease().await?;
        let place = begin_read(lease.session(), turn.as_ref(), turn.is_some()).await?;
        let rows = select(lease.session(), table, sql, params).await;
        self.describe_if_other(lease.session(), rows.as_ref().err()).await;
        let rows = rows?;
        lease.give_back();
        self.await_feed(turn.and(place), PASSING).await?;
        Ok(rows)
    }

    /// Returns all rows. If the table has other columns than before, they are read with their new types.
    async fn list_whole(&self) -> Result<Rows> {
        let progress = &self.0.shared.progress;
        let turn = progress.turn_of_list().await?;
        let mut lease = self.lease().await?;
        self.0.shared.describe_again(lease.session()).await?;
        let table = self.table();
        let place = begin_read(lease.session(), turn.as_ref(), progress.is_expected()).await?;
        let sql = format!("SELECT {} FROM {}{}", table.selected, table.from, table.natural_order());
        let rows = select(lease.session(), &table, &sql, Vec::new()).await?;
        lease.give_back();
        let waits = match turn {
            None => !progress.note_listed(place.as_ref()) && progress.turn().await?.is_some(),
            Some(_) => true,
        };
        self.await_feed(place.filter(|_| waits), PASSING_OF_LIST).await?;
        Ok(rows)
    }

    /// Describes the table again if `error` says that it has other columns. The caller tries again.
    async fn describe_if_other(&self, session: &mut Session, error: Option<&Error>) {
        if !error.is_some_and(is_other_shape) {
            return;
        }
        // A transaction that only reads does not tell what may be written.
        session.rollback().await;
        if let Err(error) = self.0.shared.describe_again(session).await {
            tracing::debug!(%error, "the table cannot be described again");
        }
    }

    /// Waits until the Dio's feed has passed everything that a read shows, up to a place in the binary log.
    ///
    /// # Errors
    /// A transient error if the feed does not in time.
    async fn await_feed(&self, place: Option<Place>, patience: Duration) -> Result<()> {
        let Some(place) = place else { return Ok(()) };
        match self.0.shared.progress.passed(&place, patience).await {
            Some(_) => Ok(()),
            None => Err(Error::transient("the feed of the source's changes is behind what was read")),
        }
    }

    /// Waits until the Dio's feed has passed a write on this connection, which cannot be repeated.
    async fn await_feed_or_stray(&self, session: &mut Session, turn: Option<Turn>) {
        if turn.is_some() && self.passed(session).await.is_none() {
            self.0.shared.progress.stray();
        }
    }

    /// Waits until the Dio's feed has passed everything that this connection has committed. Returns what [`Progress::passed`] does.
    ///
    /// [`Progress::passed`]: super::progress::Progress::passed
    async fn passed(&self, session: &mut Session) -> Option<bool> {
        match server::end_of_log(session).await {
            Ok(place) => self.0.shared.progress.passed(&place, PASSING).await,
            Err(error) => {
                tracing::debug!(%error, "the place of a write in the binary log is not known");
                None
            }
        }
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
            let turn = self.0.shared.progress.turn().await?;
            Ok((turn, self.lease().await?))
        };
        let (turn, mut lease) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return vec![Err(error)],
        };
        let mut results = write::execute_all(lease.session(), &self.table(), writes).await;
        let error = results.iter().filter_map(|result| result.as_ref().err()).find(|error| is_other_shape(error));
        self.describe_if_other(lease.session(), error).await;
        self.tidy(lease.session(), writes).await;
        if turn.is_some() && results.iter().any(Result::is_ok) {
            settle_reported(&mut results, self.passed(lease.session()).await);
        }
        lease.give_back();
        results
    }

    /// Deletes old operations after every some thousand writes. A failure is left to the next time.
    async fn tidy(&self, session: &mut Session, writes: &[Write]) {
        let noted = writes.iter().filter(|write| write.operation.is_some()).count() as u64;
        let before = self.0.written.fetch_add(noted, Ordering::Relaxed);
        let table = self.table();
        let Some(place) = &table.place else { return };
        if noted > 0
            && (before == 0 || before / TIDY_EVERY != (before + noted) / TIDY_EVERY)
            && let Err(error) = ops::tidy(session, place).await
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
impl TableShell for MySql {
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
        let rows = self.select(&table, &plan.select(&table.selected, &table.from), plan.params()).await?;
        Ok(if plan.is_exact { rows } else { apply(query, &table.schema, rows) })
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let table = self.table();
        let Some(sql) = table.select_one(id) else { return Ok(None) };
        let turn = self.0.shared.progress.turn().await?;
        let mut lease = self.lease().await?;
        let mut place = None;
        if turn.is_some() {
            place = begin_read(lease.session(), turn.as_ref(), true).await?;
        }
        let found = lease.session().rows(&sql).await.map_err(failed);
        self.describe_if_other(lease.session(), found.as_ref().err()).await;
        let found = found?;
        if turn.is_some() {
            lease.session().run("COMMIT").await.map_err(failed)?;
        }
        lease.give_back();
        self.await_feed(place, PASSING).await?;
        let row = found.into_iter().next().map(|row| table.row(row)).transpose()?;
        // The server may take another spelling for the same key.
        Ok(row.filter(|(own, _)| table.schema.is_same_id(own, id)).map(|(_, record)| record))
    }

    fn inferred(&self) -> Vec<Inferred> {
        let changes = self.0.first.differences(&self.table());
        let because = "the database was changed while the source was open; the schema has it after a restart";
        let change = |(column, value)| Inferred::new(format!("column {column:?}"), value, because, "source").doubtful();
        changes.into_iter().map(change).collect()
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let table = self.table();
        let query = Query { limit: None, offset: 0, order: Vec::new(), ..query.clone() };
        let plan = Plan::new(&*table, &query);
        if !plan.is_exact {
            let rows = self.select(&table, &plan.select(&table.selected, &table.from), plan.params()).await?;
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
        let plan = Plan::new(&*table, &all);
        if !query.order.is_empty() || !plan.is_exact {
            let rows = self.select(&table, &plan.select(&table.selected, &table.from), plan.params()).await?;
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
            let turn = self.0.shared.progress.turn().await?;
            let mut lease = self.lease().await?;
            let write = Write { operation: None, op: op.clone() };
            let written = write::execute_within(lease.session(), &self.table(), &write, &within).await;
            if written.is_ok() {
                self.await_feed_or_stray(lease.session(), turn).await;
            }
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
        let Some(place) = &self.0.first.place else { return Ok(false) };
        if !self.0.first.rights.any() {
            return Ok(false);
        }
        let mut lease = self.lease().await?;
        let knows = ops::knows(lease.session(), place, operation).await.map_err(failed)?;
        lease.give_back();
        Ok(knows)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.check_writes()?;
        let turn = self.0.shared.progress.turn().await?;
        let mut lease = self.lease().await?;
        let written = write::insert_return_id(lease.session(), &self.table(), record).await;
        if written.is_ok() {
            self.await_feed_or_stray(lease.session(), turn).await;
        }
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
        let rows = self.select(&table, &sql, plan.values().to_vec()).await?;
        Ok(first_rows(&table.schema, &rows, 0, most))
    }
}

/// Begins a transaction whose reads show one moment, and everything that the Dio's feed has applied before. Returns the place in the
/// binary log up to which they show everything, if that is needed and the server tells it.
///
/// # Errors
/// A transient error if the server does not show in time what it has reported.
async fn begin_read(session: &mut Session, turn: Option<&Turn>, needs_place: bool) -> Result<Option<Place>> {
    let shown = async {
        loop {
            session.run(SNAPSHOT).await.map_err(failed)?;
            let place = if needs_place { server::shown_place(session).await? } else { None };
            match (turn, &place) {
                (None, _) => return Ok(place),
                (Some(turn), Some(shown)) if turn.is_shown_at(shown) => return Ok(place),
                (Some(_), _) => {}
            }
            session.run("COMMIT").await.map_err(failed)?;
            tokio::time::sleep(INVISIBLE).await;
        }
    };
    let late = |_| Error::transient("the server does not show changes yet that it has reported already");
    tokio::time::timeout(PASSING, shown).await.map_err(late)?
}

/// Returns all rows that `sql` selects in the open transaction, and ends it.
async fn select(session: &mut Session, table: &Table, sql: &str, params: Vec<Value>) -> Result<Rows> {
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
