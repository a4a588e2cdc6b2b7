//! Spreadsheets as read-only sources: one sheet each.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;

use super::book::{Book, Cell, SheetRow, cell_name, with_book};
use super::header::{Header, HeaderFinder};
use crate::file::infer::{ANOTHER_ID, Cell as TypedCell, IdChoice, Kinds, Uniqueness, cell, choose_id, is_id_name};
use crate::file::log_inferred;
use crate::file::number::Notation;
use crate::file::place::SourcePlace;
use crate::file::source::{Content, DecodedRows, MAX_ROW, SourceFile, open_regular};
use crate::rows::{apply, declare};
use diorama_core::record::{Body, CborValue, Id, Record, Rows, id_from_value};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Inferred, LogLimit, Query, Result, Schema, TableShell, Vista,
};

/// Rate limiter for log lines about a file, which may be read at any rate.
static LINES: LazyLock<LogLimit<PathBuf>> = LazyLock::new(LogLimit::default);

/// Options for reading a spreadsheet. By default everything is inferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpreadsheetOptions {
    /// The id column, or `#` for the row number; by default a column named `id` or `<name>_id`, else the first unique column,
    /// else the row number.
    pub id: Option<String>,
    /// Columns with declared types and flags; the types of other columns are inferred from all their cells.
    pub columns: Vec<Column>,
    /// Name of the sheet; by default the first one that is shown.
    pub sheet: Option<String>,
    /// The row of the header, from 1; by default the first that is about as wide as the widest.
    pub header: Option<u64>,
    /// Time for which a file that may be half written must stay unchanged before it is used; by default 5 seconds.
    pub settle: Option<Duration>,
}

/// A sheet of a spreadsheet as a source.
#[derive(Clone, Debug)]
pub struct Spreadsheet(Arc<Inner>);

/// State that the clones of a [`Spreadsheet`] share.
#[derive(Debug)]
struct Inner {
    file: Arc<SourceFile>,
    options: SpreadsheetOptions,
    schema: Arc<Schema>,
    id: IdChoice,
    inferred: Vec<Inferred>,
}

impl Spreadsheet {
    /// Reads the file at `path` once to infer its columns, their types and its id.
    ///
    /// # Errors
    /// [`Error::Source`] if the file cannot be read or is not a spreadsheet, [`Error::Config`] if the options do not match it.
    pub async fn open(name: &str, path: impl Into<PathBuf>, options: SpreadsheetOptions) -> Result<Vista> {
        Spreadsheet::open_at(name, SourcePlace::new(path), options).await
    }

    /// [`Spreadsheet::open`] for a file at any place.
    pub(super) async fn open_at(name: &str, place: SourcePlace, options: SpreadsheetOptions) -> Result<Vista> {
        let (vista, file) = (name.to_string(), Arc::new(SourceFile::new(place, options.settle)));
        let source = Arc::clone(&file);
        let sheet = file.study(move |content| infer(&vista, &source, content, &options)).await?;
        log_inferred(name, sheet.0.file.path(), &sheet.0.inferred);
        Ok(Vista::new(name, sheet))
    }
}

