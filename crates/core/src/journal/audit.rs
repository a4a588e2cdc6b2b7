//! The audit log: who did what to the server, in the order in which it happened.
//!
//! Entries have consecutive numbers and are never changed. Only the oldest are dropped, within [`AuditLimits`]; the last of them is then
//! replaced by an entry that says so ([`AuditAction::Dropped`]). So the log is complete from its first entry on.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Seq;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// Kind of an entry. The words are part of the stored format and of the API, and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum AuditAction {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl AuditAction {
            /// All actions.
            pub const ALL: &[AuditAction] = &[$(AuditAction::$name,)*];

            /// Word of the action.
            pub fn as_str(self) -> &'static str {
                match self { $(AuditAction::$name => $word,)* }
            }
        }
    };
}

actions! {
    /// The server has started.
    ServerStarted = "server-started";
    /// The server stops in order.
    ServerStopped = "server-stopped";
    /// Requests were refused because their credentials are missing or wrong.
    RefusedAuthentication = "refused-authentication";
    /// Requests were refused because the caller may not do that.
    RefusedAccess = "refused-access";
    /// Rows are erased.
    Purge = "purge";
    /// A backup is made.
    Backup = "backup";
    /// A resource is read from its source.
    Refresh = "refresh";
    /// A parked write is retried.
    Retry = "retry";
    /// A parked write is discarded.
    Discard = "discard";
    /// A webhook delivery is applied or sent again.
    Replay = "replay";
    /// A notification whose receiver was gone is sent again.
    EnableNotification = "enable-notification";
    /// Keys, rules, limits or certificates were read again and are in effect.
    PolicyReloaded = "policy-reloaded";
    /// A changed configuration was refused, and the earlier one stays in effect.
    ConfigurationRefused = "configuration-refused";
    /// Older entries were dropped.
    Dropped = "dropped";
}

impl fmt::Display for AuditAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry of the audit log. It has no bodies, no credentials, no URLs, and no ids of rows in clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Number of the entry, given by the journal.
    #[serde(skip)]
    pub seq: Seq,
    /// Unix milliseconds.
    pub time: u64,
    /// Kind of the entry.
    pub action: AuditAction,
    /// Name of the principal; `None` for an anonymous caller and for the server itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Role of the principal; `None` for the server itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Address of the caller, of an IPv6 address its /64 network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Id of the request. Entries of one action have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Name of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Target within the resource: ids of operations or deliveries, or hashes of the ids of rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `started`, then the status of the answer; for refusals and failures the code of the problem.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// Number of events that the entry stands for.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_one(count: &u64) -> bool {
    *count == 1
}

impl AuditEntry {
    /// Creates an entry of the server itself at `time`, in Unix milliseconds.
    pub fn new(action: AuditAction, time: u64) -> AuditEntry {
        AuditEntry {
            seq: 0,
            time,
            action,
            principal: None,
            role: None,
            address: None,
            request: None,
            resource: None,
            target: None,
            outcome: String::new(),
            count: 1,
        }
    }
}

/// Bounds of the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLimits {
    /// Maximum age of an entry (default: 90 days).
    pub keep: Duration,
    /// Maximum size of all entries in bytes (default: 64 MiB).
    pub bytes: u64,
}

impl Default for AuditLimits {
    fn default() -> AuditLimits {
        AuditLimits { keep: Duration::from_secs(90 * 86_400), bytes: 64 << 20 }
    }
}

/// Size of the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditUse {
    /// Number of entries.
    pub entries: u64,
    /// Size of all entries in bytes.
    pub bytes: u64,
    /// Number of the newest entry; 0 in an empty log.
    pub newest: Seq,
    /// Number of entries that were dropped so far.
    pub dropped: u64,
}

impl AuditUse {
    /// Counts a stored entry of `bytes` bytes.
    pub(super) fn add(&mut self, entry: &AuditEntry, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64;
        self.newest = self.newest.max(entry.seq);
        if entry.action == AuditAction::Dropped {
            self.dropped = entry.count;
        }
    }

