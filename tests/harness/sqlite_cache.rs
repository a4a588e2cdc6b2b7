//! A cache backend that was written from the documentation alone: a table of SQLite.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use diorama::cache::{Bytes, CacheBackend, CacheError, CacheTable, CachedRow, Id};
use parking_lot::Mutex;
use rusqlite::Connection;

/// One table of SQLite for the rows of all Dios, by Dio and id.
pub struct SqliteCache(Arc<Mutex<Connection>>);

struct SqliteTable {
    connection: Arc<Mutex<Connection>>,
    dio: String,
}

/// Rows that are handed on at a time.
const BATCH: usize = 1000;

impl SqliteCache {
    pub fn open(path: &Path) -> Result<SqliteCache, CacheError> {
        let connection = Connection::open(path).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 CREATE TABLE IF NOT EXISTS cached (
                     dio TEXT NOT NULL, id TEXT NOT NULL, place INTEGER, row BLOB NOT NULL, PRIMARY KEY (dio, id));
                 CREATE TABLE IF NOT EXISTS cached_meta (dio TEXT PRIMARY KEY, meta BLOB NOT NULL);",
            )
            .map_err(failed)?;
        Ok(SqliteCache(Arc::new(Mutex::new(connection))))
    }
}

#[async_trait]
impl CacheBackend for SqliteCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        Ok(Arc::new(SqliteTable { connection: Arc::clone(&self.0), dio: name.to_string() }))
    }
}

impl SqliteTable {
    fn stored_meta(&self, connection: &Connection) -> rusqlite::Result<Option<Bytes>> {
        let mut found = connection.prepare("SELECT meta FROM cached_meta WHERE dio = ?1")?;
        let mut found = found.query_map([&self.dio], |row| row.get::<_, Vec<u8>>(0))?;
        Ok(found.next().transpose()?.map(Bytes::from))
    }

    fn read(&self, sink: &mut dyn FnMut(Vec<CachedRow>)) -> rusqlite::Result<Option<Bytes>> {
        let connection = self.connection.lock();
        let mut statement = connection.prepare("SELECT id, row FROM cached WHERE dio = ?1 ORDER BY place")?;
        let mut found = statement.query([&self.dio])?;
        let mut batch = Vec::new();
        while let Some(row) = found.next()? {
            batch.push(CachedRow::from_bytes(row.get::<_, String>(0)?, row.get_ref(1)?.as_blob()?));
            if batch.len() == BATCH {
                sink(std::mem::take(&mut batch));
            }
        }
        sink(batch);
        self.stored_meta(&connection)
    }

    fn write(&self, puts: &[CachedRow], deletes: &[Id], meta: Option<&Bytes>) -> rusqlite::Result<()> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        {
            let mut delete = transaction.prepare_cached("DELETE FROM cached WHERE dio = ?1 AND id = ?2")?;
            for id in deletes {
                delete.execute((&self.dio, &**id))?;
            }
            let mut put = transaction.prepare_cached("INSERT OR REPLACE INTO cached VALUES (?1, ?2, ?3, ?4)")?;
            for row in puts {
                put.execute((&self.dio, row.id(), row.place(), &*row.to_bytes()))?;
            }
            if let Some(meta) = meta {
                transaction.execute("INSERT OR REPLACE INTO cached_meta VALUES (?1, ?2)", (&self.dio, &**meta))?;
            }
        }
        transaction.commit()
    }

    fn forget(&self) -> rusqlite::Result<()> {
        let mut connection = self.connection.lock();
        let transaction = connection.transaction()?;
        transaction.execute("DELETE FROM cached WHERE dio = ?1", [&self.dio])?;
        transaction.execute("DELETE FROM cached_meta WHERE dio = ?1", [&self.dio])?;
        transaction.commit()
    }
}

#[async_trait]
impl CacheTable for SqliteTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        self.read(sink).map_err(failed)
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        self.write(&puts, &deletes, meta.as_ref()).map_err(failed)
    }

    async fn clear(&self) -> Result<(), CacheError> {
        self.forget().map_err(failed)
    }

    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        self.stored_meta(&self.connection.lock()).map_err(failed)
    }
}

fn failed(error: rusqlite::Error) -> CacheError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            CacheError::corrupt("SQLite", error)
        }
        _ => CacheError::io("SQLite", error),
    }
}
