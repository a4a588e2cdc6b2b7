//! Webhooks: what is answered, what is kept, and what happens to it afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use diorama::connect::MemoryTable;
use diorama::gateway::webhook::{Hook, HookOptions};
use diorama::gateway::{Gateway, MountOptions};
use diorama::inbound::{self, Key, Scheme};
use diorama::journal::InboxLimits;
use diorama::{Dio, Error, Lens, LensBuilder, Result};
use serde_json::Value;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::harness::{Answer, App, products, rows};

const TOKEN: &str = "Bearer hunter2-hunter2-hunter2";

fn hook() -> Hook {
    let scheme = Scheme::Bearer(vec![Key::plain(TOKEN.trim_start_matches("Bearer ")).unwrap()]);
    let inbound = inbound::Hook::new(scheme).delivery_header(Some("x-delivery".parse().unwrap()));
    Hook::new("shop", "products", inbound)
}

async fn start(options: HookOptions, lens: impl FnOnce(LensBuilder) -> LensBuilder) -> App {
    let gateway = |gateway: Gateway| gateway.try_hook(hook().with(options)).unwrap();
    App::with(products(), rows(7), lens, MountOptions::default(), gateway).await
}

async fn usual() -> App {
    start(HookOptions::default(), |lens| lens).await
}

async fn send(app: &App, id: &str, body: &str) -> Answer {
    let mut headers = vec![("Content-Type", "application/json"), ("Authorization", TOKEN)];
    headers.extend((!id.is_empty()).then_some(("X-Delivery", id)));
    app.send("POST", "/webhooks/shop", &headers, body).await
}

