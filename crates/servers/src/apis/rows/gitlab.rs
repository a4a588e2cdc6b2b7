//! Issues of GitLab.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const CONTENT: Content = Content { id, create, update };

fn id(row: &Value) -> String {
    row["iid"].to_string()
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let mut row = create(
        number,
        &json!({"title": sample::title(number), "description": sample::text(number)}),
        sample::time(number),
    );
    if sample::one_in(number, 3) {
        update(&mut row, &json!({"labels": "foo,größer", "due_date": "2026-02-28"}), sample::time(number + 4));
    }
    if sample::one_in(number, 4) {
        update(&mut row, &json!({"state_event": "close"}), sample::time(number + 9));
    }
    row
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let (time, author) = (sample::millis(now), number % 20);
    let mut row = json!({
        "id": sample::BIG + 2 * number, "iid": number, "project_id": 4, "title": "", "description": null, "state": "opened",
        "author": {"id": author, "username": format!("user-{author}"), "name": sample::name(author), "state": "active", "avatar_url": null},
        "assignee": null, "assignees": [], "labels": [], "milestone": null, "upvotes": 0, "downvotes": 0, "user_notes_count": 0,
        "due_date": null, "confidential": false, "discussion_locked": null, "weight": null, "closed_at": null, "closed_by": null,
        "references": {"short": format!("#{number}"), "full": format!("my-group/my-project#{number}")},
        "time_stats": {"time_estimate": 0, "total_time_spent": 0, "human_time_estimate": null},
        "web_url": format!("https://gitlab.example.com/my-group/my-project/-/issues/{number}"), "created_at": time, "updated_at": time,
    });
    update(&mut row, content, now);
    row
}

pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    sample::copy(content, row, &["title", "description", "due_date", "confidential", "weight"]);
    match content.get("labels") {
        Some(Value::String(labels)) => row["labels"] = labels.split(',').filter(|label| !label.is_empty()).collect(),
        Some(labels) => row["labels"] = labels.clone(),
        None => {}
    }
    match content.get("state_event").and_then(Value::as_str) {
        Some("close") => (row["state"], row["closed_at"]) = ("closed".into(), sample::millis(now).into()),
        Some("reopen") => (row["state"], row["closed_at"]) = ("opened".into(), Value::Null),
        _ => {}
    }
    row["updated_at"] = sample::millis(now).into();
}
