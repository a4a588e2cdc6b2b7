//! The query string of a list: the PostgREST grammar, and what json-server's and simple-rest's clients send.
//!
//! Everything becomes one [`Query`]; nothing is ignored. A value is an operator only if it begins like one (`gte.5`,
//! `not.is.null`); any other is equality, and repeated it is `in`.

use std::borrow::Cow;

use diorama_core::record::{CborValue, JsonLimits, parse_json, value_to_json};
use diorama_core::vista::query::{
    Cursor, Filter, MAX_IN, MAX_SEARCH, MAX_TESTS, OrderTerm, Path, Pattern, Query, Reading, SelectItem, Test, Truth,
    nearest, split_name, unquoted,
};
use diorama_core::vista::{ColumnType, Error, Schema};

/// Parentheses within parentheses, at most.
const MAX_DEPTH: usize = 16;
/// Pieces of one query string, at most; more than [`MAX_IN`], because a repeated value is an `in`.
const MAX_PARAMETERS: usize = 1_100;
/// Operators with a value, by name.
const OPERATORS: [&str; 13] =
    ["eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch", "in", "is", "isdistinct"];
/// Operators of PostgREST that are refused by name.
const FOREIGN: [&str; 12] = ["fts", "plfts", "phfts", "wfts", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj"];
/// Parameters that are no columns, unless written in double quotes.
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

/// What a query string asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListQuery {
    /// The query itself. Its limit is `None` if none was asked for.
    pub query: Query,
    /// Parameters of [`ParamOptions::extra`], decoded.
    pub extra: Vec<(String, String)>,
    /// The query string without limit, offset, cursor and page: what links to other pages begin with.
    pub without_paging: String,
}

/// What a route accepts beside the query.
#[derive(Clone, Copy, Debug)]
pub struct ParamOptions<'a> {
    /// Rows, at most.
    pub max_limit: u64,
    /// Names of parameters that the route reads itself; they win over columns.
    pub extra: &'a [&'a str],
}

impl Default for ParamOptions<'_> {
    fn default() -> Self {
        ParamOptions { max_limit: 10_000, extra: &[] }
    }
}

/// What kind of parameter error it is; part of the HTTP contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamCode {
    /// A column that does not exist.
    UnknownColumn,
    /// A parameter that does not exist.
    UnknownParameter,
    /// A value that cannot be read.
    InvalidParameter,
    /// More than is allowed.
    LimitTooLarge,
}

impl ParamCode {
    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            ParamCode::UnknownColumn => "unknown-column",
            ParamCode::UnknownParameter => "unknown-parameter",
            ParamCode::InvalidParameter => "invalid-parameter",
            ParamCode::LimitTooLarge => "limit-too-large",
        }
    }
}

