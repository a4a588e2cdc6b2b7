//! Tests of the events that views show of a changing row.

use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::*;
use crate::MountOptions;
use crate::events::testing::scope_within;
use crate::events::testing::{mounted, record, subscription};
use crate::scope::Scope;
use crate::state::Resource;
use diorama_core::dio::CursorRead;
use diorama_core::record::Body;
use diorama_core::vista::Filter;
use diorama_core::vista::query::Test;

fn view(scope: &Scope, query: &str) -> Arc<EventView> {
    let subscription = subscription(scope, query);
    let bounds = Bounds::default();
    let got = scope.views.get(
        &scope.rows,
        &subscription.query,
        (subscription.records, Encoding::Json, ViewKind::Evaluated),
        &bounds,
    );
    got.now_or_never().expect("only patterns make it wait").unwrap()
}

fn newest(scope: &Scope) -> (u64, Arc<RingItem>) {
    let last = scope.dio.ring().end() - 1;
    match scope.dio.ring().at(last) {
        CursorRead::Item(item) => (last, item),
        other => panic!("{other:?}"),
    }
}

async fn price(scope: &Scope, price: i64) -> (u64, Arc<RingItem>) {
    scope.dio.patched("a", record("A", price)).await.unwrap();
    newest(scope)
}

fn frame_of(view: &EventView, item: &RingItem) -> Option<Value> {
    view.frame_of(item, None).map(|event| serde_json::from_slice(&event.frame).unwrap())
}

#[tokio::test]
async fn rows_enter_stay_in_and_leave_a_filter() {
    let scope = mounted().await;
    let dear = view(&scope, "price=gte.100");
    assert!(frame_of(&dear, &price(&scope, 1).await.1).is_none(), "new, and does not match");
    let entered = frame_of(&dear, &price(&scope, 100).await.1).unwrap();
    assert_eq!((&entered["type"], &entered["entered"]), (&json!("RecordInserted"), &json!(true)));
    assert_eq!(entered["record"]["price"], 100);
    let changed = frame_of(&dear, &price(&scope, 200).await.1).unwrap();
    assert_eq!((&changed["type"], &changed["entered"]), (&json!("RecordChanged"), &Value::Null));
    let left = frame_of(&dear, &price(&scope, 5).await.1).unwrap();
    assert_eq!((&left["type"], &left["left"]), (&json!("RecordRemoved"), &json!(true)));
    assert_eq!((&left["record"], &left["etag"]), (&Value::Null, &Value::Null), "a row that does not match is not sent");
    assert!(frame_of(&dear, &price(&scope, 6).await.1).is_none());
    assert!(frame_of(&view(&scope, "q=a"), &newest(&scope).1).is_some(), "search is part of the filter");
}

#[tokio::test]
async fn a_row_with_an_unknown_prior_state_is_changed_or_left() {
    let scope = mounted().await;
    let dear = view(&scope, "price=gte.100");
    for (new, kind, left) in [(100, "RecordChanged", Value::Null), (1, "RecordRemoved", json!(true))] {
        let item = price(&scope, new).await.1;
        let replayed = RingItem {
            seq: item.seq,
            event: item.event.clone(),
            entry: item.entry.clone(),
            old: RowBefore::Unknown,
            new: item.new.clone(),
            slot: item.slot,
            frame: Default::default(),
        };
        let frame = frame_of(&dear, &replayed).unwrap();
        assert_eq!((&frame["type"], &frame["left"]), (&json!(kind), &left));
    }
    scope.dio.invalidate_record("a");
    while newest(&scope).1.entry.as_ref().unwrap().cause.op.is_some()
        || !matches!(newest(&scope).1.entry.as_ref().unwrap().visible, VisibleChange::Same)
    {
        scope.dio.ring().watch().changed().await.unwrap();
    }
    assert_eq!(frame_of(&dear, &newest(&scope).1).unwrap()["left"], true, "an invalidated row that does not match");
}

