//! Readers that are far behind.

use futures_util::future::join_all;
use serde_json::Value;

use super::*;
use crate::gateway::events::testing::{mounted, record, wish};

/// More than this much behind, in rows of [`fill`], is too far for single events.
const FAR: usize = 5_000;

/// Changes of so many rows, one after the other.
async fn fill(at: &Mounted, rows: usize) {
    let name = "x".repeat(1_000);
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
    fill(&at, FAR).await;
    fill(&at, 10).await;
    assert!(at.dio.ring().floor() > feed.position.seq, "the ring has none of it");
    let frames = all(&mut feed).await.unwrap();
    let (states, rest): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame["conflated"] == true);
    let mut ids: Vec<_> = states.iter().map(|frame| frame["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((states.len(), ids.len()), (FAR, FAR), "each row once, whatever happened to it");
    assert_eq!((rest.len(), &rest[0]["type"]), (1, &"heartbeat".into()));
    assert_eq!(rest[0]["seq"], at.dio.position().seq);
    fill(&at, 1).await;
    let next = all(&mut feed).await.unwrap();
    assert_eq!((next.len(), &next[0]["conflated"]), (1, &Value::Null), "events go on");
}

#[tokio::test(start_paused = true)]
async fn who_has_missed_more_rows_than_are_worth_it_is_reset_and_at_the_third_time_let_go() {
    let at = mounted().await;
    let mut feed = open(&at, "records=false").await;
    for time in 1..=3 {
        fill(&at, 10_001).await;
        let frames = all(&mut feed).await;
        if time == 3 {
            assert_eq!(frames.unwrap_err(), Ended::Slow);
            return;
        }
        let frames = frames.unwrap();
        assert_eq!((frames.len(), &frames[0]["type"], &frames[0]["reason"]), (1, &"reset".into(), &"overflow".into()));
        assert_eq!(frames[0]["seq"], at.dio.position().seq);
    }
}
