//! Checks of the rows that enter a Dio: those of users, of the program, and of upstream events.

use std::borrow::Cow;
use std::sync::Arc;

use super::ingest::Inbound;
use crate::dio::core::Core;
use crate::record::{Body, BodyRef, Record, Rows};
use crate::state::ReadRow;
use crate::vista::check::Checked;
use crate::vista::query::JsonRow;
use crate::vista::{ChangeEvent, Error, Kinds, Result, RowCheck, Schema, Shape};

impl Core {
    /// Checks a row of a user or of the program, and converts its values to the types of their columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every invalid column, [`Error::Conflict`] if the row has another id than `id`.
    pub(crate) fn checked_row<'r>(&self, id: &str, row: Cow<'r, Record>, shape: Shape) -> Result<Cow<'r, Record>> {
        check_key(id)?;
        let (schema, held) = (self.vista.schema(), self.held_row(id));
        let check = RowCheck::new(&schema, shape).unknown(self.settings.unknown_columns).held(held.as_ref());
        check.check_under(id, row).map(|checked| checked.row)
    }

    /// The row with `id` as readers see it, `None` if it is not cached.
    pub(crate) fn held_row(&self, id: &str) -> Option<Record> {
        // A row that cannot be decoded is from a damaged cache and counts as unknown.
        self.state().get(id)?.body().decode().ok()
    }

    /// Spelling of `id` under which its row is cached: a UUID may differ in case or form. `id` itself if there is no such row.
    pub(crate) fn known_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        let Some(uuid) = self.vista.schema().uuid_of(id) else { return Cow::Borrowed(id) };
        let (state, lower) = (self.state(), uuid.to_string());
        if state.get(id).is_some() {
            return Cow::Borrowed(id);
        }
        let upper = lower.to_uppercase();
        [lower, upper].into_iter().find(|spelled| state.get(spelled).is_some()).map_or(Cow::Borrowed(id), Cow::Owned)
    }

    /// Checks the row of an upstream event, `None` if the event has no row. If the settings refuse undeclared columns,
    /// they are dropped here, because the sender could not correct them.
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
        if inbound.in_order {
            return Ok(Some(Checked { row: Cow::Borrowed(row), dropped: Vec::new() }));
        }
        let schema = self.vista.schema();
        let shape = if inbound.partial { Shape::Part } else { Shape::Whole };
        let unknown = self.settings.unknown_columns.for_upstream();
        let check = RowCheck::new(&schema, shape).unknown(unknown).coercion(inbound.coercion);
        check.check_under(id, Cow::Borrowed(row)).map(Some)
    }

    /// The event with its row converted, for the program's `on_event`; `None` if nothing had to be converted.
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

/// Checks that `id` can be an id.
pub(crate) fn check_key(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > 1024 || id.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "{id:?} is not a valid id: it must have 1 to 1024 bytes and no control characters"
        )));
    }
    Ok(())
}

impl Core {
    /// [`Mismatches::check`] of one row of the source.
    pub(crate) fn note_mismatches(&self, id: &str, row: Option<&Body>) {
        self.sync.mismatches.check(&self.name, row.map(|row| (id, row.into())));
    }

    /// [`Mismatches::check`] of the rows of a list.
    pub(crate) fn note_list_mismatches(&self, rows: &Rows) {
        self.sync.mismatches.check(&self.name, rows.bodies());
    }

    /// [`Mismatches::check`] of the rows of a read that differ from the known rows.
    pub(crate) fn note_read_mismatches(&self, items: &[ReadRow]) {
        self.sync
            .mismatches
            .check(&self.name, items.iter().filter_map(|item| Some((&*item.id, item.row.as_ref()?.into()))));
    }

    /// Converts the values of a list that the program made. Values that cannot be converted are kept and counted.
    pub(crate) async fn converted(self: &Arc<Self>, rows: Rows) -> Result<Rows> {
        let (core, count) = (Arc::clone(self), rows.len());
        let convert = move || {
            let rows = convert_all(rows, &core.vista.schema(), &core.sync.mismatches.kinds);
            core.note_list_mismatches(&rows);
            rows
        };
        self.heavy(count, convert).await
    }
}

fn convert_all(rows: Rows, schema: &Schema, kinds: &Kinds) -> Rows {
    let check = RowCheck::new(schema, Shape::Whole);
    let converted = |id: &str, body: BodyRef<'_>| {
        let mut differs = false;
        kinds.differences(JsonRow::from(body), |_| differs = true);
        let record = if differs { body.decode().ok()? } else { return None };
        check.convert(&record).map(|record| Body::encode(id, &record, schema.layout()))
    };
    rows.map_bodies(converted)
}
