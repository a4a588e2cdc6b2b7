//! Parser of a query string, which dispatches each parameter to its part of the grammar.

use std::borrow::Cow;

use super::conditions::{Column, one_of, starts_like_operator};
use super::encoding::percent_decoded;
use super::error::{ParamCode, ParamError, Parsed};
use crate::vista::query::{Literal, Path, Query, Test, nearest, unquoted};
use crate::vista::{ColumnType, Schema};

/// Maximum number of parameters in one query string; more than [`MAX_IN`], because a repeated value is an `in`.
const MAX_PARAMETERS: usize = 1_100;
/// Parameters that do not name columns, unless written in double quotes.
const RESERVED: [&str; 17] = [
    "select",
    "order",
    "limit",
    "offset",
    "after",
    "q",
    "or",
    "and",
    "not.or",
    "not.and",
    "_page",
    "_limit",
    "_sort",
    "_order",
    "_start",
    "_end",
    "_per_page",
];

/// A parsed query string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListQuery {
    /// The query. Its limit is `None` if the query string has none.
    pub query: Query,
    /// Parameters of [`ParamOptions::extra`], decoded.
    pub extra: Vec<(String, String)>,
    /// The query string without limit, offset, cursor and page, as the prefix of links to other pages.
    pub without_paging: String,
}

/// Options of a route for parsing its query string.
#[derive(Clone, Copy, Debug)]
pub struct ParamOptions<'a> {
    /// Maximum number of rows.
    pub max_limit: u64,
    /// Names of parameters that the route reads itself; they have precedence over columns.
    pub extra: &'a [&'a str],
    /// True if `{name}` as a value is a hole; see [`FilterTemplate`](crate::vista::query::FilterTemplate).
    pub holes: bool,
}

impl Default for ParamOptions<'_> {
    fn default() -> Self {
        ParamOptions { max_limit: 10_000, extra: &[], holes: false }
    }
}

/// Parses a raw query string (without `?`) as a query over rows of `schema`.
///
/// # Errors
/// Returns a [`ParamError`] for the first invalid parameter, with a hint.
pub fn parse(raw: &str, schema: &Schema, options: &ParamOptions<'_>) -> Parsed<ListQuery> {
    let mut parser = Parser::new(schema, options);
    let pieces: Vec<&str> = raw.split('&').filter(|piece| !piece.is_empty()).collect();
    if pieces.len() > MAX_PARAMETERS {
        return Err(ParamError::too_many("", format!("there are more than {MAX_PARAMETERS} parameters")));
    }
    for piece in pieces {
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        let key = decode(key)?;
        let value = decode(value).map_err(|error| ParamError { parameter: key.to_string(), ..error })?;
        if !parser.parameter(&key, &value)? {
            if !parser.out.without_paging.is_empty() {
                parser.out.without_paging.push('&');
            }
            parser.out.without_paging.push_str(piece);
        }
    }
    parser.finish()
}

/// Parses decoded parameters as a query over rows of `schema`. [`ListQuery::without_paging`] stays empty.
///
/// # Errors
/// As [`parse`].
pub fn parse_parameters<'p>(
    parameters: impl IntoIterator<Item = (&'p str, &'p str)>,
    schema: &Schema,
    options: &ParamOptions<'_>,
) -> Parsed<ListQuery> {
    let mut parser = Parser::new(schema, options);
    for (key, value) in parameters {
        parser.parameter(key, value)?;
    }
    parser.finish()
}

/// State of parsing one query string.
pub(super) struct Parser<'a> {
    pub(super) schema: &'a Schema,
    pub(super) options: &'a ParamOptions<'a>,
    pub(super) out: ListQuery,
    /// Bare values by parameter: one is an equality, several are `in`.
    pub(super) bare: Vec<(String, Column, Vec<Literal>)>,
    /// Number of tests so far, counted before they are compiled.
    pub(super) tests: usize,
    pub(super) paging: Paging,
}

/// Paging and sort parameters of all dialects, combined after all parameters are read.
#[derive(Default)]
pub(super) struct Paging {
    pub(super) limit: Option<u64>,
    pub(super) offset: Option<u64>,
    pub(super) page: Option<u64>,
    pub(super) page_size: Option<u64>,
    pub(super) start: Option<u64>,
    pub(super) end: Option<u64>,
    pub(super) sort: Option<String>,
    pub(super) direction: Option<String>,
}

