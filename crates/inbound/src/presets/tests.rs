//! Each preset with payloads as its sender posts them.

use http::header::HeaderName;
use http::{HeaderMap, Method};
use jiff::Timestamp;

use super::*;
use crate::{Change, DecodedDelivery, Format, Hook, Request, Scheme};
use diorama_core::record::{CborValue, Record, parse_json};
use diorama_core::vista::{ChangeEvent, Column, ColumnType, Schema};

fn schema(id: &str) -> Schema {
    Schema::new(id, vec![Column::new(id, ColumnType::String)])
}

fn decode(map: Map, id: &str, headers: &[(&str, &str)], body: &str) -> DecodedDelivery {
    let json = ("content-type", "application/json");
    let headers: HeaderMap = [json]
        .iter()
        .chain(headers)
        .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let hook = Hook::new(Scheme::None).format(Format::Map(map));
    let (body, now) = (body.as_bytes(), Timestamp::UNIX_EPOCH);
    let request = Request { method: &Method::POST, path: "/", query: None, headers: &headers, body, now };
    hook.decode(&request, &schema(id)).unwrap()
}

fn all(name: &str, only: Option<&str>, headers: &[(&str, &str)], body: &str) -> DecodedDelivery {
    decode(preset(name, only, "", &["map"]).unwrap(), "id", headers, body)
}

fn one(name: &str, only: &str, headers: &[(&str, &str)], body: &str) -> Change {
    let mut decoded = all(name, Some(only), headers, body);
    assert_eq!((decoded.changes.len(), decoded.ignored), (1, 0), "{decoded:?}");
    decoded.changes.remove(0).unwrap()
}

fn ignored(name: &str, only: &str, headers: &[(&str, &str)], body: &str) {
    let decoded = all(name, Some(only), headers, body);
    assert_eq!((decoded.changes.len(), decoded.ignored), (0, 1), "{body}");
}

fn row(json: &str) -> Option<Record> {
    let value = parse_json(json.as_bytes(), Default::default()).unwrap();
    Some(crate::native::record(value.as_map().unwrap()))
}

fn inserted(id: &str, new: &str) -> ChangeEvent {
    ChangeEvent::Inserted { id: id.into(), new: row(new) }
}

fn updated(id: &str, new: &str) -> ChangeEvent {
    ChangeEvent::Updated { id: id.into(), new: row(new) }
}

fn deleted(id: &str) -> ChangeEvent {
    ChangeEvent::Deleted { id: id.into() }
}

#[test]
fn every_preset_loads() {
    for name in PRESETS {
        let only = needs_only(name).then_some("products");
        assert!(preset(name, only, "", &["map"]).is_ok(), "{name}: {:?}", preset(name, only, "", &["map"]));
        assert!(preset(name, only.is_none().then_some("products"), "", &["map"]).is_err(), "{name}");
    }
    assert!(preset("stripe", Some("a\"b"), "", &["map"]).is_err());
    assert!(preset("strip", Some("a"), "", &["map"]).is_err());
}

