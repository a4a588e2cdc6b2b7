//! Deliveries of webhooks and feeds: their changes, the sender's ids, the stored delivery and the feed's mark, in one append.
//!
//! A delivery of more than [`CHUNK`] changes takes several appends, the last of which has the ids and the mark. After a
//! crash between them the sender repeats it and it is applied again, which does not change rows that have the values
//! already. With a program's `on_event`, which commits by itself, the ids and the mark follow the changes.
//!
//! A delivery without an id is recognized by its bytes, for a while. The same bytes may be another delivery (a price goes
//! to 5, to 6, to 5). So they count as a duplicate only while all their values are current and no change of them is under
//! way: applying the delivery would have no effect then. A delivery that causes a refresh never counts as a duplicate.

use std::sync::Arc;

use super::check::check_key;
use super::ingest::{CheckedEvent, Inbound};
use crate::dio::clock::now;
use crate::dio::commit::mark::FeedMark;
use crate::dio::commit::reconciled::{Reconciled, concluded};
use crate::dio::commit::write::{delivery_claim, same_claim};
use crate::dio::core::Core;
use crate::dio::handle::{Dio, Handle};
use crate::dio::submission::{CommitOutcome, Submission};
use crate::journal::{
    Claim, Delivery, DeliveryId, DeliveryQuery, DeliveryState, InboxUse, JournalError, RawRequest, StoredDelivery,
};
use crate::record::Id;
use crate::state::{Command, Origin, UpstreamChange, UpstreamEvent};
use crate::vista::{Error, Result};

/// Maximum number of changes in one append.
const CHUNK: usize = 512;
/// Number of attempts to apply a delivery while concurrent ones take its ids.
const ROUNDS: usize = 8;

/// Time for which the id of a feed's message is remembered, in milliseconds. Feeds are frequent, and repeat what was under way when a
/// connection was lost.
const FEED_CLAIM: u64 = 3_600_000;

/// Delivery to apply, with its decoded changes.
#[derive(Clone, Debug)]
pub struct DeliveryBatch {
    /// Metadata, with the numbers of changes that the decoder left out (ignored, skipped).
    pub delivery: Delivery,
    /// The request, if the delivery is to be stored and is not stored yet.
    pub raw: Option<RawRequest>,
    /// The changes, in order.
    pub changes: Vec<Inbound>,
    /// True if one invalid change prevents the others from being applied.
    pub abort: bool,
    /// True if it is applied even if it was applied before.
    pub again: bool,
    /// Hash of the request and its meaning, if the sender gave it no id.
    pub same: Option<String>,
    /// Position that a feed reaches with these changes. It differs from the positions of the feed's other batches.
    pub mark: Option<FeedMark>,
}

impl Core {
    /// Applies a delivery: durable and visible when this returns.
    async fn deliver(self: &Arc<Self>, handle: &Arc<Handle>, batch: &DeliveryBatch) -> Result<Delivery> {
        for _ in 0..ROUNDS {
            match self.deliver_once(handle, batch).await {
                // A concurrent delivery has just taken one of its ids, which the next attempt sees in advance.
                Err(Error::Replayed { .. }) => {}
                done => return done,
            }
        }
        Err(Error::QueueFull)
    }

