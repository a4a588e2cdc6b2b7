//! A gateway that anyone could have written: rows of a Dio as HTTP resources and its events as lines, on public methods alone.
//!
//! Run it with `cargo run --example tiny_gateway`, then `curl localhost:3001/rows?price=150`, `curl localhost:3001/rows/bun`,
//! `curl -X PATCH localhost:3001/rows/bun -d '{"price":99}'` and `curl -N localhost:3001/events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::dio::WriteOptions;
use diorama::{CborValue, Column, ColumnType, Dio, DioEvent, Error, Lens, Record, Schema, WriteOp};
use futures_util::stream;
use serde_json::{Value, json};

/// A refusal of the library as an answer of HTTP.
struct Refused(Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match &self.0 {
            Error::NotFound { .. } => StatusCode::NOT_FOUND,
            Error::Conflict { .. } => StatusCode::CONFLICT,
            Error::Invalid { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::QueueFull | Error::NotReady { .. } | Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.0.to_string() }))).into_response()
    }
}

type Answer = Result<Response, Refused>;

/// Rows whose columns are what the query says.
async fn list(State(dio): State<Dio>, Query(wanted): Query<BTreeMap<String, String>>) -> Answer {
    dio.refresh_if_stale();
    let mut vista = dio.vista();
    for (column, text) in wanted {
        let number = text.parse::<i64>().map(CborValue::from);
        vista.add_condition_eq(&column, number.unwrap_or_else(|_| text.into()))?;
    }
    let rows = vista.list_values().await?;
    Ok(Json(rows.iter().map(|(_, record)| json!(record)).collect::<Vec<Value>>()).into_response())
}

async fn record(State(dio): State<Dio>, Path(id): Path<String>) -> Answer {
    let record = dio.vista().get_value(&id).await?.ok_or(Error::NotFound { id })?;
    let position = dio.position();
    let position = (HeaderName::from_static("x-position"), format!("{}:{}", position.epoch, position.seq));
    Ok(([position], Json(record)).into_response())
}

/// Accepted means: in the journal, and seen by every reader.
async fn patch(State(dio): State<Dio>, Path(id): Path<String>, body: Bytes) -> Answer {
    let record: Record = serde_json::from_slice(&body).map_err(|error| Error::invalid(error.to_string()))?;
    let ticket = dio.write(WriteOp::Patch { id, record }, WriteOptions::default()).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "operation": ticket.operation.map(|operation| operation.to_string()) })))
        .into_response())
}

async fn delete(State(dio): State<Dio>, Path(id): Path<String>) -> Answer {
    dio.write(WriteOp::Delete { id }, WriteOptions::default()).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// One line for each event from now on, until the Dio is closed.
async fn events(State(dio): State<Dio>) -> Response {
    let lines = stream::unfold(dio.subscribe_events(), |mut events| async move {
        let line = match events.recv().await.ok()? {
            DioEvent::RecordInserted { id } | DioEvent::RecordChanged { id } => json!({ "changed": &*id }),
            DioEvent::RecordRemoved { id } => json!({ "removed": &*id }),
            _ => json!({ "changed": "anything" }),
        };
        Some((Ok::<_, Error>(format!("{line}\n")), events))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// The routes, over a bakery in memory.
pub(crate) async fn app() -> diorama::Result<(Router, Dio)> {
    let columns = vec![Column::new("name", ColumnType::String), Column::new("price", ColumnType::Integer)];
    let row = |id: &str, price: i64| {
        (id.to_string(), Record::from_iter([("name".to_string(), id.into()), ("price".to_string(), price.into())]))
    };
    let master = MemoryTable::vista("rows", Schema::new("id", columns), [row("bun", 150), row("cake", 2_400)]);
    let lens = Lens::new().cache_source(MemoryCache::default()).on_start(|dio| {
        let dio = dio.clone();
        async move { dio.cache().insert_values(dio.master().list_values().await?).await }
    });
    let dio = Arc::new(lens.build()?).make_dio(master).await?;
    let rows = Router::new().route("/", get(list)).route("/{id}", get(record).patch(patch).delete(delete));
    Ok((Router::new().nest("/rows", rows).route("/events", get(events)).with_state(dio.clone()), dio))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (app, dio) = app().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    println!("http://{}/rows", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
        .await?;
    dio.close().await;
    Ok(())
}
