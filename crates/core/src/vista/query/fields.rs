//! Access to the cells of a row: paths, decoded records, and rows that are kept as JSON.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr2, memchr3};

use super::literal::nearest;
use crate::record::{
    Body, BodyRef, CborValue, JsonLimits, Record, id_from_value, of_digits, parse_json, value_to_json,
};
use crate::vista::{ColumnType, Schema};

/// A row whose cells can be read by path.
pub trait Fields {
    /// The value under `path`, `None` if it is missing.
    fn field(&self, path: &Path) -> Option<Cow<'_, CborValue>>;

    /// The row's canonical bytes, `None` if they are not available.
    fn canonical(&self) -> Option<JsonRow<'_>> {
        None
    }
}

/// Path of a value in a row: a column, and optional steps into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    column: String,
    /// Name of the column in canonical JSON, in quotes.
    json_name: Vec<u8>,
    steps: Vec<String>,
    as_text: bool,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        for (at, step) in self.steps.iter().enumerate() {
            let last = self.as_text && at + 1 == self.steps.len();
            write!(f, "{}{step}", if last { "->>" } else { "->" })?;
        }
        Ok(())
    }
}

impl Path {
    /// Path of the column `name`, which may contain any characters.
    pub fn plain(name: &str) -> Path {
        Path {
            column: name.to_string(),
            json_name: value_to_json(&CborValue::Text(name.to_string())),
            steps: Vec::new(),
            as_text: false,
        }
    }

    /// Parses `text`: as a column if `schema` has one with exactly this name, else as a path.
    pub fn resolve(text: &str, schema: &Schema) -> Path {
        if schema.column(text).is_some() {
            return Path::plain(text);
        }
        Path::parse(text).unwrap_or_else(|| Path::plain(text))
    }

    /// [`Path::resolve`] with a check that the column exists.
    ///
    /// # Errors
    /// Returns a message with the column and the existing column with the most similar name.
    pub fn checked(text: &str, schema: &Schema) -> Result<Path, String> {
        let path = Path::resolve(text, schema);
        if schema.column(&path.column).is_some() {
            return Ok(path);
        }
        if text.contains("->") && path.is_plain() {
            return Err(format!("{text:?} is not a valid path: write column->key->>key"));
        }
        let names = schema.columns().iter().map(|column| &*column.name);
        Err(match nearest(&path.column, names) {
            Some(name) => format!("there is no column {:?}; did you mean {name:?}?", path.column),
            None => format!("there is no column {:?}", path.column),
        })
    }

    /// Name of the column.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// True if the path is a column without steps.
    pub fn is_plain(&self) -> bool {
        self.steps.is_empty()
    }

    /// True if the value is converted to text (`->>`).
    pub fn is_text(&self) -> bool {
        self.as_text
    }

    /// Type of the values: the column's type, text after `->>`, any after `->`.
    pub fn column_type(&self, schema: &Schema) -> ColumnType {
        if self.as_text {
            ColumnType::String
        } else if self.is_plain() {
            schema.column(&self.column).map_or(ColumnType::Json, |column| column.ty)
        } else {
            ColumnType::Json
        }
    }

    /// Last name in the path, used as its name in projections.
    pub fn name(&self) -> &str {
        self.steps.iter().rev().find(|step| step.parse::<i64>().is_err()).unwrap_or(&self.column)
    }

    fn parse(text: &str) -> Option<Path> {
        let (column, mut rest) = text.split_once("->")?;
        let mut path = Path::plain(column);
        loop {
            if let Some(tail) = rest.strip_prefix('>') {
                rest = tail;
                path.as_text = true;
            }
            let (step, tail) = rest.split_once("->").map_or((rest, None), |(step, tail)| (step, Some(tail)));
            if step.is_empty() || (path.as_text && tail.is_some()) {
                return None;
            }
            path.steps.push(step.to_string());
            match tail {
                Some(tail) => rest = tail,
                None => return (!column.is_empty()).then_some(path),
            }
        }
    }

