//! Imports within `diorama-core` run one way: a part names only parts to its left. Between crates the compiler sees to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Parts that each part may name.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let base = ["record", "vista"];
    let parts = |more: &[&'static str]| base.iter().chain(more).copied().collect::<Vec<_>>();
    BTreeMap::from([
        ("record", vec![]),
        ("redb_file", vec![]),
        ("vista", vec!["record"]),
        ("table", parts(&[])),
        ("state", parts(&["table"])),
        ("plan", parts(&["table", "state"])),
        ("cache", parts(&["redb_file"])),
        ("journal", vec!["record", "redb_file"]),
        ("dio", parts(&["cache", "journal", "table", "state", "plan"])),
        ("lens", parts(&["cache", "journal", "table", "state", "plan", "dio", "redb_file"])),
        ("scenery", parts(&["cache", "journal", "table", "state", "plan", "dio"])),
    ])
}

pub(crate) fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Names after `crate::` in code; comments and documentation may point anywhere.
fn named(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for after in line.split("crate::").skip(1) {
            if let Some(group) = after.strip_prefix('{') {
                let group = group.split('}').next().unwrap_or_default();
                names.extend(group.split(',').map(|name| word(name.trim())));
            } else {
                names.push(word(after));
            }
        }
    }
    names
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/core/src");
    let allowed = allowed();
    let mut wrong = Vec::new();
    for (part, may) in &allowed {
        let mut files = Vec::new();
        let folder = root.join(part);
        if folder.is_dir() {
            sources(&folder, &mut files);
        }
        files.extend(Some(root.join(format!("{part}.rs"))).filter(|file| file.is_file()));
        assert!(!files.is_empty(), "there is no {part}");
        for file in files {
            // Tests may reach for anything: they stand outside.
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let is_test = file.to_string_lossy().contains("test") || file.ends_with("contract.rs");
            for name in named(code).into_iter().filter(|_| !is_test) {
                if allowed.contains_key(name.as_str()) && name != *part && !may.contains(&name.as_str()) {
                    wrong.push(format!("{}: crate::{name}", file.strip_prefix(&root).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the arrow:\n{}", wrong.join("\n"));
}
