//! Comparisons in filters.

use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::Value;

/// Comparison of a value in a row with one in a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Operator {
    /// The operator of a word such as `eq`, `$gte` or `LTE`.
    pub(super) fn read(word: &str) -> Option<Operator> {
        match word.trim_start_matches('$').to_lowercase().as_str() {
            "eq" => Some(Operator::Equal),
            "ne" | "neq" => Some(Operator::NotEqual),
            "gt" => Some(Operator::Greater),
            "ge" | "gte" => Some(Operator::GreaterOrEqual),
            "lt" => Some(Operator::Less),
            "le" | "lte" => Some(Operator::LessOrEqual),
            _ => None,
        }
    }

    /// True if it holds. Values that cannot be compared are not equal, and neither is greater.
    pub(super) fn holds(self, value: &Value, wanted: &Value) -> bool {
        let order = compare(value, wanted);
        match self {
            Operator::Equal => order == Some(Ordering::Equal),
            Operator::NotEqual => order != Some(Ordering::Equal),
            Operator::Greater => order == Some(Ordering::Greater),
            Operator::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
            Operator::Less => order == Some(Ordering::Less),
            Operator::LessOrEqual => order.is_some_and(Ordering::is_le),
        }
    }
}

/// Order of two values: numbers to the last digit, texts that are times as times. None if they cannot be compared.
pub(super) fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => match (left.parse::<Timestamp>(), right.parse::<Timestamp>()) {
            (Ok(left), Ok(right)) => Some(left.cmp(&right)),
            _ => Some(left.cmp(right)),
        },
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        _ => None,
    }
}

/// Order for a sort: nulls are first.
pub(super) fn sorted(left: &Value, right: &Value) -> Ordering {
    compare(left, right).unwrap_or_else(|| right.is_null().cmp(&left.is_null()))
}

/// Value that a text stands for: a number, a truth value, null, or itself.
pub(super) fn literal(text: &str) -> Value {
    serde_json::from_str(text)
        .ok()
        .filter(|value: &Value| !value.is_object() && !value.is_array())
        .unwrap_or_else(|| text.into())
}
