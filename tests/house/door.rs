//! Rows are read and written through one door: the gateway's `ScopedRows`.

use std::fs;
use std::path::Path;

use crate::layers::sources;

/// Calls that give or change rows of a Dio.
const DOORS: [&str; 14] = [
    "dio.select(",
    "dio.select_prepared(",
    "dio.aggregate(",
    "dio.vista(",
    "dio.cache(",
    "dio.master(",
    "dio.write(",
    "dio.log(",
    "dio.held_row(",
    "dio.known_id(",
    "dio.subscribe_events(",
    "dio.table_scenery(",
    "dio.value_scenery(",
    "Repeated::new(",
];

/// Files that may: the door itself, and what tries a webhook out on a Dio of its own.
const ALLOWED: [&str; 2] = ["rows/scoped_rows.rs", "webhook/trial.rs"];

#[test]
fn the_gateway_reaches_rows_through_their_scope_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/gateway/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(ALLOWED.iter().all(|file| root.join(file).is_file()));
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        if ALLOWED.contains(&name.as_str()) || name.contains("test") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        // A call may begin on the line before.
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let code: String = code.split_whitespace().collect();
        wrong.extend(DOORS.iter().filter(|call| code.contains(**call)).map(|call| format!("{name}: {call}")));
    }
    assert!(wrong.is_empty(), "rows that do not pass their scope:\n{}", wrong.join("\n"));
}
