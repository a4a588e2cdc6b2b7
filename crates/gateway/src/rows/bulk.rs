//! Bulk inserts: a JSON or CBOR array, or NDJSON with one row a line. Each row has its own result.
//!
//! Lines are read at the rate at which the journal accepts them. Their results are spooled until the end of the body:
//! answering earlier would deadlock with a client that sends the whole body before it reads the response.
//!
//! With an `Idempotency-Key`, each row has a key made of that key and its line number. A repeated request therefore resumes
//! at the point of interruption of the first one, and reports the outcome of the rows before it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use xxhash_rust::xxh3::xxh3_128;

use crate::http::body::BodyError;
use crate::http::budget::Caller;
use crate::http::limits::Limits;
use crate::http::prefer::{Kind, Prefer};
use crate::http::problem::{ApiError, Code, Problem};
use crate::http::request_id::request_id;
use crate::http::response::{APPLIED, document};
use crate::http::spool::Spool;
use crate::rows::new_row::{at_master, new_row, no_key};
use crate::rows::record::{self, Media};
use crate::rows::write::{self, Change};
use crate::scope::Scope;
use crate::state::GatewayState;
use diorama_core::dio::{IdempotencyKey, WriteOptions};
use diorama_core::record::{Body as RowBody, CborValue, Record};
use diorama_core::state::{OpId, State};
use diorama_core::vista::{Error, WriteOp};

/// Maximum number of rows in flight; they share journal commits.
const AT_ONCE: usize = 128;
/// Bytes of lines in flight after which no further line is added to a batch.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Maximum number of lines that an error response names.
const MOST_NAMED: usize = 100;

/// Bulk insert in progress.
struct Bulk<'a> {
    scope: &'a Scope,
    prefix: &'a str,
    key: Option<String>,
    /// Time left to wait for the master.
    patience: Duration,
    /// Held while the source inserts a row and chooses its id, one row at a time.
    at_master: tokio::sync::Mutex<()>,
}

/// One row of the body, or the error of a line that is not a valid row.
struct Row {
    line: usize,
    op: Result<NewRow, ApiError>,
    /// Hash of the request body or line, stored with the idempotency key.
    fingerprint: u128,
}

/// Row to insert.
enum NewRow {
    /// Row with a known id.
    Named(WriteOp),
    /// Row whose id the source chooses.
    Unnamed(Record),
}

/// Result of one row.
struct RowResult {
    line: usize,
    id: Option<String>,
    written: Result<RowOutcome, ApiError>,
    replayed: bool,
}

/// Acceptance of a row: by the queue or by the source.
enum RowOutcome {
    /// Queued; `None` if an equal row existed and nothing was written.
    Queued(Option<OpId>),
    /// Inserted by the source itself.
    AtMaster,
}

/// Outcome of one row of a bulk insert.
#[derive(Serialize, ToSchema)]
pub(crate) struct BulkResult {
    /// Line of the body, from 1.
    line: usize,
    status: u16,
    #[schema(required)]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    problem: Option<Problem>,
    /// True if the row was accepted before, under the same Idempotency-Key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
}

/// Inserts the rows of a JSON or CBOR array. The response is a JSON array.
pub(crate) async fn array(scope: &Scope, change: &Change, rows: Vec<CborValue>) -> Result<Response, ApiError> {
    refuse_conditions(&change.headers)?;
    let count = rows.len();
    let fingerprint = change.key.as_ref().map_or(0, |key| key.fingerprint);
    let row = |(index, row)| Row { line: index + 1, op: read(scope, row), fingerprint };
    let rows: Vec<Row> = rows.into_iter().enumerate().map(row).collect();
    let key = change.key.as_ref().map(|key| key.key.clone());
    if change.prefer.is_strict() {
        let mut refusals = RowRefusals::new(scope, key.as_deref());
        for row in &rows {
            refusals.check_row(row.line, row.op.as_ref()).await?;
        }
        refusals.check()?;
    }
    let mut bulk = Bulk::new(scope, &change.prefix, &change.prefer, key);
    let mut results = Vec::with_capacity(count);
    let mut rows = rows.into_iter();
    loop {
        let batch: Vec<Row> = rows.by_ref().take(AT_ONCE).collect();
        if batch.is_empty() {
            break;
        }
        results.extend(bulk.insert(batch).await);
    }
    tracing::debug!(
        request.id = request_id(&change.headers),
        dio = scope.dio.name(),
        rows = count,
        "a bulk insert is in"
    );
    Ok(respond(scope, &change.prefer, document(&results).to_string().into(), "application/json"))
}

