//! Writes that say which version they were made for.

use futures_util::future::join_all;

use crate::harness::App;

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn of_writers_that_race_for_one_version_exactly_one_wins() {
    let app = App::start().await;
    for writers in [2, 32] {
        let etag = app.get("/products/1").await.header("etag").to_string();
        let bodies: Vec<String> = (0..writers).map(|n| format!(r#"{{"price":{}}}"#, writers * 100 + n)).collect();
        let headers = [JSON, ("If-Match", etag.as_str())];
        let answers = join_all(bodies.iter().map(|body| app.send("PATCH", "/products/1", &headers, body))).await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 202).collect();
        assert_eq!(won.len(), 1, "{writers} writers");
        assert_eq!(answers.iter().filter(|answer| answer.status == 412).count(), writers - 1);
        assert_eq!(app.get("/products/1").await.json()["price"], won[0].json()["price"]);
    }
    let headers = [JSON, ("If-None-Match", "*")];
    let created = join_all((0..32).map(|n| {
        let body = format!(r#"{{"name":"N{n}"}}"#);
        let (app, headers) = (&app, &headers);
        async move { app.send("PUT", "/products/fresh", headers, body).await.status }
    }));
    assert_eq!(created.await.iter().filter(|status| **status == 202).count(), 1, "and one creates the row");
}

#[tokio::test]
async fn a_row_has_one_etag_whatever_tells_it() {
    let app = App::start().await;
    let wait = [JSON, ("Prefer", "wait=10")];
    let made = app.send("POST", "/products/e", &wait, r#"{"name":"E","price":1}"#).await;
    let same = app.send("POST", "/products/e", &wait, r#"{"name":"E","price":1}"#).await;
    let put = app.send("PUT", "/products/e", &wait, r#"{"price":1,"name":"E"}"#).await;
    let patched = app.send("PATCH", "/products/e", &wait, r#"{"price":1}"#).await;
    let read = app.get("/products/e").await;
    let head = app.send("HEAD", "/products/e", &[], "").await;
    assert_eq!((made.status, same.status, put.status, patched.status), (201, 200, 200, 200));
    for answer in [&made, &same, &put, &patched, &head] {
        assert!(!read.header("etag").is_empty() && answer.header("etag") == read.header("etag"), "{answer:?}");
    }
    app.master.writes().close();
    let queued = app.json("PATCH", "/products/e", r#"{"price":2}"#).await;
    assert_eq!((queued.status, queued.header("etag")), (202, ""), "what the source has not taken has no version yet");
    app.master.writes().open();
}

#[tokio::test]
async fn both_conditions_hold_or_nothing_is_written() {
    let app = App::start().await;
    let etag = app.get("/products/1").await.header("etag").to_string();
    let (weak, other) = (format!("W/{etag}"), "\"AAAAAAAAAAAAAAAAAAAAAA\"".to_string());
    let put = async |id: &str, headers: &[(&str, &str)]| {
        let headers = [&[JSON], headers].concat();
        app.send("PUT", &format!("/products/{id}"), &headers, r#"{"name":"Bun 1","price":10}"#).await.status
    };
    for (id, headers, status) in [
        ("1", vec![("If-None-Match", etag.as_str())], 412),
        ("1", vec![("If-None-Match", weak.as_str())], 412),
        ("1", vec![("If-Match", etag.as_str()), ("If-None-Match", etag.as_str())], 412),
        ("1", vec![("If-Match", etag.as_str()), ("If-None-Match", "*")], 412),
        ("1", vec![("If-Match", "*"), ("If-None-Match", etag.as_str())], 412),
        ("none", vec![("If-Match", "*"), ("If-None-Match", other.as_str())], 412),
        ("1", vec![("If-None-Match", other.as_str())], 202),
        ("1", vec![("If-Match", etag.as_str()), ("If-None-Match", other.as_str())], 202),
        ("1", vec![("If-Match", "*"), ("If-None-Match", other.as_str())], 202),
        ("none", vec![("If-None-Match", other.as_str())], 202),
    ] {
        assert_eq!(put(id, &headers).await, status, "{id} {headers:?}");
    }
}
