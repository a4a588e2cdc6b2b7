//! Values in the binary log, each of which becomes the same cell as in a list.
//!
//! Formats: MySQL source documentation, "Table_map_event" and "Rows_event"; MariaDB documentation, "Rows_event_v1".

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mysql_async::Value;
use mysql_async::consts::ColumnType as WireType;

use super::table::Field;
use super::value::Codec;
use diorama_core::record::CborValue;

/// Number of digits in one group of a decimal number, and of the bytes for fewer digits.
const GROUP: usize = 9;
const GROUP_BYTES: [usize; GROUP + 1] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Form of a column's values in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Bytes of a number, the lowest first.
    Integer(usize),
    Float,
    Double,
    Decimal {
        digits: usize,
        scale: usize,
    },
    Year,
    Date,
    /// With the number of bytes of the fraction of a second.
    Time(usize),
    DateTime(usize),
    Timestamp(usize),
    Bits(usize),
    /// The number of an enum's word.
    Word(usize),
    /// The bits of a set's words.
    Words(usize),
    /// Text or bytes after their length, which has so many bytes. A text of fixed length is cut at its end.
    Counted {
        prefix: usize,
        fixed: usize,
    },
}

impl Form {
    /// Returns the form of a type with its metadata; `None` for types that are not understood: those of servers before 2012.
    pub(super) fn of(ty: WireType, meta: &[u8]) -> Option<Form> {
        let byte = |at: usize| meta.get(at).map(|byte| usize::from(*byte));
        let fraction = || byte(0).map(|digits| digits.div_ceil(2));
        Some(match ty {
            WireType::MYSQL_TYPE_TINY => Form::Integer(1),
            WireType::MYSQL_TYPE_SHORT => Form::Integer(2),
            WireType::MYSQL_TYPE_INT24 => Form::Integer(3),
            WireType::MYSQL_TYPE_LONG => Form::Integer(4),
            WireType::MYSQL_TYPE_LONGLONG => Form::Integer(8),
            WireType::MYSQL_TYPE_FLOAT => Form::Float,
            WireType::MYSQL_TYPE_DOUBLE => Form::Double,
            WireType::MYSQL_TYPE_NEWDECIMAL => {
                let (digits, scale) = (byte(0)?, byte(1)?);
                (scale <= digits).then_some(Form::Decimal { digits, scale })?
            }
            WireType::MYSQL_TYPE_YEAR => Form::Year,
            WireType::MYSQL_TYPE_DATE | WireType::MYSQL_TYPE_NEWDATE => Form::Date,
            WireType::MYSQL_TYPE_TIME2 => Form::Time(fraction()?),
            WireType::MYSQL_TYPE_DATETIME2 => Form::DateTime(fraction()?),
            WireType::MYSQL_TYPE_TIMESTAMP2 => Form::Timestamp(fraction()?),
            WireType::MYSQL_TYPE_BIT => Form::Bits(byte(1)? + usize::from(byte(0)? > 0)),
            WireType::MYSQL_TYPE_VARCHAR | WireType::MYSQL_TYPE_VAR_STRING => counted(byte(0)? | byte(1)? << 8, false),
            WireType::MYSQL_TYPE_BLOB | WireType::MYSQL_TYPE_GEOMETRY | WireType::MYSQL_TYPE_JSON => {
                Form::Counted { prefix: byte(0)?, fixed: 0 }
            }
            WireType::MYSQL_TYPE_STRING => string(byte(0)?, byte(1)?)?,
            _ => return None,
        })
    }

