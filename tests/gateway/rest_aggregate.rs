//! Counts, sums, means and extremes by groups.

use diorama::gateway::MountOptions;
use diorama::{CborValue, Column, ColumnType, Record, Schema};
use serde_json::json;

use crate::harness::App;

async fn app() -> App {
    let columns = [("id", ColumnType::Integer), ("kind", ColumnType::String), ("price", ColumnType::Integer)];
    let columns = columns.map(|(name, ty)| Column::new(name, ty)).to_vec();
    let columns = [columns, vec![Column::new("cost", ColumnType::Decimal)]].concat();
    let rows = [
        (1, Some("bun"), Some(10_u64), "0.10"),
        (2, Some("cake"), Some(40), "0.20"),
        (3, Some("bun"), Some(30), "0.30"),
        (4, None, None, "1"),
        (5, Some("cake"), Some(u64::MAX), "2"),
    ];
    let rows = rows.map(|(id, kind, price, cost)| {
        let cells = [
            ("id", CborValue::from(id)),
            ("kind", kind.map_or(CborValue::Null, CborValue::from)),
            ("price", price.map_or(CborValue::Null, CborValue::from)),
            ("cost", cost.into()),
        ];
        (id.to_string(), cells.into_iter().map(|(name, value)| (name.to_string(), value)).collect::<Record>())
    });
    App::with(Schema::new("id", columns), rows.into(), |lens| lens, MountOptions::default(), |gateway| gateway).await
}

#[tokio::test]
async fn groups_are_summed_up_and_nulls_do_not_count() {
    let app = app().await;
    let all = app.get("/products/_aggregate?select=kind,count(),n:count(price),min(price),max(price)").await;
    assert_eq!(
        all.json(),
        json!([
            { "kind": "bun", "count": 2, "n": 2, "min_price": 10, "max_price": 30 },
            { "kind": "cake", "count": 2, "n": 2, "min_price": 40, "max_price": u64::MAX },
            { "kind": null, "count": 1, "n": 0, "min_price": null, "max_price": null },
        ])
    );
    assert_eq!((all.header("x-total-count"), all.header("content-range")), ("3", "0-2/3"));
    let some =
        app.get("/products/_aggregate?select=kind,sum(price),avg(price)&price=lt.100&order=sum_price.desc").await;
    assert_eq!(
        some.text(),
        r#"[{"kind":"cake","sum_price":40,"avg_price":40.0},{"kind":"bun","sum_price":40,"avg_price":20.0}]"#
    );
    assert_eq!(app.get("/products/_aggregate?select=count()&kind=eq.bun").await.json(), json!([{ "count": 2 }]));
    assert_eq!(app.get("/products/_aggregate?select=sum(cost)").await.json(), json!([{ "sum_cost": "3.60" }]));
    let none = app.get("/products/_aggregate?select=count(),sum(price)&id=eq.99").await;
    assert_eq!(none.json(), json!([{ "count": 0, "sum_price": null }]));
}

#[tokio::test]
async fn columns_alone_give_their_distinct_values_in_pages_and_any_format() {
    let app = app().await;
    let path = "/products/_aggregate?select=kind&order=kind.desc.nullsfirst&offset=1&limit=1";
    let page = app.get(path).await;
    assert_eq!((page.json(), page.header("content-range")), (json!([{ "kind": "cake" }]), "1-1/3"));
    let csv = app.send("GET", "/products/_aggregate?select=kind,count()", &[("Accept", "text/csv")], "").await;
    assert_eq!(csv.text(), "kind,count\r\nbun,2\r\ncake,2\r\n,1\r\n");
    let cbor = app.send("GET", path, &[("Accept", "application/cbor")], "").await;
    assert_eq!(cbor.body, b"\x81\xa1\x64kind\x64cake");
    let head = app.send("HEAD", path, &[], "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, &*page.body.len().to_string(), 0));
    let known = app.send("GET", path, &[("If-None-Match", page.header("etag"))], "").await;
    assert_eq!((known.status, known.body.len()), (304, 0));
    assert_ne!(page.header("etag"), app.get("/products?select=kind").await.header("etag"));
    app.json("PATCH", "/products/2", r#"{"kind":"bun"}"#).await;
    assert_eq!(app.send("GET", path, &[("If-None-Match", page.header("etag"))], "").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_computed_is_a_typed_refusal() {
    let app = app().await;
    for (query, code) in [
        ("", "invalid-parameter"),
        ("select=", "invalid-parameter"),
        ("select=median(price)", "invalid-parameter"),
        ("select=sum(kind)", "invalid-parameter"),
        ("select=sum()", "invalid-parameter"),
        ("select=kind,kind", "invalid-parameter"),
        ("select=kind&select=id", "invalid-parameter"),
        ("select=sum(pricc)", "unknown-column"),
        ("select=kind&order=price", "unknown-column"),
        ("select=kind&pricc=5", "unknown-column"),
        ("select=kind&after=", "invalid-parameter"),
        ("select=kind&limit=1000000", "limit-too-large"),
    ] {
        let answer = app.get(&format!("/products/_aggregate?{query}")).await;
        assert_eq!(answer.refusal(), (400, code.into()), "{query}");
    }
    assert_eq!(app.json("POST", "/products/_aggregate", "{}").await.refusal(), (405, "method-not-allowed".into()));
    app.json("PATCH", "/products/1", &format!(r#"{{"price":{}}}"#, u64::MAX)).await;
    let sum = app.get("/products/_aggregate?select=sum(price)").await;
    assert!(sum.text().contains(r#""sum_price":184467440737095"#), "beyond 64 bits, with every digit: {}", sum.text());
}