    /// Counts the removal of an entry of `bytes` bytes.
    pub(super) fn remove(&mut self, bytes: usize) {
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// Filter and page of a read of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only entries of these actions; all if it is empty.
    pub actions: Vec<AuditAction>,
    /// Only entries of this principal.
    pub principal: Option<String>,
    /// Only entries about this resource.
    pub resource: Option<String>,
    /// Only entries of this time and later, in Unix milliseconds.
    pub since: Option<u64>,
    /// Only entries that follow this one in the order of the read.
    pub after: Option<Seq>,
    /// True to read the oldest entries first, in place of the newest.
    pub oldest_first: bool,
    /// Maximum number of entries.
    pub limit: usize,
}

impl AuditQuery {
    /// Returns the range of numbers to read.
    pub(super) fn range(&self) -> std::ops::Range<Seq> {
        match (self.after, self.oldest_first) {
            (None, _) => 0..Seq::MAX,
            (Some(after), true) => after.saturating_add(1)..Seq::MAX,
            (Some(after), false) => 0..after,
        }
    }

    pub(super) fn matches(&self, entry: &AuditEntry) -> bool {
        let is = |wanted: &Option<String>, own: &Option<String>| wanted.is_none() || wanted == own;
        (self.actions.is_empty() || self.actions.contains(&entry.action))
            && is(&self.principal, &entry.principal)
            && is(&self.resource, &entry.resource)
            && self.since.is_none_or(|since| entry.time >= since)
    }
}

/// Entries to drop, and the entry that takes the place of the last one.
#[derive(Debug)]
pub(super) struct Surplus {
    /// Numbers and sizes of the entries, oldest first.
    pub(super) drop: Vec<(Seq, usize)>,
    pub(super) marker: AuditEntry,
}

/// Chooses the entries that exceed `limits` among `oldest`, the entries from the oldest on with their sizes. The newest entry stays.
///
/// Beyond the maximum size an eighth of it is made room, so that not every append drops entries.
pub(super) fn surplus<E>(
    oldest: impl Iterator<Item = Result<(AuditEntry, usize), E>>,
    size: AuditUse,
    limits: AuditLimits,
    now: u64,
) -> Result<Option<Surplus>, E> {
    let eighth = if size.bytes > limits.bytes { limits.bytes / 8 } else { 0 };
    let expired = now.saturating_sub(u64::try_from(limits.keep.as_millis()).unwrap_or(u64::MAX));
    let (mut bytes, mut drop, mut last) = (size.bytes, Vec::new(), None);
    for stored in oldest {
        let (entry, length) = stored?;
        let marker = entry.action == AuditAction::Dropped;
        let surplus = bytes > limits.bytes - eighth || entry.time < expired;
        if entry.seq >= size.newest || !marker && !surplus {
            break;
        }
        bytes = bytes.saturating_sub(length as u64);
        drop.push((entry.seq, length));
        if !marker {
            last = Some(entry);
        }
    }
    // Numbers are consecutive, so the number of the last one is how many there were.
    let marker = |last: AuditEntry| AuditEntry {
        seq: last.seq,
        count: last.seq,
        ..AuditEntry::new(AuditAction::Dropped, last.time)
    };
    Ok(last.map(|last| Surplus { drop, marker: marker(last) }))
}

/// The audit log of a journal in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryAudit {
    entries: BTreeMap<Seq, AuditEntry>,
    size: AuditUse,
}

/// Size of an entry in memory for the limits: about that of its stored form.
fn length(entry: &AuditEntry) -> usize {
    serde_json::to_vec(entry).map_or(0, |bytes| bytes.len())
}

impl MemoryAudit {
    pub(super) fn append(&mut self, entries: Vec<AuditEntry>, limits: AuditLimits, now: u64) -> Seq {
        for entry in entries {
            self.put(AuditEntry { seq: self.size.newest + 1, ..entry });
        }
        let oldest =
            self.entries.values().map(|entry| Ok::<_, std::convert::Infallible>((entry.clone(), length(entry))));
        let Ok(surplus) = surplus(oldest, self.size, limits, now);
        if let Some(surplus) = surplus {
            for (seq, bytes) in surplus.drop {
                self.entries.remove(&seq);
                self.size.remove(bytes);
            }
            self.put(surplus.marker);
        }
        self.size.newest
    }

    fn put(&mut self, entry: AuditEntry) {
        self.size.add(&entry, length(&entry));
        self.entries.insert(entry.seq, entry);
    }

    pub(super) fn read(&self, query: &AuditQuery) -> Vec<AuditEntry> {
        let range = self.entries.range(query.range()).map(|(_, entry)| entry).filter(|entry| query.matches(entry));
        match query.oldest_first {
            true => range.take(query.limit).cloned().collect(),
            false => range.rev().take(query.limit).cloned().collect(),
        }
    }

    pub(super) fn size(&self) -> AuditUse {
        self.size
    }
}
