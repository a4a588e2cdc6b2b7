//! The scripted master: counts calls, waits, fails on demand and remembers what it was asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use diorama::connect::MemoryTable;
use diorama::vista::{Capabilities, ErrorKind, Token};
use diorama::{Error, Query, Record, Result, Rows, Schema, TableShell, Vista, WriteOp, Written};
use tokio::sync::oneshot;

use super::{Gate, bakery, schema};

/// A table behind a remote control. Clones are the same table.
///
/// A call is counted, passes its gate, takes its time, may fail as told, and is then carried out. By hand
/// ([`Scripted::by_hand`]) the last step waits for the test: [`Scripted::execute`] carries a call out, [`Scripted::answer`]
/// lets its answer go.
#[derive(Clone)]
pub struct Scripted(Arc<Script>);

struct Script {
    table: Arc<dyn TableShell>,
    capabilities: Mutex<Capabilities>,
    reads_one: AtomicBool,
    /// Maximum number of writes of a batch; with more than one, each operation has one effect.
    batch: AtomicUsize,
    /// Answers writes with their rows.
    tells: AtomicBool,
    /// Column that gets a new number whenever its row changes.
    version_column: Option<&'static str>,
    versions: Mutex<Versions>,
    calls: Mutex<Calls>,
    arrived: Mutex<Vec<WriteOp>>,
    applied: Mutex<Vec<WriteOp>>,
    reads: Gate,
    writes: Gate,
    answers: Gate,
    latency: Mutex<Duration>,
    failing_reads: Mutex<VecDeque<Error>>,
    failing_writes: Mutex<VecDeque<Error>>,
    refused: Mutex<HashMap<String, Error>>,
    refused_writes: Mutex<Option<Error>>,
    limit: Mutex<Option<Limit>>,
    outage: Mutex<Option<Error>>,
    garbled: Mutex<Vec<String>>,
    panics: AtomicBool,
    lost_answers: AtomicUsize,
    writing: AtomicUsize,
    most_writing: AtomicUsize,
    by_hand: AtomicBool,
    waiting: Mutex<Vec<Waiting>>,
}

/// Number of calls of each method.
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

/// Outcome of a write that is carried out by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    /// Refused for good, nothing done.
    Refuse,
    /// Not done, may be tried again.
    Busy,
    /// Done, but the answer is lost.
    Lost,
}

/// A call, as it can be carried out later.
#[derive(Clone, Debug)]
enum Request {
    List(Query),
    Get(String),
    Count(Query),
    Next(Query, Option<Token>),
    Write { operation: Option<String>, op: WriteOp },
    Insert(Record),
}

impl Request {
    fn is_write(&self) -> bool {
        matches!(self, Request::Write { .. } | Request::Insert(_))
    }

    /// Row that a write is about.
    fn id(&self) -> Option<&str> {
        match self {
            Request::Write { op, .. } => op.id(),
            _ => None,
        }
    }
}

enum Reply {
    Rows(Rows),
    Row(Option<Record>),
    Count(u64),
    Page(Rows, Option<Token>),
    Written(Written),
}

/// A call that waits for the test.
struct Waiting {
    request: Request,
    result: Option<Result<Reply>>,
    reply: oneshot::Sender<Result<Reply>>,
}

/// Version counter, and every state that each id has had, without its version.
#[derive(Default)]
struct Versions {
    last: i64,
    history: BTreeMap<String, Vec<Option<Record>>>,
}

impl Scripted {
    /// A master of `rows` that can do everything.
    pub fn new(schema: Schema, rows: impl IntoIterator<Item = (String, Record)>) -> Scripted {
        Scripted::over(Arc::new(MemoryTable::new(schema, rows)))
    }

    /// A master in front of `table`, with its abilities.
    pub fn over(table: Arc<dyn TableShell>) -> Scripted {
        Scripted::build(table, None)
    }

