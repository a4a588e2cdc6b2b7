//! Aggregation: counts, sums, means and extremes of rows by groups. Used by `_aggregate` and value sceneries.
//!
//! Functions ignore nulls, as in SQL; nulls form a group of their own. Sums of integers and of decimals are exact, sums of floats are
//! exact before they are rounded once, so that no result depends on the order of the rows' addition.

mod blocks;
mod interner;
mod total;

pub(crate) use self::blocks::{BlockFold, BlockGroups};
use self::total::Total;

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::collation::Collation;
use super::compare::Key;
use super::fields::{Fields, Path};
use super::json::{split_name, unquoted};
use super::literal::nearest;
use super::meter::Meter;
use crate::record::{CborValue, Record};
use crate::vista::{Column, ColumnType, Error, Result, Schema};

/// Maximum number of groups in one answer.
pub const MAX_GROUPS: usize = 100_000;

/// Aggregate function of the cells of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Number of cells that are not null; without a column, number of rows.
    Count,
    /// Sum of the cells; null if there are none.
    Sum,
    /// Mean of the cells as a float; null if there are none.
    Avg,
    /// Least cell in the sort order of lists; null if there are none.
    Min,
    /// Greatest cell in the sort order of lists; null if there are none.
    Max,
}

const FUNCTIONS: [(&str, Function); 5] = [
    ("count", Function::Count),
    ("sum", Function::Sum),
    ("avg", Function::Avg),
    ("min", Function::Min),
    ("max", Function::Max),
];

impl Function {
    fn name(self) -> &'static str {
        FUNCTIONS.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }
}

/// One item of an aggregation's select: a column to group by, or a function of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateItem {
    /// The function; `None` to group by the column.
    pub function: Option<Function>,
    /// The column, or a path into it; `None` only for a count of rows.
    pub column: Option<String>,
    /// Name of the result. `None` for the default: `column` for a group, `function_column` or `function` for a function.
    pub alias: Option<String>,
}

impl AggregateItem {
    /// An item that computes `function` of a column.
    pub fn of(function: Function, column: Option<&str>) -> AggregateItem {
        AggregateItem { function: Some(function), column: column.map(str::to_string), alias: None }
    }

    /// Parses `column`, `count()`, `sum(column)` and so on, each with an optional `alias:` in front. Names with reserved
    /// characters are written in double quotes.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown function, or a function without its column.
    pub fn parse(item: &str) -> Result<AggregateItem> {
        let (first, rest) = split_name(item.trim(), ':');
        let (alias, what) = match rest {
            Some(rest) => (Some(unquoted(first)), rest.trim()),
            None => (None, first),
        };
        if what.is_empty() || alias.as_deref() == Some("") {
            return Err(Error::invalid("select has an empty name"));
        }
        let (name, inner) = split_name(what, '(');
        let Some(inner) = inner else {
            if what == "*" {
                return Err(Error::invalid(
                    "select=* is for lists only: name the columns to group by, or write count()",
                ));
            }
            return Ok(AggregateItem { function: None, column: Some(unquoted(what)), alias });
        };
        let Some(inner) = inner.strip_suffix(')') else {
            return Err(Error::invalid(format!("{what:?} lacks its closing parenthesis")));
        };
        let known = FUNCTIONS.iter().find(|(known, _)| *known == name);
        let Some((_, function)) = known else {
            let names = FUNCTIONS.map(|(name, _)| name);
            let meant = nearest(name, names).map_or(String::new(), |meant| format!(" did you mean {meant}?"));
            let names = names.join(", ");
            return Err(Error::invalid(format!("there is no function {name:?};{meant} there are {names}")));
        };
        let column = match inner.trim() {
            "" | "*" if *function == Function::Count => None,
            "" | "*" => return Err(Error::invalid(format!("{name}() needs a column: {name}(price)"))),
            inner => Some(unquoted(inner)),
        };
        Ok(AggregateItem { function: Some(*function), column, alias })
    }
}