#[async_trait]
impl TableShell for Spreadsheet {
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

/// Returns the names of the shown sheets with at least one row below the header. Empty for a file that cannot be read; opening
/// it reports the error.
pub(super) fn sheets_with_rows(path: &Path) -> Vec<String> {
    let Ok(file) = open_regular(path) else { return Vec::new() };
    let found = with_book(path, &mut Content::new(file), |book| {
        let mut sheets = book.sheets();
        sheets.retain(|sheet| {
            let mut rows = 0;
            let read = book.each_row(sheet, &mut |_| {
                rows += 1;
                Ok(rows < 2)
            });
            read.is_ok() && rows >= 2
        });
        Ok(sheets)
    });
    found.unwrap_or_default()
}

/// Returns the text of a cell.
pub(super) fn text_of(value: &CborValue) -> String {
    match value {
        CborValue::Text(text) => text.clone(),
        CborValue::Integer(number) => i128::from(*number).to_string(),
        CborValue::Float(number) => number.to_string(),
        CborValue::Bool(value) => value.to_string(),
        _ => String::new(),
    }
}

/// Passes the rows below the header to `sink`, after the header itself to `begin`.
fn each_row(
    path: &Path,
    book: &mut Book<'_>,
    options: &SpreadsheetOptions,
    begin: impl FnOnce(Header, Option<Inferred>) -> Result<()>,
    sink: &mut dyn FnMut(SheetRow) -> Result<()>,
) -> Result<()> {
    let place = path.display();
    let (sheet, guess) = choose_sheet(path, book, options)?;
    let mut finder = HeaderFinder::default();
    let mut declared_row = options.header;
    book.each_row(&sheet, &mut |row| {
        let goes_on = declared_row.is_some_and(|line| u64::from(row.at) + 1 < line);
        Ok(finder.add(row) || goes_on)
    })?;
    let header = finder.find(declared_row.take());
    let header = header.ok_or_else(|| Error::permanent(format!("the sheet {sheet:?} of {place} has no header row")))?;
    let row = header.row;
    begin(header, guess)?;
    book.each_row(&sheet, &mut |own| {
        if own.at > row {
            sink(own)?;
        }
        Ok(true)
    })
}

/// Returns the sheet to read, with a note if there are others.
fn choose_sheet(path: &Path, book: &Book<'_>, options: &SpreadsheetOptions) -> Result<(String, Option<Inferred>)> {
    let (shown, place) = (book.sheets(), path.display());
    match &options.sheet {
        Some(name) => {
            let all = book.all_sheets();
            match all.contains(name) {
                true => Ok((name.clone(), None)),
                false => Err(Error::Config(format!("{place} has no sheet {name:?}: it has {}", all.join(", ")))),
            }
        }
        None => {
            let first = shown.first().ok_or_else(|| Error::permanent(format!("{place} has no sheet")))?;
            let because = format!("it is the first of {}: {}", shown.len(), shown.join(", "));
            let guess = Inferred::new("sheet", format!("{first:?}"), because, "sheet in source");
            Ok((first.clone(), (shown.len() > 1).then(|| guess.doubtful())))
        }
    }
}

/// Inferred properties of one column.
#[derive(Default)]
struct ColumnFindings {
    kinds: Kinds,
    unique: Option<Uniqueness>,
    values: u64,
    texts: u64,
    first_text: Option<String>,
    first_error: Option<(String, String)>,
}

impl ColumnFindings {
    fn see(&mut self, cell: Option<&Cell>, at: (u32, u32)) {
        let value = match cell {
            Some(Cell::Value(value)) => Some(value),
            Some(Cell::Error(error)) => {
                self.first_error.get_or_insert_with(|| (error.clone(), cell_name(at.0, at.1)));
                None
            }
            None => None,
        };
        if let Some(unique) = &mut self.unique {
            let id = value.and_then(id_from_value);
            unique.see(id.as_deref(), || format!("cell {}", cell_name(at.0, at.1)));
        }
        let Some(value) = value else { return };
        self.kinds.see_value(value);
        self.values += 1;
        if value.is_text() {
            self.texts += 1;
            self.first_text.get_or_insert_with(|| cell_name(at.0, at.1));
        }
    }

    fn column_type(&self) -> ColumnType {
        self.kinds.column_type(ColumnType::String)
    }

    /// Notes on a column that mixes texts with other values, and on errors in its cells.
    fn notes(&self, name: &str) -> impl Iterator<Item = Inferred> {
        let key = format!("columns.{name:?}.type");
        let is_mixed = self.texts > 0 && self.texts < self.values;
        let mixed = self.first_text.as_ref().filter(|_| is_mixed).map(|cell| {
            let because = format!("cell {cell} is a text: {} of {} are", self.texts, self.values);
            Inferred::new(format!("type of {name:?}"), "string", because, key).doubtful()
        });
        let error = self.first_error.as_ref().map(|(error, cell)| {
            let because = format!("cell {cell} has this error");
            Inferred::new(format!("null in {name:?}"), error.clone(), because, "the sheet's formulas")
        });
        mixed.into_iter().chain(error)
    }
}

/// Columns of a sheet.
struct FoundColumns {
    header: Header,
    columns: BTreeMap<u32, ColumnFindings>,
}

impl FoundColumns {
    /// Reads all cells. Uniqueness is checked for the columns with the name of an id if there are any, else, or with `compares`,
    /// for all.
    fn read(
        vista: &str,
        path: &Path,
        content: &mut Content,
        options: &SpreadsheetOptions,
        compares: bool,
    ) -> Result<(FoundColumns, Option<Inferred>)> {
        let found = std::cell::RefCell::new(None);
        let note = std::cell::Cell::new(None);
        let mut decoded_rows = 0_u64;
        with_book(path, content, |book| {
            let begin = |header: Header, guess| {
                let has_named = header.names.values().any(|name| is_id_name(vista, name));
                let column = |(at, name): (&u32, &String)| {
                    let is_compared = options.id.is_none() && (compares || !has_named || is_id_name(vista, name));
                    (*at, ColumnFindings { unique: is_compared.then(Uniqueness::default), ..Default::default() })
                };
                let columns = header.names.iter().map(column).collect();
                *found.borrow_mut() = Some(FoundColumns { header, columns });
                note.set(guess);
                Ok(())
            };
            each_row(path, book, options, begin, &mut |row| {
                decoded_rows += 1;
                if let Some(found) = &mut *found.borrow_mut() {
                    found.see(&row);
                }
                Ok(())
            })
        })?;
        let found = found.into_inner();
        let found = found.ok_or_else(|| Error::permanent(format!("{} has no header row", path.display())))?;
        Ok((found, note.take()))
    }

