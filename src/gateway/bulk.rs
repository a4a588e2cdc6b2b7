//! Bulk inserts: an array or a line per row, each with a result of its own.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::answer::{self, POSITION};
use super::insert;
use super::problem::{ApiError, Code};
use super::record::{self, Media};
use super::state::Mounted;
use super::write::Change;
use crate::dio::WriteOptions;
use crate::hot::Condition;
use crate::record::CborValue;
use crate::vista::{Error, WriteOp};

/// Rows in flight at a time; they share journal commits.
const AT_ONCE: usize = 128;

/// Rows of a JSON array; answered by an array.
pub(super) async fn array(at: &Mounted, change: &Change, rows: Vec<CborValue>) -> Result<Response, ApiError> {
    let rows = rows.into_iter().map(|row| read(at, row)).collect();
    let results = all(at, change, rows).await?;
    Ok(respond(at, Value::from(results).to_string(), "application/json"))
}

/// Rows of NDJSON; answered line by line.
pub(super) async fn lines(at: &Mounted, change: &Change) -> Result<Response, ApiError> {
    let lines = change.body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let rows = lines.map(|line| read(at, record::value(Media::Json, line, &change.limits)?)).collect();
    let results = all(at, change, rows).await?;
    let text: String = results.iter().map(|result| format!("{result}\n")).collect();
    Ok(respond(at, text, "application/x-ndjson"))
}

/// One row as an insert.
fn read(at: &Mounted, value: CborValue) -> Result<WriteOp, ApiError> {
    let row = record::row(value, at)?;
    record::whole(&row, at)?;
    let id = insert::given_id(at, &row)?.or_else(|| insert::minted_id(at));
    let id = id.ok_or_else(|| {
        ApiError::new(Code::ValidationFailed, "rows in bulk need an id here: the source chooses ids one row at a time")
    })?;
    insert::new(id, row)
}

/// The result of every row, in order.
async fn all(at: &Mounted, change: &Change, rows: Vec<Result<WriteOp, ApiError>>) -> Result<Vec<Value>, ApiError> {
    if change.condition != Condition::None || change.key.is_some() {
        return Err(ApiError::new(Code::InvalidHeader, "a bulk insert takes neither If-Match nor Idempotency-Key")
            .hint("rows that carry their ids can be sent again: a row that is there already is not written twice"));
    }
    let mut results = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter();
    loop {
        let batch: Vec<_> = rows.by_ref().take(AT_ONCE).collect();
        if batch.is_empty() {
            return Ok(results);
        }
        let first = results.len();
        let batch = batch.into_iter().enumerate().map(|(at_row, row)| one(at, first + at_row + 1, row));
        results.extend(join_all(batch).await);
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
    response.headers_mut().insert(POSITION, answer::position(&at.dio.position()));
    response
}
