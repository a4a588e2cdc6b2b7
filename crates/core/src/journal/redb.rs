//! A journal in a redb file: two-phase commits, verified when opened, never deleted.
//!
//! Tables: `entries` keyed by log number and sequence number, `claims` and `marks` by key, `deliveries` (`redb_inbox.rs`), `meta` with
//! `format` and one `log/<name>` per log. Everything stored is sealed with a checksum over itself and its key. A log's head is that of its
//! last entry, or the one in its meta if that is higher, so an append touches only `entries`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{
    ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::head::{Head, Seen};
use super::inbox::Index;
use super::memory::{Budget, Heads, check_batch, not_open, unix_ms};
use super::redb_inbox::{self, Stored};
use super::{
    AppendError, Delivery, DeliveryId, DeliveryQuery, InboxLimits, InboxUse, Journal, JournalError, Kept, LogBatch,
    LogEntry, LogId, LogState, Raw, Rewrite, Seq, new_epoch,
};
use crate::redb_file::{BackendFactory, Copy, Fault, Options, Owner, RedbFile, blocking, note_erased, seal, unseal};

type Entries<'t> = Table<'t, (u32, u64), &'static [u8]>;
type Claims<'t> = Table<'t, &'static str, &'static [u8]>;

pub(super) const ENTRIES: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("entries");
const CLAIMS: TableDefinition<&str, &[u8]> = TableDefinition::new("claims");
const MARKS: TableDefinition<&str, &[u8]> = TableDefinition::new("marks");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Format 2 has entries of format 2 beside those of format 1, and marks.
const FORMAT: u32 = 2;
pub(super) const OPTIONS: Options =
    Options { format: FORMAT, meta: META, cache_size: 16 << 20, check_integrity: true, tables: copy_tables };
/// Claims that one trim looks at, so that it does not hold appends up for long.
const CLAIMS_A_TRIM: usize = 4096;

/// A journal in a redb file, for all Dios of a Lens of one process.
///
/// A clone is the same journal. After a failed append it answers [`AppendError::Io`] until [`Journal::reopen`]; only
/// [`AppendError::Full`] leaves it usable, because it has then been reopened and nothing was stored.
#[derive(Clone, Debug)]
pub struct RedbJournal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: RedbFile,
    /// Held over every transaction that writes.
    writer: Mutex<Writer>,
    logs: RwLock<HashMap<LogId, Log>>,
    heads: Heads,
    /// How far the logs are known to have come; none where the journal is not a file.
    head: Option<Mutex<Head>>,
    /// What the table of deliveries holds; changed after the commit that changes the table.
    inbox: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Writer {
    /// Why nothing more is written until reopened.
    broken: Option<String>,
    /// The last claim that a trim has looked at.
    swept: String,
}

/// A log as stored, except that the stored `head` may lag behind the last entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Log {
    pub(super) id: u32,
    epoch: String,
    shape: String,
    why: String,
    pub(super) head: Seq,
    pub(super) oldest: Seq,
    /// Where the epoch began; files of 0.1.0 lack it, and carried nothing over.
    #[serde(default)]
    begun: Seq,
    /// Random bits that identify the log over all its epochs; 0 until its head was written for the first time.
    #[serde(default)]
    origin: u64,
}

impl Log {
    /// The log as its head has it.
    fn seen(&self) -> Seen {
        Seen { origin: self.origin, epoch: self.epoch.clone(), seq: self.head, copied: false }
    }

    /// What `seen`, which the head says of the log, has against it.
    fn doubt(&self, seen: Option<&Seen>) -> Option<String> {
        let Some(seen) = seen else {
            let lost = self.origin != 0;
            return lost.then(|| "its head file is gone: it may be an older copy".to_string());
        };
        // A program of 0.1.0 leaves the origin out when it stores the log.
        if self.origin != 0 && seen.origin != self.origin {
            return Some("it is another journal than the one that was here".into());
        }
        if seen.copied {
            return Some("it was restored from a backup".into());
        }
        if seen.epoch != self.epoch {
            return Some("it is of another epoch than the one that was here: an older copy".into());
        }
        let behind = seen.seq > self.head;
        behind.then(|| format!("it ends at {} and had come to {}: it is an older copy", self.head, seen.seq))
    }