    fn see(&mut self, row: &SheetRow) {
        let cells: HashMap<u32, &Cell> = row.cells.iter().map(|(column, cell)| (*column, cell)).collect();
        for (column, findings) in &mut self.columns {
            findings.see(cells.get(column).copied(), (row.at, *column));
        }
        let beyond: Vec<u32> =
            row.cells.iter().map(|(at, _)| *at).filter(|at| !self.columns.contains_key(at)).collect();
        for column in beyond {
            // A column without a name whose first cell is below the header.
            self.header.names.insert(column, unnamed(column, &self.header.names));
            let mut findings = ColumnFindings::default();
            findings.see(cells.get(&column).copied(), (row.at, column));
            self.columns.insert(column, findings);
        }
    }

    fn named(&self, name: &str) -> Option<&ColumnFindings> {
        let (at, _) = self.header.names.iter().find(|(_, own)| *own == name)?;
        self.columns.get(at)
    }
}

/// Returns a free name for a column that the header does not name.
fn unnamed(column: u32, taken: &BTreeMap<u32, String>) -> String {
    let stem = format!("column_{}", u64::from(column) + 1);
    let numbered = (1..).map(|number| format!("{stem}.{number}"));
    let mut names = std::iter::once(stem.clone()).chain(numbered);
    names.find(|name| !taken.values().any(|own| own == name)).unwrap_or(stem)
}

/// Infers columns, types and id of a sheet.
fn infer(
    vista: &str,
    file: &Arc<SourceFile>,
    content: &mut Content,
    options: &SpreadsheetOptions,
) -> Result<Spreadsheet> {
    let path = file.path();
    let (mut found, mut note) = FoundColumns::read(vista, path, content, options, false)?;
    let is_unfit = |column: &ColumnFindings| column.unique.as_ref().is_some_and(|unique| unique.unfit(0).is_some());
    let mut named = found.header.names.values().filter(|name| is_id_name(vista, name)).peekable();
    if options.id.is_none() && named.peek().is_some() && named.all(|name| found.named(name).is_none_or(is_unfit)) {
        (found, note) = FoundColumns::read(vista, path, content, options, true)?;
    }
    let typed = found.header.names.iter().map(|(at, name)| {
        let ty = found.columns.get(at).map_or(ColumnType::String, ColumnFindings::column_type);
        Column::new(name.as_str(), ty)
    });
    let mut columns = declare(vista, typed.collect(), &options.columns)?;
    let unique =
        |name: &str| found.named(name).and_then(|column| column.unique.as_ref()).is_some_and(Uniqueness::holds);
    let unfit = |name: &str| found.named(name).and_then(|column| column.unique.as_ref()?.unfit(0));
    let (id, guess) = choose_id(vista, options.id.as_deref(), &columns, unique, unfit)?;
    let mut inferred: Vec<Inferred> = note.into_iter().chain(found.header.inferred.iter().cloned()).collect();
    let undeclared = |name: &str| !options.columns.iter().any(|own| &*own.name == name);
    for name in found.header.names.values().filter(|name| undeclared(name)) {
        inferred.extend(found.named(name).into_iter().flat_map(|column| column.notes(name)));
    }
    inferred.extend(guess);
    if let IdChoice::RowNumber(name) = &id {
        columns.insert(0, Column::new(name.as_str(), ColumnType::Integer));
    }
    let schema = Arc::new(Schema::new(id.column(), columns));
    let (file, options) = (Arc::clone(file), options.clone());
    Ok(Spreadsheet(Arc::new(Inner { file, options, schema, id, inferred })))
}

impl Inner {
    fn read(&self, content: &mut Content) -> Result<Rows> {
        let path = self.file.path();
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        let (mut decoded, mut number, mut errors) = (DecodedRows::default(), 0_u64, ErrorCells::default());
        let mut places: HashMap<Id, u32> = HashMap::new();
        let names = std::cell::RefCell::new(BTreeMap::new());
        with_book(path, content, |book| {
            let begin = |header: Header, _| {
                *names.borrow_mut() = header.names;
                Ok(())
            };
            each_row(path, book, &self.options, begin, &mut |row| {
                number += 1;
                let (id, body) = match self.encode(&mut names.borrow_mut(), &row, number, &mut errors) {
                    Ok(row) => row,
                    Err(error) => {
                        rows.skip(error.to_string());
                        decoded.bad(error);
                        return Ok(());
                    }
                };
                decoded.good();
                if let Some(first) = places.insert(Arc::clone(&id), row.at) {
                    let detail = format!("has id {id:?}, which row {} already has. {ANOTHER_ID}", first + 1);
                    return Err(self.error(row.at, &detail));
                }
                rows.push_body(&id, &body);
                Ok(())
            })
        })?;
        decoded.check()?;
        errors.report(path);
        Ok(rows)
    }

