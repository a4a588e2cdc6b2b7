//! Counts, sums, means and extremes of rows, by groups: the one fold behind `_aggregate` and value sceneries.
//!
//! Nulls do not count, as in SQL; a group of nulls is a group. Sums of integers and of decimals are exact.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::collation::Collation;
use super::compare::Key;
use super::fields::{Fields, Path};
use super::json::{split_name, unquoted};
use super::literal::nearest;
use super::meter::Meter;
use crate::record::{CborValue, Record, as_big, of_digits};
use crate::vista::{Column, ColumnType, Error, Result, Schema};

/// Groups of one answer, at most.
pub const MAX_GROUPS: usize = 100_000;

/// What is computed of the cells of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// How many are not null; without a column, how many rows there are.
    Count,
    /// Their sum; null of nothing.
    Sum,
    /// Their mean, a float; null of nothing.
    Avg,
    /// The least, in the order that lists are sorted in; null of nothing.
    Min,
    /// The greatest.
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

/// One item of what is asked: a column to group by, or a function of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateItem {
    /// `None` groups.
    pub function: Option<Function>,
    /// The column, or a path into it; `None` only for a count of rows.
    pub column: Option<String>,
    /// The name of the result; otherwise the column's, after the function's and `_` if there is one.
    pub alias: Option<String>,
}

impl AggregateItem {
    /// A function of a column.
    pub fn of(function: Function, column: Option<&str>) -> AggregateItem {
        AggregateItem { function: Some(function), column: column.map(str::to_string), alias: None }
    }

