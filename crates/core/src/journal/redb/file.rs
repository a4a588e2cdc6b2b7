//! The journal file: its logs, its single writer, and reopening.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::audit;
use super::inbox::{self, InboxChanges};
use super::log::{Log, decode_log, known_or_new_origin, store_log};
use super::tables::{
    CLAIMS, ENTRIES, LOGS_END, MARKS, META, OPTIONS, append_all, begin, count, entry_salt, mark_salt, sweep_claims,
    unseal_claim, unseal_entry,
};
use crate::journal::head::{Head, LogHead};
use crate::journal::inbox::Index;
use crate::journal::memory::{Budget, Heads, not_open, unix_ms};
use crate::journal::{
    AppendError, AuditUse, LogBatch, LogEntry, LogId, LogState, Rewrite, Seq, StoredDelivery, new_epoch,
};
use crate::redb_file::{Fault, RedbFile, note_erased, seal, unseal};

/// State that the clones of a journal share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) file: RedbFile,
    /// Locked during every write transaction.
    pub(super) writer: Mutex<Writer>,
    pub(super) logs: RwLock<HashMap<LogId, Log>>,
    pub(super) heads: Heads,
    /// Head file with the positions of the logs; `None` for a journal on custom storage.
    pub(super) head: Option<Mutex<Head>>,
    /// Index of the table of deliveries. Changed after the commit that changes the table.
    pub(super) inbox: RwLock<Index>,
    /// Size of the audit log.
    pub(super) audit: RwLock<AuditUse>,
}

/// State of the single writer.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Error after which nothing is written until the journal is reopened.
    broken: Option<String>,
    /// Key of the last claim that a sweep has checked.
    swept: String,
}

impl Writer {
    pub(super) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

impl Inner {
    /// Loads the logs, with their actual heads, and the index of deliveries.
    pub(super) fn load_logs(&self) -> Result<(), Fault> {
        let mut inbox = Index::within(&self.inbox.read());
        let (logs, audit) = self.file.with(|database| {
            inbox::load(database, &mut inbox)?;
            let audit = audit::load(database)?;
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
            Ok((logs, audit))
        })?;
        *self.audit.write() = audit;
        for (name, log) in &logs {
            self.heads.set(name, log.head);
        }
        *self.logs.write() = logs;
        *self.inbox.write() = inbox;
        Ok(())
    }

