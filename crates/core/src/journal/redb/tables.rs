//! Tables of the journal file, and the changes of one append.

use std::collections::HashMap;

use bytes::Bytes;
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use xxhash_rust::xxh3::xxh3_64;

use super::audit::AUDIT;
use super::inbox::{self};
use crate::journal::memory::{check_batch, unix_ms};
use crate::journal::{AppendError, JournalError, LogBatch, LogEntry, LogId, Seq};
use crate::redb_file::{Copy, Fault, Options, seal, unseal};

pub(super) type Entries<'t> = Table<'t, (u32, u64), &'static [u8]>;

pub(super) type Claims<'t> = Table<'t, &'static str, &'static [u8]>;

pub(in crate::journal) const ENTRIES: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("entries");

pub(super) const CLAIMS: TableDefinition<&str, &[u8]> = TableDefinition::new("claims");

pub(super) const MARKS: TableDefinition<&str, &[u8]> = TableDefinition::new("marks");

pub(in crate::journal) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");

/// Format 2 adds entries of format 2 and marks to format 1. Programs that do not know the table `audit` leave it alone.
pub(super) const FORMAT: u32 = 2;

pub(in crate::journal) const OPTIONS: Options =
    Options { format: FORMAT, meta: META, cache_size: 16 << 20, check_integrity: true, tables: copy_tables };

/// Number of claims that one trim checks, so that it does not delay appends for long.
pub(super) const CLAIMS_PER_TRIM: usize = 4096;

/// Exclusive upper bound of the keys that begin with `log/`.
pub(in crate::journal) const LOGS_END: &str = "log0";

pub(super) fn copy_tables(copy: &Copy, from: &ReadTransaction) -> Result<(), Fault> {
    copy.table(from, ENTRIES)?;
    copy.table(from, CLAIMS)?;
    copy.table(from, MARKS)?;
    copy.table(from, inbox::DELIVERIES)?;
    copy.table(from, AUDIT)?;
    copy.table(from, META)
}

pub(super) fn begin(database: &redb::Database) -> Result<WriteTransaction, Fault> {
    let mut transaction = database.begin_write()?;
    // With one phase, a newest commit whose pages are damaged looks like one that a crash interrupted.
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// Stages every acceptable batch and advances its log in `logs`. Returns one result per batch.
pub(super) fn append_all(
    transaction: &WriteTransaction,
    batches: &[LogBatch],
    logs: &mut HashMap<LogId, (u32, Seq)>,
) -> Result<Vec<Result<(), AppendError>>, Fault> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let claiming = batches.iter().any(|batch| !batch.claims.is_empty());
    let mut claims = claiming.then(|| transaction.open_table(CLAIMS)).transpose()?;
    let now = unix_ms();
    let mut answers = Vec::with_capacity(batches.len());
    for batch in batches {
        let refused = refusal(batch, logs, &entries, claims.as_ref(), now)?;
        if refused.is_none() {
            stage(batch, logs, &mut entries, claims.as_mut())?;
            store_marks(transaction, batch)?;
        }
        answers.push(refused.map_or(Ok(()), Err));
    }
    Ok(answers)
}

pub(super) fn refusal(
    batch: &LogBatch,
    logs: &HashMap<LogId, (u32, Seq)>,
    entries: &Entries<'_>,
    claims: Option<&Claims<'_>>,
    now: u64,
) -> Result<Option<AppendError>, Fault> {
    if let Err(error) = check_batch(batch) {
        return Ok(Some(error));
    }
    let Some((id, head)) = logs.get(&batch.log) else {
        return Ok(Some(AppendError::Io(format!("log {:?} is not open: open it first", batch.log))));
    };
    if *head != batch.expect {
        let mut missed = Vec::new();
        for stored in entries.range((*id, batch.expect.saturating_add(1))..=(*id, Seq::MAX))? {
            let (key, value) = stored?;
            let seq = key.value().1;
            missed.push(LogEntry { seq, bytes: Bytes::copy_from_slice(unseal_entry(*id, seq, value.value())?) });
        }
        return Ok(Some(AppendError::Moved { missed }));
    }
    for claim in &batch.claims {
        let Some(stored) = claims.map(|claims| claims.get(claim.key.as_str())).transpose()?.flatten() else { continue };
        let (expires, by) = unseal_claim(&claim.key, stored.value())?;
        if expires >= now {
            let by = Bytes::copy_from_slice(by);
            return Ok(Some(AppendError::Claimed { key: claim.key.clone(), by }));
        }
    }
    Ok(None)
}

