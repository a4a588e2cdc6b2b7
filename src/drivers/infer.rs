//! Types and ids of files that declare neither: what CSV and JSON share.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::record::{CborValue, JsonLimits, parse_json};
use crate::vista::{Column, ColumnType, Error, Result};

/// Kinds of cells seen in one column so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(u8);

impl Kinds {
    const INTEGER: u8 = 1;
    const NUMBER: u8 = 2;
    const BOOLEAN: u8 = 4;
    const DATE: u8 = 8;
    const DATETIME: u8 = 16;
    const TEXT: u8 = 32;
    const NESTED: u8 = 64;

    /// Takes a cell of a text file into account. The caller leaves nulls out.
    pub(super) fn see_text(&mut self, text: &str) {
        // Once it is text it stays text.
        if self.0 & Kinds::TEXT == 0 {
            self.0 |= match text {
                _ if integer(text).is_some() => Kinds::INTEGER,
                _ if number(text).is_some() => Kinds::NUMBER,
                _ if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") => Kinds::BOOLEAN,
                _ => kind_of_text(text),
            };
        }
    }

    /// Takes a JSON value into account.
    pub(super) fn see_value(&mut self, value: &CborValue) {
        self.0 |= match value {
            CborValue::Null => 0,
            CborValue::Integer(_) => Kinds::INTEGER,
            CborValue::Float(_) => Kinds::NUMBER,
            CborValue::Bool(_) => Kinds::BOOLEAN,
            CborValue::Text(text) => kind_of_text(text),
            _ => Kinds::NESTED,
        };
    }

    /// The narrowest type that holds all that was seen; `mixed` where there is none, or nothing was seen.
    pub(super) fn column_type(self, mixed: ColumnType) -> ColumnType {
        const TEXTS: u8 = Kinds::TEXT | Kinds::DATE | Kinds::DATETIME;
        const NUMBERS: u8 = Kinds::INTEGER | Kinds::NUMBER;
        match self.0 {
            0 => mixed,
            Kinds::INTEGER => ColumnType::Integer,
            Kinds::BOOLEAN => ColumnType::Boolean,
            Kinds::DATE => ColumnType::Date,
            Kinds::DATETIME => ColumnType::Datetime,
            seen if seen & !NUMBERS == 0 => ColumnType::Number,
            seen if seen & !TEXTS == 0 => ColumnType::String,
            _ => mixed,
        }
    }
}

fn kind_of_text(text: &str) -> u8 {
    match text {
        _ if is_date(text) => Kinds::DATE,
        _ if is_datetime(text) => Kinds::DATETIME,
        _ => Kinds::TEXT,
    }
}

/// A cell of a text file under its column's type.
#[derive(Debug, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(&'a str),
    Value(CborValue),
    /// Not of the column's type: kept as text, never lost.
    Misfit(&'a str),
}

/// Reads `text` as `ty`.
pub(super) fn cell(ty: ColumnType, text: &str) -> Cell<'_> {
    if text.is_empty() || (is_null_word(text) && !keeps_null_words(ty)) {
        return Cell::Null;
    }
    let fitting = match ty {
        ColumnType::Integer => integer(text).map(Cell::Integer),
        ColumnType::Number => number(text),
        ColumnType::Boolean => boolean(text).map(Cell::Bool),
        ColumnType::Date => is_date(text).then_some(Cell::Text(text)),
        ColumnType::Datetime => is_datetime(text).then_some(Cell::Text(text)),
        ColumnType::Decimal => is_number(text).then_some(Cell::Text(text)),
        ColumnType::Uuid => uuid::Uuid::try_parse(text).is_ok().then_some(Cell::Text(text)),
        ColumnType::Bytes => URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| Cell::Value(CborValue::Bytes(bytes))),
        ColumnType::Json => parse_json(text.as_bytes(), JsonLimits::default()).ok().map(Cell::Value),
        ColumnType::String => Some(Cell::Text(text)),
    };
    fitting.unwrap_or(Cell::Misfit(text))
}

/// Words that mean "nothing" in columns of numbers, booleans and dates.
pub(super) fn is_null_word(text: &str) -> bool {
    matches!(text, "NA" | "N/A" | "NaN" | "null")
}

/// Whether `NA` and its like are values in columns of this type.
pub(super) fn keeps_null_words(ty: ColumnType) -> bool {
    matches!(ty, ColumnType::String | ColumnType::Json | ColumnType::Bytes)
}

/// An integer of 64 bits that is written as such: `007` and `+7` are text.
fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { text.parse().ok() } else { None }
}

/// A number as JSON writes it. Whole numbers beyond 64 bits only where a float holds every digit.
fn number(text: &str) -> Option<Cell<'static>> {
    if let Some(integer) = integer(text) {
        return Some(Cell::Integer(integer));
    }
    if !is_number(text) {
        return None;
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    let whole = !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    if whole && text != "-0" && format!("{number:.0}") != text {
        return None;
    }
    Some(Cell::Float(number))
}

