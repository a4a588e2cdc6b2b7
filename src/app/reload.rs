//! Reload of the configuration while the server runs. No connection is closed by it.
//!
//! SIGHUP has the configuration read again and checked as at a start. Each [`Reloadable`] part of the server then prepares its
//! change, and only if all of them can, all changes are applied. Otherwise the problems are logged and everything stays as it
//! is. Keys that no part takes are compared with those of the start, and named if they differ.
//!
//! A part may depend on further files, such as a certificate. They are looked at from time to time, and the part alone is
//! prepared again with the running configuration when they change.
//!
//! To make something reloadable, implement [`Reloadable`] for it and add it to the list in `reloadable_parts` of `app.rs`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use super::signals::Hangups;
use super::{Failure, check};
use crate::config::{Config, WrittenKeys};
use diorama_core::dio::now;
use diorama_core::journal::{AuditAction, AuditEntry};
use diorama_gateway::AuditLog;

/// Time between two looks at the files of parts. A change is taken up when two looks have seen the same, because the files of a
/// certificate and its key are not replaced at the same time.
const LOOK: Duration = Duration::from_secs(2);

/// Part of the running server that can take new settings without a restart.
pub(super) trait Reloadable {
    /// Keys of the configuration that the part takes, with all keys below them: `server.tls`.
    fn keys(&self) -> &'static [&'static str];

    /// Files on which the part depends beside the configuration.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Checks the settings of `config` and returns the change to them. Nothing is changed before it is applied.
    ///
    /// # Errors
    /// The problems, one per line.
    fn prepare(&self, config: &Config) -> Result<Change, String>;
}

/// Change of a part to new settings.
pub(super) enum Change {
    /// The settings are the current ones.
    None,
    /// The settings can be applied.
    Apply {
        /// Description for the log.
        description: String,
        /// Step that applies them, which cannot fail.
        apply: Box<dyn FnOnce() + Send>,
    },
    /// The settings need a restart.
    Restart,
}

/// Function that reads the configuration again, with the arguments of the command.
pub(super) type ReadConfig<'a> = &'a dyn Fn() -> Result<Config, Failure>;

/// Reloader of the parts of a server.
pub(super) struct Reloader<'a> {
    read: ReadConfig<'a>,
    /// Keys at the start: the others stay in force until a restart.
    started: WrittenKeys,
    /// Configuration that the parts have taken.
    running: Config,
    parts: Vec<WatchedPart>,
    /// Audit log, which has an entry of each reload.
    audit: Option<AuditLog>,
}

/// Part with the states of its files.
struct WatchedPart {
    part: Box<dyn Reloadable>,
    /// States that the part has taken or refused.
    taken: Vec<Option<FileState>>,
    /// States from before the last preparation.
    prepared: Vec<Option<FileState>>,
    /// States at the last look.
    seen: Vec<Option<FileState>>,
}

impl<'a> Reloader<'a> {
    pub(super) fn new(read: ReadConfig<'a>, running: Config, parts: Vec<Box<dyn Reloadable>>) -> Reloader<'a> {
        let parts = parts.into_iter().map(|part| {
            let seen = states(&part.files());
            WatchedPart { part, taken: seen.clone(), prepared: seen.clone(), seen }
        });
        Reloader { read, started: running.written.clone(), running, parts: parts.collect(), audit: None }
    }

    /// Sets the audit log.
    pub(super) fn audited(self, audit: Option<AuditLog>) -> Self {
        Reloader { audit, ..self }
    }

    /// Reloads at each hangup, and when files change; never returns.
    pub(super) async fn run(mut self, hangups: &mut Hangups) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = hangups.next() => {
                    let action = self.reload();
                    if let Some(audit) = &self.audit {
                        audit.note(AuditEntry::new(action, now()));
                    }
                }
                _ = looks.tick() => self.look(),
            }
        }
    }

    /// Reads the configuration and applies it. Returns the entry that the audit log gets.
    fn reload(&mut self) -> AuditAction {
        let read = (self.read)().and_then(|config| check::check_with(&config, true).map(|()| config));
        let config = match read {
            Ok(config) => config,
            Err(failure) => {
                refuse(&failure.message);
                return AuditAction::ConfigurationRefused;
            }
        };
        let prepared: Vec<_> = self.parts.iter_mut().map(|part| part.prepare(&config)).collect();
        let problems: Vec<_> = prepared.iter().filter_map(|change| change.as_ref().err().cloned()).collect();
        if !problems.is_empty() {
            refuse(&problems.join("\n"));
            return AuditAction::ConfigurationRefused;
        }
        let (mut applied, mut reloadable) = (Vec::new(), Vec::<&str>::new());
        for (part, change) in self.parts.iter_mut().zip(prepared.into_iter().flatten()) {
            part.confirm();
            match change {
                Change::Restart => continue,
                Change::None => {}
                Change::Apply { description, apply } => {
                    apply();
                    applied.push(description);
                }
            }
            reloadable.extend(part.part.keys());
        }
        let is_below = |key: &str, outer: &str| {
            key.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let is_reloadable = |key: &str| reloadable.iter().any(|outer| is_below(key, outer));
        let differences = self.started.differences(&config.written);
        let later: Vec<&str> = differences.into_iter().filter(|key| !is_reloadable(key)).collect();
        tracing::info!(changed = applied.join("; "), "the configuration was reloaded");
        if !later.is_empty() {
            tracing::warn!(keys = later.join(", "), "these keys have changed and need a restart of the server");
        }
        self.running = config;
        AuditAction::PolicyReloaded
    }

    /// Looks at the files of all parts, and has those parts changed whose files have.
    fn look(&mut self) {
        for part in &mut self.parts {
            let now = states(&part.part.files());
            let is_settled = now == part.seen;
            part.seen = now;
            if !is_settled || part.seen == part.taken {
                continue;
            }
            match part.prepare(&self.running) {
                Err(problems) => {
                    refuse(&problems);
                    continue;
                }
                Ok(Change::Apply { description, apply }) => {
                    apply();
                    tracing::info!(changed = description, "a file has changed and was read again");
                }
                Ok(Change::None | Change::Restart) => {}
            }
            part.confirm();
        }
    }
}

