//! Output of operations as tables for people and as lines for programs.

use std::fmt::Write as _;

use serde_json::Value;

/// Formats one object per line.
pub(super) fn lines(all: &[Value]) -> String {
    all.iter().fold(String::new(), |mut text, one| {
        let _ = writeln!(text, "{one}");
        text
    })
}

const COLUMNS: [&str; 7] = ["id", "state", "op", "record", "attempts", "updated", "error"];

/// Formats operations as a table with headings.
pub(super) fn table(all: &[Value]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_uppercase)];
    rows.extend(all.iter().map(|one| {
        let record = one["record"].as_str().map_or("*", |record| record);
        let record = format!("{}/{record}", word(&one["dio"]));
        let error = one["error"]["detail"].as_str().unwrap_or_default().to_string();
        [
            word(&one["id"]),
            word(&one["state"]),
            word(&one["op"]),
            record,
            word(&one["attempts"]),
            word(&one["updated"]),
            error,
        ]
        .map(plain)
    }));
    aligned(&rows)
}

const AUDIT_COLUMNS: [&str; 7] = ["seq", "time", "action", "principal", "address", "target", "outcome"];

/// Formats entries of the audit log as a table, with headings if they are the first ones.
pub(super) fn audit(all: &[Value], first: bool) -> String {
    let mut rows = Vec::new();
    if first {
        rows.push(AUDIT_COLUMNS.map(str::to_uppercase));
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_string();
    rows.extend(all.iter().map(|one| {
        let target = [&one["resource"], &one["target"]].into_iter().filter_map(Value::as_str);
        let target = target.collect::<Vec<_>>().join("/");
        let count = one["count"].as_u64().filter(|count| *count != 1);
        let outcome = match (one["outcome"].as_str(), count) {
            (Some(outcome), Some(count)) => format!("{outcome}, {count} more"),
            (None, Some(count)) => format!("{count} entries"),
            (outcome, None) => outcome.unwrap_or("-").to_string(),
        };
        let target = if target.is_empty() { "-".to_string() } else { target };
        let (principal, address) = (text(&one["principal"]), text(&one["address"]));
        [word(&one["seq"]), text(&one["time"]), text(&one["action"]), principal, address, target, outcome].map(plain)
    }));
    aligned(&rows)
}

/// Formats rows with columns of the same width.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> =
        (0..N).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    rows.iter().fold(String::new(), |mut text, row| {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

/// Formats each operation with one line per member.
pub(super) fn cards(all: &[Value]) -> String {
    let card = |one: &Value| {
        let members =
            one.as_object().into_iter().flatten().filter(|(name, value)| !value.is_null() && *name != "links");
        members.fold(String::new(), |mut text, (name, value)| {
            let value = match name.as_str() {
                "error" => format!("{}: {}", word(&value["code"]), word(&value["detail"])),
                _ => word(value),
            };
            let _ = writeln!(text, "{name:<13} {}", plain(value));
            text
        })
    };
    all.iter().map(card).collect::<Vec<_>>().join("\n")
}

/// Formats the outcome of each operation.
pub(super) fn outcomes(results: &[Value]) -> String {
    results.iter().fold(String::new(), |mut text, one| {
        let id = word(&one["id"]);
        let _ = match (&one["operation"]["id"], &one["problem"]["detail"]) {
            (Value::String(new), _) => writeln!(text, "{id} is retried as {new}"),
            (_, Value::String(detail)) => writeln!(text, "{id} is refused: {}", plain(detail.clone())),
            _ => writeln!(text, "{id} is discarded"),
        };
        text
    })
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// Replaces control characters, so that text of others is one harmless line.
#[expect(clippy::needless_pass_by_value, reason = "the shape of map")]
fn plain(text: String) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}
