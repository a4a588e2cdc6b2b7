//! The JSON form of a query, as sent by `QUERY`, `_query` and subscriptions.
//!
//! `{"where":{"and":[{"price":{"gte":100}},{"not":{"name":{"like":"a*"}}}]},"order":[{"column":"price","desc":true,
//! "nulls":"last"}],"select":["id","size:meta->size"],"limit":50,"offset":0,"after":null,"q":"words"}`. Within `where`, members of one
//! object are ANDed; a bare value is equality, a bare array `in`, a bare null `is null`. A column named `and`, `or` or `not` is
//! written in double quotes of its own.

use super::literal::{Literal, nearest};
use super::{
    Cursor, Error, Filter, IsTest, MAX_IN, MAX_SEARCH, MAX_TESTS, OrderTerm, Path, Query, Result, Schema, SelectItem,
    Test,
};
use crate::record::CborValue;
use crate::vista::ColumnType;

type Members = [(CborValue, CborValue)];

const MEMBERS: [&str; 7] = ["where", "order", "select", "limit", "offset", "after", "q"];
const OPERATORS: [&str; 13] =
    ["eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch", "in", "is", "isdistinct"];

impl Query {
    /// Parses the JSON form, and checks its columns and the limits on queries from clients.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the part that is not valid. Unknown members are errors, too.
    pub fn from_json(value: &CborValue, schema: &Schema) -> Result<Query> {
        let mut query = Query::default();
        for (name, value) in object(value, "a query")? {
            match (text(name, "a member of a query")?, value) {
                (name, CborValue::Null) if MEMBERS.contains(&name) => {}
                ("where", value) => query.filter = Filter::from_json(value, schema)?,
                ("order", value) => query.order = each(value, "order", order_term)?,
                ("select", value) => {
                    query.select = each(value, "select", |item| SelectItem::parse(text(item, "an item of select")?))?;
                }
                ("limit", value) => query.limit = Some(count(value, "limit")?),
                ("offset", value) => query.offset = count(value, "offset")?,
                ("q", value) => query.search = Some(text(value, "q")?.to_string()).filter(|q| !q.trim().is_empty()),
                ("after", value) => {
                    query.after =
                        Some(Cursor::parse(text(value, "after")?).map_err(|error| about_column("after", error))?)
                }
                (other, _) => return Err(unknown("member of a query", other, &MEMBERS)),
            }
        }
        if query.search.as_ref().is_some_and(|q| q.chars().count() > MAX_SEARCH) {
            return Err(Error::invalid(format!("q has at most {MAX_SEARCH} characters")));
        }
        query.validate(schema)?;
        query.projection(schema)?;
        Ok(query)
    }

    /// The JSON form, without members that have their default.
    pub fn to_json(&self) -> CborValue {
        let mut members: Vec<(&str, CborValue)> = Vec::new();
        if !self.filter.is_everything() {
            members.push(("where", self.filter.to_json()));
        }
        if !self.order.is_empty() {
            members.push(("order", CborValue::Array(self.order.iter().map(order_to_json).collect())));
        }
        if !self.select.is_empty() {
            let items = self.select.iter().map(|item| CborValue::Text(item.to_string()));
            members.push(("select", CborValue::Array(items.collect())));
        }
        if let Some(limit) = self.limit {
            members.push(("limit", limit.into()));
        }
        if self.offset > 0 {
            members.push(("offset", self.offset.into()));
        }
        if let Some(after) = &self.after {
            members.push(("after", after.to_string().into()));
        }
        if let Some(search) = &self.search {
            members.push(("q", search.as_str().into()));
        }
        map(members)
    }
}

impl Filter {
    /// Parses the JSON form of a filter, the value of `where`.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the part that is not valid, or for more than [`MAX_TESTS`] tests.
    pub fn from_json(value: &CborValue, schema: &Schema) -> Result<Filter> {
        filter(value, schema, &mut { MAX_TESTS })
    }

    /// The JSON form of the filter.
    pub fn to_json(&self) -> CborValue {
        let list = |parts: &[Filter]| CborValue::Array(parts.iter().map(Filter::to_json).collect());
        match self {
            Filter::All(parts) => map(vec![("and", list(parts))]),
            Filter::Any(parts) => map(vec![("or", list(parts))]),
            Filter::Not(inner) => map(vec![("not", inner.to_json())]),
            Filter::Test { column, test } => {
                let (operator, operand) = test_to_json(test);
                map(vec![(&quoted(column, &["and", "or", "not"]), map(vec![(operator, operand)]))])
            }
        }
    }
}

