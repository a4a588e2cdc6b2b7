//! Summary of refused requests, so that a flood of them neither fills the log nor the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::http::budget::Caller;
use diorama_core::journal::{AuditAction, AuditEntry};

/// Time whose refusals are summed up.
const PERIOD: Duration = Duration::from_secs(60);
/// Maximum number of callers with entries of their own in one period. All others share one entry for each action.
const MOST: usize = 32;

/// Caller with its action.
type Key = (AuditAction, Option<Arc<str>>, Caller);

/// Refusals of the current period, by caller: the first of each is an entry, and further ones are counted.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    began: Option<Instant>,
    callers: HashMap<Key, AuditEntry>,
    others: HashMap<AuditAction, u64>,
}

impl Refusals {
    /// Counts a refusal. Returns its entry if it is the first of the caller in this period.
    pub(super) fn add(
        &mut self,
        (action, principal, caller): Key,
        entry: impl FnOnce() -> AuditEntry,
        now: Instant,
    ) -> Option<AuditEntry> {
        self.began.get_or_insert(now);
        let key = (action, principal, caller);
        if let Some(known) = self.callers.get_mut(&key) {
            known.count += 1;
            return None;
        }
        if self.callers.len() >= MOST {
            *self.others.entry(action).or_default() += 1;
            return None;
        }
        let entry = entry();
        let summary = AuditEntry { request: None, resource: None, count: 0, ..entry.clone() };
        self.callers.insert(key, summary);
        Some(entry)
    }

    /// Returns the end of the current period.
    pub(super) fn end(&self) -> Option<Instant> {
        self.began.map(|began| began + PERIOD)
    }

    /// Ends the period if its time is over, or in any case with `stopping`. Returns the entries with the numbers of further refusals.
    pub(super) fn summaries(&mut self, now: Instant, stopping: bool, time: u64) -> Vec<AuditEntry> {
        if self.end().is_none_or(|end| now < end) && !stopping {
            return Vec::new();
        }
        let Refusals { callers, others, .. } = std::mem::take(self);
        let own = callers.into_values().filter(|entry| entry.count > 0).map(|entry| AuditEntry { time, ..entry });
        let others = others.into_iter().map(|(action, count)| AuditEntry { count, ..AuditEntry::new(action, time) });
        own.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(number: u32) -> Caller {
        Caller::new(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn a_flood_from_any_number_of_addresses_makes_few_entries_which_count_all_of_it() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let key = |from| (AuditAction::RefusedAuthentication, None, caller(from));
        let entry = || AuditEntry::new(AuditAction::RefusedAuthentication, 1);
        let mut stored = Vec::new();
        for at in 0..10_000 {
            stored.extend(refusals.add(key(at % 500), entry, now + PERIOD / 2));
        }
        assert!(refusals.summaries(now + PERIOD, false, 2).is_empty(), "the period is not over");
        assert_eq!(stored.len(), MOST);
        let summaries = refusals.summaries(now + PERIOD * 2, false, 2);
        assert_eq!(summaries.len(), MOST + 1);
        stored.extend(summaries);
        assert_eq!(stored.iter().map(|entry| entry.count).sum::<u64>(), 10_000);
        assert!(refusals.add(key(1), entry, now + PERIOD * 2).is_some(), "a new period");
        assert!(refusals.summaries(now + PERIOD * 2, true, 3).is_empty(), "there was no further one");
        assert_eq!(refusals.end(), None);
    }
}
