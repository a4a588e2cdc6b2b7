//! CSV files: read-only, and read again for every list (which is what a cache in front of them is for).
//!
//! What the file says is kept or reported, never guessed around: ragged rows, unclosed quotes, bytes that are no UTF-8 and
//! ids that are missing or stand twice are errors that name the line. Memory is bounded by the rows, not by the file's faults.

mod dialect;

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use csv::{ByteRecord, Position, ReaderBuilder, Trim};

use self::dialect::Dialect;
use super::file::{Content, MAX_ROW, Sorted, SourceFile, io_error, open_regular};
use super::infer::{
    ANOTHER_ID, Cell, IdChoice, Kinds, Uniqueness, cell, choose_id, is_id, is_id_name, is_null_word, keeps_null_words,
};
use super::{apply, declare};
use crate::record::{Body, CborValue, Id, Record, RowWriter, Rows, id_to_value};
use crate::vista::{Capabilities, Column, ColumnType, Error, Query, Result, Schema, TableShell, Vista};

/// Bytes of one field, at most.
const MAX_FIELD: usize = 1 << 20;

/// A row of its own after the file's last: if it does not come out again, a quote was never closed.
const END: &[u8] = b"\n\x03";

/// How a CSV file is to be understood. The default infers everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CsvOptions {
    /// The column that identifies rows, or `#` for the row number; else one named `id` or `<name>_id`, else the first unique
    /// one, else the row number.
    pub id: Option<String>,
    /// Columns with declared types and flags; the types of others are inferred from all their cells.
    pub columns: Vec<Column>,
    /// Cells that mean null in every column, besides empty ones (`NA`, `N/A`, `NaN` and `null` do so anyway where the others
    /// are numbers, booleans or dates).
    pub null_values: Vec<String>,
    /// What separates fields; else the one of comma, semicolon, tab and bar that stands most often in the header.
    pub delimiter: Option<u8>,
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
        Ok(Vista::new(name, csv))
    }
}

#[async_trait]
impl TableShell for Csv {
    fn schema(&self) -> Arc<Schema> {
        Arc::clone(&self.0.schema)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { can_filter: true, ..Capabilities::default() }
    }

    async fn list(&self, query: &Query) -> Result<Rows> {
        let inner = Arc::clone(&self.0);
        let rows = self.0.file.list(move |content| inner.read(content)).await?;
        Ok(apply(query, &self.0.schema, rows))
    }

    fn withheld(&self) -> Option<String> {
        self.0.file.doubt()
    }
}

/// Columns, types and id of a file. Which columns repeat nothing matters only if no name says which is the id.
fn learn(vista: &str, file: &Arc<SourceFile>, content: &mut Content, options: &CsvOptions) -> Result<Csv> {
    let path = file.path();
    let learned = match study(vista, path, content, options, false)? {
        Some(learned) => learned,
        None => {
            content.rewind().map_err(|error| io_error(path, &error))?;
            let learned = study(vista, path, content, options, true)?;
            learned.ok_or_else(|| Error::permanent(format!("{} has no id", path.display())))?
        }
    };
    let (schema, id) = learned;
    Ok(Csv(Arc::new(Inner { file: Arc::clone(file), options: options.clone(), schema, id })))
}

/// `None` if a column bears the name of an id and can be none: then all have to be compared.
fn study(
    vista: &str,
    path: &Path,
    content: &mut Content,
    options: &CsvOptions,
    compares: bool,
) -> Result<Option<(Arc<Schema>, IdChoice)>> {
    #[derive(Default)]
    struct Learned {
        kinds: Kinds,
        unique: Uniqueness,
        null_words: bool,
    }
    let mut reader = Reader::new(path, content, options)?;
    let header = reader.header()?;
    reader.say_dialect(&header);
    let compares = compares || options.id.is_none() && !header.iter().any(|name| is_id_name(vista, name));
    let mut learned: Vec<Learned> = header.iter().map(|_| Learned::default()).collect();
    let mut sorted = Sorted::default();
    while reader.advance()? {
        let text = match reader.row(header.len()) {
            Ok(text) => text,
            Err(error) => {
                reader.leave_out(error, &mut sorted)?;
                continue;
            }
        };
        sorted.good();
        for (at, column) in learned.iter_mut().enumerate() {
            let text = reader.field(text, at)?;
            let null = text.is_empty() || options.null_values.iter().any(|null| null == text);
            if compares {
                column.unique.see((!null).then_some(text));
            }
            if is_null_word(text) {
                column.null_words = true;
            } else if !null {
                column.kinds.see_text(text);
            }
        }
    }
    sorted.check()?;
    let types = learned.iter().map(|column| column.kinds.column_type(ColumnType::String));
    let found = header.iter().zip(types).map(|(name, ty)| Column::new(name.as_str(), ty)).collect();
    let mut columns = declare(vista, found, &options.columns)?;
    if !compares && options.id.is_none() && !columns.iter().any(|column| is_id(vista, column)) {
        return Ok(None);
    }
    let unique = |name: &str| {
        let at = columns.iter().position(|column| &*column.name == name);
        at.is_some_and(|at| learned[at].unique.holds() && (!learned[at].null_words || keeps_null_words(columns[at].ty)))
    };
    let id = choose_id(vista, options.id.as_deref(), &columns, unique)?;
    if let IdChoice::RowNumber(name) = &id {
        columns.insert(0, Column::new(name.as_str(), ColumnType::Integer));
    }
    let schema = Arc::new(Schema::new(id.column(), columns));
    Ok(Some((schema, id)))
}

