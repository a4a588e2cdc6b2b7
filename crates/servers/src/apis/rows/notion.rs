//! Pages of Notion.

use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const DATA_SOURCE: &str = "248104cd477e80afbc30000bd28de8f9";
pub(crate) const DATABASE: &str = "248104cd477e80fdb757e945d38000bd";

pub(crate) const CONTENT: Content = Content { id, create, update };

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap_or_default().to_owned()
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let mut properties = self::properties(&sample::title(number), number as f64 / 8.0);
    properties["In stock"] = json!({"checkbox": sample::one_in(number, 2)});
    properties["Notes"] = match sample::text(number) {
        Value::String(text) => json!({"rich_text": [{"text": {"content": text}}]}),
        _ => json!({"rich_text": []}),
    };
    if sample::one_in(number, 3) {
        properties["Tags"] = json!({"multi_select": [{"name": "größer"}]});
        properties["Due"] = json!({"date": {"start": "2026-02-28", "end": null, "time_zone": null}});
    }
    create(number, &json!({"properties": properties}), sample::time(number))
}

/// Properties of a page with this name and price.
pub(crate) fn properties(name: &str, price: f64) -> Value {
    json!({"Name": {"title": [{"text": {"content": name}}]}, "Price": {"number": price}})
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let (id, user) = (sample::uuid(number), json!({"object": "user", "id": sample::uuid(u64::MAX)}));
    let mut row = json!({
        "object": "page", "id": id, "created_time": minute(now), "last_edited_time": minute(now), "created_by": user,
        "last_edited_by": user,
        "cover": null, "icon": if number.is_multiple_of(3) { json!({"type": "emoji", "emoji": "🥐"}) } else { Value::Null },
        "parent": {"type": "data_source_id", "data_source_id": dashed(DATA_SOURCE), "database_id": dashed(DATABASE)},
        "archived": false, "in_trash": false, "url": format!("https://www.notion.so/{}", id.replace('-', "")), "public_url": null,
        "properties": {
            "Name": {"id": "title", "type": "title", "title": []}, "Price": {"id": "BJXS", "type": "number", "number": null},
            "In stock": {"id": "%7CxOo", "type": "checkbox", "checkbox": false},
            "Tags": {"id": "xYz%3D", "type": "multi_select", "multi_select": []},
            "Due": {"id": "M%3BBw", "type": "date", "date": null}, "Notes": {"id": "no%40t", "type": "rich_text", "rich_text": []},
        },
    });
    update(&mut row, content, now);
    row
}

pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    for (name, property) in sample::object(&content["properties"]) {
        let kind = row["properties"][&name]["type"].as_str().unwrap_or_default().to_owned();
        let value = property.get(&kind).cloned().unwrap_or_default();
        row["properties"][&name][&kind] = match kind.as_str() {
            "title" | "rich_text" => value.as_array().into_iter().flatten().map(rich_text).collect(),
            _ => value,
        };
    }
    if let Some(trash) = content.get("in_trash").or_else(|| content.get("archived")) {
        (row["in_trash"], row["archived"]) = (trash.clone(), trash.clone());
    }
    row["last_edited_time"] = minute(now).into();
}

fn rich_text(part: &Value) -> Value {
    let text = &part["text"]["content"];
    json!({
        "type": "text", "text": {"content": text, "link": null}, "plain_text": text, "href": null,
        "annotations": {"bold": false, "italic": false, "strikethrough": false, "underline": false, "code": false, "color": "default"},
    })
}

/// Time cut to the minute.
fn minute(now: Timestamp) -> String {
    sample::millis(now - (now.as_second() % 60).seconds() - i64::from(now.subsec_nanosecond()).nanoseconds())
}

/// The id with its dashes, which may be left out.
pub(crate) fn dashed(id: &str) -> String {
    let plain = id.replace('-', "");
    if plain.len() != 32 || !plain.is_ascii() {
        return id.to_owned();
    }
    [&plain[..8], &plain[8..12], &plain[12..16], &plain[16..20], &plain[20..]].join("-")
}
