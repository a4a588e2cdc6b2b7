//! Deliveries of webhooks, received (the inbox) and sent (the outbox): their states, and the choice of deliveries to drop when one is full.
//!
//! A journal stores deliveries beside its logs, in the same append as the changes that they contain, so one commit serves both.
//! Each implementation holds an [`Index`] in memory, which finds deliveries without reading them and chooses the ones to drop:
//! first the oldest that ended well, then the oldest that need attention, never one that is still to be applied or sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::record::Id;

/// Identifier of a delivery: a UUIDv7, so ids sort by the time of receipt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(u128);

impl DeliveryId {
    /// Generates an id.
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

/// State of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Acknowledged and still to be applied.
    Received,
    /// The changes are in the rows, or will be once the rows in doubt have been read from the source.
    Applied,
    /// The delivery had been applied before.
    Duplicate,
    /// The delivery contains nothing for this resource.
    Ignored,
    /// All changes are older than the known rows.
    Stale,
    /// The delivery could not be decoded.
    Undecodable,
    /// The delivery was decoded but could not be applied, or the receiver has refused it too often.
    Failed,
    /// Still to be sent.
    Pending,
    /// The receiver has taken it.
    Delivered,
}

impl DeliveryState {
    /// States of received deliveries.
    pub const RECEIVED: [DeliveryState; 7] = [
        DeliveryState::Received,
        DeliveryState::Applied,
        DeliveryState::Duplicate,
        DeliveryState::Ignored,
        DeliveryState::Stale,
        DeliveryState::Undecodable,
        DeliveryState::Failed,
    ];
    /// States of deliveries to send.
    pub const SENT: [DeliveryState; 3] = [DeliveryState::Pending, DeliveryState::Delivered, DeliveryState::Failed];

    /// Name of the state, as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Received => "received",
            DeliveryState::Applied => "applied",
            DeliveryState::Duplicate => "duplicate",
            DeliveryState::Ignored => "ignored",
            DeliveryState::Stale => "stale",
            DeliveryState::Undecodable => "undecodable",
            DeliveryState::Failed => "failed",
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "delivered",
        }
    }

    /// Returns true if the delivery needs no attention any more.
    pub fn is_fine(self) -> bool {
        !self.is_waiting() && !matches!(self, DeliveryState::Undecodable | DeliveryState::Failed)
    }

    /// Returns true if the delivery is still to be applied or sent.
    fn is_waiting(self) -> bool {
        matches!(self, DeliveryState::Received | DeliveryState::Pending)
    }
}

/// Numbers of changes of a delivery, by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Changes {
    /// Changes in the delivery.
    pub received: u64,
    /// Changes that changed a row.
    pub applied: u64,
    /// Changes without effect, because the rows already had the values.
    pub unchanged: u64,
    /// Changes that will be applied once the rows have been read from the source.
    pub deferred: u64,
    /// Changes older than the known rows.
    pub stale: u64,
    /// Changes that had been applied before.
    pub duplicates: u64,
    /// Changes for other resources.
    pub ignored: u64,
    /// Changes that could not be decoded, while the others were applied.
    pub skipped: u64,
}

/// A delivery without its raw request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Id of the delivery.
    #[serde(skip, default = "DeliveryId::new")]
    pub id: DeliveryId,
    /// Name of the webhook that received it, or of the notification that sends it.
    pub hook: Arc<str>,
    /// Name of the Dio that it is for, or whose event it reports.
    pub dio: Arc<str>,
    /// Id that the sender gave the delivery, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// State of the delivery.
    pub state: DeliveryState,
    /// Results of its changes.
    #[serde(default)]
    pub changes: Changes,
    /// Reason why the delivery could not be decoded, applied or sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Number of attempts to apply or send it.
    #[serde(default)]
    pub attempts: u32,
    /// Unix milliseconds of the receipt, or of the event that it reports.
    pub received: u64,
    /// Unix milliseconds of the last change of state.
    pub updated: u64,
    /// Size in bytes that counts against the limits of the inbox or outbox.
    #[serde(default)]
    pub size: u64,
    /// Present in a delivery to send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<Box<Outgoing>>,
}

