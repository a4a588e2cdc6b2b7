//! Versions of rows by clock, and their comparison with reported rows.
//!
//! The Dio's own clock is its version column, which reads, writes and some senders share. A sender of upstream events may have
//! another clock, such as the time of its delivery: its versions order its own events only, not rows from other
//! sources. A row is stored as it was sent, independent of its sender's version.

use std::cmp::Ordering as Order;
use std::sync::Arc;

use bytes::Bytes;

use super::data::{CacheChange, State};
use super::entry::{Base, COLUMN_CLOCK, Entry, Versions};
use super::reported_row::ReportedRow;
use super::row_versions::{EventVersion, OwnVersion, RowVersions, version_of};
use crate::record::{CborValue, Id};
use crate::vista::query::Key;

/// Maximum number of deleted rows whose versions are remembered.
const MAX_TOMBSTONES: usize = 100_000;

impl State {
    /// Compares the version of a reported row with the known one. `None` if neither is known to be newer and the rules for
    /// masters without versions apply.
    pub(super) fn compare_versions(&self, reported_row: &ReportedRow<'_>) -> Option<Order> {
        let own = self.compare_own(reported_row);
        let Some(version) = reported_row.version.filter(|version| *version.clock != *COLUMN_CLOCK) else { return own };
        let known = self.versions.get(reported_row.id);
        let theirs = known.and_then(|known| compare(&version.version, known.others.by(&version.clock)?));
        // For a row that has changed in another way since, the sender's clock only identifies older versions.
        let is_current = known.is_some_and(|known| known.latest.as_deref() == Some(&*version.clock));
        match (own, theirs) {
            (Some(Order::Less), _) | (_, Some(Order::Less)) => Some(Order::Less),
            (Some(Order::Greater), _) => Some(Order::Greater),
            (_, Some(Order::Greater)) if is_current => Some(Order::Greater),
            (Some(Order::Equal), Some(Order::Equal)) => Some(Order::Equal),
            // Many clocks have a resolution of one second: events of equal version may differ.
            _ => None,
        }
    }

    fn compare_own(&self, reported_row: &ReportedRow<'_>) -> Option<Order> {
        let column = self.rules.version.as_deref()?;
        let incoming = match (reported_row.version.filter(|version| *version.clock == *COLUMN_CLOCK), reported_row.sent)
        {
            (Some(version), _) => version.version.clone(),
            (None, Some(row)) => version_of(row, column)?,
            (None, None) => return None,
        };
        let known = match (self.versions.get(reported_row.id).map(|known| &known.own), self.base(reported_row.id)) {
            (Some(OwnVersion::Unknown), _) => return None,
            (Some(OwnVersion::Stated(version)), _) => version.clone(),
            (None | Some(OwnVersion::InRow), Some(base)) => version_of(&base.body, column)?,
            (None | Some(OwnVersion::InRow), None) => return Some(Order::Greater),
        };
        compare(&incoming, &known)
    }

    /// Returns true if `version` is newer than the confirmed row, by the Dio's own clock.
    pub(super) fn is_newer(&self, id: &Id, version: Option<&CborValue>) -> bool {
        let version = version.map(|version| EventVersion { clock: COLUMN_CLOCK.into(), version: version.clone() });
        let reported_row = ReportedRow { version: version.as_ref(), ..ReportedRow::of(id, None) };
        version.is_some() && self.compare_own(&reported_row) == Some(Order::Greater)
    }

    /// Returns true if only a read can determine the version of the known row.
    pub(super) fn needs_read(&self, id: &Id) -> bool {
        self.versions.get(id).is_some_and(|known| known.own != OwnVersion::InRow)
    }

    /// Returns true if a version is already known or older.
    pub(super) fn has_noted(&self, id: &Id, version: &EventVersion) -> bool {
        let known = self.versions.get(id);
        if *version.clock == *COLUMN_CLOCK {
            let known = known.map(|known| &known.own);
            let column = self.rules.version.as_deref();
            return match known {
                Some(OwnVersion::Unknown) => false,
                Some(OwnVersion::Stated(known)) => *known == version.version,
                None | Some(OwnVersion::InRow) => {
                    let row = self.base(id).zip(column).and_then(|(base, column)| version_of(&base.body, column));
                    row.as_ref() == Some(&version.version)
                }
            };
        }
        let known = known.and_then(|known| compare(&version.version, known.others.by(&version.clock)?));
        known.is_some_and(|order| order != Order::Greater)
    }

    /// Returns the versions to record in an entry: none that the row itself contains.
    pub(super) fn versions_to_note(&self, reported_row: &ReportedRow<'_>) -> Versions {
        let mut versions = Versions::default();
        let Some(version) = reported_row.version else { return versions };
        let in_row =
            || reported_row.row.zip(self.rules.version.as_deref()).and_then(|(row, column)| version_of(row, column));
        if *version.clock != *COLUMN_CLOCK
            || self.rules.version.is_some() && in_row().as_ref() != Some(&version.version)
        {
            versions.set(&version.clock, version.version.clone());
        }
        versions
    }

    /// Records the versions that the confirmed row after `entry` does not contain. Returns the changes for the cache file.
    pub(super) fn note_versions(&mut self, id: &Id, base: &Base, entry: &Entry) -> Vec<CacheChange> {
        let before = self.versions.get(id).cloned();
        self.take_versions(id, base, entry);
        let mut changes = self.forget_oldest();
        if self.versions.get(id) != before.as_ref() {
            changes.push(CacheChange::Versions(Arc::clone(id), self.stored_versions(id)));
        }
        changes
    }

