//! Deliveries of webhooks and feeds: their changes, the sender's ids of them and the delivery itself in one append.
//!
//! A delivery of more than [`CHUNK`] changes is several appends, the last of which has the ids: after a crash between them it
//! comes again and is applied again, which changes nothing that is so already. With a program's `on_event`, which commits by
//! itself, the ids follow each change.
//!
//! A delivery without an id is known by its bytes, for a while. The same bytes may be another delivery (a price goes to 5, to 6,
//! to 5), so they are a repetition only while everything that they say is still so and nothing is under way that could change
//! it: what is left out then could have changed nothing. What has the source read again is never left out.

use std::sync::Arc;

use super::check::check_key;
use super::ingest::{CheckedEvent, Inbound};
use crate::dio::clock::now;
use crate::dio::commit::reconciled::{Reconciled, concluded};
use crate::dio::commit::write::{delivery_claim, same_claim};
use crate::dio::core::Core;
use crate::dio::handle::{Dio, Handle};
use crate::dio::submission::{CommitOutcome, Submission};
use crate::journal::{
    Claim, Delivery, DeliveryId, DeliveryQuery, DeliveryState, InboxUse, JournalError, RawRequest, StoredDelivery,
};
use crate::record::Id;
use crate::state::{Command, UpstreamChange, UpstreamEvent};
use crate::vista::{Error, Result};

/// Changes of one append.
const CHUNK: usize = 256;
/// How often a delivery is judged anew because the same one came through another door meanwhile.
const ROUNDS: usize = 8;

/// A delivery on its way to the rows.
#[derive(Clone, Debug)]
pub struct DeliveryBatch {
    /// What is known of it, with the changes that were left out when it was decoded (ignored, skipped).
    pub delivery: Delivery,
    /// What was sent, if the delivery is to be kept and is not yet.
    pub raw: Option<RawRequest>,
    /// What it says, in order.
    pub changes: Vec<Inbound>,
    /// Whether one change that does not fit keeps the others from being applied.
    pub abort: bool,
    /// Whether it is applied even if it was before.
    pub again: bool,
    /// A hash of what was sent and what it means, if the sender gave it no id.
    pub same: Option<String>,
}

impl Core {
    /// Applies a delivery: durable and visible when this returns.
    async fn deliver(self: &Arc<Self>, handle: &Arc<Handle>, parcel: &DeliveryBatch) -> Result<Delivery> {
        for _ in 0..ROUNDS {
            match self.deliver_once(handle, parcel).await {
                // Somebody else has just taken an id of it: judged again, that is seen beforehand.
                Err(Error::Replayed { .. }) => {}
                done => return done,
            }
        }
        Err(Error::QueueFull)
    }

    async fn deliver_once(self: &Arc<Self>, handle: &Arc<Handle>, parcel: &DeliveryBatch) -> Result<Delivery> {
        let mut delivery = Delivery {
            state: DeliveryState::Applied,
            attempts: parcel.delivery.attempts.saturating_add(1),
            updated: now(),
            ..parcel.delivery.clone()
        };
        delivery.changes.received += parcel.changes.len() as u64;
        let mut claims = Vec::new();
        if let Some(key) = &delivery.key {
            let claim = delivery_claim(&self.name, &format!("{}:{key}", delivery.hook));
            match self.claimable(&claim.key).await? {
                Some(_) if !parcel.again => {
                    delivery.changes.duplicates = delivery.changes.received;
                    delivery.state = DeliveryState::Duplicate;
                    return self.keep_later(delivery, parcel.raw.clone());
                }
                Some(_) => {}
                None => claims.push(claim),
            }
        }
        if let Some(same) = parcel.same.as_ref().filter(|_| !parcel.again && !parcel.changes.is_empty()) {
            let claim = same_claim(&self.name, &delivery.hook, same);
            match self.claimable(&claim.key).await? {
                Some(_) if self.says_nothing_new(&parcel.changes) => {
                    delivery.changes.duplicates = delivery.changes.received;
                    delivery.state = DeliveryState::Duplicate;
                    delivery.detail = Some("the same bytes came before, and all that they say is still so".into());
                    return self.keep_later(delivery, parcel.raw.clone());
                }
                Some(_) => {}
                None => claims.push(claim),
            }
        }
        match self.hooks.on_event {
            Some(_) => {
                let alone = parcel.abort || parcel.changes.len() == 1;
                let mut wrong = parcel.changes.iter().filter_map(|change| self.checked_event(change).err());
                if let Some(error) = wrong.next().filter(|_| alone) {
                    return self.refuse(parcel, delivery, &error).await;
                }
                self.tell_program(handle, parcel, &mut delivery).await?;
            }
            None => return self.by_rules(handle, parcel, delivery, claims).await,
        }
        self.conclude(Vec::new(), claims, delivery, parcel.raw.clone()).await
    }

