//! Which part of a query SQL answers. Only what means the same there: everything else is the evaluator's.

use std::fmt::Debug;

use diorama_core::record::CborValue;
use diorama_core::vista::query::{IsTest, Test};
use diorama_core::vista::{ColumnType, Filter, Query};

/// Values of one `in` that go into SQL, at most.
const MAX_PARAMETERS: usize = 1_000;

/// What a database makes of the parts of a query, for one table. `None` leaves a part to the evaluator: SQL is asked only where it
/// says exactly the same.
pub(crate) trait Dialect {
    /// A parameter of a statement.
    type Value: Clone + Debug;

    /// Type and quoted name of a column, if SQL and the evaluator see the same type in it.
    fn column(&self, column: &str) -> Option<(ColumnType, &str)>;

    /// The parameter that compares with cells of this type as the evaluator would.
    fn bind(&self, ty: ColumnType, value: &CborValue) -> Option<Self::Value>;

    /// The parameter with this number, from 1, as it stands in a statement.
    fn mark(&self, number: usize) -> String;

    /// The column of this name, compared byte by byte.
    fn exact(&self, name: &str) -> String;

    /// The test that a cell of this type is of the kind of its parameter and stands to it as `operator` says.
    fn range(&self, ty: ColumnType, name: &str, operator: &str, mark: &str) -> Option<String>;

    /// Whether SQL sorts cells of this type as the evaluator does.
    fn sorts(&self, ty: ColumnType) -> bool;

    /// The column that identifies rows.
    fn id(&self) -> &str;

    /// ` ORDER BY` the order of rows that nobody sorted; empty if the table has none.
    fn natural_order(&self) -> String;

    /// ` LIMIT` and offset, whose parameters begin with the number `first`.
    fn page(&self, limit: Option<u64>, offset: u64, first: usize) -> (String, Vec<Self::Value>);
}

/// A query as far as SQL answers it.
#[derive(Debug)]
pub(crate) struct Plan<V> {
    tests: Vec<String>,
    values: Vec<V>,
    order: String,
    page: String,
    page_values: Vec<V>,
    /// Whether SQL answers all of it, limit and offset included. If not, the rows are a superset in natural order.
    pub(crate) is_exact: bool,
}

impl<V: Clone + Debug> Plan<V> {
    /// What `dialect` makes of `query`.
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

    /// The whole statement: `columns` of the rows of `table`, both as SQL takes them.
    pub(crate) fn select(&self, columns: &str, table: &str) -> String {
        format!("SELECT {columns} FROM {table}{}{}{}", self.filter(), self.order, self.page)
    }

    /// The parameters of [`Plan::select`].
    pub(crate) fn params(&self) -> Vec<V> {
        self.values.iter().chain(&self.page_values).cloned().collect()
    }

    /// ` WHERE` and the tests, or nothing.
    pub(crate) fn filter(&self) -> String {
        if self.tests.is_empty() { String::new() } else { format!(" WHERE {}", self.tests.join(" AND ")) }
    }

    /// The parameters of [`Plan::filter`].
    pub(crate) fn values(&self) -> &[V] {
        &self.values
    }

    /// Only conjunctions: there "unknown" and "no" are the same, so SQL's nulls and kinds cannot differ from ours.
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

/// One test with its parameters, which begin with the number `first`.
fn translate<D: Dialect>(dialect: &D, column: &str, test: &Test, first: usize) -> Option<(String, Vec<D::Value>)> {
    let (ty, name) = dialect.column(column)?;
    let one = |value: &CborValue| dialect.bind(ty, value).map(|value| vec![value]);
    let (exact, mark) = (dialect.exact(name), dialect.mark(first));
    let range = |operator: &str, value: &CborValue| Some((dialect.range(ty, name, operator, &mark)?, one(value)?));
    match test {
        Test::Eq(value) => Some((format!("{exact} = {mark}"), one(value)?)),
        Test::Neq(value) => Some((format!("{exact} <> {mark}"), one(value)?)),
        Test::Gt(value) => range(">", value),
        Test::Gte(value) => range(">=", value),
        Test::Lt(value) => range("<", value),
        Test::Lte(value) => range("<=", value),
        Test::In(values) if values.len() <= MAX_PARAMETERS => {
            // A null among them matches nothing, here and there.
            let values = values.iter().filter(|value| !value.is_null()).map(|value| dialect.bind(ty, value));
            let values = values.collect::<Option<Vec<_>>>()?;
            let marks: Vec<String> = (first..first + values.len()).map(|number| dialect.mark(number)).collect();
            Some((format!("{exact} IN ({})", marks.join(", ")), values))
        }
        Test::Is(IsTest::Null | IsTest::Unknown) => Some((format!("{name} IS NULL"), Vec::new())),
        _ => None,
    }
}

/// ` ORDER BY` what the query asks for: nulls where it wants them, ties by id in the direction of the last term.
fn sorted(dialect: &impl Dialect, query: &Query) -> Option<String> {
    let Some(last) = query.order.last() else { return Some(dialect.natural_order()) };
    let sortable = |column: &str| dialect.column(column).filter(|(ty, _)| dialect.sorts(*ty)).map(|(_, name)| name);
    let mut terms = Vec::new();
    for term in &query.order {
        let name = sortable(&term.column)?;
        terms.push(format!("{name} IS {}NULL", if term.nulls_first { "NOT " } else { "" }));
        terms.push(format!("{}{}", dialect.exact(name), direction(term.descending)));
    }
    let id = sortable(dialect.id())?;
    terms.push(format!("{}{}", dialect.exact(id), direction(last.descending)));
    Some(format!(" ORDER BY {}", terms.join(", ")))
}

fn direction(descending: bool) -> &'static str {
    if descending { " DESC" } else { "" }
}
