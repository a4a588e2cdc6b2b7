//! `diorama ops`: following and mending accepted writes, on a running server or in a stopped one's files.

mod backup;
mod client;
mod explain;
mod salvage;
mod stopped;
mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{CONFIG, Failure, OTHER};
pub use backup::{Backup, backup};
use client::Client;
pub use explain::{Explain, explain};
use stopped::StoppedServer;

/// Arguments that cannot be understood.
pub const USAGE: u8 = 64;
/// The server cannot be reached, or cannot do it now.
const UNREACHABLE: u8 = 69;

/// Follow and mend accepted writes: on a running server with --url, else in a stopped server's files.
#[derive(Debug, Subcommand)]
pub enum Ops {
    /// List accepted writes, newest first.
    List(List),
    /// Show writes by their ids.
    Show(OpIds),
    /// Give parked writes another try, each as a new operation.
    Retry(Retry),
    /// Give parked writes up for good.
    Discard(OpIds),
    /// Print as NDJSON what a journal holds of writes that were not applied, however damaged it is. The file is not changed.
    Salvage {
        /// The journal, like cache.journal.redb.
        journal: PathBuf,
        /// A new file to write to, instead of the standard output.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// Where the writes are.
#[derive(Args, Clone, Debug, Default)]
pub struct Location {
    /// A running server, like http://127.0.0.1:8080 (TLS is not spoken).
    #[arg(long, conflicts_with = "cache")]
    url: Option<String>,
    /// The server's token.
    #[arg(long, value_name = "env:NAME|file:PATH", requires = "url")]
    token: Option<String>,
    /// The stopped server's cache file; its journal is beside it.
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// Print JSON, one object per line.
    #[arg(long)]
    json: bool,
}

/// What is listed.
#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    place: Location,
    /// Only of this resource.
    #[arg(long)]
    dio: Option<String>,
    /// Only in these states, like parked,failed.
    #[arg(long)]
    state: Option<String>,
    /// Writes, at most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// The stopped server's configuration (default: ./diorama.toml if there, else ./cache.redb).
    #[arg(value_name = "FILE.toml")]
    file: Option<PathBuf>,
}

/// Writes by their ids.
#[derive(Args, Debug)]
pub struct OpIds {
    #[command(flatten)]
    place: Location,
    /// Ids, and perhaps the stopped server's configuration.
    #[arg(value_name = "ID|FILE.toml", required = true)]
    words: Vec<String>,
}

/// What is tried again.
#[derive(Args, Debug)]
pub struct Retry {
    #[command(flatten)]
    place: Location,
    /// All that are parked, oldest first, instead of single ones.
    #[arg(long)]
    all: bool,
    /// With --all: only of this resource.
    #[arg(long, requires = "all")]
    dio: Option<String>,
    /// With --all: so many, at most.
    #[arg(long, requires = "all", default_value_t = 1_000, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    limit: usize,
    /// Ids, and perhaps the stopped server's configuration.
    #[arg(value_name = "ID|FILE.toml")]
    words: Vec<String>,
}

/// What a list is narrowed by.
#[derive(Debug, Default)]
struct ListFilter {
    dio: Option<String>,
    state: Option<String>,
    limit: usize,
}

/// Whoever has the writes. Writes are JSON as the API sends them.
enum Keeper {
    Server(Client),
    Files(Box<StoppedServer>),
}

/// Does it.
///
/// # Errors
/// A [`Failure`] with 1 if there is no such write or it stands otherwise, 64 for arguments that cannot be understood, 69 if the
/// server cannot be reached, 75 if a server has the files, 78 for what is wrong with configuration, files or token.
pub async fn run(ops: Ops) -> Result<(), Failure> {
    match ops {
        Ops::Salvage { journal, to } => salvage::run(&journal, to.as_deref()),
        Ops::List(List { place, dio, state, limit, file }) => {
            let mut keeper = Keeper::open(&place, file.as_deref()).await?;
            let listed = keeper.list(&ListFilter { dio, state, limit });
            keeper.close().await;
            print(&if place.json { table::lines(&listed?) } else { table::table(&listed?) })
        }
        Ops::Show(OpIds { place, words }) => {
            let (ids, file) = sorted(&words);
            let mut keeper = Keeper::open(&place, file).await?;
            let shown: Result<Vec<Value>, Failure> = named(&ids)?.iter().map(|id| keeper.show(id)).collect();
            keeper.close().await;
            print(&if place.json { table::lines(&shown?) } else { table::cards(&shown?) })
        }
        Ops::Retry(Retry { place, all, dio, limit, words }) => {
            let (ids, file) = sorted(&words);
            if all != ids.is_empty() {
                return Err(usage("name the writes by their ids, or write --all"));
            }
            let mut keeper = Keeper::open(&place, file).await?;
            let told = match all {
                true => keeper.retry_all(dio.as_deref(), limit).await,
                false => keeper.retry(&ids).await,
            };
            keeper.close().await;
            report(&told?, place.json)
        }
        Ops::Discard(OpIds { place, words }) => {
            let (ids, file) = sorted(&words);
            let mut keeper = Keeper::open(&place, file).await?;
            let told = keeper.discard(named(&ids)?).await;
            keeper.close().await;
            report(&told?, place.json)
        }
    }
}

impl Keeper {
    async fn open(place: &Location, file: Option<&Path>) -> Result<Keeper, Failure> {
        match &place.url {
            Some(_) if file.is_some() => Err(usage("a server is asked with --url, or files are opened: not both")),
            Some(url) => Ok(Keeper::Server(Client::new(url, place.token.as_deref())?)),
            None => Ok(Keeper::Files(Box::new(StoppedServer::open(place.cache.as_deref(), file).await?))),
        }
    }