    /// Encodes the known versions of a row for the cache file.
    fn stored_versions(&self, id: &Id) -> Option<Bytes> {
        let mut cbor = Vec::new();
        ciborium::into_writer(self.versions.get(id)?, &mut cbor).ok()?;
        Some(cbor.into())
    }

    /// Encodes the known versions of all rows for the cache file.
    pub(crate) fn all_versions(&self) -> impl Iterator<Item = (Id, Bytes)> + '_ {
        self.versions.keys().filter_map(|id| Some((Arc::clone(id), self.stored_versions(id)?)))
    }

    /// Restores the versions from the cache file. They replace those in entries from before its position, of which some may be
    /// missing. Unreadable versions are unknown: such rows are read again when they are next reported.
    pub(crate) fn restore_versions(&mut self, stored: impl IntoIterator<Item = (Id, Bytes)>) {
        self.versions_kept = true;
        for (id, bytes) in stored {
            let Ok(known) = ciborium::from_reader::<RowVersions, _>(&bytes[..]) else { continue };
            if let Some(since) = known.gone {
                self.tombstones.insert((since, Arc::clone(&id)), ());
            }
            self.versions.insert(id, known);
        }
    }

    fn take_versions(&mut self, id: &Id, base: &Base, entry: &Entry) {
        let gone = match base {
            Base::Gone => true,
            Base::Set { .. } => false,
            Base::Many { .. } => return,
            Base::Keep => return self.note_other_clocks(id, &entry.versions),
        };
        let mut known = self.versions.remove(id).unwrap_or_default();
        if let Some(since) = known.gone.take() {
            self.tombstones.remove(&(since, Arc::clone(id)));
        }
        known.own = match (entry.versions.column(), self.rules.version.as_deref()) {
            (_, None) => OwnVersion::InRow,
            (Some(version), Some(column)) => match base {
                Base::Set { body, .. } if version_of(body, column).as_ref() == Some(version) => OwnVersion::InRow,
                _ => OwnVersion::Stated(version.clone()),
            },
            (None, Some(_)) if gone => OwnVersion::Unknown,
            // For a write's own row, the version is from before the write.
            (None, Some(_)) if entry.cause.op.is_some() => OwnVersion::Unknown,
            (None, Some(_)) => OwnVersion::InRow,
        };
        known.latest = None;
        for (clock, version) in entry.versions.others() {
            known.others.set(clock, version.clone());
            known.latest = Some(Arc::clone(clock));
        }
        if known == RowVersions::default() {
            return;
        }
        if gone {
            known.gone = Some(entry.seq);
            self.tombstones.insert((entry.seq, Arc::clone(id)), ());
        }
        self.versions.insert(Arc::clone(id), known);
    }

    /// Records versions by other clocks for a row that did not change, because it is to be read or was already known.
    fn note_other_clocks(&mut self, id: &Id, version: &Versions) {
        if version.others().next().is_none() {
            return;
        }
        let known = self.versions.entry(Arc::clone(id)).or_default();
        known.latest = None;
        version.others().for_each(|(clock, version)| known.others.set(clock, version.clone()));
        // A read in progress may have seen the earlier row.
        self.touch(id, false);
    }

    fn forget_oldest(&mut self) -> Vec<CacheChange> {
        let mut forgotten = Vec::new();
        while self.tombstones.len() > MAX_TOMBSTONES
            && let Some(((_, oldest), ())) = self.tombstones.get_min().cloned()
        {
            self.versions.remove(&oldest);
            self.tombstones = self.tombstones.without_min().1;
            forgotten.push(CacheChange::Versions(oldest, None));
        }
        forgotten
    }
}

/// Compares two versions; `None` if they are of different kinds.
fn compare(incoming: &CborValue, known: &CborValue) -> Option<Order> {
    comparable(incoming, known).then(|| compare_values(incoming, known))
}

/// Returns true if two versions are of one kind, so that one of them can be newer.
fn comparable(a: &CborValue, b: &CborValue) -> bool {
    let number = |value: &CborValue| matches!(value, CborValue::Integer(_) | CborValue::Float(_));
    std::mem::discriminant(a) == std::mem::discriminant(b) || number(a) && number(b)
}

/// Compares times as instants, regardless of zones and fractions, and all other values in sort order.
fn compare_values(a: &CborValue, b: &CborValue) -> Order {
    let time = |value: &CborValue| value.as_text().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if let (Some(a), Some(b)) = (time(a), time(b)) {
        return a.cmp(&b);
    }
    Key::plain(a).cmp(&Key::plain(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_as_instants() {
        let order = |a: &str, b: &str| compare_values(&a.into(), &b.into());
        assert_eq!(order("2025-06-01T12:00:00Z", "2025-06-01T12:00:00.5Z"), Order::Less);
        assert_eq!(order("2025-06-01T12:00:00-05:00", "2025-06-01T16:00:00Z"), Order::Greater);
        assert_eq!(order("2025-06-01T12:00:00+02:00", "2025-06-01T10:00:00Z"), Order::Equal);
        assert_eq!(order("v10", "v9"), Order::Less);
    }
}
