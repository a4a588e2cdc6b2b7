//! Execution of plans.

use super::source::SlotSource;
use super::{Access, Page, Plan, Selection, clamp, fields, natural_start};
use crate::table::text::SlotSet;
use crate::table::{RowRef, Slot, Table};
use crate::vista::query::{CompiledQuery, JsonRow, Meter};
use crate::vista::{Query, Result, Schema};

/// Compiled checks on each row.
#[derive(Debug)]
pub(super) struct Checks {
    residual: Option<CompiledQuery>,
    /// Rows that the search finds.
    words: Option<SlotSet>,
    /// Number of rows examined to find them.
    examined: u64,
}

impl Checks {
    /// Approximate heap memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        let patterns = self.residual.as_ref().map_or(0, CompiledQuery::pattern_bytes);
        patterns + self.words.as_ref().map_or(0, SlotSet::heap)
    }

    /// True if there is nothing to check.
    fn is_none(&self) -> bool {
        self.residual.is_none() && self.words.is_none()
    }

    fn pass(&self, row: &RowRef<'_>) -> bool {
        self.words.as_ref().is_none_or(|words| words.contains(row.slot()))
            && self.residual.as_ref().is_none_or(|residual| residual.matches(&fields(row)))
    }
}

impl Plan {
    /// Selects the rows of `query` from the table that this was planned for.
    ///
    /// # Errors
    /// As [`Meter::check`].
    pub fn run(&self, table: &Table, query: &Query, schema: &Schema, meter: &Meter) -> Result<Selection> {
        let page = Page::of(query);
        match self.count_only(query, page) {
            Some(selection) => Ok(selection),
            None => self.run_checked(&self.checks(table, query, schema, meter), (table, meter), query, page, schema),
        }
    }

    /// The selection for a page of limit 0, if the number of matches is known from an index.
    pub(super) fn count_only(&self, query: &Query, page: Page) -> Option<Selection> {
        let total = self.total.filter(|_| page.limit == Some(0) && query.after.is_none())? as u64;
        Some(Selection { slots: Vec::new(), before: page.offset, total, examined: 0 })
    }

    /// True if no row has to be checked before it is shown.
    pub(super) fn is_exact(&self) -> bool {
        self.residual.is_none() && self.words.is_none()
    }

    /// Compiles the checks on each row. The rows of the search are incomplete if a limit of `meter` is reached.
    pub(super) fn checks(&self, table: &Table, query: &Query, schema: &Schema, meter: &Meter) -> Checks {
        let (words, examined) = self.words(table, query, schema, meter).unzip();
        let residual = self.residual.as_ref().map(|residual| residual.prepare(schema));
        Checks { residual, words, examined: examined.unwrap_or(0) }
    }

    pub(super) fn run_checked(
        &self,
        checks: &Checks,
        (table, meter): (&Table, &Meter),
        query: &Query,
        page: Page,
        schema: &Schema,
    ) -> Result<Selection> {
        let residual = checks.residual.as_ref();
        let scanned = self.checked_page(residual, (table, meter), query, page);
        let scanned = scanned.or_else(|| self.first_rows(residual, (table, meter), query, page, schema));
        let selection = scanned.unwrap_or_else(|| self.select(checks, (table, meter), query, page, schema));
        meter.check()?;
        Ok(Selection { examined: selection.examined + checks.examined, ..selection })
    }

    /// Rows that the search finds and the number of rows examined for it, `None` if no index answers the search.
    fn words(&self, table: &Table, query: &Query, schema: &Schema, meter: &Meter) -> Option<(SlotSet, u64)> {
        let text = table.indexes()[self.words?].text(schema)?;
        let hits = text.lookup(query.search.as_deref()?)?.find();
        let search = Query { search: query.search.clone(), ..Query::default() }.prepare(schema);
        let mut examined = 0;
        let mut ended = false;
        let found = hits.settle(|slot| {
            examined += 1;
            ended = ended || (examined % 64 == 0 && meter.check().is_err());
            !ended && table.at(slot).is_some_and(|row| search.matches(&fields(&row)))
        });
        Some((found, examined))
    }