    fn begin_epoch(&mut self, at_least: Seq, why: &str) {
        self.epoch = new_epoch();
        self.why = why.into();
        self.head = self.head.max(at_least);
        self.oldest = self.head + 1;
        self.begun = self.head;
    }

    fn state(&self, log: &str) -> LogState {
        let (epoch, begun) = (self.epoch.clone(), self.begun);
        LogState { log: log.into(), epoch, head: self.head, oldest: self.oldest, durable: true, begun, doubt: None }
    }
}

impl RedbJournal {
    /// Opens or creates the journal in the file at `path`, readable by its owner only.
    ///
    /// # Errors
    /// [`JournalError::Corrupt`] if it is damaged (it is left as it is), [`JournalError::Newer`], [`JournalError::Locked`] if
    /// it is open elsewhere, [`JournalError::Io`] otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref();
        let head = Some(Mutex::new(Head::read(path)));
        Self::new(RedbFile::open(path, OPTIONS), &path.display().to_string(), head)
    }

    /// Opens or creates a journal on custom storage, made anew each time it is reopened.
    ///
    /// # Errors
    /// As [`RedbJournal::open`].
    pub fn with_backend(factory: BackendFactory) -> Result<Self, JournalError> {
        Self::new(RedbFile::with_backend(factory, OPTIONS), "(custom storage)", None)
    }

    fn new(file: Result<RedbFile, Fault>, path: &str, head: Option<Mutex<Head>>) -> Result<Self, JournalError> {
        let of_path = |fault| journal_error(path, fault);
        let file = file.map_err(of_path)?;
        let inner = Inner {
            file,
            writer: Mutex::default(),
            logs: RwLock::default(),
            heads: Heads::default(),
            head,
            inbox: RwLock::default(),
        };
        inner.load_logs().map_err(of_path)?;
        Ok(RedbJournal(Arc::new(inner)))
    }

    /// The file as whoever opened it has it.
    pub(crate) fn owner(&self) -> Owner {
        self.0.file.owner()
    }

    /// The journal as it is now, to be copied while it goes on.
    pub fn snapshot(&self) -> Result<JournalSnapshot, JournalError> {
        let begun = self.0.file.with(|database| Ok(database.begin_read()?));
        begun.map(JournalSnapshot).map_err(|fault| journal_error(&self.0.file.label(), fault))
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, JournalError> {
        let inner = Arc::clone(&self.0);
        blocking(move || job(&inner)).await.map_err(|fault| journal_error(&self.0.file.label(), fault))
    }
}

/// A journal at one position.
#[derive(Debug)]
pub struct JournalSnapshot(ReadTransaction);

impl JournalSnapshot {
    /// Writes it to a new file at `path`, with a head beside it that says that it is a copy. Blocks the thread.
    ///
    /// # Errors
    /// [`JournalError`] if a file cannot be read or written.
    pub fn write(&self, path: &Path) -> Result<(), JournalError> {
        self.copy(path).map_err(|fault| journal_error(&path.display().to_string(), fault))
    }

    fn copy(&self, path: &Path) -> Result<(), Fault> {
        let copy = Copy::begin(path, OPTIONS)?;
        copy.all(&self.0)?;
        copy.end()?;
        let mut logs = Vec::new();
        for stored in self.0.open_table(META)?.range("log/"..LOGS_END)? {
            let (key, value) = stored?;
            let log = decode_log(key.value(), value.value())?;
            logs.push((key.value()["log/".len()..].to_string(), log.seen()));
        }
        Ok(Head::write_copy(path, logs.into_iter())?)
    }
}

impl Inner {
    /// Reads what logs there are, with their true heads, and what deliveries.
    fn load_logs(&self) -> Result<(), Fault> {
        let mut inbox = Index::within(self.inbox.read().limits);
        let logs = self.file.with(|database| {
            redb_inbox::load(database, &mut inbox)?;
            let transaction = database.begin_read()?;
            inbox.claims = match transaction.open_table(CLAIMS) {
                Err(redb::TableError::TableDoesNotExist(_)) => 0,
                claims => count(&claims?)?,
            };
            let meta = transaction.open_table(META)?;
            let entries = match transaction.open_table(ENTRIES) {
                Err(redb::TableError::TableDoesNotExist(_)) => None,
                opened => Some(opened?),
            };
            let mut logs = HashMap::new();
            for stored in meta.range("log/"..LOGS_END)? {
                let (key, value) = stored?;
                let mut log = decode_log(key.value(), value.value())?;
                if let Some(entries) = &entries
                    && let Some(last) = entries.range((log.id, 0)..=(log.id, Seq::MAX))?.next_back()
                {
                    log.head = log.head.max(last?.0.value().1);
                }
                logs.insert(LogId::from(&key.value()["log/".len()..]), log);
            }
            Ok(logs)
        })?;
        for (name, log) in &logs {
            self.heads.set(name, log.head);
        }
        *self.logs.write() = logs;
        *self.inbox.write() = inbox;
        Ok(())
    }