impl WatchedPart {
    /// Prepares the part. A refusal is final until its files change again.
    fn prepare(&mut self, config: &Config) -> Result<Change, String> {
        // States from before the files are read: a later change is seen as one.
        self.prepared = states(&self.part.files());
        let change = self.part.prepare(config);
        if change.is_err() {
            self.confirm();
        }
        change
    }

    /// Notes that what was prepared needs no further attempt. Otherwise the next look prepares it again.
    fn confirm(&mut self) {
        self.taken.clone_from(&self.prepared);
    }
}

/// Logs the problems for which the running settings stay.
fn refuse(problems: &str) {
    for problem in problems.lines() {
        tracing::error!(problem, "the new settings are refused, and the old ones stay");
    }
}

/// State of a file according to its metadata; links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FileState {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

fn states(files: &[PathBuf]) -> Vec<Option<FileState>> {
    files.iter().map(|file| FileState::of(file)).collect()
}

impl FileState {
    /// Returns the state; `None` if there is no regular file.
    fn of(path: &Path) -> Option<FileState> {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(FileState { modified: metadata.modified().ok(), bytes: metadata.len(), inode })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    /// Part that takes the text of a file, and refuses the text "wrong".
    struct TextPart {
        key: &'static [&'static str],
        file: PathBuf,
        taken: std::sync::Arc<std::sync::Mutex<String>>,
    }

    impl Reloadable for TextPart {
        fn keys(&self) -> &'static [&'static str] {
            self.key
        }

        fn files(&self) -> Vec<PathBuf> {
            vec![self.file.clone()]
        }

        fn prepare(&self, _: &Config) -> Result<Change, String> {
            let text = std::fs::read_to_string(&self.file).unwrap();
            if text == "wrong" {
                return Err(text);
            }
            let (taken, description) = (std::sync::Arc::clone(&self.taken), text.clone());
            Ok(Change::Apply { description, apply: Box::new(move || *taken.lock().unwrap() = text) })
        }
    }

    #[test]
    fn all_parts_change_or_none_and_a_file_counts_once_it_has_stopped_changing() {
        let dir = tempfile::tempdir().unwrap();
        let part = |key, name: &str| {
            std::fs::write(dir.path().join(name), "old").unwrap();
            TextPart { key, file: dir.path().join(name), taken: std::sync::Arc::default() }
        };
        let (first, second) = (part(&["server"], "a"), part(&["lens"], "b"));
        let taken = [&first, &second].map(|part| std::sync::Arc::clone(&part.taken));
        let both = || taken.each_ref().map(|taken| taken.lock().unwrap().clone());
        let reads = Rc::new(RefCell::new(0));
        let read = || {
            *reads.borrow_mut() += 1;
            Ok(Config::default())
        };
        let parts: Vec<Box<dyn Reloadable>> = vec![Box::new(first), Box::new(second)];
        let mut reloader = Reloader::new(&read, Config::default(), parts);
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("a", "newer");
        write("b", "wrong");
        reloader.reload();
        assert_eq!((both(), *reads.borrow()), ([String::new(), String::new()], 1), "one is wrong");
        reloader.look();
        reloader.look();
        assert_eq!(both(), ["newer", ""], "the other one is taken alone");
        write("b", "better");
        reloader.look();
        assert_eq!(both(), ["newer", ""], "it may still change");
        reloader.look();
        assert_eq!(both(), ["newer", "better"]);
        write("a", "newest");
        reloader.reload();
        assert_eq!(both(), ["newest", "better"], "a hangup does not wait");
    }
}
