//! A backend on a server that may be away, at the start and later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::{CacheBackend, CacheError, CacheTable, CachedRow};
use crate::record::Id;

/// Pauses before further attempts to load a table.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];

/// A backend on a server that may be away.
///
/// A table that cannot be loaded is served as an empty one, so that a Dio reads its master. What the server has is then older than the
/// rows of the Dio, and nothing is stored until all of it was cleared: the first commit that reaches the server again returns
/// [`CacheError::Corrupt`], after which the Dio clears the table and stores every row. [`CacheTable::trouble`] says so meanwhile.
pub struct RemoteCache {
    backend: Arc<dyn CacheBackend>,
    tables: Mutex<HashMap<String, Arc<RemoteTable>>>,
}

impl std::fmt::Debug for RemoteCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteCache").finish_non_exhaustive()
    }
}

impl RemoteCache {
    /// Wraps `backend`.
    pub fn new(backend: impl CacheBackend) -> RemoteCache {
        RemoteCache { backend: Arc::new(backend), tables: Mutex::default() }
    }
}

#[async_trait]
impl CacheBackend for RemoteCache {
    async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
        let mut tables = self.tables.lock();
        let table = tables.entry(name.into()).or_insert_with(|| {
            let backend = Arc::clone(&self.backend);
            Arc::new(RemoteTable { backend, name: name.into(), state: Mutex::default(), trouble: Mutex::default() })
        });
        Ok(Arc::clone(table) as Arc<dyn CacheTable>)
    }

    async fn close(&self) {
        self.backend.close().await;
    }
}

/// Relation of a table on the server to the rows of its Dio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Content {
    /// Nothing is known yet.
    #[default]
    Unread,
    /// The table has what was committed.
    Current,
    /// The table has to be cleared before anything is committed.
    Outdated,
}

struct RemoteTable {
    backend: Arc<dyn CacheBackend>,
    name: String,
    state: Mutex<Content>,
    trouble: Mutex<Option<String>>,
}

impl RemoteTable {
    /// Notes the outcome of a call.
    fn note<T>(&self, outcome: &Result<T, CacheError>, away: &str) {
        *self.trouble.lock() = outcome.as_ref().err().map(|error| format!("{error}; {away}"));
    }

    async fn load_once(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        self.backend.open_table(&self.name).await?.load(sink).await
    }

    /// Loads the table. Returns `Err` only if rows were passed to `sink` before.
    async fn load_or_start_empty(
        &self,
        sink: &mut (dyn FnMut(Vec<CachedRow>) + Send),
    ) -> Result<Option<Bytes>, CacheError> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let mut passed = false;
            let loaded = self
                .load_once(&mut |rows| {
                    passed |= !rows.is_empty();
                    sink(rows);
                })
                .await;
            let error = match loaded {
                Err(error @ CacheError::Io { .. }) => error,
                loaded => {
                    *self.state.lock() = Content::Current;
                    self.note(&loaded, "");
                    return loaded;
                }
            };
            match pauses.next() {
                Some(pause) if !passed => sleep(pause).await,
                _ => {
                    *self.state.lock() = Content::Outdated;
                    let away = "the rows come from the source and will be stored later";
                    tracing::warn!(dio = self.name, %error, "the cache cannot be read: {away}");
                    self.note::<()>(&Err(error.clone()), away);
                    return if passed { Err(error) } else { Ok(None) };
                }
            }
        }
    }
}

/// Consequence of a commit that fails.
const LATER: &str = "rows are served from memory and will be stored later";

#[async_trait]
impl CacheTable for RemoteTable {
    async fn load(&self, sink: &mut (dyn FnMut(Vec<CachedRow>) + Send)) -> Result<Option<Bytes>, CacheError> {
        let state = *self.state.lock();
        match state {
            // The second attempt of a load that has failed between its rows.
            Content::Outdated => Ok(None),
            Content::Unread | Content::Current => self.load_or_start_empty(sink).await,
        }
    }