    /// Reads `column`, `count()`, `sum(column)` and so on, each perhaps after `alias:`; names with reserved characters stand
    /// in double quotes.
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
                    "select is * only for lists: name the columns to group by, or write count()",
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

/// Items compiled for rows of one schema.
#[derive(Clone, Debug)]
pub struct Aggregation {
    items: Vec<Compiled>,
}

#[derive(Clone, Debug)]
struct Compiled {
    name: String,
    function: Option<Function>,
    path: Option<Path>,
    ty: ColumnType,
    collation: Collation,
}

/// The cells of one group, on the way to its results.
struct Group {
    /// The first that was seen of each column it is grouped by.
    shown: Vec<CborValue>,
    folds: Vec<Fold>,
}

impl Aggregation {
    /// Compiles `items`, of which there is at least one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a column that does not exist, a sum or mean of what is no number, two results of one name.
    pub fn new(items: &[AggregateItem], schema: &Schema) -> Result<Aggregation> {
        if items.is_empty() {
            return Err(Error::invalid("select says what is wanted: select=category,count(),sum(price)"));
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

    /// The results as columns, to order them by.
    pub fn schema(&self) -> Schema {
        let columns = self.items.iter().map(|item| Column::new(item.name.as_str(), item.result_type()));
        Schema::new(self.items.first().map_or("", |item| &item.name), columns.collect())
    }

    /// What tells a group from all others: its cells that are no results of functions.
    pub fn key<'a>(&'a self, group: &'a Record) -> impl Iterator<Item = &'a CborValue> {
        let grouped = self.items.iter().filter(|item| item.function.is_none());
        grouped.map(|item| group.get(&item.name).unwrap_or(&CborValue::Null))
    }

    /// Whether nothing but the number of rows is asked for.
    pub fn is_count(&self) -> bool {
        self.items.iter().all(|item| item.function == Some(Function::Count) && item.path.is_none())
    }

    /// The result of [`Aggregation::is_count`], from the number of rows.
    pub fn of_count(&self, rows: u64) -> Record {
        self.items.iter().map(|item| (item.name.clone(), rows.into())).collect()
    }

    /// The groups of `rows`, in the order of what they are grouped by; one, if they are not grouped.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cell that cannot be added, a sum beyond what an integer holds, more than [`MAX_GROUPS`] groups.
    pub fn fold<F: Fields>(&self, rows: impl IntoIterator<Item = F>) -> Result<Vec<Record>> {
        self.fold_within(rows, &Meter::unbounded())?.collect()
    }

    /// [`Aggregation::fold`] within the bounds of `meter`; each group becomes a record when it is asked for.
    ///
    /// # Errors
    /// As [`Aggregation::fold`] and [`Meter::check`].
    pub(crate) fn fold_within<F: Fields>(
        &self,
        rows: impl IntoIterator<Item = F>,
        meter: &Meter,
    ) -> Result<Groups<'_>> {
        let mut places: BTreeMap<Vec<Key<'static>>, usize> = BTreeMap::new();
        let mut groups: Vec<Group> = Vec::new();
        let grouped: Vec<&Compiled> = self.items.iter().filter(|item| item.function.is_none()).collect();
        let folded: Vec<&Compiled> = self.items.iter().filter(|item| item.function.is_some()).collect();
        let begin =
            |shown| Group { shown, folds: folded.iter().filter_map(|item| item.function.map(Fold::new)).collect() };
        if grouped.is_empty() {
            places.insert(Vec::new(), 0);
            groups.push(begin(Vec::new()));
        }
        for row in meter.rows(rows.into_iter()) {
            let mut at = 0;
            if !grouped.is_empty() {
                let key: Vec<Key<'static>> =
                    grouped.iter().map(|item| Key::of_cow(item.cell(&row), &item.collation).into_owned()).collect();
                let bytes = self.bytes(&key);
                at = *places.entry(key).or_insert(groups.len());
                if at == MAX_GROUPS {
                    return Err(Error::invalid(format!("there are more than {MAX_GROUPS} groups; filter the rows")));
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
        Ok(Groups { asked: self, places: places.into_values(), groups })
    }

    /// Memory of a group, about.
    fn bytes(&self, key: &[Key<'static>]) -> usize {
        /// Of its place, beside the key.
        const PLACE: usize = 2 * size_of::<(Vec<Key<'_>>, usize)>();
        let cells: usize = key.iter().map(|cell| size_of::<Key<'_>>() + size_of::<CborValue>() + 2 * cell.heap()).sum();
        PLACE + size_of::<Group>() + cells + (self.items.len() - key.len()) * size_of::<Fold>()
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

/// The groups of an aggregation, in the order of what they are grouped by.
pub(crate) struct Groups<'a> {
    asked: &'a Aggregation,
    places: std::collections::btree_map::IntoValues<Vec<Key<'static>>, usize>,
    groups: Vec<Group>,
}

impl Iterator for Groups<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        let at = self.places.next()?;
        Some(self.asked.record(&mut self.groups[at]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.places.size_hint()
    }
}

/// Groups of which a page is asked for: each with its number, so that groups that are equal in the order asked for keep their own.
/// Ends at the first that fails, which is in `failed` then.
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
                "{function}({column}) adds numbers, and {column:?} holds none; min, max and count take any column"
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

    fn result_type(&self) -> ColumnType {
        match self.function {
            Some(Function::Count) => ColumnType::Integer,
            Some(Function::Avg) => ColumnType::Number,
            _ => self.ty,
        }
    }
}

/// One function of the cells seen so far.
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
        match self {
            Fold::Count(count) => *count += 1,
            Fold::Sum(total) | Fold::Avg(total) => {
                total.add(&cell, item.ty == ColumnType::Decimal).map_err(|wrong| {
                    let column = item.path.as_ref().map_or("", Path::column);
                    Error::invalid(format!("column {column:?} {wrong}"))
                })?
            }
            Fold::Min(best) => keep(best, &cell, &item.collation, |key, best| key < best),
            Fold::Max(best) => keep(best, &cell, &item.collation, |key, best| key > best),
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

/// Of equal cells the first stays.
fn keep(
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

/// A sum: integers and decimals exactly, floats with the error that addition loses (Neumaier).
#[derive(Default)]
struct Total {
    integers: i128,
    /// Digits and how many of them stand behind the point.
    decimals: Option<(i128, u32)>,
    floats: Option<(f64, f64)>,
    count: u64,
}

/// Digits behind the point of a decimal that is added, at most.
const MOST_PLACES: u32 = 30;

impl Total {
    fn add(&mut self, cell: &CborValue, decimal: bool) -> Result<(), &'static str> {
        self.count += 1;
        match cell {
            // No table has enough rows to fill an i128 with numbers of 65 bits.
            CborValue::Integer(number) => self.integers += i128::from(*number),
            CborValue::Float(number) => self.add_float(*number),
            CborValue::Text(text) if decimal => {
                let (digits, places) = decimal_of(text).ok_or("holds something that is no decimal of its size")?;
                self.add_decimal(digits, places).ok_or("has a sum of more digits than can be added exactly")?;
            }
            _ => {
                let number = as_big(cell).ok_or("holds something that is no number")?;
                let sum = i128::try_from(&number).ok().and_then(|number| self.integers.checked_add(number));
                self.integers = sum.ok_or("has a sum of more digits than can be added exactly")?;
            }
        }
        Ok(())
    }

    fn add_float(&mut self, number: f64) {
        let (sum, lost) = self.floats.unwrap_or((0.0, 0.0));
        let next = sum + number;
        let more = if sum.abs() >= number.abs() { sum - next + number } else { number - next + sum };
        self.floats = Some((next, lost + more));
    }

    fn add_decimal(&mut self, digits: i128, places: u32) -> Option<()> {
        let (sum, there) = self.decimals.unwrap_or((0, 0));
        let most = places.max(there);
        let sum = scaled(sum, most - there)?.checked_add(scaled(digits, most - places)?)?;
        self.decimals = Some((sum, most));
        Some(())
    }

    /// `None` if it is more than an integer can be.
    fn sum(&self) -> Option<CborValue> {
        match (self.floats, self.decimals) {
            _ if self.count == 0 => Some(CborValue::Null),
            (Some(_), _) => Some(CborValue::Float(self.as_float())),
            (None, Some((digits, places))) => {
                let digits = digits.checked_add(scaled(self.integers, places)?)?;
                Some(CborValue::Text(written(digits, places)))
            }
            (None, None) => of_digits(&self.integers.to_string()),
        }
    }

    fn mean(&self) -> CborValue {
        match self.count {
            0 => CborValue::Null,
            count => CborValue::Float(self.as_float() / count as f64),
        }
    }

    fn as_float(&self) -> f64 {
        let (sum, lost) = self.floats.unwrap_or((0.0, 0.0));
        // A sum that is not finite has no error to be corrected.
        let floats = if (sum + lost).is_nan() { sum } else { sum + lost };
        let decimals =
            self.decimals.map_or(0.0, |(digits, places)| written(digits, places).parse().unwrap_or(f64::NAN));
        self.integers as f64 + decimals + floats
    }
}

fn scaled(digits: i128, places: u32) -> Option<i128> {
    digits.checked_mul(10_i128.checked_pow(places)?)
}

/// `-12.50` as -1250 with two places. `None` if it is none, or has too many digits.
fn decimal_of(text: &str) -> Option<(i128, u32)> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    match u32::try_from(places) {
        Ok(places) if places <= MOST_PLACES => Some((digits, places)),
        Ok(_) => None,
        Err(_) => scaled(digits, places.unsigned_abs()).map(|digits| (digits, 0)),
    }
}

fn written(digits: i128, places: u32) -> String {
    let places = places as usize;
    if places == 0 {
        return digits.to_string();
    }
    let mut text = format!("{:0>width$}", digits.unsigned_abs(), width = places + 1);
    text.insert(text.len() - places, '.');
    if digits < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests;
