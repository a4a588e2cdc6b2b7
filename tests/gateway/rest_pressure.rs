//! Writes that cannot be taken are refused with a word when to come again, and cost the readers nothing.

use std::sync::Arc;

use diorama::gateway::MountOptions;
use diorama::journal::MemoryJournal;
use diorama_core::journal::faulty::{Fault, FaultyJournal};

use crate::harness::{App, products, rows};

async fn app() -> (App, Arc<FaultyJournal>) {
    let journal = Arc::new(FaultyJournal::new(Arc::new(MemoryJournal::default()), 1));
    let own = Arc::clone(&journal);
    (App::with(products(), rows(2), |lens| lens.journal_source(own), MountOptions::default(), |g| g).await, journal)
}

async fn reasons(app: &App) -> String {
    let ready = app.get("/readyz").await;
    assert_eq!(ready.status, 200, "reads go on");
    ready.json()["dios"]["products"]["reasons"].to_string()
}

#[tokio::test]
async fn a_full_queue_is_503_and_readers_do_not_notice() {
    let full = |lens: diorama::LensBuilder| lens.write_queue_capacity(2);
    let app = App::with(products(), rows(2), full, MountOptions::default(), |g| g).await;
    app.master.writes().close();
    for price in [1, 2] {
        assert_eq!(app.json("PATCH", "/products/1", &format!("{{\"price\":{price}}}")).await.status, 202);
    }
    let refused = app.json("PATCH", "/products/1", r#"{"price":3}"#).await;
    assert_eq!((refused.refusal(), refused.header("retry-after")), ((503, "queue-full".into()), "1"));
    assert_eq!(app.get("/products/1").await.json()["price"], 2);
    app.master.writes().open();
    let operations = app.get("/operations").await.json();
    let last = operations[0]["links"]["self"].as_str().unwrap().to_string();
    app.send("GET", &last, &[("Prefer", "wait=10")], "").await;
    assert_eq!(app.json("PATCH", "/products/1", r#"{"price":3}"#).await.status, 202);
}

#[tokio::test]
async fn a_full_disk_is_507_and_readyz_says_so_until_a_write_is_stored() {
    let (app, journal) = app().await;
    journal.push_fault(Fault::Full);
    let refused = app.json("PATCH", "/products/1", r#"{"price":1}"#).await;
    assert_eq!(refused.refusal(), (507, "insufficient-storage".into()));
    assert_eq!(app.get("/products/1").await.json()["price"], 10);
    assert!(reasons(&app).await.contains("the disk is full"));
    assert_eq!(app.json("PATCH", "/products/1", r#"{"price":1}"#).await.status, 202);
    assert!(!reasons(&app).await.contains("disk"));
}

#[tokio::test]
async fn a_journal_that_fails_is_503_and_heals_by_itself() {
    let (app, journal) = app().await;
    journal.fail_reopens(1_000_000);
    journal.push_fault(Fault::Io);
    let refused = app.json("PATCH", "/products/1", r#"{"price":1}"#).await;
    assert_eq!(refused.refusal(), (503, "store-unavailable".into()));
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(app.get("/products/1").await.json()["price"], 10);
    assert!(reasons(&app).await.contains("the journal cannot be written"));
    let again = app.json("PATCH", "/products/1", r#"{"price":1}"#).await;
    assert_eq!(again.refusal(), (503, "store-unavailable".into()));
    journal.fail_reopens(0);
    assert_eq!(app.json("PATCH", "/products/1", r#"{"price":2}"#).await.status, 202);
    assert!(!reasons(&app).await.contains("journal cannot"));
}
