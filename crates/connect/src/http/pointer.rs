//! JSON Pointers (RFC 6901) in answers and request bodies. An index below zero counts from the end of an array: `/data/-1/id`.

use diorama_core::record::CborValue;

/// Maximum number of names and indexes of a pointer. Documents that are nested more deeply are refused.
const MOST_STEPS: usize = 64;

/// Checks the form of a pointer. `/` is the whole document, as an empty pointer is.
pub(super) fn check(pointer: &str) -> Result<(), String> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(format!("{pointer:?} is not a JSON Pointer: it must begin with /"));
    }
    match steps(pointer).nth(MOST_STEPS) {
        None => Ok(()),
        Some(_) => Err(format!("the JSON Pointer has more than {MOST_STEPS} steps")),
    }
}

/// Returns the value at `pointer`; `None` if there is none.
pub(super) fn get<'v>(value: &'v CborValue, pointer: &str) -> Option<&'v CborValue> {
    steps(pointer).try_fold(value, |value, step| match value {
        CborValue::Map(members) => members.iter().find(|(key, _)| key.as_text() == Some(&step)).map(|(_, value)| value),
        CborValue::Array(items) => items.get(index(&step, items.len())?),
        _ => None,
    })
}

/// Removes and returns the value at `pointer`; `None` if there is none.
pub(super) fn take(value: CborValue, pointer: &str) -> Option<CborValue> {
    steps(pointer).try_fold(value, |value, step| match value {
        CborValue::Map(members) => {
            members.into_iter().find(|(key, _)| key.as_text() == Some(&step)).map(|(_, value)| value)
        }
        CborValue::Array(items) => {
            let at = index(&step, items.len())?;
            items.into_iter().nth(at)
        }
        _ => None,
    })
}

/// Sets the value at `pointer`, and makes the objects that lead to it. A value on the way that is not an object is replaced by
/// one.
pub(super) fn set(root: &mut CborValue, pointer: &str, value: CborValue) {
    let mut at = root;
    for step in steps(pointer) {
        if !at.is_map() {
            *at = CborValue::Map(Vec::new());
        }
        let CborValue::Map(members) = at else { return };
        let place = members.iter().position(|(key, _)| key.as_text() == Some(&step)).unwrap_or_else(|| {
            members.push((step.as_str().into(), CborValue::Null));
            members.len() - 1
        });
        at = &mut members[place].1;
    }
    *at = value;
}

/// Returns the value as a text for a parameter: a text that is not empty, or a number.
pub(super) fn text(value: &CborValue) -> Option<String> {
    match value {
        CborValue::Text(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        CborValue::Integer(number) => Some(i128::from(*number).to_string()),
        _ => None,
    }
}

/// Returns the names and indexes of a pointer.
pub(super) fn steps(pointer: &str) -> impl Iterator<Item = String> + '_ {
    let pointer = if pointer == "/" { "" } else { pointer };
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
}

fn index(step: &str, length: usize) -> Option<usize> {
    match step.strip_prefix('-') {
        Some(back) => length.checked_sub(back.parse().ok()?),
        None => step.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use diorama_core::record::{JsonLimits, parse_json};

    fn json(text: &str) -> CborValue {
        parse_json(text.as_bytes(), JsonLimits::default()).unwrap()
    }

    #[test]
    fn a_pointer_finds_members_and_elements_also_from_the_end() {
        let value = json(r#"{"data":[{"id":1},{"id":2}],"a/b":{"~":3}}"#);
        assert_eq!(get(&value, "/data/0/id"), Some(&1.into()));
        assert_eq!(get(&value, "/data/-1/id"), Some(&2.into()));
        assert_eq!(get(&value, "/data/-3/id"), None);
        assert_eq!(get(&value, "/a~1b/~0"), Some(&3.into()));
        assert_eq!((get(&value, ""), get(&value, "/")), (Some(&value), Some(&value)));
        assert_eq!(get(&value, "/data/x"), None);
        assert_eq!(take(value, "/data/-1/id"), Some(2.into()));
    }

    #[test]
    fn a_pointer_begins_with_a_slash_and_is_not_deeper_than_documents_are() {
        for fits in ["", "/", "/a", "/a//b", &"/x".repeat(MOST_STEPS)] {
            assert_eq!(check(fits), Ok(()), "{fits}");
        }
        for wrong in ["a", "a/b", &"/x".repeat(MOST_STEPS + 1), &"/".repeat(60_000)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn setting_makes_the_objects_on_the_way() {
        let mut value = json(r#"{"a":{"b":1},"c":5}"#);
        set(&mut value, "/a/d", 2.into());
        set(&mut value, "/c/e", 3.into());
        set(&mut value, "/a/b", CborValue::Null);
        assert_eq!(value, json(r#"{"a":{"b":null,"d":2},"c":{"e":3}}"#));
        set(&mut value, "", 4.into());
        assert_eq!(value, 4.into());
    }
}