/// JSON's grammar of numbers.
fn is_number(text: &str) -> bool {
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let [b'.', fraction @ ..] = rest {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = match exponent {
            [b'+' | b'-', unsigned @ ..] => unsigned,
            unsigned => unsigned,
        };
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-' && text.parse::<jiff::civil::Date>().is_ok()
}

/// RFC 3339: with a `T` and an offset.
fn is_datetime(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes[10] != b'T' || bytes[13] != b':' || bytes[16] != b':' || !text.is_ascii() {
        return false;
    }
    let offset = &bytes[19..];
    let fraction = match offset {
        [b'.', digits @ ..] => 1 + digits.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    };
    let known_offset = matches!(&offset[fraction..], b"Z" | [b'+' | b'-', _, _, b':', _, _]);
    known_offset && is_date(&text[..10]) && text.parse::<jiff::Timestamp>().is_ok()
}

/// Where the ids of a file's rows come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IdChoice {
    /// From this column.
    Column(String),
    /// Rows are numbered from 1, under this name. Positional: a row inserted above changes every id below.
    RowNumber(String),
}

impl IdChoice {
    /// The name of the id column.
    pub(super) fn column(&self) -> &str {
        match self {
            IdChoice::Column(name) | IdChoice::RowNumber(name) => name,
        }
    }
}

/// What to do about rows whose ids are missing or stand twice.
pub(super) const ANOTHER_ID: &str = "Every row needs an id of its own: id = \"COLUMN\" in a diorama.toml names another column, id = \"#\" numbers the rows";

/// The declared id that is no column but the row number.
const ROW_NUMBER: &str = "#";

/// Chooses the id of a file called `vista`: what was declared, else a column named for it, else the first column that is
/// unique, else the row number. `unique` names columns without a null or a duplicate.
///
/// # Errors
/// [`Error::Config`] if the declared column is not there or its cells cannot be ids.
pub(super) fn choose_id(
    vista: &str,
    declared: Option<&str>,
    columns: &[Column],
    unique: impl Fn(&str) -> bool,
) -> Result<IdChoice> {
    let find = |name: &str| columns.iter().find(|column| &*column.name == name);
    let number = if find("id").is_some() { "_row" } else { "id" };
    if declared == Some(ROW_NUMBER) && find(ROW_NUMBER).is_none() {
        return Ok(IdChoice::RowNumber(number.to_string()));
    }
    if let Some(name) = declared {
        let names = || columns.iter().map(|column| &*column.name).collect::<Vec<_>>().join(", ");
        let column = find(name)
            .ok_or_else(|| Error::Config(format!("{vista} has no column {name:?} for the id: it has {}", names())))?;
        if !holds_ids(column.ty) {
            let ty = column.ty;
            return Err(Error::Config(format!("column {name:?} of {vista} cannot be the id: its cells are {ty:?}")));
        }
        return Ok(IdChoice::Column(name.to_string()));
    }
    let usable = |name: &String| find(name).is_some_and(|column| holds_ids(column.ty));
    if let Some(name) = id_names(vista).into_iter().find(usable) {
        return Ok(IdChoice::Column(name));
    }
    let plain = columns.iter().filter(|column| matches!(column.ty, ColumnType::String | ColumnType::Integer));
    if let Some(column) = plain.into_iter().find(|column| unique(&column.name)) {
        tracing::warn!(
            vista,
            column = &*column.name,
            "rows are identified by the first column without repetitions, which may be chance: `id` in its [dio] of a \
             diorama.toml names another"
        );
        return Ok(IdChoice::Column(column.name.to_string()));
    }
    tracing::warn!(
        vista,
        "no column identifies the rows: they are numbered, and an inserted row renumbers those below; `id` in its [dio] of a \
         diorama.toml names a column"
    );
    Ok(IdChoice::RowNumber(number.to_string()))
}

/// Whether a column of this name is meant as the id.
#[cfg(feature = "csv")]
pub(super) fn is_id_name(vista: &str, name: &str) -> bool {
    id_names(vista).iter().any(|own| own == name)
}

/// Whether a column is taken for the id by its name.
#[cfg(feature = "csv")]
pub(super) fn is_id(vista: &str, column: &Column) -> bool {
    is_id_name(vista, &column.name) && holds_ids(column.ty)
}

fn id_names(vista: &str) -> Vec<String> {
    let mut names = vec!["id".to_string(), format!("{vista}_id")];
    if let Some(stem) = vista.strip_suffix("ies") {
        names.push(format!("{stem}y_id"));
    }
    names.extend(["s", "es"].iter().filter_map(|end| vista.strip_suffix(end)).map(|stem| format!("{stem}_id")));
    names
}

fn holds_ids(ty: ColumnType) -> bool {
    // A JSON column may mix texts and integers; what is neither is reported row by row.
    !matches!(ty, ColumnType::Number | ColumnType::Boolean | ColumnType::Bytes)
}

/// Whether the values of a column are all there and all different.
#[derive(Debug, Default)]
pub(super) struct Uniqueness {
    /// Hashes, not values: 16 bytes a row however long the texts are.
    seen: HashSet<u128>,
    failed: bool,
}

