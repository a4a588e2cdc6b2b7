//! JSON files: an array of objects, one object per line, objects by name, features, or an object that has such rows. Read-only,
//! like CSV.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use encoding_rs::Encoding;
use indexmap::IndexMap;

use super::rows::{RowPosition, each_row, row_error};
use crate::file::infer::{ANOTHER_ID, IdChoice, Kinds, Uniqueness, choose_id};
use crate::file::say;
use crate::file::source::{Content, DecodedRows, MAX_ROW, SourceFile};
use crate::rows::{apply, declare};
use diorama_core::record::{Body, CborValue, Id, Record, Rows, id_from_value};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Inferred, Query, Result, Schema, TableShell, Vista,
};

/// How a JSON file is to be understood. The default infers everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// The column that identifies rows, or `#` for the row number; else one named `id` or `<name>_id`, else the first unique
    /// one, else the row number.
    pub id: Option<String>,
    /// JSON pointer (`/posts`) to the rows in a file that is one object; else its only array of objects, or its members if all of
    /// them are objects.
    pub path: Option<String>,
    /// The encoding, as the WHATWG calls it; else UTF-8, UTF-16 if the first bytes show it, windows-1252 if the bytes are not
    /// UTF-8.
    pub encoding: Option<String>,
    /// Columns with declared types and flags; the types of others are inferred from all their values.
    pub columns: Vec<Column>,
    /// How long a file that may be half written has to stay the same before it is believed; else 5 seconds.
    pub settle: Option<Duration>,
}

/// A JSON file as a source.
#[derive(Clone, Debug)]
pub struct Json(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<SourceFile>,
    options: JsonOptions,
    schema: Arc<Schema>,
    id: IdChoice,
    /// The column that has the names of the members that rows are.
    key: Option<String>,
    inferred: Vec<Inferred>,
}

impl Json {
    /// Reads the file at `path` through once to learn its columns, their types and its id.
    ///
    /// # Errors
    /// [`Error::Source`] if it cannot be read or holds no rows, [`Error::Config`] if the options do not fit it.
    pub async fn open(name: &str, path: impl Into<PathBuf>, options: JsonOptions) -> Result<Vista> {
        let (vista, file) = (name.to_string(), Arc::new(SourceFile::new(path.into(), options.settle)));
        let source = Arc::clone(&file);
        let json = file.study(move |content| learn(&vista, &source, content, &options)).await?;
        say(name, json.0.file.path(), &json.0.inferred);
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
        let inner = Arc::clone(&self.0);
        let rows = self.0.file.list(move |content| inner.read(content)).await?;
        Ok(apply(query, &self.0.schema, rows))
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

/// Columns, types and id of a file.
fn learn(vista: &str, file: &Arc<SourceFile>, content: &mut Content, options: &JsonOptions) -> Result<Json> {
    #[derive(Default)]
    struct FileShape {
        kinds: Kinds,
        unique: Uniqueness,
        rows: usize,
    }
    let mut learned: IndexMap<String, FileShape> = IndexMap::new();
    let (mut count, mut sorted) = (0, DecodedRows::default());
    let found = each_row(file.path(), content, options, None, &mut |place, record| {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                sorted.bad(error);
                return Ok(());
            }
        };
        sorted.good();
        count += 1;
        for (name, value) in record {
            if !learned.contains_key(&name) {
                learned.insert(name.clone(), FileShape::default());
            }
            let column = &mut learned[&name];
            column.rows += 1;
            column.kinds.see_value(&value);
            let id = id_from_value(&value).filter(|id| !id.is_empty());
            column.unique.see(id.as_deref(), || place.to_string());
        }
        Ok(())
    })?;
    sorted.check()?;
    let columns = learned
        .iter()
        .map(|(name, column)| Column::new(name.as_str(), column.kinds.column_type(ColumnType::Json)))
        .collect();
    let mut columns = declare(vista, columns, &options.columns)?;
    let unique = |name: &str| learned.get(name).is_some_and(|column| column.rows == count && column.unique.holds());
    let unfit = |name: &str| learned.get(name).and_then(|column| column.unique.unfit((count - column.rows) as u64));
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
    fn read(&self, content: &mut Content) -> Result<Rows> {
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        let (mut places, mut sorted, mut count) = (Vec::new(), DecodedRows::default(), 0);
        each_row(self.file.path(), content, &self.options, self.key.as_deref(), &mut |place, record| {
            count += 1;
            let (id, body) = match record.and_then(|record| self.encode(place, count, record)) {
                Ok(row) => row,
                Err(error) => {
                    rows.skip(error.to_string());
                    sorted.bad(error);
                    return Ok(());
                }
            };
            sorted.good();
            if !rows.push_body(Arc::clone(&id), body) {
                let first = rows.ids().position(|own| *own == *id).map_or(place, |at| places[at]);
                return Err(self.error(place, &format!("has id {id:?}, which {first} has already. {ANOTHER_ID}")));
            }
            places.push(place);
            Ok(())
        })?;
        sorted.check()?;
        Ok(rows)
    }

    /// The row's id and bytes.
    fn encode(&self, place: RowPosition, number: usize, mut record: Record) -> Result<(Id, Body)> {
        let id = Id::from(self.id_of(place, number, &mut record)?);
        let body = Body::encode(&id, &record, self.schema.layout());
        match body.size() > MAX_ROW {
            true => Err(self.error(place, "is larger than 4 MiB")),
            false => Ok((id, body)),
        }
    }

    fn id_of(&self, place: RowPosition, number: usize, record: &mut Record) -> Result<String> {
        match &self.id {
            IdChoice::RowNumber(name) if record.contains(name) => {
                Err(self.error(place, &format!("has now a column {name:?}, the name of the row numbers: open it anew")))
            }
            IdChoice::RowNumber(name) => {
                record.insert(name.as_str(), (number as u64).into());
                Ok(number.to_string())
            }
            IdChoice::Column(name) => match record.get(name) {
                None | Some(CborValue::Null) => {
                    Err(self.error(place, &format!("has no id: {name:?} is missing. {ANOTHER_ID}")))
                }
                Some(CborValue::Text(text)) if text.is_empty() => {
                    Err(self.error(place, &format!("has no id: {name:?} is empty. {ANOTHER_ID}")))
                }
                Some(value) => id_from_value(value)
                    .ok_or_else(|| self.error(place, &format!("has no id: {name:?} is neither text nor an integer"))),
            },
        }
    }

    fn error(&self, place: RowPosition, detail: &str) -> Error {
        row_error(self.file.path(), place, detail)
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
