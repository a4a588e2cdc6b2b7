//! Paging from row to row: `after=`.

use diorama::gateway::MountOptions;
use diorama::{ColumnType, Dio, Error, Record, Schema};
use serde_json::json;

use crate::harness::{Answer, App, products, rows};

/// Where the link `rel` leads; empty if there is none.
fn link(answer: &Answer, rel: &str) -> String {
    let links = answer.header("link").split(", ");
    let found = links.filter_map(|link| link.split_once(&format!(">; rel=\"{rel}\""))).next();
    found.map_or(String::new(), |(url, _)| url.trim_start_matches('<').to_string())
}

/// Every page from `path` on; `between` runs after each.
async fn walk(app: &App, path: &str, mut between: impl AsyncFnMut(usize)) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), path.to_string());
    while !next.is_empty() {
        let page = app.get(&next).await;
        assert_eq!(page.status, 200, "{page:?}");
        next = link(&page, "next");
        pages.push(page.ids());
        between(pages.len()).await;
    }
    pages
}

#[tokio::test]
async fn an_empty_after_begins_and_next_leads_through_all_rows_once() {
    let app = App::start().await;
    for (query, expected) in [
        ("limit=3", vec![vec!["1", "2", "3"], vec!["4", "5", "6"], vec!["7"]]),
        ("order=price.desc&limit=4", vec![vec!["7", "6", "5", "4"], vec!["3", "2", "1"]]),
        ("price=gte.30&limit=2", vec![vec!["3", "4"], vec!["5", "6"], vec!["7"]]),
        ("order=meta.nullsfirst,name.desc&limit=7", vec![vec!["7", "6", "5", "4", "3", "2", "1"]]),
        ("q=nothing&limit=3", vec![vec![]]),
    ] {
        let pages = walk(&app, &format!("/products?{query}&after="), async |_| ()).await;
        assert_eq!(pages, expected, "{query}");
    }
}

#[tokio::test]
async fn a_page_by_cursor_says_where_it_is_and_keeps_the_query() {
    let app = App::start().await;
    let first = app.get("/products?price=gt.10&order=name.desc&limit=2&after=").await;
    assert_eq!((first.header("x-total-count"), first.header("content-range")), ("6", "0-1/6"));
    assert_eq!(link(&first, "first"), "/products?price=gt.10&order=name.desc&limit=2&after=");
    assert!(link(&first, "prev").is_empty() && link(&first, "last").is_empty());
    let next = app.get(&link(&first, "next")).await;
    assert_eq!((next.ids(), next.header("content-range")), (vec!["5".to_string(), "4".into()], "2-3/6"));
    let natural = app.get(&link(&app.get("/products?limit=5&after=").await, "next")).await;
    assert_eq!((natural.ids(), natural.header("content-range")), (vec!["6".to_string(), "7".into()], "5-6/7"));
    let all = [("Accept", "application/x-ndjson")];
    let rest = app.send("GET", &link(&first, "next").replace("limit=2&", ""), &all, "").await;
    assert_eq!(rest.text().lines().count(), 4);
    assert!(app.get("/products?limit=2").await.header("link").contains("rel=\"last\""), "pages by offset stay");
}