/// Part of a delivery that is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Row that it is about. Deliveries of one row are sent in their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row: Option<Id>,
    /// Unix milliseconds of the next attempt, while it is pending.
    #[serde(default)]
    pub due: u64,
}

/// The request as the sender sent it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRequest {
    /// Path and query.
    pub uri: String,
    /// Headers. The values of authentication headers are removed.
    pub headers: Vec<(String, String)>,
    /// Body as received.
    pub body: Bytes,
}

impl RawRequest {
    /// Returns the size in bytes that counts against the limits of the inbox.
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

/// A delivery that an append stores: complete, or an update of a stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDelivery {
    /// State and metadata. One that is only [`DeliveryState::Received`] never replaces a stored one, because it may be late.
    pub delivery: Delivery,
    /// The raw request; `None` if it is already stored.
    pub raw: Option<RawRequest>,
}

/// Filter for deliveries.
#[derive(Clone, Debug, Default)]
pub struct DeliveryQuery {
    /// Only deliveries of this webhook.
    pub hook: Option<String>,
    /// Only deliveries in one of these states; empty for all.
    pub states: Vec<DeliveryState>,
    /// Only deliveries older than this one.
    pub after: Option<DeliveryId>,
    /// Maximum number of deliveries to return.
    pub limit: usize,
    /// True for deliveries to send, false for received ones.
    pub outgoing: bool,
}

/// Limits for stored deliveries and claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Maximum number of deliveries (default: 10,000).
    pub count: usize,
    /// Maximum size of all deliveries in bytes (default: 64 MiB).
    pub bytes: u64,
    /// Maximum age of a delivery (default: 7 days).
    pub age: Duration,
    /// Maximum number of claims (default: 5,000,000): idempotency keys and delivery ids.
    pub claims: usize,
}

impl Default for InboxLimits {
    fn default() -> Self {
        InboxLimits { count: 10_000, bytes: 64 << 20, age: Duration::from_secs(7 * 24 * 3600), claims: 5_000_000 }
    }
}

/// Limits for stored deliveries to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Maximum number of deliveries (default: 10,000).
    pub count: usize,
    /// Maximum size of all deliveries in bytes (default: 64 MiB).
    pub bytes: u64,
    /// Maximum age of a delivery that is not pending (default: 7 days).
    pub age: Duration,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        let InboxLimits { count, bytes, age, .. } = InboxLimits::default();
        OutboxLimits { count, bytes, age }
    }
}

/// Usage of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxUse {
    /// Number of stored deliveries.
    pub count: usize,
    /// Size of stored deliveries in bytes.
    pub bytes: u64,
    /// Number of deliveries that are still to be sent.
    pub pending: usize,
    /// Number of failed deliveries dropped to make room, since the start.
    pub dropped: u64,
    /// True if there is room for one more pending delivery.
    pub room: bool,
}

/// Usage of the inbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboxUse {
    /// Number of stored deliveries.
    pub count: usize,
    /// Size of stored deliveries in bytes.
    pub bytes: u64,
    /// Number of deliveries that are still to be applied.
    pub received: usize,
    /// Number of undecodable or failed deliveries dropped to make room, since the start.
    pub dropped: u64,
    /// True if there is room for one more delivery that is still to be applied.
    pub room: bool,
    /// Number of stored claims, including expired ones until they are swept.
    pub claims: usize,
    /// Maximum number of claims.
    pub claims_limit: usize,
}

/// Pause between two sweeps of a full table of claims, each of which is a transaction.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Maximum number of deliveries that one append drops, so that it does not delay others for long.
const MAX_DROPPED: usize = 256;

