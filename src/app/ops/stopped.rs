//! Operations in a stopped server's files.
//!
//! Reading needs only the journal. A repair is committed by a Dio on journal and cache, like every change, without contacting its
//! master. The server delivers it at its next start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::{ListFilter, config, unknown, usage};
use crate::app::{self, Failure, LOCKED, OTHER};
use crate::config::{CacheAt, Config, LensSpec};
use diorama_core::cache::{RedbCache, RowStore as _, StoredRow};
use diorama_core::dio::{self, Dio, Operation, OperationState};
use diorama_core::journal::{Journal, RedbJournal};
use diorama_core::lens::Lens;
use diorama_core::record::{CborValue, Layout, Rows};
use diorama_core::state::{Op, OpId, State};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Query, Result as VistaResult, Schema, TableShell, Vista,
};
use diorama_gateway::operation_json;

/// A stopped server's files, locked by this process.
pub(super) struct StoppedServer {
    journal: Arc<RedbJournal>,
    cache: Option<PathBuf>,
    /// Name of the server with the rows, if they are not in a file.
    server: Option<String>,
    logs: Vec<(Arc<str>, State)>,
    /// The Dio of the last repaired operation.
    repair: Option<(Lens, Dio)>,
}

impl StoppedServer {
    pub(super) async fn open(cache: Option<&Path>, file: Option<&Path>) -> Result<StoppedServer, Failure> {
        let (journal, lens) = open_journal(cache, file)?;
        let mut logs = Vec::new();
        for log in journal.logs().await? {
            let state = dio::at_rest(&journal, &log).await.map_err(Failure::config)?;
            logs.push((log, state));
        }
        let (cache, server) = match lens.cache {
            CacheAt::File(path) => (Some(path), None),
            CacheAt::Server(server) => (None, Some(server.store.name)),
            CacheAt::Memory => (None, None),
        };
        Ok(StoppedServer { journal: Arc::new(journal), cache, server, logs, repair: None })
    }

    pub(super) fn list(&self, filter: &ListFilter) -> Result<Vec<Value>, Failure> {
        let states = filter.state.iter().flat_map(|states| states.split(',')).map(|word| {
            let known = OperationState::ALL.iter().find(|state| state.as_str() == word.trim()).copied();
            known.ok_or_else(|| {
                let states: Vec<&str> = OperationState::ALL.iter().map(|state| state.as_str()).collect();
                usage(format!("state {word:?} does not exist: the states are {}", states.join(", ")))
            })
        });
        let states = states.collect::<Result<Vec<_>, _>>()?;
        if let Some(dio) = &filter.dio
            && !self.logs.iter().any(|(log, _)| **log == **dio)
        {
            return Err(Failure { code: OTHER, message: format!("the journal has no resource {dio:?}") });
        }
        let logs = self.logs.iter().filter(|(log, _)| filter.dio.as_deref().is_none_or(|dio| **log == *dio));
        let mut all: Vec<Operation> =
            logs.flat_map(|(log, state)| state.ops().map(|op| Operation::at_rest(Arc::clone(log), op))).collect();
        all.retain(|operation| states.is_empty() || states.contains(&operation.state));
        all.sort_by_key(|operation| std::cmp::Reverse(operation.id));
        Ok(all.iter().take(filter.limit).map(|operation| operation_json(operation, "")).collect())
    }

    pub(super) fn show(&self, id: &str) -> Result<Value, Failure> {
        let (log, op) = self.find(id)?;
        Ok(operation_json(&Operation::at_rest(Arc::clone(log), op), ""))
    }

    /// Returns the ids of the parked writes, oldest first.
    pub(super) fn parked(&self, dio: Option<&str>, limit: usize) -> Result<Vec<String>, Failure> {
        let parked = ListFilter { dio: dio.map(str::to_string), state: Some("parked".into()), limit: usize::MAX };
        let parked = self.list(&parked)?;
        Ok(parked.iter().rev().take(limit).filter_map(|one| one["id"].as_str().map(str::to_string)).collect())
    }

    pub(super) async fn retry(&mut self, id: &str) -> Result<Value, Failure> {
        let (dio, op) = self.open_for_repair(id).await?;
        let new = dio.retry(op).await.map_err(|error| refused(op, error))?;
        let operation = dio.operation(new).ok_or_else(|| unknown(id))?;
        Ok(operation_json(&operation, ""))
    }

    pub(super) async fn discard(&mut self, id: &str) -> Result<(), Failure> {
        let (dio, op) = self.open_for_repair(id).await?;
        dio.discard(op).await.map_err(|error| refused(op, error))
    }

    pub(super) async fn close(mut self) {
        self.end_repair().await;
        self.journal.close().await;
    }

    fn find(&self, id: &str) -> Result<(&Arc<str>, &Op), Failure> {
        let op: OpId = id.parse().map_err(|_| unknown(id))?;
        let found = self.logs.iter().find_map(|(log, state)| Some((log, state.op(op)?)));
        found.ok_or_else(|| unknown(id))
    }

