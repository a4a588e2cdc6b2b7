//! `GET /_audit`, and actions that are recorded before they begin.

use std::sync::Arc;

use diorama::gateway::{AuditLog, Gateway, MountOptions};
use diorama::journal::{AuditAction, AuditEntry, AuditLimits, AuditQuery, Journal, MemoryJournal};
use diorama_core::journal::faulty::FaultyJournal;
use insta::assert_snapshot;
use serde_json::json;

use crate::harness::{Answer, App, products, rows};

async fn start(journal: &Arc<impl Journal>) -> App {
    let journal: Arc<dyn Journal> = Arc::clone(journal) as _;
    let audit = |gateway: Gateway| gateway.audit(Some(AuditLog::new(journal, AuditLimits::default())));
    App::with(products(), rows(7), |lens| lens, MountOptions::default(), audit).await
}

/// A log with entries of fixed times.
async fn filled() -> Arc<MemoryJournal> {
    let journal = Arc::new(MemoryJournal::new());
    let at = |second: u64, action| AuditEntry::new(action, (1_900_000_000 + second) * 1_000);
    let of_ann = |entry: AuditEntry, outcome: &str| AuditEntry {
        principal: Some("key:ann".into()),
        role: Some("admin".into()),
        address: Some("198.51.100.7".into()),
        request: Some("a1b2".into()),
        resource: Some("products".into()),
        outcome: outcome.into(),
        ..entry
    };
    let target = |target: &str, entry| AuditEntry { target: Some(target.into()), ..entry };
    let refused = AuditEntry {
        role: Some("anonymous".into()),
        address: Some("2001:db8::".into()),
        outcome: "unauthenticated".into(),
        count: 9_999,
        ..at(4, AuditAction::RefusedAuthentication)
    };
    let entries = vec![
        AuditEntry { count: 1, ..at(0, AuditAction::Dropped) },
        at(1, AuditAction::ServerStarted),
        target("sha256:73475cb40a568e8da8a045ced110137e", of_ann(at(2, AuditAction::Purge), "started")),
        target("sha256:73475cb40a568e8da8a045ced110137e", of_ann(at(3, AuditAction::Purge), "200")),
        refused,
    ];
    journal.append_audit(entries, AuditLimits { keep: std::time::Duration::MAX, bytes: 1 << 20 }).await.unwrap();
    journal
}

fn numbers(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn wire_the_audit_log_as_json_and_as_lines() {
    let app = start(&filled().await).await;
    let pretty = |answer: &Answer| serde_json::to_string_pretty(&answer.json()).unwrap();
    let all = app.get("/_audit").await;
    assert_eq!((all.header("content-type"), all.header("cache-control")), ("application/json", "no-store"));
    assert_snapshot!("audit_json", pretty(&all));
    let lines = app.send("GET", "/_audit?order=asc", &[("Accept", "application/x-ndjson")], "").await;
    assert_snapshot!(
        "audit_ndjson",
        lines.text().lines().filter(|line| line.starts_with('{')).collect::<Vec<_>>().join("\n")
    );
}

#[tokio::test]
async fn entries_are_paged_in_both_orders_and_filtered() {
    let app = start(&filled().await).await;
    let first = app.get("/_audit?limit=2").await;
    assert_eq!(numbers(&first), [5, 4]);
    assert_eq!(first.header("link"), "</_audit?limit=2&after=4>; rel=\"next\"");
    assert_eq!(numbers(&app.get("/_audit?limit=2&after=4").await), [3, 2]);
    let last = app.get("/_audit?order=asc&limit=3&after=2").await;
    assert_eq!((numbers(&last), last.headers.iter().any(|(name, _)| name == "link")), (vec![3, 4, 5], false));
    let filtered = app.get("/_audit?action=purge,server-started&limit=2").await;
    assert_eq!(numbers(&filtered), [4, 3]);
    assert_eq!(filtered.header("link"), "</_audit?action=purge%2Cserver-started&limit=2&after=3>; rel=\"next\"");
    assert_eq!(numbers(&app.get("/_audit?principal=key:ann").await), [4, 3]);
    assert_eq!(numbers(&app.get("/_audit?resource=products&since=2030-03-17T17:46:43Z").await), [4]);
    for (wrong, code) in [
        ("action=erase", "invalid-parameter"),
        ("since=yesterday", "invalid-parameter"),
        ("order=time", "invalid-parameter"),
        ("limit=1001", "limit-too-large"),
        ("who=ann", "invalid-parameter"),
    ] {
        let answer = app.get(&format!("/_audit?{wrong}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(code)), "{wrong}");
    }
    let foreign = app.send("GET", "/_audit", &[("Origin", "https://evil.example")], "").await;
    assert_eq!(foreign.status, 403, "{foreign:?}");
}

#[tokio::test]
async fn an_action_that_cannot_be_recorded_is_refused_and_has_no_effect() {
    let journal = Arc::new(FaultyJournal::new(Arc::new(MemoryJournal::new()), 1));
    let app = start(&journal).await;
    app.master.lose(["3".to_string()]).await;
    journal.fail_audits(u32::MAX);
    for path in ["/products/_purge", "/products/_refresh"] {
        let answer = app.json("POST", path, r#"{"ids":["3"]}"#).await;
        assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("store-unavailable")), "{path}");
    }
    assert_eq!(app.get("/products/3").await.status, 200, "nothing was done");
    journal.fail_audits(0);
    assert_eq!(app.json("POST", "/products/_purge", r#"{"ids":["3"]}"#).await.status, 200);
    assert_eq!(app.json("POST", "/products/_purge", r#"{"ids":[]}"#).await.status, 422, "no action");
    assert_eq!(app.json("POST", "/operations/op_1/retry", "").await.status, 404, "no action");
    let query = AuditQuery { oldest_first: true, limit: 10, ..AuditQuery::default() };
    loop {
        let entries = journal.audit(&query).await.unwrap();
        if entries.len() < 2 {
            tokio::task::yield_now().await;
            continue;
        }
        let told: Vec<_> = entries.iter().map(|entry| (entry.action, &*entry.outcome)).collect();
        assert_eq!(told, [(AuditAction::Purge, "started"), (AuditAction::Purge, "200")]);
        assert_eq!(entries[0].request, entries[1].request);
        break;
    }
}
