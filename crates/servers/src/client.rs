//! Command-line clients of servers.

use std::io::{Seek as _, Write as _};
use std::process::{Command, Stdio};

use crate::programs::output;

/// Runs the client `command` with `sql` as its input, and returns its output. Panics with its error message if it fails.
pub(crate) fn ask(command: &mut Command, sql: &str) -> String {
    // A file cannot block as a pipe does that nobody reads.
    let file = tempfile::tempfile().and_then(|mut file| {
        file.write_all(sql.as_bytes())?;
        file.rewind()?;
        Ok(file)
    });
    let file = file.unwrap_or_else(|error| panic!("a temporary file: {error}"));
    output(command.stdin(Stdio::from(file)))
}