    fn encode(
        &self,
        names: &mut BTreeMap<u32, String>,
        row: &SheetRow,
        number: u64,
        errors: &mut ErrorCells,
    ) -> Result<(Id, Body)> {
        let mut record: Record = names.values().map(|name| (name.clone(), CborValue::Null)).collect();
        for (column, cell) in &row.cells {
            if !names.contains_key(column) {
                names.insert(*column, unnamed(*column, names));
            }
            let name = &names[column];
            let value = match cell {
                Cell::Value(value) => self.typed(name, value),
                Cell::Error(error) => {
                    errors.see(error, (row.at, *column));
                    CborValue::Null
                }
            };
            record.insert(name.as_str(), value);
        }
        let id = Id::from(self.id_of(row.at, number, &mut record)?);
        let body = Body::encode(&id, &record, self.schema.layout());
        match body.size() > MAX_ROW {
            true => Err(self.error(row.at, "is larger than 4 MiB")),
            false => Ok((id, body)),
        }
    }

    /// Returns a cell's value under the type of its column.
    fn typed(&self, name: &str, value: &CborValue) -> CborValue {
        let ty = self.schema.column(name).map_or(ColumnType::Json, |column| column.ty);
        match (ty, value) {
            (ColumnType::String | ColumnType::Decimal, CborValue::Text(_)) => value.clone(),
            (ColumnType::String | ColumnType::Decimal, value) => text_of(value).into(),
            (ColumnType::Json, _) => value.clone(),
            (ty, CborValue::Text(text)) => match cell(ty, Notation::default(), text) {
                TypedCell::Null => CborValue::Null,
                TypedCell::Bool(value) => value.into(),
                TypedCell::Integer(value) => value.into(),
                TypedCell::Float(value) => value.into(),
                TypedCell::Text(value) => (&*value).into(),
                TypedCell::Misfit(value) => value.into(),
                TypedCell::Value(value) => value,
            },
            _ => value.clone(),
        }
    }

    fn id_of(&self, row: u32, number: u64, record: &mut Record) -> Result<String> {
        match &self.id {
            IdChoice::RowNumber(name) if record.contains(name) => {
                let detail = format!("now has a column {name:?}, which is the name of the row number");
                Err(self.error(row, &format!("{detail}: restart to serve the new columns")))
            }
            IdChoice::RowNumber(name) => {
                record.insert(name.as_str(), number.into());
                Ok(number.to_string())
            }
            IdChoice::Column(name) => match record.get(name) {
                None | Some(CborValue::Null) => {
                    Err(self.error(row, &format!("has no id: {name:?} is empty. {ANOTHER_ID}")))
                }
                Some(value) => id_from_value(value)
                    .ok_or_else(|| self.error(row, &format!("has no id: {name:?} is neither text nor an integer"))),
            },
        }
    }

    fn error(&self, row: u32, detail: &str) -> Error {
        Error::permanent(format!("row {} of {} {detail}", u64::from(row) + 1, self.file.path().display()))
    }
}

/// Cells of one reading that have an error of Excel.
#[derive(Default)]
struct ErrorCells {
    count: u64,
    first: Option<(String, String)>,
}

impl ErrorCells {
    fn see(&mut self, error: &str, at: (u32, u32)) {
        self.count += 1;
        self.first.get_or_insert_with(|| (error.to_string(), cell_name(at.0, at.1)));
    }

    fn report(&self, path: &Path) {
        if let Some((error, cell)) = &self.first
            && let Some(left_out) = LINES.pass(path.to_path_buf())
        {
            let (path, cells) = (path.display(), self.count);
            tracing::warn!(%path, cells, cell, error, left_out, "cells with errors are read as null");
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