    /// Whether all of this is known.
    fn says_nothing_new(&self, changes: &[Inbound]) -> bool {
        let state = self.state();
        let known = |change| match self.upstream(change) {
            Ok(CheckedEvent { event: Some(event), .. }) => state.says_nothing_new(&event),
            Ok(_) | Err(_) => false,
        };
        changes.iter().all(known)
    }

    /// Applies the changes as the rules say, the last of them together with everything that is to be remembered.
    async fn by_rules(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        parcel: &DeliveryBatch,
        mut delivery: Delivery,
        mut claims: Vec<Claim>,
    ) -> Result<Delivery> {
        let (mut commands, mut anew) = (Vec::with_capacity(parcel.changes.len()), false);
        let (mut doubted, mut dropped) = (Vec::new(), Vec::new());
        for inbound in &parcel.changes {
            let own = self.own_claim(&delivery, inbound.delivery.as_deref());
            if let Some(own) = &own {
                let twice = claims.iter().any(|claim| claim.key == own.key);
                if twice || !parcel.again && self.claimable(&own.key).await?.is_some() {
                    delivery.changes.duplicates += 1;
                    continue;
                }
            }
            match self.upstream(inbound) {
                Ok(heard) => {
                    dropped.extend((!heard.dropped.is_empty()).then_some((inbound, heard.dropped)));
                    match heard.event {
                        Some(event) => commands.push(Command::Upstream(event)),
                        None => anew = true,
                    }
                }
                Err(error) if parcel.abort || parcel.changes.len() == 1 => {
                    return self.refuse(parcel, delivery, &error).await;
                }
                Err(error) => {
                    doubted.extend(self.checked_event(inbound).is_err().then_some(inbound));
                    delivery.changes.skipped += 1;
                    delivery.detail.get_or_insert_with(|| error.to_string());
                    continue;
                }
            }
            claims.extend(own.filter(|_| !parcel.again));
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
        if anew {
            // Whatever changed, a refresh that begins now finds it, once for all that is said so.
            self.refresh_anew(handle).await?;
            delivery.changes.applied += 1;
        }
        self.conclude(last, claims, delivery, parcel.raw.clone()).await
    }

    /// Has the rows of these events read from the master: what was refused of them is not lost.
    pub(crate) async fn doubt<'i>(self: &Arc<Self>, refused: impl IntoIterator<Item = &'i Inbound>) -> Result<()> {
        let thin = |inbound: &Inbound| {
            let id = Id::from(inbound.event.id().filter(|id| check_key(id).is_ok())?);
            let delivery = inbound.delivery.as_deref().map(Arc::from);
            let (change, origin) = (UpstreamChange::Thin, inbound.origin);
            Some(Command::Upstream(UpstreamEvent { id, change, version: None, delivery, origin }))
        };
        let commands: Vec<Command> = refused.into_iter().filter_map(thin).collect();
        for commands in commands.chunks(CHUNK) {
            self.send(Submission::all(self, commands.to_vec())).await?;
        }
        Ok(())
    }

    /// A delivery of which nothing is applied. Its rows are read from the master, so that what it says is not lost. Nothing is
    /// stored yet: who asked says whether it is to be.
    async fn refuse(
        self: &Arc<Self>,
        parcel: &DeliveryBatch,
        mut delivery: Delivery,
        error: &Error,
    ) -> Result<Delivery> {
        if parcel.changes.iter().any(|inbound| self.checked_event(inbound).is_err()) {
            self.doubt(&parcel.changes).await?;
        }
        delivery.state = DeliveryState::Undecodable;
        delivery.detail = Some(error.to_string());
        Ok(delivery)
    }

    /// Gives the changes to `on_event`, one after the other; each is remembered, so that a repetition goes on behind it.
    async fn tell_program(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        parcel: &DeliveryBatch,
        delivery: &mut Delivery,
    ) -> Result<()> {
        let several = parcel.changes.len() > 1;
        for (at, inbound) in parcel.changes.iter().enumerate() {
            if let Err(error) = self.checked_event(inbound) {
                self.doubt([inbound]).await?;
                delivery.changes.skipped += 1;
                delivery.detail.get_or_insert_with(|| error.to_string());
                continue;
            }
            let part = delivery.key.as_ref().filter(|_| several).map(|key| format!("{key}#{at}"));
            let own = inbound.delivery.clone().or(part).filter(|_| !parcel.again);
            let own = own.map(|own| format!("{}:{own}", delivery.hook));
            let done = self.ingest(handle, Inbound { delivery: own, ..inbound.clone() }).await?;
            delivery.changes.count(done);
        }
        delivery.state = delivery.changes.state();
        Ok(())
    }