/// Inserts the rows of an NDJSON body, in bounded memory. Rows that were accepted stay if the body is interrupted.
pub(crate) async fn lines(
    scope: &Scope,
    request: Request,
    prefix: &str,
    gateway: &GatewayState,
) -> Result<Response, ApiError> {
    refuse_conditions(request.headers())?;
    let limits = &gateway.limits;
    let _lease = gateway.budgets.bodies.take(Caller::of(request.extensions()), limits.body + BYTES_AT_ONCE)?;
    let prefer = Prefer::of(request.headers()).check()?;
    let key = write::key(request.headers())?;
    let (parts, mut body) = request.into_parts();
    if prefer.is_strict() {
        body = validated(scope, body, key.as_deref(), limits).await?;
    }
    let mut lines = LineReader::new(body, *limits);
    let mut bulk = Bulk::new(scope, prefix, &prefer, key);
    let mut results = Spool::new(&scope.dio);
    let mut done = 0;
    loop {
        let batch = batch(scope, &mut lines, limits).await.map_err(|error| match done {
            0 => error,
            _ => error.hint(format!(
                "the {done} rows before it were accepted; with an Idempotency-Key the request can be repeated"
            )),
        })?;
        if batch.is_empty() {
            break;
        }
        done += batch.len();
        let text: String = bulk.insert(batch).await.iter().map(|result| format!("{}\n", document(result))).collect();
        results.write(text.into_bytes()).await?;
    }
    tracing::debug!(
        request.id = request_id(&parts.headers),
        dio = scope.dio.name(),
        rows = done,
        "a bulk insert is in"
    );
    Ok(respond(scope, &prefer, results.into_body()?, "application/x-ndjson"))
}

/// Reads and spools the whole body. Returns an error if any line is not a valid row.
async fn validated(scope: &Scope, body: Body, key: Option<&str>, limits: &Limits) -> Result<Body, ApiError> {
    let mut lines = LineReader::new(body, *limits);
    let (mut kept, mut refusals, mut next) = (Spool::new(&scope.dio), RowRefusals::new(scope, key), 1);
    let mut text = Vec::new();
    while let Some((number, line)) = lines.next().await? {
        refusals.check_row(number, parse(scope, &line, limits).as_ref()).await?;
        // Blank lines are kept, because they count in line numbers.
        text.resize(text.len() + number - next, b'\n');
        text.extend_from_slice(&line);
        text.push(b'\n');
        next = number + 1;
        if text.len() >= BYTES_AT_ONCE {
            kept.write(std::mem::take(&mut text)).await?;
        }
    }
    refusals.check()?;
    kept.write(text).await?;
    Ok(kept.into_body()?)
}

/// Reads the next lines as rows; empty at the end of the body.
async fn batch(scope: &Scope, lines: &mut LineReader, limits: &Limits) -> Result<Vec<Row>, ApiError> {
    // A batch fits into the queue, so that other writers do not wait behind all of it.
    let most = scope.dio.free_places().clamp(1, AT_ONCE);
    let mut rows = Vec::with_capacity(most);
    let mut bytes = 0;
    while rows.len() < most && bytes < BYTES_AT_ONCE {
        let Some((line, text)) = lines.next().await? else { break };
        bytes += text.len();
        rows.push(Row { line, op: parse(scope, &text, limits), fingerprint: xxh3_128(&text) });
    }
    Ok(rows)
}

fn parse(scope: &Scope, line: &[u8], limits: &Limits) -> Result<NewRow, ApiError> {
    record::value(Media::Json, line, limits).and_then(|value| read(scope, value))
}

/// Converts one value to an insert.
fn read(scope: &Scope, value: CborValue) -> Result<NewRow, ApiError> {
    Ok(match new_row(scope, value)? {
        (Some(id), record) => NewRow::Named(WriteOp::Insert { id, record }),
        (None, record) => NewRow::Unnamed(record),
    })
}

/// Refuses `If-Match` and `If-None-Match`, which apply to a single row.
fn refuse_conditions(headers: &HeaderMap) -> Result<(), ApiError> {
    match [header::IF_MATCH, header::IF_NONE_MATCH].iter().find(|name| headers.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(ApiError::new(Code::InvalidHeader, format!("a bulk insert does not support {name}"))
            .hint("rows that have ids can be sent again: a row that exists already is not written twice")),
    }
}