/// Where the cells of one column come from: a field of the file, or `None` for the row's number.
struct Source<'a> {
    name: &'a str,
    field: Option<usize>,
    ty: ColumnType,
}

impl Inner {
    fn read(&self, content: &mut Content) -> Result<Rows> {
        let mut reader = Reader::new(self.file.path(), content, &self.options)?;
        let header = reader.header()?;
        let sources = self.sources(&header)?;
        let mut writer = RowWriter::new(sources.iter().map(|source| source.name));
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        let (mut misfits, mut sorted, mut count) = (Misfits::default(), Sorted::default(), 0_u64);
        while reader.advance()? {
            count += 1;
            let number = count.to_string();
            let row = reader.row(header.len()).and_then(|text| Ok((text, self.id(&sources, &reader, text, &number)?)));
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
                let cell = self.cell(source.ty, reader.field(text, field)?);
                if let Cell::Misfit(text) = cell {
                    misfits.see(source, text);
                }
                write(&mut writer, cell, text, &reader, field);
            }
            let id = Id::from(id);
            let body = match writer.finish() {
                Some(body) => body,
                None => self.encode(&sources, &reader, text, &id)?,
            };
            if !rows.push_body(Arc::clone(&id), body) {
                return Err(self.duplicate(&reader, &id));
            }
        }
        sorted.check()?;
        misfits.report(self.file.path());
        Ok(rows)
    }

    /// The header as it is now against the schema as it was: columns are found by name, new ones are kept as text.
    fn sources<'a>(&'a self, header: &'a [String]) -> Result<Vec<Source<'a>>> {
        let positional = matches!(self.id, IdChoice::RowNumber(_));
        if header.iter().any(|name| name == self.id.column()) == positional {
            let change = if positional { "has now a" } else { "no longer has its" };
            let (path, id) = (self.file.path().display(), self.id.column());
            return Err(Error::permanent(format!(
                "{path} {change} column {id:?}: its header was changed, open it anew"
            )));
        }
        let mut sources: Vec<Source<'_>> = header
            .iter()
            .enumerate()
            .map(|(field, name)| {
                let ty = self.schema.column(name).map_or(ColumnType::String, |column| column.ty);
                Source { name, field: Some(field), ty }
            })
            .collect();
        if positional {
            sources.push(Source { name: self.id.column(), field: None, ty: ColumnType::Integer });
        }
        let rank = |source: &Source<'_>| self.schema.layout().rank(source.name).unwrap_or(usize::MAX);
        sources.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(b.name)));
        Ok(sources)
    }

    /// What identifies the row `text`, which is the file's `number`-th.
    fn id<'t>(&self, sources: &[Source<'_>], reader: &Reader<'_>, text: &'t str, number: &'t str) -> Result<&'t str> {
        let source = sources.iter().find(|source| source.name == self.id.column());
        let Some((source, field)) = source.and_then(|source| Some((source, source.field?))) else { return Ok(number) };
        let id = reader.field(text, field)?;
        match self.cell(source.ty, id) {
            Cell::Null => Err(reader.error(&format!("has no id: column {:?} is empty. {ANOTHER_ID}", source.name))),
            _ => Ok(id),
        }
    }

    fn cell<'t>(&self, ty: ColumnType, text: &'t str) -> Cell<'t> {
        if self.options.null_values.iter().any(|null| null == text) { Cell::Null } else { cell(ty, text) }
    }

    /// The slow way, for rows that JSON does not hold exactly.
    fn encode(&self, sources: &[Source<'_>], reader: &Reader<'_>, text: &str, id: &str) -> Result<Body> {
        let mut record = Record::new();
        for source in sources {
            let value = match source.field {
                None => id_to_value(id, self.schema.layout()),
                Some(field) => match self.cell(source.ty, reader.field(text, field)?) {
                    Cell::Null => CborValue::Null,
                    Cell::Bool(value) => value.into(),
                    Cell::Integer(value) => value.into(),
                    Cell::Float(value) => value.into(),
                    Cell::Text(value) | Cell::Misfit(value) => value.into(),
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
        let mut reader = Reader::new(self.file.path(), &mut content, &self.options)?;
        let header = reader.header()?;
        let sources = self.sources(&header)?;
        while reader.advance()? {
            let text = reader.row(header.len());
            if text.and_then(|text| self.id(&sources, &reader, text, "")).is_ok_and(|own| own == id) {
                return Ok(Some(reader.line()));
            }
        }
        Ok(None)
    }
}

fn write(writer: &mut RowWriter, cell: Cell<'_>, row: &str, reader: &Reader<'_>, field: usize) {
    match cell {
        Cell::Null => writer.value(&CborValue::Null),
        Cell::Bool(value) => writer.value(&value.into()),
        // Integers are accepted in canonical form only, so their digits are their JSON.
        Cell::Integer(_) => writer.integer(reader.field(row, field).unwrap_or_default()),
        Cell::Float(value) => writer.value(&value.into()),
        Cell::Text(text) | Cell::Misfit(text) => writer.text(text),
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
    fn see(&mut self, source: &Source<'_>, text: &str) {
        self.count += 1;
        self.first.get_or_insert_with(|| (source.name.to_string(), text.chars().take(40).collect()));
    }

    fn report(&self, path: &Path) {
        if let Some((column, text)) = &self.first {
            let (path, cells) = (path.display(), self.count);
            tracing::warn!(%path, cells, column, text, "cells do not fit their column's type and are kept as text");
        }
    }
}

/// Records of a CSV file, each checked as it is read.
struct Reader<'a> {
    path: &'a Path,
    dialect: Dialect,
    csv: csv::Reader<Bounded<'a>>,
    record: ByteRecord,
    start: Position,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, content: &'a mut Content, options: &CsvOptions) -> Result<Reader<'a>> {
        let dialect = Dialect::of(content, options.delimiter).map_err(|error| io_error(path, &error))?;
        let bounded = Bounded { content, allowance: 0, refused: false, total: 0, end: END };
        let csv = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(dialect.delimiter)
            .trim(if dialect.padded { Trim::All } else { Trim::None })
            .buffer_capacity(64 << 10)
            .from_reader(bounded);
        Ok(Reader { path, dialect, csv, record: ByteRecord::new(), start: Position::new() })
    }

    /// Says what was understood in a way that not everybody expects.
    fn say_dialect(&self, header: &[String]) {
        let path = self.path.display();
        if self.dialect.padded {
            tracing::warn!(%path, "the header has spaces beside its separators: those around all cells are left out");
        }
        for (at, _) in self.record.iter().enumerate().filter(|(_, name)| name.trim_ascii().is_empty()) {
            tracing::warn!(%path, "column {} has no name in the header: it is called {:?}", at + 1, header[at]);
        }
    }

    /// The column names.
    fn header(&mut self) -> Result<Vec<String>> {
        if !self.read()? {
            return Err(Error::permanent(format!("{} is empty: it has no header line", self.path.display())));
        }
        let text = self.text()?;
        let mut names: Vec<String> = Vec::with_capacity(self.record.len());
        for at in 0..self.record.len() {
            let name = match self.field(text, at)? {
                name if name.trim().is_empty() => format!("column_{}", at + 1),
                name => name.to_string(),
            };
            if let Some(first) = names.iter().position(|own| *own == name) {
                let (first, second) = (first + 1, at + 1);
                return Err(
                    self.error(&format!("calls columns {first} and {second} both {name:?}: rename one of them"))
                );
            }
            names.push(name);
        }
        Ok(names)
    }

    /// Reads the next row; `false` after the last. What fails here is the file, not the row.
    fn advance(&mut self) -> Result<bool> {
        self.read()
    }

    /// The row's fields, all in one, if they are as many as there are columns.
    fn row(&self, columns: usize) -> Result<&str> {
        if self.record.len() != columns {
            let (fields, separator) = (self.record.len(), char::from(self.dialect.delimiter));
            return Err(self.error(&format!(
                "has {fields} fields, the header has {columns}: the first line must name the columns, and a text with \
                 {separator:?} in it must be in double quotes"
            )));
        }
        let text = self.text()?;
        if !text.is_ascii() {
            (0..columns).try_for_each(|at| self.field(text, at).map(drop))?;
        }
        Ok(text)
    }

    /// Leaves the present row out because of `error`, unless the file ends in the middle of it: then it was cut short, and who
    /// knows how much of it is missing.
    fn leave_out(&self, error: Error, sorted: &mut Sorted) -> Result<()> {
        let source = self.csv.get_ref();
        let ended = source.end.len() < END.len() && self.csv.position().byte() >= source.total;
        if ended && !source.content.is_closed() {
            return Err(Error::transient(error.to_string()));
        }
        sorted.bad(error);
        Ok(())
    }

    fn read(&mut self) -> Result<bool> {
        let before = std::mem::replace(&mut self.start, self.csv.position().clone());
        self.csv.get_mut().allowance = MAX_ROW;
        match self.csv.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => {
                self.start = before;
                // A file that was cut off in a text, perhaps.
                return Err(Error::transient(self.error("opens a quote that is never closed").to_string()));
            }
            Err(_) if self.csv.get_ref().refused => {
                return Err(self.error("is larger than 4 MiB: is a quote not closed?"));
            }
            Err(error) => return Err(Error::transient(format!("cannot read {}: {error}", self.path.display()))),
        }
        let source = self.csv.get_ref();
        let at_end = source.end.is_empty() && self.csv.position().byte() >= source.total + END.len() as u64;
        if at_end && self.record.len() == 1 && self.record.as_slice() == &END[1..] {
            return Ok(false);
        }
        if self.record.as_slice().len() > MAX_FIELD {
            if self.record.as_slice().len() > MAX_ROW {
                return Err(self.error("is larger than 4 MiB: is a quote not closed?"));
            }
            if let Some(at) = self.record.iter().position(|field| field.len() > MAX_FIELD) {
                return Err(self.error(&format!("has more than 1 MiB in field {}: is a quote not closed?", at + 1)));
            }
        }
        Ok(true)
    }

    /// The row's fields, all in one.
    fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.record.as_slice()).map_err(|_| self.not_utf8())
    }

    /// A field out of [`Reader::text`].
    fn field<'t>(&self, text: &'t str, at: usize) -> Result<&'t str> {
        let range = self.record.range(at).unwrap_or_default();
        // Halves of one character in two fields are whole only when put together.
        text.get(range).ok_or_else(|| self.not_utf8())
    }

    fn not_utf8(&self) -> Error {
        let path = self.path.display();
        let known = dialect::encoding(self.path);
        self.error(&format!("is not UTF-8. To convert the file: iconv -f {known} -t UTF-8 {path} > utf8.csv"))
    }

    fn error(&self, detail: &str) -> Error {
        Error::permanent(format!("{} line {} {detail}", self.path.display(), self.line()))
    }

    /// The line on which the present row begins. The reader's own position still is before the line feed of a CRLF and
    /// before blank lines, so these are skipped here, in the file, since only errors ask.
    fn line(&self) -> u64 {
        let Ok(mut file) = open_regular(self.path) else { return self.start.line() };
        let mut skipped = 0;
        if file.seek(SeekFrom::Start(self.start.byte())).is_ok() {
            let bytes = std::io::BufReader::new(file).bytes().map_while(std::result::Result::ok);
            skipped = bytes.take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|byte| *byte == b'\n').count();
        }
        self.start.line() + skipped as u64
    }
}

/// A file that gives no more than one row's allowance at a time, and [`END`] at its end.
struct Bounded<'a> {
    content: &'a mut Content,
    allowance: usize,
    refused: bool,
    total: u64,
    end: &'static [u8],
}

impl Read for Bounded<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let room = into.len().min(self.allowance);
        if room == 0 {
            self.refused = true;
            return Err(std::io::Error::other("row too large"));
        }
        let mut read = self.content.read(&mut into[..room])?;
        self.total += read as u64;
        if read == 0 {
            read = self.end.read(&mut into[..room])?;
        }
        self.allowance -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
