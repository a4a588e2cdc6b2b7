//! Writes of users: from a [`WriteOp`] to an accepted operation.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::dio::clock::now;
use crate::dio::core::Core;
use crate::dio::events::event::Position;
use crate::journal::Claim;
use crate::record::{Body, Id};
use crate::state::{Command, Condition, Effect, NewWrite, OpId, Outcome};
use crate::vista::{Error, Result, Shape, WriteBounds, WriteOp};

/// Time for which an idempotency key is remembered.
const KEY_TTL: Duration = Duration::from_secs(24 * 3600);

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Condition on the row that readers see, checked in commit order.
    pub condition: Condition,
    /// Idempotency key: a request with the same key is accepted only once.
    pub key: Option<IdempotencyKey>,
    /// If true, a write is refused with [`Error::QueueFull`] when the queue is full. Otherwise it waits for a place.
    pub refuse_when_full: bool,
    /// Bounds of the rows and columns that the write may see and make, checked in commit order.
    ///
    /// They are refused with [`WriteOp::DeleteAll`], which is one operation of the source: delete such rows one by one.
    pub within: Option<Arc<WriteBounds>>,
    /// Identity of the caller, stored with the change in the log.
    pub principal: Option<Arc<str>>,
}

/// A client's key for a request, with a fingerprint of that request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key, unique per Dio.
    pub key: String,
    /// Hash of the request. The same key with another fingerprint is refused.
    pub fingerprint: u128,
}

/// An accepted write.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The operation, `None` if the row had these values already.
    pub operation: Option<OpId>,
    /// Position of the write in the Dio's history. Reads at this position and later see it.
    pub position: Position,
    /// True if the write created the row.
    pub created: bool,
}

impl Core {
    /// Accepts `op`: durable and visible when this returns.
    pub(crate) async fn submit(self: &Arc<Self>, op: WriteOp, options: WriteOptions) -> Result<Ticket> {
        self.writable()?;
        let op = match &options.within {
            Some(_) if op == WriteOp::DeleteAll => {
                let what = "delete some of its rows in one operation";
                return Err(Error::Unsupported { vista: Arc::clone(&self.name), what });
            }
            Some(within) => {
                let exists = op.id().is_some_and(|id| self.state().get(&self.known_id(id)).is_some());
                within.completed(op, exists)
            }
            None => op,
        };
        let (id, effect) = self.effect(op)?;
        let operation = OpId::new();
        let claim = options.key.as_ref().map(|key| claim(&self.name, key, operation));
        if let Some(claim) = &claim
            && let Some(by) = self.claimable(&claim.key).await?
        {
            return Err(replayed(Some(claim), &by));
        }
        let size = effect.size() + 128;
        let WriteOptions { condition, within, principal, refuse_when_full, .. } = options;
        let wait = !refuse_when_full;
        let write = NewWrite { condition, within, principal, ..NewWrite::new(operation, id, effect) };
        let committed = self.write(Command::Write(write), Some(size), claim, wait).await?;
        let position = Position { epoch: self.position().epoch, seq: committed.seq };
        Ok(match committed.outcome {
            Outcome::Staged { op, created } => Ticket { operation: Some(op), position, created },
            _ => Ticket { operation: None, position, created: false },
        })
    }

    /// Returns true if a request with this idempotency key was accepted before.
    pub(crate) async fn knows_key(self: &Arc<Self>, key: &str) -> Result<bool> {
        self.claimed(&claim_key(&self.name, key)).await.map(|taken| taken.is_some())
    }

    /// Value of the claim on a key, if there is one. Returns once readers see the effect of whatever took the key, which is in
    /// the journal a moment before. If the journal cannot be read, the committer tests it again.
    pub(crate) async fn claimed(self: &Arc<Self>, key: &str) -> Result<Option<Bytes>> {
        let taken = self.journal.claim(key).await;
        let taken = taken.inspect_err(|error| self.committer.journal_failed(self, error))?;
        if taken.is_some() && self.committer.is_unpublished(key) {
            self.wait_until_published().await?;
        }
        Ok(taken)
    }

