//! Collations: comparison rules of columns, shared by filters, orders, indexes, groups and cursors.

use jiff::tz::TimeZone;

use super::fields::Path;
use crate::vista::{Column, ColumnType, Schema};

/// Comparison rule for the cells of one column.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Collation {
    /// Cells compare by their own kind: numbers by value, text by code points.
    Plain,
    /// Text that spells a decimal compares exactly as that number.
    Decimal,
    /// Text and numbers that spell an instant compare as that instant; text without an offset is in this zone.
    Instant(TimeZone),
    /// Text that spells a UUID compares as its 128 bits.
    Uuid,
}

impl Collation {
    /// The collation of a column.
    pub fn of(column: &Column) -> Collation {
        match column.ty {
            ColumnType::Decimal => Collation::Decimal,
            ColumnType::Date | ColumnType::Datetime => Collation::Instant(column.zone()),
            ColumnType::Uuid => Collation::Uuid,
            _ => Collation::Plain,
        }
    }

    /// The collation of the values under `path`; [`Collation::Plain`] for values inside of a column.
    pub(super) fn at(path: &Path, schema: &Schema) -> Collation {
        let column = schema.column(path.column()).filter(|_| path.is_plain() && !path.is_text());
        column.map_or(Collation::Plain, Collation::of)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use jiff::Timestamp;
    use jiff::tz::Offset;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;
    use crate::record::{CborValue, of_digits};
    use crate::vista::query::compare::Key;

    /// Order of two cells as keys, and as the bytes of an index.
    fn compared(a: &CborValue, b: &CborValue, collation: &Collation) -> (Ordering, Ordering) {
        let bytes = |key: &Key<'_>| {
            let mut out = Vec::new();
            key.bytes_into(&mut out);
            out
        };
        let (a, b) = (Key::of(a, collation), Key::of(b, collation));
        (a.cmp(&b), bytes(&a).cmp(&bytes(&b)))
    }

    /// An instant in one of its notations, and its nanoseconds since 1970 as the reference.
    fn moment() -> impl Strategy<Value = (CborValue, i128)> {
        let parts = (-62_000_000_000i64..253_000_000_000, 0i64..4, -14 * 60i32..14 * 60, 0u8..5);
        parts.prop_map(|(seconds, quarters, minutes, form)| {
            let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(quarters) * 250_000_000;
            let at = Timestamp::from_nanosecond(nanos).unwrap();
            let written = match form {
                0 => at.to_string().into(),
                1 => at.display_with_offset(Offset::from_seconds(minutes * 60).unwrap()).to_string().into(),
                2 => Offset::UTC.to_datetime(at).to_string().replace('T', " ").into(),
                3 if quarters == 0 && seconds.abs() < 90_000_000_000 => seconds.into(),
                _ => at.to_string().to_lowercase().into(),
            };
            (written, nanos)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
                fn instants_sort_as_nanoseconds_do(a in moment(), b in moment(), near in 0i128..3) {
            let expected = a.1.cmp(&b.1);
            let collation = Collation::Instant(TimeZone::UTC);
            prop_assert_eq!(compared(&a.0, &b.0, &collation), (expected, expected));
            let later = Timestamp::from_nanosecond(a.1 + near).unwrap().to_string().into();
            let expected = 0.cmp(&near);
            prop_assert_eq!(compared(&a.0, &later, &collation), (expected, expected));
        }

        #[test]
        fn uuids_sort_as_their_bits_do(a: u128, b: u128, forms in 0u8..4) {
            let written = |bits: u128, form: bool| {
                let uuid = uuid::Uuid::from_u128(bits);
                CborValue::from(if form { uuid.to_string().to_uppercase() } else { uuid.simple().to_string() })
            };
            let (one, other) = (written(a, forms & 1 == 0), written(b, forms & 2 == 0));
            prop_assert_eq!(compared(&one, &other, &Collation::Uuid), (a.cmp(&b), a.cmp(&b)));
            prop_assert_eq!(compared(&written(a, true), &written(a, false), &Collation::Uuid), (Ordering::Equal, Ordering::Equal));
        }

        #[test]
        fn decimals_sort_as_scaled_integers_do(a in -9_999_999i64..9_999_999, b in -9_999_999i64..9_999_999, form: bool) {
                        // Thousandths, with or without trailing zeros.
            let written = |thousandths: i64, long: bool| {
                let (sign, size) = (if thousandths < 0 { "-" } else { "" }, thousandths.unsigned_abs());
                let text = format!("{sign}{}.{:03}", size / 1_000, size % 1_000);
                CborValue::from(if long { format!("{text}000") } else { text.trim_end_matches('0').trim_end_matches('.').to_string() })
            };
            prop_assert_eq!(compared(&written(a, form), &written(b, !form), &Collation::Decimal), (a.cmp(&b), a.cmp(&b)));
        }

        #[test]
        fn integers_of_any_size_sort_as_themselves(
            a in "-?[1-9][0-9]{0,45}", b in "-?[1-9][0-9]{0,45}", near in -3i64..4, decimal: bool,
        ) {
            let collation = if decimal { Collation::Decimal } else { Collation::Plain };
            let (one, other): (BigInt, BigInt) = (a.parse().unwrap(), b.parse().unwrap());
            let value = |number: &BigInt| of_digits(&number.to_string()).unwrap();
            let expected = one.cmp(&other);
            prop_assert_eq!(compared(&value(&one), &value(&other), &collation), (expected, expected));
            let neighbour = &one + near;
            let expected = one.cmp(&neighbour);
            prop_assert_eq!(compared(&value(&one), &value(&neighbour), &collation), (expected, expected));
        }

        #[test]
                fn floats_sort_between_integers_by_exact_value(number in "-?[1-9][0-9]{17,40}") {
            let integer: BigInt = number.parse().unwrap();
            let float: f64 = number.parse().unwrap();
            let whole: BigInt = format!("{float:.0}").parse().unwrap();
            let expected = integer.cmp(&whole);
            let value = of_digits(&number).unwrap();
            prop_assert_eq!(compared(&value, &float.into(), &Collation::Plain), (expected, expected));
        }
    }
}
