//! Types of fields, as the server writes them or as rows show them.

use super::cbor::{DATETIME, DATETIME_TEXT, DECIMAL, DURATION, DURATION_TEXT, RECORD_ID, UUID, UUID_TEXT};
use diorama_core::record::CborValue;
use diorama_core::vista::ColumnType;

/// Type of the values of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any, or several types.
    #[default]
    Any,
    Bool,
    Int,
    Float,
    /// Integers, floats and decimals.
    Number,
    Decimal,
    Text,
    Datetime,
    Duration,
    Uuid,
    Bytes,
    Record,
    /// Arrays and sets.
    Array(Box<Kind>),
    /// Objects, with the fields that are declared.
    Object(Vec<(String, Kind)>),
}

/// Type of a declared field: `none | string`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) kind: Kind,
    /// `NONE` is a value.
    pub(super) allows_none: bool,
    /// `NULL` is a value.
    pub(super) allows_null: bool,
}

impl Declared {
    /// Reads a type.
    pub(super) fn parse(text: &str) -> Declared {
        let mut declared = Declared::default();
        let text = text.trim();
        if text.is_empty() || text == "any" {
            return Declared { kind: Kind::Any, allows_none: true, allows_null: true };
        }
        let (mut kinds, mut others) = (Vec::new(), 0);
        for part in split(text, '|') {
            match part.trim() {
                "none" => declared.allows_none = true,
                "null" => declared.allows_null = true,
                part => match parameters(part) {
                    Some(("option", inner)) => {
                        declared.allows_none = true;
                        kinds.push(Declared::parse(inner).kind);
                    }
                    _ => match Kind::parse(part) {
                        Kind::Any => others += 1,
                        kind => kinds.push(kind),
                    },
                },
            }
        }
        kinds.dedup();
        if let ([kind], 0) = (kinds.as_slice(), others) {
            declared.kind = kind.clone();
        }
        declared
    }
}

impl Kind {
    fn parse(text: &str) -> Kind {
        match parameters(text) {
            Some(("array" | "set", inner)) => {
                let element = split(inner, ',').next().unwrap_or_default();
                return Kind::Array(Box::new(Declared::parse(element).kind));
            }
            Some(("record", _)) => return Kind::Record,
            _ => {}
        }
        match text {
            "bool" => Kind::Bool,
            "int" => Kind::Int,
            "float" => Kind::Float,
            "number" => Kind::Number,
            "decimal" => Kind::Decimal,
            "string" => Kind::Text,
            "datetime" => Kind::Datetime,
            "duration" => Kind::Duration,
            "uuid" => Kind::Uuid,
            "bytes" => Kind::Bytes,
            "record" => Kind::Record,
            "array" | "set" => Kind::Array(Box::new(Kind::Any)),
            "object" => Kind::Object(Vec::new()),
            _ => Kind::Any,
        }
    }

    /// Declares a nested field: `a.b`, whose elements are in `path`, has a type.
    pub(super) fn declare(&mut self, path: &[&str], kind: Kind) {
        let [first, rest @ ..] = path else {
            // The members that are declared already are kept.
            if !matches!((&*self, &kind), (Kind::Object(own), Kind::Object(new)) if new.is_empty() && !own.is_empty()) {
                *self = kind;
            }
            return;
        };
        if *first == "*" || *first == "[*]" {
            if let Kind::Array(element) = self {
                element.declare(rest, kind);
            }
            return;
        }
        if *self == Kind::Any {
            *self = Kind::Object(Vec::new());
        }
        let Kind::Object(members) = self else { return };
        match members.iter_mut().find(|(name, _)| name == first) {
            Some((_, own)) => own.declare(rest, kind),
            None => {
                let mut own = Kind::Any;
                own.declare(rest, kind);
                members.push(((*first).to_string(), own));
            }
        }
    }

    /// Returns the type of a value; `None` if it has none.
    pub(super) fn of(value: &CborValue) -> Option<Kind> {
        Some(match value {
            CborValue::Bool(_) => Kind::Bool,
            CborValue::Integer(_) => Kind::Int,
            CborValue::Float(_) => Kind::Float,
            CborValue::Text(_) => Kind::Text,
            CborValue::Bytes(_) => Kind::Bytes,
            CborValue::Tag(DECIMAL, _) => Kind::Decimal,
            CborValue::Tag(DATETIME | DATETIME_TEXT, _) => Kind::Datetime,
            CborValue::Tag(DURATION | DURATION_TEXT, _) => Kind::Duration,
            CborValue::Tag(UUID | UUID_TEXT, _) => Kind::Uuid,
            CborValue::Tag(RECORD_ID, _) => Kind::Record,
            value if super::cbor::is_nothing(value) => return None,
            _ => Kind::Any,
        })
    }

