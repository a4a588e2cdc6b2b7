//! SQLite tables and views: every capability, and one transaction for all concurrent writes.
//!
//! A query part is translated to SQL only if SQL and the crate's evaluator agree exactly (`plan.rs`); the evaluator applies the
//! rest to a wider select. Names are always quoted and values always bound. Reads have their own connection, so that in WAL mode
//! writes do not block them. Connections are reopened when the file is replaced (`database.rs`).

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter, types::Value};
use tokio::sync::oneshot;

use super::database::{ConnectionLease, Connections, Database};
use super::options::{JournalMode, SqliteOptions};
use super::table::{NaturalOrder, Table};
use super::{ops, write};
use crate::blocking::blocking;
use crate::rows::{apply, count, foreign_token, sorted_page};
use crate::sql::Plan;
use crate::sql::operations::TIDY_EVERY;
use diorama_core::record::{Record, Rows, id_from_value};
use diorama_core::vista::{
    Capabilities, Error, ErrorKind, Narrowing, Query, Result, Schema, TableShell, Token, Vista, WriteOp, Written,
};

/// Maximum wait of a statement for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of writes in one batch.
const BATCH: usize = 256;

/// Pause between two attempts to switch the journal mode.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A table or view of a SQLite database as a source.
#[derive(Clone, Debug)]
pub struct Sqlite(Arc<Inner>);

/// State that the clones of a [`Sqlite`] share.
#[derive(Debug)]
struct Inner {
    table: Table,
    options: SqliteOptions,
    database: Arc<Database>,
    connections: Arc<Connections>,
    /// True if the table can be written.
    writes: bool,
    /// Writes that wait for the writing connection. The next task that gets it takes all of them.
    waiting: Mutex<Vec<WriteBatch>>,
    /// Number of operations written under their ids.
    written: AtomicU64,
}

/// Writes that wait together, and the channel for their results.
#[derive(Debug)]
struct WriteBatch {
    writes: Vec<write::Write>,
    reply: oneshot::Sender<Vec<Result<Written>>>,
}

impl Sqlite {
    /// Opens `table` in the database file at `path`. If the file is replaced, the new file is opened in its place.
    ///
    /// # Errors
    /// [`Error::Config`] if the table does not exist or has no usable id, [`Error::Source`] if the file cannot be opened.
    pub async fn open(
        name: &str,
        path: impl Into<PathBuf>,
        table: impl Into<String>,
        options: SqliteOptions,
    ) -> Result<Vista> {
        let (path, table) = (path.into(), table.into());
        let sqlite = blocking(move || open(&path, &table, &options)).await?;
        Ok(Vista::new(name, sqlite))
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Table, &Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let lease = inner.database.hold()?;
            let mut slot = inner.connections.reader.lock();
            work(&inner.table, inner.connection(&lease, &mut slot, ConnectionRole::Reader)?)
        })
        .await
    }

    /// Executes writes in order, in one transaction with all writes that wait for the connection by then (group commit). The
    /// results end with the first transient failure.
    async fn submit(&self, writes: Vec<write::Write>) -> Result<Vec<Result<Written>>> {
        if !self.0.writes {
            return Err(self.0.cannot_write());
        }
        let (reply, answer) = oneshot::channel();
        self.0.waiting.lock().push(WriteBatch { writes, reply });
        let inner = Arc::clone(&self.0);
        self.change(move |table, connection, lease| {
            let waiting = std::mem::take(&mut *inner.waiting.lock());
            let (groups, replies): (Vec<_>, Vec<_>) = waiting.into_iter().map(|it| (it.writes, it.reply)).unzip();
            let mut written = write::execute_groups(table, connection, &groups);
            if let Err(error) = lease.check() {
                written = groups.iter().map(|_| vec![Err(error.clone())]).collect();
            }
            // A caller that no longer waits learns the result from its retry.
            replies.into_iter().zip(written).for_each(|(reply, written)| drop(reply.send(written)));
            Ok(())
        })
        .await?;
        answer.await.map_err(|_| Error::unknown("the writes were accepted, but their outcome is unknown"))
    }

    async fn submit_one(&self, write: write::Write) -> Result<Written> {
        let written = self.submit(vec![write]).await?.into_iter().next();
        written.unwrap_or_else(|| Err(Error::unknown("the write was accepted, but its outcome is unknown")))
    }

    fn operation(&self, id: &str) -> write::Operation {
        let tidy = self.0.written.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY_EVERY);
        write::Operation { id: id.to_string(), tidy }
    }

    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Table, &mut Connection, &ConnectionLease<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.0.writes {
            return Err(self.0.cannot_write());
        }
        let inner = Arc::clone(&self.0);
        blocking(move || {
            let lease = inner.database.hold()?;
            let mut slot = inner.connections.writer.lock();
            work(&inner.table, inner.connection(&lease, &mut slot, ConnectionRole::Writer)?, &lease)
        })
        .await
    }
}

