//! Products of an OData service.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const FIELDS: [&str; 7] = ["Name", "Description", "Price", "Stock", "Discontinued", "Tags", "Address"];

pub(crate) const CONTENT: Content = Content { id, create, update };

fn id(row: &Value) -> String {
    row["ID"].to_string()
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let content = json!({
        "Name": sample::title(number), "Description": sample::text(number), "Price": (number % 1000) as f64 / 4.0, "Stock": number % 50,
        "Discontinued": sample::one_in(number, 5), "Tags": if sample::one_in(number, 3) { json!(["größer"]) } else { json!([]) },
        "Address": if sample::one_in(number, 4) { Value::Null } else { json!({"City": "Zürich", "Country": {"Code": "CH"}}) },
    });
    create(number, &content, sample::time(number))
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let mut row = json!({
        "ID": sample::BIG + 2 * number, "Name": "", "Description": null, "Price": 0, "Stock": 0, "Discontinued": false, "Tags": [],
        "Address": null, "CreatedAt": sample::millis(now),
    });
    if number == 0 {
        sample::copy(content, &mut row, &["ID", "CreatedAt"]);
    }
    update(&mut row, content, now);
    row
}

pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    sample::copy(content, row, &FIELDS);
    row["ModifiedAt"] = sample::millis(now).into();
}
