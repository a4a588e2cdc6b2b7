//! Cache of rows: one table for the rows of all Dios, and one for their metas and [fences](crate::fence).
//!
//! A commit is one transaction, which locks the meta of its Dio. Rows are written with `unnest`, a thousand at a time. The rows are read
//! in a stream, of which a thousand are in memory at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error as PgError};

use super::address::Address;
use super::errors::message_of;
use super::pool::{Lease, Pool};
use crate::fence::{Fence, LOST, Relation, Stored, TAKEN};
use crate::sql::quote;
use diorama_core::cache::{CacheBackend, CacheError, CacheTable, CachedRow, Id};

/// Number of rows of one statement, and of one batch of a load.
const ROWS: usize = 1_000;
/// Timeout of a commit, and of a claim.
const COMMIT: Duration = Duration::from_secs(60);
/// Longest pause between two batches of a load.
const SILENCE: Duration = Duration::from_secs(60);
/// Settings of a transaction: one whose client is gone without notice ends, so that its lock does not stay.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '30s'; SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// Rows of all Dios in a database.
pub(super) struct PostgresCache {
    database: Arc<Database>,
    dios: parking_lot::Mutex<HashMap<String, Arc<DioTable>>>,
}

impl PostgresCache {
    /// Returns the cache in the tables `PREFIX_rows` and `PREFIX_metas`.
    pub(super) fn new(address: Address, prefix: &str) -> PostgresCache {
        let shown = address.to_string();
        let (rows, metas) = (quote(&format!("{prefix}_rows")), quote(&format!("{prefix}_metas")));
        let database = Database { pool: Pool::new(address), shown, rows, metas, has_tables: Mutex::new(false) };
        PostgresCache { database: Arc::new(database), dios: parking_lot::Mutex::default() }
    }
}

#[async_trait]
impl CacheBackend for PostgresCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        let mut dios = self.dios.lock();
        let dio = dios.entry(name.to_string()).or_insert_with(|| {
            Arc::new(DioTable { database: Arc::clone(&self.database), name: name.into(), fence: Mutex::default() })
        });
        Ok(Arc::clone(dio) as Arc<dyn CacheTable>)
    }
}

/// The tables in a database.
struct Database {
    pool: Arc<Pool>,
    /// Address without secrets.
    shown: String,
    /// Quoted names.
    rows: String,
    metas: String,
    /// True once the tables were found or created.
    has_tables: Mutex<bool>,
}

impl Database {
    fn io(&self, detail: impl std::fmt::Display) -> CacheError {
        CacheError::io(&self.shown, detail)
    }

    async fn failed(&self, error: &PgError) -> CacheError {
        if error.code() == Some(&SqlState::UNDEFINED_TABLE) {
            // They were dropped: the next call creates them.
            *self.has_tables.lock().await = false;
        }
        let hint = match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                format!(
                    ": let an administrator create {} and {} as docs/connect/cache-stores.md says",
                    self.rows, self.metas
                )
            }
            _ => String::new(),
        };
        self.io(format!("{}{hint}", message_of(error)))
    }

    /// Returns a connection to a database that has the tables.
    async fn lease(&self) -> Result<Lease, CacheError> {
        let mut lease = self.pool.lease().await.map_err(|error| self.io(error))?;
        let mut has_tables = self.has_tables.lock().await;
        if !*has_tables {
            let created = self.create(&lease.session().client).await;
            drop(has_tables);
            if let Err(error) = created {
                return Err(self.failed(&error).await);
            }
            has_tables = self.has_tables.lock().await;
            *has_tables = true;
        }
        Ok(lease)
    }

    /// Creates the tables if they do not exist. A user without the right to create needs it only then.
    async fn create(&self, client: &Client) -> Result<(), PgError> {
        let (rows, metas) = (&self.rows, &self.metas);
        let sql = "SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL";
        if client.query_one(sql, &[rows, metas]).await?.get(0) {
            return Ok(());
        }
        // Two processes that create a table at the same time would disturb each other.
        let sql = format!(
            "BEGIN; SELECT pg_advisory_xact_lock(hashtext({metas_text}));
             CREATE TABLE IF NOT EXISTS {rows} (dio text COLLATE \"C\", id bytea, body bytea NOT NULL, PRIMARY KEY (dio, id));
             CREATE TABLE IF NOT EXISTS {metas} (dio text COLLATE \"C\" PRIMARY KEY, claim int8 NOT NULL, owner text NOT NULL,
                 turn int8 NOT NULL, meta bytea);
             COMMIT",
            metas_text = literal(metas),
        );
        client.batch_execute(&sql).await
    }
}

