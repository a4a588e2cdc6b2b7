//! The audit log in the journal's redb file: one table of entries by number.

use std::collections::BTreeMap;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::file::Inner;
use crate::journal::audit::surplus;
use crate::journal::memory::unix_ms;
use crate::journal::{AuditEntry, AuditLimits, AuditQuery, AuditUse, Seq};
use crate::redb_file::{Fault, RedbFile, seal, unseal};

/// Entries by number. A file of an older program gets the table with the first entry.
pub(super) const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

type AuditTable = redb::ReadOnlyTable<u64, &'static [u8]>;

impl Inner {
    /// Appends entries, and drops the oldest beyond `limits`. Returns the number of the last one.
    ///
    /// No log is changed. So a journal that fails here first is reopened at once, and the next append to a log need not do that.
    pub(super) fn append_audit(&self, entries: Vec<AuditEntry>, limits: AuditLimits) -> Result<Seq, Fault> {
        let mut writer = self.writer.lock();
        let (size, was_broken) = (*self.audit.read(), writer.is_broken());
        let stored = self.transact(&mut writer, |_, transaction| append(transaction, entries, size, limits));
        match stored {
            Ok(size) => {
                *self.audit.write() = size;
                Ok(size.newest)
            }
            Err(fault) => {
                if !was_broken && !matches!(fault, Fault::Closed) {
                    // If this fails too, the next append reports it.
                    let _ = self.reopen_with(&mut writer);
                }
                Err(fault)
            }
        }
    }

    pub(super) fn read_audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, Fault> {
        self.file.with(|database| {
            let Some(table) = open(database)? else { return Ok(Vec::new()) };
            let (mut found, mut range) = (Vec::new(), table.range(query.range())?);
            while found.len() < query.limit
                && let Some(stored) = if query.oldest_first { range.next() } else { range.next_back() }
            {
                let (key, value) = stored?;
                let entry = decode(key.value(), value.value())?;
                if query.matches(&entry) {
                    found.push(entry);
                }
            }
            Ok(found)
        })
    }
}

fn append(
    transaction: &WriteTransaction,
    entries: Vec<AuditEntry>,
    mut size: AuditUse,
    limits: AuditLimits,
) -> Result<AuditUse, Fault> {
    let mut table = transaction.open_table(AUDIT)?;
    let put = |table: &mut redb::Table<'_, u64, &'static [u8]>, entry: &AuditEntry, size: &mut AuditUse| {
        let bytes = encode(entry)?;
        table.insert(entry.seq, bytes.as_slice())?;
        size.add(entry, bytes.len());
        Ok::<_, Fault>(())
    };
    for entry in entries {
        let entry = AuditEntry { seq: size.newest + 1, ..entry };
        put(&mut table, &entry, &mut size)?;
    }
    let oldest = table.iter()?.map(|stored| {
        let (key, value) = stored?;
        Ok::<_, Fault>((decode(key.value(), value.value())?, value.value().len()))
    });
    if let Some(surplus) = surplus(oldest, size, limits, unix_ms())? {
        for (seq, bytes) in surplus.drop {
            table.remove(seq)?;
            size.remove(bytes);
        }
        put(&mut table, &surplus.marker, &mut size)?;
    }
    Ok(size)
}

/// Returns the size of the log in a file.
pub(super) fn load(database: &Database) -> Result<AuditUse, Fault> {
    let mut size = AuditUse::default();
    let Some(table) = open(database)? else { return Ok(size) };
    for stored in table.iter()? {
        let (key, value) = stored?;
        size.add(&decode(key.value(), value.value())?, value.value().len());
    }
    Ok(size)
}

/// Reads the intact entries of a file that may be damaged, oldest first.
pub(in crate::journal) fn rescue(file: &RedbFile) -> Vec<AuditEntry> {
    let mut found = BTreeMap::new();
    let mut read = |backward: bool| {
        file.with(|database| {
            let Some(table) = open(database)? else { return Ok(()) };
            let mut range = table.iter()?;
            while let Some(stored) = if backward { range.next_back() } else { range.next() } {
                let (key, value) = stored?;
                found.extend(decode(key.value(), value.value()).ok().map(|entry| (entry.seq, entry)));
            }
            Ok(())
        })
    };
    // After damage in the middle, the records behind it can still be read backwards.
    if read(false).is_err() {
        let _ = read(true);
    }
    found.into_values().collect()
}

