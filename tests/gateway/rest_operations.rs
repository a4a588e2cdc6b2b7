//! Operations.

use diorama::Error;
use diorama::dio::Retry;
use diorama::gateway::MountOptions;
use serde_json::json;

use crate::harness::{App, products, rows};

#[tokio::test]
async fn c3_operations_are_listed_newest_first_and_narrowed() {
    let app = App::start().await;
    app.master.hold();
    let first = app.json("PATCH", "/products/1", r#"{"price":1}"#).await;
    let second = app.send("DELETE", "/products/2", &[], "").await;
    let all = app.get("/operations").await.json();
    let own = |at: usize| all[at]["links"]["self"].clone();
    assert_eq!((own(0), own(1)), (json!(second.header("dio-operation")), json!(first.header("dio-operation"))));
    assert_eq!(all[1]["links"]["record"], "/products/1");
    let after =
        app.get(&format!("/operations?dio=products&limit=1&after={}", all[0]["id"].as_str().unwrap())).await.json();
    assert_eq!(after[0]["id"], all[1]["id"]);
    assert_eq!(app.get("/operations?state=parked").await.text(), "[]");
    assert_eq!(app.get("/operations?dio=nope").await.refusal().1, "dio-not-found");
    assert_eq!(app.get("/operations?nope=1").await.refusal().1, "invalid-parameter");
    app.master.open();
}

#[tokio::test]
async fn c3_a_parked_operation_can_be_retried_or_discarded_and_no_other() {
    let retry = Retry { max_age: std::time::Duration::ZERO, ..Retry::default() };
    let app = App::with(products(), rows(2), |lens| lens.retry(retry), MountOptions::default(), |g| g).await;
    app.master.fail_with(Error::transient("away"));
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    let mut parked = Vec::new();
    for body in [r#"{"price":1}"#, r#"{"price":2}"#] {
        let refused = app.send("PATCH", "/products/1", &wait, body).await;
        assert_eq!(refused.refusal(), (502, "write-failed".into()));
        parked.push(refused.header("dio-operation").to_string());
    }
    assert_eq!(app.get(&parked[0]).await.json()["state"], "parked");
    let again = app.send("POST", &format!("{}/retry", parked[0]), &[], "").await;
    assert_eq!(
        (again.status, format!("/operations/{}", again.json()["retry_of"].as_str().unwrap())),
        (202, parked[0].clone())
    );
    assert_eq!(app.send("DELETE", &parked[1], &[], "").await.status, 204);
    assert_eq!(app.send("DELETE", &parked[1], &[], "").await.refusal(), (409, "conflict".into()));
    assert_eq!(app.get(&parked[1]).await.json()["state"], "discarded");
}