    async fn deliver_once(self: &Arc<Self>, handle: &Arc<Handle>, batch: &DeliveryBatch) -> Result<Delivery> {
        let mut delivery = Delivery {
            state: DeliveryState::Applied,
            attempts: batch.delivery.attempts.saturating_add(1),
            updated: now(),
            ..batch.delivery.clone()
        };
        delivery.changes.received += batch.changes.len() as u64;
        if let Some(mark) = batch.mark.as_ref().filter(|_| batch.delivery.attempts > 0)
            && self.has_reached(mark).await?
        {
            // The attempt before was stored, although it failed.
            delivery.changes.duplicates = delivery.changes.received;
            delivery.state = DeliveryState::Duplicate;
            return Ok(delivery);
        }
        let mut claims = Vec::new();
        if let Some(key) = &delivery.key {
            let claim = delivery_claim(&self.name, &format!("{}:{key}", delivery.hook));
            match self.claimable(&claim.key).await? {
                Some(_) if !batch.again => {
                    delivery.changes.duplicates = delivery.changes.received;
                    delivery.state = DeliveryState::Duplicate;
                    return self.conclude(Vec::new(), Vec::new(), delivery, batch).await;
                }
                Some(_) => {}
                None => claims.push(claim),
            }
        }
        if let Some(same) = batch.same.as_ref().filter(|_| !batch.again && !batch.changes.is_empty()) {
            let claim = same_claim(&self.name, &delivery.hook, same);
            match self.claimable(&claim.key).await? {
                Some(_) if self.has_no_effect(&batch.changes) => {
                    delivery.changes.duplicates = delivery.changes.received;
                    delivery.state = DeliveryState::Duplicate;
                    delivery.detail = Some("the same bytes came before, and their values are still current".into());
                    return self.conclude(Vec::new(), Vec::new(), delivery, batch).await;
                }
                Some(_) => {}
                None => claims.push(claim),
            }
        }
        match self.callbacks.on_event {
            Some(_) => {
                let alone = batch.abort || batch.changes.len() == 1;
                let mut errors = batch.changes.iter().filter_map(|change| self.checked_event(change).err());
                if let Some(error) = errors.next().filter(|_| alone) {
                    return self.refuse(batch, delivery, &error).await;
                }
                self.run_on_event(handle, batch, &mut delivery).await?;
            }
            None => return self.by_rules(handle, batch, delivery, claims).await,
        }
        self.conclude(Vec::new(), claims, delivery, batch).await
    }

    /// Returns true if applying the changes would have no effect.
    fn has_no_effect(&self, changes: &[Inbound]) -> bool {
        let state = self.state();
        let known = |change| match self.upstream(change) {
            Ok(CheckedEvent { event: Some(event), .. }) => state.is_already_known(&event),
            Ok(_) | Err(_) => false,
        };
        changes.iter().all(known)
    }

    /// Applies the changes by the built-in rules, the last chunk together with the claims, the stored delivery and the mark.
    async fn by_rules(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        batch: &DeliveryBatch,
        mut delivery: Delivery,
        mut claims: Vec<Claim>,
    ) -> Result<Delivery> {
        let (mut commands, mut needs_refresh) = (Vec::with_capacity(batch.changes.len()), false);
        let (mut doubted, mut dropped) = (Vec::new(), Vec::new());
        for inbound in &batch.changes {
            let mut own = self.change_claim(&delivery, inbound.delivery.as_deref());
            if let Some(claim) = &own {
                let twice = claims.iter().any(|other| other.key == claim.key);
                let taken = match twice || batch.again {
                    true => twice,
                    false => match self.claimable(&claim.key).await {
                        // Waiting would hold up all rows of a feed. Without a claim, a repeated change is applied again.
                        Err(Error::ClaimsFull) if !is_kept(&delivery) => {
                            own = None;
                            false
                        }
                        other => other?.is_some(),
                    },
                };
                if taken {
                    delivery.changes.duplicates += 1;
                    continue;
                }
            }
            match self.upstream(inbound) {
                Ok(checked) => {
                    dropped.extend((!checked.dropped.is_empty()).then_some((inbound, checked.dropped)));
                    match checked.event {
                        Some(event) => commands.push(Command::Upstream(event)),
                        None => needs_refresh = true,
                    }
                }
                Err(error) if batch.abort || batch.changes.len() == 1 => {
                    return self.refuse(batch, delivery, &error).await;
                }
                Err(error) => {
                    doubted.extend(self.checked_event(inbound).is_err().then_some(inbound));
                    delivery.changes.skipped += 1;
                    delivery.detail.get_or_insert_with(|| error.to_string());
                    continue;
                }
            }
            claims.extend(own.filter(|_| !batch.again));
        }
        for (inbound, names) in dropped {
            self.sync.mismatches.note_dropped(inbound.event.id().unwrap_or_default(), &names);
        }
        self.doubt(doubted).await?;
        let last = commands.split_off(commands.len().saturating_sub(1) / CHUNK * CHUNK);
        for chunk in commands.chunks(CHUNK) {
            let committed = self.send(Submission::all(self, chunk.to_vec())).await?;
            committed.each.iter().for_each(|outcome| delivery.changes.count(Reconciled::of(outcome)));
        }
        if needs_refresh {
            // One refresh that begins now covers all such changes of the delivery.
            self.refresh_anew(handle).await?;
            delivery.changes.applied += 1;
        }
        self.conclude(last, claims, delivery, batch).await
    }

