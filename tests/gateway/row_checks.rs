//! Rows are held to the schema at every door, with the same verdict and the same row.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use diorama::cache::MemoryCache;
use diorama::connect::MemoryTable;
use diorama::dio::{Settings, WriteOptions};
use diorama::gateway::webhook::{Hook, HookOptions};
use diorama::gateway::{Gateway, MountOptions};
use diorama::inbound::{self, Format, Map, Scheme};
use diorama::vista::UnknownColumns;
use diorama::{
    CborValue, ChangeEvent, Column, ColumnType, Dio, Error, Flag, Lens, LensBuilder, Record, Schema, Vista, WriteOp,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{Answer, App};

fn schema() -> Schema {
    let columns = vec![
        Column::new("id", ColumnType::Integer),
        Column::new("name", ColumnType::String).with(Flag::Mandatory),
        Column::new("price", ColumnType::Integer),
    ];
    Schema::new("id", columns)
}

fn rows() -> Vec<(String, Record)> {
    let row = |id: i64| {
        let cells = [("id", id.into()), ("name", "Bun".into()), ("price", (id * 10).into())];
        (id.to_string(), cells.into_iter().map(|(name, cell)| (name.to_string(), cell)).collect())
    };
    [1, 7].map(row).to_vec()
}

async fn start(format: Format, options: HookOptions, settings: impl FnOnce(&mut Settings)) -> App {
    let hook = Hook::new("shop", "products", inbound::Hook::new(Scheme::None).format(format)).with(options);
    let lens = |lens: LensBuilder| lens.settings(settings);
    let app = App::with(schema(), rows(), lens, MountOptions::default(), |it| it.try_hook(hook).unwrap()).await;
    app.master.read_rows();
    app
}

async fn native() -> App {
    start(Format::Native, HookOptions::default(), |_| {}).await
}

async fn put(app: &App, id: &str, price: i64) {
    let record = [("name", "Bun".into()), ("price", price.into())];
    let record = record.into_iter().map(|(name, cell)| (name.to_string(), cell)).collect();
    let op = WriteOp::Replace { id: id.into(), record };
    app.source().shell().write(&op).await.unwrap();
}

/// Ids of a list, once it has this one.
async fn until(app: &App, query: &str, id: i64) {
    let listed = async {
        loop {
            let rows = app.get(&format!("/products?{query}")).await.json();
            if rows.as_array().unwrap().iter().any(|row| row["id"] == id) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), listed).await.unwrap_or_else(|_| panic!("{query}"));
}

async fn told(app: &App, body: &str) -> Answer {
    app.json("POST", "/webhooks/shop", body).await
}

#[tokio::test]
async fn a_delivery_that_is_not_as_the_schema_says_is_kept_and_its_row_is_read_again() {
    let app = native().await;
    put(&app, "7", 8).await;
    let answer = told(&app, r#"{"op":"update","id":"7","new":{"id":"7","name":"Bun","price":"8"}}"#).await;
    let said = answer.json();
    assert_eq!((answer.status, &said["state"]), (202, &json!("undecodable")), "{said}");
    assert_eq!(said["detail"], r#"column "price" must be a whole number"#);
    until(&app, "id=7&price=eq.8", 7).await;
    let kept = app.get("/webhooks/shop/deliveries?state=undecodable").await.json();
    assert_eq!(kept.as_array().unwrap().len(), 1);
    assert!(kept[0]["detail"].as_str().unwrap().contains("price"), "{kept}");
}

#[tokio::test]
async fn one_change_that_does_not_fit_stops_no_other_and_its_row_is_read_again() {
    let app = native().await;
    put(&app, "7", 8).await;
    put(&app, "1", 9).await;
    let body = r#"[{"op":"update","id":"7","new":{"name":"Bun","price":"8"}},{"op":"update","id":"1","new":{"id":"1","name":"Bun","price":9.0}}]"#;
    let said = told(&app, body).await;
    assert_eq!((said.status, &said.json()["applied"], &said.json()["skipped"]), (200, &json!(1), &json!(1)));
    assert_eq!(app.get("/products/1").await.json(), json!({ "id": 1, "name": "Bun", "price": 9 }));
    until(&app, "price=eq.8&id=7", 7).await;
}

#[tokio::test]
async fn a_hook_that_rejects_tells_the_sender_which_column_is_wrong() {
    let options = HookOptions { reject_undecodable: true, ..HookOptions::default() };
    let app = start(Format::Native, options, |_| {}).await;
    put(&app, "7", 8).await;
    let answer = told(&app, r#"{"op":"update","id":"7","new":{"name":"Bun","price":"8"}}"#).await;
    assert_eq!(answer.refusal(), (422, "undecodable-event".into()));
    assert!(answer.json()["detail"].as_str().unwrap().contains("price"));
    until(&app, "price=eq.8", 7).await;
}

#[tokio::test]
async fn text_that_a_mapping_picks_becomes_what_its_column_holds() {
    let map = r#"
        op = "update"
        id = "/key"
        row = "/row"
    "#;
    let app = start(Format::Map(Map::read(map, &[], None).unwrap()), HookOptions::default(), |_| {}).await;
    put(&app, "7", 8).await;
    let answer = told(&app, r#"{"key":"7","row":{"id":"7","name":"Bun","price":"8"}}"#).await;
    assert_eq!((answer.status, &answer.json()["applied"]), (200, &json!(1)), "{answer:?}");
    assert_eq!(app.get("/products/7").await.json(), json!({ "id": 7, "name": "Bun", "price": 8 }));
    let lossy = told(&app, r#"{"key":"7","row":{"name":"Bun","price":"08"}}"#).await;
    assert_eq!((lossy.status, &lossy.json()["state"]), (202, &json!("undecodable")));
}

#[tokio::test]
async fn the_schema_names_what_differs_from_it() {
    let settings = |settings: &mut Settings| settings.unknown_columns = UnknownColumns::Refuse;
    let app = start(Format::Native, HookOptions::default(), settings).await;
    let plain = app.get("/products/_schema").await.json();
    assert_eq!((plain.get("mismatches"), plain.get("dropped_columns")), (None, None));
    let record = [("name".to_string(), "Bun".into()), ("price".to_string(), "much".into())].into_iter().collect();
    app.source().shell().write(&WriteOp::Replace { id: "7".into(), record }).await.unwrap();
    app.dio.refresh().await.unwrap();
    let body = r#"{"op":"update","id":"1","new":{"name":"Bun","price":10,"colour":"red"}}"#;
    assert_eq!(told(&app, body).await.status, 200);
    let described = app.get("/products/_schema").await.json();
    assert_eq!(described["mismatches"], json!({ "price": { "rows": 1, "first": "7", "expected": "a whole number" } }));
    assert_eq!(described["dropped_columns"], json!({ "colour": { "rows": 1, "first": "1" } }));
    assert_eq!(app.get("/products/1").await.json().get("colour"), None);
    let refused = app.json("POST", "/products/9", r#"{"name":"Bun","colour":"red"}"#).await;
    assert_eq!(refused.refusal(), (422, "validation-failed".into()));
}

#[tokio::test]
async fn an_id_of_whole_numbers_may_come_as_text_in_its_canonical_spelling() {
    let app = native().await;
    let made = app.json("POST", "/products", r#"{"id":"9","name":"Bun"}"#).await;
    assert_eq!((made.status, &made.json()["id"]), (202, &json!(9)), "{made:?}");
    let refused = app.json("POST", "/products", r#"{"id":"009","name":"Bun"}"#).await;
    assert_eq!((refused.status, &refused.json()["errors"]["id"]), (422, &json!("must be a whole number")));
}

// --- the same verdict at every door --------------------------------------------------------------------------------------

const TYPES: [ColumnType; 10] = [
    ColumnType::String,
    ColumnType::Integer,
    ColumnType::Number,
    ColumnType::Boolean,
    ColumnType::Decimal,
    ColumnType::Date,
    ColumnType::Datetime,
    ColumnType::Bytes,
    ColumnType::Uuid,
    ColumnType::Json,
];

fn cell() -> impl Strategy<Value = CborValue> {
    prop_oneof![
        Just(CborValue::Null),
        any::<bool>().prop_map(CborValue::from),
        any::<i64>().prop_map(CborValue::from),
        any::<u64>().prop_map(CborValue::from),
        any::<f64>().prop_map(CborValue::from),
        (-9i64..9).prop_map(|n| (n as f64).into()),
        prop_oneof![
            Just("8"),
            Just("007"),
            Just("true"),
            Just("1.50"),
            Just("AQID"),
            Just("a b"),
            Just(""),
            Just("2026-01-31"),
            Just("2026-01-31T12:00:00Z"),
            Just("01890a5d-ac96-774b-bcce-b302099a8057"),
        ]
        .prop_map(CborValue::from),
        proptest::collection::vec(any::<u8>(), 0..4).prop_map(CborValue::Bytes),
        Just(CborValue::Array(vec![1.into(), CborValue::Null])),
        Just(CborValue::Map(vec![("a".into(), 1.into())])),
    ]
}

/// A column of each case: its type, whether it is mandatory, and its cell, if there is one.
fn columns() -> impl Strategy<Value = Vec<(ColumnType, bool, Option<CborValue>)>> {
    let column = (proptest::sample::select(&TYPES[..]), any::<bool>(), proptest::option::weighted(0.9, cell()));
    proptest::collection::vec(column, 1..4)
}

/// What became of a row: its bytes, or what is wrong by column.
type Verdict = Result<(Vec<u8>, Option<Vec<u8>>), BTreeMap<String, String>>;

fn verdict(dio: &Dio, id: &str, done: Result<(), Error>) -> Verdict {
    match done {
        Ok(()) => {
            let state = dio.state();
            let row = state.get(id).expect("it was taken");
            Ok((row.json().to_vec(), row.cbor().map(|cbor| cbor.to_vec())))
        }
        Err(Error::Invalid { fields, .. }) => Err(fields),
        Err(other) => panic!("{other}"),
    }
}

/// A Dio of an empty table, whose master is left alone: nothing but what a door lets in is in it.
async fn empty(schema: &Schema, unknown: UnknownColumns) -> Dio {
    let lens = Lens::new().cache_source(MemoryCache::default()).settings(|settings| {
        settings.unknown_columns = unknown;
        settings.offline = true;
    });
    lens.build().unwrap().make_dio(Vista::new("t", MemoryTable::new(schema.clone(), []))).await.unwrap()
}

async fn posted(dio: &Dio, id: &str, row: &Record) -> Verdict {
    let members = row.iter().map(|(name, value)| (name.as_str().into(), value.clone())).collect();
    let mut body = Vec::new();
    ciborium::into_writer(&CborValue::Map(members), &mut body).unwrap();
    let request = Request::post(format!("/t/{id}")).header("content-type", "application/cbor");
    let router = Gateway::new().mount(dio.clone()).into_router();
    let answer = router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 1 << 20).await.unwrap()).unwrap();
    match status {
        202 => verdict(dio, id, Ok(())),
        422 => Err(serde_json::from_value(body["errors"].clone()).unwrap()),
        other => panic!("{other}: {body}"),
    }
}

async fn at_all_doors(schema: &Schema, id: &str, row: &Record, unknown: UnknownColumns) {
    let http = posted(&empty(schema, unknown).await, id, row).await;
    let dio = empty(schema, unknown).await;
    let inserted = dio.vista().insert(id, row).await;
    assert_eq!(verdict(&dio, id, inserted), http, "an insert");
    let dio = empty(schema, unknown).await;
    let op = WriteOp::Replace { id: id.into(), record: row.clone() };
    let written = dio.write(op, WriteOptions::default()).await;
    assert_eq!(verdict(&dio, id, written.map(drop)), http, "a write");
    let dio = empty(schema, unknown).await;
    let patched = dio.patched(id, row.clone()).await;
    assert_eq!(verdict(&dio, id, patched), http, "a statement");
    let dio = empty(schema, unknown).await;
    let stored = dio.cache().insert_value(id, row).await;
    assert_eq!(verdict(&dio, id, stored), http, "a raw row");
    if unknown == UnknownColumns::Keep {
        let dio = empty(schema, unknown).await;
        let event = ChangeEvent::Inserted { id: id.into(), new: Some(row.clone()) };
        let heard = dio.handle_event(event).await;
        assert_eq!(verdict(&dio, id, heard.map(drop)), http, "an event");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn every_door_gives_the_same_verdict_and_the_same_row(
        columns in columns(), integer_id: bool, id_cell in 0u8..3, more in proptest::option::of(cell()), strict: bool,
    ) {
        let id_type = if integer_id { ColumnType::Integer } else { ColumnType::String };
        let mut all = vec![Column::new("id", id_type)];
        let mut row = Record::new();
        match id_cell {
            0 => {}
            1 => drop(row.insert("id", "7".into())),
            _ => drop(row.insert("id", 7.into())),
        }
        for (at, (ty, mandatory, cell)) in columns.into_iter().enumerate() {
            let column = Column::new(format!("c{at}"), ty);
            all.push(if mandatory { column.with(Flag::Mandatory) } else { column });
            row.extend(cell.map(|cell| (format!("c{at}"), cell)));
        }
        row.extend(more.map(|cell| ("more".to_string(), cell)));
        let schema = Schema::new("id", all);
        let unknown = if strict { UnknownColumns::Refuse } else { UnknownColumns::Keep };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(at_all_doors(&schema, "7", &row, unknown));
    }
}
