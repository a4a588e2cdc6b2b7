//! Names that the crate `diorama` gives its users are listed in `tests/house/public.txt`: a change of the list is seen in review.

use std::path::Path;
use std::{env, fs};

/// Names of `src/lib.rs`, each with its module and the feature that it needs.
fn names(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
    let (mut modules, mut names, mut feature) = (vec!["diorama".to_string()], Vec::new(), String::new());
    let mut rest = code.as_str();
    while let Some(start) = rest.find(['p', '}', '#']) {
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("#[") {
            let (attribute, after) = after.split_once(']').unwrap();
            feature = attribute
                .strip_prefix("cfg(")
                .map(|cfg| format!(" ({})", cfg.trim_end_matches(')')))
                .unwrap_or_default();
            rest = after;
        } else if let Some(after) = rest.strip_prefix("pub mod ") {
            let end = after.find([';', '{']).unwrap();
            let module = format!("{}::{}", modules.last().unwrap(), after[..end].trim());
            names.push(format!("{module}{}", std::mem::take(&mut feature)));
            if after[end..].starts_with('{') {
                modules.push(module);
            }
            rest = &after[end + 1..];
        } else if let Some(after) = rest.strip_prefix("pub use ") {
            let (path, after) = after.split_once(';').unwrap();
            let list = path.split_once('{').map_or(path.rsplit("::").next().unwrap(), |(_, list)| list);
            let list = list.rsplit(" as ").next().unwrap();
            for name in list.trim_end_matches('}').split(',').map(str::trim).filter(|name| !name.is_empty()) {
                names.push(format!("{}::{name}{feature}", modules.last().unwrap()));
            }
            feature.clear();
            rest = after;
        } else {
            if rest.starts_with('}') && modules.len() > 1 {
                modules.pop();
            }
            rest = &rest[1..];
        }
    }
    names.sort();
    names
}

#[test]
fn the_list_of_public_names_is_what_the_crate_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let now = names(&fs::read_to_string(root.join("src/lib.rs")).unwrap()).join("\n") + "\n";
    let list = root.join("tests/house/public.txt");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&list, &now).unwrap();
    }
    let listed = fs::read_to_string(&list).unwrap_or_default();
    assert_eq!(listed, now, "`UPDATE_DOCS=1 cargo test --test house` writes the list anew");
}