fn open(database: &Database) -> Result<Option<AuditTable>, Fault> {
    match database.begin_read()?.open_table(AUDIT) {
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

fn encode(entry: &AuditEntry) -> Result<Vec<u8>, Fault> {
    let bytes = serde_json::to_vec(entry).map_err(|error| Fault::Io { detail: error.to_string(), full: false })?;
    Ok(seal(salt(entry.seq), &[&bytes]))
}

fn decode(seq: Seq, sealed: &[u8]) -> Result<AuditEntry, Fault> {
    let entry = unseal(salt(seq), sealed).and_then(|bytes| serde_json::from_slice(bytes).ok());
    let entry: AuditEntry = entry.ok_or_else(|| Fault::Corrupt(format!("entry {seq} of the audit log is damaged")))?;
    Ok(AuditEntry { seq, ..entry })
}

/// Reads an entry with a correct seal and arbitrary content, for fuzzing.
#[cfg(any(test, feature = "testing"))]
pub(super) fn decode_stored(content: &[u8]) {
    let _ = decode(7, &seal(salt(7), &[content]));
}

/// Salt of an entry, which differs from the salts of entries of logs.
fn salt(seq: Seq) -> u64 {
    !seq
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::journal::{AuditAction, Fence, Journal as _, LogBatch, LogEntry, RedbJournal};
    use crate::redb_file::disk::{Disk, Failing};

    fn entry() -> AuditEntry {
        AuditEntry { target: Some("op_1".into()), ..AuditEntry::new(AuditAction::Retry, unix_ms()) }
    }

    fn batch(expect: Seq) -> LogBatch {
        let entries = vec![LogEntry { seq: expect + 1, bytes: "e".into() }];
        let (claims, deliveries, marks) = (Vec::new(), Vec::new(), Vec::new());
        LogBatch { log: "a".into(), expect, fence: Fence::LOCAL, entries, claims, deliveries, marks }
    }

    #[tokio::test]
    async fn an_append_that_fails_at_any_disk_operation_is_reported_and_leaves_the_logs_usable() {
        let limits = AuditLimits::default();
        for at in 0.. {
            let disk = Disk::default();
            let journal = RedbJournal::with_backend(disk.factory()).unwrap();
            journal.open("a", "s").await.unwrap();
            journal.append_audit(vec![entry()], limits).await.unwrap();
            let kind = if at % 2 == 0 { ErrorKind::StorageFull } else { ErrorKind::Other };
            disk.set_failing(Failing::Once(disk.operations() + at, kind));
            let appended = journal.append_audit(vec![entry()], limits).await;
            let ended = appended.is_ok();
            disk.set_failing(Failing::Never);
            journal.append(vec![batch(0)]).await.remove(0).unwrap();
            let newest = journal.append_audit(vec![entry()], limits).await.unwrap();
            assert!(newest == 3 || !ended && newest == 2, "operation {at}: {newest}");
            journal.reopen().await.unwrap();
            assert_eq!(journal.audit_use().entries, newest);
            if ended {
                assert!(at > 5, "no operation has failed");
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_failed_append_to_a_log_stays_to_be_read_by_its_writer() {
        let disk = Disk::default();
        let journal = RedbJournal::with_backend(disk.factory()).unwrap();
        journal.open("a", "s").await.unwrap();
        disk.set_failing(Failing::Once(disk.operations() + 1, ErrorKind::Other));
        journal.append(vec![batch(0)]).await.remove(0).unwrap_err();
        disk.set_failing(Failing::Never);
        assert!(journal.append_audit(vec![entry()], AuditLimits::default()).await.is_err());
        assert!(journal.append(vec![batch(0)]).await.remove(0).is_err(), "the writer has not read what is stored");
        journal.reopen().await.unwrap();
        journal.append_audit(vec![entry()], AuditLimits::default()).await.unwrap();
    }
}
