//! CSV files as read-only sources, read again for every list; a cache in front avoids most of these reads.
//!
//! The dialect is detected from the rows and reported by [`Vista::shell`]'s `inferred`. No data are dropped silently: ragged
//! rows, unclosed quotes and missing ids are errors that name the line. Memory is bounded by the rows, even for a faulty file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use encoding_rs::Encoding;

use super::column::{ColumnSurvey, Numbers};
use super::reader::{self, Reader};
use crate::file::infer::{
    ANOTHER_ID, Cell, IdChoice, NULL_WORDS, Uniqueness, cell, choose_id, is_id, is_id_name, keeps_null_words,
};
use crate::file::log_inferred;
use crate::file::number::{Notation, trimmed};
use crate::file::place::SourcePlace;
use crate::file::source::{Content, DecodedRows, SourceFile, io_error};
use crate::rows::{apply, declare};
use diorama_core::record::{Body, CborValue, Id, Record, RowWriter, Rows, id_to_value};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Inferred, LogLimit, Query, Result, Schema, TableShell, Vista,
};

/// Rate limiter for log lines about a file, which may be read at any rate.
static LINES: LazyLock<LogLimit<(PathBuf, &str)>> = LazyLock::new(LogLimit::default);

/// Options for reading a CSV file. By default everything is inferred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvOptions {
    /// The id column, or `#` for the row number; by default a column named `id` or `<name>_id`, else the first unique column,
    /// else the row number.
    pub id: Option<String>,
    /// Columns with declared types and flags; the types of other columns are inferred from all their cells.
    pub columns: Vec<Column>,
    /// Texts that mean null in every column, besides empty cells.
    pub null_values: Vec<String>,
    /// Words that mean null in columns of numbers, booleans and dates; by default those of pandas, `\N` and Excel's error values.
    pub null: Option<Vec<String>>,
    /// Separator of fields; by default the one of comma, semicolon, tab and bar with which the rows have as many fields as the
    /// header.
    pub delimiter: Option<u8>,
    /// The line of the header, from 1; by default the first after comments, titles and blank lines.
    pub header: Option<u64>,
    /// The decimal mark, a point or a comma; by default chosen for each column from its cells.
    pub decimal: Option<u8>,
    /// The encoding by its WHATWG label; by default UTF-8, UTF-16 if the first bytes show it, windows-1252 if there are bytes
    /// that are not UTF-8.
    pub encoding: Option<String>,
    /// Time for which a file that may be half written must stay unchanged before it is used; by default 5 seconds.
    pub settle: Option<Duration>,
}

/// A CSV file as a source.
#[derive(Clone, Debug)]
pub struct Csv(Arc<Inner>);

/// State that the clones of a [`Csv`] share.
#[derive(Debug)]
struct Inner {
    file: Arc<SourceFile>,
    options: CsvOptions,
    schema: Arc<Schema>,
    id: IdChoice,
    /// Notations of number columns, if not the default one.
    notations: HashMap<String, Notation>,
    inferred: Vec<Inferred>,
}

impl Csv {
    /// Reads the file at `path` once to infer its columns, their types and its id.
    ///
    /// # Errors
    /// [`Error::Source`] if the file cannot be read or is not valid CSV, [`Error::Config`] if the options do not match it.
    pub async fn open(name: &str, path: impl Into<PathBuf>, options: CsvOptions) -> Result<Vista> {
        Csv::open_at(name, SourcePlace::new(path), options).await
    }

    /// [`Csv::open`] for a file at any place.
    pub(crate) async fn open_at(name: &str, place: SourcePlace, options: CsvOptions) -> Result<Vista> {
        let (vista, file) = (name.to_string(), Arc::new(SourceFile::new(place, options.settle)));
        let source = Arc::clone(&file);
        let csv = file.study(move |content| infer(&vista, &source, content, &options)).await?;
        log_inferred(name, csv.0.file.path(), &csv.0.inferred);
        Ok(Vista::new(name, csv))
    }
}

#[async_trait]
impl TableShell for Csv {
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

/// Returns the declared encoding.
pub(super) fn encoding(options: &CsvOptions) -> Result<Option<&'static Encoding>> {
    let label = |label: &String| {
        Encoding::for_label(label.as_bytes()).ok_or_else(|| Error::Config(format!("{label:?} is not a known encoding")))
    };
    options.encoding.as_ref().map(label).transpose()
}

/// Inferred properties of a file.
struct FileShape {
    schema: Arc<Schema>,
    id: IdChoice,
    notations: HashMap<String, Notation>,
    inferred: Vec<Inferred>,
}

