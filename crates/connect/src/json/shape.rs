//! Where the rows are in a document that is one object.

use std::collections::HashSet;
use std::path::Path;

use super::rows::EXPECTED;
use diorama_core::record::{CborValue, id_from_value};
use diorama_core::vista::{Error, Inferred};

/// Objects within objects in which rows are looked for.
const DEPTH: usize = 4;

type Members = Vec<(CborValue, CborValue)>;

/// The rows of a document.
#[derive(Debug)]
pub(super) enum Shape {
    /// Elements as they stand.
    Array(Vec<CborValue>),
    /// Features of GeoJSON.
    Features(Vec<CborValue>),
    /// Members of an object, each a row.
    Named(Members),
    /// Members of an object, each a column whose members are the cells: what pandas writes.
    Columns(Members),
    /// One object, which is the only row.
    One(Members),
}

/// Why a document has no rows.
#[derive(Debug)]
pub(super) enum ShapeError {
    None,
    /// Pointers to arrays of objects.
    Several(Vec<String>),
}

impl ShapeError {
    pub(super) fn error(&self, path: &Path) -> Error {
        let path = path.display();
        match self {
            ShapeError::None => Error::permanent(format!("{path} holds no rows: {EXPECTED}")),
            ShapeError::Several(names) => {
                let names = names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
                Error::Config(format!("{path} has several arrays of objects: set path to one of {names}"))
            }
        }
    }
}

fn guess(value: impl Into<String>, because: &str) -> Inferred {
    Inferred::new("rows", value, because, "path in source")
}

impl Shape {
    /// The rows of `document`, and what is said of that.
    pub(super) fn of(document: CborValue) -> Result<(Shape, Inferred), ShapeError> {
        let CborValue::Map(members) = document else { return Err(ShapeError::None) };
        Shape::within(members, "", DEPTH)
    }

    /// The rows at a JSON pointer (RFC 6901), as they stand.
    pub(super) fn at(mut value: CborValue, pointer: &str) -> Option<Shape> {
        let steps = if pointer.is_empty() { "" } else { pointer.strip_prefix('/')? };
        for step in steps.split('/').filter(|_| !pointer.is_empty()) {
            let step = step.replace("~1", "/").replace("~0", "~");
            value = match value {
                CborValue::Map(members) => members.into_iter().find(|(key, _)| key.as_text() == Some(&step))?.1,
                CborValue::Array(items) => items.into_iter().nth(step.parse().ok()?)?,
                _ => return None,
            };
        }
        match value {
            CborValue::Array(items) => Some(Shape::Array(items)),
            CborValue::Map(members) if members.iter().all(|(_, value)| value.is_map()) => Some(Shape::Named(members)),
            _ => None,
        }
    }

    fn within(mut members: Members, at: &str, depth: usize) -> Result<(Shape, Inferred), ShapeError> {
        if members.is_empty() || depth == 0 {
            return Err(ShapeError::None);
        }
        if let Some(features) = take_features(&mut members) {
            let because = "it is a FeatureCollection: properties are columns, geometry is one";
            return Ok((Shape::Features(features), guess("features", because)));
        }
        let mut arrays = pointers(&members, at, 1);
        let nested = arrays.is_empty();
        if nested && !members.iter().all(|(_, value)| value.is_map()) {
            arrays = pointers(&members, at, DEPTH).into_iter().filter(|(_, rows)| *rows > 1).collect();
        }
        let filled = arrays.iter().filter(|(_, rows)| *rows > 0).count();
        match (arrays.as_slice(), filled) {
            ([], _) => Shape::of_objects(members, at, depth),
            ([_], _) | (_, 1) => {
                let place = arrays.iter().max_by_key(|(_, rows)| *rows).map_or("", |(place, _)| place);
                let own = place.strip_prefix(at).unwrap_or(place);
                let shape = Shape::at(CborValue::Map(members), own).ok_or(ShapeError::None)?;
                Ok((shape, guess(place, "it is the only array of objects")))
            }
            _ if nested => Ok((Shape::One(members), guess("one", "the file is one object"))),
            _ => Err(ShapeError::Several(arrays.into_iter().map(|(place, _)| place).collect())),
        }
    }

    /// The rows of an object without an array of objects.
    fn of_objects(mut members: Members, at: &str, depth: usize) -> Result<(Shape, Inferred), ShapeError> {
        if !members.iter().all(|(_, value)| value.is_map()) {
            return Ok((Shape::One(members), guess("one", "the file is one object")));
        }
        if are_columns(&members) {
            return Ok((Shape::Columns(members), guess("columns", "its members have cells under the same numbers")));
        }
        if let [(CborValue::Text(name), CborValue::Map(inner))] = members.as_mut_slice() {
            let place = format!("{at}/{}", escaped(name));
            let worth = !inner.is_empty() && inner.iter().all(|(_, value)| value.is_map() || value.is_array());
            if worth {
                return Shape::within(std::mem::take(inner), &place, depth - 1);
            }
        }
        Ok((Shape::Named(members), guess("members", "all members are objects: their names identify them")))
    }