    fn list(&mut self, narrowed: &ListFilter) -> Result<Vec<Value>, Failure> {
        match self {
            Keeper::Server(client) => client.list(narrowed),
            Keeper::Files(files) => files.list(narrowed),
        }
    }

    fn show(&mut self, id: &str) -> Result<Value, Failure> {
        match self {
            Keeper::Server(client) => client.send("GET", &format!("/operations/{id}")),
            Keeper::Files(files) => files.show(id),
        }
    }

    async fn retry(&mut self, ids: &[&str]) -> Result<Vec<Value>, Failure> {
        let mut told = Vec::new();
        for id in ids {
            let new = match self {
                Keeper::Server(client) => client.send("POST", &format!("/operations/{id}/retry")),
                Keeper::Files(files) => files.retry(id).await,
            };
            told.push(match new {
                Ok(new) => json!({ "id": id, "status": 202, "operation": new }),
                Err(failure) => refused(id, failure, told.is_empty())?,
            });
        }
        Ok(told)
    }

    async fn retry_all(&mut self, dio: Option<&str>, limit: usize) -> Result<Vec<Value>, Failure> {
        match self {
            Keeper::Server(client) => client.retry_all(dio, limit),
            Keeper::Files(files) => {
                let ids = files.parked(dio, limit)?;
                self.retry(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await
            }
        }
    }

    async fn discard(&mut self, ids: &[&str]) -> Result<Vec<Value>, Failure> {
        let mut told = Vec::new();
        for id in ids {
            let done = match self {
                Keeper::Server(client) => client.send("DELETE", &format!("/operations/{id}")).map(drop),
                Keeper::Files(files) => files.discard(id).await,
            };
            told.push(match done {
                Ok(()) => json!({ "id": id, "status": 204 }),
                Err(failure) => refused(id, failure, told.is_empty())?,
            });
        }
        Ok(told)
    }

    async fn close(self) {
        if let Keeper::Files(files) = self {
            files.close().await;
        }
    }
}

/// One refusal among what else is told; what stands against the first, or against all, ends it.
fn refused(id: &str, failure: Failure, first: bool) -> Result<Value, Failure> {
    match failure.code {
        OTHER if !first => Ok(json!({ "id": id, "status": 409, "problem": { "detail": failure.message } })),
        _ => Err(failure),
    }
}

/// Tells what became of each; a failure if one was refused.
fn report(told: &[Value], json: bool) -> Result<(), Failure> {
    print(&if json { table::lines(told) } else { table::outcomes(told) })?;
    match told.iter().filter(|one| !one["problem"].is_null()).count() {
        0 => Ok(()),
        some => Err(Failure { code: OTHER, message: format!("{some} of {} were refused", told.len()) }),
    }
}

/// Ids, and the configuration among them.
fn sorted(words: &[String]) -> (Vec<&str>, Option<&Path>) {
    let (files, ids): (Vec<&str>, Vec<&str>) =
        words.iter().map(String::as_str).partition(|word| word.ends_with(".toml"));
    (ids, files.first().copied().map(Path::new))
}

fn named<'a, 'b>(ids: &'a [&'b str]) -> Result<&'a [&'b str], Failure> {
    if ids.is_empty() { Err(usage("name the writes by their ids")) } else { Ok(ids) }
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

fn print(text: &str) -> Result<(), Failure> {
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|error| Failure { code: OTHER, message: format!("stdout: {error}") })
}
