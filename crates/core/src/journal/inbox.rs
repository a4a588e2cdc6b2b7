//! The inbox: deliveries of webhooks as they were sent, what became of each, and which go when there is no room.
//!
//! A journal stores them beside its logs, in the same append as the changes they brought, so one commit serves both. [`Index`]
//! is what an implementation holds in memory: it finds deliveries without reading them and chooses which are dropped, the
//! oldest that ended well first, then the oldest that a person may have wanted to see, never one that is still to be applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Identifies a delivery; a UUIDv7, so ids sort by the time of receipt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(u128);

impl DeliveryId {
    /// A fresh id.
    #[expect(clippy::new_without_default, reason = "two defaults would not be equal")]
    pub fn new() -> DeliveryId {
        DeliveryId(uuid::Uuid::now_v7().as_u128())
    }

    pub(super) fn from_u128(bits: u128) -> DeliveryId {
        DeliveryId(bits)
    }

    pub(super) fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{:032x}", self.0)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DeliveryId {
    type Err = ();

    fn from_str(text: &str) -> Result<DeliveryId, ()> {
        let digits = text.strip_prefix("dlv_").filter(|digits| digits.len() == 32).ok_or(())?;
        let plain = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(digits, 16).ok().filter(|_| plain).map(DeliveryId).ok_or(())
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Acknowledged, and still to be applied.
    Received,
    /// Its changes are in the rows, or will be once the rows in doubt were read from the source.
    Applied,
    /// It had been applied before.
    Duplicate,
    /// Nothing in it is for this resource.
    Ignored,
    /// All that it says is older than what is known.
    Stale,
    /// It could not be understood.
    Undecodable,
    /// It was understood and could not be applied.
    Failed,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [DeliveryState; 7] = [
        DeliveryState::Received,
        DeliveryState::Applied,
        DeliveryState::Duplicate,
        DeliveryState::Ignored,
        DeliveryState::Stale,
        DeliveryState::Undecodable,
        DeliveryState::Failed,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Received => "received",
            DeliveryState::Applied => "applied",
            DeliveryState::Duplicate => "duplicate",
            DeliveryState::Ignored => "ignored",
            DeliveryState::Stale => "stale",
            DeliveryState::Undecodable => "undecodable",
            DeliveryState::Failed => "failed",
        }
    }

    /// Whether nobody has to look at it any more.
    pub fn is_fine(self) -> bool {
        !matches!(self, DeliveryState::Received | DeliveryState::Undecodable | DeliveryState::Failed)
    }
}

/// How many changes of a delivery had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Changes in the delivery.
    pub received: u64,
    /// They changed something.
    pub applied: u64,
    /// Everything was so already.
    pub unchanged: u64,
    /// They will be applied once the rows were read from the source.
    pub deferred: u64,
    /// They were older than what is known.
    pub stale: u64,
    /// They had been applied before.
    pub duplicates: u64,
    /// They are not for this resource.
    pub ignored: u64,
    /// They could not be understood, and the others were applied.
    pub skipped: u64,
}

/// A delivery without what was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its id.
    #[serde(skip, default = "DeliveryId::new")]
    pub id: DeliveryId,
    /// The webhook it came to.
    pub hook: Arc<str>,
    /// The Dio that it is for.
    pub dio: Arc<str>,
    /// The sender's id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What became of it.
    pub state: DeliveryState,
    /// Of its changes.
    #[serde(default)]
    pub changes: Changes,
    /// Why it could not be understood or applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How often it was applied, or tried to be.
    #[serde(default)]
    pub attempts: u32,
    /// Unix milliseconds of its receipt.
    pub received: u64,
    /// Unix milliseconds of its last change of state.
    pub updated: u64,
    /// Bytes that keeping it takes.
    #[serde(default)]
    pub size: u64,
}

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRequest {
    /// Path and query.
    pub uri: String,
    /// Headers, those that prove who sent it without their values.
    pub headers: Vec<(String, String)>,
    /// The body as received.
    pub body: Bytes,
}

impl RawRequest {
    /// Bytes that keeping it takes.
    pub fn size(&self) -> u64 {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        (self.uri.len() + headers + self.body.len() + 16) as u64
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let head = serde_json::json!([self.uri, self.headers]).to_string();
        let mut bytes = Vec::with_capacity(4 + head.len() + self.body.len());
        bytes.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<RawRequest> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (head, body) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let (uri, headers) = serde_json::from_slice(head).ok()?;
        Some(RawRequest { uri, headers, body: Bytes::copy_from_slice(body) })
    }
}

/// A delivery that an append stores: whole, or what has changed of one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDelivery {
    /// What is known of it. One that is only [`DeliveryState::Received`] replaces nothing: it may be late.
    pub delivery: Delivery,
    /// What was sent; `None` if that is stored already.
    pub raw: Option<RawRequest>,
}

/// Which deliveries are asked for.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Only of this webhook.
    pub hook: Option<String>,
    /// Only in one of these states; empty for all.
    pub states: Vec<DeliveryState>,
    /// Only older than this one.
    pub after: Option<DeliveryId>,
    /// At most so many.
    pub limit: usize,
}

/// How many deliveries and claims are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// At most so many (default: 10,000).
    pub count: usize,
    /// With so many bytes (default: 64 MiB).
    pub bytes: u64,
    /// For so long (default: 7 days).
    pub age: Duration,
    /// Claims that are remembered (default: 5,000,000): idempotency keys and ids of deliveries.
    pub claims: usize,
}

impl Default for InboxLimits {
    fn default() -> Self {
        InboxLimits { count: 10_000, bytes: 64 << 20, age: Duration::from_secs(7 * 24 * 3600), claims: 5_000_000 }
    }
}