/// Role of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ConnectionRole {
    Reader,
    Writer,
}

impl Inner {
    /// Returns the connection in `slot`, and opens one if there is none. A table that differs from the served one is refused.
    fn connection<'s>(
        &self,
        lease: &ConnectionLease<'_>,
        slot: &'s mut Option<Connection>,
        role: ConnectionRole,
    ) -> Result<&'s mut Connection> {
        if let Some(connection) = slot.take() {
            return Ok(slot.insert(connection));
        }
        let opened = lease.connect(|path| {
            let connection = connect(path, role, &self.options)?;
            let table = Table::read_description(&connection, path, &self.table.name, &self.options);
            if table.as_ref().is_ok_and(|table| table.is_like(&self.table)) {
                return Ok(connection);
            }
            let (path, name) = (path.display(), &self.table.name);
            let why = table.map_or_else(|error| error.to_string(), |_| "its columns differ".to_string());
            // The waiting writes are not at fault: the right file may come back.
            Err(Error::transient(format!(
                "{path} was replaced, and its table {name:?} is not the served one ({why}): put back a database with that \
                 table, or restart to serve the new one"
            )))
        })?;
        Ok(slot.insert(opened))
    }

    fn cannot_write(&self) -> Error {
        Error::Unsupported { vista: self.table.name.as_str().into(), what: "write" }
    }
}

fn open(path: &Path, name: &str, options: &SqliteOptions) -> Result<Sqlite> {
    let database = Database::at(path)?;
    let connections = Arc::new(Connections::default());
    let lease = database.hold()?;
    let reader = lease.connect(|path| connect(path, ConnectionRole::Reader, options))?;
    let table = Table::read_description(&reader, path, name, options)?;
    let writes = !options.read_only && table.natural != NaturalOrder::AsGiven;
    if writes {
        *connections.writer.lock() = Some(lease.connect(|path| connect(path, ConnectionRole::Writer, options))?);
    }
    *connections.reader.lock() = Some(reader);
    database.join(&connections);
    drop(lease);
    let (waiting, written) = (Mutex::default(), AtomicU64::new(0));
    let mut options = options.clone();
    if table.id_field().is_rowid {
        // After a replacement the same column must identify the rows.
        options.id = Some(table.id_field().name.clone());
    }
    Ok(Sqlite(Arc::new(Inner { table, options, database, connections, writes, waiting, written })))
}

fn connect(path: &Path, role: ConnectionRole, options: &SqliteOptions) -> Result<Connection> {
    // The first connection after a crash, even a reader, has to roll back the interrupted transaction.
    let access = match options.read_only {
        true => OpenFlags::SQLITE_OPEN_READ_ONLY,
        false => OpenFlags::SQLITE_OPEN_READ_WRITE,
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| Error::source(kind_of(&error), error))?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    // Otherwise SQLite would read the quoted name of a missing column as a text.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).map_err(failed)?;
    if role == ConnectionRole::Reader {
        connection.pragma_update(None, "query_only", true).map_err(failed)?;
    }
    if let (ConnectionRole::Writer, Some(mode)) = (role, options.journal_mode)
        && !switch_journal(&connection, mode).map_err(failed)?
    {
        tracing::warn!(path = %path.display(), mode = mode.as_str(), "the database cannot be switched to the configured journal mode");
    }
    Ok(connection)
}

