//! Parquet files as read-only sources. Types come from the file's schema.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use super::rows::{Field, each_row, fields};
use crate::file::infer::{ANOTHER_ID, IdChoice, Uniqueness, choose_id, is_id, is_id_name};
use crate::file::log_inferred;
use crate::file::place::SourcePlace;
use crate::file::source::{Content, DecodedRows, MAX_ROW, SourceFile, io_error};
use crate::rows::{apply, declare};
use diorama_core::record::{Body, CborValue, Id, Record, RowWriter, Rows, id_from_value};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Inferred, Query, Result, Schema, TableShell, Vista,
};

/// Maximum size of all rows of a file in bytes. A small file can have very many equal rows.
const MAX_ROWS_SIZE: usize = 4 << 30;

/// Options for reading a Parquet file. By default the id is inferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParquetOptions {
    /// The id column, or `#` for the row number; by default a column named `id` or `<name>_id`, else the first unique column,
    /// else the row number.
    pub id: Option<String>,
    /// Columns with declared types and flags; the types of other columns are those of the file.
    pub columns: Vec<Column>,
    /// Time for which a file that may be half written must stay unchanged before it is used; by default 5 seconds.
    pub settle: Option<Duration>,
}

/// A Parquet file as a source.
#[derive(Clone, Debug)]
pub struct Parquet(Arc<Inner>);

/// State that the clones of a [`Parquet`] share.
#[derive(Debug)]
struct Inner {
    file: Arc<SourceFile>,
    schema: Arc<Schema>,
    id: IdChoice,
    inferred: Vec<Inferred>,
}

impl Parquet {
    /// Reads the schema of the file at `path`, and as much of it as is needed to choose the id.
    ///
    /// # Errors
    /// [`Error::Source`] if the file cannot be read or is not a Parquet file, [`Error::Config`] if the options do not match it.
    pub async fn open(name: &str, path: impl Into<PathBuf>, options: ParquetOptions) -> Result<Vista> {
        Parquet::open_at(name, SourcePlace::new(path), options).await
    }

    /// [`Parquet::open`] for a file at any place.
    pub(super) async fn open_at(name: &str, place: SourcePlace, options: ParquetOptions) -> Result<Vista> {
        let (vista, file) = (name.to_string(), Arc::new(SourceFile::new(place, options.settle)));
        let source = Arc::clone(&file);
        let parquet = file.study(move |content| describe(&vista, &source, content, &options)).await?;
        log_inferred(name, parquet.0.file.path(), &parquet.0.inferred);
        Ok(Vista::new(name, parquet))
    }
}

#[async_trait]
impl TableShell for Parquet {
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

    async fn list_changed(&self, fingerprint: &str) -> Result<Option<Rows>> {
        let inner = Arc::clone(&self.0);
        self.0.file.list_changed(fingerprint, move |content| inner.read(content)).await
    }

    fn withheld(&self) -> Option<String> {
        self.0.file.doubt()
    }

    fn inferred(&self) -> Vec<Inferred> {
        self.0.inferred.clone()
    }
}

/// Passes the open file to `work`.
fn with_reader<T>(
    file: &SourceFile,
    content: &mut Content,
    work: impl FnOnce(&dyn FileReader) -> Result<T>,
) -> Result<T> {
    let path = file.path();
    let opened = content.whole().map_err(|error| io_error(path, &error))?;
    // The library checks a damaged file in part by assertions.
    let done = catch_unwind(AssertUnwindSafe(|| {
        let reader = SerializedFileReader::new(opened).map_err(|error| unreadable(file, &error))?;
        work(&reader)
    }));
    done.unwrap_or_else(|_| Err(unreadable(file, &"it is damaged")))
}

/// A transient error, because the file may be replaced.
fn unreadable(file: &SourceFile, error: &dyn std::fmt::Display) -> Error {
    Error::transient(format!("cannot read {} as a Parquet file: {error}", file.path().display()))
}

