//! Operations that a new epoch carried over: the journal that holds them is an older one, or another server's, so what became of
//! them since is not known.
//!
//! Such an operation has taken effect if the master, or the route, knows it by its id, or if the row is as it would make it. It
//! is delivered if the row is still the one that it was accepted over. Else it is parked: sent again it could undo what was
//! accepted after it and is in no journal any more.

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

/// Notes what an entry from before the epoch says of its operation.
pub(crate) fn note(carried_ops: &mut CarriedOps, entry: &Entry, layout: &Layout) {
    if let OpChange::Stage(op) = &entry.op {
        let former_row = if op.targets.len() == 1 { entry.former_row(layout) } else { None };
        carried_ops.insert(op.id, former_row.map(|row| row.as_ref().map_or(NO_ROW, Body::hash)));
    }
}

/// Keeps those that still wait.
pub(crate) fn retain_queued(carried_ops: &mut CarriedOps, state: &State) {
    carried_ops.retain(|id, _| state.op(*id).is_some_and(|op| op.state == OpState::Queued));
}

/// What became of an operation that was carried over: an answer, or `None` to send it.
pub(crate) async fn resolve(core: &Arc<Core>, op: &Op, over: BaseHash) -> Result<Option<Answer>> {
    let target = match core.hooks.on_write {
        Some(_) => core.settings.route.as_ref(),
        None => Some(&core.vista),
    };
    if let Some(target) = target {
        let (shell, operation) = (Arc::clone(target.shell()), op.id.to_string());
        if core.ask_driver(async move { shell.knows(&operation).await }).await? {
            // Sent again under its id it changes nothing, and is answered with the row.
            return Ok(None);
        }
    }
    let [id] = &*op.targets else { return Ok(Some(parked())) };
    let layout = Arc::clone(core.vista.schema().layout());
    let row = read(core, op, id, &layout).await?;
    if is_made(core, op, row.as_ref()) {
        return Ok(Some(match (&core.hooks.on_write, core.settings.write_route) {
            (Some(_), WriteRoute::Around) => Answer::Routed,
            _ => Answer::Confirmed { row, id: None },
        }));
    }
    let untouched = over == Some(row.as_ref().map_or(NO_ROW, Body::hash));
    Ok(if untouched { None } else { Some(parked()) })
}

/// The row where the operation goes. What cannot be read by itself is taken as the last list showed it.
async fn read(core: &Arc<Core>, op: &Op, id: &Id, layout: &Layout) -> Result<Option<Body>> {
    let encode = |row: Record| Body::encode(id, &row, layout);
    match (&core.hooks.on_write, &core.settings.route) {
        (None, _) if core.vista.shell().reads_one() => Ok(core.read_one(id).await?.map(encode)),
        (Some(_), Some(route)) => {
            let (shell, key) = (Arc::clone(route.shell()), id.to_string());
            let row = core.ask_driver(async move { shell.get(&key).await }).await?;
            // The other end has those rows only that were written before; the others are the source's.
            Ok(row.map(encode).or_else(|| core.state().row_before(op.id)))
        }
        _ => Ok(core.state().row_before(op.id)),
    }
}

/// Whether the row is as the operation makes it.
fn is_made(core: &Core, op: &Op, row: Option<&Body>) -> bool {
    let schema = core.vista.schema();
    let Some(row) = row else { return op.effect == Effect::Delete };
    let Ok(record) = row.decode() else { return false };
    match &op.effect {
        Effect::Insert(body) => is_of(body, &record, schema.id_column()),
        Effect::Replace(body) => body == row,
        Effect::Patch(body) => {
            body.decode().is_ok_and(|patch| merge_patch(record.clone(), &patch, schema.layout()) == record)
        }
        Effect::Delete | Effect::DeleteAll => false,
    }
}

fn parked() -> Answer {
    let detail = "it comes from an older journal, and the row is neither as it was when this was accepted nor as this makes it: \
                  look at the row, then retry or discard";
    Answer::Parked(OpError { code: "outcome-unknown".into(), detail: detail.into() })
}

/// Whether `row` has what an insert of `body` would have put there.
pub(crate) fn is_of(body: &Body, row: &Record, id_column: &str) -> bool {
    let ours: Record = body.decode().unwrap_or_default();
    ours.iter().all(|(column, value)| &**column == id_column || row.get(column) == Some(value))
}
