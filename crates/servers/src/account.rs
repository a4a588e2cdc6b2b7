//! The account that a server runs as. Servers refuse to run as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

/// An account of the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    /// The group, if the account is not the one that runs the test.
    other: Option<u32>,
}

impl Account {
    /// The test's own account; if that is root, the account `name`, or `nobody` where there is no `name`.
    pub(crate) fn of_server(name: &str) -> Account {
        let own = rustix::process::geteuid();
        if !own.is_root() {
            return Account { uid: own.as_raw(), other: None };
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let found = [name, "nobody"].into_iter().find_map(|name| ids(&users, name));
        let (uid, gid) = found.unwrap_or_else(|| panic!("there is no user {name} and no user nobody"));
        Account { uid, other: Some(gid) }
    }

    /// The test's own account, also if that is root.
    pub(crate) fn of_test() -> Account {
        Account { uid: rustix::process::geteuid().as_raw(), other: None }
    }

    /// Makes `command` run as this account.
    pub(crate) fn run(self, command: &mut Command) {
        if let Some(gid) = self.other {
            command.uid(self.uid).gid(gid);
        }
    }

    /// Gives `path` to this account.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        self.other.map_or(Ok(()), |gid| chown(path, Some(self.uid), Some(gid)))
    }
}

/// User and group id of `name` in the text of `/etc/passwd`.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
