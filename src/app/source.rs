//! From the configuration's words to Vistas and write routes.

use std::sync::Arc;

use serde::Deserialize as _;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::config::{ColumnSpec, DioSpec, Source, WriteRoute};
use crate::vista::{Column, ColumnType, Error, Flag, Result, Vista, WriteOp};

/// Opens the source of a Dio.
pub(super) async fn open(spec: &DioSpec) -> Result<Vista> {
    let columns = spec.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
    let (name, id) = (spec.name.as_str(), spec.id.clone());
    match &spec.source {
        #[cfg(feature = "csv")]
        Source::Csv(path) => {
            let tabs = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tsv"));
            let delimiter = tabs.then_some(b'\t');
            let options = crate::drivers::CsvOptions { id, columns, null_values: spec.null_values.clone(), delimiter };
            crate::drivers::Csv::open(name, path, options).await
        }
        #[cfg(feature = "json")]
        Source::Json(path, pointer) => {
            let options = crate::drivers::JsonOptions { id, path: pointer.clone(), columns };
            crate::drivers::Json::open(name, path, options).await
        }
        #[cfg(feature = "sqlite")]
        Source::Sqlite(path, table) => {
            let options = crate::drivers::SqliteOptions { id, columns, read_only: false };
            crate::drivers::Sqlite::open(name, path, table, options).await
        }
        #[allow(unreachable_patterns, reason = "drivers that were left out of this program")]
        _ => {
            let _ = (name, id, columns);
            Err(Error::Config(
                "this program was built without that driver: build it with --features csv,json,sqlite".into(),
            ))
        }
    }
}

/// Opens the other end of a write route.
pub(super) async fn open_route(name: &str, route: &WriteRoute) -> Result<Vista> {
    match route {
        #[cfg(feature = "sqlite")]
        WriteRoute::Sqlite(path, table) => {
            crate::drivers::Sqlite::open(name, path, table, crate::drivers::SqliteOptions::default()).await
        }
        #[allow(unreachable_patterns, reason = "drivers that were left out of this program")]
        _ => Err(Error::Config(format!("{name}: this program was built without the sqlite driver: --features sqlite"))),
    }
}

/// Delivers one write over a route. A delivery that comes a second time, because the first one's answer was lost, is no error.
pub(super) async fn deliver(target: Arc<Vista>, op: WriteOp) -> Result<()> {
    match (target.shell().write(&op).await, &op) {
        (Ok(_), _) | (Err(Error::NotFound { .. }), WriteOp::Delete { .. }) => Ok(()),
        (Err(error @ Error::Conflict { .. }), WriteOp::Insert { id, record }) => {
            let there = target.get_value(id).await?;
            let same = there.is_some_and(|there| record.iter().all(|(column, value)| there.get(column) == Some(value)));
            if same { Ok(()) } else { Err(error) }
        }
        (Err(error), _) => Err(error),
    }
}

fn column(spec: &ColumnSpec) -> Result<Column> {
    let wrong = |error: WordError| Error::Config(format!("column {:?}: {error}", spec.name));
    let word = |word: &'static str| -> StrDeserializer<'static, WordError> { word.into_deserializer() };
    let ty = ColumnType::deserialize(word(spec.ty)).map_err(wrong)?;
    let mut column = Column::new(spec.name.as_str(), ty);
    for flag in &spec.flags {
        column = column.with(Flag::deserialize(word(flag)).map_err(wrong)?);
    }
    Ok(column)
}

/// The source in a few words.
pub(super) fn describe(source: &Source) -> String {
    match source {
        Source::Csv(path) | Source::Json(path, _) => path.display().to_string(),
        Source::Sqlite(path, table) => format!("{} {table}", path.display()),
    }
}