    /// Takes the bytes of a value from the beginning of `data`; `None` if it is too short.
    pub(super) fn take<'a>(self, data: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = match self {
            Form::Integer(length) | Form::Bits(length) | Form::Word(length) | Form::Words(length) => length,
            Form::Float => 4,
            Form::Double => 8,
            Form::Decimal { digits, scale } => decimal_bytes(digits - scale) + decimal_bytes(scale),
            Form::Year => 1,
            Form::Date => 3,
            Form::Time(fraction) => 3 + fraction,
            Form::DateTime(fraction) => 5 + fraction,
            Form::Timestamp(fraction) => 4 + fraction,
            Form::Counted { prefix, .. } => usize::try_from(low_first(data.split_off(..prefix)?)?).ok()?,
        };
        data.split_off(..length)
    }

    /// Reads a value of `field`, as a list does; `None` if that is not possible here.
    pub(super) fn read(self, raw: &[u8], field: &Field) -> Option<CborValue> {
        let stored = &field.stored;
        let value = match self {
            Form::Integer(_) if stored.is_unsigned => Value::UInt(low_first(raw)?),
            Form::Integer(length) => Value::Int(signed(low_first(raw)?, length)),
            Form::Float => Value::Float(f32::from_le_bytes(raw.try_into().ok()?)),
            Form::Double => Value::Double(f64::from_le_bytes(raw.try_into().ok()?)),
            Form::Decimal { digits, scale } => {
                Value::Bytes(decimal(raw, digits, scale, stored.is_zerofill)?.into_bytes())
            }
            Form::Year => match raw.first()? {
                0 => Value::Int(0),
                year => Value::Int(1900 + i64::from(*year)),
            },
            Form::Date => {
                let bits = low_first(raw)?;
                Value::Date(low(bits >> 9), low(bits >> 5 & 15) as u8, low(bits & 31) as u8, 0, 0, 0, 0)
            }
            Form::Time(fraction) => time(raw, fraction)?,
            Form::DateTime(fraction) => datetime(raw, fraction)?,
            Form::Timestamp(fraction) => timestamp(raw, fraction)?,
            Form::Bits(_) => Value::Bytes(raw.to_vec()),
            Form::Word(_) => Value::Bytes(word(low_first(raw)?, &stored.words)?.as_bytes().to_vec()),
            Form::Words(_) => Value::Bytes(words(low_first(raw)?, &stored.words)?.into_bytes()),
            Form::Counted { fixed, .. } => counted_value(raw, fixed, field)?,
        };
        field.codec.read(&value)
    }
}

fn counted(length: usize, is_fixed: bool) -> Form {
    Form::Counted { prefix: if length > 255 { 2 } else { 1 }, fixed: if is_fixed { length } else { 0 } }
}

/// Returns the form of a text of fixed length, an enum or a set, which share a type. Two bits of a great length are in the byte of
/// the real type.
fn string(first: usize, second: usize) -> Option<Form> {
    const ENUM: usize = WireType::MYSQL_TYPE_ENUM as usize;
    const SET: usize = WireType::MYSQL_TYPE_SET as usize;
    const STRING: usize = WireType::MYSQL_TYPE_STRING as usize;
    let length = second | ((first & 0x30) ^ 0x30) << 4;
    match first | 0x30 {
        ENUM => Some(Form::Word(second)),
        SET => Some(Form::Words(second)),
        STRING => Some(counted(length, true)),
        _ => None,
    }
}

fn counted_value(raw: &[u8], fixed: usize, field: &Field) -> Option<Value> {
    let stored = &field.stored;
    let padded = || {
        let mut bytes = raw.to_vec();
        bytes.resize(fixed.max(raw.len()), 0);
        bytes
    };
    Some(Value::Bytes(match (field.codec, stored.type_name.as_str()) {
        (_, "uuid") => uuid::Uuid::from_bytes(padded().try_into().ok()?).to_string().into_bytes(),
        (_, "inet6") => inet6(padded().try_into().ok()?).into_bytes(),
        (_, "inet4") => Ipv4Addr::from(<[u8; 4]>::try_from(padded()).ok()?).to_string().into_bytes(),
        // MySQL's binary form is another one than its text.
        (_, "json") => return None,
        (Codec::Bytes, _) => padded(),
        _ => stored.charset.decode(raw)?.into_bytes(),
    }))
}