impl Uniqueness {
    pub(super) fn see(&mut self, value: Option<&str>) {
        if self.failed {
            return;
        }
        if !value.is_some_and(|value| self.seen.insert(xxhash_rust::xxh3::xxh3_128(value.as_bytes()))) {
            self.failed = true;
            self.seen = HashSet::new();
        }
    }

    /// Whether there were values, none missing, none twice.
    pub(super) fn holds(&self) -> bool {
        !self.failed && !self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn infer(cells: &[&str]) -> ColumnType {
        let mut kinds = Kinds::default();
        cells.iter().filter(|cell| !cell.is_empty() && !is_null_word(cell)).for_each(|cell| kinds.see_text(cell));
        kinds.column_type(ColumnType::String)
    }

    #[test]
    fn types_are_the_narrowest_that_lose_nothing() {
        for (cells, expected) in [
            (&["1", "-20", "", "NA"][..], ColumnType::Integer),
            (&["1", "2.50"], ColumnType::Number),
            (&["1e3", "-0"], ColumnType::Number),
            (&["00123", "45678"], ColumnType::String),
            (&["+49", "1"], ColumnType::String),
            (&["9223372036854775807"], ColumnType::Integer),
            (&["9223372036854775809"], ColumnType::String),
            (&["18446744073709551616"], ColumnType::Number),
            (&["1e999"], ColumnType::String),
            (&["inf", "1"], ColumnType::String),
            (&[".5"], ColumnType::String),
            (&["true", "FALSE", "null"], ColumnType::Boolean),
            (&["0", "1"], ColumnType::Integer),
            (&["true", "1"], ColumnType::String),
            (&["2024-02-29"], ColumnType::Date),
            (&["2023-02-29"], ColumnType::String),
            (&["2013-01-01T10:00:00Z", "2013-01-01T10:00:00.5+02:00"], ColumnType::Datetime),
            (&["2013-01-01 10:00:00"], ColumnType::String),
            (&["2013-01-01", "2013-01-01T10:00:00Z"], ColumnType::String),
            (&["", "NA"], ColumnType::String),
        ] {
            assert_eq!(infer(cells), expected, "{cells:?}");
        }
    }

    #[test]
    fn cells_that_do_not_fit_their_type_are_kept_as_text() {
        assert_eq!(cell(ColumnType::Integer, "12"), Cell::Integer(12));
        assert_eq!(cell(ColumnType::Integer, "012"), Cell::Misfit("012"));
        assert_eq!(cell(ColumnType::Number, "12"), Cell::Integer(12));
        assert_eq!(cell(ColumnType::Number, "1.50"), Cell::Float(1.5));
        assert_eq!(cell(ColumnType::Number, "NaN"), Cell::Null);
        assert_eq!(cell(ColumnType::String, "NaN"), Cell::Text("NaN"));
        assert_eq!(cell(ColumnType::String, ""), Cell::Null);
        assert_eq!(cell(ColumnType::Boolean, "maybe"), Cell::Misfit("maybe"));
        assert_eq!(cell(ColumnType::Bytes, "AQI"), Cell::Value(CborValue::Bytes(vec![1, 2])));
        assert_eq!(cell(ColumnType::Json, "[1]"), Cell::Value(CborValue::Array(vec![1.into()])));
    }

    #[test]
    fn the_id_is_found_by_name_then_by_uniqueness_then_by_counting() {
        let text = |name: &str| Column::new(name, ColumnType::String);
        let choose = |vista: &str, columns: &[Column], unique: &[&str]| {
            choose_id(vista, None, columns, |name| unique.contains(&name)).unwrap()
        };
        let column = |name: &str| IdChoice::Column(name.into());
        assert_eq!(choose("x", &[text("a"), text("id")], &["a"]), column("id"));
        assert_eq!(choose("products", &[text("a"), text("products_id")], &["a"]), column("products_id"));
        assert_eq!(choose("products", &[text("a"), text("product_id")], &["a"]), column("product_id"));
        assert_eq!(choose("categories", &[text("category_id")], &[]), column("category_id"));
        assert_eq!(choose("boxes", &[text("box_id")], &[]), column("box_id"));
        assert_eq!(choose("x", &[text("a"), text("b"), text("c")], &["b", "c"]), column("b"));
        assert_eq!(choose("x", &[Column::new("a", ColumnType::Number)], &["a"]), IdChoice::RowNumber("id".into()));
        assert_eq!(choose("x", &[Column::new("id", ColumnType::Number)], &[]), IdChoice::RowNumber("_row".into()));
        let numbered = choose_id("x", Some("#"), &[text("id")], |_| true).unwrap();
        assert_eq!(numbered, IdChoice::RowNumber("_row".into()));
        let error = choose_id("x", Some("b"), &[text("a")], |_| false).unwrap_err();
        assert_eq!(error.to_string(), "x has no column \"b\" for the id: it has a");
    }
}
