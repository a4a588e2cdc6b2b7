//! Records of Airtable.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const FIELDS: [&str; 8] = ["Name", "Notes", "Amount", "Done", "Tags", "Due", "Customer", "Modified"];

pub(crate) const CONTENT: Content = Content {
    id,
    create: |number, content, now| create(number, inner(content), now),
    update: |row, content, now| update(row, inner(content), now),
};

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap_or_default().to_owned()
}

/// Fields of a record, which may stand in `fields`.
fn inner(content: &Value) -> &Value {
    content.get("fields").unwrap_or(content)
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let content = json!({
        "Name": sample::title(number), "Notes": sample::text(number), "Amount": (number % 1000) as f64 / 4.0,
        "Done": sample::one_in(number, 2),
        "Tags": if sample::one_in(number, 3) { json!(["neu", "größer"]) } else { json!([]) }, "Due": null,
        "Customer": [format!("rec{}", sample::key(number % 20, 14))],
    });
    create(number, &content, sample::time(number))
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let mut row =
        json!({"id": format!("rec{}", sample::key(number, 14)), "createdTime": sample::millis(now), "fields": {}});
    update(&mut row, content, now);
    row
}

pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    sample::copy(content, &mut row["fields"], &FIELDS);
    row["fields"]["Modified"] = sample::millis(now).into();
}
