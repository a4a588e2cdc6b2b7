//! A key makes a request repeatable.

use diorama::Error;
use diorama::gateway::MountOptions;
use diorama::journal::InboxLimits;
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{App, products, rows};

fn keyed(key: &str) -> [(&str, &str); 2] {
    [("Content-Type", "application/json"), ("Idempotency-Key", key)]
}

#[tokio::test]
async fn of_many_requests_with_one_key_at_once_exactly_one_is_an_operation() {
    let app = App::start().await;
    app.master.writes().close();
    let headers = keyed("race");
    let send = || app.send("POST", "/products", &headers, r#"{"name":"Once"}"#);
    let answers = join_all((0..32).map(|_| send())).await;
    let operation = answers[0].header("dio-operation");
    for answer in &answers {
        assert_eq!((answer.status, answer.header("dio-operation")), (202, operation), "{}", answer.text());
    }
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotency-replayed").is_empty()).count(), 1);
    assert_eq!(app.get("/products?name=Once").await.ids().len(), 1);
    assert_eq!(app.get("/operations").await.json().as_array().unwrap().len(), 1);
    app.master.writes().open();
}

#[tokio::test]
async fn a_replay_tells_how_the_source_refused() {
    let app = App::start().await;
    app.master.refuse_writes(Error::permanent("no"));
    let headers = keyed("fails");
    let first = app.send("PATCH", "/products/1", &headers, r#"{"price":1}"#).await;
    assert_eq!(first.status, 202);
    app.send("GET", first.header("dio-operation"), &[("Prefer", "wait=10")], "").await;
    let replay = app.send("PATCH", "/products/1", &headers, r#"{"price":1}"#).await;
    assert_eq!(replay.refusal(), (502, "write-failed".into()));
    assert_eq!(replay.header("dio-operation"), first.header("dio-operation"));
    assert_eq!(app.get("/products/1").await.json()["price"], 10, "it was rolled back");
}

#[tokio::test]
async fn a_bulk_insert_that_broke_off_goes_on_where_it_was() {
    let app = App::start().await;
    let line = |n: usize| format!("{{\"id\":\"k{n}\",\"name\":\"K\"}}\n");
    let lines = |count: usize| (0..count).map(line).collect::<String>();
    let headers = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "bulk")];
    let send = async |body: String| -> Vec<serde_json::Value> {
        let answer = app.send("POST", "/products", &headers, body).await;
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let first = send(lines(3)).await;
    let whole = send(lines(5)).await;
    for at in 0..3 {
        assert_eq!((&whole[at]["operation"], &whole[at]["replayed"]), (&first[at]["operation"], &json!(true)));
    }
    assert!(whole[3..].iter().all(|result| result.get("replayed").is_none() && result["status"] == 202), "{whole:?}");
    let other = send(lines(1) + "{\"id\":\"x\",\"name\":\"X\"}\n").await;
    assert_eq!((&other[0]["replayed"], &other[1]["problem"]["code"]), (&json!(true), &json!("idempotency-key-reused")));
    assert_eq!(app.get("/products?name=K").await.ids().len(), 5);
    let array = keyed("array");
    for _ in 0..2 {
        app.send("POST", "/products", &array, r#"[{"name":"Minted"},{"name":"Minted"}]"#).await;
    }
    assert_eq!(
        app.get("/products?name=Minted").await.ids().len(),
        2,
        "rows whose ids are chosen here are the same ones"
    );
}

#[tokio::test]
async fn keys_have_a_bound_and_a_refusal_that_names_it() {
    let inbox = InboxLimits { claims: 2, ..InboxLimits::default() };
    let bounded = |lens: diorama::LensBuilder| lens.settings(|settings| settings.inbox = inbox);
    let app = App::with(products(), rows(7), bounded, MountOptions::default(), |gateway| gateway).await;
    let send = async |key: &str| app.send("PATCH", "/products/1", &keyed(key), r#"{"price":1}"#).await;
    assert_eq!((send("a").await.status, send("b").await.status), (202, 202));
    let refused = send("c").await;
    assert_eq!(refused.refusal(), (503, "busy".into()));
    assert!(
        !refused.header("retry-after").is_empty() && refused.text().contains("lens.inbox.claims"),
        "{}",
        refused.text()
    );
    assert_eq!(send("a").await.header("idempotency-replayed"), "true", "what is remembered stays so");
    assert_eq!(app.send("PATCH", "/products/1", &keyed("c")[..1], r#"{"price":2}"#).await.status, 202);
    let metrics = app.get("/metrics").await;
    assert!(metrics.text().contains("diorama_claims{dio=\"products\"} 2\n"));
}
