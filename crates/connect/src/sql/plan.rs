//! Translation of queries to SQL. Only parts with the same meaning in SQL are translated; the evaluator does the rest.

use std::fmt::Debug;

use diorama_core::record::CborValue;
use diorama_core::vista::query::{IsTest, Test};
use diorama_core::vista::{ColumnType, Filter, Query};

/// Maximum number of values of one `in` that are translated.
const MAX_PARAMETERS: usize = 1_000;

/// Translation of the parts of a query for one table of a database. `None` leaves a part to the evaluator; a part is translated
/// only if SQL gives exactly the same result.
pub(crate) trait Dialect {
    /// Type of a statement's parameters.
    type Value: Clone + Debug;

    /// Returns type and quoted name of a column if SQL and the evaluator treat it as the same type.
    fn column(&self, column: &str) -> Option<(ColumnType, &str)>;

    /// Returns the parameter that compares with cells of this type as the evaluator would.
    fn bind(&self, ty: ColumnType, value: &CborValue) -> Option<Self::Value>;

    /// Returns the placeholder of the parameter with this number, from 1, for a column of this type.
    fn placeholder(&self, ty: ColumnType, number: usize) -> String;

    /// Returns the column of this type and quoted name with byte-by-byte comparison.
    fn binary(&self, ty: ColumnType, name: &str) -> String;

    /// Returns the column of this type and quoted name for a test of equality.
    fn exact(&self, ty: ColumnType, name: &str) -> String {
        self.binary(ty, name)
    }

    /// Returns the column of this type and quoted name for a wider test of equality that an index can answer; the exact one is
    /// made too. `None` if the exact one is enough.
    fn indexed(&self, ty: ColumnType, name: &str) -> Option<String> {
        let _ = (ty, name);
        None
    }

    /// Returns the test that a cell of this type has the kind of the parameter and satisfies `operator`.
    fn range(&self, ty: ColumnType, name: &str, operator: &str, placeholder: &str) -> Option<String>;

    /// Returns true if SQL sorts cells of this type, in the column of this quoted name, as the evaluator does.
    fn sorts(&self, ty: ColumnType, name: &str) -> bool;

    /// Returns the id column.
    fn id(&self) -> &str;

    /// Returns the ` ORDER BY` clause of the natural order; empty if the table has none.
    fn natural_order(&self) -> String;

    /// Returns the clause for limit and offset, with parameters numbered from `first`.
    fn page(&self, limit: Option<u64>, offset: u64, first: usize) -> (String, Vec<Self::Value>);
}

/// Part of a query that SQL answers.
#[derive(Debug)]
pub(crate) struct Plan<V> {
    tests: Vec<String>,
    values: Vec<V>,
    order: String,
    page: String,
    page_values: Vec<V>,
    /// True if SQL answers the whole query, including limit and offset. Otherwise the rows are a superset in natural order.
    pub(crate) is_exact: bool,
}

impl<V: Clone + Debug> Plan<V> {
    /// Translates `query` for `dialect`.
    pub(crate) fn new(dialect: &impl Dialect<Value = V>, query: &Query) -> Plan<V> {
        let mut plan = Plan {
            tests: Vec::new(),
            values: Vec::new(),
            order: dialect.natural_order(),
            page: String::new(),
            page_values: Vec::new(),
            is_exact: true,
        };
        plan.narrow(dialect, &query.filter);
        plan.is_exact &= query.search.as_deref().is_none_or(|words| words.trim().is_empty());
        match sorted(dialect, query) {
            Some(order) if plan.is_exact => plan.order = order,
            Some(_) => {}
            None => plan.is_exact = false,
        }
        if plan.is_exact && (query.limit.is_some() || query.offset > 0) {
            (plan.page, plan.page_values) = dialect.page(query.limit, query.offset, plan.values.len() + 1);
        }
        plan
    }

    /// Returns the whole statement; `columns` and `table` are SQL.
    pub(crate) fn select(&self, columns: &str, table: &str) -> String {
        format!("SELECT {columns} FROM {table}{}{}{}", self.filter(), self.order, self.page)
    }

    /// Returns the parameters of [`Plan::select`].
    pub(crate) fn params(&self) -> Vec<V> {
        self.values.iter().chain(&self.page_values).cloned().collect()
    }

