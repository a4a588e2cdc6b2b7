//! `diorama openapi`, and the document that is committed.

use std::path::Path;

use crate::process::{folder, run};

/// `UPDATE_OPENAPI=1` writes what is there now. What is served where the committed documents come from is the demo.
#[test]
fn the_committed_documents_are_the_ones_that_are_served() {
    for document in ["openapi", "asyncapi"] {
        check(document);
    }
}

fn check(document: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &[document]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("openapi/{document}.json"));
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&committed, &output.stdout).unwrap();
    }
    let known = std::fs::read(&committed).unwrap_or_default();
    assert!(
        known == output.stdout,
        "the API has changed: UPDATE_OPENAPI=1 cargo test --test serve writes the document"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a question leaves no files behind");
}

#[test]
fn files_are_described_without_a_configuration_and_mistakes_are_reported() {
    let dir = folder();
    let output = run(dir.path(), &["openapi", "my shelf=products.csv"]);
    assert_eq!(output.status.code(), Some(78));
    let output = run(dir.path(), &["openapi", "shelf=products.csv"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["paths"]["/shelf"]["get"].is_object() && document["paths"]["/webhooks/shelf"].is_object());
    let missing = run(dir.path(), &["openapi", "nope.csv"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no file nope.csv"));
    assert!(!dir.path().join("cache.redb").exists() && !dir.path().join("cache.journal.redb").exists());
}
