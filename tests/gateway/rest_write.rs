//! Writes.

use diorama::gateway::MountOptions;
use diorama::{Column, ColumnType, Error, Schema};
use serde_json::json;

use crate::harness::{App, products, rows};

#[tokio::test]
async fn an_insert_is_answered_before_the_master_has_it_and_is_read_at_once() {
    let app = App::start().await;
    app.master.writes().close();
    let answer = app.json("POST", "/products/muffin", r#"{"name":"Muffin","price":175}"#).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json(), json!({ "id": "muffin", "name": "Muffin", "price": 175 }));
    assert_eq!(answer.header("location"), "/products/muffin");
    assert_eq!(answer.header("dio-position"), app.dio.position().to_string());
    assert_eq!(answer.header("dio-durable"), "disk");
    assert!(answer.header("etag").is_empty());
    assert_eq!(app.get("/products/muffin").await.status, 200);
    let operation = app.get(answer.header("dio-operation")).await.json();
    assert!(["queued", "running"].contains(&operation["state"].as_str().unwrap()), "{operation}");
    app.master.writes().open();
    let settled = app.send("GET", answer.header("dio-operation"), &[("Prefer", "wait=10")], "").await.json();
    assert_eq!(
        (&settled["state"], &settled["op"], &settled["record"]),
        (&json!("applied"), &json!("insert"), &json!("muffin"))
    );
    assert!(app.master.row("muffin").await.is_some());
}

#[tokio::test]
async fn ids_come_from_the_body_or_are_minted_where_they_are_text() {
    let app = App::start().await;
    let given = app.json("POST", "/products", r#"{"id":"a b/c","name":"x"}"#).await;
    assert_eq!((given.status, given.header("location")), (202, "/products/a%20b%2Fc"));
    assert_eq!(app.get("/products/a%20b%2Fc").await.json()["name"], "x");
    let minted = app.json("POST", "/products", r#"{"name":"y"}"#).await;
    let id = minted.json()["id"].as_str().unwrap().to_string();
    assert_eq!((minted.status, id.len()), (202, 36));
    assert_eq!(app.get(minted.header("location")).await.json()["name"], "y");
}

#[tokio::test]
async fn whole_number_ids_are_the_masters_to_give() {
    let columns = vec![Column::new("id", ColumnType::Integer), Column::new("name", ColumnType::String)];
    let rows = rows(2).into_iter().map(|(id, mut row)| {
        row.remove("price");
        (id, row)
    });
    let app = App::with(Schema::new("id", columns), rows.collect(), |l| l, MountOptions::default(), |g| g).await;
    let app = app.leaves_pending("the master panics on every write");
    let made = app.json("POST", "/products", r#"{"name":"new"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].clone();
    assert!(id.is_i64());
    assert_eq!(made.header("location"), format!("/products/{id}"));
    assert!(app.master.row(&id.to_string()).await.is_some());
    assert_eq!(app.json("PUT", "/products/abc", r#"{"name":"x"}"#).await.refusal(), (422, "validation-failed".into()));
    assert_eq!(app.json("PUT", "/products/9", r#"{"id":9,"name":"x"}"#).await.json(), json!({ "id": 9, "name": "x" }));
    app.master.panic();
    let panicked = app.json("POST", "/products", r#"{"name":"new"}"#).await;
    assert_eq!(panicked.refusal(), (500, "internal".into()));
    assert_eq!(app.get("/products/9").await.status, 200);
}

#[tokio::test]
async fn put_patch_and_delete_answer_with_the_row() {
    let app = App::start().await;
    let put = app.json("PUT", "/products/1", r#"{"name":"Roll","price":1}"#).await;
    assert_eq!(
        (put.status, put.json(), put.header("location")),
        (202, json!({ "id": "1", "name": "Roll", "price": 1 }), "")
    );
    let created = app.json("PUT", "/products/new", r#"{"id":"new","name":"N"}"#).await;
    assert_eq!((created.status, created.header("location")), (202, "/products/new"));
    let patched = app.json("PATCH", "/products/2", r#"{"price":null,"extra":{"a":1}}"#).await;
    assert_eq!(patched.json(), json!({ "id": "2", "name": "Bun 2", "price": null, "extra": { "a": 1 } }));
    let deleted = app.send("DELETE", "/products/3", &[], "").await;
    assert_eq!((deleted.status, deleted.json()["id"].clone()), (202, json!("3")));
    assert_eq!(app.get("/products/3").await.refusal(), (404, "not-found".into()));
    assert_eq!(app.send("DELETE", "/products/3", &[], "").await.refusal(), (404, "not-found".into()));
    assert_eq!(app.json("PATCH", "/products/3", "{}").await.refusal(), (404, "not-found".into()));
}

#[tokio::test]
async fn prefer_wait_gives_the_masters_answer() {
    let app = App::start().await;
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    let made = app.send("POST", "/products/m", &wait, r#"{"name":"M"}"#).await;
    assert_eq!(
        (made.status, made.header("preference-applied"), made.header("dio-durable")),
        (201, "wait=10", "master")
    );
    assert_eq!(made.header("etag"), app.get("/products/m").await.header("etag"));
    assert_eq!(app.send("PATCH", "/products/m", &wait, r#"{"price":2}"#).await.status, 200);
    let minimal = [("Content-Type", "application/json"), ("Prefer", "wait=10, return=minimal")];
    let put = app.send("PUT", "/products/m", &minimal, r#"{"name":"M"}"#).await;
    assert_eq!((put.status, put.body.len()), (204, 0));
}

#[tokio::test]
async fn rolled_back_a_refusal_of_the_master_is_told_to_who_waits_and_rolled_back() {
    let app = App::start().await;
    app.master.refuse_writes(Error::permanent("no: secret detail"));
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    let refused = app.send("PATCH", "/products/1", &wait, r#"{"price":5}"#).await;
    assert_eq!(refused.refusal(), (502, "write-failed".into()));
    assert!(!refused.text().contains("secret"));
    assert_eq!(app.get("/products/1").await.json()["price"], 10);
    let operation = app.get(refused.header("dio-operation")).await.json();
    assert_eq!(operation["state"], "failed");
    app.master.refuse_writes(Error::Conflict { id: "1".into(), detail: "is locked".into() });
    assert_eq!(app.send("PATCH", "/products/1", &wait, r#"{"price":5}"#).await.refusal(), (409, "conflict".into()));
}

#[tokio::test]
async fn a_wait_that_is_too_short_is_202_and_the_write_goes_on() {
    let app = App::start().await;
    app.master.writes().close();
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=0")];
    assert_eq!(app.send("PATCH", "/products/1", &wait, r#"{"price":5}"#).await.status, 202);
    app.master.writes().open();
}

#[tokio::test]
async fn an_id_that_is_taken_is_409_and_the_very_same_row_is_200() {
    let app = App::start().await;
    assert_eq!(app.json("POST", "/products/1", r#"{"name":"Other"}"#).await.refusal(), (409, "already-exists".into()));
    let same = app.json("POST", "/products/1", r#"{"name":"Bun 1","price":10}"#).await;
    assert_eq!((same.status, same.header("dio-operation")), (200, ""));
}

#[tokio::test]
async fn conditions_are_judged_on_what_readers_see() {
    let app = App::start().await;
    let etag = app.get("/products/1").await.header("etag").to_string();
    let with = |name: &'static str, value: &str, body: &'static str| {
        let (value, app) = (value.to_string(), &app);
        async move { app.send("PATCH", "/products/1", &[("Content-Type", "application/json"), (name, &value)], body).await }
    };
    assert_eq!(with("If-Match", &etag, r#"{"price":1}"#).await.status, 202);
    assert_eq!(with("If-Match", &etag, r#"{"price":2}"#).await.refusal(), (412, "precondition-failed".into()));
    assert_eq!(with("If-Match", "*", r#"{"price":3}"#).await.status, 202);
    let now = app.get("/products/1").await.header("etag").to_string();
    assert_eq!(with("If-Match", &format!("W/{now}"), r#"{"price":4}"#).await.status, 412);
    assert_eq!(
        with("If-Match", &format!("\"x\", {}-c\"", now.trim_end_matches('"')), r#"{"price":5}"#).await.status,
        202
    );
    let put = [("Content-Type", "application/json"), ("If-None-Match", "*")];
    assert_eq!(app.send("PUT", "/products/1", &put, r#"{"name":"x"}"#).await.status, 412);
    assert_eq!(app.send("PUT", "/products/fresh", &put, r#"{"name":"x"}"#).await.status, 202);
    assert_eq!(app.send("DELETE", "/products/none", &[("If-Match", "*")], "").await.status, 412);
}

#[tokio::test]
async fn changes_can_be_made_to_need_a_version() {
    let options = MountOptions { require_if_match: true, ..MountOptions::default() };
    let app = App::with(products(), rows(1), |l| l, options, |g| g).await;
    assert_eq!(app.json("PATCH", "/products/1", "{}").await.refusal(), (428, "precondition-required".into()));
    assert_eq!(app.json("POST", "/products/2", r#"{"name":"x"}"#).await.status, 202);
}

#[tokio::test]
async fn an_idempotency_key_makes_one_operation_and_a_replay_shows_its_present_state() {
    let app = App::start().await;
    app.master.writes().close();
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "\"k-1\"")];
    let first = app.send("POST", "/products", &headers, r#"{"name":"Once"}"#).await;
    let again = app.send("POST", "/products", &headers, r#"{"name":"Once"}"#).await;
    assert_eq!((first.status, again.status), (202, 202));
    assert_eq!(again.header("dio-operation"), first.header("dio-operation"));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!((again.header("idempotency-replayed"), first.header("idempotency-replayed")), ("true", ""));
    assert_eq!(app.get("/products?name=Once").await.header("x-total-count"), "1");
    let other = app.send("POST", "/products", &headers, r#"{"name":"Twice"}"#).await;
    assert_eq!(other.refusal(), (422, "idempotency-key-reused".into()));
    app.master.writes().open();
    let wait = [("Prefer", "wait=10")];
    app.send("GET", first.header("dio-operation"), &wait, "").await;
    let late = app.send("POST", "/products", &headers, r#"{"name":"Once"}"#).await;
    assert_eq!((late.status, late.header("dio-operation")), (201, first.header("dio-operation")));
}

#[tokio::test]
async fn an_array_or_lines_insert_many_with_a_result_each() {
    let app = App::start().await;
    let answer = app
        .json(
            "POST",
            "/products",
            r#"[{"id":"a","name":"A"},{"id":"1","name":"taken"},{"id":"b"},{"id":"1","name":"Bun 1","price":10}]"#,
        )
        .await;
    let results = answer.json();
    let statuses: Vec<_> =
        results.as_array().unwrap().iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!((answer.status, statuses), (200, vec![202, 409, 422, 200]));
    assert_eq!(results[1]["problem"]["code"], "already-exists");
    assert_eq!(results[2]["line"], 3);
    let lines: String = (0..300).map(|n| format!("{{\"id\":\"l{n}\",\"name\":\"L\"}}\n\n")).collect();
    let answer = app.send("POST", "/products", &[("Content-Type", "application/x-ndjson")], &lines).await;
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    assert_eq!(answer.text().lines().filter(|line| line.contains("\"status\":202")).count(), 300);
    assert!(answer.text().lines().nth(1).unwrap().contains("\"line\":3,"), "blank lines are counted");
    assert_eq!(app.get("/products?name=L&limit=0").await.header("x-total-count"), "300");
}

#[tokio::test]
async fn writes_by_filter_touch_what_matches_and_no_more_than_allowed() {
    let options = MountOptions { max_affected: 3, ..MountOptions::default() };
    let app = App::with(products(), rows(7), |l| l, options, |g| g).await;
    let patched = app.json("PATCH", "/products?price=lte.20", r#"{"price":0}"#).await;
    assert_eq!((patched.status, &patched.json()["affected"]), (202, &json!(2)));
    assert_eq!(app.get("/products?price=0").await.ids(), ["1", "2"]);
    let refused = app.send("DELETE", "/products?price=gt.0", &[], "").await;
    assert_eq!(refused.refusal(), (400, "max-affected".into()));
    let lowered = app.send("DELETE", "/products?price=0", &[("Prefer", "max-affected=1")], "").await;
    assert_eq!(lowered.refusal(), (400, "max-affected".into()));
    assert_eq!(app.get("/products").await.header("x-total-count"), "7");
    assert_eq!(app.send("DELETE", "/products", &[], "").await.refusal(), (400, "invalid-parameter".into()));
    assert_eq!(app.send("DELETE", "/products?price=0", &[], "").await.json()["affected"], 2);
    assert_eq!(app.get("/products").await.header("x-total-count"), "5");
    assert_eq!(app.send("DELETE", "/products?all=true", &[], "").await.status, 202);
    assert_eq!(app.get("/products").await.text(), "[]");
}

#[tokio::test]
async fn a_key_on_a_row_that_is_there_already_stands_for_nothing() {
    let app = App::start().await;
    let row = r#"{"name":"Muffin","price":175}"#;
    let first = app.send("POST", "/products/muffin", &[("content-type", "application/json")], row).await;
    assert_eq!(first.status, 202);
    for _ in 0..2 {
        let headers = [("content-type", "application/json"), ("idempotency-key", "again")];
        assert_eq!(app.send("POST", "/products/muffin", &headers, row).await.status, 200);
    }
}
