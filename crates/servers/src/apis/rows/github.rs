//! Issues of GitHub.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Content;
use crate::apis::sample;

pub(crate) const ISSUES: &str = "/repos/octocat/hello-world/issues";

pub(crate) const CONTENT: Content = Content { id, create, update };

fn id(row: &Value) -> String {
    row["number"].to_string()
}

/// Sample row with this number.
pub(crate) fn row(number: u64) -> Value {
    let mut row =
        create(number, &json!({"title": sample::title(number), "body": sample::text(number)}), sample::time(number));
    row["comments"] = (number % 12).into();
    if sample::one_in(number, 3) {
        update(&mut row, &json!({"labels": ["bug", "großes Thema"], "assignees": ["hubot"]}), sample::time(number + 5));
    }
    if sample::one_in(number, 4) {
        update(&mut row, &json!({"state": "closed"}), sample::time(number + 9));
    }
    if sample::one_in(number, 10) {
        row["pull_request"] = json!({"url": format!("https://api.github.com/repos/octocat/hello-world/pulls/{number}"), "merged_at": null});
    }
    row
}

pub(crate) fn create(number: u64, content: &Value, now: Timestamp) -> Value {
    let time = sample::seconds(now);
    let mut row = json!({
        "id": sample::BIG + 2 * number, "node_id": format!("I_{}", sample::key(number, 16)), "number": number,
        "url": format!("https://api.github.com{ISSUES}/{number}"),
        "html_url": format!("https://github.com/octocat/hello-world/issues/{number}"),
        "title": "", "body": null, "state": "open", "state_reason": null, "locked": false, "active_lock_reason": null,
        "user": {"login": format!("user-{}", number % 20), "id": number % 20, "type": "User", "site_admin": false},
        "labels": [], "assignee": null, "assignees": [], "milestone": null, "comments": 0, "author_association": "NONE",
        "reactions": {"total_count": 0, "+1": 0, "heart": 0}, "created_at": time, "updated_at": time, "closed_at": null,
    });
    update(&mut row, content, now);
    row
}

pub(crate) fn update(row: &mut Value, content: &Value, now: Timestamp) {
    sample::copy(content, row, &["title", "body", "state", "state_reason"]);
    if let Some(labels) = content.get("labels").and_then(Value::as_array) {
        let label = |label: &Value| json!({"id": sample::BIG, "name": label, "color": "f29513", "default": false, "description": null});
        row["labels"] = labels.iter().map(label).collect();
    }
    if let Some(logins) = content.get("assignees").and_then(Value::as_array) {
        row["assignees"] = logins.iter().map(|login| json!({"login": login, "id": 2, "type": "User"})).collect();
        row["assignee"] = row["assignees"].get(0).cloned().unwrap_or_default();
    }
    row["closed_at"] = if row["state"] == "closed" { sample::seconds(now).into() } else { Value::Null };
    row["updated_at"] = sample::seconds(now).into();
}