    /// Follows the steps into the column's value.
    pub(super) fn walk<'a>(&self, value: Cow<'a, CborValue>) -> Option<Cow<'a, CborValue>> {
        if self.is_plain() {
            return Some(value);
        }
        let found = match value {
            Cow::Borrowed(value) => Cow::Borrowed(self.step_into(value)?),
            Cow::Owned(value) => Cow::Owned(self.step_into(&value)?.clone()),
        };
        if self.as_text && !matches!(&*found, CborValue::Text(_) | CborValue::Null) {
            return Some(Cow::Owned(CborValue::Text(json_string(&found))));
        }
        Some(found)
    }

    fn step_into<'a>(&self, mut value: &'a CborValue) -> Option<&'a CborValue> {
        for step in &self.steps {
            value = match value {
                CborValue::Map(members) => {
                    let found = members.iter().find(|(key, _)| matches!(key, CborValue::Text(key) if key == step));
                    &found?.1
                }
                CborValue::Array(items) => items.get(index(step, items.len())?)?,
                _ => return None,
            };
        }
        Some(value)
    }
}

/// Parses `step` as an index into an array of length `len`; negative ones count from the end.
fn index(step: &str, len: usize) -> Option<usize> {
    let at = step.parse::<isize>().ok()?;
    if at < 0 { len.checked_sub(at.unsigned_abs()) } else { usize::try_from(at).ok() }
}

pub(super) fn json_string(value: &CborValue) -> String {
    String::from_utf8_lossy(&value_to_json(value)).into_owned()
}

impl Fields for Record {
    fn field(&self, path: &Path) -> Option<Cow<'_, CborValue>> {
        path.walk(Cow::Borrowed(self.get(&path.column)?))
    }
}

impl<F: Fields + ?Sized> Fields for &F {
    fn field(&self, path: &Path) -> Option<Cow<'_, CborValue>> {
        (**self).field(path)
    }

    fn canonical(&self) -> Option<JsonRow<'_>> {
        (**self).canonical()
    }
}

impl Fields for Body {
    fn field(&self, path: &Path) -> Option<Cow<'_, CborValue>> {
        JsonRow::from(self).get(path).map(Cow::Owned)
    }

    fn canonical(&self) -> Option<JsonRow<'_>> {
        Some(self.into())
    }
}

impl Fields for BodyRef<'_> {
    fn field(&self, path: &Path) -> Option<Cow<'_, CborValue>> {
        JsonRow::from(*self).get(path).map(Cow::Owned)
    }

    fn canonical(&self) -> Option<JsonRow<'_>> {
        Some((*self).into())
    }
}

/// A row as its canonical bytes: the JSON that this crate wrote, and its CBOR if the JSON is not exact.
///
/// Only requested members are decoded. Bytes that are not a canonical row have no fields.
#[derive(Clone, Copy, Debug)]
pub struct JsonRow<'a>(pub &'a [u8], pub Option<&'a [u8]>);

impl<'a> From<&'a Body> for JsonRow<'a> {
    fn from(body: &'a Body) -> JsonRow<'a> {
        JsonRow(body.json(), body.cbor().map(|cbor| &cbor[..]))
    }
}

impl<'a> From<BodyRef<'a>> for JsonRow<'a> {
    fn from(body: BodyRef<'a>) -> JsonRow<'a> {
        JsonRow(body.json(), body.cbor().map(|cbor| &cbor[..]))
    }
}

impl Fields for JsonRow<'_> {
    fn field(&self, path: &Path) -> Option<Cow<'_, CborValue>> {
        self.get(path).map(Cow::Owned)
    }

    fn canonical(&self) -> Option<JsonRow<'_>> {
        Some(*self)
    }
}