/// A parameter that is not accepted. Always a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}: {detail}")]
pub struct ParamError {
    /// What kind.
    pub code: ParamCode,
    /// The parameter, decoded.
    pub parameter: String,
    /// What is wrong.
    pub detail: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl ParamError {
    fn new(code: ParamCode, parameter: &str, detail: impl Into<String>) -> ParamError {
        ParamError { code, parameter: parameter.to_string(), detail: detail.into(), hint: None }
    }

    fn invalid(parameter: &str, detail: impl Into<String>) -> ParamError {
        ParamError::new(ParamCode::InvalidParameter, parameter, detail)
    }

    fn too_many(parameter: &str, detail: impl Into<String>) -> ParamError {
        ParamError::new(ParamCode::LimitTooLarge, parameter, detail)
    }

    fn hint(self, hint: impl Into<String>) -> ParamError {
        ParamError { hint: Some(hint.into()), ..self }
    }
}

type Parsed<T> = Result<T, ParamError>;

/// Reads a raw query string (without `?`) as a query over rows of `schema`.
///
/// # Errors
/// The first parameter that is not understood, as a [`ParamError`] with the nearest name or what to write instead.
pub fn parse(raw: &str, schema: &Schema, options: &ParamOptions<'_>) -> Parsed<ListQuery> {
    let mut parser =
        Parser { schema, options, out: ListQuery::default(), bare: Vec::new(), tests: 0, paging: Paging::default() };
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

struct Parser<'a> {
    schema: &'a Schema,
    options: &'a ParamOptions<'a>,
    out: ListQuery,
    /// Bare values by parameter: one is equality, several are `in`.
    bare: Vec<(String, Column, Vec<Reading>)>,
    /// Tests so far, counted before anything is compiled for them.
    tests: usize,
    paging: Paging,
}

/// Page parameters of all dialects, until they are known together.
#[derive(Default)]
struct Paging {
    limit: Option<u64>,
    offset: Option<u64>,
    page: Option<u64>,
    page_size: Option<u64>,
    start: Option<u64>,
    end: Option<u64>,
    sort: Option<String>,
    direction: Option<String>,
}

/// A column or path that exists.
#[derive(Clone)]
struct Column {
    /// As filters name it.
    name: String,
    ty: ColumnType,
}

impl Parser<'_> {
    /// Takes one parameter; returns whether it is about paging.
    fn parameter(&mut self, key: &str, value: &str) -> Parsed<bool> {
        if self.options.extra.contains(&key) {
            self.out.extra.push((key.to_string(), value.to_string()));
            return Ok(false);
        }
        match key {
            "limit" => once(key, &mut self.paging.limit, number(key, value)?)?,
            "offset" => once(key, &mut self.paging.offset, number(key, value)?)?,
            "_page" => once(key, &mut self.paging.page, number(key, value)?)?,
            "_limit" | "_per_page" => once(key, &mut self.paging.page_size, number(key, value)?)?,
            "_start" => once(key, &mut self.paging.start, number(key, value)?)?,
            "_end" => once(key, &mut self.paging.end, number(key, value)?)?,
            "after" => once(key, &mut self.out.query.after, cursor(value)?)?,
            "range" if value.starts_with('[') => self.range(value)?,
            _ => return self.other(key, value).map(|()| false),
        }
        Ok(true)
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

    // --- conditions --------------------------------------------------------------------------------------------------

    fn condition(&mut self, key: &str, value: &str) -> Parsed<()> {
        if let Some((_, column, readings)) = self.bare.iter_mut().find(|(name, ..)| name == key)
            && !starts_like_operator(value)
        {
            readings.push(column.read(key, value)?);
            return Ok(());
        }
        self.count(key)?;
        let (column, suffix) = self.target(key, value)?;
        let filter = match suffix {
            Some(operator) => Some(suffixed(key, &column, operator, value)?),
            None => operation(key, &column, value)?,
        };
        match filter {
            Some(filter) => self.out.query.filter.and(filter),
            None => {
                let reading = column.read(key, value).map_err(|error| meant_operator(error, value))?;
                self.bare.push((key.to_string(), column, vec![reading]));
            }
        }
        Ok(())
    }

    fn count(&mut self, parameter: &str) -> Parsed<()> {
        self.tests += 1;
        if self.tests <= MAX_TESTS {
            return Ok(());
        }
        Err(ParamError::too_many(parameter, format!("a query has at most {MAX_TESTS} filters")))
    }

    /// The column that a top-level key names, and the operator of its suffix.
    fn target(&self, key: &str, value: &str) -> Parsed<(Column, Option<&'static str>)> {
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
            return Ok((Column { name: id.to_string(), ty: self.type_of(id) }, None));
        }
        Err(self.unknown(key, value))
    }

    /// The column or path that `written` names: literal, in quotes, with arrows, or dotted as json-server has it.
    fn column(&self, written: &str) -> Option<Column> {
        let name = unquoted(written);
        if Path::checked(&name, self.schema).is_ok() {
            let ty = self.type_of(&name);
            return Some(Column { name, ty });
        }
        let (first, rest) = written.split_once('.')?;
        let json = self.schema.column(first).is_some_and(|column| column.ty == ColumnType::Json);
        if !json || rest.split('.').any(str::is_empty) {
            return None;
        }
        let name = format!("{first}->{}", rest.replace('.', "->"));
        Path::checked(&name, self.schema).is_ok().then_some(Column { name, ty: ColumnType::Json })
    }

    fn type_of(&self, name: &str) -> ColumnType {
        let path = Path::resolve(name, self.schema);
        path.column_type(self.schema)
    }

    /// [`Parser::column`] where nothing but a column can stand.
    fn required(&self, parameter: &str, written: &str) -> Parsed<Column> {
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

    fn unknown(&self, key: &str, value: &str) -> ParamError {
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

    fn logic(&mut self, key: &str, value: &str) -> Parsed<()> {
        let mut reader = Reader { parameter: key, rest: value.trim() };
        let filter = self.group(&mut reader, key, 0)?;
        if !reader.rest.is_empty() {
            return Err(reader.error(format!("{:?} follows the closing parenthesis", reader.rest)));
        }
        self.out.query.filter.and(filter);
        Ok(())
    }

    /// `(term,term,...)` under `name`, which is `or`, `and`, `not.or` or `not.and`.
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
            tested(reader.parameter, &column, operator, &value)?
        };
        Ok(if negated { filter.not() } else { filter })
    }

