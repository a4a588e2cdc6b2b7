//! Reader of the records of a CSV file, which checks each record.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, Position, ReaderBuilder, Trim};
use memchr::memmem;

use super::dialect::{self, Declarations, Dialect};
use super::source::CsvOptions;
use crate::file::source::{Content, DecodedRows, MAX_ROW, io_error};
use crate::file::text::{Coding, Text};
use diorama_core::vista::{Error, Inferred, Result};

/// Maximum size of one field in bytes.
const MAX_FIELD: usize = 1 << 20;

/// Sentinel row after the file's last one. If it is not read back as a row, a quote was never closed.
const END: &[u8] = b"\n\x03";

/// Passes the records of a file to `work`, and again as windows-1252 if the bytes are not UTF-8.
pub(super) fn read<T>(
    path: &Path,
    content: &mut Content,
    options: &CsvOptions,
    mut work: impl FnMut(&mut Reader<'_>) -> Result<T>,
) -> Result<T> {
    let io = |error| io_error(path, &error);
    let mut coding = Coding::of(content, super::source::encoding(options)?).map_err(io)?;
    loop {
        let mut reader = Reader::new(path, content, options, coding)?;
        let done = work(&mut reader);
        let western = coding.western().filter(|_| reader.csv.get_ref().text.is_western());
        drop(reader);
        match western {
            Some(western) => coding = western,
            None => return done,
        }
        content.rewind().map_err(io)?;
    }
}

/// Reader of the records in one encoding.
pub(super) struct Reader<'a> {
    path: &'a Path,
    coding: Coding,
    dialect: Dialect,
    csv: csv::Reader<BoundedReader<'a>>,
    record: ByteRecord,
    start: Position,
    /// Indices of the current row's fields that are `""`, computed on first use.
    empty_texts: OnceCell<Vec<usize>>,
    /// Number of names in the header without the empty ones at its end. Fields beyond it may be missing.
    named: usize,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, content: &'a mut Content, options: &CsvOptions, coding: Coding) -> Result<Reader<'a>> {
        let io = |error| io_error(path, &error);
        let mut start = Vec::new();
        Text::new(content, coding).take(dialect::LOOK).read_to_end(&mut start).map_err(io)?;
        content.rewind().map_err(io)?;
        let declared = Declarations { separator: options.delimiter, header: options.header };
        let dialect = Dialect::of(&start, (start.len() as u64) < dialect::LOOK, declared);
        let mut text = Text::new(content, coding);
        std::io::copy(&mut text.by_ref().take(dialect.skipped.0), &mut std::io::sink()).map_err(io)?;
        let csv = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(dialect.delimiter)
            .trim(if dialect.padded { Trim::All } else { Trim::None })
            .buffer_capacity(64 << 10)
            .from_reader(BoundedReader::new(text));
        let (record, start) = (ByteRecord::new(), Position::new());
        Ok(Reader { path, coding, dialect, csv, record, start, empty_texts: OnceCell::new(), named: 0 })
    }

    pub(super) fn separator(&self) -> u8 {
        self.dialect.delimiter
    }

    /// Returns the detected properties that are not declared.
    pub(super) fn inferred(&self, header: &[String]) -> Vec<Inferred> {
        let dialect = &self.dialect;
        let mut found = Vec::new();
        if let Some(because) = &dialect.because {
            let separator = format!("{:?}", char::from(dialect.delimiter));
            found.push(Inferred::new("separator", separator, because, "separator in source"));
        }
        if let Some(because) = self.coding.because {
            let guess = Inferred::new("encoding", self.coding.encoding.name(), because, "encoding in source");
            found.push(if self.coding.western().is_none() && because.contains("not UTF-8") {
                guess.doubtful()
            } else {
                guess
            });
        }
        if let Some(above) = dialect.above {
            let line = (dialect.skipped.1 + 1).to_string();
            found.push(Inferred::new(
                "header",
                format!("line {line}"),
                format!("there are {above} above it"),
                "header in source",
            ));
        }
        if dialect.padded {
            let because = "the header has spaces next to its separators";
            found.push(Inferred::new("spaces", "trimmed from all cells", because, "columns").doubtful());
        }
        let named = self.record.iter().map(|name| name.trim_ascii()).zip(header).enumerate();
        for (at, (own, name)) in named.filter(|(_, (own, name))| *own != name.trim().as_bytes()) {
            let because =
                if own.is_empty() { "has no name in the header" } else { "has the name of an earlier column" };
            let what = format!("name of column {}", at + 1);
            found.push(Inferred::new(what, format!("{name:?}"), format!("the column {because}"), "the file's header"));
        }
        found
    }

    /// Reads the column names. Duplicate and empty names are replaced as pandas does it.
    pub(super) fn header(&mut self) -> Result<Vec<String>> {
        if !self.read()? {
            return Err(Error::permanent(format!("{} is empty: it has no header line", self.path.display())));
        }
        let unnamed = self.record.iter().rev().take_while(|name| name.trim_ascii().is_empty()).count();
        self.named = self.record.len() - unnamed;
        let text = self.text()?;
        let own: Vec<&str> = (0..self.record.len()).map(|at| self.field(text, at)).collect::<Result<_>>()?;
        let mut taken: HashSet<String> = own.iter().map(|name| name.to_string()).collect();
        let (mut seen, mut numbers) = (HashSet::new(), HashMap::new());
        let mut name = |(at, own): (usize, &str)| {
            let is_named = !own.trim().is_empty();
            if is_named && seen.insert(own.to_string()) {
                return own.to_string();
            }
            let stem = if is_named { own.to_string() } else { format!("column_{}", at + 1) };
            if !is_named && taken.insert(stem.clone()) {
                return stem;
            }
            // Numbering continues after the last duplicate: a header may repeat one name in every column.
            let next = numbers.entry(stem.clone()).or_insert(1_usize);
            let mut names = (*next..).map(|number| (number, format!("{stem}.{number}")));
            let (number, name) = names.find(|(_, name)| taken.insert(name.clone())).unwrap_or_default();
            *next = number + 1;
            name
        };
        Ok(own.into_iter().enumerate().map(&mut name).collect())
    }

    /// Reads the next row that is not blank; returns `false` after the last.
    ///
    /// # Errors
    /// A failure of the file, not of the row.
    pub(super) fn advance(&mut self) -> Result<bool> {
        loop {
            if !self.read()? {
                return Ok(false);
            }
            if !self.record.as_slice().is_empty() {
                return Ok(true);
            }
            // Spreadsheets write an empty row as `;;;;;`.
            if !self.dialect.quoted && (0..self.record.len()).any(|at| self.is_empty_text(at)) {
                return Ok(true);
            }
        }
    }

    /// Returns the row's fields as one text if their number matches the columns. Additional empty fields are ignored.
    pub(super) fn row(&self, columns: usize) -> Result<&str> {
        let fits = match self.record.len() {
            own if own > columns => self.record.iter().skip(columns).all(<[u8]>::is_empty),
            own => own == columns || own >= self.named.max(1),
        };
        if !fits {
            let (fields, separator) = (self.record.len(), char::from(self.dialect.delimiter));
            return Err(self.error(&format!(
                "has {fields} fields, but the header has {columns}: the first line must name the columns, and a text that \
                  contains {separator:?} must be in double quotes; otherwise set separator = \";\" or header = LINE in source"
            )));
        }
        let text = self.text()?;
        if !text.is_ascii() {
            (0..columns).try_for_each(|at| self.field(text, at).map(drop))?;
        }
        Ok(text)
    }

    /// Leaves out the current row because of `error`, unless the file ends in the middle of the row: then the file was truncated
    /// and more rows may be missing.
    pub(super) fn leave_out(&self, error: Error, decoded: &mut DecodedRows) -> Result<()> {
        let source = self.csv.get_ref();
        let ended = source.end.len() < END.len() && self.csv.position().byte() >= source.total;
        if ended && !source.text.is_closed() {
            return Err(Error::transient(error.to_string()));
        }
        decoded.bad(error);
        Ok(())
    }

    fn read(&mut self) -> Result<bool> {
        let before = std::mem::replace(&mut self.start, self.csv.position().clone());
        self.empty_texts = OnceCell::new();
        let source = self.csv.get_mut();
        (source.allowance, source.row) = (MAX_ROW, self.start.byte());
        match self.csv.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => {
                self.start = before;
                // The file may have been truncated within a quoted text.
                return Err(Error::transient(self.error("opens a quote that is never closed").to_string()));
            }
            Err(_) if self.csv.get_ref().refused => {
                return Err(self.error("is larger than 4 MiB: check for a quote that is not closed"));
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
                return Err(self.error("is larger than 4 MiB: check for a quote that is not closed"));
            }
            if let Some(at) = self.record.iter().position(|field| field.len() > MAX_FIELD) {
                return Err(self
                    .error(&format!("has more than 1 MiB in field {}: check for a quote that is not closed", at + 1)));
            }
        }
        Ok(true)
    }

    /// Returns the row's fields as one text.
    fn text(&self) -> Result<&str> {
        std::str::from_utf8(self.record.as_slice()).map_err(|_| self.not_utf8())
    }

    /// Returns one field of the text from [`Reader::row`].
    pub(super) fn field<'t>(&self, text: &'t str, at: usize) -> Result<&'t str> {
        let range = self.record.range(at).unwrap_or_default();
        // The bytes of one character split over two fields are valid only when joined.
        text.get(range).ok_or_else(|| self.not_utf8())
    }

    /// Returns true if an empty field is written as `""`, which is a text in files that do not quote everything.
    pub(super) fn is_empty_text(&self, at: usize) -> bool {
        let source = self.csv.get_ref();
        if self.dialect.quoted || !source.has_quotes {
            return false;
        }
        let row = || source.since(self.start.byte(), self.csv.position().byte());
        self.empty_texts.get_or_init(|| empty_texts(row(), self.dialect.delimiter)).binary_search(&at).is_ok()
    }

    fn not_utf8(&self) -> Error {
        let path = self.path.display();
        self.error(&format!(
            "is not valid UTF-8, but other lines are: set encoding = \"windows-1252\" in source, or convert the file: iconv -f \
             WINDOWS-1252 -t UTF-8 {path} > utf8.csv"
        ))
    }

    pub(super) fn error(&self, detail: &str) -> Error {
        Error::permanent(format!("{} line {} {detail}", self.path.display(), self.line()))
    }

    /// Returns the line on which the current row begins. The CSV reader's own position is before the line feed of a CRLF and
    /// before blank lines.
    pub(super) fn line(&self) -> u64 {
        self.dialect.skipped.1 + self.start.line() + self.csv.get_ref().skipped(self.start.byte())
    }
}

