//! Contacts of HubSpot.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const CONTENT: Content = Content { id, create, update };

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap_or_default().to_owned()
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let (first, last) = sample::name(number).split_once([' ', ',']).unwrap_or((sample::name(number), ""));
    let properties = json!({
        "email": format!("contact+{number}@example.com"), "firstname": first, "lastname": last.trim(), "company": sample::title(number),
        "phone": if sample::one_in(number, 2) { Value::Null } else { json!("+41 44 000 00 00") }, "lifecyclestage": "lead",
    });
    create(number, &json!({"properties": properties}), sample::time(number))
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let (id, time) = ((sample::BIG + 2 * number).to_string(), sample::millis(now));
    let mut row = json!({
        "id": id, "properties": {"hs_object_id": id, "createdate": time}, "createdAt": time, "updatedAt": time, "archived": false,
        "url": format!("https://app.hubspot.com/contacts/1/record/0-1/{id}"),
    });
    update(&mut row, content, now);
    row
}

/// Sets the properties that are there; an empty text clears one.
pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    for (name, value) in sample::object(&content["properties"]) {
        row["properties"][&name] = match value {
            Value::String(text) if text.is_empty() => Value::Null,
            Value::String(_) | Value::Null => value,
            other => other.to_string().into(),
        };
    }
    let time = sample::millis(now);
    row["properties"]["lastmodifieddate"] = time.as_str().into();
    row["updatedAt"] = time.into();
}
