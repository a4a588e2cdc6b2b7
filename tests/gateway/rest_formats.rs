//! NDJSON, CSV and CBOR.

use diorama::gateway::MountOptions;
use diorama::{CborValue, Record};

use crate::harness::{App, products, rows};

async fn app() -> App {
    let mut all = rows(2_500);
    let odd: Record = [("name".to_string(), "a,\"b\"".into()), ("meta".to_string(), CborValue::Array(vec![1.into()]))]
        .into_iter()
        .collect();
    all.push(("odd".into(), odd));
    App::with(products(), all, |lens| lens, MountOptions::default(), |gateway| gateway).await
}

#[tokio::test]
async fn other_formats_carry_the_whole_list_unless_limited() {
    let app = app().await;
    let ndjson = app.send("GET", "/products", &[("Accept", "application/x-ndjson")], "").await;
    assert_eq!((ndjson.header("content-type"), ndjson.text().lines().count()), ("application/x-ndjson", 2_501));
    for line in ndjson.text().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let csv = app.send("GET", "/products", &[("Accept", "text/csv")], "").await;
    assert_eq!(csv.text().lines().next(), Some("id,name,price,meta"));
    assert_eq!(csv.text().lines().last(), Some("odd,\"a,\"\"b\"\"\",,[1]"));
    assert_eq!(csv.text().lines().count(), 2_502);
    let few = app.send("GET", "/products?select=id,cost:price&limit=1", &[("Accept", "text/csv")], "").await;
    assert_eq!(few.text(), "id,cost\r\n1,10\r\n");
    let cbor = app.send("GET", "/products?price=lte.30", &[("Accept", "application/cbor")], "").await;
    let value: CborValue = ciborium::from_reader(&cbor.body[..]).unwrap();
    assert_eq!(value.as_array().unwrap().len(), 3);
    let long = app.send("GET", "/products?limit=10000&price=gt.0", &[], "").await;
    assert_eq!(long.json().as_array().unwrap().len(), 2_500);
}

#[tokio::test]
async fn each_format_has_an_etag_of_its_own() {
    let app = app().await;
    for path in ["/products?limit=1", "/products/1"] {
        let json = app.get(path).await;
        let cbor = app.send("GET", path, &[("Accept", "application/cbor")], "").await;
        assert_ne!(json.header("etag"), cbor.header("etag"));
        assert!(cbor.header("etag").ends_with("-c\""));
        let known = [("Accept", "application/cbor"), ("If-None-Match", cbor.header("etag"))];
        assert_eq!(app.send("GET", path, &known, "").await.status, 304);
        assert_eq!(app.send("GET", path, &known[1..], "").await.status, 200);
    }
}

#[tokio::test]
async fn a_row_may_be_sent_as_cbor() {
    let app = app().await;
    let cbor = [("Content-Type", "application/cbor")];
    // {"name": "X", "price": 7}
    let row = b"\xa2\x64name\x61X\x65price\x07";
    assert_eq!(
        app.send("PUT", "/products/1", &cbor, row).await.json(),
        serde_json::json!({ "id": "1", "name": "X", "price": 7 })
    );
    let cut = app.send("PUT", "/products/1", &cbor, &row[..9]).await;
    assert_eq!(cut.refusal(), (400, "malformed-body".into()));
    let twice = app.send("PUT", "/products/1", &cbor, b"\xa2\x64name\x61X\x64name\x61Y").await;
    assert_eq!(twice.refusal(), (400, "malformed-body".into()));
}