    /// Returns the type of values of both types.
    pub(super) fn or(self, other: Kind) -> Kind {
        let is_number = |kind: &Kind| matches!(kind, Kind::Int | Kind::Float | Kind::Number | Kind::Decimal);
        match (self, other) {
            (own, other) if own == other => own,
            (own, other) if is_number(&own) && is_number(&other) => Kind::Number,
            _ => Kind::Any,
        }
    }

    /// Returns the type of a column that is declared in the configuration.
    pub(super) fn of_column(ty: ColumnType) -> Kind {
        match ty {
            ColumnType::String | ColumnType::Date => Kind::Text,
            ColumnType::Integer => Kind::Int,
            ColumnType::Number => Kind::Number,
            ColumnType::Boolean => Kind::Bool,
            ColumnType::Decimal => Kind::Decimal,
            ColumnType::Datetime => Kind::Datetime,
            ColumnType::Bytes => Kind::Bytes,
            ColumnType::Uuid => Kind::Uuid,
            ColumnType::Json => Kind::Any,
        }
    }

    /// Returns the type of the column.
    pub(super) fn column_type(&self) -> ColumnType {
        match self {
            Kind::Bool => ColumnType::Boolean,
            Kind::Int => ColumnType::Integer,
            Kind::Float | Kind::Number => ColumnType::Number,
            Kind::Decimal => ColumnType::Decimal,
            Kind::Text | Kind::Duration | Kind::Record => ColumnType::String,
            Kind::Datetime => ColumnType::Datetime,
            Kind::Uuid => ColumnType::Uuid,
            Kind::Bytes => ColumnType::Bytes,
            Kind::Any | Kind::Array(_) | Kind::Object(_) => ColumnType::Json,
        }
    }

    /// Returns the description of a valid cell, for a refusal.
    pub(super) fn expected(&self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Int => "a whole number of 64 bits",
            Kind::Float | Kind::Number => "a number",
            Kind::Decimal => "a decimal number, as text or number",
            Kind::Text => "text",
            Kind::Datetime => "a moment, like 2026-01-31T12:00:00Z",
            Kind::Duration => "a duration, like 1h30m",
            Kind::Uuid => "a UUID",
            Kind::Bytes => "bytes as base64url text",
            Kind::Record => "the id of a record, like person:tobie",
            Kind::Array(_) => "an array of values of its type",
            Kind::Object(_) => "an object with values of its types",
            Kind::Any => "a value",
        }
    }
}

/// Returns the word before `<` and what is between the angle brackets.
fn parameters(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once('<')?;
    Some((word.trim(), rest.strip_suffix('>')?))
}

/// Splits at `separator` outside of brackets and quotes.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut depth, mut quote) = (0_i32, None);
    text.split(move |letter: char| {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '<' | '[' | '{' | '(') => depth += 1,
            (None, '>' | ']' | '}' | ')') => depth -= 1,
            (None, letter) => return letter == separator && depth == 0,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_the_server_writes_them() {
        let declared = |kind: Kind, allows_none: bool, allows_null: bool| Declared { kind, allows_none, allows_null };
        for (text, expected) in [
            ("int", declared(Kind::Int, false, false)),
            ("none | decimal", declared(Kind::Decimal, true, false)),
            ("option<string>", declared(Kind::Text, true, false)),
            ("string | null", declared(Kind::Text, false, true)),
            ("array<datetime, 10>", declared(Kind::Array(Box::new(Kind::Datetime)), false, false)),
            (
                "set<array<none | uuid>>",
                declared(Kind::Array(Box::new(Kind::Array(Box::new(Kind::Uuid)))), false, false),
            ),
            ("record<a | b>", declared(Kind::Record, false, false)),
            ("string | int", declared(Kind::Any, false, false)),
            ("'a|b' | 'c'", declared(Kind::Any, false, false)),
            ("geometry<point>", declared(Kind::Any, false, false)),
            ("", declared(Kind::Any, true, true)),
        ] {
            assert_eq!(Declared::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn nested_fields_have_types() {
        let mut kind = Kind::Any;
        kind.declare(&["at"], Kind::Datetime);
        kind.declare(&["tags"], Kind::Array(Box::new(Kind::Any)));
        kind.declare(&["tags", "*"], Kind::Uuid);
        kind.declare(&[], Kind::Object(Vec::new()));
        let tags = Kind::Array(Box::new(Kind::Uuid));
        assert_eq!(kind, Kind::Object(vec![("at".into(), Kind::Datetime), ("tags".into(), tags)]));
    }
}
