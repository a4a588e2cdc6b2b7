//! How much the journal keeps of events, by count, bytes and age, and that subscribers are told truly from where on.

use std::path::Path;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use diorama::dio::{Dio, Settings};
use diorama::gateway::Gateway;
use diorama::{Lens, LensBuilder};
use futures_util::future::join_all;
use serde_json::Value;
use tower::ServiceExt as _;

use super::harness::pairs::*;

type Bound = fn(&mut Settings);

fn lens(dir: &Path, bound: Bound) -> LensBuilder {
    Lens::new().cache_at(dir.join("cache.redb")).settings(bound)
}

/// What a poll is answered with.
async fn poll(dio: &Dio, since: &str) -> Vec<Value> {
    let router = Gateway::new().mount(dio.clone()).into_router();
    let request = Request::get(format!("/d/events?since={since}")).header("accept", "application/json");
    let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

/// From the earliest position everything follows, one by one; before it nothing can be resumed.
async fn check(dio: &Dio) {
    let mut frames = poll(dio, "earliest").await;
    // The journal may be trimmed meanwhile, which is told as well.
    while frames.iter().any(|frame| frame["type"] == "reset") {
        frames = poll(dio, "earliest").await;
    }
    assert_eq!(frames[0]["resumed"], true);
    let from = frames[0]["seq"].as_u64().unwrap();
    let seqs = frames[1..].iter().filter_map(|frame| frame["id"].as_str().and(frame["seq"].as_u64()));
    assert_eq!(seqs.collect::<Vec<_>>(), (from + 1..=dio.position().seq).collect::<Vec<_>>());
    let refused = poll(dio, &format!("{}:0", dio.position().epoch)).await;
    let (resumed, reason) = (refused[0]["resumed"].as_bool(), refused[1]["reason"].as_str());
    assert!(from > 0 && (resumed, reason) == (Some(false), Some("trimmed")), "{from} {refused:?}");
}

/// Writes until the journal has fewer than `most` entries; `most` is far less than was written.
async fn until_trimmed(lens: &Lens, dio: &Dio, most: usize) {
    for number in 0..2_000 {
        let held = lens.journal().await.unwrap().read("d", 0, usize::MAX).await.unwrap().len();
        if number > 0 && held < most {
            return;
        }
        dio.patched("y", record((number, 0))).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the journal was not trimmed");
}

async fn holds(bound: Bound, narrower: Bound) {
    let dir = tempfile::tempdir().unwrap();
    let master = Scripted::of_pairs(true, true);
    let first = lens(dir.path(), bound).build().unwrap();
    let dio = first.make_dio(master.vista("d")).await.unwrap();
    let writes = join_all((0..600).map(|number| dio.patched("x", record((number, 0))))).await;
    assert!(writes.iter().all(Result::is_ok));
    until_trimmed(&first, &dio, 400).await;
    check(&dio).await;
    dio.close().await;
    drop(dio);
    first.close().await;
    // What an earlier process wrote counts.
    let second = lens(dir.path(), narrower).build().unwrap();
    let dio = second.make_dio(master.vista("d")).await.unwrap();
    check(&dio).await;
    until_trimmed(&second, &dio, 60).await;
    check(&dio).await;
    dio.close().await;
    drop(dio);
    second.close().await;
}

#[tokio::test]
async fn the_journal_keeps_so_many_events() {
    holds(
        |settings| (settings.keep_events, settings.ring.events) = (300, 10),
        |settings| (settings.keep_events, settings.ring.events) = (30, 10),
    )
    .await;
}

#[tokio::test]
async fn the_journal_keeps_so_many_bytes() {
    holds(
        |settings| (settings.keep_bytes, settings.ring.events) = (30_000, 10),
        |settings| (settings.keep_bytes, settings.ring.events) = (2_000, 10),
    )
    .await;
}

#[tokio::test]
async fn the_journal_keeps_events_for_so_long() {
    holds(
        |settings| (settings.keep_for, settings.ring.events) = (Duration::from_millis(50), 10),
        |settings| (settings.keep_for, settings.ring.events) = (Duration::from_millis(1), 10),
    )
    .await;
}