    async fn commit(&self, puts: Vec<CachedRow>, deletes: Vec<Id>, meta: Option<Bytes>) -> Result<(), CacheError> {
        let state = *self.state.lock();
        let committing = async {
            let table = self.backend.open_table(&self.name).await?;
            if state == Content::Outdated {
                table.meta().await?;
                let detail = "it could not be read when this process started, or not be cleared";
                return Err(CacheError::corrupt(&self.name, detail));
            }
            table.commit(puts, deletes, meta).await
        };
        let committed = committing.await;
        if matches!(committed, Err(CacheError::Corrupt { .. })) {
            *self.state.lock() = Content::Outdated;
        }
        self.note(&committed, LATER);
        committed
    }

    async fn clear(&self) -> Result<(), CacheError> {
        // Until it has succeeded, the server may have cleared the table or not.
        *self.state.lock() = Content::Outdated;
        let clearing = async { self.backend.open_table(&self.name).await?.clear().await };
        let cleared = clearing.await;
        if cleared.is_ok() {
            *self.state.lock() = Content::Current;
        }
        self.note(&cleared, LATER);
        cleared
    }

    async fn meta(&self) -> Result<Option<Bytes>, CacheError> {
        let reading = async { self.backend.open_table(&self.name).await?.meta().await };
        match reading.await {
            Err(error @ CacheError::Io { .. }) => {
                tracing::warn!(dio = self.name, %error, "the cache cannot be read: it is not known whether it has a copy");
                Ok(None)
            }
            read => read,
        }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::cache::MemoryCache;
    use crate::cache::contract::{contents, row};

    /// A server that can be switched off.
    #[derive(Default)]
    struct Server {
        rows: MemoryCache,
        is_away: AtomicBool,
    }

    #[async_trait]
    impl CacheBackend for Server {
        async fn open_table(&self, name: &str) -> Result<Arc<dyn CacheTable>, CacheError> {
            match self.is_away.load(Ordering::SeqCst) {
                true => Err(CacheError::io("server", "away")),
                false => self.rows.open_table(name).await,
            }
        }
    }

    async fn table(server: &Arc<Server>) -> Arc<dyn CacheTable> {
        RemoteCache::new(Arc::clone(server)).open_table("t").await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_away_is_cleared_before_it_stores_anything() {
        let server = Arc::new(Server::default());
        let first = table(&server).await;
        assert_eq!(contents(&*first).await.1, None);
        first.commit(vec![row("a", "old")], vec![], Some("one".into())).await.unwrap();
        server.is_away.store(true, Ordering::SeqCst);
        let second = table(&server).await;
        assert_eq!(contents(&*second).await, (Default::default(), None));
        assert!(second.trouble().unwrap().contains("come from the source"));
        let commit = || second.commit(vec![row("b", "new")], vec![], Some("two".into()));
        assert!(matches!(commit().await, Err(CacheError::Io { .. })));
        assert!(second.clear().await.is_err());
        server.is_away.store(false, Ordering::SeqCst);
        for _ in 0..2 {
            assert!(matches!(commit().await, Err(CacheError::Corrupt { .. })));
        }
        // Nothing has changed yet: another process would start with what was there.
        assert_eq!(contents(&*table(&server).await).await.1, Some("one".into()));
        second.clear().await.unwrap();
        commit().await.unwrap();
        assert_eq!(second.trouble(), None);
        let (rows, meta) = contents(&*table(&server).await).await;
        assert_eq!((rows.len(), meta), (1, Some("two".into())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_away_for_a_while_gets_the_rows_later() {
        let server = Arc::new(Server::default());
        let table = table(&server).await;
        contents(&*table).await;
        server.is_away.store(true, Ordering::SeqCst);
        assert!(table.commit(vec![row("a", "x")], vec![], None).await.is_err());
        assert!(table.trouble().unwrap().contains("stored later"));
        assert_eq!(table.meta().await.unwrap(), None);
        server.is_away.store(false, Ordering::SeqCst);
        table.commit(vec![row("a", "x")], vec![], None).await.unwrap();
        assert_eq!((table.trouble(), contents(&*table).await.0.len()), (None, 1));
    }

    #[tokio::test]
    async fn it_keeps_the_contract_of_backends() {
        crate::cache::contract::keeps_the_contract(&RemoteCache::new(MemoryCache::new())).await;
    }
}
