//! Conditions on one column: an operator and its operand, parsed into a [`Filter`].

use super::error::{ParamError, Parsed};
use super::reader::Reader;
use crate::record::CborValue;
use crate::vista::ColumnType;
use crate::vista::query::template::{hole, hole_name};
use crate::vista::query::{Filter, IsTest, Literal, MAX_IN, Pattern, Test, nearest};

/// Names of the supported operators.
pub(super) const OPERATORS: [&str; 13] =
    ["eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch", "in", "is", "isdistinct"];
/// Names of PostgREST's operators that are not supported.
const FOREIGN: [&str; 12] = ["fts", "plfts", "phfts", "wfts", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"];

/// An existing column, or a path into one.
#[derive(Clone)]
pub(super) struct Column {
    /// Name in filters.
    pub(super) name: String,
    pub(super) ty: ColumnType,
    /// True if values may be holes of a template.
    pub(super) holes: bool,
}

impl Column {
    pub(super) fn read(&self, parameter: &str, text: &str) -> Parsed<Literal> {
        if self.holes
            && let Some(name) = hole_name(text)
        {
            return Ok(Literal::One(hole(name)));
        }
        Literal::of_text(text, self.ty).map_err(|detail| {
            let error = ParamError::invalid(parameter, format!("{detail}, as column {:?} needs", self.name));
            if text.eq_ignore_ascii_case("null") { error.hint("use is.null") } else { error }
        })
    }
}

/// Parses `value` as a condition on `column`; `None` if it does not begin like an operator.
pub(super) fn operation(parameter: &str, column: &Column, value: &str) -> Parsed<Option<Filter>> {
    let (negated, rest) = match value.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let word = rest.split_once('.').map_or("", |(word, _)| word);
    let name = word.split_once('(').map_or(word, |(name, _)| name);
    if name != word && (OPERATORS.contains(&name) || FOREIGN.contains(&name)) || FOREIGN.contains(&word) {
        return Err(ParamError::invalid(parameter, format!("the operator {word:?} is not supported"))
            .hint(format!("for the text itself write eq.{value}")));
    }
    if !OPERATORS.contains(&word) {
        let broken = || unknown_operator(parameter, rest.split('.').next().unwrap_or(rest), &format!("eq.{value}"));
        return if negated { Err(broken()) } else { Ok(None) };
    }
    let operand = &rest[word.len() + 1..];
    let filter = if word == "in" {
        let mut reader = Reader { parameter, rest: operand };
        let hint = |error: ParamError| error.hint(format!("lists are in.(a,b); for the text itself write eq.{value}"));
        reader.expect('(').map_err(hint)?;
        let values = reader.list().map_err(hint)?;
        if !reader.rest.is_empty() {
            return Err(hint(reader.error(format!("{:?} follows the list", reader.rest))));
        }
        in_list(parameter, column, &values)?
    } else {
        test_filter(parameter, column, word, operand)?
    };
    Ok(Some(if negated { filter.not() } else { filter }))
}

pub(super) fn starts_like_operator(value: &str) -> bool {
    let value = value.strip_prefix("not.").unwrap_or(value);
    value.split_once('.').is_some_and(|(word, _)| OPERATORS.contains(&word))
}

pub(super) fn unknown_operator(parameter: &str, word: &str, instead: &str) -> ParamError {
    let error = ParamError::invalid(parameter, format!("{word:?} is not a valid operator"));
    match nearest(word, OPERATORS) {
        Some(meant) => error.hint(format!("did you mean {meant:?}? For the text itself write {instead}")),
        None => error.hint(format!("operators are {}; for the text itself write {instead}", OPERATORS.join(", "))),
    }
}

/// Parses the operand `text` of any operator but `in`.
pub(super) fn test_filter(parameter: &str, column: &Column, operator: &str, text: &str) -> Parsed<Filter> {
    let name = &column.name;
    let read = || column.read(parameter, text);
    let pattern = |test: crate::vista::Result<Test>| match test {
        Ok(test) => Ok(Filter::test(name, test)),
        Err(error) => Err(ParamError::invalid(parameter, error.to_string())),
    };
    match operator {
        "eq" => Ok(read()?.any(name, Test::Eq)),
        "neq" => Ok(read()?.all(name, Test::Neq)),
        "gt" => Ok(read()?.any(name, Test::Gt)),
        "gte" => Ok(read()?.any(name, Test::Gte)),
        "lt" => Ok(read()?.any(name, Test::Lt)),
        "lte" => Ok(read()?.any(name, Test::Lte)),
        "like" => pattern(Test::like(text)),
        "ilike" => pattern(Test::ilike(text)),
        "match" => pattern(Test::matches(text)),
        "imatch" => pattern(Test::imatches(text)),
        "isdistinct" if text == "null" => Ok(Filter::test(name, Test::IsDistinct(CborValue::Null))),
        "isdistinct" => Ok(read()?.all(name, Test::IsDistinct)),
        "is" if text.eq_ignore_ascii_case("not_null") => Ok(Filter::test(name, Test::Is(IsTest::Null)).not()),
        "is" => match IsTest::parse(text) {
            Some(truth) => Ok(Filter::test(name, Test::Is(truth))),
            None => Err(ParamError::invalid(parameter, "is takes null, not_null, true, false or unknown")
                .hint(format!("for the text itself write eq.is.{text}"))),
        },
        other => Err(unknown_operator(parameter, other, &format!("eq.{text}"))),
    }
}

/// Parses a condition with a suffix of json-server, whose `_like` is a case-insensitive "contains".
pub(super) fn suffix_filter(parameter: &str, column: &Column, operator: &str, text: &str) -> Parsed<Filter> {
    match operator {
        "contains" => test_filter(parameter, column, "ilike", &Pattern::containing(text)),
        _ => test_filter(parameter, column, operator, text),
    }
}

/// Turns `error` into one about an operator, if the invalid `value` begins with a word and a dot.
pub(super) fn with_operator_hint(error: ParamError, value: &str) -> ParamError {
    match value.split_once('.') {
        Some((word, _)) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            let hint = match nearest(word, OPERATORS) {
                Some(meant) => format!("did you mean the operator {meant:?}?"),
                None => format!("operators are {}", OPERATORS.join(", ")),
            };
            ParamError { detail: format!("{}, and {word:?} is not a valid operator", error.detail), ..error }.hint(hint)
        }
        _ => error,
    }
}

pub(super) fn in_list(parameter: &str, column: &Column, values: &[String]) -> Parsed<Filter> {
    let readings = values.iter().map(|value| column.read(parameter, value)).collect::<Parsed<_>>()?;
    one_of(parameter, column, readings)
}

pub(super) fn one_of(parameter: &str, column: &Column, readings: Vec<Literal>) -> Parsed<Filter> {
    if readings.len() > MAX_IN {
        return Err(ParamError::too_many(parameter, format!("at most {MAX_IN} values can be requested at once")));
    }
    Ok(Filter::test(&column.name, Test::In(readings.into_iter().flat_map(Literal::values).collect())))
}