impl<'a> JsonRow<'a> {
    fn get(&self, path: &Path) -> Option<CborValue> {
        let value = match self.1 {
            Some(cbor) => cbor_member(cbor, &path.column)?,
            None => decode(self.member(path)?)?,
        };
        path.walk(Cow::Owned(value)).map(Cow::into_owned)
    }

    /// The id that the cell under `path` holds, as [`id_from_value`] reads it. Most are borrowed from the row.
    pub fn id_at(&self, path: &Path) -> Option<Cow<'a, str>> {
        let decoded = || self.get(path).as_ref().and_then(id_from_value).map(Cow::Owned);
        if self.1.is_some() || !path.is_plain() {
            return decoded();
        }
        let json = std::str::from_utf8(self.member(path)?).ok()?;
        let text = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        match text {
            Some(text) if !text.is_empty() && !text.contains('\\') => Some(Cow::Borrowed(text)),
            Some(_) => decoded(),
            None if json.strip_prefix('-').unwrap_or(json).bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Cow::Borrowed(json))
            }
            None => decoded(),
        }
    }

    /// JSON value of the path's column.
    pub(super) fn member(&self, path: &Path) -> Option<&'a [u8]> {
        self.members().find(|(name, _)| *name == path.json_name).map(|(_, value)| value)
    }

    /// JSON values of those `columns` that the row has, in the order of the row; `None` if JSON does not represent it exactly.
    pub(super) fn values<'c>(&self, columns: &'c [Path]) -> Option<impl Iterator<Item = &'a [u8]> + use<'a, 'c>> {
        // Members are mostly in the order of columns, so the search starts after the last match.
        let mut next = 0;
        let mut is_selected = move |name: &[u8]| {
            let mut indexes = (next..columns.len()).chain(0..next);
            let index = indexes.find(|at| columns[*at].json_name == name);
            next = index.map_or(next, |at| at + 1);
            index.is_some()
        };
        let values = self.members().filter_map(move |(name, value)| is_selected(name).then_some(value));
        self.1.is_none().then_some(values.take(columns.len()))
    }

    /// Iterates over the members: names in quotes, and JSON values.
    pub(in crate::vista) fn members(&self) -> Members<'a> {
        Members { json: self.0, at: 1 }
    }
}

/// Reader of the same members of many rows, which mostly have the same members in the same order.
#[derive(Debug)]
pub(super) struct MemberReader<'p, 'r> {
    /// Names, in quotes, of the members that are read.
    names: Vec<&'p [u8]>,
    /// Members of the last row up to the last one that was read: name with its colon, and number of the name.
    form: Vec<(&'r [u8], Option<usize>)>,
}

impl<'p, 'r> MemberReader<'p, 'r> {
    /// A reader of the columns of `paths`, which have no steps.
    pub(super) fn new(paths: &[&'p Path]) -> MemberReader<'p, 'r> {
        let names = paths.iter().map(|path| &path.json_name[..]).collect();
        MemberReader { names, form: Vec::new() }
    }

    /// Reads the members of a canonical row. Calls `found` with the number of each path whose column the row has, and its JSON value.
    pub(super) fn read(&mut self, json: &'r [u8], mut found: impl FnMut(usize, &'r [u8])) {
        let (mut at, mut read) = (1, 0);
        for (number, (name, column)) in self.form.iter().enumerate() {
            let start = at + name.len();
            let end = json.get(at..start).filter(|same| is_same(same, name)).and_then(|_| value_end(json, start));
            let Some(end) = end else {
                self.form.truncate(number);
                break;
            };
            at = end + 1;
            if let Some(column) = column {
                read += 1;
                found(*column, &json[start..end]);
            }
        }
        if read < self.names.len() {
            self.read_others((json, at), read, found);
        }
    }