/// Quotes a text as a literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Rows of one Dio.
struct DioTable {
    database: Arc<Database>,
    name: String,
    /// `None` before the table was claimed.
    fence: Mutex<Option<Fence>>,
}

/// Changes of a transaction.
struct Changes {
    /// True if all rows and the meta are removed first.
    clears: bool,
    puts: Vec<CachedRow>,
    deletes: Vec<Id>,
    meta: Option<Bytes>,
}

/// A transaction that did not succeed.
enum Refusal {
    Failed(PgError),
    Cache(CacheError),
}

impl From<PgError> for Refusal {
    fn from(error: PgError) -> Refusal {
        Refusal::Failed(error)
    }
}

impl DioTable {
    async fn refused(&self, refusal: Refusal) -> CacheError {
        match refusal {
            Refusal::Failed(error) => self.database.failed(&error).await,
            Refusal::Cache(error) => error,
        }
    }

    /// Reads and locks claim, number and meta.
    async fn lock(&self, client: &Client) -> Result<(Option<Stored>, Option<Bytes>), PgError> {
        let sql = format!("SELECT claim, owner, turn, meta FROM {} WHERE dio = $1 FOR UPDATE", self.database.metas);
        let Some(row) = client.query_opt(&sql, &[&self.name]).await? else { return Ok((None, None)) };
        let stored = Stored { claim: row.get(0), owner: row.get(1), turn: row.get(2) };
        Ok((Some(stored), row.get::<_, Option<Vec<u8>>>(3).map(Bytes::from)))
    }

    async fn store_fence(&self, client: &Client, fence: &Stored) -> Result<(), PgError> {
        let sql = format!(
            "INSERT INTO {} (dio, claim, owner, turn) VALUES ($1, $2, $3, $4)
             ON CONFLICT (dio) DO UPDATE SET claim = excluded.claim, owner = excluded.owner, turn = excluded.turn",
            self.database.metas
        );
        client.execute(&sql, &[&self.name, &fence.claim, &fence.owner, &fence.turn]).await.map(drop)
    }

    /// Claims the table, and returns its meta.
    async fn claim(&self, client: &Client, fence: &mut Option<Fence>) -> Result<Option<Bytes>, PgError> {
        client.batch_execute(BEGIN).await?;
        let (stored, meta) = self.lock(client).await?;
        let claimed = Fence::claim(stored.as_ref());
        self.store_fence(client, claimed.stored()).await?;
        client.batch_execute("COMMIT").await?;
        *fence = Some(claimed);
        Ok(meta)
    }

    /// Runs `changes`, if the table is still that of this process.
    async fn change(&self, changes: &Changes) -> Result<(), CacheError> {
        let mut fence = self.fence.lock().await;
        let mut lease = self.database.lease().await?;
        let changing = self.transact(&lease.session().client, &mut fence, changes);
        match timeout(COMMIT, changing).await {
            Ok(Ok(())) => {
                lease.give_back();
                Ok(())
            }
            // The connection is closed, which ends its transaction.
            Ok(Err(refusal)) => Err(self.refused(refusal).await),
            Err(_) => Err(self.database.io(format!("no answer within {} s", COMMIT.as_secs()))),
        }
    }

    async fn transact(&self, client: &Client, fence: &mut Option<Fence>, changes: &Changes) -> Result<(), Refusal> {
        if fence.is_none() {
            self.claim(client, fence).await?;
        }
        let refuse = |error| Err(Refusal::Cache(error));
        let Some(fence) = fence else { return refuse(self.database.io("the table was not claimed")) };
        client.batch_execute(BEGIN).await?;
        let (stored, _) = self.lock(client).await?;
        match fence.relation(stored.as_ref()) {
            Relation::Taken => return refuse(self.database.io(TAKEN)),
            Relation::Lost if !changes.clears => return refuse(CacheError::corrupt(&self.database.shown, LOST)),
            Relation::Lost | Relation::Own => {}
        }
        fence.next();
        self.write(client, changes).await?;
        self.store_fence(client, fence.stored()).await?;
        if let Some(meta) = &changes.meta {
            let sql = format!("UPDATE {} SET meta = $2 WHERE dio = $1", self.database.metas);
            client.execute(&sql, &[&self.name, &&meta[..]]).await?;
        }
        client.batch_execute("COMMIT").await?;
        fence.confirm();
        Ok(())
    }

