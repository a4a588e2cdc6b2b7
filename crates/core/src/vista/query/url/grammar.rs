//! The primary grammar, which is PostgREST's: conditions, logic groups, `select`, `order` and `q`.

use super::conditions::{
    OPERATORS, in_list, operation, starts_like_operator, suffix_filter, test_filter, unknown_operator,
    with_operator_hint,
};
use super::error::{ParamError, Parsed};
use super::parser::{Parser, duplicate};
use super::reader::{Reader, split_outside_quotes};
use crate::vista::query::{Filter, MAX_SEARCH, MAX_TESTS, OrderTerm, Path, SelectItem};

/// Maximum nesting depth of parentheses.
const MAX_DEPTH: usize = 16;

impl Parser<'_> {
    pub(super) fn condition(&mut self, key: &str, value: &str) -> Parsed<()> {
        if let Some((_, column, readings)) = self.bare.iter_mut().find(|(name, ..)| name == key)
            && !starts_like_operator(value)
        {
            readings.push(column.read(key, value)?);
            return Ok(());
        }
        self.count(key)?;
        let (column, suffix) = self.target(key, value)?;
        let filter = match suffix {
            Some(operator) => Some(suffix_filter(key, &column, operator, value)?),
            None => operation(key, &column, value)?,
        };
        match filter {
            Some(filter) => self.out.query.filter.and(filter),
            None => {
                let reading = column.read(key, value).map_err(|error| with_operator_hint(error, value))?;
                self.bare.push((key.to_string(), column, vec![reading]));
            }
        }
        Ok(())
    }

    pub(super) fn count(&mut self, parameter: &str) -> Parsed<()> {
        self.tests += 1;
        if self.tests <= MAX_TESTS {
            return Ok(());
        }
        Err(ParamError::too_many(parameter, format!("a query has at most {MAX_TESTS} filters")))
    }

    pub(super) fn logic(&mut self, key: &str, value: &str) -> Parsed<()> {
        let mut reader = Reader { parameter: key, rest: value.trim() };
        let filter = self.group(&mut reader, key, 0)?;
        if !reader.rest.is_empty() {
            return Err(reader.error(format!("{:?} follows the closing parenthesis", reader.rest)));
        }
        self.out.query.filter.and(filter);
        Ok(())
    }

    /// Reads `(term,term,...)` of the group `name`, which is `or`, `and`, `not.or` or `not.and`.
    fn group(&mut self, reader: &mut Reader<'_>, name: &str, depth: usize) -> Parsed<Filter> {
        if depth > MAX_DEPTH {
            return Err(reader.error("parentheses are nested too deeply"));
        }
        reader.expect('(')?;
        let mut parts = Vec::new();
        loop {
            parts.push(self.term(reader, depth)?);
            if !reader.take(',') {
                break;
            }
        }
        reader.expect(')')?;
        let filter = if name.ends_with("or") { Filter::Any(parts) } else { Filter::All(parts) };
        Ok(if name.starts_with("not.") { filter.not() } else { filter })
    }

    fn term(&mut self, reader: &mut Reader<'_>, depth: usize) -> Parsed<Filter> {
        reader.skip_spaces();
        for name in ["or", "and", "not.or", "not.and"] {
            if let Some(rest) = reader.rest.strip_prefix(name)
                && rest.trim_start().starts_with('(')
            {
                reader.rest = rest.trim_start();
                return self.group(reader, name, depth + 1);
            }
        }
        self.count(reader.parameter)?;
        let name = reader.name()?;
        let column = self.required(reader.parameter, name)?;
        let negated = reader.take_word("not.");
        let (operator, rest) =
            reader.rest.split_once('.').filter(|(operator, _)| OPERATORS.contains(operator)).ok_or_else(|| {
                let word = reader.rest.split(['.', ',', ')']).next().unwrap_or_default();
                unknown_operator(reader.parameter, word, &format!("{name}.eq.{word}"))
            })?;
        reader.rest = rest;
        let filter = if operator == "in" {
            reader.expect('(')?;
            let values = reader.list()?;
            in_list(reader.parameter, &column, &values)?
        } else {
            let value = reader.value()?;
            test_filter(reader.parameter, &column, operator, &value)?
        };
        Ok(if negated { filter.not() } else { filter })
    }

    pub(super) fn select(&mut self, value: &str) -> Parsed<()> {
        if !self.out.query.select.is_empty() {
            return Err(duplicate("select"));
        }
        for item in split_outside_quotes(value) {
            let item = SelectItem::parse(item).map_err(|error| ParamError::invalid("select", error.to_string()))?;
            let item = match item {
                // The column is unquoted already, and its own name may contain quotes.
                SelectItem::Column { column, alias } if Path::checked(&column, self.schema).is_ok() => {
                    SelectItem::Column { column, alias }
                }
                SelectItem::Column { column, alias } => {
                    SelectItem::Column { column: self.required("select", &column)?.name, alias }
                }
                SelectItem::Everything => item,
            };
            self.out.query.select.push(item);
        }
        Ok(())
    }

    pub(super) fn order(&mut self, value: &str) -> Parsed<()> {
        if !self.out.query.order.is_empty() {
            return Err(duplicate("order"));
        }
        for item in split_outside_quotes(value) {
            let item = item.trim();
            let (name, nulls_first) = match (item.strip_suffix(".nullsfirst"), item.strip_suffix(".nullslast")) {
                (Some(name), _) => (name, true),
                (None, Some(name)) => (name, false),
                (None, None) => (item, false),
            };
            let (name, descending) = match (name.strip_suffix(".desc"), name.strip_suffix(".asc")) {
                (Some(name), _) => (name, true),
                (None, Some(name)) => (name, false),
                (None, None) => (name, false),
            };
            let column = self.required("order", name).map_err(|error| match name.rsplit_once('.') {
                Some((_, word)) => {
                    error.hint(format!("write .asc or .desc and .nullsfirst or .nullslast after a column, not .{word}"))
                }
                None => error,
            })?;
            self.out.query.order.push(OrderTerm { column: column.name, descending, nulls_first });
        }
        Ok(())
    }

    pub(super) fn search(&mut self, parameter: &str, value: &str) -> Parsed<()> {
        if value.chars().count() > MAX_SEARCH {
            return Err(ParamError::too_many(parameter, format!("a search has at most {MAX_SEARCH} characters")));
        }
        if self.out.query.search.is_some() {
            return Err(duplicate(parameter));
        }
        self.out.query.search = (!value.trim().is_empty()).then(|| value.to_string());
        Ok(())
    }
}
