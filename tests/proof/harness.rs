//! A master whose requests the test lets through one by one, and shared stores that outlive a Lens.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use diorama::cache::{CacheBackend, CachedRow, RedbCache};
use diorama::dio::Dio;
use diorama::{
    Capabilities, CborValue, Column, ColumnType, Error, Query, Record, Result, Rows, Schema, TableShell, Vista,
    WriteOp, Written,
};
use diorama_core::state::State;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The columns `v` and `w` of a row.
pub(crate) type Cells = (i64, i64);

pub(crate) fn schema() -> Schema {
    let integer = |name: &str| Column::new(name, ColumnType::Integer);
    Schema::new("id", vec![Column::new("id", ColumnType::String), integer("v"), integer("w"), integer("ver")])
}

pub(crate) fn number(record: &Record, column: &str) -> i64 {
    let value = record.get(column).and_then(CborValue::as_integer);
    value.and_then(|value| i64::try_from(value).ok()).unwrap_or(-1)
}

pub(crate) fn cells(record: &Record) -> Cells {
    (number(record, "v"), number(record, "w"))
}

pub(crate) fn record(cells: Cells) -> Record {
    Record::from_iter([("v".to_string(), cells.0.into()), ("w".to_string(), cells.1.into())])
}

/// What readers see.
pub(crate) fn visible(state: &State) -> BTreeMap<String, Cells> {
    state.table().natural(0).map(|row| (row.id().to_string(), cells(&row.decode().unwrap()))).collect()
}

/// What the master has confirmed.
pub(crate) fn confirmed(state: &State) -> BTreeMap<String, Cells> {
    let folded = state.folds().map(|(id, _)| id.to_string());
    let shown = state.table().natural(0).map(|row| row.id().to_string());
    folded
        .chain(shown)
        .filter_map(|id| Some((cells(&state.base(&id)?.body.decode().unwrap()), id)))
        .map(|(c, id)| (id, c))
        .collect()
}

/// How the master meets a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    /// Refused for good, nothing done.
    Refuse,
    /// Not done, may be tried again.
    Busy,
    /// Done, but the answer is lost.
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    List,
    Get(String),
    Write(WriteOp),
}

#[derive(Clone, Debug)]
enum Answer {
    Rows(Vec<(String, Record)>),
    Row(Option<Record>),
    Written(Option<Record>),
}

struct Call {
    what: What,
    result: Option<Result<Answer>>,
    reply: oneshot::Sender<Result<Answer>>,
}

#[derive(Default)]
struct Inside {
    rows: BTreeMap<String, (Cells, i64)>,
    version: i64,
    calls: Vec<Call>,
    gated: bool,
    /// Every state each id has had.
    history: BTreeMap<String, Vec<Option<Cells>>>,
    writes: Vec<WriteOp>,
}

/// A master in memory.
pub(crate) struct Master {
    inside: Mutex<Inside>,
    pub(crate) reads_one: bool,
    /// Whether writes are answered with the row.
    pub(crate) tells: bool,
}

impl Master {
    pub(crate) fn new(reads_one: bool, tells: bool) -> Arc<Master> {
        Arc::new(Master { inside: Mutex::default(), reads_one, tells })
    }

    pub(crate) fn vista(self: &Arc<Self>, name: &str) -> Vista {
        Vista::new(name, Shell(Arc::clone(self)))
    }

    pub(crate) fn gate(&self, gated: bool) {
        self.inside.lock().gated = gated;
    }

    pub(crate) fn set(&self, id: &str, cells: Option<Cells>) {
        self.inside.lock().set(id, cells);
    }

    pub(crate) fn rows(&self) -> BTreeMap<String, Cells> {
        self.inside.lock().rows.iter().map(|(id, (cells, _))| (id.clone(), *cells)).collect()
    }

    /// The row as an event would carry it, with its version.
    pub(crate) fn full(&self, id: &str) -> Option<Record> {
        self.inside.lock().full(id)
    }