impl SelectItem {
    /// Parses `*`, `column`, `alias:column` or `alias:path->key`; names with reserved characters are written in double quotes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for unsupported syntax (casts, embedded resources).
    pub fn parse(item: &str) -> Result<SelectItem> {
        let item = item.trim();
        if item == "*" {
            return Ok(SelectItem::Everything);
        }
        let (first, rest) = split_name(item, ':');
        let (alias, column) = match rest {
            Some(rest) if rest.starts_with(':') => return Err(Error::invalid("select does not support casts (`::`)")),
            Some(rest) => (Some(unquoted(first)), rest),
            None => (None, first),
        };
        let bare = !column.starts_with('"');
        if column.is_empty() || alias.as_deref() == Some("") {
            return Err(Error::invalid("select has an empty name"));
        }
        if bare && (column.contains(['(', ')']) || column.starts_with("...")) {
            let detail =
                format!("{column:?} cannot be embedded here: a list and a single row embed related rows, by their URL");
            return Err(Error::invalid(detail));
        }
        if bare && column.contains("::") {
            return Err(Error::invalid("select does not support casts (`::`)"));
        }
        Ok(SelectItem::Column { column: unquoted(column), alias })
    }
}

impl std::fmt::Display for SelectItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SelectItem::Everything => f.write_str("*"),
            SelectItem::Column { column, alias: None } => f.write_str(&quoted(column, &["*"])),
            SelectItem::Column { column, alias: Some(alias) } => {
                write!(f, "{}:{}", quoted(alias, &["*"]), quoted(column, &["*"]))
            }
        }
    }
}

/// Parses a filter with at most `left` more tests. Tests are counted before they are compiled.
fn filter(value: &CborValue, schema: &Schema, left: &mut usize) -> Result<Filter> {
    let mut all = Vec::new();
    for (name, value) in object(value, "a filter")? {
        all.push(match text(name, "a member of a filter")? {
            "and" => Filter::All(each(value, "and", |part| filter(part, schema, left))?),
            "or" => Filter::Any(each(value, "or", |part| filter(part, schema, left))?),
            "not" => filter(value, schema, left)?.not(),
            column => tests(&unquoted(column), value, schema, left)?,
        });
    }
    Ok(single(all))
}

/// Parses the tests of one column: `{"gte": 1, "lt": 5}`, or a bare value.
fn tests(column: &str, value: &CborValue, schema: &Schema, left: &mut usize) -> Result<Filter> {
    let path = Path::checked(column, schema)
        .map_err(|detail| Error::Invalid { fields: [(column.to_string(), detail.clone())].into(), detail })?;
    let ty = path.column_type(schema);
    let mut one = |operator: &str, operand| {
        *left = left.checked_sub(1).ok_or_else(|| Error::invalid(format!("a filter has at most {MAX_TESTS} tests")))?;
        test(operator, operand, ty).map(|test| Filter::test(column, test)).map_err(|error| about_column(column, error))
    };
    match value {
        CborValue::Map(operators) => {
            let mut all = Vec::with_capacity(operators.len());
            for (operator, operand) in operators {
                all.push(one(text(operator, "an operator")?, operand)?);
            }
            Ok(single(all))
        }
        CborValue::Null => one("is", value),
        CborValue::Array(_) => one("in", value),
        _ => one("eq", value),
    }
}

fn test(operator: &str, operand: &CborValue, ty: ColumnType) -> Result<Test> {
    let typed = |value: &CborValue| Literal::of_json(value, ty).map_err(Error::invalid);
    let pattern = || text(operand, "a pattern");
    Ok(match operator {
        "eq" => Test::Eq(typed(operand)?),
        "neq" => Test::Neq(typed(operand)?),
        "gt" => Test::Gt(typed(operand)?),
        "gte" => Test::Gte(typed(operand)?),
        "lt" => Test::Lt(typed(operand)?),
        "lte" => Test::Lte(typed(operand)?),
        "like" => Test::like(pattern()?)?,
        "ilike" => Test::ilike(pattern()?)?,
        "match" => Test::matches(pattern()?)?,
        "imatch" => Test::imatches(pattern()?)?,
        "in" => {
            let values = each(operand, "in", typed)?;
            if values.len() > MAX_IN {
                return Err(Error::invalid(format!("in takes at most {MAX_IN} values")));
            }
            Test::In(values)
        }
        "is" => Test::Is(truth(operand)?),
        "isdistinct" => Test::IsDistinct(typed(operand)?),
        other => return Err(unknown("operator", other, &OPERATORS)),
    })
}

fn truth(value: &CborValue) -> Result<IsTest> {
    match value {
        CborValue::Null => Ok(IsTest::Null),
        CborValue::Bool(true) => Ok(IsTest::True),
        CborValue::Bool(false) => Ok(IsTest::False),
        CborValue::Text(text) => IsTest::parse(text).ok_or(()),
        _ => Err(()),
    }
    .map_err(|()| Error::invalid("is takes null, true, false or unknown"))
}

