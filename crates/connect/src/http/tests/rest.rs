//! The contract of sources and of writes that have one effect, with a plain REST API.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::get;
use diorama_servers::CutProxy;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::super::{Http, HttpOptions, HttpPages, HttpWrites, PageParameter, Paging, StatedTotal};
use crate::contract;
use diorama_core::record::value_to_json;
use diorama_core::vista::Vista;

/// Rows of an API with offsets, and answers by idempotency key.
#[derive(Default)]
struct Table {
    rows: Vec<Value>,
    answers: HashMap<String, Value>,
    /// Number of changes.
    changes: usize,
}

fn has_id(row: &Value, id: &str) -> bool {
    row["id"].as_u64() == id.parse().ok()
}

type Shared = Arc<Mutex<Table>>;

async fn page(State(table): State<Shared>, UrlQuery(query): UrlQuery<HashMap<String, usize>>) -> Json<Value> {
    let table = table.lock();
    let (offset, limit) = (query.get("offset").copied().unwrap_or(0), query.get("limit").copied().unwrap_or(1_000));
    let rows: Vec<&Value> = table.rows.iter().skip(offset).take(limit).collect();
    Json(json!({"rows": rows, "total": table.rows.len()}))
}

async fn one(State(table): State<Shared>, Path(id): Path<String>) -> Response {
    match table.lock().rows.iter().find(|row| has_id(row, &id)) {
        Some(row) => Json(row.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn patch(State(table): State<Shared>, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let mut table = table.lock();
    let key = headers.get("idempotency-key").unwrap().to_str().unwrap().to_string();
    if let Some(answer) = table.answers.get(&key) {
        return Json(answer.clone()).into_response();
    }
    let columns: Value = serde_json::from_slice(&body).unwrap();
    let Some(row) = table.rows.iter_mut().find(|row| has_id(row, &id)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    row.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
    let answer = row.clone();
    table.changes += 1;
    table.answers.insert(key, answer.clone());
    Json(answer).into_response()
}

/// Runs `test` with an API of these rows behind a proxy whose connections can be cut.
async fn with_api(rows: Vec<Value>, test: impl AsyncFnOnce(Shared, CutProxy)) {
    let table = Shared::new(Mutex::new(Table { rows, ..Table::default() }));
    let router = Router::new().route("/rows", get(page)).route("/rows/{id}", get(one).patch(patch));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = CutProxy::start(listener.local_addr().unwrap().port());
    tokio::select! {
        ended = axum::serve(listener, router.with_state(Arc::clone(&table))) => panic!("the API ended: {ended:?}"),
        () = test(table, proxy) => {}
    }
}

async fn open(proxy: &CutProxy, size: u64) -> Vista {
    let pages = HttpPages {
        paging: Paging::Offset { parameter: PageParameter::Query("offset".into()), overlap: true },
        size: Some((PageParameter::Query("limit".into()), size)),
        total: Some(StatedTotal::Body("/total".into())),
        ..HttpPages::default()
    };
    let writes = HttpWrites::new(None, None, Some("PATCH /{id}"), None).unwrap();
    let writes = Some(writes.with_idempotency("idempotency-key".parse().unwrap()));
    let options = HttpOptions { pages, writes, one: Some("/{id}".into()), ..HttpOptions::default() };
    Http::open("rows", &format!("http://127.0.0.1:{}/rows", proxy.port()), options).await.unwrap()
}

fn counted(count: usize) -> Vec<Value> {
    (0..count).map(|id| json!({"id": id, "n": -1, "text": "x".repeat(50)})).collect()
}

#[tokio::test]
async fn an_api_keeps_the_contract_of_sources() {
    let rows = contract::rows().into_iter().map(|(_, row)| {
        let members =
            row.iter().map(|(name, value)| (name.clone(), serde_json::from_slice(&value_to_json(value)).unwrap()));
        Value::Object(members.collect())
    });
    with_api(rows.collect(), async |_, proxy| {
        for size in [3, 100] {
            contract::reads(&open(&proxy, size).await, contract::Natural::Stored).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_operation_has_one_effect_over_a_thousand_deliveries() {
    with_api(counted(10), async |table, proxy| {
        let vista = open(&proxy, 100).await;
        let changes = contract::one_effect(&**vista.shell()).await;
        assert_eq!(table.lock().changes, changes);
    })
    .await;
}

#[tokio::test]
async fn a_write_whose_connection_is_cut_has_one_effect() {
    with_api(counted(10), async |table, proxy| {
        let vista = open(&proxy, 100).await;
        let changes = contract::one_effect_over_cuts(&**vista.shell(), &proxy).await;
        assert_eq!(table.lock().changes, changes);
    })
    .await;
}

#[tokio::test]
async fn a_list_whose_connection_is_cut_is_an_error() {
    with_api(counted(2_000), async |_, proxy| {
        let vista = open(&proxy, 5_000).await;
        contract::whole_or_error(&**vista.shell(), &proxy, 2_000).await;
    })
    .await;
}
