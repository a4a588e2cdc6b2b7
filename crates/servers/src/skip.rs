//! Tests that need a program which is not installed.

/// Prints that the tests of `what` are skipped because of `error`. Panics under `CI=true`, where nothing may be skipped.
pub fn skip_or_fail(what: &str, error: &str) {
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!in_ci, "{what}: {error}");
    eprintln!("SKIPPED: {what}: {error}");
}
