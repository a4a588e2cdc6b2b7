//! CSV files: read-only, and read again for every list (which is what a cache in front of them is for).
//!
//! How a file is written is found out from its rows, and said: see [`Vista::shell`]'s `inferred`. What it says is kept or reported:
//! ragged rows, unclosed quotes and ids that are missing are errors that name the line. Memory is bounded by the rows, not by the
//! file's faults.

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
use crate::file::number::{Notation, trimmed};
use crate::file::say;
use crate::file::source::{Content, DecodedRows, SourceFile, io_error, open_regular};
use crate::rows::{apply, declare};
use diorama_core::record::{Body, CborValue, Id, Record, RowWriter, Rows, id_to_value};
use diorama_core::vista::{
    Capabilities, Column, ColumnType, Error, Inferred, LogLimit, Query, Result, Schema, TableShell, Vista,
};

/// Bounds the lines about a file, which is read as often as somebody asks for it.
static LINES: LazyLock<LogLimit<(PathBuf, &str)>> = LazyLock::new(LogLimit::default);

/// How a CSV file is to be understood. The default infers everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvOptions {
    /// The column that identifies rows, or `#` for the row number; else one named `id` or `<name>_id`, else the first unique
    /// one, else the row number.
    pub id: Option<String>,
    /// Columns with declared types and flags; the types of others are inferred from all their cells.
    pub columns: Vec<Column>,
    /// Cells that mean null in every column, besides empty ones.
    pub null_values: Vec<String>,
    /// Words that mean null among numbers, booleans and dates; else those of pandas, `\N` and Excel's errors.
    pub null: Option<Vec<String>>,
    /// Separator of fields; else the one of comma, semicolon, tab and bar under which the rows agree with the header.
    pub delimiter: Option<u8>,
    /// The line of the header; else the first behind comments, titles and blank lines.
    pub header: Option<u64>,
    /// The decimal mark, a point or a comma; else each column's cells show it.
    pub decimal: Option<u8>,
    /// The encoding, as the WHATWG calls it; else UTF-8, UTF-16 if the first bytes show it, windows-1252 if the bytes are not
    /// UTF-8.
    pub encoding: Option<String>,
    /// How long a file that may be half written has to stay the same before it is believed; else 5 seconds.
    pub settle: Option<Duration>,
}

/// A CSV file as a source.
#[derive(Clone, Debug)]
pub struct Csv(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: Arc<SourceFile>,
    options: CsvOptions,
    schema: Arc<Schema>,
    id: IdChoice,
    /// Notations of the columns of numbers.
    notations: HashMap<String, Notation>,
    inferred: Vec<Inferred>,
}