#[test]
fn what_a_map_says_takes_the_place_of_what_the_preset_says() {
    let text = "[map]\nid = \"/record/sku\"\nrow = { sel = \"/record\", drop = [\"secret\"] }\n";
    let map = preset("supabase", Some("products"), text, &["map"]).unwrap();
    let body = r#"{"type":"INSERT","table":"products","record":{"sku":"a","secret":1,"n":2},"old_record":null}"#;
    let decoded = decode(map, "id", &[], body);
    assert_eq!(decoded.changes[0].clone().unwrap().event, inserted("a", r#"{"sku":"a","n":2}"#));
    // Over each of its rules.
    let map = preset("stripe", Some("product"), "[map]\nid = \"/data/object/metadata/sku\"\n", &["map"]).unwrap();
    let body =
        r#"{"object":"event","type":"product.deleted","data":{"object":{"object":"product","metadata":{"sku":"s"}}}}"#;
    assert_eq!(decode(map, "id", &[], body).changes[0].clone().unwrap().event, deleted("s"));
    let text = "[map]\nidd = \"/a\"\n";
    let problems = preset("stripe", Some("product"), text, &["map"]).unwrap_err();
    assert_eq!((problems.len(), problems[0].at), (1, text.find("idd").unwrap()), "{problems:?}");
}

#[test]
fn airtable() {
    let ping = r#"{"base":{"id":"app00000000000000"},"webhook":{"id":"ach00000000000000"},"timestamp":"2022-02-01T21:25:05.663Z"}"#;
    let decoded = all("airtable", None, &[], ping);
    assert_eq!(decoded.changes[0].clone().unwrap().event, ChangeEvent::Invalidated);
}

#[test]
fn contentful() {
    let entry = |kind: &str, model: &str| {
        format!(
            r#"{{"metadata":{{"tags":[]}},"sys":{{"type":"{kind}","id":"5KsDBWseXY6QegucYAoacS","space":{{"sys":{{"id":"s"}}}},
            "contentType":{{"sys":{{"type":"Link","linkType":"ContentType","id":"{model}"}}}},"revision":4,
            "createdAt":"2015-05-18T11:29:46.809Z","updatedAt":"2015-05-18T11:29:46.809Z"}},"fields":{{"title":{{"en-US":"Hello"}}}}}}"#
        )
    };
    let topic = |name| [("x-contentful-topic", name)];
    let publish = one("contentful", "article", &topic("ContentManagement.Entry.publish"), &entry("Entry", "article"));
    let event = ChangeEvent::Updated { id: "5KsDBWseXY6QegucYAoacS".into(), new: None };
    assert_eq!((publish.event, publish.version), (event, Some(4.into())));
    let gone =
        one("contentful", "article", &topic("ContentManagement.Entry.unpublish"), &entry("DeletedEntry", "article"));
    assert_eq!(gone.event, deleted("5KsDBWseXY6QegucYAoacS"));
    ignored("contentful", "article", &topic("ContentManagement.Entry.auto_save"), &entry("Entry", "article"));
    ignored("contentful", "article", &topic("ContentManagement.Entry.publish"), &entry("Entry", "author"));
}

