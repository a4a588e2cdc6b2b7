//! Programs of servers, which are often outside of `PATH`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Folders of `PATH`.
pub(crate) fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default()
}

/// Folders of Debian's PostgreSQL versions, the newest first.
pub(crate) fn postgres_folders() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.into_iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

/// First of `folders` that has a file `name`, with that file.
pub(crate) fn find(name: &str, folders: &[PathBuf]) -> Result<PathBuf, String> {
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| format!("there is no {name}"))
}

/// Version that `program` reports: the first word of its output that begins with a digit.
pub(crate) fn version(program: &Path) -> String {
    let text = output(Command::new(program).arg("--version"));
    let number = text.split_whitespace().find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()));
    number.unwrap_or("unknown").to_string()
}

/// Runs `command` to its end and returns its standard output without the last line break. Panics if it fails.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{errors}{text}", output.status);
    text.strip_suffix('\n').unwrap_or(&text).to_string()
}