impl Csv {
    /// Reads the file at `path` through once to learn its columns, their types and its id.
    ///
    /// # Errors
    /// [`Error::Source`] if it cannot be read or is no CSV, [`Error::Config`] if the options do not fit it.
    pub async fn open(name: &str, path: impl Into<PathBuf>, options: CsvOptions) -> Result<Vista> {
        let (vista, file) = (name.to_string(), Arc::new(SourceFile::new(path.into(), options.settle)));
        let source = Arc::clone(&file);
        let csv = file.study(move |content| learn(&vista, &source, content, &options)).await?;
        say(name, csv.0.file.path(), &csv.0.inferred);
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

/// The declared encoding.
pub(super) fn encoding(options: &CsvOptions) -> Result<Option<&'static Encoding>> {
    let label = |label: &String| {
        Encoding::for_label(label.as_bytes()).ok_or_else(|| Error::Config(format!("{label:?} is not a known encoding")))
    };
    options.encoding.as_ref().map(label).transpose()
}

/// Findings about a file.
struct FileShape {
    schema: Arc<Schema>,
    id: IdChoice,
    notations: HashMap<String, Notation>,
    inferred: Vec<Inferred>,
}

/// Columns, types and id of a file. Which columns repeat nothing matters only if no name says which is the id.
fn learn(vista: &str, file: &Arc<SourceFile>, content: &mut Content, options: &CsvOptions) -> Result<Csv> {
    let path = file.path();
    let learned = match reader::read(path, content, options, |reader| study(vista, reader, options, false))? {
        Some(learned) => learned,
        None => {
            content.rewind().map_err(|error| io_error(path, &error))?;
            let learned = reader::read(path, content, options, |reader| study(vista, reader, options, true))?;
            learned.ok_or_else(|| Error::permanent(format!("{} has no id", path.display())))?
        }
    };
    let FileShape { schema, id, notations, inferred } = learned;
    Ok(Csv(Arc::new(Inner { file: Arc::clone(file), options: options.clone(), schema, id, notations, inferred })))
}

/// Findings about one column.
#[derive(Default)]
struct ColumnFindings {
    survey: ColumnSurvey,
    /// Kept for columns that may be the id.
    unique: Option<Uniqueness>,
    /// The first null word and its line.
    null_word: Option<(String, u64)>,
}

impl ColumnFindings {
    fn see(&mut self, text: &str, reader: &Reader<'_>, options: &CsvOptions) {
        let value = trimmed(text);
        let null = value.is_empty() || options.null_values.iter().any(|null| null == text);
        if let Some(unique) = &mut self.unique {
            // A plus says nothing about a number.
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
    /// Tells whether `text` means null where the other cells are not texts.
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

/// `None` if a column bears the name of an id and can be none: then `compares`, of all columns, has to be true.
fn study(vista: &str, reader: &mut Reader<'_>, options: &CsvOptions, compares: bool) -> Result<Option<FileShape>> {
    let header = reader.header()?;
    let mut inferred = reader.inferred(&header);
    let named = options.id.is_none() && header.iter().any(|name| is_id_name(vista, name));
    let compares = compares || options.id.is_none() && !named;
    let may_be_id = |name: &String| compares || (named && is_id_name(vista, name));
    let mut studied: Vec<ColumnFindings> = header
        .iter()
        .map(|name| ColumnFindings { unique: may_be_id(name).then(Uniqueness::default), ..ColumnFindings::default() })
        .collect();
    let mut sorted = DecodedRows::default();
    while reader.advance()? {
        let text = match reader.row(header.len()) {
            Ok(text) => text,
            Err(error) => {
                reader.leave_out(error, &mut sorted)?;
                continue;
            }
        };
        sorted.good();
        for (at, column) in studied.iter_mut().enumerate() {
            column.see(reader.field(text, at)?, reader, options);
        }
    }
    sorted.check()?;
    let numbers = Numbers { decimal: options.decimal, separator: reader.separator() };
    let verdicts: Vec<_> =
        header.iter().zip(&studied).map(|(name, column)| column.survey.verdict(name, numbers)).collect();
    let found = header.iter().zip(&verdicts).map(|(name, verdict)| Column::new(name.as_str(), verdict.ty)).collect();
    let mut columns = declare(vista, found, &options.columns)?;
    let places: HashMap<&str, usize> = header.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    let of = |name: &str| places.get(name).map(|at| (&columns[*at], &studied[*at]));
    let unfit = |name: &str| of(name).and_then(|(_, column)| column.unique.as_ref()?.unfit(0));
    let may_stay = columns.iter().any(|column| is_id(vista, column) && unfit(&column.name).is_none());
    if !compares && options.id.is_none() && !may_stay {
        return Ok(None);
    }
    let unique = |name: &str| {
        let holds = |studied: &ColumnFindings| studied.unique.as_ref().is_some_and(Uniqueness::holds);
        of(name).is_some_and(|(column, studied)| {
            holds(studied) && (studied.null_word.is_none() || keeps_null_words(column.ty))
        })
    };
    let (id, guess) = choose_id(vista, options.id.as_deref(), &columns, unique, unfit)?;
    inferred.extend(guess);
    let mut notations = HashMap::new();
    for (((name, column), verdict), studied) in header.iter().zip(&columns).zip(verdicts).zip(&studied) {
        let declared = options.columns.iter().any(|own| own.name == column.name);
        inferred.extend(verdict.guess.filter(|_| !declared));
        if let Some((word, line)) = studied.null_word.as_ref().filter(|_| !keeps_null_words(column.ty)) {
            let because = format!("line {line} has it among other cells than texts");
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

/// Where the cells of one column come from: a field of the file, or `None` for the row's number.
struct CellSource<'a> {
    name: &'a str,
    field: Option<usize>,
    ty: ColumnType,
    notation: Notation,
}

impl Inner {
    fn read(&self, content: &mut Content) -> Result<Rows> {
        reader::read(self.file.path(), content, &self.options, |reader| self.rows(reader))
    }

    fn rows(&self, reader: &mut Reader<'_>) -> Result<Rows> {
        let header = reader.header()?;
        let sources = self.sources(&header)?;
        let mut writer = RowWriter::new(sources.iter().map(|source| source.name));
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        let (mut misfits, mut sorted, mut count) = (Misfits::default(), DecodedRows::default(), 0_u64);
        while reader.advance()? {
            count += 1;
            let number = count.to_string();
            let row = reader.row(header.len()).and_then(|text| Ok((text, self.id(&sources, reader, text, &number)?)));
            let (text, id) = match row {
                Ok(row) => row,
                Err(error) => {
                    rows.skip(error.to_string());
                    reader.leave_out(error, &mut sorted)?;
                    continue;
                }
            };
            sorted.good();
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
            if !rows.push_body(Arc::clone(&id), body) {
                return Err(self.duplicate(reader, &id));
            }
        }
        sorted.check()?;
        misfits.report(self.file.path());
        Ok(rows)
    }

    /// The header as it is now against the schema as it was: columns are found by name, new ones are kept as text.
    fn sources<'a>(&'a self, header: &'a [String]) -> Result<Vec<CellSource<'a>>> {
        let positional = matches!(self.id, IdChoice::RowNumber(_));
        if header.iter().any(|name| name == self.id.column()) == positional {
            let change = if positional { "has now a" } else { "no longer has its" };
            let (path, id) = (self.file.path().display(), self.id.column());
            return Err(Error::permanent(format!(
                "{path} {change} column {id:?}: its header was changed, open it anew"
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

    /// What identifies the row `text`, which is the file's `number`-th.
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

    /// The slow way, for rows that JSON does not hold exactly.
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
        reader.error(&format!("has id {id:?}, which {first} has already. {ANOTHER_ID}"))
    }

    /// The line of the first row with this id, by reading up to it again: only errors ask for it.
    fn line_of(&self, id: &str) -> Result<Option<u64>> {
        let mut content = Content::new(open_regular(self.file.path())?);
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

/// Tells whether the digits of an integer are those that JSON has for it.
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

/// Cells that did not fit their column's type in one read.
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
            tracing::warn!(%path, cells, column, text, left_out, "cells do not fit their column's type and are kept as text");
        }
    }
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;