#[test]
fn debezium() {
    let source = r#""source":{"version":"2.7.0.Final","connector":"postgresql","name":"shop","ts_ms":1559033904863,"snapshot":"false",
        "db":"shop","schema":"public","table":"products","txId":556,"lsn":24023128,"xmin":null}"#;
    let value = |op: &str, before: &str, after: &str| {
        format!(
            r#"{{"before":{before},"after":{after},{source},"op":"{op}","ts_ms":1559033904870,"transaction":null}}"#
        )
    };
    let product = r#"{"id":1004,"name":"Muffin"}"#;
    for wrap in [false, true] {
        let event = |op: &str, before: &str, after: &str| {
            let value = value(op, before, after);
            let body = if wrap { format!(r#"{{"schema":{{"type":"struct"}},"payload":{value}}}"#) } else { value };
            one("debezium", "products", &[], &body)
        };
        let created = event("c", "null", product);
        assert_eq!((created.event, created.version), (inserted("1004", product), Some(24_023_128.into())));
        assert_eq!(event("r", "null", product).event, updated("1004", product));
        let toast = r#"{"id":1004,"name":"Bun","photo":"__debezium_unavailable_value"}"#;
        let change = event("u", r#"{"id":1004}"#, toast);
        assert_eq!((change.event, change.partial), (updated("1004", r#"{"id":1004,"name":"Bun"}"#), true));
        assert_eq!(event("d", r#"{"id":1004}"#, "null").event, deleted("1004"));
        assert_eq!(event("t", "null", "null").event, ChangeEvent::Invalidated);
    }
    ignored("debezium", "orders", &[], &value("c", "null", product));
    ignored("debezium", "products", &[], &value("m", "null", "null"));
    for tombstone in ["", "null", r#"{"schema":null,"payload":null}"#] {
        ignored("debezium", "products", &[], tombstone);
    }
    let flat = r#"{"id":1004,"name":"Muffin","__deleted":"false","__op":"u","__table":"products","__lsn":7,"__source_ts_ms":9}"#;
    let change = one("debezium", "products", &[], flat);
    assert_eq!((change.event, change.version), (updated("1004", product), Some(7.into())));
    let change = one("debezium", "products", &[], r#"{"id":1004,"name":null,"__deleted":"true"}"#);
    assert_eq!(change.event, deleted("1004"));
    ignored("debezium", "orders", &[], flat);
}

#[test]
fn directus() {
    let create = r#"{"event":"products.items.create","payload":{"name":"Muffin"},"key":7,"collection":"products"}"#;
    let change = one("directus", "products", &[], create);
    assert_eq!((change.event, change.partial), (inserted("7", r#"{"name":"Muffin"}"#), true));
    let update = r#"{"event":"items.update","payload":{"price":1},"keys":["7",8],"collection":"products"}"#;
    let decoded = all("directus", Some("products"), &[], update);
    let events: Vec<_> = decoded.changes.iter().map(|change| change.clone().unwrap()).collect();
    assert_eq!(events[0].event, updated("7", r#"{"price":1}"#));
    assert_eq!((&events[1].event, events[1].partial), (&updated("8", r#"{"price":1}"#), true));
    for delete in [
        r#"{"event":"products.items.delete","payload":["7",8],"collection":"products"}"#,
        r#"{"event":"products.items.delete","keys":["7",8],"collection":"products"}"#,
    ] {
        let decoded = all("directus", Some("products"), &[], delete);
        let events: Vec<_> = decoded.changes.into_iter().map(|change| change.unwrap().event).collect();
        assert_eq!(events, [deleted("7"), deleted("8")]);
    }
    ignored("directus", "orders", &[], create);
}

#[test]
fn github() {
    let body = |action: &str| {
        format!(
            r#"{{"action":"{action}","issue":{{"id":444500041,"number":1,"title":"Spelling error","state":"open",
            "updated_at":"2019-05-15T15:20:18Z"}},"repository":{{"id":186853002,"full_name":"Codertocat/Hello-World"}},"sender":{{"login":"Codertocat"}}}}"#
        )
    };
    let of = |event| [("x-github-event", event), ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")];
    let change = one("github", "issue", &of("issues"), &body("opened"));
    assert!(matches!(change.event, ChangeEvent::Inserted { id, new: Some(_) } if id == "444500041"));
    assert_eq!(change.version, Some("2019-05-15T15:20:18Z".into()));
    let decoded = all("github", Some("issue"), &of("issues"), &body("edited"));
    assert_eq!(decoded.delivery.as_deref(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
    assert!(matches!(one("github", "issue", &of("issues"), &body("closed")).event, ChangeEvent::Updated { .. }));
    assert_eq!(one("github", "issue", &of("issues"), &body("deleted")).event, deleted("444500041"));
    // What is deleted there is the comment.
    ignored("github", "issue", &of("issue_comment"), &body("deleted"));
    ignored("github", "pull_request", &of("issues"), &body("opened"));
    let map = preset("github", Some("issue"), "", &["map"]).unwrap();
    let decoded = decode(map, "number", &of("issues"), &body("edited"));
    assert!(matches!(&decoded.changes[0], Ok(Change { event: ChangeEvent::Updated { id, .. }, .. }) if id == "1"));
}

#[test]
fn hasura() {
    let body = |op: &str, old: &str, new: &str| {
        format!(
            r#"{{"id":"85558393-c75d-4d2f-9c15-e80591b83894","created_at":"2018-09-05T07:14:21.601701Z","trigger":{{"name":"t"}},
            "table":{{"schema":"public","name":"products"}},"event":{{"session_variables":{{"x-hasura-role":"admin"}},"op":"{op}",
            "data":{{"old":{old},"new":{new}}}}},"delivery_info":{{"current_retry":0,"max_retries":0}}}}"#
        )
    };
    let product = r#"{"id":42,"name":"Muffin"}"#;
    let change = one("hasura", "products", &[], &body("INSERT", "null", product));
    assert_eq!((change.event, change.version), (inserted("42", product), Some("2018-09-05T07:14:21.601701Z".into())));
    assert_eq!(one("hasura", "products", &[], &body("MANUAL", "null", product)).event, updated("42", product));
    assert_eq!(one("hasura", "products", &[], &body("DELETE", product, "null")).event, deleted("42"));
    let decoded = all("hasura", Some("products"), &[], &body("UPDATE", product, product));
    assert_eq!(decoded.delivery.as_deref(), Some("85558393-c75d-4d2f-9c15-e80591b83894"));
    ignored("hasura", "orders", &[], &body("INSERT", "null", product));
}

#[test]
fn postgres() {
    let row = r#"{"table":"products","op":"INSERT","id":7,"row":{"id":7,"name":"Muffin"}}"#;
    assert_eq!(one("postgres", "products", &[], row).event, inserted("7", r#"{"id":7,"name":"Muffin"}"#));
    let thin = one("postgres", "products", &[], r#"{"table":"products","op":"UPDATE","id":"7"}"#);
    assert_eq!(thin.event, ChangeEvent::Updated { id: "7".into(), new: None });
    assert_eq!(one("postgres", "products", &[], r#"{"table":"products","op":"DELETE","id":7}"#).event, deleted("7"));
    let truncate = one("postgres", "products", &[], r#"{"table":"products","op":"TRUNCATE"}"#);
    assert_eq!(truncate.event, ChangeEvent::Invalidated);
    ignored("postgres", "orders", &[], row);
}

#[test]
fn sanity() {
    let body = r#"{"_id":"post-1","_type":"post","_rev":"Kx3","_createdAt":"2024-01-01T00:00:00Z","_updatedAt":"2024-01-02T00:00:00Z","title":"Hi"}"#;
    let of = |operation| [("sanity-operation", operation)];
    let change = one("sanity", "post", &of("create"), body);
    assert_eq!((change.event, change.version), (inserted("post-1", body), Some("2024-01-02T00:00:00Z".into())));
    assert_eq!(one("sanity", "post", &of("delete"), body).event, deleted("post-1"));
    assert_eq!(one("sanity", "post", &[], body).event, updated("post-1", body));
    ignored("sanity", "author", &of("create"), body);
}

#[test]
fn shopify() {
    let body = r#"{"id":788032119674292922,"title":"Example T-Shirt","handle":"example-t-shirt","updated_at":"2021-12-31T19:00:00-05:00",
        "variants":[{"id":642667041472713922,"price":"19.99"}]}"#;
    let old = |topic| [("x-shopify-topic", topic), ("x-shopify-triggered-at", "2026-01-01T00:00:00Z")];
    let change = one("shopify", "products", &old("products/update"), body);
    assert_eq!(change.version, Some("2021-12-31T19:00:00-05:00".into()));
    assert_eq!(change.event, updated("788032119674292922", body));
    assert!(matches!(
        one("shopify", "products", &[("shopify-topic", "products/create")], body).event,
        ChangeEvent::Inserted { .. }
    ));
    let gone = one("shopify", "products", &old("products/delete"), r#"{"id":788032119674292922}"#);
    assert_eq!((gone.event, gone.version), (deleted("788032119674292922"), Some("2026-01-01T00:00:00Z".into())));
    ignored("shopify", "products", &old("orders/create"), body);
}

#[test]
fn strapi() {
    let body = |event: &str| {
        format!(
            r#"{{"event":"{event}","createdAt":"2020-01-10T08:47:36.649Z","model":"article","uid":"api::article.article",
            "entry":{{"id":1,"title":"Hi","updatedAt":"2020-01-10T08:47:36.264Z"}}}}"#
        )
    };
    let entry = r#"{"id":1,"title":"Hi","updatedAt":"2020-01-10T08:47:36.264Z"}"#;
    let change = one("strapi", "article", &[("x-strapi-event", "entry.create")], &body("entry.create"));
    assert_eq!((change.event, change.version), (inserted("1", entry), Some("2020-01-10T08:47:36.264Z".into())));
    assert_eq!(one("strapi", "article", &[], &body("entry.publish")).event, updated("1", entry));
    assert_eq!(one("strapi", "article", &[], &body("entry.unpublish")).event, deleted("1"));
    ignored("strapi", "article", &[], &body("media.create"));
    ignored("strapi", "author", &[], &body("entry.create"));
}

#[test]
fn stripe() {
    let object = r#"{"id":"prod_NWjs8kKbJWmuuc","object":"product","active":true,"name":"Gold Plan","metadata":{}}"#;
    let body = |kind: &str| {
        format!(
            r#"{{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","object":"event","api_version":"2019-02-19","created":1686089970,
            "data":{{"object":{object},"previous_attributes":{{"name":"Silver"}}}},"livemode":false,"pending_webhooks":0,
            "request":{{"id":null,"idempotency_key":null}},"type":"{kind}"}}"#
        )
    };
    let decoded = all("stripe", Some("product"), &[], &body("product.updated"));
    let change = decoded.changes[0].clone().unwrap();
    assert_eq!((change.event, change.version), (updated("prod_NWjs8kKbJWmuuc", object), Some(1_686_089_970.into())));
    assert_eq!(decoded.delivery.as_deref(), Some("evt_1NG8Du2eZvKYlo2CUI79vXWy"));
    assert_eq!(one("stripe", "product", &[], &body("product.created")).event, inserted("prod_NWjs8kKbJWmuuc", object));
    assert_eq!(one("stripe", "product", &[], &body("product.deleted")).event, deleted("prod_NWjs8kKbJWmuuc"));
    ignored("stripe", "price", &[], &body("product.updated"));
    let thin = r#"{"id":"evt_65R","object":"v2.core.event","type":"v2.core.account.updated","livemode":false,"created":"2024-09-17T06:20:52.246Z",
        "related_object":{"id":"acct_1","type":"v2.core.account","url":"/v2/core/accounts/acct_1"}}"#;
    let change = one("stripe", "v2.core.account", &[], thin);
    assert_eq!(change.event, ChangeEvent::Updated { id: "acct_1".into(), new: None });
}

#[test]
fn supabase() {
    let body = |kind: &str, new: &str, old: &str| {
        format!(r#"{{"type":"{kind}","table":"products","schema":"public","record":{new},"old_record":{old}}}"#)
    };
    let product = r#"{"id":7,"name":"Muffin"}"#;
    assert_eq!(one("supabase", "products", &[], &body("INSERT", product, "null")).event, inserted("7", product));
    assert_eq!(one("supabase", "products", &[], &body("UPDATE", product, product)).event, updated("7", product));
    assert_eq!(one("supabase", "products", &[], &body("DELETE", "null", product)).event, deleted("7"));
    ignored("supabase", "orders", &[], &body("INSERT", product, "null"));
    let unknown = all("supabase", Some("products"), &[], &body("INSERT", product, "null"));
    assert_eq!(unknown.changes[0].clone().unwrap().version, None::<CborValue>);
}

fn events(decoded: &DecodedDelivery) -> Vec<ChangeEvent> {
    decoded.changes.iter().map(|change| change.clone().unwrap().event).collect()
}

#[test]
fn an_update_that_gives_a_row_another_id_removes_the_old_one() {
    let (new, old) = (r#"{"id":20,"name":"Bun"}"#, r#"{"id":2,"name":"Bun"}"#);
    let moved = [deleted("2"), updated("20", new)];
    let body = format!(r#"{{"type":"UPDATE","table":"nums","schema":"public","record":{new},"old_record":{old}}}"#);
    assert_eq!(events(&all("supabase", Some("nums"), &[], &body)), moved);
    let body = format!(
        r#"{{"id":"1","created_at":"2018-09-05T07:14:21.601701Z","table":{{"schema":"public","name":"nums"}},
        "event":{{"op":"UPDATE","data":{{"old":{old},"new":{new}}}}}}}"#
    );
    let decoded = all("hasura", Some("nums"), &[], &body);
    assert_eq!(events(&decoded), moved);
    let versions: Vec<_> = decoded.changes.iter().map(|change| change.clone().unwrap().version).collect();
    assert_eq!(versions[0], versions[1], "the removal is as new as the change");
    let body = format!(r#"{{"table":"nums","op":"UPDATE","id":20,"old_id":2,"row":{new}}}"#);
    assert_eq!(events(&all("postgres", Some("nums"), &[], &body)), moved);
}

#[test]
fn a_table_of_another_schema_is_another_table() {
    let in_schema = |schema: &str| {
        let row = r#"{"id":1}"#;
        [
            ("supabase", format!(r#"{{"type":"INSERT","table":"nums","schema":"{schema}","record":{row}}}"#)),
            (
                "hasura",
                format!(
                    r#"{{"id":"1","table":{{"schema":"{schema}","name":"nums"}},"event":{{"op":"INSERT","data":{{"new":{row}}}}}}}"#
                ),
            ),
            ("postgres", format!(r#"{{"table":"nums","schema":"{schema}","op":"INSERT","id":1,"row":{row}}}"#)),
            (
                "debezium",
                format!(
                    r#"{{"op":"c","before":null,"after":{row},"source":{{"db":"shop","schema":"{schema}","table":"nums"}}}}"#
                ),
            ),
            ("debezium", format!(r#"{{"id":1,"__op":"c","__table":"nums","__schema":"{schema}"}}"#)),
        ]
    };
    for (name, body) in in_schema("public") {
        one(name, "nums", &[], &body);
        one(name, "public.nums", &[], &body);
        ignored(name, "audit.nums", &[], &body);
    }
    for (name, body) in in_schema("audit") {
        ignored(name, "nums", &[], &body);
        one(name, "audit.nums", &[], &body);
    }
    // MySQL has databases only.
    let mysql = r#"{"op":"c","before":null,"after":{"id":1},"source":{"db":"shop","table":"nums","ts_ms":5}}"#;
    one("debezium", "nums", &[], mysql);
    one("debezium", "shop.nums", &[], mysql);
    ignored("debezium", "audit.nums", &[], mysql);
}

#[test]
fn debezium_in_arrays_and_in_cloudevents() {
    let envelope = |id: u32| {
        format!(
            r#"{{"before":null,"after":{{"id":{id}}},"source":{{"schema":"public","table":"nums","lsn":{id}}},"op":"c","ts_ms":9}}"#
        )
    };
    let batch = format!("[{},{}]", envelope(1), envelope(2));
    let expected = [inserted("1", r#"{"id":1}"#), inserted("2", r#"{"id":2}"#)];
    assert_eq!(events(&all("debezium", Some("nums"), &[], &batch)), expected);
    // As in "Emitting Change Event Records in CloudEvents Format" of Debezium's documentation.
    let attributes = r#""id":"name:test_server;lsn:29274832;txId:565","source":"/debezium/postgresql/test_server","specversion":"1.0",
        "type":"io.debezium.connector.postgresql.DataChangeEvent","time":"2020-01-13T13:55:39.738Z","datacontenttype":"application/json",
        "iodebeziumop":"u","iodebeziumtsms":"1578923739738","iodebeziumdb":"postgres","iodebeziumschema":"public","iodebeziumtable":"nums",
        "iodebeziumlsn":"29274832","iodebeziumxmin":null"#;
    let kind = [("content-type", "application/cloudevents+json")];
    for data in [
        r#"{"before":{"id":1},"after":{"id":1,"n":2}}"#,
        r#"{"schema":{},"payload":{"before":{"id":1},"after":{"id":1,"n":2}}}"#,
    ] {
        let change = one("debezium", "nums", &kind, &format!(r#"{{{attributes},"data":{data}}}"#));
        assert_eq!((change.event, change.version), (updated("1", r#"{"id":1,"n":2}"#), Some(29_274_832.into())));
    }
    let whole = format!(r#"{{{},"data":{}}}"#, attributes.replace("iodebeziumop", "other"), envelope(3));
    assert_eq!(one("debezium", "nums", &kind, &whole).event, inserted("3", r#"{"id":3}"#));
    ignored("debezium", "audit.nums", &kind, &whole);
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-iodebeziumop", "d"),
        ("ce-iodebeziumtable", "nums"),
        ("ce-iodebeziumschema", "public"),
    ];
    assert_eq!(one("debezium", "nums", &binary, r#"{"before":{"id":1},"after":null}"#).event, deleted("1"));
}

#[test]
fn messages_of_a_batch_have_their_own_ids() {
    let body = |id: &str, row: u32| {
        format!(
            r#"{{"id":"{id}","table":{{"schema":"public","name":"nums"}},"event":{{"op":"UPDATE","data":{{"old":{{"id":9}},"new":{{"id":{row}}}}}}}}}"#
        )
    };
    let decoded = all("hasura", Some("nums"), &[], &format!("[{},{}]", body("a", 9), body("b", 8)));
    let ids: Vec<_> = decoded.changes.iter().map(|change| change.clone().unwrap().delivery.unwrap()).collect();
    assert_eq!((ids, decoded.delivery), (vec!["a".to_string(), "b".into(), "b#1".into()], None));
}

#[test]
fn what_no_rule_is_for_is_not_understood() {
    let hook =
        |name: &str| Hook::new(Scheme::None).format(Format::Map(preset(name, Some("nums"), "", &["map"]).unwrap()));
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, "application/json".parse().unwrap())]);
    for (name, body) in [("debezium", "{}"), ("debezium", r#"{"rows":[]}"#), ("debezium", "7"), ("supabase", "{}")] {
        let (body, now) = (body.as_bytes(), Timestamp::UNIX_EPOCH);
        let request = Request { method: &Method::POST, path: "/", query: None, headers: &headers, body, now };
        let decoded = hook(name).decode(&request, &schema("id"));
        match name {
            "debezium" => assert!(decoded.is_err(), "{name}"),
            _ => assert_eq!(decoded.unwrap().why.as_deref(), Some("it is not about this resource"), "{name}"),
        }
    }
}

#[test]
fn asana() {
    // From Asana's guide to webhooks; the second event is about another kind of resource.
    let body = r#"{"events":[
        {"action":"changed","resource":{"gid":"1337","resource_type":"task","resource_subtype":"default_task"},"parent":null,
         "change":{"field":"due_at","action":"changed"}},
        {"action":"added","resource":{"gid":"11","resource_type":"story"},"parent":{"gid":"1337","resource_type":"task"}},
        {"action":"deleted","resource":{"gid":"1338","resource_type":"task"},"parent":null},
        {"action":"removed","resource":{"gid":"1339","resource_type":"task"},"parent":{"gid":"7","resource_type":"section"}}]}"#;
    let decoded = all("asana", Some("task"), &[], body);
    let events: Vec<_> = decoded.changes.into_iter().map(|change| change.unwrap().event).collect();
    assert_eq!(events, [ChangeEvent::Updated { id: "1337".into(), new: None }, deleted("1338")]);
    assert_eq!(decoded.ignored, 2);
    // A heartbeat.
    ignored("asana", "task", &[], r#"{"events":[]}"#);
}

#[test]
fn dropbox_and_mailgun_and_meta() {
    let dropbox =
        r#"{"list_folder":{"accounts":["dbid:AAH4f99T0taONIb-OurWxbNQ6ywGRopQngc"]},"delta":{"users":[12345678]}}"#;
    assert_eq!(all("dropbox", None, &[], dropbox).changes[0].clone().unwrap().event, ChangeEvent::Invalidated);
    let mailgun = r#"{"signature":{"timestamp":"1529006854","token":"a8ce","signature":"d227"},
        "event-data":{"event":"opened","timestamp":1529006854.329574,"id":"DACSsAdVSeGpLid7TN03WA"}}"#;
    let change = all("mailgun", None, &[], mailgun).changes[0].clone().unwrap();
    let new = r#"{"event":"opened","timestamp":1529006854.329574,"id":"DACSsAdVSeGpLid7TN03WA"}"#;
    assert_eq!(change.event, inserted("DACSsAdVSeGpLid7TN03WA", new));
    // From Meta's page "Webhooks: getting started".
    let meta = r#"{"object":"user","entry":[{"time":1520383571,"changes":[{"field":"photos","value":{"verb":"update"}}],"id":"10210299214172187","uid":"10210299214172187"}]}"#;
    let change = one("meta", "user", &[], meta);
    assert_eq!(change.event, ChangeEvent::Updated { id: "10210299214172187".into(), new: None });
    ignored("meta", "page", &[], meta);
}

#[test]
fn event_grid() {
    // From Microsoft's page "Azure Blob Storage as an Event Grid source".
    let event = |kind: &str| {
        format!(
            r#"[{{"topic":"/subscriptions/s/storageAccounts/my-storage-account","subject":"/blobServices/default/containers/test-container/blobs/new-file.txt",
            "eventType":"{kind}","eventTime":"2017-06-26T18:41:00.9584103Z","id":"831e1650","data":{{"api":"PutBlockList"}},"dataVersion":"","metadataVersion":"1"}}]"#
        )
    };
    let id = "/blobServices/default/containers/test-container/blobs/new-file.txt";
    let change = |kind| one("eventgrid", "Microsoft.Storage.Blob", &[], &event(kind)).event;
    assert_eq!(change("Microsoft.Storage.BlobCreated"), ChangeEvent::Inserted { id: id.into(), new: None });
    assert_eq!(change("Microsoft.Storage.BlobDeleted"), deleted(id));
    assert_eq!(change("Microsoft.Storage.BlobRenamed"), ChangeEvent::Updated { id: id.into(), new: None });
    ignored("eventgrid", "Microsoft.Storage.Blob", &[], &event("Microsoft.Storage.DirectoryCreated"));
}

#[test]
fn graph() {
    // From Microsoft's pages "Receive change notifications through webhooks" and "Lifecycle notifications".
    let notification = |kind: &str| {
        format!(
            r##"{{"value":[{{"id":"lsgTZMr9KwAAA","subscriptionId":"76619225","clientState":"secret",{kind}"resource":"users/d/messages/AAMk",
            "resourceData":{{"@odata.type":"#Microsoft.Graph.Message","@odata.id":"Users/d/Messages/AAMk","id":"AAMk"}}}}]}}"##
        )
    };
    let change = |kind: &str| one("graph", "message", &[], &notification(&format!(r#""changeType":"{kind}","#))).event;
    assert_eq!(change("created"), ChangeEvent::Inserted { id: "AAMk".into(), new: None });
    assert_eq!(change("updated"), ChangeEvent::Updated { id: "AAMk".into(), new: None });
    assert_eq!(change("deleted"), deleted("AAMk"));
    ignored("graph", "event", &[], &notification(r#""changeType":"created","#));
    let lifecycle = |kind: &str| {
        format!(r#"{{"value":[{{"subscriptionId":"76619225","clientState":"secret","lifecycleEvent":"{kind}"}}]}}"#)
    };
    assert_eq!(one("graph", "message", &[], &lifecycle("missed")).event, ChangeEvent::Invalidated);
    ignored("graph", "message", &[], &lifecycle("reauthorizationRequired"));
}

#[test]
fn twitch_and_zoom() {
    // From Twitch's page "EventSub subscription types" and Zoom's "Meeting webhooks".
    let twitch = r#"{"subscription":{"id":"f1c2a387","type":"channel.update","version":"2","status":"enabled"},"event":{"broadcaster_user_id":"1337","title":"Best Stream Ever"}}"#;
    let thin = |id: &str| ChangeEvent::Updated { id: id.into(), new: None };
    assert_eq!(one("twitch", "channel.update", &[], twitch).event, thin("1337"));
    ignored("twitch", "stream", &[], twitch);
    let zoom = |kind: &str| {
        format!(
            r#"{{"event":"{kind}","event_ts":1626230691572,"payload":{{"account_id":"A","operator":"o@example.com","object":{{"id":1234567890,"uuid":"u=="}}}}}}"#
        )
    };
    assert_eq!(one("zoom", "meeting", &[], &zoom("meeting.updated")).event, thin("1234567890"));
    assert_eq!(one("zoom", "meeting", &[], &zoom("meeting.deleted")).event, deleted("1234567890"));
    let created = ChangeEvent::Inserted { id: "1234567890".into(), new: None };
    assert_eq!(one("zoom", "meeting", &[], &zoom("meeting.created")).event, created);
    ignored("zoom", "webinar", &[], &zoom("meeting.updated"));
}

#[test]
fn twilio() {
    // Fields of Twilio's page "Track outbound message status".
    let map = preset("twilio", None, "", &["map"]).unwrap();
    let hook = Hook::new(Scheme::None).format(Format::Map(map));
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect();
    let body = b"SmsSid=SM2xx&SmsStatus=sent&MessageStatus=sent&To=%2B1512zzzyyyy&MessageSid=SM2xx&From=%2B1512xxxyyyy";
    let now = Timestamp::UNIX_EPOCH;
    let request = Request { method: &Method::POST, path: "/", query: None, headers: &headers, body, now };
    let change = hook.decode(&request, &schema("id")).unwrap().changes.remove(0).unwrap();
    let new = r#"{"SmsSid":"SM2xx","SmsStatus":"sent","MessageStatus":"sent","To":"+1512zzzyyyy","MessageSid":"SM2xx","From":"+1512xxxyyyy"}"#;
    assert_eq!((change.event, change.partial), (updated("SM2xx", new), true));
}
