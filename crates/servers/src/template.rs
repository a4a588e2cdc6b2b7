//! Data folders that are made once per machine and copied for each server: a copy takes a tenth of the time.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::account::Account;
use crate::programs::output;

/// A fresh data folder in the folder for temporary files.
#[derive(Debug)]
pub(crate) struct Template {
    path: PathBuf,
    account: Account,
}

impl Template {
    /// The template of the server `name` in this version, made with `options` and owned by `account`.
    pub(crate) fn new(name: &str, version: &str, options: &[&str], account: Account) -> Template {
        let mut hasher = DefaultHasher::new();
        options.hash(&mut hasher);
        let file = format!("diorama-{name}-template-{version}-{}-{:016x}", account.uid, hasher.finish());
        Template { path: env::temp_dir().join(file), account }
    }

    /// True if the template exists, and nobody else has put it there.
    fn is_made(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_dir() && found.uid() == self.account.uid)
    }

    /// Copies the template to `data`. If there is none yet, `make` fills a data folder, in a folder that may hold other files too.
    pub(crate) fn copy(&self, data: &Path, make: impl FnOnce(&Path)) {
        if !self.is_made() {
            self.make(make);
        }
        let from_to: [&OsStr; 2] = [self.path.as_os_str(), data.as_os_str()];
        output(Command::new("cp").args(["-R", "-p"]).args(from_to));
    }

    fn make(&self, make: impl FnOnce(&Path)) {
        let folder = tempfile::Builder::new().prefix("diorama-template-").tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("a temporary folder: {error}"));
        self.account.own(folder.path()).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let data = folder.path().join("data");
        make(&data);
        // Another test may have made it meanwhile.
        let renamed = fs::rename(&data, &self.path);
        assert!(self.is_made(), "{}: {renamed:?}", self.path.display());
    }
}
