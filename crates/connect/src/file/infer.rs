//! Type inference and choice of the id column for files that declare neither, shared by CSV and JSON.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::tz::TimeZone;

use super::number::{Notation, Number, decimal, number, trimmed};
use diorama_core::record::{CborValue, JsonLimits, as_big, of_digits, parse_json};
use diorama_core::vista::{Column, ColumnType, Error, Inferred, Instant, Result};

/// Kinds of cells seen in one column so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    const INTEGER: u8 = 1;
    const NUMBER: u8 = 2;
    const BOOLEAN: u8 = 4;
    const DATE: u8 = 8;
    const DATETIME: u8 = 16;
    const TEXT: u8 = 32;
    const NESTED: u8 = 64;
    const DAYS_AND_TIMES: u8 = Kinds::DATE | Kinds::DATETIME;

    /// Kind of one cell of a text file that is neither null nor a number.
    pub(crate) fn of_text(text: &str) -> Kinds {
        match text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            true => Kinds(Kinds::BOOLEAN),
            false => Kinds(kind_of_text(text)),
        }
    }

    /// Adds `kinds` to the kinds seen.
    pub(crate) fn see(&mut self, kinds: Kinds) {
        self.0 |= kinds.0;
    }

    /// Returns true if plain text was seen.
    pub(crate) fn is_text(self) -> bool {
        self.0 & Kinds::TEXT != 0
    }

    /// Adds the kind of a JSON value.
    pub(crate) fn see_value(&mut self, value: &CborValue) {
        self.0 |= match value {
            CborValue::Null => 0,
            CborValue::Integer(_) => Kinds::INTEGER,
            CborValue::Float(_) => Kinds::NUMBER,
            CborValue::Bool(_) => Kinds::BOOLEAN,
            CborValue::Text(text) => kind_of_text(text),
            _ if as_big(value).is_some() => Kinds::NUMBER,
            _ => Kinds::NESTED,
        };
    }

    /// Narrowest column type that holds every cell seen; `mixed` if there is none or no cell was seen.
    pub(crate) fn column_type(self, mixed: ColumnType) -> ColumnType {
        const TEXTS: u8 = Kinds::TEXT | Kinds::DATE | Kinds::DATETIME;
        const NUMBERS: u8 = Kinds::INTEGER | Kinds::NUMBER;
        match self.0 {
            0 => mixed,
            Kinds::INTEGER => ColumnType::Integer,
            Kinds::BOOLEAN => ColumnType::Boolean,
            Kinds::DATE => ColumnType::Date,
            // A date counts as its midnight.
            Kinds::DATETIME | Kinds::DAYS_AND_TIMES => ColumnType::Datetime,
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
pub(crate) enum Cell<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(Cow<'a, str>),
    Value(CborValue),
    /// A cell that is not of the column's type; kept as text.
    Misfit(&'a str),
}

/// Parses `text`, which is not null, as `ty`. Surrounding spaces are ignored except in texts.
pub(crate) fn cell(ty: ColumnType, notation: Notation, text: &str) -> Cell<'_> {
    let value = trimmed(text);
    let fitting = match ty {
        ColumnType::Integer => match number(value, notation) {
            Some(Number::Integer(integer)) => Some(Cell::Integer(integer)),
            _ => None,
        },
        ColumnType::Number => number(value, notation).map(|number| match number {
            Number::Integer(integer) => Cell::Integer(integer),
            Number::Float(float) => Cell::Float(float),
            Number::Wide => {
                decimal(value, notation).and_then(|digits| of_digits(&digits)).map_or(Cell::Null, Cell::Value)
            }
        }),
        ColumnType::Boolean => boolean(value).map(Cell::Bool),
        ColumnType::Date => is_date(value).then_some(Cell::Text(value.into())),
        ColumnType::Datetime if is_date(value) || is_datetime(value) => Some(Cell::Text(value.into())),
        // Seconds since the Unix epoch.
        ColumnType::Datetime => match number(value, notation) {
            Some(Number::Integer(integer)) => Some(Cell::Integer(integer)),
            Some(Number::Float(float)) => Some(Cell::Float(float)),
            Some(Number::Wide) | None => None,
        },
        ColumnType::Decimal => decimal(value, notation).map(Cell::Text),
        ColumnType::Uuid => uuid::Uuid::try_parse(value).is_ok().then_some(Cell::Text(value.into())),
        ColumnType::Bytes => URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| Cell::Value(CborValue::Bytes(bytes))),
        ColumnType::Json => parse_json(text.as_bytes(), JsonLimits::default()).ok().map(Cell::Value),
        ColumnType::String => Some(Cell::Text(text.into())),
    };
    fitting.unwrap_or(Cell::Misfit(text))
}

/// Words that mean null in columns of numbers, booleans and dates: those of pandas, Excel's error values, and `\N` of MySQL,
/// PostgreSQL and Hive. `-`, `.` and `?` are not included.
pub(crate) const NULL_WORDS: [&str; 26] = [
    "NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", "None", "<NA>", "#N/A", "#N/A N/A", "#NA", "-NaN", "-nan",
    "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "\\N", "#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!",
    "#NV",
];

/// Returns true if [`NULL_WORDS`] are ordinary values in columns of this type.
pub(crate) fn keeps_null_words(ty: ColumnType) -> bool {
    matches!(ty, ColumnType::String | ColumnType::Json | ColumnType::Bytes)
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

/// Returns true for a date and a time, to the minute at least, with or without an offset.
fn is_datetime(text: &str) -> bool {
    let shaped =
        matches!(text.as_bytes(), [_, _, _, _, b'-', _, _, b'-', _, _, b'T' | b't' | b' ', _, _, b':', _, _, ..]);
    shaped && Instant::of_text(text, &TimeZone::UTC).is_some()
}

/// Origin of the ids of a file's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum IdChoice {
    /// The values of this column.
    Column(String),
    /// The row number from 1, in a column of this name. Inserting a row changes the ids of all rows below it.
    RowNumber(String),
}

impl IdChoice {
    /// Name of the id column.
    pub(crate) fn column(&self) -> &str {
        match self {
            IdChoice::Column(name) | IdChoice::RowNumber(name) => name,
        }
    }
}

/// Advice for rows whose ids are missing or duplicated.
pub(crate) const ANOTHER_ID: &str = "Every row needs a unique id: set id = \"COLUMN\" in diorama.toml to use another column, or id = \"#\" to number the rows";

/// Value of `id` that selects the row number instead of a column.
const ROW_NUMBER: &str = "#";

/// Chooses the id of the file `vista`: the declared column, else a column with the name of an id, else the first unique column,
/// else the row number. `unique` returns true for columns without nulls and duplicates. `unfit` returns the reason why a column
/// with the name of an id cannot be used.
///
/// # Errors
/// [`Error::Config`] if the declared column does not exist or its cells cannot be ids.
pub(crate) fn choose_id(
    vista: &str,
    declared: Option<&str>,
    columns: &[Column],
    unique: impl Fn(&str) -> bool,
    unfit: impl Fn(&str) -> Option<String>,
) -> Result<(IdChoice, Option<Inferred>)> {
    let find = |name: &str| columns.iter().find(|column| &*column.name == name);
    let number = if find("id").is_some() { "_row" } else { "id" };
    if declared == Some(ROW_NUMBER) && find(ROW_NUMBER).is_none() {
        return Ok((IdChoice::RowNumber(number.to_string()), None));
    }
    if let Some(name) = declared {
        let names = || columns.iter().map(|column| &*column.name).collect::<Vec<_>>().join(", ");
        let column = find(name)
            .ok_or_else(|| Error::Config(format!("{vista} has no column {name:?} for the id: it has {}", names())))?;
        if !holds_ids(column.ty) {
            let ty = column.ty;
            return Err(Error::Config(format!("column {name:?} of {vista} cannot be the id: its cells are {ty:?}")));
        }
        return Ok((IdChoice::Column(name.to_string()), None));
    }
    let guess = |value: &str, because: String| Inferred::new("id", value, because, "id");
    let mut refused = String::new();
    for name in id_names(vista).into_iter().filter(|name| find(name).is_some()) {
        let why = match find(&name) {
            Some(column) if !holds_ids(column.ty) => Some(format!("has cells of type {:?}", column.ty)),
            _ => unfit(&name),
        };
        match why {
            None if refused.is_empty() => {
                let because = "a column of that name is used as the id".to_string();
                return Ok((IdChoice::Column(name.clone()), Some(guess(&name, because))));
            }
            None => {
                let guessed = guess(&name, format!("{refused}this one can")).doubtful();
                return Ok((IdChoice::Column(name), Some(guessed)));
            }
            Some(why) => refused += &format!("column {name:?} {why} and cannot identify rows; "),
        }
    }
    let mut plain = columns.iter().filter(|column| matches!(column.ty, ColumnType::String | ColumnType::Integer));
    if let Some(column) = plain.find(|column| unique(&column.name)) {
        let because = match refused.is_empty() {
            true => "it is the first column without duplicates, which may be a coincidence".to_string(),
            false => format!("{refused}this is the first column without duplicates, which may be a coincidence"),
        };
        return Ok((IdChoice::Column(column.name.to_string()), Some(guess(&column.name, because).doubtful())));
    }
    let because = format!(
        "{refused}no column identifies rows: they are numbered in {number:?}, and inserting a row renumbers the rows below it"
    );
    Ok((IdChoice::RowNumber(number.to_string()), Some(guess("#", because).doubtful())))
}

/// Returns true if a column of this name is meant as the id.
pub(crate) fn is_id_name(vista: &str, name: &str) -> bool {
    id_names(vista).iter().any(|own| own == name)
}

/// Returns true if the column has the name of an id and its type can hold ids.
pub(crate) fn is_id(vista: &str, column: &Column) -> bool {
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
    // A JSON column may mix texts and integers; values of other types are reported row by row.
    !matches!(ty, ColumnType::Number | ColumnType::Boolean | ColumnType::Bytes)
}

/// Check that the values of a column are complete and unique.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uniqueness {
    /// Hashes instead of values: 16 bytes per row regardless of text length.
    seen: HashSet<u128>,
    values: u64,
    missing: u64,
    /// First duplicate value and its position.
    duplicate: Option<(String, String)>,
}

