//! Aggregation: counts, sums, means and extremes of rows by groups. Used by `_aggregate` and value sceneries.
//!
//! Functions ignore nulls, as in SQL; nulls form a group of their own. Sums of integers and of decimals are exact, sums of floats are
//! exact before they are rounded once, so that no result depends on the order of the rows' addition.

mod blocks;
mod folds;
mod groups;
mod interner;
mod total;

pub(crate) use self::blocks::{BlockFold, BlockGroups};
use self::folds::Folds;
use self::groups::GroupTable;
pub use self::groups::{GroupPage, Groups};

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

    /// The group of an aggregation that [`Aggregation::is_count`], from the number of rows.
    pub(crate) fn of_count(&self, rows: u64) -> Groups<'_> {
        let mut groups = GroupTable::new(self);
        let group = groups.begin([]);
        groups.folds.iter_mut().for_each(|folds| folds.set_count(group, rows));
        Groups::new(self, vec![0], groups)
    }

    /// Folds `rows` into groups, sorted by the columns that are grouped by; one group if there are none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cell that cannot be added, a sum that does not fit, or more than [`MAX_GROUPS`] groups.
    pub fn fold<F: Fields>(&self, rows: impl IntoIterator<Item = F>) -> Result<Vec<Record>> {
        self.fold_within(rows, &Meter::unbounded())?.collect()
    }

    /// [`Aggregation::fold`] within the bounds of `meter`; a group becomes a record when it is asked for.
    ///
    /// # Errors
    /// As [`Aggregation::fold`] and [`Meter::check`].
    pub(crate) fn fold_within<F: Fields>(
        &self,
        rows: impl IntoIterator<Item = F>,
        meter: &Meter,
    ) -> Result<Groups<'_>> {
        let mut indexes: BTreeMap<Vec<Key<'static>>, u32> = BTreeMap::new();
        let mut groups = GroupTable::new(self);
        let grouped: Vec<&Compiled> = self.items.iter().filter(|item| item.function.is_none()).collect();
        let folded: Vec<&Compiled> = self.items.iter().filter(|item| item.function.is_some()).collect();
        if grouped.is_empty() {
            indexes.insert(Vec::new(), groups.begin([]) as u32);
        }
        for row in meter.rows(rows.into_iter()) {
            let mut at = 0;
            if !grouped.is_empty() {
                let key: Vec<Key<'static>> =
                    grouped.iter().map(|item| Key::of_cow(item.cell(&row), &item.collation).into_owned()).collect();
                let bytes = self.bytes(&key);
                at = *indexes.entry(key).or_insert(groups.len() as u32) as usize;
                if at == MAX_GROUPS {
                    return Err(too_many_groups());
                }
                if at == groups.len() {
                    meter.charge(bytes);
                    let shown = grouped.iter().map(|item| item.cell(&row).map_or(CborValue::Null, Cow::into_owned));
                    groups.begin(shown);
                }
            }
            for (folds, item) in groups.folds.iter_mut().zip(&folded) {
                if item.path.is_none() {
                    folds.add_row(at);
                } else if let Some(cell) = item.cell(&row) {
                    folds.add(at, item, &cell).map_err(|wrong| item.unaddable(wrong))?;
                }
            }
        }
        meter.check()?;
        Ok(Groups::new(self, indexes.into_values().collect(), groups))
    }

    /// Approximate memory of a group in bytes.
    fn bytes<'k>(&self, key: impl IntoIterator<Item = &'k Key<'k>>) -> usize {
        /// Size of the map entry, without the key's contents.
        const ENTRY: usize = 2 * size_of::<(Vec<Key<'_>>, usize)>();
        let cell = |cell: &Key<'_>| size_of::<Key<'_>>() + size_of::<CborValue>() + 2 * cell.heap();
        let cells: usize = key.into_iter().map(cell).sum();
        let folds: usize = self.items.iter().filter_map(|item| item.function).map(Folds::size).sum();
        ENTRY + cells + folds
    }
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

#[cfg(test)]
mod tests;
