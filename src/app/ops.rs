//! Implementation of `diorama ops`: inspection and repair of accepted writes, on a running server or in a stopped server's files.

mod audit;
mod backup;
mod client;
mod explain;
mod salvage;
mod stopped;
mod table;
mod trust;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CONFIG, Failure, OTHER};
pub use audit::{Audit, audit};
pub use backup::{Backup, backup};
use client::Client;
pub use explain::{Explain, explain};
use stopped::StoppedServer;
use trust::TrustArgs;

/// Exit code for invalid arguments.
pub const USAGE: u8 = 64;
/// Exit code for a server that is unreachable or unavailable.
const UNREACHABLE: u8 = 69;

/// Inspect and repair accepted writes: on a running server with --url, else in a stopped server's files.
#[derive(Debug, Subcommand)]
pub enum Ops {
    /// List accepted writes, newest first.
    List(List),
    /// Show writes by their ids.
    Show(OpIds),
    /// Retry parked writes, each as a new operation.
    Retry(Retry),
    /// Discard parked writes for good.
    Discard(OpIds),
    /// Print the writes in a journal that were not applied, as NDJSON, however damaged the journal is. The file is not changed.
    Salvage {
        /// The journal, like cache.journal.redb.
        journal: PathBuf,
        /// A new file to write to instead of standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        /// Print the entries of the audit log in place of the writes.
        #[arg(long)]
        audit: bool,
    },
}

/// Location of the writes.
#[derive(Args, Clone, Debug, Default)]
pub struct Location {
    /// A running server, like http://127.0.0.1:8080.
    #[arg(long, conflicts_with = "cache")]
    url: Option<String>,
    /// The server's token.
    #[arg(long, value_name = "env:NAME|file:PATH", requires = "url")]
    token: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// The stopped server's cache file; the journal is next to it.
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
}

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    location: Location,
    /// Only writes of this resource.
    #[arg(long)]
    dio: Option<String>,
    /// Only writes in these states, like parked,failed.
    #[arg(long)]
    state: Option<String>,
    /// Maximum number of writes.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The stopped server's configuration (default: ./diorama.toml if it exists, else ./cache.redb).
    #[arg(value_name = "FILE.toml")]
    file: Option<PathBuf>,
}

/// Arguments of `show` and `discard`.
#[derive(Args, Debug)]
pub struct OpIds {
    #[command(flatten)]
    location: Location,
    /// Ids, and optionally the stopped server's configuration.
    #[arg(value_name = "ID|FILE.toml", required = true)]
    words: Vec<String>,
}

/// Arguments of `retry`.
#[derive(Args, Debug)]
pub struct Retry {
    #[command(flatten)]
    location: Location,
    /// All parked writes, oldest first, instead of single ones.
    #[arg(long)]
    all: bool,
    /// With --all: only writes of this resource.
    #[arg(long, requires = "all")]
    dio: Option<String>,
    /// With --all: maximum number of writes.
    #[arg(long, requires = "all", default_value_t = 1_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    limit: usize,
    /// Ids, and optionally the stopped server's configuration.
    #[arg(value_name = "ID|FILE.toml")]
    words: Vec<String>,
}

/// Filter of a list.
#[derive(Debug, Default)]
struct ListFilter {
    dio: Option<String>,
    state: Option<String>,
    limit: usize,
}

/// Access to the writes of a server or of files. Writes are JSON as in the API.
enum WriteAccess {
    Server(Client),
    Files(Box<StoppedServer>),
}

/// Runs the command.
///
/// # Errors
/// A [`Failure`] with 1 if a write does not exist or is in another state, 64 for invalid arguments, 69 if the server cannot be
/// reached, 75 if a server has locked the files, 78 for mistakes in configuration, files or token.
pub async fn run(ops: Ops) -> Result<(), Failure> {
    match ops {
        Ops::Salvage { journal, to, audit: true } => salvage::run_audit(&journal, to.as_deref()),
        Ops::Salvage { journal, to, audit: false } => salvage::run(&journal, to.as_deref()),
        Ops::List(List { location, dio, state, limit, file }) => {
            let mut access = WriteAccess::open(&location, file.as_deref()).await?;
            let listed = access.list(&ListFilter { dio, state, limit });
            access.close().await;
            print(&if location.json { table::lines(&listed?) } else { table::table(&listed?) })
        }
        Ops::Show(OpIds { location, words }) => {
            let (ids, file) = split_arguments(&words);
            let mut access = WriteAccess::open(&location, file).await?;
            let shown: Result<Vec<Value>, Failure> = non_empty(&ids)?.iter().map(|id| access.show(id)).collect();
            access.close().await;
            print(&if location.json { table::lines(&shown?) } else { table::cards(&shown?) })
        }
        Ops::Retry(Retry { location, all, dio, limit, words }) => {
            let (ids, file) = split_arguments(&words);
            if all != ids.is_empty() {
                return Err(usage("pass the ids of the writes, or --all"));
            }
            let mut access = WriteAccess::open(&location, file).await?;
            let outcomes = match all {
                true => access.retry_all(dio.as_deref(), limit).await,
                false => access.retry(&ids).await,
            };
            access.close().await;
            report(&outcomes?, location.json)
        }
        Ops::Discard(OpIds { location, words }) => {
            let (ids, file) = split_arguments(&words);
            let mut access = WriteAccess::open(&location, file).await?;
            let outcomes = access.discard(non_empty(&ids)?).await;
            access.close().await;
            report(&outcomes?, location.json)
        }
    }
}

