//! A PostgreSQL server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::account::Account;
use crate::client::ask;
use crate::daemon::Daemon;
use crate::programs::{find, output, path_folders, postgres_folders, version};
use crate::template::Template;
use crate::{PASSWORD, skip_or_fail};

const INITDB: &[&str] =
    &["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"];

/// Settings that every server has unless a test says otherwise.
const SETTINGS: &[&str] =
    &["listen_addresses=127.0.0.1", "wal_level=logical", "max_replication_slots=20", "max_wal_senders=20"];

/// A PostgreSQL server with a cluster of its own, ready for logical replication. Its superuser is `postgres`.
///
/// Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct PostgresServer {
    daemon: Daemon,
    programs: Programs,
    settings: Vec<String>,
}

#[derive(Debug)]
struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
}

impl Programs {
    /// Finds the programs in `PATH`, or else in the newest of Debian's folders, which are outside of it.
    fn find() -> Result<Programs, String> {
        let folders: Vec<PathBuf> = path_folders().into_iter().chain(postgres_folders()).collect();
        let initdb = find("initdb", &folders)?;
        // The two have to be of one version.
        let beside: Vec<PathBuf> = initdb.parent().map(Path::to_path_buf).into_iter().collect();
        Ok(Programs { postgres: find("postgres", &beside)?, psql: find("psql", &folders)?, initdb })
    }
}

impl PostgresServer {
    /// Starts a server and waits until it accepts connections. Returns `None` if PostgreSQL is not installed.
    pub fn start() -> Option<PostgresServer> {
        PostgresServer::start_with(&[])
    }

    /// Starts a server with more settings, each written `name=value`.
    pub fn start_with(settings: &[&str]) -> Option<PostgresServer> {
        let programs = Programs::find().map_err(|missing| skip_or_fail("PostgreSQL", &missing)).ok()?;
        let daemon = Daemon::new("postgres", Account::of_server("postgres"));
        let settings = SETTINGS.iter().chain(settings).map(|setting| setting.to_string()).collect();
        let mut server = PostgresServer { daemon, programs, settings };
        let account = server.daemon.account;
        let template = Template::new("postgres", &version(&server.programs.postgres), INITDB, account);
        template.copy(&server.daemon.file("data"), |data| server.initdb(data));
        server.launch(true);
        Some(server)
    }

    /// Makes a cluster in `data`.
    fn initdb(&self, data: &Path) {
        let (password, account) = (data.with_extension("password"), self.daemon.account);
        let written = fs::write(&password, PASSWORD).and_then(|()| account.own(&password));
        written.unwrap_or_else(|error| panic!("{}: {error}", password.display()));
        let mut command = Command::new(&self.programs.initdb);
        command.args(INITDB).arg("--pgdata").arg(data).arg("--pwfile").arg(&password).current_dir("/");
        account.run(&mut command);
        output(&mut command);
    }

    fn launch(&mut self, may_move: bool) {
        let (program, settings) = (&self.programs.postgres, &self.settings);
        let command = |daemon: &Daemon| {
            let mut command = Command::new(program);
            command.arg("-D").arg(daemon.file("data")).arg("-k").arg(daemon.folder());
            command.arg("-p").arg(daemon.port.to_string());
            command.args(settings.iter().flat_map(|setting| ["-c", setting]));
            command
        };
        self.daemon.launch(may_move, command, is_ready);
    }

    /// Address of the database `database` for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{database}", self.port())
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Folder of the server: the cluster is in `data`, messages are in `log`.
    pub fn folder(&self) -> &Path {
        self.daemon.folder()
    }

    /// Runs `sql` with psql in the database `postgres` (`\c NAME` changes to another one), and returns the rows without a header,
    /// with `|` between columns. Panics with the error message if a statement fails.
    pub fn psql(&self, sql: &str) -> String {
        let mut command = Command::new(&self.programs.psql);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"]).arg("-d").arg(self.url("postgres"));
        ask(command.env("PGCLIENTENCODING", "UTF8"), sql)
    }

    /// Kills all processes of the server, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Shuts the server down, without waiting for its clients.
    pub fn stop(&mut self) {
        self.daemon.stop(Signal::INT);
    }

    /// Starts the server again with its data, its settings and its port; stops it first if it runs.
    pub fn restart(&mut self) {
        self.stop();
        self.launch(false);
    }
}

/// True once the server's lock file says so: its first line is the process id, its eighth the status.
fn is_ready(daemon: &Daemon) -> bool {
    let text = fs::read_to_string(daemon.file("data/postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first().and_then(|id| id.parse().ok()) == daemon.id() && lines.get(7) == Some(&"ready")
}
