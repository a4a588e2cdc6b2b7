//! Which part of a query SQL answers. Only what means the same there: everything else is the evaluator's.

use rusqlite::types::Value;

use super::table::Table;
use diorama_core::record::CborValue;
use diorama_core::vista::query::{Test, Truth};
use diorama_core::vista::{ColumnType, Filter, Query};

/// Values of one `in` that go into SQL, at most.
const MAX_PARAMETERS: usize = 1_000;

/// A query as far as SQL answers it.
#[derive(Debug)]
pub(super) struct Plan {
    tests: Vec<(String, Vec<Value>)>,
    order: String,
    /// Whether SQL answers all of it, limit and offset included. If not, the rows are a superset in natural order.
    pub(super) is_exact: bool,
}

impl Plan {
    pub(super) fn new(table: &Table, query: &Query) -> Plan {
        let mut plan = Plan { tests: Vec::new(), order: table.natural_order(), is_exact: true };
        plan.narrow(table, &query.filter);
        plan.is_exact &= query.search.as_deref().is_none_or(|words| words.trim().is_empty());
        match sorted(table, query) {
            Some(order) if plan.is_exact => plan.order = order,
            Some(_) => {}
            None => plan.is_exact = false,
        }
        plan
    }

    /// The whole statement.
    pub(super) fn select(&self, table: &Table, query: &Query) -> String {
        let limited = self.is_exact && (query.limit.is_some() || query.offset > 0);
        let limit = if limited { " LIMIT ? OFFSET ?" } else { "" };
        format!("SELECT {} FROM {}{}{}{limit}", table.selected, table.quoted, self.filter(), self.order)
    }

    /// The parameters of [`Plan::select`].
    pub(super) fn params(&self, query: &Query) -> Vec<Value> {
        let mut values = self.values();
        if self.is_exact && (query.limit.is_some() || query.offset > 0) {
            let bounded = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
            values.push(query.limit.map_or(Value::Integer(-1), bounded));
            values.push(bounded(query.offset));
        }
        values
    }

    /// ` WHERE` and the tests, or nothing.
    pub(super) fn filter(&self) -> String {
        let tests: Vec<&str> = self.tests.iter().map(|(test, _)| test.as_str()).collect();
        if tests.is_empty() { String::new() } else { format!(" WHERE {}", tests.join(" AND ")) }
    }

    /// The parameters of [`Plan::filter`].
    pub(super) fn values(&self) -> Vec<Value> {
        self.tests.iter().flat_map(|(_, values)| values.iter().cloned()).collect()
    }

    /// Only conjunctions: there "unknown" and "no" are the same, so SQL's nulls and kinds cannot differ from ours.
    fn narrow(&mut self, table: &Table, filter: &Filter) {
        match filter {
            Filter::All(parts) => parts.iter().for_each(|part| self.narrow(table, part)),
            Filter::Test { column, test } => match translate(table, column, test) {
                Some(sql) => self.tests.push(sql),
                None => self.is_exact = false,
            },
            _ => self.is_exact = false,
        }
    }
}

fn translate(table: &Table, column: &str, test: &Test) -> Option<(String, Vec<Value>)> {
    let (ty, name) = comparable(table, column)?;
    let one = |value: &CborValue| bind(ty, value).map(|value| vec![value]);
    // SQLite puts texts after numbers; to the evaluator neither is greater.
    let range = |operator: &str, value: &CborValue| {
        let kinds = match ty {
            ColumnType::Integer | ColumnType::Number => "IN ('integer', 'real')",
            ColumnType::String => "= 'text'",
            _ => return None,
        };
        Some((format!("(typeof({name}) {kinds} AND {name} {operator} ? COLLATE BINARY)"), one(value)?))
    };
    match test {
        Test::Eq(value) => Some((format!("{name} = ? COLLATE BINARY"), one(value)?)),
        Test::Neq(value) => Some((format!("{name} <> ? COLLATE BINARY"), one(value)?)),
        Test::Gt(value) => range(">", value),
        Test::Gte(value) => range(">=", value),
        Test::Lt(value) => range("<", value),
        Test::Lte(value) => range("<=", value),
        Test::In(values) if values.len() <= MAX_PARAMETERS => {
            // A null among them matches nothing, here and there.
            let values = values.iter().filter(|value| !value.is_null()).map(|value| bind(ty, value));
            let values = values.collect::<Option<Vec<_>>>()?;
            let marks = vec!["?"; values.len()].join(", ");
            Some((format!("{name} COLLATE BINARY IN ({marks})"), values))
        }
        Test::Is(Truth::Null | Truth::Unknown) => Some((format!("{name} IS NULL"), Vec::new())),
        _ => None,
    }
}

/// The parameter that compares with cells of this type as the evaluator would, `None` if there is none.
fn bind(ty: ColumnType, value: &CborValue) -> Option<Value> {
    match (ty, value) {
        (ColumnType::Integer | ColumnType::Number, CborValue::Integer(number)) => {
            i64::try_from(*number).ok().map(Value::Integer)
        }
        (ColumnType::Integer | ColumnType::Number, CborValue::Float(number)) if number.is_finite() => {
            Some(Value::Real(*number))
        }
        (ColumnType::Boolean, CborValue::Bool(value)) => Some(Value::Integer((*value).into())),
        (ColumnType::String, CborValue::Text(text)) => Some(Value::Text(text.clone())),
        _ => None,
    }
}

/// ` ORDER BY` what the query asks for: nulls where it wants them, ties by id in the direction of the last term.
fn sorted(table: &Table, query: &Query) -> Option<String> {
    let Some(last) = query.order.last() else { return Some(table.natural_order()) };
    let mut terms = Vec::new();
    for term in &query.order {
        let name = sortable(table, &term.column)?;
        terms.push(format!("{name} IS {}NULL", if term.nulls_first { "NOT " } else { "" }));
        terms.push(format!("{name} COLLATE BINARY{}", direction(term.descending)));
    }
    let id = sortable(table, table.schema.id_column())?;
    terms.push(format!("{id} COLLATE BINARY{}", direction(last.descending)));
    Some(format!(" ORDER BY {}", terms.join(", ")))
}

/// Columns whose cells SQLite sorts as the evaluator does: numbers before texts before bytes.
fn sortable<'a>(table: &'a Table, column: &str) -> Option<&'a str> {
    let (ty, name) = comparable(table, column)?;
    matches!(ty, ColumnType::Integer | ColumnType::Number | ColumnType::String).then_some(name)
}

/// Type and name of a column, if SQL and the evaluator see the same type in it.
fn comparable<'a>(table: &'a Table, column: &str) -> Option<(ColumnType, &'a str)> {
    let ty = table.schema.column(column)?.ty;
    let same = |kind: ColumnType| {
        use ColumnType::{Boolean, Integer, Number, String};
        kind == ty && matches!(kind, Integer | Number | String | Boolean)
    };
    table.field(column).filter(|field| same(field.kind)).map(|field| (ty, field.quoted.as_str()))
}

fn direction(descending: bool) -> &'static str {
    if descending { " DESC" } else { "" }
}
