//! Rows in answers.

use std::sync::Arc;

use super::client::parse;
use super::pointer;
use crate::file::source::MAX_ROW;
use diorama_core::record::{Body, CborValue, Id, Record, id_from_value};
use diorama_core::vista::{Error, Inferred, Result, Schema};

/// Maximum nesting depth of one value.
const MAX_DEPTH: usize = 64;

/// Parses the answer of `place`.
pub(super) fn document(body: &[u8], place: &str) -> Result<CborValue> {
    parse(body).map_err(|error| {
        let problem = match body.trim_ascii_start() {
            [] => "empty".to_string(),
            [b'<', ..] => "HTML or XML, not JSON".to_string(),
            _ => format!("not valid JSON: {error}"),
        };
        Error::transient(format!("the answer of {place} is {problem}"))
    })
}

/// Returns the rows of a page at a JSON Pointer. A member that is `null` has none.
pub(super) fn rows_at<'v>(document: &'v CborValue, at: &str, place: &str) -> Result<&'v [CborValue]> {
    match pointer::get(document, at) {
        Some(CborValue::Array(rows)) => Ok(rows),
        Some(CborValue::Null) if !matches!(at, "" | "/") => Ok(&[]),
        _ => Err(Error::permanent(format!("the answer of {place} has no array at {at:?} (rows in source)"))),
    }
}

/// Names of members that hold the rows, among other arrays of objects.
const NAMES: [&str; 9] = ["data", "items", "results", "records", "value", "values", "rows", "entries", "objects"];
/// Depth of nested objects that are searched for rows.
const DEPTH: usize = 4;

/// Returns a JSON Pointer to the rows of `document`, with a description of the choice if there is one.
///
/// # Errors
/// If there are none, or several arrays of which none is named as usual: permanent, because this may be the answer of an API that is
/// out of order, and the copy can be served.
pub(super) fn find_rows(document: &CborValue, place: &str) -> Result<(String, Option<Inferred>)> {
    if document.is_array() {
        return Ok((String::new(), None));
    }
    let mut found = Vec::new();
    arrays(document, "", DEPTH, &mut found);
    let filled: Vec<&String> = found.iter().filter(|(_, rows)| *rows > 0).map(|(at, _)| at).collect();
    let all: Vec<&String> = found.iter().map(|(at, _)| at).collect();
    let candidates = if filled.is_empty() { all } else { filled };
    let guess = |at: &String, because: &str| {
        Ok((at.clone(), Some(Inferred::new("rows", at.as_str(), because, "rows in source"))))
    };
    let shallowest = candidates.iter().map(|at| at.matches('/').count()).min();
    let top: Vec<&&String> = candidates.iter().filter(|at| Some(at.matches('/').count()) == shallowest).collect();
    match top.as_slice() {
        [] => Err(Error::permanent(format!("the answer of {place} has no array of objects: set rows in source"))),
        [one] => guess(one, "it is the only array of objects on its level"),
        several => {
            let named = NAMES.iter().find_map(|name| several.iter().find(|at| at.rsplit('/').next() == Some(*name)));
            let names: Vec<String> = several.iter().map(|at| format!("{at:?}")).collect();
            match named {
                Some(at) => guess(at, "it has the usual name"),
                None => Err(Error::permanent(format!(
                    "the answer of {place} has several arrays of objects: set rows in source to one of {}",
                    names.join(", ")
                ))),
            }
        }
    }
}

/// Collects JSON Pointers to arrays of objects, with their lengths.
fn arrays(value: &CborValue, at: &str, depth: usize, found: &mut Vec<(String, usize)>) {
    let CborValue::Map(members) = value else { return };
    for (name, value) in members {
        let Some(name) = name.as_text() else { continue };
        let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        match value {
            CborValue::Array(items) if items.iter().all(CborValue::is_map) => found.push((at, items.len())),
            CborValue::Map(_) if depth > 1 => arrays(value, &at, depth - 1, found),
            _ => {}
        }
    }
}

/// Conversion of an item of a page to a row.
#[derive(Clone, Debug)]
pub(super) struct RowShape {
    /// JSON Pointer to the columns within an item.
    pub(super) cells: Option<String>,
}

impl RowShape {
    /// Returns the row of an item. With a pointer to the columns, other members stay beside them; one whose name is a column's gets
    /// the prefix `_`.
    pub(super) fn record(&self, item: CborValue) -> Result<Record, String> {
        let CborValue::Map(members) = item else { return Err("is not an object".into()) };
        let Some(at) = &self.cells else { return record(members) };
        let top = at.split('/').nth(1).unwrap_or_default().replace("~1", "/").replace("~0", "~");
        let item = CborValue::Map(members);
        let Some(CborValue::Map(cells)) = pointer::get(&item, at).cloned() else {
            return Err(format!("has no object at {at:?} (cells in source)"));
        };
        let mut record = record(cells)?;
        let CborValue::Map(members) = item else { return Ok(record) };
        for (name, value) in members {
            let Some(name) = name.as_text().filter(|name| *name != top) else { continue };
            let name = if record.contains(name) { format!("_{name}") } else { name.to_string() };
            record.insert(name, value);
        }
        Ok(record)
    }
}

fn record(members: Vec<(CborValue, CborValue)>) -> Result<Record, String> {
    let mut record = Record::new();
    for (name, value) in members {
        let CborValue::Text(name) = name else { return Err("has a member without a name".into()) };
        if !is_shallow(&value, MAX_DEPTH) {
            return Err(format!("is nested more than {MAX_DEPTH} deep in {name:?}"));
        }
        record.insert(name, value);
    }
    Ok(record)
}

fn is_shallow(value: &CborValue, depth: usize) -> bool {
    match value {
        CborValue::Array(items) => depth > 0 && items.iter().all(|item| is_shallow(item, depth - 1)),
        CborValue::Map(members) => depth > 0 && members.iter().all(|(_, value)| is_shallow(value, depth - 1)),
        _ => true,
    }
}

/// Returns the id of a row.
pub(super) fn id_of(record: &Record, column: &str) -> Result<String, String> {
    match record.get(column) {
        None | Some(CborValue::Null) => Err(format!("has no id: {column:?} is missing (id in source)")),
        Some(value) => {
            let id = id_from_value(value).filter(|id| !id.is_empty());
            id.ok_or_else(|| format!("has no id: {column:?} is neither text nor an integer (id in source)"))
        }
    }
}

/// Returns the id and the encoded row.
pub(super) fn encode(record: &Record, schema: &Arc<Schema>) -> Result<(Id, Body), String> {
    let id = Id::from(id_of(record, schema.id_column())?);
    let body = Body::encode(&id, record, schema.layout());
    match body.size() > MAX_ROW {
        true => Err("is larger than 4 MiB".into()),
        false => Ok((id, body)),
    }
}