async fn deliveries(app: &App, query: &str) -> Vec<Value> {
    let answer = app.get(&format!("/webhooks/shop/deliveries{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// The same when there are so many: what nothing depends on is stored after the answer.
async fn soon(app: &App, query: &str, count: usize) -> Vec<Value> {
    let listed = async {
        loop {
            let listed = deliveries(app, query).await;
            if listed.len() >= count {
                return listed;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), listed).await.expect("they are stored")
}

/// Waits until one delivery of this id has this state.
async fn until(app: &App, id: &str, state: &str) -> Value {
    let told = async {
        loop {
            let one = app.get(&format!("/webhooks/shop/deliveries/{id}")).await.json();
            if one["state"] == state {
                return one;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.unwrap_or_else(|_| panic!("{id} is never {state}"))
}

fn priced(id: u32, price: u32) -> String {
    format!(r#"{{"op":"update","id":"{id}","new":{{"name":"Bun {id}","price":{price}}}}}"#)
}

/// An `on_event` that waits at a gate, fails as often as told, and counts.
#[derive(Clone)]
struct Program {
    gate: Arc<watch::Sender<bool>>,
    failures: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
}

impl Program {
    fn new(open: bool, failures: usize) -> Program {
        Program { gate: Arc::new(watch::Sender::new(open)), failures: Arc::new(failures.into()), begun: Arc::default() }
    }

    fn on(&self, lens: LensBuilder) -> LensBuilder {
        let program = self.clone();
        lens.on_event(move |dio, event| {
            let (program, dio) = (program.clone(), dio.clone());
            async move { program.take(&dio, event).await }
        })
    }

    async fn take(&self, dio: &Dio, event: diorama::ChangeEvent) -> Result<()> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.subscribe().wait_for(|open| *open).await.map_err(|_| Error::Closed)?;
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(Error::permanent("the program does not feel like it"));
        }
        if let diorama::ChangeEvent::Updated { id, new: Some(row) } = event {
            dio.patched(id, row).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_delivery_is_kept_without_its_secrets_and_can_be_applied_again() {
    let app = usual().await;
    let answer = send(&app, "d1", &priced(1, 5)).await;
    let told = answer.json();
    assert_eq!((answer.status, &told["state"], &told["applied"]), (200, &"applied".into(), &1.into()), "{told}");
    assert_eq!(answer.header("dio-durable"), "disk");
    let again = send(&app, "d1", &priced(1, 5)).await;
    assert_eq!((again.status, &again.json()["duplicate"], &again.json()["applied"]), (200, &true.into(), &0.into()));
    let listed = soon(&app, "", 2).await;
    let states: Vec<_> = listed.iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["duplicate", "applied"], "newest first");
    let id = told["delivery"].as_str().unwrap();
    let one = app.get(&format!("/webhooks/shop/deliveries/{id}")).await;
    assert!(!one.text().contains("hunter2"), "{}", one.text());
    let one = one.json();
    assert_eq!((one["body"].as_str(), one["key"].as_str()), (Some(priced(1, 5).as_str()), Some("d1")));
    assert_eq!(one["uri"], "/webhooks/shop");
    let has = |name: &str, value: &str| {
        one["headers"].as_array().unwrap().iter().any(|header| header["name"] == name && header["value"] == value)
    };
    assert!(has("x-delivery", "d1") && has("authorization", "[redacted]"), "{one}");
    let wait = [("Content-Type", "application/json"), ("Prefer", "wait=10")];
    assert_eq!(app.send("PATCH", "/products/1", &wait, r#"{"price":99}"#).await.status, 200);
    let replayed = app.json("POST", &format!("/webhooks/shop/deliveries/{id}/replay"), "").await.json();
    assert_eq!((&replayed["state"], &replayed["attempts"]), (&"applied".into(), &2.into()), "{replayed}");
    let known = replayed["changes"]["applied"].as_u64().unwrap() + replayed["changes"]["deferred"].as_u64().unwrap();
    assert_eq!(known, 1, "past the dedupe: {replayed}");
    assert_eq!(app.get("/webhooks/shop/deliveries/dlv_00000000000000000000000000000000").await.status, 404);
    assert_eq!(app.get("/webhooks/nothing/deliveries").await.status, 404);
    assert_eq!(app.get("/webhooks/shop/deliveries?state=lost").await.refusal().0, 400);
    assert_eq!(deliveries(&app, "?state=applied&limit=1").await.len(), 1);
}

#[tokio::test]
async fn of_eight_equal_deliveries_at_once_one_is_applied() {
    let program = Program::new(false, 0);
    let app = start(HookOptions::default(), |lens| program.on(lens)).await;
    let body = priced(1, 5);
    let first = send(&app, "d1", &body);
    let others = async {
        while program.begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..7 {
            let refused = send(&app, "d1", &priced(1, 5)).await;
            assert_eq!((refused.refusal(), refused.header("retry-after")), ((409, "in-progress".into()), "2"));
        }
        program.gate.send_replace(true);
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!((first.status, &first.json()["applied"]), (200, &1.into()));
    assert_eq!(send(&app, "d1", &priced(1, 5)).await.json()["duplicate"], true);
    assert_eq!(program.begun.load(Ordering::SeqCst), 1);
}

/// Without an id the same bytes are a repetition as long as all is as they say, and only then.
#[tokio::test]
async fn the_same_bytes_without_an_id_are_a_repetition_until_something_else_was_said() {
    let program = Program::new(true, 0);
    let app = start(HookOptions::default(), |lens| program.on(lens)).await;
    let (five, six) = (priced(1, 5), priced(1, 6));
    let sent = async |body: &str| {
        let told = send(&app, "", body).await.json();
        (told["state"].as_str().unwrap().to_string(), program.begun.load(Ordering::SeqCst))
    };
    assert_eq!(sent(&five).await, ("applied".into(), 1));
    assert_eq!(sent(&five).await, ("duplicate".into(), 1), "the program is not asked again");
    assert_eq!(sent(&six).await, ("applied".into(), 2));
    assert_eq!(sent(&five).await, ("applied".into(), 3), "the price has gone back, and nothing is lost");
    assert_eq!(app.get("/products/1").await.json()["price"], 5);
    assert_eq!(sent(&five).await, ("duplicate".into(), 3));
    // Other rows are none of its business; other changes of its own row are.
    assert_eq!(sent(&priced(2, 7)).await, ("applied".into(), 4));
    assert_eq!(sent(&five).await, ("duplicate".into(), 4));
    let nine = [("name".to_string(), "Bun 1".into()), ("price".to_string(), 9.into())];
    app.dio.patched("1", diorama::Record::from_iter(nine)).await.unwrap();
    assert_eq!(sent(&five).await, ("applied".into(), 5));
    // Who asks for a reading may do so twice.
    for (at, again) in [r#"{"op":"update","id":"1"}"#, r#"{"op":"invalidate"}"#].iter().enumerate() {
        assert_eq!(sent(again).await, ("applied".into(), 6 + 2 * at));
        assert_eq!(sent(again).await, ("applied".into(), 7 + 2 * at));
    }
    let part = r#"{"op":"update","id":"3","partial":true,"new":{"price":5}}"#;
    assert_eq!((sent(part).await.0, sent(part).await.0), ("applied".into(), "duplicate".into()));
    let both = format!("[{five},{six}]");
    assert_eq!((sent(&both).await.0, sent(&both).await.0), ("applied".into(), "applied".into()), "5 is no more");
    let kept = deliveries(&app, "?state=duplicate").await;
    assert!(kept[0]["detail"].as_str().unwrap().contains("the same bytes"), "{kept:?}");
}

/// With the rules of the Dio itself, while nothing is in doubt any more.
#[tokio::test]
async fn the_same_bytes_without_an_id_are_left_out_by_the_rules_once_the_source_has_confirmed_them() {
    let app = usual().await;
    app.master.read_rows();
    let gone = r#"{"op":"delete","id":"1"}"#;
    app.master.lose(["1".to_string()]).await;
    assert_eq!(send(&app, "", gone).await.json()["state"], "applied");
    let known = async { while send(&app, "", gone).await.json()["duplicate"] != true {} };
    tokio::time::timeout(Duration::from_secs(10), known).await.expect("it is a repetition once the row was read");
    let calls = app.master.calls().total();
    assert_eq!(send(&app, "", gone).await.json()["duplicate"], true);
    assert_eq!(app.master.calls().total(), calls, "nothing is read for it");
    // The row came back, and nobody said so.
    app.source()
        .shell()
        .write(&diorama::WriteOp::Insert { id: "1".into(), record: rows(1).remove(0).1 })
        .await
        .unwrap();
    app.dio.refresh().await.unwrap();
    app.master.lose(["1".to_string()]).await;
    assert_eq!(send(&app, "", gone).await.json()["state"], "applied", "it is gone once more");
    assert_eq!(app.get("/products/1").await.status, 404);
}

#[tokio::test]
async fn a_failed_delivery_is_the_senders_to_repeat_and_is_kept() {
    let program = Program::new(true, 1);
    let app = start(HookOptions::default(), |lens| program.on(lens)).await;
    let refused = send(&app, "d1", &priced(1, 5)).await;
    assert_eq!(refused.refusal().0, 502, "{refused:?}");
    let failed = soon(&app, "?state=failed", 1).await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["detail"].as_str().unwrap().contains("does not feel like it"));
    let again = send(&app, "d1", &priced(1, 5)).await;
    assert_eq!((again.status, &again.json()["applied"]), (200, &1.into()));
}

#[tokio::test]
async fn a_slow_delivery_is_acknowledged_once_it_is_kept_and_tried_until_it_is_applied() {
    let program = Program::new(false, 2);
    let options = HookOptions { answer_within: Duration::from_millis(1), ..HookOptions::default() };
    let app = start(options, |lens| program.on(lens)).await;
    let answer = send(&app, "d1", &priced(1, 5)).await;
    let told = answer.json();
    assert_eq!((answer.status, &told["state"], &told["queued"]), (202, &"received".into(), &1.into()), "{told}");
    let id = told["delivery"].as_str().unwrap();
    until(&app, id, "received").await;
    assert_eq!(app.json("POST", &format!("/webhooks/shop/deliveries/{id}/replay"), "").await.refusal().0, 409);
    assert_eq!(send(&app, "d1", &priced(1, 5)).await.refusal().1, "in-progress");
    program.gate.send_replace(true);
    let one = until(&app, id, "applied").await;
    assert_eq!(one["attempts"], 3, "it is ours to repeat: {one}");
    assert_eq!(app.get("/products/1").await.json()["price"], 5);
}

#[tokio::test]
async fn what_cannot_be_understood_is_kept_and_not_sent_again() {
    let app = usual().await;
    for poison in ["{", r#"{"op":"frob","id":"1"}"#, r#"{"op":"update","id":"1","new":{"id":"2"}}"#] {
        let answer = send(&app, "", poison).await;
        assert_eq!((answer.status, &answer.json()["state"]), (202, &"undecodable".into()), "{poison}");
    }
    let kept = deliveries(&app, "?state=undecodable").await;
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().all(|one| one["detail"].is_string()), "{kept:?}");
    let again = app.json("POST", kept[0]["links"]["replay"].as_str().unwrap(), "").await.json();
    assert_eq!(again["state"], "undecodable");
    let options = HookOptions { reject_undecodable: true, ..HookOptions::default() };
    let strict = start(options, |lens| lens).await;
    for poison in ["{", r#"{"op":"frob","id":"1"}"#, r#"{"op":"update","id":"1","new":{"id":"2"}}"#] {
        assert_eq!(send(&strict, "", poison).await.refusal(), (422, "undecodable-event".into()), "{poison}");
    }
    assert!(deliveries(&strict, "").await.is_empty());
}

#[tokio::test]
async fn a_bad_change_is_skipped_or_stops_all_as_the_webhook_says() {
    let body = format!(
        r#"[{},{{"op":"frob","id":"2"}},{{"op":"update","id":"3","new":{{"id":"4"}}}},{}]"#,
        priced(1, 5),
        priced(2, 6)
    );
    let app = usual().await;
    let told = send(&app, "", &body).await.json();
    assert_eq!((&told["received"], &told["applied"], &told["skipped"]), (&4.into(), &2.into(), &2.into()), "{told}");
    let strict = hook();
    let strict = Hook::new("shop", "products", strict.inbound.abort_on_item_error(true));
    let gateway = |gateway: Gateway| gateway.try_hook(strict).unwrap();
    let strict = App::with(products(), rows(7), |lens| lens, MountOptions::default(), gateway).await;
    for body in [body, format!(r#"[{},{{"op":"update","id":"3","new":{{"id":"4"}}}}]"#, priced(1, 5))] {
        let answer = send(&strict, "", &body).await;
        assert_eq!((answer.status, &answer.json()["state"]), (202, &"undecodable".into()));
    }
    assert_eq!(strict.get("/products/1").await.json()["price"], 10, "nothing of it was applied");
}

#[tokio::test]
async fn more_than_the_rate_is_told_to_come_again() {
    let app = start(HookOptions { rate: 2, ..HookOptions::default() }, |lens| lens).await;
    let mut statuses = Vec::new();
    for at in 0..4 {
        let answer = send(&app, "", &priced(1, at)).await;
        if answer.status == 429 {
            assert_eq!((answer.refusal().1.as_str(), answer.header("retry-after")), ("rate-limited", "1"));
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..2], [200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
    let program = Program::new(false, 0);
    let options = HookOptions { in_hand: 1, answer_within: Duration::from_millis(1), ..HookOptions::default() };
    let app = start(options, |lens| program.on(lens)).await;
    assert_eq!(send(&app, "d1", &priced(1, 5)).await.status, 202);
    let full = send(&app, "d2", &priced(1, 5)).await;
    assert_eq!((full.refusal(), full.header("retry-after")), ((503, "queue-full".into()), "5"));
    program.gate.send_replace(true);
}

#[tokio::test]
async fn the_newest_version_wins_whatever_the_order() {
    let app = start(HookOptions::default(), |lens| lens.version_column("v")).await;
    let mut orders = vec![vec![]];
    for _ in 0..5 {
        let longer =
            |order: &Vec<u32>| (1..=5).filter(|v| !order.contains(v)).map(|v| [&order[..], &[v]].concat()).collect();
        orders = orders.iter().flat_map(|order: &Vec<u32>| -> Vec<Vec<u32>> { longer(order) }).collect();
    }
    assert_eq!(orders.len(), 120);
    let (app, orders) = (&app, orders.iter().enumerate());
    let all = orders.map(async |(at, order)| {
        let mut newest = 0;
        for version in order {
            let body = format!(
                r#"{{"op":"update","id":"n{at}","new":{{"name":"Bun","price":{version}}},"version":{version}}}"#
            );
            let told = send(app, &format!("{at}-{version}"), &body).await.json();
            newest = newest.max(*version);
            assert_eq!(told["state"], if *version < newest { "stale" } else { "applied" }, "{order:?}: {told}");
        }
        assert_eq!(app.get(&format!("/products/n{at}")).await.json()["price"], 5, "{order:?}");
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn the_inbox_keeps_no_more_than_it_is_told_to_and_what_failed_longest() {
    let limits = InboxLimits { count: 5, ..InboxLimits::default() };
    let app = start(HookOptions::default(), |lens| lens.settings(|settings| settings.inbox = limits)).await;
    send(&app, "poison", "{").await;
    for at in 0..20 {
        assert_eq!(send(&app, &at.to_string(), &priced(1, at)).await.status, 200);
    }
    let kept = deliveries(&app, "").await;
    assert_eq!(kept.len(), 5);
    assert_eq!(kept.last().unwrap()["state"], "undecodable");
    assert_eq!(kept[0]["key"], "19");
    assert_eq!(send(&app, "3", &priced(1, 3)).await.json()["duplicate"], true, "ids are remembered longer");
}

/// A flood and its neighbour: one Lens, one journal, two Dios.
#[tokio::test]
async fn a_flood_of_one_webhook_is_told_to_come_again_and_others_are_served() {
    let (program, files) = (Program::new(false, 0), tempfile::tempdir().unwrap());
    let builder = Lens::new().cache_at(files.path().join("cache.redb")).on_start(|dio| {
        let dio = dio.clone();
        async move { dio.cache().insert_values(dio.master().list_values().await?).await }
    });
    // Only what the flood says is held.
    let held = program.clone();
    let lens = builder.on_event(move |dio, event| {
        let (program, dio) = (if dio.name() == "products" { held.clone() } else { Program::new(true, 0) }, dio.clone());
        async move { program.take(&dio, event).await }
    });
    let lens = lens.build().unwrap();
    let table = |name: &str| MemoryTable::vista(name, products(), rows(7));
    let (flooded, calm) =
        (lens.make_dio(table("products")).await.unwrap(), lens.make_dio(table("calm")).await.unwrap());
    let narrow = HookOptions { rate: 5, in_hand: 2, answer_within: Duration::from_millis(1), ..HookOptions::default() };
    let gateway = Gateway::new().mount(flooded.clone()).mount(calm.clone()).try_hook(hook().with(narrow)).unwrap();
    let router = gateway.try_hook(Hook::new("calm", "calm", hook().inbound)).unwrap().into_router();
    let ask = async |method: &str, path: &str, id: &str, body: String| {
        let request = Request::builder().method(method).uri(path).header("authorization", TOKEN);
        let request = request.header("content-type", "application/json").header("x-delivery", id);
        let answer = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let again = answer.headers().contains_key("retry-after");
        let status = answer.status().as_u16();
        (status, again, axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap())
    };
    let flood = futures_util::future::join_all((0..500).map(|at| {
        let ask = &ask;
        async move { ask("POST", "/webhooks/shop", &format!("f{at}"), priced(1, at)).await }
    }));
    let others = async {
        for at in 0..50 {
            let (status, _, body) = ask("POST", "/webhooks/calm", &format!("c{at}"), priced(1, at)).await;
            let told: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((status, &told["applied"]), (200, &1.into()), "{told}");
            let (status, _, row) = ask("GET", "/calm/1", "", String::new()).await;
            let row: Value = serde_json::from_slice(&row).unwrap();
            assert_eq!((status, &row["price"]), (200, &at.into()));
            assert_eq!(ask("PATCH", "/calm/2", "", format!(r#"{{"price":{at}}}"#)).await.0, 202);
            assert_eq!(ask("GET", "/products/2", "", String::new()).await.0, 200);
        }
    };
    let (flood, ()) = tokio::join!(flood, others);
    let count = |status: u16| flood.iter().filter(|answer| answer.0 == status).count();
    assert_eq!(count(202), 2, "what is in hand is acknowledged");
    assert!(count(503) > 0 && count(429) > 400 && count(202) + count(429) + count(503) == 500);
    assert!(flood.iter().all(|answer| answer.1 == (answer.0 != 202)), "the others are told when to come again");
    assert_eq!(program.begun.load(Ordering::SeqCst), 2);
    program.gate.send_replace(true);
    let applied = async {
        let query = diorama::journal::DeliveryQuery {
            states: vec![diorama::journal::DeliveryState::Applied],
            hook: Some("shop".into()),
            limit: 10,
            ..Default::default()
        };
        while flooded.deliveries(&query).await.unwrap().1 < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), applied).await.expect("what was acknowledged is applied");
    lens.close().await;
}

#[tokio::test]
async fn an_unknown_id_is_inserted_if_its_row_is_whole_and_asked_for_if_it_is_not() {
    let app = usual().await;
    app.master.read_rows();
    let source = app.source();
    for id in ["new", "part"] {
        let record = rows(1).remove(0).1;
        source.shell().write(&diorama::WriteOp::Insert { id: id.into(), record }).await.unwrap();
    }
    let whole = r#"{"op":"update","id":"new","new":{"name":"Bun 1","price":10}}"#;
    assert_eq!(send(&app, "", whole).await.json()["applied"], 1);
    assert_eq!(app.get("/products/new").await.json()["price"], 10);
    let part = |id: &str| format!(r#"{{"op":"update","id":"{id}","partial":true,"new":{{"price":7}}}}"#);
    for id in ["part", "ghost"] {
        let answer = send(&app, "", &part(id)).await;
        assert_eq!((answer.status, &answer.json()["deferred"]), (200, &1.into()));
    }
    let there = async { while app.get("/products/part").await.status != 200 {} };
    tokio::time::timeout(Duration::from_secs(10), there).await.expect("the source is asked");
    assert_eq!(app.get("/products/part").await.json()["price"], 10, "as the source has it");
    assert_eq!(app.get("/products/ghost").await.status, 404);
}

/// Ids that nobody knows do not make the source be asked as often as somebody likes.
#[tokio::test]
async fn thin_events_read_the_source_no_faster_than_allowed() {
    let app = start(HookOptions::default(), |lens| lens.settings(|settings| settings.reread_rate = 5)).await;
    app.master.read_rows();
    let before = app.master.calls().total();
    let thin: Vec<String> = (0..200).map(|at| format!(r#"{{"op":"update","id":"ghost-{at}"}}"#)).collect();
    let told = send(&app, "", &format!("[{}]", thin.join(","))).await.json();
    assert_eq!(told["deferred"], 200, "{told}");
    let started = std::time::Instant::now();
    while app.master.calls().total() < before + 8 {
        assert!(started.elapsed() < Duration::from_secs(10), "they are read at last");
        tokio::task::yield_now().await;
    }
    assert!(started.elapsed() > Duration::from_millis(350), "5 at once, the others at 5 a second");
}

#[tokio::test]
async fn many_changes_are_applied_in_order_and_one_refresh_serves_all_that_ask_for_it() {
    let app = usual().await;
    let changes: Vec<String> = (0..1_000).map(|at| priced(1 + at % 7, at)).collect();
    let told = send(&app, "many", &format!("[{}]", changes.join(","))).await.json();
    let seen =
        told["applied"].as_u64().unwrap() + told["deferred"].as_u64().unwrap() + told["unchanged"].as_u64().unwrap();
    assert_eq!((told["received"].as_u64(), seen), (Some(1_000), 1_000), "{told}");
    app.master.lose(["7".to_string()]).await;
    let before = app.master.calls().total();
    let all = vec![r#"{"op":"invalidate"}"#; 20].join(",");
    assert_eq!(send(&app, "all", &format!("[{all}]")).await.status, 200);
    assert!(app.master.calls().total() - before <= 3, "{} reads", app.master.calls().total() - before);
    assert_eq!(app.get("/products/7").await.status, 404);
}
