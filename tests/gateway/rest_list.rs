//! Lists and single rows.

use serde_json::json;

use diorama::gateway::MountOptions;

use crate::harness::{App, products, rows};

#[tokio::test]
async fn lists_are_served_from_the_facade_without_asking_the_master() {
    let app = App::start().await;
    let before = app.master.calls().total();
    let all = app.get("/products").await;
    assert_eq!(all.status, 200);
    assert_eq!(all.ids(), ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(all.header("content-type"), "application/json");
    assert_eq!(all.header("x-total-count"), "7");
    assert_eq!(all.header("content-range"), "0-6/7");
    assert_eq!(all.header("cache-control"), "no-cache");
    assert_eq!(all.header("cache-status"), "diorama; hit");
    assert_eq!(all.header("dio-position"), app.dio.position().to_string());
    assert_eq!(app.get("/products?price=gte.30&order=price.desc&limit=2").await.ids(), ["7", "6"]);
    assert_eq!(app.get("/products?q=bun+3").await.ids(), ["3"]);
    assert_eq!(app.get("/products?_sort=price&_order=desc&_page=2&_limit=3").await.ids(), ["4", "3", "2"]);
    assert_eq!(app.get("/products?id=2&id=5").await.ids(), ["2", "5"]);
    assert_eq!(app.master.calls().total(), before, "the master was asked");
}

#[tokio::test]
async fn pages_say_where_they_are_and_where_the_others_are() {
    let app = App::start().await;
    let page = app.get("/products?offset=3&limit=3").await;
    assert_eq!(page.ids(), ["4", "5", "6"]);
    assert_eq!(page.header("content-range"), "3-5/7");
    let link = page.header("link");
    for expected in [
        "</products?limit=3>; rel=\"first\"",
        "</products?limit=3>; rel=\"prev\"",
        "</products?limit=3&offset=6>; rel=\"next\"",
        "</products?limit=3&offset=6>; rel=\"last\"",
    ] {
        assert!(link.contains(expected), "{expected} not in {link}");
    }
    let last = app.get("/products?price=gt.0&offset=6&limit=3").await;
    assert_eq!(last.ids(), ["7"]);
    assert!(!last.header("link").contains("next") && last.header("link").contains("price=gt.0&limit=3"));
    let beyond = app.get("/products?offset=70").await;
    assert_eq!((beyond.text(), beyond.header("content-range")), ("[]", "*/7"));
    let none = app.get("/products?limit=0").await;
    assert_eq!((none.text(), none.header("x-total-count")), ("[]", "7"));
}

#[tokio::test]
async fn select_shows_a_part_of_each_row() {
    let app = App::start().await;
    let some = app.get("/products?select=id,cost:price&limit=1").await;
    assert_eq!(some.json(), json!([{ "id": "1", "cost": 10 }]));
    assert_eq!(app.get("/products/1?select=name").await.json(), json!({ "name": "Bun 1" }));
}

#[tokio::test]
async fn one_row_by_id_and_head_has_the_same_headers() {
    let app = App::start().await;
    let row = app.get("/products/3").await;
    assert_eq!(row.json(), json!({ "id": "3", "name": "Bun 3", "price": 30 }));
    let head = app.send("HEAD", "/products/3", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("etag"), row.header("etag"));
    assert_eq!(head.header("content-length"), row.body.len().to_string());
    let head = app.send("HEAD", "/products?limit=2", &[], "").await;
    assert_eq!((head.status, head.header("x-total-count"), head.body.len()), (200, "7", 0));
}

#[tokio::test]
async fn etags_give_304_until_a_row_changes() {
    let app = App::start().await;
    let (list, row) = (app.get("/products?limit=2").await, app.get("/products/1").await);
    let known = |path: &'static str, etag: &str| {
        let (etag, app) = (etag.to_string(), &app);
        async move { app.send("GET", path, &[("If-None-Match", &etag)], "").await }
    };
    for (path, answer) in [("/products?limit=2", &list), ("/products/1", &row)] {
        let etag = answer.header("etag");
        let again = known(path, etag).await;
        assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, etag));
        assert_eq!(known(path, &format!("\"x\", W/{etag}")).await.status, 304);
        assert_eq!(known(path, "\"x\"").await.status, 200);
    }
    assert_eq!(app.json("PATCH", "/products/1", r#"{"price":11}"#).await.status, 202);
    assert_eq!(known("/products?limit=2", list.header("etag")).await.status, 200);
    assert_eq!(known("/products/1", row.header("etag")).await.status, 200);
}

#[tokio::test]
async fn an_unchanged_refresh_leaves_list_etags_alone() {
    let app = App::start().await;
    let before = app.get("/products").await;
    let refreshed = app.send("POST", "/products/_refresh", &[], "").await;
    assert_eq!(refreshed.status, 200, "{refreshed:?}");
    assert_eq!(refreshed.json()["changed"], 0);
    assert_eq!(app.get("/products").await.header("etag"), before.header("etag"));
}

#[tokio::test]
async fn the_query_body_asks_the_same_as_the_query_string() {
    let app = App::start().await;
    let body = r#"{"where":{"price":{"gte":30}},"order":[{"column":"price","desc":true}],"select":["id"],"limit":2}"#;
    let expected = json!([{ "id": "7" }, { "id": "6" }]);
    assert_eq!(app.json("POST", "/products/_query", body).await.json(), expected);
    let answer = app.json("QUERY", "/products", body).await;
    assert_eq!((answer.json(), answer.header("x-total-count")), (expected, "5"));
    assert_eq!(app.json("QUERY", "/products", r#"{"limit":99999}"#).await.refusal().1, "limit-too-large");
    assert_eq!(app.json("QUERY", "/products", r#"{"wher":{}}"#).await.refusal().1, "invalid-parameter");
}

#[tokio::test]
async fn a_partial_copy_is_never_passed_off_as_the_whole() {
    let windowed = |lens: diorama::LensBuilder| {
        let nothing = |_: &diorama::Dio| std::future::ready(Ok(()));
        lens.on_load_chunk(|_, _, _| std::future::ready(Ok(()))).on_start(nothing)
    };
    let app = App::with(products(), rows(7), windowed, MountOptions::default(), |gateway| gateway).await;
    let some = app.get("/products?price=gte.30&order=price.desc&limit=2").await;
    assert_eq!((some.ids(), some.header("x-total-count")), (vec!["7".to_string(), "6".to_string()], "5"));
    assert_eq!(app.get("/products/3").await.json()["name"], "Bun 3");
    assert_eq!(app.get("/products/99").await.refusal().0, 404);
}

#[tokio::test]
async fn the_schema_and_the_index_say_what_is_there() {
    let app = App::start().await;
    let schema = app.get("/products/_schema").await.json();
    assert_eq!(schema["id"], "id");
    assert_eq!(
        schema["columns"][2],
        json!({ "name": "price", "type": "integer", "original_type": "", "flags": ["orderable", "searchable"] })
    );
    assert!(schema["capabilities"]["native"].as_array().unwrap().contains(&json!("insert")));
    assert_eq!(app.get("/").await.json()["resources"]["products"]["list"], "/products");
    let ready = app.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["dios"]["products"]["rows"]), (200, &json!(7)));
    assert_eq!(app.get("/healthz").await.status, 200);
}