fn test_to_json(test: &Test) -> (&'static str, CborValue) {
    match test {
        Test::Eq(value) => ("eq", value.clone()),
        Test::Neq(value) => ("neq", value.clone()),
        Test::Gt(value) => ("gt", value.clone()),
        Test::Gte(value) => ("gte", value.clone()),
        Test::Lt(value) => ("lt", value.clone()),
        Test::Lte(value) => ("lte", value.clone()),
        Test::Like(pattern) => ("like", pattern.source().into()),
        Test::Ilike(pattern) => ("ilike", pattern.source().into()),
        Test::Match(pattern) => ("match", pattern.source().into()),
        Test::Imatch(pattern) => ("imatch", pattern.source().into()),
        Test::In(values) => ("in", CborValue::Array(values.clone())),
        Test::Is(truth) => ("is", truth.as_str().into()),
        Test::IsDistinct(value) => ("isdistinct", value.clone()),
    }
}

fn order_term(value: &CborValue) -> Result<OrderTerm> {
    if let CborValue::Text(column) = value {
        return Ok(OrderTerm::new(unquoted(column), false));
    }
    let mut term = OrderTerm::new("", false);
    for (name, value) in object(value, "a term of order")? {
        match (text(name, "a member of order")?, value) {
            ("column", value) => term.column = unquoted(text(value, "column")?),
            ("desc", CborValue::Bool(descending)) => term.descending = *descending,
            ("nulls", CborValue::Text(place)) if place == "first" || place == "last" => {
                term.nulls_first = place == "first";
            }
            ("desc", _) => return Err(Error::invalid("desc must be true or false")),
            ("nulls", _) => return Err(Error::invalid("nulls must be \"first\" or \"last\"")),
            (other, _) => return Err(unknown("member of order", other, &["column", "desc", "nulls"])),
        }
    }
    if term.column.is_empty() {
        return Err(Error::invalid("a term of order needs a column"));
    }
    Ok(term)
}

fn order_to_json(term: &OrderTerm) -> CborValue {
    map(vec![
        ("column", quoted(&term.column, &[]).into()),
        ("desc", term.descending.into()),
        ("nulls", if term.nulls_first { "first" } else { "last" }.into()),
    ])
}

/// Quotes `name` if it is one of `reserved` or ambiguous; paths are not quoted.
pub(super) fn quoted(name: &str, reserved: &[&str]) -> String {
    if !reserved.contains(&name) && !name.contains(['"', ':', '(', ')', ',', '\\']) && name.trim() == name {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Removes the double quotes around `name`, if it has them, and resolves escapes.
pub fn unquoted(name: &str) -> String {
    let Some(inner) = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return name.to_string() };
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    text
}

/// Splits at the first `separator` outside of double quotes.
pub fn split_name(text: &str, separator: char) -> (&str, Option<&str>) {
    let mut in_quotes = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            c if c == separator && !in_quotes => return (&text[..at], Some(&text[at + c.len_utf8()..])),
            _ => {}
        }
    }
    (text, None)
}

fn single(mut all: Vec<Filter>) -> Filter {
    if all.len() == 1 { all.swap_remove(0) } else { Filter::All(all) }
}

fn map(members: Vec<(&str, CborValue)>) -> CborValue {
    CborValue::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn object<'a>(value: &'a CborValue, what: &str) -> Result<&'a Members> {
    match value {
        CborValue::Map(members) => Ok(members),
        _ => Err(Error::invalid(format!("{what} must be a JSON object"))),
    }
}

fn text<'a>(value: &'a CborValue, what: &str) -> Result<&'a str> {
    match value {
        CborValue::Text(text) => Ok(text),
        _ => Err(Error::invalid(format!("{what} must be a string"))),
    }
}

fn count(value: &CborValue, what: &str) -> Result<u64> {
    match value {
        CborValue::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    }
    .ok_or_else(|| Error::invalid(format!("{what} must be a whole number, 0 or more")))
}

fn each<T>(value: &CborValue, what: &str, read: impl FnMut(&CborValue) -> Result<T>) -> Result<Vec<T>> {
    match value {
        CborValue::Array(items) => items.iter().map(read).collect(),
        _ => Err(Error::invalid(format!("{what} must be an array"))),
    }
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Error {
    match nearest(name, known.iter().copied()) {
        Some(nearest) => Error::invalid(format!("{name:?} is not a valid {what}; did you mean {nearest:?}?")),
        None => Error::invalid(format!("{name:?} is not a valid {what}; there are {}", known.join(", "))),
    }
}

/// Turns `error` into an error about `column`.
fn about_column(column: &str, error: Error) -> Error {
    match error {
        Error::Invalid { detail, .. } => Error::Invalid {
            fields: [(column.to_string(), detail.clone())].into(),
            detail: format!("{column}: {detail}"),
        },
        other => other,
    }
}
