//! The AsyncAPI document: it holds together, and what is pushed is as it says.

use diorama::Record;
use serde_json::{Value, json};

use crate::harness::App;
use crate::ws::Ws;

/// Where a reference points to.
fn at<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let path = reference.as_str().unwrap().strip_prefix('#').unwrap();
    document.pointer(path).unwrap_or_else(|| panic!("{reference} is nowhere"))
}

/// What `value` is not that `schema` says, of all that these schemas use.
fn wrong(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema.get("$ref") {
        return wrong(document, at(document, reference), value);
    }
    if let Some(kinds) = schema["oneOf"].as_array() {
        let fits = kinds.iter().filter(|kind| wrong(document, kind, value).is_none()).count();
        return (fits != 1).then(|| format!("{value} fits {fits} schemas"));
    }
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name)) {
        return Some(format!("{value} is no {types:?}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Some(format!("{value} is not among {}", schema["enum"]));
    }
    if let Some(missing) =
        schema["required"].as_array().into_iter().flatten().find(|name| value.get(name.as_str().unwrap()).is_none())
    {
        return Some(format!("{value} lacks {missing}"));
    }
    if let (Some(properties), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
        // The documents allow more; what is sent and not described would be an oversight.
        if let Some(unknown) = members.keys().find(|name| !properties.contains_key(*name)) {
            return Some(format!("{unknown} of {value} is not described"));
        }
        return members.iter().find_map(|(name, member)| wrong(document, &properties[name], member));
    }
    let items = value.as_array().filter(|_| schema.get("items").is_some());
    items.into_iter().flatten().find_map(|item| wrong(document, &schema["items"], item))
}

/// Whether a channel has a message that `frame` is one of.
fn check(document: &Value, channel: &str, frame: &Value) {
    let messages = document["channels"][channel]["messages"].as_object().unwrap();
    let payloads = messages.values().map(|message| &at(document, &message["$ref"])["payload"]);
    let named = |schema: &&Value| at(document, &schema["$ref"])["properties"]["type"]["enum"] == json!([frame["type"]]);
    let schema = payloads.filter(named).collect::<Vec<_>>();
    assert_eq!(schema.len(), 1, "{channel} has no message {}", frame["type"]);
    assert_eq!(wrong(document, schema[0], frame), None, "{channel}");
}

fn walk(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref") {
                at(document, reference);
            }
            members.values().for_each(|member| walk(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
        _ => {}
    }
}

async fn price(app: &App, id: &str, price: i64) {
    let cells = [("name".to_string(), "Bun".into()), ("price".to_string(), price.into())];
    app.dio.patched(id, Record::from_iter(cells)).await.unwrap();
}

/// Frames until one of this type.
async fn until(ws: &mut Ws, kind: &str) -> Vec<Value> {
    let mut frames = Vec::new();
    while frames.last().is_none_or(|frame: &Value| frame["type"] != kind) {
        frames.push(ws.json().await);
    }
    frames
}

#[tokio::test]
async fn every_reference_leads_somewhere_and_every_message_belongs_to_its_channel() {
    let app = App::start().await;
    let answer = app.get("/asyncapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let known = app.send("GET", "/asyncapi.json", &[("If-None-Match", answer.header("etag"))], "").await;
    assert_eq!(known.status, 304);
    let document = answer.json();
    assert_eq!(document["asyncapi"], "3.0.0");
    walk(&document, &document);
    for (name, operation) in document["operations"].as_object().unwrap() {
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        assert!(["send", "receive"].contains(&operation["action"].as_str().unwrap()));
        for message in operation["messages"].as_array().unwrap() {
            let message = message["$ref"].as_str().unwrap();
            assert!(message.starts_with(&format!("{channel}/messages/")), "{name}: {message}");
        }
    }
    let addresses: Vec<_> =
        document["channels"].as_object().unwrap().values().map(|channel| channel["address"].clone()).collect();
    for address in ["/events", "/products/events", "/products/{id}/events", "/products/live", "/products/_aggregate"] {
        assert!(addresses.contains(&json!(address)), "{address}");
    }
}

#[tokio::test]
async fn what_is_pushed_is_as_the_document_says() {
    let app = App::start().await;
    let document = app.get("/asyncapi.json").await.json();
    let mut ws = Ws::open(&app, "/products/events?snapshot=full&since=OTHER00000:1").await;
    let mut frames = until(&mut ws, "snapshot_end").await;
    price(&app, "1", 5).await;
    price(&app, "new", 5).await;
    app.send("DELETE", "/products/7?x", &[], "").await;
    app.send("DELETE", "/products/7", &[], "").await;
    frames.extend(until(&mut ws, "WriteCommitted").await);
    app.dio.refresh().await.unwrap();
    frames.extend(until(&mut ws, "Invalidated").await);
    ws.text(r#"{"type":"ping","n":1}"#).await;
    frames.extend(until(&mut ws, "pong").await);
    ws.text("?").await;
    frames.extend(until(&mut ws, "error").await);
    let kinds: std::collections::BTreeSet<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    for kind in ["hello", "reset", "rows", "RecordChanged", "RecordRemoved", "WriteCommitted", "Invalidated", "pong"] {
        assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
    }
    frames.iter().for_each(|frame| check(&document, "ProductsEvents", frame));

    let mut ws = Ws::open(&app, "/products/live?order=price&limit=3").await;
    let mut frames = until(&mut ws, "snapshot_end").await;
    for (id, to) in [("2", 1), ("3", 0), ("2", 2), ("x", 900)] {
        price(&app, id, to).await;
        frames.extend(until(&mut ws, "window").await);
    }
    frames.iter().for_each(|frame| check(&document, "ProductsLive", frame));
    let poll = app.send("GET", "/products/_aggregate?select=count()&live", &[("Accept", "application/json")], "").await;
    poll.json().as_array().unwrap().iter().for_each(|frame| check(&document, "ProductsLiveGroups", frame));

    let mut ws = Ws::open(&app, "/events").await;
    ws.text(r#"{"type":"auth","token":"x"}"#).await;
    ws.text(r#"{"type":"subscribe","dio":"nothing"}"#).await;
    let mut frames = until(&mut ws, "error").await;
    ws.text(r#"{"type":"subscribe","dio":"products","sub":"a","live":true}"#).await;
    let tagged = until(&mut ws, "snapshot_end").await;
    ws.text(r#"{"type":"unsubscribe","sub":"a"}"#).await;
    frames.extend(until(&mut ws, "unsubscribed").await);
    let messages = document["components"]["schemas"].as_object().unwrap();
    for frame in frames.iter().filter(|frame| frame["type"] != "error") {
        check(&document, "events", frame);
    }
    for frame in &tagged {
        let mut plain = frame.clone();
        assert_eq!(plain.as_object_mut().unwrap().remove("sub"), Some(json!("a")));
        check(&document, "ProductsLive", &plain);
        assert!(messages.contains_key("TaggedFrame"));
    }
}
