//! Readers that are far behind.

use futures_util::future::join_all;
use serde_json::Value;

use super::*;
use crate::gateway::MountOptions;
use crate::gateway::events::testing::{dio_with_ring, mounted, record, wish};

/// Rows of 5,000 bytes that are too much to be told one by one.
const FAR: usize = 1_000;

/// Changes of so many rows, one after the other.
async fn fill(at: &Mounted, rows: usize, bytes: usize) {
    let name = "x".repeat(bytes);
    join_all((0..rows).map(|id| at.dio.patched(id.to_string(), record(&name, 1)))).await;
}

async fn open(at: &Mounted, query: &str) -> Feed {
    let mut feed = Feed::open(at, wish(at, query), Encoding::Json, 25).await.unwrap();
    feed.batch().await.unwrap();
    feed
}

/// Everything there is, as far as it goes.
async fn all(feed: &mut Feed) -> Result<Vec<Value>, Ended> {
    let mut frames = Vec::new();
    while feed.is_ready() {
        let sent = feed.batch().await?;
        frames.extend(sent.iter().map(|sent| serde_json::from_slice::<Value>(&sent.frame).unwrap()));
    }
    Ok(frames)
}

#[tokio::test(start_paused = true)]
async fn who_is_behind_the_ring_gets_the_newest_state_of_each_row_from_the_journal() {
    let at = mounted().await;
    let mut feed = open(&at, "records=false").await;
    fill(&at, FAR, 5_000).await;
    fill(&at, 10, 5_000).await;
    assert!(at.dio.ring().floor() > feed.position.seq, "the ring has none of it");
    let frames = all(&mut feed).await.unwrap();
    let (states, rest): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame["conflated"] == true);
    let mut ids: Vec<_> = states.iter().map(|frame| frame["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((states.len(), ids.len()), (FAR, FAR), "each row once, whatever happened to it");
    assert_eq!((rest.len(), &rest[0]["type"]), (1, &"heartbeat".into()));
    assert_eq!(rest[0]["seq"], at.dio.position().seq);
    fill(&at, 1, 5_000).await;
    let next = all(&mut feed).await.unwrap();
    assert_eq!((next.len(), &next[0]["conflated"]), (1, &Value::Null), "events go on");
}

#[tokio::test(start_paused = true)]
async fn who_has_missed_more_rows_than_are_worth_it_is_reset_and_at_the_third_time_let_go() {
    let at = mounted().await;
    let mut feed = open(&at, "records=false").await;
    fill(&at, 10_001, 300).await;
    let frames = all(&mut feed).await.unwrap();
    assert_eq!((frames.len(), &frames[0]["type"], &frames[0]["reason"]), (1, &"reset".into(), &"overflow".into()));
    assert_eq!(frames[0]["seq"], at.dio.position().seq);
    assert!(feed.reset().is_ok());
    assert_eq!(feed.reset().unwrap_err(), Ended::Slow);
}

/// A feed from the beginning of the log, read from the ring or from the journal.
async fn past(at: &Mounted, query: &str, from_journal: bool) -> Vec<Value> {
    let since = at.dio.position().epoch;
    let mut feed = open(at, &format!("since={since}:0&{query}")).await;
    if from_journal {
        feed.next = None;
    }
    all(&mut feed).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_event_the_journal_tells_each_filter_of_changes_as_the_ring_does() {
    let at = Mounted::new(dio_with_ring(1_000).await, MountOptions::default());
    for (id, price) in [("a", 5), ("b", 5), ("c", 2_000), ("d", 1_500), ("e", 1)] {
        at.dio.patched(id, record(id, price)).await.unwrap();
    }
    for (id, price) in [("a", 6), ("c", 2_001), ("e", 5_000), ("d", 10), ("c", 2_001)] {
        at.dio.patched(id, record("again", price)).await.unwrap();
    }
    at.dio.vista().delete("b").await.unwrap();
    at.dio.vista().delete("c").await.unwrap();
    at.dio.cache().delete_value("d").await.unwrap();
    at.dio.patched("d", record("d", 3_000)).await.unwrap();
    for query in
        ["", "price=gte.1000", "price=lt.1000", "name=eq.again", "price=gte.1000&select=name", "ops=insert,delete"]
    {
        let told = past(&at, query, false).await;
        assert_eq!(past(&at, query, true).await, told, "{query}");
        assert!(!told.is_empty(), "{query}");
    }
    let told = past(&at, "price=gte.1000", true).await;
    let is_row = |frame: &&Value| frame["type"] != "WriteCommitted";
    let never_matched = |frame: &Value| frame["id"] == "a" || frame["id"] == "b";
    assert!(!told.iter().filter(is_row).any(never_matched), "{told:#?}");
    assert!(told.iter().any(|frame| frame["id"] == "e" && frame["entered"] == true));
    assert!(told.iter().any(|frame| frame["id"] == "d" && frame["left"] == true));
    let changed = |frame: &Value| frame["id"] == "c" && frame["changed"] == serde_json::json!(["name", "price"]);
    assert!(told.iter().any(changed), "{told:#?}");
}
