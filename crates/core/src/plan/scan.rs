//! Scans: plans that look at all rows, block by block, in the columns that they read.

use std::sync::Arc;

use super::{Access, Page, Plan, Selection, clamp};
use crate::table::{ColumnScan, Slot, Table};
use crate::vista::query::{Aggregation, Block, BlockFold, CompiledQuery, Groups, Mask, Meter};
use crate::vista::{Query, Result, Schema};

/// Minimum number of rows of a table whose columns are read.
const MIN_ROWS: usize = 4_096;
/// Reading a row through an index takes as long as reading the columns of about this number of rows.
const ROWS_PER_SEEK: usize = 8;

impl Plan {
    /// Groups of the rows that match `query`; `None` if they are to be folded row by row.
    ///
    /// # Errors
    /// As [`Aggregation::fold`] and [`Meter::check`].
    pub(crate) fn groups<'a>(
        &self,
        aggregation: &'a Aggregation,
        (table, meter): (&Table, &Meter),
        query: &Query,
        schema: &Schema,
    ) -> Result<Option<Groups<'a>>> {
        let near = matches!(self.access, Access::Natural | Access::Scan)
            || self.cost.saturating_mul(ROWS_PER_SEEK) >= table.len();
        if !near || self.words.is_some() || !has_columns(table) {
            return Ok(None);
        }
        let filter = Query { filter: query.filter.clone(), search: query.search.clone(), ..Query::default() };
        let compiled = filter.prepare(schema);
        let name = format!("{aggregation:?}\n{:?} {:?}\n{}", filter.filter, filter.search, compiled.reading());
        let name = query.search.is_none().then(|| Arc::from(name));
        let scan = ColumnScan::new(table, compiled.filter_paths().into_iter().chain(aggregation.paths()), name, meter);
        fold(aggregation, &compiled, (table, &scan), meter)
    }

    /// The page of a query that checks all rows, in natural order; `None` if this plan does not.
    pub(super) fn checked_page(
        &self,
        residual: Option<&CompiledQuery>,
        (table, meter): (&Table, &Meter),
        query: &Query,
        page: Page,
    ) -> Option<Selection> {
        let all = matches!(self.access, Access::Natural) && self.total.is_none() && self.words.is_none();
        let residual = residual.filter(|_| all && query.after.is_none() && has_columns(table))?;
        if !table.is_in_slot_order() {
            return None;
        }
        let scan = ColumnScan::new(table, residual.filter_paths(), None, meter);
        let (start, limit) = (clamp(page.offset), page.max_rows());
        let (mut found, mut slots) = (0usize, Vec::new());
        for block in table.blocks(&scan).take_while(|_| meter.check().is_ok()) {
            let rows = residual.matching(&block, meter);
            let (len, wanted) = (rows.len(), limit - slots.len());
            slots.extend(rows.iter().skip(start.saturating_sub(found)).take(wanted).map(|at| block.slot(at)));
            found += len;
        }
        Some(Selection { slots, before: page.offset, total: found as u64, examined: table.len() as u64 })
    }

    /// The first rows in the query's order of all rows that match; `None` if this plan does not look at all rows.
    pub(super) fn first_rows(
        &self,
        residual: Option<&CompiledQuery>,
        (table, meter): (&Table, &Meter),
        query: &Query,
        page: Page,
        schema: &Schema,
    ) -> Option<Selection> {
        let all = matches!(self.access, Access::Scan) && self.words.is_none() && query.after.is_none();
        let end = clamp(page.offset).saturating_add(clamp(page.limit?));
        // Most rows have to be compared with the last one only.
        if !all || query.order.is_empty() || end.saturating_mul(2) > table.len() || !has_columns(table) {
            return None;
        }
        let order = Query { order: query.order.clone(), ..Query::default() }.prepare(schema);
        let paths = residual.into_iter().flat_map(CompiledQuery::filter_paths).chain(order.order_path());
        let scan = ColumnScan::new(table, paths, None, meter);
        let mut first = order.first_rows::<Slot>(end);
        let mut found = 0;
        for block in table.blocks(&scan).take_while(|_| meter.check().is_ok()) {
            let rows = residual.map_or_else(|| Mask::first(block.len()), |residual| residual.matching(&block, meter));
            found += rows.len();
            first.add(&block, &rows, |at| block.slot(at), meter);
        }
        let slots = first.finish().skip(clamp(page.offset)).collect();
        Some(Selection { slots, before: page.offset, total: found as u64, examined: table.len() as u64 })
    }
}

/// True if scans of `table` read columns.
fn has_columns(table: &Table) -> bool {
    table.len() >= MIN_ROWS && table.columns().is_used()
}

/// Folds the matching rows of all blocks, with the groups that blocks have kept.
fn fold<'a>(
    aggregation: &'a Aggregation,
    query: &CompiledQuery,
    (table, scan): (&Table, &ColumnScan<'_>),
    meter: &Meter,
) -> Result<Option<Groups<'a>>> {
    let mut all = BlockFold::new(aggregation);
    let mut keeps = true;
    for block in table.blocks(scan) {
        meter.check()?;
        if let Some(groups) = block.groups() {
            if !all.merge(&groups, meter)? {
                return Ok(None);
            }
            continue;
        }
        let rows = query.matching(&block, meter);
        meter.check()?;
        if keeps {
            let mut one = BlockFold::of_block(aggregation);
            if !one.add(&block, &rows, meter)? {
                return Ok(None);
            }
            if let Some(groups) = one.into_block().map(Arc::new) {
                block.keep_groups(&groups);
                if !all.merge(&groups, meter)? {
                    return Ok(None);
                }
                continue;
            }
            // Where one block has many groups, others have.
            keeps = false;
        }
        if !all.add(&block, &rows, meter)? {
            return Ok(None);
        }
    }
    meter.check()?;
    Ok((table.is_in_slot_order() || !all.is_ambiguous()).then(|| all.finish()))
}