/// In-memory index of all deliveries.
#[derive(Debug)]
pub(super) struct Index {
    inbox: Deliveries,
    outbox: Deliveries,
    /// Number of stored claims.
    pub(super) claims: usize,
    /// Maximum number of claims.
    claims_limit: usize,
    /// Time of the last sweep of a full table of claims.
    swept: Option<Instant>,
}

/// Deliveries of one direction.
#[derive(Debug, Default)]
struct Deliveries {
    all: BTreeMap<u128, IndexedDelivery>,
    /// Ids of deliveries that ended well, oldest first. They are dropped first.
    fine: BTreeSet<u128>,
    /// Ids of undecodable and failed deliveries, oldest first. They are dropped after the fine ones.
    bad: BTreeSet<u128>,
    bytes: u64,
    /// Bytes of the deliveries that are still to be applied or sent.
    waiting: u64,
    dropped: u64,
    limits: OutboxLimits,
}

/// Data of a delivery in the index.
#[derive(Debug)]
struct IndexedDelivery {
    hook: Arc<str>,
    state: DeliveryState,
    bytes: u64,
    received: u64,
}

impl Default for Index {
    fn default() -> Index {
        let (inbox, outbox) = Default::default();
        Index { inbox, outbox, claims: 0, claims_limit: InboxLimits::default().claims, swept: None }
    }
}

impl Index {
    /// Creates an empty index with the limits of `other`.
    pub(super) fn within(other: &Index) -> Index {
        let mut index = Index { claims_limit: other.claims_limit, ..Index::default() };
        (index.inbox.limits, index.outbox.limits) = (other.inbox.limits, other.outbox.limits);
        index
    }

    pub(super) fn limit_inbox(&mut self, limits: InboxLimits) {
        let InboxLimits { count, bytes, age, claims } = limits;
        self.inbox.limits = OutboxLimits { count, bytes, age };
        self.claims_limit = claims;
    }

    pub(super) fn limit_outbox(&mut self, limits: OutboxLimits) {
        self.outbox.limits = limits;
    }

    fn of(&self, outgoing: bool) -> &Deliveries {
        if outgoing { &self.outbox } else { &self.inbox }
    }

    /// Adds or updates a stored delivery.
    pub(super) fn put(&mut self, delivery: &Delivery) {
        match delivery.outgoing {
            Some(_) => self.outbox.put(delivery),
            None => self.inbox.put(delivery),
        }
    }

    /// Removes a delivery that was dropped to make room, and counts it if it needed attention.
    pub(super) fn drop_one(&mut self, id: u128) {
        for deliveries in [&mut self.inbox, &mut self.outbox] {
            deliveries.dropped += u64::from(deliveries.bad.contains(&id));
            deliveries.remove(id);
        }
    }

    /// Removes a delivery that is no longer stored.
    pub(super) fn remove(&mut self, id: u128) {
        self.inbox.remove(id);
        self.outbox.remove(id);
    }

    /// Returns true if the delivery should be stored: one that is only received replaces nothing.
    pub(super) fn takes(&self, delivery: &Delivery) -> bool {
        let known = self.inbox.all.contains_key(&delivery.id.as_u128());
        !(known && delivery.state == DeliveryState::Received)
    }