/// Infers columns, types and id of a file. Uniqueness of all columns is checked in a second pass, and only if no column has the
/// name of an id.
fn infer(vista: &str, file: &Arc<SourceFile>, content: &mut Content, options: &CsvOptions) -> Result<Csv> {
    let path = file.path();
    let inferred_shape = match reader::read(path, content, options, |reader| study(vista, reader, options, false))? {
        Some(inferred_shape) => inferred_shape,
        None => {
            content.rewind().map_err(|error| io_error(path, &error))?;
            let inferred_shape = reader::read(path, content, options, |reader| study(vista, reader, options, true))?;
            inferred_shape.ok_or_else(|| Error::permanent(format!("cannot determine the id of {}", path.display())))?
        }
    };
    let FileShape { schema, id, notations, inferred } = inferred_shape;
    Ok(Csv(Arc::new(Inner { file: Arc::clone(file), options: options.clone(), schema, id, notations, inferred })))
}

/// Inferred properties of one column.
#[derive(Default)]
struct ColumnFindings {
    survey: ColumnSurvey,
    /// Present for columns that may be the id.
    unique: Option<Uniqueness>,
    /// The first null word and its line.
    null_word: Option<(String, u64)>,
}

impl ColumnFindings {
    fn see(&mut self, text: &str, reader: &Reader<'_>, options: &CsvOptions) {
        let value = trimmed(text);
        let null = value.is_empty() || options.null_values.iter().any(|null| null == text);
        if let Some(unique) = &mut self.unique {
            // A plus sign does not change the number.
            let bare = value.strip_prefix('+').filter(|digits| is_canonical(digits)).unwrap_or(value);
            unique.see((!null).then_some(bare), || format!("line {}", reader.line()));
        }
        if !null && options.is_null_word(value) {
            self.null_word.get_or_insert_with(|| (value.to_string(), reader.line()));
        } else if !null {
            self.survey.see(text, || reader.line());
        }
    }
}

impl CsvOptions {
    /// Returns true if `text` means null in columns that do not hold texts.
    fn is_null_word(&self, text: &str) -> bool {
        match &self.null {
            Some(words) => words.iter().any(|word| word == text),
            None => {
                matches!(text.as_bytes(), [b'N' | b'n' | b'#' | b'<' | b'-' | b'1' | b'\\', ..])
                    && NULL_WORDS.contains(&text)
            }
        }
    }
}

/// Infers the properties of a file. `None` if a column has the name of an id but cannot be used; then call it again with
/// `compares`, which checks the uniqueness of all columns.
fn study(vista: &str, reader: &mut Reader<'_>, options: &CsvOptions, compares: bool) -> Result<Option<FileShape>> {
    let header = reader.header()?;
    let mut inferred = reader.inferred(&header);
    let named = options.id.is_none() && header.iter().any(|name| is_id_name(vista, name));
    let compares = compares || options.id.is_none() && !named;
    let may_be_id = |name: &String| compares || (named && is_id_name(vista, name));
    let mut findings: Vec<ColumnFindings> = header
        .iter()
        .map(|name| ColumnFindings { unique: may_be_id(name).then(Uniqueness::default), ..ColumnFindings::default() })
        .collect();
    let mut decoded = DecodedRows::default();
    while reader.advance()? {
        let text = match reader.row(header.len()) {
            Ok(text) => text,
            Err(error) => {
                reader.leave_out(error, &mut decoded)?;
                continue;
            }
        };
        decoded.good();
        for (at, column) in findings.iter_mut().enumerate() {
            column.see(reader.field(text, at)?, reader, options);
        }
    }
    decoded.check()?;
    let numbers = Numbers { decimal: options.decimal, separator: reader.separator() };
    let verdicts: Vec<_> =
        header.iter().zip(&findings).map(|(name, column)| column.survey.verdict(name, numbers)).collect();
    let found = header.iter().zip(&verdicts).map(|(name, verdict)| Column::new(name.as_str(), verdict.ty)).collect();
    let mut columns = declare(vista, found, &options.columns)?;
    let places: HashMap<&str, usize> = header.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let of = |name: &str| places.get(name).map(|at| (&columns[*at], &findings[*at]));
    let unfit = |name: &str| of(name).and_then(|(_, column)| column.unique.as_ref()?.unfit(0));
    let may_stay = columns.iter().any(|column| is_id(vista, column) && unfit(&column.name).is_none());
    if !compares && options.id.is_none() && !may_stay {
        return Ok(None);
    }
    let unique = |name: &str| {
        let holds = |findings: &ColumnFindings| findings.unique.as_ref().is_some_and(Uniqueness::holds);
        of(name).is_some_and(|(column, findings)| {
            holds(findings) && (findings.null_word.is_none() || keeps_null_words(column.ty))
        })
    };
    let (id, guess) = choose_id(vista, options.id.as_deref(), &columns, unique, unfit)?;
    inferred.extend(guess);
    let mut notations = HashMap::new();
    for (((name, column), verdict), findings) in header.iter().zip(&columns).zip(verdicts).zip(&findings) {
        let declared = options.columns.iter().any(|own| own.name == column.name);
        inferred.extend(verdict.guess.filter(|_| !declared));
        if let Some((word, line)) = findings.null_word.as_ref().filter(|_| !keeps_null_words(column.ty)) {
            let because = format!("line {line} has it in a column without texts");
            inferred.push(Inferred::new(format!("null in {name:?}"), format!("{word:?}"), because, "null in source"));
        }
        if verdict.notation != Notation::default() {
            notations.insert(name.clone(), verdict.notation);
        }
    }
    if let IdChoice::RowNumber(name) = &id {
        columns.insert(0, Column::new(name.as_str(), ColumnType::Integer));
    }
    let schema = Arc::new(Schema::new(id.column(), columns));
    Ok(Some(FileShape { schema, id, notations, inferred }))
}