/// Reads the columns and chooses the id.
fn describe(vista: &str, file: &Arc<SourceFile>, content: &mut Content, options: &ParquetOptions) -> Result<Parquet> {
    with_reader(file, content, |reader| {
        let fields = fields(reader);
        check_names(file, &fields)?;
        let column = |field: &Field<'_>| {
            Column::new(field.name, field.codec.map_or(ColumnType::Json, |codec| codec.column_type()))
        };
        let mut columns = declare(vista, fields.iter().map(column).collect(), &options.columns)?;
        let declared = options.id.as_deref();
        let chosen = match candidates(vista, declared, &columns, false) {
            named if named.is_empty() => None,
            named => {
                let columns_of = uniqueness(file, reader, &fields, &named)?;
                let is_fit = columns_of
                    .iter()
                    .any(|(name, unique)| is_named(vista, &columns, name) && unique.unfit(0).is_none());
                is_fit.then_some(columns_of)
            }
        };
        let found = match chosen {
            Some(found) => found,
            None => uniqueness(file, reader, &fields, &candidates(vista, declared, &columns, true))?,
        };
        let of = |name: &str| found.iter().find(|(own, _)| own == name);
        let unique = |name: &str| of(name).is_some_and(|(_, unique)| unique.holds());
        let unfit = |name: &str| of(name).and_then(|(_, unique)| unique.unfit(0));
        let (id, guess) = choose_id(vista, declared, &columns, unique, unfit)?;
        if let IdChoice::RowNumber(name) = &id {
            columns.insert(0, Column::new(name.as_str(), ColumnType::Integer));
        }
        let schema = Arc::new(Schema::new(id.column(), columns));
        let inferred = guess.into_iter().collect();
        Ok(Parquet(Arc::new(Inner { file: Arc::clone(file), schema, id, inferred })))
    })
}

fn is_named(vista: &str, columns: &[Column], name: &str) -> bool {
    columns.iter().any(|column| &*column.name == name && is_id(vista, column))
}

/// Columns whose values must be compared to choose the id: those with the name of an id, or `all` that can be one.
fn candidates(vista: &str, declared: Option<&str>, columns: &[Column], all: bool) -> HashSet<String> {
    let is_candidate = |column: &&Column| match all {
        _ if declared.is_some() => false,
        false => is_id_name(vista, &column.name),
        true => is_id_name(vista, &column.name) || matches!(column.ty, ColumnType::String | ColumnType::Integer),
    };
    columns.iter().filter(is_candidate).map(|column| column.name.to_string()).collect()
}

/// Compares the values of the columns `names`. Each row counts, also one without a value.
fn uniqueness(
    file: &SourceFile,
    reader: &dyn FileReader,
    fields: &[Field<'_>],
    names: &HashSet<String>,
) -> Result<Vec<(String, Uniqueness)>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let own: Vec<Field<'_>> = fields.iter().filter(|field| names.contains(field.name)).cloned().collect();
    let (mut found, mut rows) = (vec![Uniqueness::default(); own.len()], 0_u64);
    each_row(reader, &own, &mut |cells| {
        rows += 1;
        for (unique, cell) in found.iter_mut().zip(cells) {
            let id = id_from_value(&cell).filter(|id| !id.is_empty());
            unique.see(id.as_deref(), || format!("row {rows}"));
        }
        true
    })
    .map_err(|error| unreadable(file, &error))?;
    Ok(own.iter().zip(found).map(|(field, unique)| (field.name.to_string(), unique)).collect())
}

fn check_names(file: &SourceFile, fields: &[Field<'_>]) -> Result<()> {
    let mut seen = HashSet::new();
    match fields.iter().find(|field| !seen.insert(field.name)) {
        Some(field) => {
            Err(Error::permanent(format!("{} has two columns named {:?}", file.path().display(), field.name)))
        }
        None => Ok(()),
    }
}

impl Inner {
    fn read(&self, content: &mut Content) -> Result<Rows> {
        with_reader(&self.file, content, |reader| self.read_rows(reader))
    }

    fn read_rows(&self, reader: &dyn FileReader) -> Result<Rows> {
        let mut fields = fields(reader);
        check_names(&self.file, &fields)?;
        for field in &mut fields {
            let declared = self.schema.column(field.name).map(|column| column.ty);
            field.codec = field.codec.zip(declared).map(|(codec, ty)| codec.declared(ty)).or(field.codec);
        }
        let mut encoder = RowEncoder::new(self, &fields)?;
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        let (mut decoded, mut size, mut refused) = (DecodedRows::default(), 0, None);
        let mut number = 0_u64;
        let read = each_row(reader, &fields, &mut |cells| {
            number += 1;
            let (id, body) = match encoder.encode(number, &cells) {
                Ok(row) => row,
                Err(error) => {
                    rows.skip(error.to_string());
                    decoded.bad(error);
                    return true;
                }
            };
            decoded.good();
            size += body.size();
            if size > MAX_ROWS_SIZE {
                refused = Some(Error::permanent(format!("the rows of {} are larger than 4 GiB", self.path())));
            } else if !rows.push_body(&id, &body) {
                let detail = format!("has id {id:?}, which another row already has. {ANOTHER_ID}");
                refused = Some(self.error(number, &detail));
            }
            refused.is_none()
        });
        if let Some(error) = refused {
            return Err(error);
        }
        read.map_err(|error| unreadable(&self.file, &error))?;
        decoded.check()?;
        Ok(rows)
    }

    fn path(&self) -> std::path::Display<'_> {
        self.file.path().display()
    }

    fn error(&self, number: u64, detail: &str) -> Error {
        Error::permanent(format!("row {number} of {} {detail}", self.path()))
    }
}