    /// Opens the Dio of an operation as the server would.
    async fn open_for_repair(&mut self, id: &str) -> Result<(Dio, OpId), Failure> {
        let (log, op) = self.find(id)?;
        let (log, op) = (Arc::clone(log), op.id);
        if let Some((_, dio)) = self.repair.as_ref().filter(|(_, dio)| *dio.name() == *log) {
            return Ok((dio.clone(), op));
        }
        self.end_repair().await;
        if let Some(server) = &self.server {
            return Err(config(format!(
                "{log}: its rows are in the cache at {server}, which this command does not read: start the server and use --url"
            )));
        }
        let path = self.cache.as_ref().filter(|path| path.exists());
        let missing = || config(format!("{log}: there is no cache file with its rows: start the server and use --url"));
        let cache = RedbCache::open(path.ok_or_else(missing)?)?;
        let schema = schema(&cache, &log).await?.ok_or_else(missing)?;
        let journal: Arc<dyn Journal> = Arc::<RedbJournal>::clone(&self.journal);
        let builder = Lens::new().cache_file(cache).journal_source(journal);
        let lens = builder.settings(|settings| settings.offline = true).build().map_err(Failure::config)?;
        let dio = lens.make_dio(Vista::new(log, IdleMaster(Arc::new(schema)))).await.map_err(Failure::config)?;
        self.repair = Some((lens, dio.clone()));
        Ok((dio, op))
    }

    async fn end_repair(&mut self) {
        if let Some((_lens, dio)) = self.repair.take() {
            dio.close().await;
        }
    }
}

/// Opens the journal of a stopped server, and returns the storage of its configuration.
pub(super) fn open_journal(cache: Option<&Path>, file: Option<&Path>) -> Result<(RedbJournal, LensSpec), Failure> {
    let configuration = Path::new("diorama.toml");
    let read = match (cache, file) {
        (Some(_), Some(_)) => return Err(usage("pass the configuration or --cache, not both")),
        (Some(cache), None) => of_cache(cache),
        (None, Some(file)) => app::read(file)?,
        (None, None) if configuration.exists() => app::read(configuration)?,
        (None, None) => Config::default(),
    };
    let path = app::journal_path(&read.lens).ok_or_else(|| {
        config(
            "with this configuration, writes are in memory and are lost with the server: use --url for a running server",
        )
    })?;
    if !path.exists() {
        let hint = "pass the configuration, --cache FILE, or a server with --url";
        return Err(config(format!("there is no journal {}: {hint}", path.display())));
    }
    let journal = RedbJournal::open(&path).map_err(|error| locked(error.into(), &read))?;
    Ok((journal, read.lens))
}

/// Returns the configuration of a server that was started with `--cache`.
fn of_cache(cache: &Path) -> Config {
    Config { lens: LensSpec { cache: CacheAt::File(cache.into()), ..LensSpec::default() }, ..Config::default() }
}

/// Adds the server's URL to the failure of locked files.
fn locked(failure: Failure, read: &Config) -> Failure {
    if failure.code != LOCKED {
        return failure;
    }
    let url = format!("{}://{}{}", app::scheme(read), read.server.listen, app::base_path(read));
    Failure { message: format!("{}: use its server instead, like --url {url}", failure.message), ..failure }
}

/// Converts the error of a repair, which concerns the operation's state or the row.
fn refused(op: OpId, error: Error) -> Failure {
    let own = op.to_string();
    let message = match error {
        Error::Conflict { id, detail } if id == own => format!("operation {id} {detail}"),
        Error::NotFound { id } if id == own => return unknown(&id),
        error => error.to_string(),
    };
    Failure { code: OTHER, message }
}

/// Infers the schema of a Dio from its cache table: the id column, and the columns of one row in their order.
async fn schema(cache: &RedbCache, log: &str) -> Result<Option<Schema>, Failure> {
    let mut first: Option<StoredRow> = None;
    let mut sink = |rows: Vec<StoredRow>| {
        first = first.take().or_else(|| rows.into_iter().next());
    };
    let layout = Layout::new("", false, [""; 0]);
    let loaded = cache.open_table(log).await?.load(&layout, &mut sink).await?;
    let Some(id) = loaded.meta.map(|meta| meta.shape).filter(|shape| !shape.is_empty()) else { return Ok(None) };
    let row = first.and_then(|row| row.body.decode().ok()).unwrap_or_default();
    let column = |(name, value): (&String, &CborValue)| {
        let integer = **name == *id && matches!(value, CborValue::Integer(_));
        Column::new(name.as_str(), if integer { ColumnType::Integer } else { ColumnType::Json })
    };
    Ok(Some(Schema::new(&id, row.iter().map(column).collect())))
}

/// A master that is never contacted.
struct IdleMaster(Arc<Schema>);

#[async_trait]
impl TableShell for IdleMaster {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.0)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    async fn list(&self, _: &Query) -> VistaResult<Rows> {
        Err(Error::transient("the server is stopped"))
    }
}