/// Origin of the cells of one column: a field of the file, or `None` for the row number.
struct CellSource<'a> {
    name: &'a str,
    field: Option<usize>,
    ty: ColumnType,
    notation: Notation,
}

impl Inner {
    /// Reads the file into a copy of `empty`.
    fn read(&self, content: &mut Content, empty: &Rows) -> Result<Rows> {
        reader::read(self.file.path(), content, &self.options, |reader| self.rows(reader, empty.clone()))
    }

    fn rows(&self, reader: &mut Reader<'_>, mut rows: Rows) -> Result<Rows> {
        let header = reader.header()?;
        let sources = self.sources(&header)?;
        let mut writer = RowWriter::new(sources.iter().map(|source| source.name));
        let (mut misfits, mut decoded, mut count) = (Misfits::default(), DecodedRows::default(), 0_u64);
        while reader.advance()? {
            count += 1;
            let number = count.to_string();
            let row = reader.row(header.len()).and_then(|text| Ok((text, self.id(&sources, reader, text, &number)?)));
            let (text, id) = match row {
                Ok(row) => row,
                Err(error) => {
                    rows.skip(error.to_string());
                    reader.leave_out(error, &mut decoded)?;
                    continue;
                }
            };
            decoded.good();
            for source in &sources {
                let Some(field) = source.field else {
                    writer.integer(&number);
                    continue;
                };
                let own = reader.field(text, field)?;
                let cell = self.cell(source, own, reader, field);
                if let Cell::Misfit(text) = cell {
                    misfits.see(source, text);
                }
                write(&mut writer, cell, own);
            }
            let id = Id::from(id);
            let body = match writer.finish() {
                Some(body) => body,
                None => self.encode(&sources, reader, text, &id)?,
            };
            if !rows.push_body(&id, &body) {
                return Err(self.duplicate(reader, &id));
            }
        }
        decoded.check()?;
        misfits.report(self.file.path());
        Ok(rows)
    }