/// Switches the journal mode; returns `false` if that is impossible. SQLite does not call its busy handler here, because two
/// connections that both want the switch would deadlock: the refused one releases its lock and retries.
fn switch_journal(connection: &Connection, mode: JournalMode) -> rusqlite::Result<bool> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    let sql = format!("PRAGMA journal_mode = {}", mode.as_str());
    loop {
        match connection.query_row(&sql, [], |row| row.get::<_, String>(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                std::thread::sleep(BUSY_PAUSE);
            }
            now => return now.map(|now| now.eq_ignore_ascii_case(mode.as_str())),
        }
    }
}

#[async_trait]
impl TableShell for Sqlite {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.0.table.schema)
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = if self.0.writes { Capabilities::all() } else { Capabilities::reads() };
        // A view has no natural order in which a page could continue.
        can.can_fetch_next = self.0.table.natural != NaturalOrder::AsGiven;
        can
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        self.list_into(query, Rows::with_layout(Arc::clone(self.0.table.schema.layout()))).await
    }

    async fn list_into(&self, query: &Query, empty: Rows) -> Result<Rows> {
        let (query, whole) = (query.clone(), *query == Query::default());
        let connections = Arc::clone(&self.0.connections);
        self.read(move |table, connection| {
            // The flag is cleared before reading, so that a replacement in between is noticed.
            let was_replaced = whole && connections.replaced.swap(false, Ordering::AcqRel);
            let plan = Plan::new(table, &query);
            let sql = plan.select(&table.selected, &table.quoted);
            let rows = select_into(empty, table, connection, &sql, plan.params()).inspect_err(|_| {
                connections.replaced.fetch_or(was_replaced, Ordering::AcqRel);
            })?;
            Ok(if plan.is_exact { rows } else { apply(&query, &table.schema, rows) })
        })
        .await
    }

    fn is_replaced(&self) -> bool {
        self.0.connections.replaced.load(Ordering::Acquire)
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        let id = id.to_string();
        self.read(move |table, connection| table.read(connection, &id)).await
    }

    fn reads_one(&self) -> bool {
        true
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        let query = Query { limit: None, offset: 0, order: Vec::new(), ..query.clone() };
        self.read(move |table, connection| {
            let plan = Plan::new(table, &query);
            if !plan.is_exact {
                let rows = select(table, connection, &plan.select(&table.selected, &table.quoted), plan.params())?;
                return Ok(count(&query, &table.schema, &rows));
            }
            let sql = format!("SELECT count(*) FROM {}{}", table.quoted, plan.filter());
            let counted: i64 = connection
                .prepare_cached(&sql)
                .and_then(|mut statement| statement.query_row(params_from_iter(plan.values()), |row| row.get(0)))
                .map_err(failed)?;
            Ok(counted.unsigned_abs())
        })
        .await
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let (query, token) = (query.clone(), token.cloned());
        self.read(move |table, connection| {
            if !query.order.is_empty() || table.natural == NaturalOrder::AsGiven {
                let all = Query { order: Vec::new(), limit: None, offset: 0, ..query.clone() };
                let plan = Plan::new(table, &all);
                let rows = select(table, connection, &plan.select(&table.selected, &table.quoted), plan.params())?;
                return sorted_page(&query, &table.schema, &rows, token.as_ref());
            }
            natural_page(table, connection, &query, token.as_ref())
        })
        .await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.submit_one(write::Write { operation: None, op: op.clone(), within: None }).await
    }

    /// Checks and writes in one transaction.
    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        let within = Narrowing::new(within, &self.0.table.schema);
        if op.id().is_some() {
            let op = within.completed(op.clone());
            return self.submit_one(write::Write { operation: None, op, within: Some(within) }).await;
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
        let operation = Some(self.operation(operation));
        self.submit_one(write::Write { operation, op: op.clone(), within: None }).await
    }

    fn batch_size(&self) -> usize {
        if self.0.writes { BATCH } else { 1 }
    }

    async fn write_batch(&self, writes: &[(String, WriteOp)]) -> Vec<Result<Written>> {
        let write = |(id, op): &(String, WriteOp)| {
            let operation = Some(self.operation(id));
            write::Write { operation, op: op.clone(), within: None }
        };
        self.submit(writes.iter().map(write).collect()).await.unwrap_or_else(|error| vec![Err(error)])
    }

    fn writes_once(&self) -> bool {
        self.0.writes
    }

    async fn knows(&self, operation: &str) -> Result<bool> {
        let operation = operation.to_string();
        self.read(move |_, connection| ops::knows(connection, &operation)).await
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        let record = record.clone();
        self.change(move |table, connection, lease| {
            let written = write::insert_return_id(table, connection, &record)?;
            lease.check().map(|()| written)
        })
        .await
    }
}

