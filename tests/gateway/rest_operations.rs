//! Operations.

use std::time::Duration;

use diorama::Error;
use diorama::dio::Retry;
use diorama::gateway::MountOptions;
use serde_json::{Value, json};

use crate::harness::{Answer, App, products, rows};

/// A master that answers nothing, and a Dio that parks at once.
async fn parking(count: usize) -> App {
    parking_with(count, |lens| lens).await
}

async fn parking_with(count: usize, lens: impl FnOnce(diorama::LensBuilder) -> diorama::LensBuilder) -> App {
    let retry = Retry { max_age: Duration::ZERO, ..Retry::default() };
    let lens = |builder: diorama::LensBuilder| lens(builder.retry(retry));
    let app = App::with(products(), rows(count), lens, MountOptions::default(), |g| g)
        .await
        .leaves_pending("parked writes wait for a person");
    app.master.refuse_writes(Error::transient("away"));
    app
}

/// A write that ends parked; its operation's path.
async fn park(app: &App, method: &str, path: &str, body: &str) -> String {
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    let refused = app.send(method, path, &wait, body).await;
    assert_eq!(refused.refusal(), (502, "write-failed".into()));
    refused.header("dio-operation").to_string()
}

fn ids(answer: &Answer) -> Vec<String> {
    let ids = |all: &[Value]| all.iter().map(|op| op["id"].as_str().unwrap().to_string()).collect();
    ids(answer.json().as_array().unwrap())
}

/// Where `Link` says that the next page is.
fn next(answer: &Answer) -> Option<String> {
    let link = answer.header("link").strip_prefix('<')?;
    Some(link.strip_suffix(">; rel=\"next\"").unwrap().to_string())
}

#[tokio::test]
async fn operations_are_listed_newest_first_and_narrowed() {
    let app = App::start().await;
    app.master.writes().close();
    let first = app.json("PATCH", "/products/1", r#"{"price":1}"#).await;
    let second = app.send("DELETE", "/products/2", &[], "").await;
    let all = app.get("/operations").await.json();
    let own = |at: usize| all[at]["links"]["self"].clone();
    assert_eq!((own(0), own(1)), (json!(second.header("dio-operation")), json!(first.header("dio-operation"))));
    assert_eq!(all[1]["links"]["record"], "/products/1");
    let after =
        app.get(&format!("/operations?dio=products&limit=1&after={}", all[0]["id"].as_str().unwrap())).await.json();
    assert_eq!(after[0]["id"], all[1]["id"]);
    let of_one = app.get("/operations?record=2").await;
    assert_eq!((of_one.header("x-total-count"), &of_one.json()[0]["op"]), ("1", &json!("delete")));
    assert_eq!(app.get("/operations?state=parked").await.text(), "[]");
    assert_eq!(app.get("/operations?state=running,queued").await.header("x-total-count"), "2");
    for (path, code) in [
        ("/operations?dio=nope", "dio-not-found"),
        ("/operations?nope=1", "invalid-parameter"),
        ("/operations?state=parked,dead", "invalid-parameter"),
        ("/operations?after=op_1", "invalid-parameter"),
        ("/operations?limit=1001", "limit-too-large"),
    ] {
        assert_eq!(app.get(path).await.refusal().1, code, "{path}");
    }
    app.master.writes().open();
}

#[tokio::test]
async fn pages_of_operations_follow_their_links_and_count_them_all() {
    let app = App::start().await;
    app.master.writes().close();
    for at in 1..=5 {
        app.json("PATCH", &format!("/products/{at}"), r#"{"price":1}"#).await;
    }
    let whole = ids(&app.get("/operations").await);
    let (mut seen, mut path) = (Vec::new(), Some("/operations?state=queued,running&limit=2".to_string()));
    while let Some(at) = path {
        let page = app.get(&at).await;
        assert_eq!(page.header("x-total-count"), "5");
        seen.extend(ids(&page));
        path = next(&page);
    }
    assert_eq!(seen, whole);
    let whole_page = app.get("/operations?limit=5").await;
    assert_eq!(next(&whole_page), None);
    let lines = app.send("GET", "/operations", &[("Accept", "application/x-ndjson")], "").await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), app.get("/operations").await.json());
    app.master.writes().open();
}