    /// Runs `job` in a durable transaction. After a failure, nothing is written until the journal is reopened.
    pub(super) fn transact<T>(
        &self,
        writer: &mut Writer,
        job: impl FnOnce(&mut Writer, &WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        if let Some(why) = &writer.broken {
            return Err(Fault::Io { detail: format!("an earlier write failed: {why}"), full: false });
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

    pub(super) fn open_log(&self, name: &str, shape: &str) -> Result<LogState, Fault> {
        let mut writer = self.writer.lock();
        let stored = self.logs.read().get(name).cloned();
        let log = match stored {
            Some(log) if log.shape == shape => return self.open_existing(&mut writer, name, log),
            Some(mut log) => {
                log.begin_epoch(0, &format!("the shape changed from {:?} to {shape:?}", log.shape));
                log.shape = shape.into();
                log
            }
            None => {
                let id = self.logs.read().values().map(|log| log.id + 1).max().unwrap_or(0);
                // A log at position 0 held nothing: its first append never completed.
                if let Some(recorded) = self.recorded_head(name).filter(|recorded| recorded.seq > 0) {
                    tracing::warn!(
                        log = name,
                        path = self.file.label(),
                        position = recorded.seq,
                        "the earlier journal file is missing: acknowledged writes that were pending in it are lost"
                    );
                }
                let (epoch, why) = (new_epoch(), "created".into());
                Log { id, epoch, shape: shape.into(), why, head: 0, oldest: 1, begun: 0, origin: 0 }
            }
        };
        self.store_epoch(&mut writer, name, log, &[])
    }

    /// Opens an existing log and compares it with the head file.
    fn open_existing(&self, writer: &mut Writer, name: &str, mut log: Log) -> Result<LogState, Fault> {
        self.file.with(|_| Ok(()))?;
        let Some(head) = &self.head else { return Ok(log.state(name)) };
        let mut head = head.lock();
        let recorded = head.get(name).cloned();
        let doubt = log.doubt(recorded.as_ref());
        if doubt.is_some() {
            return Ok(LogState { doubt, ..log.state(name) });
        }
        let known = log.origin != 0;
        log.origin =
            known_or_new_origin(if known { log.origin } else { recorded.map_or(0, |recorded| recorded.origin) });
        if head.note(name, log.as_head()) && !known {
            // Reads work even when the disk is full; the next start stores the origin.
            match self.transact(writer, |_, transaction| store_log(transaction, name, &log)) {
                Ok(()) => drop(self.logs.write().insert(name.into(), log.clone())),
                Err(error) => tracing::warn!(log = name, %error, "the log's origin cannot be stored"),
            }
        }
        Ok(log.state(name))
    }

    /// Returns the position recorded in the head file.
    fn recorded_head(&self, name: &str) -> Option<LogHead> {
        self.head.as_ref().and_then(|head| head.lock().get(name).cloned())
    }

    pub(super) fn begin_epoch(&self, name: &str, at_least: Seq, keep: &[Seq], why: &str) -> Result<LogState, Fault> {
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
            // Write the head file first. If the process ends in between, the epoch is begun once more.
            let known = log.origin;
            log.origin = known_or_new_origin(known);
            if !head.lock().note(name, log.as_head()) {
                log.origin = known;
            }
        }
        self.transact(writer, |_, transaction| {
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

    /// Stores the batches in one transaction. They are durable when this returns: redb syncs the file on each commit.
    pub(super) fn append(&self, batches: &[LogBatch]) -> Vec<Result<(), AppendError>> {
        let mut writer = self.writer.lock();
        let mut logs: HashMap<LogId, (u32, Seq)> =
            self.logs.read().iter().map(|(name, log)| (LogId::clone(name), (log.id, log.head))).collect();
        let mut committing = false;
        if let Some(why) = &writer.broken {
            return vec![Err(AppendError::Io(format!("an earlier write failed: {why}"))); batches.len()];
        }
        let stored = self.file.with(|database| {
            let transaction = begin(database)?;
            let answers = append_all(&transaction, batches, &mut logs)?;
            let taken = batches.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
            let kept: Vec<&StoredDelivery> = taken.flat_map(|(batch, _)| &batch.deliveries).collect();
            let mut kept = inbox::store(&transaction, &kept, &self.inbox.read(), unix_ms())?;
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

    /// Publishes the new heads and deliveries of a commit.
    fn publish(&self, batches: &[LogBatch], logs: &HashMap<LogId, (u32, Seq)>, kept: InboxChanges) {
        kept.publish(&mut self.inbox.write());
        let mut moved = Vec::new();
        let mut known = self.logs.write();
        for batch in batches {
            if let (Some(log), Some((_, head))) = (known.get_mut(&batch.log), logs.get(&batch.log))
                && log.head != *head
            {
                log.head = *head;
                self.heads.set(&batch.log, *head);
                moved.push((LogId::clone(&batch.log), log.as_head()));
            }
        }
        drop(known);
        if let Some(head) = &self.head {
            let mut head = head.lock();
            for (log, recorded) in moved {
                head.note(&log, recorded);
            }
        }
    }

    /// Returns the error of a failed transaction for all of its batches, including those that it would have rejected: their
    /// rejections may refer to data that was not stored.
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
        // The caller must read before it continues, even if the file has just been reopened.
        writer.broken = Some(fault.to_string());
        if committing { AppendError::Unknown(fault.to_string()) } else { AppendError::Io(fault.to_string()) }
    }

    /// Reopens after a full disk and returns true if nothing of `batches` was stored.
    fn nothing_stored(&self, writer: &mut Writer, batches: &[LogBatch]) -> bool {
        let heads = || -> Vec<Option<Seq>> {
            let logs = self.logs.read();
            batches.iter().map(|batch| logs.get(&batch.log).map(|log| log.head)).collect()
        };
        let before = heads();
        // Claims and deliveries without entries do not change the heads.
        let bare = |batch: &LogBatch| batch.claims.is_empty() && batch.deliveries.is_empty() && batch.marks.is_empty();
        let traceable = batches.iter().all(|batch| bare(batch) || !batch.entries.is_empty());
        self.reopen_with(writer).is_ok() && traceable && heads() == before
    }

    pub(super) fn reopen_with(&self, writer: &mut Writer) -> Result<(), Fault> {
        let reopened = self.file.reopen().and_then(|()| self.load_logs());
        writer.broken = reopened.as_ref().err().map(Fault::to_string);
        reopened
    }

    pub(super) fn read(&self, name: &str, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, Fault> {
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

    pub(super) fn claim(&self, key: &str) -> Result<Option<Bytes>, Fault> {
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

    pub(super) fn mark(&self, key: &str) -> Result<Option<Bytes>, Fault> {
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

    pub(super) fn trim(&self, name: &str, before: Seq, keep: &[Seq], now: u64) -> Result<(), Fault> {
        let mut writer = self.writer.lock();
        let Some(mut log) = self.logs.read().get(name).cloned() else {
            self.file.with(|_| Ok(()))?;
            return Err(Fault::Io { detail: not_open(&self.file.label(), name).to_string(), full: false });
        };
        log.oldest = log.oldest.max(before.min(log.head + 1));
        let claims = self.transact(&mut writer, |writer, transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            entries.retain_in((log.id, 0)..(log.id, before), |(_, seq), _| keep.binary_search(&seq).is_ok())?;
            store_log(transaction, name, &log)?;
            sweep_claims(&mut transaction.open_table(CLAIMS)?, &mut writer.swept, now)
        })?;
        self.logs.write().insert(name.into(), log);
        self.inbox.write().claims = claims;
        Ok(())
    }

    pub(super) fn rewrite(&self, rewrite: &Rewrite) -> Result<(), Fault> {
        let mut writer = self.writer.lock();
        let Some(log) = self.logs.read().get(&rewrite.log).cloned() else {
            self.file.with(|_| Ok(()))?;
            return Err(Fault::Io { detail: not_open(&self.file.label(), &rewrite.log).to_string(), full: false });
        };
        if rewrite.entries.is_empty() && rewrite.deliveries.is_empty() {
            return self.file.with(|_| Ok(()));
        }
        self.transact(&mut writer, |_, transaction| {
            let mut entries = transaction.open_table(ENTRIES)?;
            for entry in &rewrite.entries {
                if entries.get((log.id, entry.seq))?.is_some() {
                    let sealed = seal(entry_salt(log.id, entry.seq), &[&entry.bytes]);
                    entries.insert((log.id, entry.seq), sealed.as_slice())?;
                }
            }
            note_erased(transaction, OPTIONS)?;
            inbox::remove(transaction, &rewrite.deliveries)
        })?;
        let mut inbox = self.inbox.write();
        rewrite.deliveries.iter().for_each(|id| inbox.remove(id.as_u128()));
        Ok(())
    }

    pub(super) fn claim_room(&self) -> Result<bool, Fault> {
        let mut writer = self.writer.lock();
        if !self.inbox.read().claim_room() && self.inbox.write().may_sweep() {
            let claims = self.transact(&mut writer, |writer, transaction| {
                sweep_claims(&mut transaction.open_table(CLAIMS)?, &mut writer.swept, unix_ms())
            })?;
            self.inbox.write().claims = claims;
        }
        Ok(self.inbox.read().claim_room())
    }
}
