//! Byte encoding of keys that preserves order and equality.
//!
//! The encoding is prefix-free: keys of several columns are concatenated, and a descending column is encoded by inverting its
//! bytes. All rows with the same value are adjacent.

use num_bigint::BigInt;
use num_traits::{FromPrimitive, ToPrimitive};

use super::{Decimal, IdKey, Key, Number, Repr, TermKey};
use crate::vista::Instant;

/// Byte of a null that sorts before every other cell.
pub(in crate::vista::query) const NULL_FIRST: u8 = 0x00;
/// Byte of a null that sorts after every other cell.
pub(in crate::vista::query) const NULL_LAST: u8 = 0xFF;

impl Key<'_> {
    /// Appends the key's bytes. The first is the kind, see [`Key::kind`].
    pub(in crate::vista::query) fn bytes_into(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        match self {
            Key::Bool(value) => out.push(u8::from(*value)),
            Key::Number(number) => number.bytes_into(out),
            Key::Instant(Instant { seconds, nanos }) => {
                out.extend_from_slice(&(seconds.cast_unsigned() ^ SIGN).to_be_bytes());
                out.extend_from_slice(&nanos.to_be_bytes());
            }
            Key::Uuid(uuid) => out.extend_from_slice(&uuid.to_be_bytes()),
            Key::Text(text) => escape_into(text.as_bytes(), out),
            Key::Bytes(bytes) => escape_into(bytes, out),
            Key::Array(items) => {
                items.iter().for_each(|item| item.bytes_into(out));
                out.push(0);
            }
            Key::Map(members) => {
                for (key, value) in members {
                    key.bytes_into(out);
                    value.bytes_into(out);
                }
                out.push(0);
            }
            Key::Tag(tag, inner) => {
                out.extend_from_slice(&tag.to_be_bytes());
                inner.bytes_into(out);
            }
            Key::Null => {}
        }
    }

    /// First byte of all keys of this kind, in the order of kinds.
    pub(in crate::vista::query) fn kind(&self) -> u8 {
        match self {
            Key::Bool(_) => 1,
            Key::Number(_) => 2,
            Key::Instant(_) => 3,
            Key::Uuid(_) => 4,
            Key::Text(_) => 5,
            Key::Bytes(_) => 6,
            Key::Array(_) => 7,
            Key::Map(_) => 8,
            Key::Tag(..) => 9,
            Key::Null => 10,
        }
    }
}

impl TermKey<'_> {
    /// Appends the cell's bytes in the term's direction, nulls as the term places them.
    pub(in crate::vista::query) fn bytes_into(&self, out: &mut Vec<u8>) {
        match self.null_rank {
            0 => {
                let from = out.len();
                self.key.value.bytes_into(out);
                if self.key.descending {
                    invert(&mut out[from..]);
                }
            }
            rank if rank < 0 => out.push(NULL_FIRST),
            _ => out.push(NULL_LAST),
        }
    }
}

impl IdKey<'_> {
    /// Appends the id's bytes.
    pub(in crate::vista::query) fn bytes_into(&self, descending: bool, out: &mut Vec<u8>) {
        let from = out.len();
        match self {
            IdKey::Number(number) => {
                out.push(1);
                out.extend_from_slice(&(number.cast_unsigned() ^ SIGN).to_be_bytes());
            }
            IdKey::Text(text) => {
                out.push(2);
                escape_into(text.as_bytes(), out);
            }
        }
        if descending {
            invert(&mut out[from..]);
        }
    }
}

const SIGN: u64 = 1 << 63;

fn invert(bytes: &mut [u8]) {
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
}

/// Appends bytes with a terminating zero. The bytes 0 and 1 are escaped as 1, 1 and 1, 2, so that zero occurs at the end only.
fn escape_into(bytes: &[u8], out: &mut Vec<u8>) {
    if memchr::memchr2(0, 1, bytes).is_none() {
        out.extend_from_slice(bytes);
    } else {
        for byte in bytes {
            match byte {
                0 | 1 => out.extend_from_slice(&[1, byte + 1]),
                _ => out.push(*byte),
            }
        }
    }
    out.push(0);
}

impl Number {
    fn bytes_into(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Float(number) => float_into(*number, 0, out),
            Repr::Int(number) => {
                // The next lower float and the difference, which is less than 2^12 for CBOR integers (below 2^65).
                let near = *number as f64;
                let below = if near as i128 > *number { near.next_down() } else { near };
                float_into(below, (*number - below as i128) as u16, out);
            }
            Repr::Decimal(number) => number.bytes_into(out),
            Repr::Big(number) => big_into(number, out),
        }
    }
}

/// Appends the next lower float and the difference, with its length if it is larger than for any CBOR integer.
fn big_into(number: &BigInt, out: &mut Vec<u8>) {
    let near = number.to_f64().unwrap_or(f64::INFINITY).clamp(f64::MIN, f64::MAX);
    let whole = |float: f64| BigInt::from_f64(float).unwrap_or_default();
    let below = if whole(near) > *number { near.next_down() } else { near };
    let more = number - whole(below);
    match u16::try_from(&more) {
        Ok(more) if more < MAX_SHORT => float_into(below, more, out),
        _ => {
            float_into(below, 0, out);
            let (_, more) = more.to_bytes_be();
            // Floats have at most 308 digits, so the length fits.
            let length = u8::try_from(more.len()).unwrap_or(u8::MAX);
            out.truncate(out.len() - 1);
            out.extend_from_slice(&[LONG, length]);
            out.extend_from_slice(&more);
        }
    }
}

