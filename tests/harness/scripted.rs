//! A master that does what the test says: counts, waits, fails, remembers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use diorama::connect::MemoryTable;
use diorama::vista::{Capabilities, ErrorKind, Token};
use diorama::{Error, Query, Record, Result, Rows, Schema, TableShell, Vista, WriteOp, Written};
use tokio::sync::watch;

use super::{bakery, schema, soon};

/// A table in memory with a remote control: clones are the same table.
#[derive(Clone)]
pub struct Scripted(Arc<Script>);

struct Script {
    table: MemoryTable,
    capabilities: Mutex<Capabilities>,
    reads_one: AtomicBool,
    calls: Mutex<Calls>,
    arrived: Mutex<Vec<WriteOp>>,
    applied: Mutex<Vec<WriteOp>>,
    reads: Gate,
    writes: Gate,
    latency: Mutex<Duration>,
    failing_reads: Mutex<VecDeque<Error>>,
    failing_writes: Mutex<VecDeque<Error>>,
    refused: Mutex<HashMap<String, Error>>,
    limit: Mutex<Option<Limit>>,
    outage: Mutex<Option<Error>>,
    garbled: Mutex<Vec<String>>,
    lost_answers: AtomicUsize,
    writing: AtomicUsize,
    most_writing: AtomicUsize,
}

/// How often each method was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub list: usize,
    pub get: usize,
    pub count: usize,
    pub next: usize,
    pub write: usize,
    pub insert_return_id: usize,
}

impl Calls {
    /// All of them.
    pub fn total(&self) -> usize {
        self.list + self.get + self.count + self.next + self.write + self.insert_return_id
    }
}

impl Scripted {
    /// A master of `rows` that can do everything.
    pub fn new(schema: Schema, rows: impl IntoIterator<Item = (String, Record)>) -> Scripted {
        Scripted(Arc::new(Script {
            table: MemoryTable::new(schema, rows),
            capabilities: Mutex::new(Capabilities::all()),
            reads_one: AtomicBool::new(true),
            calls: Mutex::default(),
            arrived: Mutex::default(),
            applied: Mutex::default(),
            reads: Gate::default(),
            writes: Gate::default(),
            latency: Mutex::default(),
            failing_reads: Mutex::default(),
            failing_writes: Mutex::default(),
            refused: Mutex::default(),
            outage: Mutex::default(),
            limit: Mutex::default(),
            garbled: Mutex::default(),
            lost_answers: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
            most_writing: AtomicUsize::new(0),
        }))
    }

    /// The bakery.
    pub fn bakery() -> Scripted {
        Scripted::new(schema(), bakery())
    }

    /// Nothing in it.
    pub fn empty() -> Scripted {
        Scripted::new(schema(), [])
    }

    /// The same, advertising only these.
    pub fn able(self, capabilities: Capabilities) -> Scripted {
        *self.0.capabilities.lock().unwrap() = capabilities;
        self
    }

    /// The same, as a CSV file is: it can be filtered and listed, no more, and a single row costs a list.
    pub fn like_csv(self) -> Scripted {
        self.0.reads_one.store(false, Ordering::SeqCst);
        let mut csv = Capabilities::default();
        csv.can_filter = true;
        self.able(csv)
    }

    /// A handle on it.
    pub fn vista(&self, name: &str) -> Vista {
        Vista::new(name, self.clone())
    }

    // --- what it does ------------------------------------------------------------------------------------------------

    /// The gate that every read passes.
    pub fn reads(&self) -> &Gate {
        &self.0.reads
    }

    /// The gate that every write passes.
    pub fn writes(&self) -> &Gate {
        &self.0.writes
    }

    /// Every call takes so long (on tokio's clock).
    pub fn slow(&self, latency: Duration) {
        *self.0.latency.lock().unwrap() = latency;
    }

    /// The next `times` reads fail.
    pub fn fail_reads(&self, times: usize, error: &Error) {
        self.0.failing_reads.lock().unwrap().extend(std::iter::repeat_n(error.clone(), times));
    }

    /// The next `times` writes fail without effect.
    pub fn fail_writes(&self, times: usize, error: &Error) {
        self.0.failing_writes.lock().unwrap().extend(std::iter::repeat_n(error.clone(), times));
    }

    /// Everything fails so from now on, without effect; `None` ends that.
    pub fn outage(&self, error: Option<Error>) {
        *self.0.outage.lock().unwrap() = error;
    }

    /// Takes one call of `of` from now on and answers the others with "too many": come back in `rest`.
    pub fn limit(&self, of: usize, rest: Duration) {
        *self.0.limit.lock().unwrap() = Some(Limit { of, rest, asked: 0 });
    }

    /// Calls since then.
    pub fn asked(&self) -> usize {
        self.0.limit.lock().unwrap().as_ref().map_or(0, |limit| limit.asked)
    }

    /// Lists cannot decode these rows from now on.
    pub fn garble(&self, ids: &[&str]) {
        *self.0.garbled.lock().unwrap() = ids.iter().map(ToString::to_string).collect();
    }

    /// Every write of row `id` fails from now on.
    pub fn refuse(&self, id: &str, error: Error) {
        self.0.refused.lock().unwrap().insert(id.into(), error);
    }

    /// Takes that back.
    pub fn relent(&self, id: &str) {
        self.0.refused.lock().unwrap().remove(id);
    }

    /// The next `times` writes are carried out and answered with "no answer".
    pub fn lose_answers(&self, times: usize) {
        self.0.lost_answers.store(times, Ordering::SeqCst);
    }

    /// Somebody else puts a row; nobody is told and nothing is counted.
    pub async fn put(&self, id: &str, record: Record) {
        self.0.table.write(&WriteOp::Replace { id: id.into(), record }).await.unwrap();
    }

