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