    /// Has the rows of refused events read from the master, so that their changes are not lost.
    pub(crate) async fn doubt<'i>(self: &Arc<Self>, refused: impl IntoIterator<Item = &'i Inbound>) -> Result<()> {
        let thin_event = |inbound: &Inbound| {
            let id = Id::from(inbound.event.id().filter(|id| check_key(id).is_ok())?);
            Some(thin(id, inbound.delivery.as_deref().map(Arc::from), inbound.origin))
        };
        self.send_in_chunks(&refused.into_iter().filter_map(thin_event).collect::<Vec<_>>()).await
    }

    /// Has rows read from the master that were in doubt before a restart.
    pub(super) async fn doubt_rows(self: &Arc<Self>, ids: Vec<Id>) -> Result<()> {
        self.send_in_chunks(&ids.into_iter().map(|id| thin(id, None, Origin::Feed)).collect::<Vec<_>>()).await
    }

    async fn send_in_chunks(self: &Arc<Self>, commands: &[Command]) -> Result<()> {
        for commands in commands.chunks(CHUNK) {
            self.send(Submission::all(self, commands.to_vec())).await?;
        }
        Ok(())
    }

    /// Refuses a whole delivery. Its rows are read from the master, so that their changes are not lost. Only its mark is
    /// stored: the caller decides on the rest.
    async fn refuse(
        self: &Arc<Self>,
        batch: &DeliveryBatch,
        mut delivery: Delivery,
        error: &Error,
    ) -> Result<Delivery> {
        if batch.changes.iter().any(|inbound| self.checked_event(inbound).is_err()) {
            self.doubt(&batch.changes).await?;
        }
        if batch.mark.is_some() {
            self.send(Submission { mark: batch.mark.clone(), ..Submission::all(self, Vec::new()) }).await?;
        }
        delivery.state = DeliveryState::Undecodable;
        delivery.detail = Some(error.to_string());
        Ok(delivery)
    }

    /// Passes the changes to `on_event` in order. Each is claimed, so that a repeated delivery continues after it.
    async fn run_on_event(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        batch: &DeliveryBatch,
        delivery: &mut Delivery,
    ) -> Result<()> {
        let several = batch.changes.len() > 1;
        for (at, inbound) in batch.changes.iter().enumerate() {
            if let Err(error) = self.checked_event(inbound) {
                self.doubt([inbound]).await?;
                delivery.changes.skipped += 1;
                delivery.detail.get_or_insert_with(|| error.to_string());
                continue;
            }
            let part = delivery.key.as_ref().filter(|_| several).map(|key| format!("{key}#{at}"));
            let own = inbound.delivery.clone().or(part).filter(|_| !batch.again);
            let own = own.map(|own| format!("{}:{own}", delivery.hook));
            let done = self.ingest(handle, Inbound { delivery: own, ..inbound.clone() }).await?;
            delivery.changes.count(done);
        }
        delivery.state = delivery.changes.state();
        Ok(())
    }

    fn change_claim(&self, delivery: &Delivery, own: Option<&str>) -> Option<Claim> {
        let claim = delivery_claim(&self.name, &format!("{}:{}", delivery.hook, own?));
        Some(if is_kept(delivery) { claim } else { Claim { expires: now() + FEED_CLAIM, ..claim } })
    }

    async fn conclude(
        self: &Arc<Self>,
        commands: Vec<Command>,
        claims: Vec<Claim>,
        delivery: Delivery,
        batch: &DeliveryBatch,
    ) -> Result<Delivery> {
        let kept = StoredDelivery { delivery, raw: batch.raw.clone() };
        if commands.is_empty() && claims.is_empty() && batch.mark.is_none() {
            // There is nothing to make durable, so that the sender need not wait for the disk.
            return self.keep_later(concluded(&kept, &[]).delivery, kept.raw);
        }
        let mut submission = Submission::all(self, commands);
        submission.claims = claims;
        submission.mark.clone_from(&batch.mark);
        submission.keep = is_kept(&kept.delivery).then(|| kept.clone());
        let committed = self.send(submission).await?;
        Ok(concluded(&kept, &committed.each).delivery)
    }

    /// Stores a delivery without waiting until it is durable.
    fn keep_later(self: &Arc<Self>, delivery: Delivery, raw: Option<RawRequest>) -> Result<Delivery> {
        if is_kept(&delivery) {
            let mut submission = Submission::all(self, Vec::new());
            submission.keep = Some(StoredDelivery { delivery: delivery.clone(), raw });
            self.committer.send(submission)?;
        }
        Ok(delivery)
    }

    /// Sends a submission; waits for a place in the inbox.
    pub(super) async fn send(self: &Arc<Self>, mut submission: Submission) -> Result<CommitOutcome> {
        submission.inbox = Some(self.inbox_place().await?);
        self.submit_and_wait(submission).await
    }
}

