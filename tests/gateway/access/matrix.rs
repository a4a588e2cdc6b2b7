//! Every route and method for every kind of caller, on its own row, the row of another caller, and no row.

use std::collections::BTreeSet;

use diorama::dio::WriteOptions;
use diorama::{WriteOp, dio::OperationState};

use super::world::{SENDER, World, assert_discreet};
use crate::harness::{Answer, cells};

/// Callers, in the order of the columns of [`MATRIX`]: without a credential, without a rule, with `read`, with all verbs of rows,
/// with the verbs of writes alone, with `events`, with `operations` and `refresh`, with `webhooks`, with `admin` for everything, and
/// one to whom no rule applies.
const CALLERS: [&str; 10] =
    ["", "stranger", "reader", "member", "writer", "follower", "operator", "hooks", "boss", "root"];

/// Answers by route. A cell with three letters is about the own row or operation, that of another caller, and an absent one:
///
/// - `A` 200, `Q` 202 (queued for the source), `B` 400
/// - `G` 404 `dio-not-found`, `N` 404 `not-found`, `n` 404 without a body
/// - `F` 403 `forbidden`, `f` 403 without a body
/// - `C` 409 `already-exists` or `conflict`
///
/// Only `root` may see secrets: hidden columns and rows of others. `hooks` sees the bodies of deliveries.
#[rustfmt::skip]
const MATRIX: &str = "
route                                        anon   strang reader member writer follow operat hooks  boss   root
GET /                                        A      A      A      A      A      A      A      A      A      A
GET /docs                                    A      A      A      A      A      A      A      A      A      A
GET /healthz                                 A      A      A      A      A      A      A      A      A      A
GET /readyz                                  A      A      A      A      A      A      A      A      A      A
GET /metrics                                 F      F      F      F      F      F      F      F      A      A
GET /openapi.json                            A      A      A      A      A      A      A      A      A      A
GET /asyncapi.json                           A      A      A      A      A      A      A      A      A      A
GET /static/explorer.js                      A      A      A      A      A      A      A      A      A      A
GET /problems/not-found                      A      A      A      A      A      A      A      A      A      A
GET /operations                              A      A      A      A      A      A      A      A      A      A
POST /operations/_retry                      A      A      A      A      A      A      A      A      A      A
GET /operations/{id}                         N      N      ANN    ANN    ANN    ANN    AAN    ANN    ANN    AAN
DELETE /operations/{id}                      N      N      FNN    FNN    FNN    FNN    CCN    FNN    FNN    CCN
POST /operations/{id}/retry                  N      N      FNN    FNN    FNN    FNN    CCN    FNN    FNN    CCN
POST /_backup                                F      F      F      F      F      F      F      F      N      N
GET /_audit                                  F      F      F      F      F      F      F      F      N      N
GET /_access                                 A      A      A      A      A      A      A      A      A      A
GET /webhooks/{hook}/deliveries              N      N      F      F      F      F      F      A      F      A
GET /webhooks/{hook}/deliveries/{id}         N      N      F      F      F      F      F      A      F      A
POST /webhooks/{hook}/deliveries/{id}/replay N      N      F      F      F      F      F      A      F      A
GET /_notify                                 A      A      A      A      A      A      A      A      A      A
GET /_notify/{notification}                  N      N      F      F      F      F      F      A      F      A
POST /_notify/{notification}/enable          N      N      F      F      F      F      F      A      F      A
GET /_notify/{notification}/deliveries       N      N      F      F      F      F      F      A      F      A
GET /_notify/{notification}/deliveries/{id}  N      N      F      F      F      F      F      A      F      A
POST /_notify/{notification}/deliveries/{id}/replay N N    F      F      F      F      F      A      F      A
GET /events                                  B      B      B      B      B      B      B      B      B      B
GET /orders                                  G      G      A      A      F      F      F      F      F      A
HEAD /orders                                 n      n      A      A      f      f      f      f      f      A
POST /orders                                 G      G      F      QCQ    QCQ    F      F      F      F      QCQ
PATCH /orders                                G      G      F      QAA    QAA    F      F      F      F      QQA
DELETE /orders                               G      G      F      QAA    QAA    F      F      F      F      QQA
POST /orders/_query                          G      G      A      A      F      F      F      F      F      A
GET /orders/_aggregate                       G      G      A      A      F      F      F      F      F      A
HEAD /orders/_aggregate                      n      n      A      A      f      f      f      f      f      A
GET /orders/events                           G      G      F      A      F      A      F      F      F      A
GET /orders/live                             G      G      F      A      F      F      F      F      F      A
POST /orders/_refresh                        G      G      F      F      F      F      A      F      F      A
POST /orders/_purge                          G      G      F      F      F      F      F      F      A      A
GET /orders/_schema                          G      G      A      A      A      A      A      A      A      A
GET /orders/{id}                             G      G      ANN    ANN    F      F      F      F      F      AAN
HEAD /orders/{id}                            n      n      Ann    Ann    f      f      f      f      f      AAn
POST /orders/{id}                            G      G      F      CCQ    CCQ    F      F      F      F      CCQ
PUT /orders/{id}                             G      G      F      QCQ    QCQ    F      F      F      F      QQQ
PATCH /orders/{id}                           G      G      F      QNN    QNN    F      F      F      F      QQN
DELETE /orders/{id}                          G      G      F      QNN    QNN    F      F      F      F      QQN
GET /orders/{id}/{relation}                  G      G      ANN    ANN    F      F      F      F      F      AAN
GET /orders/{id}/events                      G      G      F      A      F      A      F      F      F      A
";