/// Returns the server's text of an address. Unlike RFC 5952, it also shortens a single part that is zero.
fn inet6(bytes: [u8; 16]) -> String {
    let address = Ipv6Addr::from(bytes);
    match (address.to_ipv4_mapped(), u32::try_from(u128::from(address))) {
        (Some(v4), _) => return format!("::ffff:{v4}"),
        (None, Ok(v4)) if v4 > 0xffff => return format!("::{}", Ipv4Addr::from(v4)),
        _ => {}
    }
    let parts = address.segments();
    let zeros = |at: usize| parts[at..].iter().take_while(|part| **part == 0).count();
    let longest = (0..parts.len()).rev().max_by_key(|at| zeros(*at)).unwrap_or_default();
    let text = |parts: &[u16]| parts.iter().map(|part| format!("{part:x}")).collect::<Vec<_>>().join(":");
    match zeros(longest) {
        0 => text(&parts),
        length => format!("{}::{}", text(&parts[..longest]), text(&parts[longest + length..])),
    }
}

fn word(number: u64, words: &[String]) -> Option<&str> {
    match usize::try_from(number).ok()?.checked_sub(1) {
        // What the server stores for a word that it does not know.
        None => Some(""),
        Some(at) => words.get(at).map(String::as_str),
    }
}

fn words(bits: u64, words: &[String]) -> Option<String> {
    let chosen: Vec<&str> =
        words.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, word)| word.as_str()).collect();
    (bits.count_ones() as usize == chosen.len()).then(|| chosen.join(","))
}

/// Returns the number whose lowest byte is the first.
fn low_first(raw: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(..raw.len())?.copy_from_slice(raw);
    Some(u64::from_le_bytes(bytes))
}

/// Returns the number whose lowest byte is the last.
fn high_first(raw: &[u8]) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes.get_mut(8usize.checked_sub(raw.len())?..)?.copy_from_slice(raw);
    Some(u64::from_be_bytes(bytes))
}

/// Extends the sign of a number of `length` bytes.
fn signed(number: u64, length: usize) -> i64 {
    let unused = 64 - 8 * length as u32;
    (number << unused).cast_signed() >> unused
}

fn low(number: u64) -> u16 {
    (number & 0xffff) as u16
}

/// Returns the microseconds of a fraction of so many bytes: hundredths, ten-thousandths or millionths of a second.
fn micros(fraction: u64, bytes: usize) -> u32 {
    (fraction & 0xff_ffff) as u32 * [1_000_000, 10_000, 100, 1][bytes.min(3)]
}

/// Divides a number in whole seconds and a fraction of so many bytes.
fn split(number: u64, fraction: usize) -> (u64, u32) {
    let bits = 8 * fraction;
    (number >> bits, micros(number & ((1 << bits) - 1), fraction))
}

fn time(raw: &[u8], fraction: usize) -> Option<Value> {
    let number = high_first(raw)?.cast_signed() - (0x80_0000 << (8 * fraction));
    let (whole, micros) = split(number.unsigned_abs(), fraction);
    let hours = whole >> 12 & 0x3ff;
    let (minutes, seconds) = ((whole >> 6 & 63) as u8, (whole & 63) as u8);
    Some(Value::Time(number < 0, (hours / 24) as u32, (hours % 24) as u8, minutes, seconds, micros))
}

fn datetime(raw: &[u8], fraction: usize) -> Option<Value> {
    let number = high_first(raw)?.checked_sub(0x80_0000_0000 << (8 * fraction))?;
    let (whole, micros) = split(number, fraction);
    let (day, time) = (whole >> 17, whole & 0x1_ffff);
    let (month, day) = (day >> 5, (day & 31) as u8);
    let (hour, minute, second) = ((time >> 12) as u8, (time >> 6 & 63) as u8, (time & 63) as u8);
    Some(Value::Date(low(month / 13), (month % 13) as u8, day, hour, minute, second, micros))
}

