//! The master as callbacks see it: every list carries the mark of its read.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::dio::core::Core;
use crate::dio::deliver::breaker::Upstream;
use crate::dio::guard::Guard;
use crate::record::{Id, Record, Rows, Stamp};
use crate::vista::{Capabilities, Error, Inferred, Query, Result, Schema, TableShell, Token, Vista, WriteOp, Written};

/// Shell around the master's that stamps its lists.
pub(crate) struct StampingShell {
    pub(crate) core: Weak<Core>,
    pub(crate) inner: Arc<dyn TableShell>,
}

impl StampingShell {
    fn core(&self) -> Result<Arc<Core>> {
        self.core.upgrade().ok_or(Error::Closed)
    }
}

impl Core {
    /// Runs a driver's future in a task of its own.
    ///
    /// A panic becomes a failed request. A request whose caller gives up is cancelled, so that it cannot reach the master
    /// after its successor. Work that blocks a thread of the driver runs on.
    pub(crate) async fn ask_driver<T: Send + 'static>(
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

    /// Reads one row of the master, `None` if it is not there.
    pub(crate) async fn read_one(&self, id: &str) -> Result<Option<Record>> {
        let (shell, row, id) = (Arc::clone(self.vista.shell()), Id::from(id), id.to_string());
        // A master that only lists needs the time of a list.
        let settings = &self.settings;
        let patience = if shell.reads_one() { settings.read_timeout } else { settings.refresh_timeout };
        self.ask_master(Some(&row), patience, async move { shell.get(&id).await }).await
    }

    /// Lists the rows of `query` at the master.
    pub(crate) async fn list_master(&self, query: &Query) -> Result<Rows> {
        let (shell, query, rows) = (Arc::clone(self.vista.shell()), query.clone(), self.rows_for_list());
        self.ask_for_list(async move { shell.list_into(&query, rows).await }).await
    }

    /// An empty set for a list, which keeps only rows that differ from the present ones.
    fn rows_for_list(&self) -> Rows {
        let rows = Rows::with_layout(Arc::clone(self.vista.schema().layout()));
        let state = self.state();
        match state.table().is_empty() {
            true => rows,
            false => rows.compared_with(Arc::new(state.table().without_indexes())),
        }
    }

    /// Asks the master for a list, until the Dio closes.
    async fn ask_for_list<T: Send + 'static>(
        &self,
        list: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let list = self.ask_master(None, self.settings.refresh_timeout, list);
        tokio::select! {
            biased;
            listed = list => listed,
            // A source may take a long time to return its list.
            () = self.tasks.closing().cancelled() => Err(Error::Closed),
        }
    }

    /// Counts the rows of the master that match `query`.
    pub(crate) async fn count_master(&self, query: &Query) -> Result<u64> {
        let (shell, query) = (Arc::clone(self.vista.shell()), query.clone());
        self.ask_master(None, self.settings.read_timeout, async move { shell.count(&query).await }).await
    }

    /// Reads the next page from the master.
    pub(crate) async fn next_of_master(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        let (shell, query, token) = (Arc::clone(self.vista.shell()), query.clone(), token.cloned());
        let read = async move { shell.next(&query, token.as_ref()).await };
        self.ask_master(None, self.settings.read_timeout, read).await
    }

    /// Reads from the master with the timeout `patience`, and records the answer in the breaker.
    pub(crate) async fn ask_master<T: Send + 'static>(
        &self,
        row: Option<&Id>,
        patience: Duration,
        read: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let answer = match tokio::time::timeout(patience, self.ask_driver(read)).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::transient(format!("the source gave no answer within {} s", patience.as_secs_f32()))),
        };
        self.deliver.source.note_other(&answer);
        self.record_answer(&self.deliver.source, row, &answer);
        answer
    }

    /// Records an answer in the breaker of `upstream`. If the upstream has recovered, waiting operations and reads become due.
    pub(crate) fn record_answer<T>(&self, upstream: &Upstream, row: Option<&Id>, answer: &Result<T>) {
        if !upstream.record(&self.name, row, answer) {
            return;
        }
        if std::ptr::eq(upstream, &*self.deliver.route_breaker) {
            self.deliver.attempts.lock().wake_all();
        }
        self.wake();
    }

    /// Wakes the worker, the rereader and all others that wait for a change of the State.
    pub(crate) fn wake(&self) {
        self.published.send_modify(|_| {});
    }
}