/// An aggregation compiled for rows of one schema.
#[derive(Clone, Debug)]
pub struct Aggregation {
    items: Vec<Compiled>,
}

/// Compiled item of an aggregation.
#[derive(Clone, Debug)]
struct Compiled {
    name: String,
    function: Option<Function>,
    path: Option<Path>,
    ty: ColumnType,
    collation: Collation,
}

/// State of one group while rows are folded.
#[derive(Clone, Debug)]
struct Group {
    /// First cell seen of each column that is grouped by.
    shown: Vec<CborValue>,
    folds: Vec<Fold>,
}

impl Group {
    fn new(shown: Vec<CborValue>, folded: &[&Compiled]) -> Group {
        Group { shown, folds: folded.iter().filter_map(|item| item.function.map(Fold::new)).collect() }
    }
}

fn too_many_groups() -> Error {
    Error::invalid(format!("there are more than {MAX_GROUPS} groups; filter the rows"))
}

impl Aggregation {
    /// Compiles `items`, at least one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist, a sum or mean of a column without numbers, or two results with the
    /// same name.
    pub fn new(items: &[AggregateItem], schema: &Schema) -> Result<Aggregation> {
        if items.is_empty() {
            return Err(Error::invalid("select is missing: write for example select=category,count(),sum(price)"));
        }
        let mut compiled: Vec<Compiled> = Vec::with_capacity(items.len());
        for item in items {
            let new = Compiled::new(item, schema)?;
            if compiled.iter().any(|other| other.name == new.name) {
                let name = &new.name;
                return Err(Error::invalid(format!("two results are named {name:?}; give one an alias: other:...")));
            }
            compiled.push(new);
        }
        Ok(Aggregation { items: compiled })
    }

    /// Schema of the results, used to sort them.
    pub fn schema(&self) -> Schema {
        let columns = self.items.iter().map(|item| Column::new(item.name.as_str(), item.result_type()));
        Schema::new(self.items.first().map_or("", |item| &item.name), columns.collect())
    }

    /// The cells that identify a group: those of the columns that are grouped by.
    pub fn key<'a>(&'a self, group: &'a Record) -> impl Iterator<Item = &'a CborValue> {
        let grouped = self.items.iter().filter(|item| item.function.is_none());
        grouped.map(|item| group.get(&item.name).unwrap_or(&CborValue::Null))
    }

    /// True if only the number of rows is requested.
    pub fn is_count(&self) -> bool {
        self.items.iter().all(|item| item.function == Some(Function::Count) && item.path.is_none())
    }

    /// The result of an aggregation that [`Aggregation::is_count`], from the number of rows.
    pub fn of_count(&self, rows: u64) -> Record {
        self.items.iter().map(|item| (item.name.clone(), rows.into())).collect()
    }

    /// Folds `rows` into groups, sorted by the columns that are grouped by; one group if there are none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cell that cannot be added, a sum that does not fit, or more than [`MAX_GROUPS`] groups.
    pub fn fold<F: Fields>(&self, rows: impl IntoIterator<Item = F>) -> Result<Vec<Record>> {
        self.fold_within(rows, &Meter::unbounded())?.collect()
    }

