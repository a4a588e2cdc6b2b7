//! Articles of a server of JSON:API.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const ARTICLES: &str = "/articles";
pub(crate) const ATTRIBUTES: [&str; 5] = ["title", "body", "words", "draft", "keywords"];

pub(crate) const CONTENT: Content = Content {
    id,
    create: |number, content, now| create(number, inner(content), now),
    update: |row, content, now| update(row, inner(content), now),
};

fn id(row: &Value) -> String {
    row["id"].as_str().unwrap_or_default().to_owned()
}

/// Resource object, which may stand in `data`.
fn inner(content: &Value) -> &Value {
    content.get("data").unwrap_or(content)
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let content = json!({"attributes": {
        "title": sample::title(number), "body": sample::text(number), "words": sample::BIG + number, "draft": sample::one_in(number, 4),
        "keywords": if sample::one_in(number, 3) { json!(["größer", "neu"]) } else { json!([]) },
    }});
    create(number, &content, sample::time(number))
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let author = number % 20;
    let mut row = json!({
        "type": "articles", "id": number.to_string(), "links": {"self": format!("{ARTICLES}/{number}")},
        "attributes": {"title": "", "body": null, "words": 0, "draft": false, "keywords": [], "createdAt": sample::millis(now)},
        "relationships": {"author": {
            "data": {"type": "people", "id": author.to_string()}, "links": {"related": format!("/people/{author}")},
        }},
    });
    update(&mut row, content, now);
    row
}

pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    sample::copy(&content["attributes"], &mut row["attributes"], &ATTRIBUTES);
    row["attributes"]["updatedAt"] = sample::millis(now).into();
    if let Some(author) = content.pointer("/relationships/author/data") {
        row["relationships"]["author"]["data"] = author.clone();
    }
}