    // --- the rest of the primary language ----------------------------------------------------------------------------

    fn select(&mut self, value: &str) -> Parsed<()> {
        if !self.out.query.select.is_empty() {
            return Err(twice("select"));
        }
        for item in split_outside_quotes(value) {
            let item = SelectItem::parse(item).map_err(|error| ParamError::invalid("select", error.to_string()))?;
            let item = match item {
                // It is out of its quotes already, and may have some of its own.
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

    fn order(&mut self, value: &str) -> Parsed<()> {
        if !self.out.query.order.is_empty() {
            return Err(twice("order"));
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
                    error.hint(format!("after a column stand .asc or .desc and .nullsfirst or .nullslast, not .{word}"))
                }
                None => error,
            })?;
            self.out.query.order.push(OrderTerm { column: column.name, descending, nulls_first });
        }
        Ok(())
    }

    fn search(&mut self, parameter: &str, value: &str) -> Parsed<()> {
        if value.chars().count() > MAX_SEARCH {
            return Err(ParamError::too_many(parameter, format!("a search has at most {MAX_SEARCH} characters")));
        }
        if self.out.query.search.is_some() {
            return Err(twice(parameter));
        }
        self.out.query.search = (!value.trim().is_empty()).then(|| value.to_string());
        Ok(())
    }

    // --- json-server -------------------------------------------------------------------------------------------------

    /// `_sort=user,-views&_order=desc,asc`.
    fn sort(&mut self) -> Parsed<()> {
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

    /// Limit and offset from whichever dialect was used.
    fn slice(&mut self) -> Parsed<()> {
        let Paging { limit, offset, page, page_size, start, end, .. } = self.paging;
        let foreign = page.or(page_size).or(start).or(end).is_some();
        if foreign && limit.or(offset).is_some() {
            return Err(ParamError::invalid(
                "limit",
                "limit and offset cannot stand beside _page, _limit, _per_page, _start or _end",
            ));
        }
        if self.out.query.after.is_some() && offset.or(page).or(start).or(end).is_some() {
            let detail = "it cannot stand beside an offset or a page: a cursor says itself where to go on";
            return Err(ParamError::invalid("after", detail));
        }
        let (limit, offset) = match (page, start.unwrap_or(0), end) {
            (Some(0), ..) => return Err(ParamError::invalid("_page", "pages are numbered from 1")),
            (Some(page), ..) => {
                let size = page_size.unwrap_or(10);
                (Some(size), (page - 1).saturating_mul(size))
            }
            (None, start, Some(end)) => (Some(end.saturating_sub(start)), start),
            (None, start, None) if foreign => (page_size, start),
            (None, ..) => (limit, offset.unwrap_or(0)),
        };
        if limit.is_some_and(|limit| limit > self.options.max_limit) {
            let detail = format!("at most {} rows can be asked for at once", self.options.max_limit);
            return Err(
                ParamError::too_many("limit", detail).hint("page with offset, or ask for NDJSON, which has no limit")
            );
        }
        self.out.query.limit = limit;
        self.out.query.offset = offset;
        Ok(())
    }

    // --- simple-rest -------------------------------------------------------------------------------------------------

    /// `range=[0,24]`, both ends included.
    fn range(&mut self, value: &str) -> Parsed<()> {
        let wrong = || ParamError::invalid("range", "range is [first,last], counted from 0, both included");
        let CborValue::Array(ends) = json("range", value)? else { return Err(wrong()) };
        let ends: Option<Vec<u64>> =
            ends.iter().map(|end| end.as_integer().and_then(|end| u64::try_from(end).ok())).collect();
        match ends.as_deref() {
            Some([first, last]) if last.saturating_add(1) >= *first => {
                once("range", &mut self.paging.offset, *first)?;
                once("range", &mut self.paging.limit, last.saturating_add(1) - first)
            }
            _ => Err(wrong()),
        }
    }

    /// `sort=["title","ASC"]`.
    fn json_sort(&mut self, value: &str) -> Parsed<()> {
        let wrong = || ParamError::invalid("sort", "sort is [\"column\",\"ASC\"] or [\"column\",\"DESC\"]");
        let CborValue::Array(words) = json("sort", value)? else { return Err(wrong()) };
        if !self.out.query.order.is_empty() {
            return Err(twice("sort"));
        }
        for pair in words.chunks(2) {
            let [CborValue::Text(name), CborValue::Text(word)] = pair else { return Err(wrong()) };
            let column = self.required("sort", name)?;
            let descending = direction("sort", word)?;
            self.add_order("sort", column, descending)?;
        }
        Ok(())
    }

    /// `filter={"author_id":[1,2],"q":"words","price_gte":5}`.
    fn json_filter(&mut self, value: &str) -> Parsed<()> {
        let CborValue::Map(members) = json("filter", value)? else {
            return Err(ParamError::invalid("filter", "filter is a JSON object"));
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
            Reading::of_json(value, column.ty).map(Reading::One).map_err(|detail| ParamError::invalid("filter", detail))
        };
        let filter = match (value, operator) {
            (CborValue::Null, None) => Filter::test(&column.name, Test::Is(Truth::Null)),
            (CborValue::Array(values), None) => {
                one_of("filter", &column, values.iter().map(read).collect::<Parsed<_>>()?)?
            }
            (value, None) => read(value)?.any(&column.name, Test::Eq),
            (value, Some(operator)) => {
                let text = match value {
                    CborValue::Text(text) => text.clone(),
                    other => String::from_utf8_lossy(&value_to_json(other)).into_owned(),
                };
                suffixed("filter", &column, operator, &text)?
            }
        };
        self.out.query.filter.and(filter);
        Ok(())
    }
}

impl Column {
    fn read(&self, parameter: &str, text: &str) -> Parsed<Reading> {
        Reading::of_text(text, self.ty).map_err(|detail| {
            let error = ParamError::invalid(parameter, format!("{detail}, as column {:?} needs", self.name));
            if text.eq_ignore_ascii_case("null") { error.hint("use is.null") } else { error }
        })
    }
}

/// What `value` asks of `column` if it begins like an operator.
fn operation(parameter: &str, column: &Column, value: &str) -> Parsed<Option<Filter>> {
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
        tested(parameter, column, word, operand)?
    };
    Ok(Some(if negated { filter.not() } else { filter }))
}