    /// Reads the members from a position on where the form ends, after `read` of them.
    fn read_others(&mut self, (json, at): (&'r [u8], usize), mut read: usize, mut found: impl FnMut(usize, &'r [u8])) {
        let mut members = Members { json, at };
        while read < self.names.len() {
            let start = members.at;
            let Some((name, value)) = members.next() else { break };
            let column = self.names.iter().position(|wanted| *wanted == name);
            self.form.push((&json[start..=start + name.len()], column));
            if let Some(column) = column {
                read += 1;
                found(column, value);
            }
        }
    }
}

/// True if two names of the same length are equal. Most are too short for a call of the library's comparison to be worth it.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(a_begin), Some(b_begin), Some(a_end), Some(b_end)) if a.len() <= 16 => {
            a_begin == b_begin && a_end == b_end
        }
        _ => match (a.first_chunk::<4>(), b.first_chunk::<4>(), a.last_chunk::<4>(), b.last_chunk::<4>()) {
            (Some(a_begin), Some(b_begin), Some(a_end), Some(b_end)) if a.len() <= 8 => {
                a_begin == b_begin && a_end == b_end
            }
            _ => a == b,
        },
    }
}

/// Iterator over the members of a canonical row.
#[derive(Debug)]
pub(in crate::vista) struct Members<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name_end = string_end(self.json, self.at)?;
        let value_start = name_end + 1;
        let value_end = value_end(self.json, value_start)?;
        let member = (self.json.get(self.at..name_end)?, self.json.get(value_start..value_end)?);
        self.at = value_end + 1;
        Some(member)
    }
}

/// Position after the string that begins at `start`.
fn string_end(json: &[u8], start: usize) -> Option<usize> {
    if *json.get(start)? != b'"' {
        return None;
    }
    let mut at = start + 1;
    loop {
        at += memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Position after the value that begins at `start`.
fn value_end(json: &[u8], start: usize) -> Option<usize> {
    let (open, close) = match json.get(start)? {
        b'"' => return string_end(json, start),
        b'{' => (b'{', b'}'),
        b'[' => (b'[', b']'),
        // Other values are short.
        _ => return Some(start + json[start..].iter().position(|byte| matches!(byte, b',' | b'}'))?),
    };
    // Brackets of the other kind are balanced inside, so only the outer kind has to be counted.
    let mut depth = 0usize;
    let mut at = start;
    loop {
        at += memchr3(b'"', open, close, json.get(at..)?)?;
        if json[at] == b'"' {
            at = string_end(json, at)?;
            continue;
        }
        depth = if json[at] == open { depth + 1 } else { depth - 1 };
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The text of a canonical JSON value, `None` if it is not a string or has escapes.
pub(super) fn plain_text(json: &[u8]) -> Option<&str> {
    let text = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    memchr::memchr(b'\\', text).is_none().then(|| std::str::from_utf8(text).ok())?
}

/// Decodes one canonical JSON value; scalars without the full parser.
pub(super) fn decode(json: &[u8]) -> Option<CborValue> {
    if let Some(text) = plain_text(json) {
        return Some(CborValue::Text(text.to_string()));
    }
    match json.first()? {
        b'n' => Some(CborValue::Null),
        b't' => Some(CborValue::Bool(true)),
        b'f' => Some(CborValue::Bool(false)),
        b'-' | b'0'..=b'9' => {
            let text = std::str::from_utf8(json).ok()?;
            if let Ok(number) = text.parse::<i64>() {
                return Some(number.into());
            }
            if let Ok(number) = text.parse::<u64>() {
                return Some(number.into());
            }
            of_digits(text).or_else(|| text.parse::<f64>().ok().map(CborValue::from))
        }
        _ => parse_json(json, JsonLimits { nodes: usize::MAX, depth: 120 }).ok(),
    }
}

fn cbor_member(cbor: &[u8], column: &str) -> Option<CborValue> {
    let CborValue::Map(members) = ciborium::from_reader(cbor).ok()? else { return None };
    members.into_iter().find(|(key, _)| matches!(key, CborValue::Text(key) if key == column)).map(|(_, value)| value)
}