#[tokio::test]
async fn whoever_waits_for_an_operation_is_told_its_end() {
    let app = App::start().await;
    app.master.writes().close();
    let path = app.json("PATCH", "/products/1", r#"{"price":1}"#).await.header("dio-operation").to_string();
    let at_once = app.get(&format!("{path}?wait=0")).await;
    assert!(["queued", "running"].contains(&at_once.json()["state"].as_str().unwrap()));
    assert_eq!(at_once.header("retry-after"), "1");
    let waiting = format!("{path}?wait=20");
    let preferring = [("Prefer", "wait=20")];
    let (by_query, by_header, ()) =
        tokio::join!(app.get(&waiting), app.send("GET", &path, &preferring, ""), async { app.master.writes().open() });
    assert_eq!((by_query.json()["state"].clone(), by_query.header("retry-after")), (json!("applied"), ""));
    assert_eq!(by_header.json()["state"], "applied");
    assert_eq!(by_header.header("preference-applied"), "wait=20");
    assert_eq!(app.get(&format!("{path}?wait=31")).await.refusal(), (400, "invalid-parameter".into()));
    let unknown = app.get("/operations/op_00000000000000000000000000?wait=20").await;
    assert_eq!(unknown.refusal(), (404, "not-found".into()));
    assert!(unknown.text().contains("or it ended long ago"));
    assert_eq!(app.get("/operations/x").await.refusal().0, 404);
}

#[tokio::test]
async fn a_parked_operation_can_be_retried_or_discarded_and_no_other() {
    let app = parking(2).await;
    let mut parked = Vec::new();
    for body in [r#"{"price":1}"#, r#"{"price":2}"#] {
        parked.push(park(&app, "PATCH", "/products/1", body).await);
    }
    assert_eq!(app.get(&parked[0]).await.json()["state"], "parked");
    let again = app.send("POST", &format!("{}/retry", parked[0]), &[], "").await;
    assert_eq!(
        (again.status, format!("/operations/{}", again.json()["retry_of"].as_str().unwrap())),
        (202, parked[0].clone())
    );
    let twice = app.send("POST", &format!("{}/retry", parked[0]), &[], "").await;
    assert_eq!(twice.refusal(), (409, "conflict".into()));
    assert!(twice.text().contains(&format!("operation {} is not parked", &parked[0]["/operations/".len()..])));
    assert_eq!(app.send("DELETE", &parked[1], &[], "").await.status, 204);
    assert_eq!(app.send("DELETE", &parked[1], &[], "").await.refusal(), (409, "conflict".into()));
    assert_eq!(app.get(&parked[1]).await.json()["state"], "discarded");
}

#[tokio::test]
async fn a_retry_that_no_longer_fits_its_row_is_told_what_is_in_the_way() {
    let app = parking(2).await;
    let insert = park(&app, "POST", "/products/new", r#"{"name":"New"}"#).await;
    let patch = park(&app, "PATCH", "/products/1", r#"{"price":1}"#).await;
    // Meanwhile the one was made by somebody else, and the other removed.
    app.master.lose(["1".to_string()]).await;
    app.dio.refresh().await.unwrap();
    app.dio.patched("new", diorama::Record::from_iter([("name".to_string(), "Other".into())])).await.unwrap();
    for (path, detail) in [(&insert, "row \\\"new\\\" already exists"), (&patch, "row \\\"1\\\" no longer exists")] {
        let refused = app.send("POST", &format!("{path}/retry"), &[], "").await;
        assert_eq!(refused.refusal(), (409, "conflict".into()));
        assert!(refused.text().contains(detail), "{}", refused.text());
        assert_eq!(app.get(path).await.json()["state"], "parked");
    }
}

#[tokio::test]
async fn all_parked_operations_are_retried_in_their_order_and_each_is_told() {
    let app = parking(3).await;
    let insert = park(&app, "POST", "/products/new", r#"{"name":"New"}"#).await;
    let patch = park(&app, "PATCH", "/products/3", r#"{"price":1}"#).await;
    let gone = park(&app, "PATCH", "/products/2", r#"{"price":1}"#).await;
    app.master.writes().close();
    app.json("DELETE", "/products/2", "").await;
    for (path, code) in
        [("?state=failed", "invalid-parameter"), ("?dio=nope", "dio-not-found"), ("?limit=2000", "limit-too-large")]
    {
        assert_eq!(app.send("POST", &format!("/operations/_retry{path}"), &[], "").await.refusal().1, code);
    }
    let some = app.send("POST", "/operations/_retry?state=parked&dio=products&limit=1", &[], "").await;
    assert_eq!((some.status, some.header("x-total-count")), (200, "3"));
    let told = |answer: &Answer| -> Vec<(String, u64)> {
        let one =
            |told: &Value| (format!("/operations/{}", told["id"].as_str().unwrap()), told["status"].as_u64().unwrap());
        answer.json().as_array().unwrap().iter().map(one).collect()
    };
    assert_eq!(told(&some), [(insert, 202)]);
    assert_eq!(some.json()[0]["operation"]["record"], "new");
    let rest = app.send("POST", "/operations/_retry?state=parked", &[], "").await;
    assert_eq!(told(&rest), [(patch, 202), (gone, 409)]);
    assert_eq!(rest.json()[1]["problem"]["code"], "conflict");
    assert_eq!(app.get("/operations?state=parked").await.header("x-total-count"), "1");
    app.master.writes().open();
}

#[tokio::test]
async fn parked_writes_hold_new_ones_up_before_they_are_too_many() {
    let app =
        parking_with(3, |lens| lens.write_queue_capacity(2).settings(|settings| settings.count_parked = true)).await;
    let first = park(&app, "PATCH", "/products/1", r#"{"price":1}"#).await;
    let second = park(&app, "PATCH", "/products/2", r#"{"price":1}"#).await;
    let full = app.json("PATCH", "/products/3", r#"{"price":1}"#).await;
    assert_eq!(full.refusal(), (503, "queue-full".into()));
    assert!(full.text().contains("state=parked"));
    // What is parked can be tried again all the same, and what is given up makes room.
    app.master.writes().close();
    assert_eq!(app.send("POST", &format!("{first}/retry"), &[], "").await.status, 202);
    assert_eq!(app.json("PATCH", "/products/3", r#"{"price":1}"#).await.status, 503);
    assert_eq!(app.send("DELETE", &second, &[], "").await.status, 204);
    assert_eq!(app.json("PATCH", "/products/3", r#"{"price":1}"#).await.status, 202);
    app.master.writes().open();
}
