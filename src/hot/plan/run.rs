//! A plan carried out.

use super::{Access, Picked, Plan, clamp, fields, natural_start};
use crate::hot::{RowRef, Slot, Table};
use crate::vista::query::{JsonRow, Prepared};
use crate::vista::{Query, Schema};

impl Plan {
    /// Picks the rows that `query` asks for from the table that this was planned for.
    pub fn run(&self, table: &Table, query: &Query, schema: &Schema) -> Picked {
        let checks = self.residual.as_ref().map(|residual| residual.prepare(schema));
        match &self.access {
            Access::Natural => {
                let start = natural_start(table, query);
                let before = checks.as_ref().map(|_| table.natural(0).take(start));
                let skip = if checks.is_none() { start.saturating_add(clamp(query.offset)) } else { start };
                self.page(query, checks.as_ref(), start, before, table.natural(skip))
            }
            Access::Walk(walk) => {
                let at = |slot| table.at(slot);
                let before = checks.as_ref().map(|_| walk.skipped(table).filter_map(at));
                let skip = if checks.is_none() { clamp(query.offset) } else { 0 };
                self.page(query, checks.as_ref(), walk.before(), before, walk.slots(table, skip).filter_map(at))
            }
            Access::Some(source) => {
                let slots = source.slots(table);
                let examined = slots.len() as u64;
                let rows = slots.into_iter().filter_map(|slot| table.at(slot));
                let matching = rows.filter(|row| checks.as_ref().is_none_or(|checks| checks.matches(&fields(row))));
                Picked { examined, ..sorted(matching, query, schema) }
            }
            Access::Scan if self.cost == 0 => {
                self.page(query, None, 0, None::<std::iter::Empty<_>>, std::iter::empty())
            }
            Access::Scan => {
                let matching =
                    table.iter_slots().filter(|row| checks.as_ref().is_none_or(|checks| checks.matches(&fields(row))));
                Picked { examined: table.len() as u64, ..sorted(matching, query, schema) }
            }
        }
    }

    /// A page of rows that come in order. Without checks, `rows` begin at the page; with them, behind the cursor, and
    /// `before` are those that come before it, `skipped` in number.
    fn page<'a>(
        &self,
        query: &Query,
        checks: Option<&Prepared>,
        skipped: usize,
        before: Option<impl Iterator<Item = RowRef<'a>>>,
        rows: impl Iterator<Item = RowRef<'a>>,
    ) -> Picked {
        let limit = query.limit.map_or(usize::MAX, clamp);
        let Some(checks) = checks else {
            let slots: Vec<Slot> = rows.take(limit).map(|row| row.slot()).collect();
            let before = (skipped as u64).saturating_add(query.offset);
            let examined = slots.len() as u64;
            return Picked { slots, before, total: self.total.unwrap_or(0) as u64, examined };
        };
        let mut examined = 0;
        let mut matches = |row: &RowRef<'a>| {
            examined += 1;
            checks.matches(&fields(row))
        };
        let before = before.map_or(0, |rows| rows.filter(|row| matches(row)).count());
        let start = clamp(query.offset);
        let (mut found, mut slots) = (0usize, Vec::new());
        let full = |found: usize| {
            self.total.is_some_and(|total| found >= start.saturating_add(limit) || before + found >= total)
        };
        let mut rows = rows;
        while !full(found)
            && let Some(row) = rows.next()
        {
            if matches(&row) {
                if found >= start && slots.len() < limit {
                    slots.push(row.slot());
                }
                found += 1;
            }
        }
        let total = self.total.unwrap_or(before + found) as u64;
        Picked { slots, before: (before as u64).saturating_add(query.offset), total, examined }
    }
}

/// The page of `rows`, which all match, in the order of the query.
fn sorted<'a>(rows: impl Iterator<Item = RowRef<'a>>, query: &Query, schema: &Schema) -> Picked {
    if !query.order.is_empty() {
        let order = Query { order: query.order.clone(), after: query.after.clone(), ..Query::default() };
        let prepared = order.prepare(schema);
        let keyed = rows.map(|row| {
            let fields: JsonRow<'a> = fields(&row);
            (ById(row), fields)
        });
        let top = prepared.top(keyed, query.offset, query.limit);
        let slots = top.rows.into_iter().map(|(ById(row), _)| row.slot()).collect();
        return Picked { slots, before: top.before, total: top.total, examined: 0 };
    }
    let mut places: Vec<_> = rows.map(|row| (row.ordinal(), row.slot())).collect();
    places.sort_unstable();
    let after = query.after.as_ref().and_then(crate::vista::query::Cursor::numbers);
    let start = after.map_or(0, |after| places.partition_point(|place| *place <= after));
    let page =
        places.iter().skip(start.saturating_add(clamp(query.offset))).take(query.limit.map_or(usize::MAX, clamp));
    let slots = page.map(|(_, slot)| *slot).collect();
    let before = (start as u64).saturating_add(query.offset);
    Picked { slots, before, total: places.len() as u64, examined: 0 }
}

struct ById<'a>(RowRef<'a>);

impl AsRef<str> for ById<'_> {
    fn as_ref(&self) -> &str {
        self.0.id()
    }
}
