//! JSON files as read-only sources, like CSV: an array of objects, one object per line, objects by name, GeoJSON features, or an
//! object that holds such rows.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use encoding_rs::Encoding;
use indexmap::IndexMap;

use super::rows::{RowPosition, each_row, row_error};
use crate::file::infer::{ANOTHER_ID, IdChoice, Kinds, Uniqueness, choose_id};
use crate::file::log_inferred;
use crate::file::place::SourcePlace;
use crate::file::source::{Content, DecodedRows, MAX_ROW, SourceFile};
use crate::rows::{apply, declare};
use diorama_core::record::{Body, CborValue, Id, Record, Rows, id_from_value};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Inferred, Query, Result, Schema, TableShell, Vista,
};

/// Options for reading a JSON file. By default everything is inferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// The id column, or `#` for the row number; by default a column named `id` or `<name>_id`, else the first unique column,
    /// else the row number.
    pub id: Option<String>,
    /// JSON pointer (`/posts`) to the rows in a file that is one object; by default its only array of objects, or its members if
    /// all of them are objects.
    pub path: Option<String>,
    /// The encoding by its WHATWG label; by default UTF-8, UTF-16 if the first bytes show it, windows-1252 if there are bytes
    /// that are not UTF-8.
    pub encoding: Option<String>,
    /// Columns with declared types and flags; the types of other columns are inferred from all their values.
    pub columns: Vec<Column>,
    /// Time for which a file that may be half written must stay unchanged before it is used; by default 5 seconds.
    pub settle: Option<Duration>,
}

/// A JSON file as a source.
#[derive(Clone, Debug)]
pub struct Json(Arc<Inner>);

/// State that the clones of a [`Json`] share.
#[derive(Debug)]
struct Inner {
    file: Arc<SourceFile>,
    options: JsonOptions,
    schema: Arc<Schema>,
    id: IdChoice,
    /// Column for the names of the members if each member is a row.
    key: Option<String>,
    inferred: Vec<Inferred>,
}

impl Json {
    /// Reads the file at `path` once to infer its columns, their types and its id.
    ///
    /// # Errors
    /// [`Error::Source`] if the file cannot be read or holds no rows, [`Error::Config`] if the options do not match it.
    pub async fn open(name: &str, path: impl Into<PathBuf>, options: JsonOptions) -> Result<Vista> {
        Json::open_at(name, SourcePlace::new(path), options).await
    }

    /// [`Json::open`] for a file at any place.
    pub(super) async fn open_at(name: &str, place: SourcePlace, options: JsonOptions) -> Result<Vista> {
        let (vista, file) = (name.to_string(), Arc::new(SourceFile::new(place, options.settle)));
        let source = Arc::clone(&file);
        let json = file.study(move |content| infer(&vista, &source, content, &options)).await?;
        log_inferred(name, json.0.file.path(), &json.0.inferred);
        Ok(Vista::new(name, json))
    }
}

#[async_trait]
impl TableShell for Json {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.0.schema)
    }

    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.can_filter = true;
        can
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        self.list_into(query, Rows::with_layout(Arc::clone(self.0.schema.layout()))).await
    }

    async fn list_into(&self, query: &Query, rows: Rows) -> Result<Rows> {
        let (inner, empty) = (Arc::clone(&self.0), rows.fit_for(self.0.schema.layout()));
        let rows = self.0.file.list(move |content| inner.read(content, &empty)).await?;
        Ok(apply(query, &self.0.schema, rows))
    }

    async fn list_changed(&self, fingerprint: &str) -> Result<Option<Rows>> {
        self.list_changed_into(fingerprint, Rows::with_layout(Arc::clone(self.0.schema.layout()))).await
    }

    async fn list_changed_into(&self, fingerprint: &str, rows: Rows) -> Result<Option<Rows>> {
        let (inner, empty) = (Arc::clone(&self.0), rows.fit_for(self.0.schema.layout()));
        self.0.file.list_changed(fingerprint, move |content| inner.read(content, &empty)).await
    }

    fn withheld(&self) -> Option<String> {
        self.0.file.doubt()
    }

    fn inferred(&self) -> Vec<Inferred> {
        self.0.inferred.clone()
    }
}

impl JsonOptions {
    pub(super) fn encoding(&self) -> Result<Option<&'static Encoding>> {
        let label = |label: &String| {
            Encoding::for_label(label.as_bytes())
                .ok_or_else(|| Error::Config(format!("{label:?} is not a known encoding")))
        };
        self.encoding.as_ref().map(label).transpose()
    }
}