/// How full the inbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxUse {
    /// Deliveries kept.
    pub count: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are still to be applied.
    pub received: usize,
    /// Dropped to make room though nobody had seen to them (undecodable, failed), since the start.
    pub dropped: u64,
    /// Whether there is room for one more that is still to be applied.
    pub room: bool,
    /// Claims that are remembered, expired ones included until they are swept.
    pub claims: usize,
    /// How many may be.
    pub claims_limit: usize,
}

/// Pause between two searches of a full table of claims, each of which is a transaction.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Deliveries dropped by one append, at most, so that it does not hold others up for long.
const MOST_DROPPED: usize = 256;

/// What is known of all deliveries without reading them.
#[derive(Debug, Default)]
pub(super) struct Index {
    held: BTreeMap<u128, IndexedDelivery>,
    /// Those that ended well, and those that did not: the order in which they go.
    fine: BTreeSet<u128>,
    bad: BTreeSet<u128>,
    bytes: u64,
    /// Bytes of those that are still to be applied.
    waiting: u64,
    dropped: u64,
    /// Claims that are stored.
    pub(super) claims: usize,
    /// When a full table of claims was last searched for expired ones.
    swept: Option<Instant>,
    pub(super) limits: InboxLimits,
}

#[derive(Debug)]
struct IndexedDelivery {
    hook: Arc<str>,
    state: DeliveryState,
    bytes: u64,
    received: u64,
}

impl Index {
    /// An empty one with these bounds.
    pub(super) fn within(limits: InboxLimits) -> Index {
        Index { limits, ..Index::default() }
    }

    /// Takes note of a delivery that is stored.
    pub(super) fn put(&mut self, delivery: &Delivery) {
        let id = delivery.id.as_u128();
        self.remove(id);
        self.bytes += delivery.size;
        let (hook, state) = (Arc::clone(&delivery.hook), delivery.state);
        match state {
            DeliveryState::Received => self.waiting += delivery.size,
            state if state.is_fine() => drop(self.fine.insert(id)),
            _ => drop(self.bad.insert(id)),
        }
        self.held.insert(id, IndexedDelivery { hook, state, bytes: delivery.size, received: delivery.received });
    }

    /// Takes note that one was dropped to make room.
    pub(super) fn drop_one(&mut self, id: u128) {
        self.dropped += u64::from(self.bad.contains(&id));
        self.remove(id);
    }

    /// Takes note that one is not stored any more.
    pub(super) fn remove(&mut self, id: u128) {
        let Some(held) = self.held.remove(&id) else { return };
        self.bytes -= held.bytes;
        if held.state == DeliveryState::Received {
            self.waiting -= held.bytes;
        }
        self.fine.remove(&id);
        self.bad.remove(&id);
    }

    /// Whether a record is to be stored: one that is only received replaces nothing.
    pub(super) fn takes(&self, delivery: &Delivery) -> bool {
        let known = self.held.contains_key(&delivery.id.as_u128());
        !(known && delivery.state == DeliveryState::Received)
    }

    /// Which deliveries go when `coming` are stored at `now`.
    pub(super) fn victims<'a>(&self, coming: &(impl Iterator<Item = &'a Delivery> + Clone), now: u64) -> Vec<u128> {
        let new = coming.clone().filter(|delivery| !self.held.contains_key(&delivery.id.as_u128()));
        let (mut count, mut bytes) = (self.held.len(), self.bytes);
        for delivery in new {
            count += 1;
            bytes += delivery.size;
        }
        let oldest = now.saturating_sub(u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX));
        let stays = |id: &&u128| !coming.clone().any(|delivery| delivery.id.as_u128() == **id);
        let mut victims = Vec::new();
        for set in [&self.fine, &self.bad] {
            for id in set.iter().filter(stays) {
                let Some(held) = self.held.get(id) else { continue };
                let full = count > self.limits.count || bytes > self.limits.bytes;
                if victims.len() == MOST_DROPPED || !full && held.received >= oldest {
                    break;
                }
                count -= 1;
                bytes -= held.bytes;
                victims.push(*id);
            }
        }
        victims
    }

    /// The deliveries that `query` fits, newest first, and how many fit it whatever its `after` and `limit` say.
    pub(super) fn find(&self, query: &DeliveryQuery) -> (Vec<DeliveryId>, usize) {
        let fits = |held: &IndexedDelivery| {
            query.hook.as_deref().is_none_or(|hook| *held.hook == *hook)
                && (query.states.is_empty() || query.states.contains(&held.state))
        };
        let fitting = self.held.iter().rev().filter(|(_, held)| fits(held)).map(|(id, _)| DeliveryId::from_u128(*id));
        let total = fitting.clone().count();
        let page = fitting.filter(|id| query.after.is_none_or(|after| *id < after)).take(query.limit);
        (page.collect(), total)
    }

    /// Whether one more claim may be taken.
    pub(super) fn claim_room(&self) -> bool {
        self.claims < self.limits.claims
    }

    /// Whether a full table of claims is to be searched for expired ones now: once in [`SWEEP_EVERY`].
    pub(super) fn may_sweep(&mut self) -> bool {
        let due = self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY);
        if due {
            self.swept = Some(Instant::now());
        }
        due
    }

    pub(super) fn usage(&self) -> InboxUse {
        let received = self.held.len() - self.fine.len() - self.bad.len();
        InboxUse {
            count: self.held.len(),
            bytes: self.bytes,
            received,
            dropped: self.dropped,
            room: received < self.limits.count && self.waiting < self.limits.bytes,
            claims: self.claims,
            claims_limit: self.limits.claims,
        }
    }
}
