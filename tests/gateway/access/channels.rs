//! Side channels: what an answer could tell of rows, columns and callers that its caller may not see.

use diorama::gateway::MountOptions;
use diorama::gateway::access::{Allow, Verb};
use diorama::vista::Reference;
use serde_json::json;

use super::world::{COLUMNS, SECRET, SENDER, World, allow, assert_discreet, row, rules, schema, told};
use crate::harness::{Answer, cells};

const READER: &str = "reader";

/// The answer to a request about something hidden has to be that to the same request about something that does not exist.
async fn alike(world: &World, caller: &str, method: &str, (hidden, absent): (&str, &str), body: (&str, &str)) {
    let one = world.json(caller, method, hidden, body.0).await;
    let other = world.json(caller, method, absent, body.1).await;
    let neutral = |text: String| {
        text.replace("meta_SECRET", "NAME")
            .replace("theirs", "NAME")
            .replace("secret", "NAME")
            .replace("nosuch", "NAME")
            .replace("safe", "NAME")
            .replace("vaulx", "NAME")
            .replace("vault", "NAME")
    };
    assert_eq!(neutral(told(&one)), neutral(told(&other)), "{method} {hidden} and {absent}");
}

/// The text of an answer without the times of its heartbeats.
fn without_times(answer: &Answer) -> String {
    let text = answer.text();
    let (mut kept, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once(r#""at":""#) {
        kept.push_str(before);
        rest = after.split_once('"').map_or("", |(_, after)| after);
    }
    kept + rest
}

#[tokio::test]
async fn counts_and_ranges_are_those_of_the_visible_rows() {
    let world = World::usual().await;
    for path in ["/orders", "/orders?limit=0", "/orders?total=gte.0", "/orders?order=total.desc", "/orders?after="] {
        let answer = world.get(READER, path).await;
        assert_eq!(answer.header("x-total-count"), "1", "{path} {answer:?}");
        assert!(answer.header("content-range").ends_with("/1"), "{path} {answer:?}");
    }
    let counted = world.get(READER, "/orders/_aggregate?select=count(),max(total),min(status)").await;
    assert_eq!(counted.json(), json!([{"count": 1, "max_total": 10, "min_status": "open"}]), "{counted:?}");
    let posted = world.json(READER, "POST", "/orders/_query", "{}").await;
    assert_eq!((posted.header("x-total-count"), posted.ids()), ("1", vec!["mine".to_string()]));
}

#[tokio::test]
async fn a_hidden_column_is_an_unknown_column() {
    let world = World::usual().await;
    for query in [
        "NAME=eq.x",
        "NAME=x",
        "NAME->a=eq.1",
        "order=NAME",
        "order=NAME->a",
        "select=NAME",
        "select=id,NAME",
        "select=NAME->a",
        "select=x:NAME",
        "order=NAME.desc&limit=1",
        "NAME=not.is.null",
        "NAME=match.^S",
        "or=(NAME.eq.x,total.eq.1)",
        "sort=[\"NAME\",\"ASC\"]",
        "_sort=NAME",
        "filter={\"NAME\":1}",
        "NAME_gte=1",
    ] {
        let paths = ["secret", "nosuch"].map(|name| format!("/orders?{}", query.replace("NAME", name)));
        let paths =
            paths.map(|path| path.replace('"', "%22").replace('{', "%7B").replace('}', "%7D").replace('>', "%3E"));
        alike(&world, READER, "GET", (&paths[0], &paths[1]), ("", "")).await;
    }
    for select in ["NAME", "max(NAME)", "count(NAME)", "total,min(NAME)", "NAME->a"] {
        let paths = ["secret", "nosuch"]
            .map(|name| format!("/orders/_aggregate?select={}", select.replace("NAME", name).replace('>', "%3E")));
        alike(&world, READER, "GET", (&paths[0], &paths[1]), ("", "")).await;
    }
    for body in [
        r#"{"select":["NAME"]}"#,
        r#"{"filter":{"NAME":{"eq":1}}}"#,
        r#"{"order":["NAME"]}"#,
        r#"{"NAME":1}"#,
        r#"{"where":{"NAME":1}}"#,
        r#"{"filter":[{"column":"NAME","op":"eq","value":1}]}"#,
    ] {
        let bodies = ["secret", "nosuch"].map(|name| body.replace("NAME", name));
        alike(&world, READER, "POST", ("/orders/_query", "/orders/_query"), (&bodies[0], &bodies[1])).await;
    }
}

#[tokio::test]
async fn errors_do_not_suggest_what_is_hidden() {
    let world = World::usual().await;
    for path in [
        "/orders?secre=1",
        "/orders?order=secrett",
        "/orders?select=secre",
        "/orders/_aggregate?select=max(secre)",
        "/order",
        "/vaul",
        "/vault",
        "/vault/x",
        "/vault/_schema",
        "/operations?dio=vault",
        "/operations?dio=vaul",
        "/webhooks/saf/deliveries",
        "/webhooks/safe/deliveries",
        "/vault/events",
        "/vault/live",
        "/orders/their",
        "/orders?meta_SECRE=1",
    ] {
        for caller in [READER, "member", "stranger", ""] {
            let text = told(&world.get(caller, path).await);
            let known = path.contains("vault") || path.contains("safe");
            assert!(known || !text.contains("vault") && !text.contains("safe"), "{path} of {caller:?}: {text}");
            assert!(
                !text.contains("\\\"secret\\\"") && !text.contains("theirs") && !text.contains(SECRET),
                "{path}: {text}"
            );
        }
    }
    alike(&world, READER, "GET", ("/vault", "/vaulx"), ("", "")).await;
    let unknown = world.send("", "POST", "/webhooks/nosuch", &[("content-type", "application/json")], "{}").await;
    assert!(!told(&unknown).contains("shop") && !told(&unknown).contains("safe"), "{unknown:?}");
}

#[tokio::test]
async fn a_hidden_row_is_an_absent_row() {
    let world = World::usual().await;
    let paths = ("/orders/theirs", "/orders/nosuch");
    for caller in [READER, "member", "writer"] {
        for (method, body) in
            [("GET", ""), ("PATCH", r#"{"status":"x"}"#), ("DELETE", ""), ("PATCH", r#"{"total":"no"}"#)]
        {
            alike(&world, caller, method, paths, (body, body)).await;
        }
        for condition in ["*", "\"AAAAAAAAAAAAAAAAAAAAAA\""] {
            for (method, header) in [
                ("PATCH", "if-match"),
                ("DELETE", "if-match"),
                ("PATCH", "if-none-match"),
                ("GET", "if-none-match"),
                ("GET", "if-match"),
            ] {
                let headers = [("content-type", "application/json"), (header, condition)];
                let theirs = world.send(caller, method, paths.0, &headers, r#"{"status":"x"}"#).await;
                let absent = world.send(caller, method, paths.1, &headers, r#"{"status":"x"}"#).await;
                let neutral = told(&theirs).replace("theirs", "nosuch");
                assert_eq!(neutral, told(&absent), "{method} of {caller} with {header}: {condition}");
            }
        }
    }
    for (hidden, absent) in [
        ("/orders?id=eq.theirs", "/orders?id=eq.nosuch"),
        ("/orders/theirs/events", "/orders/nosuch/events"),
        ("/operations?record=theirs", "/operations?record=nosuch"),
    ] {
        let (one, other) = (world.get("member", hidden).await, world.get("member", absent).await);
        assert_eq!((one.status, without_times(&one)), (other.status, without_times(&other)), "{hidden}");
    }
}

#[tokio::test]
async fn an_etag_does_not_change_with_hidden_columns_and_is_no_oracle() {
    let world = World::usual().await;
    let etag = async || world.get("member", "/orders/mine").await.header("etag").to_string();
    let before = etag().await;
    world.orders.patched("mine", row("mine", "ann", "open", 10).1).await.unwrap();
    let hidden = world.json("root", "PATCH", "/orders/mine", r#"{"secret":"SECRET-other"}"#).await;
    assert_eq!(hidden.status, 202, "{hidden:?}");
    assert_eq!(etag().await, before, "only a hidden column changed");
    let full = world.get("root", "/orders/mine").await.header("etag").to_string();
    assert_ne!(full, before);
    // The version of the whole row, guessed or overheard, matches nothing for a caller who sees a part.
    let patch = async |tag: &str| {
        let headers = [("content-type", "application/json"), ("if-match", tag)];
        world.send("member", "PATCH", "/orders/mine", &headers, r#"{"status":"x"}"#).await.status
    };
    assert_eq!(patch(&full).await, 412);
    let headers = [("if-none-match", full.as_str())];
    assert_eq!(world.send("member", "GET", "/orders/mine", &headers, "").await.status, 200);
    assert_eq!(patch(&before).await, 202);
}

#[tokio::test]
async fn etags_of_lists_differ_between_scopes() {
    let world = World::usual().await;
    let etag = async |caller: &str| world.get(caller, "/orders").await.header("etag").to_string();
    let tags = [etag("reader@ann").await, etag("reader@bob").await, etag("root").await];
    for (caller, foreign) in [("reader@ann", &tags[1]), ("reader@ann", &tags[2]), ("root", &tags[0])] {
        let answer = world.send(caller, "GET", "/orders", &[("if-none-match", foreign)], "").await;
        assert_eq!(answer.status, 200, "{caller} with the tag of another scope");
    }
    let own = world.send("reader@ann", "GET", "/orders", &[("if-none-match", &tags[0])], "").await;
    assert_eq!(own.status, 304);
}

#[tokio::test]
async fn a_forged_cursor_shows_visible_rows_only() {
    let rows: Vec<_> =
        (0..9).map(|n| row(&format!("r{n}"), if n % 3 == 0 { "ann" } else { "bob" }, "open", n)).collect();
    let world = World::of(rows, &rules(), MountOptions::default()).await;
    for order in ["", "order=total&", "order=total.desc&", "order=id&", "total=gte.0&"] {
        let mut next = format!("/orders?{order}limit=1&after=");
        for _ in 0..9 {
            let all = world.get("root", &next).await;
            let cursor =
                all.header("link").split("after=").nth(2).and_then(|rest| rest.split('>').next()).map(str::to_string);
            let Some(cursor) = cursor else { break };
            next = format!("/orders?{order}limit=1&after={cursor}");
            // The cursor of a row that the caller does not see.
            let forged = world.get(READER, &next.replace("limit=1", "limit=100")).await;
            assert_eq!(forged.status, 200, "{forged:?}");
            assert_discreet(&forged, &next);
            assert!(forged.ids().iter().all(|id| ["r0", "r3", "r6"].contains(&id.as_str())), "{next}: {forged:?}");
            assert!(forged.header("content-range").ends_with("/3"), "{next}: {forged:?}");
        }
    }
    for cursor in ["secret", "eyJ4IjoxfQ", "AAAA", "%00", "~"] {
        let answer = world.get(READER, &format!("/orders?order=total&after={cursor}")).await;
        assert!(answer.status < 500, "{cursor}: {answer:?}");
        assert_discreet(&answer, cursor);
    }
}

#[tokio::test]
async fn a_search_does_not_look_at_hidden_columns_or_rows() {
    let world = World::usual().await;
    for words in ["SECRET", "secret-column", "column-mine", "theirs", "column"] {
        let found = world.get(READER, &format!("/orders?q={words}")).await;
        assert_eq!((found.status, found.header("x-total-count")), (200, "0"), "{words}: {found:?}");
        let counted = world.get(READER, &format!("/orders/_aggregate?select=count()&q={words}")).await;
        assert!(!counted.text().contains("\"count\":1"), "{counted:?}");
        // The index of words is shared: a caller with all columns must not change the answer.
        assert_ne!(world.get("root", &format!("/orders?q={words}")).await.header("x-total-count"), "0");
        assert_eq!(world.get(READER, &format!("/orders?q={words}")).await.header("x-total-count"), "0");
    }
    assert_eq!(world.get(READER, "/orders?q=open").await.ids(), ["mine"]);
}

#[tokio::test]
async fn plans_are_for_administrators() {
    let world = World::usual().await;
    for caller in [READER, "member"] {
        let answer = world.get(caller, "/orders?explain=true&total=gte.1").await;
        assert_eq!(answer.refusal(), (403, "forbidden".into()));
    }
    assert_eq!(world.get("root", "/orders?explain=true").await.status, 200);
}

#[tokio::test]
async fn a_schema_has_the_visible_columns() {
    let world = World::usual().await;
    for caller in [READER, "member", "writer", "follower"] {
        let schema = world.get(caller, "/orders/_schema").await;
        let columns: Vec<_> =
            schema.json()["columns"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
        assert_eq!(columns, ["id", "owner", "status", "total"], "{caller}");
        assert!(!schema.text().contains("secret"), "{caller}");
    }
    for caller in ["operator", "hooks"] {
        let columns = world.get(caller, "/orders/_schema").await.json()["columns"].as_array().unwrap().len();
        assert_eq!(columns, 1, "{caller} has no right to rows, and knows of the id alone");
    }
    assert_eq!(world.get("boss", "/orders/_schema").await.json()["columns"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn a_reference_does_not_name_a_resource_that_the_caller_does_not_see() {
    let to = |target: &str| Reference {
        relation: "more".into(),
        target: target.into(),
        column: "owner".into(),
        many: false,
    };
    let schema = schema().with_references(vec![to("vault"), to("orders"), to("unserved")]);
    let world = World::over(schema, Vec::new(), &rules()).await;
    for (caller, targets) in
        [(READER, vec!["orders"]), ("boss", vec!["vault", "orders"]), ("root", vec!["vault", "orders", "unserved"])]
    {
        let schema = world.get(caller, "/orders/_schema").await.json();
        let shown: Vec<_> = schema["references"].as_array().unwrap().iter().map(|it| it["target"].clone()).collect();
        assert_eq!(shown, targets, "{caller}");
    }
}

#[tokio::test]
async fn the_index_lists_what_the_caller_may_use() {
    let world = World::usual().await;
    let names = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (caller, resources, hooks) in [
        ("", vec![], vec![]),
        ("stranger", vec![], vec![]),
        (READER, vec!["orders"], vec![]),
        ("hooks", vec!["orders"], vec!["shop"]),
        ("keeper", vec!["vault"], vec![]),
        ("boss", vec!["orders", "vault"], vec![]),
        ("root", vec!["orders", "vault"], vec!["safe", "shop"]),
    ] {
        let index = world.get(caller, "/").await.json();
        assert_eq!(
            (names(&index["resources"]), names(&index["webhooks"])),
            (resources.iter().map(|it| it.to_string()).collect(), hooks.iter().map(|it| it.to_string()).collect()),
            "{caller:?}"
        );
        let page = world.send(caller, "GET", "/", &[("accept", "text/html")], "").await;
        for (name, listed) in [("vault", resources.contains(&"vault")), ("webhooks/safe", hooks.contains(&"safe"))] {
            assert_eq!(page.text().contains(name), listed, "{name} in the page of {caller:?}");
        }
        let all_columns = ["boss", "root", "keeper"].contains(&caller);
        assert_eq!(page.text().contains("meta_SECRET"), all_columns, "columns in the page of {caller:?}");
    }
    let page = world.send(READER, "GET", "/", &[("accept", "text/html")], "").await;
    assert!(!page.text().contains("<td class=\"number\">2</td>"), "the number of all rows");
}

#[tokio::test]
async fn documents_have_what_the_caller_may_do() {
    let world = World::usual().await;
    let document = world.get(READER, "/openapi.json").await;
    let paths = document.json()["paths"].clone();
    assert!(paths["/orders"]["get"].is_object() && paths["/orders"]["post"].is_null(), "{paths}");
    assert!(paths["/orders/_refresh"].is_null() && paths["/_backup"].is_null() && paths["/metrics"].is_null());
    assert!(!document.text().contains("vault") && !document.text().contains("\"secret\""), "names of what is hidden");
    assert!(paths["/webhooks/shop"].is_null());
    let events = world.get("member", "/asyncapi.json").await;
    assert!(events.text().contains("/orders/events") && !events.text().contains("vault"));
    assert!(!world.get(READER, "/asyncapi.json").await.text().contains("/orders/events"), "events are not permitted");
    let follower = world.get("follower", "/asyncapi.json").await;
    assert!(follower.text().contains("/orders/events") && !follower.text().contains("/orders/live"));
    for caller in ["", "stranger"] {
        for path in ["/openapi.json", "/asyncapi.json"] {
            assert!(!world.get(caller, path).await.text().contains("orders"), "{path}");
        }
    }
    // Two callers with equal rights share a document, others do not.
    let etag = async |caller: &str| world.get(caller, "/openapi.json").await.header("etag").to_string();
    assert_eq!(etag("reader@ann").await, etag("reader@bob").await);
    assert_ne!(etag(READER).await, etag("root").await);
}

#[tokio::test]
async fn readiness_tells_details_to_administrators_only() {
    let world = World::usual().await;
    for (caller, dios) in [("", 0), (READER, 0), ("operator", 0), ("boss", 2), ("root", 2)] {
        let answer = world.get(caller, "/readyz").await;
        assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("ready")), "{caller:?}");
        assert_eq!(answer.json()["dios"].as_object().unwrap().len(), dios, "{caller:?}");
    }
}

#[tokio::test]
async fn metrics_and_backups_are_for_administrators_of_everything() {
    let mut rules = rules();
    rules.push(allow("local", "orders", &[Verb::Admin], "", None));
    let world = World::with(&rules, MountOptions::default()).await;
    for caller in ["", READER, "operator", "local"] {
        assert_eq!(world.get(caller, "/metrics").await.status, 403, "{caller:?}");
        assert_eq!(world.json(caller, "POST", "/_backup", "").await.status, 403, "{caller:?}");
    }
    assert_eq!(world.get("boss", "/metrics").await.status, 200);
}

#[tokio::test]
async fn operations_and_their_errors_are_for_their_writers_and_for_operators() {
    let world = World::usual().await;
    let written = world.json("member@bob", "PATCH", "/orders/theirs", r#"{"total":3}"#).await;
    let operation = written.header("dio-operation").to_string();
    for (caller, sees) in
        [("", false), (READER, false), ("member", false), ("hooks", false), ("member@bob", true), ("operator", true)]
    {
        let listed = world.get(caller, "/operations").await;
        assert_eq!(listed.json().as_array().unwrap().len(), usize::from(sees), "{caller:?}");
        assert_eq!(listed.header("x-total-count"), if sees { "1" } else { "0" }, "{caller:?}");
        assert_eq!(world.get(caller, &operation).await.status, if sees { 200 } else { 404 }, "{caller:?}");
        let lines = world.send(caller, "GET", "/operations", &[("accept", "application/x-ndjson")], "").await;
        assert_eq!(lines.text().lines().count(), usize::from(sees), "{caller:?}");
    }
    let absent = "/operations/op_00000000000000000000000000";
    for (method, end) in [("GET", ""), ("DELETE", ""), ("POST", "/retry")] {
        let (theirs, none) = (format!("{operation}{end}"), format!("{absent}{end}"));
        let one = told(&world.json("member", method, &theirs, "").await);
        let other = told(&world.json("member", method, &none, "").await);
        assert_eq!(one.replace(&operation[12..], "X"), other.replace(&absent[12..], "X"), "{method}{end}");
    }
}

#[tokio::test]
async fn deliveries_are_for_those_who_may_see_them() {
    let world = World::usual().await;
    let bearer = format!("Bearer {SENDER}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json"), ("x-delivery", "d")];
    let sent = world.send("", "POST", "/webhooks/safe", &headers, r#"{"SECRET-body":1}"#).await;
    assert!(sent.status < 500, "{sent:?}");
    for caller in ["", READER, "member", "operator", "boss", "hooks"] {
        let path = "/webhooks/safe/deliveries";
        let answer = world.get(caller, path).await;
        assert!([403, 404].contains(&answer.status), "{caller:?}: {answer:?}");
        assert_discreet(&answer, caller);
    }
    alike(&world, "hooks", "GET", ("/webhooks/safe/deliveries", "/webhooks/nosuch/deliveries"), ("", "")).await;
}

#[tokio::test]
async fn answers_to_writes_have_the_visible_part_of_the_row() {
    let world = World::usual().await;
    let prefer = [("content-type", "application/json"), ("prefer", "return=representation, wait=10")];
    for (method, path, body) in [
        ("PATCH", "/orders/mine", r#"{"status":"new"}"#),
        ("PUT", "/orders/mine", r#"{"owner":"ann","status":"newer","total":1}"#),
        ("POST", "/orders/own", r#"{"owner":"ann","status":"x"}"#),
        (
            "POST",
            "/orders",
            r#"[{"id":"own2","owner":"ann"},{"id":"theirs","owner":"ann"},{"id":"mine","owner":"ann"}]"#,
        ),
        ("DELETE", "/orders/mine", ""),
    ] {
        let answer = world.send("member", method, path, &prefer, body).await;
        assert!(answer.status < 300, "{answer:?}");
        assert_discreet(&answer, path);
        assert!(!answer.text().contains("secret"), "{answer:?}");
    }
    let written = world.send("writer@bob", "PATCH", "/orders/theirs", &prefer, r#"{"total":1}"#).await;
    assert_eq!(
        (written.status, written.text()),
        (204, ""),
        "a caller without the right to read gets no row: {written:?}"
    );
    let deleted = world.send("writer@bob", "DELETE", "/orders/theirs", &prefer, "").await;
    assert_eq!((deleted.status, deleted.text(), deleted.header("etag")), (204, "", ""), "{deleted:?}");
}

#[tokio::test]
async fn a_put_keeps_the_columns_that_the_caller_does_not_see() {
    let world = World::usual().await;
    let put = world.json("member", "PUT", "/orders/mine", r#"{"owner":"ann","status":"put"}"#).await;
    assert_eq!(put.status, 202, "{put:?}");
    let row = world.get("root", "/orders/mine").await.json();
    assert_eq!((row["secret"].as_str(), row["status"].as_str()), (Some("SECRET-column-mine"), Some("put")));
    assert!(row["total"].is_null(), "a visible column that the body leaves out is gone: {row}");
    for (method, path) in
        [("PUT", "/orders/mine"), ("PATCH", "/orders/mine"), ("POST", "/orders/n"), ("POST", "/orders")]
    {
        let bodies = ["secret", "nosuch"].map(|name| {
            format!(r#"{{"id":"{}","owner":"ann","{name}":1}}"#, if path.ends_with("mine") { "mine" } else { "n" })
        });
        alike(&world, "member", method, (path, path), (&bodies[0], &bodies[1])).await;
    }
    alike(
        &world,
        "member",
        "PATCH",
        ("/orders?id=eq.mine", "/orders?id=eq.mine"),
        (r#"{"secret":1}"#, r#"{"nosuch":1}"#),
    )
    .await;
    assert_eq!(world.get("root", "/orders/mine").await.json()["secret"], "SECRET-column-mine");
}

#[tokio::test]
async fn a_strict_bulk_insert_says_no_more_than_an_insert() {
    let world = World::usual().await;
    let equal = world.orders.held_row("theirs").unwrap();
    assert_eq!(equal["owner"], "bob".into());
    for strict in [true, false] {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(strict.then_some(("prefer", "handling=strict")));
        // Equal to the visible part of the hidden row, and not equal: the answers are the same.
        let mut told_of = Vec::new();
        for status in ["SECRET-status", "other"] {
            let body = format!(r#"[{{"id":"theirs","owner":"ann","status":"{status}","total":20}}]"#);
            let answer = world.send("member", "POST", "/orders", &headers, body).await;
            assert_discreet(&answer, "a conflict");
            told_of.push(told(&answer));
        }
        assert_eq!(told_of[0], told_of[1]);
        assert!(told_of[0].contains("already-exists"), "{told_of:?}");
    }
}

#[tokio::test]
async fn deleting_everything_deletes_what_the_caller_may_delete() {
    let mut rules: Vec<Allow> = rules();
    // Reads everything, deletes its own.
    rules.push(allow("auditor", "orders", &[Verb::Read], "", None));
    rules.push(allow("auditor", "orders", &[Verb::Delete], "owner=eq.{claims.owner}", None));
    let world = World::with(&rules, MountOptions::default()).await;
    assert_eq!(world.get("auditor", "/orders").await.ids().len(), 2);
    world.json("auditor", "DELETE", "/orders?all=true", "").await;
    assert!(world.orders.held_row("theirs").is_some(), "it may not delete the rows of others");
    let world = World::with(&rules, MountOptions::default()).await;
    let deleted = world.json("member", "DELETE", "/orders?all=true", "").await;
    assert_eq!(deleted.json()["affected"], 1);
    assert!(world.orders.held_row("theirs").is_some() && world.orders.held_row("mine").is_none());
}

#[tokio::test]
async fn a_row_cannot_be_given_to_another_owner_or_taken() {
    let world = World::usual().await;
    for (method, path, body) in [
        ("PATCH", "/orders/mine", r#"{"owner":"bob"}"#),
        ("PATCH", "/orders/mine", r#"{"owner":null}"#),
        ("PUT", "/orders/mine", r#"{"owner":"bob"}"#),
        ("POST", "/orders/new", r#"{"owner":"bob"}"#),
        ("PUT", "/orders/new", r#"{"owner":"bob"}"#),
        ("PATCH", "/orders?total=gte.0", r#"{"owner":"bob"}"#),
    ] {
        let answer = world.json("member", method, path, body).await;
        assert_eq!(answer.refusal(), (403, "forbidden".into()), "{method} {path} {body}: {answer:?}");
    }
    assert_eq!(world.orders.held_row("mine").unwrap()["owner"], "ann".into());
    assert!(world.orders.held_row("new").is_none());
    // What the rule fixes is filled in.
    let put = world.json("member", "PUT", "/orders/mine", r#"{"status":"without an owner"}"#).await;
    assert_eq!((put.status, &world.orders.held_row("mine").unwrap()["owner"]), (202, &"ann".into()));
    let filled = world.json("member", "POST", "/orders/new", r#"{"status":"x"}"#).await;
    assert_eq!((filled.status, &world.orders.held_row("new").unwrap()["owner"]), (202, &"ann".into()));
    let taken = world.json("member", "PATCH", "/orders/theirs", r#"{"owner":"ann"}"#).await;
    assert_eq!(taken.status, 404);
}

#[tokio::test]
async fn answers_under_rules_vary_by_caller() {
    let world = World::usual().await;
    for path in
        ["/orders", "/orders/mine", "/orders/theirs", "/", "/openapi.json", "/orders/_schema", "/operations", "/nosuch"]
    {
        let answer = world.get(READER, path).await;
        let vary: Vec<_> =
            answer.headers.iter().filter(|(name, _)| name == "vary").map(|(_, value)| value.clone()).collect();
        assert!(vary.join(", ").contains("Authorization"), "{path}: {vary:?}");
    }
    let open = World::with(&[], MountOptions::default()).await;
    assert!(!open.get(READER, "/orders").await.header("vary").contains("Authorization"));
}

#[tokio::test]
async fn a_spelling_of_an_id_does_not_tell_that_there_is_a_row() {
    use diorama::{Column, ColumnType, Schema};
    let id = "0197a3c4-0000-7000-8000-00000000abcd";
    let columns = vec![Column::new("id", ColumnType::Uuid), Column::new("owner", ColumnType::String)];
    let rows = vec![(id.to_string(), cells([("id", id.into()), ("owner", "bob".into())]))];
    let rule = allow("member", "orders", &Verb::ALL[..4], "owner=eq.{claims.owner}", Some(&COLUMNS[..1]));
    let world = World::over(Schema::new("id", columns), rows, &[rule]).await;
    let upper = id.to_uppercase();
    for method in ["GET", "PATCH", "DELETE"] {
        let answer = world.json("member", method, &format!("/orders/{upper}"), r#"{}"#).await;
        assert_eq!(answer.status, 404, "{method} {answer:?}");
        assert!(!told(&answer).contains(id), "{method} {answer:?}");
    }
    let clash = world.json("member", "PUT", &format!("/orders/{upper}"), r#"{"owner":"ann"}"#).await;
    assert_eq!(clash.status, 409, "there are not two rows with one UUID: {clash:?}");
}

#[tokio::test]
async fn rights_name_what_the_caller_may_use_and_nothing_else() {
    let world = World::usual().await;
    let own = json!(["id", "owner", "status", "total"]);
    for (caller, resources) in [
        ("", json!({})),
        ("stranger", json!({})),
        (READER, json!({"orders": {"can": ["read"], "columns": {"read": own}}})),
        (
            "writer",
            json!({"orders": {"can": ["insert", "update", "delete"], "columns": {"insert": own, "update": own}}}),
        ),
        ("operator", json!({"orders": {"can": ["refresh", "operations"], "columns": {}}})),
    ] {
        let rights = world.get(caller, "/_access").await.json();
        assert_eq!((&rights["resources"], &rights["everywhere"]), (&resources, &json!([])), "{caller}");
    }
    let boss = world.get("boss", "/_access").await.json();
    assert_eq!(boss["everywhere"], json!(["admin"]));
    let root = world.get("root", "/_access").await.json();
    assert_eq!(root["everywhere"].as_array().map(Vec::len), Some(9));
    assert_eq!((&root["name"], &root["resources"]["vault"]["columns"]), (&json!("key:root"), &json!({})));
}