    /// The rows, each an object; `key` is the column of their names.
    pub(super) fn into_rows(self, key: Option<&str>) -> Box<dyn Iterator<Item = CborValue> + '_> {
        match self {
            Shape::Array(items) => Box::new(items.into_iter()),
            Shape::Features(items) => Box::new(items.into_iter().map(flatten)),
            Shape::One(members) => Box::new(std::iter::once(CborValue::Map(members))),
            Shape::Columns(columns) => Box::new(transpose(columns)),
            Shape::Named(members) => Box::new(members.into_iter().map(move |(name, value)| match (key, value) {
                (Some(key), CborValue::Map(mut cells)) => {
                    cells.insert(0, (key.into(), name));
                    CborValue::Map(cells)
                }
                (_, value) => value,
            })),
        }
    }
}

/// The column for the names of `members`, each a row; `None` if their `id`s are those names.
pub(super) fn key_column(members: &Members) -> Option<String> {
    let same = |(name, value): &(CborValue, CborValue)| {
        let own = value.as_map().and_then(|cells| cells.iter().find(|(column, _)| column.as_text() == Some("id")));
        own.and_then(|(_, id)| id_from_value(id)).is_some_and(|id| Some(&*id) == name.as_text())
    };
    if !members.is_empty() && members.iter().all(same) {
        return None;
    }
    let columns = members.iter().filter_map(|(_, value)| value.as_map()).flatten();
    let taken: HashSet<&str> = columns.filter_map(|(name, _)| name.as_text()).collect();
    let names = ["id", "key", "name"].map(str::to_string).into_iter();
    names.chain((1..).map(|number| format!("key_{number}"))).find(|name| !taken.contains(name.as_str()))
}

/// Pointers to arrays of objects in `members`, with the numbers of these.
fn pointers(members: &Members, at: &str, depth: usize) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (name, value) in members {
        let Some(name) = name.as_text() else { continue };
        let place = format!("{at}/{}", escaped(name));
        match value {
            CborValue::Array(items) if items.iter().all(CborValue::is_map) => found.push((place, items.len())),
            CborValue::Map(inner) if depth > 1 => found.extend(pointers(inner, &place, depth - 1)),
            _ => {}
        }
    }
    found
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Takes the features out of a FeatureCollection.
fn take_features(members: &mut Members) -> Option<Vec<CborValue>> {
    let is = |(name, value): &(CborValue, CborValue)| {
        name.as_text() == Some("type") && value.as_text() == Some("FeatureCollection")
    };
    members.iter().any(is).then_some(())?;
    let at = members.iter().position(|(name, value)| name.as_text() == Some("features") && value.is_array())?;
    members.swap_remove(at).1.into_array().ok()
}

/// A feature with its properties as members. What has the name of a property gets a `_` before its own.
fn flatten(feature: CborValue) -> CborValue {
    let CborValue::Map(members) = feature else { return feature };
    let (mut properties, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for (name, value) in members {
        match (name.as_text().unwrap_or_default(), value) {
            ("type", _) => {}
            ("properties", CborValue::Map(own)) => properties = own,
            ("properties", _) => {}
            ("id", value) => first.push((name, value)),
            (_, value) => last.push((name, value)),
        }
    }
    let taken = |name: &str| properties.iter().find(|(own, _)| own.as_text() == Some(name)).map(|(_, value)| value);
    let free = |(name, value): (CborValue, CborValue)| match taken(name.as_text().unwrap_or_default()) {
        None => Some((name, value)),
        Some(own) if *own == value => None,
        Some(_) => Some((format!("_{}", name.as_text().unwrap_or_default()).into(), value)),
    };
    let first: Members = first.into_iter().filter_map(free).collect();
    let last: Members = last.into_iter().filter_map(free).collect();
    CborValue::Map(first.into_iter().chain(properties).chain(last).collect())
}

/// Tells whether all members have plain cells under `0`, `1` and so on, as `DataFrame.to_json` writes them.
fn are_columns(members: &Members) -> bool {
    let is_column = |(_, value): &(CborValue, CborValue)| {
        let CborValue::Map(cells) = value else { return false };
        let mut cells = cells.iter().enumerate();
        cells.all(|(at, (name, cell))| !cell.is_map() && name.as_text().is_some_and(|name| name == at.to_string()))
    };
    let length = |member: Option<&(CborValue, CborValue)>| {
        member.and_then(|(_, value)| value.as_map()).map_or(0, |cells| cells.len())
    };
    length(members.first()) > 0
        && members.iter().all(|member| is_column(member) && length(Some(member)) == length(members.first()))
}

fn transpose(columns: Members) -> impl Iterator<Item = CborValue> {
    let mut columns: Vec<_> =
        columns.into_iter().map(|(name, cells)| (name, cells.into_map().unwrap_or_default().into_iter())).collect();
    std::iter::from_fn(move || {
        let cells: Members =
            columns.iter_mut().filter_map(|(name, cells)| Some((name.clone(), cells.next()?.1))).collect();
        (!cells.is_empty()).then_some(CborValue::Map(cells))
    })
}