    /// Maps the current header to the schema: columns are matched by name, and new ones are kept as text.
    fn sources<'a>(&'a self, header: &'a [String]) -> Result<Vec<CellSource<'a>>> {
        let positional = matches!(self.id, IdChoice::RowNumber(_));
        if header.iter().any(|name| name == self.id.column()) == positional {
            let change = if positional { "now has a" } else { "no longer has its" };
            let (path, id) = (self.file.path().display(), self.id.column());
            return Err(Error::permanent(format!(
                "{path} {change} column {id:?}: its header has changed; restart to serve the new columns"
            )));
        }
        let mut sources: Vec<CellSource<'_>> = header
            .iter()
            .enumerate()
            .map(|(field, name)| {
                let ty = self.schema.column(name).map_or(ColumnType::String, |column| column.ty);
                let notation = self.notations.get(name).copied().unwrap_or_default();
                CellSource { name, field: Some(field), ty, notation }
            })
            .collect();
        if positional {
            let (ty, notation) = (ColumnType::Integer, Notation::default());
            sources.push(CellSource { name: self.id.column(), field: None, ty, notation });
        }
        let rank = |source: &CellSource<'_>| self.schema.layout().rank(source.name).unwrap_or(usize::MAX);
        sources.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(b.name)));
        Ok(sources)
    }

    /// Returns the id of the row `text`, which is number `number` of the file.
    fn id<'t>(
        &self,
        sources: &[CellSource<'_>],
        reader: &Reader<'_>,
        text: &'t str,
        number: &'t str,
    ) -> Result<Cow<'t, str>> {
        let source = sources.iter().find(|source| source.name == self.id.column());
        let Some((source, field)) = source.and_then(|source| Some((source, source.field?))) else {
            return Ok(number.into());
        };
        let id = reader.field(text, field)?;
        let cell = if id.is_empty() { Cell::Null } else { self.cell(source, id, reader, field) };
        match cell {
            Cell::Null => Err(reader.error(&format!("has no id: column {:?} is empty. {ANOTHER_ID}", source.name))),
            Cell::Integer(value) if !is_canonical(id) => Ok(value.to_string().into()),
            Cell::Text(value) if !keeps_null_words(source.ty) => Ok(value),
            _ => Ok(id.into()),
        }
    }

    fn cell<'t>(&self, source: &CellSource<'_>, text: &'t str, reader: &Reader<'_>, field: usize) -> Cell<'t> {
        if self.options.null_values.iter().any(|null| null == text) {
            return Cell::Null;
        }
        let holds_empty = matches!(source.ty, ColumnType::String | ColumnType::Bytes);
        if text.is_empty() && !(holds_empty && reader.is_empty_text(field)) {
            return Cell::Null;
        }
        if !keeps_null_words(source.ty) {
            let value = trimmed(text);
            if value.is_empty() || self.options.is_null_word(value) {
                return Cell::Null;
            }
        }
        cell(source.ty, source.notation, text)
    }

    /// Slow path for rows that JSON cannot hold exactly.
    fn encode(&self, sources: &[CellSource<'_>], reader: &Reader<'_>, text: &str, id: &str) -> Result<Body> {
        let mut record = Record::new();
        for source in sources {
            let value = match source.field {
                None => id_to_value(id, self.schema.layout()),
                Some(field) => match self.cell(source, reader.field(text, field)?, reader, field) {
                    Cell::Null => CborValue::Null,
                    Cell::Bool(value) => value.into(),
                    Cell::Integer(value) => value.into(),
                    Cell::Float(value) => value.into(),
                    Cell::Text(value) => (&*value).into(),
                    Cell::Misfit(value) => value.into(),
                    Cell::Value(value) => value,
                },
            };
            record.insert(source.name, value);
        }
        Ok(Body::encode(id, &record, self.schema.layout()))
    }

    fn duplicate(&self, reader: &Reader<'_>, id: &str) -> Error {
        let first = self.line_of(id).ok().flatten();
        let first = first.map_or_else(|| "another line".to_string(), |line| format!("line {line}"));
        reader.error(&format!("has id {id:?}, which {first} already has. {ANOTHER_ID}"))
    }

    /// Finds the line of the first row with this id by reading the file again; used only for errors.
    fn line_of(&self, id: &str) -> Result<Option<u64>> {
        let mut content = Content::new(self.file.open_again()?);
        reader::read(self.file.path(), &mut content, &self.options, |reader| {
            let header = reader.header()?;
            let sources = self.sources(&header)?;
            while reader.advance()? {
                let text = reader.row(header.len());
                if text.and_then(|text| self.id(&sources, reader, text, "")).is_ok_and(|own| own == id) {
                    return Ok(Some(reader.line()));
                }
            }
            Ok(None)
        })
    }
}

/// Returns true if an integer's text is valid JSON, without a plus or separators.
fn is_canonical(text: &str) -> bool {
    text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit())
}

fn write(writer: &mut RowWriter, cell: Cell<'_>, own: &str) {
    match cell {
        Cell::Null => writer.value(&CborValue::Null),
        Cell::Bool(value) => writer.value(&value.into()),
        Cell::Integer(_) if is_canonical(own) => writer.integer(own),
        Cell::Integer(value) => writer.integer(&value.to_string()),
        Cell::Float(value) => writer.value(&value.into()),
        Cell::Text(text) => writer.text(&text),
        Cell::Misfit(text) => writer.text(text),
        Cell::Value(value) => writer.value(&value),
    }
}

/// Cells of one reading that do not fit their column's type.
#[derive(Default)]
struct Misfits {
    count: u64,
    first: Option<(String, String)>,
}

impl Misfits {
    fn see(&mut self, source: &CellSource<'_>, text: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| (source.name.to_string(), text.chars().take(40).collect()));
    }

    fn report(&self, path: &Path) {
        if let Some((column, text)) = &self.first
            && let Some(left_out) = LINES.pass((path.to_path_buf(), "misfits"))
        {
            let (path, cells) = (path.display(), self.count);
            tracing::warn!(%path, cells, column, text, left_out, "cells that do not fit their column's type are kept as text");
        }
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