impl WriteAccess {
    async fn open(location: &Location, file: Option<&Path>) -> Result<WriteAccess, Failure> {
        match &location.url {
            Some(_) if file.is_some() => {
                Err(usage("use --url for a server or a configuration for its files, not both"))
            }
            Some(url) => Ok(WriteAccess::Server(Client::new(url, location.token.as_deref(), &location.trust)?)),
            None => Ok(WriteAccess::Files(Box::new(StoppedServer::open(location.cache.as_deref(), file).await?))),
        }
    }

    fn list(&mut self, filter: &ListFilter) -> Result<Vec<Value>, Failure> {
        match self {
            WriteAccess::Server(client) => client.list(filter),
            WriteAccess::Files(files) => files.list(filter),
        }
    }

    fn show(&mut self, id: &str) -> Result<Value, Failure> {
        match self {
            WriteAccess::Server(client) => client.send("GET", &format!("/operations/{id}")),
            WriteAccess::Files(files) => files.show(id),
        }
    }

    async fn retry(&mut self, ids: &[&str]) -> Result<Vec<Value>, Failure> {
        let mut outcomes = Vec::new();
        for id in ids {
            let new = match self {
                WriteAccess::Server(client) => client.send("POST", &format!("/operations/{id}/retry")),
                WriteAccess::Files(files) => files.retry(id).await,
            };
            outcomes.push(match new {
                Ok(new) => json!({ "id": id, "status": 202, "operation": new }),
                Err(failure) => refused(id, failure, outcomes.is_empty())?,
            });
        }
        Ok(outcomes)
    }

    async fn retry_all(&mut self, dio: Option<&str>, limit: usize) -> Result<Vec<Value>, Failure> {
        match self {
            WriteAccess::Server(client) => client.retry_all(dio, limit),
            WriteAccess::Files(files) => {
                let ids = files.parked(dio, limit)?;
                self.retry(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await
            }
        }
    }

    async fn discard(&mut self, ids: &[&str]) -> Result<Vec<Value>, Failure> {
        let mut outcomes = Vec::new();
        for id in ids {
            let done = match self {
                WriteAccess::Server(client) => client.send("DELETE", &format!("/operations/{id}")).map(drop),
                WriteAccess::Files(files) => files.discard(id).await,
            };
            outcomes.push(match done {
                Ok(()) => json!({ "id": id, "status": 204 }),
                Err(failure) => refused(id, failure, outcomes.is_empty())?,
            });
        }
        Ok(outcomes)
    }

    async fn close(self) {
        if let WriteAccess::Files(files) = self {
            files.close().await;
        }
    }
}

/// Returns the outcome of a refused write; a failure that concerns the first write or all of them ends the command.
fn refused(id: &str, failure: Failure, first: bool) -> Result<Value, Failure> {
    match failure.code {
        OTHER if !first => Ok(json!({ "id": id, "status": 409, "problem": { "detail": failure.message } })),
        _ => Err(failure),
    }
}

/// Prints the outcomes; returns a failure if one was refused.
fn report(outcomes: &[Value], json: bool) -> Result<(), Failure> {
    print(&if json { table::lines(outcomes) } else { table::outcomes(outcomes) })?;
    match outcomes.iter().filter(|one| !one["problem"].is_null()).count() {
        0 => Ok(()),
        some => Err(Failure { code: OTHER, message: format!("{some} of {} writes were refused", outcomes.len()) }),
    }
}

/// Separates ids from the configuration.
fn split_arguments(words: &[String]) -> (Vec<&str>, Option<&Path>) {
    let (files, ids): (Vec<&str>, Vec<&str>) =
        words.iter().map(String::as_str).partition(|word| word.ends_with(".toml"));
    (ids, files.first().copied().map(Path::new))
}

fn non_empty<'a, 'b>(ids: &'a [&'b str]) -> Result<&'a [&'b str], Failure> {
    if ids.is_empty() { Err(usage("pass the ids of the writes")) } else { Ok(ids) }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure { code: USAGE, message: message.into() }
}

fn unknown(id: &str) -> Failure {
    Failure { code: OTHER, message: format!("there is no operation {id:?}, or it ended long ago") }
}

fn config(message: impl Into<String>) -> Failure {
    Failure { code: CONFIG, message: message.into() }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Failure { code: OTHER, message: format!("stdout: {error}") })
}