/// Routes of senders of webhooks, who have signatures in place of roles.
const OF_SENDERS: [&str; 3] = ["POST /webhooks/{hook}", "GET /webhooks/{hook}", "OPTIONS /webhooks/{hook}"];

/// Routes about credentials, which a gateway without authentication does not have.
const OF_CREDENTIALS: [&str; 3] = ["POST /_ticket", "POST /_session", "DELETE /_session"];

/// Own row, another caller's row, no row.
const ROWS: [&str; 3] = ["mine", "theirs", "absent"];

struct Line<'t> {
    method: &'t str,
    path: &'t str,
    cells: Vec<&'t str>,
}

fn lines() -> Vec<Line<'static>> {
    let lines = MATRIX.trim().lines().skip(1).map(|line| {
        let mut words = line.split_whitespace();
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let line = Line { method, path, cells: words.collect() };
        assert_eq!(line.cells.len(), CALLERS.len(), "{method} {path}");
        line
    });
    lines.collect()
}

#[tokio::test]
async fn every_route_of_the_document_is_in_the_matrix() {
    let world = World::usual().await;
    let document = world.get("root", "/openapi.json").await.json();
    let mut served = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|name| *name != "parameters") {
            let path = path.replace("/shop", "/{hook}").replace("{file}", "explorer.js").replace("{code}", "not-found");
            served.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    served.retain(|route| !route.contains("/vault") && !route.contains("/safe"));
    let mut listed: BTreeSet<String> = lines().iter().map(|line| format!("{} {}", line.method, line.path)).collect();
    listed.extend(OF_SENDERS.iter().chain(&OF_CREDENTIALS).map(|route| (*route).to_string()));
    let unlisted: Vec<_> = served.difference(&listed).collect();
    assert!(unlisted.is_empty(), "routes without a line in the matrix: {unlisted:#?}");
    let unserved: Vec<_> = listed.difference(&served).filter(|route| !OF_SENDERS.contains(&route.as_str())).collect();
    assert!(unserved.is_empty(), "lines for routes that do not exist: {unserved:#?}");
}

/// The cell of an answer.
fn word(answer: &Answer) -> String {
    let code = serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap_or_default();
    match (answer.status, code["code"].as_str().unwrap_or_default()) {
        (404, "dio-not-found") => "G".into(),
        (404, "not-found") => "N".into(),
        (404, "") => "n".into(),
        (403, "forbidden") => "F".into(),
        (403, "") => "f".into(),
        (409, "already-exists" | "conflict") => "C".into(),
        (200, _) => "A".into(),
        (202, _) => "Q".into(),
        (400, _) => "B".into(),
        (status, code) => format!("[{status} {code}]"),
    }
}