    /// Chooses the deliveries to drop when `coming` are stored at `now` (Unix ms).
    pub(super) fn victims<'a>(&self, coming: &(impl Iterator<Item = &'a Delivery> + Clone), now: u64) -> Vec<u128> {
        let to = |outgoing: bool| coming.clone().filter(move |delivery| delivery.outgoing.is_some() == outgoing);
        let mut victims = self.inbox.victims(&to(false), now);
        victims.extend(self.outbox.victims(&to(true), now));
        victims
    }

    /// Returns the deliveries that match `query`, newest first, and the total number regardless of its `after` and `limit`.
    pub(super) fn find(&self, query: &DeliveryQuery) -> (Vec<DeliveryId>, usize) {
        self.of(query.outgoing).find(query)
    }

    /// Returns true if one more claim may be taken.
    pub(super) fn claim_room(&self) -> bool {
        self.claims < self.claims_limit
    }

    /// Returns true if a full table of claims should be swept now: once per [`SWEEP_EVERY`].
    pub(super) fn may_sweep(&mut self) -> bool {
        let due = self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_EVERY);
        if due {
            self.swept = Some(Instant::now());
        }
        due
    }

    pub(super) fn usage(&self) -> InboxUse {
        let OutboxUse { count, bytes, pending, dropped, room } = self.inbox.usage();
        let (claims, claims_limit) = (self.claims, self.claims_limit);
        InboxUse { count, bytes, received: pending, dropped, room, claims, claims_limit }
    }

    pub(super) fn outbox_usage(&self) -> OutboxUse {
        self.outbox.usage()
    }
}

impl Deliveries {
    fn put(&mut self, delivery: &Delivery) {
        let id = delivery.id.as_u128();
        self.remove(id);
        self.bytes += delivery.size;
        let (hook, state) = (Arc::clone(&delivery.hook), delivery.state);
        match state {
            state if state.is_waiting() => self.waiting += delivery.size,
            state if state.is_fine() => drop(self.fine.insert(id)),
            _ => drop(self.bad.insert(id)),
        }
        self.all.insert(id, IndexedDelivery { hook, state, bytes: delivery.size, received: delivery.received });
    }

    fn remove(&mut self, id: u128) {
        let Some(delivery) = self.all.remove(&id) else { return };
        self.bytes -= delivery.bytes;
        if delivery.state.is_waiting() {
            self.waiting -= delivery.bytes;
        }
        self.fine.remove(&id);
        self.bad.remove(&id);
    }

    fn victims<'a>(&self, coming: &(impl Iterator<Item = &'a Delivery> + Clone), now: u64) -> Vec<u128> {
        if coming.clone().next().is_none() {
            return Vec::new();
        }
        let new = coming.clone().filter(|delivery| !self.all.contains_key(&delivery.id.as_u128()));
        let (mut count, mut bytes) = (self.all.len(), self.bytes);
        for delivery in new {
            count += 1;
            bytes += delivery.size;
        }
        let oldest = now.saturating_sub(u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX));
        let stays = |id: &&u128| !coming.clone().any(|delivery| delivery.id.as_u128() == **id);
        let mut victims = Vec::new();
        for set in [&self.fine, &self.bad] {
            for id in set.iter().filter(stays) {
                let Some(delivery) = self.all.get(id) else { continue };
                let full = count > self.limits.count || bytes > self.limits.bytes;
                if victims.len() == MAX_DROPPED || !full && delivery.received >= oldest {
                    break;
                }
                count -= 1;
                bytes -= delivery.bytes;
                victims.push(*id);
            }
        }
        victims
    }

    fn find(&self, query: &DeliveryQuery) -> (Vec<DeliveryId>, usize) {
        let matches = |delivery: &IndexedDelivery| {
            query.hook.as_deref().is_none_or(|hook| *delivery.hook == *hook)
                && (query.states.is_empty() || query.states.contains(&delivery.state))
        };
        let matching =
            self.all.iter().rev().filter(|(_, delivery)| matches(delivery)).map(|(id, _)| DeliveryId::from_u128(*id));
        let total = matching.clone().count();
        let page = matching.filter(|id| query.after.is_none_or(|after| *id < after)).take(query.limit);
        (page.collect(), total)
    }

    fn usage(&self) -> OutboxUse {
        let pending = self.all.len() - self.fine.len() - self.bad.len();
        OutboxUse {
            count: self.all.len(),
            bytes: self.bytes,
            pending,
            dropped: self.dropped,
            room: pending < self.limits.count && self.waiting < self.limits.bytes,
        }
    }
}
