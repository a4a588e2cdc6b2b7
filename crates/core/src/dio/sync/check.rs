//! The check of rows at the doors of a Dio: those of users and of the program, and those that others send.

use std::borrow::Cow;
use std::sync::Arc;

use super::ingest::Inbound;
use crate::dio::core::Core;
use crate::record::{Body, Record, Rows};
use crate::state::ReadRow;
use crate::vista::check::Checked;
use crate::vista::query::JsonRow;
use crate::vista::{ChangeEvent, Error, Kinds, Result, RowCheck, Schema, Shape};

impl Core {
    /// A row of a user or of the program under `id`, every cell as its column holds it.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every column that is wrong, [`Error::Conflict`] if the row says another id.
    pub(crate) fn checked_row<'r>(&self, id: &str, row: Cow<'r, Record>, shape: Shape) -> Result<Cow<'r, Record>> {
        check_key(id)?;
        let (schema, held) = (self.vista.schema(), self.held_row(id));
        let check = RowCheck::new(&schema, shape).unknown(self.settings.unknown_columns).held(held.as_ref());
        check.check_under(id, row).map(|checked| checked.row)
    }

    /// The row under `id` as readers see it, if it is held.
    pub(crate) fn held_row(&self, id: &str) -> Option<Record> {
        // Bytes that cannot be decoded are of a damaged cache; nothing is said of that row.
        self.state().get(id)?.body().decode().ok()
    }

    /// The id under which the row of `id` is held: a UUID may be spelled otherwise. `id` itself if there is no such row.
    pub(crate) fn known_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        let Some(uuid) = self.vista.schema().uuid_of(id) else { return Cow::Borrowed(id) };
        let (state, lower) = (self.state(), uuid.to_string());
        if state.get(id).is_some() {
            return Cow::Borrowed(id);
        }
        let upper = lower.to_uppercase();
        [lower, upper].into_iter().find(|spelled| state.get(spelled).is_some()).map_or(Cow::Borrowed(id), Cow::Owned)
    }

    /// The row of an upstream event as its columns hold it, if the event brings one. Unknown columns are left out where they
    /// would be refused of others: nobody could correct them.
    ///
    /// # Errors
    /// As [`Core::checked_row`].
    pub(crate) fn checked_event<'i>(&self, inbound: &'i Inbound) -> Result<Option<Checked<'i>>> {
        let (ChangeEvent::Inserted { id, new: Some(row) } | ChangeEvent::Updated { id, new: Some(row) }) =
            &inbound.event
        else {
            return Ok(None);
        };
        check_key(id)?;
        let schema = self.vista.schema();
        let shape = if inbound.partial { Shape::Part } else { Shape::Whole };
        let unknown = self.settings.unknown_columns.for_upstream();
        let check = RowCheck::new(&schema, shape).unknown(unknown).coercion(inbound.coercion);
        check.check_under(id, Cow::Borrowed(row)).map(Some)
    }

    /// An event whose row had to be converted, for the program's `on_event`; `None` if it is as it should be.
    ///
    /// # Errors
    /// As [`Core::checked_row`].
    pub(crate) fn checked_inbound(&self, inbound: &Inbound) -> Result<Option<Inbound>> {
        let Some(Checked { row, dropped }) = self.checked_event(inbound)? else { return Ok(None) };
        let Cow::Owned(row) = row else { return Ok(None) };
        self.sync.mismatches.note_dropped(inbound.event.id().unwrap_or_default(), &dropped);
        let mut inbound = inbound.clone();
        if let ChangeEvent::Inserted { new, .. } | ChangeEvent::Updated { new, .. } = &mut inbound.event {
            *new = Some(row);
        }
        Ok(Some(inbound))
    }
}

/// Refuses what cannot be a key.
pub(crate) fn check_key(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > 1024 || id.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{id:?} cannot be an id: 1 to 1024 bytes without control characters")));
    }
    Ok(())
}

impl Core {
    /// [`Mismatches::look`] at one row of the source.
    pub(crate) fn look_at(&self, id: &str, row: Option<&Body>) {
        self.sync.mismatches.look(&self.name, row.map(|row| (id, row)));
    }

    /// [`Mismatches::look`] at the rows of a list.
    pub(crate) fn look_at_rows(&self, rows: &Rows) {
        self.sync.mismatches.look(&self.name, rows.bodies().map(|(id, body)| (&**id, body)));
    }

    /// [`Mismatches::look`] at the rows of a read that differ from what is known.
    pub(crate) fn look_at_items(&self, items: &[ReadRow]) {
        self.sync.mismatches.look(&self.name, items.iter().filter_map(|item| Some((&*item.id, item.row.as_ref()?))));
    }

    /// A list that the program made: cells that convert are converted, the others are kept as they are and counted.
    pub(crate) async fn converted(self: &Arc<Self>, rows: Rows) -> Result<Rows> {
        let (core, count) = (Arc::clone(self), rows.len());
        let convert = move || {
            let rows = convert_all(rows, &core.vista.schema(), &core.sync.mismatches.kinds);
            core.look_at_rows(&rows);
            rows
        };
        self.heavy(count, convert).await
    }
}

fn convert_all(rows: Rows, schema: &Schema, kinds: &Kinds) -> Rows {
    let check = RowCheck::new(schema, Shape::Whole);
    let converted = |id: &str, body: &Body| {
        let mut differs = false;
        kinds.differences(JsonRow::from(body), |_| differs = true);
        let record = if differs { body.decode().ok()? } else { return None };
        check.convert(&record).map(|record| Body::encode(id, &record, schema.layout()))
    };
    rows.map_bodies(converted)
}
