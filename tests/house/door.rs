//! Rows are read and written through one door: the gateway's `ScopedRows`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::layers::sources;

/// Calls on a Dio that neither give rows nor change them, and methods of texts and options that are called `dio`.
const HARMLESS: &[&str] = &[
    "and_then",
    "as_deref",
    "as_str",
    "blocking",
    "build",
    "cache_ttl",
    "capabilities",
    "check_ready",
    "clone",
    "closing",
    "counters",
    "dropped_columns",
    "filter",
    "free_places",
    "freshness",
    "inbox",
    "inferred",
    "into",
    "is_complete",
    "is_durable",
    "is_ready",
    "knows_key",
    "loads_chunks",
    "map_or",
    "mints_ids",
    "mismatches",
    "name",
    "oldest",
    "outbox",
    "position",
    "ready",
    "refresh_if_stale",
    "refused_indexes",
    "run",
    "schema",
    "source_capabilities",
    "status",
    "to_string",
    "unknown_columns",
    "work",
    "workers",
    "writes_around",
];

/// Calls that are about everybody's rows, with the files that may make them: routes for administrators, deliveries of senders and to
/// receivers, and what became of the caller's own write.
const ADMIN: &[(&str, &[&str])] = &[
    ("deliver", &["webhook/work.rs"]),
    ("deliveries", &["notify/task.rs", "webhook/deliveries.rs", "webhook/work.rs"]),
    ("delivery", &["notify/routes.rs", "notify/task.rs", "webhook/deliveries.rs", "webhook/work.rs"]),
    ("discard", &["admin/operations.rs"]),
    ("keep_delivery", &["webhook/deliveries.rs", "webhook/receive.rs", "webhook/work.rs", "webhook/raw.rs"]),
    ("keep_delivery_later", &["webhook/work.rs"]),
    ("log", &["notify/metrics.rs", "notify/routes.rs", "notify/task.rs"]),
    ("operation", &["admin/operations.rs", "rows/write.rs"]),
    ("operations", &["admin/scrape.rs"]),
    ("operations_by", &["admin/operations.rs"]),
    ("purge", &["admin/purge.rs"]),
    ("refresh", &["admin/refresh.rs"]),
    ("refresh_allowing_shrink", &["admin/refresh.rs"]),
    ("retry", &["admin/operations.rs"]),
    ("ring", &["admin/scrape.rs", "state.rs"]),
    ("sent_mark", &["notify/task.rs"]),
    ("settled", &["admin/operations.rs", "rows/write.rs"]),
    ("state", &["admin/scrape.rs"]),
    ("store_sent", &["notify/task.rs"]),
];

/// The door itself, and what tries a webhook out on a Dio of its own.
const DOOR: [&str; 2] = ["rows/scoped_rows.rs", "webhook/trial.rs"];

/// Names of the methods that are called on something called `dio`.
fn calls(code: &str) -> BTreeSet<&str> {
    let method = |rest: &'_ str| rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    let called = code.split("dio.").skip(1).filter_map(|rest| Some((rest, method(rest)?)));
    called.filter(|(rest, end)| rest[*end..].starts_with('(')).map(|(rest, end)| &rest[..end]).collect()
}

#[test]
fn the_gateway_reaches_rows_through_their_scope_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/gateway/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(DOOR.iter().all(|file| root.join(file).is_file()));
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        if DOOR.contains(&name.as_str()) || name.contains("test") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        // A call may begin on the line before.
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let code: String = code.split_whitespace().collect();
        for call in calls(&code) {
            let harmless = HARMLESS.contains(&call);
            let admin = ADMIN.iter().any(|(own, files)| *own == call && files.contains(&name.as_str()));
            if !harmless && !admin {
                wrong.push(format!("{name}: dio.{call}("));
            }
        }
        if code.contains("PreparedQuery::new(") {
            wrong.push(format!("{name}: a query that no scope has narrowed"));
        }
    }
    assert!(wrong.is_empty(), "rows that do not pass their scope:\n{}", wrong.join("\n"));
}
