//! Builds Vistas and write routes from the configuration.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde::Deserialize as _;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::config::{ColumnSpec, Config, DioSpec, check_name, resource_name, stem};
use diorama_connect::{Deferred, SourceRequest};
use diorama_core::dio::{OnUnknown, Settings, WriteOrder};
use diorama_core::lens::Lens;
use diorama_core::record::Record;
use diorama_core::state::OpId;
use diorama_core::vista::query::Path;
use diorama_core::vista::{Column, ColumnType, Error, Flag, Result, Schema, UnknownColumns, Vista, WriteOp};

/// Makes each array of a JSON file like json-server's `db.json`, and each sheet of a spreadsheet, a separate resource, and reports it. This applies to files passed
/// without a configuration.
pub(super) fn spread(dios: Vec<DioSpec>) -> Vec<DioSpec> {
    let mut taken: HashSet<String> = dios.iter().map(|spec| spec.name.clone()).collect();
    let mut spread = Vec::new();
    for spec in dios {
        let parts = spec.source.parts();
        let Some(path) = spec.source.as_file().filter(|_| !parts.is_empty()).map(PathBuf::from) else {
            spread.push(spec);
            continue;
        };
        let renamed = spec.name != resource_name(&stem(&path));
        let own = parts.into_iter().map(|(array, source)| {
            let fit = resource_name(&array);
            let is_free = !renamed && check_name(&fit).is_ok() && !taken.contains(&fit);
            let name = if is_free { fit } else { format!("{}_{fit}", spec.name) };
            taken.insert(name.clone());
            DioSpec { name, source, ..spec.clone() }
        });
        let own: Vec<DioSpec> = own.collect();
        let served = own.iter().map(|spec| format!("/{}", spec.name)).collect::<Vec<_>>().join(", ");
        super::say(format_args!("{} has several lists, each of which is a resource: {served}", path.display()));
        spread.extend(own);
    }
    spread
}

/// Opens the source of a Dio. If it is unavailable and `lens` has a whole copy of it, it is opened later.
pub(super) async fn open_or_remember(spec: &DioSpec, lens: &Lens) -> Result<Vista> {
    let error = match open(spec).await {
        Err(error @ Error::Source { .. }) => error,
        opened => return opened,
    };
    let Some(shape) = lens.remembered(&spec.name).await? else { return Err(error) };
    tracing::warn!(dio = %spec.name, %error, "the source cannot be opened; serving the copy of its rows");
    let again = spec.clone();
    Ok(Deferred::vista(&spec.name, shape, move || {
        let spec = again.clone();
        async move { open(&spec).await }.boxed()
    }))
}

/// Checks that the version column exists.
pub(super) fn check_version(spec: &DioSpec, schema: &Schema) -> Result<()> {
    match &spec.version {
        Some(version) => Path::checked(version, schema)
            .map(drop)
            .map_err(|wrong| Error::Config(format!("version = {version:?}: {wrong}"))),
        None => Ok(()),
    }
}

/// Opens the source of a Dio.
pub(super) async fn open(spec: &DioSpec) -> Result<Vista> {
    let columns = spec.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
    if let Some(missing) = spec.source.missing() {
        return Err(Error::transient(missing));
    }
    let request =
        SourceRequest { name: spec.name.clone(), id: spec.id.clone(), columns, null_values: spec.null_values.clone() };
    spec.source.open(request).await
}

/// Delivers one write over a route. A change is delivered as the whole row if the target takes no other, or does not have the row,
/// because it is in the source only; `whole` returns the row after the write.
pub(super) async fn deliver(
    target: Arc<Vista>,
    operation: Option<OpId>,
    op: WriteOp,
    whole: impl Fn() -> Option<Record>,
) -> Result<()> {
    let op = match op {
        WriteOp::Patch { id, .. } if target.shell().takes_whole_rows() => {
            let record = whole().ok_or_else(|| Error::NotFound { id: id.clone() })?;
            WriteOp::Replace { id, record }
        }
        op => op,
    };
    match (write(&target, operation, &op).await, op) {
        // The source has the row, and the route has nothing to delete.
        (Err(Error::NotFound { .. }), WriteOp::Delete { .. }) => Ok(()),
        (Err(Error::NotFound { id }), WriteOp::Patch { .. }) => {
            let record = whole().ok_or_else(|| Error::NotFound { id: id.clone() })?;
            write(&target, operation, &WriteOp::Replace { id, record }).await
        }
        (written, _) => written,
    }
}

async fn write(target: &Vista, operation: Option<OpId>, op: &WriteOp) -> Result<()> {
    let shell = target.shell();
    match operation {
        Some(operation) => shell.write_once(&operation.to_string(), op).await.map(drop),
        None => shell.write(op).await.map(drop),
    }
}

