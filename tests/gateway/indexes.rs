//! Indexes that queries ask for, and what `explain` says of them.

use diorama::gateway::MountOptions;
use diorama::{LensBuilder, Record};
use serde_json::{Value, json};

use crate::harness::{App, products, rows};

const ROWS: usize = 2_000;

async fn shop(lens: impl FnOnce(LensBuilder) -> LensBuilder) -> App {
    App::with(products(), rows(ROWS), lens, MountOptions::default(), |gateway| gateway).await
}

async fn explained(app: &App, query: &str) -> Value {
    let answer = app.get(&format!("/products?{query}&explain=true")).await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"), "{answer:?}");
    answer.json()
}

/// What a scan finds.
fn naive(app: &App, keep: impl Fn(i64) -> bool, top: usize) -> Vec<String> {
    let state = app.dio.state();
    let price = |record: &Record| i64::try_from(record.get("price").unwrap().as_integer().unwrap()).unwrap();
    let all = state.table().natural(0).map(|row| (price(&row.decode().unwrap()), row.id().to_string()));
    let mut kept: Vec<_> = all.filter(|(price, _)| keep(*price)).collect();
    kept.sort_by(|a, b| b.cmp(a));
    kept.into_iter().take(top).map(|(_, id)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_was_answered_by_a_scan_is_answered_by_an_index_the_next_time() {
    let app = shop(|lens| lens).await;
    let query = "price=gte.5000&order=price.desc&limit=10";
    let first = explained(&app, query).await;
    assert_eq!(
        (&first["plan"]["access"], &first["examined"], &first["rows"]),
        (&json!("scan"), &json!(ROWS), &json!(ROWS))
    );
    assert_eq!(first["plan"]["wanted"], json!(["price.asc"]));
    app.dio.indexes_built().await;
    let second = explained(&app, query).await;
    assert_eq!((&second["plan"]["access"], &second["examined"]), (&json!("index"), &json!(10)), "{second}");
    assert_eq!((&second["plan"]["indexes"], &second["plan"]["backwards"]), (&json!(["price.asc"]), &json!(true)));
    assert_eq!((&second["matched"], &second["returned"]), (&first["matched"], &json!(10)));
    assert_eq!(second["plan"]["checked"], json!([]));
    assert!(second["microseconds"].is_u64() && second["indexes"][0]["uses"] == 1, "{second}");
    assert_eq!(app.get(&format!("/products?{query}")).await.ids(), naive(&app, |price| price >= 5_000, 10));
    let metrics = app.get("/metrics").await;
    assert!(metrics.text().contains("diorama_dio_indexes{dio=\"products\"} 1\n"));
    // What is read from it is what was written last.
    assert_eq!(app.json("PATCH", "/products/3", r#"{"price":1000000}"#).await.status, 202);
    assert_eq!(app.json("DELETE", "/products/2000", "").await.status, 202);
    let listed = app.get(&format!("/products?{query}")).await;
    assert_eq!(listed.ids(), naive(&app, |price| price >= 5_000, 10));
    assert_eq!((listed.ids()[0].as_str(), listed.header("x-total-count")), ("3", "1501"));
    let odd = app.get("/products?explain=perhaps").await;
    assert_eq!(odd.refusal(), (400, "invalid-parameter".into()));
    assert_eq!(app.get("/products?limit=1&explain=false").await.ids(), ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_right_whatever_is_written_while_it_is_built() {
    let app = shop(|lens| lens).await;
    for round in 0..6u32 {
        // Each round asks for another index, and writes go on until it is there.
        let column = ["price", "name", "meta-%3Esize"][round as usize % 3];
        let query = format!("order={column}.desc,price.desc&limit=10&offset={round}");
        explained(&app, &query).await;
        let writes = (0..40u32).map(|n| {
            let (app, id) = (&app, (n * 47 + round * 13) % 2_100 + 1);
            async move {
                let body = format!(r#"{{"name":"Bun {id}","price":{},"meta":{{"size":{n}}}}}"#, n * 7_919 % 20_000);
                let answer = match n % 5 {
                    4 => app.json("DELETE", &format!("/products/{id}"), "").await,
                    _ => app.json("PUT", &format!("/products/{id}"), &body).await,
                };
                assert!(matches!(answer.status, 202 | 404), "{answer:?}");
            }
        });
        futures_util::future::join_all(writes).await;
        app.dio.indexes_built().await;
    }
    let state = app.dio.state();
    assert!(!state.table().indexes().is_empty());
    for index in state.table().indexes() {
        let anew = diorama_core::table::Index::build(index.spec().clone(), state.table(), &app.dio.schema());
        assert!(index.holds_the_same(&anew), "{}", index.spec());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_most_rows_leaves_every_index_right() {
    let app = shop(|lens| lens.settings(|settings| settings.indexes = vec!["price.asc".into(), "name".into()])).await;
    app.master.lose((1..=700).map(|id| id.to_string())).await;
    app.dio.refresh().await.unwrap();
    let state = app.dio.state();
    assert_eq!((state.table().len(), state.table().indexes().len()), (1_300, 2));
    for index in state.table().indexes() {
        let anew = diorama_core::table::Index::build(index.spec().clone(), state.table(), &app.dio.schema());
        assert!(index.holds_the_same(&anew), "{}", index.spec());
    }
    let some = explained(&app, "order=price&limit=5").await;
    assert_eq!((&some["examined"], &some["matched"]), (&json!(5), &json!(1_300)));
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_the_settings_are_there_at_once_and_stay() {
    let named = |settings: &mut diorama::dio::Settings| {
        settings.indexes = vec!["price.asc".into()];
        settings.max_indexes = 2;
        settings.index_rest = std::time::Duration::ZERO;
    };
    let app = shop(|lens| lens.settings(named)).await;
    assert_eq!(explained(&app, "order=price.desc&limit=5").await["examined"], 5);
    let names = |app: &App| -> Vec<String> {
        app.dio.state().table().indexes().iter().map(|index| index.spec().to_string()).collect()
    };
    for (query, expected) in [
        ("order=name&limit=5", ["price.asc", "name.asc"]),
        // The one that was not used for longest makes room.
        ("meta-%3Esize=eq.7&limit=5", ["price.asc", "meta->size"]),
        ("order=meta-%3Ecolour&limit=5", ["price.asc", "meta->colour.asc"]),
    ] {
        explained(&app, query).await;
        app.dio.indexes_built().await;
        assert_eq!(names(&app), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_index_is_built_that_does_not_fit() {
    let tight = |settings: &mut diorama::dio::Settings| settings.index_memory = 10_000;
    let app = shop(|lens| lens.settings(tight)).await;
    for _ in 0..2 {
        assert_eq!(explained(&app, "order=price&limit=5").await["examined"], ROWS);
        app.dio.indexes_built().await;
    }
    assert!(app.dio.state().table().indexes().is_empty());
    let full = |settings: &mut diorama::dio::Settings| settings.max_indexes = 1;
    let app = shop(|lens| lens.settings(full)).await;
    for query in ["order=price&limit=5", "order=price&limit=5", "order=name&limit=5"] {
        explained(&app, query).await;
        app.dio.indexes_built().await;
    }
    let state = app.dio.state();
    assert_eq!(state.table().indexes().len(), 1, "what was just used is not dropped for another");
    assert_eq!(state.table().indexes()[0].spec().to_string(), "price.asc");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_not_built_is_told_by_explain_and_readyz() {
    let tight = |settings: &mut diorama::dio::Settings| settings.index_memory = 1_000;
    let app = shop(|lens| lens.settings(tight)).await;
    assert_eq!(explained(&app, "q=bun%2017&limit=5").await["not_built"], Value::Null);
    app.dio.indexes_built().await;
    let told = explained(&app, "q=bun%2017&limit=5").await;
    assert_eq!((&told["plan"]["wanted"], &told["not_built"][0]["index"]), (&json!(["q"]), &json!("q")), "{told}");
    assert!(told["not_built"][0]["because"].as_str().unwrap().contains("index_memory"), "{told}");
    let ready = app.get("/readyz").await;
    let warnings = ready.json()["dios"]["products"]["warnings"].to_string();
    assert!(ready.status == 200 && warnings.contains("index q: not built"), "{}", ready.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_that_queries_had_built_are_there_after_a_restart() {
    let files = tempfile::tempdir().unwrap();
    let start = async || {
        let lens = diorama::Lens::new().cache_at(files.path().join("cache.redb")).on_start(|dio| {
            let dio = dio.clone();
            async move { dio.reconcile_master().await.map(drop) }
        });
        let lens = lens.build().unwrap();
        let dio =
            lens.make_dio(diorama::connect::MemoryTable::vista("products", products(), rows(ROWS))).await.unwrap();
        (lens, dio)
    };
    let names = |dio: &diorama::Dio| -> Vec<String> {
        dio.state().table().indexes().iter().map(|index| index.spec().to_string()).collect()
    };
    let (lens, dio) = start().await;
    let query = diorama::Query {
        order: vec![diorama::OrderTerm::new("price", true)],
        limit: Some(5),
        ..diorama::Query::default()
    };
    dio.vista().shell().list(&query).await.unwrap();
    dio.indexes_built().await;
    assert_eq!(names(&dio), ["price.asc"]);
    dio.close().await;
    drop(dio);
    lens.close().await;
    let (lens, dio) = start().await;
    dio.indexes_built().await;
    assert_eq!(names(&dio), ["price.asc"], "no query has asked for it in this process");
    dio.close().await;
    lens.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_words_that_the_table_has_outgrown_is_made_anew() {
    let words = |settings: &mut diorama::dio::Settings| settings.indexes = vec!["q".into()];
    let app = App::with(products(), rows(600), |lens| lens.settings(words), MountOptions::default(), |it| it).await;
    let cache = app.dio.cache();
    let grown = rows(1_300).into_iter().skip(600);
    let put = grown.map(|(id, record)| {
        let cache = &cache;
        async move { cache.insert_value(&id, &record).await.unwrap() }
    });
    futures_util::future::join_all(put).await;
    let outgrown = |app: &App| app.dio.state().table().indexes()[0].is_outgrown();
    assert!(outgrown(&app));
    let answer = app.get("/products?q=bun%201299&limit=5").await;
    assert_eq!(answer.ids(), ["1299"]);
    app.dio.indexes_built().await;
    assert!(!outgrown(&app));
    assert_eq!(app.get("/products?q=bun%201299&limit=5").await.ids(), ["1299"]);
    assert_eq!(app.dio.state().table().indexes().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_keep_their_columns_within_column_memory() {
    let shop = async |memory: usize| {
        let settings = move |settings: &mut diorama::dio::Settings| settings.column_memory = memory;
        App::with(products(), rows(5_000), |lens| lens.settings(settings), MountOptions::default(), |gateway| gateway)
            .await
    };
    let path = "/products/_aggregate?select=count(),sum(price)&price=gte.5000";
    let (app, without) = (shop(1 << 20).await, shop(0).await);
    let answer = app.get(path).await;
    assert_eq!((answer.status, answer.text()), (200, without.get(path).await.text()));
    assert_eq!(answer.json()[0]["count"], 4_501);
    let columns = explained(&app, "limit=1").await["columns"].clone();
    assert_eq!(columns[0]["column"], "price", "{columns}");
    assert!(columns[0]["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{columns}");
    assert_eq!(explained(&without, "limit=1").await["columns"], json!([]));
    assert!(!app.get("/metrics").await.text().contains("diorama_dio_column_bytes{dio=\"products\"} 0\n"));
    assert!(without.get("/metrics").await.text().contains("diorama_dio_column_bytes{dio=\"products\"} 0\n"));
}
