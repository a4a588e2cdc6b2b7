//! Upstream events: from `handle_event` to the reconcile rules, or to the program's own `on_event`.

use std::borrow::Cow;
use std::sync::Arc;

use crate::dio::commit::reconciled::Reconciled;
use crate::dio::commit::write::delivery_claim;
use crate::dio::core::Core;
use crate::dio::handle::{Dio, Handle};
use crate::dio::scope;
use crate::dio::scope::{Kind, Scope};
use crate::record::{Body, CborValue, Id, Record};
use crate::state::{
    COLUMN_CLOCK, Command, EventVersion, Notice, Origin, State, UpstreamChange, UpstreamEvent, check_size,
};
use crate::vista::{ChangeEvent, Coercion, Error, Result, RowCheck, Shape, WriteBounds};

/// [`ChangeEvent`] with the metadata of its sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// The event.
    pub event: ChangeEvent,
    /// Version of the row after the change. Between changes with versions of one clock, the newer version wins, in any
    /// order of arrival.
    pub version: Option<CborValue>,
    /// Clock of the version: a name of the sender's, or [`COLUMN_CLOCK`] for values of the Dio's version column. `None`
    /// is the Dio's own clock if it has a version column.
    pub clock: Option<Arc<str>>,
    /// True if `new` has only some columns, to be merged into the known row.
    pub partial: bool,
    /// The sender's id of the delivery. A second one with the same id has no effect.
    pub delivery: Option<String>,
    /// Origin of the event.
    pub origin: Origin,
    /// Conversion of text values in its row.
    pub coercion: Coercion,
    /// True if the sender is the master itself, which reports every change in the order of its commits. The event is the newest
    /// state of its row, so that no read of the master is needed. Its cells are kept as they are, like those of a list; those of
    /// a partial row replace cells.
    pub in_order: bool,
}

impl From<ChangeEvent> for Inbound {
    fn from(event: ChangeEvent) -> Inbound {
        let coercion = Coercion::Typed;
        let origin = Origin::Webhook;
        let (version, clock, delivery) = (None, None, None);
        Inbound { event, version, clock, partial: false, delivery, origin, coercion, in_order: false }
    }
}

/// Clock of events without a clock, if there is no version column.
const EVENTS_CLOCK: &str = "events";

/// Checked upstream event.
#[derive(Debug, Default)]
pub(crate) struct CheckedEvent {
    /// The event for the State, `None` for [`ChangeEvent::Invalidated`].
    pub(crate) event: Option<UpstreamEvent>,
    /// Columns that were dropped from its row.
    pub(crate) dropped: Vec<String>,
}

impl Core {
    pub(crate) async fn ingest(self: &Arc<Self>, handle: &Arc<Handle>, inbound: Inbound) -> Result<Reconciled> {
        let claim = inbound.delivery.as_deref().map(|delivery| delivery_claim(&self.name, delivery));
        if let Some(claim) = &claim {
            let taken = self.claimable(&claim.key).await?;
            if taken.is_some() {
                return Ok(Reconciled::Duplicate);
            }
        }
        if self.callbacks.on_event.is_some() {
            let inbound = match self.checked_inbound(&inbound) {
                Ok(checked) => checked.unwrap_or(inbound),
                Err(error) => return Err(self.refused(&inbound, error).await),
            };
            return self.call_on_event(handle, inbound, claim).await;
        }
        let CheckedEvent { event, dropped } = match self.upstream(&inbound) {
            Ok(checked) => checked,
            Err(error) => return Err(self.refused(&inbound, error).await),
        };
        self.sync.mismatches.note_dropped(inbound.event.id().unwrap_or_default(), &dropped);
        let command = match event {
            Some(event) => Command::Upstream(event),
            None => {
                // A refresh that begins now sees the change. The delivery is claimed after it.
                self.refresh_anew(handle).await?;
                match claim {
                    None => return Ok(Reconciled::Applied),
                    claim => return self.claim_only(claim).await,
                }
            }
        };
        match self.write(command, None, claim, true).await {
            Ok(committed) => Ok(Reconciled::of(&committed.outcome)),
            Err(Error::Replayed { .. }) => Ok(Reconciled::Duplicate),
            Err(error) => Err(error),
        }
    }

    /// Has the row of a refused event read from the master, so that its change is not lost. Returns the error for the sender.
    async fn refused(self: &Arc<Self>, inbound: &Inbound, error: Error) -> Error {
        match self.checked_event(inbound) {
            Ok(_) => error,
            Err(_) => self.doubt([inbound]).await.err().unwrap_or(error),
        }
    }

    /// Runs `on_event`, whose changes are committed separately, then claims the delivery. After a crash in between, the
    /// event is applied again.
    async fn call_on_event(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        inbound: Inbound,
        claim: Option<crate::journal::Claim>,
    ) -> Result<Reconciled> {
        let Some(on_event) = self.callbacks.on_event.clone() else { return Err(Error::Closed) };
        let event = self.full(&inbound);
        let scope = Scope::new(&self.name, Kind::Event);
        let dio = Dio(Arc::clone(handle));
        scope::run(self, Arc::new(scope), scope::calling(dio, move |dio| on_event(dio, event))).await?;
        match claim {
            None => Ok(Reconciled::Applied),
            claim => self.claim_only(claim).await,
        }
    }