/// Returns the indices of the fields of `row`, the raw bytes of the file, that are `""`.
fn empty_texts(row: &[u8], delimiter: u8) -> Vec<usize> {
    let mut found = Vec::new();
    if memmem::find(row, b"\"\"").is_none() {
        return found;
    }
    let blank = row.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let mut rest = &row[blank..];
    let is_end = |byte: &u8| *byte == delimiter || matches!(byte, b'\r' | b'\n');
    for at in 0.. {
        let mut quoted = 0;
        if let Some(text) = rest.strip_prefix(b"\"") {
            let mut bytes = text.iter().enumerate().peekable();
            quoted = rest.len();
            while let Some((end, byte)) = bytes.next() {
                let doubled = *byte == b'"' && bytes.next_if(|(_, next)| **next == b'"').is_some();
                if *byte == b'"' && !doubled {
                    quoted = end + 2;
                    break;
                }
            }
        }
        let end = rest[quoted..].iter().position(is_end).map_or(rest.len(), |end| quoted + end);
        if &rest[..end] == b"\"\"" {
            found.push(at);
        }
        match rest.get(end) {
            Some(byte) if *byte == delimiter => rest = &rest[end + 1..],
            _ => break,
        }
    }
    found
}

/// Reader that yields at most one row's allowance at a time, and [`END`] at the end of the file.
struct BoundedReader<'a> {
    text: Text<'a>,
    /// Number of bytes that the current row may still take.
    allowance: usize,
    /// True if a row was larger than its allowance.
    refused: bool,
    /// Number of bytes read from the file.
    total: u64,
    /// Rest of [`END`], which is read after the file.
    end: &'static [u8],
    /// Offset of the current row.
    row: u64,
    /// The bytes read last, at least those of the current row.
    kept: Vec<u8>,
    /// Offset of the first kept byte.
    from: u64,
    /// True if the bytes read so far have a double quote.
    has_quotes: bool,
}