    /// Returns the ` WHERE` clause; empty without tests.
    pub(crate) fn filter(&self) -> String {
        if self.tests.is_empty() { String::new() } else { format!(" WHERE {}", self.tests.join(" AND ")) }
    }

    /// Returns the parameters of [`Plan::filter`].
    pub(crate) fn values(&self) -> &[V] {
        &self.values
    }

    /// Translates conjunctions only. In these "unknown" and "false" have the same effect, so SQL's nulls and types make no
    /// difference.
    fn narrow(&mut self, dialect: &impl Dialect<Value = V>, filter: &Filter) {
        match filter {
            Filter::All(parts) => parts.iter().for_each(|part| self.narrow(dialect, part)),
            Filter::Test { column, test } => match translate(dialect, column, test, self.values.len() + 1) {
                Some((test, values)) => {
                    self.tests.push(test);
                    self.values.extend(values);
                }
                None => self.is_exact = false,
            },
            _ => self.is_exact = false,
        }
    }
}

/// Translates one test; its parameters are numbered from `first`.
fn translate<D: Dialect>(dialect: &D, column: &str, test: &Test, first: usize) -> Option<(String, Vec<D::Value>)> {
    let (ty, name) = dialect.column(column)?;
    let one = |value: &CborValue| dialect.bind(ty, value).map(|value| vec![value]);
    let (exact, placeholder) = (dialect.exact(ty, name), dialect.placeholder(ty, first));
    let range =
        |operator: &str, value: &CborValue| Some((dialect.range(ty, name, operator, &placeholder)?, one(value)?));
    match test {
        Test::Eq(value) => Some(equal(dialect, ty, name, first, &one(value)?)),
        Test::Neq(value) => Some((format!("{exact} <> {placeholder}"), one(value)?)),
        Test::Gt(value) => range(">", value),
        Test::Gte(value) => range(">=", value),
        Test::Lt(value) => range("<", value),
        Test::Lte(value) => range("<=", value),
        Test::In(values) if values.len() <= MAX_PARAMETERS => {
            // A null in the list matches nothing in either evaluation.
            let values = values.iter().filter(|value| !value.is_null()).map(|value| dialect.bind(ty, value));
            Some(equal(dialect, ty, name, first, &values.collect::<Option<Vec<_>>>()?))
        }
        Test::Is(IsTest::Null | IsTest::Unknown) => Some((format!("{name} IS NULL"), Vec::new())),
        _ => None,
    }
}

/// Returns the test that a cell equals one of `values`.
fn equal<D: Dialect>(
    dialect: &D,
    ty: ColumnType,
    name: &str,
    first: usize,
    values: &[D::Value],
) -> (String, Vec<D::Value>) {
    let test = |column: &str, first: usize| {
        let placeholders: Vec<String> =
            (first..first + values.len()).map(|number| dialect.placeholder(ty, number)).collect();
        match placeholders.as_slice() {
            [] => "1 = 0".into(),
            [only] => format!("{column} = {only}"),
            several => format!("{column} IN ({})", several.join(", ")),
        }
    };
    let exact = dialect.exact(ty, name);
    match dialect.indexed(ty, name) {
        None => (test(&exact, first), values.to_vec()),
        Some(wide) => {
            let tests = format!("{} AND {}", test(&wide, first), test(&exact, first + values.len()));
            (tests, [values, values].concat())
        }
    }
}

/// Returns the ` ORDER BY` clause of the query: nulls where it requests them, ties by id in the direction of the last term.
fn sorted(dialect: &impl Dialect, query: &Query) -> Option<String> {
    let Some(last) = query.order.last() else { return Some(dialect.natural_order()) };
    let sortable = |column: &str| dialect.column(column).filter(|(ty, name)| dialect.sorts(*ty, name));
    let mut terms = Vec::new();
    for term in &query.order {
        let (ty, name) = sortable(&term.column)?;
        terms.push(format!("{name} IS {}NULL", if term.nulls_first { "NOT " } else { "" }));
        terms.push(format!("{}{}", dialect.binary(ty, name), direction(term.descending)));
    }
    let (ty, id) = sortable(dialect.id())?;
    terms.push(format!("{}{}", dialect.binary(ty, id), direction(last.descending)));
    Some(format!(" ORDER BY {}", terms.join(", ")))
}

fn direction(descending: bool) -> &'static str {
    if descending { " DESC" } else { "" }
}
