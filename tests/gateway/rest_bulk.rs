//! Many rows in one request.

use diorama::CborValue;
use diorama::gateway::{Limits, MountOptions};
use serde_json::{Value, json};

use crate::harness::{Answer, App, products, rows};

const LINES: (&str, &str) = ("Content-Type", "application/x-ndjson");
const STRICT: (&str, &str) = ("Prefer", "handling=strict");

fn results(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn strict_handling_takes_all_rows_or_none() {
    let app = App::start().await;
    let before = app.dio.position();
    let lines = "{\"id\":\"a\",\"name\":\"A\"}\n\n{\"id\":\"b\"}\n{\n{\"id\":\"c\",\"price\":\"x\"}";
    let array = r#"[{"id":"a","name":"A"},{"id":"b"}]"#;
    let refused = app.send("POST", "/products", &[LINES, STRICT], lines).await;
    assert_eq!(refused.refusal(), (422, "validation-failed".into()));
    let errors = refused.json()["errors"].clone();
    assert_eq!(errors["line 3"], "column \"name\" is mandatory");
    assert!(errors["line 4"].as_str().unwrap().starts_with("the body is not JSON"), "{errors}");
    assert_eq!(errors.as_object().unwrap().len(), 3, "{errors}");
    let refused = app.send("POST", "/products", &[("Content-Type", "application/json"), STRICT], array).await;
    assert_eq!(refused.json()["errors"], json!({ "line 2": "column \"name\" is mandatory" }));
    assert_eq!(app.dio.position(), before, "nothing was done");

    // More than is held in memory.
    let many: String =
        (0..3_000).map(|n| format!("\n{{\"id\":\"m{n}\",\"name\":\"{}\"}}\n", "M".repeat(500))).collect();
    let taken = app.send("POST", "/products", &[LINES, STRICT], &many).await;
    let all = results(&taken);
    assert_eq!((taken.status, all.len(), all[2_999]["line"].clone()), (200, 3_000, json!(6_000)));
    assert!(all.iter().all(|result| result["status"] == 202));
    assert_eq!(app.get("/products?limit=0").await.header("x-total-count"), "3007");
}

#[tokio::test]
async fn strict_handling_looks_at_what_is_there_before_anything_is_done() {
    let app = App::start().await;
    let before = app.dio.position();
    let lines = "{\"id\":\"a\",\"name\":\"A\"}\n{\"id\":\"1\",\"name\":\"taken\"}\n{\"id\":\"a\",\"name\":\"B\"}";
    let refused = app.send("POST", "/products", &[LINES, STRICT], lines).await;
    assert_eq!(refused.refusal(), (409, "already-exists".into()));
    let errors =
        json!({ "line 2": "there is a row \"1\" already", "line 3": "duplicate id \"a\": an earlier row has it" });
    assert_eq!(refused.json()["errors"], errors);
    let array = [("Content-Type", "application/json"), STRICT];
    let refused = app.send("POST", "/products", &array, r#"[{"id":"1","name":"taken"},{"id":"b"}]"#).await;
    assert_eq!((refused.refusal().0, refused.json()["errors"].as_object().unwrap().len()), (422, 2));
    assert_eq!(app.dio.position(), before, "nothing was done");
    // The same row twice, and a request that is repeated, are no conflict.
    let twice = "{\"id\":\"a\",\"name\":\"A\"}\n{\"id\":\"b\",\"name\":\"B\"}\n{\"id\":\"a\",\"name\":\"A\"}";
    let keyed = [LINES, STRICT, ("Idempotency-Key", "k")];
    assert_eq!(app.send("POST", "/products", &keyed, twice).await.status, 200);
    app.send("PATCH", "/products/b", &[("Content-Type", "application/json")], r#"{"name":"C"}"#).await;
    let again = app.send("POST", "/products", &keyed, twice).await;
    assert_eq!(again.status, 200, "{}", again.text());
    assert!(results(&again)[1]["replayed"] == true, "{}", again.text());
}

#[tokio::test]
async fn rows_in_bulk_wait_for_the_source_as_one_row_does() {
    let app = App::start().await;
    let lines = "{\"id\":\"a\",\"name\":\"A\"}\n{\"id\":\"1\",\"name\":\"taken\"}\n{\"id\":\"b\",\"name\":\"B\"}";
    let done = results(&app.send("POST", "/products", &[LINES, ("Prefer", "wait=10")], lines).await);
    let statuses: Vec<_> = done.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [201, 409, 201]);
    app.master.refuse_writes(diorama::Error::permanent("no"));
    let array = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    let failed = app.send("POST", "/products", &array, r#"[{"id":"c","name":"C"}]"#).await.json();
    assert_eq!((&failed[0]["status"], &failed[0]["problem"]["code"]), (&json!(502), &json!("write-failed")));
    assert_eq!(app.get("/products/c").await.status, 404);
}

#[tokio::test]
async fn an_array_can_be_cbor() {
    let app = App::start().await;
    let row = |id: &str| CborValue::Map(vec![("id".into(), id.into()), ("name".into(), "C".into())]);
    let mut body = Vec::new();
    ciborium::into_writer(&CborValue::Array(vec![row("c1"), row("c2")]), &mut body).unwrap();
    let answer = app.send("POST", "/products", &[("Content-Type", "application/cbor")], body).await;
    assert_eq!((answer.status, answer.json()[1]["status"].clone()), (200, json!(202)));
    assert_eq!(app.get("/products?name=C").await.ids(), ["c1", "c2"]);
}

#[tokio::test]
async fn a_body_that_is_too_large_says_how_much_of_it_was_taken() {
    let limits = Limits { body: 1_000, bulk: 20_000, ..Limits::default() };
    let app = App::with(products(), rows(1), |l| l, MountOptions::default(), |g| g.limits(limits)).await;
    let lines: String = (0..1_000).map(|n| format!("{{\"id\":\"l{n}\",\"name\":\"L\"}}\n")).collect();
    let refused = app.send("POST", "/products", &[LINES], &lines).await;
    assert_eq!(refused.refusal(), (413, "payload-too-large".into()));
    let taken = app.get("/products?name=L&limit=0").await.header("x-total-count").to_string();
    assert_ne!(taken, "0");
    assert!(refused.json()["hint"].as_str().unwrap().contains(&format!("the {taken} rows before")), "{refused:?}");
    assert_eq!(app.send("POST", "/products", &[LINES, STRICT], &lines).await.refusal().0, 413);
    assert_eq!(app.get("/products?name=L&limit=0").await.header("x-total-count"), taken, "strict: none of them");
}
