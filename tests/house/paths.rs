//! The guides name files, items and pages that exist.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::layers::sources;

/// True if there is such a path: from the root, within a crate, or within a crate after the crate's name.
fn exists(root: &Path, files: &[String], path: &str) -> bool {
    let inside = ["core", "inbound", "connect", "gateway"].into_iter().find_map(|name| {
        path.strip_prefix(name).filter(|rest| rest.starts_with('/')).map(|rest| format!("crates/{name}/src{rest}"))
    });
    [Some(path.to_string()), inside].into_iter().flatten().any(|path| {
        let folder = format!("/{}/", path.trim_end_matches('/'));
        root.join(&path).exists()
            || files.iter().any(|file| file.ends_with(&format!("/{path}")) || file.contains(&folder))
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Rust files of the workspace.
fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["crates", "src", "tests"] {
        sources(&root().join(folder), &mut files);
    }
    files
}

/// Pages of `docs/decisions`, without its index.
fn decisions() -> Vec<String> {
    let folder = fs::read_dir(root().join("docs/decisions")).unwrap();
    let names = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "README.md").collect()
}

/// The guides with their texts, without blocks of code.
fn guides() -> Vec<(String, String)> {
    let decisions = decisions().into_iter().map(|name| format!("docs/decisions/{name}"));
    let pages = ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/decisions/README.md"].map(String::from);
    let read = |page: String| {
        let text = fs::read_to_string(root().join(&page)).unwrap();
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        (page, prose.join("\n"))
    };
    pages.into_iter().chain(decisions).map(read).collect()
}

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn paths_in_the_guides_exist() {
    let files: Vec<String> = rust_files().iter().map(|file| file.display().to_string()).collect();
    let mut missing = Vec::new();
    for (page, text) in guides() {
        let paths = quoted(&text).filter(|word| word.contains('/') && (word.ends_with(".rs") || word.ends_with('/')));
        let paths = paths.filter(|word| !word.starts_with('/') && !word.contains([' ', '{', '<', '*']));
        missing.extend(paths.filter(|path| !exists(root(), &files, path)).map(|path| format!("{page}: {path}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn items_in_the_guides_exist() {
    let mut words = HashSet::new();
    for file in rust_files() {
        let text = fs::read_to_string(file).unwrap();
        words.extend(text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_string));
    }
    let mut missing = Vec::new();
    for (page, text) in guides() {
        for item in quoted(&text).filter(|word| word.contains("::")) {
            let is_path = item.split("::").all(|part| part.chars().all(|c| c.is_alphanumeric() || c == '_'));
            if is_path && !item.split("::").all(|part| words.contains(part)) {
                missing.push(format!("{page}: {item}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn links_in_the_guides_lead_somewhere() {
    let mut broken = Vec::new();
    for (page, text) in guides() {
        let folder = root().join(&page).parent().unwrap().to_path_buf();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let path = target.split('#').next().unwrap_or_default();
            if !folder.join(path).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_decision_is_listed_once_and_in_the_usual_form() {
    let index = fs::read_to_string(root().join("docs/decisions/README.md")).unwrap();
    let mut numbers = HashSet::new();
    for name in decisions() {
        assert_eq!(index.matches(&format!("({name})")).count(), 1, "{name} in the index");
        let text = fs::read_to_string(root().join("docs/decisions").join(&name)).unwrap();
        let number = &name[..4];
        assert!(text.starts_with(&format!("# {number}: ")), "{name}: its title begins with its number");
        assert!(numbers.insert(number.to_string()), "{name}: its number is taken");
        for heading in ["\nStatus: ", "\n## Context\n", "\n## Decision\n", "\n## Consequences\n"] {
            assert!(text.contains(heading), "{name}: there is no {heading:?}");
        }
    }
}