/// Returns all rows that `sql` selects.
fn select(table: &Table, connection: &Connection, sql: &str, params: Vec<Value>) -> Result<Rows> {
    select_into(Rows::new(), table, connection, sql, params)
}

/// Adds all rows that `sql` selects to `rows`, an empty set.
fn select_into(rows: Rows, table: &Table, connection: &Connection, sql: &str, params: Vec<Value>) -> Result<Rows> {
    let mut rows = rows.fit_for(table.schema.layout());
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query(params_from_iter(params)).map_err(failed)?;
    while let Some(row) = found.next().map_err(failed)? {
        let (id, record) = match table.row(row) {
            Ok(row) => row,
            Err(error) => {
                rows.skip(error.to_string());
                continue;
            }
        };
        if !rows.push(id.as_str(), &record) {
            return Err(Error::permanent(format!("{} has more than one row with id {id:?}", table.name)));
        }
    }
    Ok(rows)
}

/// Returns the next rows in natural order. The token is the position of the last row, so inserts and deletes elsewhere do not
/// matter.
fn natural_page(
    table: &Table,
    connection: &Connection,
    query: &Query,
    token: Option<&Token>,
) -> Result<(Rows, Option<Token>)> {
    let plan = Plan::new(table, &Query { limit: None, offset: 0, ..query.clone() });
    let mut params = plan.values().to_vec();
    let mut filter = plan.filter();
    if let Some(token) = token {
        let (after, value) = table.after(token).ok_or_else(foreign_token)?;
        filter = format!("{filter}{} {after}", if filter.is_empty() { " WHERE" } else { " AND" });
        params.push(value);
    }
    let sql = format!("SELECT {} FROM {}{filter}{}", table.selected, table.quoted, table.natural_order());
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut found = statement.query(params_from_iter(params)).map_err(failed)?;
    let limit = query.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let prepared = query.prepare(&table.schema);
    let mut rows = Rows::with_layout(Arc::clone(table.schema.layout()));
    let mut last = None;
    while let Some(row) = found.next().map_err(failed)? {
        let (id, record) = table.row(row)?;
        if !prepared.matches(&record) {
            continue;
        }
        if rows.len() >= limit {
            return Ok((rows, last));
        }
        last = Some(table.token(row, &id)?);
        rows.push(id, &record);
    }
    Ok((rows, None))
}

/// Converts the error of a statement other than a write.
pub(super) fn failed(error: rusqlite::Error) -> Error {
    Error::source(kind_of(&error), error)
}

fn kind_of(error: &rusqlite::Error) -> ErrorKind {
    use rusqlite::ErrorCode as Code;
    match error.sqlite_error_code() {
        Some(
            Code::DatabaseBusy
            | Code::DatabaseLocked
            | Code::CannotOpen
            | Code::SystemIoFailure
            | Code::OutOfMemory
            | Code::OperationInterrupted
            | Code::FileLockingProtocolFailed
            | Code::SchemaChanged
            // The file is at fault, not the statement: it may be repaired or restored.
            | Code::DatabaseCorrupt
            | Code::NotADatabase
            | Code::ReadOnly
            | Code::PermissionDenied,
        ) => ErrorKind::Transient,
        _ => ErrorKind::Permanent,
    }
}

/// Returns the id in a row's cell.
pub(super) fn id_of(table: &str, value: &diorama_core::record::CborValue) -> Result<String> {
    id_from_value(value).ok_or_else(|| {
        Error::permanent(format!(
            "{table} has a row whose id is neither text nor an integer: set id in diorama.toml to another column"
        ))
    })
}