    async fn write(&self, client: &Client, changes: &Changes) -> Result<(), PgError> {
        let Database { rows, metas, .. } = &*self.database;
        if changes.clears {
            client.execute(&format!("DELETE FROM {rows} WHERE dio = $1"), &[&self.name]).await?;
            client.execute(&format!("UPDATE {metas} SET meta = NULL WHERE dio = $1"), &[&self.name]).await?;
        }
        let delete = format!("DELETE FROM {rows} WHERE dio = $1 AND id = ANY ($2)");
        for ids in changes.deletes.chunks(ROWS) {
            let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes()).collect();
            client.execute(&delete, &[&self.name, &ids]).await?;
        }
        let upsert = format!(
            "INSERT INTO {rows} (dio, id, body) SELECT $1, id, body FROM unnest($2::bytea[], $3::bytea[]) AS new (id, body)
             ON CONFLICT (dio, id) DO UPDATE SET body = excluded.body"
        );
        for rows in changes.puts.chunks(ROWS) {
            let ids: Vec<&[u8]> = rows.iter().map(|row| row.id().as_bytes()).collect();
            let bodies: Vec<Bytes> = rows.iter().map(CachedRow::to_bytes).collect();
            let bodies: Vec<&[u8]> = bodies.iter().map(|body| &body[..]).collect();
            client.execute(&upsert, &[&self.name, &ids, &bodies]).await?;
        }
        Ok(())
    }

    async fn read_rows(&self, client: &Client, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<(), Refusal> {
        let sql = format!("SELECT id, body FROM {} WHERE dio = $1", self.database.rows);
        let found = client.query_raw(&sql, [&self.name]).await?.try_chunks(ROWS);
        let mut found = std::pin::pin!(found);
        loop {
            let Ok(next) = timeout(SILENCE, found.try_next()).await else {
                return Err(Refusal::Cache(self.database.io(format!("no answer within {} s", SILENCE.as_secs()))));
            };
            let Some(batch) = next.map_err(|error| error.1)? else { return Ok(()) };
            let mut rows = Vec::with_capacity(batch.len());
            for row in batch {
                let (id, body): (&[u8], &[u8]) = (row.get(0), row.get(1));
                let Ok(id) = std::str::from_utf8(id) else {
                    let detail = format!("{} has an id that is not UTF-8", self.database.rows);
                    return Err(Refusal::Cache(CacheError::corrupt(&self.database.shown, detail)));
                };
                rows.push(CachedRow::from_bytes(id, body));
            }
            sink(rows);
        }
    }
}

#[async_trait]
impl CacheTable for DioTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        let mut fence = self.fence.lock().await;
        let mut lease = self.database.lease().await?;
        let client = &lease.session().client;
        let claiming = timeout(COMMIT, self.claim(client, &mut fence)).await;
        let Ok(claimed) = claiming else {
            return Err(self.database.io(format!("no answer within {} s", COMMIT.as_secs())));
        };
        let meta = match claimed {
            Ok(meta) => meta,
            Err(error) => return Err(self.database.failed(&error).await),
        };
        if let Err(refusal) = self.read_rows(client, sink).await {
            return Err(self.refused(refusal).await);
        }
        lease.give_back();
        Ok(meta)
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        self.change(&Changes { clears: false, puts, deletes, meta }).await
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.change(&Changes { clears: true, puts: Vec::new(), deletes: Vec::new(), meta: None }).await
    }

    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        let mut lease = self.database.lease().await?;
        let sql = format!("SELECT meta FROM {} WHERE dio = $1", self.database.metas);
        let client = &lease.session().client;
        let asked = timeout(COMMIT, client.query_opt(&sql, &[&self.name])).await;
        match asked {
            Ok(Ok(row)) => {
                lease.give_back();
                Ok(row.and_then(|row| row.get::<_, Option<Vec<u8>>>(0)).map(Bytes::from))
            }
            Ok(Err(error)) => Err(self.database.failed(&error).await),
            Err(_) => Err(self.database.io(format!("no answer within {} s", COMMIT.as_secs()))),
        }
    }
}
