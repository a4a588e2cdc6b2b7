//! Mistakes in a configuration, with their positions.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// A mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Byte offset in the text.
    pub at: usize,
    /// Description of the mistake and of the correct form.
    pub message: String,
}

impl Problem {
    pub(super) fn new(at: usize, message: impl Into<String>) -> Problem {
        Problem { at, message: message.into() }
    }
}

/// All mistakes of a configuration, displayed as `file:line:column: message`, one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    /// Line, column and message of each mistake.
    problems: Vec<(usize, usize, String)>,
}

impl ConfigError {
    pub(super) fn new(path: &Path, text: &str, mut problems: Vec<Problem>) -> ConfigError {
        problems.sort_by_key(|problem| problem.at);
        let locate = |problem: Problem| {
            let before = text.get(..problem.at).unwrap_or_default();
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            (line, column, problem.message)
        };
        ConfigError { path: path.to_path_buf(), problems: problems.into_iter().map(locate).collect() }
    }

    /// Number of mistakes.
    pub fn count(&self) -> usize {
        self.problems.len()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        for (at, (line, column, message)) in self.problems.iter().enumerate() {
            let end = if at + 1 < self.problems.len() { "\n" } else { "" };
            write!(f, "{path}:{line}:{column}: {message}{end}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collector of mistakes.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn add(&self, at: usize, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem::new(at, message));
    }

    /// Number of mistakes so far.
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn take(&self) -> Vec<Problem> {
        self.0.take()
    }
}
