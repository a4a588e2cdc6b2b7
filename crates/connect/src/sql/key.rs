//! Ids of rows whose key has several columns: `1,2`.
//!
//! The parts are joined by commas. Commas, backslashes and control characters in a part follow a backslash.

use std::iter::Peekable;
use std::str::Chars;

use diorama_core::vista::{Error, Result};

/// Joins the parts of a key.
pub(crate) fn join<'p>(parts: impl IntoIterator<Item = &'p str>) -> String {
    let mut id = String::new();
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            id.push(',');
        }
        for char in part.chars() {
            if char == ',' || char == '\\' || char.is_control() {
                id.push('\\');
            }
            id.push(char);
        }
    }
    id
}

/// Splits an id into exactly `count` parts; `None` if [`join`] does not produce such an id.
pub(crate) fn split(id: &str, count: usize) -> Option<Vec<String>> {
    let mut chars = id.chars().peekable();
    let mut parts = vec![part(&mut chars)?];
    while chars.next().is_some() {
        parts.push(part(&mut chars)?);
    }
    (parts.len() == count && join(parts.iter().map(String::as_str)) == id).then_some(parts)
}

/// Reads up to the next comma, which is left.
fn part(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut part = String::new();
    while let Some(char) = chars.next_if(|char| *char != ',') {
        part.push(if char == '\\' { chars.next()? } else { char });
    }
    Some(part)
}

/// Chooses the columns that identify a row, as indexes of `columns`: those of `id`, else the first of the unique `keys`, else a
/// column `id`.
///
/// # Errors
/// [`Error::Config`] if there is none.
pub(crate) fn choose(table: &str, columns: &[&str], keys: &[Vec<usize>], id: Option<&str>) -> Result<Vec<usize>> {
    let find = |name: &str| columns.iter().position(|column| *column == name);
    if let Some(id) = id {
        let parts = match find(id) {
            Some(at) => Some(vec![at]),
            None => id.split(',').map(|column| find(column.trim())).collect(),
        };
        let detail = || format!("{table} has no column {id:?} for the id: it has {}", columns.join(", "));
        return parts.ok_or_else(|| Error::Config(detail()));
    }
    if let Some(key) = keys.first() {
        return Ok(key.clone());
    }
    let hint = "set id to the column that identifies the rows, or to several with commas between them";
    match find("id") {
        Some(at) => Ok(vec![at]),
        None => Err(Error::Config(format!("{table} has no primary key, but columns {}: {hint}", columns.join(", ")))),
    }
}

/// Returns a name for the id column of a table whose key has several of its columns.
pub(crate) fn joined_name(columns: &[&str]) -> String {
    let mut name = "id".to_string();
    while columns.contains(&name.as_str()) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_joined_ids_are_split() {
        assert_eq!(join(["1", "a,b", "c\\d", "\n"]), "1,a\\,b,c\\\\d,\\\n");
        assert_eq!(split("1,2", 2), Some(vec!["1".into(), "2".into()]));
        for wrong in ["1", "1,2,3", "1,\\2", "1,2\\", "1,\n"] {
            assert_eq!(split(wrong, 2), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn parts_survive(parts in proptest::collection::vec(any::<String>(), 1..4)) {
            prop_assert_eq!(split(&join(parts.iter().map(String::as_str)), parts.len()), Some(parts));
        }
    }
}
