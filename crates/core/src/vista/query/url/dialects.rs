//! Dialects beside the primary grammar: json-server's suffixes and `_sort`, simple-rest's JSON values.

use super::conditions::{Column, one_of, suffix_filter};
use super::error::{ParamError, Parsed};
use super::parser::{Parser, duplicate};
use crate::record::{CborValue, JsonLimits, parse_json, value_to_json};
use crate::vista::query::{Filter, IsTest, Literal, MAX_TESTS, OrderTerm, Test};

/// Maximum nesting depth of objects in a JSON filter.
const MAX_DEPTH: usize = 16;
/// Suffixes of json-server and FakeRest on column names.
const SUFFIXES: [(&str, &str); 7] = [
    ("_gte", "gte"),
    ("_lte", "lte"),
    ("_gt", "gt"),
    ("_lt", "lt"),
    ("_neq", "neq"),
    ("_ne", "neq"),
    ("_like", "contains"),
];

impl Parser<'_> {
    /// Column of a top-level key, and the operator of its suffix.
    pub(super) fn target(&self, key: &str, value: &str) -> Parsed<(Column, Option<&'static str>)> {
        if let Some(column) = self.column(key) {
            return Ok((column, None));
        }
        for (suffix, operator) in SUFFIXES {
            if let Some(column) = key.strip_suffix(suffix).and_then(|name| self.column(name)) {
                return Ok((column, Some(operator)));
            }
        }
        if key == "ids" {
            let id = self.schema.id_column();
            return Ok((Column { name: id.to_string(), ty: self.type_of(id), holes: self.options.holes }, None));
        }
        Err(self.unknown(key, value))
    }

    /// Applies `_sort=user,-views&_order=desc,asc`.
    pub(super) fn sort(&mut self) -> Parsed<()> {
        let sort = self.paging.sort.take().unwrap_or_default();
        let directions = self.paging.direction.take().unwrap_or_default();
        let mut directions = directions.split(',');
        for written in sort.split(',').filter(|name| !name.is_empty()) {
            let (name, reversed) = match written.strip_prefix('-') {
                Some(name) if self.column(written).is_none() => (name, true),
                _ => (written, false),
            };
            let column = self.required("_sort", name)?;
            let descending = direction("_order", directions.next().unwrap_or_default())? != reversed;
            self.add_order("_sort", column, descending)?;
        }
        Ok(())
    }

    fn add_order(&mut self, parameter: &str, column: Column, descending: bool) -> Parsed<()> {
        if self.out.query.order.len() >= MAX_TESTS {
            return Err(ParamError::too_many(parameter, format!("an order has at most {MAX_TESTS} columns")));
        }
        self.out.query.order.push(OrderTerm::new(column.name, descending));
        Ok(())
    }

    /// Reads `sort=["title","ASC"]`.
    pub(super) fn json_sort(&mut self, value: &str) -> Parsed<()> {
        let wrong = || ParamError::invalid("sort", "sort must be [\"column\",\"ASC\"] or [\"column\",\"DESC\"]");
        let CborValue::Array(words) = json("sort", value)? else { return Err(wrong()) };
        if !self.out.query.order.is_empty() {
            return Err(duplicate("sort"));
        }
        for pair in words.chunks(2) {
            let [CborValue::Text(name), CborValue::Text(word)] = pair else { return Err(wrong()) };
            let column = self.required("sort", name)?;
            let descending = direction("sort", word)?;
            self.add_order("sort", column, descending)?;
        }
        Ok(())
    }

    /// Reads `filter={"author_id":[1,2],"q":"words","price_gte":5}`.
    pub(super) fn json_filter(&mut self, value: &str) -> Parsed<()> {
        let CborValue::Map(members) = json("filter", value)? else {
            return Err(ParamError::invalid("filter", "filter must be a JSON object"));
        };
        for (key, value) in &members {
            match (key.as_text().unwrap_or_default(), value) {
                ("q", CborValue::Text(words)) => self.search("filter", words)?,
                (key, value) => self.json_condition(key, value, 0)?,
            }
        }
        Ok(())
    }

    fn json_condition(&mut self, key: &str, value: &CborValue, depth: usize) -> Parsed<()> {
        if let CborValue::Map(members) = value
            && depth < MAX_DEPTH
        {
            return members.iter().try_for_each(|(inner, value)| {
                self.json_condition(&format!("{key}.{}", inner.as_text().unwrap_or_default()), value, depth + 1)
            });
        }
        self.count("filter")?;
        let (column, operator) = self.target(key, "")?;
        let read = |value: &CborValue| {
            Literal::of_json(value, column.ty).map(Literal::One).map_err(|detail| ParamError::invalid("filter", detail))
        };
        let filter = match (value, operator) {
            (CborValue::Null, None) => Filter::test(&column.name, Test::Is(IsTest::Null)),
            (CborValue::Array(values), None) => {
                one_of("filter", &column, values.iter().map(read).collect::<Parsed<_>>()?)?
            }
            (value, None) => read(value)?.any(&column.name, Test::Eq),
            (value, Some(operator)) => {
                let text = match value {
                    CborValue::Text(text) => text.clone(),
                    other => String::from_utf8_lossy(&value_to_json(other)).into_owned(),
                };
                suffix_filter("filter", &column, operator, &text)?
            }
        };
        self.out.query.filter.and(filter);
        Ok(())
    }
}

fn direction(parameter: &str, word: &str) -> Parsed<bool> {
    match word.to_ascii_lowercase().as_str() {
        "" | "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(ParamError::invalid(parameter, format!("{word:?} is neither asc nor desc"))),
    }
}

pub(super) fn json(parameter: &str, text: &str) -> Parsed<CborValue> {
    parse_json(text.as_bytes(), JsonLimits { nodes: 10_000, depth: 16 })
        .map_err(|error| ParamError::invalid(parameter, format!("it is not JSON: {error}")))
}
