//! [`Selected`]: the rows that are embedded in those of an answer, and their encoding.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use super::query::{Embed, MAX_EMBEDDED, Reading, Related, Shown};
use crate::http::bounds::Bounds;
use crate::http::problem::{ApiError, Code};
use crate::rows::format::{Bytes, Members};
use diorama_core::record::{CborValue, Record, decode_parts};
use diorama_core::state::State;
use diorama_core::table::{RowRef, Slot};
use diorama_core::vista::Query;
use diorama_core::vista::query::{CompiledQuery, JsonRow};

/// Number of owners after which the thread is left to other requests.
const OWNERS: usize = 64;

/// Embedded rows of one relation, for a list of rows.
pub(crate) struct Selected<'q> {
    embed: &'q Embed,
    state: Arc<State>,
    /// Rows of all owners, one owner after the other.
    slots: Vec<Slot>,
    /// For each owner its part of `slots`, or for counts their number.
    owned: Vec<Owned>,
    /// Rows that are embedded in those of `slots`.
    inner: Vec<Selected<'q>>,
}

/// Rows that belong to one owner, or their number.
enum Owned {
    Rows(Range<usize>),
    Count(u64),
}

/// Selects the rows to embed in those in `slots` of `owners`, in the same order.
///
/// # Errors
/// 400 if there are too many; as [`ScopedRows::select`](crate::rows::scoped_rows::ScopedRows::select).
pub(crate) fn select<'q: 'a, 'a>(
    related: &'q Related,
    owners: &'a Arc<State>,
    slots: &'a [Slot],
    reading: &'a mut Reading,
    bounds: &'a Bounds,
) -> Pin<Box<dyn Future<Output = Result<Vec<Selected<'q>>, ApiError>> + Send + 'a>> {
    Box::pin(async move {
        let mut all = Vec::with_capacity(related.embeds.len());
        for embed in &related.embeds {
            all.push(Selected::of(embed, owners, slots, reading, bounds).await?);
        }
        Ok(all)
    })
}