fn timestamp(raw: &[u8], fraction: usize) -> Option<Value> {
    let (seconds, micros) = split(high_first(raw)?, fraction);
    if (seconds, micros) == (0, 0) {
        return Some(Value::Date(0, 0, 0, 0, 0, 0, 0));
    }
    let moment = Timestamp::from_second(seconds.cast_signed()).ok()?.to_zoned(TimeZone::UTC).datetime();
    let part = |number: i8| number.unsigned_abs();
    let (hour, minute, second) = (part(moment.hour()), part(moment.minute()), part(moment.second()));
    let (month, day) = (part(moment.month()), part(moment.day()));
    Some(Value::Date(moment.year().unsigned_abs(), month, day, hour, minute, second, micros))
}

fn decimal_bytes(digits: usize) -> usize {
    digits / GROUP * 4 + GROUP_BYTES[digits % GROUP]
}

/// Returns the text of a decimal number. The first bit is set for a positive one; all bits of a negative one are inverted.
fn decimal(raw: &[u8], digits: usize, scale: usize, is_zerofill: bool) -> Option<String> {
    let is_negative = raw.first()? & 0x80 == 0;
    let flip = if is_negative { 0xff } else { 0 };
    let mut bytes: Vec<u8> = raw.iter().map(|byte| byte ^ flip).collect();
    *bytes.first_mut()? ^= 0x80;
    let mut rest = bytes.as_slice();
    let mut group = |digits: usize| {
        let number = high_first(rest.split_off(..GROUP_BYTES[digits])?)?;
        Some(format!("{number:0digits$}"))
    };
    let whole = digits.checked_sub(scale)?;
    let mut text = String::new();
    if !whole.is_multiple_of(GROUP) {
        text += &group(whole % GROUP)?;
    }
    for _ in 0..whole / GROUP {
        text += &group(GROUP)?;
    }
    if !is_zerofill {
        text = text.trim_start_matches('0').to_string();
    }
    if text.is_empty() {
        text.push('0');
    }
    if is_negative {
        text.insert(0, '-');
    }
    if scale > 0 {
        text.push('.');
        for _ in 0..scale / GROUP {
            text += &group(GROUP)?;
        }
        if !scale.is_multiple_of(GROUP) {
            text += &group(scale % GROUP)?;
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_times_keep_their_fraction() {
        // -00:00:00.5, in hundredths.
        let raw = (0x8000_0000_u32 - 50).to_be_bytes();
        assert_eq!(time(&raw, 1), Some(Value::Time(true, 0, 0, 0, 0, 500_000)));
        assert_eq!(time(&[0x80, 0, 1], 0), Some(Value::Time(false, 0, 0, 0, 1, 0)));
    }

    #[test]
    fn addresses_are_written_as_the_server_does() {
        for (address, text) in [
            ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
            ("1:0:3:4:5:6:7:0", "1::3:4:5:6:7:0"),
            ("1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7::"),
            ("1:0:3:4:5:0:0:8", "1:0:3:4:5::8"),
            ("::", "::"),
            ("::5", "::5"),
            ("::1:2", "::0.1.0.2"),
            ("::ffff:0:5", "::ffff:0.0.0.5"),
        ] {
            assert_eq!(inet6(address.parse::<Ipv6Addr>().unwrap().octets()), text);
        }
    }

    #[test]
    fn a_short_image_is_no_value() {
        let mut data: &[u8] = &[5, 0, b'a'];
        assert_eq!(Form::Counted { prefix: 2, fixed: 0 }.take(&mut data), None);
        let mut data: &[u8] = &[];
        assert_eq!(Form::Integer(4).take(&mut data), None);
        assert_eq!(Form::of(WireType::MYSQL_TYPE_DATETIME, &[]), None, "the form of servers before 2012");
        assert_eq!(Form::of(WireType::MYSQL_TYPE_STRING, &[0xee, 0x0a]), Some(counted(266, true)));
    }
}