/// Exclusive upper bound of a difference that is written without its length.
const MAX_SHORT: u16 = 0x1000;
/// Prefix of a difference with a length; sorts after all those without.
const LONG: u8 = 0x20;

/// Appends a float, then the difference to be added to it.
fn float_into(number: f64, more: u16, out: &mut Vec<u8>) {
    // Adding zero turns -0.0 into 0.0, which it is equal to.
    let bits = (number + 0.0).to_bits();
    let ordered = match (number.is_nan(), bits & SIGN) {
        (true, _) => u64::MAX,
        (false, 0) => bits | SIGN,
        (false, _) => !bits,
    };
    out.extend_from_slice(&ordered.to_be_bytes());
    match more {
        0 => out.push(0),
        more => out.extend_from_slice(&(MAX_SHORT | more).to_be_bytes()),
    }
}

impl Decimal {
    /// Appends the decimal so that it sorts between the floats of negative and positive infinity, which a decimal column may hold
    /// too: both are longer than one sign byte, and begin below and above it.
    fn bytes_into(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.push(0x7F);
        match self.sign() {
            0 => out.push(1),
            sign => {
                let start = out.len();
                out.push(2);
                out.extend_from_slice(&(self.point.cast_unsigned() ^ SIGN).to_be_bytes());
                out.extend_from_slice(self.digits.as_bytes());
                out.push(0);
                if sign < 0 {
                    invert(&mut out[start..]);
                    // Below the 1 of zero.
                    out[start] = 0;
                }
            }
        }
        debug_assert!(out.len() > from + 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::*;
    use crate::vista::query::tests::{collation, value};

    const MOMENTS: [&str; 9] = [
        "2024-01-01",
        "2024-01-01T00:00:00Z",
        "2024-01-01T00:00:00.25Z",
        "2023-12-31T23:30:00-01:00",
        "2024-01-01 00:00:00",
        "1969-12-31T23:59:59.999999999Z",
        "-009999-01-01",
        "2024-02-30",
        "soon",
    ];
    const UUIDS: [&str; 3] = [
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "01890A5D-AC96-774B-BCCE-B302099A8057",
        "01010101-0101-0101-0101-010101010101",
    ];

    const WIDE: [&str; 9] = [
        "18446744073709551616",
        "-18446744073709551617",
        "36893488147419103232",
        "36893488147419103233",
        "36893488147419111425",
        "123456789012345678901234567890",
        "123456789012345678901234567891",
        "-123456789012345678901234567890",
        "1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001",
    ];

    fn any_value() -> impl Strategy<Value = CborValue> {
        let numbers =
            [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 9007199254740992.0, 1.8446744073709552e19];
        let integers = [9007199254740993, i128::from(i64::MAX), i128::from(u64::MAX), -9007199254740993];
        let mut odd: Vec<CborValue> = numbers.into_iter().map(CborValue::from).collect();
        let wide = |number: i128| CborValue::Integer(number.try_into().unwrap());
        odd.extend(integers.into_iter().chain([i128::from(u64::MAX) - 1, -(1 << 64), (1 << 53) + 3]).map(wide));
        odd.extend(
            ["1.50", "1.5", "-0.05", "15e-1", "-1e9", "00", "", "\0", "\u{1}", "\0a", "a\0", "ü"].map(CborValue::from),
        );
        odd.extend(WIDE.map(|digits| crate::record::of_digits(digits).unwrap()));
        odd.extend(MOMENTS.map(CborValue::from));
        odd.extend(UUIDS.map(CborValue::from));
        odd.push(CborValue::Bytes(vec![1; 16]));
        odd.push(CborValue::Tag(1, Box::new(1.into())));
        prop_oneof![value(), prop::sample::select(odd)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn bytes_sort_as_keys_do(
            a in any_value(), b in any_value(), collation in collation(), descending: bool, nulls_first: bool,
        ) {
            let term = |value| TermKey::new(Key::of(value, &collation), descending, nulls_first);
            let bytes = |term: &TermKey<'_>| {
                let mut out = Vec::new();
                term.bytes_into(&mut out);
                out
            };
            let (a, b) = (term(&a), term(&b));
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), a.cmp(&b));
            prop_assert!(a == b || !bytes(&b).starts_with(&bytes(&a)));
        }

        #[test]
        fn bytes_of_ids_sort_as_ids_do(
            a in "[-0-9a\u{0}\u{1}ü]{0,4}", b in "[-0-9a\u{0}\u{1}ü]{0,4}", integer: bool, descending: bool,
        ) {
            let (a, b) = (IdKey::new(a.into(), integer), IdKey::new(b.into(), integer));
            let bytes = |id: &IdKey<'_>| {
                let mut out = Vec::new();
                id.bytes_into(descending, &mut out);
                out
            };
            let order = if descending { b.cmp(&a) } else { a.cmp(&b) };
            prop_assert_eq!(bytes(&a).cmp(&bytes(&b)), order);
        }
    }
}