    pub(crate) fn history(&self, id: &str) -> Vec<Option<Cells>> {
        self.inside.lock().history.get(id).cloned().unwrap_or_else(|| vec![None])
    }

    pub(crate) fn writes(&self) -> Vec<WriteOp> {
        self.inside.lock().writes.clone()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.inside.lock().calls.len()
    }

    pub(crate) fn has_list(&self) -> bool {
        self.inside.lock().calls.iter().any(|call| matches!(call.what, What::List))
    }

    /// Applies a routed write, as its consumer does.
    pub(crate) fn consume(&self, op: &WriteOp) {
        let op = match op.clone() {
            // It takes what comes, also twice.
            WriteOp::Insert { id, record } => WriteOp::Replace { id, record },
            op => op,
        };
        let _ = self.inside.lock().run(&What::Write(op), Verdict::Accept, false);
    }

    /// Lets the `n`-th waiting request happen at the master; its answer waits.
    pub(crate) fn execute(&self, n: usize, verdict: Verdict) {
        let mut inside = self.inside.lock();
        let Some(at) = n.checked_rem(inside.calls.len()) else { return };
        if inside.calls[at].result.is_none() {
            let what = inside.calls[at].what.clone();
            let result = inside.run(&what, verdict, self.tells);
            inside.calls[at].result = Some(result);
        }
    }

    /// Sends the answer of the `n`-th waiting request, if it has happened.
    pub(crate) fn answer(&self, n: usize) {
        let mut inside = self.inside.lock();
        let Some(at) = n.checked_rem(inside.calls.len()) else { return };
        if let Some(result) = inside.calls[at].result.take() {
            let _ = inside.calls.remove(at).reply.send(result);
        }
    }

    /// Requests of a process that is gone.
    pub(crate) fn forget_calls(&self) {
        self.inside.lock().calls.clear();
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        self.gate(false);
        while self.waiting() > 0 {
            self.execute(0, Verdict::Accept);
            self.answer(0);
        }
    }

    async fn call(&self, what: What) -> Result<Answer> {
        let answer = {
            let mut inside = self.inside.lock();
            if !inside.gated {
                return inside.run(&what, Verdict::Accept, self.tells);
            }
            let (reply, answer) = oneshot::channel();
            inside.calls.push(Call { what, result: None, reply });
            answer
        };
        answer.await.unwrap_or_else(|_| Err(Error::unknown("the connection broke")))
    }
}

impl Inside {
    fn set(&mut self, id: &str, cells: Option<Cells>) {
        self.version += 1;
        match cells {
            Some(cells) => drop(self.rows.insert(id.into(), (cells, self.version))),
            None => drop(self.rows.remove(id)),
        }
        self.history.entry(id.into()).or_insert_with(|| vec![None]).push(cells);
    }

    fn full(&self, id: &str) -> Option<Record> {
        self.rows.get(id).map(|(cells, version)| {
            let mut full = record(*cells);
            full.insert("ver", (*version).into());
            full
        })
    }

    fn run(&mut self, what: &What, verdict: Verdict, tells: bool) -> Result<Answer> {
        let op = match what {
            What::List => {
                let rows = self.rows.keys().map(|id| (id.clone(), self.full(id).unwrap())).collect();
                return Ok(Answer::Rows(rows));
            }
            What::Get(id) => return Ok(Answer::Row(self.full(id))),
            What::Write(op) => op,
        };
        match verdict {
            Verdict::Refuse => return Err(Error::permanent("refused")),
            Verdict::Busy => return Err(Error::transient("busy")),
            Verdict::Accept | Verdict::Lost => {}
        }
        self.writes.push(op.clone());
        let id = op.id().unwrap();
        let known = self.rows.get(id).map(|(cells, _)| *cells);
        let wanted = match op {
            WriteOp::Insert { record, .. } => match known {
                Some(known) if known != cells(record) => {
                    return Err(Error::Conflict { id: id.into(), detail: "is there".into() });
                }
                _ => Some(cells(record)),
            },
            WriteOp::Replace { record, .. } => Some(cells(record)),
            WriteOp::Patch { record, .. } => {
                let Some((v, w)) = known else { return Err(Error::NotFound { id: id.into() }) };
                let or = |column, old| if record.contains(column) { number(record, column) } else { old };
                Some((or("v", v), or("w", w)))
            }
            WriteOp::Delete { .. } if known.is_none() => return Err(Error::NotFound { id: id.into() }),
            _ => None,
        };
        if wanted != known {
            self.set(id, wanted);
        }
        if verdict == Verdict::Lost {
            return Err(Error::unknown("the answer was lost"));
        }
        Ok(Answer::Written(if tells { self.full(id) } else { None }))
    }
}

