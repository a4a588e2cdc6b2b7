//! A MariaDB server.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::account::Account;
use crate::client::ask;
use crate::daemon::Daemon;
use crate::programs::{find, output, path_folders, version};
use crate::template::Template;
use crate::{PASSWORD, skip_or_fail};

/// Options of the data folder. A small log makes a small template.
const INSTALL: &[&str] =
    &["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--innodb-log-file-size=8M"];

/// Options that every server has unless a test says otherwise.
const OPTIONS: &[&str] = &[
    "bind-address=127.0.0.1",
    "binlog-format=ROW",
    "binlog-row-metadata=FULL",
    "character-set-server=utf8mb4",
    "innodb-buffer-pool-size=32M",
    "innodb-log-file-size=8M",
    "log-bin=binlog",
    "server-id=1",
    "skip-name-resolve",
];

/// A MariaDB server with data of its own and a binary log of rows. Its superuser is `root`.
///
/// Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct MariaDbServer {
    daemon: Daemon,
    programs: Programs,
    options: Vec<String>,
}

#[derive(Debug)]
struct Programs {
    install: PathBuf,
    server: PathBuf,
    client: PathBuf,
}

impl Programs {
    /// Finds the programs in `PATH`, or else in the folders of a system's own programs.
    fn find() -> Result<Programs, String> {
        let more = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from);
        let folders: Vec<PathBuf> = path_folders().into_iter().chain(more).collect();
        let [install, server, client] = ["mariadb-install-db", "mariadbd", "mariadb"].map(|name| find(name, &folders));
        Ok(Programs { install: install?, server: server?, client: client? })
    }
}

impl MariaDbServer {
    /// Starts a server and waits until it accepts connections. Returns `None` if MariaDB is not installed.
    pub fn start() -> Option<MariaDbServer> {
        MariaDbServer::start_with(&[])
    }

    /// Starts a server with more options, each written `name=value`.
    pub fn start_with(options: &[&str]) -> Option<MariaDbServer> {
        let programs = Programs::find().map_err(|missing| skip_or_fail("MariaDB", &missing)).ok()?;
        let daemon = Daemon::new("mariadb", Account::of_server("mysql"));
        let options = OPTIONS.iter().chain(options).map(|option| format!("--{option}")).collect();
        let mut server = MariaDbServer { daemon, programs, options };
        let account = server.daemon.account;
        let template = Template::new("mariadb", &version(&server.programs.server), INSTALL, account);
        template.copy(&server.daemon.file("data"), |data| server.install(data));
        server.prepare();
        server.launch(true);
        Some(server)
    }

    /// Makes a data folder in `data`.
    fn install(&self, data: &Path) {
        let mut command = Command::new(&self.programs.install);
        command.args(INSTALL).arg(format!("--datadir={}", data.display())).current_dir("/");
        self.daemon.account.run(&mut command);
        output(&mut command);
    }

    /// Makes the folder for temporary files, and the statements that every start of the server begins with.
    fn prepare(&self) {
        let (account, temporary) = (self.daemon.account, self.daemon.file("tmp"));
        let superuser = format!(
            "SET sql_log_bin=0;\n\
             CREATE USER IF NOT EXISTS root@127.0.0.1;\n\
             ALTER USER root@127.0.0.1 IDENTIFIED BY '{PASSWORD}';\n\
             GRANT ALL ON *.* TO root@127.0.0.1 WITH GRANT OPTION;\n"
        );
        let made = fs::create_dir(&temporary).and_then(|()| account.own(&temporary));
        let made = made.and_then(|()| fs::write(self.daemon.file("init.sql"), superuser));
        made.unwrap_or_else(|error| panic!("{}: {error}", self.folder().display()));
    }

    fn launch(&mut self, may_move: bool) {
        let (program, options) = (&self.programs.server, &self.options);
        let command = |daemon: &Daemon| {
            let mut command = Command::new(program);
            command.arg("--no-defaults");
            let files = [
                ("datadir", "data"),
                ("tmpdir", "tmp"),
                ("socket", "socket"),
                ("pid-file", "pid"),
                ("init-file", "init.sql"),
            ];
            for (option, name) in files {
                command.arg(format!("--{option}={}", daemon.file(name).display()));
            }
            command.arg(format!("--port={}", daemon.port)).args(options);
            command
        };
        self.daemon.launch(may_move, command, is_ready);
    }

    /// Address of the database `database` for the superuser.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root:{PASSWORD}@127.0.0.1:{}/{database}", self.port())
    }

    /// Port at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.daemon.port
    }

    /// Folder of the server: its files are in `data`, messages are in `log`.
    pub fn folder(&self) -> &Path {
        self.daemon.folder()
    }

    /// Runs `sql` with the client `mariadb`, and returns the rows without a header, with tabs between columns. `USE NAME` selects
    /// a database. Panics with the error message if a statement fails.
    pub fn sql(&self, sql: &str) -> String {
        let mut command = Command::new(&self.programs.client);
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.args(["--protocol=tcp", "--host=127.0.0.1", "--user=root", &format!("--port={}", self.port())]);
        ask(command.env("MYSQL_PWD", PASSWORD), sql)
    }

    /// Kills the server, as a crash does.
    pub fn kill(&mut self) {
        self.daemon.kill();
    }

    /// Shuts the server down.
    pub fn stop(&mut self) {
        self.daemon.stop(Signal::TERM);
    }

    /// Starts the server again with its data, its options and its port; stops it first if it runs.
    pub fn restart(&mut self) {
        self.stop();
        self.launch(false);
    }
}

/// True once the server has written its process id and greets a connection.
fn is_ready(daemon: &Daemon) -> bool {
    let id = fs::read_to_string(daemon.file("pid")).ok().and_then(|text| text.trim().parse().ok());
    id.is_some() && id == daemon.id() && greets(daemon.port)
}

/// True if the first packet at `port` is a greeting: its payload begins with the version 10 of the protocol.
fn greets(port: u16) -> bool {
    let greeting = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|mut stream| {
        let mut start = [0; 5];
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.read_exact(&mut start)?;
        Ok(start[4])
    });
    greeting.is_ok_and(|version| version == 10)
}