/// Invalid rows of a request with `Prefer: handling=strict`, where one of them refuses the whole request.
///
/// Conflicts are checked against a snapshot of the rows. A conflict with a row that is added later is reported for its row only.
struct RowRefusals<'a> {
    scope: &'a Scope,
    key: Option<&'a str>,
    known: Arc<State>,
    /// Hashes of the ids in the request, with the hashes of their rows.
    seen: HashMap<u128, u128>,
    count: usize,
    /// Error code of the invalid rows, while all of them have the same.
    code: Option<Code>,
    errors: BTreeMap<String, String>,
}

impl RowRefusals<'_> {
    fn new<'a>(scope: &'a Scope, key: Option<&'a str>) -> RowRefusals<'a> {
        RowRefusals {
            scope,
            key,
            known: scope.rows.state(),
            seen: HashMap::new(),
            count: 0,
            code: None,
            errors: BTreeMap::new(),
        }
    }

    async fn check_row(&mut self, line: usize, row: Result<&NewRow, &ApiError>) -> Result<(), ApiError> {
        let (code, detail) = match row {
            Ok(NewRow::Named(WriteOp::Insert { id, record })) => match self.conflict(id, record) {
                Some(detail) if !self.is_repeated(line).await? => (Code::AlreadyExists, detail),
                _ => return Ok(()),
            },
            Ok(_) => return Ok(()),
            Err(error) => (error.code(), error.detail().to_string()),
        };
        self.code = if self.count == 0 { Some(code) } else { self.code.filter(|own| *own == code) };
        self.count += 1;
        if self.errors.len() < MOST_NAMED {
            self.errors.insert(format!("line {line}"), detail);
        }
        Ok(())
    }

    /// True if the row was accepted from an earlier attempt of this request.
    async fn is_repeated(&self, line: usize) -> Result<bool, ApiError> {
        match self.key {
            Some(key) => Ok(self.scope.rows.knows_key(&row_key(key, line)).await?),
            None => Ok(false),
        }
    }

    /// Describes the row that a new row conflicts with. An equal row is not a conflict.
    fn conflict(&mut self, id: &str, record: &Record) -> Option<String> {
        let hash = RowBody::encode(id, record, self.scope.schema.layout()).hash();
        // A row outside the scope always conflicts, even if it is equal.
        if self.known.get(id).is_some_and(|row| row.hash() != hash || !self.scope.rows.sees_row(&row)) {
            return Some(format!("there is a row {id:?} already"));
        }
        let first = *self.seen.entry(xxh3_128(id.as_bytes())).or_insert(hash);
        (first != hash).then(|| format!("duplicate id {id:?}: an earlier row has it"))
    }

    fn check(self) -> Result<(), ApiError> {
        let code = self.code.filter(|code| *code == Code::AlreadyExists).unwrap_or(Code::ValidationFailed);
        match self.count {
            0 => Ok(()),
            count => Err(ApiError::new(code, format!("{count} rows are invalid; nothing was written"))
                .errors(self.errors)
                .hint("without Prefer: handling=strict, the other rows are accepted")),
        }
    }
}

/// Idempotency key of one row. Keys from clients never contain a space.
fn row_key(key: &str, line: usize) -> String {
    format!("{key} {line}")
}