struct Shell(Arc<Master>);

#[async_trait]
impl TableShell for Shell {
    fn schema(&self) -> Arc<Schema> {
        Arc::new(schema())
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.can_insert = true;
        capabilities.can_update = true;
        capabilities.can_delete = true;
        capabilities
    }

    async fn list(&self, _: &Query) -> Result<Rows> {
        match self.0.call(What::List).await? {
            Answer::Rows(rows) => Ok(rows.into_iter().collect()),
            _ => unreachable!("a list is answered with rows"),
        }
    }

    async fn get(&self, id: &str) -> Result<Option<Record>> {
        match self.0.call(What::Get(id.into())).await? {
            Answer::Row(row) => Ok(row),
            _ => unreachable!("a read is answered with a row"),
        }
    }

    fn reads_one(&self) -> bool {
        self.0.reads_one
    }

    async fn write(&self, op: &WriteOp) -> Result<Written> {
        match self.0.call(What::Write(op.clone())).await? {
            Answer::Written(record) => Ok(Written { id: None, record }),
            _ => unreachable!("a write is answered as such"),
        }
    }
}

/// What a backend has stored for a Dio.
pub(crate) async fn stored(cache: &dyn CacheBackend, name: &str) -> BTreeMap<String, Cells> {
    let mut all: Vec<CachedRow> = Vec::new();
    let table = cache.open_table(name).await.unwrap();
    table.load(&mut |rows| all.extend(rows)).await.unwrap();
    let count = all.len();
    let rows: BTreeMap<_, _> =
        all.into_iter().map(|row| (row.id().to_string(), cells(&row.record().unwrap()))).collect();
    assert_eq!(rows.len(), count, "an id is stored twice");
    rows
}

/// What the cache file has stored for the Dio `d`, with its position.
pub(crate) async fn stored_in_file(cache: &RedbCache) -> (BTreeMap<String, Cells>, u64) {
    let stored = cache.stored("d").await.unwrap();
    assert_eq!(stored.damaged, 0);
    let count = stored.rows.len();
    let rows: BTreeMap<_, _> =
        stored.rows.into_iter().map(|(id, body)| (id.to_string(), cells(&body.decode().unwrap()))).collect();
    assert_eq!(rows.len(), count, "an id is stored twice");
    (rows, stored.watermark)
}

/// A write of `cells` under `id`.
pub(crate) fn insert(id: &str, cells: Cells) -> WriteOp {
    WriteOp::Insert { id: id.into(), record: record(cells) }
}

pub(crate) fn replace(id: &str, cells: Cells) -> WriteOp {
    WriteOp::Replace { id: id.into(), record: record(cells) }
}

pub(crate) fn patch(id: &str, column: &str, value: i64) -> WriteOp {
    WriteOp::Patch { id: id.into(), record: Record::from_iter([(column.to_string(), value.into())]) }
}

pub(crate) fn delete(id: &str) -> WriteOp {
    WriteOp::Delete { id: id.into() }
}

/// Lists the master into the cache, as hooks do.
pub(crate) async fn relist(dio: Dio) -> Result<()> {
    let rows = dio.master().list_values().await?;
    dio.reconcile(rows).await.map(drop)
}

/// Waits until `holds`, at most 20 s.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("never: {what}");
}
