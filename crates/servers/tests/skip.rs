//! A test whose server is not installed.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::process::{Command, Output};

use diorama_servers::skip_or_fail;

#[test]
#[ignore = "another test runs this one"]
fn is_skipped() {
    skip_or_fail("Oven", "there is no bakeoven");
}

/// Runs the test above with this value of `CI`.
fn run(ci: &str) -> Output {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "is_skipped", "--ignored", "--nocapture"]).env("CI", ci).output().unwrap()
}

#[test]
fn a_skip_is_said_and_fails_in_ci() {
    let home = run("");
    assert!(home.status.success());
    assert!(String::from_utf8_lossy(&home.stderr).contains("SKIPPED: Oven: there is no bakeoven"), "{home:?}");
    let ci = run("true");
    assert!(!ci.status.success());
    assert!(String::from_utf8_lossy(&ci.stderr).contains("Oven: there is no bakeoven"), "{ci:?}");
}