fn starts_like_operator(value: &str) -> bool {
    let value = value.strip_prefix("not.").unwrap_or(value);
    value.split_once('.').is_some_and(|(word, _)| OPERATORS.contains(&word))
}

fn unknown_operator(parameter: &str, word: &str, instead: &str) -> ParamError {
    let error = ParamError::invalid(parameter, format!("{word:?} is no operator"));
    match nearest(word, OPERATORS) {
        Some(meant) => error.hint(format!("did you mean {meant:?}? For the text itself write {instead}")),
        None => error.hint(format!("operators are {}; for the text itself write {instead}", OPERATORS.join(", "))),
    }
}

/// `column.operator.text`, any operator but `in`.
fn tested(parameter: &str, column: &Column, operator: &str, text: &str) -> Parsed<Filter> {
    let name = &column.name;
    let read = || column.read(parameter, text);
    let pattern = |test: diorama_core::Result<Test>| match test {
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
        "is" if text.eq_ignore_ascii_case("not_null") => Ok(Filter::test(name, Test::Is(Truth::Null)).not()),
        "is" => match Truth::parse(text) {
            Some(truth) => Ok(Filter::test(name, Test::Is(truth))),
            None => Err(ParamError::invalid(parameter, "is takes null, not_null, true, false or unknown")
                .hint(format!("for the text itself write eq.is.{text}"))),
        },
        other => Err(unknown_operator(parameter, other, &format!("eq.{text}"))),
    }
}

/// A condition by json-server's suffix, whose `_like` is "contains, whatever the case".
fn suffixed(parameter: &str, column: &Column, operator: &str, text: &str) -> Parsed<Filter> {
    match operator {
        "contains" => tested(parameter, column, "ilike", &Pattern::containing(text)),
        _ => tested(parameter, column, operator, text),
    }
}

/// `error` as one about an operator, if the unreadable `value` begins with a word and a dot.
fn meant_operator(error: ParamError, value: &str) -> ParamError {
    match value.split_once('.') {
        Some((word, _)) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            let hint = match nearest(word, OPERATORS) {
                Some(meant) => format!("did you mean the operator {meant:?}?"),
                None => format!("operators are {}", OPERATORS.join(", ")),
            };
            ParamError { detail: format!("{}, and {word:?} is no operator", error.detail), ..error }.hint(hint)
        }
        _ => error,
    }
}

fn in_list(parameter: &str, column: &Column, values: &[String]) -> Parsed<Filter> {
    let readings = values.iter().map(|value| column.read(parameter, value)).collect::<Parsed<_>>()?;
    one_of(parameter, column, readings)
}

