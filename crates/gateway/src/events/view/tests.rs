//! Who is told what of a row that changes.

use std::sync::Arc;

use futures_util::FutureExt as _;
use serde_json::{Value, json};

use super::*;
use crate::events::testing::{mounted, record, subscription};
use crate::state::Resource;
use diorama_core::dio::At;
use diorama_core::record::Body;

fn view(resource: &Resource, query: &str) -> Arc<EventView> {
    let subscription = subscription(resource, query);
    let bounds = Bounds::default();
    let got = resource.views.get(resource.rows(), &subscription.query, subscription.records, Encoding::Json, &bounds);
    got.now_or_never().expect("it waits for patterns only").unwrap()
}

fn newest(resource: &Resource) -> (u64, Arc<RingItem>) {
    let last = resource.dio.ring().end() - 1;
    match resource.dio.ring().at(last) {
        At::Item(item) => (last, item),
        other => panic!("{other:?}"),
    }
}

async fn price(resource: &Resource, price: i64) -> (u64, Arc<RingItem>) {
    resource.dio.patched("a", record("A", price)).await.unwrap();
    newest(resource)
}

fn told(view: &EventView, item: &RingItem) -> Option<Value> {
    view.tell(item, None).map(|told| serde_json::from_slice(&told.frame).unwrap())
}

#[tokio::test]
async fn rows_enter_stay_in_and_leave_a_filter() {
    let resource = mounted().await;
    let dear = view(&resource, "price=gte.100");
    assert!(told(&dear, &price(&resource, 1).await.1).is_none(), "new, and does not match");
    let entered = told(&dear, &price(&resource, 100).await.1).unwrap();
    assert_eq!((&entered["type"], &entered["entered"]), (&json!("RecordInserted"), &json!(true)));
    assert_eq!(entered["record"]["price"], 100);
    let changed = told(&dear, &price(&resource, 200).await.1).unwrap();
    assert_eq!((&changed["type"], &changed["entered"]), (&json!("RecordChanged"), &Value::Null));
    let left = told(&dear, &price(&resource, 5).await.1).unwrap();
    assert_eq!((&left["type"], &left["left"]), (&json!("RecordRemoved"), &json!(true)));
    assert_eq!((&left["record"], &left["etag"]), (&Value::Null, &Value::Null), "what is not seen is not shown");
    assert!(told(&dear, &price(&resource, 6).await.1).is_none());
    assert!(told(&view(&resource, "q=a"), &newest(&resource).1).is_some(), "search is part of the filter");
}

#[tokio::test]
async fn a_row_whose_past_is_not_known_is_changed_or_left() {
    let resource = mounted().await;
    let dear = view(&resource, "price=gte.100");
    for (new, kind, left) in [(100, "RecordChanged", Value::Null), (1, "RecordRemoved", json!(true))] {
        let item = price(&resource, new).await.1;
        let replayed = RingItem {
            seq: item.seq,
            event: item.event.clone(),
            entry: item.entry.clone(),
            old: Old::Unknown,
            new: item.new.clone(),
            frame: Default::default(),
        };
        let frame = told(&dear, &replayed).unwrap();
        assert_eq!((&frame["type"], &frame["left"]), (&json!(kind), &left));
    }
    resource.dio.invalidate_record("a");
    while newest(&resource).1.entry.as_ref().unwrap().cause.op.is_some()
        || !matches!(newest(&resource).1.entry.as_ref().unwrap().visible, Visible::Same)
    {
        resource.dio.ring().watch().changed().await.unwrap();
    }
    assert_eq!(told(&dear, &newest(&resource).1).unwrap()["left"], true, "somebody says that it may be another");
}

#[tokio::test]
async fn equal_views_are_one_and_judge_an_event_once() {
    let resource = mounted().await;
    let (one, two) = (view(&resource, "price=gte.100&select=id"), view(&resource, "select=id&price=gte.100"));
    assert!(Arc::ptr_eq(&one, &two));
    assert_eq!(resource.views.len(), 1);
    let (number, item) = price(&resource, 100).await;
    let frames = [&one, &two].map(|view| view.tell(&item, Some(number)).unwrap().frame);
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "the frame is made once");
    assert!(String::from_utf8_lossy(&frames[0]).contains(r#""record":{"id":"a"}"#));
    let (whole, matching) = (view(&resource, ""), view(&resource, "price=gte.100"));
    let (number, item) = price(&resource, 101).await;
    let frames = [&whole, &matching].map(|view| view.tell(&item, Some(number)).unwrap().frame);
    assert_eq!(frames[0].as_ptr(), frames[1].as_ptr(), "what goes out as it is is shared by all views");
    drop((one, two, whole, matching));
    assert_eq!(resource.views.len(), 0);
    let held: Vec<_> = (0..MOST_VIEWS).map(|n| view(&resource, &format!("price={n}"))).collect();
    let subscription = subscription(&resource, "price=gt.7");
    let refused = resource
        .views
        .get(resource.rows(), &subscription.query, true, Encoding::Json, &Bounds::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::TooManyViews);
    drop(held);
    assert!(
        resource
            .views
            .get(resource.rows(), &subscription.query, true, Encoding::Json, &Bounds::default())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn what_a_view_remembers_is_bounded() {
    let resource = mounted().await;
    let view = view(&resource, "select=name");
    for n in 0..20 {
        resource.dio.patched("a", record(&"x".repeat(100_000 + n), 1)).await.unwrap();
        let (number, item) = newest(&resource);
        view.tell(&item, Some(number)).unwrap();
    }
    let recent = view.recent.lock();
    let held: usize = recent.told.iter().map(|(_, told)| told.as_ref().map_or(0, |told| told.frame.len())).sum();
    assert_eq!(held, recent.bytes);
    assert!(held <= MOST_REMEMBERED, "{held}");
}

#[tokio::test]
async fn a_newest_state_is_what_the_view_shows() {
    let resource = mounted().await;
    let dear = view(&resource, "price=gte.100&select=price");
    let frame = |row: Option<&Body>| -> Value { serde_json::from_slice(&dear.newest("a", 7, row).frame).unwrap() };
    let seen = price(&resource, 100).await.1.new.clone();
    assert_eq!(
        (&frame(seen.as_ref())["type"], &frame(seen.as_ref())["conflated"]),
        (&json!("RecordChanged"), &json!(true))
    );
    assert_eq!(frame(seen.as_ref())["record"], json!({"price": 100}));
    let unseen = price(&resource, 1).await.1.new.clone();
    for row in [unseen.as_ref(), None] {
        assert_eq!((&frame(row)["type"], &frame(row)["seq"]), (&json!("RecordRemoved"), &json!(7)));
    }
}
