//! Iteration over the rows of a JSON file of any shape.

use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::shape::{self, Shape};
use super::source::JsonOptions;
use crate::file::source::{Content, io_error};
use crate::file::text::{Coding, Text};
use diorama_core::record::{CborValue, Record, marked, unmark};
use diorama_core::vista::{Error, Inferred, Result};

/// Maximum size of a file in bytes: it is held in memory while it is read.
const MAX_FILE: u64 = 1 << 30;

/// Maximum nesting depth of one value.
const MAX_DEPTH: usize = 64;

pub(super) const EXPECTED: &str =
    "expected an array of objects, one object per line, objects by name, or an object with an array of objects";

/// Position of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowPosition {
    /// Index in an array, from 0.
    Index(usize),
    /// Line number, from 1.
    Line(usize),
}

impl fmt::Display for RowPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RowPosition::Index(at) => write!(f, "[{at}]"),
            RowPosition::Line(line) => write!(f, "line {line}"),
        }
    }
}

pub(super) fn row_error(path: &Path, position: RowPosition, detail: &str) -> Error {
    Error::permanent(format!("{} {position} {detail}", path.display()))
}

pub(super) type Sink<'a> = &'a mut dyn FnMut(RowPosition, Result<Record>) -> Result<()>;

/// Inferred properties of a file.
#[derive(Debug, Default)]
pub(super) struct FileSummary {
    /// Column for the names of the members if each member is a row.
    pub(super) key: Option<String>,
    pub(super) inferred: Vec<Inferred>,
}

/// Passes every row of a file, or the error of that row, to `sink`. `key` is the column for the names of members that an earlier
/// reading chose.
pub(super) fn each_row(
    path: &Path,
    content: &mut Content,
    options: &JsonOptions,
    key: Option<&str>,
    sink: Sink<'_>,
) -> Result<FileSummary> {
    let (bytes, coding) = load(path, content, options)?;
    let mut found = FileSummary::default();
    if let Some(because) = coding.because {
        found.inferred.push(Inferred::new("encoding", coding.encoding.name(), because, "encoding in source"));
    }
    let pointer = options.path.as_deref();
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let marked = marked(json).map_err(|error| Error::permanent(format!("{}: {error}", path.display())))?;
    let json = marked.as_deref().unwrap_or(json);
    let has_marks = marked.is_some();
    let mut unmarking = |position, row: Result<Record>| match row {
        Ok(mut row) if has_marks => {
            row.values_mut().for_each(unmark);
            sink(position, Ok(row))
        }
        row => sink(position, row),
    };
    let sink: Sink<'_> = &mut unmarking;
    let first = json.iter().find(|byte| !byte.is_ascii_whitespace());
    let many = has_lines(path) || first == Some(&b'{') && is_many(json);
    if pointer.is_some() || !many {
        // A truncated document is invalid, so its end is always marked.
        content.set_framed();
    }
    match first {
        _ if pointer.is_some() => from_document(path, json, pointer, key, &mut found, sink)?,
        _ if many => from_lines(path, json, sink)?,
        Some(b'[') => from_array(path, json, sink)?,
        Some(b'{') => from_document(path, json, None, key, &mut found, sink)?,
        Some(_) => return Err(Error::permanent(format!("{} holds no rows: {}", path.display(), EXPECTED))),
        None => return Err(Error::permanent(format!("{} is empty: {}", path.display(), EXPECTED))),
    }
    Ok(found)
}

/// Reads the whole text of a file.
fn load(path: &Path, content: &mut Content, options: &JsonOptions) -> Result<(Vec<u8>, Coding)> {
    let io = |error| io_error(path, &error);
    let mut coding = Coding::of(content, options.encoding()?).map_err(io)?;
    loop {
        let mut bytes = Vec::new();
        let mut text = Text::new(content, coding);
        text.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(Error::permanent(format!("{} is larger than 1 GiB", path.display())));
        }
        let western = coding.western().filter(|_| text.is_western());
        drop(text);
        match western {
            Some(western) => coding = western,
            None => return Ok((bytes, coding)),
        }
        content.rewind().map_err(io)?;
    }
}

/// Returns true if the file has an extension of files with one value per line.
fn has_lines(path: &Path) -> bool {
    let stem = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let stem = [".gz", ".zst"].iter().find_map(|end| stem.strip_suffix(end)).unwrap_or(&stem);
    stem.ends_with(".ndjson") || stem.ends_with(".jsonl")
}

