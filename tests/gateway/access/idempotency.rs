//! Idempotency keys belong to the caller that sent them.

use diorama::gateway::MountOptions;
use serde_json::Value;

use super::world::{World, assert_discreet, rules};

fn keyed(key: &str) -> Vec<(&str, &str)> {
    vec![("content-type", "application/json"), ("idempotency-key", key)]
}

#[tokio::test]
async fn a_key_of_another_caller_is_a_new_key() {
    let world = World::usual().await;
    let body = |owner: &str| format!(r#"{{"id":"SECRET-{owner}","owner":"{owner}","status":"new"}}"#);
    let ann = world.send("member@ann", "POST", "/orders", &keyed("k"), body("ann")).await;
    assert_eq!(ann.status, 202, "{ann:?}");
    for (caller, owner) in [("member@bob", "bob"), ("writer@bob", "bob"), ("root", "bob")] {
        let id = format!("{owner}-{}", caller.replace('@', "-"));
        let body = format!(r#"{{"id":"{id}","owner":"{owner}","status":"new"}}"#);
        let other = world.send(caller, "POST", "/orders", &keyed("k"), body).await;
        assert_eq!((other.status, other.header("idempotency-replayed")), (202, ""), "{caller}: {other:?}");
        assert_ne!(other.header("dio-operation"), ann.header("dio-operation"));
        assert_discreet(&other, caller);
    }
    let again = world.send("member@ann", "POST", "/orders", &keyed("k"), body("ann")).await;
    assert_eq!(again.header("idempotency-replayed"), "true", "{again:?}");
    assert_eq!(again.header("dio-operation"), ann.header("dio-operation"));
    let changed = world.send("member@ann", "POST", "/orders", &keyed("k"), r#"{"owner":"ann"}"#).await;
    assert_eq!(changed.refusal().0, 422, "{changed:?}");
}

#[tokio::test]
async fn a_row_of_a_bulk_insert_is_repeated_for_its_caller_only() {
    let world = World::usual().await;
    let lines = |owner: &str| format!("{{\"id\":\"b-{owner}\",\"owner\":\"{owner}\"}}\n");
    for strict in [false, true] {
        let mut headers = vec![("content-type", "application/x-ndjson"), ("idempotency-key", "bulk")];
        headers.extend(strict.then_some(("prefer", "handling=strict")));
        for owner in ["ann", "bob"] {
            let answer = world.send(&format!("member@{owner}"), "POST", "/orders", &headers, lines(owner)).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let result: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(result["replayed"].as_bool().unwrap_or_default(), strict, "{owner}: {result}");
            assert_eq!(result["id"], format!("b-{owner}"));
        }
    }
}

#[tokio::test]
async fn a_replay_shows_the_row_that_the_caller_sees_today() {
    let world = World::usual().await;
    let body = r#"{"status":"mine still"}"#;
    let first = world.send("member", "PATCH", "/orders/mine", &keyed("p"), body).await;
    assert_eq!((first.status, first.json()["status"].as_str()), (202, Some("mine still")));
    let taken = r#"{"owner":"bob","status":"SECRET-now"}"#;
    assert_eq!(world.json("root", "PATCH", "/orders/mine", taken).await.status, 202);
    let replay = world.send("member", "PATCH", "/orders/mine", &keyed("p"), body).await;
    assert_eq!(replay.header("idempotency-replayed"), "true", "{replay:?}");
    assert_discreet(&replay, "the row has another owner now");
    let unrelated = World::with(&rules(), MountOptions::default()).await;
    let fresh = unrelated.send("member", "PATCH", "/orders/mine", &keyed("p"), body).await;
    assert_eq!(fresh.header("idempotency-replayed"), "");
}