    async fn claim_only(self: &Arc<Self>, claim: Option<crate::journal::Claim>) -> Result<Reconciled> {
        match self.write(Command::Invalidate(Vec::new()), None, claim, true).await {
            Ok(_) => Ok(Reconciled::Applied),
            Err(Error::Replayed { .. }) => Ok(Reconciled::Duplicate),
            Err(error) => Err(error),
        }
    }

    /// The event with a whole row: a partial row is merged into the known row.
    fn full(&self, inbound: &Inbound) -> ChangeEvent {
        let merge = |id: &str, new: &Option<Record>| -> Option<Record> {
            let part = new.as_ref()?;
            if !inbound.partial {
                return Some(part.clone());
            }
            let row = self.state().base(id)?.body.decode().ok()?;
            Some(crate::record::merge_patch(row, part, self.vista.schema().layout()))
        };
        match &inbound.event {
            ChangeEvent::Inserted { id, new } => ChangeEvent::Inserted { id: id.clone(), new: merge(id, new) },
            ChangeEvent::Updated { id, new } => ChangeEvent::Updated { id: id.clone(), new: merge(id, new) },
            other => other.clone(),
        }
    }

    /// Checks the event and converts it for the State.
    pub(crate) fn upstream(&self, inbound: &Inbound) -> Result<CheckedEvent> {
        let schema = self.vista.schema();
        let checked = self.checked_event(inbound)?;
        let (id, change) = match (&inbound.event, &checked) {
            (ChangeEvent::Invalidated, _) => return Ok(CheckedEvent::default()),
            (ChangeEvent::Deleted { id }, _) => (id, UpstreamChange::Gone),
            (ChangeEvent::Inserted { id, .. } | ChangeEvent::Updated { id, .. }, None) => (id, UpstreamChange::Thin),
            (ChangeEvent::Inserted { id, .. } | ChangeEvent::Updated { id, .. }, Some(checked)) => {
                let (row, layout) = (&checked.row, schema.layout());
                let body =
                    if inbound.partial { Body::encode_plain(row, layout) } else { Body::encode(id, row, layout) };
                check_size(id, &body)?;
                let change = match (inbound.partial, inbound.in_order) {
                    (false, _) => UpstreamChange::Row(body),
                    (true, false) => UpstreamChange::Part(body),
                    (true, true) => UpstreamChange::Cells(body),
                };
                (id, change)
            }
        };
        let event = UpstreamEvent {
            id: Id::from(&*self.known_id(id)),
            change,
            version: inbound.version.clone().map(|version| EventVersion { clock: self.clock_of(inbound), version }),
            delivery: inbound.delivery.as_deref().map(Arc::from),
            origin: inbound.origin,
            in_order: inbound.in_order,
        };
        Ok(CheckedEvent { event: Some(event), dropped: checked.map(|checked| checked.dropped).unwrap_or_default() })
    }

    /// Clock of an event's version.
    fn clock_of(&self, inbound: &Inbound) -> Arc<str> {
        match &inbound.clock {
            Some(clock) => Arc::clone(clock),
            None if self.settings.version.is_some() => COLUMN_CLOCK.into(),
            None => EVENTS_CLOCK.into(),
        }
    }

    /// Inserts a row under an id that the master chooses. The row is visible when this returns, unless an event of the
    /// master for it came first and it has to be read again.
    pub(crate) async fn insert_at_master(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        record: &Record,
        within: Option<&WriteBounds>,
    ) -> Result<String> {
        let schema = self.vista.schema();
        let mut record = record.clone();
        if let Some(makes) = within.and_then(|within| within.makes.as_ref()) {
            makes.complete(&mut record);
        }
        let check = RowCheck::new(&schema, Shape::Whole).unknown(self.settings.unknown_columns);
        let mut record = check.check(Cow::Owned(record))?.row.into_owned();
        record.remove(schema.id_column());
        within.map_or(Ok(()), |within| within.check_after(&record, false))?;
        let (guard, before) = (self.open_guard().await?, self.state());
        let written = self.vista.shell().insert_return_id(&record).await?;
        let Some(id) = written.id else {
            drop(guard);
            return self.find_inserted(handle, &before, record).await;
        };
        let row = written.record.as_ref().unwrap_or(&record);
        let body = Body::encode(&id, row, self.vista.schema().layout());
        let item = crate::state::ReadRow { id: Id::from(id.as_str()), row: Some(body), ordinal: None };
        self.commit(Command::ReadRows { items: vec![item], mark: guard.mark, notice: Notice::RowEvents }).await?;
        Ok(id)
    }

    /// Finds the id of a row that the master has inserted without returning it: that of the only row with these columns that is
    /// new after a refresh.
    async fn find_inserted(self: &Arc<Self>, handle: &Arc<Handle>, before: &State, record: Record) -> Result<String> {
        let unknown = |why: &str| {
            Error::permanent(format!(
                "the source has inserted the row without returning its id, and {why}: do not repeat the insert"
            ))
        };
        self.refresh_anew(handle).await.map_err(|error| unknown(&format!("the list could not be read ({error})")))?;
        let state = self.state();
        let is_ours =
            |row: &Record| record.iter().all(|(column, value)| row.get(column).unwrap_or(&CborValue::Null) == value);
        let new = state.table().iter_slots().filter(|row| before.get(row.id()).is_none());
        let mut found = new.filter(|row| row.decode().is_ok_and(|row| is_ours(&row)));
        match (found.next(), found.next()) {
            (Some(row), None) => Ok(row.id().to_string()),
            (None, _) => Err(unknown("no new row has its columns")),
            (Some(_), Some(_)) => Err(unknown("several new rows have its columns")),
        }
    }
}