/// Returns true if a value is followed by another: lines instead of one document.
fn is_many(json: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    values.next().is_some_and(|first| first.is_ok()) && values.next().is_some()
}

fn from_lines(path: &Path, json: &[u8], sink: Sink<'_>) -> Result<()> {
    for (at, line) in json.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let position = RowPosition::Line(at + 1);
        let wrong = |error: &serde_json::Error| {
            // The error's own line is always 1 here.
            let text = error.to_string();
            let (what, _) = text.split_once(" at line ").unwrap_or((&text, ""));
            row_error(path, position, &format!("column {}: {what}", error.column()))
        };
        let end = line.as_ptr_range().end == json.as_ptr_range().end;
        match serde_json::from_slice(line) {
            Ok(value) => sink(position, to_record(path, position, value))?,
            // The file ends in the middle of a value: it was truncated.
            Err(error) if error.is_eof() && end => return Err(Error::transient(wrong(&error).to_string())),
            Err(error) => sink(position, Err(wrong(&error)))?,
        }
    }
    Ok(())
}

/// Streams the elements of an array, so that only one row is held as a tree at a time.
fn from_array(path: &Path, json: &[u8], sink: Sink<'_>) -> Result<()> {
    struct Elements<'a> {
        path: &'a Path,
        sink: Sink<'a>,
        refused: &'a mut Option<Error>,
    }
    impl<'de> Visitor<'de> for Elements<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
            let mut at = 0;
            while let Some(value) = seq.next_element::<CborValue>()? {
                let position = RowPosition::Index(at);
                if let Err(error) = (self.sink)(position, to_record(self.path, position, value)) {
                    *self.refused = Some(error);
                    return Err(serde::de::Error::custom("refused"));
                }
                at += 1;
            }
            Ok(())
        }
    }
    let mut refused = None;
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = reader.deserialize_seq(Elements { path, sink, refused: &mut refused }).and_then(|()| reader.end());
    match (refused, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(syntax_error(path, &error)),
        (None, Ok(())) => Ok(()),
    }
}

fn from_document(
    path: &Path,
    json: &[u8],
    pointer: Option<&str>,
    key: Option<&str>,
    found: &mut FileSummary,
    sink: Sink<'_>,
) -> Result<()> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let document = CborValue::deserialize(&mut reader).map_err(|error| syntax_error(path, &error))?;
    reader.end().map_err(|error| syntax_error(path, &error))?;
    let shape = match pointer {
        Some(pointer) => Shape::at(document, pointer)
            .ok_or_else(|| Error::Config(format!("{} has no array at {pointer:?}", path.display())))?,
        None => {
            let (shape, guess) = Shape::of(document).map_err(|refused| refused.error(path))?;
            found.inferred.push(guess);
            shape
        }
    };
    if let Shape::Named(members) = &shape {
        found.key = key.map(str::to_string).or_else(|| shape::key_column(members));
    }
    let key = found.key.as_deref();
    for (at, value) in shape.into_rows(key).enumerate() {
        let position = RowPosition::Index(at);
        sink(position, to_record(path, position, value))?;
    }
    Ok(())
}

fn to_record(path: &Path, position: RowPosition, value: CborValue) -> Result<Record> {
    let CborValue::Map(members) = value else { return Err(row_error(path, position, "is not an object")) };
    let mut record = Record::new();
    for (key, value) in members {
        let CborValue::Text(key) = key else { return Err(row_error(path, position, "has a member without a name")) };
        if record.contains(&key) {
            return Err(row_error(path, position, &format!("has member {key:?} twice")));
        }
        if !is_shallow(&value, MAX_DEPTH) {
            return Err(row_error(path, position, &format!("is nested more than {MAX_DEPTH} deep in {key:?}")));
        }
        record.insert(key, value);
    }
    Ok(record)
}

/// Returns true if a value is nested no more than `depth` levels deep. Deeper rows could be stored but not read back.
fn is_shallow(value: &CborValue, depth: usize) -> bool {
    match value {
        CborValue::Array(items) => depth > 0 && items.iter().all(|item| is_shallow(item, depth - 1)),
        CborValue::Map(members) => depth > 0 && members.iter().all(|(_, value)| is_shallow(value, depth - 1)),
        _ => true,
    }
}

fn syntax_error(path: &Path, error: &serde_json::Error) -> Error {
    let message = format!("{} is not valid JSON: {error}", path.display());
    // The rest of the file may still be written.
    if error.is_eof() { Error::transient(message) } else { Error::permanent(message) }
}
