//! Reading what people write: values by the type of their column, and names that are nearly right.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::tz::TimeZone;

use super::compare::is_decimal;
use super::fields::json_string;
use super::{Filter, Test};
use crate::record::{CborValue, of_digits};
use crate::vista::{ColumnType, Instant};

/// What a text means in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// One value.
    One(CborValue),
    /// In a column that may hold anything: a number or boolean, or the text itself.
    Either(CborValue, CborValue),
}

impl Literal {
    /// Reads `text` as a value of a column of type `ty`.
    ///
    /// # Errors
    /// Says what the text should have been.
    pub fn of_text(text: &str, ty: ColumnType) -> Result<Literal, String> {
        let wanted = |what: &str| format!("{text:?} is not {what}");
        Ok(Literal::One(match ty {
            ColumnType::Number => number(text).ok_or_else(|| wanted("a number"))?,
            ColumnType::Integer => finite_number(text).ok_or_else(|| wanted("a number"))?,
            ColumnType::Boolean => boolean(text).ok_or_else(|| wanted("true or false"))?,
            ColumnType::Decimal if is_decimal(text) => text.into(),
            ColumnType::Decimal => return Err(wanted("a decimal number")),
            ColumnType::Bytes => {
                let decoded = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
                CborValue::Bytes(decoded.map_err(|_| wanted("base64url"))?)
            }
            ColumnType::Json => match number(text).or_else(|| boolean(text)) {
                Some(typed) => return Ok(Literal::Either(typed, text.into())),
                None => text.into(),
            },
            ColumnType::Date | ColumnType::Datetime => moment(text, ty).ok_or_else(|| {
                wanted("a date or time: write 2026-01-31, 2026-01-31T12:00:00Z, or seconds since 1970")
            })?,
            ColumnType::Uuid if uuid::Uuid::try_parse(text).is_ok() => text.into(),
            ColumnType::Uuid => return Err(wanted("a UUID, like 01890a5d-ac96-774b-bcce-b302099a8057")),
            ColumnType::String => text.into(),
        }))
    }

    /// Reads a JSON value for a column of type `ty`: texts as [`Literal::of_text`] where the column is typed, numbers and
    /// booleans as text where it holds texts.
    ///
    /// # Errors
    /// Says what the value should have been.
    pub fn of_json(value: &CborValue, ty: ColumnType) -> Result<CborValue, String> {
        let holds_text = matches!(ty, ColumnType::String | ColumnType::Decimal | ColumnType::Uuid);
        match value {
            CborValue::Text(text) if ty != ColumnType::Json => match Literal::of_text(text, ty)? {
                Literal::One(value) | Literal::Either(value, _) => Ok(value),
            },
            CborValue::Integer(_) | CborValue::Float(_) | CborValue::Bool(_) if holds_text => {
                Ok(CborValue::Text(json_string(value)))
            }
            other => Ok(other.clone()),
        }
    }

    /// `test` of this value on `column`, for tests that hold if they hold for one reading.
    pub fn any(self, column: &str, test: fn(CborValue) -> Test) -> Filter {
        match self {
            Literal::One(value) => Filter::test(column, test(value)),
            Literal::Either(a, b) => Filter::Any(vec![Filter::test(column, test(a)), Filter::test(column, test(b))]),
        }
    }

    /// `test` of this value on `column`, for tests that hold only if they hold for every reading.
    pub fn all(self, column: &str, test: fn(CborValue) -> Test) -> Filter {
        match self {
            Literal::One(value) => Filter::test(column, test(value)),
            Literal::Either(a, b) => Filter::All(vec![Filter::test(column, test(a)), Filter::test(column, test(b))]),
        }
    }

    /// Every value it may be.
    pub fn values(self) -> Vec<CborValue> {
        match self {
            Literal::One(value) => vec![value],
            Literal::Either(a, b) => vec![a, b],
        }
    }
}

fn number(text: &str) -> Option<CborValue> {
    match text {
        "Infinity" => Some(f64::INFINITY.into()),
        "-Infinity" => Some(f64::NEG_INFINITY.into()),
        "NaN" => Some(f64::NAN.into()),
        _ => finite_number(text),
    }
}

fn finite_number(text: &str) -> Option<CborValue> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(number.into());
    }
    if let Some(number) = of_digits(text.strip_prefix('+').unwrap_or(text)) {
        return Some(number);
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite()).map(CborValue::from)
}

/// Fewest digits of seconds since 1970 in a column of dates: fewer could be a date without its hyphens.
const SECONDS_DIGITS: usize = 9;

/// A moment in any spelling that compares as one; the text itself unless it is a number.
fn moment(text: &str, ty: ColumnType) -> Option<CborValue> {
    if Instant::of_text(text, &TimeZone::UTC).is_some() {
        return Some(text.into());
    }
    // A `+` that was not written as %2B arrives as a space.
    if let Some((civil, offset)) = text.rsplit_once(' ')
        && matches!(offset.as_bytes(), [_, _, b':', _, _])
        && civil.len() > DATE.len()
    {
        let meant = format!("{civil}+{offset}");
        if Instant::of_text(&meant, &TimeZone::UTC).is_some() {
            return Some(meant.into());
        }
    }
    let value = finite_number(text)?;
    let digits = text.bytes().take_while(|byte| *byte != b'.').filter(u8::is_ascii_digit).count();
    let known = match &value {
        CborValue::Integer(number) => Instant::of_integer(i128::from(*number)).is_some(),
        CborValue::Float(number) => Instant::of_float(*number).is_some(),
        _ => false,
    };
    (known && (ty == ColumnType::Datetime || digits >= SECONDS_DIGITS)).then_some(value)
}

/// Shape of a date, after which a time may follow.
const DATE: &str = "YYYY-MM-DD";

fn boolean(text: &str) -> Option<CborValue> {
    if text.eq_ignore_ascii_case("true") {
        Some(CborValue::Bool(true))
    } else if text.eq_ignore_ascii_case("false") {
        Some(CborValue::Bool(false))
    } else {
        None
    }
}

/// The one of `names` that was probably meant by `wrong`.
pub fn nearest<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = |text: &str| text.chars().take(64).flat_map(char::to_lowercase).collect::<String>();
    let wrong = lower(wrong);
    let letters = wrong.chars().count();
    let allowed = 1 + letters / 4;
    // Each letter more or less is one change at least; lower case may have up to three letters for one.
    let may_be = |name: &&str| {
        let length = name.chars().take(64).count();
        length <= letters + allowed && letters <= 3 * length + allowed
    };
    names
        .into_iter()
        .filter(may_be)
        .map(|name| (strsim::osa_distance(&wrong, &lower(name)), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