fn one_of(parameter: &str, column: &Column, readings: Vec<Reading>) -> Parsed<Filter> {
    if readings.len() > MAX_IN {
        return Err(ParamError::too_many(parameter, format!("at most {MAX_IN} values can be asked for at once")));
    }
    Ok(Filter::test(&column.name, Test::In(readings.into_iter().flat_map(Reading::values).collect())))
}

/// A place in a logic group or a list.
struct Reader<'a> {
    parameter: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn error(&self, detail: impl Into<String>) -> ParamError {
        ParamError::invalid(self.parameter, detail)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, c: char) -> bool {
        self.skip_spaces();
        let found = self.rest.strip_prefix(c);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.rest.strip_prefix(word);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        if self.take(c) {
            return Ok(());
        }
        Err(match self.rest.chars().next() {
            Some(found) => self.error(format!("{c:?} is missing before {found:?}")),
            None => self.error(format!("{c:?} is missing at the end")),
        })
    }

    /// A column's name as it is written, up to the dot that follows it.
    fn name(&mut self) -> Parsed<&'a str> {
        let (name, rest) = split_name(self.rest, '.');
        let rest = rest.ok_or_else(|| self.error(format!("{name:?} is no condition; write column.operator.value")))?;
        self.rest = rest;
        Ok(name.trim())
    }

    /// A value: in double quotes, or up to a comma or parenthesis.
    fn value(&mut self) -> Parsed<String> {
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            while let Some((at, c)) = chars.next() {
                match c {
                    '"' => {
                        self.rest = &quoted[at + 1..];
                        return Ok(value);
                    }
                    '\\' => value.extend(chars.next().map(|(_, c)| c)),
                    c => value.push(c),
                }
            }
            return Err(self.error("a double quote is not closed"));
        }
        let end = self.rest.find([',', ')']).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(value.to_string())
    }

    /// Values up to the closing parenthesis; the opening one is behind.
    fn list(&mut self) -> Parsed<Vec<String>> {
        let mut values = Vec::new();
        if self.take(')') {
            return Ok(values);
        }
        loop {
            self.skip_spaces();
            values.push(self.value()?);
            if self.take(')') {
                return Ok(values);
            }
            self.expect(',')?;
        }
    }
}

pub(crate) fn split_outside_quotes(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text).filter(|text| !text.trim().is_empty());
    std::iter::from_fn(move || {
        let (item, tail) = split_name(rest?, ',');
        rest = tail;
        Some(item)
    })
}

fn direction(parameter: &str, word: &str) -> Parsed<bool> {
    match word.to_ascii_lowercase().as_str() {
        "" | "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(ParamError::invalid(parameter, format!("{word:?} is neither asc nor desc"))),
    }
}

fn number(parameter: &str, value: &str) -> Parsed<u64> {
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParamError::invalid(parameter, format!("{value:?} is not a whole number, 0 or more")));
    }
    value.parse().map_err(|_| ParamError::too_many(parameter, format!("{value} is too large")))
}

fn cursor(value: &str) -> Parsed<Cursor> {
    Cursor::parse(value).map_err(|error| ParamError::invalid("after", error.to_string()))
}

fn once<T>(parameter: &str, slot: &mut Option<T>, value: T) -> Parsed<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(parameter)),
    }
}

fn twice(parameter: &str) -> ParamError {
    ParamError::invalid(parameter, "it is given twice")
}

fn json(parameter: &str, text: &str) -> Parsed<CborValue> {
    parse_json(text.as_bytes(), JsonLimits { nodes: 10_000, depth: 16 })
        .map_err(|error| ParamError::invalid(parameter, format!("it is not JSON: {error}")))
}

/// Percent-decoding as forms have it: `+` is a space. A `%` that begins no code stands for itself.
fn decode(text: &str) -> Parsed<Cow<'_, str>> {
    percent_decoded(text, true).ok_or_else(|| ParamError::invalid(text, "it is not UTF-8"))
}

/// Percent-decoding, with `+` as a space or as itself. A `%` that begins no code stands for itself. `None` if it is not UTF-8.
pub(crate) fn percent_decoded(text: &str, plus_is_space: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (byte == b'+' && plus_is_space)) {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let hex =
        |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16)).and_then(|d| u8::try_from(d).ok());
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match (byte, hex(at), hex(at + 1)) {
            (b'+', ..) if plus_is_space => decoded.push(b' '),
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 2;
            }
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

impl From<ParamError> for Error {
    fn from(error: ParamError) -> Error {
        let mut detail = error.to_string();
        if let Some(hint) = &error.hint {
            detail.push_str(": ");
            detail.push_str(hint);
        }
        Error::Invalid { detail, fields: [(error.parameter, error.detail)].into() }
    }
}

#[cfg(test)]
mod tests;
