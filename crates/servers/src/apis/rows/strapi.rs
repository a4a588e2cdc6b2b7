//! Articles of Strapi.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const FIELDS: [&str; 6] = ["title", "body", "rating", "views", "blocks", "seo"];

pub(crate) const CONTENT: Content = Content {
    id,
    create: |number, content, now| create(number, inner(content), now),
    update: |row, content, now| update(row, inner(content), now),
};

fn id(row: &Value) -> String {
    row["documentId"].as_str().unwrap_or_default().to_owned()
}

/// Fields of a document, which may stand in `data`.
fn inner(content: &Value) -> &Value {
    content.get("data").unwrap_or(content)
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let content = json!({
        "title": sample::title(number), "body": sample::text(number), "rating": (number % 50) as f64 / 10.0, "views": sample::BIG + number,
        "blocks": [{"type": "paragraph", "children": [{"type": "text", "text": sample::name(number)}]}],
        "seo": if sample::one_in(number, 3) { json!({"id": number, "metaTitle": "Größe", "keywords": null}) } else { Value::Null },
    });
    create(number, &content, sample::time(number))
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let time = sample::millis(now);
    let mut row = json!({
        "id": number, "documentId": sample::key(number, 24).to_lowercase(), "title": null, "body": null, "rating": null, "views": null,
        "blocks": null, "seo": null, "createdAt": time, "updatedAt": time, "publishedAt": time, "locale": "en",
    });
    sample::copy(content, &mut row, &FIELDS);
    row
}

/// Changes the fields that are there. The published version gets another `id`.
pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    sample::copy(content, row, &FIELDS);
    row["id"] = (row["id"].as_u64().unwrap_or(0) + 1_000_000).into();
    (row["updatedAt"], row["publishedAt"]) = (sample::millis(now).into(), sample::millis(now).into());
}
