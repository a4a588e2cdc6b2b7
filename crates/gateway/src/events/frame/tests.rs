//! Tests of the frames that views make of a small Dio's events.

use futures_util::FutureExt as _;

use super::*;
use crate::events::testing::{mounted, record, subscription};
use crate::events::view::ViewKind;
use crate::http::bounds::Bounds;
use crate::scope::Scope;
use diorama_core::Dio;

async fn items(dio: &Dio, count: usize, change: impl AsyncFnOnce()) -> Vec<std::sync::Arc<RingItem>> {
    let at = dio.ring().end();
    change().await;
    let mut items = Vec::new();
    while items.len() < count {
        match dio.ring().at(at + items.len() as u64) {
            diorama_core::dio::CursorRead::Item(item) => items.push(item),
            _ => dio.ring().watch().changed().await.unwrap(),
        }
    }
    items
}

fn frame_of(scope: &Scope, query: &str, item: &RingItem) -> Option<Value> {
    let subscription = subscription(scope, query);
    let bounds = Bounds::default();
    let view = scope.views.get(
        &scope.rows,
        &subscription.query,
        (subscription.records, Encoding::Json, ViewKind::Evaluated),
        &bounds,
    );
    let view = view.now_or_never().expect("only patterns make it wait").unwrap();
    view.frame_of(item, item.seq).map(|event| serde_json::from_slice(&event.frame).unwrap())
}

#[tokio::test]
async fn events_have_the_row_the_changed_columns_and_the_cause() {
    let scope = mounted().await;
    let inserted = items(&scope.dio, 2, async || {
        scope.dio.vista().insert("muffin", &record("Muffin", 1)).await.unwrap();
    });
    let inserted = inserted.await;
    assert_eq!(frame_of(&scope, "", &inserted[1]).unwrap()["type"], "WriteCommitted");
    let inserted = frame_of(&scope, "", &inserted[0]).unwrap();
    assert_eq!(inserted["type"], "RecordInserted");
    assert_eq!(inserted["record"], json!({"id": "muffin", "name": "Muffin", "price": 1}));
    assert_eq!(inserted["origin"], "write");
    assert!(inserted["op"].as_str().unwrap().starts_with("op_"));
    assert!(inserted["at"].as_str().unwrap().ends_with('Z'));
    let changed = items(&scope.dio, 1, async || scope.dio.patched("muffin", record("Muffin", 2)).await.unwrap()).await;
    let changed = frame_of(&scope, "", &changed[0]).unwrap();
    assert_eq!((&changed["type"], &changed["changed"]), (&json!("RecordChanged"), &json!(["price"])));
    assert_eq!(changed["origin"], "program");
    assert!(changed["etag"].as_str().unwrap().starts_with('"'));
}

#[tokio::test]
async fn a_change_of_a_row_that_is_gone_is_its_removal() {
    let scope = mounted().await;
    let gone = items(&scope.dio, 1, async || scope.dio.invalidate_record("nobody")).await;
    let frame = frame_of(&scope, "", &gone[0]).unwrap();
    assert_eq!((&frame["type"], &frame["id"]), (&json!("RecordRemoved"), &json!("nobody")));
    assert_eq!(frame.get("record"), None);
}

#[tokio::test]
async fn cbor_frames_have_the_same_members_with_exact_rows() {
    let scope = mounted().await;
    let item = items(&scope.dio, 1, async || scope.dio.patched("a", record("A", 1)).await.unwrap()).await;
    let subscription = subscription(&scope, "");
    let view = scope
        .views
        .get(&scope.rows, &subscription.query, (true, Encoding::Cbor, ViewKind::Evaluated), &Bounds::default())
        .await
        .unwrap();
    let frame = view.frame_of(&item[0], item[0].seq).unwrap().frame;
    for frame in [frame.clone(), tagged(Encoding::Cbor, "a1", &frame)] {
        let value: CborValue = ciborium::from_reader(&frame[..]).unwrap();
        let as_json: Value = serde_json::from_slice(&value_to_json(&value)).unwrap();
        assert_eq!(as_json["record"], json!({"id": "a", "name": "A", "price": 1}));
        assert_eq!(as_json["seq"], item[0].seq.unwrap());
    }
    let mut rows = Rows::new(Encoding::Cbor);
    for n in 0..30 {
        rows.push(&n.to_string(), Some(&[0x01]));
    }
    let value: CborValue = ciborium::from_reader(&rows.finish()[..]).unwrap();
    assert_eq!(value.as_map().unwrap()[1].1.as_array().unwrap().len(), 30);
}
