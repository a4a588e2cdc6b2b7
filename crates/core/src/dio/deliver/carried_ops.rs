//! Operations that a new epoch carried over from an older journal, or from another server's, so that their later outcome
//! is unknown.
//!
//! Such an operation has taken effect if the master, or the route, knows its id, or if the row has the values of the
//! write. It is delivered if the row is still the one that it was accepted on. Otherwise it is parked: a repeated
//! delivery could undo writes that were accepted after it and are missing from this journal.

use std::collections::HashMap;
use std::sync::Arc;

use super::attempts::BaseHash;
use crate::dio::core::Core;
use crate::dio::settings::WriteRoute;
use crate::record::{Body, Id, Layout, Record, merge_patch};
use crate::state::{Answer, Effect, Entry, NO_ROW, Op, OpChange, OpError, OpId, OpState, State};
use crate::vista::Result;

/// Operations that were carried over and wait for delivery.
pub(crate) type CarriedOps = HashMap<OpId, BaseHash>;

/// Notes the operation of an entry from before the epoch.
pub(crate) fn note(carried_ops: &mut CarriedOps, entry: &Entry, layout: &Layout) {
    if let OpChange::Stage(op) = &entry.op {
        let former_row = if op.targets.len() == 1 { entry.former_row(layout) } else { None };
        carried_ops.insert(op.id, former_row.map(|row| row.as_ref().map_or(NO_ROW, Body::hash)));
    }
}

/// Keeps only the operations that still wait.
pub(crate) fn retain_queued(carried_ops: &mut CarriedOps, state: &State) {
    carried_ops.retain(|id, _| state.op(*id).is_some_and(|op| op.state == OpState::Queued));
}

/// Decides on an operation that was carried over: an answer, or `None` to deliver it.
pub(crate) async fn resolve(core: &Arc<Core>, op: &Op, base_hash: BaseHash) -> Result<Option<Answer>> {
    let target = match core.callbacks.on_write {
        Some(_) => core.settings.route.as_ref(),
        None => Some(&core.vista),
    };
    if let Some(target) = target {
        let (shell, operation) = (Arc::clone(target.shell()), op.id.to_string());
        if core.ask_driver(async move { shell.knows(&operation).await }).await? {
            // A repeated delivery with the same id changes nothing and is answered with the row.
            return Ok(None);
        }
    }
    let [id] = &*op.targets else { return Ok(Some(parked())) };
    let layout = Arc::clone(core.vista.schema().layout());
    let row = read(core, op, id, &layout).await?;
    if has_values(core, op, row.as_ref()) {
        return Ok(Some(match (&core.callbacks.on_write, core.settings.write_route) {
            (Some(_), WriteRoute::Around) => Answer::Routed,
            _ => Answer::Confirmed { row, id: None },
        }));
    }
    let untouched = base_hash == Some(row.as_ref().map_or(NO_ROW, Body::hash));
    Ok(if untouched { None } else { Some(parked()) })
}

/// The row at the destination of the operation. If it cannot be read singly, the row of the last list.
async fn read(core: &Arc<Core>, op: &Op, id: &Id, layout: &Layout) -> Result<Option<Body>> {
    let encode = |row: Record| Body::encode(id, &row, layout);
    match (&core.callbacks.on_write, &core.settings.route) {
        (None, _) if core.vista.shell().reads_one() => Ok(core.read_one(id).await?.map(encode)),
        (Some(_), Some(route)) if route.shell().reads_one() => {
            let (shell, key) = (Arc::clone(route.shell()), id.to_string());
            let row = core.ask_driver(async move { shell.get(&key).await }).await?;
            // The destination has only rows that were written before; the others are read from the source's list.
            Ok(row.map(encode).or_else(|| core.state().row_before(op.id)))
        }
        _ => Ok(core.state().row_before(op.id)),
    }
}

/// Returns true if the row has the values of the operation.
fn has_values(core: &Core, op: &Op, row: Option<&Body>) -> bool {
    let schema = core.vista.schema();
    let Some(row) = row else { return op.effect == Effect::Delete };
    let Ok(record) = row.decode() else { return false };
    match &op.effect {
        Effect::Insert(body) => has_inserted_values(body, &record, schema.id_column()),
        Effect::Replace(body) => body == row,
        Effect::Patch(body) => {
            body.decode().is_ok_and(|patch| merge_patch(record.clone(), &patch, schema.layout()) == record)
        }
        Effect::Delete | Effect::DeleteAll => false,
    }
}

fn parked() -> Answer {
    let detail = "the write comes from an older journal, and the row has neither the values from before it nor those of the write: \
                  look at the row, then retry or discard";
    Answer::Parked(OpError { code: "outcome-unknown".into(), detail: detail.into() })
}

/// Returns true if `row` has the values of an insert of `body`. The id column is not compared.
pub(crate) fn has_inserted_values(body: &Body, row: &Record, id_column: &str) -> bool {
    let ours: Record = body.decode().unwrap_or_default();
    ours.iter().all(|(column, value)| &**column == id_column || row.get(column) == Some(value))
}