    /// [`Aggregation::fold`] within the bounds of `meter`; each group becomes a record when the iterator reaches it.
    ///
    /// # Errors
    /// As [`Aggregation::fold`] and [`Meter::check`].
    pub(crate) fn fold_within<F: Fields>(
        &self,
        rows: impl IntoIterator<Item = F>,
        meter: &Meter,
    ) -> Result<Groups<'_>> {
        let mut indexes: BTreeMap<Vec<Key<'static>>, usize> = BTreeMap::new();
        let mut groups: Vec<Group> = Vec::new();
        let grouped: Vec<&Compiled> = self.items.iter().filter(|item| item.function.is_none()).collect();
        let folded: Vec<&Compiled> = self.items.iter().filter(|item| item.function.is_some()).collect();
        let begin = |shown| Group::new(shown, &folded);
        if grouped.is_empty() {
            indexes.insert(Vec::new(), 0);
            groups.push(begin(Vec::new()));
        }
        for row in meter.rows(rows.into_iter()) {
            let mut at = 0;
            if !grouped.is_empty() {
                let key: Vec<Key<'static>> =
                    grouped.iter().map(|item| Key::of_cow(item.cell(&row), &item.collation).into_owned()).collect();
                let bytes = self.bytes(&key);
                at = *indexes.entry(key).or_insert(groups.len());
                if at == MAX_GROUPS {
                    return Err(too_many_groups());
                }
                if at == groups.len() {
                    meter.charge(bytes);
                    let shown = grouped.iter().map(|item| item.cell(&row).map_or(CborValue::Null, Cow::into_owned));
                    groups.push(begin(shown.collect()));
                }
            }
            for (fold, item) in groups[at].folds.iter_mut().zip(&folded) {
                fold.add(item, &row)?;
            }
        }
        meter.check()?;
        let order: Vec<usize> = indexes.into_values().collect();
        Ok(Groups { aggregation: self, order: order.into_iter(), groups })
    }

    /// Approximate memory of a group in bytes.
    fn bytes<'k>(&self, key: impl IntoIterator<Item = &'k Key<'static>>) -> usize {
        /// Size of the map entry, without the key's contents.
        const ENTRY: usize = 2 * size_of::<(Vec<Key<'_>>, usize)>();
        let cell = |cell: &Key<'_>| size_of::<Key<'_>>() + size_of::<CborValue>() + 2 * cell.heap();
        let cells: usize = key.into_iter().map(cell).sum();
        let folds = self.items.iter().filter(|item| item.function.is_some()).count();
        ENTRY + size_of::<Group>() + cells + folds * size_of::<Fold>()
    }

    fn record(&self, group: &mut Group) -> Result<Record> {
        let (mut shown, mut folds) = (group.shown.drain(..), group.folds.drain(..));
        let value = |item: &Compiled| match item.function {
            None => Ok(shown.next().unwrap_or(CborValue::Null)),
            Some(_) => folds.next().map_or(Ok(CborValue::Null), |fold| fold.finish(item)),
        };
        let values: Result<Vec<CborValue>> = self.items.iter().map(value).collect();
        Ok(self.items.iter().map(|item| item.name.clone()).zip(values?).collect())
    }
}

/// Iterator over the groups of an aggregation, sorted by the columns that are grouped by.
pub(crate) struct Groups<'a> {
    aggregation: &'a Aggregation,
    /// Indexes of the groups in the order of the answer.
    order: std::vec::IntoIter<usize>,
    groups: Vec<Group>,
}

impl Iterator for Groups<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        let at = self.order.next()?;
        Some(self.aggregation.record(&mut self.groups[at]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.order.size_hint()
    }
}

/// Pairs each group with its number as an id, so that groups that compare as equal keep their order when a page is cut from them.
/// Ends at the first error, which is stored in `failed`.
pub fn numbered(
    mut groups: impl Iterator<Item = Result<Record>>,
    failed: &mut Result<()>,
) -> impl Iterator<Item = (String, Record)> {
    let group = move || groups.next()?.map_err(|error| *failed = Err(error)).ok();
    std::iter::from_fn(group).enumerate().map(|(number, group)| (format!("{number:08}"), group))
}

