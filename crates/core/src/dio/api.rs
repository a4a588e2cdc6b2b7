//! Methods of `Dio`: reading, writing, news of the source, ending.

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

    /// Its name: the Vista's.
    pub fn name(&self) -> &str {
        &self.0.core.name
    }

    /// The shape of its rows: the master's, with every column sortable and searchable.
    pub fn schema(&self) -> Arc<Schema> {
        facade::lifted_schema(&self.0.core)
    }

    /// The rows as a simple store.
    pub fn cache(&self) -> DioCache {
        DioCache { core: Arc::clone(&self.0.core) }
    }

    /// The source itself. What it lists carries the mark of its reading, so that the cache can judge it.
    pub fn master(&self) -> Vista {
        let core = &self.0.core;
        let shell = master::StampingShell { core: Arc::downgrade(core), inner: Arc::clone(core.vista.shell()) };
        Vista::new(Arc::clone(&core.name), shell)
    }

    /// A Vista backed by this Dio: reads go through the cache, writes through the queue. Each call gives an independent
    /// narrowing.
    pub fn vista(&self) -> Vista {
        let schema = self.schema();
        Vista::new(Arc::clone(&self.0.core.name), Facade { handle: Arc::clone(&self.0), schema })
    }

    /// The threads that its queries over many rows run on.
    pub fn workers(&self) -> &Workers {
        &self.0.core.settings.workers
    }

    /// What readers see now, as one consistent whole.
    #[doc(hidden)]
    pub fn state(&self) -> Arc<State> {
        self.0.core.state()
    }

    /// Where that is in the Dio's history.
    pub fn position(&self) -> Position {
        self.0.core.position()
    }

    /// The newest events, for readers with a position of their own.
    #[doc(hidden)]
    pub fn ring(&self) -> &Arc<Ring> {
        &self.0.core.ring
    }

    /// Receives every event from now on.
    pub fn subscribe_events(&self) -> EventReceiver {
        EventReceiver::new(Arc::clone(&self.0.core.ring))
    }

    /// Whether reads can be answered: not before `on_start` has made the first copy. Until then reads and writes of the facade
    /// are refused with [`Error::NotReady`](crate::Error::NotReady), and sceneries are loading.
    pub fn is_ready(&self) -> bool {
        !self.0.core.is_loading()
    }

    /// Waits until there is a first copy of the master, however long that takes.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed) if the Dio is closed before.
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

    /// Columns in which rows of the source hold something else than their type says, since it was opened. Such rows are kept as
    /// they are: filters on these columns may miss them.
    pub fn mismatches(&self) -> Vec<Mismatch> {
        self.0.core.sync.mismatches.list()
    }

    /// Columns that upstream events brought and that were left out of their rows, since it was opened. At most 100 are named.
    pub fn dropped_columns(&self) -> Vec<DroppedColumn> {
        self.0.core.sync.mismatches.dropped()
    }

    /// Policy for columns that the schema does not declare.
    pub fn unknown_columns(&self) -> UnknownColumns {
        self.0.core.settings.unknown_columns
    }

    /// What it has counted since it was opened.
    pub fn counters(&self) -> Counters {
        self.0.core.tally.read(self.0.core.ring.end())
    }

    // --- writing -------------------------------------------------------------------------------------------------------

    /// Accepts a write: on return it is in the journal and every reader sees it. The master gets it afterwards.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if neither master nor `on_write` takes such writes,
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

    /// How many more operations the write queue has places for at present.
    pub fn free_places(&self) -> usize {
        self.0.core.free_places()
    }

    /// Waits until an operation is settled, at most `patience`; gives how it stands then, `None` if it is not known.
    pub async fn settled(&self, op: OpId, patience: Duration) -> Option<Operation> {
        self.0.core.settled(op, patience).await
    }

    /// Where a write stands, `None` if it is not known (any more).
    pub fn operation(&self, op: OpId) -> Option<Operation> {
        self.0.core.operation(op)
    }

    /// All writes that are open, parked or remembered, newest first.
    pub fn operations(&self) -> Vec<Operation> {
        self.0.core.operations()
    }

    /// The writes that `asked` fits, newest first, and how many fit it whatever its `after` and `limit` say.
    pub fn operations_by(&self, asked: &OperationQuery) -> (Vec<Operation>, usize) {
        self.0.core.operations_by(asked)
    }

    /// Gives a parked operation another try: a new operation at the end of the queue.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound), [`Error::Conflict`](crate::Error::Conflict) if it is not parked or if its row
    /// is not such that it could be written again.
    pub async fn retry(&self, op: OpId) -> Result<OpId> {
        self.0.core.retry(op).await
    }

    /// Gives a parked operation up for good.
    ///
    /// # Errors
    /// As [`Dio::retry`].
    pub async fn discard(&self, op: OpId) -> Result<()> {
        self.0.core.discard(op).await
    }

    /// The operation that the running `on_write` delivers: hand it to the other side as idempotency key.
    pub fn current_operation(&self) -> Option<OpId> {
        scope_of(self.name()).and_then(|scope| scope.op)
    }

    /// The whole row as the write that the running `on_write` delivers leaves it, for destinations that want rows and no
    /// patches: the master's row with the writes up to this one laid over it. `None` outside of `on_write`, and where the row is
    /// gone.
    pub fn written_row(&self) -> Option<Record> {
        self.0.core.state().row_after(self.current_operation()?)?.decode().ok()
    }

    // --- what others say -----------------------------------------------------------------------------------------------

    /// Puts a row that an external system told about into the cache and publishes `RecordChanged`, in this order. In a hook that
    /// replaces all rows (see [`DioCache`]) it is one of the new ones.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a row that is not as the schema says, [`Error::Storage`](crate::Error::Storage),
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
        core.commit(Command::Statement { rows: vec![(Id::from(id), Some(body))], told: true }).await.map(drop)
    }

    /// Publishes `RecordChanged` without touching the cache: one event for each call, in the order of the calls and after what the
    /// caller has written before. Never waits, never fails. Where 10,000 calls wait to be told, one `Invalidated` takes their place.
    pub fn invalidate_record(&self, id: impl Into<String>) {
        self.0.core.invalidate(Some(Id::from(id.into())));
    }

    /// Publishes `Invalidated`: subscribers read everything again. As [`Dio::invalidate_record`], and subscribers that are told of
    /// several at a time read once.
    pub fn invalidate_all(&self) {
        self.0.core.invalidate(None);
    }

    /// Takes in a change that happened at the master: through `on_event` if there is one, else by the built-in rules.
    ///
    /// # Errors
    /// What `on_event` says; [`Error::Invalid`](crate::Error::Invalid) for a row that is not as the schema says (it is read from the
    /// master then), [`Error::Storage`](crate::Error::Storage).
    pub async fn handle_event(&self, event: impl Into<Inbound>) -> Result<Reconciled> {
        self.0.core.ingest(&self.0, event.into()).await
    }

    /// Refreshes now, or joins the refresh under way: `on_refresh` if there is one, then `Invalidated`. After an `on_start` that
    /// failed it is another attempt at that.
    ///
    /// # Errors
    /// What `on_refresh` says (then nothing is published but `RefreshFailed`);
    /// [`Error::Reentrant`](crate::Error::Reentrant) inside `on_refresh` itself.
    pub async fn refresh(&self) -> Result<RefreshReport> {
        self.0.core.refresh(&self.0).await
    }

    /// Refreshes with a reading that begins now: one that is under way may have begun too early.
    ///
    /// # Errors
    /// As [`Dio::refresh`].
    pub async fn refresh_from_now(&self) -> Result<RefreshReport> {
        self.0.core.refresh_anew(&self.0).await
    }

    /// Shows how a feed is doing.
    pub fn add_feed(&self, meter: Arc<FeedMeter>) {
        self.0.core.sync.feeds.lock().push(meter);
    }

    /// Runs `feed` until the Dio begins to close, which then waits for its end.
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

    /// Refreshes once with the shrink guard off: for a master that really lost most of its rows. A refresh under way is waited
    /// for first.
    ///
    /// # Errors
    /// As [`Dio::refresh`].
    pub async fn refresh_allowing_shrink(&self) -> Result<RefreshReport> {
        self.0.core.refresh_allowing_shrink(&self.0).await
    }

    /// Makes the cache equal to what `dio.master()` listed: differences are applied and published one by one, rows missing
    /// from a complete list are removed. Rows that writes or events touched meanwhile are left and read again.
    ///
    /// Rows that the program made are added and changed, none is removed: for those there is [`Dio::reconcile_whole`]. In a hook
    /// that replaces all rows (see [`DioCache`]) the differences are counted by the refresh and not here.
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

    // --- ending --------------------------------------------------------------------------------------------------------

    /// Stops accepting writes, delivers what is queued (as long as `drain_timeout`), stores everything and ends the tasks.
    /// What is left is in the journal.
    pub async fn close(&self) {
        Arc::clone(&self.0.core).finish().await;
    }
}