/// Command that has a row read from the master.
fn thin(id: Id, delivery: Option<Arc<str>>, origin: Origin) -> Command {
    Command::Upstream(UpstreamEvent {
        id,
        change: UpstreamChange::Thin,
        version: None,
        delivery,
        origin,
        in_order: false,
    })
}

/// Returns true if deliveries of its kind are stored. Those of feeds (size 0) are not: they are too frequent, and cannot
/// be replayed.
fn is_kept(delivery: &Delivery) -> bool {
    delivery.size > 0
}

impl Dio {
    /// Applies a delivery and stores it, the sender's ids and the feed's mark in one append; returns its outcome.
    ///
    /// A delivery that was applied before has no effect. If its only change is invalid, or one is and `abort` is set, the
    /// outcome is [`DeliveryState::Undecodable`]: nothing is applied, and nothing but the mark stored.
    ///
    /// # Errors
    /// Errors of `on_event` or of a refresh; [`Error::Storage`], [`Error::Closed`].
    pub async fn deliver(&self, batch: &DeliveryBatch) -> Result<Delivery> {
        self.0.core.deliver(&self.0, batch).await
    }

    /// Stores a delivery, or its new state. It is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Closed`].
    pub async fn keep_delivery(&self, kept: StoredDelivery) -> Result<()> {
        let core = &self.0.core;
        let mut submission = Submission::all(core, Vec::new());
        submission.keep = Some(kept);
        core.send(submission).await.map(drop)
    }

    /// [`Dio::keep_delivery`] without waiting until it is durable.
    pub fn keep_delivery_later(&self, delivery: Delivery, raw: Option<RawRequest>) {
        // The only error is a closed Dio, which stores nothing any more.
        let _ = self.0.core.keep_later(delivery, raw);
    }

    /// Stored deliveries of all Dios of the Lens that match `query`, newest first, and the number of all matches.
    ///
    /// # Errors
    /// [`Error::Storage`] if the journal cannot be read.
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize)> {
        self.read_inbox(self.0.core.journal.deliveries(query).await)
    }

    /// One delivery with its request.
    ///
    /// # Errors
    /// As [`Dio::deliveries`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, RawRequest)>> {
        self.read_inbox(self.0.core.journal.delivery(id).await)
    }

    fn read_inbox<T>(&self, read: std::result::Result<T, JournalError>) -> Result<T> {
        let core = &self.0.core;
        Ok(read.inspect_err(|error| core.committer.journal_failed(core, error))?)
    }

    /// Use of the inbox by all Dios of the Lens.
    pub fn inbox(&self) -> InboxUse {
        self.0.core.journal.inbox()
    }

    /// Spawns `future` as a task of this Dio. Closing the Dio waits for it, at most `drain_timeout`.
    pub fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<Option<T>> {
        let core = &self.0.core;
        let _runtime = self.0.runtime.enter();
        core.tasks.spawn_bounded(core.settings.drain_timeout, future)
    }

    /// Returns true if accepted writes survive the process.
    pub fn is_durable(&self) -> bool {
        self.0.core.is_durable()
    }

    /// Waits until the Dio begins to close.
    pub async fn closing(&self) {
        self.0.core.tasks.closing().cancelled().await;
    }
}
