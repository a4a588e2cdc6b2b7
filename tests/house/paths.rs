//! Files and folders that ARCHITECTURE.md and CONTRIBUTING.md name are there.

use std::path::Path;
use std::{env, fs};

use crate::layers::sources;

/// A path as the pages write it: from the root, within a crate, or within a crate after the crate's name.
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

#[test]
fn paths_in_the_guides_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["crates", "src", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let mut missing = Vec::new();
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let paths = quoted.filter(|word| word.contains('/') && (word.ends_with(".rs") || word.ends_with('/')));
        let paths = paths.filter(|word| !word.starts_with('/') && !word.contains([' ', '{', '<', '*']));
        missing.extend(paths.filter(|path| !exists(root, &files, path)).map(|path| format!("{page}: {path}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
