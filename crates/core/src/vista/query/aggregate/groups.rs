//! [`Groups`]: the groups of an aggregation, and the page of them that a query selects.

use std::borrow::Cow;

use super::{Aggregation, Compiled, Folds};
use crate::record::{CborValue, Record};
use crate::vista::Result;
use crate::vista::query::{CompiledQuery, Fields, Meter, Path};

/// Groups while rows are folded, column by column.
#[derive(Debug)]
pub(super) struct GroupTable {
    len: usize,
    /// Cells of the columns that are grouped by, those of one group after those of another: the first cells seen.
    pub(super) shown: Vec<CborValue>,
    /// Number of these columns.
    columns: usize,
    /// States of each function.
    pub(super) folds: Vec<Folds>,
}

/// The groups of an aggregation, sorted by the columns that are grouped by. The iterator makes a record of each.
#[derive(Debug)]
pub struct Groups<'a> {
    aggregation: &'a Aggregation,
    /// Numbers of the groups in the order of the answer.
    order: std::vec::IntoIter<u32>,
    groups: GroupTable,
}

/// The groups that a query selects.
#[derive(Debug)]
pub struct GroupPage {
    /// The groups of the page, in order.
    pub groups: Vec<Record>,
    /// Number of matching groups in total.
    pub total: u64,
}

/// A group, read like a row: its columns are the results of the aggregation.
struct GroupRow<'g> {
    aggregation: &'g Aggregation,
    groups: &'g GroupTable,
    at: usize,
}

/// Position of a group in the order of all, as an id of digits. It breaks ties of the order.
#[derive(Clone, Copy)]
struct Number([u8; DIGITS]);

/// Number of digits of an id; there are at most [`MAX_GROUPS`](super::MAX_GROUPS) groups.
const DIGITS: usize = 8;

impl GroupTable {
    pub(super) fn new(aggregation: &Aggregation) -> GroupTable {
        let folds: Vec<Folds> = aggregation.items.iter().filter_map(|item| item.function).map(Folds::new).collect();
        GroupTable { len: 0, shown: Vec::new(), columns: aggregation.items.len() - folds.len(), folds }
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a group without rows, and returns its number.
    pub(super) fn begin(&mut self, shown: impl IntoIterator<Item = CborValue>) -> usize {
        self.shown.extend(shown);
        self.begin_all(1);
        self.len - 1
    }

    /// Adds `count` groups without rows, whose cells [`GroupTable::show`] sets later.
    pub(super) fn begin_all(&mut self, count: usize) {
        self.len += count;
        self.folds.iter_mut().for_each(|folds| folds.begin_all(self.len));
    }

    /// Sets the cells of all groups.
    pub(super) fn show(&mut self, cells: Vec<CborValue>) {
        self.shown = cells;
    }

    /// The cells of a group.
    pub(super) fn shown(&self, group: usize) -> &[CborValue] {
        &self.shown[group * self.columns..][..self.columns]
    }
}

impl<'a> Groups<'a> {
    pub(super) fn new(aggregation: &'a Aggregation, order: Vec<u32>, groups: GroupTable) -> Groups<'a> {
        Groups { aggregation, order: order.into_iter(), groups }
    }

    /// The page of the groups that match `query`. Groups that compare as equal keep their order, or the reverse if the last term of
    /// the query's order is descending. The page is valid only if [`Meter::check`] succeeds afterwards.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a sum that is too great, of any group.
    pub fn page(&self, query: &CompiledQuery, offset: u64, limit: Option<u64>, meter: &Meter) -> Result<GroupPage> {
        let row = |at: &u32| GroupRow { aggregation: self.aggregation, groups: &self.groups, at: *at as usize };
        let rows = self.order.as_slice().iter().map(row);
        if self.groups.folds.iter().any(Folds::may_fail) {
            meter.rows(rows.clone()).try_for_each(|row| row.check())?;
        }
        let rows = rows.enumerate().map(|(number, row)| (Number::new(number), row));
        let top = if query.is_descending() {
            // Those that win ties come first, so that most of the others are compared once.
            query.top_within(rows.rev(), offset, limit, meter)
        } else {
            query.top_within(rows, offset, limit, meter)
        };
        let groups: Result<Vec<Record>> = top.rows.iter().map(|(_, row)| row.record()).collect();
        Ok(GroupPage { groups: groups?, total: top.total })
    }
}

impl Iterator for Groups<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        let at = self.order.next()? as usize;
        Some(GroupRow { aggregation: self.aggregation, groups: &self.groups, at }.record())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.order.size_hint()
    }
}

impl<'g> GroupRow<'g> {
    /// The results of the group, in the order of the items.
    fn values(&self) -> impl Iterator<Item = (&'g Compiled, Result<Cow<'g, CborValue>>)> {
        let (groups, at) = (self.groups, self.at);
        let (mut shown, mut folds) = (groups.shown(at).iter(), groups.folds.iter());
        self.aggregation.items.iter().map(move |item| {
            let value = match item.function {
                None => shown.next().map(|cell| Ok(Cow::Borrowed(cell))),
                Some(_) => folds.next().map(|folds| folds.value(at, item)),
            };
            (item, value.unwrap_or(Ok(Cow::Owned(CborValue::Null))))
        })
    }

    fn record(&self) -> Result<Record> {
        self.values().map(|(item, value)| Ok((item.name.clone(), value?.into_owned()))).collect()
    }

    /// Fails as [`GroupRow::record`] does.
    fn check(&self) -> Result<()> {
        self.values().try_for_each(|(_, value)| value.map(drop))
    }
}

impl Fields for GroupRow<'_> {
    fn field(&self, path: &Path) -> Option<Cow<'_, CborValue>> {
        let items = &self.aggregation.items;
        let at = items.iter().position(|item| item.name == path.column())?;
        let before = items[..at].iter().filter(|item| item.function.is_some()).count();
        let value = match items[at].function {
            None => Cow::Borrowed(&self.groups.shown(self.at)[at - before]),
            Some(_) => self.groups.folds[before].value(self.at, &items[at]).ok()?,
        };
        path.walk(value)
    }
}

impl Number {
    fn new(number: usize) -> Number {
        let mut digits = [b'0'; DIGITS];
        let mut left = number;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
        Number(digits)
    }
}

impl AsRef<str> for Number {
    fn as_ref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}
