//! JSON files: an array of objects, one object per line, or an object that has such an array. Read-only, like CSV.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::file::{Content, MAX_ROW, Sorted, SourceFile, io_error};
use super::infer::{ANOTHER_ID, IdChoice, Kinds, Uniqueness, choose_id};
use super::{apply, declare};
use crate::record::{Body, CborValue, Id, Record, Rows, id_from_value};
use crate::vista::{Capabilities, Column, ColumnType, Error, Query, Result, Schema, TableShell, Vista};

/// Bytes of a file, at most: it is held in memory while it is read.
const MAX_FILE: u64 = 1 << 30;

/// Nesting of one value, at most.
const MAX_DEPTH: usize = 64;

/// How a JSON file is to be understood. The default infers everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// The column that identifies rows, or `#` for the row number; else one named `id` or `<name>_id`, else the first unique
    /// one, else the row number.
    pub id: Option<String>,
    /// JSON pointer (`/features`) to the array of rows in a file that is one object.
    pub path: Option<String>,
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
        Ok(Vista::new(name, json))
    }
}

#[async_trait]
impl TableShell for Json {
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

/// Columns, types and id of a file.
fn learn(vista: &str, file: &Arc<SourceFile>, content: &mut Content, options: &JsonOptions) -> Result<Json> {
    #[derive(Default)]
    struct Learned {
        kinds: Kinds,
        unique: Uniqueness,
        rows: usize,
    }
    let mut learned: IndexMap<String, Learned> = IndexMap::new();
    let (mut count, mut sorted) = (0, Sorted::default());
    each_row(file.path(), content, options.path.as_deref(), &mut |_, record| {
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
                learned.insert(name.clone(), Learned::default());
            }
            let column = &mut learned[&name];
            column.rows += 1;
            column.kinds.see_value(&value);
            column.unique.see(id_from_value(&value).as_deref());
        }
        Ok(())
    })?;
    sorted.check()?;
    let found = learned
        .iter()
        .map(|(name, column)| Column::new(name.as_str(), column.kinds.column_type(ColumnType::Json)))
        .collect();
    let mut columns = declare(vista, found, &options.columns)?;
    let unique = |name: &str| learned.get(name).is_some_and(|column| column.rows == count && column.unique.holds());
    let id = choose_id(vista, options.id.as_deref(), &columns, unique)?;
    if let IdChoice::RowNumber(name) = &id {
        columns.insert(0, Column::new(name.as_str(), ColumnType::Integer));
    }
    let schema = Arc::new(Schema::new(id.column(), columns));
    Ok(Json(Arc::new(Inner { file: Arc::clone(file), options: options.clone(), schema, id })))
}

impl Inner {
    fn read(&self, content: &mut Content) -> Result<Rows> {
        let mut rows = Rows::with_layout(Arc::clone(self.schema.layout()));
        let (mut places, mut sorted, mut count) = (Vec::new(), Sorted::default(), 0);
        each_row(self.file.path(), content, self.options.path.as_deref(), &mut |place, record| {
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
    fn encode(&self, place: Place, number: usize, mut record: Record) -> Result<(Id, Body)> {
        let id = Id::from(self.id_of(place, number, &mut record)?);
        let body = Body::encode(&id, &record, self.schema.layout());
        match body.size() > MAX_ROW {
            true => Err(self.error(place, "is larger than 4 MiB")),
            false => Ok((id, body)),
        }
    }

    fn id_of(&self, place: Place, number: usize, record: &mut Record) -> Result<String> {
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

    fn error(&self, place: Place, detail: &str) -> Error {
        row_error(self.file.path(), place, detail)
    }
}

fn row_error(path: &Path, place: Place, detail: &str) -> Error {
    Error::permanent(format!("{} {place} {detail}", path.display()))
}

/// Where a row stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In an array, counted from 0.
    Index(usize),
    /// On a line, counted from 1.
    Line(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Index(at) => write!(f, "[{at}]"),
            Place::Line(line) => write!(f, "line {line}"),
        }
    }
}

type Sink<'a> = &'a mut dyn FnMut(Place, Result<Record>) -> Result<()>;

/// Gives every row of a file to `sink`, or what is wrong with it, whatever shape the file has.
fn each_row(path: &Path, content: &mut Content, pointer: Option<&str>, sink: Sink<'_>) -> Result<()> {
    let mut bytes = Vec::new();
    content.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| io_error(path, &error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::permanent(format!("{} is larger than 1 GiB", path.display())));
    }
    let json = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let lines = path.extension().is_some_and(|end| end == "ndjson" || end == "jsonl");
    let first = json.iter().find(|byte| !byte.is_ascii_whitespace());
    let many = lines || first == Some(&b'{') && is_many(json);
    if pointer.is_some() || !many {
        // A document that is cut off is not valid.
        content.set_framed();
    }
    match first {
        _ if pointer.is_some() => from_document(path, json, pointer, sink),
        _ if many => from_lines(path, json, sink),
        Some(b'[') => from_array(path, json, sink),
        Some(b'{') => from_document(path, json, None, sink),
        Some(_) => Err(Error::permanent(format!("{} holds no rows: {}", path.display(), EXPECTED))),
        None => Err(Error::permanent(format!("{} is empty: {}", path.display(), EXPECTED))),
    }
}

const EXPECTED: &str = "an array of objects, one object per line, or an object with an array of objects is expected";

/// Whether a value is followed by another: lines, not one document.
fn is_many(json: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    values.next().is_some_and(|first| first.is_ok()) && values.next().is_some()
}

fn from_lines(path: &Path, json: &[u8], sink: Sink<'_>) -> Result<()> {
    for (at, line) in json.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = Place::Line(at + 1);
        let wrong = |error: &serde_json::Error| {
            // The error's own line is always 1 here.
            let text = error.to_string();
            let (what, _) = text.split_once(" at line ").unwrap_or((&text, ""));
            row_error(path, place, &format!("column {}: {what}", error.column()))
        };
        let end = line.as_ptr_range().end == json.as_ptr_range().end;
        match serde_json::from_slice(line) {
            Ok(value) => sink(place, to_record(path, place, value))?,
            // The file ends in the middle of it: it was cut short.
            Err(error) if error.is_eof() && end => return Err(Error::transient(wrong(&error).to_string())),
            Err(error) => sink(place, Err(wrong(&error)))?,
        }
    }
    Ok(())
}

