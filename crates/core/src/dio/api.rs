//! Methods of `Dio`: reading, writing, changes of the source, closing.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::read::facade::{self, Facade};
use super::scope::scope_of;
use super::sync::{master, report};
use super::{
    Counters, Dio, DioCache, DroppedColumn, EventReceiver, FeedMeter, Inbound, Mismatch, OpId, Operation,
    OperationQuery, Position, Reconciled, RefreshReport, Ring, Ticket, Workers, WriteOptions,
};
use crate::record::{Body, Id, Record, Rows};
use crate::state::{Command, State, check_size};
use crate::vista::{Result, Schema, Shape, UnknownColumns, Vista, WriteOp};

impl Dio {
    // --- reading -------------------------------------------------------------------------------------------------------

    /// Name of the Dio, which is the Vista's.
    pub fn name(&self) -> &str {
        &self.0.core.name
    }

    /// Schema of the rows: the master's, with every column sortable and searchable.
    pub fn schema(&self) -> Arc<Schema> {
        facade::lifted_schema(&self.0.core)
    }

    /// The cached rows as a simple store.
    pub fn cache(&self) -> DioCache {
        DioCache { core: Arc::clone(&self.0.core) }
    }

    /// The source itself. Its lists carry the mark of their reading, by which the cache compares them with later changes.
    pub fn master(&self) -> Vista {
        let core = &self.0.core;
        let shell = master::StampingShell { core: Arc::downgrade(core), inner: Arc::clone(core.vista.shell()) };
        Vista::new(Arc::clone(&core.name), shell)
    }

    /// A Vista backed by this Dio: reads go through the cache, writes through the queue.
    ///
    /// The Vistas of two calls are narrowed independently of each other.
    pub fn vista(&self) -> Vista {
        let schema = self.schema();
        Vista::new(Arc::clone(&self.0.core.name), Facade { handle: Arc::clone(&self.0), schema })
    }

    /// Threads that run the queries over many rows.
    pub fn workers(&self) -> &Workers {
        &self.0.core.settings.workers
    }

    /// Snapshot of the rows and operations that readers see now.
    #[doc(hidden)]
    pub fn state(&self) -> Arc<State> {
        self.0.core.state()
    }

    /// Position of the current state in the Dio's history.
    pub fn position(&self) -> Position {
        self.0.core.position()
    }

    /// The newest events, for readers that keep a cursor of their own.
    #[doc(hidden)]
    pub fn ring(&self) -> &Arc<Ring> {
        &self.0.core.ring
    }

    /// Receives every event that is published after this call.
    pub fn subscribe_events(&self) -> EventReceiver {
        EventReceiver::new(Arc::clone(&self.0.core.ring))
    }

    /// Returns true once `on_start` has made the first copy, so that reads can be answered.
    ///
    /// Until then reads and writes of the facade fail with [`Error::NotReady`](crate::Error::NotReady), and sceneries are
    /// loading.
    pub fn is_ready(&self) -> bool {
        !self.0.core.is_loading()
    }