/// Encoder of the rows of one reading.
struct RowEncoder<'a> {
    inner: &'a Inner,
    writer: RowWriter,
    /// Names of the cells in the order in which they are written, with their places; `None` is the row's number.
    cells: Vec<(&'a str, Option<usize>)>,
    /// Place of the id; `None` is the row's number.
    id: Option<usize>,
}

impl<'a> RowEncoder<'a> {
    /// Maps the columns of the file to the schema by name.
    fn new(inner: &'a Inner, fields: &[Field<'a>]) -> Result<RowEncoder<'a>> {
        let column = inner.id.column();
        let id = fields.iter().position(|field| field.name == column);
        let is_numbered = matches!(inner.id, IdChoice::RowNumber(_));
        if id.is_some() == is_numbered {
            let change = if is_numbered { "now has a" } else { "no longer has its" };
            let path = inner.path();
            return Err(Error::permanent(format!(
                "{path} {change} column {column:?}: its columns have changed; restart to serve the new ones"
            )));
        }
        let mut cells: Vec<(&str, Option<usize>)> =
            fields.iter().enumerate().map(|(at, field)| (field.name, Some(at))).collect();
        if is_numbered {
            cells.push((column, None));
        }
        let rank = |name: &str| inner.schema.layout().rank(name).unwrap_or(usize::MAX);
        cells.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
        let writer = RowWriter::new(cells.iter().map(|(name, _)| *name));
        Ok(RowEncoder { inner, writer, cells, id })
    }

    /// Returns the id and the encoded row of `cells`, which is row `number` of the file.
    fn encode(&mut self, number: u64, cells: &[CborValue]) -> Result<(Id, Body)> {
        let id = Id::from(self.id_of(number, cells)?);
        for (_, at) in &self.cells {
            match at.and_then(|at| cells.get(at)) {
                Some(CborValue::Text(text)) => self.writer.text(text),
                Some(value) => self.writer.value(value),
                None => self.writer.integer(&number.to_string()),
            }
        }
        let layout = self.inner.schema.layout();
        let body = match self.writer.finish() {
            Some(body) => body,
            None => {
                let cell =
                    |at: Option<usize>| at.and_then(|at| cells.get(at)).cloned().unwrap_or_else(|| number.into());
                let record: Record = self.cells.iter().map(|(name, at)| (name.to_string(), cell(*at))).collect();
                Body::encode(&id, &record, layout)
            }
        };
        match body.size() > MAX_ROW {
            true => Err(self.inner.error(number, "is larger than 4 MiB")),
            false => Ok((id, body)),
        }
    }

    fn id_of(&self, number: u64, cells: &[CborValue]) -> Result<String> {
        let Some(value) = self.id.and_then(|id| cells.get(id)) else { return Ok(number.to_string()) };
        let name = self.inner.id.column();
        match id_from_value(value) {
            Some(id) if !id.is_empty() => Ok(id),
            Some(_) => Err(self.inner.error(number, &format!("has no id: {name:?} is empty. {ANOTHER_ID}"))),
            None if value.is_null() => {
                Err(self.inner.error(number, &format!("has no id: {name:?} is missing. {ANOTHER_ID}")))
            }
            None => Err(self.inner.error(number, &format!("has no id: {name:?} is neither text nor an integer"))),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