    /// Somebody else takes a row away.
    pub async fn take(&self, id: &str) {
        self.0.table.write(&WriteOp::Delete { id: id.into() }).await.unwrap();
    }

    // --- what it saw ---------------------------------------------------------------------------------------------------

    /// Calls so far.
    pub fn calls(&self) -> Calls {
        *self.0.calls.lock().unwrap()
    }

    /// Writes as they arrived, failed ones included.
    pub fn arrived(&self) -> Vec<WriteOp> {
        self.0.arrived.lock().unwrap().clone()
    }

    /// Writes that took effect.
    pub fn applied(&self) -> Vec<WriteOp> {
        self.0.applied.lock().unwrap().clone()
    }

    /// Most writes that were under way at one time.
    pub fn most_writing(&self) -> usize {
        self.0.most_writing.load(Ordering::SeqCst)
    }

    /// Its rows, uncounted.
    pub async fn rows(&self) -> Rows {
        self.0.table.list(&Query::default()).await.unwrap()
    }

    /// One row, uncounted.
    pub async fn row(&self, id: &str) -> Option<Record> {
        self.0.table.get(id).await.unwrap()
    }

    /// How many hold it: tests look for leaks.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    async fn read(&self, count: impl FnOnce(&mut Calls)) -> Result<()> {
        count(&mut self.0.calls.lock().unwrap());
        self.0.reads.pass().await;
        self.take_time().await;
        self.away()?;
        self.0.failing_reads.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn away(&self) -> Result<()> {
        if let Some(limit) = self.0.limit.lock().unwrap().as_mut() {
            limit.asked += 1;
            if !limit.asked.is_multiple_of(limit.of) {
                let (message, retry_after) = ("too many requests".to_string(), Some(limit.rest));
                return Err(Error::Source { message, kind: ErrorKind::Transient, retry_after, cause: None });
            }
        }
        self.0.outage.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn take_time(&self) {
        let latency = *self.0.latency.lock().unwrap();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
    }

    async fn before_write(&self, id: Option<&str>) -> Result<()> {
        self.0.writes.pass().await;
        self.take_time().await;
        self.away()?;
        if let Some(error) = self.0.failing_writes.lock().unwrap().pop_front() {
            return Err(error);
        }
        let refused = self.0.refused.lock().unwrap();
        id.and_then(|id| refused.get(id)).map_or(Ok(()), |error| Err(error.clone()))
    }

    fn answer(&self, written: Written) -> Result<Written> {
        let lost = self.0.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if lost.is_ok() { Err(Error::unknown("the line went dead")) } else { Ok(written) }
    }

    fn begin_write(&self) -> Writing<'_> {
        let now = self.0.writing.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_writing.fetch_max(now, Ordering::SeqCst);
        Writing(&self.0)
    }
}

/// How much is too much.
struct Limit {
    of: usize,
    rest: Duration,
    asked: usize,
}

/// A write under way.
struct Writing<'a>(&'a Script);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writing.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl TableShell for Scripted {
    fn schema(&self) -> Arc<Schema> {
        self.0.table.schema()
    }

    fn capabilities(&self) -> Capabilities {
        *self.0.capabilities.lock().unwrap()
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        self.read(|calls| calls.list += 1).await?;
        let rows = self.0.table.list(query).await?;
        let garbled = self.0.garbled.lock().unwrap().clone();
        if garbled.is_empty() {
            return Ok(rows);
        }
        let (bad, good): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(id, _)| garbled.contains(id));
        let mut rows = Rows::with_layout(Arc::clone(self.schema().layout()));
        for (id, record) in good {
            rows.push(id, &record);
        }
        bad.into_iter().for_each(|(id, _)| rows.skip(format!("row {id} is no row")));
        Ok(rows)
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        self.read(|calls| calls.get += 1).await?;
        self.0.table.get(id).await
    }

    fn reads_one(&self) -> bool {
        self.0.reads_one.load(Ordering::SeqCst)
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.read(|calls| calls.count += 1).await?;
        self.0.table.count(query).await
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        self.read(|calls| calls.next += 1).await?;
        self.0.table.next(query, token).await
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        let _writing = self.begin_write();
        self.0.calls.lock().unwrap().write += 1;
        self.0.arrived.lock().unwrap().push(op.clone());
        self.before_write(op.id()).await?;
        let written = self.0.table.write(op).await?;
        self.0.applied.lock().unwrap().push(op.clone());
        self.answer(written)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        let _writing = self.begin_write();
        self.0.calls.lock().unwrap().insert_return_id += 1;
        self.before_write(None).await?;
        self.0.table.insert_return_id(record).await
    }
}

/// Something that can be held, and tells when somebody waits at it. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    closed: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Gate { closed: watch::Sender::new(false), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    /// A gate that is closed.
    pub fn closed() -> Gate {
        let gate = Gate::default();
        gate.close();
        gate
    }

    /// Holds whoever comes.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Lets everybody through.
    pub fn open(&self) {
        self.closed.send_replace(false);
    }

    /// Goes through, or waits until that is possible.
    pub async fn pass(&self) {
        if !*self.closed.borrow() {
            return;
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(self);
        let _ = self.closed.subscribe().wait_for(|closed| !closed).await;
    }

    /// Waits until `many` wait here.
    pub async fn waited_at(&self, many: usize) {
        let mut waiting = self.waiting.subscribe();
        soon(waiting.wait_for(|waiting| *waiting >= many)).await.unwrap();
    }

    /// How many wait here.
    pub fn waiting(&self) -> usize {
        *self.waiting.borrow()
    }
}

/// Counts somebody out again, also when its future is dropped.
struct Waiting<'a>(&'a Gate);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}