impl Uniqueness {
    pub(crate) fn see(&mut self, value: Option<&str>, position: impl FnOnce() -> String) {
        let Some(value) = value else {
            self.missing += 1;
            return;
        };
        self.values += 1;
        if self.duplicate.is_none() && !self.seen.insert(xxhash_rust::xxh3::xxh3_128(value.as_bytes())) {
            self.duplicate = Some((value.chars().take(40).collect(), position()));
            self.seen = HashSet::new();
        }
    }

    /// Returns true if there are values, none missing and none duplicated.
    pub(crate) fn holds(&self) -> bool {
        self.duplicate.is_none() && self.missing == 0 && self.values > 0
    }

    /// Reason why the column cannot identify rows; `None` if it can. `missing` is the number of rows without the column. A few
    /// rows without an id are tolerated: they are left out of the list.
    pub(crate) fn unfit(&self, missing: u64) -> Option<String> {
        if let Some((value, position)) = &self.duplicate {
            return Some(format!("repeats {value:?} ({position})"));
        }
        let missing = self.missing + missing;
        (missing > 0 && missing >= self.values)
            .then(|| format!("is missing in {missing} of {} rows", missing + self.values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_do_not_fit_their_type_are_kept_as_text() {
        let cell = |ty, text| cell(ty, Notation::Plain, text);
        assert_eq!(cell(ColumnType::Integer, "12"), Cell::Integer(12));
        assert_eq!(cell(ColumnType::Integer, "012"), Cell::Misfit("012"));
        assert_eq!(cell(ColumnType::Number, "12"), Cell::Integer(12));
        assert_eq!(cell(ColumnType::Number, "1.50"), Cell::Float(1.5));
        assert_eq!(cell(ColumnType::String, "NaN"), Cell::Text("NaN".into()));
        assert_eq!(cell(ColumnType::Integer, "  +5 "), Cell::Integer(5));
        assert_eq!(cell(ColumnType::Date, " 2024-02-29"), Cell::Text("2024-02-29".into()));
        assert_eq!(cell(ColumnType::Datetime, "2024-02-29"), Cell::Text("2024-02-29".into()));
        assert_eq!(cell(ColumnType::Datetime, "1675000001"), Cell::Integer(1_675_000_001));
        assert_eq!(cell(ColumnType::Datetime, "soon"), Cell::Misfit("soon"));
        assert_eq!(cell(ColumnType::Boolean, "maybe"), Cell::Misfit("maybe"));
        assert_eq!(cell(ColumnType::Bytes, "AQI"), Cell::Value(CborValue::Bytes(vec![1, 2])));
        assert_eq!(cell(ColumnType::Json, "[1]"), Cell::Value(CborValue::Array(vec![1.into()])));
    }

    #[test]
    fn the_id_is_chosen_by_name_then_by_uniqueness_then_by_row_number() {
        let text = |name: &str| Column::new(name, ColumnType::String);
        let choose = |vista: &str, columns: &[Column], unique: &[&str]| {
            choose_id(
                vista,
                None,
                columns,
                |name| unique.contains(&name),
                |name| name.starts_with("twice").then(|| "repeats 7".into()),
            )
            .unwrap()
            .0
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
        let numbered = choose_id("x", Some("#"), &[text("id")], |_| true, |_| None).unwrap().0;
        assert_eq!(numbered, IdChoice::RowNumber("_row".into()));
        assert_eq!(choose("twice", &[text("twice_id"), text("b")], &["b"]), column("b"));
        let error = choose_id("x", Some("b"), &[text("a")], |_| false, |_| None).unwrap_err();
        assert_eq!(error.to_string(), "x has no column \"b\" for the id: it has a");
    }
}
