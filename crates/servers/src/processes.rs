//! Processes by their ids, as `/proc` lists them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Sends `signal` to the process `id`, which may be gone already.
pub(crate) fn send(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, signal);
    }
}

/// State and parent of the process `id`.
fn stat(id: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before may contain anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Processes whose parent is `id`.
pub(crate) fn children(id: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|child| stat(*child).is_some_and(|(_, parent)| parent == id)).collect()
}

/// True if the process `id` executes; a zombie does not.
fn is_running(id: u32) -> bool {
    stat(id).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

/// Waits until none of these processes executes.
pub(crate) fn wait_for_end(ids: &[u32]) {
    assert!(eventually(|| !ids.iter().any(|id| is_running(*id))), "processes that do not end: {ids:?}");
}

/// Asks `is_true` every few milliseconds, and returns false if it is not true for a minute.
pub(crate) fn eventually(mut is_true: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