/// Infers columns, types and id of a file.
fn infer(vista: &str, file: &Arc<SourceFile>, content: &mut Content, options: &JsonOptions) -> Result<Json> {
    #[derive(Default)]
    struct FileShape {
        kinds: Kinds,
        unique: Uniqueness,
        rows: usize,
    }
    let mut inferred_columns: IndexMap<String, FileShape> = IndexMap::new();
    let (mut count, mut decoded) = (0, DecodedRows::default());
    let found = each_row(file.path(), content, options, None, &mut |position, record| {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                decoded.bad(error);
                return Ok(());
            }
        };
        decoded.good();
        count += 1;
        for (name, value) in record {
            if !inferred_columns.contains_key(&name) {
                inferred_columns.insert(name.clone(), FileShape::default());
            }
            let column = &mut inferred_columns[&name];
            column.rows += 1;
            column.kinds.see_value(&value);
            let id = id_from_value(&value).filter(|id| !id.is_empty());
            column.unique.see(id.as_deref(), || position.to_string());
        }
        Ok(())
    })?;
    decoded.check()?;
    let columns = inferred_columns
        .iter()
        .map(|(name, column)| Column::new(name.as_str(), column.kinds.column_type(ColumnType::Json)))
        .collect();
    let mut columns = declare(vista, columns, &options.columns)?;
    let unique =
        |name: &str| inferred_columns.get(name).is_some_and(|column| column.rows == count && column.unique.holds());
    let unfit =
        |name: &str| inferred_columns.get(name).and_then(|column| column.unique.unfit((count - column.rows) as u64));
    let mut inferred = found.inferred;
    let declared = options.id.as_deref().or(found.key.as_deref());
    let (id, guess) = choose_id(vista, declared, &columns, unique, unfit)?;
    inferred.extend(guess);
    if let IdChoice::RowNumber(name) = &id {
        columns.insert(0, Column::new(name.as_str(), ColumnType::Integer));
    }
    let schema = Arc::new(Schema::new(id.column(), columns));
    let (file, options, key) = (Arc::clone(file), options.clone(), found.key);
    Ok(Json(Arc::new(Inner { file, options, schema, id, key, inferred })))
}

impl Inner {
    /// Reads the file into a copy of `empty`.
    fn read(&self, content: &mut Content, empty: &Rows) -> Result<Rows> {
        let mut rows = empty.clone();
        let (mut positions, mut decoded, mut count) = (Vec::new(), DecodedRows::default(), 0);
        each_row(self.file.path(), content, &self.options, self.key.as_deref(), &mut |position, record| {
            count += 1;
            let (id, body) = match record.and_then(|record| self.encode(position, count, record)) {
                Ok(row) => row,
                Err(error) => {
                    rows.skip(error.to_string());
                    decoded.bad(error);
                    return Ok(());
                }
            };
            decoded.good();
            if !rows.push_body(&id, &body) {
                let first = rows.ids().position(|own| *own == *id).map_or(position, |at| positions[at]);
                return Err(self.error(position, &format!("has id {id:?}, which {first} already has. {ANOTHER_ID}")));
            }
            positions.push(position);
            Ok(())
        })?;
        decoded.check()?;
        Ok(rows)
    }

    /// Returns the row's id and encoded body.
    fn encode(&self, position: RowPosition, number: usize, mut record: Record) -> Result<(Id, Body)> {
        let id = Id::from(self.id_of(position, number, &mut record)?);
        let body = Body::encode(&id, &record, self.schema.layout());
        match body.size() > MAX_ROW {
            true => Err(self.error(position, "is larger than 4 MiB")),
            false => Ok((id, body)),
        }
    }

    fn id_of(&self, position: RowPosition, number: usize, record: &mut Record) -> Result<String> {
        match &self.id {
            IdChoice::RowNumber(name) if record.contains(name) => Err(self.error(
                position,
                &format!(
                    "now has a column {name:?}, which is the name of the row number: restart to serve the new columns"
                ),
            )),
            IdChoice::RowNumber(name) => {
                record.insert(name.as_str(), (number as u64).into());
                Ok(number.to_string())
            }
            IdChoice::Column(name) => match record.get(name) {
                None | Some(CborValue::Null) => {
                    Err(self.error(position, &format!("has no id: {name:?} is missing. {ANOTHER_ID}")))
                }
                Some(CborValue::Text(text)) if text.is_empty() => {
                    Err(self.error(position, &format!("has no id: {name:?} is empty. {ANOTHER_ID}")))
                }
                Some(value) => id_from_value(value).ok_or_else(|| {
                    self.error(position, &format!("has no id: {name:?} is neither text nor an integer"))
                }),
            },
        }
    }

    fn error(&self, position: RowPosition, detail: &str) -> Error {
        row_error(self.file.path(), position, detail)
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