    fn own_claim(&self, delivery: &Delivery, own: Option<&str>) -> Option<Claim> {
        own.map(|own| delivery_claim(&self.name, &format!("{}:{own}", delivery.hook)))
    }

    async fn conclude(
        self: &Arc<Self>,
        commands: Vec<Command>,
        claims: Vec<Claim>,
        delivery: Delivery,
        raw: Option<RawRequest>,
    ) -> Result<Delivery> {
        let kept = StoredDelivery { delivery, raw };
        if commands.is_empty() && claims.is_empty() {
            // Nothing depends on it: the sender need not wait for the disk.
            return self.keep_later(concluded(&kept, &[]).delivery, kept.raw);
        }
        let mut submission = Submission::all(self, commands);
        submission.claims = claims;
        submission.keep = is_kept(&kept.delivery).then(|| kept.clone());
        let committed = self.send(submission).await?;
        Ok(concluded(&kept, &committed.each).delivery)
    }

    /// Stores a delivery without waiting for it.
    fn keep_later(self: &Arc<Self>, delivery: Delivery, raw: Option<RawRequest>) -> Result<Delivery> {
        if is_kept(&delivery) {
            let mut submission = Submission::all(self, Vec::new());
            submission.keep = Some(StoredDelivery { delivery: delivery.clone(), raw });
            self.committer.send(submission)?;
        }
        Ok(delivery)
    }

    /// Sends a command of somebody who waits for a place.
    async fn send(self: &Arc<Self>, mut submission: Submission) -> Result<CommitOutcome> {
        submission.inbox = Some(self.inbox_place().await?);
        self.answered(submission).await
    }
}

/// Whether deliveries of its kind are kept: those of feeds come too often, and nobody could send them again.
fn is_kept(delivery: &Delivery) -> bool {
    delivery.size > 0
}

impl Dio {
    /// Applies a delivery, the sender's ids of it and what is kept of it in one append; gives what became of it. A delivery that
    /// was applied before has no effect.
    ///
    /// One whose only change does not fit, or one that is to stop the others, is [`DeliveryState::Undecodable`]: nothing is applied
    /// and nothing stored.
    ///
    /// # Errors
    /// What `on_event` or a refresh says; [`Error::Storage`], [`Error::Closed`].
    pub async fn deliver(&self, parcel: &DeliveryBatch) -> Result<Delivery> {
        self.0.core.deliver(&self.0, parcel).await
    }

    /// Stores a delivery, or what has changed of one: durable when this returns.
    ///
    /// # Errors
    /// [`Error::Storage`], [`Error::Closed`].
    pub async fn keep_delivery(&self, kept: StoredDelivery) -> Result<()> {
        let core = &self.0.core;
        let mut submission = Submission::all(core, Vec::new());
        submission.keep = Some(kept);
        core.send(submission).await.map(drop)
    }

    /// [`Dio::keep_delivery`] for those who need not wait.
    pub fn keep_delivery_later(&self, delivery: Delivery, raw: Option<RawRequest>) {
        // A Dio that is gone keeps nothing more.
        let _ = self.0.core.keep_later(delivery, raw);
    }

    /// The deliveries that are kept, of all Dios of the Lens, newest first, and how many fit.
    ///
    /// # Errors
    /// [`Error::Storage`] if they cannot be read.
    pub async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize)> {
        self.read_inbox(self.0.core.journal.deliveries(query).await)
    }

    /// One delivery with what was sent.
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

    /// How full the inbox is, of all Dios of the Lens.
    pub fn inbox(&self) -> InboxUse {
        self.0.core.journal.inbox()
    }

    /// Runs `future` as a task of this Dio, which waits for it when it is closed, no longer than its `drain_timeout`.
    pub fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<Option<T>> {
        let core = &self.0.core;
        let _runtime = self.0.runtime.enter();
        core.tasks.spawn_bounded(core.settings.drain_timeout, future)
    }

    /// Whether what is accepted survives the process.
    pub fn is_durable(&self) -> bool {
        self.0.core.is_durable()
    }

    /// Ends when the Dio begins to close.
    pub async fn closing(&self) {
        self.0.core.tasks.closing().cancelled().await;
    }
}
