//! The order of values and rows: bool < number < instant < UUID < text < bytes < arrays < maps < tagged. Nulls are separate.

pub(super) mod bytes;

use std::borrow::Cow;
use std::cmp::Ordering;

use num_bigint::BigInt;
use num_traits::FromPrimitive;

use super::Collation;
use crate::record::{CborValue, as_big};
use crate::vista::Instant;

/// Sort key of a cell. Equal keys are equal values: 3 equals 3.0, and the order of a map's members does not matter.
///
/// The order of the variants is the order of kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Key<'a> {
    /// A boolean.
    Bool(bool),
    /// A number in any representation.
    Number(Number),
    /// An instant in a column of dates or times.
    Instant(Instant),
    /// A UUID in a column of UUIDs.
    Uuid(u128),
    /// Text, by code points.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// An array.
    Array(Vec<Key<'a>>),
    /// A map, members in key order.
    Map(Vec<(Key<'a>, Key<'a>)>),
    /// A tagged value.
    Tag(u64, Box<Key<'a>>),
    /// Null (or missing).
    Null,
}

impl<'a> Key<'a> {
    /// Key of `value` in a column with `collation`.
    pub fn of(value: &'a CborValue, collation: &Collation) -> Key<'a> {
        Key::read(value, collation).unwrap_or_else(|| Key::plain(value))
    }

    /// Key of `value` by its own kind, independent of the column.
    pub fn plain(value: &'a CborValue) -> Key<'a> {
        match value {
            CborValue::Bool(value) => Key::Bool(*value),
            CborValue::Integer(number) => Key::Number(Number(Repr::Int(i128::from(*number)))),
            CborValue::Float(number) => Key::Number(Number(Repr::Float(*number))),
            CborValue::Text(text) => Key::Text(Cow::Borrowed(text)),
            CborValue::Bytes(bytes) => Key::Bytes(Cow::Borrowed(bytes)),
            CborValue::Array(items) => Key::Array(items.iter().map(Key::plain).collect()),
            CborValue::Map(members) => {
                let mut members: Vec<_> =
                    members.iter().map(|(key, value)| (Key::plain(key), Key::plain(value))).collect();
                members.sort();
                Key::Map(members)
            }
            CborValue::Tag(tag, inner) => match as_big(value) {
                Some(number) => Key::Number(Number::of_big(number)),
                None => Key::Tag(*tag, Box::new(Key::plain(inner))),
            },
            _ => Key::Null,
        }
    }

    /// Key specific to this collation, `None` for a value that it does not cover.
    fn read(value: &CborValue, collation: &Collation) -> Option<Key<'static>> {
        match (collation, value) {
            (Collation::Plain, _) => None,
            (Collation::Decimal, CborValue::Integer(number)) => Key::decimal(Repr::Int(i128::from(*number))),
            (Collation::Decimal, CborValue::Float(number)) => Key::decimal(Repr::Float(*number)),
            (Collation::Decimal, CborValue::Tag(..)) => {
                as_big(value).and_then(|number| Key::decimal(Repr::Big(Box::new(number))))
            }
            (Collation::Decimal, CborValue::Text(text)) => {
                Some(Key::Number(Number(Repr::Decimal(Box::new(Decimal::parse(text)?)))))
            }
            (Collation::Instant(zone), CborValue::Text(text)) => Instant::of_text(text, zone).map(Key::Instant),
            (Collation::Instant(_), CborValue::Integer(number)) => {
                Instant::of_integer(i128::from(*number)).map(Key::Instant)
            }
            (Collation::Instant(_), CborValue::Float(number)) => Instant::of_float(*number).map(Key::Instant),
            (Collation::Uuid, CborValue::Text(text)) => {
                uuid::Uuid::try_parse(text).ok().map(|uuid| Key::Uuid(uuid.as_u128()))
            }
            (Collation::Uuid, CborValue::Bytes(bytes)) => {
                <[u8; 16]>::try_from(&bytes[..]).ok().map(|bytes| Key::Uuid(u128::from_be_bytes(bytes)))
            }
            _ => None,
        }
    }

    /// [`Key::of`] that reuses an owned text.
    pub(super) fn of_cow(value: Option<Cow<'a, CborValue>>, collation: &Collation) -> Key<'a> {
        match value {
            None => Key::Null,
            Some(Cow::Borrowed(value)) => Key::of(value, collation),
            Some(Cow::Owned(CborValue::Text(text))) if *collation == Collation::Plain => Key::Text(Cow::Owned(text)),
            Some(Cow::Owned(value)) => Key::of(&value, collation).into_owned(),
        }
    }

    /// Converts the key to one that borrows nothing.
    pub fn into_owned(self) -> Key<'static> {
        match self {
            Key::Bool(value) => Key::Bool(value),
            Key::Number(number) => Key::Number(number),
            Key::Instant(moment) => Key::Instant(moment),
            Key::Uuid(uuid) => Key::Uuid(uuid),
            Key::Text(text) => Key::Text(Cow::Owned(text.into_owned())),
            Key::Bytes(bytes) => Key::Bytes(Cow::Owned(bytes.into_owned())),
            Key::Array(items) => Key::Array(items.into_iter().map(Key::into_owned).collect()),
            Key::Map(members) => {
                Key::Map(members.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
            }
            Key::Tag(tag, inner) => Key::Tag(tag, Box::new(inner.into_owned())),
            Key::Null => Key::Null,
        }
    }

    /// Approximate heap memory in bytes.
    pub(super) fn heap(&self) -> usize {
        match self {
            Key::Text(text) => text.len(),
            Key::Bytes(bytes) => bytes.len(),
            Key::Array(items) => items.iter().map(|item| size_of::<Key<'_>>() + item.heap()).sum(),
            Key::Map(members) => {
                members.iter().map(|(key, value)| 2 * size_of::<Key<'_>>() + key.heap() + value.heap()).sum()
            }
            Key::Tag(_, inner) => size_of::<Key<'_>>() + inner.heap(),
            Key::Number(Number(Repr::Decimal(_) | Repr::Big(_))) => 64,
            Key::Bool(_) | Key::Number(_) | Key::Instant(_) | Key::Uuid(_) | Key::Null => 0,
        }
    }

    /// True for null.
    pub fn is_null(&self) -> bool {
        matches!(self, Key::Null)
    }

    /// Order within one kind, `None` across kinds and for null.
    pub(super) fn compare_within_kind(&self, other: &Key<'a>) -> Option<Ordering> {
        let same_kind = std::mem::discriminant(self) == std::mem::discriminant(other);
        (same_kind && !self.is_null()).then(|| self.cmp(other))
    }

    fn decimal(number: Repr) -> Option<Key<'static>> {
        let decimal = Number(number).to_decimal()?;
        Some(Key::Number(Number(Repr::Decimal(Box::new(decimal)))))
    }
}

/// A number that compares exactly with every other; NaN equals itself and is above all others.
#[derive(Clone, Debug)]
pub struct Number(Repr);

/// Representation of a number.
#[derive(Clone, Debug)]
enum Repr {
    Int(i128),
    Float(f64),
    /// Only in decimal columns, where every finite number is converted to this.
    Decimal(Box<Decimal>),
    /// Beyond the range of CBOR integers.
    Big(Box<BigInt>),
}

impl Number {
    /// Order of an integer and this number, in two steps: its order with the whole number, then, for equal ones, the order given.
    /// `None` for numbers that are not integers or floats, and for NaN.
    pub(super) fn steps(&self) -> Option<(i128, Ordering)> {
        match &self.0 {
            Repr::Int(number) => Some((*number, Ordering::Equal)),
            Repr::Float(number) if !number.is_nan() => {
                let whole = number.trunc();
                Some((whole as i128, compare_floats(0.0, number - whole)))
            }
            _ => None,
        }
    }

    /// This number as a float; `None` if it is neither a float nor an integer that a float represents.
    pub(super) fn float(&self) -> Option<f64> {
        /// Greatest integer below which floats represent all integers.
        const EXACT: i128 = 1 << 53;
        match &self.0 {
            Repr::Int(number) if number.abs() <= EXACT => Some(*number as f64),
            Repr::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// Converts to a decimal: exact for integers, the shortest that parses back to the same float for floats. `None` if not finite.
    fn to_decimal(&self) -> Option<Decimal> {
        match &self.0 {
            Repr::Int(number) => Decimal::parse(&number.to_string()),
            Repr::Float(number) if number.is_finite() => Decimal::parse(&format!("{number:?}")),
            Repr::Float(_) => None,
            Repr::Decimal(number) => Some((**number).clone()),
            Repr::Big(number) => Decimal::parse(&number.to_string()),
        }
    }

    fn of_big(number: BigInt) -> Number {
        // Largest absolute value that is kept as an integer.
        const MAX_INT: i128 = 1 << 65;
        match i128::try_from(&number) {
            Ok(number) if (-MAX_INT..=MAX_INT).contains(&number) => Number(Repr::Int(number)),
            _ => Number(Repr::Big(Box::new(number))),
        }
    }
}

/// Compares a big integer exactly. CBOR integers are always nearer to zero, so that the sign decides.
fn compare_big(big: &BigInt, other: &Repr) -> Ordering {
    match other {
        Repr::Big(other) => big.cmp(other),
        Repr::Float(other) => match BigInt::from_f64(*other) {
            // The truncated fraction is less than one, and floats of this size have no fraction.
            Some(whole) => big.cmp(&whole),
            None if *other == f64::NEG_INFINITY => Ordering::Greater,
            None => Ordering::Less,
        },
        _ => big.cmp(&BigInt::ZERO),
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Number) -> Ordering {
        match (&self.0, &other.0) {
            (Repr::Int(a), Repr::Int(b)) => a.cmp(b),
            (Repr::Float(a), Repr::Float(b)) => compare_floats(*a, *b),
            (Repr::Int(a), Repr::Float(b)) => compare_int_with_float(*a, *b),
            (Repr::Float(a), Repr::Int(b)) => compare_int_with_float(*b, *a).reverse(),
            (Repr::Decimal(a), Repr::Decimal(b)) => a.cmp(b),
            (Repr::Big(big), other) if !matches!(other, Repr::Decimal(_)) => compare_big(big, other),
            (other, Repr::Big(big)) if !matches!(other, Repr::Decimal(_)) => compare_big(big, other).reverse(),
            (a, b) => match (self.to_decimal(), other.to_decimal()) {
                (Some(a), Some(b)) => a.cmp(&b),
                _ => compare_floats(non_finite_or_zero(a), non_finite_or_zero(b)),
            },
        }
    }
}

/// The float if it is infinite or NaN, 0 for every finite number.
fn non_finite_or_zero(number: &Repr) -> f64 {
    match number {
        Repr::Float(number) if !number.is_finite() => *number,
        _ => 0.0,
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

/// Order of two floats; NaN equals itself and is above all others.
pub(super) fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn compare_int_with_float(int: i128, float: f64) -> Ordering {
    if float.is_nan() {
        return Ordering::Less;
    }
    // CBOR integers are below 2^65, where the cast of a truncated float is exact; beyond, it saturates in the right direction.
    let whole = float.trunc();
    int.cmp(&(whole as i128)).then_with(|| compare_floats(0.0, float - whole))
}

/// An exact decimal: `0.DIGITS` times ten to the power of `point`. No leading or trailing zeros; no digits for zero.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    point: i64,
    digits: String,
}

impl Decimal {
    fn parse(text: &str) -> Option<Decimal> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        if all().next().is_none() || !all().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits: String = whole.chars().chain(fraction.chars()).collect();
        let significant = digits.trim_start_matches('0');
        let leading = digits.len() - significant.len();
        let significant = significant.trim_end_matches('0');
        if significant.is_empty() {
            return Some(Decimal { negative: false, point: 0, digits: String::new() });
        }
        let point = i64::try_from(whole.len()).ok()? - i64::try_from(leading).ok()? + i64::from(exponent);
        Some(Decimal { negative, point, digits: significant.to_string() })
    }

    fn sign(&self) -> i8 {
        match (self.digits.is_empty(), self.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        }
    }
}

/// True if `text` is a decimal number.
pub(super) fn is_decimal(text: &str) -> bool {
    Decimal::parse(text).is_some()
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let size = || (self.point, &self.digits).cmp(&(other.point, &other.digits));
        self.sign().cmp(&other.sign()).then_with(|| if self.negative { size().reverse() } else { size() })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Sort key of a row, which can be stored and compared without the row.
///
/// Only keys of the same prepared query are comparable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SortKey<'a> {
    terms: Vec<TermKey<'a>>,
    id: Directed<IdKey<'a>>,
}

impl<'a> SortKey<'a> {
    pub(super) fn new(terms: Vec<TermKey<'a>>, id: Cow<'a, str>, integer: bool, descending: bool) -> SortKey<'a> {
        SortKey { terms, id: Directed { descending, value: IdKey::new(id, integer) } }
    }

    /// Keys of the terms.
    pub(super) fn terms(&self) -> &[TermKey<'a>] {
        &self.terms
    }

    /// Order of this key's id and another id.
    pub(super) fn cmp_to_id(&self, id: &str, integer: bool) -> Ordering {
        let order = self.id.value.cmp(&IdKey::new(Cow::Borrowed(id), integer));
        if self.id.descending { order.reverse() } else { order }
    }

    /// Approximate heap memory in bytes.
    pub(super) fn heap(&self) -> usize {
        /// Assumed size of a text id.
        const ID: usize = 32;
        let terms = self.terms.iter().map(|term| size_of::<TermKey<'_>>() + term.key.value.heap());
        ID + terms.sum::<usize>()
    }
}

/// Sort key of one term's cell. The position of nulls does not depend on the direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TermKey<'a> {
    null_rank: i8,
    key: Directed<Key<'a>>,
}

impl<'a> TermKey<'a> {
    pub(super) fn new(key: Key<'a>, descending: bool, nulls_first: bool) -> TermKey<'a> {
        let null_rank = match (key.is_null(), nulls_first) {
            (false, _) => 0,
            (true, true) => -1,
            (true, false) => 1,
        };
        TermKey { null_rank, key: Directed { descending, value: key } }
    }

    pub(super) fn into_owned(self) -> TermKey<'static> {
        let Directed { descending, value } = self.key;
        TermKey { null_rank: self.null_rank, key: Directed { descending, value: value.into_owned() } }
    }
}

/// A value that compares in ascending or descending order; both sides of a comparison have the same direction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Directed<T> {
    descending: bool,
    value: T,
}

impl<T: Ord> Ord for Directed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.value.cmp(&other.value);
        if self.descending { order.reverse() } else { order }
    }
}

impl<T: Ord> PartialOrd for Directed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Sort key of an id, to break ties: in integer columns numbers by value and before all texts, else text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IdKey<'a> {
    Number(i64),
    Text(Cow<'a, str>),
}

impl<'a> IdKey<'a> {
    pub(super) fn new(id: Cow<'a, str>, integer: bool) -> IdKey<'a> {
        // "007" is not the integer 7 but a different id, stored as text.
        let canonical = |id: &str| {
            let digits = id.strip_prefix('-').unwrap_or(id);
            digits == "0" && digits.len() == id.len() || !digits.starts_with(['0', '+'])
        };
        match integer.then(|| id.parse::<i64>()) {
            Some(Ok(number)) if canonical(&id) => IdKey::Number(number),
            _ => IdKey::Text(id),
        }
    }
}
