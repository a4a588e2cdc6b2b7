//! The master as hooks see it: every list carries the mark of its reading.

use std::future::Future;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::core::Core;
use crate::record::{Record, Rows, Stamp};
use crate::vista::{Capabilities, Error, Query, Result, Schema, TableShell, Token, Vista, WriteOp, Written};

/// A shell over the master's own that stamps what it lists.
pub(super) struct Stamped {
    pub(super) core: Weak<Core>,
    pub(super) inner: Arc<dyn TableShell>,
}

impl Core {
    /// Runs a driver's future in a task of its own: a panic in there is a failed request, and one that its caller gives up
    /// is ended, lest it reach the master after its successor (work that the driver blocks a thread with runs on).
    pub(super) async fn ask_driver<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let task = self.tasks.spawn_bounded(self.settings.drain_timeout, future);
        match AbortOnDropHandle::new(task).await {
            Ok(done) => done.unwrap_or(Err(Error::Closed)),
            Err(error) if error.is_panic() => Err(Error::unknown("the driver panicked")),
            Err(_) => Err(Error::Closed),
        }
    }

    /// One row of the master.
    pub(super) async fn read_one(&self, id: &str) -> Result<Option<Record>> {
        let (shell, id) = (Arc::clone(self.vista.shell()), id.to_string());
        self.ask_driver(async move { shell.get(&id).await }).await
    }
}

/// Lists the master under a fresh mark.
pub(super) async fn list_stamped(core: &Arc<Core>, query: &Query) -> Result<Rows> {
    let guard = core.open_guard().await?;
    let started = Instant::now();
    let complete = *query == Query::default();
    let (shell, query) = (Arc::clone(core.vista.shell()), query.clone());
    let rows = core.ask_driver(async move { shell.list(&query).await }).await?;
    if complete {
        core.freshness.lock().list_time = started.elapsed();
    }
    Ok(rows.stamped(Stamp { mark: guard.mark, complete, _guard: Arc::new(guard) }))
}

#[async_trait]
impl TableShell for Stamped {
    fn schema(&self) -> Arc<Schema> {
        self.inner.schema()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        let core = self.core.upgrade().ok_or(Error::Closed)?;
        list_stamped(&core, query).await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        self.inner.get(id).await
    }

    fn reads_one(&self) -> bool {
        self.inner.reads_one()
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.inner.count(query).await
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        self.inner.next(query, token).await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.inner.write(op).await
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.inner.insert_return_id(record).await
    }

    fn reference(&self, relation: &str, row: &Record) -> Result<Vista> {
        self.inner.reference(relation, row)
    }
}