impl Compiled {
    fn new(item: &AggregateItem, schema: &Schema) -> Result<Compiled> {
        let path = match &item.column {
            Some(column) => Some(Path::checked(column, schema).map_err(Error::invalid)?),
            None => None,
        };
        let ty = path.as_ref().map_or(ColumnType::Integer, |path| path.column_type(schema));
        if let (Some(function @ (Function::Sum | Function::Avg)), Some(column)) = (item.function, &item.column)
            && !matches!(ty, ColumnType::Integer | ColumnType::Number | ColumnType::Decimal | ColumnType::Json)
        {
            let function = function.name();
            return Err(Error::invalid(format!(
                "{function}({column}) needs a column of numbers; min, max and count take any column"
            )));
        }
        let own = path.as_ref().map(Path::name);
        let name = match (&item.alias, item.function, own) {
            (Some(alias), ..) => alias.clone(),
            (None, Some(function), Some(column)) => format!("{}_{column}", function.name()),
            (None, Some(function), None) => function.name().to_string(),
            (None, None, column) => column.unwrap_or_default().to_string(),
        };
        let collation = path.as_ref().map_or(Collation::Plain, |path| Collation::at(path, schema));
        Ok(Compiled { name, function: item.function, path, ty, collation })
    }

    fn cell<'a>(&self, row: &'a impl Fields) -> Option<Cow<'a, CborValue>> {
        row.field(self.path.as_ref()?).filter(|cell| **cell != CborValue::Null)
    }

    /// The error of a cell or a sum that cannot be added.
    fn unaddable(&self, wrong: &str) -> Error {
        let column = self.path.as_ref().map_or("", Path::column);
        Error::invalid(format!("column {column:?} {wrong}"))
    }

    fn result_type(&self) -> ColumnType {
        match self.function {
            Some(Function::Count) => ColumnType::Integer,
            Some(Function::Avg) => ColumnType::Number,
            _ => self.ty,
        }
    }
}

/// State of one function while rows are folded.
#[derive(Clone, Debug)]
enum Fold {
    Count(u64),
    Sum(Total),
    Avg(Total),
    Min(Option<(Key<'static>, CborValue)>),
    Max(Option<(Key<'static>, CborValue)>),
}

impl Fold {
    fn new(function: Function) -> Fold {
        match function {
            Function::Count => Fold::Count(0),
            Function::Sum => Fold::Sum(Total::default()),
            Function::Avg => Fold::Avg(Total::default()),
            Function::Min => Fold::Min(None),
            Function::Max => Fold::Max(None),
        }
    }

    fn add(&mut self, item: &Compiled, row: &impl Fields) -> Result<()> {
        if let (Fold::Count(count), None) = (&mut *self, &item.path) {
            *count += 1;
            return Ok(());
        }
        let Some(cell) = item.cell(row) else { return Ok(()) };
        self.add_cell(item, &cell)
    }

    /// Adds a cell that is not null.
    fn add_cell(&mut self, item: &Compiled, cell: &CborValue) -> Result<()> {
        match self {
            Fold::Count(count) => *count += 1,
            Fold::Sum(total) | Fold::Avg(total) => {
                total.add(cell, item.ty == ColumnType::Decimal).map_err(|wrong| item.unaddable(wrong))?;
            }
            Fold::Min(best) => keep_best(best, cell, &item.collation, |key, best| key < best),
            Fold::Max(best) => keep_best(best, cell, &item.collation, |key, best| key > best),
        }
        Ok(())
    }

    fn finish(self, item: &Compiled) -> Result<CborValue> {
        match self {
            Fold::Count(count) => Ok(count.into()),
            Fold::Sum(total) => total
                .sum()
                .ok_or_else(|| Error::invalid(format!("{}: the sum is greater than an integer can be", item.name))),
            Fold::Avg(total) => Ok(total.mean()),
            Fold::Min(best) | Fold::Max(best) => Ok(best.map_or(CborValue::Null, |(_, cell)| cell)),
        }
    }
}

/// Keeps the better cell; the first of equal ones.
fn keep_best(
    best: &mut Option<(Key<'static>, CborValue)>,
    cell: &CborValue,
    collation: &Collation,
    beats: fn(&Key<'_>, &Key<'_>) -> bool,
) {
    let key = Key::of(cell, collation);
    if best.as_ref().is_none_or(|(best, _)| beats(&key, best)) {
        *best = Some((key.into_owned(), cell.clone()));
    }
}

#[cfg(test)]
mod tests;