impl<'q> Selected<'q> {
    async fn of(
        embed: &'q Embed,
        owners: &Arc<State>,
        slots: &[Slot],
        reading: &mut Reading,
        bounds: &Bounds,
    ) -> Result<Selected<'q>, ApiError> {
        let state = reading.state(&embed.relation.scope);
        let id_column = embed.relation.scope.schema.id_column();
        let mut query = embed.query.clone();
        query.filter.and(embed.related.filter(id_column, reading, bounds).await?);
        let owned = Vec::with_capacity(slots.len());
        let mut selected = Selected { embed, state, slots: Vec::new(), owned, inner: Vec::new() };
        match embed.relation.many {
            true => selected.select_many(owners, slots, &query, (reading.left, bounds)).await?,
            false => {
                let checks = selected.checks(query, bounds).await?;
                selected.select_one(owners, slots, checks.as_ref());
            }
        }
        reading.left = reading.left.checked_sub(selected.slots.len()).ok_or_else(too_many)?;
        selected.inner = select(&embed.related, &selected.state, &selected.slots, reading, bounds).await?;
        Ok(selected)
    }

    /// Compiles the filter of rows that are looked up by id; `None` if all pass. Patterns are compiled off the async threads.
    async fn checks(&self, query: Query, bounds: &Bounds) -> Result<Option<CompiledQuery>, ApiError> {
        if query.is_unfiltered() {
            return Ok(None);
        }
        let rows = &self.embed.relation.scope.rows;
        let schema = Arc::clone(rows.full_schema());
        let has_patterns = query.filter.has_patterns();
        let compile = move || query.prepare(&schema);
        Ok(Some(if has_patterns { bounds.run(rows.workers(), compile).await? } else { compile() }))
    }

    /// Looks up the row that each owner names.
    fn select_one(&mut self, owners: &State, slots: &[Slot], checks: Option<&CompiledQuery>) {
        let (relation, is_count) = (&self.embed.relation, matches!(self.embed.shown, Shown::Count));
        let rows = &relation.scope.rows;
        let meets = |row: &RowRef<'_>| checks.is_none_or(|checks| checks.matches(&json(row)));
        for slot in slots {
            let owner = owners.table().at(*slot);
            let id = owner.and_then(|owner| relation.id_in(&json(&owner)));
            let found = id.and_then(|id| self.state.get(&relation.stored_id(&id)));
            let found = found.filter(|row| rows.sees_row(row) && meets(row));
            let begin = self.slots.len();
            match (is_count, found) {
                (true, found) => self.owned.push(Owned::Count(found.map_or(0, |_| 1))),
                (false, found) => {
                    self.slots.extend(found.map(|row| row.slot()));
                    self.owned.push(Owned::Rows(begin..self.slots.len()));
                }
            }
        }
    }

    /// Selects the rows that belong to each owner, by the index of the relation's column.
    async fn select_many(
        &mut self,
        owners: &State,
        slots: &[Slot],
        query: &Query,
        (most, bounds): (usize, &Bounds),
    ) -> Result<(), ApiError> {
        let (relation, is_count) = (&self.embed.relation, matches!(self.embed.shown, Shown::Count));
        for (number, slot) in slots.iter().enumerate() {
            bounds.meter.check()?;
            if number % OWNERS == OWNERS - 1 {
                tokio::task::yield_now().await;
            }
            let begin = self.slots.len();
            let Some(owner) = owners.table().at(*slot) else {
                self.owned.push(if is_count { Owned::Count(0) } else { Owned::Rows(begin..begin) });
                continue;
            };
            let mut query = query.clone();
            query.filter.and(relation.owned_by(owner.id()));
            let (found, _) = relation.scope.rows.select(&self.state, &query, &bounds.meter).await?;
            if is_count {
                self.owned.push(Owned::Count(found.total));
                continue;
            }
            self.slots.extend(found.slots);
            if self.slots.len() > most {
                return Err(too_many());
            }
            self.owned.push(Owned::Rows(begin..self.slots.len()));
        }
        Ok(())
    }

    /// Appends the member of the owner at `index` as JSON: name and value.
    fn write_json(&self, index: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.embed.json_key);
        out.push(b':');
        let (one, many) = match &self.owned[index] {
            Owned::Count(count) => return out.extend_from_slice(format!("[{{\"count\":{count}}}]").as_bytes()),
            Owned::Rows(range) => (!self.embed.relation.many, range.clone()),
        };
        if one && many.is_empty() {
            return out.extend_from_slice(b"null");
        }
        if !one {
            out.push(b'[');
        }
        for (at, index) in many.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match self.state.table().at(self.slots[index]) {
                Some(row) => self.write_row(&row, index, out),
                None => out.extend_from_slice(b"null"),
            }
        }
        if !one {
            out.push(b']');
        }
    }

    fn write_row(&self, row: &RowRef<'_>, index: usize, out: &mut Vec<u8>) {
        let begin = out.len();
        match &self.embed.shown {
            Shown::Rows(Some(projection)) => projection.write_json(&json(row), out),
            _ => out.extend_from_slice(row.json()),
        }
        Embedded::of(&self.embed.related, &self.inner, index).append_json(begin, out);
    }

    /// The member of the owner at `index`.
    fn value(&self, index: usize) -> CborValue {
        let range = match &self.owned[index] {
            Owned::Count(count) => {
                return CborValue::Array(vec![CborValue::Map(vec![("count".into(), (*count).into())])]);
            }
            Owned::Rows(range) => range.clone(),
        };
        let mut rows = range.filter_map(|index| Some(self.record(&self.state.table().at(self.slots[index])?, index)));
        match self.embed.relation.many {
            true => CborValue::Array(rows.collect()),
            false => rows.next().unwrap_or(CborValue::Null),
        }
    }

    fn record(&self, row: &RowRef<'_>, index: usize) -> CborValue {
        let JsonRow(json, cbor) = json(row);
        let mut record = decode_parts(json, cbor).unwrap_or_default();
        if let Shown::Rows(Some(projection)) = &self.embed.shown {
            record = projection.apply(&record);
        }
        Embedded::of(&self.embed.related, &self.inner, index).insert(&mut record);
        CborValue::Map(record.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// Members that one row has of others.
pub(crate) struct Embedded<'a, 'q> {
    related: &'a Related,
    selected: &'a [Selected<'q>],
    /// Index of the row among those that `selected` was made for.
    index: usize,
}

impl<'a, 'q> Embedded<'a, 'q> {
    /// Members of the row at `index`.
    pub(crate) fn of(related: &'a Related, selected: &'a [Selected<'q>], index: usize) -> Embedded<'a, 'q> {
        Embedded { related, selected, index }
    }
}

impl Members for Embedded<'_, '_> {
    fn append_json(&self, begin: usize, out: &mut Vec<u8>) {
        if !self.related.shows_own {
            out.truncate(begin);
            out.extend_from_slice(b"{}");
        }
        out.pop();
        for selected in self.selected {
            if !out.ends_with(b"{") {
                out.push(b',');
            }
            selected.write_json(self.index, out);
        }
        out.push(b'}');
    }

    fn insert(&self, record: &mut Record) {
        if !self.related.shows_own {
            *record = Record::new();
        }
        for selected in self.selected {
            record.insert(&selected.embed.key, selected.value(self.index));
        }
    }
}

fn json<'r>(row: &RowRef<'r>) -> JsonRow<'r> {
    Bytes::from(row).into()
}

fn too_many() -> ApiError {
    ApiError::new(Code::LimitTooLarge, format!("the answer would embed more than {MAX_EMBEDDED} rows"))
        .hint("use a smaller limit, of the list or in the parentheses of a relation")
}
