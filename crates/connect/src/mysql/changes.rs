//! Changes of a row, made of the images that the binary log has of it.

use super::layout::{Cell, id_of};
use super::table::{Field, Table};
use diorama_core::dio::Inbound;
use diorama_core::record::{CborValue, Record};
use diorama_core::state::Origin;
use diorama_core::vista::ChangeEvent;

/// Returns the changes of a row with its images before and after. `None` if its id is not known.
pub(super) fn changes_of(table: &Table, before: Option<Vec<Cell>>, after: Option<Vec<Cell>>) -> Option<Vec<Inbound>> {
    let Some(mut after) = after else {
        let id = id_of(table, &before?)?;
        return Some(vec![inbound(ChangeEvent::Deleted { id }, false)]);
    };
    let Some(before) = before else {
        let id = id_of(table, &after)?;
        let new = if is_whole(&after) { Some(record(table, after)?) } else { None };
        return Some(vec![inbound(ChangeEvent::Inserted { id, new }, false)]);
    };
    // Rows that REPLACE overwrites are logged without the columns that it resets, and unlike those of most updates with the key.
    let may_be_reset = !is_whole(&after) && id_of(table, &after).is_some();
    for (after, before) in after.iter_mut().zip(&before) {
        if let (Cell::Absent, Cell::Value(value)) = (&*after, before) {
            *after = Cell::Value(value.clone());
        }
    }
    let (old, id) = (id_of(table, &before)?, id_of(table, &after)?);
    let mut changes = Vec::new();
    if old != id {
        changes.push(inbound(ChangeEvent::Deleted { id: old.clone() }, false));
    }
    // A computed value may have changed, and a row under another id has no former values to keep.
    let is_kept = |(field, cell): (&Field, &Cell)| match cell {
        Cell::Absent => !field.is_generated && old == id,
        Cell::Unreadable => false,
        Cell::Value(_) => true,
    };
    let is_known = !may_be_reset && table.fields.iter().zip(&after).all(is_kept);
    let partial = is_known && !is_whole(&after);
    let new = if is_known { Some(record(table, after)?) } else { None };
    changes.push(inbound(ChangeEvent::Updated { id, new }, partial));
    Some(changes)
}

fn is_whole(cells: &[Cell]) -> bool {
    cells.iter().all(|cell| matches!(cell, Cell::Value(_)))
}

/// Returns the record of a row, without the cells that are absent.
fn record(table: &Table, cells: Vec<Cell>) -> Option<Record> {
    let absent: Vec<bool> = cells.iter().map(|cell| *cell == Cell::Absent).collect();
    let value = |cell| match cell {
        Cell::Value(value) => value,
        Cell::Absent | Cell::Unreadable => CborValue::Null,
    };
    let (_, mut record) = table.record(cells.into_iter().map(value).collect()).ok()?;
    for (field, _) in table.fields.iter().zip(absent).filter(|(_, absent)| *absent) {
        record.remove(&field.name);
    }
    Some(record)
}

pub(super) fn inbound(event: ChangeEvent, partial: bool) -> Inbound {
    let in_order = !matches!(event, ChangeEvent::Inserted { new: None, .. } | ChangeEvent::Updated { new: None, .. });
    Inbound { partial, origin: Origin::Feed, in_order, ..Inbound::from(event) }
}