    /// An empty master that writes a new number into `column` whenever a row changes, and keeps the history of each row.
    pub fn versioned(schema: Schema, column: &'static str) -> Scripted {
        Scripted::build(Arc::new(MemoryTable::new(schema, [])), Some(column))
    }

    fn build(table: Arc<dyn TableShell>, version_column: Option<&'static str>) -> Scripted {
        Scripted(Arc::new(Script {
            capabilities: Mutex::new(table.capabilities()),
            reads_one: AtomicBool::new(table.reads_one()),
            batch: AtomicUsize::new(1),
            table,
            tells: AtomicBool::new(true),
            version_column,
            versions: Mutex::default(),
            calls: Mutex::default(),
            arrived: Mutex::default(),
            applied: Mutex::default(),
            reads: Gate::default(),
            writes: Gate::default(),
            answers: Gate::default(),
            latency: Mutex::default(),
            failing_reads: Mutex::default(),
            failing_writes: Mutex::default(),
            refused: Mutex::default(),
            refused_writes: Mutex::default(),
            outage: Mutex::default(),
            limit: Mutex::default(),
            garbled: Mutex::default(),
            panics: AtomicBool::new(false),
            lost_answers: AtomicUsize::new(0),
            writing: AtomicUsize::new(0),
            most_writing: AtomicUsize::new(0),
            by_hand: AtomicBool::new(false),
            waiting: Mutex::default(),
        }))
    }

    /// The bakery.
    pub fn bakery() -> Scripted {
        Scripted::new(schema(), bakery())
    }