    /// Runs `job` in a durable transaction. If it fails, nothing is written until reopened.
    fn write<T>(
        &self,
        writer: &mut Writer,
        job: impl FnOnce(&mut Writer, &WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Some(why) = &writer.broken {
            return Err(Fault::Io { detail: format!("failed before: {why}"), full: false });
        }
        let written = self.file.with(|database| {
            let transaction = begin(database)?;
            let done = job(writer, &transaction)?;
            transaction.commit()?;
            Ok(done)
        });
        if let Err(fault) = &written
            && !matches!(fault, Fault::Closed)
        {
            writer.broken = Some(fault.to_string());
        }
        written
    }

    fn open_log(&self, name: &str, shape: &str) -> Result<LogState, Fault> {
        let mut writer = self.writer.lock();
        let stored = self.logs.read().get(name).cloned();
        let log = match stored {
            Some(log) if log.shape == shape => return self.take_up(&mut writer, name, log),
            Some(mut log) => {
                log.begin_epoch(0, &format!("the shape changed from {:?} to {shape:?}", log.shape));
                log.shape = shape.into();
                log
            }
            None => {
                let id = self.logs.read().values().map(|log| log.id + 1).max().unwrap_or(0);
                // Nothing was in a log that had come nowhere: its first append never happened.
                if let Some(seen) = self.seen(name).filter(|seen| seen.seq > 0) {
                    tracing::warn!(
                        log = name,
                        path = self.file.label(),
                        position = seen.seq,
                        "the journal that was here is gone: acknowledged writes that waited in it are lost"
                    );
                }
                let (epoch, why) = (new_epoch(), "created".into());
                Log { id, epoch, shape: shape.into(), why, head: 0, oldest: 1, begun: 0, origin: 0 }
            }
        };
        self.store_epoch(&mut writer, name, log, &[])
    }

    /// Opens a log that is there, with what its head has against it.
    fn take_up(&self, writer: &mut Writer, name: &str, mut log: Log) -> Result<LogState, Fault> {
        self.file.with(|_| Ok(()))?;
        let Some(head) = &self.head else { return Ok(log.state(name)) };
        let mut head = head.lock();
        let seen = head.seen(name).cloned();
        let doubt = log.doubt(seen.as_ref());
        if doubt.is_some() {
            return Ok(LogState { doubt, ..log.state(name) });
        }
        let known = log.origin != 0;
        log.origin = some_origin(if known { log.origin } else { seen.map_or(0, |seen| seen.origin) });
        if head.note(name, log.seen()) && !known {
            // A full disk does not keep a start from answering reads; the next one notes it.
            match self.write(writer, |_, transaction| store_log(transaction, name, &log)) {
                Ok(()) => drop(self.logs.write().insert(name.into(), log.clone())),
                Err(error) => tracing::warn!(log = name, %error, "the log's origin cannot be stored"),
            }
        }
        Ok(log.state(name))
    }

    /// What the head says of a log.
    fn seen(&self, name: &str) -> Option<Seen> {
        self.head.as_ref().and_then(|head| head.lock().seen(name).cloned())
    }

    fn begin_epoch(&self, name: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, Fault> {
        let mut writer = self.writer.lock();
        let Some(mut log) = self.logs.read().get(name).cloned() else {
            self.file.with(|_| Ok(()))?;
            return Err(Fault::Io { detail: not_open(&self.file.label(), name).to_string(), full: false });
        };
        log.begin_epoch(at_least, why);
        self.store_epoch(&mut writer, name, log, keep)
    }

    fn store_epoch(&self, writer: &mut Writer, name: &str, mut log: Log, keep: &[Seq]) -> Result<LogState, Fault> {
        if let Some(head) = &self.head {
            // First the head: should the process end in between, the epoch is begun once more.
            let known = log.origin;
            log.origin = some_origin(known);
            if !head.lock().note(name, log.seen()) {
                log.origin = known;
            }
        }
        self.write(writer, |_, transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            entries.retain_in((log.id, 0)..=(log.id, Seq::MAX), |(_, seq), _| keep.binary_search(&seq).is_ok())?;
            drop(entries);
            store_log(transaction, name, &log)
        })?;
        let state = log.state(name);
        tracing::info!(log = name, epoch = %log.epoch, why = %log.why, "new epoch");
        self.logs.write().insert(name.into(), log);
        self.heads.set(name, state.head);
        Ok(state)
    }

    fn append(&self, batches: &[LogBatch]) -> Vec<Result<(), AppendError>> {
        let mut writer = self.writer.lock();
        let mut logs: HashMap<LogId, (u32, Seq)> =
            self.logs.read().iter().map(|(name, log)| (LogId::clone(name), (log.id, log.head))).collect();
        let mut committing = false;
        if let Some(why) = &writer.broken {
            return vec![Err(AppendError::Io(format!("failed before: {why}"))); batches.len()];
        }
        let stored = self.file.with(|database| {
            let transaction = begin(database)?;
            let answers = append_all(&transaction, batches, &mut logs)?;
            let taken = batches.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
            let kept: Vec<&Kept> = taken.flat_map(|(batch, _)| &batch.deliveries).collect();
            let mut kept = redb_inbox::store(&transaction, &kept, &self.inbox.read(), unix_ms())?;
            if batches.iter().any(|batch| !batch.claims.is_empty()) {
                kept.claims = Some(count(&transaction.open_table(CLAIMS)?)?);
            }
            if answers.iter().any(Result::is_ok) {
                committing = true;
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok((answers, kept))
        });
        match stored {
            Ok((answers, kept)) => {
                self.publish(batches, &logs, kept);
                answers
            }
            Err(fault) => vec![Err(self.failed(&mut writer, batches, &fault, committing)); batches.len()],
        }
    }

    /// Makes the new heads and deliveries of a commit known.
    fn publish(&self, batches: &[LogBatch], logs: &HashMap<LogId, (u32, Seq)>, kept: Stored) {
        kept.publish(&mut self.inbox.write());
        let mut moved = Vec::new();
        let mut known = self.logs.write();
        for batch in batches {
            if let (Some(log), Some((_, head))) = (known.get_mut(&batch.log), logs.get(&batch.log))
                && log.head != *head
            {
                log.head = *head;
                self.heads.set(&batch.log, *head);
                moved.push((LogId::clone(&batch.log), log.seen()));
            }
        }
        drop(known);
        if let Some(head) = &self.head {
            let mut head = head.lock();
            for (log, seen) in moved {
                head.note(&log, seen);
            }
        }
    }

    /// What a failed transaction means for all of its batches, also for those it would have refused: their refusals may speak
    /// of what is not stored.
    fn failed(&self, writer: &mut Writer, batches: &[LogBatch], fault: &Fault, committing: bool) -> AppendError {
        if matches!(fault, Fault::Closed) {
            return AppendError::Io(fault.to_string());
        }
        tracing::debug!(path = self.file.label(), error = %fault, "append failed");
        if let Fault::Io { full: true, detail } = fault
            && self.nothing_stored(writer, batches)
        {
            return AppendError::Full(detail.clone());
        }
        // Whoever appends has to look before going on, even if the file has just been reopened.
        writer.broken = Some(fault.to_string());
        if committing { AppendError::Unknown(fault.to_string()) } else { AppendError::Io(fault.to_string()) }
    }

    /// Reopens after a full disk to see that nothing of `batches` has come through.
    fn nothing_stored(&self, writer: &mut Writer, batches: &[LogBatch]) -> bool {
        let heads = || -> Vec<Option<Seq>> {
            let logs = self.logs.read();
            batches.iter().map(|batch| logs.get(&batch.log).map(|log| log.head)).collect()
        };
        let before = heads();
        // Claims and deliveries without entries leave no trace in the heads.
        let bare = |batch: &LogBatch| batch.claims.is_empty() && batch.deliveries.is_empty() && batch.marks.is_empty();
        let traceable = batches.iter().all(|batch| bare(batch) || !batch.entries.is_empty());
        self.reopen_with(writer).is_ok() && traceable && heads() == before
    }

    fn reopen_with(&self, writer: &mut Writer) -> Result<(), Fault> {
        let reopened = self.file.reopen().and_then(|()| self.load_logs());
        writer.broken = reopened.as_ref().err().map(Fault::to_string);
        reopened
    }

    fn read(&self, name: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, Fault> {
        self.file.with(|database| {
            let transaction = database.begin_read()?;
            let key = format!("log/{name}");
            let Some(log) = transaction.open_table(META)?.get(key.as_str())? else { return Ok(Vec::new()) };
            let log = decode_log(&key, log.value())?;
            let table = transaction.open_table(ENTRIES)?;
            let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
            let (mut read, mut budget) = (Vec::new(), Budget::new(max_bytes));
            let mut expected = first.max(log.oldest);
            for stored in table.range((log.id, first)..=(log.id, Seq::MAX))? {
                let (key, value) = stored?;
                let seq = key.value().1;
                let bytes = unseal_entry(log.id, seq, value.value())?;
                if seq >= log.oldest {
                    if seq != expected {
                        return Err(Fault::Corrupt(format!("log {name:?} lacks entry {expected}")));
                    }
                    expected += 1;
                }
                if !budget.admits(bytes.len()) {
                    break;
                }
                read.push(LogEntry { seq, bytes: Bytes::copy_from_slice(bytes) });
            }
            Ok(read)
        })
    }

    fn claim(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        self.file.with(|database| {
            let claims = match database.begin_read()?.open_table(CLAIMS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                claims => claims?,
            };
            let Some(stored) = claims.get(key)? else { return Ok(None) };
            let (expires, value) = unseal_claim(key, stored.value())?;
            Ok((expires >= unix_ms()).then(|| Bytes::copy_from_slice(value)))
        })
    }

    fn mark(&self, key: &str) -> Result<Option<Bytes>, Fault> {
        self.file.with(|database| {
            let marks = match database.begin_read()?.open_table(MARKS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                marks => marks?,
            };
            let Some(stored) = marks.get(key)? else { return Ok(None) };
            let value = unseal(mark_salt(key), stored.value());
            let value = value.ok_or_else(|| Fault::Corrupt(format!("the mark {key:?} is damaged")))?;
            Ok(Some(Bytes::copy_from_slice(value)))
        })
    }

    fn trim(&self, name: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), Fault> {
        let mut writer = self.writer.lock();
        let Some(mut log) = self.logs.read().get(name).cloned() else {
            self.file.with(|_| Ok(()))?;
            return Err(Fault::Io { detail: not_open(&self.file.label(), name).to_string(), full: false });
        };
        log.oldest = log.oldest.max(before.min(log.head + 1));
        let claims = self.write(&mut writer, |writer, transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            entries.retain_in((log.id, 0)..(log.id, before), |(_, seq), _| keep.binary_search(&seq).is_ok())?;
            store_log(transaction, name, &log)?;
            sweep_claims(&mut transaction.open_table(CLAIMS)?, &mut writer.swept, now)
        })?;
        self.logs.write().insert(name.into(), log);
        self.inbox.write().claims = claims;
        Ok(())
    }

    fn rewrite(&self, rewrite: &Rewrite) -> Result<(), Fault> {
        let mut writer = self.writer.lock();
        let Some(log) = self.logs.read().get(&rewrite.log).cloned() else {
            self.file.with(|_| Ok(()))?;
            return Err(Fault::Io { detail: not_open(&self.file.label(), &rewrite.log).to_string(), full: false });
        };
        if rewrite.entries.is_empty() && rewrite.deliveries.is_empty() {
            return self.file.with(|_| Ok(()));
        }
        self.write(&mut writer, |_, transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            for entry in &rewrite.entries {
                if entries.get((log.id, entry.seq))?.is_some() {
                    let sealed = seal(entry_salt(log.id, entry.seq), &[&entry.bytes]);
                    entries.insert((log.id, entry.seq), sealed.as_slice())?;
                }
            }
            note_erased(transaction, OPTIONS)?;
            redb_inbox::remove(transaction, &rewrite.deliveries)
        })?;
        let mut inbox = self.inbox.write();
        rewrite.deliveries.iter().for_each(|id| inbox.remove(id.as_u128()));
        Ok(())
    }

    fn claim_room(&self) -> Result<bool, Fault> {
        let mut writer = self.writer.lock();
        if !self.inbox.read().claim_room() && self.inbox.write().may_sweep() {
            let claims = self.write(&mut writer, |writer, transaction| {
                sweep_claims(&mut transaction.open_table(CLAIMS)?, &mut writer.swept, unix_ms())
            })?;
            self.inbox.write().claims = claims;
        }
        Ok(self.inbox.read().claim_room())
    }
}

fn copy_tables(copy: &Copy, from: &ReadTransaction) -> Result<(), Fault> {
    copy.table(from, ENTRIES)?;
    copy.table(from, CLAIMS)?;
    copy.table(from, MARKS)?;
    copy.table(from, redb_inbox::DELIVERIES)?;
    copy.table(from, META)
}

/// Identifies a log; `known` if it has an origin already.
fn some_origin(known: u64) -> u64 {
    match known {
        0 => uuid::Uuid::new_v4().as_u128() as u64 | 1,
        known => known,
    }
}

fn begin(database: &redb::Database) -> Result<WriteTransaction, Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// Stages every batch that can be taken; `logs` moves on with them.
fn append_all(
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

fn refusal(
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

fn stage(
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

fn store_marks(transaction: &WriteTransaction, batch: &LogBatch) -> Result<(), Fault> {
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

/// Differs from the salt of a claim with the same key.
fn mark_salt(key: &str) -> u64 {
    !xxh3_64(key.as_bytes())
}

/// Drops expired claims among the next few after `swept`, which moves on; returns how many claims are left.
fn sweep_claims(claims: &mut Claims<'_>, swept: &mut String, now: u64) -> Result<usize, Fault> {
    let (mut seen, mut last, mut expired) = (0, String::new(), Vec::new());
    for stored in claims.range(swept.as_str()..)?.take(CLAIMS_A_TRIM) {
        let (key, value) = stored?;
        seen += 1;
        last = key.value().to_string();
        if unseal_claim(&last, value.value())?.0 < now {
            expired.push(last.clone());
        }
    }
    for key in &expired {
        claims.remove(key.as_str())?;
    }
    *swept = if seen < CLAIMS_A_TRIM { String::new() } else { last };
    count(claims)
}

fn count(claims: &impl ReadableTableMetadata) -> Result<usize, Fault> {
    Ok(usize::try_from(claims.len()?).unwrap_or(usize::MAX))
}

fn store_log(transaction: &WriteTransaction, name: &str, log: &Log) -> Result<(), Fault> {
    let key = format!("log/{name}");
    let bytes = serde_json::to_vec(log).map_err(|error| Fault::Io { detail: error.to_string(), full: false })?;
    transaction.open_table(META)?.insert(key.as_str(), seal(xxh3_64(key.as_bytes()), &[&bytes]).as_slice())?;
    Ok(())
}

pub(super) fn decode_log(key: &str, sealed: &[u8]) -> Result<Log, Fault> {
    let payload = unseal(xxh3_64(key.as_bytes()), sealed);
    let log = payload.and_then(|payload| serde_json::from_slice(payload).ok());
    log.ok_or_else(|| Fault::Corrupt(format!("the record {key:?} is damaged")))
}

#[cfg(any(test, feature = "testing"))]
pub(super) fn decode_stored(content: &[u8]) {
    let _ = decode_log("log/a", &seal(xxh3_64(b"log/a"), &[content]));
    let _ = unseal_claim("a", &seal(xxh3_64(b"a"), &[content]));
    // Content that is itself sealed, rightly or not.
    let _ = (decode_log("log/a", content), unseal_claim("a", content), unseal_entry(1, 1, content));
}

fn entry_salt(id: u32, seq: Seq) -> u64 {
    (u64::from(id) << 40) ^ seq
}

pub(super) fn unseal_entry(id: u32, seq: Seq, sealed: &[u8]) -> Result<&[u8], Fault> {
    unseal(entry_salt(id, seq), sealed).ok_or_else(|| Fault::Corrupt(format!("entry {seq} of log {id} is damaged")))
}

fn unseal_claim<'a>(key: &str, sealed: &'a [u8]) -> Result<(u64, &'a [u8]), Fault> {
    let payload = unseal(xxh3_64(key.as_bytes()), sealed);
    let (expires, value) = payload
        .and_then(|payload| payload.split_first_chunk())
        .ok_or_else(|| Fault::Corrupt(format!("claim {key:?} is damaged")))?;
    Ok((u64::from_le_bytes(*expires), value))
}

pub(super) fn journal_error(path: &str, fault: Fault) -> JournalError {
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

/// After every key that begins with `log/`.
pub(super) const LOGS_END: &str = "log0";

#[async_trait]
impl Journal for RedbJournal {
    async fn open(&self, log: &str, shape: &str) -> Result<LogState, JournalError> {
        let (log, shape) = (log.to_string(), shape.to_string());
        self.run(move |inner| inner.open_log(&log, &shape)).await
    }

    async fn new_epoch(&self, log: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, JournalError> {
        let (log, keep, why) = (log.to_string(), keep.to_vec(), why.to_string());
        self.run(move |inner| inner.begin_epoch(&log, at_least, &keep, &why)).await
    }

    async fn shape(&self, log: &str) -> Result<Option<String>, JournalError> {
        Ok(self.0.logs.read().get(log).map(|log| log.shape.clone()))
    }

    async fn append(&self, batches: Vec<LogBatch>) -> Vec<Result<(), AppendError>> {
        let count = batches.len();
        let answers = self.run(move |inner| Ok(inner.append(&batches))).await;
        // Only a runtime that is shutting down keeps the job from answering, and it may have run.
        answers.unwrap_or_else(|error| vec![Err(AppendError::Unknown(error.to_string())); count])
    }

    async fn read(&self, log: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, JournalError> {
        let log = log.to_string();
        self.run(move |inner| inner.read(&log, after, max_bytes)).await
    }

    async fn claim(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        let key = key.to_string();
        self.run(move |inner| inner.claim(&key)).await
    }

    async fn claim_room(&self) -> Result<bool, JournalError> {
        if self.0.inbox.read().claim_room() {
            return Ok(true);
        }
        self.run(Inner::claim_room).await
    }

    async fn mark(&self, key: &str) -> Result<Option<Bytes>, JournalError> {
        let key = key.to_string();
        self.run(move |inner| inner.mark(&key)).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<(Vec<Delivery>, usize), JournalError> {
        let (ids, total) = self.0.inbox.read().find(query);
        let found = self.run(move |inner| inner.file.with(|database| redb_inbox::known(database, &ids))).await?;
        Ok((found, total))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<(Delivery, Raw)>, JournalError> {
        self.run(move |inner| inner.file.with(|database| redb_inbox::whole(database, id))).await
    }

    fn inbox(&self) -> InboxUse {
        self.0.inbox.read().usage()
    }

    fn limit_inbox(&self, limits: InboxLimits) {
        self.0.inbox.write().limits = limits;
    }

    fn heads(&self, log: &str) -> watch::Receiver<Seq> {
        self.0.heads.follow(log)
    }

    async fn trim(&self, log: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), JournalError> {
        let (log, keep) = (log.to_string(), keep.to_vec());
        self.run(move |inner| inner.trim(&log, before, &keep, now)).await
    }

    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), JournalError> {
        self.run(move |inner| inner.rewrite(&rewrite)).await
    }

    async fn reopen(&self) -> Result<(), JournalError> {
        self.run(|inner| inner.reopen_with(&mut inner.writer.lock())).await
    }

    async fn logs(&self) -> Result<Vec<LogId>, JournalError> {
        self.run(|inner| {
            inner.file.with(|_| Ok(()))?;
            let mut logs: Vec<LogId> = inner.logs.read().keys().cloned().collect();
            logs.sort();
            Ok(logs)
        })
        .await
    }

    async fn close(&self) {
        let closed = self.run(|inner| {
            let _writer = inner.writer.lock();
            inner.file.close();
            Ok(())
        });
        // Closing itself cannot fail; a runtime that is shutting down drops the file instead.
        let _ = closed.await;
    }

    fn durable(&self) -> bool {
        true
    }
}