    /// [`Core::claimed`] for callers that are about to take the key if it is free.
    ///
    /// # Errors
    /// [`Error::ClaimsFull`] if the key is free and the journal stores no more claims.
    pub(crate) async fn claimable(self: &Arc<Self>, key: &str) -> Result<Option<Bytes>> {
        let taken = self.claimed(key).await?;
        if taken.is_none() {
            let capacity = self.journal.claim_room().await;
            let capacity = capacity.inspect_err(|error| self.committer.journal_failed(self, error))?;
            return if capacity { Ok(None) } else { Err(Error::ClaimsFull) };
        }
        Ok(taken)
    }

    /// Checks and encodes a write, outside of the committer's turn.
    fn effect(&self, op: WriteOp) -> Result<(Option<Id>, Effect)> {
        let schema = self.vista.schema();
        let layout = schema.layout();
        Ok(match op {
            WriteOp::Insert { id, record } => {
                let id = self.known_id(&id);
                let record = self.checked_row(&id, Cow::Owned(record), Shape::Whole)?;
                (Some(Id::from(&*id)), Effect::Insert(Body::encode(&id, &record, layout)))
            }
            WriteOp::Replace { id, record } => {
                let id = self.known_id(&id);
                let record = self.checked_row(&id, Cow::Owned(record), Shape::Whole)?;
                (Some(Id::from(&*id)), Effect::Replace(Body::encode(&id, &record, layout)))
            }
            WriteOp::Patch { id, record } => {
                let id = self.known_id(&id);
                let mut record = self.checked_row(&id, Cow::Owned(record), Shape::Part)?.into_owned();
                record.remove(layout.id_column());
                (Some(Id::from(&*id)), Effect::Patch(Body::encode_plain(&record, layout)))
            }
            WriteOp::Delete { id } => (Some(Id::from(&*self.known_id(&id))), Effect::Delete),
            WriteOp::DeleteAll => (None, Effect::DeleteAll),
        })
    }
}

/// Claim of an idempotency key: the fingerprint and the id of the operation.
fn claim(dio: &str, key: &IdempotencyKey, op: OpId) -> Claim {
    let mut value = Vec::with_capacity(33);
    value.push(b'w');
    value.extend_from_slice(&key.fingerprint.to_be_bytes());
    value.extend_from_slice(&op.as_u128().to_be_bytes());
    let expires = now() + KEY_TTL.as_millis() as u64;
    Claim { key: claim_key(dio, &key.key), value: value.into(), expires }
}

fn claim_key(dio: &str, key: &str) -> String {
    format!("k/{dio}/{key}")
}

/// Claim of a delivery's id.
pub(crate) fn delivery_claim(dio: &str, delivery: &str) -> Claim {
    let expires = now() + 7 * KEY_TTL.as_millis() as u64;
    Claim { key: format!("d/{dio}/{delivery}"), value: Bytes::from_static(b"d"), expires }
}

/// Time for which the bytes of a delivery without an id are remembered: longer than the immediate retries of senders take.
const SAME_TTL: Duration = Duration::from_secs(300);

/// Claim of a delivery without an id, by a hash of the request.
pub(crate) fn same_claim(dio: &str, hook: &str, same: &str) -> Claim {
    let expires = now() + SAME_TTL.as_millis() as u64;
    Claim { key: format!("s/{dio}/{hook}:{same}"), value: Bytes::from_static(b"s"), expires }
}

/// Error of a second request with the same key.
pub(crate) fn replayed(claim: Option<&Claim>, by: &Bytes) -> Error {
    let key = claim.map(|claim| claim.key.rsplit('/').next().unwrap_or_default().to_string()).unwrap_or_default();
    match operation_of(by) {
        Some((fingerprint, _))
            if claim.and_then(|claim| claim.value.get(1..17)).is_some_and(|own| own != fingerprint) =>
        {
            Error::KeyReused { key }
        }
        Some((_, operation)) => Error::Replayed { operation: operation.to_string() },
        None => Error::Replayed { operation: key },
    }
}

/// Fingerprint of the request and operation that the value of a write's claim holds.
fn operation_of(by: &[u8]) -> Option<(&[u8], OpId)> {
    let (Some(b'w'), Some(fingerprint), Some(op)) = (by.first(), by.get(1..17), by.get(17..33)) else { return None };
    Some((fingerprint, OpId::from_u128(u128::from_be_bytes(op.try_into().ok()?))))
}