    fn select(
        &self,
        checks: &Checks,
        (table, meter): (&Table, &Meter),
        query: &Query,
        page: Page,
        schema: &Schema,
    ) -> Selection {
        let skip = |start: usize| if checks.is_none() { start.saturating_add(clamp(page.offset)) } else { start };
        match &self.access {
            Access::Natural => {
                let start = natural_start(table, query);
                let before = table.natural(0).take(start);
                self.page(page, checks, start, meter.rows(before), meter.rows(table.natural(skip(start))))
            }
            // Without checks the rows themselves need not be read.
            Access::Walk(walk) if checks.is_none() => {
                let slots = walk.page(table, clamp(page.offset), page.max_rows());
                let before = (walk.before() as u64).saturating_add(page.offset);
                Selection { examined: slots.len() as u64, slots, before, total: self.total.unwrap_or(0) as u64 }
            }
            Access::Walk(walk) => {
                let at = |slot| table.at(slot);
                let before = meter.rows(walk.skipped(table).filter_map(at));
                self.page(page, checks, walk.before(), before, meter.rows(walk.slots(table, 0).filter_map(at)))
            }
            Access::Some(SlotSource::Words(_))
                if checks.residual.is_none()
                    && query.order.is_empty()
                    && query.after.is_none()
                    && table.is_in_slot_order() =>
            {
                let found = checks.words.as_ref().map_or(0, SlotSet::len) as u64;
                let shown = checks.words.iter().flat_map(SlotSet::iter).skip(clamp(page.offset));
                let slots: Vec<Slot> = shown.take(page.max_rows()).collect();
                Selection { examined: slots.len() as u64, slots, before: page.offset, total: found }
            }
            Access::Some(source) => {
                let slots = source.slots(table, checks.words.as_ref());
                let examined = slots.len() as u64;
                let rows = meter.rows(slots.into_iter().filter_map(|slot| table.at(slot)));
                let matching = rows.filter(|row| checks.pass(row));
                Selection { examined, ..sort_page(matching, query, page, schema, meter) }
            }
            Access::Scan => {
                let matching = meter.rows(table.iter_slots()).filter(|row| checks.pass(row));
                Selection { examined: table.len() as u64, ..sort_page(matching, query, page, schema, meter) }
            }
        }
    }

    /// Selects a page of ordered rows. Without checks, `rows` begins at the page; with checks, after the cursor. `before` are the
    /// rows before the cursor, `skipped` their number.
    fn page<'a>(
        &self,
        page: Page,
        checks: &Checks,
        skipped: usize,
        before: impl Iterator<Item = RowRef<'a>>,
        mut rows: impl Iterator<Item = RowRef<'a>>,
    ) -> Selection {
        let limit = page.max_rows();
        if checks.is_none() {
            let slots: Vec<Slot> = rows.take(limit).map(|row| row.slot()).collect();
            let before = (skipped as u64).saturating_add(page.offset);
            let examined = slots.len() as u64;
            return Selection { slots, before, total: self.total.unwrap_or(0) as u64, examined };
        }
        // Without a filter, the rows of the search are all matches.
        let words = checks.words.as_ref().filter(|_| self.words_only).map(SlotSet::len);
        let known = self.total.or(words);
        let mut examined = 0;
        let mut matches = |row: &RowRef<'a>| {
            examined += 1;
            checks.pass(row)
        };
        let before = before.filter(|row| matches(row)).count();
        let start = clamp(page.offset);
        let (mut found, mut slots) = (0usize, Vec::new());
        let full =
            |found: usize| known.is_some_and(|total| found >= start.saturating_add(limit) || before + found >= total);
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
        let total = known.unwrap_or(before + found) as u64;
        Selection { slots, before: (before as u64).saturating_add(page.offset), total, examined }
    }
}

/// Sorts `rows`, which all match, in the order of the query and selects the page.
fn sort_page<'a>(
    rows: impl Iterator<Item = RowRef<'a>>,
    query: &Query,
    page: Page,
    schema: &Schema,
    meter: &Meter,
) -> Selection {
    if !query.order.is_empty() {
        let order = Query { order: query.order.clone(), after: query.after.clone(), ..Query::default() };
        let prepared = order.prepare(schema);
        let keyed = rows.map(|row| {
            let fields: JsonRow<'a> = fields(&row);
            (ById(row), fields)
        });
        let top = prepared.top_within(keyed, page.offset, page.limit, meter);
        let slots = top.rows.into_iter().map(|(ById(row), _)| row.slot()).collect();
        return Selection { slots, before: top.before, total: top.total, examined: 0 };
    }
    let mut positions: Vec<_> = rows.map(|row| (row.ordinal(), row.slot())).collect();
    meter.sort(&mut positions);
    let after = query.after.as_ref().and_then(crate::vista::query::Cursor::numbers);
    let start = after.map_or(0, |after| positions.partition_point(|position| *position <= after));
    let shown = positions.iter().skip(start.saturating_add(clamp(page.offset))).take(page.max_rows());
    let slots = shown.map(|(_, slot)| *slot).collect();
    let before = (start as u64).saturating_add(page.offset);
    Selection { slots, before, total: positions.len() as u64, examined: 0 }
}

/// Row that is represented by its id.
struct ById<'a>(RowRef<'a>);

impl AsRef<str> for ById<'_> {
    fn as_ref(&self) -> &str {
        self.0.id()
    }
}