#[tokio::test]
async fn equal_views_are_shared_and_evaluate_an_event_once() {
    let scope = mounted().await;
    let (one, two) = (view(&scope, "price=gte.100&select=id"), view(&scope, "select=id&price=gte.100"));
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(scope.views.len(), 1);
    let (number, item) = price(&scope, 100).await;
    let frames = [&one, &two].map(|view| view.frame_of(&item, Some(number)).unwrap().frame);
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "the frame is built once");
    assert!(String::from_utf8_lossy(&frames[0]).contains(r#""record":{"id":"a"}"#));
    let (whole, matching) = (view(&scope, ""), view(&scope, "price=gte.100"));
    let (number, item) = price(&scope, 101).await;
    let frames = [&whole, &matching].map(|view| view.frame_of(&item, Some(number)).unwrap().frame);
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "an unchanged frame is shared by all views");
    drop((one, two, whole, matching));
    assert_eq!(scope.views.len(), 0);
    let held: Vec<_> = (0..MOST_EVALUATED).map(|n| view(&scope, &format!("price={n}"))).collect();
    let subscription = subscription(&scope, "price=gt.7");
    let refused = scope
        .views
        .get(&scope.rows, &subscription.query, (true, Encoding::Json, ViewKind::Evaluated), &Bounds::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::TooManyViews);
    drop(held);
    assert!(
        scope
            .views
            .get(&scope.rows, &subscription.query, (true, Encoding::Json, ViewKind::Evaluated), &Bounds::default())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_cached_frames_of_a_view_are_bounded() {
    let scope = mounted().await;
    let view = view(&scope, "select=name");
    for n in 0..20 {
        scope.dio.patched("a", record(&"x".repeat(100_000 + n), 1)).await.unwrap();
        let (number, item) = newest(&scope);
        view.frame_of(&item, Some(number)).unwrap();
    }
    let recent = view.recent.lock();
    let held: usize = recent.frames.iter().map(|(_, event)| event.as_ref().map_or(0, |event| event.frame.len())).sum();
    assert_eq!(held, recent.bytes);
    assert!(held <= ViewKind::Evaluated.cached().1, "{held}");
}

#[tokio::test]
async fn a_newest_state_has_the_filter_and_projection_of_the_view() {
    let scope = mounted().await;
    let dear = view(&scope, "price=gte.100&select=price");
    let frame = |row: Option<&Body>| -> Value { serde_json::from_slice(&dear.newest("a", 7, row).frame).unwrap() };
    let seen = price(&scope, 100).await.1.new.clone();
    assert_eq!(
        (&frame(seen.as_ref())["type"], &frame(seen.as_ref())["conflated"]),
        (&json!("RecordChanged"), &json!(true))
    );
    assert_eq!(frame(seen.as_ref())["record"], json!({"price": 100}));
    let unseen = price(&scope, 1).await.1.new.clone();
    for row in [unseen.as_ref(), None] {
        assert_eq!((&frame(row)["type"], &frame(row)["seq"]), (&json!("RecordRemoved"), &json!(7)));
    }
}

#[tokio::test]
async fn callers_with_different_scopes_have_different_views() {
    let scope = mounted().await;
    let narrow = Filter::Test { column: "price".into(), test: Test::Gte(100.into()) };
    let narrowed = scope_within(&Arc::new(Resource::new(scope.dio.clone(), MountOptions::default())), narrow).rows;
    let bounds = Bounds::default();
    let all = Query::default();
    let get = |rows| {
        let got = scope.views.get(rows, &all, (true, Encoding::Json, ViewKind::Evaluated), &bounds);
        got.now_or_never().expect("only patterns make it wait").unwrap()
    };
    let (all, dear) = (get(&scope.rows), get(&narrowed));
    assert!(Arc::ptr_eq(&all, &get(&scope.rows)) && !Arc::ptr_eq(&all, &dear));
    assert!(all.matches(&record("A", 1)) && !dear.matches(&record("A", 1)) && dear.matches(&record("A", 100)));
}
