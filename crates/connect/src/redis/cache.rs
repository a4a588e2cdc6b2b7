//! Cache of rows: one hash for each Dio.
//!
//! The hash has a field for each row, with its id behind a colon, and fields for the meta and for the [fence](crate::fence). One key
//! for all of it is removed as a whole, if the server removes keys because its memory is full, and is in one slot of a cluster. A commit
//! is one transaction (`MULTI`), on the condition that the hash is as it was when the fence was checked (`WATCH`): so it is
//! stored as a whole, and a late one from a lost connection is not stored any more. The rows are read in pages (`HSCAN`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Pipeline, cmd, pipe};
use tokio::sync::Mutex;

use super::address::RedisAddress;
use super::errors::Failure;
use super::session::Session;
use crate::fence::{Fence, LOST, Relation, Stored, TAKEN};
use diorama_core::cache::{CacheBackend, CacheError, CacheTable, CachedRow, Id};

/// Number of rows of the first page. Later ones have as many as [`PAGE`] holds.
const FIRST: usize = 100;
/// Size of a page in bytes, if rows are as large as those before. A hash of few small rows is one page.
const PAGE: usize = 1 << 20;
/// Maximum number of rows of a page.
const MOST: usize = 5_000;
/// Number of rows of one command.
const ROWS: usize = 1_000;
/// Timeout of a commit, which may have many large rows.
const COMMIT: Duration = Duration::from_secs(60);

const META: &str = "meta";
const CLAIM: &str = "claim";
const OWNER: &str = "owner";
const TURN: &str = "turn";

/// Rows of all Dios in a database.
pub(super) struct RedisCache {
    address: RedisAddress,
    /// Beginning of the keys.
    prefix: String,
    tables: parking_lot::Mutex<HashMap<String, Arc<RedisTable>>>,
}

impl RedisCache {
    pub(super) fn new(address: RedisAddress, prefix: &str) -> RedisCache {
        RedisCache { address, prefix: prefix.to_string(), tables: parking_lot::Mutex::default() }
    }
}

#[async_trait]
impl CacheBackend for RedisCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        let mut tables = self.tables.lock();
        let table = tables.entry(name.to_string()).or_insert_with(|| {
            let key = format!("{}:{name}", self.prefix);
            Arc::new(RedisTable { address: self.address.clone(), key, state: Mutex::default() })
        });
        Ok(Arc::clone(table) as Arc<dyn CacheTable>)
    }
}

/// Rows of one Dio.
struct RedisTable {
    address: RedisAddress,
    key: String,
    state: Mutex<Connected>,
}

/// Connection and claim of a table.
#[derive(Default)]
struct Connected {
    /// `None` before the first command and after a failure.
    session: Option<Session>,
    /// `None` before the table was claimed.
    fence: Option<Fence>,
}

/// Contents of the fields beside the rows, as they were read.
struct Head {
    stored: Option<Stored>,
    meta: Option<Bytes>,
}

impl RedisTable {
    fn failed(&self, failure: &Failure) -> CacheError {
        CacheError::io(self.address.to_string(), &failure.message)
    }

    fn odd(&self) -> CacheError {
        CacheError::corrupt(format!("{} key {}", self.address, self.key), "the key has something that is not a cache")
    }

    fn command(&self, name: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(&self.key);
        command
    }

    /// Takes the connection, or makes one. It is put back after a success only: a command that has failed, or was cancelled, may still be
    /// answered.
    async fn session(&self, connected: &mut Connected) -> Result<Session, CacheError> {
        match connected.session.take().filter(|session| !session.is_lost()) {
            Some(session) => Ok(session),
            None => self.address.connect().await.map_err(|failure| self.failed(&failure)),
        }
    }

    /// Reads the fields beside the rows. With `watch`, the next transaction succeeds only if nothing changes until then.
    async fn head(&self, session: &Session, watch: bool) -> Result<Head, CacheError> {
        let failed = |failure: Failure| self.failed(&failure);
        if watch {
            session.run::<()>(&self.command("WATCH")).await.map_err(failed)?;
        }
        let mut read = self.command("HMGET");
        read.arg(&[CLAIM, OWNER, TURN, META]);
        let (claim, owner, turn, meta): (Option<String>, Option<String>, Option<String>, Option<Bytes>) =
            session.run(&read).await.map_err(failed)?;
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
        let stored = match (number(claim), owner, number(turn)) {
            (Some(claim), Some(owner), Some(turn)) => Some(Stored { claim, owner, turn }),
            _ => None,
        };
        Ok(Head { stored, meta })
    }