impl Bulk<'_> {
    fn new<'a>(scope: &'a Scope, prefix: &'a str, prefer: &Prefer, key: Option<String>) -> Bulk<'a> {
        let patience = prefer.patience(scope.options.ack.patience());
        Bulk { scope, prefix, key, patience, at_master: tokio::sync::Mutex::default() }
    }

    /// Inserts rows and returns their results, in the order of the rows.
    async fn insert(&mut self, rows: Vec<Row>) -> Vec<BulkResult> {
        let started = Instant::now();
        let done = join_all(rows.into_iter().map(|row| self.insert_row(row))).await;
        let mut results = Vec::with_capacity(done.len());
        for row in done {
            let left = self.patience.saturating_sub(started.elapsed());
            results.push(self.result(row, left).await);
        }
        self.patience = self.patience.saturating_sub(started.elapsed());
        results
    }

    async fn insert_row(&self, row: Row) -> RowResult {
        let Row { line, op, fingerprint } = row;
        let op = match op {
            Ok(NewRow::Named(op)) => op,
            Ok(NewRow::Unnamed(record)) => return self.unnamed(line, &record).await,
            Err(error) => return RowResult { line, id: None, written: Err(error), replayed: false },
        };
        let id = op.id().map(str::to_string);
        let key = self.key.as_ref().map(|key| IdempotencyKey { key: row_key(key, line), fingerprint });
        match self.scope.rows.write(op, WriteOptions { key, ..WriteOptions::default() }).await {
            Ok(ticket) => RowResult { line, id, written: Ok(RowOutcome::Queued(ticket.operation)), replayed: false },
            Err(Error::Replayed { operation }) => match write::replayed_write(self.scope, &operation) {
                Ok(known) => {
                    RowResult { line, id: known.id, written: Ok(RowOutcome::Queued(known.operation)), replayed: true }
                }
                Err(error) => RowResult { line, id: None, written: Err(error), replayed: true },
            },
            Err(Error::Conflict { .. }) => {
                let detail = format!("there is a row {:?} already", id.as_deref().unwrap_or_default());
                RowResult { line, id, written: Err(ApiError::new(Code::AlreadyExists, detail)), replayed: false }
            }
            Err(error) => RowResult { line, id, written: Err(error.into()), replayed: false },
        }
    }

    /// Inserts a row whose id the source chooses, one at a time, so that the ids are in the order of the lines.
    async fn unnamed(&self, line: usize, record: &Record) -> RowResult {
        let _turn = self.at_master.lock().await;
        let written = match self.key {
            Some(_) => Err(no_key()),
            None => at_master(self.scope, record).await,
        };
        match written {
            Ok(id) => RowResult { line, id: Some(id), written: Ok(RowOutcome::AtMaster), replayed: false },
            Err(error) => RowResult { line, id: None, written: Err(error), replayed: false },
        }
    }

    async fn result(&self, row: RowResult, patience: Duration) -> BulkResult {
        let RowResult { line, id, written, replayed } = row;
        let (status, operation, problem) = match written {
            Err(error) => (error.code().status().as_u16(), None, Some(error)),
            Ok(RowOutcome::AtMaster) => (201, None, None),
            Ok(RowOutcome::Queued(None)) => (200, None, None),
            Ok(RowOutcome::Queued(Some(op))) if patience.is_zero() && !replayed => (202, Some(op), None),
            Ok(RowOutcome::Queued(Some(op))) => {
                let (status, problem) = write::operation_status(self.scope, op, patience, self.prefix).await;
                (status, Some(op), problem)
            }
        };
        let problem = problem.map(|problem| problem.problem(None));
        BulkResult { line, status, id, operation: operation.map(|op| op.to_string()), problem, replayed }
    }
}

/// Reader of the non-blank lines of a body, with line numbers from 1.
struct LineReader {
    body: BodyDataStream,
    limits: Limits,
    buffer: Vec<u8>,
    /// Offset of the first unread line in the buffer.
    start: usize,
    read: usize,
    number: usize,
    ended: bool,
}

impl LineReader {
    fn new(body: Body, limits: Limits) -> LineReader {
        LineReader {
            body: body.into_data_stream(),
            limits,
            buffer: Vec::new(),
            start: 0,
            read: 0,
            number: 0,
            ended: false,
        }
    }

    async fn next(&mut self) -> Result<Option<(usize, Vec<u8>)>, ApiError> {
        loop {
            let rest = &self.buffer[self.start..];
            let end = memchr::memchr(b'\n', rest);
            let line = rest[..end.unwrap_or(rest.len())].trim_ascii();
            if line.len() > self.limits.body {
                let detail = format!("line {} is longer than {} bytes", self.number + 1, self.limits.body);
                return Err(ApiError::new(Code::PayloadTooLarge, detail));
            }
            if end.is_none() && !self.ended {
                self.fill().await?;
                continue;
            }
            let line = line.to_vec();
            self.start += end.map_or(rest.len(), |end| end + 1);
            self.number += 1;
            if !line.is_empty() {
                return Ok(Some((self.number, line)));
            }
            if end.is_none() {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self) -> Result<(), ApiError> {
        self.buffer.drain(..std::mem::take(&mut self.start));
        let chunk = tokio::time::timeout(self.limits.body_timeout, self.body.next()).await;
        let chunk = chunk.map_err(|_| ApiError::new(Code::RequestTimeout, "the body stopped arriving"))?;
        let Some(chunk) = chunk else {
            self.ended = true;
            return Ok(());
        };
        let chunk = chunk.map_err(BodyError::Broken)?;
        self.read += chunk.len();
        if self.read > self.limits.bulk {
            let detail = format!("the body is larger than {} bytes", self.limits.bulk);
            return Err(ApiError::new(Code::PayloadTooLarge, detail).hint("send the rows in several requests"));
        }
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

fn respond(scope: &Scope, prefer: &Prefer, body: Body, media: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    write::set_write_headers(scope, &scope.dio.position(), response.headers_mut());
    if let Some(applied) = prefer.applied(Kind::Bulk) {
        response.headers_mut().insert(APPLIED, applied);
    }
    response
}