#[tokio::test]
async fn the_query_body_takes_the_cursor_too() {
    let app = App::start().await;
    let body = |after: &str| format!(r#"{{"order":[{{"column":"price","desc":true}}],"limit":3,"after":"{after}"}}"#);
    for (method, path) in [("POST", "/products/_query"), ("QUERY", "/products")] {
        let first = app.json(method, path, &body("")).await;
        assert_eq!(first.ids(), ["7", "6", "5"]);
        let next = link(&first, "next");
        let cursor = next.strip_prefix(&format!("{path}?after=")).unwrap();
        assert_eq!(app.json(method, path, &body(cursor)).await.ids(), ["4", "3", "2"]);
        let second = app.json(method, &next, &body("")).await;
        assert_eq!(second.ids(), ["4", "3", "2"]);
        assert_ne!(second.header("etag"), first.header("etag"));
        let last = app.json(method, &link(&second, "next"), &body(cursor)).await;
        assert_eq!((last.ids(), link(&last, "next")), (vec!["1".to_string()], String::new()));
        let other = app.json(method, path, &format!(r#"{{"order":["name"],"after":"{cursor}"}}"#)).await;
        assert_eq!(other.refusal(), (400, "invalid-parameter".into()));
        for wrong in [r#"{"after":"x"}"#, r#"{"after":1}"#, r#"{"after":"","offset":1}"#] {
            assert_eq!(app.json(method, path, wrong).await.refusal().1, "invalid-parameter", "{wrong}");
        }
        assert_eq!(app.json(method, &format!("{path}?limit=1"), "{}").await.refusal().1, "unknown-parameter");
    }
    let typo = app.json("QUERY", "/products", r#"{"colour":1}"#).await.json();
    assert!(typo["detail"].as_str().unwrap().ends_with("there are where, order, select, limit, offset, after, q"));
}

#[tokio::test]
async fn a_cursor_that_does_not_fit_is_refused() {
    let app = App::start().await;
    let natural = link(&app.get("/products?limit=2&after=").await, "next");
    let natural = natural.split("after=").nth(1).unwrap();
    let priced = link(&app.get("/products?order=price&limit=2&after=").await, "next");
    let priced = priced.split("after=").nth(1).unwrap();
    for query in [
        "after=abc".to_string(),
        "after=%00".to_string(),
        format!("after={}", &natural[1..]),
        format!("order=price&after={natural}"),
        format!("after={priced}"),
        format!("order=price.desc&after={priced}"),
        format!("order=price,name&after={priced}"),
        format!("order=price&after={priced}&offset=1"),
        "after=&offset=0".to_string(),
    ] {
        let refused = app.get(&format!("/products?{query}")).await;
        assert_eq!(refused.refusal(), (400, "invalid-parameter".into()), "{query}");
        assert!(refused.json()["detail"].as_str().unwrap().starts_with("after: "), "{refused:?}");
    }
    assert_eq!(app.get(&format!("/products?order=price&price=gt.30&after={priced}")).await.ids(), ["4", "5", "6", "7"]);
    assert_eq!(app.send("DELETE", "/products?price=gt.30&after=", &[], "").await.refusal().0, 400);
}

#[tokio::test]
async fn rows_that_come_and_go_between_pages_neither_hide_nor_repeat_others() {
    for query in ["limit=2", "order=price&limit=2", "price=gt.0&limit=2"] {
        let app = App::start().await;
        let pages = walk(&app, &format!("/products?{query}&after="), async |page| match page {
            // The row that the cursor stands behind, one before it, and one that is still to come.
            1 => {
                for gone in ["2", "1", "5"] {
                    assert_eq!(app.send("DELETE", &format!("/products/{gone}"), &[], "").await.status, 202);
                }
            }
            2 => assert_eq!(app.json("PUT", "/products/0", r#"{"name":"new","price":1}"#).await.status, 202),
            _ => (),
        })
        .await;
        let mut seen = pages.concat();
        seen.retain(|id| id != "0");
        assert_eq!(seen, ["1", "2", "3", "4", "6", "7"], "{query}");
    }
}

#[tokio::test]
async fn a_cursor_outlives_the_process_that_gave_it() {
    let files = tempfile::tempdir().unwrap();
    let open = async || {
        let seed = |dio: &Dio| {
            let dio = dio.clone();
            async move { dio.reconcile(dio.master().list_values().await?).await.map(drop) }
        };
        let lens = diorama::Lens::new().cache_at(files.path().join("c.redb")).on_start(seed).build().unwrap();
        let master = diorama::connect::MemoryTable::vista("products", products(), rows(7));
        (lens.make_dio(master).await.unwrap(), lens)
    };
    let next = async |dio: &Dio, token: Option<String>| {
        let mut vista = dio.vista();
        vista.set_page_size(3).unwrap();
        let (rows, token) = vista.fetch_next(token).await.unwrap();
        (rows.ids().map(str::to_string).collect::<Vec<_>>(), token)
    };
    let (dio, lens) = open().await;
    let (ids, token) = next(&dio, None).await;
    assert_eq!(ids, ["1", "2", "3"]);
    dio.close().await;
    drop(dio);
    lens.close().await;
    drop(lens);
    let (dio, _lens) = open().await;
    let (ids, token) = next(&dio, token).await;
    assert_eq!(ids, ["4", "5", "6"]);
    assert_eq!(next(&dio, token).await, (vec!["7".to_string()], None));
    let foreign = dio.vista().fetch_next(Some("5".into())).await;
    assert!(matches!(foreign, Err(Error::Invalid { .. })), "{foreign:?}");
}

#[tokio::test]
async fn an_order_by_texts_too_long_for_a_url_says_so() {
    let schema = Schema::new(
        "id",
        [("id", ColumnType::String), ("name", ColumnType::String)].map(|(n, t)| diorama::Column::new(n, t)).to_vec(),
    );
    let long = |n: usize| (n.to_string(), Record::from_iter([("name".to_string(), "x".repeat(5_000 + n).into())]));
    let app = App::with(schema, (1..4).map(long).collect(), |l| l, MountOptions::default(), |g| g).await;
    let refused = app.get("/products?order=name&limit=1&after=").await;
    assert_eq!(refused.refusal(), (400, "invalid-parameter".into()));
    assert!(refused.json()["hint"].as_str().unwrap().contains("offset"));
    assert_eq!(app.get("/products?order=name&after=").await.ids(), ["1", "2", "3"], "one page needs no cursor");
}

#[tokio::test]
async fn a_partial_copy_takes_no_cursor() {
    let windowed = |lens: diorama::LensBuilder| {
        let nothing = |_: &Dio| std::future::ready(Ok(()));
        lens.on_load_chunk(|_, _, _| std::future::ready(Ok(()))).on_start(nothing)
    };
    let app = App::with(products(), rows(7), windowed, MountOptions::default(), |gateway| gateway).await;
    assert_eq!(app.get("/products?after=").await.refusal(), (405, "unsupported".into()));
}

#[tokio::test]
async fn a_write_by_filter_that_matches_nothing_is_done_at_once() {
    let app = App::start().await;
    let none = app.send("DELETE", "/products?price=gt.1000", &[], "").await;
    assert_eq!((none.status, none.json()), (200, json!({ "affected": 0, "operations": [] })));
    let none = app.json("PATCH", "/products?price=gt.1000", r#"{"price":1}"#).await;
    assert_eq!((none.status, none.json()["affected"].as_u64()), (200, Some(0)));
    assert_eq!(app.send("DELETE", "/products?price=gt.60", &[], "").await.status, 202);
}