    /// Adds the fence to a transaction and runs it.
    async fn execute(&self, session: &Session, mut changes: Pipeline, fence: &Stored) -> Result<(), CacheError> {
        let mut set = self.command("HSET");
        set.arg(CLAIM).arg(fence.claim).arg(OWNER).arg(&fence.owner).arg(TURN).arg(fence.turn);
        changes.add_command(set).ignore();
        let done: Option<()> =
            session.run_all_within(&changes, COMMIT).await.map_err(|failure| self.failed(&failure))?;
        done.ok_or_else(|| CacheError::io(self.address.to_string(), "the key was changed by somebody else"))
    }

    /// Claims the table, and returns its meta.
    async fn claim(&self, session: &Session, fence: &mut Option<Fence>) -> Result<Option<Bytes>, CacheError> {
        let head = self.head(session, true).await?;
        let claimed = Fence::claim(head.stored.as_ref());
        self.execute(session, transaction(), claimed.stored()).await?;
        *fence = Some(claimed);
        Ok(head.meta)
    }

    /// Runs `changes`, if the table is still that of this process.
    async fn change(&self, changes: Pipeline, may_be_lost: bool) -> Result<(), CacheError> {
        let mut connected = self.state.lock().await;
        let session = self.session(&mut connected).await?;
        if connected.fence.is_none() {
            self.claim(&session, &mut connected.fence).await?;
        }
        let head = self.head(&session, true).await?;
        let Some(fence) = connected.fence.as_mut() else { return Err(self.odd()) };
        match fence.relation(head.stored.as_ref()) {
            Relation::Taken => return Err(CacheError::io(self.address.to_string(), TAKEN)),
            Relation::Lost if !may_be_lost => return Err(CacheError::corrupt(self.address.to_string(), LOST)),
            Relation::Lost | Relation::Own => {}
        }
        fence.next();
        self.execute(&session, changes, fence.stored()).await?;
        fence.confirm();
        connected.session = Some(session);
        Ok(())
    }

    /// Reads all rows in pages.
    async fn read_rows(
        &self,
        session: &Session,
        sink: &mut (dyn FnMut(Vec<CachedRow>) + Send),
    ) -> Result<(), CacheError> {
        // A field may be returned twice while the server rearranges the hash.
        let (mut seen, mut cursor, mut most) = (HashSet::<Id>::new(), 0_u64, FIRST);
        loop {
            let mut scan = self.command("HSCAN");
            scan.arg(cursor).arg("MATCH").arg(":*").arg("COUNT").arg(most);
            let (next, fields): (u64, Vec<Bytes>) =
                session.run(&scan).await.map_err(|failure| self.failed(&failure))?;
            let (mut rows, mut size) = (Vec::with_capacity(fields.len() / 2), 0);
            for pair in fields.chunks_exact(2) {
                let id = pair[0].strip_prefix(b":").and_then(|id| std::str::from_utf8(id).ok());
                let id = Id::from(id.ok_or_else(|| self.odd())?);
                size += pair[0].len() + pair[1].len();
                if seen.insert(Id::clone(&id)) {
                    rows.push(CachedRow::from_bytes(id, &pair[1]));
                }
            }
            most = match size / (fields.len() / 2).max(1) {
                0 => most,
                average => (PAGE / average).clamp(1, MOST),
            };
            sink(rows);
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

fn transaction() -> Pipeline {
    let mut transaction = pipe();
    transaction.atomic();
    transaction
}

fn field(id: &str) -> String {
    format!(":{id}")
}

#[async_trait]
impl CacheTable for RedisTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        let mut connected = self.state.lock().await;
        let session = self.session(&mut connected).await?;
        let meta = self.claim(&session, &mut connected.fence).await?;
        self.read_rows(&session, sink).await?;
        connected.session = Some(session);
        Ok(meta)
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        let mut changes = transaction();
        for ids in deletes.chunks(ROWS) {
            let mut delete = self.command("HDEL");
            ids.iter().for_each(|id| {
                delete.arg(field(id));
            });
            changes.add_command(delete).ignore();
        }
        for rows in puts.chunks(ROWS) {
            let mut put = self.command("HSET");
            rows.iter().for_each(|row| {
                put.arg(field(row.id())).arg(&*row.to_bytes());
            });
            changes.add_command(put).ignore();
        }
        if let Some(meta) = meta {
            let mut put = self.command("HSET");
            put.arg(META).arg(&*meta);
            changes.add_command(put).ignore();
        }
        self.change(changes, false).await
    }

    async fn clear(&self) -> Result<(), CacheError> {
        let mut changes = transaction();
        changes.add_command(self.command("UNLINK")).ignore();
        self.change(changes, true).await
    }

    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        let mut connected = self.state.lock().await;
        let session = self.session(&mut connected).await?;
        let head = self.head(&session, false).await?;
        connected.session = Some(session);
        Ok(head.meta)
    }
}
