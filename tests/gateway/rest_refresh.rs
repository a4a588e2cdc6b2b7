//! `POST /{dio}/_refresh`.

use diorama::gateway::MountOptions;

use crate::harness::{App, products, rows};

#[tokio::test]
async fn a_suspiciously_short_list_is_refused_until_somebody_says_that_it_is_right() {
    let app = App::with(products(), rows(400), |lens| lens, MountOptions::default(), |gateway| gateway).await;
    app.master.lose((1..=300).map(|at| at.to_string())).await;
    let refused = app.send("POST", "/products/_refresh", &[], "").await;
    assert_eq!(refused.refusal(), (409, "refresh-suspicious".into()));
    assert!(refused.json()["hint"].as_str().unwrap().contains("allow_shrink=true"));
    assert_eq!(app.get("/products?limit=1").await.header("x-total-count"), "400");
    assert_eq!(
        app.send("POST", "/products/_refresh?allow=1", &[], "").await.refusal(),
        (400, "unknown-parameter".into())
    );
    let done = app.send("POST", "/products/_refresh?allow_shrink=true", &[], "").await;
    assert_eq!((done.status, done.json()["removed"].as_u64()), (200, Some(300)), "{}", done.text());
    assert_eq!(app.get("/products?limit=1").await.header("x-total-count"), "100");
}

#[tokio::test]
async fn without_a_cache_the_rows_of_a_resource_are_in_its_table_only_and_refreshes_go_on() {
    let app =
        App::with(products(), rows(3_000), |lens| lens.no_cache(), MountOptions::default(), |gateway| gateway).await;
    let refreshed = async |expected: [u64; 3]| {
        let done = app.send("POST", "/products/_refresh", &[], "").await;
        let report = done.json();
        let counts = ["inserted", "changed", "removed"].map(|what| report[what].as_u64().unwrap());
        assert_eq!((done.status, counts), (200, expected), "{}", done.text());
    };
    refreshed([0, 0, 0]).await;
    // More differences than are told one by one.
    app.master.lose((1..=1_200).map(|at| at.to_string())).await;
    refreshed([0, 0, 1_200]).await;
    assert_eq!(app.json("PATCH", "/products/3000", r#"{"price":7}"#).await.status, 202);
    assert_eq!(app.get("/products?limit=1").await.header("x-total-count"), "1800");
}
