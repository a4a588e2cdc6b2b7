//! Bulk inserts: an array or a line per row, each with a result of its own.

use axum::body::{Body, BodyDataStream};
use axum::extract::Request;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::insert;
use super::limits::Limits;
use super::pipeline::request_id;
use super::problem::{ApiError, Code};
use super::record::{self, Media};
use super::state::Mounted;
use super::write::{self, Change};
use crate::dio::WriteOptions;
use crate::record::CborValue;
use crate::vista::{Error, WriteOp};

/// Rows in flight at a time; they share journal commits.
const AT_ONCE: usize = 128;

/// Rows of a JSON array; answered by an array.
pub(super) async fn array(at: &Mounted, change: &Change, rows: Vec<CborValue>) -> Result<Response, ApiError> {
    plain(&change.headers)?;
    let count = rows.len();
    let results = all(at, rows.into_iter().map(|row| read(at, row)).collect()).await;
    tracing::debug!(request.id = request_id(&change.headers), dio = at.dio.name(), rows = count, "a bulk insert is in");
    Ok(respond(at, Value::from(results).to_string(), "application/json"))
}

/// Rows of NDJSON, read as they come; answered line by line when all are in. What was accepted stays, should the body break off.
pub(super) async fn lines(at: &Mounted, request: Request, limits: &Limits) -> Result<Response, ApiError> {
    plain(request.headers())?;
    let (parts, body) = request.into_parts();
    let mut lines = Lines::new(body, *limits);
    let mut answer = String::new();
    let mut done = 0;
    loop {
        let mut batch = Vec::with_capacity(AT_ONCE);
        while batch.len() < AT_ONCE
            && let Some((number, line)) = lines.next().await?
        {
            batch.push((number, record::value(Media::Json, &line, limits).and_then(|value| read(at, value))));
        }
        if batch.is_empty() {
            let id = request_id(&parts.headers);
            tracing::debug!(request.id = id, dio = at.dio.name(), rows = done, "a bulk insert is in");
            return Ok(respond(at, answer, "application/x-ndjson"));
        }
        done += batch.len();
        for result in join_all(batch.into_iter().map(|(number, row)| one(at, number, row))).await {
            answer.push_str(&result.to_string());
            answer.push('\n');
        }
    }
}

/// One row as an insert.
fn read(at: &Mounted, value: CborValue) -> Result<WriteOp, ApiError> {
    let (id, record) = insert::new(at, value)?;
    let id = id.ok_or_else(|| {
        ApiError::new(Code::ValidationFailed, "rows in bulk need an id here: the source chooses ids one row at a time")
    })?;
    Ok(WriteOp::Insert { id, record })
}

/// The result of every row, in order.
async fn all(at: &Mounted, rows: Vec<Result<WriteOp, ApiError>>) -> Vec<Value> {
    let mut results = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter().enumerate();
    loop {
        let batch: Vec<_> = rows.by_ref().take(AT_ONCE).collect();
        if batch.is_empty() {
            return results;
        }
        results.extend(join_all(batch.into_iter().map(|(number, row)| one(at, number + 1, row))).await);
    }
}

/// Refuses what is asked of one row and cannot be kept for many.
fn plain(headers: &HeaderMap) -> Result<(), ApiError> {
    let single = [header::IF_MATCH, header::IF_NONE_MATCH, HeaderName::from_static("idempotency-key")];
    match single.iter().find(|name| headers.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(ApiError::new(Code::InvalidHeader, format!("a bulk insert cannot keep {name}"))
            .hint("rows that carry their ids can be sent again: a row that is there already is not written twice")),
    }
}

/// The lines of a body that are not blank, with their numbers from 1.
struct Lines {
    body: BodyDataStream,
    limits: Limits,
    buffer: Vec<u8>,
    /// Where the first line of the buffer begins.
    start: usize,
    read: usize,
    number: usize,
    ended: bool,
}

impl Lines {
    fn new(body: Body, limits: Limits) -> Lines {
        Lines { body: body.into_data_stream(), limits, buffer: Vec::new(), start: 0, read: 0, number: 0, ended: false }
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
        let chunk = tokio::time::timeout(self.limits.body_time, self.body.next()).await;
        let chunk = chunk.map_err(|_| ApiError::new(Code::RequestTimeout, "the body stopped arriving"))?;
        let Some(chunk) = chunk else {
            self.ended = true;
            return Ok(());
        };
        let chunk =
            chunk.map_err(|error| ApiError::new(Code::MalformedBody, format!("the body broke off: {error}")))?;
        self.read += chunk.len();
        if self.read > self.limits.bulk {
            let detail =
                format!("the body is larger than {} bytes; the rows before that are written", self.limits.bulk);
            return Err(ApiError::new(Code::PayloadTooLarge, detail).hint("send the rows in several requests"));
        }
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }
}

async fn one(at: &Mounted, line: usize, op: Result<WriteOp, ApiError>) -> Value {
    let refused = |id: Option<&str>, error: ApiError| json!({ "line": line, "status": error.code().status().as_u16(), "id": id, "problem": error.to_json(None) });
    let op = match op {
        Ok(op) => op,
        Err(error) => return refused(None, error),
    };
    let id = op.id().unwrap_or_default().to_string();
    match at.dio.write(op, WriteOptions::default()).await {
        Ok(ticket) => match ticket.operation {
            Some(op) => json!({ "line": line, "status": 202, "id": id, "operation": op.to_string() }),
            None => json!({ "line": line, "status": 200, "id": id }),
        },
        Err(Error::Conflict { .. }) => {
            refused(Some(&id), ApiError::new(Code::AlreadyExists, format!("there is a row {id:?} already")))
        }
        Err(error) => refused(Some(&id), error.into()),
    }
}

fn respond(at: &Mounted, body: String, media: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    write::safe(at, &at.dio.position(), response.headers_mut());
    response
}