impl<'a> BoundedReader<'a> {
    fn new(text: Text<'a>) -> BoundedReader<'a> {
        BoundedReader {
            text,
            allowance: 0,
            refused: false,
            total: 0,
            end: END,
            row: 0,
            kept: Vec::new(),
            from: 0,
            has_quotes: false,
        }
    }

    /// Returns the bytes between two positions, as far as they are kept.
    fn since(&self, from: u64, to: u64) -> &[u8] {
        let index = |at: u64| usize::try_from(at.saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.kept.len());
        &self.kept[index(from)..index(to).max(index(from))]
    }

    /// Number of line feeds directly after a position.
    fn skipped(&self, from: u64) -> u64 {
        let ends = self.since(from, u64::MAX).iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        ends.filter(|byte| **byte == b'\n').count() as u64
    }
}

impl Read for BoundedReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let room = into.len().min(self.allowance);
        if room == 0 {
            self.refused = true;
            return Err(std::io::Error::other("row too large"));
        }
        let done = usize::try_from(self.row.saturating_sub(self.from)).unwrap_or(usize::MAX).min(self.kept.len());
        self.kept.drain(..done);
        self.from += done as u64;
        let mut read = self.text.read(&mut into[..room])?;
        self.total += read as u64;
        if read == 0 {
            read = self.end.read(&mut into[..room])?;
        }
        self.kept.extend_from_slice(&into[..read]);
        self.has_quotes |= memchr::memchr(b'"', &into[..read]).is_some();
        self.allowance -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_empty_fields_are_empty_texts() {
        for (row, expected) in [
            (&b"a,,\"\"\r\n"[..], &[2][..]),
            (b"\n\"\",\"\"\n", &[0, 1]),
            (b"\r\n\"a\"\"\",\"\"", &[1]),
            (b"\"\"\"\",\"a,\"\"\n,\",,x\"\",\"\"\n", &[4]),
            (b"\"\"x,1\n", &[]),
            (b",,\n", &[]),
        ] {
            assert_eq!(empty_texts(row, b','), expected, "{:?}", String::from_utf8_lossy(row));
        }
    }
}