/// Lists the master under a fresh mark.
pub(crate) async fn list_stamped(core: &Arc<Core>, query: &Query) -> Result<Rows> {
    let guard = core.open_guard().await?;
    let started = Instant::now();
    let rows = core.list_master(query).await?;
    Ok(stamped(core, rows, guard, started, *query == Query::default()))
}

/// Lists all rows of the master under a fresh mark; `None` if the list is the one with this fingerprint.
pub(super) async fn list_changed_stamped(core: &Arc<Core>, fingerprint: Arc<str>) -> Result<Option<Rows>> {
    let guard = core.open_guard().await?;
    let (started, shell) = (Instant::now(), Arc::clone(core.vista.shell()));
    let known = core.rows_for_list();
    let rows = core.ask_for_list(async move { shell.list_changed_into(&fingerprint, known).await }).await?;
    Ok(rows.map(|rows| stamped(core, rows, guard, started, true)))
}

/// Lists the rows that have changed since a list, under a fresh mark; `None` if the whole list is due.
pub(super) async fn list_since_stamped(core: &Arc<Core>, since: Arc<str>) -> Result<Option<Rows>> {
    let guard = core.open_guard().await?;
    let (started, shell) = (Instant::now(), Arc::clone(core.vista.shell()));
    let rows = core.ask_for_list(async move { shell.list_since(&since).await }).await?;
    Ok(rows.map(|rows| stamped(core, rows, guard, started, false)))
}

/// Adds the mark of the read to its rows. Notes the time and the bad rows of a complete list.
fn stamped(core: &Arc<Core>, rows: Rows, guard: Guard, started: Instant, complete: bool) -> Rows {
    if complete {
        let rows = rows.undecodable().cloned();
        if let Some(bad) = &rows {
            let (rows, error) = (bad.count, &bad.first);
            if let Some(left_out) = core.lines.pass(("undecodable", String::new())) {
                tracing::warn!(dio = %core.name, rows, error, left_out, "rows of the source cannot be decoded; their known values are kept");
            }
        }
        let mut freshness = core.sync.last_list.lock();
        freshness.list_time = started.elapsed();
        freshness.undecodable = rows;
    }
    rows.stamped(Stamp { mark: guard.mark, complete, _guard: Arc::new(guard) })
}

#[async_trait]
impl TableShell for StampingShell {
    fn schema(&self) -> Arc<Schema> {
        self.inner.schema()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        list_stamped(&self.core()?, query).await
    }

    async fn list_changed(&self, fingerprint: &str) -> Result<Option<Rows>> {
        list_changed_stamped(&self.core()?, fingerprint.into()).await
    }

    async fn list_since(&self, since: &str) -> Result<Option<Rows>> {
        list_since_stamped(&self.core()?, since.into()).await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        self.core()?.read_one(id).await
    }

    fn reads_one(&self) -> bool {
        self.inner.reads_one()
    }

    fn inferred(&self) -> Vec<Inferred> {
        self.inner.inferred()
    }

    fn withheld(&self) -> Option<String> {
        self.inner.withheld()
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }

    fn is_replaced(&self) -> bool {
        self.inner.is_replaced()
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.core()?.count_master(query).await
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        self.core()?.next_of_master(query, token).await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.inner.write(op).await
    }

    async fn write_within(&self, op: &WriteOp, within: &Query) -> Result<Written> {
        self.inner.write_within(op, within).await
    }

    async fn insert_return_id_within(&self, record: &Record, within: &Query) -> Result<Written> {
        self.inner.insert_return_id_within(record, within).await
    }

    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        self.inner.write_once(operation, op).await
    }

    fn writes_once(&self) -> bool {
        self.inner.writes_once()
    }

    fn batch_size(&self) -> usize {
        self.inner.batch_size()
    }

    async fn write_batch(&self, writes: &[(String, WriteOp)]) -> Vec<Result<Written>> {
        self.inner.write_batch(writes).await
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.inner.insert_return_id(record).await
    }

    fn reference(&self, relation: &str, row: &Record) -> Result<Vista> {
        self.inner.reference(relation, row)
    }
}