impl<'a> Parser<'a> {
    fn new(schema: &'a Schema, options: &'a ParamOptions<'a>) -> Parser<'a> {
        Parser { schema, options, out: ListQuery::default(), bare: Vec::new(), tests: 0, paging: Paging::default() }
    }

    /// Reads one parameter. Returns true if it is about paging.
    fn parameter(&mut self, key: &str, value: &str) -> Parsed<bool> {
        if self.options.extra.contains(&key) {
            self.out.extra.push((key.to_string(), value.to_string()));
            return Ok(false);
        }
        if self.page_parameter(key, value)? {
            return Ok(true);
        }
        self.other(key, value).map(|()| false)
    }

    fn other(&mut self, key: &str, value: &str) -> Parsed<()> {
        match key {
            "select" => self.select(value),
            "order" => self.order(value),
            "q" => self.search(key, value),
            "or" | "and" | "not.or" | "not.and" => self.logic(key, value),
            "_sort" => once(key, &mut self.paging.sort, value.to_string()),
            "_order" => once(key, &mut self.paging.direction, value.to_string()),
            "sort" if value.starts_with('[') => self.json_sort(value),
            "filter" if value.starts_with('{') => self.json_filter(value),
            _ => self.condition(key, value),
        }
    }

    fn finish(mut self) -> Parsed<ListQuery> {
        for (name, column, mut readings) in std::mem::take(&mut self.bare) {
            let filter = match readings.len() {
                1 => readings.swap_remove(0).any(&column.name, Test::Eq),
                _ => one_of(&name, &column, readings)?,
            };
            self.out.query.filter.and(filter);
        }
        self.sort()?;
        self.slice()?;
        self.out.query.check_after().map_err(|error| ParamError::invalid("after", error.to_string()))?;
        self.out.query.projection(self.schema).map_err(|error| ParamError::invalid("select", error.to_string()))?;
        Ok(self.out)
    }

    /// Column or path that `written` names: literally, in quotes, with arrows, or dotted as in json-server.
    pub(super) fn column(&self, written: &str) -> Option<Column> {
        let (name, holes) = (unquoted(written), self.options.holes);
        if Path::checked(&name, self.schema).is_ok() {
            let ty = self.type_of(&name);
            return Some(Column { name, ty, holes });
        }
        let (first, rest) = written.split_once('.')?;
        let json = self.schema.column(first).is_some_and(|column| column.ty == ColumnType::Json);
        if !json || rest.split('.').any(str::is_empty) {
            return None;
        }
        let name = format!("{first}->{}", rest.replace('.', "->"));
        Path::checked(&name, self.schema).is_ok().then_some(Column { name, ty: ColumnType::Json, holes })
    }

    pub(super) fn type_of(&self, name: &str) -> ColumnType {
        let path = Path::resolve(name, self.schema);
        path.column_type(self.schema)
    }

    /// [`Parser::column`] with an error for an unknown column.
    pub(super) fn required(&self, parameter: &str, written: &str) -> Parsed<Column> {
        self.column(written).ok_or_else(|| {
            let name = unquoted(written);
            let detail = Path::checked(&name, self.schema).err().unwrap_or_default();
            let error = ParamError::new(ParamCode::UnknownColumn, parameter, detail);
            match nearest(&name, self.names()) {
                Some(nearest) => error.hint(format!("did you mean {nearest:?}?")),
                None => error.hint(format!("columns are {}", self.names().collect::<Vec<_>>().join(", "))),
            }
        })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.columns().iter().map(|column| &*column.name)
    }

    pub(super) fn unknown(&self, key: &str, value: &str) -> ParamError {
        let parameters = || RESERVED.iter().chain(self.options.extra).copied();
        let name = unquoted(key);
        let meant = nearest(&name, self.names().chain(parameters()));
        let is_parameter = match meant {
            Some(meant) => self.schema.column(meant).is_none(),
            None => key.starts_with('_') && !starts_like_operator(value),
        };
        let (code, what) = if is_parameter {
            (ParamCode::UnknownParameter, "parameter")
        } else {
            (ParamCode::UnknownColumn, "column or parameter")
        };
        let error = ParamError::new(code, key, format!("there is no {what} {name:?}"));
        match meant {
            Some(meant) => error.hint(format!("did you mean {meant:?}?")),
            None => error.hint(format!("columns are {}", self.names().collect::<Vec<_>>().join(", "))),
        }
    }
}

pub(super) fn once<T>(parameter: &str, slot: &mut Option<T>, value: T) -> Parsed<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(duplicate(parameter)),
    }
}

pub(super) fn duplicate(parameter: &str) -> ParamError {
    ParamError::invalid(parameter, "it is given twice")
}

/// Decodes the percent-encoding of forms: `+` is a space. A `%` that does not begin a code is kept.
fn decode(text: &str) -> Parsed<Cow<'_, str>> {
    percent_decoded(text, true).ok_or_else(|| ParamError::invalid(text, "it is not UTF-8"))
}