pub(super) fn stage(
    batch: &LogBatch,
    logs: &mut HashMap<LogId, (u32, Seq)>,
    entries: &mut Entries<'_>,
    claims: Option<&mut Claims<'_>>,
) -> Result<(), Fault> {
    let Some((id, head)) = logs.get_mut(&batch.log) else { return Ok(()) };
    for entry in &batch.entries {
        let sealed = seal(entry_salt(*id, entry.seq), &[&entry.bytes]);
        entries.insert((*id, entry.seq), sealed.as_slice())?;
        *head = entry.seq;
    }
    if let Some(claims) = claims {
        for claim in &batch.claims {
            let salt = xxh3_64(claim.key.as_bytes());
            let sealed = seal(salt, &[&claim.expires.to_le_bytes(), &claim.value]);
            claims.insert(claim.key.as_str(), sealed.as_slice())?;
        }
    }
    Ok(())
}

pub(super) fn store_marks(transaction: &WriteTransaction, batch: &LogBatch) -> Result<(), Fault> {
    if batch.marks.is_empty() {
        return Ok(());
    }
    let mut marks = transaction.open_table(MARKS)?;
    for mark in &batch.marks {
        let sealed = seal(mark_salt(&mark.key), &[&mark.value]);
        marks.insert(mark.key.as_str(), sealed.as_slice())?;
    }
    Ok(())
}

/// Salt of a mark, which differs from the salt of a claim with the same key.
pub(super) fn mark_salt(key: &str) -> u64 {
    !xxh3_64(key.as_bytes())
}

/// Removes expired claims among the next few after `swept` and advances it. Returns the number of remaining claims.
pub(super) fn sweep_claims(claims: &mut Claims<'_>, swept: &mut String, now: u64) -> Result<usize, Fault> {
    let (mut checked, mut last, mut expired) = (0, String::new(), Vec::new());
    for stored in claims.range(swept.as_str()..)?.take(CLAIMS_PER_TRIM) {
        let (key, value) = stored?;
        checked += 1;
        last = key.value().to_string();
        if unseal_claim(&last, value.value())?.0 < now {
            expired.push(last.clone());
        }
    }
    for key in &expired {
        claims.remove(key.as_str())?;
    }
    *swept = if checked < CLAIMS_PER_TRIM { String::new() } else { last };
    count(claims)
}

pub(super) fn count(claims: &impl ReadableTableMetadata) -> Result<usize, Fault> {
    Ok(usize::try_from(claims.len()?).unwrap_or(usize::MAX))
}

#[cfg(any(test, feature = "testing"))]
pub(super) fn decode_stored(content: &[u8]) {
    let _ = super::log::decode_log("log/a", &seal(xxh3_64(b"log/a"), &[content]));
    super::audit::decode_stored(content);
    let _ = unseal_claim("a", &seal(xxh3_64(b"a"), &[content]));
    // Content that is itself sealed, correctly or not.
    let _ = (super::log::decode_log("log/a", content), unseal_claim("a", content), unseal_entry(1, 1, content));
}

pub(super) fn entry_salt(id: u32, seq: Seq) -> u64 {
    (u64::from(id) << 40) ^ seq
}

pub(in crate::journal) fn unseal_entry(id: u32, seq: Seq, sealed: &[u8]) -> Result<&[u8], Fault> {
    unseal(entry_salt(id, seq), sealed).ok_or_else(|| Fault::Corrupt(format!("entry {seq} of log {id} is damaged")))
}

pub(super) fn unseal_claim<'a>(key: &str, sealed: &'a [u8]) -> Result<(u64, &'a [u8]), Fault> {
    let payload = unseal(xxh3_64(key.as_bytes()), sealed);
    let (expires, value) = payload
        .and_then(|payload| payload.split_first_chunk())
        .ok_or_else(|| Fault::Corrupt(format!("claim {key:?} is damaged")))?;
    Ok((u64::from_le_bytes(*expires), value))
}

pub(in crate::journal) fn journal_error(path: &str, fault: Fault) -> JournalError {
    let path = path.to_string();
    match fault {
        Fault::Io { detail, .. } => JournalError::Io { path, detail },
        Fault::Corrupt(detail) => JournalError::Corrupt { path, detail },
        Fault::Newer { found } => JournalError::Newer { path, found, known: FORMAT },
        Fault::Replaced => JournalError::Io { path, detail: fault.to_string() },
        Fault::Locked => JournalError::Locked { path },
        Fault::Closed => JournalError::Closed,
    }
}