    /// Waits without a limit until there is a first copy of the master.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) if the Dio is closed before there is one.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn ready(&self) -> Result<()> {
        let mut published = self.0.core.published.subscribe();
        loop {
            published.borrow_and_update();
            if self.is_ready() {
                return Ok(());
            }
            tokio::select! {
                changed = published.changed() => changed.map_err(|_| crate::Error::Closed)?,
                () = self.0.core.tasks.closing().cancelled() => return Err(crate::Error::Closed),
            }
        }
    }

    /// Columns in which rows of the source have had values of another type since the Dio was opened.
    ///
    /// Such rows are kept as they are: filters on these columns may miss them.
    pub fn mismatches(&self) -> Vec<Mismatch> {
        self.0.core.sync.mismatches.list()
    }

    /// Undeclared columns of upstream events that were dropped since the Dio was opened, at most 100.
    pub fn dropped_columns(&self) -> Vec<DroppedColumn> {
        self.0.core.sync.mismatches.dropped()
    }

    /// Number of rows in doubt, which will be read from the master again.
    pub fn rows_in_doubt(&self) -> usize {
        self.0.core.state().dirty_count()
    }

    /// Policy for columns that the schema does not declare.
    pub fn unknown_columns(&self) -> UnknownColumns {
        self.0.core.settings.unknown_columns
    }

    /// Counters since the Dio was opened.
    pub fn counters(&self) -> Counters {
        self.0.core.counters.read(self.0.core.ring.end())
    }

    // --- writing -------------------------------------------------------------------------------------------------------

    /// Accepts a write: on return it is in the journal and every reader sees it.
    ///
    /// It is delivered to the master afterwards.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if neither the master nor `on_write` supports such writes,
    /// [`Error::Conflict`](crate::Error::Conflict), [`Error::NotFound`](crate::Error::NotFound),
    /// [`Error::Precondition`](crate::Error::Precondition), [`Error::Invalid`](crate::Error::Invalid),
    /// [`Error::Replayed`](crate::Error::Replayed), [`Error::QueueFull`](crate::Error::QueueFull) and
    /// [`Error::Storage`](crate::Error::Storage).
    ///
    /// # Cancel safety
    /// A write whose future is dropped may or may not be accepted.
    pub async fn write(&self, op: WriteOp, options: WriteOptions) -> Result<Ticket> {
        let caps = facade::capabilities(&self.0.core);
        let (can, what) = match &op {
            WriteOp::Insert { .. } => (caps.can_insert, "insert"),
            WriteOp::Replace { .. } | WriteOp::Patch { .. } => (caps.can_update, "update"),
            WriteOp::Delete { .. } => (caps.can_delete, "delete"),
            WriteOp::DeleteAll => (caps.can_delete_all, "delete everything in one operation"),
        };
        if !can {
            return Err(crate::Error::Unsupported { vista: Arc::clone(&self.0.core.name), what });
        }
        self.0.core.submit(op, options).await
    }

    /// Number of operations that the write queue can accept at present.
    pub fn free_places(&self) -> usize {
        self.0.core.free_places()
    }

    /// Waits until an operation is settled, at most `patience`, and returns its state then.
    ///
    /// `None` if the operation is not known.
    pub async fn settled(&self, op: OpId, patience: Duration) -> Option<Operation> {
        self.0.core.settled(op, patience).await
    }

    /// State of a write. `None` if it is not known, or no longer remembered.
    pub fn operation(&self, op: OpId) -> Option<Operation> {
        self.0.core.operation(op)
    }

    /// All operations that are open, parked or remembered, newest first.
    pub fn operations(&self) -> Vec<Operation> {
        self.0.core.operations()
    }

    /// Operations that match `query`, newest first, and the number of matches without regard to its `after` and `limit`.
    pub fn operations_by(&self, query: &OperationQuery) -> (Vec<Operation>, usize) {
        self.0.core.operations_by(query)
    }

    /// Retries a parked operation, as a new operation at the end of the queue.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); [`Error::Conflict`](crate::Error::Conflict) if the operation is not
    /// parked or if the present state of its row does not allow the write.
    pub async fn retry(&self, op: OpId) -> Result<OpId> {
        self.0.core.retry(op).await
    }

    /// Discards a parked operation permanently.
    ///
    /// # Errors
    /// As [`Dio::retry`].
    pub async fn discard(&self, op: OpId) -> Result<()> {
        self.0.core.discard(op).await
    }

    /// Id of the operation that the running `on_write` delivers. Pass it to the other side as idempotency key.
    pub fn current_operation(&self) -> Option<OpId> {
        scope_of(self.name()).and_then(|scope| scope.op)
    }

    /// The whole row after the write that the running `on_write` delivers, for destinations that take rows instead of patches.
    ///
    /// It is the master's row with all pending writes up to this one applied. `None` outside of `on_write`, and if the
    /// row is deleted.
    pub fn written_row(&self) -> Option<Record> {
        self.0.core.state().row_after(self.current_operation()?)?.decode().ok()
    }

    // --- changes of the source -----------------------------------------------------------------------------------------

    /// Puts a row from an external system into the cache, then publishes `RecordChanged`.
    ///
    /// In a callback that replaces all rows (see [`DioCache`]) it becomes one of the new rows.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a row that does not match the schema,
    /// [`Error::Storage`](crate::Error::Storage),
    /// [`Error::Closed`](crate::Error::Closed).
    pub async fn patched(&self, id: impl Into<String>, record: Record) -> Result<()> {
        let core = &self.0.core;
        let id = id.into();
        let record = core.checked_row(&id, Cow::Owned(record), Shape::Whole)?;
        let body = Body::encode(&id, &record, core.vista.schema().layout());
        check_size(&id, &body)?;
        if core.gather_row(&id, Some(&body)) {
            return Ok(());
        }
        core.commit(Command::Statement { rows: vec![(Id::from(id), Some(body))], notify: true }).await.map(drop)
    }

    /// Publishes `RecordChanged` without changing the cache.
    ///
    /// Each call publishes one event, in the order of the calls and after the caller's earlier writes. Never waits and
    /// never fails. When more than 10,000 calls wait to be published, one `Invalidated` replaces them.
    pub fn invalidate_record(&self, id: impl Into<String>) {
        self.0.core.invalidate(Some(Id::from(id.into())));
    }

    /// Publishes `Invalidated`, so that subscribers read everything again.
    ///
    /// It behaves as [`Dio::invalidate_record`]. Subscribers that receive several at a time read once.
    pub fn invalidate_all(&self) {
        self.0.core.invalidate(None);
    }

    /// Applies a change that happened at the master: through `on_event` if there is one, else by the built-in rules.
    ///
    /// # Errors
    /// The error of `on_event`; [`Error::Invalid`](crate::Error::Invalid) for a row that does not match the schema (the
    /// row is then read from the master); [`Error::Storage`](crate::Error::Storage).
    pub async fn handle_event(&self, event: impl Into<Inbound>) -> Result<Reconciled> {
        self.0.core.ingest(&self.0, event.into()).await
    }

    /// Refreshes now, or joins the refresh under way: runs `on_refresh` if there is one, then publishes `Invalidated`. A refresh of the
    /// timer that asks the master for changes only is waited for and not joined.
    ///
    /// If `on_start` has failed, the refresh runs `on_start` again instead.
    ///
    /// # Errors
    /// The error of `on_refresh` (only `RefreshFailed` is published then);
    /// [`Error::Reentrant`](crate::Error::Reentrant) inside `on_refresh` itself.
    pub async fn refresh(&self) -> Result<RefreshReport> {
        self.0.core.refresh(&self.0).await
    }

    /// Refreshes with a read of the source that begins after this call. A refresh under way is waited for and not joined,
    /// because it may have begun too early.
    ///
    /// # Errors
    /// As [`Dio::refresh`].
    pub async fn refresh_from_now(&self) -> Result<RefreshReport> {
        self.0.core.refresh_anew(&self.0).await
    }

    /// Adds a feed to the Dio's [`Status`](super::Status).
    pub fn add_feed(&self, meter: Arc<FeedMeter>) {
        self.0.core.sync.feeds.lock().push(meter);
        self.0.core.sync.feed_added.notify_waiters();
    }

    /// Runs `feed` in the background until the Dio begins to close. Closing waits for its end.
    pub fn listen(&self, feed: impl Future<Output = ()> + Send + 'static) {
        let closing = self.0.core.tasks.closing().clone();
        let _runtime = self.0.runtime.enter();
        drop(self.0.core.tasks.spawn(async move {
            tokio::select! {
                () = feed => {}
                () = closing.cancelled() => {}
            }
        }));
    }

    /// Refreshes once without the shrink guard, for a master that really lost most of its rows.
    ///
    /// A refresh under way is waited for first.
    ///
    /// # Errors
    /// As [`Dio::refresh`].
    pub async fn refresh_allowing_shrink(&self) -> Result<RefreshReport> {
        self.0.core.refresh_allowing_shrink(&self.0).await
    }

    /// Makes the cache equal to a list of `dio.master()`: differences are applied and published one by one, and rows
    /// missing from a complete list are removed.
    ///
    /// Rows that writes or events changed since the list was read are kept and read again. Rows that the program made are
    /// added and changed, but none is removed: use [`Dio::reconcile_whole`] for that. In a callback that replaces all rows
    /// (see [`DioCache`]) the differences are counted in the report of the refresh and not in this one.
    ///
    /// # Errors
    /// [`Error::Suspicious`](crate::Error::Suspicious) for a list that shrank by more than half.
    pub async fn reconcile(&self, rows: Rows) -> Result<RefreshReport> {
        let core = &self.0.core;
        match core.gathering() {
            Some(scope) => core.gather(&scope, rows, true).await.map(|()| RefreshReport::default()),
            None => core.apply_list(rows, true, true).await.map(|outcome| report::report(&outcome)),
        }
    }

    // --- closing -------------------------------------------------------------------------------------------------------

    /// Closes the Dio: stops accepting writes, delivers the queue (at most for `drain_timeout`), stores everything and
    /// ends the tasks.
    ///
    /// Writes that are not delivered by then stay in the journal.
    pub async fn close(&self) {
        Arc::clone(&self.0.core).finish().await;
    }
}