    /// A bakery without rows.
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
        let mut csv = Capabilities::default();
        csv.can_filter = true;
        self.reading_one(false).able(csv)
    }

    /// The same, saying that it can be asked for a single row, or cannot.
    pub fn reading_one(self, reads_one: bool) -> Scripted {
        self.0.reads_one.store(reads_one, Ordering::SeqCst);
        self
    }

    /// The same, taking batches of so many writes.
    pub fn batching(self, batch: usize) -> Scripted {
        self.0.batch.store(batch, Ordering::SeqCst);
        self
    }

    /// The same, answering writes with their rows, or without.
    pub fn telling(self, tells: bool) -> Scripted {
        self.0.tells.store(tells, Ordering::SeqCst);
        self
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

    /// The gate that every write passes before it is carried out.
    pub fn writes(&self) -> &Gate {
        &self.0.writes
    }

    /// The gate that every answer to a write passes after it was carried out.
    pub fn answers(&self) -> &Gate {
        &self.0.answers
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

    /// Every write fails so from now on, without effect; reads go on.
    pub fn refuse_writes(&self, error: Error) {
        *self.0.refused_writes.lock().unwrap() = Some(error);
    }

    /// Every write panics from now on.
    pub fn panic(&self) {
        self.0.panics.store(true, Ordering::SeqCst);
    }

    /// The next `times` writes are carried out and answered with "no answer".
    pub fn lose_answers(&self, times: usize) {
        self.0.lost_answers.store(times, Ordering::SeqCst);
    }

    /// Says from now on that it can be asked for a single row.
    pub fn read_rows(&self) {
        self.0.reads_one.store(true, Ordering::SeqCst);
    }

    /// Somebody else puts a row; nobody is told and nothing is counted.
    pub async fn put(&self, id: &str, record: Record) {
        let op = WriteOp::Replace { id: id.into(), record };
        self.carry_out(&Request::Write { operation: None, op }).await.unwrap();
    }

    /// Somebody else takes a row away.
    pub async fn take(&self, id: &str) {
        let op = WriteOp::Delete { id: id.into() };
        self.carry_out(&Request::Write { operation: None, op }).await.unwrap();
    }

    /// Somebody else takes rows away.
    pub async fn lose(&self, ids: impl IntoIterator<Item = String>) {
        for id in ids {
            self.take(&id).await;
        }
    }

    // --- by hand -----------------------------------------------------------------------------------------------------

    /// Makes calls wait for [`Scripted::execute`] and [`Scripted::answer`] from now on, or no longer. The table has to be in memory.
    pub fn by_hand(&self, by_hand: bool) {
        let _waiting = self.0.waiting.lock().unwrap();
        self.0.by_hand.store(by_hand, Ordering::SeqCst);
    }

    /// Calls that wait for the test.
    pub fn waiting(&self) -> usize {
        self.0.waiting.lock().unwrap().len()
    }

    /// True while a list waits for the test.
    pub fn has_list(&self) -> bool {
        self.0.waiting.lock().unwrap().iter().any(|call| matches!(call.request, Request::List(_)))
    }

    /// Carries out the `n`-th waiting call, counted around; its answer waits.
    pub fn execute(&self, n: usize, verdict: Verdict) {
        let mut waiting = self.0.waiting.lock().unwrap();
        let Some(at) = n.checked_rem(waiting.len()) else { return };
        if waiting[at].result.is_none() {
            let result = at_once(self.judge(&waiting[at].request, verdict));
            waiting[at].result = Some(result);
        }
    }

    /// Sends the answer of the `n`-th waiting call, if it was carried out.
    pub fn answer(&self, n: usize) {
        let mut waiting = self.0.waiting.lock().unwrap();
        let Some(at) = n.checked_rem(waiting.len()) else { return };
        if let Some(result) = waiting[at].result.take() {
            let _ = waiting.remove(at).reply.send(result);
        }
    }

    /// Drops the waiting calls, as those of a process that is gone.
    pub fn forget_calls(&self) {
        self.0.waiting.lock().unwrap().clear();
    }

    /// Lets every call through, those that wait and those to come.
    pub fn release(&self) {
        self.by_hand(false);
        while self.waiting() > 0 {
            self.execute(0, Verdict::Accept);
            self.answer(0);
        }
    }

    /// Carries out `op` as a consumer of routed writes does: an insert of a row that exists replaces it.
    pub fn consume(&self, op: &WriteOp) {
        let op = match op.clone() {
            WriteOp::Insert { id, record } => WriteOp::Replace { id, record },
            op => op,
        };
        let _ = at_once(self.carry_out(&Request::Write { operation: None, op }));
    }

    // --- what it saw ---------------------------------------------------------------------------------------------------

    /// Calls so far.
    pub fn calls(&self) -> Calls {
        *self.0.calls.lock().unwrap()
    }

    /// Calls since the last look.
    pub fn take_calls(&self) -> Calls {
        std::mem::take(&mut *self.0.calls.lock().unwrap())
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

    /// The same at once, of a table in memory.
    pub fn rows_now(&self) -> Rows {
        at_once(self.rows())
    }

    /// The same at once, of a table in memory.
    pub fn row_now(&self, id: &str) -> Option<Record> {
        at_once(self.row(id))
    }

    /// Every state that a row of a versioned master has had, without its version, the oldest first.
    pub fn history(&self, id: &str) -> Vec<Option<Record>> {
        self.0.versions.lock().unwrap().history.get(id).cloned().unwrap_or_else(|| vec![None])
    }

    /// Number of its holders: tests look for leaks.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    // --- one call ------------------------------------------------------------------------------------------------------

    async fn call(&self, count: impl FnOnce(&mut Calls), request: Request) -> Result<Reply> {
        count(&mut self.0.calls.lock().unwrap());
        let _writing = request.is_write().then(|| self.begin_write());
        if let Request::Write { op, .. } = &request {
            self.0.arrived.lock().unwrap().push(op.clone());
        }
        assert!(!(request.is_write() && self.0.panics.load(Ordering::SeqCst)), "the master was told to panic");
        if request.is_write() {
            self.0.writes.pass().await
        } else {
            self.0.reads.pass().await
        }
        self.take_time().await;
        self.away()?;
        self.fail(&request)?;
        if let Some(answer) = self.wait_for_hand(&request) {
            return answer.await.unwrap_or_else(|_| Err(Error::unknown("the connection broke")));
        }
        let reply = self.judge(&request, Verdict::Accept).await?;
        if request.is_write() {
            self.0.answers.pass().await;
        }
        let losing = |left: usize| left.checked_sub(1);
        let lost = matches!(request, Request::Write { .. })
            && self.0.lost_answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, losing).is_ok();
        if lost { Err(Error::unknown("the line went dead")) } else { Ok(reply) }
    }

    /// Puts a call among the waiting ones, if it is to be carried out by hand.
    fn wait_for_hand(&self, request: &Request) -> Option<oneshot::Receiver<Result<Reply>>> {
        let mut waiting = self.0.waiting.lock().unwrap();
        if !self.0.by_hand.load(Ordering::SeqCst) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        waiting.push(Waiting { request: request.clone(), result: None, reply });
        Some(answer)
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

    fn fail(&self, request: &Request) -> Result<()> {
        let failing = if request.is_write() { &self.0.failing_writes } else { &self.0.failing_reads };
        if let Some(error) = failing.lock().unwrap().pop_front() {
            return Err(error);
        }
        if !request.is_write() {
            return Ok(());
        }
        if let Some(error) = self.0.refused_writes.lock().unwrap().clone() {
            return Err(error);
        }
        let refused = self.0.refused.lock().unwrap();
        request.id().and_then(|id| refused.get(id)).map_or(Ok(()), |error| Err(error.clone()))
    }

    async fn judge(&self, request: &Request, verdict: Verdict) -> Result<Reply> {
        match verdict {
            Verdict::Refuse if request.is_write() => return Err(Error::permanent("refused")),
            Verdict::Busy if request.is_write() => return Err(Error::transient("busy")),
            _ => {}
        }
        let reply = self.carry_out(request).await?;
        if let Request::Write { op, .. } = request {
            self.0.applied.lock().unwrap().push(op.clone());
        }
        if verdict == Verdict::Lost && request.is_write() {
            return Err(Error::unknown("the line went dead"));
        }
        Ok(reply)
    }

    async fn carry_out(&self, request: &Request) -> Result<Reply> {
        let table = &self.0.table;
        Ok(match request {
            Request::List(query) => Reply::Rows(self.without_garbled(table.list(query).await?)),
            Request::Get(id) => Reply::Row(table.get(id).await?),
            Request::Count(query) => Reply::Count(table.count(query).await?),
            Request::Next(query, token) => {
                let (rows, token) = table.next(query, token.as_ref()).await?;
                Reply::Page(rows, token)
            }
            Request::Write { operation, op } => {
                let mut written = match (operation, self.0.version_column) {
                    (Some(operation), _) => table.write_once(operation, op).await?,
                    (None, Some(column)) => self.write_version(op, column).await?,
                    (None, None) => table.write(op).await?,
                };
                if !self.0.tells.load(Ordering::SeqCst) {
                    written.record = None;
                }
                Reply::Written(written)
            }
            Request::Insert(record) => Reply::Written(table.insert_return_id(record).await?),
        })
    }

    fn without_garbled(&self, rows: Rows) -> Rows {
        let garbled = self.0.garbled.lock().unwrap().clone();
        if garbled.is_empty() {
            return rows;
        }
        let (bad, good): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(id, _)| garbled.contains(id));
        let mut rows = Rows::with_layout(Arc::clone(self.schema().layout()));
        for (id, record) in good {
            rows.push(id, &record);
        }
        bad.into_iter().for_each(|(id, _)| rows.skip(format!("row {id} is no row")));
        rows
    }

    /// Carries out a write, and gives its row the next version if it changed and the one it had if it did not.
    async fn write_version(&self, op: &WriteOp, column: &str) -> Result<Written> {
        let table = &self.0.table;
        let Some(id) = op.id() else { return table.write(op).await };
        let id_column = table.schema().id_column().to_string();
        let bare = |row: Option<&Record>| {
            let mut row = row?.clone();
            row.remove(column);
            row.remove(&id_column);
            Some(row)
        };
        let before = table.get(id).await?;
        if let WriteOp::Insert { record, .. } = op
            && before.is_some()
            && bare(before.as_ref()) == bare(Some(record))
        {
            return Ok(Written { record: before, ..Written::default() });
        }
        table.write(op).await?;
        let Some(mut after) = table.get(id).await? else {
            self.remember(id, None);
            return Ok(Written::default());
        };
        let version = match bare(before.as_ref()) == bare(Some(&after)) {
            true => before.and_then(|before| before.get(column).cloned()),
            false => Some(self.remember(id, bare(Some(&after))).into()),
        };
        if let Some(version) = version {
            after.insert(column, version);
        }
        table.write(&WriteOp::Replace { id: id.into(), record: after.clone() }).await?;
        Ok(Written { record: Some(after), ..Written::default() })
    }

    /// Notes a new state of a row; gives its version.
    fn remember(&self, id: &str, row: Option<Record>) -> i64 {
        let mut versions = self.0.versions.lock().unwrap();
        versions.last += 1;
        versions.history.entry(id.into()).or_insert_with(|| vec![None]).push(row);
        versions.last
    }

    fn begin_write(&self) -> Writing<'_> {
        let now = self.0.writing.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_writing.fetch_max(now, Ordering::SeqCst);
        Writing(&self.0)
    }
}

