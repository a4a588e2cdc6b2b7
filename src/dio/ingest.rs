//! Upstream events: from `handle_event` to the reconcile rules, or through the program's own `on_event`.

use std::sync::Arc;

use super::core::Core;
use super::hooks::{self, Kind, Scope};
use super::write::delivery_claim;
use super::{Dio, Handle};
use crate::hot::{Cmd, Origin, Upstream, UpstreamChange, check_size};
use crate::record::{Body, CborValue, Id, Record};
use crate::vista::{ChangeEvent, Error, Result};

/// A [`ChangeEvent`] with what its sender said beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Inbound {
    /// The event.
    pub event: ChangeEvent,
    /// The row's version after the change.
    pub version: Option<CborValue>,
    /// Whether `new` holds only some columns, to be merged into the known row.
    pub partial: bool,
    /// The sender's id of the delivery: a second one with the same id has no effect.
    pub delivery: Option<String>,
    /// Through what it came.
    pub origin: Origin,
}

impl From<ChangeEvent> for Inbound {
    fn from(event: ChangeEvent) -> Inbound {
        Inbound { event, version: None, partial: false, delivery: None, origin: Origin::Webhook }
    }
}

/// What an upstream event came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reconciled {
    /// It changed something (or the program's `on_event` took it).
    Applied,
    /// Everything was so already.
    Unchanged,
    /// It will be, once the row was read from the master.
    Deferred,
    /// It was older than what is known.
    Stale,
    /// The same delivery was applied before.
    Duplicate,
}

impl Core {
    pub(super) async fn ingest(self: &Arc<Self>, handle: &Arc<Handle>, inbound: Inbound) -> Result<Reconciled> {
        let claim = inbound.delivery.as_deref().map(|delivery| delivery_claim(&self.name, delivery));
        if let Some(claim) = &claim {
            let taken = self.claimed(&claim.key).await?;
            if taken.is_some() {
                return Ok(Reconciled::Duplicate);
            }
        }
        if self.hooks.on_event.is_some() {
            return self.ask_program(handle, inbound, claim).await;
        }
        let cmd = match self.upstream(&inbound)? {
            Some(event) => Cmd::Upstream(event),
            None => {
                // Whatever changed, a refresh that begins now finds it; the delivery is remembered once it has.
                self.refresh_anew(handle).await?;
                match claim {
                    None => return Ok(Reconciled::Applied),
                    claim => return self.claim_only(claim).await,
                }
            }
        };
        match self.write(cmd, None, claim, true).await {
            Ok(committed) => Ok(Reconciled::of(&committed.outcome)),
            Err(Error::Replayed { .. }) => Ok(Reconciled::Duplicate),
            Err(error) => Err(error),
        }
    }

    /// Runs `on_event`, whose changes commit by themselves; then the delivery is remembered (at least once over a crash).
    async fn ask_program(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        inbound: Inbound,
        claim: Option<crate::journal::Claim>,
    ) -> Result<Reconciled> {
        let Some(on_event) = self.hooks.on_event.clone() else { return Err(Error::Closed) };
        let event = self.full(&inbound);
        let scope = Scope::new(&self.name, Kind::Event);
        let dio = Dio(Arc::clone(handle));
        hooks::run(self, Arc::new(scope), hooks::calling(dio, move |dio| on_event(dio, event))).await?;
        match claim {
            None => Ok(Reconciled::Applied),
            claim => self.claim_only(claim).await,
        }
    }

    async fn claim_only(self: &Arc<Self>, claim: Option<crate::journal::Claim>) -> Result<Reconciled> {
        match self.write(Cmd::Invalidate(Vec::new()), None, claim, true).await {
            Ok(_) => Ok(Reconciled::Applied),
            Err(Error::Replayed { .. }) => Ok(Reconciled::Duplicate),
            Err(error) => Err(error),
        }
    }

    /// The event with a whole row: partial ones are merged into what is known before the program sees them.
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

    /// The event as the State takes it, `None` for one about everything.
    pub(super) fn upstream(&self, inbound: &Inbound) -> Result<Option<Upstream>> {
        let schema = self.vista.schema();
        let layout = schema.layout();
        let (id, change) = match &inbound.event {
            ChangeEvent::Invalidated => return Ok(None),
            ChangeEvent::Deleted { id } => (id, UpstreamChange::Gone),
            ChangeEvent::Inserted { id, new: None } | ChangeEvent::Updated { id, new: None } => {
                (id, UpstreamChange::Thin)
            }
            ChangeEvent::Inserted { id, new: Some(row) } | ChangeEvent::Updated { id, new: Some(row) } => {
                self.check_id(id, row)?;
                let change = match inbound.partial {
                    true => UpstreamChange::Part(Body::encode_plain(row, layout)),
                    false => UpstreamChange::Row(Body::encode(id, row, layout)),
                };
                if let UpstreamChange::Row(body) | UpstreamChange::Part(body) = &change {
                    check_size(id, body)?;
                }
                (id, change)
            }
        };
        Ok(Some(Upstream {
            id: Id::from(id.as_str()),
            change,
            version: inbound.version.clone(),
            delivery: inbound.delivery.as_deref().map(Arc::from),
            origin: inbound.origin,
        }))
    }

    /// A row that the master made itself, at the program's request: visible when this returns, unless the master's own news of
    /// it came first and it has to be asked for.
    pub(super) async fn insert_at_master(self: &Arc<Self>, record: &Record) -> Result<String> {
        let guard = self.open_guard().await?;
        let written = self.vista.shell().insert_return_id(record).await?;
        let id = written.id.ok_or_else(|| Error::permanent("the source did not say which id it chose"))?;
        let row = written.record.as_ref().unwrap_or(record);
        let body = Body::encode(&id, row, self.vista.schema().layout());
        let item = crate::hot::Item { id: Id::from(id.as_str()), row: Some(body), ordinal: None };
        self.commit(Cmd::News { items: vec![item], mark: guard.mark, told: true }).await?;
        Ok(id)
    }
}
