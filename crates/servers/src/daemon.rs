//! A server process with its folder, its port and its end.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::account::Account;
use crate::keeper::Keeper;
use crate::port::free_port;
use crate::processes::{children, eventually, send, wait_for_end};

/// Texts in the log of a server whose port somebody else has.
const PORT_TAKEN: [&str; 2] = ["Address already in use", "eaddrinuse"];

/// Process and folder of a server. Dropping it kills the process and removes the folder.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Option<Child>,
    keeper: Keeper,
    folder: TempDir,
    pub(crate) account: Account,
    pub(crate) port: u16,
}

impl Daemon {
    /// Makes the folder of a server `name`, which does not run yet.
    pub(crate) fn new(name: &str, account: Account) -> Daemon {
        let made = tempfile::Builder::new().prefix(&format!("diorama-{name}-")).tempdir().and_then(|folder| {
            account.own(folder.path())?;
            Ok((Keeper::start(folder.path())?, folder))
        });
        let (keeper, folder) = made.unwrap_or_else(|error| panic!("the folder of {name}: {error}"));
        Daemon { process: None, keeper, folder, account, port: free_port() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Path of the file `name` in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Process id, while the server runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Starts the server with `command` and waits until it `is_ready`. Takes another port if the first one `may_move` and is taken.
    pub(crate) fn launch(
        &mut self,
        may_move: bool,
        command: impl Fn(&Daemon) -> Command,
        is_ready: impl Fn(&Daemon) -> bool,
    ) {
        for _ in 0..20 {
            let command = command(self);
            self.spawn(command);
            if self.becomes_ready(&is_ready) {
                return;
            }
            self.kill();
            let log = fs::read_to_string(self.file("log")).unwrap_or_default();
            assert!(
                PORT_TAKEN.iter().any(|text| log.contains(text)),
                "the server in {:?} does not start:\n{log}",
                self.folder
            );
            if may_move {
                self.port = free_port();
            } else {
                // A probe of another test, which lasts for a moment.
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("port {} is taken", self.port);
    }

    fn spawn(&mut self, mut command: Command) {
        let log = File::create(self.file("log")).and_then(|log| Ok((log.try_clone()?, log)));
        let (log, errors) = log.unwrap_or_else(|error| panic!("the log in {:?}: {error}", self.folder));
        self.account.run(&mut command);
        command.env("LC_ALL", "C").current_dir(self.folder.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        self.keeper.watch(Some(process.id()));
        self.process = Some(process);
    }

    /// Waits until the server is ready; false if it ends before.
    fn becomes_ready(&mut self, is_ready: impl Fn(&Daemon) -> bool) -> bool {
        let mut is_alive = true;
        let decided = eventually(|| {
            let ended = self.process.as_mut().map(Child::try_wait);
            is_alive = matches!(ended, Some(Ok(None)));
            !is_alive || is_ready(self)
        });
        decided && is_alive
    }

    /// Kills the server and its child processes, and waits for their end.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // A stopped process has no more children than those that are found.
        send(process.id(), Signal::STOP);
        let children = children(process.id());
        send(process.id(), Signal::KILL);
        children.iter().for_each(|child| send(*child, Signal::KILL));
        let _status = process.wait();
        self.keeper.watch(None);
        wait_for_end(&children);
    }

    /// Asks the server by `signal` to end, and waits for it.
    pub(crate) fn stop(&mut self, signal: Signal) {
        let Some(process) = &mut self.process else { return };
        send(process.id(), signal);
        let ended = eventually(|| !matches!(process.try_wait(), Ok(None)));
        assert!(ended, "the server in {:?} does not stop", self.folder);
        self.process = None;
        self.keeper.watch(None);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