/// Streams the elements: only one row is held as a tree at a time.
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
                let place = Place::Index(at);
                if let Err(error) = (self.sink)(place, to_record(self.path, place, value)) {
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

fn from_document(path: &Path, json: &[u8], pointer: Option<&str>, sink: Sink<'_>) -> Result<()> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let document = CborValue::deserialize(&mut reader).map_err(|error| syntax_error(path, &error))?;
    reader.end().map_err(|error| syntax_error(path, &error))?;
    let rows = match pointer {
        Some(pointer) => point(document, pointer)
            .ok_or_else(|| Error::Config(format!("{} has no array at {pointer:?}", path.display())))?,
        None => only_array(path, document)?,
    };
    for (at, value) in rows.into_iter().enumerate() {
        let place = Place::Index(at);
        sink(place, to_record(path, place, value))?;
    }
    Ok(())
}

/// RFC 6901.
fn point(mut value: CborValue, pointer: &str) -> Option<Vec<CborValue>> {
    let steps = if pointer.is_empty() { "" } else { pointer.strip_prefix('/')? };
    for step in steps.split('/').filter(|_| !pointer.is_empty()) {
        let step = step.replace("~1", "/").replace("~0", "~");
        value = match value {
            CborValue::Map(members) => members.into_iter().find(|(key, _)| key.as_text() == Some(&step))?.1,
            CborValue::Array(items) => items.into_iter().nth(step.parse().ok()?)?,
            _ => return None,
        };
    }
    value.into_array().ok()
}

fn only_array(path: &Path, document: CborValue) -> Result<Vec<CborValue>> {
    let members = document.into_map().unwrap_or_default();
    let mut arrays: Vec<(String, Vec<CborValue>)> = members
        .into_iter()
        .filter_map(|(key, value)| Some((key.into_text().ok()?, value.into_array().ok()?)))
        .filter(|(_, items)| items.iter().all(CborValue::is_map))
        .collect();
    match (arrays.pop(), arrays.as_slice()) {
        (Some((_, rows)), []) => Ok(rows),
        (None, _) => Err(Error::permanent(format!("{} holds no rows: {EXPECTED}", path.display()))),
        (Some((last, _)), others) => {
            let names = others.iter().map(|(name, _)| name.as_str()).chain([last.as_str()]);
            let names = names.map(|name| format!("\"/{name}\"")).collect::<Vec<_>>().join(", ");
            Err(Error::Config(format!("{} has several arrays of objects: set path to one of {names}", path.display())))
        }
    }
}

fn to_record(path: &Path, place: Place, value: CborValue) -> Result<Record> {
    let CborValue::Map(members) = value else { return Err(row_error(path, place, "is not an object")) };
    let mut record = Record::new();
    for (key, value) in members {
        let CborValue::Text(key) = key else { return Err(row_error(path, place, "has a member without a name")) };
        if record.contains(&key) {
            return Err(row_error(path, place, &format!("has member {key:?} twice")));
        }
        if !is_shallow(&value, MAX_DEPTH) {
            return Err(row_error(path, place, &format!("is nested more than {MAX_DEPTH} deep in {key:?}")));
        }
        record.insert(key, value);
    }
    Ok(record)
}

/// Deeper rows could be stored but not read back.
fn is_shallow(value: &CborValue, depth: usize) -> bool {
    match value {
        CborValue::Array(items) => depth > 0 && items.iter().all(|item| is_shallow(item, depth - 1)),
        CborValue::Map(members) => depth > 0 && members.iter().all(|(_, value)| is_shallow(value, depth - 1)),
        _ => true,
    }
}

fn syntax_error(path: &Path, error: &serde_json::Error) -> Error {
    let message = format!("{} is not valid JSON: {error}", path.display());
    // The rest of it may come yet.
    if error.is_eof() { Error::transient(message) } else { Error::permanent(message) }
}

#[cfg(test)]
mod tests;