/// Result of a call of a table in memory, which never waits.
fn at_once<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a master that is moved by hand has its table in memory"),
    }
}

/// Rate limit: one call of `of` is taken.
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
        match self.call(|calls| calls.list += 1, Request::List(query.clone())).await? {
            Reply::Rows(rows) => Ok(rows),
            _ => unreachable!("a list is answered with rows"),
        }
    }

    /// Compares its rows with the known ones, as a driver does that reads row by row.
    async fn list_into(&self, query: &Query, rows: Rows) -> Result<Rows> {
        let listed = self.list(query).await?;
        if listed.undecodable().is_some() {
            return Ok(listed);
        }
        let mut rows = rows.fit_for(self.schema().layout());
        for (id, body) in listed.bodies() {
            rows.push_body(id, body);
        }
        Ok(rows)
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        match self.call(|calls| calls.get += 1, Request::Get(id.into())).await? {
            Reply::Row(row) => Ok(row),
            _ => unreachable!("a read is answered with a row"),
        }
    }

    fn reads_one(&self) -> bool {
        self.0.reads_one.load(Ordering::SeqCst)
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        match self.call(|calls| calls.count += 1, Request::Count(query.clone())).await? {
            Reply::Count(count) => Ok(count),
            _ => unreachable!("a count is answered with a number"),
        }
    }

    async fn next(&self, query: &Query, token: Option<&Token>) -> Result<(Rows, Option<Token>)> {
        match self.call(|calls| calls.next += 1, Request::Next(query.clone(), token.cloned())).await? {
            Reply::Page(rows, token) => Ok((rows, token)),
            _ => unreachable!("a page is answered with rows and a token"),
        }
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        self.written(|calls| calls.write += 1, Request::Write { operation: None, op: op.clone() }).await
    }

    async fn write_once(&self, operation: &str, op: &WriteOp) -> Result<Written> {
        let operation = self.writes_once().then(|| operation.to_string());
        self.written(|calls| calls.write += 1, Request::Write { operation, op: op.clone() }).await
    }

    fn writes_once(&self) -> bool {
        self.0.table.writes_once() || self.batch_size() > 1
    }

    fn batch_size(&self) -> usize {
        self.0.batch.load(Ordering::SeqCst)
    }

    async fn insert_return_id(&self, record: &Record) -> Result<Written> {
        self.written(|calls| calls.insert_return_id += 1, Request::Insert(record.clone())).await
    }
}

impl Scripted {
    async fn written(&self, count: impl FnOnce(&mut Calls), request: Request) -> Result<Written> {
        match self.call(count, request).await? {
            Reply::Written(written) => Ok(written),
            _ => unreachable!("a write is answered as such"),
        }
    }
}
