//! What a request prefers.

use diorama::Error;
use serde_json::json;

use crate::harness::App;

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn an_answer_names_the_preferences_that_were_followed_and_no_others() {
    let app = App::start().await;
    let all = "respond-async, wait=9, return=minimal, handling=lenient, max-affected=5, colour=red";
    for (method, path, media, body, applied) in [
        (
            "PATCH",
            "/products/1",
            "application/json",
            r#"{"price":1}"#,
            "respond-async, wait=9, return=minimal, handling=lenient",
        ),
        (
            "PATCH",
            "/products?id=1",
            "application/json",
            r#"{"price":2}"#,
            "respond-async, wait=9, handling=lenient, max-affected=5",
        ),
        (
            "POST",
            "/products",
            "application/json",
            r#"[{"id":"a","name":"A"}]"#,
            "respond-async, wait=9, handling=lenient",
        ),
        (
            "POST",
            "/products",
            "application/x-ndjson",
            r#"{"id":"b","name":"B"}"#,
            "respond-async, wait=9, handling=lenient",
        ),
    ] {
        let answer = app.send(method, path, &[("Content-Type", media), ("Prefer", all)], body).await;
        assert!([200, 204].contains(&answer.status), "{answer:?}");
        assert_eq!(answer.header("preference-applied"), applied, "{method} {path} {media}");
    }
    assert_eq!(app.json("PATCH", "/products/1", r#"{"price":3}"#).await.header("preference-applied"), "");
}

#[tokio::test]
async fn what_is_not_understood_is_400_under_strict_handling_and_ignored_otherwise() {
    let app = App::start().await;
    let before = app.dio.position();
    for (path, media) in [("/products/1", "application/json"), ("/products?id=1", "application/json")] {
        let strict = [("Content-Type", media), ("Prefer", "handling=strict, colour=red")];
        let refused = app.send("PATCH", path, &strict, r#"{"price":1}"#).await;
        assert_eq!(refused.refusal(), (400, "invalid-header".into()), "{path}");
    }
    let lines = [("Content-Type", "application/x-ndjson"), ("Prefer", "handling=strict, wait=soon")];
    assert_eq!(app.send("POST", "/products", &lines, r#"{"name":"a"}"#).await.refusal().0, 400);
    assert_eq!(app.dio.position(), before);
    let lenient = [JSON, ("Prefer", "colour=red, wait=soon")];
    assert_eq!(app.send("PATCH", "/products/1", &lenient, r#"{"price":1}"#).await.status, 202);
}

#[tokio::test]
async fn a_write_by_filter_waits_for_all_of_its_rows_and_says_how_each_stands() {
    let app = App::start().await;
    let wait = [JSON, ("Prefer", "wait=10")];
    let done = app.send("PATCH", "/products?price=lte.20", &wait, r#"{"price":1}"#).await;
    let results = done.json()["results"].clone();
    assert_eq!((done.status, results[0]["status"].clone(), results[1]["id"].clone()), (200, json!(200), json!("2")));
    app.master.writes().close();
    let short = [JSON, ("Prefer", "wait=0")];
    let queued = app.send("PATCH", "/products?price=1", &short, r#"{"price":2}"#).await;
    assert_eq!((queued.status, queued.json().get("results").is_some()), (202, false));
    let late = app.send("DELETE", "/products?price=2", &[("Prefer", "wait=1")], "").await;
    assert_eq!((late.status, late.json()["results"][0]["status"].clone()), (202, json!(202)));
    app.master.refuse_writes(Error::permanent("no"));
    app.master.writes().open();
    let refused = app.send("DELETE", "/products?price=gte.60", &[("Prefer", "wait=10")], "").await;
    let problem = &refused.json()["results"][0]["problem"];
    assert_eq!((refused.status, problem["code"].clone()), (200, json!("write-failed")));
}