/// Applies the configuration of one Dio and of all Dios to `settings`.
pub(super) fn settings(spec: &DioSpec, config: &Config, settings: &mut Settings) {
    settings.refresh_every = spec.refresh_every.or(config.lens.refresh_every);
    settings.version = spec.version.as_deref().map(Into::into);
    settings.allow_shrink = spec.allow_shrink;
    settings.drain_timeout = config.server.drain_timeout;
    settings.log_in_memory = spec.log_in_memory;
    settings.routed_ttl = spec.routed_ttl;
    let or = |own: Option<Duration>, default: &mut Duration| *default = own.unwrap_or(*default);
    or(spec.max_age, &mut settings.retry.max_age);
    or(spec.attempt_timeout, &mut settings.retry.attempt_timeout);
    or(spec.refresh_timeout, &mut settings.refresh_timeout);
    or(spec.read_timeout, &mut settings.read_timeout);
    settings.reread_rate = spec.reread_rate.unwrap_or(settings.reread_rate);
    settings.indexes.clone_from(&spec.indexes);
    settings.max_indexes = spec.max_indexes.unwrap_or(settings.max_indexes);
    settings.index_memory = spec.index_memory.unwrap_or(settings.index_memory);
    settings.column_memory = spec.column_memory.unwrap_or(settings.column_memory);
    let lanes = spec.write.as_ref().filter(|_| spec.order_by_row != Some(false)).map(|route| route.concurrency());
    settings.write_concurrency = spec.write_concurrency.or(lanes).unwrap_or(settings.write_concurrency);
    settings.unknown_columns = unknown_columns(spec);
    settings.write_order = if spec.order_by_row == Some(true) { WriteOrder::Row } else { WriteOrder::Queue };
    or(spec.head_patience, &mut settings.head_patience);
    settings.on_unknown = if spec.park_unknown { OnUnknown::Park } else { OnUnknown::Retry };
}

/// Returns the policy for columns that are not declared. A table refuses columns that it does not have, so they are refused at
/// once instead of after a 202.
pub(super) fn unknown_columns(spec: &DioSpec) -> UnknownColumns {
    let typed = spec.source.has_fixed_columns();
    let keep = spec.unknown_columns.unwrap_or(spec.columns.is_empty() && !typed);
    if keep { UnknownColumns::Keep } else { UnknownColumns::Refuse }
}

fn column(spec: &ColumnSpec) -> Result<Column> {
    let wrong = |error: WordError| Error::Config(format!("column {:?}: {error}", spec.name));
    let word = |word: &'static str| -> StrDeserializer<'static, WordError> { word.into_deserializer() };
    let ty = ColumnType::deserialize(word(spec.ty)).map_err(wrong)?;
    let mut column = Column::new(spec.name.as_str(), ty);
    column.timezone = spec.timezone.as_deref().map(Into::into);
    for flag in &spec.flags {
        column = column.with(Flag::deserialize(word(flag)).map_err(wrong)?);
    }
    Ok(column)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn delivery_settings_of_the_file_reach_the_dio() {
        let read = |keys: &str| {
            let text = format!("[dio.a]\nsource = {{ csv = \"a.csv\" }}\n{keys}\n");
            let config = Config::parse(&text, Path::new("diorama.toml"), &|_| None).unwrap();
            let mut read = Settings::default();
            settings(&config.dios[0], &config, &mut read);
            read
        };
        let default = Settings::default();
        let defaults = read("");
        assert_eq!((defaults.retry.max_age, defaults.on_unknown), (default.retry.max_age, OnUnknown::Retry));
        assert_eq!(
            (defaults.refresh_timeout, defaults.read_timeout),
            (Duration::from_secs(300), Duration::from_secs(30))
        );
        assert_eq!((defaults.write_order, defaults.head_patience), (WriteOrder::Queue, Duration::from_secs(60)));
        let configured = read(
            "write_order = \"row\"\nhead_patience = \"5m\"\nmax_age = \"1h\"\non_unknown = \"park\"\nattempt_timeout = \"3s\"\nwrite_concurrency = 4\n\
             refresh_timeout = \"1m\"\nread_timeout = \"5s\"\nwrite = { sqlite = \"shop.db\", table = \"a\" }",
        );
        assert_eq!((configured.write_order, configured.head_patience), (WriteOrder::Row, Duration::from_secs(300)));
        assert_eq!(configured.retry.max_age, Duration::from_secs(3_600));
        assert_eq!(configured.retry.attempt_timeout, Duration::from_secs(3));
        assert_eq!((configured.on_unknown, configured.write_concurrency), (OnUnknown::Park, 4));
        assert_eq!(
            (configured.refresh_timeout, configured.read_timeout),
            (Duration::from_secs(60), Duration::from_secs(5))
        );
    }
    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_write_repeated_over_a_route_has_no_second_effect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.db");
        let database = rusqlite::Connection::open(path).unwrap();
        let sql = "CREATE TABLE a (id TEXT PRIMARY KEY, n INTEGER); INSERT INTO a VALUES ('1', 1);
            CREATE TABLE history (n); CREATE TRIGGER t AFTER UPDATE ON a BEGIN INSERT INTO history VALUES (new.n); END;";
        database.execute_batch(sql).unwrap();
        let text = "[dio.a]\nsource = { csv = \"a.csv\" }\nwrite = { sqlite = \"shop.db\", table = \"a\" }";
        let config = Config::parse(text, &dir.path().join("diorama.toml"), &|_| None).unwrap();
        let schema = Arc::new(Schema::new("id", Vec::new()));
        let target = config.dios[0].write.as_ref().unwrap().open("a", &schema).await.unwrap();
        let tables = "SELECT count(*) FROM sqlite_master WHERE name = '_diorama_ops'";
        let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count(tables), 0, "the table is not created before it is needed");
        let (target, operation) = (Arc::new(target), OpId::new());
        let record = diorama_core::record::Record::from_iter([("n".to_string(), 2.into())]);
        for _ in 0..3 {
            let op = WriteOp::Patch { id: "1".into(), record: record.clone() };
            deliver(Arc::clone(&target), Some(operation), op, || None).await.unwrap();
        }
        assert_eq!((count(tables), count("SELECT count(*) FROM history")), (1, 1));
    }
}
