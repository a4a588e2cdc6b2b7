//! Looks at processes, and a server whose test is killed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

/// Asks until it is true; fails after half a minute.
pub(crate) fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_true() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Command lines of the processes that name `folder` or work in it.
pub(crate) fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let known = entries.filter_map(|entry| {
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let works = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.to_string_lossy().starts_with(folder));
        (works || line.contains(folder)).then_some(line)
    });
    known.collect()
}

/// Runs the ignored test `name` of this program, which prints a folder and waits; kills it, and returns the folder.
pub(crate) fn folder_of_killed_test(name: &str) -> Option<PathBuf> {
    let mut test = Command::new(env::current_exe().unwrap());
    test.args(["--exact", name, "--ignored", "--nocapture"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut test = test.spawn().unwrap();
    let mut lines = BufReader::new(test.stdout.take().unwrap()).lines().map(Result::unwrap);
    let folder = lines.find_map(|line| line.strip_prefix("folder ").map(PathBuf::from));
    if let Some(folder) = &folder {
        assert!(!processes(folder).is_empty());
    }
    test.kill().unwrap();
    test.wait().unwrap();
    folder
}

/// Prints `folder` for [`folder_of_killed_test`], and waits to be killed.
pub(crate) fn wait_to_be_killed(folder: &Path) {
    println!("\nfolder {}", folder.display());
    std::io::stdin().lines().for_each(drop);
}