/// Paths and bodies of a line for the own row, the row of another caller, and no row.
fn requests(line: &Line<'_>, operations: &[String; 3], delivery: &str) -> Vec<(String, String)> {
    let whole = |id: &str| format!(r#"{{"id":"{id}","owner":"ann","status":"new","total":1}}"#);
    let targets: [(String, String); 3] = std::array::from_fn(|at| {
        let id = if line.path.starts_with("/operations") { &operations[at] } else { ROWS[at] };
        let path = match line.path.starts_with("/webhooks") || line.path.starts_with("/_notify") {
            true => line.path.replace("{hook}", "shop").replace("{notification}", "shop").replace("{id}", delivery),
            false => line.path.replace("{id}", id).replace("{relation}", "more"),
        };
        let (path, body) = match (line.method, line.path) {
            ("POST", "/orders") if at == 0 => (path, whole("fresh")),
            ("POST", "/orders") | ("POST" | "PUT", "/orders/{id}") => (path, whole(id)),
            ("PATCH" | "DELETE", "/orders") => (format!("/orders?id=eq.{id}"), r#"{"status":"new"}"#.into()),
            ("PATCH", _) => (path, r#"{"status":"new"}"#.into()),
            ("POST", "/orders/_query") => (path, "{}".into()),
            ("POST", "/orders/_purge") => (path, r#"{"ids":["none"]}"#.into()),
            ("GET" | "HEAD", "/orders/_aggregate") => {
                (format!("{path}?select=status,count(),max(total)"), String::new())
            }
            _ => (path, String::new()),
        };
        (path, body)
    });
    let mut distinct: Vec<(String, String)> = Vec::new();
    for target in targets {
        if !distinct.contains(&target) {
            distinct.push(target);
        }
    }
    distinct
}

/// A world in which `caller` and somebody else have written, and a webhook was received.
async fn used_world(caller: &str) -> (World, [String; 3], String) {
    let world = World::usual().await;
    let own = if caller.is_empty() { "nobody".into() } else { format!("key:{caller}") };
    let mut operations = vec![];
    for (id, principal) in [("mine", own), ("theirs", "key:eve".to_string())] {
        let op = WriteOp::Patch { id: id.into(), record: cells([("total", 11.into())]) };
        let options = WriteOptions { principal: Some(principal.into()), ..WriteOptions::default() };
        let ticket = world.orders.write(op, options).await.unwrap();
        let settled = world.orders.settled(ticket.operation.unwrap(), std::time::Duration::from_secs(10)).await;
        assert_eq!(settled.unwrap().state, OperationState::Applied);
        operations.push(ticket.operation.unwrap().to_string());
    }
    operations.push("op_00000000000000000000000000".into());
    let bearer = format!("Bearer {SENDER}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("x-delivery", "one")];
    let sent = r#"{"type":"updated","id":"theirs","record":{"id":"theirs","owner":"bob","status":"SECRET-delivery"}}"#;
    let received = world.send("", "POST", "/webhooks/shop", &headers, sent).await;
    assert!(received.status < 500, "{received:?}");
    let mut listed = world.get("root", "/webhooks/shop/deliveries").await.json();
    for _ in 0..1_000 {
        if listed[0]["state"].as_str().is_some_and(|state| state != "received") {
            break;
        }
        tokio::task::yield_now().await;
        listed = world.get("root", "/webhooks/shop/deliveries").await.json();
    }
    let delivery = listed[0]["id"].as_str().unwrap().to_string();
    (world, operations.try_into().unwrap(), delivery)
}

/// A world for a request of `line`, in which something has happened if the line is about that.
async fn world_of(line: &Line<'_>, caller: &str) -> (World, [String; 3], String) {
    match line.path.starts_with("/operations") || line.path.starts_with("/webhooks") {
        true => used_world(caller).await,
        false if line.path.contains("/deliveries") => {
            let (world, operations, _) = used_world(caller).await;
            let notice = world.notice().await;
            (world, operations, notice)
        }
        false => (World::usual().await, Default::default(), String::new()),
    }
}

#[tokio::test]
async fn every_caller_gets_what_the_matrix_says_and_no_secrets() {
    let mut wrong = Vec::new();
    for line in lines() {
        for (caller, cell) in CALLERS.iter().zip(&line.cells) {
            let expected: Vec<String> = cell.chars().map(String::from).collect();
            let mut got = Vec::new();
            for target in 0..3 {
                // Each request has a world of its own, because it changes it.
                let (world, operations, delivery) = world_of(&line, caller).await;
                let Some((path, body)) = requests(&line, &operations, &delivery).into_iter().nth(target) else { break };
                let media = if line.path.ends_with("/live") { "text/event-stream" } else { "application/json" };
                let mut headers = vec![("accept", media)];
                headers.extend((!body.is_empty()).then_some(("content-type", "application/json")));
                let answer = world.send(caller, line.method, &path, &headers, body).await;
                got.push(word(&answer));
                let what = format!("{} {path} of {caller:?}", line.method);
                match *caller {
                    "root" => {}
                    "hooks" if line.path.contains("deliveries") => {}
                    // An administrator sees the names of everything, and no row.
                    "boss" => assert!(!String::from_utf8_lossy(&answer.body).contains("SECRET-"), "{what}: {answer:?}"),
                    _ => assert_discreet(&answer, &what),
                }
                if expected.len() == 1 && target == 0 && got[0] == expected[0] && line.method == "GET" {
                    break;
                }
            }
            let same = match expected.len() {
                1 => got.iter().all(|word| *word == expected[0]),
                _ => got == expected,
            };
            if !same {
                wrong.push(format!("{} {} of {caller:?}: {} and not {cell}", line.method, line.path, got.concat()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
