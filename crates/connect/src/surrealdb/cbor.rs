//! Values of SurrealDB in CBOR: <https://surrealdb.com/docs/reference/protocols/cbor-protocol>.

use diorama_core::record::CborValue;

/// A datetime as RFC 3339 text.
pub(super) const DATETIME_TEXT: u64 = 0;
/// `NONE`: a value that does not exist.
pub(super) const NONE: u64 = 6;
/// Name of a table.
pub(super) const TABLE: u64 = 7;
/// Id of a record: its text, or an array of table and key.
pub(super) const RECORD_ID: u64 = 8;
/// UUID as text.
pub(super) const UUID_TEXT: u64 = 9;
/// Decimal as text.
pub(super) const DECIMAL: u64 = 10;
/// Datetime as seconds and nanoseconds.
pub(super) const DATETIME: u64 = 12;
/// Duration as text.
pub(super) const DURATION_TEXT: u64 = 13;
/// Duration as seconds and nanoseconds, either of which may be left out.
pub(super) const DURATION: u64 = 14;
/// UUID as bytes.
pub(super) const UUID: u64 = 37;
/// Range of two bounds.
pub(super) const RANGE: u64 = 49;
/// Bound that is part of its range.
pub(super) const INCLUDED: u64 = 50;
/// Bound that is not part of its range.
pub(super) const EXCLUDED: u64 = 51;
/// File in a bucket.
pub(super) const FILE: u64 = 55;
/// Set as an array.
pub(super) const SET: u64 = 56;
/// Geometries from point to collection.
pub(super) const GEOMETRIES: std::ops::RangeInclusive<u64> = 88..=94;

/// Returns a tagged value.
pub(super) fn tagged(tag: u64, value: CborValue) -> CborValue {
    CborValue::Tag(tag, Box::new(value))
}

/// Returns `NONE`.
pub(super) fn none() -> CborValue {
    tagged(NONE, CborValue::Null)
}

/// Returns true for `NONE`, and for `NULL`.
pub(super) fn is_nothing(value: &CborValue) -> bool {
    matches!(value, CborValue::Null | CborValue::Tag(NONE, _))
}

/// Returns an object.
pub(super) fn object<const N: usize>(members: [(&str, CborValue); N]) -> CborValue {
    CborValue::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// Returns the member `name` of an object.
pub(super) fn member<'v>(value: &'v CborValue, name: &str) -> Option<&'v CborValue> {
    let found = value.as_map()?.iter().find(|(own, _)| own.as_text() == Some(name));
    found.map(|(_, value)| value).filter(|value| !matches!(value, CborValue::Tag(NONE, _)))
}

/// Returns the text of the member `name`.
pub(super) fn text<'v>(value: &'v CborValue, name: &str) -> Option<&'v str> {
    member(value, name).and_then(CborValue::as_text)
}

/// Returns the number of the member `name`.
pub(super) fn number(value: &CborValue, name: &str) -> Option<u64> {
    member(value, name).and_then(|number| u64::try_from(i128::from(number.as_integer()?)).ok())
}

/// Takes the member `name` out of an object.
pub(super) fn take(value: &mut CborValue, name: &str) -> Option<CborValue> {
    let members = value.as_map_mut()?;
    let at = members.iter().position(|(own, _)| own.as_text() == Some(name))?;
    Some(members.swap_remove(at).1)
}

/// Returns the elements of an array; none of another value.
pub(super) fn items(value: CborValue) -> Vec<CborValue> {
    value.into_array().unwrap_or_default()
}
